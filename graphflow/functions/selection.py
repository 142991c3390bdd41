"""``x[mask]`` while a function is traced: how many elements a mask chooses isn't known, but what is done to
each of them is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from graphflow.compiler.ir import OPS
from graphflow.compiler.location import Asked, asked_as, where_called
from graphflow.compiler.trace import current_trace
from graphflow.dims import product
from graphflow.dtypes import int64
from graphflow.errors import TraceError
from graphflow.functions.common import (
    Extent,
    cast,
    copied,
    is_one,
    of_size,
    operand,
    reshaped,
    scalar,
)
from graphflow.functions.registry import error
from graphflow.tensor import Tensor, apply, frozen

_REMEDY = (
    "a bool mask selects a number of elements that depends on values, which a compiled function can't have; "
    "use gf.where(mask, x, 0) and sum, or x[mask] = value for writing"
)


@dataclass(eq=False)
class Selection:
    """The elements of `box` that a mask chooses, before it is known how many there are.

    The mask's dimensions stand behind the first `lead` ones of the box, and `rest` are behind them. Operators
    and methods that work on single elements give another selection, to be written back to where it came
    from; ``sum()`` and ``mean()`` give a number. Everything else is a TraceError with the remedy and the line
    (`where`) of the selection.
    """

    box: Tensor
    mask: Tensor
    lead: int
    rest: int
    where: str

    def fits(self, mask: Tensor, lead: int, rest: int) -> bool:
        """Whether an index with this mask chooses the same elements."""
        trace = current_trace()
        same = trace is not None and self.mask._traced_node(trace) is mask._traced_node(trace)
        return same and (self.lead, self.rest) == (lead, rest)

    def mapped(self, name: str, *args: Any, **kwargs: Any) -> Selection:
        """A method of single elements on every one of them."""
        values = [spread(a, self.mask, self.lead, self.rest, name) if _is_value(a) else a for a in args]
        found = getattr(copied(self.box) if name.endswith("_") else self.box, name)(*values, **kwargs)
        return Selection(found, self.mask, self.lead, self.rest, self.where)

    def sum(self) -> Tensor:
        """The sum of the chosen elements."""
        zero = scalar(0, self.box.dtype)
        chosen: Tensor = apply(OPS["where"], self._wide(), self.box, zero).sum()
        return chosen

    def mean(self) -> Tensor:
        """The mean of the chosen elements; NaN if there are none."""
        each = product(s for d, s in enumerate(self.box.type_.shape) if not self._of_mask(d))
        count = cast(cast(self.mask, int64).sum(), self.box.dtype)
        return self.sum() / (count * of_size(each, self.box.dtype))

    def _of_mask(self, d: int) -> bool:
        return self.lead <= d < self.lead + self.mask.ndim

    def _wide(self) -> Tensor:
        return reshaped(self.mask, (*(1,) * self.lead, *self.mask.type_.shape, *(1,) * self.rest))

    @property
    def dtype(self) -> Any:
        """Element type."""
        return self.box.dtype

    @property
    def ndim(self) -> int:
        """Number of dimensions: the chosen elements are one."""
        return self.lead + 1 + self.rest

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not hasattr(Tensor, name):
            raise AttributeError(name)
        if name in _ELEMENTWISE or name.removesuffix("_") in _ELEMENTWISE:
            return lambda *args, **kwargs: self.mapped(name, *args, **kwargs)
        raise self.refused(name)

    def refused(self, name: str) -> Exception:
        """What to raise where the elements themselves are needed."""
        return TraceError(f"{name}: {_REMEDY}{self.where}")

    def __iter__(self) -> Any:
        raise self.refused("iter")

    def __len__(self) -> int:
        raise self.refused("len")

    def __getitem__(self, key: Any) -> Any:
        raise self.refused("index")

    def __bool__(self) -> bool:
        raise self.refused("bool")


_ELEMENTWISE = frozenset({
    "abs", "add", "addcdiv", "addcmul", "bool", "ceil", "clamp", "clamp_max", "clamp_min", "clip", "clone",
    "cos", "cosh", "detach", "div", "divide", "double", "erf", "exp", "exp2", "expm1", "float", "floor",
    "floor_divide", "fmod", "frac", "half", "int", "lerp", "log", "log10", "log1p", "log2", "logical_and",
    "logical_not", "logical_or", "long", "maximum", "minimum", "mul", "multiply", "nan_to_num", "neg",
    "negative", "pow", "reciprocal", "relu", "remainder", "round", "rsqrt", "rsub", "sigmoid", "sign",
    "sin", "sinh", "sqrt", "square", "sub", "subtract", "tan", "tanh", "to", "true_divide", "trunc",
    "type_as",
})  # fmt: skip


def _operator(name: str) -> Callable[..., Any]:
    def call(self: Selection, *others: Any) -> Any:
        return self.mapped(name, *others)

    return call


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor"):
    for _form in (f"__{_name}__", f"__r{_name}__", f"__i{_name}__"):
        setattr(Selection, _form, _operator(_form))
for _name in ("neg", "abs", "invert", "lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Selection, f"__{_name}__", _operator(f"__{_name}__"))


def _is_value(value: Any) -> bool:
    return isinstance(value, (Selection, Tensor))


def selection(box: Tensor, mask: Tensor, lead: int, rest: int) -> Selection:
    """What the elements of a box that a mask chooses are now."""
    trace = current_trace()
    assert trace is not None
    return Selection(copied(box), frozen(mask, trace), lead, rest, where_called())


def spread(value: Any, mask: Tensor, lead: int, rest: int, name: str) -> Any:
    """A value for the chosen elements as one for all elements: of those that aren't chosen, any."""
    if isinstance(value, Selection):
        if not value.fits(mask, lead, rest):
            raise error(
                TraceError, name,
                "elements that one mask selects are used together with those of another one; in a compiled "
                "function both have to be x[mask] with the same mask",
            )  # fmt: skip
        return value.box
    source = operand(value, name, "value")
    if not isinstance(source, Tensor) or source.ndim <= rest:
        return source
    shape = source.type_.shape
    place = source.ndim - rest - 1  # the dimension that runs over the chosen elements
    if is_one(shape[place], "a value for the elements of a mask"):
        return reshaped(source, (*shape[:place], *(1,) * mask.ndim, *shape[place + 1 :]))
    if shape[place] == 0:
        raise error(TraceError, name, _REMEDY)
    taken = apply(OPS["take"], source, _numbers(mask, shape[place]), dim=place)
    return reshaped(taken, (*shape[:place], *mask.type_.shape, *shape[place + 1 :]))


def _numbers(mask: Tensor, given: Extent) -> Tensor:
    """The chosen elements numbered from 0; that there are as many as given is checked when it runs."""
    count = product(mask.type_.shape)
    flat = reshaped(mask, (count,))
    ones = cast(flat, int64)
    number = apply(OPS["sub"], ones.cumsum(0), scalar(1, int64))
    total, wanted = ones.sum(), of_size(given, int64)
    beyond = apply(OPS["add"], total, of_size(given + 1, int64))
    with asked_as(Asked("setitem", from_zero=False, counted=True)):
        agreed = apply(
            OPS["checked_index"],
            apply(OPS["where"], apply(OPS["eq"], total, wanted), scalar(0, int64), beyond),
            size=given + 1,
        )
    return apply(OPS["add"], apply(OPS["where"], flat, number, scalar(0, int64)), agreed)


__all__ = ["Selection", "selection", "spread"]

"""Methods with a trailing underscore: the function's result put back into the handle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphflow.aliasing import unwritable
from graphflow.compiler.ir import format_shape
from graphflow.compiler.trace import current_trace
from graphflow.dtypes import can_cast
from graphflow.errors import DTypeError, GradientError, ShapeError
from graphflow.functions import choose, cumulative, gamma, linalg, logic, placed, scatter, shape, special
from graphflow.functions import elementwise as el
from graphflow.functions import error_functions as errors
from graphflow.functions import index as positions
from graphflow.functions.assignment import fitted, written
from graphflow.functions.common import Operand, cast, expanded, operand, scalar, tensor_arg
from graphflow.functions.output import same_shape
from graphflow.functions.registry import error, public
from graphflow.functions.subscript import Basic, basic, check_range, parse
from graphflow.tensor import Tensor, is_grad_enabled


def stored(self: Tensor, value: Tensor, name: str) -> Tensor:
    """Puts a computed value into a handle: converted to its dtype, if that keeps the category, and of its
    shape.
    """
    if value.dtype is not self.dtype:
        if not can_cast(value.dtype, self.dtype):
            raise error(
                DTypeError, name,
                f"result type {value.dtype} can't be put into the {self.dtype} tensor in place; use the "
                "function without _",
            )  # fmt: skip
        value = cast(value, self.dtype)
    if not same_shape(self.type_.shape, value.type_.shape):
        raise error(
            ShapeError, name,
            f"output with shape {format_shape(self.type_.shape)} doesn't match the broadcast shape "
            f"{format_shape(value.type_.shape)}",
        )  # fmt: skip
    return self._assign(value)


# PyTorch has these as functions, too: ``relu_(x)``.
_FUNCTIONS = frozenset((
    "abs_", "acos_", "acosh_", "addmv_", "arccos_", "arccosh_", "arcsin_", "arcsinh_", "arctan_", "arctanh_",
    "asin_", "asinh_", "atan_", "atanh_", "ceil_", "clamp_", "clamp_max_", "clamp_min_", "clip_", "cos_",
    "cosh_", "deg2rad_", "erf_", "erfc_", "exp_", "exp2_", "expm1_", "fix_", "floor_", "frac_", "gcd_", "i0_",
    "index_put_", "lcm_", "ldexp_", "log_", "log10_", "log1p_", "log2_", "logit_", "nan_to_num_", "neg_",
    "negative_", "rad2deg_", "reciprocal_", "relu_", "round_", "rsqrt_", "sigmoid_", "sin_", "sinc_", "sinh_",
    "sqrt_", "square_", "tan_", "tanh_", "trunc_", "xlogy_",
))  # fmt: skip
IN_PLACE: dict[str, Callable[..., Tensor]] = {}


def _in_place(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return stored(self, function(self, *args, **kwargs), name + "_")

    method.__doc__ = f"`{name}` in place."
    method.__module__ = __name__
    method.__name__ = name + "_"
    made = public(name + "_", function=False)(method)
    if name + "_" in _FUNCTIONS:
        IN_PLACE[name + "_"] = made
    return made


add_ = _in_place("add", el.add)
sub_ = _in_place("sub", el.sub)
mul_ = _in_place("mul", el.mul)
div_ = _in_place("div", el.div)
pow_ = _in_place("pow", el.pow_)
_RESULTS: dict[str, Callable[..., Tensor]] = {
    "subtract": el.sub, "multiply": el.mul, "divide": el.div, "floor_divide": el.floor_divide,
    "remainder": el.remainder, "fmod": el.fmod, "neg": el.neg, "abs": el.abs_, "sign": el.sign,
    "square": el.square, "reciprocal": el.reciprocal, "exp": el.exp, "exp2": el.exp2, "expm1": el.expm1,
    "log": el.log, "log1p": el.log1p, "log2": el.log2, "log10": el.log10, "sqrt": el.sqrt, "rsqrt": el.rsqrt,
    "sin": el.sin, "cos": el.cos, "tan": el.tan, "asin": el.asin, "acos": el.acos, "atan": el.atan,
    "sinh": el.sinh, "cosh": el.cosh, "tanh": el.tanh, "sigmoid": el.sigmoid, "erf": el.erf, "erfc": el.erfc,
    "relu": el.relu, "floor": el.floor, "ceil": el.ceil, "trunc": el.trunc, "round": el.round_,
    "frac": el.frac, "clamp": choose.clamp, "clip": choose.clamp, "clamp_min": choose.clamp_min,
    "clamp_max": choose.clamp_max, "lerp": el.lerp, "addcmul": el.addcmul, "addcdiv": el.addcdiv,
    "masked_fill": choose.masked_fill, "nan_to_num": logic.nan_to_num, "bitwise_and": logic.bitwise_and,
    "bitwise_or": logic.bitwise_or, "bitwise_xor": logic.bitwise_xor, "bitwise_not": logic.bitwise_not,
}  # fmt: skip
_RESULTS |= {
    "scatter": scatter.scatter, "scatter_reduce": scatter.scatter_reduce, "index_copy": scatter.index_copy,
    "index_fill": scatter.index_fill, "masked_scatter": scatter.masked_scatter,
    "index_put": positions.index_put, "put": placed.put, "index_reduce": placed.index_reduce,
    "index_add": positions.index_add, "scatter_add": positions.scatter_add,
    "cumsum": cumulative.cumsum,
    "cumprod": cumulative.cumprod, "renorm": special.renorm, "xlogy": special.xlogy,
    "copysign": special.copysign, "hypot": special.hypot, "sinc": special.sinc,
    "lgamma": gamma.lgamma, "digamma": gamma.digamma, "gcd": gamma.gcd, "lcm": gamma.lcm,
    "nextafter": gamma.nextafter, "heaviside": special.heaviside, "ldexp": special.ldexp,
    "float_power": special.float_power, "erfinv": errors.erfinv, "i0": errors.i0,
    "mvlgamma": errors.mvlgamma, "polygamma": errors.polygamma_of,
}  # fmt: skip
_RESULTS |= {
    "absolute": el.abs_, "negative": el.neg, "sgn": el.sign, "fix": el.trunc, "deg2rad": el.deg2rad,
    "rad2deg": el.rad2deg, "arcsin": el.asin, "arccos": el.acos, "arctan": el.atan, "asinh": el.asinh,
    "acosh": el.acosh, "atanh": el.atanh, "arcsinh": el.asinh, "arccosh": el.acosh, "arctanh": el.atanh,
    "atan2": el.atan2, "arctan2": el.atan2, "true_divide": el.true_divide, "logit": choose.logit,
    "tril": shape.tril, "triu": shape.triu, "addmm": linalg.addmm, "addmv": linalg.addmv,
    "baddbmm": linalg.baddbmm, "addbmm": linalg.addbmm, "addr": linalg.addr,
    "bitwise_left_shift": logic.bitwise_left_shift,
    "bitwise_right_shift": logic.bitwise_right_shift,
}  # fmt: skip
for _name, _function in _RESULTS.items():
    _in_place(_name, _function)


def _logical_in_place(name: str, function: Callable[..., Tensor]) -> None:
    def method(self: Tensor, *args: Any) -> Tensor:
        return stored(self, cast(function(self, *args), self.dtype), name + "_")

    method.__doc__ = f"`{name}` in place, the result as 0 and 1 in this tensor's dtype."
    method.__module__ = __name__
    method.__name__ = name + "_"
    public(name + "_", function=False)(method)


_TRUTHS: dict[str, Callable[..., Tensor]] = {
    "eq": logic.eq, "ne": logic.ne, "lt": logic.lt, "le": logic.le, "gt": logic.gt, "ge": logic.ge,
    "logical_and": logic.logical_and, "logical_or": logic.logical_or, "logical_xor": logic.logical_xor,
    "logical_not": logic.logical_not, "not_equal": logic.ne, "less": logic.lt, "less_equal": logic.le,
    "greater": logic.gt, "greater_equal": logic.ge,
}  # fmt: skip
for _name, _function in _TRUTHS.items():
    _logical_in_place(_name, _function)


@public(function=False)
def copy_(self: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """Takes the elements of `src`, broadcast to this shape and converted to this dtype."""
    source = cast(tensor_arg(src, "copy_", "src"), self.dtype)
    try:
        source = expanded(source, self.type_.shape)
    except ShapeError:
        raise error(ShapeError, "copy_", f"{source.type_} can't be broadcast to {self.type_}") from None
    if source is src and not source.is_traced and current_trace() is None:
        source = source.reshape(source.type_.shape)  # a node of its own, which may be overwritten
    return self._assign(source)


@public(function=False)
def fill_(self: Tensor, value: Any) -> Tensor:
    """Sets every element to one value."""
    filler = operand(value, "fill_", "value")
    if isinstance(filler, Tensor) and filler.ndim:
        raise error(ShapeError, "fill_", f"takes a number or a 0-d tensor, got {filler.type_}")
    return self._assign(fitted(filler, self.type_.shape, self, "fill_"))


@public(function=False)
def fill_diagonal_(self: Tensor, fill_value: Any, wrap: bool = False) -> Tensor:
    """Sets the main diagonal to one value; with `wrap`, that of a tall matrix begins again below it."""
    return stored(self, placed.diagonal_filled(self, fill_value, wrap), "fill_diagonal_")


@public(function=False)
def zero_(self: Tensor) -> Tensor:
    """Sets every element to zero."""
    return self._assign(expanded(scalar(0, self.dtype), self.type_.shape))


@public(name="__setitem__", function=False)
def setitem(self: Tensor, key: Any, value: Operand) -> None:
    """``x[key] = value``: integers, slices, ``None``, ``...``, masks and integer tensors, the last of several
    writes to a place winning.
    """
    if current_trace() is None and not _carries_gradient(self, value):
        _write_memory(self, parse(key, self.type_.shape), value)
    else:
        self._assign(written(self, key, value))


def _carries_gradient(self: Tensor, value: Any) -> bool:
    return is_grad_enabled() and (self.requires_grad or (isinstance(value, Tensor) and value.requires_grad))


def _write_memory(self: Tensor, parsed: Basic, value: Operand) -> None:
    """Writes through a view: costs what is written, not what the tensor holds."""
    box = basic(self.detach(), parsed)
    if not parsed.advanced:
        box._assign(fitted(value, box.type_.shape, self, "setitem"))
        return
    for dim, index in parsed.advanced:
        check_range(index, box.type_.shape[dim], dim)
    places: list[Any] = [slice(None)] * box.ndim
    for dim, index in parsed.advanced:
        places[dim] = index.numpy()
    memory = box.numpy()
    source = fitted(value, memory[tuple(places)].shape, self, "setitem").detach().numpy()
    if not memory.flags.writeable:
        raise error(
            GradientError,
            "setitem",
            unwritable(memory),
        )
    memory[tuple(places)] = source
    box._storage.version += 1


IN_PLACE |= {"fill_": fill_, "zero_": zero_}

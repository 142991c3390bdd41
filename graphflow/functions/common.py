"""What all functions on tensors share: operands, type promotion, dimensions and shapes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from graphflow import dtypes
from graphflow.compiler import ops  # fills the registry that every function draws on
from graphflow.compiler.ir import OPS, Node, broadcast_shapes, equal_size, format_shape
from graphflow.compiler.trace import current_trace
from graphflow.dims import Dim, divide, product
from graphflow.dtypes import DType, bool_, float32, float64, int64
from graphflow.errors import DTypeError, IndexRangeError, ShapeError
from graphflow.functions.registry import error
from graphflow.sizes import SymbolicSize, unwrap
from graphflow.tensor import Tensor, apply, constant

assert ops.__all__

Number = bool | int | float | SymbolicSize
Operand = Tensor | Number
Extent = int | Dim
Dims = int | Sequence[int] | None


# ---------------------------------------------------------------------------------------------- operands


def is_operand(value: object) -> bool:
    """Whether operators accept `value` beside a tensor."""
    return isinstance(value, (Tensor, bool, int, float, SymbolicSize, np.ndarray, np.generic))


def of_array(array: np.ndarray, name: str = "from_numpy") -> Tensor:
    """A tensor on an array's own memory; DTypeError for element types graphflow doesn't have."""
    if array.dtype.name not in _NAMES:
        hint = "; strings have to be encoded as numbers first" if array.dtype.kind in "US" else ""
        raise error(
            DTypeError,
            name,
            f"no tensor holds elements of NumPy dtype {array.dtype}{hint}; there are {_LIST}",
        )
    if not array.dtype.isnative:
        raise error(
            DTypeError, name, f"byte order of {array.dtype!r} isn't this machine's; convert with .astype()"
        )
    return Tensor.holding(np.asarray(array))


_NAMES = frozenset(t.name for t in dtypes.ALL)
_LIST = ", ".join(t.name for t in dtypes.ALL)


def tensor_arg(value: Any, name: str, argument: str = "input") -> Tensor:
    """A tensor argument: a Tensor, or a NumPy array (its memory shared); DTypeError for everything else."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray):
        return of_array(value, name)
    raise _unfit(
        value,
        name,
        f"argument {argument!r} must be a Tensor, not {type(value).__name__}; make one with gf.tensor()",
    )


def operand(value: Any, name: str, argument: str = "other") -> Tensor | bool | int | float | SymbolicSize:
    """A tensor or Python number; NumPy scalars count as numbers, NumPy arrays as tensors."""
    if isinstance(value, (Tensor, bool, int, float, SymbolicSize)):
        return value
    if isinstance(value, np.ndarray):
        return of_array(value, name)
    if isinstance(value, np.generic) and (value.dtype.kind in "biuf" or dtypes.is_bfloat16(value.dtype)):
        return value.item()  # type: ignore[no-any-return]
    raise _unfit(
        value, name, f"argument {argument!r} must be a Tensor or a number, not {type(value).__name__}"
    )


def _unfit(value: Any, name: str, message: str) -> Exception:
    """What to raise for a value that is no tensor; some know a better reason."""
    refused = getattr(value, "refused", None)
    return error(DTypeError, name, message) if refused is None else refused(name)


def scalar(value: Number, dtype: DType) -> Tensor:
    """A Python number as a 0-d constant; integers wrap and floats round to `dtype` as in PyTorch."""
    if isinstance(value, SymbolicSize):
        return constant(value, dtype)
    if dtype.kind == "int":
        bits = dtype.itemsize * 8
        value = int(value) & ((1 << bits) - 1)
        if dtype.name != "uint8" and value >> (bits - 1):
            value -= 1 << bits
        return constant(value, dtype)
    with np.errstate(all="ignore"):
        return constant(value, dtype)


def of_size(size: Extent, dtype: DType) -> Tensor:
    """A size, possibly symbolic, as a 0-d constant."""
    return constant(size, dtype)


def _number_dtype(value: Number) -> DType:
    if isinstance(value, bool):
        return bool_
    return dtypes.get_default_dtype() if isinstance(value, float) else int64


def _is_weak(t: Tensor) -> bool:
    """Whether a tensor stands for a Python float that the traced function was called with."""
    trace, node = t._trace, t._node
    return trace is not None and node is not None and node.type.shape == () and trace.is_weak(node)


def result_dtype(*values: Operand) -> DType:
    """The dtype of an operation's result, by PyTorch's ``result_type``.

    Tensors with dimensions decide; 0-d tensors, and then Python numbers, only raise the category (bool,
    integer, floating point).
    """
    first = values[0] if values else None
    if isinstance(first, Tensor) and first.ndim:  # most operations: dtypes of tensors with dimensions agree
        dtype = first.dtype
        if all([isinstance(v, Tensor) and v.ndim and v.dtype is dtype for v in values]):
            return dtype
    ranked: list[DType | None] = [None, None, None]
    weak = [isinstance(v, Tensor) and _is_weak(v) for v in values]
    if any(weak) and all(w or not isinstance(v, Tensor) for v, w in zip(values, weak, strict=True)):
        return float64  # Python's own arithmetic
    for value, is_weak in zip(values, weak, strict=True):
        if not isinstance(value, Tensor):
            level, dtype = 2, _number_dtype(value)
        elif is_weak:
            level, dtype = 2, dtypes.get_default_dtype()
        else:
            level, dtype = (0 if value.ndim else 1), value.dtype
        held = ranked[level]
        ranked[level] = dtype if held is None else dtypes.promote(held, dtype)
    given = [dtype for dtype in reversed(ranked) if dtype is not None]
    result = given[0]
    for dtype in given[1:]:
        if _CATEGORY[dtype.kind] >= _CATEGORY[result.kind]:
            result = dtype
    return result


_CATEGORY = {"bool": 0, "int": 1, "float": 2}


def cast(t: Tensor, dtype: DType) -> Tensor:
    """`t` in another dtype, itself if it has it."""
    return t if t.dtype is dtype else apply(OPS["cast"], t, dtype=dtype)


def copied(t: Tensor) -> Tensor:
    """The same values in memory of their own; gradients flow through."""
    return apply(OPS["cast"], t, dtype=t.dtype)


def unshared(t: Tensor, source: Tensor) -> Tensor:
    """`t`, or a copy of it where it may lie in the memory of `source`."""
    shares = t is source or t._alias is not None or (t._array is not None and t._storage is source._storage)
    return copied(t) if shares else t


def in_dtype(value: Operand, dtype: DType) -> Tensor:
    """An operand as a tensor of `dtype`."""
    return cast(value, dtype) if isinstance(value, Tensor) else scalar(value, dtype)


def promoted(name: str, *values: Any, floating: bool = False) -> list[Tensor]:
    """Operands as tensors of their common dtype; with `floating`, integers become the default float dtype."""
    found = [operand(v, name, "input" if i == 0 else "other") for i, v in enumerate(values)]
    dtype = result_dtype(*found)
    if floating and dtype.kind != "float":
        dtype = dtypes.get_default_dtype()
    return [in_dtype(v, dtype) for v in found]


def applied(op: str, name: str, *values: Any, floating: bool = False) -> Tensor:
    """A primitive on operands in their common dtype.

    What meets a tensor of 16-bit floats and isn't one itself (a number, a 0-d tensor of another dtype) takes
    part in float32, as in PyTorch, and isn't rounded before.
    """
    found = [operand(v, name, "input" if i == 0 else "other") for i, v in enumerate(values)]
    dtype = result_dtype(*found)
    if floating and dtype.kind != "float":
        dtype = dtypes.get_default_dtype()
    if dtype.is_half and any(not (isinstance(v, Tensor) and v.dtype is dtype) for v in found):
        return cast(apply(OPS[op], *(in_dtype(v, float32) for v in found)), dtype)
    return apply(OPS[op], *(in_dtype(v, dtype) for v in found))


Body = TypeVar("Body", bound=Callable[..., Any])


def rounded_once(body: Body) -> Body:
    """Lets a composition of several ops run in float32 on 16-bit floats, and rounds only what it gives.

    Its tensors are its positional arguments.
    """

    @functools.wraps(body)
    def call(*args: Any, **kwargs: Any) -> Any:
        dtype = next((a.dtype for a in args if isinstance(a, Tensor) and a.dtype.is_half), None)
        if dtype is None or result_dtype(*(a for a in args if isinstance(a, Tensor))) is not dtype:
            return body(*args, **kwargs)
        wide = [cast(a, float32) if isinstance(a, Tensor) and a.dtype is dtype else a for a in args]
        found = body(*wide, **kwargs)
        if isinstance(found, tuple):
            return tuple(cast(v, dtype) if v.dtype is float32 else v for v in found)
        return cast(found, dtype) if found.dtype is float32 else found

    return call  # type: ignore[return-value]


def as_float(value: Any, name: str) -> Tensor:
    """A tensor argument; integers and bools become the default float dtype."""
    t = tensor_arg(value, name)
    return t if t.dtype.kind == "float" else cast(t, dtypes.get_default_dtype())


def require_float(t: Tensor, name: str) -> Tensor:
    """`t`, or DTypeError if it isn't floating point."""
    if t.dtype.kind != "float":
        raise error(DTypeError, name, f"needs a floating point tensor, got {t.type_}; convert with .float()")
    return t


def as_dtype(dtype: object) -> DType:
    """The DType behind anything that names one."""
    return dtypes.as_dtype(dtype)


def logical(value: Tensor) -> Tensor:
    """Whether elements are not zero."""
    return value if value.dtype is bool_ else apply(OPS["ne"], value, scalar(0, value.dtype))


# ---------------------------------------------------------------------------------------------- dimensions


def is_index(value: Any) -> bool:
    """Whether a value is an integer and no bool; an array or a tensor that is one counts."""
    if type(value) is int:
        return True
    if isinstance(value, np.ndarray):
        return value.ndim == 0 and value.dtype.kind in "iu"
    if isinstance(value, Tensor):
        return not value.ndim and value.dtype.kind == "int"
    return hasattr(value, "__index__") and not isinstance(value, bool)


def dim_arg(dim: Any, ndim: int, name: str) -> int:
    """One dimension counted from the front; a 0-d tensor counts as having one."""
    if not is_index(dim):
        raise error(DTypeError, name, f"a dimension is an integer, not {type(dim).__name__}")
    dim = dim.__index__()
    n = max(ndim, 1)
    if not -n <= dim < n:
        raise error(
            IndexRangeError, name,
            f"Dimension out of range (expected to be in range of [{-n}, {n - 1}], but got {dim})",
        )  # fmt: skip
    return dim % n  # type: ignore[no-any-return]


def axis_arg(dim: Any, t: Tensor, name: str) -> int:
    """`dim_arg` of a tensor that needs to have dimensions."""
    if not t.ndim:
        raise error(ShapeError, name, f"expects at least a 1-dimensional tensor, got {t.type_}")
    return dim_arg(dim, t.ndim, name)


def dims_arg(dim: Dims, ndim: int, name: str) -> tuple[int, ...]:
    """Sorted dimensions; None and () mean all of them."""
    if dim is None:
        return tuple(range(ndim))
    if isinstance(dim, (list, tuple)):
        found = tuple(sorted(dim_arg(d, ndim, name) for d in dim))
        if len(set(found)) != len(found):
            raise error(IndexRangeError, name, f"dimension appears twice in {tuple(dim)}")
        return found if ndim and found else tuple(range(ndim))
    found = (dim_arg(dim, ndim, name),)
    return found if ndim else ()


def shape_args(sizes: tuple[Any, ...], name: str) -> tuple[Extent, ...]:
    """Sizes given one by one or as one sequence, unwrapped."""
    if len(sizes) == 1 and isinstance(sizes[0], (list, tuple)):
        sizes = tuple(sizes[0])
    found = []
    for size in sizes:
        if isinstance(size, Dim):
            found.append(size)
        elif not is_index(size):
            raise error(
                DTypeError, name, f"sizes have to be integers, got {type(size).__name__} in {tuple(sizes)}"
            )
        else:
            found.append(unwrap(size))  # type: ignore[arg-type]
    return tuple(found)


def new_shape_args(sizes: tuple[Any, ...], name: str) -> tuple[Extent, ...]:
    """`shape_args` where no size may be negative."""
    found = shape_args(sizes, name)
    if any(isinstance(s, int) and s < 0 for s in found):
        raise error(ShapeError, name, f"sizes can't be negative, got {format_shape(found)}")
    return found


def infer_size(shape: tuple[Extent, ...], source: tuple[Extent, ...], name: str) -> tuple[Extent, ...]:
    """`shape` with its -1 replaced by what `source`'s number of elements leaves."""
    unknown = [i for i, s in enumerate(shape) if isinstance(s, int) and s == -1]
    if any(isinstance(s, int) and s < -1 for s in shape) or len(unknown) > 1:
        raise error(ShapeError, name, f"can't take {format_shape(shape)}: one size may be -1, none less")
    if not unknown:
        return shape
    total, known = product(source), product(s for i, s in enumerate(shape) if i != unknown[0])
    size = divide(total, known) if known != 0 else None
    if size is None:
        size = _pinned_quotient(total, known, shape, source, name)
    return (*shape[: unknown[0]], size, *shape[unknown[0] + 1 :])


def _pinned_quotient(
    total: Extent, known: Extent, shape: tuple[Extent, ...], source: tuple[Extent, ...], name: str
) -> int:
    """The missing size where symbols alone don't tell it: numbers decide, and the trace is pinned to them."""
    trace = current_trace()
    if trace is not None:
        reason = f"reshaping {format_shape(source)} to {format_shape(shape)}"
        total, known = trace.pin(total, reason), trace.pin(known, reason)
    assert isinstance(total, int) and isinstance(known, int)
    if known == 0 or total % known:
        raise error(
            ShapeError,
            name,
            f"shape {format_shape(shape)} is invalid for input of size {total}, {format_shape(source)}",
        )
    return total // known


def reshaped(t: Tensor, shape: tuple[Extent, ...]) -> Tensor:
    """`t` in another shape with as many elements."""
    return apply(OPS["reshape"], t, shape=shape)


def expanded(t: Tensor, shape: tuple[Extent, ...]) -> Tensor:
    """`t` broadcast to `shape`; a view."""
    return t if t.type_.shape == shape else apply(OPS["expand"], t, shape=shape)


def without(shape: tuple[Extent, ...], dims: Sequence[int]) -> tuple[Extent, ...]:
    """`shape` with some dimensions left out."""
    return tuple(s for d, s in enumerate(shape) if d not in dims)


def same_size(a: Extent, b: Extent, name: str, what: str) -> Extent:
    """`a` and `b` as one size; ShapeError that says what differs."""
    if isinstance(a, int) and isinstance(b, int) and a != b:
        raise error(ShapeError, name, f"{what}: sizes {a} and {b} differ")
    return equal_size(a, b)


def broadcast(*tensors: Tensor) -> tuple[Extent, ...]:
    """The shape tensors broadcast to."""
    return broadcast_shapes(*(t.type_.shape for t in tensors))


def traced(node: Node) -> Tensor:
    """A new handle on a node of the current trace."""
    trace = current_trace()
    assert trace is not None
    return Tensor.of_node(node, trace)


def at_least(size: Extent, least: Extent) -> bool:
    """Whether a size is `least` or more; in a compiled function, at the calls that this variant is for."""
    excess = size - least
    if isinstance(excess, int):
        return excess >= 0
    trace = current_trace()
    return trace is None or trace.is_natural(excess)


def is_one(size: Extent, why: str) -> bool:
    """Whether a size is 1, for what changes its meaning then; the compiled variant is good for such sizes."""
    trace = current_trace()
    return size == 1 if isinstance(size, int) or trace is None else trace.is_one(size, why)


def pinned(size: Extent, why: str) -> int:
    """The number that a size is; a symbolic one fixes its symbols for this compiled variant."""
    trace = current_trace()
    return size if isinstance(size, int) else trace.pin(size, why) if trace is not None else int(str(size))

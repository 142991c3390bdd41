"""Making tensors from Python data, NumPy arrays, and sizes.

Inside a compiled function the ones made from sizes become part of the graph; ``tensor`` of Python data is a
value that the graph captures, of an array a copy that is made at every call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphflow.compiler.ir import OPS
from graphflow.compiler.trace import current_trace
from graphflow.dims import Dim
from graphflow.dtypes import ALL, DType, float32, float64, get_default_dtype, int64
from graphflow.errors import DeviceError, DTypeError, ShapeError, TraceError
from graphflow.functions.arguments import fits, misfit
from graphflow.functions.common import (
    Extent,
    as_dtype,
    cast,
    copied,
    expanded,
    in_dtype,
    new_shape_args,
    of_array,
    operand,
    reshaped,
    result_dtype,
    scalar,
    tensor_arg,
    traced,
)
from graphflow.functions.registry import error, public, spread
from graphflow.memory import made_of_numbers
from graphflow.runtime.device import as_device, check
from graphflow.sizes import SymbolicSize, unwrap
from graphflow.tensor import Tensor, apply

__all__ = [
    "arange", "as_tensor", "asarray", "empty", "empty_like", "eye", "from_dlpack", "from_numpy", "full",
    "full_like", "linspace", "ones", "ones_like", "tensor", "zeros", "zeros_like",
]  # fmt: skip


def finished(t: Tensor, device: Any, requires_grad: bool) -> Tensor:
    """What every creation function does last: checks the device, sets requires_grad."""
    if device is not None:
        on_cpu(device)
    return t.requires_grad_() if requires_grad else t


def on_cpu(device: Any) -> None:
    """DeviceError unless `device` is there and is the CPU."""
    found = as_device(device)
    check(found)
    if found.type != "cpu":
        raise DeviceError(f"tensors live on the CPU; {found!r} can't hold them")


# ---------------------------------------------------------------------------------------------- from data


@public(method=False)
def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A new tensor with a copy of `data`: a number, (nested) sequence of numbers, NumPy array or tensor.

    Python floats become the default dtype, integers int64; arrays and tensors keep their dtype.
    """
    wanted = None if dtype is None else as_dtype(dtype)
    if isinstance(data, np.ndarray) and data.dtype.isnative and current_trace() is not None:
        data = of_array(data, "tensor")  # whose numbers may change between calls
    if isinstance(data, Tensor):
        made = copied(data.detach() if wanted is None else cast(data.detach(), wanted))
    else:
        made = Tensor.holding(_array_of(data, wanted))
        made_of_numbers(made)
    return finished(made, device, requires_grad)


def _array_of(data: Any, dtype: DType | None) -> np.ndarray:
    """A fresh C-contiguous array; DTypeError or ShapeError for what isn't a rectangle of numbers."""
    if isinstance(data, np.ndarray):
        array = data if data.dtype.isnative else data.astype(data.dtype.newbyteorder("="))
        of_array(array, "tensor")
        return _converted(array, dtype or as_dtype(array.dtype))
    if isinstance(data, (list, tuple)):
        data = _plain(data)
    try:
        array = np.array(data)
    except (ValueError, TypeError) as problem:
        raise error(ShapeError, "tensor", f"the nested sequences don't form a rectangle: {problem}") from None
    if array.dtype.name not in _STORED:
        raise error(
            DTypeError,
            "tensor",
            f"{_describe(data, array)} can't be put into a tensor; it holds numbers and bools",
        )
    if dtype is not None and dtype.kind == "int":
        _require_fits(array, dtype)
    if dtype is None:
        of_floats = array.dtype == np.float64 and not _holds_arrays(data)
        dtype = get_default_dtype() if of_floats else as_dtype(array.dtype)
    return _converted(array, dtype)


def _require_fits(array: np.ndarray, dtype: DType) -> None:
    limits = np.iinfo(dtype.numpy)
    if array.dtype.kind == "i" and array.size and (array.min() < limits.min or array.max() > limits.max):
        raise error(
            DTypeError,
            "tensor",
            f"a value doesn't fit into {dtype}, which holds {limits.min} to {limits.max}",
        )


_STORED = {dtype.name for dtype in ALL}


def _converted(array: np.ndarray, dtype: DType) -> np.ndarray:
    """A C-contiguous copy in `dtype`, with the conversion rules of ``.to``."""
    if array.dtype == dtype.numpy:
        return np.array(array, order="C", copy=True, subok=False)
    made = np.asarray(OPS["cast"].numpy(array, dtype=dtype))
    return np.array(made, order="C", copy=True, subok=False)


def _plain(data: Sequence[Any]) -> list[Any]:
    """Nested sequences with tensors in them replaced by their numbers."""
    found: list[Any] = []
    for item in data:
        if isinstance(item, Tensor):
            if item.is_traced:
                raise error(
                    TraceError, "tensor", "can't copy the numbers of a traced value; use gf.stack([...])"
                )
            item = item.detach().numpy()
        elif isinstance(item, (list, tuple)):
            item = _plain(item)
        elif isinstance(item, SymbolicSize):
            item = int(item)
        found.append(item)
    return found


def _holds_arrays(data: Any) -> bool:
    if isinstance(data, list):
        return any(_holds_arrays(item) for item in data)
    return isinstance(data, (np.ndarray, np.generic))


def _describe(data: Any, array: np.ndarray) -> str:
    if array.dtype.kind in "US":
        return "text"
    if array.dtype.kind == "O":
        strange = next((x for x in array.flat if not isinstance(x, (int, float))), None)
        if strange is None and data is not None and None not in array.flat:
            return "an integer beyond 64 bits"
        return f"a value of type {type(strange).__name__}"
    return "an integer beyond 64 bits" if array.dtype == np.uint64 else f"data of NumPy dtype {array.dtype}"


@public(method=False)
def from_numpy(ndarray: np.ndarray) -> Tensor:
    """A tensor on the array's own memory: changes of either are seen in both."""
    if not isinstance(ndarray, np.ndarray):
        raise error(
            DTypeError, "from_numpy", f"expected a NumPy array, got {type(ndarray).__name__}; use gf.tensor()"
        )
    return of_array(ndarray)


@public(method=False, aliases=("asarray",))
def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """`data` as a tensor, without a copy where it is a tensor or array of that dtype already."""
    if device is not None:
        on_cpu(device)
    if isinstance(data, np.ndarray) and data.dtype.isnative:
        data = of_array(data, "as_tensor")
    if isinstance(data, Tensor):
        return data if dtype is None else cast(data, as_dtype(dtype))
    return tensor(data, dtype=dtype)


@public(method=False)
def from_dlpack(ext_tensor: Any) -> Tensor:
    """A tensor on the memory of any object with ``__dlpack__`` that lies on the CPU."""
    if not hasattr(ext_tensor, "__dlpack__"):
        given = type(ext_tensor).__name__
        raise error(DTypeError, "from_dlpack", f"ext_tensor needs a method __dlpack__, which {given} has not")
    return of_array(np.from_dlpack(ext_tensor))


# ---------------------------------------------------------------------------------------------- filled


def filled(shape: tuple[Extent, ...], value: Any, dtype: DType) -> Tensor:
    """A tensor of one value: fresh memory, or while tracing a constant of the graph."""
    constant = in_dtype(value, dtype)
    if current_trace() is not None:
        if shape or constant.is_traced:
            return apply(OPS["expand"], constant, shape=shape)
        assert constant._node is not None
        return traced(constant._node)
    return Tensor.holding(np.array(expanded(constant, shape)._concrete("a fill", "")))


@public(method=False)
def full(
    size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of shape `size` filled with one value, whose type decides the dtype unless given."""
    value = operand(fill_value, "full", "fill_value")
    wanted = as_dtype(dtype) if dtype is not None else result_dtype(value)
    shape = new_shape_args((size,), "full")
    return finished(filled(shape, value, wanted), device, requires_grad)


@public(method=False)
def zeros(
    *sizes: Any, size: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Zeros, of the default dtype unless `dtype` says otherwise."""
    return finished(filled(_sizes(sizes, size, "zeros"), 0, _or_default(dtype)), device, requires_grad)


@public(method=False)
def ones(
    *sizes: Any, size: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Ones, of the default dtype unless `dtype` says otherwise."""
    return finished(filled(_sizes(sizes, size, "ones"), 1, _or_default(dtype)), device, requires_grad)


@public(method=False)
def empty(
    *sizes: Any, size: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A tensor whose elements are to be written before they are read; they are zeros, so that runs repeat."""
    return finished(filled(_sizes(sizes, size, "empty"), 0, _or_default(dtype)), device, requires_grad)


def _sizes(sizes: tuple[Any, ...], size: Any, name: str) -> tuple[Extent, ...]:
    return new_shape_args(spread(name, sizes, size, "size"), name)


def _or_default(dtype: Any) -> DType:
    return get_default_dtype() if dtype is None else as_dtype(dtype)


def _like(name: str, value: Any, input: Any, dtype: Any, device: Any, requires_grad: bool) -> Tensor:
    t = tensor_arg(input, name)
    return finished(
        filled(t.type_.shape, value, t.dtype if dtype is None else as_dtype(dtype)), device, requires_grad
    )


@public(method=False)
def zeros_like(
    input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Zeros of input's shape and dtype."""
    return _like("zeros_like", 0, input, dtype, device, requires_grad)


@public(method=False)
def ones_like(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones of input's shape and dtype."""
    return _like("ones_like", 1, input, dtype, device, requires_grad)


@public(method=False)
def empty_like(
    input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of input's shape and dtype, to be written before it is read."""
    return _like("empty_like", 0, input, dtype, device, requires_grad)


@public(method=False)
def full_like(
    input: Tensor, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """One value in input's shape and dtype."""
    return _like(
        "full_like", operand(fill_value, "full_like", "fill_value"), input, dtype, device, requires_grad
    )


@public(function=False)
def new_tensor(
    self: Tensor, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A copy of `data` in this tensor's dtype."""
    return tensor(
        data, dtype=self.dtype if dtype is None else dtype, device=device, requires_grad=requires_grad
    )


@public(function=False)
def new_zeros(
    self: Tensor, *sizes: Any, size: Any = None, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Zeros of this tensor's dtype."""
    return zeros(
        *sizes, size=size, dtype=self.dtype if dtype is None else dtype, device=device,
        requires_grad=requires_grad,
    )  # fmt: skip


@public(function=False)
def new_ones(
    self: Tensor, *sizes: Any, size: Any = None, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Ones of this tensor's dtype."""
    return ones(
        *sizes, size=size, dtype=self.dtype if dtype is None else dtype, device=device,
        requires_grad=requires_grad,
    )  # fmt: skip


@public(function=False)
def new_empty(
    self: Tensor, *sizes: Any, size: Any = None, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """A tensor of this tensor's dtype, to be written before it is read."""
    return new_zeros(self, *sizes, size=size, dtype=dtype, device=device, requires_grad=requires_grad)


@public(function=False)
def new_full(
    self: Tensor,
    size: Any,
    fill_value: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """One value in this tensor's dtype."""
    return full(
        size,
        fill_value,
        dtype=self.dtype if dtype is None else dtype,
        device=device,
        requires_grad=requires_grad,
    )


# ---------------------------------------------------------------------------------------------- sequences


@public(method=False)
def arange(
    start: Any = None,
    end: Any = None,
    step: Any = 1,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """``start, start + step, …`` up to but without `end`; int64 if all three are integers, else float32.
    An integer `dtype` takes the whole part of each.
    """
    if start is None and end is None:
        raise error(DTypeError, "arange", "needs an end")
    start, end = (0, end if start is None else start) if start is None or end is None else (start, end)
    start, end, step = (
        _arange_number(v, argument) for v, argument in ((start, "start"), (end, "end"), (step, "step"))
    )
    wanted = as_dtype(dtype) if dtype is not None else result_dtype(start, end, step)
    if not all(isinstance(v, SymbolicSize) or math.isfinite(v) for v in (start, end, step)):
        raise error(ShapeError, "arange", f"unsupported range: {start} -> {end} in steps of {step}")
    given = start, end, step
    if wanted.kind == "int" and any(isinstance(v, float) for v in given):
        # PyTorch's: bounds and steps are cut to integers first
        start, end, step = (int(v) if isinstance(v, float) else v for v in given)
        if start == end:  # whether it can be reached is told by what was given
            _arange_size(*given)
    if not isinstance(step, SymbolicSize) and step == 0:
        raise error(ShapeError, "arange", f"step must be nonzero, got {step}")
    size = _arange_size(start, end, step)
    if wanted.kind == "int" and wanted is not int64 and any(isinstance(v, float) for v in given):
        size = max(math.ceil((given[1] - given[0]) / given[2]), 0)  # but narrower types count as given
    t = apply(OPS["iota"], size=size)
    if any(isinstance(v, float) for v in (start, step)):
        t = cast(t, float64)
    if step != 1:
        t = apply(OPS["mul"], t, scalar(step, t.dtype))
    if isinstance(start, SymbolicSize) or start != 0:
        t = apply(OPS["add"], t, scalar(start, t.dtype))
    return finished(cast(t, wanted), device, requires_grad)


def _arange_number(value: Any, argument: str) -> Any:
    if isinstance(value, (Tensor, np.generic)):
        if value.ndim and value.size != 1:
            raise misfit("arange", argument, float, value)
        return value.item()
    if not fits(value, float):
        raise misfit("arange", argument, float, value)
    return value


def _arange_size(start: Any, end: Any, step: Any) -> Extent:
    if any(isinstance(v, SymbolicSize) for v in (start, end)) and isinstance(step, int):
        if step == 1 and isinstance(start, int) and start == 0:
            return unwrap(end)
        start, end = int(start), int(end)
    span = end - start
    if span != 0 and (span > 0) != (step > 0):
        raise error(ShapeError, "arange", f"end {end} can't be reached from {start} in steps of {step}")
    if isinstance(span, int) and isinstance(step, int):
        return -(-span // step)
    size: int = math.ceil(span / step)
    return size


@public(method=False)
def linspace(
    start: float,
    end: float,
    steps: int,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """`steps` evenly spaced values from `start` to `end`, both included; with an integer `dtype` between
    their whole parts, and cut off.
    """
    wanted = _or_default(dtype)
    inner = float64 if wanted.kind != "float" else float32 if wanted.is_half else wanted
    first, last = (float(int(v)) if wanted.kind == "int" else float(v) for v in (start, end))
    count = unwrap(steps)
    if isinstance(count, int) and count < 0:
        raise error(ShapeError, "linspace", f"number of steps must be non-negative, got {count}")
    if isinstance(count, Dim):
        count = int(steps)
    with np.errstate(all="ignore"):
        width = float(
            inner.numpy.type((inner.numpy.type(last) - inner.numpy.type(first)) / max(count - 1, 1))
        )
    i = apply(OPS["iota"], size=count)
    # Counting from the nearer end keeps both ends exact.
    forward = apply(OPS["add"], apply(OPS["mul"], cast(i, inner), scalar(width, inner)), scalar(first, inner))
    left = apply(OPS["sub"], scalar(count - 1, int64), i)
    backward = apply(
        OPS["sub"], scalar(last, inner), apply(OPS["mul"], cast(left, inner), scalar(width, inner))
    )
    t = apply(OPS["where"], apply(OPS["lt"], i, scalar(count // 2, int64)), forward, backward)
    if count == 1:
        t = forward
    return finished(cast(t, wanted), device, requires_grad)


@public(method=False)
def eye(
    n: int, m: int | None = None, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """The n by m (default n) matrix with ones on its diagonal."""
    rows, columns = new_shape_args((n, n if m is None else m), "eye")
    row = reshaped(apply(OPS["iota"], size=rows), (rows, 1))
    same = apply(OPS["eq"], row, apply(OPS["iota"], size=columns))
    return finished(cast(same, _or_default(dtype)), device, requires_grad)


# other names for the same
asarray = as_tensor

"""What a tensor is: numbers, memory, devices; and what complex numbers' functions are for real ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphflow.compiler.ir import OPS
from graphflow.dims import product
from graphflow.dtypes import get_default_dtype, int64
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.arrange import narrow, split, vstack
from graphflow.functions.common import (
    Operand,
    broadcast,
    cast,
    copied,
    expanded,
    in_dtype,
    logical,
    new_shape_args,
    of_array,
    of_size,
    operand,
    pinned,
    reshaped,
    scalar,
    tensor_arg,
)
from graphflow.functions.convert import clone
from graphflow.functions.cumulative import cumsum
from graphflow.functions.index import index_arg
from graphflow.functions.inplace import stored
from graphflow.functions.reduce import reduced
from graphflow.functions.registry import error, public
from graphflow.functions.shape import flatten
from graphflow.interop import numbers
from graphflow.layouts import layout, strided
from graphflow.sizes import unwrap
from graphflow.tensor import Tensor, apply

__all__ = [
    "adjoint", "angle", "conj", "conj_physical", "detach", "fill", "is_complex", "is_conj",
    "is_inference", "is_neg", "is_nonzero", "is_same_size", "is_signed", "narrow_copy", "nonzero_static",
    "real", "resolve_conj", "resolve_neg", "row_stack", "split_with_sizes", "unravel_index",
]  # fmt: skip

# ---------------------------------------------------------------------------------------------- yes or no


@public()
def is_complex(input: Tensor) -> bool:
    """Whether elements have imaginary parts: never."""
    tensor_arg(input, "is_complex")
    return False


@public()
def is_conj(input: Tensor) -> bool:
    """Whether elements are to be read as their conjugates: never."""
    return is_complex(input)


@public()
def is_neg(input: Tensor) -> bool:
    """Whether elements are to be read as their negatives: never."""
    return is_complex(input)


@public()
def is_inference(input: Tensor) -> bool:
    """Whether a tensor is of no use for gradients for good: never; see `inference_mode`."""
    return is_complex(input)


@public()
def is_signed(input: Tensor) -> bool:
    """Whether the dtype has negative numbers."""
    return tensor_arg(input, "is_signed").dtype.is_signed


@public()
def is_nonzero(input: Tensor) -> bool:
    """Whether the only element isn't 0. A Python bool, so it can't be asked while tracing."""
    t = tensor_arg(input, "is_nonzero")
    if product(t.type_.shape) != 1:
        raise error(ShapeError, "is_nonzero", f"needs a tensor of one element, got {t.type_}")
    return bool(t.item())


@public()
def is_same_size(input: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same shape."""
    return tensor_arg(input, "is_same_size").shape == tensor_arg(other, "is_same_size", "other").shape


# ---------------------------------------------------------------------------------------------- real numbers


def _itself(name: str, doc: str) -> Callable[[Tensor], Tensor]:
    def function(input: Tensor) -> Tensor:
        return tensor_arg(input, name)

    function.__doc__ = doc
    function.__module__ = __name__
    return public(name)(function)


real = _itself("real", "The real parts: `input` itself.")
conj = _itself("conj", "The complex conjugates: `input` itself.")
resolve_conj = _itself("resolve_conj", "`input` itself: it isn't to be read as its conjugate.")
resolve_neg = _itself("resolve_neg", "`input` itself: it isn't to be read as its negative.")


@public()
def conj_physical(input: Tensor) -> Tensor:
    """The complex conjugates: a copy."""
    return copied(tensor_arg(input, "conj_physical"))


@public()
def angle(input: Tensor) -> Tensor:
    """The angle of each number: 0 for positive ones and 0, pi for negative ones, NaN for NaN."""
    t = tensor_arg(input, "angle")
    t = t if t.dtype.kind == "float" else cast(t, get_default_dtype())
    zero = scalar(0, t.dtype)
    turned = apply(OPS["where"], apply(OPS["lt"], t, zero), scalar(math.pi, t.dtype), zero)
    return apply(OPS["where"], apply(OPS["isnan"], t), t, turned)


@public()
def adjoint(input: Tensor) -> Tensor:
    """The last two dimensions exchanged; a view."""
    t = tensor_arg(input, "adjoint")
    if t.ndim < 2:
        raise error(ShapeError, "adjoint", f"needs matrices, got {t.type_}")
    return apply(OPS["permute"], t, dims=(*range(t.ndim - 2), t.ndim - 1, t.ndim - 2))


@public(method=False, backward="DetachBackward0")
def detach(input: Tensor) -> Tensor:
    """The same values without gradient history; shares memory."""
    return tensor_arg(input, "detach").detach()


# ---------------------------------------------------------------------------------------------- arrangement


@public(method=False)
def row_stack(tensors: Sequence[Tensor]) -> Tensor:
    """`vstack`."""
    return vstack(tensors)


@public()
def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces of the given sizes along `dim`; views."""
    if not isinstance(split_sizes, (tuple, list)):
        raise error(
            DTypeError, "split_with_sizes", f"needs a list of sizes, not {type(split_sizes).__name__}"
        )
    return split(input, split_sizes, dim)


@public()
def narrow_copy(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """`narrow` in memory of its own."""
    return clone(narrow(input, dim, start, length))


@public(function=False)
def sum_to_size(self: Tensor, *size: Any) -> Tensor:
    """The sums over the dimensions that were broadcast from `size`."""
    shape = new_shape_args(size, "sum_to_size")
    source = self.type_.shape
    lead = len(source) - len(shape)
    problem = error(ShapeError, "sum_to_size", f"{self.type_} isn't {tuple(shape)} broadcast")
    if lead < 0:
        raise problem
    dims = [*range(lead)]
    for d, wanted in enumerate(shape):
        if source[lead + d] != wanted:
            if wanted != 1:
                raise problem
            dims.append(lead + d)
    return reshaped(reduced("sum", self, tuple(dims), True), shape) if dims else self


@public(method=False)
def unravel_index(indices: Tensor, shape: Any) -> tuple[Tensor, ...]:
    """Positions in a flattened tensor of `shape` as positions along its dimensions: NumPy's
    ``unravel_index``.
    """
    t = tensor_arg(indices, "unravel_index", "indices")
    if t.dtype.kind != "int":
        raise error(DTypeError, "unravel_index", f"expected integer indices, got {t.dtype}")
    sizes = new_shape_args(tuple(shape) if isinstance(shape, (tuple, list)) else (shape,), "unravel_index")
    places = index_arg(t, "unravel_index")
    found = []
    for size in reversed(sizes):
        width = of_size(size, int64)
        found.append(apply(OPS["remainder"], places, width))
        places = apply(OPS["floor_divide"], places, width)
    return tuple(reversed(found))


@public()
def nonzero_static(input: Tensor, *, size: int, fill_value: int = -1) -> Tensor:
    """Positions of the first `size` elements that aren't 0, int64[size, ndim], rows of `fill_value` where
    there are fewer. Unlike `nonzero`, it can be compiled.
    """
    t = tensor_arg(input, "nonzero_static")
    count = pinned(unwrap(size), "the number of positions")
    if count < 0:
        raise error(ShapeError, "nonzero_static", f"size can't be negative, got {size}")
    row = logical(flatten(t)) if t.ndim else reshaped(logical(t), (1,))
    whole = row.type_.shape[0]
    if not t.ndim:
        return expanded(scalar(0, int64), (count, 0))
    number = cumsum(cast(row, int64), 0)
    # what isn't wanted goes to a place behind the others
    last = of_size(count, int64)
    place = apply(OPS["where"], row, apply(OPS["sub"], number, scalar(1, int64)), last)
    place = apply(OPS["minimum"], place, last)
    here = apply(OPS["iota"], size=whole)
    wanted = apply(OPS["lt"], place, last)
    kept = apply(OPS["where"], wanted, apply(OPS["add"], here, scalar(1, int64)), scalar(0, int64))
    found = narrow(apply(OPS["put_add"], kept, place, dim=0, size=count + 1), 0, 0, count)
    columns = unravel_index(apply(OPS["maximum"], found - 1, scalar(0, int64)), list(t.shape))
    missing = apply(OPS["eq"], found, scalar(0, int64))
    filler = scalar(int(fill_value), int64)
    return apply(
        OPS["cat"],
        *(reshaped(apply(OPS["where"], missing, filler, c), (count, 1)) for c in columns),
        dim=1,
    )


@public(method=False)
def fill(input: Tensor, value: Operand) -> Tensor:
    """`value`, a number or a 0-d tensor, in the shape and dtype of `input`."""
    t, filler = tensor_arg(input, "fill"), operand(value, "fill", "value")
    if isinstance(filler, Tensor) and filler.ndim:
        raise error(ShapeError, "fill", f"value has to be a number or 0-d, got {filler.type_}")
    return copied(expanded(in_dtype(filler, t.dtype), t.type_.shape))


# ---------------------------------------------------------------------------------------------- memory


@public(function=False)
def get_device(self: Tensor) -> int:
    """The number of the GPU that holds the elements: -1, none."""
    return -1


@public(function=False)
def pin_memory(self: Tensor, device: Any = None) -> Tensor:
    """The tensor itself: no memory is copied to a GPU."""
    return self


@public(function=False)
def is_pinned(self: Tensor, device: Any = None) -> bool:
    """Whether memory is locked for copies to a GPU: never."""
    return False


@public(function=False)
def is_shared(self: Tensor) -> bool:
    """Whether memory is shared with other processes: never."""
    return False


@public(function=False)
def storage_offset(self: Tensor) -> int:
    """How many elements lie before the first one in the memory that it is a view of."""
    array = self._concrete(".storage_offset()", "a traced value has no memory")
    start = array.__array_interface__["data"][0] - _memory(array).__array_interface__["data"][0]
    return int(start) // array.itemsize


def _memory(array: np.ndarray) -> np.ndarray:
    """The array that owns an array's memory."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


class UntypedStorage:
    """The bytes that a tensor is a view of, after ``torch.UntypedStorage``, to ask where and how many."""

    def __init__(self, memory: np.ndarray):
        self._memory = memory

    def data_ptr(self) -> int:
        """The address of the first byte."""
        return int(self._memory.__array_interface__["data"][0])

    def nbytes(self) -> int:
        """The number of bytes."""
        return self._memory.nbytes

    def size(self) -> int:
        """The number of bytes."""
        return self._memory.nbytes

    def __len__(self) -> int:
        return self._memory.nbytes

    def tolist(self) -> list[int]:
        """The bytes as numbers."""
        return list(self._memory.tobytes())


@public(function=False)
def untyped_storage(self: Tensor) -> UntypedStorage:
    """The memory that the tensor is a view of: tensors share it if its ``data_ptr()`` is the same."""
    return UntypedStorage(_memory(self._concrete(".untyped_storage()", "a traced value has no memory")))


@public(function=False)
def to_dense(self: Tensor) -> Tensor:
    """The tensor itself: it isn't sparse."""
    return self


@public(function=False)
def new(self: Tensor, *data: Any) -> Tensor:
    """A tensor of this dtype from sizes, a list or an array: the older form of `new_tensor`, `new_empty`."""
    return Tensor.holding(numbers(data, self.dtype.numpy))


def _refused(name: str, remedy: str) -> None:
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        raise error(ShapeError, name, remedy)

    method.__doc__ = f"ShapeError: {remedy}."
    method.__module__ = __name__
    method.__name__ = name
    public(name, function=False)(method)


_refused("resize_", "a tensor's memory keeps its size; use reshape(), or make a new tensor with new_empty()")
_refused("resize_as_", "a tensor's memory keeps its size; make a new tensor with empty_like()")


# ---------------------------------------------------------------------------------------------- one by one


@public(function=False)
def apply_(self: Tensor, callable: Callable[[Any], Any]) -> Tensor:
    """Replaces every element by a Python function of it, one by one: slow, and not while tracing."""
    array = self._concrete(".apply_()", "use functions of tensors")
    made = np.array([callable(v) for v in array.reshape(-1).tolist()]).reshape(array.shape)
    return stored(self, cast(of_array(made), self.dtype), "apply_")


@public(function=False)
def map_(self: Tensor, tensor: Tensor, callable: Callable[[Any, Any], Any]) -> Tensor:
    """Replaces every element by a Python function of it and the other tensor's, one by one."""
    other = tensor_arg(tensor, "map_", "tensor")
    shape = broadcast(self, other)
    if shape != self.type_.shape:
        raise error(ShapeError, "map_", f"{other.type_} doesn't broadcast to {self.type_}")
    mine = self._concrete(".map_()", "use functions of tensors")
    theirs = expanded(other, shape)._concrete(".map_()", "use functions of tensors")
    pairs = zip(mine.reshape(-1).tolist(), theirs.reshape(-1).tolist(), strict=True)
    made = np.array([callable(a, b) for a, b in pairs]).reshape(mine.shape)
    return stored(self, cast(of_array(made), self.dtype), "map_")


# ---------------------------------------------------------------------------------------------- attributes


def _attribute(name: str, read: Callable[[Tensor], Any], doc: str) -> None:
    setattr(Tensor, name, property(read, doc=doc))


def _layout(self: Tensor) -> layout:
    return strided


_attribute("layout", _layout, "How elements are stored: ``graphflow.strided``.")
_attribute("itemsize", lambda self: self.dtype.itemsize, "Bytes an element takes.")
_attribute("nbytes", lambda self: self.numel() * self.dtype.itemsize, "Bytes all elements take.")
_attribute("is_cpu", lambda self: True, "Whether the elements are on the CPU: always.")
_attribute("output_nr", lambda self: 0, "Which result of its operation this is.")
_attribute("names", lambda self: (None,) * self.ndim, "Names of dimensions: there are none.")
_attribute("H", lambda self: adjoint(self), "A matrix transposed.")
_attribute("mH", lambda self: adjoint(self), "Matrices transposed.")
for _name in ("sparse", "sparse_csr", "quantized", "mkldnn", "meta", "mps", "xpu", "nested", "vulkan"):
    _attribute(f"is_{_name}", lambda self: False, "Never here.")

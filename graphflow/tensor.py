"""Tensor: the handle people hold, with two lives.

Outside ``compile`` a Tensor holds a NumPy array; operations run at once and, when a gradient is wanted, the
node they would have been is kept, so that ``backward`` can run the compiler's own autodiff over those nodes.
While a function is traced, the same operations only add nodes. In-place methods rebind the handle, so a trace
is functional by itself.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable
from typing import Any, NoReturn

import numpy as np

from graphflow import aliasing, dtypes, histories, rebinding
from graphflow.aliasing import Alias
from graphflow.compiler import ir
from graphflow.compiler.ir import OPS, Node, Op, TensorType
from graphflow.compiler.location import current_asked, user_loc, where_called
from graphflow.compiler.trace import Trace, current_trace, leak
from graphflow.dims import Dim
from graphflow.dtypes import DType
from graphflow.errors import DTypeError, GradientError, IndexRangeError, TraceError
from graphflow.gradfn import GRAD_FN_NAMES, GradFn, Named, Size
from graphflow.interop import Interop, numbers
from graphflow.memory import (
    RECORDING,
    SAVED,
    GradTable,
    Saved,
    Storage,
    advance_epoch,
    depends_on,
    epoch,
    grad_table,
    leaves_of,
    made_of_numbers,
    save,
)
from graphflow.modes import MODE, concrete, enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from graphflow.runtime.device import Device
from graphflow.sizes import SymbolicSize, is_same_type


class Tensor(Interop):
    """A multi-dimensional array of one dtype, with an optional gradient history.

    Made by ``graphflow.tensor`` and the other creation functions. As in PyTorch, ``Tensor(data)`` holds
    the numbers of a list, an array or a tensor in the default dtype, and ``Tensor(2, 3)`` elements of any
    value. Its methods are PyTorch's.
    """

    __slots__ = (
        "__dict__", "__weakref__", "_alias", "_array", "_grad", "_leaf", "_node", "_node_version",
        "_requires_grad", "_storage", "_trace", "name",
    )  # fmt: skip
    __array_priority__ = 1000

    def __init__(self, *data: Any):
        self._hold(numbers(data, dtypes.get_default_dtype().numpy), None)
        made_of_numbers(self)

    def _hold(self, array: np.ndarray, storage: Storage | None) -> None:
        self._array: np.ndarray | None = array
        self._storage = storage if storage is not None else Storage()
        self._node: Node | None = None
        self._node_version = 0
        self._trace: Trace | None = None
        self._alias: Alias | None = None
        self._requires_grad = False
        self._leaf = True
        self._grad: Tensor | None = None
        self.name: str | None = None

    @staticmethod
    def holding(array: np.ndarray, storage: Storage | None = None) -> Tensor:
        """A handle on an array's own memory."""
        tensor = Tensor.__new__(Tensor)
        tensor._hold(array, storage)
        return tensor

    @staticmethod
    def of_node(node: Node, trace: Trace, requires_grad: bool = False, leaf: bool = False) -> Tensor:
        """A handle on a traced value."""
        tensor = Tensor.__new__(Tensor)
        tensor._array = None
        tensor._storage = Storage()
        tensor._node = node
        tensor._node_version = 0
        tensor._trace = trace
        tensor._alias = None
        tensor._requires_grad = requires_grad
        tensor._leaf = leaf
        tensor._grad = None
        tensor.name = None
        if leaf:
            leaves_of(trace)[node] = tensor
        return tensor

    # ------------------------------------------------------------------------------------------ what it is

    @property
    def is_traced(self) -> bool:
        """Whether the handle stands for a node of a trace rather than for numbers."""
        return self._array is None

    @property
    def type_(self) -> TensorType:
        """dtype and shape, sizes possibly symbolic."""
        if self._array is None:
            return self._node.type  # type: ignore[union-attr,no-any-return]
        return TensorType(dtypes.as_dtype(self._array.dtype), self._array.shape)

    @property
    def dtype(self) -> DType:
        """Element type."""
        if self._array is None:
            return self._node.type.dtype  # type: ignore[union-attr, no-any-return]
        return dtypes.as_dtype(self._array.dtype)

    @property
    def shape(self) -> Size:
        """Sizes; while tracing, symbolic ones behave as integers as long as nothing depends on their
        value.
        """
        if self._array is None:
            trace = self._trace
            sizes = self._node.type.shape  # type: ignore[union-attr]
            return Size(SymbolicSize(s, trace) if isinstance(s, Dim) else s for s in sizes)
        return Size(self._array.shape)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self._node.type.shape) if self._array is None else self._array.ndim  # type: ignore[union-attr]

    @property
    def device(self) -> Device:
        """Where the elements are."""
        return _CPU

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made this tensor."""
        return self._leaf or not self._requires_grad

    @property
    def requires_grad(self) -> bool:
        """Whether ``backward`` computes a gradient for this tensor or for something it was made from."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Sets ``requires_grad`` in place."""
        if not isinstance(requires_grad, (bool, int, np.bool_)):
            given = type(requires_grad).__name__
            raise DTypeError(f"requires_grad_: takes True or False, not {given}{where_called()}")
        if requires_grad and not self.dtype.is_floating_point:
            raise GradientError(
                f"only floating point tensors can require gradients, this one is {self.dtype}{where_called()}"
            )
        if not requires_grad and not self.is_leaf:
            raise GradientError(
                f"requires_grad can only be turned off on leaf tensors; use .detach(){where_called()}"
            )
        if requires_grad != self._requires_grad:
            self._requires_grad = requires_grad
            if self._array is not None:
                self._node_version, self._alias = -1, None
            if self._array is None and requires_grad:
                assert self._node is not None and self._trace is not None
                if not self._leaf:  # from here on it is one, whatever it was made from
                    self._node = OPS["alias"](OPS["detach"](self._node), uid=-2 - self._storage.born)
                    self._leaf = True
                leaves_of(self._trace)[self._node] = self
            advance_epoch()
        return self

    @property
    def grad(self) -> Tensor | None:
        """The accumulated gradient, or None."""
        trace = current_trace()
        return grad_table(trace).get(self) if trace is not None else self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None and not (isinstance(value, Tensor) and is_same_type(value.type_, self.type_)):
            got = value.type_ if isinstance(value, Tensor) else type(value).__name__
            raise GradientError(f"a gradient has its tensor's dtype and shape, {self.type_}; got {got}")
        trace = current_trace()
        if trace is not None:
            grad_table(trace).set(self, value)
        else:
            self._grad = value

    @property
    def grad_fn(self) -> GradFn | None:
        """The operation that made this tensor, when a gradient flows through it."""
        if self.is_leaf:
            return None
        if self._array is not None and self._alias is not None:
            return GradFn(self._history())
        return GradFn(self._node) if self._node is not None else None

    @property
    def data(self) -> Tensor:
        """A handle on the same memory without gradient history."""
        if self._array is None or (self._requires_grad and current_trace() is not None):
            return self.detach()
        return Tensor.holding(self._array, self._storage)

    @data.setter
    def data(self, value: Tensor) -> None:
        if value._alias is not None and value._alias.owner is self and value._alias.is_same:
            return  # `w.data -= g` has changed this memory already, and puts back what it got
        if self._array is None or value._array is None:
            self._require_not_traced("assigning to .data", "use copy_() under no_grad()")
        before = None if self.is_leaf else self._history()  # a gradient goes on to what made the tensor
        if before is not None and value.type_ != self.type_:
            raise GradientError(
                f"a gradient flows through this tensor, {self.type_}, so .data can't become {value.type_}"
                + where_called()
            )
        self._array, self._storage = value._array, value._storage
        self._node, self._node_version, self._alias = before, -1, None
        advance_epoch()

    # ------------------------------------------------------------------------------------------ nodes

    def _key(self) -> Hashable:
        """Identity of the memory: handles on the same elements are one state."""
        array = self._array
        assert array is not None
        return (id(self._storage), array.__array_interface__["data"][0], array.shape, array.strides)

    def _traced_node(self, trace: Trace) -> Node:
        """This value as a node of `trace`."""
        if self._array is None:
            if self._storage.doubtful is not None:
                raise TraceError(self._storage.doubtful)
            if self._alias is not None:
                self._refresh(self._alias, trace)
            return trace.read(self._node, self._trace) or self._leaked()  # type: ignore[arg-type]
        if self._node is not None and self._node.op.name == "const":
            return self._node
        node = trace.node_of(self._key(), self, self.type_, self.name)
        if self._requires_grad and self._leaf:
            leaves_of(trace).setdefault(node, self)
        return node

    def _node_is_state(self) -> bool:
        """Whether a concrete handle is a state of traces that reach it, and not a constant."""
        return self._node is None or self._node.op.name != "const"

    def _refresh(self, alias: Alias, trace: Trace) -> None:
        """Takes a view's steps again if the memory it sees has changed since."""
        now = alias.owner._traced_node(trace)
        if now is not alias.seen:
            alias.require_certain()
            self._node, alias.seen = aliasing.replay(now, alias.steps), now
            self._requires_grad = alias.owner._requires_grad and not alias.detached
            self._leaf = self._leaf and not self._requires_grad

    def _history(self) -> Node:
        """This concrete value as a node that backward can follow or stop at."""
        assert self._array is not None
        version = self._storage.version
        if self._node is not None and self._node_version == version:
            if self._node not in SAVED and self._node_is_state():  # a backward has let the value go
                SAVED[self._node] = Saved(self._array, self._storage)
            return self._node
        if not self.is_leaf:
            again = histories.changed if self._alias is None else histories.taken_again
            self._node, self._node_version = again(self), version
            return self._node
        node = ir.input_node(self.name or "leaf", self.type_)
        leaf = weakref.ref(self) if self._requires_grad else None
        SAVED[node] = Saved(self._array, self._storage, leaf)
        self._node, self._node_version = node, version
        return node

    def _leaked(self) -> NoReturn:
        raise TraceError(leak(self._node, self._trace) + where_called())

    def _require_not_traced(self, what: str, instead: str) -> None:
        if self._array is None or current_trace() is not None:
            raise TraceError(
                f"{what} needs the numbers of a value that is only being traced; {instead}{where_called()}"
            )

    def _concrete(self, what: str, instead: str) -> np.ndarray:
        """The array, or an error that says what to do while tracing."""
        trace = current_trace()
        if self._array is None:
            if trace is None or trace.read(self._node, self._trace) is None:  # type: ignore[arg-type]
                self._leaked()
            raise TraceError(
                f"{what} needs the numbers of a value only being traced; {instead}{where_called()}"
            )
        if trace is not None and (self._node is None or self._node.op.name != "const"):
            raise TraceError(
                f"{what} inside a compiled function would be done once, at tracing, and never again; "
                f"{instead}{where_called()}"
            )
        return self._array

    # ------------------------------------------------------------------------------------------ in place

    def _assign(self, value: Tensor) -> Tensor:
        """Makes this handle hold `value` (of the same type): the one primitive behind every in-place
        method.
        """
        trace = current_trace()
        if MODE.grad_enabled and self._requires_grad and self._leaf:
            raise GradientError(
                "a leaf Variable that requires grad is being used in an in-place operation; do it under "
                "no_grad()"
                + where_called()
            )
        if trace is not None:
            rebinding.assign(self, value, trace)
            return self
        if self._array is None:
            self._leaked()
        if not self._array.flags.writeable:
            raise GradientError(aliasing.unwritable(self._array) + where_called())
        histories.overwrite(self, value, where_called)
        return self

    # ------------------------------------------------------------------------------------------ gradients

    def detach(self) -> Tensor:
        """The same value, cut off from gradients; shares memory."""
        if current_trace() is None:
            if self._array is None:
                self._leaked()
            return Tensor.holding(self._array, self._storage)
        return apply(OPS["detach"], self)

    __hash__ = object.__hash__

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if not self.is_leaf:
            raise GradientError("only leaf tensors can be deep-copied; .detach() it first")
        array = self._concrete("a deep copy", "use .clone()")
        copy = type(self)._from_array(array.copy())
        memo[id(self)] = copy
        copy._requires_grad = self._requires_grad
        copy.name = self.name
        return copy

    @classmethod
    def _from_array(cls, array: np.ndarray) -> Tensor:
        tensor = cls.__new__(cls)
        tensor._hold(array, None)
        return tensor


_CPU = Device("cpu")


# ---------------------------------------------------------------------------------------------- applying ops


def apply(op: Op, *tensors: Tensor, **attrs: Any) -> Tensor:
    """One primitive on tensors: computed now, or added to the current trace."""
    trace = current_trace()
    if trace is not None:
        with ir.at(ir.current_loc() or trace.located()):
            node = ir.make_node(op, tuple([t._traced_node(trace) for t in tensors]), attrs)
            # Only now is it known whether a view still requires grad: its memory may have been changed.
            wants_grad = any([t._requires_grad for t in tensors])
            result = Tensor.of_node(node, trace, wants_grad and MODE.grad_enabled and op.name != "detach")
            if aliasing.is_view(op) and (tensors[0]._array is None or tensors[0]._node_is_state()):
                result._alias = _aliased(tensors[0], trace, op, attrs, node)
            if wants_grad and not MODE.grad_enabled and node.dtype.is_floating_point:
                result._node = OPS["detach"](node)
                if result._alias is not None:
                    result._alias.steps += ((OPS["detach"], {}),)
            result._requires_grad = result._requires_grad and node.dtype.is_floating_point
        return result
    wants_grad = any(t._requires_grad for t in tensors)
    arrays = []
    for t in tensors:
        if t._array is None:
            t._leaked()
        arrays.append(t._array)
    type_ = ir.infer(op, tuple(t.type_ for t in tensors), attrs)
    assert isinstance(type_, TensorType)
    try:
        with np.errstate(all="ignore"):
            value = np.asarray(op.numpy(*arrays, **attrs), type_.dtype.numpy)
    except IndexError as error:
        asked = current_asked()
        raise IndexRangeError(f"{asked.name if asked else op.name}: {error}{where_called()}") from None
    if aliasing.is_view(op) and np.may_share_memory(value, arrays[0]):
        result = Tensor.holding(value, tensors[0]._storage)
        if type_.dtype.is_floating_point:
            histories.see(result, tensors[0], op, attrs, wants_grad and not MODE.grad_enabled)
    else:
        result = Tensor.holding(value)
    if wants_grad and MODE.grad_enabled and type_.dtype.is_floating_point and op.name != "detach":
        with ir.at(ir.current_loc() or user_loc()), RECORDING:
            record(result, ir.unshared_node(op, tuple(t._history() for t in tensors), attrs))
    return result


def _aliased(source: Tensor, trace: Trace, op: Op, attrs: dict[str, Any], node: Node) -> Alias:
    """The alias of a view just made of `source`."""
    outer = source._alias if source._array is None else None
    owner = source if outer is None else outer.owner
    return aliasing.extended(outer, owner, owner._traced_node(trace), op, attrs, node)


def seen_as(result: Tensor, source: Tensor, trace: Trace, op: Op, attrs: dict[str, Any]) -> Tensor:
    """`result`, which `op` made of `source`, as a view of its memory in a trace."""
    assert result._node is not None
    if source._array is None or source._node_is_state():
        result._alias = _aliased(source, trace, op, attrs, result._node)
    return result


def frozen(tensor: Tensor, trace: Trace) -> Tensor:
    """A handle on what a tensor holds now in a trace."""
    return Tensor.of_node(tensor._traced_node(trace), trace)


def record(result: Tensor, node: Node) -> None:
    """Keeps the node and value that backward will need."""
    result._node, result._node_version = node, result._storage.version
    result._requires_grad, result._leaf = True, False
    save(node, result._array, result._storage)  # type: ignore[arg-type]


def copied(leaf: Tensor) -> Tensor:
    """The value that a concrete tensor has now, in memory of its own; a gradient with respect to it is a
    leaf's own.
    """
    assert leaf._array is not None
    copy = Tensor.holding(leaf._array.copy())
    if leaf._requires_grad and leaf._leaf:
        SAVED[copy._history()].leaf = weakref.ref(leaf)
    return copy


def constant(value: Any, dtype: DType) -> Tensor:
    """A 0-d tensor that is part of the program, not a state: Python scalars in expressions."""
    if isinstance(value, SymbolicSize):
        value = value.size
    node = ir.constant(value, dtype)
    if isinstance(value, Dim):
        trace = current_trace()
        assert trace is not None
        return Tensor.of_node(node, trace)
    tensor = Tensor.holding(np.asarray(node.attrs["value"], dtype.numpy))
    tensor._node = node
    return tensor


def name_grad_fn(tensor: Tensor, name: str) -> Tensor:
    """Lets ``grad_fn`` print the public function's name; gives the tensor back."""
    if tensor._requires_grad and not tensor._leaf and tensor._node is not None:
        GRAD_FN_NAMES.setdefault(tensor._node, Named(name))
    return tensor


__all__ = [
    "GRAD_FN_NAMES", "SAVED", "GradFn", "GradTable", "Named", "Saved", "Size", "Storage", "Tensor",
    "advance_epoch", "apply", "concrete", "constant", "copied", "depends_on", "enable_grad", "epoch",
    "frozen", "grad_table", "is_grad_enabled", "leaves_of", "name_grad_fn", "no_grad", "record", "seen_as",
    "set_grad_enabled", "where_called",
]  # fmt: skip

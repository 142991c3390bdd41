"""What the two sides of a custom function share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphflow.errors import DTypeError, GradientError
from graphflow.tensor import Tensor, where_called


class FunctionCtx:
    """What a Function's forward leaves for its backward: tensors by `save_for_backward`, anything else as
    attributes.
    """

    def __init__(self, needs: Sequence[bool]):
        self.needs_input_grad: tuple[bool, ...] = tuple(needs)
        self._saved: tuple[Tensor | None, ...] = ()
        self._versions: tuple[int, ...] = ()
        self._fixed: list[Tensor] = []
        self._dirty: list[Tensor] = []
        self._shown: tuple[Tensor | None, ...] | None = None
        self._materialize = True

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keeps tensors (or None) for ``saved_tensors``. Gradients of gradients flow through them."""
        for tensor in tensors:
            if tensor is not None and not isinstance(tensor, Tensor):
                raise DTypeError(
                    f"save_for_backward: takes tensors, got {type(tensor).__name__}; keep other values as "
                    f"attributes of ctx{where_called()}"
                )
        self._saved = tensors
        self._versions = tuple(-1 if t is None else t._storage.version for t in tensors)

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What `save_for_backward` was given."""
        if self._shown is not None:
            return self._shown
        for tensor, version in zip(self._saved, self._versions, strict=True):
            if tensor is not None and tensor._array is not None and tensor._storage.version != version:
                raise GradientError(
                    "one of the variables needed for gradient computation has been modified by an inplace "
                    f"operation: {tensor.type_}{where_called()}"
                )
        return self._saved

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Says which results have no gradient."""
        self._fixed += tensors

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Says which arguments the forward changes in place; it has to return them."""
        self._dirty += tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Whether the backward gets zeros for results that nothing depends on, or None."""
        self._materialize = value

    def _is_fixed(self, output: Tensor) -> bool:
        return output.dtype.kind != "float" or any(output is t for t in self._fixed)

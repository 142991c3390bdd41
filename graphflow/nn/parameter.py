"""Parameter and Buffer: tensors that a Module counts as its own; and those whose sizes aren't known yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphflow import functions as ops
from graphflow.errors import TraceError
from graphflow.tensor import Tensor, where_called

__all__ = ["Buffer", "Parameter", "UninitializedBuffer", "UninitializedParameter"]


class Parameter(Tensor):
    """A tensor that is trained; assigned to a Module's attribute it joins ``parameters()``. As
    ``torch.nn.Parameter``.

    `data` (an empty tensor by default) is not copied: the parameter and `data` share memory. TypeError when
    it isn't a tensor, GradientError when it isn't floating point and `requires_grad` is left on.
    """

    __slots__ = ()

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True):
        if data is not None and not isinstance(data, Tensor):
            raise TypeError(f"a Parameter is made from a Tensor, got {type(data).__name__}")
        if data is not None and data.is_traced:
            raise TraceError(
                "a Parameter can't be made inside a compiled function, which would make it anew at every "
                f"call; make modules and parameters before{where_called()}"
            )
        self._hold(np.empty(0, np.float32) if data is None else data.detach().numpy(), None)
        if data is not None:
            self.data = data
        self.requires_grad_(requires_grad)

    def __repr__(self, **options: Any) -> str:
        return "Parameter containing:\n" + super().__repr__(**options)

    __str__ = __repr__


class Buffer(Tensor):
    """A tensor that is state but not trained; assigned to a Module's attribute it becomes a buffer, with
    `persistent` one that is part of ``state_dict``. As ``torch.nn.Buffer``; shares memory with `data`.
    """

    __slots__ = ("persistent",)

    def __init__(self, data: Tensor | None = None, *, persistent: bool = True):
        if data is not None and not isinstance(data, Tensor):
            raise TypeError(f"a Buffer is made from a Tensor, got {type(data).__name__}")
        held = ops.empty(0) if data is None else data
        self._hold(held.detach().numpy(), None)
        self.data = held
        self.persistent = persistent


class Uninitialized(Tensor):
    """What `UninitializedParameter` and `UninitializedBuffer` share."""

    __slots__ = ()
    becomes: type[Tensor] = Tensor

    def materialize(self, shape: Sequence[int], device: Any = None, dtype: Any = None) -> None:
        """Becomes an ordinary tensor of this shape, whose elements are still to be filled."""
        self.data = ops.empty(tuple(shape), device=device, dtype=self.dtype if dtype is None else dtype)
        self.__class__ = type(self).becomes  # type: ignore[assignment]

    def _unknown(self) -> ValueError:
        return ValueError(
            f"Attempted to use an uninitialized {'parameter' if self.requires_grad else 'tensor'}: its sizes "
            "follow from the first input. Call the module on a batch first"
        )

    @property
    def shape(self) -> Any:
        """ValueError: not known yet."""
        raise self._unknown()

    @property
    def type_(self) -> Any:
        """ValueError: not known yet."""
        raise self._unknown()

    @property
    def ndim(self) -> int:
        """ValueError: not known yet."""
        raise self._unknown()

    def __repr__(self, **options: Any) -> str:
        return f"<{type(self).__name__}>"

    __str__ = __repr__


class UninitializedParameter(Uninitialized, Parameter):
    """A parameter whose sizes follow from the first input that its module gets.

    As ``torch.nn.UninitializedParameter``.
    """

    __slots__ = ()
    becomes = Parameter

    def __init__(self, requires_grad: bool = True, device: Any = None, dtype: Any = None):
        Parameter.__init__(self, ops.empty(0, device=device, dtype=dtype), requires_grad)


class UninitializedBuffer(Uninitialized):
    """A buffer whose sizes follow from the first input that its module gets."""

    __slots__ = ()

    def __init__(self, requires_grad: bool = False, device: Any = None, dtype: Any = None):
        held = ops.empty(0, device=device, dtype=dtype)
        self._hold(held.numpy(), None)
        self.requires_grad_(requires_grad)


def is_lazy(tensor: Any) -> bool:
    """Whether a tensor's sizes aren't known yet."""
    return isinstance(tensor, Uninitialized)

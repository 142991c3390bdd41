"""Parameter: a tensor that a Module counts as its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphflow.errors import TraceError
from graphflow.tensor import Tensor, where_called


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

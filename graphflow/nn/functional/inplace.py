"""Activations that take their input's place."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, cast

from graphflow.nn.functional import activation, piecewise
from graphflow.tensor import Tensor

__all__ = ["celu_", "elu_", "hardtanh_", "leaky_relu_", "relu_", "rrelu_", "selu_", "threshold_"]


def _in_place(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def call(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return function(input, *args, inplace=True, **kwargs)

    functools.update_wrapper(call, function)
    signature = inspect.signature(function)
    kept = [p for name, p in signature.parameters.items() if name != "inplace"]
    cast(Any, call).__signature__ = signature.replace(parameters=kept)
    call.__name__ = call.__qualname__ = f"{function.__name__}_"
    call.__doc__ = f"`{function.__name__}` in place; gives the input back."
    call.__module__ = __name__
    return call


relu_ = _in_place(activation.relu)
celu_ = _in_place(piecewise.celu)
elu_ = _in_place(piecewise.elu)
hardtanh_ = _in_place(piecewise.hardtanh)
leaky_relu_ = _in_place(piecewise.leaky_relu)
rrelu_ = _in_place(piecewise.rrelu)
selu_ = _in_place(piecewise.selu)
threshold_ = _in_place(piecewise.threshold)

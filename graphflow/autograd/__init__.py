"""Gradients, after ``torch.autograd``."""

from graphflow.autograd import function
from graphflow.autograd.function import Function, custom_function
from graphflow.autograd.gradients import backward, grad
from graphflow.modes import enable_grad, is_grad_enabled, no_grad, set_grad_enabled

__all__ = [
    "Function", "backward", "custom_function", "enable_grad", "function", "grad", "is_grad_enabled",
    "no_grad", "set_grad_enabled",
]  # fmt: skip

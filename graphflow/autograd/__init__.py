"""Gradients, after ``torch.autograd``."""

from graphflow.autograd.gradients import backward, grad
from graphflow.modes import enable_grad, is_grad_enabled, no_grad, set_grad_enabled

__all__ = ["backward", "enable_grad", "grad", "is_grad_enabled", "no_grad", "set_grad_enabled"]

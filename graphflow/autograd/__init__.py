"""Gradients, after ``torch.autograd``."""

from graphflow.autograd import function, functional
from graphflow.autograd.check import GradcheckError, gradcheck, gradgradcheck
from graphflow.autograd.function import Function, custom_function
from graphflow.autograd.functional import grad
from graphflow.autograd.gradients import backward
from graphflow.autograd.variable import Variable
from graphflow.modes import (
    detect_anomaly,
    enable_grad,
    inference_mode,
    is_grad_enabled,
    no_grad,
    set_detect_anomaly,
    set_grad_enabled,
)

__all__ = [
    "Function", "GradcheckError", "Variable", "backward", "custom_function", "detect_anomaly", "enable_grad",
    "function", "functional", "grad", "gradcheck", "gradgradcheck", "inference_mode", "is_grad_enabled",
    "no_grad", "set_detect_anomaly", "set_grad_enabled",
]  # fmt: skip

"""Activations made of pieces, as modules; their formulas stand in ``functional.piecewise``."""

from __future__ import annotations

from typing import Any, ClassVar

from graphflow import functions as ops
from graphflow.nn import functional as F
from graphflow.nn.module import Module
from graphflow.nn.parameter import Parameter
from graphflow.tensor import Tensor

__all__ = [
    "CELU", "ELU", "GLU", "SELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU",
    "LogSigmoid", "Mish", "PReLU", "RReLU", "ReLU6", "SiLU", "Softplus", "Softshrink", "Softsign",
    "Tanhshrink", "Threshold",
]  # fmt: skip


class _Elementwise(Module):
    """An activation whose options are attributes of the same name, printed where PyTorch prints them."""

    printed: ClassVar[tuple[str, ...]] = ()

    def __init__(self, **options: Any):
        super().__init__()
        for name, value in options.items():
            setattr(self, name, value)

    def extra_repr(self) -> str:
        """The options."""
        parts = [f"{name}={getattr(self, name)}" for name in self.printed]
        if getattr(self, "inplace", False):
            parts.append("inplace=True")
        return ", ".join(parts)


class Threshold(_Elementwise):
    """x where x > `threshold`, else `value`."""

    threshold: float
    value: float
    inplace: bool

    def __init__(self, threshold: float, value: float, inplace: bool = False):
        super().__init__(threshold=threshold, value=value, inplace=inplace)

    def forward(self, input: Tensor) -> Tensor:
        """Same shape as `input`."""
        return F.threshold(input, self.threshold, self.value, self.inplace)

    def extra_repr(self) -> str:
        """The two numbers."""
        return f"threshold={self.threshold}, value={self.value}{', inplace=True' if self.inplace else ''}"


class Hardtanh(_Elementwise):
    """x limited to [min_val, max_val]. ValueError unless min_val < max_val."""

    printed: ClassVar[tuple[str, ...]] = ("min_val", "max_val")
    min_val: float
    max_val: float
    inplace: bool

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False):
        if max_val <= min_val:
            raise ValueError(f"max_val must be larger than min_val, got {max_val} and {min_val}")
        super().__init__(min_val=min_val, max_val=max_val, inplace=inplace)

    def forward(self, input: Tensor) -> Tensor:
        """Same shape as `input`."""
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)


class ReLU6(Hardtanh):
    """x limited to [0, 6]."""

    printed = ()

    def __init__(self, inplace: bool = False):
        super().__init__(0.0, 6.0, inplace)


class LeakyReLU(_Elementwise):
    """x where positive, else `negative_slope` * x."""

    printed = ("negative_slope",)
    negative_slope: float
    inplace: bool

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False):
        super().__init__(negative_slope=negative_slope, inplace=inplace)

    def forward(self, input: Tensor) -> Tensor:
        """Same shape as `input`."""
        return F.leaky_relu(input, self.negative_slope, self.inplace)


class PReLU(Module):
    """x where positive, else x times a trained slope: one, or `num_parameters`, one for each channel."""

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None):
        super().__init__()
        self.num_parameters = num_parameters
        self.init = init
        self.weight = Parameter(ops.full((num_parameters,), float(init), device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """The slopes as at the start."""
        self.weight.data.fill_(self.init)

    def forward(self, input: Tensor) -> Tensor:
        """Same shape as `input`."""
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        """How many slopes."""
        return f"num_parameters={self.num_parameters}"


class RReLU(_Elementwise):
    """x where positive, else x times a slope: in training drawn from [lower, upper], else their mean."""

    printed = ("lower", "upper")
    lower: float
    upper: float
    inplace: bool

    def __init__(self, lower: float = 1.0 / 8, upper: float = 1.0 / 3, inplace: bool = False):
        super().__init__(lower=lower, upper=upper, inplace=inplace)

    def forward(self, input: Tensor) -> Tensor:
        """Same shape as `input`."""
        return F.rrelu(input, self.lower, self.upper, self.training, self.inplace)


class ELU(_Elementwise):
    """x where positive, else `alpha` (exp(x) - 1)."""

    printed = ("alpha",)
    alpha: float
    inplace: bool

    def __init__(self, alpha: float = 1.0, inplace: bool = False):
        super().__init__(alpha=alpha, inplace=inplace)

    def forward(self, input: Tensor) -> Tensor:
        """Same shape as `input`."""
        return F.elu(input, self.alpha, self.inplace)


class CELU(_Elementwise):
    """x where positive, else `alpha` (exp(x / alpha) - 1)."""

    printed = ("alpha",)
    alpha: float
    inplace: bool

    def __init__(self, alpha: float = 1.0, inplace: bool = False):
        super().__init__(alpha=alpha, inplace=inplace)

    def forward(self, input: Tensor) -> Tensor:
        """Same shape as `input`."""
        return F.celu(input, self.alpha, self.inplace)


class SELU(_Elementwise):
    """The self-normalising ELU."""

    inplace: bool

    def __init__(self, inplace: bool = False):
        super().__init__(inplace=inplace)

    def forward(self, input: Tensor) -> Tensor:
        """Same shape as `input`."""
        return F.selu(input, self.inplace)


class Hardshrink(_Elementwise):
    """0 within [-lambd, lambd], else x."""

    lambd: float

    def __init__(self, lambd: float = 0.5):
        super().__init__(lambd=lambd)

    def forward(self, input: Tensor) -> Tensor:
        """Same shape as `input`."""
        return F.hardshrink(input, self.lambd)

    def extra_repr(self) -> str:
        """The limit."""
        return f"{self.lambd}"


class Softshrink(Hardshrink):
    """0 within [-lambd, lambd], else x moved by `lambd` towards 0."""

    def forward(self, input: Tensor) -> Tensor:
        """Same shape as `input`."""
        return F.softshrink(input, self.lambd)


class Hardsigmoid(_Elementwise):
    """x / 6 + 1/2 limited to [0, 1]."""

    inplace: bool

    def __init__(self, inplace: bool = False):
        super().__init__(inplace=inplace)

    def forward(self, input: Tensor) -> Tensor:
        """Same shape as `input`."""
        return F.hardsigmoid(input, self.inplace)

    def extra_repr(self) -> str:
        """Nothing."""
        return ""


class Hardswish(Hardsigmoid):
    """x times Hardsigmoid of x."""

    def forward(self, input: Tensor) -> Tensor:
        """Same shape as `input`."""
        return F.hardswish(input, self.inplace)


class SiLU(_Elementwise):
    """x / (1 + exp(-x)), also called swish."""

    inplace: bool

    def __init__(self, inplace: bool = False):
        super().__init__(inplace=inplace)

    def forward(self, input: Tensor) -> Tensor:
        """Same shape as `input`."""
        return F.silu(input, self.inplace)


class Mish(SiLU):
    """x tanh(log(1 + exp(x)))."""

    def forward(self, input: Tensor) -> Tensor:
        """Same shape as `input`."""
        return F.mish(input, self.inplace)


class Softplus(_Elementwise):
    """log(1 + exp(beta x)) / beta, and x itself where beta x > `threshold`."""

    printed = ("beta", "threshold")
    beta: float
    threshold: float

    def __init__(self, beta: float = 1.0, threshold: float = 20.0):
        super().__init__(beta=beta, threshold=threshold)

    def forward(self, input: Tensor) -> Tensor:
        """Same shape as `input`."""
        return F.softplus(input, self.beta, self.threshold)


class Softsign(Module):
    """x / (1 + |x|)."""

    def forward(self, input: Tensor) -> Tensor:
        """Same shape as `input`."""
        return F.softsign(input)


class Tanhshrink(Module):
    """x - tanh(x)."""

    def forward(self, input: Tensor) -> Tensor:
        """Same shape as `input`."""
        return F.tanhshrink(input)


class LogSigmoid(Module):
    """log(1 / (1 + exp(-x))), without overflow."""

    def forward(self, input: Tensor) -> Tensor:
        """Same shape as `input`."""
        return F.logsigmoid(input)


class GLU(_Elementwise):
    """``a * sigmoid(b)`` for the halves a and b of the input along `dim`."""

    printed = ("dim",)
    dim: int

    def __init__(self, dim: int = -1):
        super().__init__(dim=dim)

    def forward(self, input: Tensor) -> Tensor:
        """`input` with half its size in `dim`."""
        return F.glu(input, self.dim)

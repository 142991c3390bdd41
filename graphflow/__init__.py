"""graphflow: a define-then-run deep-learning framework that speaks PyTorch."""

from importlib.metadata import version as _version

from graphflow import autograd, functions
from graphflow.dtypes import (
    DType as dtype,
)
from graphflow.dtypes import (
    bool_ as bool,
)
from graphflow.dtypes import (
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
)
from graphflow.functions import *  # noqa: F403
from graphflow.printing import set_printoptions
from graphflow.random import (
    Generator,
    default_generator,
    get_rng_state,
    initial_seed,
    manual_seed,
    seed,
    set_rng_state,
)
from graphflow.runtime.device import Device as device
from graphflow.tensor import (
    Size,
    Tensor,
    concrete,
    enable_grad,
    is_grad_enabled,
    no_grad,
    set_grad_enabled,
)
from graphflow.transforms import grad, value_and_grad

__version__ = _version("graphflow")

float = float32
double = float64
long = int64
int = int32
short = int16

__all__ = [
    "Generator",
    "Size",
    "Tensor",
    "__version__",
    "autograd",
    "bool",
    "concrete",
    "default_generator",
    "device",
    "double",
    "dtype",
    "enable_grad",
    "float",
    "float32",
    "float64",
    "functions",
    "get_rng_state",
    "grad",
    "initial_seed",
    "int",
    "int8",
    "int16",
    "int32",
    "int64",
    "is_grad_enabled",
    "long",
    "manual_seed",
    "no_grad",
    "seed",
    "set_grad_enabled",
    "set_printoptions",
    "set_rng_state",
    "short",
    "uint8",
    "value_and_grad",
]
__all__ += functions.__all__

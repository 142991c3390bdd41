"""graphflow: a define-then-run deep-learning framework that speaks PyTorch."""

from importlib.metadata import version as _version

from graphflow import autograd, functions
from graphflow.api import CompiledFunction, CompiledGraph, TensorSpec, compile, export, load_graph, trace
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

from graphflow.runtime.threads import get_num_threads, set_num_threads

from graphflow import data, nn, optim  # isort: skip  (they use the names above)

__version__ = _version("graphflow")

float = float32
double = float64
long = int64
int = int32
short = int16

__all__ = [
    "CompiledFunction",
    "CompiledGraph",
    "Generator",
    "Size",
    "Tensor",
    "TensorSpec",
    "__version__",
    "autograd",
    "bool",
    "compile",
    "concrete",
    "data",
    "default_generator",
    "device",
    "double",
    "dtype",
    "enable_grad",
    "export",
    "float",
    "float32",
    "float64",
    "functions",
    "get_num_threads",
    "get_rng_state",
    "grad",
    "initial_seed",
    "int",
    "int8",
    "int16",
    "int32",
    "int64",
    "is_grad_enabled",
    "load_graph",
    "long",
    "manual_seed",
    "nn",
    "no_grad",
    "optim",
    "seed",
    "set_grad_enabled",
    "set_num_threads",
    "set_printoptions",
    "set_rng_state",
    "short",
    "trace",
    "uint8",
    "value_and_grad",
]
__all__ += functions.__all__

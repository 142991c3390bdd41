"""graphflow: a define-then-run deep-learning framework that speaks PyTorch."""

from importlib.metadata import version as _version
from math import e, inf, nan, pi

from graphflow import autograd, cuda, data, errors, func, functions, linalg, metrics, nn, optim, utils
from graphflow.api import CompiledFunction, CompiledGraph, compile, export, load_graph, parse_graph, trace
from graphflow.autograd.function import custom_function
from graphflow.derivatives import hessian, jacfwd, jacobian, jacrev, jvp, linearize, vjp
from graphflow.dtypes import DType as dtype
from graphflow.dtypes import (
    bfloat16,
    finfo,
    float16,
    float32,
    float64,
    get_default_dtype,
    iinfo,
    int8,
    int16,
    int32,
    int64,
    set_default_dtype,
    uint8,
)
from graphflow.dtypes import bool_ as bool
from graphflow.functions import *  # noqa: F403
from graphflow.gradfn import Size
from graphflow.modes import (
    concrete,
    enable_grad,
    inference_mode,
    is_anomaly_enabled,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
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
from graphflow.recompute import checkpoint
from graphflow.runtime.device import Device as device
from graphflow.runtime.threads import get_num_threads, set_num_threads
from graphflow.saving import load, save
from graphflow.specs import TensorSpec
from graphflow.tensor import Tensor
from graphflow.transforms import grad, value_and_grad
from graphflow.typed import (
    BFloat16Tensor,
    BoolTensor,
    ByteTensor,
    CharTensor,
    DoubleTensor,
    FloatTensor,
    HalfTensor,
    IntTensor,
    LongTensor,
    ShortTensor,
    set_default_tensor_type,
)
from graphflow.vmap import vmap

__version__ = _version("graphflow")

float = float32
double = float64
half = float16
long = int64
int = int32
short = int16

__all__ = [
    "BFloat16Tensor",
    "BoolTensor",
    "ByteTensor",
    "CharTensor",
    "CompiledFunction",
    "CompiledGraph",
    "DoubleTensor",
    "FloatTensor",
    "Generator",
    "HalfTensor",
    "IntTensor",
    "LongTensor",
    "ShortTensor",
    "Size",
    "Tensor",
    "TensorSpec",
    "__version__",
    "autograd",
    "bfloat16",
    "bool",
    "checkpoint",
    "compile",
    "concrete",
    "cuda",
    "custom_function",
    "data",
    "default_generator",
    "device",
    "double",
    "dtype",
    "e",
    "enable_grad",
    "errors",
    "export",
    "finfo",
    "float",
    "float16",
    "float32",
    "float64",
    "func",
    "functions",
    "get_default_dtype",
    "get_num_threads",
    "get_rng_state",
    "grad",
    "half",
    "hessian",
    "iinfo",
    "inf",
    "inference_mode",
    "initial_seed",
    "int",
    "int8",
    "int16",
    "int32",
    "int64",
    "is_anomaly_enabled",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "jacfwd",
    "jacobian",
    "jacrev",
    "jvp",
    "linalg",
    "linearize",
    "load",
    "load_graph",
    "long",
    "manual_seed",
    "metrics",
    "nan",
    "nn",
    "no_grad",
    "optim",
    "parse_graph",
    "pi",
    "save",
    "seed",
    "set_default_dtype",
    "set_default_tensor_type",
    "set_grad_enabled",
    "set_num_threads",
    "set_printoptions",
    "set_rng_state",
    "short",
    "trace",
    "uint8",
    "utils",
    "value_and_grad",
    "vjp",
    "vmap",
]  # fmt: skip
__all__ += functions.__all__

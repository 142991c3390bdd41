"""graphflow: a define-then-run deep-learning framework that speaks PyTorch."""

from math import e, inf, nan, pi
from typing import Any as _Any

from graphflow import absent as _absent
from graphflow import (
    amp,
    autograd,
    backends,
    compiler,
    cuda,
    data,
    distributions,
    errors,
    fft,
    func,
    functions,
    linalg,
    metrics,
    nn,
    optim,
    profiler,
    special,
    testing,
    utils,
    version,
)
from graphflow import exports as _exports
from graphflow.amp import (
    autocast,
    get_autocast_cpu_dtype,
    get_autocast_dtype,
    is_autocast_cpu_enabled,
    is_autocast_enabled,
    set_autocast_dtype,
    set_autocast_enabled,
)
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
from graphflow.functions import *
from graphflow.functions.inplace import IN_PLACE as _IN_PLACE
from graphflow.functions.registry import FUNCTIONS as _FUNCTIONS
from graphflow.gradfn import Size
from graphflow.layouts import (
    channels_last,
    channels_last_3d,
    contiguous_format,
    layout,
    memory_format,
    preserve_format,
    strided,
)
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
from graphflow.nn.functional import (
    adaptive_avg_pool1d,
    adaptive_max_pool1d,
    alpha_dropout,
    avg_pool1d,
    bilinear,
    celu,
    celu_,
    channel_shuffle,
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    cosine_similarity,
    dropout,
    feature_alpha_dropout,
    group_norm,
    hardshrink,
    layer_norm,
    max_pool1d,
    max_pool2d,
    max_pool3d,
    pairwise_distance,
    pixel_shuffle,
    pixel_unshuffle,
    prelu,
    rms_norm,
    rrelu,
    rrelu_,
    selu,
    selu_,
    threshold,
    threshold_,
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
from graphflow.switches import (
    are_deterministic_algorithms_enabled,
    get_default_device,
    get_float32_matmul_precision,
    set_default_device,
    set_float32_matmul_precision,
    use_deterministic_algorithms,
)
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

__version__ = version.__version__

newaxis = None
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
    "adaptive_avg_pool1d",
    "adaptive_max_pool1d",
    "alpha_dropout",
    "amp",
    "are_deterministic_algorithms_enabled",
    "autocast",
    "autograd",
    "avg_pool1d",
    "backends",
    "bfloat16",
    "bilinear",
    "bool",
    "celu",
    "celu_",
    "channel_shuffle",
    "channels_last",
    "channels_last_3d",
    "checkpoint",
    "compile",
    "compiler",
    "concrete",
    "contiguous_format",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "cosine_similarity",
    "cuda",
    "custom_function",
    "data",
    "default_generator",
    "device",
    "distributions",
    "double",
    "dropout",
    "dtype",
    "e",
    "enable_grad",
    "errors",
    "export",
    "feature_alpha_dropout",
    "fft",
    "finfo",
    "float",
    "float16",
    "float32",
    "float64",
    "func",
    "functions",
    "get_autocast_cpu_dtype",
    "get_autocast_dtype",
    "get_default_device",
    "get_default_dtype",
    "get_float32_matmul_precision",
    "get_num_threads",
    "get_rng_state",
    "grad",
    "group_norm",
    "half",
    "hardshrink",
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
    "is_autocast_cpu_enabled",
    "is_autocast_enabled",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "jacfwd",
    "jacobian",
    "jacrev",
    "jvp",
    "layer_norm",
    "layout",
    "linalg",
    "linearize",
    "load",
    "load_graph",
    "long",
    "manual_seed",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "memory_format",
    "metrics",
    "nan",
    "newaxis",
    "nn",
    "no_grad",
    "optim",
    "pairwise_distance",
    "parse_graph",
    "pi",
    "pixel_shuffle",
    "pixel_unshuffle",
    "prelu",
    "preserve_format",
    "profiler",
    "rms_norm",
    "rrelu",
    "rrelu_",
    "save",
    "seed",
    "selu",
    "selu_",
    "set_autocast_dtype",
    "set_autocast_enabled",
    "set_default_device",
    "set_default_dtype",
    "set_default_tensor_type",
    "set_float32_matmul_precision",
    "set_grad_enabled",
    "set_num_threads",
    "set_printoptions",
    "set_rng_state",
    "short",
    "special",
    "strided",
    "testing",
    "threshold",
    "threshold_",
    "trace",
    "uint8",
    "use_deterministic_algorithms",
    "utils",
    "value_and_grad",
    "version",
    "vjp",
    "vmap",
]  # fmt: skip
__all__ += sorted(_FUNCTIONS)
# PyTorch's functions that change their argument: ``relu_(x)``.
globals().update(_IN_PLACE)
__all__ += sorted(_IN_PLACE)


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})


def __getattr__(name: str) -> _Any:
    places = {
        "gf.Tensor": dir(Tensor),
        "gf.nn.functional": _exports.names(vars(nn.functional)),
        "gf.linalg": linalg.__all__,
        "gf.special": special.__all__,
    }
    raise AttributeError(_absent.message("graphflow", name, globals(), places))

"""Operations on tensors, in PyTorch's vocabulary: every one is defined once and spelt both ways, f(x) and x.f()."""

from graphflow.functions import inplace, operators
from graphflow.functions.convert import (
    clone,
    is_floating_point,
    is_tensor,
    numel,
    promote_types,
    result_type,
)
from graphflow.functions.create import (
    arange,
    as_tensor,
    empty,
    empty_like,
    eye,
    from_dlpack,
    from_numpy,
    full,
    full_like,
    linspace,
    ones,
    ones_like,
    tensor,
    zeros,
    zeros_like,
)
from graphflow.functions.create import (
    as_tensor as asarray,
)
from graphflow.functions.elementwise import (
    abs_ as abs,
)
from graphflow.functions.elementwise import (
    abs_ as absolute,
)
from graphflow.functions.elementwise import (
    acos,
    acosh,
    add,
    addcdiv,
    addcmul,
    asin,
    asinh,
    atan,
    atan2,
    atanh,
    bitwise_and,
    bitwise_not,
    bitwise_or,
    bitwise_xor,
    ceil,
    clamp,
    clamp_max,
    clamp_min,
    cos,
    cosh,
    deg2rad,
    div,
    eq,
    erf,
    erfc,
    exp,
    exp2,
    expm1,
    floor,
    floor_divide,
    fmod,
    frac,
    ge,
    gt,
    isclose,
    isfinite,
    isinf,
    isnan,
    le,
    lerp,
    log,
    log1p,
    log2,
    log10,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    logit,
    lt,
    masked_fill,
    maximum,
    minimum,
    mul,
    nan_to_num,
    ne,
    neg,
    positive,
    rad2deg,
    reciprocal,
    relu,
    remainder,
    rsqrt,
    rsub,
    sigmoid,
    sign,
    sin,
    sinh,
    sqrt,
    square,
    sub,
    tan,
    tanh,
    true_divide,
    trunc,
    where,
)
from graphflow.functions.elementwise import (
    acos as arccos,
)
from graphflow.functions.elementwise import (
    acosh as arccosh,
)
from graphflow.functions.elementwise import (
    asin as arcsin,
)
from graphflow.functions.elementwise import (
    asinh as arcsinh,
)
from graphflow.functions.elementwise import (
    atan as arctan,
)
from graphflow.functions.elementwise import (
    atan2 as arctan2,
)
from graphflow.functions.elementwise import (
    atanh as arctanh,
)
from graphflow.functions.elementwise import (
    bitwise_left_shift as left_shift,
)
from graphflow.functions.elementwise import (
    bitwise_right_shift as right_shift,
)
from graphflow.functions.elementwise import (
    clamp as clip,
)
from graphflow.functions.elementwise import (
    div as divide,
)
from graphflow.functions.elementwise import (
    ge as greater_equal,
)
from graphflow.functions.elementwise import (
    gt as greater,
)
from graphflow.functions.elementwise import (
    le as less_equal,
)
from graphflow.functions.elementwise import (
    lt as less,
)
from graphflow.functions.elementwise import (
    mul as multiply,
)
from graphflow.functions.elementwise import (
    ne as not_equal,
)
from graphflow.functions.elementwise import (
    neg as negative,
)
from graphflow.functions.elementwise import (
    pow_ as pow,
)
from graphflow.functions.elementwise import (
    round_ as round,
)
from graphflow.functions.elementwise import (
    sign as sgn,
)
from graphflow.functions.elementwise import (
    sub as subtract,
)
from graphflow.functions.elementwise import (
    trunc as fix,
)
from graphflow.functions.index import (
    gather,
    index_add,
    index_select,
    masked_select,
    nonzero,
    one_hot,
    scatter_add,
    take,
    take_along_dim,
)
from graphflow.functions.linalg import (
    addmm,
    addmv,
    baddbmm,
    bmm,
    dot,
    matmul,
    mm,
    mv,
    outer,
)
from graphflow.functions.linalg import (
    outer as ger,
)
from graphflow.functions.reduce import (
    all_ as all,
)
from graphflow.functions.reduce import (
    allclose,
    amax,
    amin,
    aminmax,
    argmax,
    argmin,
    count_nonzero,
    equal,
    log_softmax,
    logsumexp,
    mean,
    norm,
    prod,
    softmax,
    std,
    std_mean,
    var,
    var_mean,
)
from graphflow.functions.reduce import (
    any_ as any,
)
from graphflow.functions.reduce import (
    max_ as max,
)
from graphflow.functions.reduce import (
    min_ as min,
)
from graphflow.functions.reduce import (
    sum_ as sum,
)
from graphflow.functions.shape import (
    broadcast_shapes_ as broadcast_shapes,
)
from graphflow.functions.shape import (
    broadcast_tensors,
    broadcast_to,
    cat,
    chunk,
    flatten,
    flip,
    hstack,
    movedim,
    narrow,
    permute,
    ravel,
    reshape,
    roll,
    select,
    split,
    squeeze,
    stack,
    tile,
    transpose,
    tril,
    triu,
    unbind,
    unflatten,
    unsqueeze,
    vstack,
)
from graphflow.functions.shape import (
    cat as concat,
)
from graphflow.functions.shape import (
    cat as concatenate,
)
from graphflow.functions.shape import (
    movedim as moveaxis,
)
from graphflow.functions.shape import (
    t_ as t,
)
from graphflow.functions.shape import (
    transpose as swapaxes,
)
from graphflow.functions.shape import (
    transpose as swapdims,
)
from graphflow.random import (
    bernoulli,
    normal,
    rand,
    rand_like,
    randint,
    randint_like,
    randn,
    randn_like,
    randperm,
)

__all__ = [
    "abs",
    "absolute",
    "acos",
    "acosh",
    "add",
    "addcdiv",
    "addcmul",
    "addmm",
    "addmv",
    "all",
    "allclose",
    "amax",
    "amin",
    "aminmax",
    "any",
    "arange",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctan2",
    "arctanh",
    "argmax",
    "argmin",
    "as_tensor",
    "asarray",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "baddbmm",
    "bernoulli",
    "bitwise_and",
    "bitwise_not",
    "bitwise_or",
    "bitwise_xor",
    "bmm",
    "broadcast_shapes",
    "broadcast_tensors",
    "broadcast_to",
    "cat",
    "ceil",
    "chunk",
    "clamp",
    "clamp_max",
    "clamp_min",
    "clip",
    "clone",
    "concat",
    "concatenate",
    "cos",
    "cosh",
    "count_nonzero",
    "deg2rad",
    "div",
    "divide",
    "dot",
    "empty",
    "empty_like",
    "eq",
    "equal",
    "erf",
    "erfc",
    "exp",
    "exp2",
    "expm1",
    "eye",
    "fix",
    "flatten",
    "flip",
    "floor",
    "floor_divide",
    "fmod",
    "frac",
    "from_dlpack",
    "from_numpy",
    "full",
    "full_like",
    "gather",
    "ge",
    "ger",
    "greater",
    "greater_equal",
    "gt",
    "hstack",
    "index_add",
    "index_select",
    "is_floating_point",
    "is_tensor",
    "isclose",
    "isfinite",
    "isinf",
    "isnan",
    "le",
    "left_shift",
    "lerp",
    "less",
    "less_equal",
    "linspace",
    "log",
    "log10",
    "log1p",
    "log2",
    "log_softmax",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "logit",
    "logsumexp",
    "lt",
    "masked_fill",
    "masked_select",
    "matmul",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "mm",
    "moveaxis",
    "movedim",
    "mul",
    "multiply",
    "mv",
    "nan_to_num",
    "narrow",
    "ne",
    "neg",
    "negative",
    "nonzero",
    "norm",
    "normal",
    "not_equal",
    "numel",
    "one_hot",
    "ones",
    "ones_like",
    "outer",
    "permute",
    "positive",
    "pow",
    "prod",
    "promote_types",
    "rad2deg",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "randperm",
    "ravel",
    "reciprocal",
    "relu",
    "remainder",
    "reshape",
    "result_type",
    "right_shift",
    "roll",
    "round",
    "rsqrt",
    "rsub",
    "scatter_add",
    "select",
    "sgn",
    "sigmoid",
    "sign",
    "sin",
    "sinh",
    "softmax",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "std_mean",
    "sub",
    "subtract",
    "sum",
    "swapaxes",
    "swapdims",
    "t",
    "take",
    "take_along_dim",
    "tan",
    "tanh",
    "tensor",
    "tile",
    "transpose",
    "tril",
    "triu",
    "true_divide",
    "trunc",
    "unbind",
    "unflatten",
    "unsqueeze",
    "var",
    "var_mean",
    "vstack",
    "where",
    "zeros",
    "zeros_like",
]

assert inplace and operators  # importing them gave Tensor its remaining methods

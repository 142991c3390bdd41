"""Operations on tensors, in PyTorch's vocabulary: each is defined once and spelt both ways, f(x) and x.f().

The families' modules hold the definitions; this one names what is public.
"""

# The lists are packed, so that they can be read at a glance.
# fmt: off
# ruff: noqa: I001

from graphflow.functions import inplace, operators, window
from graphflow.functions.arrange import (
    cat, chunk, cat as concat, cat as concatenate, flip, hstack, narrow, roll, select, split, stack, unbind,
    vstack,
)
from graphflow.functions.choose import (
    clamp, clamp_max, clamp_min, clamp as clip, logit, masked_fill, maximum, minimum, where,
)
from graphflow.functions.convert import (
    clone, is_floating_point, is_tensor, numel, promote_types, result_type,
)
from graphflow.functions.create import (
    arange, as_tensor, as_tensor as asarray, empty, empty_like, eye, from_dlpack, from_numpy, full, full_like,
    linspace, ones, ones_like, tensor, zeros, zeros_like,
)
from graphflow.functions.elementwise import (
    abs_ as abs, abs_ as absolute, acos, acosh, add, addcdiv, addcmul, acos as arccos, acosh as arccosh,
    asin as arcsin, asinh as arcsinh, atan as arctan, atan2 as arctan2, atanh as arctanh, asin, asinh, atan,
    atan2, atanh, ceil, cos, cosh, deg2rad, div, div as divide, erf, erfc, exp, exp2, expm1, trunc as fix,
    floor, floor_divide, fmod, frac, lerp, log, log10, log1p, log2, mul, mul as multiply, neg,
    neg as negative, positive, pow_ as pow, rad2deg, reciprocal, relu, remainder, round_ as round, rsqrt,
    rsub, sign as sgn, sigmoid, sign, sin, sinh, sqrt, square, sub, sub as subtract, tan, tanh, true_divide,
    trunc,
)
from graphflow.functions.index import (
    gather, index_add, index_select, masked_select, nonzero, one_hot, scatter_add, take, take_along_dim,
)
from graphflow.functions.linalg import (
    addmm, addmv, baddbmm, bmm, dot, outer as ger, matmul, mm, mv, outer,
)
from graphflow.functions.logic import (
    bitwise_and, bitwise_not, bitwise_or, bitwise_xor, eq, ge, gt as greater, ge as greater_equal, gt,
    isclose, isfinite, isinf, isnan, le, bitwise_left_shift as left_shift, lt as less, le as less_equal,
    logical_and, logical_not, logical_or, logical_xor, lt, nan_to_num, ne, ne as not_equal,
    bitwise_right_shift as right_shift,
)
from graphflow.functions.reduce import (
    all_ as all, allclose, amax, amin, aminmax, any_ as any, argmax, argmin, count_nonzero, equal,
    log_softmax, logsumexp, max_ as max, mean, min_ as min, norm, prod, softmax, std, std_mean, sum_ as sum,
    var, var_mean,
)
from graphflow.functions.shape import (
    broadcast_shapes_ as broadcast_shapes, broadcast_tensors, broadcast_to, flatten, movedim as moveaxis,
    movedim, permute, ravel, reshape, squeeze, transpose as swapaxes, transpose as swapdims, t_ as t, tile,
    transpose, tril, triu, unflatten, unsqueeze,
)
from graphflow.random import (
    bernoulli, normal, rand, rand_like, randint, randint_like, randn, randn_like, randperm,
)

__all__ = [
    "abs", "absolute", "acos", "acosh", "add", "addcdiv", "addcmul", "addmm", "addmv", "all", "allclose",
    "amax", "amin", "aminmax", "any", "arange", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2",
    "arctanh", "argmax", "argmin", "as_tensor", "asarray", "asin", "asinh", "atan", "atan2", "atanh",
    "baddbmm", "bernoulli", "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "bmm",
    "broadcast_shapes", "broadcast_tensors", "broadcast_to", "cat", "ceil", "chunk", "clamp", "clamp_max",
    "clamp_min", "clip", "clone", "concat", "concatenate", "cos", "cosh", "count_nonzero", "deg2rad", "div",
    "divide", "dot", "empty", "empty_like", "eq", "equal", "erf", "erfc", "exp", "exp2", "expm1", "eye",
    "fix", "flatten", "flip", "floor", "floor_divide", "fmod", "frac", "from_dlpack", "from_numpy", "full",
    "full_like", "gather", "ge", "ger", "greater", "greater_equal", "gt", "hstack", "index_add",
    "index_select", "is_floating_point", "is_tensor", "isclose", "isfinite", "isinf", "isnan", "le",
    "left_shift", "lerp", "less", "less_equal", "linspace", "log", "log1p", "log2", "log10", "log_softmax",
    "logical_and", "logical_not", "logical_or", "logical_xor", "logit", "logsumexp", "lt", "masked_fill",
    "masked_select", "matmul", "max", "maximum", "mean", "min", "minimum", "mm", "moveaxis", "movedim", "mul",
    "multiply", "mv", "nan_to_num", "narrow", "ne", "neg", "negative", "nonzero", "norm", "normal",
    "not_equal", "numel", "one_hot", "ones", "ones_like", "outer", "permute", "positive", "pow", "prod",
    "promote_types", "rad2deg", "rand", "rand_like", "randint", "randint_like", "randn", "randn_like",
    "randperm", "ravel", "reciprocal", "relu", "remainder", "reshape", "result_type", "right_shift", "roll",
    "round", "rsqrt", "rsub", "scatter_add", "select", "sgn", "sigmoid", "sign", "sin", "sinh", "softmax",
    "split", "sqrt", "square", "squeeze", "stack", "std", "std_mean", "sub", "subtract", "sum", "swapaxes",
    "swapdims", "t", "take", "take_along_dim", "tan", "tanh", "tensor", "tile", "transpose", "tril", "triu",
    "true_divide", "trunc", "unbind", "unflatten", "unsqueeze", "var", "var_mean", "vstack", "where", "zeros",
    "zeros_like",
]

assert inplace and operators and window  # importing them gave Tensor its remaining methods

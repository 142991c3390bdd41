"""Operations on tensors, in PyTorch's vocabulary: each is defined once and spelt both ways, f(x) and x.f().

The families' modules hold the definitions; this one names what is public.
"""

# The lists are packed, so that they can be read at a glance.
# fmt: off
# ruff: noqa: I001

from graphflow.functions import inplace, operators, reshaped_inplace, window
from graphflow.functions.arrange import (
    cat, chunk, cat as concat, cat as concatenate, flip, hstack, narrow, roll, select, split, stack, unbind,
    vstack,
)
from graphflow.functions.choose import (
    clamp, clamp_max, clamp_min, clamp as clip, fmax, fmin, logit, masked_fill, maximum, minimum, where,
)
from graphflow.functions.control import cond, fori_loop, scan, while_loop
from graphflow.functions.convert import (
    can_cast, clone, is_floating_point, is_tensor, numel, promote_types, result_type,
)
from graphflow.functions.create import (
    arange, as_tensor, as_tensor as asarray, empty, empty_like, eye, from_dlpack, from_numpy, full, full_like,
    linspace, ones, ones_like, tensor, zeros, zeros_like,
)
from graphflow.functions.cumulative import (
    cummax, cummin, cumprod, cumsum, cumulative_trapezoid, diff, logcumsumexp, trapezoid, trapezoid as trapz,
)
from graphflow.functions.decompose import (
    cholesky, det, inverse, logdet, matrix_power, pinverse, qr, slogdet, svd_ as svd,
)
from graphflow.functions.diagonal import (
    diag, diag_embed, diagflat, diagonal, tril_indices, triu_indices,
)
from graphflow.functions.einsum import (
    cross, einsum, inner, kron, tensordot,
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
    gather, index_add, index_put, index_select, masked_select, nonzero, one_hot, scatter_add, take,
    take_along_dim,
)
from graphflow.functions.linalg import (
    addbmm, addmm, addmv, addr, baddbmm, bmm, dot, outer as ger, matmul, mm, mv, outer, vdot,
)
from graphflow.functions.logic import (
    bitwise_and, bitwise_not, bitwise_or, bitwise_xor, eq, ge, gt as greater, ge as greater_equal, gt,
    isclose, isfinite, isinf, isnan, isneginf, isposinf, isreal, le,
    bitwise_left_shift, bitwise_left_shift as left_shift,
    lt as less, le as less_equal,
    logical_and, logical_not, logical_or, logical_xor, lt, nan_to_num, ne, ne as not_equal,
    bitwise_right_shift, bitwise_right_shift as right_shift,
)
from graphflow.functions.error_functions import erfinv, i0, mvlgamma
from graphflow.functions.facts import (
    adjoint, angle, conj, conj_physical, detach, fill, is_complex, is_conj, is_inference, is_neg, is_nonzero,
    is_same_size, is_signed, narrow_copy, nonzero_static, real, resolve_conj, resolve_neg, row_stack,
    split_with_sizes, unravel_index,
)
from graphflow.functions.sequences import (
    bartlett_window, blackman_window, frombuffer, hamming_window, hann_window, kaiser_window, logspace,
    range_ as range, scalar_tensor,
)
from graphflow.functions.solvers import (
    chain_matmul, cholesky_inverse, cholesky_solve, matrix_exp, triangular_solve,
)
from graphflow.functions.statistics import (
    argwhere, corrcoef, cov, dist, gradient, histogram, histogramdd, nanmean, nansum,
)
from graphflow.functions.norms import norm
from graphflow.functions.order import (
    argsort, bucketize, histc, kthvalue, median, mode, msort, nanmedian, nanquantile, quantile, searchsorted,
    sort, topk,
)
from graphflow.functions.placed import diagonal_scatter, index_reduce, select_scatter, slice_scatter
from graphflow.functions.rearrange import (
    atleast_1d, atleast_2d, atleast_3d, block_diag, cartesian_prod, column_stack, combinations, dsplit,
    dstack, fliplr, flipud, hsplit, meshgrid, repeat_interleave, rot90, tensor_split, vsplit,
)
from graphflow.functions.reduce import (
    all_ as all, allclose, amax, amin, aminmax, any_ as any, argmax, argmin, count_nonzero, equal,
    log_softmax, logsumexp, max_ as max, mean, min_ as min, prod, softmax, std, std_mean, sum_ as sum,
    var, var_mean,
)
from graphflow.functions.scatter import (
    index_copy, index_fill, masked_scatter, scatter, scatter_reduce,
)
from graphflow.functions.shape import (
    broadcast_shapes_ as broadcast_shapes, broadcast_tensors, broadcast_to, flatten, movedim as moveaxis,
    movedim, permute, ravel, reshape, squeeze, swapaxes, transpose as swapdims, t_ as t, tile,
    transpose, tril, triu, unflatten, unsqueeze,
)
from graphflow.functions.gamma import digamma, gcd, lcm, lgamma, nextafter, polygamma
from graphflow.functions.special import (
    cdist, copysign, float_power, frexp, heaviside, hypot, isin, ldexp, logaddexp, logaddexp2, renorm,
    signbit, sinc, vander, xlogy,
)
from graphflow.functions.unique import (
    bincount, unique, unique_consecutive,
)
from graphflow.draws import bernoulli, binomial, multinomial, poisson
from graphflow.random import (
    normal, rand, rand_like, randint, randint_like, randn, randn_like, randperm,
)

__all__ = [
    "abs", "absolute", "acos", "acosh", "add", "addbmm", "addcdiv", "addcmul", "addmm", "addmv", "addr",
    "adjoint", "all", "allclose", "amax", "amin", "aminmax", "angle", "any", "arange", "arccos", "arccosh",
    "arcsin", "arcsinh", "arctan", "arctan2", "arctanh", "argmax", "argmin", "argsort", "argwhere",
    "as_tensor", "asarray", "asin", "asinh", "atan", "atan2", "atanh", "atleast_1d", "atleast_2d",
    "atleast_3d", "baddbmm", "bartlett_window", "bernoulli", "bincount", "binomial", "bitwise_and",
    "bitwise_left_shift", "bitwise_not", "bitwise_or", "bitwise_right_shift", "bitwise_xor",
    "blackman_window", "block_diag", "bmm", "broadcast_shapes", "broadcast_tensors", "broadcast_to",
    "bucketize", "can_cast", "cartesian_prod", "cat", "cdist", "ceil", "chain_matmul", "cholesky",
    "cholesky_inverse", "cholesky_solve", "chunk", "clamp", "clamp_max", "clamp_min", "clip", "clone",
    "column_stack", "combinations", "concat", "concatenate", "cond", "conj", "conj_physical", "copysign",
    "corrcoef", "cos", "cosh", "count_nonzero", "cov", "cross", "cummax", "cummin", "cumprod", "cumsum",
    "cumulative_trapezoid", "deg2rad", "det", "detach", "diag", "diag_embed", "diagflat", "diagonal",
    "diagonal_scatter", "diff", "digamma", "dist", "div", "divide", "dot", "dsplit", "dstack", "einsum",
    "empty", "empty_like", "eq", "equal", "erf", "erfc", "erfinv", "exp", "exp2", "expm1", "eye", "fill",
    "fix", "flatten", "flip", "fliplr", "flipud", "float_power", "floor", "floor_divide", "fmax", "fmin",
    "fmod", "fori_loop", "frac", "frexp", "from_dlpack", "from_numpy", "frombuffer", "full", "full_like",
    "gather", "gcd", "ge", "ger", "gradient", "greater", "greater_equal", "gt", "hamming_window",
    "hann_window", "heaviside", "histc", "histogram", "histogramdd", "hsplit", "hstack", "hypot", "i0",
    "index_add", "index_copy", "index_fill", "index_put", "index_reduce", "index_select", "inner", "inverse",
    "is_complex", "is_conj", "is_floating_point", "is_inference", "is_neg", "is_nonzero", "is_same_size",
    "is_signed", "is_tensor", "isclose", "isfinite", "isin", "isinf", "isnan", "isneginf", "isposinf",
    "isreal", "kaiser_window", "kron", "kthvalue", "lcm", "ldexp", "le", "left_shift", "lerp", "less",
    "less_equal", "lgamma", "linspace", "log", "log1p", "log2", "log10", "log_softmax", "logaddexp",
    "logaddexp2", "logcumsumexp", "logdet", "logical_and", "logical_not", "logical_or", "logical_xor",
    "logit", "logspace", "logsumexp", "lt", "masked_fill", "masked_scatter", "masked_select", "matmul",
    "matrix_exp", "matrix_power", "max", "maximum", "mean", "median", "meshgrid", "min", "minimum", "mm",
    "mode", "moveaxis", "movedim", "msort", "mul", "multinomial", "multiply", "mv", "mvlgamma", "nan_to_num",
    "nanmean", "nanmedian", "nanquantile", "nansum", "narrow", "narrow_copy", "ne", "neg", "negative",
    "nextafter", "nonzero", "nonzero_static", "norm", "normal", "not_equal", "numel", "one_hot", "ones",
    "ones_like", "outer", "permute", "pinverse", "poisson", "polygamma", "positive", "pow", "prod",
    "promote_types", "qr", "quantile", "rad2deg", "rand", "rand_like", "randint", "randint_like", "randn",
    "randn_like", "randperm", "range", "ravel", "real", "reciprocal", "relu", "remainder", "renorm",
    "repeat_interleave", "reshape", "resolve_conj", "resolve_neg", "result_type", "right_shift", "roll",
    "rot90", "round", "row_stack", "rsqrt", "rsub", "scalar_tensor", "scan", "scatter", "scatter_add",
    "scatter_reduce", "searchsorted", "select", "select_scatter", "sgn", "sigmoid", "sign", "signbit", "sin",
    "sinc", "sinh", "slice_scatter", "slogdet", "softmax", "sort", "split", "split_with_sizes", "sqrt",
    "square", "squeeze", "stack", "std", "std_mean", "sub", "subtract", "sum", "svd", "swapaxes", "swapdims",
    "t", "take", "take_along_dim", "tan", "tanh", "tensor", "tensor_split", "tensordot", "tile", "topk",
    "transpose", "trapezoid", "trapz", "triangular_solve", "tril", "tril_indices", "triu", "triu_indices",
    "true_divide", "trunc", "unbind", "unflatten", "unique", "unique_consecutive", "unravel_index",
    "unsqueeze", "vander", "var", "var_mean", "vdot", "vsplit", "vstack", "where", "while_loop", "xlogy",
    "zeros", "zeros_like",
]

# importing them gave Tensor its remaining methods
assert inplace and operators and reshaped_inplace and window

"""What ``autocast`` computes in 16 bits, and what in float32 whatever comes in: PyTorch's lists for the CPU.

Functions on neither list take their operands as they are, and tensors of different dtypes promote as ever.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from graphflow.compiler.ir import OPS
from graphflow.dtypes import DType, float32, float64
from graphflow.modes import MODE
from graphflow.tensor import Tensor, apply

Body = TypeVar("Body", bound=Callable[..., Any])

# Matrix products, and what consists of them.
LOWERED = frozenset((
    "matmul", "mm", "bmm", "addmm", "addbmm", "baddbmm", "einsum", "tensordot", "inner", "chain_matmul",
    "linalg.multi_dot", "linalg.vecdot",
    "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    "scaled_dot_product_attention", "prelu",
))  # fmt: skip
# Losses, factorisations, and long products.
WIDENED = frozenset((
    "prod", "quantile", "nanquantile", "cdist", "trace", "cholesky", "cholesky_inverse", "cholesky_solve",
    "inverse", "lu_solve", "pinverse", "qr", "svd", "triangular_solve", "linalg.cond", "linalg.matrix_rank",
    "linalg.solve", "linalg.svdvals", "linalg.eigvalsh", "linalg.tensorinv", "linalg.tensorsolve",
    "linalg.qr", "linalg.svd", "linalg.eigh", "linalg.lstsq",
    "avg_pool3d", "max_pool3d", "adaptive_avg_pool3d", "adaptive_max_pool3d", "max_unpool2d", "max_unpool3d",
    "grid_sample", "binary_cross_entropy", "binary_cross_entropy_with_logits", "mse_loss", "l1_loss",
    "smooth_l1_loss", "huber_loss", "cross_entropy", "nll_loss", "kl_div", "ctc_loss", "poisson_nll_loss",
    "cosine_embedding_loss", "hinge_embedding_loss", "margin_ranking_loss", "soft_margin_loss",
    "triplet_margin_loss", "multi_margin_loss", "multilabel_margin_loss",
    "recurrent",  # whole sequences, where PyTorch leaves it to a library
))  # fmt: skip


def autocasting(body: Body, name: str | None = None) -> Body:
    """`body`, which inside ``autocast`` gets its floating point tensors in the dtype that its name's list
    says. float64 stays.
    """
    known = name or body.__name__
    if known not in LOWERED and known not in WIDENED:
        return body
    lowered = known in LOWERED

    @functools.wraps(body)
    def call(*args: Any, **kwargs: Any) -> Any:
        wanted = MODE.autocast
        if wanted is None:
            return body(*args, **kwargs)
        dtype = wanted if lowered else float32
        MODE.autocast = None
        try:
            named = dict(zip(kwargs, _converted(kwargs.values(), dtype), strict=True))
            return body(*_converted(args, dtype), **named)
        finally:
            MODE.autocast = wanted

    return cast(Body, call)


def _converted(values: Any, dtype: DType) -> list[Any]:
    found = []
    for value in values:
        if isinstance(value, Tensor) and value.dtype.is_floating_point:
            if value.dtype is not float64 and value.dtype is not dtype:
                value = apply(OPS["cast"], value, dtype=dtype)
        elif isinstance(value, (list, tuple)) and any(isinstance(v, Tensor) for v in value):
            value = type(value)(_converted(value, dtype))
        found.append(value)
    return found

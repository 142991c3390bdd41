"""``torch.linalg``'s functions."""

from graphflow.errors import LinAlgError
from graphflow.functions.decompose import (
    cholesky,
    det,
    eigh,
    eigvalsh,
    lstsq,
    matrix_power,
    matrix_rank,
    multi_dot,
    pinv,
    slogdet,
    solve,
    solve_triangular,
    svd,
    svdvals,
)
from graphflow.functions.decompose import inverse as inv
from graphflow.functions.decompose import linalg_qr as qr
from graphflow.functions.linalg import matmul
from graphflow.functions.norms import cond, matrix_norm, vector_norm
from graphflow.functions.norms import norm_ as norm
from graphflow.functions.special import linalg_vander as vander

__all__ = [
    "LinAlgError",
    "cholesky",
    "cond",
    "det",
    "eigh",
    "eigvalsh",
    "inv",
    "lstsq",
    "matmul",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "multi_dot",
    "norm",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "solve_triangular",
    "svd",
    "svdvals",
    "vander",
    "vector_norm",
]

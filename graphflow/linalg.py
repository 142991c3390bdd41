"""``torch.linalg``'s functions."""

from typing import Any as _Any

from graphflow import absent
from graphflow.errors import LinAlgError
from graphflow.functions.decompose import (
    cholesky,
    det,
    eigh,
    eigvalsh,
    inv,
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
from graphflow.functions.decompose import linalg_qr as qr
from graphflow.functions.linalg import matmul
from graphflow.functions.norms import cond, matrix_norm, vector_norm
from graphflow.functions.norms import norm_ as norm
from graphflow.functions.solvers import (
    cholesky_ex,
    inv_ex,
    matrix_exp,
    solve_ex,
    tensorinv,
    tensorsolve,
    vecdot,
)
from graphflow.functions.solvers import linalg_cross as cross
from graphflow.functions.solvers import linalg_diagonal as diagonal
from graphflow.functions.special import linalg_vander as vander

__all__ = [
    "LinAlgError",
    "cholesky",
    "cholesky_ex",
    "cond",
    "cross",
    "det",
    "diagonal",
    "eigh",
    "eigvalsh",
    "inv",
    "inv_ex",
    "lstsq",
    "matmul",
    "matrix_exp",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "multi_dot",
    "norm",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "solve_ex",
    "solve_triangular",
    "svd",
    "svdvals",
    "tensorinv",
    "tensorsolve",
    "vander",
    "vecdot",
    "vector_norm",
]


def __getattr__(name: str) -> _Any:
    raise AttributeError(absent.message("graphflow.linalg", name, __all__, {}))

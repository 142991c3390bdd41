"""What functions with several results return: named tuples that print as PyTorch's do."""

from __future__ import annotations

from typing import NamedTuple

from graphflow.tensor import Tensor


class Extremes(NamedTuple):
    """Values and the positions where they were found."""

    values: Tensor
    indices: Tensor

    def __repr__(self) -> str:
        fields = ",\n".join(f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
        return f"graphflow.return_types.{type(self).__name__}(\n{fields})"


class max(Extremes):
    """What ``graphflow.max`` gives along a dimension."""

    __slots__ = ()


class min(Extremes):
    """What ``graphflow.min`` gives along a dimension."""

    __slots__ = ()


class cummax(Extremes):
    """What ``graphflow.cummax`` gives."""

    __slots__ = ()


class cummin(Extremes):
    """What ``graphflow.cummin`` gives."""

    __slots__ = ()


class sort(Extremes):
    """What ``graphflow.sort`` gives."""

    __slots__ = ()


class topk(Extremes):
    """What ``graphflow.topk`` gives."""

    __slots__ = ()


class kthvalue(Extremes):
    """What ``graphflow.kthvalue`` gives."""

    __slots__ = ()


class median(Extremes):
    """What ``graphflow.median`` gives."""

    __slots__ = ()


class nanmedian(Extremes):
    """What ``graphflow.nanmedian`` gives."""

    __slots__ = ()


class mode(Extremes):
    """What ``graphflow.mode`` gives."""

    __slots__ = ()


class slogdet(NamedTuple):
    """What ``graphflow.slogdet`` gives."""

    sign: Tensor
    logabsdet: Tensor


class qr(NamedTuple):
    """What ``graphflow.qr`` gives."""

    Q: Tensor
    R: Tensor


class eigh(NamedTuple):
    """What ``linalg.eigh`` gives."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class svd(NamedTuple):
    """What ``graphflow.svd`` gives."""

    U: Tensor
    S: Tensor
    V: Tensor


class linalg_svd(NamedTuple):
    """What ``linalg.svd`` gives."""

    U: Tensor
    S: Tensor
    Vh: Tensor


class lstsq(NamedTuple):
    """What ``linalg.lstsq`` gives."""

    solution: Tensor
    residuals: Tensor
    rank: Tensor
    singular_values: Tensor


class frexp(NamedTuple):
    """What ``graphflow.frexp`` gives."""

    mantissa: Tensor
    exponent: Tensor


class histogram(NamedTuple):
    """What ``graphflow.histogram`` gives."""

    hist: Tensor
    bin_edges: Tensor


class histogramdd(NamedTuple):
    """What ``graphflow.histogramdd`` gives."""

    hist: Tensor
    bin_edges: tuple[Tensor, ...]


class triangular_solve(NamedTuple):
    """What ``graphflow.triangular_solve`` gives."""

    solution: Tensor
    cloned_coefficient: Tensor


class cholesky_ex(NamedTuple):
    """What ``linalg.cholesky_ex`` gives."""

    L: Tensor
    info: Tensor


class inv_ex(NamedTuple):
    """What ``linalg.inv_ex`` gives."""

    inverse: Tensor
    info: Tensor


class solve_ex(NamedTuple):
    """What ``linalg.solve_ex`` gives."""

    result: Tensor
    info: Tensor

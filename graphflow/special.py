"""``torch.special``'s functions."""

from graphflow.functions.choose import logit
from graphflow.functions.elementwise import erf, erfc, exp2, expm1, log1p
from graphflow.functions.elementwise import round_ as round
from graphflow.functions.elementwise import sigmoid as expit
from graphflow.functions.error_functions import (
    entr,
    erfcx,
    erfinv,
    i0,
    i0e,
    i1,
    i1e,
    log_ndtr,
    ndtr,
    ndtri,
    xlog1py,
    zeta,
)
from graphflow.functions.error_functions import mvlgamma as multigammaln
from graphflow.functions.gamma import digamma, polygamma
from graphflow.functions.gamma import digamma as psi
from graphflow.functions.gamma import lgamma as gammaln
from graphflow.functions.reduce import log_softmax, logsumexp, softmax
from graphflow.functions.special import sinc, xlogy

__all__ = [
    "digamma", "entr", "erf", "erfc", "erfcx", "erfinv", "exp2", "expit", "expm1", "gammaln", "i0", "i0e",
    "i1", "i1e", "log1p", "log_ndtr", "log_softmax", "logit", "logsumexp", "multigammaln", "ndtr", "ndtri",
    "polygamma", "psi", "round", "sinc", "softmax", "xlog1py", "xlogy", "zeta",
]  # fmt: skip

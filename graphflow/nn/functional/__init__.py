"""The functions behind the layers, without state: PyTorch's ``torch.nn.functional``."""

from graphflow.nn.functional.activation import gelu, log_softmax, relu, sigmoid, softmax, tanh
from graphflow.nn.functional.dropout import dropout
from graphflow.nn.functional.linear import linear
from graphflow.nn.functional.loss import cross_entropy, mse_loss, nll_loss

__all__ = [
    "cross_entropy",
    "dropout",
    "gelu",
    "linear",
    "log_softmax",
    "mse_loss",
    "nll_loss",
    "relu",
    "sigmoid",
    "softmax",
    "tanh",
]

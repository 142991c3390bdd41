"""Layers, losses and what networks are built from: PyTorch's ``torch.nn``."""

from graphflow.nn import functional, init
from graphflow.nn.activation import GELU, LogSoftmax, ReLU, Sigmoid, Softmax, Tanh
from graphflow.nn.container import ModuleDict, ModuleList, Sequential
from graphflow.nn.dropout import Dropout
from graphflow.nn.linear import Identity, Linear
from graphflow.nn.loss import CrossEntropyLoss, MSELoss, NLLLoss
from graphflow.nn.module import Module
from graphflow.nn.parameter import Parameter
from graphflow.nn.shape import Flatten

__all__ = [
    "GELU",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "Identity",
    "Linear",
    "LogSoftmax",
    "MSELoss",
    "Module",
    "ModuleDict",
    "ModuleList",
    "NLLLoss",
    "Parameter",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "functional",
    "init",
]

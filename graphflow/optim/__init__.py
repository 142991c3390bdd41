"""Optimizers: PyTorch's ``torch.optim``."""

from graphflow.optim.adam import Adam, AdamW
from graphflow.optim.group import ParamGroup
from graphflow.optim.optimizer import Optimizer
from graphflow.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "ParamGroup"]

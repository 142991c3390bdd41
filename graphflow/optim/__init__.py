"""Optimizers: PyTorch's ``torch.optim``."""

from graphflow.optim import lr_scheduler
from graphflow.optim.adagrad import Adadelta, Adagrad
from graphflow.optim.adam import Adam, AdamW
from graphflow.optim.adam_kin import Adamax, NAdam, RAdam
from graphflow.optim.asgd import ASGD
from graphflow.optim.group import ParamGroup
from graphflow.optim.optimizer import Optimizer
from graphflow.optim.rmsprop import RMSprop, Rprop
from graphflow.optim.sgd import SGD

__all__ = [
    "ASGD",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "Optimizer",
    "ParamGroup",
    "RAdam",
    "RMSprop",
    "Rprop",
    "lr_scheduler",
]

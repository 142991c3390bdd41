"""Optimizers: PyTorch's ``torch.optim``."""

from graphflow.optim import lr_scheduler, swa_utils
from graphflow.optim.adafactor import Adafactor
from graphflow.optim.adagrad import Adadelta, Adagrad
from graphflow.optim.adam import Adam, AdamW
from graphflow.optim.adam_kin import Adamax, NAdam, RAdam
from graphflow.optim.asgd import ASGD
from graphflow.optim.group import ParamGroup
from graphflow.optim.lbfgs import LBFGS
from graphflow.optim.muon import Muon
from graphflow.optim.optimizer import Optimizer
from graphflow.optim.rmsprop import RMSprop, Rprop
from graphflow.optim.sgd import SGD
from graphflow.optim.sparse_adam import SparseAdam

__all__ = [
    "ASGD",
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Muon",
    "NAdam",
    "Optimizer",
    "ParamGroup",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SparseAdam",
    "lr_scheduler",
    "swa_utils",
]

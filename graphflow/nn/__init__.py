"""Layers, losses and what networks are built from: PyTorch's ``torch.nn``."""

from graphflow import exports as _exports
from graphflow.nn import functional as functional
from graphflow.nn import init as init
from graphflow.nn import utils as utils
from graphflow.nn.activation import *
from graphflow.nn.attention import *
from graphflow.nn.batch import *
from graphflow.nn.container import *
from graphflow.nn.conv import *
from graphflow.nn.distance import *
from graphflow.nn.dropout import *
from graphflow.nn.embedding import *
from graphflow.nn.image import *
from graphflow.nn.lazy import *
from graphflow.nn.linear import *
from graphflow.nn.loss import *
from graphflow.nn.margin import *
from graphflow.nn.module import *
from graphflow.nn.norm import *
from graphflow.nn.padding import *
from graphflow.nn.parameter import *
from graphflow.nn.parameter_container import *
from graphflow.nn.piecewise import *
from graphflow.nn.pooling import *
from graphflow.nn.recurrent import *
from graphflow.nn.shape import *
from graphflow.nn.transformer import *

# A star means these, and no other modules. For tools that check types it is what stands above.
globals().update(__all__=_exports.names(globals(), "functional", "init", "utils"))

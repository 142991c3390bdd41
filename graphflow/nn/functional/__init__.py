"""The functions behind the layers, without state: PyTorch's ``torch.nn.functional``."""

from graphflow import exports as _exports
from graphflow.functions.arguments import checked as _checked
from graphflow.functions.precision import autocasting as _autocasting
from graphflow.functions.registry import FUNCTIONS as _FUNCTIONS
from graphflow.nn.functional.activation import *
from graphflow.nn.functional.adaptive import *
from graphflow.nn.functional.alpha_dropout import *
from graphflow.nn.functional.attention import *
from graphflow.nn.functional.batch import *
from graphflow.nn.functional.binary import *
from graphflow.nn.functional.conv import *
from graphflow.nn.functional.ctc import *
from graphflow.nn.functional.distance import *
from graphflow.nn.functional.dropout import *
from graphflow.nn.functional.embedding import *
from graphflow.nn.functional.embedding_bag import *
from graphflow.nn.functional.grid import *
from graphflow.nn.functional.image import *
from graphflow.nn.functional.inplace import *
from graphflow.nn.functional.linear import *
from graphflow.nn.functional.loss import *
from graphflow.nn.functional.margin import *
from graphflow.nn.functional.norm import *
from graphflow.nn.functional.pad import *
from graphflow.nn.functional.piecewise import *
from graphflow.nn.functional.pooling import *
from graphflow.nn.functional.regression import *
from graphflow.nn.functional.resize import *
from graphflow.nn.functional.unpooling import *

_names = _exports.names(globals())
# Whoever calls them by these names has their arguments looked at; tensors' own functions do it themselves.
for _name in _names:
    if globals()[_name] is not _FUNCTIONS.get(_name):
        globals()[_name] = _checked(_autocasting(globals()[_name]))

# A star means these, and no modules. For tools that check types it is what stands above.
globals().update(__all__=_names)

"""Operations on tensors, in PyTorch's vocabulary: each is defined once and spelt both ways, f(x) and x.f().

The families' modules hold the definitions and list in `__all__` what is public.
"""

from graphflow.draws import *
from graphflow.functions import (
    decompose,
    elementwise,
    inplace,
    operators,
    reduce,
    reshaped_inplace,
    sequences,
    shape,
    window,
)
from graphflow.functions.arrange import *
from graphflow.functions.choose import *
from graphflow.functions.control import *
from graphflow.functions.convert import *
from graphflow.functions.create import *
from graphflow.functions.cumulative import *
from graphflow.functions.decompose import *
from graphflow.functions.diagonal import *
from graphflow.functions.einsum import *
from graphflow.functions.elementwise import *
from graphflow.functions.error_functions import *
from graphflow.functions.facts import *
from graphflow.functions.gamma import *
from graphflow.functions.index import *
from graphflow.functions.linalg import *
from graphflow.functions.logic import *
from graphflow.functions.norms import *
from graphflow.functions.order import *
from graphflow.functions.placed import *
from graphflow.functions.rearrange import *
from graphflow.functions.reduce import *
from graphflow.functions.registry import FUNCTIONS
from graphflow.functions.scatter import *
from graphflow.functions.sequences import *
from graphflow.functions.shape import *
from graphflow.functions.solvers import *
from graphflow.functions.special import *
from graphflow.functions.statistics import *
from graphflow.functions.unique import *
from graphflow.random import *

# Names that the modules themselves need for Python's functions, or for something of their own.
abs, pow, round = elementwise.abs_, elementwise.pow_, elementwise.round_
all, any, max, min, sum = reduce.all_, reduce.any_, reduce.max_, reduce.min_, reduce.sum_
broadcast_shapes, range, svd, t = shape.broadcast_shapes_, sequences.range_, decompose.svd_, shape.t_

# A star means what was made public, and no modules. For tools that check types it is what stands above.
globals().update(__all__=sorted(FUNCTIONS))

# importing them gave Tensor its remaining methods
assert inplace and operators and reshaped_inplace and window

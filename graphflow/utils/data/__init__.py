"""``torch.utils.data``'s place: everything here is `graphflow.data`'s."""

from graphflow.data import *
from graphflow.data import __all__ as __all__
from graphflow.utils.data import dataloader as dataloader
from graphflow.utils.data import dataset as dataset
from graphflow.utils.data import distributed as distributed
from graphflow.utils.data import sampler as sampler

"""``torch.utils.data``'s place: everything here is `graphflow.data`'s."""

from graphflow.data import *  # noqa: F403
from graphflow.data import __all__ as __all__

"""Switches that PyTorch keeps in ``torch.backends``, for code that sets them. They hold what is put into
them and change nothing: results here never depend on an algorithm picked at run time.
"""

from graphflow.backends import cuda, cudnn, mps

__all__ = ["cuda", "cudnn", "mps"]

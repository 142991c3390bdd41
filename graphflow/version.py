"""graphflow's version, and those of GPU libraries, which it doesn't use, after ``torch.version``."""

from importlib.metadata import version

__version__ = version("graphflow")
cuda = None
hip = None

__all__ = ["__version__", "cuda", "hip"]

"""``torch._dynamo``, for programs that reset it or set its switches; the switches change nothing."""

from types import SimpleNamespace

from graphflow.compiler import disable, is_compiling, reset

config = SimpleNamespace(
    suppress_errors=False, cache_size_limit=8, recompile_limit=8, verbose=False, dynamic_shapes=True
)

__all__ = ["config", "disable", "is_compiling", "reset"]

"""``torch.compile``'s own arguments, which choose among compilers and their ways; here there is one."""

from __future__ import annotations

from typing import Any

_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
_BACKENDS = ("inductor", "eager", "aot_eager", "cudagraphs", "graphflow")


def require_known(fullgraph: Any, dynamic: Any, backend: Any, mode: Any, options: Any, disable: Any) -> None:
    """TypeError or ValueError for what PyTorch wouldn't take, and for another compiler in `backend`."""
    flags = {"fullgraph": fullgraph, "dynamic": dynamic, "disable": disable}
    for name, value in flags.items():
        if not isinstance(value, bool) and not (name == "dynamic" and value is None):
            raise TypeError(f"compile: argument {name!r} must be True or False, not {type(value).__name__}")
    if not isinstance(backend, str):
        raise TypeError(
            "compile: graphflow is the compiler, and can't hand its graph to another one; backend= is a "
            f"name, not {type(backend).__name__}"
        )
    if backend not in _BACKENDS:
        raise ValueError(f"compile: backend is one of {_BACKENDS}, all meaning graphflow, not {backend!r}")
    if mode is not None and options is not None:
        raise ValueError("compile: takes mode= or options=, not both")
    if mode is not None and mode not in _MODES:
        raise ValueError(f"compile: mode is one of {_MODES}, not {mode!r}")
    if options is not None and not isinstance(options, dict):
        raise TypeError(f"compile: argument 'options' must be a dict, not {type(options).__name__}")

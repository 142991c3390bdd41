"""Running a function in both lives of a tensor: at once, and traced and then evaluated by the reference
evaluator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
from graphflow import pytree
from graphflow.compiler import interpret, trace
from graphflow.compiler.ir import TensorType
from graphflow.dims import Dim
from graphflow.dtypes import as_dtype
from graphflow.tensor import Tensor


def eager(function: Callable[..., Any], *arrays: np.ndarray) -> list[np.ndarray]:
    """Results of the function on tensors of the arrays, run at once."""
    results = function(*(gf.tensor(a) for a in arrays))
    return [r.detach().numpy() for r in pytree.flatten(results)[0]]


def traced(function: Callable[..., Any], *arrays: np.ndarray, symbolic: bool = False) -> list[np.ndarray]:
    """Results of the traced function; with `symbolic`, leading sizes are symbols (equal where the numbers
    are).
    """
    hints = {f"n{a.shape[0]}": a.shape[0] for a in arrays if a.ndim} if symbolic else {}

    def run(tracer: trace.Trace, pinned: Any) -> tuple[tuple[Any, ...], None]:
        handles = []
        for number, array in enumerate(arrays):
            shape: tuple[Any, ...] = array.shape
            if symbolic and array.ndim:
                name = f"n{array.shape[0]}"
                shape = (pinned.get(name, Dim.symbol(name)), *array.shape[1:])
            node = tracer.add_arg(f"a{number}", TensorType(as_dtype(array.dtype), shape))
            handles.append(Tensor.of_node(node, tracer))
        leaves = pytree.flatten(function(*handles))[0]
        return tuple(leaf._traced_node(tracer) for leaf in leaves), None

    graph, tracer, _, _ = trace.trace("test", hints, run)
    states = [state.handle.detach().numpy() for state in tracer.states.values()]
    return interpret.run_graph(graph, [*arrays, *states])[0]


def same(got: list[np.ndarray], wanted: list[np.ndarray], rtol: float = 1e-6) -> None:
    """Asserts equal dtypes, shapes and (nearly) values."""
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-7)


def both(function: Callable[..., Any], *arrays: np.ndarray) -> list[np.ndarray]:
    """The function's results, which have to be the same at once, traced, and traced with symbolic sizes."""
    wanted = eager(function, *arrays)
    same(traced(function, *arrays), wanted)
    same(traced(function, *arrays, symbolic=True), wanted)
    return wanted

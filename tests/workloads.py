"""The benchmark's nine training steps, stopped at their first call: for tests that look at what was made."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import graphflow as gf
import numpy as np
import pytest
from graphflow import api
from graphflow.compiler.ir import Graph
from graphflow.engine import Engine

PATH = Path(__file__).resolve().parents[1] / "benchmarks" / "peers_graphflow.py"
WORKLOADS = ("twolayer", "mlp", "lenet", "cnn", "gpt", "lstm", "chain", "norm", "dispatch")


class _Stopped(Exception):
    """Ends the call."""


def graph_of(name: str, monkeypatch: pytest.MonkeyPatch) -> Graph:
    """The traced step of a workload."""
    found: list[Graph] = []

    def engine_for(graph: Graph, **_: object) -> None:
        found.append(graph)
        raise _Stopped

    with monkeypatch.context() as patch:
        patch.setattr(api, "engine_for", engine_for)
        _call(name)
    return found[0]


def first_call(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[Engine, list[np.ndarray], list[np.ndarray]]:
    """The compiled step of a workload, and the arguments and states that its first call would run it with."""
    found: list[tuple[Engine, list[np.ndarray], list[np.ndarray]]] = []

    def call(self: Engine, args: Sequence[np.ndarray], states: Sequence[np.ndarray]) -> None:
        found.append((self, list(args), list(states[: len(self.graph.states)])))
        raise _Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "call", call)
        _call(name)
    return found[0]


def _call(name: str) -> None:
    spec = importlib.util.spec_from_file_location("peers_graphflow", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    gf.manual_seed(0)
    step = module.ALL[name]()
    with pytest.raises(_Stopped):
        step()

"""How far a compiled graph's values may be from the evaluator's: what rounding makes of this very graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from graphflow.compiler.interpret import Closure, apply, bind_symbols, concrete
from graphflow.compiler.ir import Graph, Node, toposort
from graphflow.dtypes import float32

# Ops whose floating-point results are exact, or a choice among their operands.
EXACT = frozenset(
    [
        "neg",
        "abs",
        "sign",
        "maximum",
        "minimum",
        "floor",
        "ceil",
        "round",
        "trunc",
        "relu",
        "where",
        "detach",
        "alias",
        "max",
        "min",
        "argmax",
        "argmin",
    ]
)
NOISE = {"float32": 2.0**-22, "float64": 2.0**-51}


def rounds(node: Node) -> bool:
    """Whether the node's floating-point result is rounded, so that two ways to compute it may differ."""
    if node.op.name in EXACT or not node.dtype.is_floating_point:
        return False
    if node.op.name == "cast":
        return node.dtype is float32
    return node.op.kind in ("elementwise", "reduction", "contract", "scatter")


def noisy(graph: Graph, arrays: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Values of the roots where every rounded result is off by a few units in the last place."""
    symbols = bind_symbols(graph.inputs, arrays)
    return _noisy(graph.roots, dict(zip(graph.inputs, arrays, strict=True)), symbols, rng)


@dataclass(frozen=True)
class _NoisyClosure(Closure):
    """A sub-graph whose rounded results are off, too."""

    rng: np.random.Generator

    def __call__(self, *arrays: np.ndarray) -> list[Any]:
        known = dict(zip(self.graph.args, arrays, strict=True))
        return _noisy(self.graph.outputs, known, self.symbols, self.rng)


def _noisy(
    roots: Sequence[Node], known: dict[Node, Any], symbols: Mapping[str, int], rng: np.random.Generator
) -> list[Any]:
    for node in toposort(roots, stop=set(known)):
        if node in known:
            continue
        operands = [known[i] for i in node.inputs]
        if node.op.kind == "control":
            attrs = {
                k: _NoisyClosure(v, symbols, rng) if isinstance(v, Graph) else concrete(v, symbols)
                for k, v in node.attrs.items()
            }
            known[node] = tuple(np.asarray(v) for v in node.op.numpy(*operands, **attrs))
            continue
        value = apply(node, operands, symbols)
        if rounds(node):
            noise = rng.uniform(-1, 1, value.shape) * NOISE[node.dtype.name]
            value = (value * (1 + noise)).astype(value.dtype)
        known[node] = value
    return [known[r] for r in roots]


def tolerances(
    graph: Graph, arrays: Sequence[np.ndarray], exact: Sequence[np.ndarray], count: int = 3
) -> list[np.ndarray]:
    """How far a root may be from the evaluator's value: what rounding does to it, several times over.

    An ill-conditioned place (a comparison of nearly equal numbers, a difference of large ones) so allows for
    what it makes of the last bits, and everything else is held to a few of them.
    """
    rng = np.random.default_rng(7)
    runs = [noisy(graph, arrays, rng) for _ in range(count)]
    allowed = []
    for number, value in enumerate(exact):
        if value.dtype.kind != "f":
            moved = np.any([run[number] != value for run in runs], axis=0)
            allowed.append(np.where(moved, np.inf, 0.0))
            continue
        with np.errstate(invalid="ignore"):
            spread = np.max([np.abs(run[number] - value, dtype=np.float64) for run in runs], axis=0)
        unit = NOISE[value.dtype.name]
        magnitude = np.max(np.abs(value), initial=0.0, where=np.isfinite(value))
        allowed.append(
            np.where(np.isnan(spread), np.inf, 32 * spread + 8 * unit * np.abs(value) + unit * magnitude)
        )
    return allowed


def check(
    found: Sequence[np.ndarray], exact: Sequence[np.ndarray], allowed: Sequence[np.ndarray], what: str
) -> None:
    """AssertionError where a value is off by more than allowed."""
    for number, (ours, theirs, limit) in enumerate(zip(found, exact, allowed, strict=True)):
        assert ours.shape == theirs.shape, (
            f"{what}: root {number} has the shape {ours.shape}, not {theirs.shape}"
        )
        assert ours.dtype == theirs.dtype, f"{what}: root {number} is {ours.dtype}, not {theirs.dtype}"
        with np.errstate(invalid="ignore"):
            off = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
        same = (
            (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
            if ours.dtype.kind == "f"
            else ours == theirs
        )
        bad = ~(same | (off <= limit) | np.isinf(limit))
        if np.any(bad):
            where = tuple(int(i[0]) for i in np.nonzero(bad)) if bad.ndim else ()
            raise AssertionError(
                f"{what}: root {number} at {where} is {ours[where]!r}, not {theirs[where]!r} "
                f"(off by {off[where]:.3g}, {limit[where]:.3g} allowed; "
                f"{int(np.sum(bad))} of {bad.size} differ)"
            )

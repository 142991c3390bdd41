"""How far a compiled graph's values may be from the evaluator's: what rounding makes of this very graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from graphflow.compiler.interpret import Closure, apply, bind_symbols, concrete
from graphflow.compiler.ir import Graph, Node, TensorType, computes, toposort
from graphflow.dtypes import float32, holds_floats, is_half

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
        "once",
        "max",
        "min",
        "peak",
        "argmax",
        "argmin",
    ]
)
# Rounded once, in one way only: computed in float32 and stored in 16 bits they have the same bits anywhere.
ROUNDED_ONCE = frozenset(["add", "sub", "mul", "div", "sqrt"])
# Whole-matrix algorithms, LAPACK's too: nearly right for a matrix off by rounding of its norm, so that a
# small element beside large ones may be off by more than rounding of its own.
NORMWISE = frozenset(["solve", "det", "slogdet", "cholesky", "qr", "eigh", "svd"])
NOISE = {"float32": 2.0**-22, "float64": 2.0**-51}


def rounds(node: Node) -> bool:
    """Whether the node's floating-point result is rounded, so that two ways to compute it may differ."""
    if node.op.name in EXACT or not node.dtype.is_floating_point:
        return False
    if node.op.name == "cast":
        return node.dtype is float32
    if node.dtype.is_half and node.op.name in ROUNDED_ONCE:
        return False
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
        if node.op.kind in ("control", "call"):
            attrs = {
                k: _NoisyClosure(v, symbols, rng) if isinstance(v, Graph) else concrete(v, symbols)
                for k, v in node.attrs.items()
            }
            known[node] = tuple(np.asarray(v) for v in node.op.numpy(*operands, **attrs))
        elif node.op.kind in ("routine", "tiled"):
            known[node] = _noisy_routine(node, operands, symbols, rng)
        elif isinstance(node.type, TensorType) and rounds(node):
            known[node] = _noisy_result(node, operands, symbols, rng)
        else:
            known[node] = apply(node, operands, symbols)
    return [known[r] for r in roots]


def _noisy_result(
    node: Node, operands: list[Any], symbols: Mapping[str, int], rng: np.random.Generator
) -> np.ndarray:
    if not node.dtype.is_half or not computes(node.op):
        value = apply(node, operands, symbols)
        if node.op.kind not in ("reduction", "contract", "scatter") or node.op.name == "prod":
            return _off(value, rng)
        # each of many terms is rounded, whatever they cancel to
        terms = apply(node, [np.abs(v) if holds_floats(v) else v for v in operands], symbols)
        moved = value + rng.uniform(-1, 1, value.shape) * NOISE[value.dtype.name] * terms
        return np.where(np.isfinite(moved), moved, value).astype(value.dtype)
    # What is stored in 16 bits is off only where its float32 result is about half-way between two of them.
    wide = [v.astype(np.float32) if is_half(v) else v for v in operands]
    attrs = {k: concrete(v, symbols) for k, v in node.attrs.items()}
    value = np.asarray(node.op.numpy(*wide, **attrs), np.float32)
    size = np.abs(value)
    if node.op.kind in ("reduction", "contract", "scatter") and node.op.name != "prod":
        terms = [np.abs(v) if holds_floats(v) else v for v in wide]  # large terms may cancel
        size = np.asarray(node.op.numpy(*terms, **attrs), np.float32)
    moved = value + rng.choice([-1, 1], value.shape).astype(np.float32) * size * np.float32(2.0**-21)
    return np.where(np.isfinite(moved), moved, value).astype(node.dtype.numpy)


def _noisy_routine(
    node: Node, operands: list[Any], symbols: Mapping[str, int], rng: np.random.Generator
) -> Any:
    """A stable algorithm's result is nearly the exact one of operands that are nearly these."""
    half = any(is_half(v) for v in operands)
    if half:
        operands = [v.astype(np.float32) if is_half(v) else v for v in operands]
    if node.op.lowering is not None and any(holds_floats(np.asarray(v)) for v in _parts(node, operands)):
        off = _off_by_norm if node.op.name in NORMWISE else _off
        operands = [off(v, rng) if holds_floats(v) else v for v in operands]
    attrs = {k: concrete(v, symbols) for k, v in node.attrs.items()}
    value = node.op.numpy(*operands, **attrs)
    several = not isinstance(node.type, TensorType)
    types = node.type.items if several else (node.type,)
    parts = [np.asarray(v) for v in (value if several else (value,))]
    parts = [_off(v, rng) if holds_floats(v) else v for v in parts]
    parts = [v.astype(t.dtype.numpy) for v, t in zip(parts, types, strict=True)]
    return tuple(parts) if several else parts[0]


def _parts(node: Node, operands: Sequence[Any]) -> list[np.ndarray]:
    """Something floating for a routine with floating results; places found in rows are exact."""
    types = node.type.items if not isinstance(node.type, TensorType) else (node.type,)
    return list(operands) if types[0].dtype.is_floating_point else []


def _off(value: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    noise = rng.uniform(-1, 1, value.shape) * NOISE[value.dtype.name]
    return (value * (1 + noise)).astype(value.dtype)


def _off_by_norm(matrices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    largest = np.max(np.abs(matrices), axis=(-2, -1), keepdims=True, initial=0.0)
    noise = rng.uniform(-1, 1, matrices.shape) * NOISE[matrices.dtype.name]
    return (matrices + noise * largest).astype(matrices.dtype)


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
        if not holds_floats(value):
            moved = np.any([run[number] != value for run in runs], axis=0)
            allowed.append(np.where(moved, np.inf, 0.0))
            continue
        wide = value.astype(np.float64)
        with np.errstate(invalid="ignore"):
            spread = np.max([np.abs(run[number].astype(np.float64) - wide) for run in runs], axis=0)
        unit = 0.0 if is_half(value) else NOISE[value.dtype.name]
        magnitude = np.max(np.abs(wide), initial=0.0, where=np.isfinite(wide))
        allowed.append(
            np.where(np.isnan(spread), np.inf, 32 * spread + 8 * unit * np.abs(wide) + unit * magnitude)
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
        floats = holds_floats(theirs)
        ours, theirs = (v.astype(np.float64) if floats else v for v in (ours, theirs))
        with np.errstate(invalid="ignore"):
            off = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
        same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs)) if floats else ours == theirs
        bad = ~(same | (off <= limit) | np.isinf(limit))
        if np.any(bad):
            where = tuple(int(i[0]) for i in np.nonzero(bad)) if bad.ndim else ()
            raise AssertionError(
                f"{what}: root {number} at {where} is {ours[where]!r}, not {theirs[where]!r} "
                f"(off by {off[where]:.3g}, {limit[where]:.3g} allowed; "
                f"{int(np.sum(bad))} of {bad.size} differ)"
            )

"""The line search of L-BFGS: a step along a direction that meets the strong Wolfe conditions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from graphflow.tensor import Tensor

ARMIJO = 1e-4  # how much of the promised descent a step has to make
CURVATURE = 0.9  # how much of the slope may be left


class Point(NamedTuple):
    """Where a search has been: the step, the loss there, its gradient and its slope along the direction."""

    step: float
    loss: float
    gradient: Tensor
    slope: float


class Search(NamedTuple):
    """What a search found: the point, and how often the loss was evaluated."""

    point: Point
    evaluations: int


def strong_wolfe(
    evaluate: Callable[[float], Point], start: Point, step: float, reach: float, tolerance: float, limit: int
) -> Search:
    """A point that meets the strong Wolfe conditions; Nocedal & Wright, algorithms 3.5 and 3.6.

    `evaluate` gives the point at a step, `start` is the one at step 0 and `step` the first one tried. `reach`
    is the direction's largest element: an interval shorter than `tolerance` divided by it isn't searched
    further. After `limit` evaluations the best point so far is taken. As PyTorch's, after Torch7's lswolfe.
    """
    bracket, evaluations, tries = _bracket(evaluate, start, step, limit)
    if len(bracket) == 2:
        found, more = _zoom(evaluate, start, bracket, reach, tolerance, limit - tries)
        return Search(found, evaluations + more)
    return Search(bracket[0], evaluations)


def _bracket(
    evaluate: Callable[[float], Point], start: Point, step: float, limit: int
) -> tuple[list[Point], int, int]:
    """The ends of an interval with such a point in it, or the point; evaluations and moves made for it."""
    before, now = start, evaluate(step)
    for tries in range(limit):
        if now.loss > start.loss + ARMIJO * now.step * start.slope or (tries > 1 and now.loss >= before.loss):
            return [before, now], tries + 1, tries
        if abs(now.slope) <= -CURVATURE * start.slope:
            return [now], tries + 1, tries
        if now.slope >= 0:
            return [before, now], tries + 1, tries
        further = (now.step + 0.01 * (now.step - before.step), now.step * 10)
        before, now = now, evaluate(interpolate(before, now, further))
    return [start, now], max(limit, 0) + 1, max(limit, 0)


def _zoom(
    evaluate: Callable[[float], Point],
    start: Point,
    bracket: list[Point],
    reach: float,
    tolerance: float,
    limit: int,
) -> tuple[Point, int]:
    """The point within a bracket, and the evaluations made for it."""
    low, stuck = _lower(bracket), False
    for tries in range(limit):
        if abs(bracket[1].step - bracket[0].step) * reach < tolerance:
            return bracket[low], tries
        step, stuck = _within(interpolate(bracket[0], bracket[1]), bracket[0].step, bracket[1].step, stuck)
        now = evaluate(step)
        if now.loss > start.loss + ARMIJO * step * start.slope or now.loss >= bracket[low].loss:
            bracket[1 - low] = now
            low = _lower(bracket)
            continue
        if abs(now.slope) <= -CURVATURE * start.slope:
            return now, tries + 1
        if now.slope * (bracket[1 - low].step - bracket[low].step) >= 0:
            bracket[1 - low] = bracket[low]
        bracket[low] = now
    return bracket[low], max(limit, 0)


def _lower(bracket: list[Point]) -> int:
    """Which end has the lower loss."""
    return 0 if bracket[0].loss <= bracket[1].loss else 1


def _within(step: float, a: float, b: float, stuck: bool) -> tuple[float, bool]:
    """`step`, kept off the ends of the interval from a to b the second time it comes close to them."""
    low, high = min(a, b), max(a, b)
    margin = 0.1 * (high - low)
    if min(high - step, step - low) >= margin:
        return step, False
    if stuck or step >= high or step <= low:
        return (high - margin if abs(step - high) < abs(step - low) else low + margin), False
    return step, True


def interpolate(a: Point, b: Point, bounds: tuple[float, float] | None = None) -> float:
    """Where the cubic through two points and slopes has its minimum, within `bounds` or between them."""
    low, high = bounds if bounds is not None else (min(a.step, b.step), max(a.step, b.step))
    rise = a.slope + b.slope - 3 * _ratio(a.loss - b.loss, a.step - b.step)
    square = rise * rise - a.slope * b.slope
    if not square >= 0:
        return (low + high) / 2.0
    left, right = (a, b) if a.step <= b.step else (b, a)
    root = math.sqrt(square)
    share = _ratio(right.slope + root - rise, right.slope - left.slope + 2 * root)
    return min(max(right.step - (right.step - left.step) * share, low), high)


def _ratio(a: float, b: float) -> float:
    """a / b as IEEE 754 has it."""
    if b:
        return a / b
    return math.nan if not a or math.isnan(a) else math.copysign(math.inf, a)

"""What attention and its gradient mean, in NumPy: see ``ops/attention.py``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

#: Scores that the reference has in memory at once.
MOST_SCORES = 1 << 22


def _scores(
    q: np.ndarray, k: np.ndarray, mask: tuple[np.ndarray, ...], scale: float, causal: bool,
    fill: float | None, first: int,
) -> np.ndarray:
    """Scores of the queries from number `first` on."""
    s: np.ndarray = np.matmul(q, np.swapaxes(k, -1, -2)) * q.dtype.type(scale)
    for added in mask:
        s = np.where(added, s, s.dtype.type(score_left_out(fill))) if added.dtype == np.bool_ else s + added
    if causal:
        sees = np.arange(first, first + q.shape[-2])[:, None] >= np.arange(k.shape[-2])
        s = np.where(sees, s, s.dtype.type(-np.inf))
    return s


def score_left_out(fill: float | None) -> float:
    """The score of what a bool mask leaves out."""
    return -np.inf if fill is None else fill


def _pieces(batch: tuple[int, ...], n: int, m: int) -> Iterator[tuple[tuple[int, ...], slice]]:
    """Batch items, and rows of them, that are computed together."""
    if int(np.prod(batch)) * n * m <= MOST_SCORES:
        yield (), slice(0, n)
        return
    step = max(1, MOST_SCORES // m)
    for at in np.ndindex(*batch):
        for start in range(0, n, step):
            yield at, slice(start, min(start + step, n))


def _spread(arrays: tuple[np.ndarray, ...], mask: tuple[np.ndarray, ...]) -> Any:
    """The batch, operands with all of its dimensions, which takes no memory, and the mask likewise."""
    last = (arrays[0].shape[-2], arrays[1].shape[-2])
    batch = np.broadcast_shapes(*(a.shape[:-2] for a in (*arrays, *mask)))
    wide = [np.broadcast_to(a, (*batch, *a.shape[-2:])) for a in arrays]
    return batch, wide, tuple(np.broadcast_to(a, (*batch, *last)) for a in mask)


def forward(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, *mask: np.ndarray, scale: float, causal: bool,
    fill: float | None,
) -> tuple[np.ndarray, np.ndarray]:
    """The means, and the logarithms of what their weights were divided by."""
    n, m = q.shape[-2], k.shape[-2]
    batch, (q, k, v), mask = _spread((q, k, v), mask)
    out, sums = np.zeros((*batch, n, v.shape[-1]), q.dtype), np.full((*batch, n), np.inf, q.dtype)
    for at, rows in _pieces(batch, n, m) if m else ():
        part: Any = (*at, ..., rows, slice(None))
        with np.errstate(all="ignore"):
            s = _scores(q[part], k[at], tuple(a[part] for a in mask), scale, causal, fill, rows.start)
            top = s.max(-1, keepdims=True)
            shift = np.where(top == -np.inf, s.dtype.type(0), top)
            p = np.exp(s - shift)
            total = p.sum(-1, keepdims=True)
            mean = np.matmul(p, v[at]) / total
            logs = shift + np.log(total)
        if mask and fill is None:
            mean, logs = np.where(total == 0, 0, mean), np.where(total == 0, np.inf, logs)
        else:
            logs = np.where(total == 0, np.nan, logs)
        out[part] = mean
        sums[part[:-1]] = logs[..., 0]
    return out, sums


def gradient(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, g: np.ndarray, logs: np.ndarray, weighted: np.ndarray,
    *mask: np.ndarray, scale: float, causal: bool, fill: float | None,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """The cotangents of queries, keys and values."""
    n, m = q.shape[-2], k.shape[-2]
    columns = (logs[..., None], weighted[..., None])
    batch, (q, k, v, g, logs, weighted), mask = _spread((q, k, v, g, *columns), mask)
    found = tuple(np.zeros(a.shape, a.dtype) for a in (q, k, v))
    dq, dk, dv = found
    for at, rows in _pieces(batch, n, m):
        part: Any = (*at, ..., rows, slice(None))
        with np.errstate(all="ignore"):
            s = _scores(q[part], k[at], tuple(a[part] for a in mask), scale, causal, fill, rows.start)
            p = np.exp(s - logs[part])
            of_scores = p * (np.matmul(g[part], np.swapaxes(v[at], -1, -2)) - weighted[part])
            of_scores *= s.dtype.type(scale)
            for added in mask:
                if fill is not None and added.dtype == np.bool_:
                    of_scores[~np.broadcast_to(added[part], of_scores.shape)] = 0
            dq[part] = np.matmul(of_scores, k[at])
            dk[at] += np.matmul(np.swapaxes(of_scores, -1, -2), q[part])
            dv[at] += np.matmul(np.swapaxes(p, -1, -2), g[part])
    return found

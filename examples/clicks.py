"""Made-up clicks: who clicked on what, and where it was shown. Data for the recommender examples."""

import numpy as np

import graphflow as gf

FIELDS = {"user": 200, "item": 300, "hour": 24, "place": 8}
SIZES = list(FIELDS.values())


def clicks(samples: int, seed: int) -> tuple[gf.Tensor, gf.Tensor]:
    """(samples, 4) int64 category numbers, one column for each field, and (samples,) float32 clicks, 0 or 1.

    A click depends on each category by itself, on how well hidden tastes of user and item match, and on item
    and hour together; half of the pairs of user and item seen in testing were never seen in training.
    """
    hidden = np.random.default_rng(7)  # the world is the same for every seed
    alone = [hidden.normal(0, 0.4, size) for size in SIZES]
    tastes = hidden.normal(0, 1, (SIZES[0], 5)), hidden.normal(0, 1, (SIZES[1], 5))
    by_hour = hidden.normal(0, 0.8, (SIZES[1], 3)), hidden.normal(0, 1, (SIZES[2], 3))

    random = np.random.default_rng(seed)
    codes = np.stack([random.integers(0, size, samples) for size in SIZES], axis=1)
    user, item, hour, _ = codes.T
    score = sum(weights[column] for weights, column in zip(alone, codes.T, strict=True))
    score = score + np.sum(tastes[0][user] * tastes[1][item], axis=1)
    score = score + np.sum(by_hour[0][item] * by_hour[1][hour], axis=1)
    clicked = random.random(samples) < 1 / (1 + np.exp(-score))
    return gf.tensor(codes), gf.tensor(clicked, dtype=gf.float32)


def auc(scores: gf.Tensor, clicked: gf.Tensor) -> float:
    """Area under the ROC curve: the probability that a click scores above a non-click (ties count half)."""
    values, wins = scores.detach().numpy(), clicked.numpy() > 0.5
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    positive, negative = int(wins.sum()), int((~wins).sum())
    return float((rank[wins].sum() - positive * (positive + 1) / 2) / (positive * negative))

"""Metrics of many batches: ``update`` with each, ``compute`` at the end. Exact over batches of any size.

What is kept are counts and sums, or, for areas under curves, the scores themselves; never means of means.
Counting metrics may be updated inside `compile`: their counts are states of the compiled function.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphflow import functions as ops
from graphflow.dtypes import float32, float64, int64
from graphflow.errors import ShapeError, TraceError
from graphflow.metrics import classification, curves
from graphflow.modes import no_grad
from graphflow.tensor import Tensor


class Metric:
    """Base class. A subclass adds its counts with ``add_state`` and defines ``update`` and ``compute``."""

    def __init__(self) -> None:
        self._initial: dict[str, Tensor] = {}

    def add_state(self, name: str, value: Tensor) -> None:
        """Keeps a tensor as an attribute that ``reset`` sets back and ``state_dict`` holds."""
        self._initial[name] = value.clone()
        setattr(self, name, value)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Takes another batch into account."""
        raise NotImplementedError(f"{type(self).__name__} has to define update")

    def compute(self) -> Tensor:
        """The metric over everything since the last ``reset``."""
        raise NotImplementedError(f"{type(self).__name__} has to define compute")

    def reset(self) -> None:
        """Forgets all batches."""
        with no_grad():
            for name, value in self._initial.items():
                getattr(self, name).copy_(value)

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of what is kept."""
        return {name: getattr(self, name).clone() for name in self._initial}

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Goes on from there. ValueError for other names, ShapeError for other shapes."""
        if set(state_dict) != set(self._initial):
            raise ValueError(
                f"{type(self).__name__}: its state has {sorted(self._initial)}, got {sorted(state_dict)}"
            )
        for name, value in state_dict.items():
            if tuple(value.shape) != tuple(self._initial[name].shape):
                raise ShapeError(
                    f"{type(self).__name__}: {name} has shape {tuple(self._initial[name].shape)}, got "
                    f"{tuple(value.shape)}"
                )
        with no_grad():
            for name, value in state_dict.items():
                getattr(self, name).copy_(value)

    def __call__(self, preds: Tensor, target: Tensor) -> None:
        """The same as ``update``."""
        self.update(preds, target)


class Accuracy(Metric):
    """`accuracy` over all batches."""

    right: Tensor
    total: Tensor

    def __init__(self, top_k: int = 1, threshold: float = 0.5):
        super().__init__()
        self.top_k, self.threshold = top_k, threshold
        self.add_state("right", ops.zeros((), dtype=int64))
        self.add_state("total", ops.zeros((), dtype=int64))

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Takes another batch into account; arguments as for `accuracy`."""
        hits = classification.hits(preds, target, self.top_k, self.threshold)
        self.right.add_(hits.sum())
        self.total.add_(ops.ones_like(hits, dtype=int64).sum())

    def compute(self) -> Tensor:
        """0-d float32; NaN before the first sample."""
        result: Tensor = (self.right.to(float64) / self.total.to(float64)).to(float32)
        return result


class ConfusionMatrix(Metric):
    """`confusion_matrix` over all batches, of `num_classes` classes."""

    matrix: Tensor

    def __init__(self, num_classes: int, threshold: float = 0.5):
        super().__init__()
        if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 2:
            raise ValueError(f"{type(self).__name__}: num_classes is at least 2, got {num_classes!r}")
        self.num_classes, self.threshold = num_classes, threshold
        self.add_state("matrix", ops.zeros((num_classes, num_classes), dtype=int64))

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Takes another batch into account; arguments as for `confusion_matrix`."""
        self.matrix.add_(classification.confusion_matrix(preds, target, self.num_classes, self.threshold))

    def compute(self) -> Tensor:
        """(C, C) int64."""
        result: Tensor = self.matrix.clone()
        return result


class _Score(ConfusionMatrix):
    name = ""

    def __init__(
        self,
        num_classes: int = 2,
        average: str | None = "binary",
        threshold: float = 0.5,
        zero_division: float = 0.0,
    ):
        super().__init__(num_classes, threshold)
        self.average, self.zero_division = average, zero_division
        classification.score(self.name, self.matrix, average, zero_division)  # refuses what doesn't fit

    def compute(self) -> Tensor:
        """float32: 0-d, or (C,) for ``average=None``."""
        return classification.score(self.name, self.matrix, self.average, self.zero_division)


class Precision(_Score):
    """`precision` over all batches."""

    name = "precision"


class Recall(_Score):
    """`recall` over all batches."""

    name = "recall"


class F1Score(_Score):
    """`f1_score` over all batches."""

    name = "f1_score"


class _Sums(Metric):
    def __init__(self, *names: str) -> None:
        super().__init__()
        for name in ("count", *names):
            self.add_state(name, ops.zeros((), dtype=float64))


class Mean(_Sums):
    """The mean of all values given, such as the losses of batches, each with a weight, such as its size."""

    count: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__("total")

    def update(self, preds: Tensor, target: Tensor | float = 1.0) -> None:
        """Takes values `preds` with the weight `target` into account."""
        values = preds.to(float64)
        self.total.add_((values * target).sum())
        self.count.add_((ops.ones_like(values) * target).sum())

    def compute(self) -> Tensor:
        """0-d float32; NaN before the first value."""
        result: Tensor = (self.total / self.count).to(float32)
        return result

    def __call__(self, preds: Tensor, target: Tensor | float = 1.0) -> None:
        """The same as ``update``."""
        self.update(preds, target)


class MeanSquaredError(_Sums):
    """`mean_squared_error` over all batches."""

    count: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__("total")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Takes another batch into account."""
        squares = (preds.to(float64) - target.to(float64)) ** 2
        self.total.add_(squares.sum())
        self.count.add_(ops.ones_like(squares).sum())

    def compute(self) -> Tensor:
        """0-d float32; NaN before the first value."""
        result: Tensor = (self.total / self.count).to(float32)
        return result


class MeanAbsoluteError(MeanSquaredError):
    """`mean_absolute_error` over all batches."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Takes another batch into account."""
        distances = (preds.to(float64) - target.to(float64)).abs()
        self.total.add_(distances.sum())
        self.count.add_(ops.ones_like(distances).sum())


class R2Score(_Sums):
    """`r2_score` over all batches. The sums are kept about the running mean, so that large targets lose
    nothing (B. P. Welford: Note on a method for calculating corrected sums of squares. 1962, and its form for
    batches).
    """

    count: Tensor
    mean: Tensor
    spread: Tensor
    error: Tensor

    def __init__(self) -> None:
        super().__init__("mean", "spread", "error")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Takes another batch into account; a batch without elements changes nothing."""
        truth = target.to(float64)
        count = ops.ones_like(truth).sum()
        mean = truth.sum() / count.clamp(min=1)
        spread = ((truth - mean) ** 2).sum()
        total = self.count + count
        distance = mean - self.mean
        share = count / total.clamp(min=1)
        self.error.add_(((preds.to(float64) - truth) ** 2).sum())
        self.spread.add_(spread + distance**2 * self.count * share)
        self.mean.add_(distance * share)
        self.count.add_(count)

    def compute(self) -> Tensor:
        """0-d float32; NaN before the first value."""
        result: Tensor = (1 - self.error / self.spread).to(float32)
        return result


class _Scores(Metric):
    def __init__(self) -> None:
        super().__init__()
        self.preds: list[Tensor] = []
        self.target: list[Tensor] = []

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Keeps another batch's scores and targets. TraceError inside `compile`."""
        name = type(self).__name__
        if preds.is_traced or target.is_traced:
            raise TraceError(
                f"{name}: it keeps all scores, which a compiled function can't; return them "
                "and call update outside"
            )
        if preds.ndim != 1 or tuple(preds.shape) != tuple(target.shape):
            raise ShapeError(
                f"{name}: preds and target are (N,), got {tuple(preds.shape)} and {tuple(target.shape)}"
            )
        self.preds.append(preds.detach().clone())
        self.target.append(target.detach().to(int64))

    def reset(self) -> None:
        """Forgets all batches."""
        self.preds, self.target = [], []

    def state_dict(self) -> dict[str, Tensor]:
        """All scores and targets."""
        preds, target = self._joined()
        return {"preds": preds.clone(), "target": target.clone()}

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Goes on from there. ValueError for other names, ShapeError for other shapes."""
        if set(state_dict) != {"preds", "target"}:
            raise ValueError(
                f"{type(self).__name__}: its state has preds and target, got {sorted(state_dict)}"
            )
        self.reset()
        self.update(state_dict["preds"], state_dict["target"])

    def _joined(self) -> tuple[Tensor, Tensor]:
        if not self.preds:
            return ops.zeros(0), ops.zeros(0, dtype=int64)
        return ops.cat(self.preds), ops.cat(self.target)


class ROCAUC(_Scores):
    """`roc_auc` over all batches; keeps all scores."""

    def compute(self) -> Tensor:
        """0-d float32; NaN unless there are ones and zeros."""
        return curves.roc_auc(*self._joined())


class AveragePrecision(_Scores):
    """`average_precision` over all batches; keeps all scores."""

    def compute(self) -> Tensor:
        """0-d float32; NaN without ones."""
        return curves.average_precision(*self._joined())

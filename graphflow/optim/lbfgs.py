"""L-BFGS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from graphflow import functions as ops
from graphflow.errors import TraceError
from graphflow.optim.arguments import Params, Rate, check_rate
from graphflow.optim.line_search import Point, strong_wolfe
from graphflow.optim.optimizer import Optimizer
from graphflow.tensor import Tensor, enable_grad, no_grad, where_called


class LBFGS(Optimizer):
    """Newton's method with a curvature known from the last `history_size` steps; Nocedal, Math. Comp. 1980.

    One ``step(closure)`` makes up to `max_iter` iterations and `max_eval` evaluations (a quarter more than
    iterations for None) of `closure`, which forgets the gradients, computes the loss, calls ``backward`` and
    gives the loss. It ends earlier where no gradient is above `tolerance_grad`, or parameters and loss change
    by less than `tolerance_change`. `line_search_fn` is None, for steps of `lr`, or ``"strong_wolfe"``.
    There is one parameter group. As ``torch.optim.LBFGS``.

    How far it goes depends on the losses' values, so ``step`` is called outside of compiled functions
    (TraceError inside); the closure may be one.
    """

    constants: ClassVar[frozenset[str]] = frozenset(
        {"max_iter", "max_eval", "tolerance_grad", "tolerance_change", "history_size"}
    )

    def __init__(
        self,
        params: Params,
        lr: Rate = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ):
        defaults = {
            "lr": lr,
            "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "history_size": history_size,
            "line_search_fn": line_search_fn,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """ValueError for a second group."""
        if self.param_groups:
            raise ValueError("LBFGS doesn't support per-parameter options (parameter groups)")
        super().add_param_group(param_group)

    def _check_options(self, options: Mapping[str, Any]) -> None:
        check_rate("learning rate", options["lr"])
        if options["line_search_fn"] not in (None, "strong_wolfe"):
            raise ValueError(
                f"only 'strong_wolfe' is supported as line_search_fn, got {options['line_search_fn']!r}"
            )

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Up to `max_iter` iterations; returns what `closure` first gave. TypeError without a closure."""
        if closure is None:
            raise TypeError(
                "LBFGS.step() evaluates the loss several times: it needs a closure that forgets the "
                "gradients, computes the loss, calls backward() and returns the loss"
            )
        if ops.zeros(()).is_traced:
            raise TraceError(
                "LBFGS decides by the loss's values how far to go, which a compiled function can't; call "
                f"step(closure) outside, and compile the closure{where_called()}"
            )
        with enable_grad():
            first = closure()
        with no_grad():
            self._iterate(closure, float(first))
        return first

    def _iterate(self, closure: Callable[[], Any], loss: float) -> None:
        (group,) = self.param_groups
        state = self.state[group["params"][0]]  # the parameters have one state in common
        state["func_evals"] = state.get("func_evals", 0) + 1
        state.setdefault("n_iter", 0)
        grad, evaluations = self._gradient(), 1
        if _largest(grad) <= group["tolerance_grad"]:
            return
        for iteration in range(1, group["max_iter"] + 1):
            state["n_iter"] += 1
            direction = self._direction(grad)
            state["d"], state["prev_flat_grad"], state["prev_loss"] = direction, grad, loss
            step = float(group["lr"])
            if state["n_iter"] == 1:
                step *= min(1.0, 1.0 / grad.abs().sum().item())
            state["t"] = step
            slope = _dot(grad, direction)
            if slope > -group["tolerance_change"]:
                return
            made = 0
            if group["line_search_fn"] is not None:
                found = strong_wolfe(
                    self._evaluator(closure, direction),
                    Point(0.0, loss, grad, slope),
                    step,
                    _largest(direction),
                    1e-9,
                    group["max_eval"] - evaluations,
                )
                (step, loss, grad, _), made = found
                state["t"] = step
                self._move(step, direction)
            else:
                self._move(step, direction)
                if iteration != group["max_iter"]:  # the loss after the last step is the next call's to ask
                    with enable_grad():
                        loss = float(closure())
                    grad, made = self._gradient(), 1
            evaluations += made
            state["func_evals"] += made
            if (
                evaluations >= group["max_eval"]
                or (made and _largest(grad) <= group["tolerance_grad"])
                or _largest(direction) * abs(step) <= group["tolerance_change"]
                or abs(loss - state["prev_loss"]) < group["tolerance_change"]
            ):
                return

    def _direction(self, grad: Tensor) -> Tensor:
        """Minus the gradient times the approximate inverse Hessian, after the last step was learnt from."""
        (group,) = self.param_groups
        state = self.state[group["params"][0]]
        if state["n_iter"] == 1:
            state["old_dirs"], state["old_stps"], state["ro"], state["H_diag"] = [], [], [], 1.0
            first: Tensor = -grad
            return first
        changes, steps, inverses = state["old_dirs"], state["old_stps"], state["ro"]
        change, step = grad - state["prev_flat_grad"], state["d"] * state["t"]
        curvature = _dot(change, step)
        if curvature > 1e-10:
            if len(changes) == group["history_size"]:
                for held in (changes, steps, inverses):
                    held.pop(0)
            changes.append(change)
            steps.append(step)
            inverses.append(1.0 / curvature)
            state["H_diag"] = curvature / _dot(change, change)
        direction: Tensor = -grad
        shares = []
        for y, s, inverse in zip(reversed(changes), reversed(steps), reversed(inverses), strict=True):
            shares.append(_dot(s, direction) * inverse)
            direction = direction - shares[-1] * y
        direction = direction * state["H_diag"]
        for y, s, inverse in zip(changes, steps, inverses, strict=True):
            direction = direction + (shares.pop() - _dot(y, direction) * inverse) * s
        return direction

    def _evaluator(self, closure: Callable[[], Any], direction: Tensor) -> Callable[[float], Point]:
        params = list(self._parameters())
        start = [p.detach().clone() for p in params]

        def evaluate(step: float) -> Point:
            self._move(step, direction)
            with enable_grad():
                loss = float(closure())
            grad = self._gradient()
            for p, value in zip(params, start, strict=True):
                p.copy_(value)
            return Point(step, loss, grad, _dot(grad, direction))

        return evaluate

    def _gradient(self) -> Any:
        """All gradients in one row, zeros where there are none."""
        parts = [(ops.zeros_like(p) if p.grad is None else p.grad) for p in self._parameters()]
        return ops.cat([part.detach().reshape(-1) for part in parts])

    def _move(self, step: float, direction: Tensor) -> None:
        offset = 0
        for p in self._parameters():
            size = p.numel()
            part = direction[offset : offset + size].reshape(p.shape)
            p.add_((part * step).to(p.dtype))
            offset += size


def _dot(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum().item())


def _largest(a: Tensor) -> float:
    return float(a.abs().max().item()) if a.numel() else 0.0

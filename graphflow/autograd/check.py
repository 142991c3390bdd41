"""Gradients compared with finite differences, after ``torch.autograd.gradcheck``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphflow.autograd import gradients
from graphflow.derivatives import Derivative
from graphflow.dtypes import float64
from graphflow.errors import DTypeError, GradientError
from graphflow.tensor import Tensor, no_grad, where_called


class GradcheckError(GradientError):
    """A gradient that isn't the derivative."""


def gradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_forward_ad: bool = False,
) -> bool:
    """Whether the gradients of `func`, of every output in every element of every input that requires grad,
    agree with central differences of width `eps` within ``atol + rtol * |difference|``.

    Inputs should be float64. GradcheckError, which names output and input and shows both Jacobians, or False
    without `raise_exception`. Also checks that the function gives the same twice (within `nondet_tol`), and,
    with `check_forward_ad`, what `jvp` gives.
    """
    try:
        _check(func, _tuple(inputs), eps, atol, rtol, nondet_tol, check_forward_ad)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def _tuple(inputs: Tensor | Sequence[Any]) -> tuple[Any, ...]:
    return (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)


def _outputs(result: Any) -> list[Tensor]:
    found = [result] if isinstance(result, Tensor) else list(result)
    return [t for t in found if isinstance(t, Tensor) and t.dtype.kind == "float"]


def _values(func: Callable[..., Any], inputs: Sequence[Any]) -> list[np.ndarray]:
    with no_grad():
        return [np.array(t.detach().numpy()) for t in _outputs(func(*inputs))]


def _check(
    func: Callable[..., Any], inputs: tuple[Any, ...], eps: float, atol: float, rtol: float, nondet: float,
    forward: bool,
) -> None:  # fmt: skip
    wanted = [i for i, t in enumerate(inputs) if isinstance(t, Tensor) and t._requires_grad]
    if not wanted:
        raise DTypeError(f"gradcheck: no input requires grad; use requires_grad=True{where_called()}")
    for i in wanted:
        if inputs[i].dtype is not float64:
            raise DTypeError(
                f"gradcheck: input {i} is {inputs[i].type_}; differences need float64{where_called()}"
            )
    first, again = _values(func, inputs), _values(func, inputs)
    if any(
        not np.allclose(a, b, rtol=0, atol=nondet, equal_nan=True) for a, b in zip(first, again, strict=True)
    ):
        raise GradcheckError(f"gradcheck: the function doesn't give the same twice{where_called()}")
    at = Derivative("gradcheck", lambda *args: tuple(_outputs(func(*args))), inputs, wanted, {}, False)
    rows = at.rows()
    columns = at.columns() if forward else None
    for number, i in enumerate(wanted):
        numeric = _differences(func, inputs, i, first, eps)
        for k, expected in enumerate(numeric):
            _compare(rows[k][number], expected, f"output {k} with respect to input {i}", atol, rtol)
            if columns is not None:
                told = f"output {k} with respect to input {i}, by jvp,"
                _compare(columns[k][number], expected, told, atol, rtol)


def _differences(
    func: Callable[..., Any], inputs: tuple[Any, ...], place: int, like: Sequence[np.ndarray], eps: float
) -> list[np.ndarray]:
    """Jacobians of all outputs in one input, by moving one element at a time."""
    origin = inputs[place].detach().numpy()
    found = [np.zeros((*y.shape, *origin.shape)) for y in like]
    for index in np.ndindex(origin.shape):
        ends = []
        for step in (eps, -eps):
            moved = np.array(origin)
            moved[index] += step
            ends.append(_values(func, [*inputs[:place], Tensor.holding(moved), *inputs[place + 1 :]]))
        for table, above, below in zip(found, *ends, strict=True):
            table[(..., *index)] = (above - below) / (2 * eps)
    return found


def _compare(analytic: Tensor, numeric: np.ndarray, told: str, atol: float, rtol: float) -> None:
    found = analytic.detach().numpy()
    if not np.allclose(found, numeric, rtol=rtol, atol=atol, equal_nan=True):
        raise GradcheckError(
            f"gradcheck: Jacobian mismatch for {told}\nnumerical:\n{numeric}"
            f"\nanalytical:\n{found}{where_called()}"
        )


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    grad_outputs: Tensor | Sequence[Tensor] | None = None,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
) -> bool:
    """`gradcheck` of the gradient of `func` in inputs and `grad_outputs`, which are drawn if left out."""
    given = _tuple(inputs)
    places = [i for i, t in enumerate(given) if isinstance(t, Tensor) and t._requires_grad]
    outputs = _outputs(func(*given))
    if grad_outputs is None:
        rng = np.random.default_rng(0)
        seeds = [Tensor.holding(np.asarray(rng.standard_normal(tuple(o.shape)))) for o in outputs]
    else:
        seeds = list(_tuple(grad_outputs))
    for seed in seeds:
        seed.requires_grad_()

    def gradient(*args: Any) -> Any:
        values = [
            a
            if not isinstance(a, Tensor) or i not in places or a._requires_grad
            else gradients.fresh_alias(a)
            for i, a in enumerate(args[: len(given)])
        ]
        with gradients.enable_grad(), gradients.differentiating([values[i] for i in places]):
            made = _outputs(func(*values))
            kept = [(o, g) for o, g in zip(made, args[len(given) :], strict=True) if o._requires_grad]
            found = gradients.grad(
                [o for o, _ in kept], [values[i] for i in places], [g for _, g in kept], None, True, True
            )
        return tuple(g for g in found if g is not None)

    return gradcheck(gradient, (*given, *seeds), eps, atol, rtol, raise_exception, nondet_tol)


__all__ = ["GradcheckError", "gradcheck", "gradgradcheck"]

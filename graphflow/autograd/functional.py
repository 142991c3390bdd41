"""Derivatives of functions at given inputs, after ``torch.autograd.functional``, and ``autograd.grad``.

Functions take tensors and give a tensor or a tuple of tensors. Results have a history only with
``create_graph``; with ``strict``, an output that doesn't depend on an input is an error instead of zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphflow.autograd import gradients
from graphflow.derivatives import Derivative, matching
from graphflow.errors import DTypeError, GradientError
from graphflow.functions.create import ones_like, zeros_like
from graphflow.linear import Linear
from graphflow.tensor import Tensor, no_grad, where_called
from graphflow.vmap import vmap

Tensors = Tensor | tuple[Tensor, ...]


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Any, ...]:
    """Gradients of `outputs` with respect to `inputs`, as ``torch.autograd.grad``; ``.grad`` stays untouched.

    With `is_grads_batched`, `grad_outputs` have one more dimension in front, and so have the results: as many
    gradients at once. An input that no output depends on is an error, has the gradient None with
    `allow_unused`, and zeros with `materialize_grads`. `only_inputs` has to be True.
    """
    if not only_inputs:
        raise ValueError("only_inputs=False isn't there any more; use backward() for other gradients")
    if materialize_grads and allow_unused is False:
        raise ValueError("expected allow_unused to be True or not passed when materialize_grads=True")
    allowed = bool(allow_unused) or materialize_grads
    ins = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if is_grads_batched:
        found = _batched(outputs, ins, grad_outputs, create_graph, allowed)
    else:
        found = gradients.grad(outputs, ins, grad_outputs, retain_graph, create_graph, allowed)
    if materialize_grads:
        found = tuple(zeros_like(t) if g is None else g for t, g in zip(ins, found, strict=True))
    return found


def _batched(
    outputs: Any, ins: list[Tensor], grads: Any, create_graph: bool, allowed: bool
) -> tuple[Any, ...]:
    outs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    rows = [grads] if isinstance(grads, Tensor) else list(grads or [])
    if len(rows) != len(outs) or any(r is None for r in rows):
        raise GradientError(
            f"grad: is_grads_batched needs grad_outputs for each of the {len(outs)} outputs{where_called()}"
        )
    for t in ins:
        if not t._requires_grad:
            raise GradientError("one of the inputs does not require grad" + where_called())
    linear = Linear(outs, ins)
    used: list[bool] = []

    def pull(*cotangents: Tensor) -> list[Tensor]:
        found = linear.pull(matching("grad", "grad_outputs", cotangents, outs))
        used[:] = [g is not None for g in found]
        return [g for g in found if g is not None]

    found = iter(vmap(pull)(*rows))
    if not allowed and not all(used):
        raise GradientError(
            "one of the inputs was not used to compute the outputs; pass allow_unused=True to get None"
            + where_called()
        )
    kept = (next(found) if u else None for u in used)
    return tuple(g if g is None or create_graph else g.detach() for g in kept)


# ---------------------------------------------------------------------------------------------- at inputs


def _inputs(inputs: Any, name: str, argument: str = "inputs") -> tuple[Tensor, ...]:
    found = (inputs,) if isinstance(inputs, Tensor) else inputs
    if not isinstance(found, (tuple, list)) or not all(isinstance(t, Tensor) for t in found):
        raise DTypeError(f"{name}: {argument} has to be a tensor or a tuple of tensors{where_called()}")
    return tuple(found)


def _at(func: Callable[..., Any], inputs: tuple[Tensor, ...], name: str) -> Derivative:
    at = Derivative(name, func, inputs, tuple(range(len(inputs))), {}, False)
    return at


def _like(given: Any, values: list[Any], create_graph: bool) -> Any:
    """Results alone where a tensor was given alone, without history unless wanted."""
    kept = [v if create_graph else v.detach() for v in values]
    return kept[0] if isinstance(given, Tensor) else tuple(kept)


def _outputs(at: Derivative, create_graph: bool) -> Any:
    output = at.output
    single = isinstance(output, Tensor)
    return _like(output, [output] if single else list(output), create_graph)


def _vector(v: Any, like: Sequence[Tensor], name: str, what: str) -> list[Tensor]:
    if v is None:
        if len(like) != 1 or any(s != 1 for s in like[0].type_.shape):
            raise GradientError(
                f"{name}: the vector v can only be None if the {what} is a single element{where_called()}"
            )
        return [ones_like(like[0].detach())]
    return matching(name, "v", _inputs(v, name, "v"), like)


def _filled(name: str, found: Sequence[Tensor | None], like: Sequence[Tensor], strict: bool) -> list[Tensor]:
    if strict and any(g is None for g in found):
        raise GradientError(
            f"{name}: the output doesn't depend on one of the inputs (strict){where_called()}"
        )
    return [zeros_like(t.detach()) if g is None else g for g, t in zip(found, like, strict=True)]


def vjp(
    func: Callable[..., Any], inputs: Tensors, v: Tensors | None = None, create_graph: bool = False,
    strict: bool = False,
) -> tuple[Any, Any]:  # fmt: skip
    """The outputs, and `v` times the Jacobian; `v` may be left out for an output of one element."""
    given = _inputs(inputs, "vjp")
    at = _at(func, given, "vjp")
    found = at.linear.pull(_vector(v, at.outputs, "vjp", "output"))
    values = _filled("vjp", found, at.variables, strict)
    return _outputs(at, create_graph), _like(inputs, values, create_graph)


def jvp(
    func: Callable[..., Any], inputs: Tensors, v: Tensors | None = None, create_graph: bool = False,
    strict: bool = False,
) -> tuple[Any, Any]:  # fmt: skip
    """The outputs, and the Jacobian times `v`; `v` may be left out for an input of one element."""
    given = _inputs(inputs, "jvp")
    at = _at(func, given, "jvp")
    found = at.linear.push(_vector(v, at.variables, "jvp", "input"))
    values = _filled("jvp", found, at.outputs, strict)
    return _outputs(at, create_graph), _like(at.output, values, create_graph)


def _gradient_of(func: Callable[..., Any], inputs: tuple[Tensor, ...], name: str) -> Callable[..., Any]:
    """A function of the inputs that gives the gradient, and the value beside it."""

    def gradient(*args: Tensor) -> tuple[list[Tensor], Any]:
        at = _at(func, args, name)
        if not isinstance(at.output, Tensor) or any(s != 1 for s in at.output.type_.shape):
            raise GradientError(f"{name}: the function has to return a single element{where_called()}")
        return at.pull([ones_like(at.output.detach())]), at.output

    return gradient


def _second(
    func: Callable[..., Any], inputs: Tensors, v: Any, create_graph: bool, strict: bool, name: str
) -> tuple[Any, Any]:
    given = _inputs(inputs, name)
    gradient = _gradient_of(func, given, name)
    at = Derivative(name, gradient, given, tuple(range(len(given))), {}, True)
    vector = _vector(v, at.variables, name, "input")
    found = at.linear.push(vector) if name == "hvp" else at.linear.pull(vector)
    values = _filled(name, found, at.variables, strict)
    return _like(at.aux, [at.aux], create_graph), _like(inputs, values, create_graph)


def hvp(
    func: Callable[..., Any], inputs: Tensors, v: Tensors | None = None, create_graph: bool = False,
    strict: bool = False,
) -> tuple[Any, Any]:  # fmt: skip
    """The value of a function of one element, and its Hessian times `v`."""
    return _second(func, inputs, v, create_graph, strict, "hvp")


def vhp(
    func: Callable[..., Any], inputs: Tensors, v: Tensors | None = None, create_graph: bool = False,
    strict: bool = False,
) -> tuple[Any, Any]:  # fmt: skip
    """The value of a function of one element, and `v` times its Hessian."""
    return _second(func, inputs, v, create_graph, strict, "vhp")


def jacobian(
    func: Callable[..., Any], inputs: Tensors, create_graph: bool = False, strict: bool = False,
    vectorize: bool = False, strategy: str = "reverse-mode",
) -> Any:  # fmt: skip
    """The Jacobian of `func` at `inputs`: for each output (a tuple of them if there is one) for each input.

    All rows (`strategy` ``"reverse-mode"``) or columns (``"forward-mode"``) are computed at once, with and
    without `vectorize`.
    """
    if strategy not in ("reverse-mode", "forward-mode"):
        raise ValueError(
            f"jacobian: strategy is 'reverse-mode' or 'forward-mode', got {strategy!r}{where_called()}"
        )
    at = _at(func, _inputs(inputs, "jacobian"), "jacobian")
    if strict:
        for number in range(len(at.outputs)):
            _require_dependence(at, number)
    with no_grad() if not create_graph else gradients.enable_grad():
        blocks = at.rows() if strategy == "reverse-mode" else at.columns()
    rows = [_like(inputs, row, create_graph) for row in blocks]
    return rows[0] if isinstance(at.output, Tensor) else tuple(rows)


def _require_dependence(at: Derivative, number: int) -> None:
    one = [ones_like(o.detach()) if i == number else None for i, o in enumerate(at.outputs)]
    if any(g is None for g in at.linear.pull(one)):
        raise GradientError(
            f"jacobian: output {number} doesn't depend on one of the inputs (strict){where_called()}"
        )


def hessian(
    func: Callable[..., Any], inputs: Tensors, create_graph: bool = False, strict: bool = False,
    vectorize: bool = False, outer_jacobian_strategy: str = "reverse-mode",
) -> Any:  # fmt: skip
    """The Hessian of a function of one element at `inputs`: for several inputs a tuple of tuples."""
    given = _inputs(inputs, "hessian")
    gradient = _gradient_of(func, given, "hessian")

    def rows(*args: Tensor) -> Any:
        found = gradient(*args)[0]
        return found[0] if isinstance(inputs, Tensor) else tuple(found)

    return jacobian(rows, inputs, create_graph, strict, vectorize, outer_jacobian_strategy)


__all__ = ["grad", "hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]

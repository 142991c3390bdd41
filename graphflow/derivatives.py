"""``vjp``, ``jvp`` and whole Jacobians of functions, after ``torch.func``.

All work at once and inside compiled functions, and nest with each other, with ``grad`` and with ``vmap``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from graphflow.autograd.gradients import differentiating
from graphflow.compiler.ir import equal_size
from graphflow.dims import product
from graphflow.errors import DTypeError, GradientError, ShapeError
from graphflow.functions.common import reshaped
from graphflow.functions.create import eye, zeros_like
from graphflow.linear import Linear
from graphflow.tensor import Tensor, enable_grad, where_called
from graphflow.transforms import finished_value, positions_of, variable, with_aux
from graphflow.trees import flatten_tree, leaves_like, map_tree
from graphflow.variables import Untouched
from graphflow.vmap import vmap

Argnums = int | Sequence[int]


class Derivative:
    """A function computed once, with its derivative there: the outputs, and how both sides are nested."""

    def __init__(self, name: str, func: Callable[..., Any], args: Sequence[Any], argnums: Argnums,
                 kwargs: dict[str, Any], has_aux: bool):  # fmt: skip
        positions = positions_of(name, argnums, len(args))
        chosen = tuple(args[i] for i in positions)
        leaves, build = flatten_tree(chosen[0] if isinstance(argnums, int) else chosen)
        self.build_in = build
        with enable_grad():
            self.variables = [variable(leaf, name) for leaf in leaves]
            called = list(args)
            parts = build(self.variables)
            for position, part in zip(
                positions, (parts,) if isinstance(argnums, int) else parts, strict=True
            ):
                called[position] = part
            untouched = Untouched(self.variables)
            with differentiating(self.variables):
                result = func(*called, **kwargs)
                untouched.check(name)
                output, aux = with_aux(name, result) if has_aux else (result, None)
                self.outputs, self.build_out = flatten_tree(output)
                for leaf in self.outputs:
                    if not isinstance(leaf, Tensor):
                        raise DTypeError(
                            f"{name}: the function has to return tensors (in tuples, lists and dicts), it "
                            f"returned {type(leaf).__name__}; for auxiliary results return (output, aux) and "
                            f"pass has_aux=True{where_called()}"
                        )
                self.linear = Linear(self.outputs, self.variables)
        self.output = self.build_out([finished_value(o) for o in self.outputs])
        self.aux = map_tree(finished_value, aux)

    def pull(self, cotangents: Sequence[Tensor | None]) -> list[Tensor]:
        """Cotangents of the variables, zeros where there is no dependence."""
        found = self.linear.pull(cotangents)
        return [
            zeros_like(v.detach()) if g is None else g for v, g in zip(self.variables, found, strict=True)
        ]

    def push(self, tangents: Sequence[Tensor | None]) -> list[Tensor]:
        """Tangents of the outputs, zeros where there is no dependence."""
        found = self.linear.push(tangents)
        return [zeros_like(o.detach()) if t is None else t for o, t in zip(self.outputs, found, strict=True)]

    def rows(self, chunk_size: int | None = None) -> list[list[Tensor]]:
        """The Jacobian of each output in each variable, from a batch of cotangents for each output."""
        blocks = []
        for number, output in enumerate(self.outputs):
            one = functools.partial(_at_place, self.pull, number, len(self.outputs))
            shape = output.type_.shape
            found = vmap(one, chunk_size=chunk_size)(_basis(output))
            blocks.append([reshaped(r, (*shape, *r.type_.shape[1:])) for r in found])
        return blocks

    def columns(self, randomness: str = "error") -> list[list[Tensor]]:
        """The same, from a batch of tangents for each variable."""
        blocks: list[list[Tensor]] = [[] for _ in self.outputs]
        for number, value in enumerate(self.variables):
            one = functools.partial(_at_place, self.push, number, len(self.variables))
            shape = value.type_.shape
            for block, column in zip(blocks, vmap(one, 0, -1, randomness)(_basis(value)), strict=True):
                block.append(reshaped(column, (*column.type_.shape[:-1], *shape)))
        return blocks


def _at_place(
    apply: Callable[[list[Tensor | None]], list[Tensor]], place: int, count: int, value: Tensor
) -> list[Tensor]:
    """A linear function of one of its operands, the others being zero."""
    return apply([value if i == place else None for i in range(count)])


def _same_type(value: Tensor, like: Tensor) -> bool:
    """Whether dtype and shape agree; symbolic sizes are fixed to what makes them agree."""
    if value.dtype is not like.dtype or value.ndim != like.ndim:
        return False
    try:
        for a, b in zip(value.type_.shape, like.type_.shape, strict=True):
            equal_size(a, b)
    except ShapeError:
        return False
    return True


def matching(name: str, what: str, given: Sequence[Any], wanted: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of the right number, dtypes and shapes."""
    if len(given) != len(wanted):
        raise GradientError(f"{name}: expected {len(wanted)} {what}, got {len(given)}{where_called()}")
    for number, (value, like) in enumerate(zip(given, wanted, strict=True)):
        if not isinstance(value, Tensor) or not _same_type(value, like):
            got = value.type_ if isinstance(value, Tensor) else type(value).__name__
            raise GradientError(
                f"{name}: {what} {number} has to be {like.type_}, as what it belongs to; got {got}"
                f"{where_called()}"
            )
    return list(given)


def _given(name: str, what: str, tree: Any, like: Any) -> list[Any]:
    """The leaves of what was given, in the order of what they belong to."""
    found = leaves_like(tree, like)
    if found is not None:
        return found
    leaves = flatten_tree(tree)[0]
    if len(leaves) == len(flatten_tree(like)[0]):
        raise GradientError(f"{name}: {what} have to be nested as what they belong to{where_called()}")
    return leaves


def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """``func(*primals)`` and its vector-Jacobian product, as ``torch.func.vjp``.

    Gives ``(output, vjp_fn)``, with `has_aux` ``(output, vjp_fn, aux)``. ``vjp_fn(cotangents)`` takes tensors
    like the output and gives a tuple with the cotangent of each primal, in its nesting. It can be called any
    number of times, also by ``vmap``, for several cotangents at once.
    """
    if not primals:
        raise GradientError(f"vjp: needs at least one primal{where_called()}")
    at = Derivative("vjp", func, primals, tuple(range(len(primals))), {}, has_aux)

    def vjp_fn(cotangents: Any, retain_graph: bool = True, create_graph: bool | None = None) -> Any:
        leaves = _given("vjp_fn", "cotangents", cotangents, at.output)
        given = matching("vjp_fn", "cotangents", leaves, at.outputs)
        return at.build_in(at.pull(given))

    return (at.output, vjp_fn, at.aux) if has_aux else (at.output, vjp_fn)


def jvp(
    func: Callable[..., Any],
    primals: tuple[Any, ...],
    tangents: tuple[Any, ...],
    *,
    strict: bool = False,
    has_aux: bool = False,
) -> Any:
    """``func(*primals)`` and its Jacobian-vector product along `tangents`, as ``torch.func.jvp``.

    Gives ``(output, tangent of the output)``, with `has_aux` also the auxiliary result. With `strict`, an
    output that doesn't depend on the primals is an error instead of having a tangent of zeros.
    """
    at = _linearised("jvp", func, primals, has_aux)
    if not isinstance(tangents, tuple):
        raise DTypeError(f"jvp: tangents is a tuple, got {type(tangents).__name__}{where_called()}")
    given = matching("jvp", "tangents", _given("jvp", "tangents", tangents, primals), at.variables)
    pushed = at.linear.push(given)
    if strict and any(t is None for t in pushed):
        raise GradientError(f"jvp: an output does not depend on the primals{where_called()}")
    pairs = zip(at.outputs, pushed, strict=True)
    moved = at.build_out([zeros_like(o.detach()) if t is None else t for o, t in pairs])
    return (at.output, moved, at.aux) if has_aux else (at.output, moved)


def linearize(func: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """``func(*primals)`` and a function that gives its Jacobian-vector product for any tangents."""
    at = _linearised("linearize", func, primals, False)

    def jvp_fn(*tangents: Any) -> Any:
        given = matching("jvp_fn", "tangents", _given("jvp_fn", "tangents", tangents, primals), at.variables)
        return at.build_out(at.push(given))

    return at.output, jvp_fn


def _linearised(name: str, func: Callable[..., Any], primals: Any, has_aux: bool) -> Derivative:
    if not isinstance(primals, tuple) or not primals:
        raise DTypeError(
            f"{name}: primals is a non-empty tuple, got {type(primals).__name__}{where_called()}"
        )
    return Derivative(name, func, primals, tuple(range(len(primals))), {}, has_aux)


def jacrev(
    func: Callable[..., Any], argnums: Argnums = 0, *, has_aux: bool = False, chunk_size: int | None = None
) -> Callable[..., Any]:
    """A function that gives the Jacobian of `func`, row by row of it, all rows at once.

    The Jacobian of an output of shape ``s`` with respect to an argument of shape ``t`` has shape ``s + t``;
    it is nested as the output, and in there as the argument (a tuple for several `argnums`). With `has_aux`,
    gives ``(Jacobian, aux)``. `chunk_size` bounds how many rows are computed at a time.
    """

    @functools.wraps(func)
    def jacobian_of(*args: Any, **kwargs: Any) -> Any:
        at = Derivative("jacrev", func, args, argnums, kwargs, has_aux)
        result = at.build_out([at.build_in(row) for row in at.rows(chunk_size)])
        return (result, at.aux) if has_aux else result

    return jacobian_of


def jacfwd(
    func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False, *, randomness: str = "error"
) -> Callable[..., Any]:
    """As `jacrev`, column by column: cheaper where there are more outputs than inputs."""

    @functools.wraps(func)
    def jacobian_of(*args: Any, **kwargs: Any) -> Any:
        at = Derivative("jacfwd", func, args, argnums, kwargs, has_aux)
        result = at.build_out([at.build_in(row) for row in at.columns(randomness)])
        return (result, at.aux) if has_aux else result

    return jacobian_of


def _basis(like: Tensor) -> Tensor:
    """Every tensor of `like`'s shape with a single one in it, stacked."""
    shape = like.type_.shape
    if like.dtype.kind != "float":
        raise GradientError(f"an output of type {like.type_} has no Jacobian{where_called()}")
    count: Any = product(shape)
    return reshaped(eye(count, dtype=like.dtype), (count, *shape))


def jacobian(
    func: Callable[..., Any], argnums: Argnums = 0, *, has_aux: bool = False, chunk_size: int | None = None
) -> Callable[..., Any]:
    """`jacrev` under its plain name."""
    return jacrev(func, argnums, has_aux=has_aux, chunk_size=chunk_size)


def hessian(func: Callable[..., Any], argnums: Argnums = 0) -> Callable[..., Any]:
    """A function that gives the second derivatives of `func`, as ``torch.func.hessian``: the Jacobian, by
    columns, of its Jacobian by rows.
    """
    return jacfwd(jacrev(func, argnums), argnums)


__all__ = ["hessian", "jacfwd", "jacobian", "jacrev", "jvp", "linearize", "vjp"]

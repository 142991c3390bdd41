"""One definition for both spellings: ``@public`` makes a function a name of graphflow and a method
of Tensor.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar, cast

from graphflow.compiler.ir import Node
from graphflow.compiler.location import asked_by, user_level
from graphflow.errors import DTypeError
from graphflow.functions.arguments import look, misfit, told, watched
from graphflow.functions.output import into
from graphflow.functions.precision import autocasting
from graphflow.layouts import layout
from graphflow.tensor import GRAD_FN_NAMES, Named, Tensor, where_called

__all__ = ["FUNCTIONS", "asked_by", "error", "public", "titled", "user_level"]

P = ParamSpec("P")
R = TypeVar("R")

# Public name -> function, for names in the graphflow namespace: all that `functions` exports.
FUNCTIONS: dict[str, Callable[..., Any]] = {}

_NUMPY_SPELLING = {"axis": "dim", "keepdims": "keepdim"}
# Arguments that functions with device= take beside it, without effect.
_OF_MEMORY: dict[str, type] = {"layout": layout, "memory_format": layout, "pin_memory": bool}


Backward = str | Callable[..., str]


def public(
    name: str | None = None,
    *,
    function: bool = True,
    method: bool = True,
    aliases: tuple[str, ...] = (),
    backward: Backward | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Registers a function under its own name (or `name`) and `aliases`, as graphflow function and Tensor
    method.

    The registered function takes NumPy's ``axis`` and ``keepdims`` for ``dim`` and ``keepdim``, and lets
    ``grad_fn`` of its results print its name, or what `backward` says: PyTorch's name for the operation, or a
    function of the arguments that tells it. Functions that give new tensors take ``out=``, see
    `output.into`.
    """

    def register(body: Callable[P, R]) -> Callable[P, R]:
        public_name = name or body.__name__
        body = autocasting(body, public_name)
        title: Backward = backward or f"{_camel(public_name)}Backward0"
        flags = watched(body, tensors=False)
        code = inspect.unwrap(body).__code__
        places = "device" in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        respelt = _NUMPY_SPELLING.keys() | (_OF_MEMORY.keys() if places else ())

        @functools.wraps(body)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if kwargs and not respelt.isdisjoint(kwargs):
                kwargs = _respelled(public_name, kwargs, places)  # type: ignore[assignment]
            if flags:
                look(public_name, body, flags, args, kwargs)
            try:
                if "out" in kwargs and function:
                    out = kwargs.pop("out")
                    return into(public_name, body, args, kwargs, out)  # type: ignore[no-any-return]
                result = body(*args, **kwargs)
            except Exception as problem:
                better = told(public_name, body, args, kwargs, problem)
                if better is problem:
                    raise
                raise better from problem
            if isinstance(result, Tensor):
                if result._requires_grad:
                    _name(result, title, args, kwargs)
            elif isinstance(result, tuple):
                _name_all(result, title, args, kwargs)
            return result

        call.__name__ = public_name
        call.__qualname__ = public_name
        for spelling in (public_name, *aliases):
            if function:
                FUNCTIONS[spelling] = call
            if method:
                setattr(Tensor, spelling, call)
        return cast(Callable[P, R], call)

    return register


def _respelled(name: str, kwargs: dict[str, Any], places: bool) -> dict[str, Any]:
    if places:
        kwargs = _without_memory(name, kwargs)
    renamed = {_NUMPY_SPELLING.get(k, k): v for k, v in kwargs.items()}
    if len(renamed) != len(kwargs):
        raise error(
            DTypeError, name, "got the same argument twice, once in PyTorch's spelling and once in NumPy's"
        )
    return renamed


def _without_memory(name: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments without those that say how elements are to lie in memory; DTypeError for odd ones."""
    for argument, kind in _OF_MEMORY.items():
        if kwargs.get(argument) is not None and not isinstance(kwargs[argument], kind):
            raise misfit(name, argument, kind | None, kwargs[argument])
    return {k: v for k, v in kwargs.items() if k not in _OF_MEMORY}


def spread(name: str, given: tuple[Any, ...], by_keyword: Any, argument: str) -> tuple[Any, ...]:
    """Positional numbers, or one sequence of them that was given by keyword instead."""
    if by_keyword is None:
        return given
    if given:
        raise error(DTypeError, name, f"got '{argument}' both by position and by keyword")
    return (by_keyword,) if isinstance(by_keyword, (list, tuple)) else ((by_keyword,),)


def _name(result: Tensor, title: Backward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """The outermost public function names the node it ends on, unless it handed an operand through."""
    if result._leaf or result._node is None or any(result is a for a in args):
        return
    operands = [] if result._array is None else _operands((*args, *kwargs.values()))
    GRAD_FN_NAMES[result._node] = Named(
        title if isinstance(title, str) else title(*args, **kwargs),
        () if result._node in operands else tuple(operands),
    )


def _operands(values: Sequence[Any]) -> list[Node | None]:
    """What tensors are given: their nodes, None where they get no gradient."""
    found: list[Node | None] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value._node if value._requires_grad else None)
        elif isinstance(value, (list, tuple)):
            found += [v._node if v._requires_grad else None for v in value if isinstance(v, Tensor)]
    return found


def titled(
    title: Backward, order: Callable[..., tuple[Any, ...]] | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Lets ``grad_fn`` of a function's results print `title` and what the function was given.

    `order` puts its arguments in PyTorch's order.
    """

    def wrap(body: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(body)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            result = body(*args, **kwargs)
            if isinstance(result, Tensor) and result._requires_grad:
                given, named = (args, kwargs) if order is None else (order(*args, **kwargs), {})
                _name(result, title, given, named)
            return result

        return call

    return wrap


def _name_all(
    results: tuple[Any, ...], title: Backward, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    for part in results:
        if isinstance(part, Tensor) and part._requires_grad:
            _name(part, title, args, kwargs)


def _camel(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def error(kind: type[Exception], name: str, message: str) -> Exception:
    """An exception to raise: the function's name, what is wrong, and the user's line."""
    return kind(f"{name}: {message}{where_called()}")

"""What went wrong in a call: arguments of the wrong kind, told by what a function's annotations say it
takes, and errors of the operations that a function consists of, told as its own.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np

from graphflow.compiler.location import raised_at
from graphflow.dtypes import DType
from graphflow.errors import DTypeError, GraphflowError, LinAlgError, ShapeError
from graphflow.sizes import SymbolicSize
from graphflow.tensor import Tensor, where_called

P = ParamSpec("P")
R = TypeVar("R")

# Of a parameter that is looked at before every call: its position, its name, and what it takes.
Watched = tuple[int, str, tuple[type, ...]]

_FLAGS = (bool, int, np.bool_, np.integer)
_NUMBERS = (bool, int, float, np.number, np.bool_, SymbolicSize)
_NONE = type(None)


def told(
    name: str,
    body: Callable[..., Any],
    args: Any,
    kwargs: Any,
    problem: Exception,
    speaks: Callable[[str], bool] | None = None,
) -> Exception:
    """What to raise when `body` failed with `problem`: a DTypeError if an argument isn't what its annotation
    says, `problem` itself otherwise, in the name of the function if it comes from operations inside it.

    A function inside whose name `speaks` says to keep keeps it. Looking only after a failure costs calls that
    are right nothing.
    """
    users = raised_at(problem.__traceback__)
    if users is None and isinstance(problem, (GraphflowError, *_PLAIN)):
        _put_in_name_of(name, body, args, kwargs, problem, speaks)
    if isinstance(problem, GraphflowError) or (users and speaks):
        return problem
    signature = inspect.signature(body)
    try:
        given = signature.bind(*args, **kwargs)
    except TypeError as mismatch:  # Python's message may name a function that several are made with
        kept = [p for p in signature.parameters.values() if p.name != "self"]
        takes = ", ".join(str(p.replace(annotation=p.empty)) for p in kept)
        return DTypeError(f"{name}: {mismatch}; it takes ({takes}){where_called()}")
    kinds = signature.parameters
    hints = _hints(body)
    for argument, value in given.arguments.items():
        if argument not in hints:
            continue
        several = kinds[argument].kind is inspect.Parameter.VAR_POSITIONAL
        for part in value if several else (value,):
            if kinds[argument].kind is not inspect.Parameter.VAR_KEYWORD and not fits(part, hints[argument]):
                return misfit(name, argument, hints[argument], part)
    return problem


def misfit(name: str, argument: str, hint: Any, value: Any) -> DTypeError:
    """The error that says which argument is wrong, what it may be, and the user's line."""
    given = f"a {value.type_} tensor" if isinstance(value, Tensor) else _given(value)
    return DTypeError(f"{name}: argument {argument!r} must be {described(hint)}, not {given}{where_called()}")


_FEW = 8
# What graphflow raises, too, where PyTorch does.
_PLAIN = (TypeError, ValueError, IndexError, RuntimeError)
_NAME = re.compile(r"[A-Za-z_][\w.]*(?=: )")
_OPERANDS = re.compile(r"\n  (?:operands|arguments): .*")


def _put_in_name_of(
    name: str,
    body: Callable[..., Any],
    args: Any,
    kwargs: Any,
    problem: Exception,
    speaks: Callable[[str], bool] | None,
) -> None:
    """Lets a complaint about operands speak of the function that the user called, and of its arguments.

    Not for errors that the user's own code raised, called from inside `body`. Of functions inside each other
    each does this in turn, so that the outermost remains.
    """
    text = str(problem)
    inner = _NAME.match(text)
    own = inner is not None and (inner[0] == name or (speaks is not None and speaks(inner[0])))
    if (
        not isinstance(problem, (ShapeError, DTypeError, LinAlgError))
        and not own
        and (not inner or "\n  at " not in text or isinstance(problem, GraphflowError))
    ):
        return
    if not own:
        text = _OPERANDS.sub("", text[inner.end() + 2 :] if inner else text)
        message, line, place = text.partition("\n  at ")
        text = f"{name}: {message}{_arguments(body, args, kwargs)}{line}{place}"
    if "\n  at " not in text:
        text += where_called()
    problem.args = (text, *problem.args[1:])


def _arguments(body: Callable[..., Any], args: Any, kwargs: Any) -> str:
    """A line with what a function was given."""
    try:
        given = inspect.signature(body).bind_partial(*args, **kwargs)
    except TypeError:
        return ""
    kinds = given.signature.parameters
    told = []
    for argument, value in given.arguments.items():
        if (argument == "self" and not isinstance(value, Tensor)) or _is_left(value, kinds[argument].default):
            continue
        if kinds[argument].kind is inspect.Parameter.VAR_POSITIONAL:
            told += [_shown(v) for v in value]
        elif kinds[argument].kind is inspect.Parameter.VAR_KEYWORD:
            told += [f"{k} {_shown(v)}" for k, v in value.items()]
        else:
            told.append(f"{argument} {_shown(value)}")
    return f"\n  arguments: {', '.join(told)}" if told else ""


def _is_left(value: Any, default: Any) -> bool:
    plain = isinstance(default, (int, float, str)) and type(value) is type(default)
    return value is default or (plain and bool(value == default))


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return str(value.type_)
    if isinstance(value, (list, tuple)) and len(value) <= _FEW:
        inside = ", ".join(map(_shown, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    if (
        value is None
        or isinstance(value, (*_NUMBERS, DType))
        or (isinstance(value, str) and len(value) <= 40)
    ):
        return repr(value) if isinstance(value, str) else str(value)
    return type(value).__name__


def _given(value: Any) -> str:
    if isinstance(value, (list, tuple)) and value:
        inside = sorted({type(v).__name__ for v in value})
        return f"a {type(value).__name__} of {' and '.join(inside)}"
    return type(value).__name__


@functools.cache
def _hints(body: Callable[..., Any]) -> dict[str, Any]:
    return typing.get_type_hints(inspect.unwrap(body))


# ---------------------------------------------------------------------------------------------- annotations


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is what an annotation says; annotations that can't be checked fit everything."""
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return any(fits(value, h) for h in typing.get_args(hint))
    if origin is typing.Literal:
        return any(type(value) is type(v) and value == v for v in typing.get_args(hint))
    if origin in (tuple, list, Sequence):
        return isinstance(value, (list, tuple)) and _parts_fit(value, origin, typing.get_args(hint))
    if hint is None or hint is _NONE:
        return value is None
    if hint is Tensor:
        return isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "biufV")
    if hint is bool:
        return isinstance(value, _FLAGS)
    if hint is int:
        return isinstance(value, (int, np.integer, SymbolicSize)) or _is_scalar(value, "bool", "int")
    if hint is float:
        return isinstance(value, _NUMBERS) or _is_scalar(value, "bool", "int", "float")
    if origin is Callable:
        return callable(value)
    return hint is Any or not isinstance(hint, type) or isinstance(value, hint)


def _parts_fit(value: Sequence[Any], origin: Any, parts: tuple[Any, ...]) -> bool:
    if origin is tuple and parts and parts[-1] is not Ellipsis:
        return len(value) == len(parts) and all(map(fits, value, parts))
    return not parts or all(fits(v, parts[0]) for v in value)


def _is_scalar(value: Any, *kinds: str) -> bool:
    return isinstance(value, Tensor) and not value.ndim and value.dtype.kind in kinds


_WORDS = {
    Tensor: "a Tensor", int: "an integer", float: "a number", bool: "True or False", str: "a string",
    _NONE: "None",
}  # fmt: skip
_PLURALS = {Tensor: "Tensors", int: "integers", float: "numbers"}


def described(hint: Any) -> str:
    """An annotation in words."""
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        parts = typing.get_args(hint)
        if float in parts:  # what is also a number needn't be listed
            parts = tuple(p for p in parts if p not in (int, bool, SymbolicSize))
        words = list(dict.fromkeys(described(h) for h in parts))
        return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]
    if origin is typing.Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    if origin in (tuple, list, Sequence):
        parts = typing.get_args(hint)
        if origin is tuple and parts[-1] is not Ellipsis:
            return f"a tuple of {len(parts)} values"
        return f"a sequence of {_PLURALS[parts[0]]}" if parts and parts[0] in _PLURALS else "a sequence"
    if origin is Callable:
        return "a function"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))


# ---------------------------------------------------------------------------------------------- before a call


def watched(body: Callable[..., Any], *, tensors: bool) -> tuple[Watched, ...]:
    """Parameters whose mistakes might go unnoticed: bools (any string is true), with `tensors` tensors, too
    (lists and arrays have some of their methods).
    """
    wanted: dict[str, tuple[type, ...]] = {"bool": _FLAGS}
    if tensors:
        wanted["Tensor"] = (Tensor,)
    plain = inspect.unwrap(body)
    code, hints = plain.__code__, plain.__annotations__
    # this runs for every function at import, where inspect.signature would cost a third of it
    names = list(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    places = [*range(code.co_argcount), *[sys.maxsize] * code.co_kwonlyargcount]
    if code.co_flags & inspect.CO_VARARGS:
        names.append(code.co_varnames[len(names)])
        places.append(code.co_argcount)
    found = []
    for place, name in sorted(zip(places, names, strict=True), key=lambda item: item[0]):
        kind, _, rest = str(hints.get(name)).partition(" | ")
        if kind in wanted and rest in ("", "None"):
            found.append((place, name, (*wanted[kind], _NONE) if rest else wanted[kind]))
    return tuple(found)


def look(name: str, body: Callable[..., Any], watched: tuple[Watched, ...], args: Any, kwargs: Any) -> None:
    """DTypeError if one of the watched arguments isn't what it should be."""
    count = len(args)
    for place, argument, kinds in watched:
        if place < count:
            value = args[place]
        elif argument in kwargs:
            value = kwargs[argument]
        else:
            continue
        if not isinstance(value, kinds):
            raise misfit(name, argument, _hints(body)[argument], value)


def checked(body: Callable[P, R]) -> Callable[P, R]:
    """A function that refuses what isn't a tensor or a bool where its annotations say so, and tells other
    arguments of the wrong kind when it fails.
    """
    name = body.__name__
    looked = watched(body, tensors=True)

    @functools.wraps(body)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        look(name, body, looked, args, kwargs)
        try:
            return body(*args, **kwargs)
        except Exception as problem:
            better = told(name, body, args, kwargs, problem)
            if better is problem:
                raise
            raise better from problem

    return cast(Callable[P, R], call)

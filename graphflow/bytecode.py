"""What the code of a function mentions: the names that it loads and the attributes that it reads."""

from __future__ import annotations

import dis
import itertools
import types
from collections.abc import Iterator
from typing import NamedTuple

_LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF")
_TESTS = ("STORE_ATTR", "DELETE_ATTR", "LOAD_SUPER_ATTR", "IS_OP")  # these look at nothing inside an object
# What reads attributes whose names need not be in the code.
DYNAMIC = frozenset(
    ["getattr", "hasattr", "vars", "dir", "eval", "exec", "locals", "__dict__", "__getattribute__",
     "attrgetter", "methodcaller", "asdict", "astuple"]
)  # fmt: skip


class Load(NamedTuple):
    """A chain like ``config.rate``: how its beginning is found, and whether its end is only tested."""

    kind: str
    name: str
    path: tuple[str, ...]
    ended: bool = True


def loads(code: types.CodeType) -> Iterator[Load]:
    """Every chain of names in code and in the functions inside it."""
    chain: Load | None = None
    instructions = list(dis.get_instructions(code))
    for instruction, after in zip(instructions, [*instructions[1:], instructions[-1]], strict=True):
        name = instruction.opname
        if name in ("LOAD_ATTR", "LOAD_METHOD") and chain is not None:
            chain = chain._replace(path=(*chain.path, instruction.argval))
            continue
        if chain is not None:
            of_super = after.opname == "LOAD_SUPER_ATTR"  # which takes the class, an object, and their name
            yield chain._replace(ended=name not in _TESTS and not name.endswith("NONE") and not of_super)
            chain = None
        if name in _LOADS or "LOAD_FAST" in name:
            loaded = instruction.argval
            kind = "global" if name in ("LOAD_GLOBAL", "LOAD_NAME") else "fast" if "FAST" in name else "cell"
            if isinstance(loaded, tuple):  # two at once
                if name.startswith("LOAD"):
                    yield Load(kind, str(loaded[0]), ())
                loaded = loaded[-1]
            chain = Load(kind, str(loaded), ())
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from loads(constant)


def names_in(code: types.CodeType) -> set[str]:
    """The names of all attributes (and globals) that code and the functions inside it mention.

    ``getattr(config, "rate")`` mentions one; where the name isn't written down so plainly, or objects are
    matched against patterns, something of `DYNAMIC` is among them.
    """
    names = set(code.co_names) - {"getattr", "hasattr"}
    instructions = list(dis.get_instructions(code))
    for number, instruction in enumerate(instructions):
        if instruction.opname == "MATCH_CLASS":
            names |= DYNAMIC
        if instruction.argval in ("getattr", "hasattr") and instruction.opname != "LOAD_CONST":
            name = _attribute_asked_for(instructions[number + 1 :])
            names.add("getattr" if name is None else name)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= names_in(constant)
    return names


def _attribute_asked_for(rest: list[dis.Instruction]) -> str | None:
    """The name in ``(config, "rate")`` or ``(config, "rate", 0.0)``; None for anything more involved."""
    rest = [i for i in rest[:12] if i.opname not in ("PUSH_NULL", "PRECALL")]
    plain = (*_LOADS, "LOAD_FAST", "LOAD_FAST_BORROW")
    if not rest or rest[0].opname not in plain:
        return None
    rest = list(itertools.dropwhile(lambda i: i.opname == "LOAD_ATTR", rest[1:]))
    if len(rest) < 3 or rest[0].opname != "LOAD_CONST" or not isinstance(rest[0].argval, str):
        return None
    called = rest[2 if rest[1].opname.startswith(("LOAD_CONST", "LOAD_SMALL_INT", *plain)) else 1]
    return rest[0].argval if called.opname == "CALL" else None

"""The kinds of an op's attributes, read off its type rule's signature: the one place that declares them."""

from __future__ import annotations

import types
from collections.abc import Mapping
from functools import cache
from inspect import Parameter, signature
from typing import Any, Union, get_args, get_origin, get_type_hints

from graphflow.compiler.ir import Op


@cache
def attribute_kinds(op: Op) -> Mapping[str, Any]:
    """The attributes `op` takes, in the order of its type rule, each with its annotation. All are required.

    TypeError when the rule leaves a parameter without an annotation.
    """
    hints = get_type_hints(op.infer)
    kinds = {}
    operands = op.arity
    for name, parameter in signature(op.infer).parameters.items():
        if parameter.kind is Parameter.VAR_POSITIONAL:
            operands = 0
        elif operands and parameter.kind is not Parameter.KEYWORD_ONLY:
            operands -= 1
        elif parameter.kind is Parameter.KEYWORD_ONLY or operands == 0:
            if name not in hints:
                raise TypeError(f"the type rule of {op.name} has no annotation for {name}")
            kinds[name] = hints[name]
    return kinds


def matches(value: object, kind: Any) -> bool:
    """Whether `value` is of the kind an annotation names; a bool is no int here, an int no float."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return any(matches(value, k) for k in get_args(kind))
    if origin is tuple:
        if type(value) is not tuple:
            return False
        wanted = get_args(kind)
        if len(wanted) == 2 and wanted[1] is Ellipsis:
            return all(matches(v, wanted[0]) for v in value)
        return len(wanted) == len(value) and all(map(matches, value, wanted))
    return type(value) is kind


def check_attributes(op: Op, attrs: Mapping[str, Any]) -> str | None:
    """What is wrong with the attributes of an application of `op`; None when nothing is."""
    kinds = attribute_kinds(op)
    for name in kinds:
        if name not in attrs:
            return f"the attribute {name} is missing"
    for name, value in attrs.items():
        if name not in kinds:
            return f"{op.name} has no attribute {name}"
        if not matches(value, kinds[name]):
            return f"the attribute {name} can't be {value!r}"
    return None

"""Arguments nobody should give to the public functions: what people are told is Python's or graphflow's
error, names the function or the argument, and never comes from the inside.
"""

from __future__ import annotations

import inspect
import re
import traceback
import warnings
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow.errors import GraphflowError

from argument_lists import Arguments, Function, copied, floats, public_functions, taken

FUNCTIONS = public_functions()
NAMES = sorted(FUNCTIONS)

# What nobody means: for tensors and for everything else.
ODD: list[Any] = [
    None,
    "text",
    ["a", "b"],
    {"a": 1},
    {1, 2},
    object(),
    1j,
    (),
    [[1], [2, 3]],
    np.array("text"),
]


# PyTorch says NotImplementedError of modes and ranks that a function doesn't have.
PYTHONS = (TypeError, ValueError, IndexError, NotImplementedError, ZeroDivisionError)


def complaint(function: Function, args: Arguments, kwargs: dict[str, Any]) -> Exception | None:
    """What a call raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            function(*map(copied, args), **kwargs)
        except Exception as error:
            return error
    return None


def is_meant(error: Exception) -> bool:
    """Whether an error was raised on purpose: graphflow's own, one with a message of graphflow's, or Python's
    about a call that doesn't fit the signature.
    """
    if isinstance(error, GraphflowError):
        return not re.search(r"numba|llvmlite|NoneType' object|has no attribute", str(error))
    if isinstance(error, TypeError) and re.search(r"\w\(\) (missing|takes|got) ", str(error)):
        return True
    last = traceback.extract_tb(error.__traceback__)[-1]
    raised = (last.line or "").startswith("raise ")
    return raised and "graphflow" in last.filename and isinstance(error, PYTHONS)


@pytest.mark.parametrize("name", NAMES)
def test_odd_things_in_place_of_every_argument(name: str) -> None:
    function = FUNCTIONS[name]
    for args in taken(name, 2):
        for place in range(len(args)):
            for odd in ODD:
                error = complaint(function, (*args[:place], odd, *args[place + 1 :]), {})
                if error is not None and not is_meant(error):
                    raise AssertionError(f"{name}: {odd!r} as argument {place}") from error
                if isinstance(args[place], gf.Tensor) and isinstance(odd, (str, dict, set, complex)):
                    assert error is not None, f"{name}: takes {odd!r} as argument {place}"


@pytest.mark.parametrize("name", NAMES)
def test_odd_things_in_place_of_every_keyword(name: str) -> None:
    function = FUNCTIONS[name]
    parameters = inspect.signature(function).parameters
    for args in taken(name, 1):
        for keyword in list(parameters)[len(args) :]:
            if parameters[keyword].kind in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL):
                continue
            for odd in ODD:
                error = complaint(function, args, {keyword: odd})
                if error is not None and not is_meant(error):
                    raise AssertionError(f"{name}: {keyword}={odd!r}") from error
        error = complaint(function, args, {"nonsense": 1})
        assert isinstance(error, TypeError), name
        assert "nonsense" in str(error)


SHAPES = [(), (0,), (1,), (5,), (5, 7), (3, 0), (2, 5, 7), (1,) * 8]


@pytest.mark.parametrize("name", NAMES)
def test_other_shapes_and_dtypes_in_place_of_every_tensor(name: str) -> None:
    function = FUNCTIONS[name]
    for args in taken(name, 2):
        for place, argument in enumerate(args):
            if not isinstance(argument, gf.Tensor):
                continue
            others = [floats(*shape) for shape in SHAPES]
            others += [argument.to(d) for d in (gf.int64, gf.bool, gf.float16)]
            for other in others:
                error = complaint(function, (*args[:place], other, *args[place + 1 :]), {})
                if error is not None and not is_meant(error):
                    raise AssertionError(f"{name}: {other.dtype}{other.shape} as argument {place}") from error


@pytest.mark.parametrize("name", NAMES)
def test_dimensions_that_are_not_there(name: str) -> None:
    function = FUNCTIONS[name]
    if "dim" not in inspect.signature(function).parameters:
        return
    place = list(inspect.signature(function).parameters).index("dim")
    for args in taken(name, 2):
        if len(args) <= place or isinstance(args[place], int):
            for dim in (9, -9, 10**30):
                error = complaint(function, args[:place], {"dim": dim}) if len(args) <= place + 1 else None
                if len(args) > place + 1:
                    error = complaint(function, (*args[:place], dim, *args[place + 1 :]), {})
                assert error is not None, f"{name}: takes dim={dim}"
                assert is_meant(error), f"{name}: dim={dim}: {error!r}"

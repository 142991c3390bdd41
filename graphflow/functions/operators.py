"""Python's operators on tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphflow.functions import elementwise as el
from graphflow.functions import logic
from graphflow.functions.common import is_operand
from graphflow.functions.linalg import matmul
from graphflow.tensor import Tensor


def _operator(name: str, function: Callable[[Any, Any], Any], reflected: bool = True) -> None:
    """Sets ``__name__``, and with `reflected` ``__rname__``; other types' own operators get their turn."""

    def forward(self: Tensor, other: Any) -> Any:
        return function(self, other) if is_operand(other) else NotImplemented

    def backward(self: Tensor, other: Any) -> Any:
        if not is_operand(other):
            return NotImplemented
        return el.rsub(self, other) if function is el.sub else function(other, self)

    setattr(Tensor, f"__{name}__", forward)
    if reflected:
        setattr(Tensor, f"__r{name}__", backward)


for _name, _function in {
    "add": el.add, "sub": el.sub, "mul": el.mul, "truediv": el.div, "floordiv": el.floor_divide,
    "mod": el.remainder, "pow": el.pow_, "and": logic.bitwise_and, "or": logic.bitwise_or,
    "xor": logic.bitwise_xor, "lshift": logic.bitwise_left_shift, "rshift": logic.bitwise_right_shift,
    "matmul": matmul,
}.items():  # fmt: skip
    _operator(_name, _function)

for _name, _function in {
    "eq": logic.eq,
    "ne": logic.ne,
    "lt": logic.lt,
    "le": logic.le,
    "gt": logic.gt,
    "ge": logic.ge,
}.items():
    _operator(_name, _function, reflected=False)


def _in_place(name: str, method: str) -> None:
    def augmented(self: Tensor, other: Any) -> Any:
        return getattr(self, method)(other) if is_operand(other) else NotImplemented

    setattr(Tensor, f"__i{name}__", augmented)


for _name, _method in {
    "add": "add_", "sub": "sub_", "mul": "mul_", "truediv": "div_", "floordiv": "floor_divide_",
    "mod": "remainder_", "pow": "pow_", "and": "bitwise_and_", "or": "bitwise_or_", "xor": "bitwise_xor_",
    "lshift": "bitwise_left_shift_", "rshift": "bitwise_right_shift_",
}.items():  # fmt: skip
    _in_place(_name, _method)

setattr(Tensor, "__neg__", el.neg)  # noqa: B010
setattr(Tensor, "__pos__", el.positive)  # noqa: B010
setattr(Tensor, "__abs__", el.abs_)  # noqa: B010
setattr(Tensor, "__invert__", logic.bitwise_not)  # noqa: B010

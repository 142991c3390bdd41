"""Random tensors from counters: the same seed gives the same numbers, eager or compiled, on any number of
threads.

A generator is an int64 tensor (seed, offset). A draw of n elements takes the random words of the counters
offset … offset + n - 1 and moves the offset on by n, so drawing 3 and then 4 elements gives what drawing 7 at
once gives. While a function is traced, the generator is a state of the graph like any other.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

from graphflow.compiler.ir import OPS
from graphflow.compiler.trace import current_trace
from graphflow.dims import product
from graphflow.dtypes import DType, float32, float64, int64
from graphflow.errors import DTypeError, ShapeError, TraceError
from graphflow.functions.common import (
    Extent,
    as_dtype,
    cast,
    expanded,
    in_dtype,
    new_shape_args,
    of_size,
    operand,
    require_float,
    scalar,
    tensor_arg,
)
from graphflow.functions.create import finished, tensor
from graphflow.functions.registry import error, public
from graphflow.tensor import Tensor, apply, concrete, no_grad
from graphflow.vmap import draw


class Generator:
    """A stream of random numbers with a seed; 0 until `manual_seed` is called. `device` can only be
    the CPU.
    """

    def __init__(self, device: Any = None):
        state = tensor([0, 0], dtype=int64, device=device)
        state.name = "rng"
        self.state = state

    def manual_seed(self, seed: int) -> Generator:
        """Starts the stream of `seed` from its beginning. Seeds are taken modulo 2**64."""
        first = apply(OPS["eq"], apply(OPS["iota"], size=2), scalar(0, int64))
        value = apply(OPS["where"], first, scalar(int(seed), int64), scalar(0, int64))
        with no_grad():
            self.state._assign(value)
        return self

    def seed(self) -> int:
        """Starts the stream of a seed taken from the system's entropy, and tells it."""
        chosen = int.from_bytes(os.urandom(8), "little") >> 1
        self.manual_seed(chosen)
        return chosen

    def initial_seed(self) -> int:
        """The seed the stream was started with."""
        with concrete():
            return int(self.state[0].item())

    def get_state(self) -> Tensor:
        """A copy of (seed, offset), int64."""
        return cast(apply(OPS["cast"], self.state, dtype=int64), int64)

    def set_state(self, new_state: Tensor) -> None:
        """Goes on from a state that `get_state` gave."""
        state = tensor_arg(new_state, "set_state", "new_state")
        if state.dtype is not int64 or state.type_.shape != (2,):
            raise error(ShapeError, "set_state", f"a state is int64[2], (seed, offset); got {state.type_}")
        self.state._assign(state)


default_generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Starts the default generator's stream of `seed` from its beginning."""
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Seeds the default generator from the system's entropy; gives the seed."""
    return default_generator.seed()


def initial_seed() -> int:
    """The default generator's seed."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """The default generator's state, int64[2]."""
    return default_generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Sets the default generator's state."""
    default_generator.set_state(new_state)


# ---------------------------------------------------------------------------------------------- draws


def _words(shape: tuple[Extent, ...], count: int, generator: Generator | None) -> list[Tensor]:
    """`count` (at most 4) random 32-bit words an element, as int64; advances the generator."""
    state = (generator or default_generator).state

    def advance(shape: tuple[Extent, ...]) -> list[Tensor]:
        words = [apply(OPS["random_bits"], state, shape=shape, word=w) for w in range(count)]
        step = apply(OPS["mul"], apply(OPS["iota"], size=2), of_size(product(shape), int64))
        state._assign(apply(OPS["add"], state, step))
        return words

    with no_grad():
        return draw(shape, advance)


def _shifted(word: Tensor, bits: int) -> Tensor:
    return apply(OPS["right_shift"], word, scalar(bits, int64))


def _joined(high: Tensor, bits: int, low: Tensor) -> Tensor:
    return apply(OPS["add"], apply(OPS["mul"], high, scalar(1 << bits, int64)), low)


def _fraction(words: Sequence[Tensor], dtype: DType) -> Tensor:
    """Uniform in [0, 1), as many bits as the dtype has: of one word, for float64 of two."""
    if dtype is not float64:
        bits = {"float16": 11, "bfloat16": 8}.get(dtype.name, 24)
        whole = cast(_shifted(words[0], 32 - bits), float32)
        return cast(apply(OPS["mul"], whole, scalar(2.0**-bits, float32)), dtype)
    whole = _joined(_shifted(words[0], 5), 26, _shifted(words[1], 6))
    return apply(OPS["mul"], cast(whole, dtype), scalar(2.0**-53, dtype))


def _uniform(shape: tuple[Extent, ...], dtype: DType, generator: Generator | None) -> Tensor:
    return _fraction(_words(shape, 2 if dtype is float64 else 1, generator), dtype)


def _normal(shape: tuple[Extent, ...], dtype: DType, generator: Generator | None) -> Tensor:
    """Standard normal by the Box-Muller transform (1958), one value a counter."""
    if dtype.is_half:
        return cast(_normal(shape, float32, generator), dtype)
    if dtype is float32:
        words = _words(shape, 2, generator)
        radius_part = cast(
            apply(OPS["add"], words[0], scalar(1, int64)), dtype
        )  # in (0, 1], in steps of 2**-32
        radius_part = apply(OPS["mul"], radius_part, scalar(2.0**-32, dtype))
        turn = _fraction(words[1:], dtype)
    else:
        words = _words(shape, 4, generator)
        radius_part = apply(OPS["sub"], scalar(1.0, dtype), _fraction(words[:2], dtype))
        turn = _fraction(words[2:], dtype)
    radius = apply(OPS["sqrt"], apply(OPS["mul"], apply(OPS["log"], radius_part), scalar(-2.0, dtype)))
    return apply(OPS["mul"], radius, apply(OPS["cos"], apply(OPS["mul"], turn, scalar(2 * math.pi, dtype))))


def _float_dtype(dtype: Any, name: str) -> DType:
    found = float32 if dtype is None else as_dtype(dtype)
    if found.kind != "float":
        raise error(DTypeError, name, f"random fractions need a floating point dtype, got {found}")
    return found


@public(method=False)
def rand(
    *size: Any,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Uniform numbers in [0, 1)."""
    return finished(
        _uniform(new_shape_args(size, "rand"), _float_dtype(dtype, "rand"), generator), device, requires_grad
    )


@public(method=False)
def randn(
    *size: Any,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Numbers from the standard normal distribution."""
    return finished(
        _normal(new_shape_args(size, "randn"), _float_dtype(dtype, "randn"), generator), device, requires_grad
    )


@public(method=False)
def rand_like(
    input: Tensor,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Uniform numbers in [0, 1) in input's shape and dtype."""
    t = tensor_arg(input, "rand_like")
    wanted = _float_dtype(t.dtype if dtype is None else dtype, "rand_like")
    return finished(_uniform(t.type_.shape, wanted, generator), device, requires_grad)


@public(method=False)
def randn_like(
    input: Tensor,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Standard normal numbers in input's shape and dtype."""
    t = tensor_arg(input, "randn_like")
    wanted = _float_dtype(t.dtype if dtype is None else dtype, "randn_like")
    return finished(_normal(t.type_.shape, wanted, generator), device, requires_grad)


def _integers(
    low: int, high: int, shape: tuple[Extent, ...], dtype: DType, generator: Generator | None
) -> Tensor:
    if high <= low:
        raise error(ShapeError, "randint", f"needs low < high, got {low} and {high}")
    if high - low > 2**63 - 1:
        raise error(ShapeError, "randint", f"the range from {low} to {high} is wider than 2**63")
    words = _words(shape, 2, generator)
    bits = _joined(words[0], 31, _shifted(words[1], 1))  # 63 bits: the bias is below range / 2**63
    drawn = apply(OPS["remainder"], bits, scalar(high - low, int64))
    return cast(apply(OPS["add"], drawn, scalar(low, int64)), dtype)


@public(method=False)
def randint(
    low: int,
    high: Any = None,
    size: Any = None,
    *,
    generator: Generator | None = None,
    dtype: Any = int64,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Integers in [low, high), every one equally likely up to (high - low) / 2**63; ``randint(high, size)``
    starts at 0.
    """
    if size is None:
        low, high, size = 0, low, high
    if size is None or isinstance(high, (list, tuple)):
        raise error(ShapeError, "randint", "needs a size: randint(low, high, size) or randint(high, size)")
    shape = new_shape_args((tuple(size) if isinstance(size, (list, tuple)) else size,), "randint")
    return finished(_integers(int(low), int(high), shape, as_dtype(dtype), generator), device, requires_grad)


@public(method=False)
def randint_like(input: Tensor, low: int, high: int | None = None, *, dtype: Any = None) -> Tensor:
    """Integers in [low, high) (or [0, low)) in input's shape and dtype."""
    t = tensor_arg(input, "randint_like")
    first, last = (0, low) if high is None else (low, high)
    return _integers(first, last, t.type_.shape, t.dtype if dtype is None else as_dtype(dtype), None)


@public(method=False)
def randperm(n: int, *, generator: Generator | None = None, dtype: Any = int64, device: Any = None) -> Tensor:
    """The integers 0 … n-1 in random order. Not while tracing, where the order would have to be sorted in the
    graph.
    """
    if current_trace() is not None:
        raise error(
            TraceError, "randperm", "needs numbers; draw it outside the compiled function and pass it in"
        )
    words = _words((int(n),), 2, generator)
    keys = _joined(words[0], 31, _shifted(words[1], 1)).numpy()
    return finished(cast(Tensor(keys.argsort(kind="stable")), as_dtype(dtype)), device, False)


@public()
def bernoulli(input: Tensor, *, generator: Generator | None = None) -> Tensor:
    """1 with each element's probability, else 0, in input's dtype."""
    t = require_float(tensor_arg(input, "bernoulli"), "bernoulli").detach()
    return cast(apply(OPS["lt"], _uniform(t.type_.shape, t.dtype, generator), t), t.dtype)


@public(method=False)
def normal(
    mean: Any = 0.0,
    std: Any = 1.0,
    size: Any = None,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Normal numbers with given mean and standard deviation: tensors, or numbers and a `size`."""
    center, spread = operand(mean, "normal", "mean"), operand(std, "normal", "std")
    tensors = [v for v in (center, spread) if isinstance(v, Tensor)]
    if size is not None:
        shape = new_shape_args((size,), "normal")
    elif tensors:
        shape = (
            apply(OPS["add"], *(v.detach() for v in tensors)).type_.shape
            if len(tensors) == 2
            else tensors[0].type_.shape
        )
    else:
        raise error(ShapeError, "normal", "needs a size when mean and std are numbers")
    wanted = _float_dtype(dtype if dtype is not None or not tensors else tensors[0].dtype, "normal")
    drawn = apply(OPS["mul"], _normal(shape, wanted, generator), in_dtype(spread, wanted))
    return finished(apply(OPS["add"], drawn, in_dtype(center, wanted)), device, requires_grad)


# ---------------------------------------------------------------------------------------------- in place


@public(function=False)
def uniform_(
    self: Tensor, from_: float = 0.0, to: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Fills the tensor with uniform numbers in [from, to)."""
    require_float(self, "uniform_")
    drawn = _uniform(self.type_.shape, self.dtype, generator)
    width = apply(OPS["mul"], drawn, scalar(float(to) - float(from_), self.dtype))
    return self._assign(apply(OPS["add"], width, scalar(float(from_), self.dtype)))


@public(function=False)
def normal_(
    self: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Fills the tensor with normal numbers."""
    require_float(self, "normal_")
    drawn = apply(OPS["mul"], _normal(self.type_.shape, self.dtype, generator), in_dtype(std, self.dtype))
    return self._assign(apply(OPS["add"], drawn, in_dtype(mean, self.dtype)))


@public(function=False)
def bernoulli_(self: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Fills the tensor with 1 with probability `p`, else 0."""
    dtype = p.dtype if isinstance(p, Tensor) else float64
    chance = expanded(in_dtype(operand(p, "bernoulli_", "p"), dtype), self.type_.shape)
    return self._assign(
        cast(apply(OPS["lt"], _uniform(self.type_.shape, dtype, generator), chance), self.dtype)
    )


@public(function=False)
def random_(
    self: Tensor, from_: int = 0, to: int | None = None, *, generator: Generator | None = None
) -> Tensor:
    """Fills the tensor with integers in [from, to); ``random_(n)`` starts at 0, without bounds up to what
    fits exactly.
    """
    if to is None:
        limits = {
            "float16": 2**11 + 1,
            "bfloat16": 2**8 + 1,
            "float32": 2**24 + 1,
            "float64": 2**53 + 1,
            "bool": 2,
            "uint8": 256,
            "int8": 128,
            "int16": 2**15,
        }
        last = limits.get(self.dtype.name, 2**31 if self.dtype.name == "int32" else 2**63 - 1)
        first, to = (0, from_) if from_ else (0, last)
    else:
        first = from_
    return self._assign(_integers(first, to, self.type_.shape, self.dtype, generator))

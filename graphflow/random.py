"""Random tensors from counters: the same seed gives the same numbers, eager or compiled, on any number of
threads.

A generator is an int64 tensor (seed, offset). A draw of n elements takes the random words of the counters
offset … offset + n - 1 and moves the offset on by n, so drawing 3 and then 4 elements gives what drawing 7 at
once gives. While a function is traced, the generator is a state of the graph like any other.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from graphflow import sampling
from graphflow.compiler.ir import OPS
from graphflow.compiler.trace import current_trace
from graphflow.dims import product
from graphflow.dtypes import DType, finfo, get_default_dtype, iinfo, int64
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.arguments import fits, misfit
from graphflow.functions.common import (
    Extent,
    as_dtype,
    broadcast,
    cast,
    in_dtype,
    is_index,
    new_shape_args,
    of_size,
    operand,
    scalar,
    tensor_arg,
)
from graphflow.functions.create import finished, tensor
from graphflow.functions.order import argsort
from graphflow.functions.registry import error, public, spread
from graphflow.runtime.device import Device
from graphflow.tensor import Tensor, apply, concrete, no_grad, where_called
from graphflow.vmap import draw

__all__ = [
    "Generator", "default_generator", "fork_rng", "get_rng_state", "initial_seed", "manual_seed", "normal",
    "rand", "rand_like", "randint", "randint_like", "randn", "randn_like", "randperm", "seed",
    "set_rng_state",
]  # fmt: skip


class Generator:
    """A stream of random numbers with a seed; 0 until `manual_seed` is called. `device` can only be
    the CPU.
    """

    device = Device("cpu")

    def __init__(self, device: Any = None):
        state = tensor([0, 0], dtype=int64, device=device)
        state.name = "rng"
        self.state = state

    def manual_seed(self, seed: int) -> Generator:
        """Starts the stream of `seed` from its beginning; a negative one is taken modulo 2**64.

        DTypeError unless it is an integer, ValueError unless it is from -2**63 to 2**64 - 1.
        """
        if not fits(seed, int) or isinstance(seed, bool):
            raise misfit("manual_seed", "seed", int, seed)
        if not -(2**63) <= seed < 2**64:
            raise ValueError(f"manual_seed: a seed is from -2**63 to 2**64 - 1, got {seed}{where_called()}")
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
        """The seed the stream was started with, from 0 to 2**64 - 1."""
        with concrete():
            return int(self.state[0].item()) % 2**64

    def clone_state(self) -> Generator:
        """Another generator that goes on as this one would."""
        other = Generator()
        other.set_state(self.get_state())
        return other

    def get_state(self) -> Tensor:
        """A copy of (seed, offset), int64."""
        return cast(apply(OPS["cast"], self.state, dtype=int64), int64)

    def set_state(self, new_state: Tensor) -> None:
        """Goes on from a state that `get_state` gave."""
        state = tensor_arg(new_state, "set_state", "new_state")
        if state.dtype is not int64 or state.type_.shape != (2,):
            raise error(DTypeError, "set_state", f"a state is int64[2], (seed, offset); got {state.type_}")
        self.state._assign(state)


default_generator = Generator()

# One draw at a time: two threads must not take the same numbers.
_DRAWING = threading.RLock()


class _Lent(threading.local):
    generator: Callable[[], Generator] | None = None


_LENT = _Lent()


@contextmanager
def lent(generator: Callable[[], Generator]) -> Iterator[None]:
    """On this thread draws that name no generator take from this one, asked for when the first one comes.

    That is how a data loader's samples get numbers that don't depend on which thread prepares them when.
    """
    outer, _LENT.generator = _LENT.generator, generator
    try:
        yield
    finally:
        _LENT.generator = outer


def current_generator() -> Generator:
    """What draws that name no generator take from: the default one, unless this thread was lent one."""
    if _LENT.generator is None or current_trace() is not None:
        return default_generator
    return _LENT.generator()


def manual_seed(seed: int) -> Generator:
    """Starts the default generator's stream of `seed` from its beginning."""
    return current_generator().manual_seed(seed)


def seed() -> int:
    """Seeds the default generator from the system's entropy; gives the seed."""
    return current_generator().seed()


def initial_seed() -> int:
    """The default generator's seed."""
    return current_generator().initial_seed()


def get_rng_state() -> Tensor:
    """The default generator's state, int64[2]."""
    return current_generator().get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Sets the default generator's state."""
    current_generator().set_state(new_state)


@contextmanager
def fork_rng(devices: Any = None, enabled: bool = True, **kwargs: Any) -> Iterator[None]:
    """What is drawn inside leaves the default generator as it was, after ``torch.random.fork_rng``. Other
    arguments are PyTorch's and mean nothing here.
    """
    before = get_rng_state()
    try:
        yield
    finally:
        if enabled:
            set_rng_state(before)


# ---------------------------------------------------------------------------------------------- draws


def words(shape: tuple[Extent, ...], count: int, generator: Generator | None) -> list[Tensor]:
    """`count` (at most 4) random 32-bit words an element, as int64; advances the generator."""
    if generator is not None and not isinstance(generator, Generator):
        raise misfit("random numbers", "generator", Generator | None, generator)
    state = (generator or current_generator()).state

    def advance(shape: tuple[Extent, ...]) -> list[Tensor]:
        words = [apply(OPS["random_bits"], state, shape=shape, word=w) for w in range(count)]
        step = apply(OPS["mul"], apply(OPS["iota"], size=2), of_size(product(shape), int64))
        state._assign(apply(OPS["add"], state, step))
        return words

    with no_grad(), _DRAWING:
        return draw(shape, advance)


def uniform(shape: tuple[Extent, ...], dtype: DType, generator: Generator | None) -> Tensor:
    """Uniform numbers in [0, 1)."""
    return sampling.fraction(words(shape, sampling.words_for(dtype), generator), dtype)


def normal_numbers(shape: tuple[Extent, ...], dtype: DType, generator: Generator | None) -> Tensor:
    """Standard normal numbers."""
    return sampling.normal(words(shape, 2 * sampling.words_for(dtype), generator), dtype)


def exponential(shape: tuple[Extent, ...], dtype: DType, generator: Generator | None) -> Tensor:
    """Exponential numbers of mean 1."""
    return sampling.exponential(words(shape, sampling.words_for(dtype), generator), dtype)


def uniform_bits(shape: tuple[Extent, ...], generator: Generator | None) -> Tensor:
    """63 random bits an element."""
    high, low = words(shape, 2, generator)
    return sampling.joined(high, 31, sampling.shifted(low, 1))


def _float_dtype(dtype: Any, name: str) -> DType:
    found = get_default_dtype() if dtype is None else as_dtype(dtype)
    if found.kind != "float":
        raise error(DTypeError, name, f"random fractions need a floating point dtype, got {found}")
    return found


@public(method=False)
def rand(
    *sizes: Any,
    size: Any = None,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Uniform numbers in [0, 1)."""
    shape = new_shape_args(spread("rand", sizes, size, "size"), "rand")
    return finished(uniform(shape, _float_dtype(dtype, "rand"), generator), device, requires_grad)


@public(method=False)
def randn(
    *sizes: Any,
    size: Any = None,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Numbers from the standard normal distribution."""
    shape = new_shape_args(spread("randn", sizes, size, "size"), "randn")
    drawn = normal_numbers(shape, _float_dtype(dtype, "randn"), generator)
    return finished(drawn, device, requires_grad)


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
    return finished(uniform(t.type_.shape, wanted, generator), device, requires_grad)


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
    return finished(normal_numbers(t.type_.shape, wanted, generator), device, requires_grad)


def integers(
    low: int, high: int, shape: tuple[Extent, ...], dtype: DType, generator: Generator | None,
    name: str = "randint",
) -> Tensor:  # fmt: skip
    """Integers in [low, high), every one equally likely up to (high - low) / 2**63."""
    if high <= low:
        raise error(ShapeError, name, f"needs low < high, got {low} and {high}")
    least, most = _ends(dtype)
    if low < least or high - 1 > most:
        raise error(ShapeError, name, f"{dtype} can't hold all integers from {low} to {high - 1}")
    if high - low == 2**63:
        return cast(apply(OPS["add"], uniform_bits(shape, generator), scalar(low, int64)), dtype)
    if high - low > 2**63:
        return cast(_wide_integers(low, high, shape, generator), dtype)
    # the bias of 63 bits is below range / 2**63
    drawn = apply(OPS["remainder"], uniform_bits(shape, generator), scalar(high - low, int64))
    return cast(apply(OPS["add"], drawn, scalar(low, int64)), dtype)


def _wide_integers(low: int, high: int, shape: tuple[Extent, ...], generator: Generator | None) -> Tensor:
    """64 bits, taken from -2**63 on; where those are outside of [low, high), by its width less."""
    first, last = words(shape, 2, generator)
    bits = sampling.joined(apply(OPS["sub"], first, scalar(2**31, int64)), 32, last)
    width = high - low
    if width == 2**64:
        return bits
    beyond = apply(OPS["ge"], bits, scalar(width - 2**63, int64))
    back = apply(OPS["sub"], apply(OPS["sub"], bits, scalar(width - 2**63, int64)), scalar(2**63 - 1, int64))
    inside = apply(OPS["where"], beyond, apply(OPS["sub"], back, scalar(1, int64)), bits)
    return apply(OPS["add"], inside, scalar(low + 2**63, int64))


def _ends(dtype: DType) -> tuple[float, float]:
    """The integers between which a dtype's range lies."""
    if dtype.kind == "int":
        facts = iinfo(dtype)
        return facts.min, facts.max
    return (0, 1) if dtype.kind == "bool" else (finfo(dtype).min, finfo(dtype).max)


@public(method=False)
def randint(
    low: Any = None,
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
    if low is None:
        low = 0
    elif size is None:
        low, high, size = 0, low, high
    elif high is None:
        low, high = 0, low
    if size is None or high is None or isinstance(high, (list, tuple)):
        raise error(ShapeError, "randint", "needs a size: randint(low, high, size) or randint(high, size)")
    for argument, value in (("low", low), ("high", high)):
        if not is_index(value):
            raise misfit("randint", argument, int, value)
    shape = new_shape_args((tuple(size) if isinstance(size, (list, tuple)) else size,), "randint")
    return finished(integers(int(low), int(high), shape, as_dtype(dtype), generator), device, requires_grad)


@public(method=False)
def randint_like(
    input: Tensor, low: int, high: int | None = None, *, generator: Generator | None = None,
    dtype: Any = None, device: Any = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Integers in [low, high) (or [0, low)) in input's shape and dtype."""
    t = tensor_arg(input, "randint_like")
    first, last = (0, low) if high is None else (low, high)
    wanted = t.dtype if dtype is None else as_dtype(dtype)
    drawn = integers(first, last, t.type_.shape, wanted, generator, "randint_like")
    return finished(drawn, device, requires_grad)


@public(method=False)
def randperm(
    n: int, *, generator: Generator | None = None, dtype: Any = int64, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """The integers 0 … n-1 in random order: the places of random 63-bit keys in order."""
    (size,) = new_shape_args((n,), "randperm")
    wanted = as_dtype(dtype)
    if isinstance(size, int) and size - 1 > _ends(wanted)[1]:
        raise error(ShapeError, "randperm", f"{wanted} can't hold all integers up to {size - 1}")
    order = argsort(uniform_bits((size,), generator))
    return finished(cast(order, wanted), device, requires_grad)


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
    center, spread = (
        v.detach() if isinstance(v, Tensor) else v
        for v in (operand(mean, "normal", "mean"), operand(std, "normal", "std"))
    )
    check_spread(spread, "normal")
    tensors = [v for v in (center, spread) if isinstance(v, Tensor)]
    if size is not None:
        shape = new_shape_args((size,), "normal")
    elif tensors:
        shape = (
            broadcast(*tensors)
            if len(tensors) == 2
            else tensors[0].type_.shape
        )
    else:
        raise error(ShapeError, "normal", "needs a size when mean and std are numbers")
    wanted = _float_dtype(dtype if dtype is not None or not tensors else tensors[0].dtype, "normal")
    drawn = apply(OPS["mul"], normal_numbers(shape, wanted, generator), in_dtype(spread, wanted))
    return finished(apply(OPS["add"], drawn, in_dtype(center, wanted)), device, requires_grad)


def check_spread(std: Any, name: str) -> None:
    """ShapeError for a negative standard deviation, where its numbers are there to be looked at."""
    if isinstance(std, Tensor):
        if std._array is not None and current_trace() is None and (std._array.astype("float64") < 0).any():
            raise error(ShapeError, name, "expects all elements of std >= 0.0")
    elif isinstance(std, (int, float)) and std < 0:
        raise error(ShapeError, name, f"expects std >= 0.0, but found std {std}")

"""A parameter group: an optimizer's options, with rates that a compiled step reads as state."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, MutableMapping, Sequence
from numbers import Real
from typing import Any

from graphflow import functions as ops
from graphflow.dtypes import float64
from graphflow.errors import TraceError
from graphflow.tensor import Tensor, advance_epoch, concrete, no_grad

Rate = Tensor | tuple[Tensor, ...]

# What no step reads: the parameters stand for themselves, the rest is what schedulers keep in the groups.
_UNREAD = frozenset(
    {
        *("params", "param_names", "foreach", "fused", "capturable"),
        *("initial_lr", "min_lr", "max_lr", "base_momentum", "max_momentum", "swa_lr"),
    }
)


class ParamGroup(MutableMapping[str, Any]):
    """Options by name, beside the list of tensors under ``"params"``.

    Options whose default is a number (learning rate, momentum, betas, ...) are *rates*: they read as floats
    and take numbers, while the value lives in a 0-d float64 tensor, so that changing it changes what an
    already compiled step does. Inside a compiled function they read as that tensor, and assigning one is part
    of the step. A rate given as a tensor is that tensor itself: changing it in place changes the rate.
    """

    def __init__(
        self,
        params: Sequence[Tensor],
        options: Mapping[str, Any],
        rates: frozenset[str],
        switches: frozenset[str],
        index: int,
    ):
        self._plain: dict[str, Any] = {"params": list(params)}
        self._rates: dict[str, Rate] = {}
        self._active: dict[str, bool] = {}
        self._given: set[str] = set()  # rates that are a tensor of the user's
        for name, value in options.items():
            if name in rates:
                label = f"{name}.{index}" if index else name
                with concrete():
                    self._rates[name] = _new_rate(value, label)
                if isinstance(value, Tensor):
                    self._given.add(name)
                if name in switches:  # a user's tensor may become anything
                    self._active[name] = isinstance(value, Tensor) or _is_active(value)
            else:
                self._plain[name] = value

    def tensor(self, name: str) -> Any:
        """The 0-d float64 tensor behind a rate, or a tuple of them for one such as ``betas``."""
        return self._rates[name]

    def is_active(self, name: str) -> bool:
        """Whether a rate that is a switch is anything but zero: zero leaves its terms out of the step."""
        return self._active[name]

    def structure(self) -> Iterator[tuple[str, Hashable]]:
        """What a step's graph depends on, as (what, value) pairs: all but the values of rates that are on."""
        yield "'s parameters", tuple(map(id, self._plain["params"]))
        yield from ((f"[{name!r}]", repr(v)) for name, v in self._plain.items() if name not in _UNREAD)
        yield from ((f"[{name!r}] != 0", active) for name, active in self._active.items())

    def __getitem__(self, name: str) -> Any:
        if name not in self._rates:
            return self._plain[name]
        rate = self._rates[name]
        if isinstance(rate, tuple):
            return tuple(map(_read, rate))
        return rate if name in self._given else _read(rate)

    def __setitem__(self, name: str, value: Any) -> None:
        if name not in self._rates:
            self._plain[name] = value
            advance_epoch()
            return
        rate = self._rates[name]
        parts, values = (rate, tuple(value)) if isinstance(rate, tuple) else ((rate,), (value,))
        if len(parts) != len(values):
            raise ValueError(f"{name} takes {len(parts)} numbers, got {len(values)}")
        with no_grad():
            for part, number in zip(parts, values, strict=True):
                if isinstance(number, Tensor):
                    part.copy_(number)
                else:
                    part.fill_(float(number))
        if name in self._active and name not in self._given and self._active[name] != _is_active(value):
            self._active[name] = not self._active[name]
            advance_epoch()

    def __delitem__(self, name: str) -> None:
        if name in self._rates or name == "params":
            raise KeyError(f"{name} is an option the optimizer needs")
        del self._plain[name]
        advance_epoch()

    def __iter__(self) -> Iterator[str]:
        yield from self._plain
        yield from self._rates

    def __len__(self) -> int:
        return len(self._plain) + len(self._rates)

    def options(self) -> dict[str, Any]:
        """Every option but the tensors, rates as floats also while tracing."""
        with concrete():
            return {name: self[name] for name in self if name != "params"}

    def __repr__(self) -> str:
        return repr({"params": self._plain["params"], **self.options()})


def is_rate(default: object) -> bool:
    """Whether an option with this default is a rate: a number, a 0-d tensor, or a tuple of these."""
    if isinstance(default, (tuple, list)):
        return bool(default) and all(map(is_rate, default))
    return isinstance(default, (Real, Tensor)) and not isinstance(default, bool)


def _new_rate(value: Any, name: str) -> Rate:
    if isinstance(value, (tuple, list)):
        return tuple(_new_scalar(v, f"{name}.{i}") for i, v in enumerate(value))
    return _new_scalar(value, name)


def _new_scalar(value: Any, name: str) -> Tensor:
    if isinstance(value, Tensor) and value.ndim == 0 and value.is_floating_point():
        return value.detach()  # shares its memory
    scalar = ops.full((), float(value), dtype=float64)
    scalar.name = name
    return scalar


def _is_active(value: Any) -> bool:
    if isinstance(value, Tensor):
        try:
            return value.item() != 0
        except TraceError:  # computed by the step itself: it may be anything
            return True
    return float(value) != 0


def _read(scalar: Tensor) -> Any:
    try:
        return scalar.item()
    except TraceError:  # inside a compiled function its value is not one number
        return scalar

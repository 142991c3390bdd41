"""Functions that run before and after an optimizer steps, saves and loads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import wraps
from typing import Any

from graphflow.nn.hooks import RemovableHandle
from graphflow.tensor import depends_on

_KINDS = (
    "step_pre",
    "step_post",
    "state_dict_pre",
    "state_dict_post",
    "load_state_dict_pre",
    "load_state_dict_post",
)


def hooked(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step with its optimizer's hooks around it; a step that calls its parent's is one step."""

    @wraps(step)
    def run(self: Hooked, *args: Any, **kwargs: Any) -> Any:
        if self._stepping:
            return step(self, *args, **kwargs)
        depends_on(self, self._structure)
        self.has_stepped = self._stepping = True
        before = self._numbers()
        try:
            everything: tuple[Any, ...] = (self, *args)
            for hook in tuple(self._hooks["step_pre"].values()):
                changed = hook(self, everything, kwargs)
                if changed is not None:
                    if not (isinstance(changed, tuple) and len(changed) == 2):
                        raise RuntimeError(
                            "a step pre-hook must return None or a tuple of (new_args, new_kwargs), but got "
                            f"{changed}"
                        )
                    everything, kwargs = changed
            result = step(*everything, **kwargs)
            for hook in tuple(self._hooks["step_post"].values()):
                hook(self, everything, kwargs)
            self._refuse_lost_state(before)
            return result
        finally:
            self._stepping = False

    return run


class Hooked:
    """Gives every ``step`` that a subclass defines its hooks."""

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "step" in cls.__dict__:
            cls.step = hooked(cls.__dict__["step"])  # type: ignore[attr-defined]

    def __init__(self) -> None:
        self.has_stepped = False
        self._stepping = False
        self._hooks: dict[str, OrderedDict[int, Any]] = {kind: OrderedDict() for kind in _KINDS}

    def _hooked(self) -> Hashable:
        """Which hooks a step runs."""
        return tuple(self._hooks["step_pre"]), tuple(self._hooks["step_post"])

    def _numbers(self) -> list[tuple[str, Hashable]]:
        """State that isn't tensors, as (what, value) pairs."""
        raise NotImplementedError

    def _refuse_lost_state(self, before: list[tuple[str, Hashable]]) -> None:
        """TraceError when a step being compiled made state that the next call wouldn't find."""
        raise NotImplementedError

    def _structure(self) -> Hashable:
        """What a compiled step depends on."""
        raise NotImplementedError

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Has ``hook(optimizer, args, kwargs)`` run before every step; it may return new (args, kwargs)."""
        return RemovableHandle(self._hooks["step_pre"], hook, prepend=False)

    def register_step_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Has ``hook(optimizer, args, kwargs)`` run after every step."""
        return RemovableHandle(self._hooks["step_post"], hook, prepend=False)

    def register_state_dict_pre_hook(
        self, hook: Callable[[Any], None], prepend: bool = False
    ) -> RemovableHandle:
        """Has ``hook(optimizer)`` run before `state_dict`, with `prepend` before the other hooks."""
        return RemovableHandle(self._hooks["state_dict_pre"], hook, prepend)

    def register_state_dict_post_hook(
        self, hook: Callable[[Any, dict[str, Any]], dict[str, Any] | None], prepend: bool = False
    ) -> RemovableHandle:
        """Has ``hook(optimizer, state_dict)`` change what `state_dict` gives, or return another."""
        return RemovableHandle(self._hooks["state_dict_post"], hook, prepend)

    def register_load_state_dict_pre_hook(
        self, hook: Callable[[Any, dict[str, Any]], dict[str, Any] | None], prepend: bool = False
    ) -> RemovableHandle:
        """Has ``hook(optimizer, state_dict)`` change what `load_state_dict` takes, or return another."""
        return RemovableHandle(self._hooks["load_state_dict_pre"], hook, prepend)

    def register_load_state_dict_post_hook(
        self, hook: Callable[[Any], None], prepend: bool = False
    ) -> RemovableHandle:
        """Has ``hook(optimizer)`` run after `load_state_dict`."""
        return RemovableHandle(self._hooks["load_state_dict_post"], hook, prepend)

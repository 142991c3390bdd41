"""Functions that run before and after a module's forward."""

from __future__ import annotations

import itertools
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from graphflow.tensor import advance_epoch

_IDS = itertools.count()


@dataclass(frozen=True)
class Hook:
    """One registered function; `with_kwargs` hands it the call's keyword arguments too, and `always` calls it
    after errors, too.
    """

    function: Callable[..., Any]
    with_kwargs: bool
    always: bool = False


Hooks = OrderedDict[int, Hook]


class RemovableHandle:
    """What registering a hook gives: ``remove()`` takes the hook away; as a context manager, at the block's
    end.
    """

    def __init__(self, hooks: OrderedDict[int, Any], hook: Any, prepend: bool):
        self.id = next(_IDS)
        self._hooks = hooks
        hooks[self.id] = hook
        if prepend:
            hooks.move_to_end(self.id, last=False)
        advance_epoch()

    def remove(self) -> None:
        """Takes the hook away; doing it twice is no error."""
        self._hooks.pop(self.id, None)
        advance_epoch()

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def run_before(hooks: Hooks, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The arguments of forward after every hook has had its say, as (args, kwargs)."""
    for hook in tuple(hooks.values()):
        if hook.with_kwargs:
            changed = hook.function(module, args, kwargs)
            if changed is not None:
                if not (isinstance(changed, tuple) and len(changed) == 2):
                    raise TypeError(
                        "a forward pre-hook registered with_kwargs returns None or (args, kwargs), got "
                        f"{type(changed).__name__}"
                    )
                args, kwargs = changed
        else:
            changed = hook.function(module, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
    return args, kwargs


def run_around(
    hooks: Hooks, module: Any, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """The result of forward after every hook has had its say. When forward or a hook raises, those of the
    hooks that are always called and weren't yet still are; an error of theirs is only warned of.
    """
    result = None
    waiting = list(hooks.values())
    try:
        result = forward(*args, **kwargs)
        while waiting:
            changed = _told(waiting.pop(0), module, args, kwargs, result)
            if changed is not None:
                result = changed
    except Exception:
        for hook in waiting:
            if hook.always:
                try:
                    _told(hook, module, args, kwargs, result)
                except Exception as problem:
                    warnings.warn(
                        "module forward hook with ``always_call=True`` raised an exception that was silenced "
                        f"as another error was raised in forward: {problem}",
                        stacklevel=2,
                    )
        raise
    return result


def _told(hook: Hook, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    given = (module, args, kwargs, result) if hook.with_kwargs else (module, args, result)
    return hook.function(*given)

"""From a variant and a call that it took to a direct call: what has to hold for the next one to be the same.

A direct call (``runtime/direct.py``) stands for exactly what a ``CompiledFunction`` would do, so this module
lists everything that would make it do something else, and leaves out every case that needs Python.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphflow import config, dtypes, engine, memory, pytree
from graphflow.captures import Captures
from graphflow.compiler import trace
from graphflow.dtypes import DType
from graphflow.memory import Storage
from graphflow.modes import MODE
from graphflow.runtime import direct, threads
from graphflow.runtime.direct import Argument, Call, Handles, Watch, is_plain
from graphflow.runtime.instance import Instance
from graphflow.runtime.locks import ForkLock
from graphflow.snapshots import PLAIN, form
from graphflow.tensor import Tensor
from graphflow.traced import Arguments
from graphflow.variant import Binding, Variant

_MOST = 16  # direct calls of one function
_MET = 64  # kinds of calls that are counted, and calls that are all looked at
_SOME = 17  # of so many later ones one is; a prime, so that kinds that take turns all have theirs
_KINDS = (Tensor, np.ndarray, float)  # of arguments that are arrays; not of their subclasses


class _Direct:
    """A direct call, ``run``, with what it holds on to: where one of those is out of use, so is this."""

    __slots__ = ("_binding", "_instance", "_mark", "_variant", "run")

    def __init__(
        self, run: Callable[..., Any], mark: object, variant: Variant, binding: Binding, instance: Instance
    ):
        self.run, self._mark = run, mark
        self._variant, self._binding, self._instance = variant, binding, instance

    def is_like(self, other: _Direct) -> bool:
        """Whether both are for the same kind of call."""
        return self._binding is other._binding and self._mark == other._mark

    def is_current(self) -> bool:
        """Whether the variant still has this memory, and the executor the instance."""
        return self._variant.is_bound_to(self._binding) and not self._instance.dropped


class DirectCalls:
    """The direct calls of one function: ``ready`` are those to try, the one made last first.

    `captures` are the values around the function, `inside` those in an argument (by the nesting of all, its
    position, and the object). `calls` counts the function's calls.
    """

    def __init__(
        self,
        captures: Captures,
        inside: Callable[[pytree.Spec, int, Any], Captures],
        calls: ctypes.c_int64,
    ):
        self.ready: tuple[Callable[..., Any], ...] = ()
        self._captures, self._inside, self._calls = captures, inside, calls
        self._made: tuple[_Direct, ...] = ()
        self._lock = ForkLock()

    def met(self, variant: Variant, binding: Binding, call: Arguments, key: Any) -> None:
        """Takes note of a call that the variant just took, with arguments that aren't nested.

        One of a kind that comes again gets a direct call: at the second, and where that didn't help at the
        fourth, eighth and so on. After many calls that went through Python only some are looked at.
        """
        kinds = binding.met
        number = kinds[None] = kinds.get(None, 0) + 1
        if number > _MET and number % _SOME:
            return
        mark = (tuple([a.shape for a in call.arrays]), tuple(map(type, call.leaves)))
        if len(kinds) > _MET:
            kinds.clear()
        count = kinds[mark] = kinds.get(mark, 0) + 1
        if count < 2 or count & (count - 1):
            return
        made = self._make(variant, binding, call, key, mark)
        if made is not None:
            with self._lock:
                self._set([made, *(d for d in self._made if not d.is_like(made))][:_MOST])

    def keep_current(self) -> None:
        """Lets go of those that no call can take any more, with the memory that they hold."""
        if self._made and not all([d.is_current() for d in self._made]):
            with self._lock:
                self._set([d for d in self._made if d.is_current()])

    def _set(self, made: Sequence[_Direct]) -> None:
        self._made = tuple(made)
        self.ready = tuple([d.run for d in made])

    def _make(
        self, variant: Variant, binding: Binding, call: Arguments, key: Any, mark: object
    ) -> _Direct | None:
        """A direct call for calls like this one; None where such calls need more."""
        # before anything else, so that what another thread changes meanwhile is seen by the first call
        count = threads.get_num_threads()
        surroundings = _surroundings(key[1], binding.epoch, count)
        around = self._captures.direct_watches(key[3])
        inside = self._watches_inside(call, key[2])
        arguments = _arguments(call, key[2])
        prepared = variant.engine.prepared(call.arrays, binding.arrays)
        if around is None or inside is None or arguments is None or prepared is None:
            return None
        if not _are_in_rows(variant):
            return None
        reads = variant.traced.grad_reads
        contents = [Watch("result", variant.has_its_contents, None, True)] if variant.contents else []
        grads = [Watch("slot", r.holder, "_grad", g) for r, g in zip(reads, binding.grads, strict=True)]
        run = direct.make(
            _handles(),
            Call(
                instance=prepared.instance,
                arguments=arguments,
                names=call.spec[1][1][1],
                watches=[*surroundings, *grads, *around, *inside, *contents],
                states=prepared.states,
                memory=binding.arrays,
                changing=variant.changing(binding),
                locks=[variant.lock] if isinstance(variant.lock, ForkLock) else [],
                versions=binding.storages,
                finish=variant.finisher(call),
                status=prepared.status,
                fail=prepared.fail,
                calls=self._calls,
                used=variant.used,
                threads=count,
            ),
        )
        return None if run is None else _Direct(run, mark, variant, binding, prepared.instance)

    def _watches_inside(self, call: Arguments, kinds: Sequence[Any]) -> list[Watch] | None:
        """What has to be the same in objects among the arguments; None where it isn't any more."""
        found = []
        for position, (leaf, kind) in enumerate(zip(call.leaves, kinds, strict=True)):
            if len(kind) == 3 and isinstance(kind[2], tuple):
                watch = self._inside(call.spec, position, leaf).direct_watch(kind[2])
                if watch is None:
                    return None
                found.append(watch)
        return found


@functools.cache
def _handles() -> Handles:
    fresh = Tensor.holding(np.zeros(0, np.float32))
    return Handles(fresh, Storage.count, "_array", "_storage", "_requires_grad", "version", "born")


def _surroundings(modes: tuple[bool, DType, DType | None], epoch: object, count: int) -> Sequence[Watch]:
    """What every call depends on: the thread's modes, when states were compared, the process's settings."""
    grad_enabled, default, autocast = modes
    return (
        Watch("cell", memory.EPOCH, None, epoch),
        Watch("cell", dtypes.DEFAULT, None, default),
        Watch("attribute", trace.LOCAL, "trace", None),
        Watch("attribute", MODE, "grad_enabled", grad_enabled),
        Watch("attribute", MODE, "autocast", autocast),
        Watch("item", vars(engine), "observers", engine.observers),
        Watch("item", vars(config), "_current", config.settings()),
        Watch("item", vars(threads), "_threads", count),
    )


def _arguments(call: Arguments, kinds: Sequence[Any]) -> list[Argument] | None:
    """The arguments, of these kinds; None where one is a container or memory of another layout."""
    found = []
    numbers = {position: number for number, position in enumerate(call.dynamic)}
    for position, leaf in enumerate(call.leaves):
        number = numbers.get(position)
        if number is None:
            if not isinstance(leaf, PLAIN) and form(type(leaf)) in ("items", "mapping"):
                return None
            found.append(Argument(leaf))
            continue
        array = call.arrays[number]
        if type(leaf) not in _KINDS or not is_plain(array):
            return None
        found.append(Argument(leaf, array, number, kinds[position][2]))
    return found


def _are_in_rows(variant: Variant) -> bool:
    """Whether what the trace found of layouts holds for arguments in row-major order, and for these alone."""
    return all(isinstance(holder, int) and rows for holder, rows in variant.traced.in_rows)


__all__ = ["DirectCalls"]

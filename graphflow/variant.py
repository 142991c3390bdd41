"""One compiled variant of a user's function: its program, and what ties it to the user's handles."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphflow import pytree
from graphflow.calls import called, project
from graphflow.compiler.ir import Node, at
from graphflow.compiler.location import user_loc
from graphflow.contents import Held
from graphflow.dims import Dim, evaluate
from graphflow.engine import Engine
from graphflow.errors import TraceError
from graphflow.memory import RECORDING
from graphflow.runtime.locks import ForkLock
from graphflow.specs import TensorSpec
from graphflow.tensor import Storage, Tensor, copied, epoch, name_grad_fn, record
from graphflow.traced import Arguments, GradRead, Traced, overlap, share_memory


@dataclass(frozen=True, eq=False)
class Binding:
    """The memory that a variant's states have at a call.

    ``grads`` are the ``.grad`` handles that were read for it; ``changing`` are the identities of arrays that
    the call changes, and of those they are views of; ``foreign`` tells whether memory of unknown origin is
    among them. ``epoch`` is when the handles were compared with what they have to be (None: not yet). ``met``
    counts calls of each kind.
    """

    grads: tuple[Tensor | None, ...]
    handles: tuple[Tensor, ...]
    arrays: tuple[np.ndarray, ...]
    storages: tuple[Storage, ...]
    changing: frozenset[int]
    foreign: bool
    epoch: object
    met: dict[Hashable, int] = field(default_factory=dict)


@dataclass(eq=False)
class Variant:
    """A traced function compiled, and the conditions under which it may be called.

    ``contents`` are arrays whose numbers the trace may have made constants of. ``is_plain`` tells that a call
    does no more than to run, and to leave what `finisher` leaves.
    """

    traced: Traced
    engine: Engine
    reason: str
    key: Any = None
    contents: tuple[Held, ...] = ()
    used: ctypes.c_int64 = field(default_factory=ctypes.c_int64)
    _epoch: int | None = None
    _shapes: set[tuple[tuple[int, ...], ...]] = field(default_factory=set)
    _flags: tuple[bool, ...] = ()
    _records: bool = False
    _changing: frozenset[int] = frozenset()
    _bound: Binding | None = None
    lock: AbstractContextManager[object] = field(default_factory=nullcontext)
    is_plain: bool = False

    def __post_init__(self) -> None:
        traced = self.traced
        self._flags = tuple(t._requires_grad for t in traced.states)
        self._changing = frozenset(i for i, _ in traced.graph.updates)
        # A function that changes what it would be differentiated by (a training step) returns plain values,
        # unless it does so before it uses it.
        trains = not traced.renewed and any(traced.states[i]._requires_grad for i in self._changing)
        self._records = bool(traced.results.differentiable) and not trains
        if self._changing:
            self.lock = ForkLock()
        kept = all(isinstance(holder, Tensor) for holder, _ in traced.results.grads)
        known = all(isinstance(read.holder, Tensor) for read in traced.grad_reads)
        self.is_plain = kept and known and not (self._records or traced.results.argument_updates)

    @property
    def symbols(self) -> dict[str, int | str]:
        """The symbols of the arguments, and those fixed to numbers."""
        free: dict[str, int | str] = {s: "any" for s in self.traced.graph.symbols()}
        return {**free, **self.traced.pinned}

    @property
    def specs(self) -> list[TensorSpec]:
        """What the arguments have to be."""
        pinned = self.traced.pinned
        return [
            TensorSpec([pinned.get(s, s) if isinstance(s, str) else s for s in spec.shape], spec.dtype)
            for spec in self.traced.specs
        ]

    def __str__(self) -> str:
        types = ", ".join(map(str, self.specs))
        return f"({types}): {self.reason}"

    def __repr__(self) -> str:
        return f"<variant {self}>"

    @property
    def handles(self) -> tuple[Tensor, ...]:
        """The tensors behind the graph's states, gradients as they were at the last call."""
        return self._bound.handles if self._bound is not None else self.traced.states

    def bind(self, call: Arguments, now: int) -> Binding:
        """Takes the states' memory as it is in the epoch `now`."""
        traced = self.traced
        handles: list[Any] = list(traced.states)
        grads = []
        for read in traced.grad_reads:
            grad = getattr(call.held_by(read.holder), "_grad", None)
            grads.append(grad)
            if read.state is not None:
                handles[read.state] = grad
        arrays: list[Any] = [h._array for h in handles]
        changing = [arrays[i] for i in self._changing]
        bases = [a.base for a in changing if a.base is not None]
        # What the trace itself changed, as an optimizer splits its counters, is compared at the next call.
        first = self._epoch is None
        self._epoch = None if first and self._state_mismatch() is not None else now
        self._bound = Binding(
            tuple(grads),
            tuple(handles),
            (*arrays, self.engine.status) if self.engine.checks else tuple(arrays),
            tuple(dict.fromkeys(handles[i]._storage for i in self._changing)),
            frozenset(map(id, changing + bases)),
            any(not isinstance(base, np.ndarray) for base in bases),
            self._epoch,
        )
        return self._bound

    def accept(self, call: Arguments) -> Binding | str:
        """The states' memory for this call, or why the variant can't take it."""
        shapes = tuple([a.shape for a in call.arrays])
        if shapes not in self._shapes:
            why = self._shape_mismatch(call.arrays)
            if why is not None:
                return why
            self._check_needs(call.arrays)
            if len(self._shapes) > 256:
                self._shapes.clear()
            self._shapes.add(shapes)
        for holder, rows in self.traced.in_rows:
            array = call.arrays[holder] if isinstance(holder, int) else holder._array
            if array is not None and array.flags.c_contiguous != rows:
                return "elements that were in row-major order, or weren't, are laid out otherwise now"
        for held in self.contents:
            if held.has_changed():
                return f"{held.label}: the numbers in an array are others now"
        bound, now = self._bound, epoch()
        if self._epoch != now or bound is None:
            why = self._state_mismatch()
            if why is not None:
                return why
            bound = None
        fresh = False
        for number, read in enumerate(self.traced.grad_reads):
            grad = getattr(call.held_by(read.holder), "_grad", None)
            if bound is not None and grad is bound.grads[number]:
                continue
            why = self._grad_mismatch(read, grad)
            if why is not None:
                return why
            fresh = True
        if bound is not None and not fresh:
            return bound
        bound = self.bind(call, now)
        return overlap(self.traced.graph, bound.arrays) or self._ambiguous(bound) or bound

    def _check_needs(self, arrays: Sequence[np.ndarray]) -> None:
        """Raises what the trace said about sizes that must not be 0."""
        if self.traced.needs:
            sizes = self.traced.sizes(arrays)
            for size, problem in self.traced.needs:
                if (evaluate(size, sizes) if isinstance(size, Dim) else size) == 0:
                    raise type(problem)(*problem.args)

    def _state_mismatch(self) -> str | None:
        traced = self.traced
        for read, value in traced.static_reads:
            now = read()
            if now != value:
                return _value_difference(value, now)
        grads = {read.state for read in traced.grad_reads}
        for number, (tensor, node) in enumerate(zip(traced.states, traced.graph.states, strict=True)):
            if number in grads:
                continue
            flag = self._flags[number]
            if tensor._requires_grad != flag:
                return f"requires_grad of {tensor.name or 'a tensor'} changed from {flag} to {not flag}"
            if tensor.type_ != node.type:
                return f"{node.attrs['name']} changed from {node.type} to {tensor.type_}"
        return None

    def _grad_mismatch(self, read: GradRead, grad: Tensor | None) -> str | None:
        holder = read.holder
        if isinstance(holder, int):
            name = f"the argument {self.traced.graph.args[holder].attrs['name']}"
        else:
            name = holder.name or "a tensor"
        if (grad is not None) != read.present:
            return f"the .grad of {name} is {'there' if grad is not None else 'None'} now"
        if grad is not None and read.state is not None:
            node = self.traced.graph.states[read.state]
            if grad.type_ != node.type or grad._requires_grad != self._flags[read.state]:
                return f"the .grad of {name} is another kind of tensor now"
        return None

    def _ambiguous(self, bound: Binding) -> str | None:
        """Gradients that were one tensor while tracing have to be one tensor now."""
        for read, grad in zip(self.traced.grad_reads, bound.grads, strict=True):
            if read.state is not None and bound.handles[read.state] is not grad:
                return "gradients that were one tensor are several now"
        return None

    def _shape_mismatch(self, arrays: Sequence[np.ndarray]) -> str | None:
        values: dict[str, int] = dict(self.traced.pinned)
        for spec, array, number in zip(self.traced.specs, arrays, range(len(arrays)), strict=True):
            for size, actual in zip(spec.shape, array.shape, strict=True):
                expected = values.setdefault(size, actual) if isinstance(size, str) else size
                if expected != actual:
                    name = self.traced.graph.args[number].attrs["name"]
                    return f"{name}: {spec} with {size} = {expected} doesn't take shape {array.shape}"
        for guard in self.traced.guards:
            if evaluate(guard, values) < 0:
                told = ", ".join(f"{s} = {v}" for s, v in values.items())
                return f"the program did what is right for {guard} >= 0, which isn't so with {told}"
        for other in self.traced.not_one:
            if evaluate(other, values) == 1:
                return f"the size {other} is 1 now, which changes what the program does"
        return None

    def run(self, call: Arguments, bound: Binding) -> Any:
        """One call: outputs in the function's own nesting, gradients put on their handles."""
        if self.traced.results.argument_updates:
            self._check_writable(call, bound)
        with self.lock:
            if bound.changing:
                self._separate(call.arrays, bound)
            operands = self._operands(call, bound) if self._records else []
            outputs = self.engine.call(call.arrays, bound.arrays)
            for storage in bound.storages:
                storage.version += 1
            results = self.traced.results
            for holder, value in results.grads:
                self._leave_grad(call.held_by(holder), value, outputs)
            for number, output in results.argument_updates:
                target = call.held_by(number)
                np.copyto(call.arrays[number], outputs[output])
                if isinstance(target, Tensor):
                    target._storage.version += 1
        if self._records:
            return self._recorded(operands, outputs, call)
        if results.spec is pytree.LEAF and results.returned[0][0] is not None and not results.shared:
            return Tensor.holding(outputs[results.returned[0][0]])
        constants = [self._constant(c, call) for _, c in results.returned]
        return self._nested(outputs, constants, self._sizes_of_views(call), call.leaves, call.dynamic)

    def _sizes_of_views(self, call: Arguments) -> dict[str, int]:
        """The symbols' values, where there are results that are taken out of others with them."""
        return self.traced.sizes(call.arrays) if self.traced.results.shared else {}

    def _nested(
        self,
        outputs: Sequence[np.ndarray],
        constants: Sequence[Any],
        sizes: Mapping[str, int],
        leaves: Sequence[Any],
        dynamic: Sequence[int],
        node: Node | None = None,
    ) -> Any:
        """The results in the function's own nesting, with the `node` of the call as their history.

        The others are of `Arguments`.
        """
        results = self.traced.results
        pairs = zip(results.returned, constants, strict=True)
        found = [Tensor.holding(outputs[n]) if n is not None else c for (n, _), c in pairs]
        if node is not None:
            for tensor, (number, _) in zip(found, results.returned, strict=True):
                if number in results.differentiable:
                    record(tensor, project(node, number))
                    name_grad_fn(tensor, "CompiledFunctionBackward")
        for position, shared in results.shared.items():
            if shared.source == "argument":
                owner = leaves[dynamic[shared.of]]
            else:
                owner = found[shared.of] if shared.source == "result" else shared.of
            if isinstance(owner, Tensor):  # and no array
                found[position] = shared.view(owner, sizes)
        return pytree.unflatten(results.spec, found)

    def forget(self) -> None:
        """Lets the states' memory go; a call would take it again."""
        self._bound = None

    def has_its_contents(self) -> bool:
        """Whether the arrays that it depends on hold what they held."""
        return not any([held.has_changed() for held in self.contents])

    def is_bound_to(self, binding: Binding) -> bool:
        """Whether the states' memory is still this."""
        return self._bound is binding

    def changing(self, binding: Binding) -> list[np.ndarray]:
        """The arrays that a call changes."""
        return [binding.arrays[i] for i in self._changing]

    def finisher(self, call: Arguments) -> Callable[[list[Any]], Any] | None:
        """What makes the results of a call like this one from its outputs, which its arguments follow; None
        for one plain tensor.
        """
        results = self.traced.results
        own = not (results.grads or results.shared)
        if own and results.spec is pytree.LEAF and results.returned[0][0] == 0:
            return None
        sizes = self._sizes_of_views(call)
        constants = [self._constant(c, call) for _, c in results.returned]

        dynamic, count = tuple(call.dynamic), len(self.traced.graph.outputs)

        def finish(outputs: list[Any]) -> Any:
            for holder, value in results.grads:
                self._leave_grad(holder, value, outputs)
            return self._nested(outputs, constants, sizes, outputs[count:], dynamic)

        return finish

    @staticmethod
    def _separate(arrays: list[np.ndarray], bound: Binding) -> None:
        """Arguments that share memory with what the call changes are copied: they keep their values."""
        for i, array in enumerate(arrays):
            base = array.base
            shares = id(array) in bound.changing or (base is not None and id(base) in bound.changing)
            if not shares and (bound.foreign or not (base is None or isinstance(base, np.ndarray))):
                shares = any(id(a) in bound.changing and np.may_share_memory(a, array) for a in bound.arrays)
            if shares:
                arrays[i] = array.copy()

    def _check_writable(self, call: Arguments, bound: Binding) -> None:
        """TraceError before anything happens where an argument that is changed in place can't be."""
        changed = {number for number, _ in self.traced.results.argument_updates}
        names = [n.attrs["name"] for n in self.traced.graph.args]
        states = len(self.traced.graph.states)
        for number in changed:
            given, array = call.held_by(number), call.arrays[number]
            if not isinstance(given, (Tensor, np.ndarray)):
                raise TraceError(
                    f"the compiled function changes its argument {names[number]} in place, and a "
                    f"{type(given).__name__} can't be changed; pass a tensor"
                )
            told = f"the compiled function changes its argument {names[number]} in place, which"
            held = given._array if isinstance(given, Tensor) else given
            if not array.flags.writeable or not (array is held or np.may_share_memory(array, held)):
                raise TraceError(f"{told} is read-only; pass a copy")
            others = [(f"the argument {names[i]}", a) for i, a in enumerate(call.arrays) if i != number]
            used = zip(self.traced.graph.states, bound.arrays[:states], strict=True)
            for name, other in [*others, *((n.attrs["name"], a) for n, a in used)]:
                if share_memory(array, other):
                    raise TraceError(f"{told} shares memory with {name}; pass a copy of one of them")

    @staticmethod
    def _leave_grad(target: Any, value: Any, outputs: Sequence[np.ndarray]) -> None:
        if not isinstance(target, Tensor):
            return
        grad = Tensor.holding(outputs[value]) if isinstance(value, int) else value
        if grad is not None and not target.is_leaf:
            target.backward(grad)  # on to what the argument was made from
        else:
            target._grad = grad

    def _constant(self, value: Any, call: Arguments) -> Any:
        """A result that is no tensor; sizes have the value they have at this call."""
        return evaluate(value, self.traced.sizes(call.arrays)) if isinstance(value, Dim) else value

    def _operands(self, call: Arguments, bound: Binding) -> list[Tensor]:
        """The inputs as backward will see them; what this call changes keeps its old value in a copy."""
        changed = {number for number, _ in self.traced.results.argument_updates}
        operands = []
        for number, (position, array) in enumerate(zip(call.dynamic, call.arrays, strict=True)):
            given = call.leaves[position]
            kept = isinstance(given, Tensor) and given._array is array and number not in changed
            operands.append(given if kept else Tensor.holding(array.copy() if number in changed else array))
        for number, state in enumerate(bound.handles):
            operands.append(copied(state) if number in self._changing else state)
        return operands

    def _recorded(self, operands: list[Tensor], outputs: list[np.ndarray], call: Arguments) -> Any:
        """The results with the call as their history."""
        results = self.traced.results
        with at(user_loc()), RECORDING:
            node = called(self.traced.graph, [t._history() for t in operands], self.traced.renewed)
            constants = [self._constant(c, call) for _, c in results.returned]
            sizes = self._sizes_of_views(call)
            return self._nested(outputs, constants, sizes, call.leaves, call.dynamic, node)


def _value_difference(old: Any, new: Any) -> str:
    """What changed between two readings of (what, value) pairs; the first few of it."""
    before, now = dict(old or ()), dict(new or ())
    changed = [
        f"{what}: {_told(before.get(what, 'nothing'))} became {_told(now.get(what, 'nothing'))}"
        for what in {**before, **now}
        if what not in before or what not in now or before[what] != now[what]
    ]
    return "; ".join(changed[:3]) or "the order of what is in a module"


def _told(value: Any) -> str:
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        kind, value = value
        return f"({', '.join(map(_told, value))})" if kind == "tuple" else repr(value)
    return str(value)


__all__ = ["Binding", "Variant"]

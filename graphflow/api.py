"""``compile``, ``trace`` and ``export``: from a Python function to a program, a graph, or a file."""

from __future__ import annotations

import copy
import ctypes
import functools
import inspect
import os
import types
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, overload

import numpy as np

from graphflow import pytree
from graphflow.captures import Captures
from graphflow.checking import engine_for
from graphflow.compiler.ir import Graph
from graphflow.compiler.trace import current_trace
from graphflow.contents import Read, held, left_to_compare
from graphflow.dims import Dim
from graphflow.direct import DirectCalls
from graphflow.dtypes import get_default_dtype
from graphflow.errors import TraceError
from graphflow.explain import Explanation
from graphflow.graphs import (
    CompiledGraph,
    compiled_graph,
    export_graph,
    export_traced,
    keep_binding,
    load_graph,
    parse_graph,
)
from graphflow.modes import MODE
from graphflow.options import require_known
from graphflow.reasons import difference, names_within, unique
from graphflow.runtime.locks import ForkLock
from graphflow.snapshots import PLAIN, comparable
from graphflow.specs import TensorSpec, as_array, bind, default_specs
from graphflow.tensor import Tensor, epoch, is_grad_enabled, where_called
from graphflow.traced import Arguments, trace_function
from graphflow.variant import Binding, Variant

_FLAT = {Tensor, np.ndarray, float, int, bool, str, type(None)}  # arguments that are leaves
_FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial)
_DEFINITION = ("__code__", "__defaults__", "__kwdefaults__")  # of a function, where it is looked up
_MANY = 16  # variants after which a warning tells why there are so many


class CompiledFunction:
    """A function that is traced and compiled when it is first called, once for every kind of arguments.

    ``variants`` lists the compiled variants with the reason each exists; a new batch size is no reason.
    Arguments are taken by value: one that shares memory with a tensor the function updates keeps its old
    numbers inside.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        signature: Sequence[TensorSpec] | None = None,
        max_variants: int | None = None,
        keep: int = 32,
        check: bool = False,
        check_nan: bool = False,
    ):
        functools.update_wrapper(self, function, updated=())
        self._function = function
        self._signature = list(signature) if signature is not None else None
        self._max_variants = max_variants
        self._keep = keep
        self._checks = {"check": check, "check_nan": check_nan}
        self._variants: dict[Hashable, tuple[Variant, ...]] = {}
        self._order: list[Variant] = []
        self._calls = ctypes.c_int64()
        self._lock = ForkLock(reentrant=True)
        self._captures = Captures(function)
        self._direct = DirectCalls(self._captures, self._inside, self._calls)
        self._name: str = getattr(function, "__name__", type(function).__name__)

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The compiled variants, oldest first; ``str`` of one tells its arguments and why it was made."""
        return tuple(self._order)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Makes a compiled function usable as a method."""
        return self if instance is None else types.MethodType(self, instance)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """A compiled Module passes for the Module, so that it can be a part of others and trained."""
        function = self._function
        return CompiledFunction if isinstance(function, _FUNCTIONS) else type(function)

    @property
    def _orig_mod(self) -> Any:
        """What was compiled, under PyTorch's name for it."""
        return self._function

    def __getattr__(self, name: str) -> Any:
        """What the function, or the Module, has beside: ``compile(model).parameters()``."""
        if name == "_function":
            raise AttributeError(name)
        function = self._function
        found = getattr(function, name)
        if not isinstance(found, types.MethodType) or isinstance(function, _FUNCTIONS):
            return found

        @functools.wraps(found)
        def method(*args: Any, **kwargs: Any) -> Any:
            result = found(*args, **kwargs)
            return self if result is function else result  # ``compile(model).eval()`` stays compiled

        return method

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _DEFINITION and name in dir(self._function):
            setattr(self._function, name, value)
        elif name.startswith("_") or isinstance(self._function, _FUNCTIONS):
            object.__setattr__(self, name, value)
        else:
            setattr(self._function, name, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the compiled function. Inside another compiled function it becomes part of that one."""
        for run in self._direct.ready:
            result = run(*args, **kwargs) if kwargs else run(*args)
            if result is not NotImplemented:
                return result
        return self._call(args, kwargs)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Any call, whatever its arguments are."""
        if current_trace() is not None:
            return self._function(*args, **kwargs)
        is_flat = not kwargs and all(map(_FLAT.__contains__, map(type, args)))
        if is_flat:
            leaves, spec = list(args), _flat_spec(len(args))
        else:
            leaves, spec = pytree.flatten((args, kwargs))
        around = self._captures.key()
        kinds: list[Hashable] = []
        arrays: list[np.ndarray] = []
        dynamic: list[int] = []
        for position, leaf in enumerate(leaves):
            array = as_array(leaf)
            if array is None:
                kinds.append(self._static_kind(leaf, position, spec))
            else:
                wants = isinstance(leaf, Tensor) and leaf._requires_grad
                kinds.append((array.dtype, array.ndim, wants))
                arrays.append(array)
                dynamic.append(position)
        key = (spec, (is_grad_enabled(), get_default_dtype(), MODE.autocast), tuple(kinds), around)
        call = Arguments(leaves, spec, dynamic, arrays)
        variant, binding = self._find(key, call)
        self._calls.value += 1
        variant.used.value = self._calls.value
        self._direct.keep_current()
        result = variant.run(call, binding)
        if variant.is_plain and (is_flat or spec == _flat_spec(len(args), tuple(kwargs))):
            self._direct.met(variant, binding, call, key)
        return result

    def _static_kind(self, leaf: Any, position: int, spec: pytree.Spec) -> Hashable:
        if isinstance(leaf, Tensor):
            leaf._leaked()
        if isinstance(leaf, PLAIN):
            return type(leaf), leaf
        return (
            type(leaf),
            comparable(leaf),
            self._inside(spec, position, leaf).key(),
        )

    def _inside(self, spec: pytree.Spec, position: int, leaf: Any) -> Captures:
        """What the function takes from an object among its arguments."""
        return self._captures.of_argument(self._owner(spec, position), leaf)

    def _owner(self, spec: pytree.Spec, position: int) -> str:
        """The parameter that a leaf is, or ends up in."""
        (_, positional), (_, keys, keyword) = spec[1]
        for number, part in enumerate(positional):
            position -= pytree.count(part)
            if position < 0:
                own, rest = self._captures.parameters
                return own[number] if number < len(own) else rest
        for key, part in zip(keys, keyword, strict=True):
            position -= pytree.count(part)
            if position < 0:
                return str(key)
        raise AssertionError("a leaf of no argument")

    def _find(self, key: Hashable, call: Arguments) -> tuple[Variant, Binding]:
        candidates = self._variants.get(key, ())
        for variant in candidates:
            binding = variant.accept(call)
            if isinstance(binding, Binding):
                if variant is not candidates[0]:
                    self._put_first(key, variant)
                return variant, binding
        with self._lock:
            reasons = []
            for variant in self._variants.get(key, ()):
                binding = variant.accept(call)
                if isinstance(binding, Binding):
                    return variant, binding
                reasons.append(binding)
            return self._add(key, call, reasons)

    def _put_first(self, key: Hashable, variant: Variant) -> None:
        """The variant that was right last is asked first."""
        with self._lock:
            others = self._variants.get(key, ())
            if variant in others:
                self._variants[key] = (variant, *(v for v in others if v is not variant))

    def _add(self, key: Any, call: Arguments, reasons: list[str]) -> tuple[Variant, Binding]:
        names = self._leaf_names(call.spec)
        if reasons:
            reason = reasons[0]
        else:
            reason = "the first call" if not self._order else difference(self._last_used().key, key, names)
        if self._max_variants is not None and len(self._order) >= self._max_variants:
            limit = f"max_variants={self._max_variants}"
            raise TraceError(f"{self._name} would need more than {limit} compiled variants: {reason}")
        labels = unique([names[position] for position in call.dynamic])
        specs = self._signature
        if specs is None:
            specs = default_specs(call.arrays, labels)
        elif len(specs) != len(call.arrays):
            raise TraceError(
                f"the signature of {self._name} has {len(specs)} arguments, the call {len(call.arrays)}; "
                f"pass one tensor, array or float for each{where_called()}"
            )
        hints = bind(specs, call.arrays, labels)
        networks = self._captures.networks
        arrays = held(self._arrays(key[2], call))
        traced = trace_function(self._function, self._name, call, labels, specs, hints, networks)
        key = (*key[:2], self._settled_kinds(key[2], call), self._captures.settle(key[3]))
        if traced.pinned and not reasons:
            fixed = ", ".join(f"{s} = {v}" for s, v in traced.pinned.items())
            reason = f"{reason}, with {fixed} fixed by the program"
        contents = left_to_compare(arrays, [state._array for state in traced.states])
        variant = Variant(traced, engine_for(traced.graph, **self._checks), reason, key, contents)
        self._variants[key] = (variant, *self._variants.get(key, ()))
        self._order.append(variant)
        if len(self._order) > self._keep:
            self._forget(min(self._order[:-1], key=lambda v: v.used.value))
        elif len(self._order) == _MANY and self._max_variants is None:
            warnings.warn(
                f"{self._name} has {_MANY} compiled variants now, the last because of: {reason}. What "
                "changes from call to call is best passed as a tensor or a float; max_variants= makes this "
                "an error",
                RuntimeWarning,
                stacklevel=5,
            )
        return variant, variant.bind(call, epoch())

    def _settled_kinds(self, kinds: Any, call: Arguments) -> tuple[Hashable, ...]:
        """The kinds of arguments before a trace, without what the trace changed in objects among them."""
        settled = list(kinds)
        for position, inside in self._objects(kinds, call):
            settled[position] = (*kinds[position][:2], inside.settle(kinds[position][2]))
        return tuple(settled)

    def _objects(self, kinds: Any, call: Arguments) -> Iterator[tuple[int, Captures]]:
        """What the function takes from each object among its arguments, with the object's position."""
        for position, kind in enumerate(kinds):
            if len(kind) == 3 and isinstance(kind[2], tuple):
                yield position, self._inside(call.spec, position, call.leaves[position])

    def _arrays(self, kinds: Any, call: Arguments) -> list[Read]:
        """NumPy's arrays that the function may read: around it, and in objects among its arguments."""
        inside = [read for _, captures in self._objects(kinds, call) for read in captures.arrays()]
        return [*self._captures.arrays(), *inside]

    def _last_used(self) -> Variant:
        return max(self._order, key=lambda v: v.used.value)

    def _forget(self, variant: Variant) -> None:
        self._order.remove(variant)
        variant.forget()
        self._direct.keep_current()
        left = tuple(v for v in self._variants[variant.key] if v is not variant)
        if left:
            self._variants[variant.key] = left
        else:
            del self._variants[variant.key]

    def _leaf_names(self, spec: pytree.Spec) -> list[str]:
        """Names for the leaves of the arguments: parameter names where they are leaves themselves."""
        positional, keyword = spec[1]
        own, rest = self._captures.parameters
        names: list[str] = []
        for i, part in enumerate(positional[1]):
            names += names_within(own[i] if i < len(own) else f"{rest}_{i - len(own)}", part)
        for name, part in zip(keyword[1], keyword[2], strict=True):
            names += names_within(str(name), part)
        return names

    def explain(self) -> Explanation:
        """Every stage of the variant compiled last: graphs, kernels with their source and lines, memory."""
        if not self._order:
            raise TraceError(f"{self._name} hasn't been compiled yet; call it once, or use graphflow.trace")
        return Explanation(self._order[-1].engine, list(map(str, self._order)))

    def __deepcopy__(self, memo: dict[int, Any]) -> CompiledFunction:
        """A compiled function of a copy: of the Module, or of the method's object; it compiles anew."""
        made = CompiledFunction(
            copy.deepcopy(self._function, memo),
            signature=self._signature,
            max_variants=self._max_variants,
            keep=self._keep,
            **self._checks,
        )
        memo[id(self)] = made
        return made

    def __repr__(self) -> str:
        count = len(self._order)
        return f"<compiled {self._name}, {count} variant{'' if count == 1 else 's'}>"


@functools.cache
def _flat_spec(count: int, names: tuple[str, ...] = ()) -> pytree.Spec:
    """What `pytree.flatten` says of arguments that are leaves, so many of them without a name."""
    named = ("dict", names, (pytree.LEAF,) * len(names))
    return ("tuple", (("tuple", (pytree.LEAF,) * count), named))


# -------------------------------------------------------------------------------------- public functions


def trace(function: Callable[..., Any], *specs: TensorSpec) -> Graph:
    """The graph of `function` for arguments of the given specs, without running or compiling anything.

    The graph prints as text, and ``graphflow.compile`` makes it callable. Given a matrix, gives what
    ``torch.trace`` does: the sum of its diagonal.
    """
    if isinstance(function, Tensor) and not specs:
        return function.trace()
    target = function._function if isinstance(function, CompiledFunction) else function
    if not callable(target):
        raise TypeError(f"trace takes a function or a Module, not {type(target).__name__}")
    for spec in specs:
        if not isinstance(spec, TensorSpec):
            raise TypeError(f"trace takes TensorSpecs after the function, not {type(spec).__name__}")
    name = getattr(target, "__name__", type(target).__name__)
    try:
        known = [p.name for p in inspect.signature(target).parameters.values()]
    except (TypeError, ValueError):
        known = []
    names = [s.name or (known[i] if i < len(known) else f"arg{i}") for i, s in enumerate(specs)]
    arguments = Arguments([None] * len(specs), _flat_spec(len(specs)), list(range(len(specs))), [])
    return keep_binding(trace_function(target, name, arguments, unique(names), list(specs), None))


@overload
def compile(
    model: Graph, *, states: dict[str, Any] | None = None, check: bool = False, check_nan: bool = False
) -> CompiledGraph: ...
@overload
def compile(
    model: Callable[..., Any],
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: str = "inductor",
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    disable: bool = False,
    signature: Sequence[TensorSpec] | None = None,
    max_variants: int | None = None,
    keep: int = 32,
    states: None = None,
    check: bool = False,
    check_nan: bool = False,
) -> CompiledFunction: ...
@overload
def compile(
    model: None = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: str = "inductor",
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    disable: bool = False,
    signature: Sequence[TensorSpec] | None = None,
    max_variants: int | None = None,
    keep: int = 32,
    states: None = None,
    check: bool = False,
    check_nan: bool = False,
) -> Callable[[Callable[..., Any]], CompiledFunction]: ...


def compile(
    model: Any = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: str = "inductor",
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    disable: bool = False,
    signature: Sequence[TensorSpec] | None = None,
    max_variants: int | None = None,
    keep: int = 32,
    states: dict[str, Any] | None = None,
    check: bool = False,
    check_nan: bool = False,
) -> Any:
    """Compiles a function (as a decorator, with or without arguments), a Module, or a Graph.

    `signature` names symbolic sizes; without it every argument's leading size is symbolic, and sizes that
    agree at the first call are one. Of more than `keep` variants the one unused for longest is dropped;
    `max_variants` turns one too many into an error. For a Graph that wasn't traced in this process, `states`
    gives values by name.

    For finding mistakes, both slow: `check` runs every kernel beside the NumPy evaluator and raises
    CheckError for the first that differs; `check_nan` raises NaNError with the line that made a NaN when a
    result or a state would get one. Both then leave all states as they were before the call.

    ``torch.compile``'s arguments: with `disable`, `model` comes back as it is. The others have no effect: a
    function is always one graph (`fullgraph`), its leading sizes symbolic (`dynamic`), and there is one
    compiler (`backend`, `mode`, `options`). TypeError and ValueError for what PyTorch doesn't know.
    """
    require_known(fullgraph, dynamic, backend, mode, options, disable)
    if disable:
        return model if model is not None else _unchanged
    if isinstance(model, Graph):
        if signature is not None or max_variants is not None:
            raise TypeError("signature= and max_variants= go with a function, not with a Graph")
        return compiled_graph(model, states, check, check_nan)
    if states is not None:
        raise TypeError("states= goes with a Graph")
    for spec in signature or ():
        if not isinstance(spec, TensorSpec):
            raise TypeError(f"a signature is a sequence of TensorSpecs, not of {type(spec).__name__}")
    if keep < 1 or (max_variants is not None and max_variants < 1):
        raise ValueError("a compiled function needs at least one variant")
    make = functools.partial(
        CompiledFunction,
        signature=signature,
        max_variants=max_variants,
        keep=keep,
        check=check,
        check_nan=check_nan,
    )
    if model is None:
        return make
    if not callable(model):
        raise TypeError(f"compile takes a function, a Module or a Graph, not {type(model).__name__}")
    return make(model)


def _unchanged(function: Any) -> Any:
    return function


def export(function: CompiledFunction | CompiledGraph | Graph, path: str | os.PathLike[str]) -> None:
    """Writes a graph with its states' values (parameters, optimizer moments) to a ``.gfz`` file.

    A CompiledFunction has to have exactly one variant: call it once before.
    """
    if isinstance(function, (CompiledGraph, Graph)):
        export_graph(function, path)
        return
    if not isinstance(function, CompiledFunction):
        raise TypeError(f"export takes a compiled function or a graph, not {type(function).__name__}")
    if not function.variants:
        raise TraceError(f"{function._name} hasn't been compiled yet; call it once before exporting it")
    if len(function.variants) > 1:
        kinds = "\n  ".join(map(str, function.variants))
        raise TraceError(
            f"{function._name} has several variants; export graphflow.trace(...) of one:\n  {kinds}"
        )
    (variant,) = function.variants
    export_traced(variant.traced, variant.handles, path)


__all__ = [
    "CompiledFunction",
    "CompiledGraph",
    "Dim",
    "TensorSpec",
    "compile",
    "export",
    "load_graph",
    "parse_graph",
    "trace",
]

"""``vmap``: a function of one element becomes a function of a batch, after ``torch.func.vmap``.

The function is traced for one element. Its graph is then batched, op by op (``compiler/passes/batch.py``), so
that one call computes the whole batch, in any nesting with gradients and other batches.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphflow.compiler.batching import repeated
from graphflow.compiler.ir import OPS, Node, Size, TensorType, equal_size, input_node, toposort
from graphflow.compiler.passes.batch import batch
from graphflow.compiler.trace import Trace, current_trace
from graphflow.errors import GradientError, ShapeError, TraceError
from graphflow.functions.arrange import cat
from graphflow.functions.shape import movedim
from graphflow.replay import eagerly
from graphflow.sizes import unwrap
from graphflow.tensor import Tensor, apply, where_called
from graphflow.trees import flatten_tree
from graphflow.variables import differentiating

RANDOMNESS = ("error", "different", "same")


@dataclass
class Level:
    """One vmap that is tracing its function: the batches behind its stand-ins for one element."""

    trace: Trace
    size: Size
    randomness: str
    batches: dict[Node, Node] = field(default_factory=dict)
    counted: Tensor | None = None

    def element(self, whole: Tensor, requires_grad: bool = False) -> Tensor:
        """A handle on one element of a batch along dimension 0."""
        node = whole._traced_node(self.trace)
        one = input_node("element", TensorType(node.dtype, node.shape[1:]))
        self.batches[one] = node
        self.trace.elements.add(one)
        return Tensor.of_node(one, self.trace, requires_grad)

    def number(self) -> Tensor:
        """Which element of the batch this one is."""
        if self.counted is None:
            self.counted = self.element(Tensor.of_node(OPS["iota"](size=self.size), self.trace))
        return self.counted


def draw(shape: tuple[Size, ...], make: Callable[[tuple[Size, ...]], list[Tensor]]) -> list[Tensor]:
    """Random numbers of `shape` as every vmap around wants them: the same for all its elements, or others."""
    trace = current_trace()
    levels: list[Level] = [] if trace is None else trace.levels
    if any(level.randomness == "error" for level in levels):
        raise TraceError(
            "vmap: called random operation while in randomness error mode. Use the 'same' or 'different' "
            f"randomness flags on vmap, or draw outside of it{where_called()}"
        )
    different = [level for level in levels if level.randomness == "different"]
    drawn = make((*(level.size for level in different), *shape))
    # Where the stream stands may be known only after a loop or branch that is itself to be batched.
    settled = not different or _is_outside(drawn[0]._node, levels)
    for level in different:
        if settled and level.trace is trace:
            drawn = [level.element(whole) for whole in drawn]
        else:  # in the body of a loop or branch, for one, which gets the element's number as an operand
            drawn = [apply(OPS["take"], whole, level.number(), dim=0) for whole in drawn]
    return drawn


def _is_outside(node: Node | None, levels: Sequence[Level]) -> bool:
    """Whether a node has nothing to do with the elements of any batch."""
    assert node is not None
    elements = {one for level in levels for one in level.batches}
    return elements.isdisjoint(toposort([node], stop=elements))


def vmap(
    func: Callable[..., Any],
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """`func`, written for one element, as a function of batches, which are computed at once.

    `in_dims` tells along which dimension of each argument the elements lie: an integer, None for an argument
    that is the same for all, or a nesting of these like the arguments'. `out_dims` tells where the results
    have the new dimension. Keyword arguments are the same for all elements. `randomness` says what drawing
    random numbers in `func` means: an error, other numbers for every element, or the same. `chunk_size`
    computes that many elements at a time.

    As in PyTorch, `func` must not branch on values or ask for numbers (``item``). Changing an argument in
    place changes the batch; changing other tensors by what depends on the batch is an error. ValueError for
    dimensions that don't fit the arguments.
    """
    if randomness not in RANDOMNESS:
        raise ValueError(
            f"vmap: randomness has to be 'error', 'different' or 'same', got {randomness!r}{where_called()}"
        )
    if chunk_size is not None and (isinstance(chunk_size, bool) or chunk_size <= 0):
        raise ValueError(f"vmap: chunk_size should be None or greater than 0, got {chunk_size}")

    @functools.wraps(func)
    def batched(*args: Any, **kwargs: Any) -> Any:
        leaves, build = flatten_tree(args)
        axes = _in_axes(in_dims, args, leaves)
        count = _batch_size(leaves, axes)
        call = _Call(func, build, kwargs, out_dims, randomness)
        if chunk_size is None:
            return call.run(leaves, axes, count)
        return call.run_in_chunks(leaves, axes, count, chunk_size)

    return batched


@dataclass
class _Call:
    func: Callable[..., Any]
    build: Callable[[Sequence[Any]], Any]
    kwargs: dict[str, Any]
    out_dims: Any
    randomness: str
    rebuild: Callable[[Sequence[Any]], Any] = lambda leaves: None
    axes_out: list[int | None] = field(default_factory=list)

    def run(self, leaves: list[Any], axes: list[int | None], size: Size) -> Any:
        """One call over the whole batch."""
        found = self.outputs(leaves, axes, size)
        return self.rebuild(found)

    def outputs(self, leaves: list[Any], axes: list[int | None], size: Size) -> list[Tensor]:
        """The results' leaves."""
        if current_trace() is not None:
            return self.traced(leaves, axes, size)
        return eagerly("vmap", lambda: self.traced(leaves, axes, size))

    def run_in_chunks(self, leaves: list[Any], axes: list[int | None], size: Size, chunk: int) -> Any:
        """Some elements at a time."""
        trace = current_trace()
        if not isinstance(size, int):
            assert trace is not None
            size = trace.pin(size, f"vmap with chunk_size={chunk}")
        parts = []
        for start in range(0, size, chunk):
            count = min(chunk, size - start)
            some = [x if a is None else x.narrow(a, start, count) for x, a in zip(leaves, axes, strict=True)]
            parts.append(self.outputs(some, axes, count))
        if not parts:
            return self.run(leaves, axes, size)
        joined = [
            group[0] if axis is None or len(group) == 1 else cat(group, dim=axis)
            for axis, group in zip(self.axes_out, zip(*parts, strict=True), strict=True)
        ]
        return self.rebuild(joined)

    def traced(self, leaves: list[Any], axes: list[int | None], size: Size) -> list[Tensor]:
        """The results' leaves as nodes of the current trace."""
        trace = current_trace()
        assert trace is not None
        level = Level(trace, size, self.randomness)
        held = list(leaves)
        for i, axis in enumerate(axes):
            if axis is not None:
                whole = movedim(leaves[i], axis, 0)
                held[i] = level.element(whole, leaves[i]._requires_grad)
        elements = {i: held[i]._node for i, axis in enumerate(axes) if axis is not None}
        before = {key: state.current for key, state in trace.states.items()}
        trace.levels.append(level)
        try:
            with differentiating([held[i] for i in elements if held[i]._requires_grad]):
                results, self.rebuild = flatten_tree(self.func(*self.build(held), **self.kwargs))
        finally:
            trace.levels.pop()
        self._require_tensors(results)
        self.axes_out = _out_axes(self.out_dims, self.rebuild(range(len(results))), len(results))
        changed = [i for i, node in elements.items() if held[i]._traced_node(trace) is not node]
        found, flags = batch(
            [t._traced_node(trace) for t in (*results, *(held[i] for i in changed))], level.batches, size
        )
        self._require_unbatched_states(trace, before, level)
        for i, node, flag in zip(changed, found[len(results) :], flags[len(results) :], strict=True):
            new = Tensor.of_node(node if flag else repeated(node, size), trace, held[i]._requires_grad)
            leaves[i]._assign(movedim(new, 0, axes[i] or 0))
        return [
            self._placed(result, node, flag, axis, trace, size)
            for result, node, flag, axis in zip(results, found, flags, self.axes_out, strict=False)
        ]

    def _placed(
        self, result: Tensor, node: Node, flag: bool, axis: int | None, trace: Trace, size: Size
    ) -> Tensor:
        if axis is None:
            if flag:
                raise ValueError(
                    f"vmap({_name(self.func)}, out_dims={self.out_dims}): can not return a batched tensor "
                    f"when out_dim is None{where_called()}"
                )
            return result
        whole = Tensor.of_node(node if flag else repeated(node, size), trace, result._requires_grad)
        if not -whole.ndim <= axis < whole.ndim:
            raise IndexError(
                f"vmap({_name(self.func)}): out_dims={axis} is out of range for a result of {whole.ndim} "
                f"dimensions, the batch included{where_called()}"
            )
        return movedim(whole, 0, axis) if axis not in (0, -whole.ndim) else whole

    def _require_tensors(self, results: Sequence[Any]) -> None:
        for result in results:
            if not isinstance(result, Tensor):
                raise ValueError(
                    f"vmap({_name(self.func)}): must only return tensors, got type "
                    f"{type(result).__name__}{where_called()}"
                )

    def _require_unbatched_states(self, trace: Trace, before: dict[Any, Node], level: Level) -> None:
        """Tensors that aren't arguments have room for one value, not for one per element."""
        touched = [s for key, s in trace.states.items() if s.current is not before.get(key, s.node)]
        found, flags = batch([s.current for s in touched], level.batches, level.size)
        for state, new, flag in zip(touched, found, flags, strict=True):
            node, state.current = state.node, new  # what a loop gave is what the batch's loop gives now
            if flag:
                raise GradientError(
                    f"vmap({_name(self.func)}): {node.attrs['name']}, {node.type}, is changed in place by a "
                    "value that differs from element to element; pass it as an argument with an in_dim, or "
                    f"return the new value{where_called()}"
                )


def _name(func: Callable[..., Any]) -> str:
    return getattr(func, "__name__", type(func).__name__)


def spread(tree: Any, prefix: Any) -> list[Any] | None:
    """`prefix`'s leaves repeated for the parts of `tree` they stand for; None where they don't match."""
    if prefix is None or isinstance(prefix, int):
        return [prefix] * len(flatten_tree(tree)[0])
    if isinstance(prefix, dict):
        if not isinstance(tree, dict) or tree.keys() != prefix.keys():
            return None
        pairs = [(tree[key], prefix[key]) for key in tree]
    elif isinstance(prefix, (list, tuple)):
        if not isinstance(tree, (list, tuple)) or len(tree) != len(prefix):
            return None
        pairs = list(zip(tree, prefix, strict=True))
    else:
        return None
    found: list[Any] = []
    for part, dims in pairs:
        inner = spread(part, dims)
        if inner is None:
            return None
        found += inner
    return found


def _in_axes(in_dims: Any, args: tuple[Any, ...], leaves: Sequence[Any]) -> list[int | None]:
    """For every leaf of the arguments the dimension it is batched along, counted from the front."""
    told = f"vmap(in_dims={in_dims})"
    if not isinstance(in_dims, (int, tuple, list)) or isinstance(in_dims, bool):
        raise ValueError(
            f"{told}: expected in_dims to be int or a (potentially nested) tuple matching the structure of "
            f"inputs, got {type(in_dims).__name__}{where_called()}"
        )
    if not args:
        raise ValueError(
            f"{told}: got no inputs; vmap needs positional arguments to map over{where_called()}"
        )
    axes = spread(args, tuple(in_dims) if isinstance(in_dims, list) else in_dims)
    if axes is None:
        raise ValueError(f"{told}: in_dims is not compatible with the structure of inputs{where_called()}")
    found: list[int | None] = []
    for leaf, axis in zip(leaves, axes, strict=True):
        if axis is None:
            found.append(None)
            continue
        if not isinstance(leaf, Tensor):
            raise ValueError(
                f"{told}: got in_dim={axis} for an input of type {type(leaf).__name__}, which can't be "
                f"vmapped over; use in_dim None for it{where_called()}"
            )
        if not -leaf.ndim <= axis < leaf.ndim:
            raise ValueError(
                f"{told}: got in_dim={axis} for some input, but that input is a tensor of dimensionality "
                f"{leaf.ndim}, so expected in_dim to satisfy -{leaf.ndim} <= in_dim < {leaf.ndim}"
                f"{where_called()}"
            )
        found.append(axis % leaf.ndim)
    return found


def _batch_size(leaves: Sequence[Any], axes: Sequence[int | None]) -> Size:
    sizes = [unwrap(x.type_.shape[a]) for x, a in zip(leaves, axes, strict=True) if a is not None]
    if not sizes:
        raise ValueError(f"vmap: at least one input has to have an in_dim that isn't None{where_called()}")
    found = sizes[0]
    for size in sizes[1:]:
        try:
            found = equal_size(found, size)
        except ShapeError:
            raise ShapeError(
                "vmap: expected all tensors to have the same size in the mapped dimension, got sizes "
                f"{[str(s) for s in sizes]}{where_called()}"
            ) from None
    return found


def _out_axes(out_dims: Any, tree: Any, count: int) -> list[int | None]:
    """Where each leaf of the results has the batch."""
    single = count == 1 and isinstance(tree, int)
    if single and isinstance(out_dims, (tuple, list)) and len(out_dims) == 1:
        out_dims = out_dims[0]
    axes = spread(tree, out_dims)
    if axes is None:
        raise ValueError(
            f"vmap(out_dims={out_dims}): out_dims is not compatible with the structure of outputs"
            f"{where_called()}"
        )
    return axes


__all__ = ["draw", "spread", "vmap"]

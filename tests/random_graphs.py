"""Random graphs out of everything that compiles.

The generator takes its decisions from a ``random.Random``, so that Hypothesis can make them (and shrink them)
and ``tools/fuzz.py`` can go on for ever.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from graphflow.compiler.interpret import concrete
from graphflow.compiler.ir import OPS, Graph, Node, Shape, Size, TensorType, constant, input_node, substitute
from graphflow.compiler.ops.control import items
from graphflow.compiler.passes.autodiff import vjp
from graphflow.compiler.subgraph import close
from graphflow.dims import Dim, product
from graphflow.dtypes import DType, bfloat16, bool_, float16, float32, float64, int32, int64

from random_ops import CALL_STEPS, OP_STEPS

N = Dim.symbol("n")
LARGEST = 6000  # elements of one value, so that an example stays quick


@dataclass
class Case:
    """A graph with a symbolic size `n`, and how to fill its inputs."""

    graph: Graph
    indices: dict[Node, Size]  # inputs that hold positions, and the size they point into
    given: dict[Node, np.ndarray]  # inputs with values of their own, repeated along leading dimensions
    allows_empty: bool
    seed: int

    def arrays(self, n: int) -> list[np.ndarray]:
        """Arrays for the graph's inputs where the symbol is `n`."""
        rng = np.random.default_rng((self.seed, n))
        return [self._array(node, {"n": n}, rng) for node in self.graph.inputs]

    def _array(self, node: Node, symbols: Mapping[str, int], rng: np.random.Generator) -> np.ndarray:
        shape = concrete(node.shape, symbols)
        if node in self.given:
            return np.array(np.broadcast_to(self.given[node], shape))
        if node in self.indices:
            size = concrete(self.indices[node], symbols)
            return rng.integers(-size, size, shape) if size else np.zeros(shape, np.int64)
        if node.dtype.kind == "float":
            return rng.uniform(-1.5, 1.5, shape).astype(node.dtype.numpy)
        if node.dtype is bool_:
            return rng.integers(0, 2, shape).astype(bool)
        return rng.integers(-50, 50, shape).astype(node.dtype.numpy)


@dataclass
class Generator:
    """Grows one graph, decision by decision."""

    random: random.Random
    dtype: DType = float64
    pool: list[Node] = field(default_factory=list)  # float values of `dtype`
    args: list[Node] = field(default_factory=list)
    states: list[Node] = field(default_factory=list)
    indices: dict[Node, Size] = field(default_factory=dict)
    given: dict[Node, np.ndarray] = field(default_factory=dict)
    others: list[Node] = field(default_factory=list)  # values of any dtype, for outputs
    allows_empty: bool = True
    sizes: tuple[Size, ...] = (N, 3, 4, 1, 5)

    # ---------------------------------------------------------------------------------- choices

    def pick(self, choices: Sequence):  # type: ignore[no-untyped-def,type-arg]
        """One of the choices."""
        return choices[self.random.randrange(len(choices))]

    def chance(self, percent: int) -> bool:
        """True that often."""
        return self.random.randrange(100) < percent

    def value(self) -> Node:
        """A value so far, more often a late one."""
        if self.chance(50):
            return self.pick(self.pool[-3:])
        return self.pick(self.pool)

    def within(self, shape: Shape) -> list[Node]:
        """Values so far that broadcast to that shape."""
        return [v for v in self.pool if len(v.shape) <= len(shape) and all(
            a in (1, b) for a, b in zip(reversed(v.shape), reversed(shape), strict=False))]  # fmt: skip

    def dims(self, x: Node) -> tuple[int, ...]:
        """Some dimensions of `x`, at least one."""
        chosen = [d for d in range(len(x.shape)) if self.chance(50)]
        return tuple(chosen) or (self.random.randrange(len(x.shape)),)

    def input(self, shape: Shape, dtype: DType, state: bool = False) -> Node:
        """A new argument or state."""
        found = self.states if state else self.args
        node = input_node(f"{'w' if state else 'x'}{len(found)}", TensorType(dtype, shape))
        found.append(node)
        return node

    def index(self, shape: Shape, size: Size) -> Node:
        """A new argument that holds positions in a dimension of `size`."""
        node = self.input(shape, int64)
        self.indices[node] = size
        if size == 0 or isinstance(size, Dim):
            self.allows_empty = False
        return node

    # ---------------------------------------------------------------------------------- growing

    def case(self, nodes: int) -> Case:
        """A whole case with about that many nodes."""
        self.dtype = self.pick([float64] * 10 + [float32] * 7 + [float16, float16, bfloat16])
        for number in range(1 + self.random.randrange(2)):
            shape = tuple(self.pick(self.sizes) for _ in range(self.random.randrange(4)))
            shape = shape if number or N in shape else (N, *shape[:2])  # some input has to tell what n is
            self.pool.append(self.input(shape, self.dtype))
        for _ in range(self.random.randrange(3)):
            shape = tuple(self.pick(self.sizes[1:]) for _ in range(self.random.randrange(3)))
            self.pool.append(self.input(shape, self.dtype, state=True))
        steps = self._steps(control=self.chance(12), ops=self.chance(33))
        while nodes > 0:
            nodes -= 1
            made = self.pick(steps)(self.value())
            if made is None or not small(made.shape):
                continue
            assert made.dtype is self.dtype, made
            self.pool.append(made)
        return self._finished()

    def _steps(self, control: bool, ops: bool) -> list[Callable[[Node], Node | None]]:
        weights = {**STEPS, **CONTROL} if control else STEPS
        steps = [getattr(self, f"_{name}") for name, weight in weights.items() for _ in range(weight)]
        others = {**(OP_STEPS if ops else {}), **(CALL_STEPS if control else {})}
        return steps + [functools.partial(s, self) for s, weight in others.items() for _ in range(weight)]

    def _finished(self) -> Case:
        outputs = [self.value() for _ in range(1 + self.random.randrange(3))]
        if self.chance(10):
            outputs.append(outputs[0])
        outputs += [v for v in self.others[-3:] if small(v.shape)]
        updates: dict[int, Node] = {}
        loss = self._loss([x for x in outputs if x.dtype is self.dtype])
        leaves = [x for x in (*self.args, *self.states) if x.dtype is self.dtype]
        gradients = dict(zip(leaves, vjp([loss], [constant(1.0, self.dtype)], leaves), strict=True))
        if self.chance(60):
            outputs += [g for g in gradients.values() if g is not None][:3]
        for number, state in enumerate(self.states):
            if (
                state.dtype is self.dtype
                and (new := self._new_value(state, gradients.get(state))) is not None
            ):
                updates[number] = new
        same = [
            (i, j)
            for i, a in enumerate(self.states)
            for j, b in enumerate(self.states)
            if i < j and a.type == b.type
        ]
        if same and self.chance(30):
            i, j = self.pick(same)
            updates[i], updates[j] = self.states[j], self.states[i]
        if updates and self.chance(30):
            outputs.append(next(iter(updates.values())))
        graph = Graph("random", tuple(self.args), tuple(self.states), tuple(outputs), tuple(updates.items()))
        seed = self.random.randrange(2**31)
        return Case(graph, self.indices, self.given, self.allows_empty, seed)

    def _loss(self, outputs: Sequence[Node]) -> Node:
        total = constant(0.0, self.dtype)
        for number, x in enumerate(outputs):
            weighted = x * (0.5 + number) if self.chance(50) else OPS["sin"](x)
            flat = OPS["sum"](weighted, dims=tuple(range(len(x.shape)))) if x.shape else weighted
            total = total + OPS["reshape"](flat, shape=())
        return total

    def _new_value(self, state: Node, gradient: Node | None) -> Node | None:
        choice = self.random.randrange(4)
        if choice == 0 and gradient is not None:
            return state - gradient * 0.1
        if choice == 1:
            fitting = [x for x in self.pool if x.type == state.type]
            return self.pick(fitting) if fitting else state * 0.5
        if choice == 2 and len(state.shape) == 2 and state.shape[0] == state.shape[1]:
            return OPS["permute"](state, dims=(1, 0)) + 1.0
        return state * 0.9 + 0.25 if choice == 3 else None

    # ---------------------------------------------------------------------------------- steps

    def _unary(self, x: Node) -> Node:
        return self.pick(UNARY)(x)

    def _binary(self, x: Node) -> Node:
        y = self._partner(x)
        return self.pick(BINARY)(*((x, y) if self.chance(50) else (y, x)))

    def _partner(self, x: Node) -> Node:
        """A value that broadcasts with `x`."""
        for _ in range(4):
            y = self.value()
            if fits(x.shape, y.shape):
                return y
        if self.chance(50) and x.shape:
            shape = tuple(s if self.chance(50) else 1 for s in x.shape)
            return self.input(shape[self.random.randrange(len(shape)) :], self.dtype)
        flat = OPS["sum"](y, dims=tuple(range(len(y.shape)))) if y.shape else y
        return OPS["tanh"](OPS["reshape"](flat, shape=()))

    def _choice(self, x: Node) -> Node:
        y = self._partner(x)
        condition = OPS[self.pick(["lt", "le", "gt", "ge", "eq", "ne"])](x, y)
        if self.chance(30):
            condition = OPS["bitwise_not"](condition)
        if self.chance(30):
            return OPS["cast"](condition, dtype=self.dtype)
        return OPS["where"](condition, x * 0.5, self.pick([y, constant(0.0, self.dtype), x]))

    def _casts(self, x: Node) -> Node:
        if self.chance(40):
            other = float32 if self.dtype is float64 else float64
            return OPS["cast"](OPS["sin"](OPS["cast"](x, dtype=other)), dtype=self.dtype)
        whole = OPS["cast"](OPS["tanh"](x) * 20.0, dtype=self.pick([int64, int32]))
        return OPS["cast"](self.pick(WHOLE)(whole), dtype=self.dtype)

    def _reduction(self, x: Node) -> Node | None:
        if not x.shape:
            return None
        dims = self.dims(x)
        name = self.pick(["sum", "sum", "sum", "max", "min", "prod", "argmax", "argmin", "any", "all"])
        if name in ("max", "min", "argmax", "argmin"):
            if any(isinstance(x.shape[d], Dim) or x.shape[d] == 0 for d in dims):
                if not self._all_positive([x.shape[d] for d in dims]):
                    return None
                self.allows_empty = False
            # Rounded, so that the winner isn't decided by the last bit; ties are welcome.
            source = OPS["round"](x * 8.0) if name.startswith("arg") else x
            found = OPS[name](source, dims=dims)
            found = found if found.dtype is self.dtype else OPS["cast"](found, dtype=self.dtype)
        elif name in ("any", "all"):
            found = OPS["cast"](OPS[name](OPS["gt"](x, 0.3), dims=dims), dtype=self.dtype)
        elif name == "prod":
            found = OPS["prod"](OPS["tanh"](x) + 0.5, dims=dims)
        else:
            found = OPS["sum"](x, dims=dims)
        if self.chance(40):
            found = OPS["reshape"](found, shape=tuple(s for d, s in enumerate(found.shape) if d not in dims))
        return found

    def _all_positive(self, sizes: Sequence[Size]) -> bool:
        return all(s == N or (isinstance(s, int) and s > 0) for s in sizes)

    def _rows(self, x: Node) -> Node | None:
        """Softmax and its relatives along one dimension, as people write them."""
        if not x.shape:
            return None
        d = len(x.shape) - 1 if self.chance(70) else self.random.randrange(len(x.shape))
        if not self._all_positive([x.shape[d]]):
            return None
        if isinstance(x.shape[d], Dim):
            self.allows_empty = False
        kind = self.random.randrange(4)
        count = OPS["cast"](constant(x.shape[d], int64), dtype=self.dtype)
        if kind == 3:
            mean = OPS["sum"](x, dims=(d,)) / count
            centred = x - mean
            variance = OPS["sum"](centred * centred, dims=(d,)) / count
            return centred * OPS["rsqrt"](variance + 1e-3)
        shifted = x - OPS["detach"](OPS["max"](x, dims=(d,)))
        exponentials = OPS["exp"](shifted)
        total = OPS["sum"](exponentials, dims=(d,))
        if kind == 0:
            return exponentials / total
        logs = shifted - OPS["log"](total)
        if kind == 1:
            return logs
        shape = tuple(1 if i == d else s for i, s in enumerate(x.shape))
        return -OPS["gather"](logs, self.index(shape, x.shape[d]), dim=d)

    def _movement(self, x: Node) -> Node | None:
        shape = list(x.shape)
        choice = self.pick(
            ["flatten", "merge", "split", "one", "permute", "expand", "slice", "flip", "pad", "cat"]
        )
        if choice == "flatten":
            return OPS["reshape"](x, shape=(product(shape),))
        if choice == "one":
            shape.insert(self.random.randrange(len(shape) + 1), 1)
            return OPS["reshape"](x, shape=tuple(shape))
        if choice == "expand":
            wide = [self.pick(self.sizes) if s == 1 and self.chance(60) else s for s in shape]
            extra = [self.pick(self.sizes)] if len(shape) < 3 and self.chance(40) else []
            return OPS["expand"](x, shape=(*extra, *wide))
        if not shape:
            return None
        d = self.random.randrange(len(shape))
        if choice == "permute":
            return OPS["permute"](x, dims=tuple(self.random.sample(range(len(shape)), len(shape))))
        if choice == "merge" and d + 1 < len(shape):
            return OPS["reshape"](x, shape=(*shape[:d], shape[d] * shape[d + 1], *shape[d + 2 :]))
        if choice == "split" and isinstance(shape[d], int) and shape[d] % 2 == 0 and shape[d]:
            return OPS["reshape"](x, shape=(*shape[:d], 2, shape[d] // 2, *shape[d + 1 :]))
        if choice == "cat":
            return self._cat(x, d)
        return self._cut(x, d, choice)

    def _cat(self, x: Node, d: int) -> Node:
        same = [y for y in self.pool if len(y.shape) == len(x.shape) and all(
            a == b for i, (a, b) in enumerate(zip(x.shape, y.shape, strict=True)) if i != d)]  # fmt: skip
        return OPS["cat"](x, *(self.pick(same) for _ in range(1 + self.random.randrange(2))), dim=d)

    def _cut(self, x: Node, d: int, choice: str) -> Node | None:
        shape = list(x.shape)
        starts, steps = [0] * len(shape), [1] * len(shape)
        size = shape[d]
        if choice == "flip":
            starts[d], steps[d] = size - 1, -1
            return OPS["slice"](x, starts=tuple(starts), steps=tuple(steps), sizes=tuple(shape))
        if choice == "slice" and isinstance(size, int):
            steps[d] = self.pick([1, 1, 2])
            starts[d] = self.random.randrange(size + 1)
            shape[d] = self.random.randrange((size - starts[d] + steps[d] - 1) // steps[d] + 1)
            return OPS["slice"](x, starts=tuple(starts), steps=tuple(steps), sizes=tuple(shape))
        if choice == "pad":
            steps[d] = self.pick([1, 1, 2])
            starts[d] = self.random.randrange(3)
            shape[d] = size * steps[d] + starts[d] + self.random.randrange(2)
            return OPS["pad"](x, shape=tuple(shape), starts=tuple(starts), steps=tuple(steps))
        return None

    def _product(self, x: Node) -> Node | None:
        if len(x.shape) < 2:
            return None
        k = x.shape[-1]
        others = [y for y in self.pool if len(y.shape) >= 2 and fits(x.shape[:-2], y.shape[:-2])]
        right = [y for y in others if y.shape[-2] == k]
        turned = [y for y in others if y.shape[-1] == k]
        choice = self.random.randrange(3)
        if choice == 0 and right:
            found = OPS["matmul"](x, self.pick(right))
        elif choice == 1 and turned:
            found = OPS["matmul"](x, transposed(self.pick(turned)))
        elif isinstance(k, int):
            batch = x.shape[:-2] if self.chance(30) else ()
            found = OPS["matmul"](
                x, self.input((*batch, k, self.pick((3, 4, 1))), self.dtype, state=self.chance(40))
            )
        else:
            found = OPS["matmul"](transposed(x), x)
        return OPS["tanh"](found) if self.chance(50) else found

    def _positions(self, x: Node) -> Node | None:
        if not x.shape:
            return None
        d = self.random.randrange(len(x.shape))
        if x.shape[d] != N and not (isinstance(x.shape[d], int) and x.shape[d] > 0):
            return None
        choice = self.pick(["gather", "take", "scatter_add", "put_add"])
        count = self.pick(self.sizes)
        if choice == "gather":
            shape = tuple(count if i == d else s for i, s in enumerate(x.shape))
            return OPS["gather"](x, self.index(shape, x.shape[d]), dim=d)
        if choice == "take":
            shape = tuple(self.pick(self.sizes) for _ in range(self.random.randrange(3)))
            return OPS["take"](x, self.index(shape, x.shape[d]), dim=d)
        size = self.pick((3, 5, 7))
        if choice == "scatter_add":
            return OPS["scatter_add"](x, self.index(x.shape, size), dim=d, size=size)
        last = d + 1 + self.random.randrange(len(x.shape) - d)
        return OPS["put_add"](x, self.index(x.shape[d:last], size), dim=d, size=size)

    def _noise(self, x: Node) -> Node:
        keys = [s for s in self.states if s.dtype is int64 and s.shape == (2,) and s not in self.indices]
        key = keys[0] if keys and self.chance(70) else self.input((2,), int64, state=self.chance(50))
        bits = OPS["random_bits"](key, shape=x.shape, word=self.random.randrange(4))
        wide = self.dtype if not self.dtype.is_half else float32
        uniform = OPS["cast"](OPS["cast"](bits, dtype=wide) * 2.0**-32, dtype=self.dtype)
        return (
            OPS["where"](OPS["lt"](uniform, 0.3), constant(0.0, self.dtype), x)
            if self.chance(50)
            else uniform + x
        )

    def inside(self, *names_and_values: Node) -> tuple[list[Node], Node]:
        """A few steps from new inputs like those given, with values around; the inputs and the last value."""
        outer, others = self.pool, list(self.others)
        args = [input_node(f"in{i}", v.type) for i, v in enumerate(names_and_values)]
        self.pool = [*outer[-2:], *args]
        steps = self._steps(control=True, ops=self.chance(30))
        for _ in range(1 + self.random.randrange(3)):
            made = self.pick(steps)(self.value())
            if made is not None and small(made.shape):
                self.pool.append(made)
        last, self.pool, self.others = self.pool[-1], outer, others
        return args, last

    def _loop(self, x: Node) -> Node | None:
        sequences = [v for v in self.pool if v.shape and v.shape[0] in (N, 3, 4)]
        if not sequences:
            return None
        xs = self.pick(sequences)
        element = input_node("element", TensorType(xs.dtype, xs.shape[1:]))
        (carry, read), last = self.inside(x, element)
        total = OPS["sum"](last, dims=tuple(range(len(last.shape)))) if last.shape else last
        new = OPS["tanh"](carry * 0.7 + OPS["reshape"](total, shape=()) * 0.1)
        body, captured = close("body", [carry, read], [new, last])
        attrs = {"carries": 1, "sequences": 1, "length": xs.shape[0], "reverse": self.chance(30)}
        final, stacked = items(OPS["scan"](x, xs, *captured, body=body, **attrs))
        return stacked if self.chance(50) else final

    def _branch(self, x: Node) -> Node:
        then = self.inside(x)
        (arg,), last = self.inside(x)
        first = substitute([then[1]], {then[0][0]: arg})[0]
        sums = [OPS["sum"](v, dims=tuple(range(len(v.shape)))) if v.shape else v for v in (first, last)]
        outputs = [arg * 0.5 + OPS["tanh"](OPS["reshape"](s, shape=())) for s in sums]
        both, captured = close("branch", [arg], outputs)
        branches = [Graph(f"branch{i}", both.args, (), (o,)) for i, o in enumerate(both.outputs)]
        total = OPS["sum"](x, dims=tuple(range(len(x.shape)))) if x.shape else x
        flag = OPS["gt"](OPS["reshape"](total, shape=()), 0.1)
        return items(OPS["cond"](flag, x, *captured, then=branches[0], otherwise=branches[1]))[0]


STEPS = {
    "unary": 5,
    "binary": 6,
    "choice": 2,
    "casts": 1,
    "reduction": 4,
    "rows": 2,
    "movement": 5,
    "product": 2,
    "positions": 2,
    "noise": 1,
}
CONTROL = {"loop": 2, "branch": 1}  # in some graphs: their bodies have kernels of their own


UNARY: list[Callable[[Node], Node]] = [
    lambda x: OPS["tanh"](x),
    lambda x: OPS["sin"](x),
    lambda x: OPS["exp"](OPS["sin"](x)),
    lambda x: OPS["sqrt"](OPS["abs"](x) + 0.1),
    lambda x: OPS["log"](OPS["abs"](x) + 0.5),
    lambda x: OPS["sigmoid"](x),
    lambda x: -x,
    lambda x: OPS["relu"](x),
    lambda x: x * x,
    lambda x: OPS["floor"](x) + x,
    lambda x: OPS["pow"](OPS["abs"](x) + 0.3, constant(1.7, x.dtype)),
    lambda x: 2.0 - x,
    lambda x: x * 0.25,
]
BINARY: list[Callable[[Node, Node], Node]] = [
    lambda x, y: x + y,
    lambda x, y: x - y,
    lambda x, y: x * y,
    lambda x, y: x / (OPS["abs"](y) + 0.5),
    lambda x, y: OPS["maximum"](x, y),
    lambda x, y: OPS["minimum"](x, y),
]
WHOLE: list[Callable[[Node], Node]] = [
    lambda i: i * 3 - 7,
    lambda i: OPS["remainder"](i, constant(5, i.dtype)),
    lambda i: OPS["floor_divide"](i, constant(-3, i.dtype)),
    lambda i: OPS["bitwise_xor"](OPS["left_shift"](i, constant(2, i.dtype)), i),
    lambda i: OPS["pow"](i, constant(3, i.dtype)),
    lambda i: OPS["maximum"](i, -i),
    lambda i: OPS["sum"](i, dims=tuple(range(len(i.shape)))) if i.shape else i,
]


def transposed(x: Node) -> Node:
    """`x` with its last two dimensions exchanged."""
    rank = len(x.shape)
    return OPS["permute"](x, dims=(*range(rank - 2), rank - 1, rank - 2))


def fits(a: Shape, b: Shape) -> bool:
    """Whether the shapes broadcast."""
    pairs = zip(reversed(a), reversed(b), strict=False)
    return all(x == y or x == 1 or y == 1 for x, y in pairs)


def small(shape: Shape) -> bool:
    """Whether a value of that shape is small enough for a quick example."""
    return len(shape) <= 5 and concrete((product(shape),), {"n": 33})[0] <= LARGEST


def random_case(source: random.Random, largest: int = 30) -> Case:
    """A case of up to `largest` steps."""
    return Generator(source).case(1 + source.randrange(largest))

"""A kernel as the emitters make it: its text, the words of its argument block, and what running it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from graphflow.compiler.codegen.function import KERNEL_TRAILING, Function
from graphflow.compiler.ir import Node
from graphflow.dims import Dim
from graphflow.dtypes import DType
from graphflow.runtime.program import Arg, BufferArg, SizeArg

Size = int | Dim

SUFFIX: Mapping[str, str] = {
    "bool": "b8",
    "uint8": "u8",
    "int8": "i8",
    "int16": "i16",
    "int32": "i32",
    "int64": "i64",
    "float16": "f16",
    "bfloat16": "bf16",
    "float32": "f32",
    "float64": "f64",
}


def suffix(dtype: DType) -> str:
    """The dtype's name inside kernel text."""
    return SUFFIX[dtype.name]


@dataclass(frozen=True)
class Loops:
    """One generated function and how to call it.

    `core` is the element type of the matrix core whose description the last parameter, ``core``, points to.
    """

    function: Function
    args: tuple[Arg, ...]
    extent: Size
    grain: int
    scratch: Size = 0
    bytes: Size = 0
    flops: Size = 0
    reads: tuple[int, ...] = ()
    writes: tuple[int, ...] = ()
    core: DType | None = None


@dataclass
class Parameters:
    """Collects a kernel's parameters while its body is written. Every buffer and every size appears once."""

    buffer_of: Callable[[Node], int]
    names: dict[object, str] = field(default_factory=dict)
    params: list[tuple[str, str]] = field(default_factory=list)
    args: list[Arg] = field(default_factory=list)
    reads: dict[int, None] = field(default_factory=dict)
    writes: dict[int, None] = field(default_factory=dict)

    def pointer(self, node: Node, dtype: DType, write: bool = False) -> str:
        """The name of the pointer to the buffer that holds `node`."""
        buffer = self.buffer_of(node)
        (self.writes if write else self.reads)[buffer] = None
        return self._name(("buffer", buffer), "p", suffix(dtype) + "*", BufferArg(buffer))

    def pointer_to(self, buffer: int, type_: str) -> str:
        """The name of the pointer to a buffer that no node stands for, and that nobody waits for."""
        return self._name(("buffer", buffer), "p", type_, BufferArg(buffer))

    def temporary(self, buffer: int, dtype: DType, write: bool = False) -> str:
        """The name of the pointer to a buffer of a kernel's own."""
        (self.writes if write else self.reads)[buffer] = None
        return self.pointer_to(buffer, suffix(dtype) + "*")

    def size(self, size: Size) -> str:
        """A size as text: a literal, or the name of a parameter."""
        return str(size) if isinstance(size, int) else self.runtime_size(size)

    def runtime_size(self, size: Size) -> str:
        """The name of a parameter that holds the size, so that the text doesn't depend on it."""
        return self._name(("size", size), "n", "i64", SizeArg(size))

    def _name(self, key: object, prefix: str, type_: str, arg: Arg) -> str:
        if key not in self.names:
            self.names[key] = f"{prefix}{len(self.params)}"
            self.params.append((self.names[key], type_))
            self.args.append(arg)
        return self.names[key]

    def function(
        self, name: str, body: str, trailing: tuple[tuple[str, str], ...] = KERNEL_TRAILING
    ) -> Function:
        """The finished function."""
        return Function(name, tuple(self.params), trailing, body)


def kernel_name(nodes: list[Node], limit: int = 4) -> str:
    """``add_tanh_sum``: the ops in it, most telling ones when there are many."""
    dull = {"reshape", "expand", "permute", "cast", "alias", "slice", "const", "iota", "detach", "project"}
    names: list[str] = []
    for node in nodes:
        name = node.op.name
        if name not in dull and name not in names:
            names.append(name)
    if len(names) > limit:
        telling = [n for n in names if n not in ("add", "sub", "mul", "div", "neg", "where")]
        names = (telling + [n for n in names if n not in telling])[:limit]
    return "_".join(names) or "copy"

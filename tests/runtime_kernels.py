"""Small kernels written in LLVM IR, and programs made of them, for the tests of the runtime."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence

from graphflow import dtypes
from graphflow.dims import Dim
from graphflow.runtime import loader
from graphflow.runtime.program import Buffer, Command, Kernel, Program
from llvmlite import binding

F32, F64, I64 = dtypes.float32, dtypes.float64, dtypes.int64

_LOOP = """
declare double @sin(double)
define void @{symbol}(ptr %args, i64 %lo, i64 %hi, ptr %scratch) {{
entry:
{loads}
  br label %loop
loop:
  %i = phi i64 [%lo, %entry], [%next, %loop]
{body}
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %hi
  br i1 %more, label %loop, label %exit
exit:
  ret void
}}
"""

# per kernel: how many words of the block it reads (%w0, %w1 ... as integers, %p0, %p1 ... as pointers), one
# round
_BODIES = {
    # out[i] = a[i] + b[i]
    "add": (
        3,
        """
  %a.at = getelementptr float, ptr %p0, i64 %i
  %b.at = getelementptr float, ptr %p1, i64 %i
  %c.at = getelementptr float, ptr %p2, i64 %i
  %a = load float, ptr %a.at
  %b = load float, ptr %b.at
  %c = fadd float %a, %b
  store float %c, ptr %c.at""",
    ),
    # out[i] = a[n - 1 - i] * 0.5 + b[i], with n = word 3: reads what other threads' parts wrote
    "mirror": (
        4,
        """
  %top = sub i64 %w3, 1
  %j = sub i64 %top, %i
  %a.at = getelementptr float, ptr %p0, i64 %j
  %b.at = getelementptr float, ptr %p1, i64 %i
  %c.at = getelementptr float, ptr %p2, i64 %i
  %a = load float, ptr %a.at
  %b = load float, ptr %b.at
  %half = fmul float %a, 0.5
  %c = fadd float %half, %b
  store float %c, ptr %c.at""",
    ),
    # x[i] += word 1, int64
    "increase": (
        2,
        """
  %a.at = getelementptr i64, ptr %p0, i64 %i
  %a = load i64, ptr %a.at
  %c = add i64 %a, %w1
  store i64 %c, ptr %a.at""",
    ),
    # seen[i] += 1, starts[lo] += 1 on the first round, int64
    "mark": (
        2,
        """
  %a.at = getelementptr i64, ptr %p0, i64 %i
  %a = load i64, ptr %a.at
  %c = add i64 %a, 1
  store i64 %c, ptr %a.at
  %first = icmp eq i64 %i, %lo
  %step = zext i1 %first to i64
  %s.at = getelementptr i64, ptr %p1, i64 %lo
  %s = load i64, ptr %s.at
  %t = add i64 %s, %step
  store i64 %t, ptr %s.at""",
    ),
    # x[i] = sin(x[i]), float64
    "sine": (
        1,
        """
  %a.at = getelementptr double, ptr %p0, i64 %i
  %a = load double, ptr %a.at
  %c = call double @sin(double %a)
  store double %c, ptr %a.at""",
    ),
    # block 0 is {function, block}: calls the function on its block for each single item
    "indirect": (
        1,
        """
  %function = load ptr, ptr %p0
  %inner.at = getelementptr i64, ptr %p0, i64 1
  %inner = load ptr, ptr %inner.at
  %end = add i64 %i, 1
  call void %function(ptr %inner, i64 %i, i64 %end, ptr %scratch)""",
    ),
    # writes i to scratch[i % 64], works word 1 times, and reads it back to x[i], int64
    "through_scratch": (
        2,
        """
  %k = and i64 %i, 63
  %s.at = getelementptr i64, ptr %scratch, i64 %k
  store volatile i64 %i, ptr %s.at
  %v = load volatile i64, ptr %s.at
  %a.at = getelementptr i64, ptr %p0, i64 %i
  store i64 %v, ptr %a.at""",
    ),
    # x[0] = address of the scratch memory
    "where_is_scratch": (
        1,
        """
  %address = ptrtoint ptr %scratch to i64
  store i64 %address, ptr %p0""",
    ),
}


@functools.cache
def kernel(name: str, symbol: str | None = None) -> Kernel:
    """The kernel called `name`, one of _BODIES, compiled."""
    count, body = _BODIES[name]
    loads = []
    for word in range(count):
        loads.append(f"  %at{word} = getelementptr i64, ptr %args, i64 {word}")
        loads.append(f"  %p{word} = load ptr, ptr %at{word}")
        loads.append(f"  %w{word} = load i64, ptr %at{word}")
    symbol = symbol or f"test_{name}"
    text = _LOOP.format(symbol=symbol, loads="\n".join(loads), body=body)
    machine = loader.host_target()
    module = binding.parse_assembly(text)
    module.triple = machine.triple
    module.verify()
    return Kernel(name, symbol, hashlib.sha256(text.encode()).hexdigest(), machine.emit_object(module), text)


def program(
    kernels: Sequence[str],
    buffers: Sequence[Buffer],
    commands: Sequence[Command],
    symbols: Sequence[str] = (),
) -> Program:
    """A Program whose inputs, states and outputs are the buffers with these roles, in order."""

    def having(role: str) -> tuple[int, ...]:
        return tuple(i for i, b in enumerate(buffers) if b.role == role)

    return Program(
        "test",
        tuple(symbols),
        tuple(kernel(name) for name in kernels),
        tuple(buffers),
        tuple(commands),
        having("input"),
        having("state"),
        having("output"),
    )


def size(name: str) -> Dim:
    """The symbol `name`."""
    return Dim.symbol(name)

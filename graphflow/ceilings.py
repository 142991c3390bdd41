"""What this machine can do at most: FLOP/s and bytes per second, measured with kernels that do nothing else.

Together they are the roofline (Williams, Waterman and Patterson, 2009): a kernel that moves b bytes and
computes f FLOPs can't take less than the longer of b / bandwidth and f / peak. Bandwidth depends on where the
data is, so it is measured for the amount of data that a whole step goes through: less than the second-level
cache holds comes faster than what has to come from memory.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numpy as np

from graphflow import dtypes
from graphflow.compiler.codegen import llvm
from graphflow.dtypes import DType
from graphflow.runtime import cache
from graphflow.runtime.buffers import aligned_bytes, array_at
from graphflow.runtime.executor import Executor
from graphflow.runtime.program import Buffer, BufferArg, Command, Kernel, Program, SizeArg

# Independent chains of fused multiply-adds: enough to fill two pipelines of latency 5, few enough for
# registers.
CHAINS = 12
ROUNDS = 1024
# A read kernel takes so many bytes for a unit of its range.
BLOCK = 4096
# The least and the most data whose bandwidth is measured.
LEAST, MOST = 1 << 16, 1 << 27
# A measurement lasts about so long (ns), and the best of so many counts.
LASTING = 500_000
REPEATS = 25


@dataclass(frozen=True)
class Ceilings:
    """Measured peaks of some threads: FLOPs and bytes per nanosecond (GFLOP/s and GB/s)."""

    flops: float
    bytes: float

    def nanoseconds(self, flops: int, moved: int) -> float:
        """The least time for so many FLOPs and bytes moved."""
        return max(flops / self.flops, moved / self.bytes)


def ceilings(itemsize: int, footprint: int, threads: int) -> Ceilings:
    """The Ceilings of `threads` threads for floats of `itemsize` bytes (4 or 8) in a step that goes through
    `footprint` bytes. Takes some tenths of a second when it hasn't been asked before in this process.
    """
    size = min(max(footprint, LEAST), MOST)
    return Ceilings(_peak(itemsize, threads), _bandwidth(1 << (size - 1).bit_length(), threads))


@functools.cache
def _peak(itemsize: int, threads: int) -> float:
    """FLOPs per nanosecond of fused multiply-adds on full vectors."""
    target = llvm.host()
    lanes = target.lanes(itemsize)
    name = "float" if itemsize == 4 else "double"
    dtype = dtypes.float32 if itemsize == 4 else dtypes.float64
    units = 8 * threads
    out = np.full(units, 0.5, dtype.numpy)
    kernel = _kernel("gf_ceiling_flops", _multiply_add(name, lanes))

    once = _fastest(kernel, dtype, out, ROUNDS, units, threads, repeats=1)
    rounds = ROUNDS * max(1, LASTING // max(once, 1))
    return units * rounds * CHAINS * lanes * 2 / _fastest(kernel, dtype, out, rounds, units, threads)


@functools.cache
def _bandwidth(footprint: int, threads: int) -> float:
    """Bytes per nanosecond that `threads` threads read of `footprint` bytes again and again."""
    lanes = llvm.host().lanes(4)
    memory, address = aligned_bytes(footprint)
    memory[:] = 0
    data = array_at(memory, address, (footprint // 4,), np.dtype(np.float32))
    kernel = _kernel("gf_ceiling_bytes", _read(lanes))
    blocks = footprint // BLOCK

    once = _fastest(kernel, dtypes.float32, data, blocks - 1, blocks, threads, repeats=1)
    units = blocks * -(-LASTING // max(once, 1))
    return units * BLOCK / _fastest(kernel, dtypes.float32, data, blocks - 1, units, threads)


def _fastest(
    kernel: Kernel,
    dtype: DType,
    array: np.ndarray,
    word: int,
    units: int,
    threads: int,
    repeats: int = REPEATS,
) -> int:
    """The shortest time of a kernel on an array and a number, over so many units, in nanoseconds."""
    buffer = Buffer("state", dtype, array.shape, "array")
    # So much estimated work that all threads take part, in so many pieces that no more than `threads` do.
    grain = -(-units // threads)
    args = (BufferArg(0), SizeArg(word))
    command = Command(0, args, units, grain, False, kernel.name, work=10**9)
    executor = Executor(Program(kernel.name, (), (kernel,), (buffer,), (command,), (), (0,), ()))
    return min(executor.profile([], (array,)).times[0].nanoseconds for _ in range(repeats))


def _kernel(name: str, text: str) -> Kernel:
    target = llvm.host()
    digest = hashlib.sha256(f"{target.description}\n{text}".encode()).hexdigest()
    code, _ = cache.compile(digest, lambda: (llvm.emit([text], target), {"name": name}), counted=False)
    return Kernel(name, name, digest, code, text)


def _multiply_add(scalar: str, lanes: int) -> str:
    """IR: for each unit, so many rounds (word 1) of CHAINS independent x * x0 + x0; the array has x0."""
    vector = f"<{lanes} x {scalar}>"
    suffix = f"v{lanes}f{32 if scalar == 'float' else 64}"
    chains = range(CHAINS)
    phis = "\n".join(f"  %x{c} = phi {vector} [%start, %unit], [%y{c}, %round]" for c in chains)
    steps = "\n".join(
        f"  %y{c} = call {vector} @llvm.fma.{suffix}({vector} %x{c}, {vector} %start, {vector} %start)"
        for c in chains
    )
    sums = "\n".join(f"  %s{c} = fadd {vector} %y{c}, {'%s' + str(c - 1) if c else '%start'}" for c in chains)
    return f"""
declare {vector} @llvm.fma.{suffix}({vector}, {vector}, {vector})
define void @gf_ceiling_flops(ptr %args, i64 %lo, i64 %hi, ptr %scratch) {{
entry:
  %array = load ptr, ptr %args
  %rounds.at = getelementptr i64, ptr %args, i64 1
  %rounds = load i64, ptr %rounds.at
  br label %unit
unit:
  %i = phi i64 [%lo, %entry], [%next, %leave]
  %at = getelementptr {scalar}, ptr %array, i64 %i
  %one = load {scalar}, ptr %at
  %first = insertelement {vector} undef, {scalar} %one, i32 0
  %start = shufflevector {vector} %first, {vector} undef, <{lanes} x i32> zeroinitializer
  br label %round
round:
  %r = phi i64 [0, %unit], [%r.next, %round]
{phis}
{steps}
  %r.next = add i64 %r, 1
  %again = icmp slt i64 %r.next, %rounds
  br i1 %again, label %round, label %leave
leave:
{sums}
  %half = fcmp oeq {vector} %s{CHAINS - 1}, zeroinitializer
  %lane = extractelement <{lanes} x i1> %half, i32 0
  %stored = select i1 %lane, {scalar} 0.25, {scalar} 0.5
  store {scalar} %stored, ptr %at
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %hi
  br i1 %more, label %unit, label %exit
exit:
  ret void
}}
"""


def _read(lanes: int) -> str:
    """IR: for each unit, the bits of one block (the unit's number, by the mask in word 1) combined; what
    comes of it is stored only if it isn't the zero that it has to be.
    """
    vector = f"<{lanes} x i32>"
    count = BLOCK // (4 * lanes)
    ways = 8
    loads = "\n".join(
        f"""  %j{w} = add i64 %j, {w}
  %at{w} = getelementptr {vector}, ptr %block, i64 %j{w}
  %v{w} = load {vector}, ptr %at{w}, align 4
  %b{w} = or {vector} %a{w}, %v{w}"""
        for w in range(ways)
    )
    phis = "\n".join(f"  %a{w} = phi {vector} [zeroinitializer, %unit], [%b{w}, %part]" for w in range(ways))
    joined = "\n".join(
        f"  %c{w} = or {vector} %b{w}, {'%c' + str(w - 1) if w else '%b' + str(ways - 1)}"
        for w in range(ways)
    )
    return f"""
declare i32 @llvm.vector.reduce.or.v{lanes}i32({vector})
define void @gf_ceiling_bytes(ptr %args, i64 %lo, i64 %hi, ptr %scratch) {{
entry:
  %array = load ptr, ptr %args
  %mask.at = getelementptr i64, ptr %args, i64 1
  %mask = load i64, ptr %mask.at
  br label %unit
unit:
  %i = phi i64 [%lo, %entry], [%next, %done]
  %number = and i64 %i, %mask
  %shift = mul i64 %number, {BLOCK}
  %block = getelementptr i8, ptr %array, i64 %shift
  br label %part
part:
  %j = phi i64 [0, %unit], [%j.next, %part]
{phis}
{loads}
  %j.next = add i64 %j, {ways}
  %again = icmp slt i64 %j.next, {count}
  br i1 %again, label %part, label %leave
leave:
{joined}
  %all = call i32 @llvm.vector.reduce.or.v{lanes}i32({vector} %c{ways - 1})
  %odd = icmp ne i32 %all, 0
  br i1 %odd, label %keep, label %done
keep:
  store i32 %all, ptr %array
  br label %done
done:
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %hi
  br i1 %more, label %unit, label %exit
exit:
  ret void
}}
"""

"""The machine code that runs a command array, and the words it reads.

Everything here is an array of 64-bit words, whose layout is in ``words``. The code is a few functions of LLVM
IR, the same for every program:

``gf_run(plan, pointers, pool, profile)``
    One whole run. Writes the caller's pointers into the argument blocks, then executes the commands in order.
    With a pool, its workers help the caller; a null pool runs everything on the caller. With a profile array
    (two words a command), every command's nanoseconds and runs are added to its entry, and nothing runs
    beside it.
``gf_worker(worker)``
    What a worker thread executes: wait for a stage, take part in it, until one without a plan comes.
``gf_stop(pool)``
    Opens that last one.

The caller, thread 0, walks the array, and alone decides. It opens a **stage** at a command for several
threads and closes it before the next one that has to wait for what runs in it. A command for n threads is
theirs while the stage is open: each of them has a contiguous share of the range, takes it in chunks, and then
helps the others finish theirs. Nobody waits for a worker that hasn't come, because its CPU is busy with
something else, say: the caller takes what is left, closes the stage, and waits for chunks that others have
begun. Commands for one thread are the caller's.

A worker goes inside a stage by counting itself and looking again whether the stage is open; whoever closes
it does so first and then looks at the count. Threads that wait spin for a bounded time, then sleep on a
condition variable. Every store that somebody may sleep on is sequentially consistent and followed by a look
at the number of sleepers, which a sleeper raises before it looks at the word a last time: so one of the two
always sees the other.

Loops and branches are commands that choose the next one. Where there are commands for several threads in
them, no stage goes across a decision; other loops and branches are inside a stage, and workers go around
them. What a loop's body reads of a sequence, and writes of stacked results, moves on by adding to addresses
in the argument blocks; they are moved back at the end.

A kernel that finds its input impossible (an index out of range) stores a number into the run's status word.
From then on commands are walked without being executed; loops end with their round. The same happens where a
signal's handler raises during a loop.
"""

from __future__ import annotations

import ctypes
import hashlib
from dataclasses import dataclass
from typing import Any

import llvmlite
from llvmlite import binding

from graphflow.runtime import cache, loader
from graphflow.runtime.locks import ForkLock
from graphflow.runtime.native_control import control_source
from graphflow.runtime.native_signals import provide, signals_source
from graphflow.runtime.native_wait import wait_source
from graphflow.runtime.words import (
    ARGS,
    BARRIER,
    BYTES,
    CHUNK,
    COMMAND_COUNT,
    COMMAND_WORDS,
    COMMANDS,
    COUNTER_AREA,
    COUNTER_BYTES,
    COUNTERS,
    END,
    EXTENT,
    FIRST,
    KERNEL,
    KIND,
    LEAVE,
    NEXT,
    PATCH_COUNT,
    PATCH_WORDS,
    PATCHES,
    PLAN,
    POINTER,
    PROFILE,
    SCRATCH,
    SCRATCH_STRIDE,
    SHARE,
    SLOT,
    STATUS,
    THREADS,
    WORKER_INDEX,
    WORKER_POOL,
    WORKER_SEEN,
    read,
    row,
    word,
)


def source() -> str:
    """The LLVM IR of this module's functions for this machine's architecture and system."""
    return f"""
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)

{wait_source()}
{signals_source()}
; this thread's part of one command
define internal void @execute(ptr %command, i64 %thread, i1 %single) {{
entry:
  {read("kernel", "command", KERNEL, "ptr")}
  {read("args", "command", ARGS, "ptr")}
  {read("extent", "command", EXTENT)}
  {read("planned", "command", THREADS)}
  %threads = select i1 %single, i64 1, i64 %planned
  %empty = icmp sle i64 %extent, 0
  %idle = icmp sge i64 %thread, %threads
  %nothing = or i1 %empty, %idle
  br i1 %nothing, label %done, label %work
work:
  {read("scratch.first", "command", SCRATCH, "ptr")}
  {read("stride", "command", SCRATCH_STRIDE)}
  %shift = mul i64 %thread, %stride
  %back = sub i64 0, %shift
  %scratch = getelementptr i8, ptr %scratch.first, i64 %back
  %alone = icmp eq i64 %threads, 1
  br i1 %alone, label %whole, label %shares
whole:
  call void %kernel(ptr %args, i64 0, i64 %extent, ptr %scratch)
  br label %done
shares:
  {read("share", "command", SHARE)}
  {read("chunk", "command", CHUNK)}
  {read("counters", "command", COUNTERS, "ptr")}
  br label %visit
visit:
  %round = phi i64 [0, %shares], [%next, %visited]
  %offset = add i64 %thread, %round
  %owner = urem i64 %offset, %threads
  {word("counter", "counters", "%owner")}
  %first = mul i64 %owner, %share
  %bound = add i64 %first, %share
  %end = call i64 @llvm.smin.i64(i64 %bound, i64 %extent)
  br label %take
take:
  ; most of what is left at once, because a product packs an operand again for every piece: the rest is there
  ; for whoever is done first; and all of it where its owner hasn't come yet
  %taken = load atomic i64, ptr %counter monotonic, align 8
  %lo = add i64 %first, %taken
  %left = sub i64 %end, %lo
  %any = icmp sgt i64 %left, 0
  br i1 %any, label %claim, label %visited
claim:
  %quarter = sdiv i64 %left, 4
  %most = sub i64 %left, %quarter
  %chunks = sdiv i64 %most, %chunk
  %even = mul i64 %chunks, %chunk
  %some = call i64 @llvm.smax.i64(i64 %even, i64 %chunk)
  %untouched = icmp eq i64 %taken, 0
  %foreign = icmp ne i64 %round, 0
  %alone.here = and i1 %untouched, %foreign
  %piece = select i1 %alone.here, i64 %left, i64 %some
  %done.then = add i64 %taken, %piece
  %swap = cmpxchg ptr %counter, i64 %taken, i64 %done.then monotonic monotonic
  %mine = extractvalue {{ i64, i1 }} %swap, 1
  br i1 %mine, label %run, label %take
run:
  %far = add i64 %lo, %piece
  %hi = call i64 @llvm.smin.i64(i64 %far, i64 %end)
  call void %kernel(ptr %args, i64 %lo, i64 %hi, ptr %scratch)
  br label %take
visited:
  %next = add i64 %round, 1
  %more = icmp slt i64 %next, %threads
  br i1 %more, label %visit, label %done
done:
  ret void
}}

{control_source()}
; the whole command array, as the thread that was called; a null pool stands for a single thread
define internal void @walk(ptr %plan, ptr %pool, ptr %profile) noinline {{
entry:
  {read("commands", "plan", COMMANDS, "ptr")}
  {read("count", "plan", COMMAND_COUNT)}
  %single = icmp eq ptr %pool, null
  %profiling = icmp ne ptr %profile, null
  {read("status", "plan", STATUS, "ptr")}
  %unchecked = icmp eq ptr %status, null
  %listened = alloca i64
  store i64 0, ptr %listened
  br label %loop
loop:
  %index = phi i64 [0, %entry], [%next, %finished], [%chosen, %decided]
  %open = phi i1 [false, %entry], [%open.after, %finished], [%open.still, %decided]
  %more = icmp slt i64 %index, %count
  br i1 %more, label %step, label %end
step:
  {row("command", "commands", "index", COMMAND_WORDS)}
  {read("flag", "command", BARRIER)}
  %asked = icmp ne i64 %flag, 0
  %meet = and i1 %open, %asked
  br i1 %meet, label %wait, label %ready
wait:
  call void @close_stage(ptr %pool)
  br label %ready
ready:
  %open.now = phi i1 [%open, %step], [false, %wait]
  {read("kernel", "command", KERNEL, "ptr")}
  {read("planned", "command", THREADS)}
  %several = icmp sgt i64 %planned, 1
  %decides = icmp eq ptr %kernel, null
  br i1 %decides, label %decision, label %kernels
decision:
  {read("decision.words", "command", COUNTERS, "ptr")}
  %stop = and i1 %open.now, %several
  br i1 %stop, label %stop_all, label %lead
stop_all:
  call void @close_stage(ptr %pool)
  br label %lead
lead:
  %open.still = phi i1 [%open.now, %decision], [false, %stop_all]
  br i1 %unchecked, label %decided, label %lead_look
lead_look:
  {read("decision.kind", "decision.words", KIND)}
  %round = icmp eq i64 %decision.kind, {END}
  br i1 %round, label %lead_listen, label %lead_told
lead_listen:
  call void @listen(ptr %status, ptr %listened)
  br label %lead_told
lead_told:
  %word = load atomic i64, ptr %status monotonic, align 8
  %bad = icmp ne i64 %word, 0
  br label %decided
decided:
  %ends = phi i1 [false, %lead], [%bad, %lead_told]
  call void @decide(ptr %command, ptr %decision.words, i64 %index, i1 %ends)
  {read("chosen", "decision.words", NEXT)}
  br label %loop
kernels:
  br i1 %unchecked, label %go, label %look
look:
  %failed = load atomic i64, ptr %status monotonic, align 8
  %fine = icmp eq i64 %failed, 0
  br i1 %fine, label %go, label %finished
go:
  br i1 %profiling, label %timed, label %plain
plain:
  %alone = or i1 %single, %open.now
  %opens = xor i1 %alone, true
  %begins = and i1 %opens, %several
  br i1 %begins, label %begin, label %run
begin:
  call void @open_stage(ptr %pool, i64 %index)
  br label %run
run:
  %open.run = or i1 %open.now, %begins
  call void @execute(ptr %command, i64 0, i1 %single)
  br label %finished
timed:
  %parts = icmp ne i1 %single, %several
  %shares = and i1 %parts, %several
  %started = call i64 @now()
  br i1 %shares, label %timed_open, label %timed_run
timed_open:
  call void @open_stage(ptr %pool, i64 %index)
  br label %timed_run
timed_run:
  call void @execute(ptr %command, i64 0, i1 %single)
  br i1 %shares, label %timed_close, label %timed_end
timed_close:
  call void @close_stage(ptr %pool)
  br label %timed_end
timed_end:
  %ended = call i64 @now()
  %taken = sub i64 %ended, %started
  %slot = shl i64 %index, 1
  {word("entry.at", "profile", "%slot")}
  %so_far = load i64, ptr %entry.at
  %sum = add i64 %so_far, %taken
  store i64 %sum, ptr %entry.at
  {word("runs.at", "entry.at", "1")}
  %runs = load i64, ptr %runs.at
  %runs.on = add i64 %runs, 1
  store i64 %runs.on, ptr %runs.at
  br label %finished
finished:
  %open.after = phi i1 [%open.now, %look], [%open.run, %run], [false, %timed_end]
  %next = add i64 %index, 1
  br label %loop
end:
  br i1 %open, label %last, label %done
last:
  call void @close_stage(ptr %pool)
  br label %done
done:
  ret void
}}

; a stage, as a worker: commands up to where all have to meet
define internal void @help(ptr %plan, i64 %first, i64 %thread, ptr %profile) noinline {{
entry:
  {read("commands", "plan", COMMANDS, "ptr")}
  {read("count", "plan", COMMAND_COUNT)}
  %profiling = icmp ne ptr %profile, null
  {read("status", "plan", STATUS, "ptr")}
  %unchecked = icmp eq ptr %status, null
  br label %loop
loop:
  %index = phi i64 [%first, %entry], [%next, %finished], [%leave, %around]
  %more = icmp slt i64 %index, %count
  br i1 %more, label %step, label %done
step:
  {row("command", "commands", "index", COMMAND_WORDS)}
  {read("flag", "command", BARRIER)}
  %asked = icmp ne i64 %flag, 0
  %meet = or i1 %asked, %profiling
  %further = icmp ne i64 %index, %first
  %over = and i1 %meet, %further
  br i1 %over, label %done, label %ready
ready:
  {read("kernel", "command", KERNEL, "ptr")}
  %decides = icmp eq ptr %kernel, null
  br i1 %decides, label %decision, label %kernels
decision:
  {read("planned", "command", THREADS)}
  %together = icmp sgt i64 %planned, 1
  br i1 %together, label %done, label %around
around:
  {read("decision.words", "command", COUNTERS, "ptr")}
  {read("leave", "decision.words", LEAVE)}
  br label %loop
kernels:
  br i1 %unchecked, label %go, label %look
look:
  %failed = load atomic i64, ptr %status monotonic, align 8
  %fine = icmp eq i64 %failed, 0
  br i1 %fine, label %go, label %finished
go:
  call void @execute(ptr %command, i64 %thread, i1 false)
  br label %finished
finished:
  %next = add i64 %index, 1
  br label %loop
done:
  ret void
}}

define void @gf_run(ptr %plan, ptr %pointers, ptr %pool, ptr %profile) {{
entry:
  {read("patches", "plan", PATCHES, "ptr")}
  {read("patch_count", "plan", PATCH_COUNT)}
  br label %patching
patching:
  %number = phi i64 [0, %entry], [%following, %patch]
  %more = icmp slt i64 %number, %patch_count
  br i1 %more, label %patch, label %patched
patch:
  %words = mul i64 %number, {PATCH_WORDS}
  {word("item", "patches", "%words")}
  {read("slot", "item", SLOT, "ptr")}
  {read("which", "item", POINTER)}
  {read("bytes", "item", BYTES)}
  {word("pointer.at", "pointers", "%which")}
  %pointer = load i64, ptr %pointer.at
  %address = add i64 %pointer, %bytes
  store i64 %address, ptr %slot
  %following = add i64 %number, 1
  br label %patching
patched:
  %single = icmp eq ptr %pool, null
  br i1 %single, label %start, label %share
share:
  {read("area", "plan", COUNTER_AREA, "ptr")}
  {read("size", "plan", COUNTER_BYTES)}
  call void @llvm.memset.p0.i64(ptr %area, i8 0, i64 %size, i1 false)
  {word("plan.at", "pool", PLAN)}
  store ptr %plan, ptr %plan.at
  {word("profile.at", "pool", PROFILE)}
  store ptr %profile, ptr %profile.at
  br label %start
start:
  call void @walk(ptr %plan, ptr %pool, ptr %profile)
  ret void
}}

define void @gf_stop(ptr %pool) {{
  {word("plan.at", "pool", PLAN)}
  store ptr null, ptr %plan.at
  call void @open_stage(ptr %pool, i64 0)
  ret void
}}

define ptr @gf_worker(ptr %worker) {{
entry:
  {read("pool", "worker", WORKER_POOL, "ptr")}
  {read("thread", "worker", WORKER_INDEX)}
  {read("first", "worker", WORKER_SEEN)}
  br label %loop
loop:
  %seen = phi i64 [%first, %entry], [%stage, %go]
  %stage = call i64 @enter(ptr %pool, i64 %seen)
  {read("plan", "pool", PLAN, "ptr")}
  %last = icmp eq ptr %plan, null
  br i1 %last, label %end, label %go
go:
  {read("profile", "pool", PROFILE, "ptr")}
  {read("index", "pool", FIRST)}
  call void @help(ptr %plan, i64 %index, i64 %thread, ptr %profile)
  call void @leave(ptr %pool)
  br label %loop
end:
  ret ptr null
}}
"""


@dataclass(frozen=True)
class Native:
    """The loaded functions. ``run`` takes four addresses and releases the GIL; ``worker`` is an address."""

    run: Any
    stop: Any
    worker: int


_native: Native | None = None
_lock = ForkLock()


def native() -> Native:
    """This process's loaded functions, made on first use."""
    global _native
    if _native is None:
        with _lock:
            if _native is None:
                _native = _load()
    return _native


def _load() -> Native:
    text = source()
    provide()
    identity = "\n".join(("native", llvmlite.__version__, binding.get_process_triple(), text))
    digest = hashlib.sha256(identity.encode()).hexdigest()
    object_code, _ = cache.compile(digest, lambda: (emit(text), {"kind": "native"}), counted=False)
    symbols = ("gf_run", "gf_stop", "gf_worker")
    image = loader.load_forever(object_code, symbols)
    word = ctypes.c_void_p
    return Native(
        run=ctypes.CFUNCTYPE(None, word, word, word, word)(image["gf_run"]),
        stop=ctypes.CFUNCTYPE(None, word)(image["gf_stop"]),
        worker=image["gf_worker"],
    )


def emit(text: str, quickly: bool = False) -> bytes:
    """The object code of LLVM IR, for any CPU of this architecture; without passes over it if `quickly`."""
    machine = loader.host_target(1 if quickly else 2)
    module = binding.parse_assembly(text)
    module.triple = machine.triple
    module.verify()
    if not quickly:
        options = binding.create_pipeline_tuning_options(speed_level=2)
        builder = binding.create_pass_builder(machine, options)
        builder.getModulePassManager().run(module, builder)
    return bytes(machine.emit_object(module))

"""The machine code that runs a command array, and the words it reads.

Everything here is an array of 64-bit words, whose layout is in ``words``. The code is a few functions of LLVM
IR, the same for every program:

``gf_run(plan, pointers, pool, profile)``
    One whole run. Writes the caller's pointers into the argument blocks, then executes the commands in order.
    With a pool, its workers execute the same array beside the caller; a null pool runs everything on the
    caller. With a profile array (two words a command), every command's nanoseconds and runs are added to its
    entry, all threads waiting for each other around it.
``gf_worker(worker)``
    What a worker thread executes: wait for a job, take part in it, until a job without a plan comes.
``gf_stop(pool)``
    Publishes that last job.

All threads walk the same array. A command on one thread belongs to thread 0. For a command on n threads, each
of them has a contiguous share of the range, takes it in chunks, and then helps the others finish theirs.
Threads meet at barriers: they spin for a bounded time, then sleep on the pool's condition variable. Every
store that somebody may sleep on is sequentially consistent and followed by a look at the number of sleepers,
which a sleeper raises before it looks at the word a last time: so one of the two always sees the other.

Loops and branches are commands that choose the next one. Thread 0 decides, between two meetings, and all
follow. A loop or branch whose commands all run on one thread is walked by thread 0 alone, without a meeting.
What a loop's body reads of a sequence, and writes of stacked results, moves on by adding to addresses in the
argument blocks; they are moved back at the end.

A kernel that finds its input impossible (an index out of range) stores a number into the run's status word.
From then on commands are walked without being executed, barriers included, so that threads which see the word
at different moments still meet; loops end with their round.
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
from graphflow.runtime.native_wait import wait_source
from graphflow.runtime.words import (
    ACTIVE,
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
    EXTENT,
    JOB,
    KERNEL,
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
    WORKER_JOB_SEEN,
    WORKER_POOL,
    read,
    word,
)


def source() -> str:
    """The LLVM IR of this module's functions for this machine's architecture and system."""
    return f"""
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare i64 @llvm.smin.i64(i64, i64)

{wait_source()}

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
  %taken = atomicrmw add ptr %counter, i64 %chunk monotonic
  %lo = add i64 %first, %taken
  %left = icmp slt i64 %lo, %end
  br i1 %left, label %run, label %visited
run:
  %far = add i64 %lo, %chunk
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
; the whole command array, as one of the threads that do so together
define internal void @walk(ptr %plan, ptr %pool, i64 %thread, ptr %profile) noinline {{
entry:
  {read("commands", "plan", COMMANDS, "ptr")}
  {read("count", "plan", COMMAND_COUNT)}
  {read("active", "plan", ACTIVE)}
  %single = icmp eq ptr %pool, null
  %profiling = icmp ne ptr %profile, null
  %leader = icmp eq i64 %thread, 0
  %timing = and i1 %profiling, %leader
  {read("status", "plan", STATUS, "ptr")}
  %unchecked = icmp eq ptr %status, null
  br label %loop
loop:
  %index = phi i64 [0, %entry], [%next, %finished], [%leave, %decision], [%chosen, %follow_decision]
  %more = icmp slt i64 %index, %count
  br i1 %more, label %step, label %end
step:
  %words = mul i64 %index, {COMMAND_WORDS}
  {word("command", "commands", "%words")}
  {read("flag", "command", BARRIER)}
  %asked = icmp ne i64 %flag, 0
  %meet = or i1 %asked, %profiling
  br i1 %meet, label %wait, label %ready
wait:
  call void @barrier(ptr %pool, i64 %active)
  br label %ready
ready:
  {read("kernel", "command", KERNEL, "ptr")}
  %decides = icmp eq ptr %kernel, null
  br i1 %decides, label %decision, label %kernels
decision:
  {read("decision.words", "command", COUNTERS, "ptr")}
  {read("leave", "decision.words", LEAVE)}
  {read("planned", "command", THREADS)}
  %shared = icmp sgt i64 %planned, 1
  %together = or i1 %shared, %profiling
  %takes_part = or i1 %together, %leader
  br i1 %takes_part, label %take_part, label %loop
take_part:
  br i1 %leader, label %lead, label %decided
lead:
  br i1 %unchecked, label %lead_on, label %lead_look
lead_look:
  %word = load atomic i64, ptr %status monotonic, align 8
  %bad = icmp ne i64 %word, 0
  br label %lead_on
lead_on:
  %ends = phi i1 [false, %lead], [%bad, %lead_look]
  call void @decide(ptr %command, ptr %decision.words, i64 %index, i1 %ends)
  br label %decided
decided:
  br i1 %together, label %meet_decided, label %follow_decision
meet_decided:
  call void @barrier(ptr %pool, i64 %active)
  br label %follow_decision
follow_decision:
  {read("chosen", "decision.words", NEXT)}
  br label %loop
kernels:
  br i1 %unchecked, label %go, label %look
look:
  %failed = load atomic i64, ptr %status monotonic, align 8
  %fine = icmp eq i64 %failed, 0
  br i1 %fine, label %go, label %skip
skip:
  br i1 %profiling, label %follow, label %finished
go:
  br i1 %profiling, label %line_up, label %plain
line_up:
  ; everybody starts after the time was taken, also where the leader is slow to come out of the barrier
  %begin = call i64 @now()
  call void @barrier(ptr %pool, i64 %active)
  br i1 %timing, label %timed, label %plain
plain:
  call void @execute(ptr %command, i64 %thread, i1 %single)
  br i1 %profiling, label %follow, label %finished
follow:
  call void @barrier(ptr %pool, i64 %active)
  br label %finished
timed:
  call void @execute(ptr %command, i64 %thread, i1 %single)
  %alone = call i64 @now()
  call void @barrier(ptr %pool, i64 %active)
  %joined = call i64 @now()
  {read("workers", "command", THREADS)}
  %divided = icmp sgt i64 %workers, 1
  %stop = select i1 %divided, i64 %joined, i64 %alone
  %taken = sub i64 %stop, %begin
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
  %next = add i64 %index, 1
  br label %loop
end:
  call void @barrier(ptr %pool, i64 %active)
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
  {read("active", "plan", ACTIVE)}
  call void @llvm.memset.p0.i64(ptr %area, i8 0, i64 %size, i1 false)
  {word("plan.at", "pool", PLAN)}
  store ptr %plan, ptr %plan.at
  {word("profile.at", "pool", PROFILE)}
  store ptr %profile, ptr %profile.at
  call void @post(ptr %pool, i64 %active)
  br label %start
start:
  call void @walk(ptr %plan, ptr %pool, i64 0, ptr %profile)
  ret void
}}

define internal void @post(ptr %pool, i64 %active) {{
  {word("job", "pool", JOB)}
  %old = load atomic i64, ptr %job monotonic, align 8
  %number = lshr i64 %old, 16
  %raised = add i64 %number, 1
  %shifted = shl i64 %raised, 16
  %new = or i64 %shifted, %active
  call void @publish(ptr %pool, ptr %job, i64 %new)
  ret void
}}

define void @gf_stop(ptr %pool) {{
  {word("plan.at", "pool", PLAN)}
  store ptr null, ptr %plan.at
  call void @post(ptr %pool, i64 65535)
  ret void
}}

define ptr @gf_worker(ptr %worker) {{
entry:
  {read("pool", "worker", WORKER_POOL, "ptr")}
  {read("thread", "worker", WORKER_INDEX)}
  {read("first", "worker", WORKER_JOB_SEEN)}
  {word("job", "pool", JOB)}
  br label %loop
loop:
  %seen = phi i64 [%first, %entry], [%word, %loop], [%word, %go]
  call void @await(ptr %pool, ptr %job, i64 %seen)
  %word = load atomic i64, ptr %job acquire, align 8
  %active = and i64 %word, 65535
  %mine = icmp slt i64 %thread, %active
  br i1 %mine, label %join, label %loop
join:
  ; a job waits for all that take part, so these can't change before this thread has walked it
  {read("plan", "pool", PLAN, "ptr")}
  %last = icmp eq ptr %plan, null
  br i1 %last, label %leave, label %go
go:
  {read("profile", "pool", PROFILE, "ptr")}
  call void @walk(ptr %plan, ptr %pool, i64 %thread, ptr %profile)
  br label %loop
leave:
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

"""The machine code of waiting: the clock, the stages in which workers take part, and how to sleep."""

from __future__ import annotations

import platform
import sys

from graphflow.runtime.words import (
    FIRST,
    INSIDE,
    INSIDE_CONDITION,
    INSIDE_SLEEPERS,
    MUTEX,
    SPIN,
    STAGE,
    STAGE_CONDITION,
    STAGE_SLEEPERS,
    read,
    word,
)

_PAUSE = {
    "x86_64": ("declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"),
    "amd64": ("declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"),
    "aarch64": ("declare void @llvm.aarch64.hint(i32)", "call void @llvm.aarch64.hint(i32 1)"),
    "arm64": ("declare void @llvm.aarch64.hint(i32)", "call void @llvm.aarch64.hint(i32 1)"),
}


def wait_source() -> str:
    """The LLVM IR of ``now``, ``open_stage``, ``close_stage``, ``enter``, ``leave``, with declarations."""
    pause_declaration, pause = _PAUSE.get(platform.machine().lower(), ("", ""))
    clock = 6 if sys.platform == "darwin" else 1  # CLOCK_MONOTONIC
    return f"""{pause_declaration}
declare i32 @clock_gettime(i32, ptr)
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_broadcast(ptr)

define internal i64 @now() noinline {{
  %spec = alloca [2 x i64]
  %status = call i32 @clock_gettime(i32 {clock}, ptr %spec)
  {read("seconds", "spec", 0)}
  {read("rest", "spec", 1)}
  %whole = mul i64 %seconds, 1000000000
  %time = add i64 %whole, %rest
  ret i64 %time
}}

{_await("await", "ne", STAGE_SLEEPERS, STAGE_CONDITION, pause)}
{_await("await_none", "eq", INSIDE_SLEEPERS, INSIDE_CONDITION, pause)}
{_wake("wake_workers", STAGE_SLEEPERS, STAGE_CONDITION)}
{_wake("wake_leader", INSIDE_SLEEPERS, INSIDE_CONDITION)}
; lets workers take part from this command on
define internal void @open_stage(ptr %pool, i64 %first) noinline {{
  {word("first.at", "pool", FIRST)}
  store i64 %first, ptr %first.at
  {word("stage", "pool", STAGE)}
  %closed = load atomic i64, ptr %stage monotonic, align 8
  %open = add i64 %closed, 1
  store atomic i64 %open, ptr %stage seq_cst, align 8
  call void @wake_workers(ptr %pool)
  ret void
}}

; lets no more of them in, and returns when all are out
define internal void @close_stage(ptr %pool) noinline {{
  {word("stage", "pool", STAGE)}
  %open = load atomic i64, ptr %stage monotonic, align 8
  %closed = add i64 %open, 1
  store atomic i64 %closed, ptr %stage seq_cst, align 8
  {word("inside", "pool", INSIDE)}
  call void @await_none(ptr %pool, ptr %inside, i64 0)
  ret void
}}

; waits until a stage is open that isn't the one of `seen`, and goes inside: the value of STAGE
define internal i64 @enter(ptr %pool, i64 %seen) {{
entry:
  {word("stage", "pool", STAGE)}
  {word("inside", "pool", INSIDE)}
  br label %wait
wait:
  %last = phi i64 [%seen, %entry], [%now, %look], [%now, %late]
  call void @await(ptr %pool, ptr %stage, i64 %last)
  br label %look
look:
  %now = load atomic i64, ptr %stage acquire, align 8
  %low = and i64 %now, 1
  %open = icmp eq i64 %low, 1
  br i1 %open, label %knock, label %wait
knock:
  ; whoever closes the stage looks at INSIDE afterwards: one of both sees the other
  %others = atomicrmw add ptr %inside, i64 1 seq_cst
  %again = load atomic i64, ptr %stage seq_cst, align 8
  %same = icmp eq i64 %again, %now
  br i1 %same, label %in, label %late
late:
  call void @leave(ptr %pool)
  br label %wait
in:
  ret i64 %now
}}

define internal void @leave(ptr %pool) {{
entry:
  {word("inside", "pool", INSIDE)}
  %before = atomicrmw sub ptr %inside, i64 1 seq_cst
  %last = icmp eq i64 %before, 1
  br i1 %last, label %tell, label %done
tell:
  call void @wake_leader(ptr %pool)
  br label %done
done:
  ret void
}}
"""


def _await(name: str, condition: str, sleepers: int, queue: int, pause: str) -> str:
    """The function ``name(pool, word, value)``: returns when `condition` holds for word and value.

    It spins every time before it sleeps: a worker that slept at once would come too late for the next stage,
    too, and find the caller alone for good.
    """
    return f"""
define internal void @{name}(ptr %pool, ptr %word, i64 %old) noinline {{
entry:
  %first = load atomic i64, ptr %word seq_cst, align 8
  %there = icmp {condition} i64 %first, %old
  br i1 %there, label %done, label %begin
begin:
  {read("spin", "pool", SPIN)}
  %began = call i64 @now()
  %limit = add i64 %began, %spin
  br label %look
look:
  %round = phi i64 [0, %begin], [%next, %rest], [%next, %clock]
  %value = load atomic i64, ptr %word acquire, align 8
  %changed = icmp {condition} i64 %value, %old
  br i1 %changed, label %done, label %rest
rest:
  {pause}
  %next = add i64 %round, 1
  %low = and i64 %next, 31
  %due = icmp eq i64 %low, 0
  br i1 %due, label %clock, label %look
clock:
  %time = call i64 @now()
  %late = icmp sgt i64 %time, %limit
  br i1 %late, label %sleep, label %look
sleep:
  {word("mutex", "pool", MUTEX)}
  {word("condition", "pool", queue)}
  {word("sleepers", "pool", sleepers)}
  %locked = call i32 @pthread_mutex_lock(ptr %mutex)
  %one.more = atomicrmw add ptr %sleepers, i64 1 seq_cst
  br label %check
check:
  %again = load atomic i64, ptr %word seq_cst, align 8
  %woken = icmp {condition} i64 %again, %old
  br i1 %woken, label %awake, label %doze
doze:
  %waited = call i32 @pthread_cond_wait(ptr %condition, ptr %mutex)
  br label %check
awake:
  %one.less = atomicrmw sub ptr %sleepers, i64 1 seq_cst
  %unlocked = call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %done
done:
  ret void
}}"""


def _wake(name: str, sleepers: int, queue: int) -> str:
    """The function ``name(pool)``, called after a word was changed that others may wait for."""
    return f"""
define internal void @{name}(ptr %pool) {{
entry:
  {word("sleepers.at", "pool", sleepers)}
  %sleepers = load atomic i64, ptr %sleepers.at seq_cst, align 8
  %any = icmp ne i64 %sleepers, 0
  br i1 %any, label %wake, label %done
wake:
  {word("mutex", "pool", MUTEX)}
  {word("condition", "pool", queue)}
  %locked = call i32 @pthread_mutex_lock(ptr %mutex)
  %sent = call i32 @pthread_cond_broadcast(ptr %condition)
  %unlocked = call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %done
done:
  ret void
}}"""

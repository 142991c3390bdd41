"""The machine code of waiting: the clock, words that threads await and publish, and barriers."""

from __future__ import annotations

import platform
import sys

from graphflow.runtime.words import ARRIVED, CONDITION, GENERATION, MUTEX, SLEEPERS, SPIN, read, word

_PAUSE = {
    "x86_64": ("declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"),
    "amd64": ("declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"),
    "aarch64": ("declare void @llvm.aarch64.hint(i32)", "call void @llvm.aarch64.hint(i32 1)"),
    "arm64": ("declare void @llvm.aarch64.hint(i32)", "call void @llvm.aarch64.hint(i32 1)"),
}


def wait_source() -> str:
    """The LLVM IR of ``now``, ``await``, ``publish`` and ``barrier``, with what they declare."""
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

; returns when the word no longer holds `old`
define internal void @await(ptr %pool, ptr %word, i64 %old) noinline {{
entry:
  {read("spin", "pool", SPIN)}
  %start = call i64 @now()
  %limit = add i64 %start, %spin
  br label %look
look:
  %round = phi i64 [0, %entry], [%next, %rest], [%next, %clock]
  %value = load atomic i64, ptr %word acquire, align 8
  %changed = icmp ne i64 %value, %old
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
  {word("condition", "pool", CONDITION)}
  {word("sleepers", "pool", SLEEPERS)}
  %locked = call i32 @pthread_mutex_lock(ptr %mutex)
  %more = atomicrmw add ptr %sleepers, i64 1 seq_cst
  br label %check
check:
  %again = load atomic i64, ptr %word seq_cst, align 8
  %woken = icmp ne i64 %again, %old
  br i1 %woken, label %awake, label %doze
doze:
  %waited = call i32 @pthread_cond_wait(ptr %condition, ptr %mutex)
  br label %check
awake:
  %less = atomicrmw sub ptr %sleepers, i64 1 seq_cst
  %unlocked = call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %done
done:
  ret void
}}

; changes a word that others may await
define internal void @publish(ptr %pool, ptr %word, i64 %value) {{
entry:
  store atomic i64 %value, ptr %word seq_cst, align 8
  {word("sleepers.at", "pool", SLEEPERS)}
  %sleepers = load atomic i64, ptr %sleepers.at seq_cst, align 8
  %any = icmp ne i64 %sleepers, 0
  br i1 %any, label %wake, label %done
wake:
  {word("mutex", "pool", MUTEX)}
  {word("condition", "pool", CONDITION)}
  %locked = call i32 @pthread_mutex_lock(ptr %mutex)
  %sent = call i32 @pthread_cond_broadcast(ptr %condition)
  %unlocked = call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %done
done:
  ret void
}}

; a null pool stands for a single thread
define internal void @barrier(ptr %pool, i64 %count) noinline {{
entry:
  %single = icmp eq ptr %pool, null
  br i1 %single, label %done, label %arrive
arrive:
  {word("arrived", "pool", ARRIVED)}
  {word("generation", "pool", GENERATION)}
  %current = load atomic i64, ptr %generation acquire, align 8
  %before = atomicrmw add ptr %arrived, i64 1 acq_rel
  %arrivals = add i64 %before, 1
  %last = icmp eq i64 %arrivals, %count
  br i1 %last, label %open, label %wait
open:
  store atomic i64 0, ptr %arrived monotonic, align 8
  %next = add i64 %current, 1
  call void @publish(ptr %pool, ptr %generation, i64 %next)
  br label %done
wait:
  call void @await(ptr %pool, ptr %generation, i64 %current)
  br label %done
done:
  ret void
}}
"""

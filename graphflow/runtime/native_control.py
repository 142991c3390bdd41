"""The machine code of loops and branches: which command of a command array is next."""

from __future__ import annotations

from graphflow.runtime.words import (
    ADVANCE_COUNT,
    ADVANCES,
    AREA,
    AREA_BYTES,
    ARGS,
    BRANCH,
    DONE,
    END,
    KIND,
    LENGTH,
    LOOP,
    NEXT,
    REGION,
    TARGET,
    read,
    word,
)


def control_source() -> str:
    """The LLVM IR of ``decide(command, decision, index, failed)``, which thread 0 executes."""
    return f"""
; adds so many times the bytes to each of a region's words
define internal void @advance(ptr %region, i64 %times) {{
entry:
  {read("pairs", "region", ADVANCES, "ptr")}
  {read("count", "region", ADVANCE_COUNT)}
  br label %loop
loop:
  %number = phi i64 [0, %entry], [%next, %move]
  %more = icmp slt i64 %number, %count
  br i1 %more, label %move, label %done
move:
  %first = shl i64 %number, 1
  {word("pair", "pairs", "%first")}
  {read("slot", "pair", 0, "ptr")}
  {read("bytes", "pair", 1)}
  %far = mul i64 %bytes, %times
  %old = load i64, ptr %slot
  %new = add i64 %old, %far
  store i64 %new, ptr %slot
  %next = add i64 %number, 1
  br label %loop
done:
  ret void
}}

; which command follows a decision, for all threads
define internal void @decide(ptr %command, ptr %decision, i64 %index, i1 %failed) noinline {{
entry:
  {read("kind", "decision", KIND)}
  {read("target", "decision", TARGET)}
  {read("region", "decision", REGION, "ptr")}
  %following = add i64 %index, 1
  {word("done.at", "region", DONE)}
  {read("length", "region", LENGTH)}
  switch i64 %kind, label %chosen [
    i64 {LOOP}, label %begin i64 {END}, label %round i64 {BRANCH}, label %look
  ]
begin:
  store i64 0, ptr %done.at
  %any = icmp sgt i64 %length, 0
  %well = xor i1 %failed, true
  %enter = and i1 %any, %well
  %first = select i1 %enter, i64 %following, i64 %target
  br label %chosen
round:
  %before = load i64, ptr %done.at
  %rounds = add i64 %before, 1
  %left = icmp slt i64 %rounds, %length
  %fine = xor i1 %failed, true
  %again = and i1 %left, %fine
  br i1 %again, label %on, label %back
on:
  store i64 %rounds, ptr %done.at
  call void @advance(ptr %region, i64 1)
  {read("area", "region", AREA, "ptr")}
  {read("size", "region", AREA_BYTES)}
  call void @llvm.memset.p0.i64(ptr %area, i8 0, i64 %size, i1 false)
  br label %chosen
back:
  %home = sub i64 0, %before
  call void @advance(ptr %region, i64 %home)
  br label %chosen
look:
  {read("args", "command", ARGS, "ptr")}
  {read("flag", "args", 0, "ptr")}
  %value = load i8, ptr %flag
  %true = icmp ne i8 %value, 0
  %side = select i1 %true, i64 %following, i64 %target
  br label %chosen
chosen:
  %next = phi i64 [%target, %entry], [%first, %begin], [%target, %on], [%following, %back], [%side, %look]
  {word("next.at", "decision", NEXT)}
  store i64 %next, ptr %next.at
  ret void
}}
"""

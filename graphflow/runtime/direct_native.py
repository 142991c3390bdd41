"""The machine code of a direct call: what stands between a compiled function's arguments and ``gf_run``.

A direct call is a builtin function of Python whose ``self`` is a tuple: a record's words (see
``direct_words``), and behind them every object that the words name. ``gf_call`` looks whether the arguments
and everything that is watched are as they were when the record was made, runs the plan, and makes the result.
Where anything differs it gives NotImplemented, nothing having happened.

It reads objects of CPython and NumPy where they are. What it has to know of them is in ``direct_words``, and
``direct`` compares that with objects before the first use. A call writes to its own stack and to the memory
behind its locks only, so any number of threads may be in one record.
"""

from __future__ import annotations

from graphflow.runtime import direct_words as dw
from graphflow.runtime.direct_results import results_source
from graphflow.runtime.direct_words import (
    ARRAY_DTYPE,
    ARRAY_RANK,
    ARRAY_SIZES,
    CLASS_OF,
    DATA,
    FLAGS,
    FLOAT_VALUE,
    IN_PLACE,
    TUPLE_ITEMS,
    TUPLE_SIZE,
    Offsets,
)
from graphflow.runtime.words import field, read, row, word


def source(at: Offsets) -> str:
    """The LLVM IR of ``gf_call``."""
    return f"""
declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)
declare ptr @PyDict_GetItemWithError(ptr, ptr)
declare ptr @PyErr_Occurred()
declare void @PyErr_Fetch(ptr, ptr, ptr)
declare void @PyErr_Restore(ptr, ptr, ptr)
declare ptr @PyObject_GetAttr(ptr, ptr)
declare ptr @PyObject_CallNoArgs(ptr)
declare ptr @PyObject_CallOneArg(ptr, ptr)
declare ptr @PyTuple_GetItem(ptr, i64)
declare ptr @PyList_New(i64)
declare i32 @PyList_SetItem(ptr, i64, ptr)
declare ptr @PyNumber_Add(ptr, ptr)
declare ptr @PyIter_Next(ptr)
declare ptr @PyLong_FromVoidPtr(ptr)
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare ptr @gf_new_array(ptr, ptr, i32, ptr, ptr, ptr, i32, ptr)
declare void @gf_run_plan(ptr, ptr, ptr, ptr)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)

{_arguments(at)}
{_guards(at)}
{results_source(at)}
define ptr @gf_call(ptr %self, ptr %args, i64 %given, ptr %names) {{
entry:
  {field("words", "self", TUPLE_ITEMS)}
  {field("record", "words", DATA)}
  {read("declined", "record", dw.DECLINED, "ptr")}
  {read("expected", "record", dw.ARGUMENT_COUNT)}
  {read("outputs", "record", dw.OUTPUT_COUNT)}
  {read("pointer.count", "record", dw.POINTER_COUNT)}
  {read("known", "record", dw.POINTERS, "ptr")}
  {read("positional", "record", dw.POSITIONAL)}
  {read("expected.names", "record", dw.NAMES, "ptr")}
  %right.count = icmp eq i64 %given, %positional
  %right.names = call i1 @same_names(ptr %names, ptr %expected.names)
  %right = and i1 %right.count, %right.names
  br i1 %right, label %begin, label %decline
decline:
  call void @Py_IncRef(ptr %declined)
  ret ptr %declined
begin:
  ; the arrays of this call, arguments and then outputs, each with a reference of its own
  %held.count = add i64 %expected, %outputs
  %held = alloca ptr, i64 %held.count
  %held.bytes = mul i64 %held.count, 8
  call void @llvm.memset.p0.i64(ptr %held, i8 0, i64 %held.bytes, i1 false)
  %pointers = alloca i64, i64 %pointer.count
  %pointer.bytes = mul i64 %pointer.count, 8
  call void @llvm.memcpy.p0.p0.i64(ptr %pointers, ptr %known, i64 %pointer.bytes, i1 false)
  %made = getelementptr ptr, ptr %held, i64 %expected
  %fit = call i1 @take_arguments(ptr %record, ptr %args, ptr %pointers, ptr %held)
  br i1 %fit, label %look, label %not_mine
look:
  %holds = call i32 @all_hold(ptr %record)
  switch i32 %holds, label %failed [ i32 0, label %not_mine i32 1, label %lock ]
lock:
  %locks = call i32 @lock(ptr %record)
  switch i32 %locks, label %failed [ i32 0, label %not_mine i32 1, label %locked ]
locked:
  %have = call i1 @make_outputs(ptr %record, ptr %pointers, ptr %made)
  br i1 %have, label %run, label %unlock
run:
  %ran = call i1 @run(ptr %record, ptr %pointers)
  br i1 %ran, label %give, label %unlock
give:
  %given.back = call ptr @result(ptr %record, ptr %made, ptr %args)
  br label %unlock
unlock:
  %outcome = phi ptr [null, %locked], [null, %run], [%given.back, %give]
  {read("lock.count", "record", dw.LOCK_COUNT)}
  call void @unlock(ptr %record, i64 %lock.count)
  br label %leave
failed:
  br label %leave
not_mine:
  call void @Py_IncRef(ptr %declined)
  br label %leave
leave:
  %answer = phi ptr [%outcome, %unlock], [null, %failed], [%declined, %not_mine]
  br label %let_go
let_go:
  %number = phi i64 [0, %leave], [%next, %one]
  %more = icmp slt i64 %number, %held.count
  br i1 %more, label %one, label %end
one:
  %held.at = getelementptr ptr, ptr %held, i64 %number
  %array = load ptr, ptr %held.at
  call void @Py_DecRef(ptr %array)
  %next = add i64 %number, 1
  br label %let_go
end:
  ret ptr %answer
}}
"""


def _arguments(at: Offsets) -> str:
    return f"""
; whether two tuples, or nulls, hold the very same names
define internal i1 @same_names(ptr %names, ptr %expected) {{
entry:
  %same = icmp eq ptr %names, %expected
  br i1 %same, label %yes, label %both
both:
  %none = icmp eq ptr %names, null
  %unexpected = icmp eq ptr %expected, null
  %one = or i1 %none, %unexpected
  br i1 %one, label %no, label %sizes
sizes:
  {field("size", "names", TUPLE_SIZE, "i64")}
  {field("expected.size", "expected", TUPLE_SIZE, "i64")}
  %same.size = icmp eq i64 %size, %expected.size
  %items = getelementptr i8, ptr %names, i64 {TUPLE_ITEMS}
  %expected.items = getelementptr i8, ptr %expected, i64 {TUPLE_ITEMS}
  br i1 %same.size, label %loop, label %no
loop:
  %number = phi i64 [0, %sizes], [%next, %compare]
  %more = icmp slt i64 %number, %size
  br i1 %more, label %compare, label %yes
compare:
  %name.at = getelementptr ptr, ptr %items, i64 %number
  %expected.at = getelementptr ptr, ptr %expected.items, i64 %number
  %name = load ptr, ptr %name.at
  %wanted = load ptr, ptr %expected.at
  %next = add i64 %number, 1
  %right = icmp eq ptr %name, %wanted
  br i1 %right, label %loop, label %no
yes:
  ret i1 true
no:
  ret i1 false
}}

; whether an array is as it has to be; gives its address or null
define internal ptr @fitting(ptr %record, ptr %row, ptr %array) {{
entry:
  {read("array.class", "record", dw.ARRAY_CLASS, "ptr")}
  {field("class", "array", CLASS_OF)}
  %is_array = icmp eq ptr %class, %array.class
  br i1 %is_array, label %type, label %misfit
type:
  {read("dtype", "row", dw.DTYPE, "ptr")}
  {field("own.dtype", "array", ARRAY_DTYPE)}
  %same.dtype = icmp eq ptr %dtype, %own.dtype
  br i1 %same.dtype, label %layout, label %misfit
layout:
  {field("flags", "array", FLAGS, "i32")}
  %needed = and i32 %flags, {IN_PLACE}
  %in.place = icmp eq i32 %needed, {IN_PLACE}
  {read("rank", "row", dw.RANK)}
  {field("own.rank", "array", ARRAY_RANK, "i32")}
  %wide.rank = sext i32 %own.rank to i64
  %same.rank = icmp eq i64 %rank, %wide.rank
  %usable = and i1 %in.place, %same.rank
  br i1 %usable, label %sizes, label %misfit
sizes:
  {read("sizes.at", "row", dw.SIZES, "ptr")}
  {field("own.sizes", "array", ARRAY_SIZES)}
  br label %size
size:
  %axis = phi i64 [0, %sizes], [%following, %compare]
  %more = icmp slt i64 %axis, %rank
  br i1 %more, label %compare, label %place
compare:
  {word("size.at", "sizes.at", "%axis")}
  {word("own.at", "own.sizes", "%axis")}
  %wanted = load i64, ptr %size.at
  %own = load i64, ptr %own.at
  %following = add i64 %axis, 1
  %same = icmp eq i64 %wanted, %own
  br i1 %same, label %size, label %misfit
place:
  {field("data", "array", DATA)}
  {read("bytes", "row", dw.ARRAY_BYTES)}
  {read("ranges", "record", dw.RANGES, "ptr")}
  {read("range.count", "record", dw.RANGE_COUNT)}
  %end = getelementptr i8, ptr %data, i64 %bytes
  br label %apart
apart:
  ; memory that the call changes must not be an argument, too
  %number = phi i64 [0, %place], [%next, %look]
  %left = icmp slt i64 %number, %range.count
  br i1 %left, label %look, label %fits
look:
  {row("range", "ranges", "number", dw.RANGE_WORDS)}
  {read("start", "range", dw.START, "ptr")}
  {read("stop", "range", dw.STOP, "ptr")}
  %before = icmp ule ptr %end, %start
  %behind = icmp uge ptr %data, %stop
  %clear = or i1 %before, %behind
  %next = add i64 %number, 1
  br i1 %clear, label %apart, label %misfit
fits:
  ret ptr %data
misfit:
  ret ptr null
}}

define internal i1 @take_arguments(ptr %record, ptr %args, ptr %pointers, ptr %held) {{
entry:
  {read("count", "record", dw.ARGUMENT_COUNT)}
  {read("rows", "record", dw.ARGUMENTS, "ptr")}
  br label %loop
loop:
  %number = phi i64 [0, %entry], [%next, %on]
  %more = icmp slt i64 %number, %count
  br i1 %more, label %look, label %all
look:
  %object.at = getelementptr ptr, ptr %args, i64 %number
  %object = load ptr, ptr %object.at
  {row("row", "rows", "number", dw.ARGUMENT_WORDS)}
  {read("kind", "row", dw.ARGUMENT_KIND)}
  {read("expected", "row", dw.EXPECTED, "ptr")}
  {read("class", "row", dw.CLASS, "ptr")}
  {read("to", "row", dw.TO)}
  {word("pointer", "pointers", "%to")}
  {field("own.class", "object", CLASS_OF)}
  %same.class = icmp eq ptr %class, %own.class
  br i1 %same.class, label %kinds, label %other
kinds:
  switch i64 %kind, label %array [
    i64 {dw.VALUE}, label %value i64 {dw.TENSOR}, label %tensor i64 {dw.NUMBER}, label %number.at ]
value:
  %same.value = icmp eq ptr %object, %expected
  br i1 %same.value, label %on, label %other
number.at:
  %float = getelementptr i8, ptr %object, i64 {FLOAT_VALUE}
  store ptr %float, ptr %pointer
  br label %on
tensor:
  {field("flag", "object", at.requires_grad)}
  {field("inside", "object", at.array)}
  %same.flag = icmp eq ptr %flag, %expected
  %there = icmp ne ptr %inside, null
  %usable = and i1 %same.flag, %there
  br i1 %usable, label %array, label %other
array:
  %array.found = phi ptr [%object, %kinds], [%inside, %tensor]
  %data = call ptr @fitting(ptr %record, ptr %row, ptr %array.found)
  %fits = icmp ne ptr %data, null
  br i1 %fits, label %take, label %other
take:
  call void @Py_IncRef(ptr %array.found)
  %held.at = getelementptr ptr, ptr %held, i64 %number
  store ptr %array.found, ptr %held.at
  store ptr %data, ptr %pointer
  br label %on
on:
  %next = add i64 %number, 1
  br label %loop
all:
  ret i1 true
other:
  ret i1 false
}}
"""


def _guards(at: Offsets) -> str:
    # functions that call Python's answer 1 for yes, 0 for no, and -1 where an exception is set
    return f"""
define internal i32 @holds(ptr %watch) {{
entry:
  {read("object", "watch", dw.OBJECT, "ptr")}
  {read("place", "watch", dw.PLACE, "ptr")}
  {read("there", "watch", dw.THERE, "ptr")}
  {read("kind", "watch", dw.WATCH_KIND)}
  switch i64 %kind, label %slot [
    i64 {dw.ITEM}, label %item i64 {dw.ATTRIBUTE}, label %attribute i64 {dw.RESULT}, label %call ]
slot:
  %offset = ptrtoint ptr %place to i64
  %slot.at = getelementptr i8, ptr %object, i64 %offset
  %content = load ptr, ptr %slot.at
  br label %borrowed
item:
  %found = call ptr @PyDict_GetItemWithError(ptr %object, ptr %place)
  %missing = icmp eq ptr %found, null
  br i1 %missing, label %none, label %borrowed
none:
  %error = call ptr @PyErr_Occurred()
  %fine = icmp eq ptr %error, null
  %no = select i1 %fine, i32 0, i32 -1
  ret i32 %no
borrowed:
  %seen = phi ptr [%content, %slot], [%found, %item]
  %is = icmp eq ptr %seen, %there
  %answer = zext i1 %is to i32
  ret i32 %answer
attribute:
  %got = call ptr @PyObject_GetAttr(ptr %object, ptr %place)
  br label %owned
call:
  %result = call ptr @PyObject_CallNoArgs(ptr %object)
  br label %owned
owned:
  %value = phi ptr [%got, %attribute], [%result, %call]
  %bad = icmp eq ptr %value, null
  br i1 %bad, label %raised, label %compare
compare:
  %same = icmp eq ptr %value, %there
  call void @Py_DecRef(ptr %value)
  %yes = zext i1 %same to i32
  ret i32 %yes
raised:
  ret i32 -1
}}

define internal i32 @all_hold(ptr %record) {{
entry:
  {read("count", "record", dw.WATCH_COUNT)}
  {read("rows", "record", dw.WATCHES, "ptr")}
  br label %loop
loop:
  %number = phi i64 [0, %entry], [%next, %look]
  %more = icmp slt i64 %number, %count
  br i1 %more, label %look, label %all
look:
  {row("row", "rows", "number", dw.WATCH_WORDS)}
  %answer = call i32 @holds(ptr %row)
  %next = add i64 %number, 1
  %held = icmp eq i32 %answer, 1
  br i1 %held, label %loop, label %not
all:
  ret i32 1
not:
  ret i32 %answer
}}

; takes all locks or none; the slots are read anew, because a child of fork has other locks in them
define internal i32 @lock(ptr %record) {{
entry:
  {read("count", "record", dw.LOCK_COUNT)}
  {read("rows", "record", dw.LOCKS, "ptr")}
  {read("false", "record", dw.FALSE, "ptr")}
  {read("true", "record", dw.TRUE, "ptr")}
  br label %loop
loop:
  %number = phi i64 [0, %entry], [%next, %got]
  %more = icmp slt i64 %number, %count
  br i1 %more, label %take, label %all
take:
  %lock.at = getelementptr ptr, ptr %rows, i64 %number
  %lock = load ptr, ptr %lock.at
  {field("acquire", "lock", at.acquire)}
  %answer = call ptr @PyObject_CallOneArg(ptr %acquire, ptr %false)
  %bad = icmp eq ptr %answer, null
  br i1 %bad, label %raised, label %asked
asked:
  call void @Py_DecRef(ptr %answer)
  %free = icmp eq ptr %answer, %true
  br i1 %free, label %got, label %back
got:
  %next = add i64 %number, 1
  br label %loop
raised:
  br label %back
back:
  %outcome = phi i32 [0, %asked], [-1, %raised]
  call void @unlock(ptr %record, i64 %number)
  ret i32 %outcome
all:
  ret i32 1
}}

; lets the first locks go; an exception that is set stays
define internal void @unlock(ptr %record, i64 %count) {{
entry:
  %kind = alloca ptr
  %value = alloca ptr
  %trace = alloca ptr
  {read("rows", "record", dw.LOCKS, "ptr")}
  call void @PyErr_Fetch(ptr %kind, ptr %value, ptr %trace)
  br label %loop
loop:
  %number = phi i64 [0, %entry], [%next, %one]
  %more = icmp slt i64 %number, %count
  br i1 %more, label %one, label %all
one:
  %lock.at = getelementptr ptr, ptr %rows, i64 %number
  %lock = load ptr, ptr %lock.at
  {field("release", "lock", at.release)}
  %none = call ptr @PyObject_CallNoArgs(ptr %release)
  call void @Py_DecRef(ptr %none)
  %next = add i64 %number, 1
  br label %loop
all:
  %had.kind = load ptr, ptr %kind
  %had.value = load ptr, ptr %value
  %had.trace = load ptr, ptr %trace
  call void @PyErr_Restore(ptr %had.kind, ptr %had.value, ptr %had.trace)
  ret void
}}
"""


__all__ = ["source"]

"""The second half of a direct call's machine code (see ``direct_native``): memory for outputs, the run,
results.
"""

from __future__ import annotations

from graphflow.runtime import direct_words as dw
from graphflow.runtime.direct_words import DATA, Offsets
from graphflow.runtime.words import ACTIVE, CUT, field, read, row, word


def results_source(at: Offsets) -> str:
    """LLVM IR of ``make_outputs``, ``run`` and ``result``."""
    return f"""
define internal i1 @make_outputs(ptr %record, ptr %pointers, ptr %made) {{
entry:
  {read("count", "record", dw.OUTPUT_COUNT)}
  {read("rows", "record", dw.OUTPUTS, "ptr")}
  {read("class", "record", dw.ARRAY_CLASS, "ptr")}
  br label %loop
loop:
  %number = phi i64 [0, %entry], [%next, %keep]
  %more = icmp slt i64 %number, %count
  br i1 %more, label %one, label %all
one:
  {row("row", "rows", "number", dw.OUTPUT_WORDS)}
  {read("take", "row", dw.TAKE, "ptr")}
  %small = icmp eq ptr %take, null
  br i1 %small, label %new, label %pool
new:
  {read("dtype", "row", dw.OUT_DTYPE, "ptr")}
  {read("rank", "row", dw.OUT_RANK)}
  {read("sizes", "row", dw.OUT_SIZES, "ptr")}
  %short.rank = trunc i64 %rank to i32
  call void @Py_IncRef(ptr %dtype) ; NumPy takes it
  %fresh = call ptr @gf_new_array(ptr %class, ptr %dtype, i32 %short.rank, ptr %sizes, ptr null, ptr null,
    i32 0, ptr null)
  br label %made_one
pool:
  %pair = call ptr @PyObject_CallNoArgs(ptr %take)
  %no.pair = icmp eq ptr %pair, null
  br i1 %no.pair, label %failed, label %apart
apart:
  %first = call ptr @PyTuple_GetItem(ptr %pair, i64 0)
  call void @Py_IncRef(ptr %first)
  call void @Py_DecRef(ptr %pair)
  br label %made_one
made_one:
  %array = phi ptr [%fresh, %new], [%first, %apart]
  %none = icmp eq ptr %array, null
  br i1 %none, label %failed, label %keep
keep:
  %made.at = getelementptr ptr, ptr %made, i64 %number
  store ptr %array, ptr %made.at
  {field("data", "array", DATA)}
  {read("to", "row", dw.OUT_TO)}
  {word("pointer", "pointers", "%to")}
  store ptr %data, ptr %pointer
  %next = add i64 %number, 1
  br label %loop
all:
  ret i1 true
failed:
  ret i1 false
}}

define internal i1 @run(ptr %record, ptr %pointers) {{
entry:
  {read("plan", "record", dw.RUN_PLAN, "ptr")}
  {read("active", "plan", ACTIVE)}
  {read("short", "record", dw.IS_SHORT)}
  %several = icmp sgt i64 %active, 1
  ; the record is one for the number of threads that there is now; the plan may have been cut for another
  {read("cut", "plan", CUT)}
  {read("number", "record", dw.THREADS)}
  %other = icmp ne i64 %cut, %number
  %shared = or i1 %several, %other
  br i1 %shared, label %threads, label %alone
threads:
  {read("execute", "record", dw.EXECUTE, "ptr")}
  %address = call ptr @PyLong_FromVoidPtr(ptr %pointers)
  %none = call ptr @PyObject_CallOneArg(ptr %execute, ptr %address)
  call void @Py_DecRef(ptr %address)
  call void @Py_DecRef(ptr %none)
  %raised = icmp eq ptr %none, null
  br i1 %raised, label %bad, label %ran
alone:
  %keeps = icmp ne i64 %short, 0
  br i1 %keeps, label %brief, label %free
brief:
  call void @gf_run_plan(ptr %plan, ptr %pointers, ptr null, ptr null)
  br label %ran
free:
  %thread = call ptr @PyEval_SaveThread()
  call void @gf_run_plan(ptr %plan, ptr %pointers, ptr null, ptr null)
  call void @PyEval_RestoreThread(ptr %thread)
  br label %ran
ran:
  {read("status", "record", dw.FAILED, "ptr")}
  %unchecked = icmp eq ptr %status, null
  br i1 %unchecked, label %good, label %check
check:
  %word = load i64, ptr %status
  %fine = icmp eq i64 %word, 0
  br i1 %fine, label %good, label %bad_index
bad_index:
  {read("fail", "record", dw.FAIL, "ptr")}
  %never = call ptr @PyObject_CallNoArgs(ptr %fail)
  br label %bad
good:
  ret i1 true
bad:
  ret i1 false
}}

; a new object of a class, with its attributes
define internal ptr @make(ptr %class) {{
entry:
  {read("type", "class", dw.MADE, "ptr")}
  {read("new", "class", dw.NEW, "ptr")}
  {read("nothing", "class", dw.NOTHING, "ptr")}
  {read("count", "class", dw.SLOT_COUNT)}
  {read("rows", "class", dw.SLOTS, "ptr")}
  %object = call ptr %new(ptr %type, ptr %nothing, ptr null)
  %failed = icmp eq ptr %object, null
  br i1 %failed, label %end, label %loop
loop:
  %number = phi i64 [0, %entry], [%next, %one]
  %more = icmp slt i64 %number, %count
  br i1 %more, label %one, label %end
one:
  {row("row", "rows", "number", 2)}
  {read("offset", "row", 0)}
  {read("value", "row", 1, "ptr")}
  call void @Py_IncRef(ptr %value)
  %slot = getelementptr i8, ptr %object, i64 %offset
  store ptr %value, ptr %slot
  %next = add i64 %number, 1
  br label %loop
end:
  ret ptr %object
}}

define internal ptr @handle_on(ptr %record, ptr %array) {{
entry:
  {read("storages", "record", dw.STORAGE, "ptr")}
  {read("handles", "record", dw.HANDLE, "ptr")}
  {read("births", "record", dw.BIRTHS, "ptr")}
  %born = call ptr @PyIter_Next(ptr %births)
  %unborn = icmp eq ptr %born, null
  br i1 %unborn, label %failed, label %number
number:
  %storage = call ptr @make(ptr %storages)
  %no.storage = icmp eq ptr %storage, null
  br i1 %no.storage, label %undo, label %store
undo:
  call void @Py_DecRef(ptr %born)
  br label %failed
store:
  %born.at = getelementptr i8, ptr %storage, i64 {at.born}
  store ptr %born, ptr %born.at
  %handle = call ptr @make(ptr %handles)
  %no.handle = icmp eq ptr %handle, null
  br i1 %no.handle, label %undo_storage, label %fill
undo_storage:
  call void @Py_DecRef(ptr %storage)
  br label %failed
fill:
  %storage.at = getelementptr i8, ptr %handle, i64 {at.storage}
  store ptr %storage, ptr %storage.at
  call void @Py_IncRef(ptr %array)
  %array.at = getelementptr i8, ptr %handle, i64 {at.array}
  store ptr %array, ptr %array.at
  ret ptr %handle
failed:
  ret ptr null
}}

define internal ptr @result(ptr %record, ptr %made, ptr %args) {{
entry:
  {read("calls.at", "record", dw.CALLS, "ptr")}
  {read("used.at", "record", dw.USED, "ptr")}
  %calls = load i64, ptr %calls.at
  %now = add i64 %calls, 1
  store i64 %now, ptr %calls.at
  store i64 %now, ptr %used.at
  {read("one", "record", dw.ONE, "ptr")}
  {read("count", "record", dw.VERSION_COUNT)}
  {read("rows", "record", dw.VERSIONS, "ptr")}
  br label %loop
loop:
  %number = phi i64 [0, %entry], [%next, %store]
  %more = icmp slt i64 %number, %count
  br i1 %more, label %raise_version, label %finish
raise_version:
  %storage.at = getelementptr ptr, ptr %rows, i64 %number
  %storage = load ptr, ptr %storage.at
  %version.at = getelementptr i8, ptr %storage, i64 {at.version}
  %version = load ptr, ptr %version.at
  %newer = call ptr @PyNumber_Add(ptr %version, ptr %one)
  %none = icmp eq ptr %newer, null
  br i1 %none, label %failed, label %store
store:
  store ptr %newer, ptr %version.at
  call void @Py_DecRef(ptr %version)
  %next = add i64 %number, 1
  br label %loop
finish:
  {read("finisher", "record", dw.FINISH, "ptr")}
  %plain = icmp eq ptr %finisher, null
  br i1 %plain, label %single, label %several
single:
  %only = load ptr, ptr %made
  %handle = call ptr @handle_on(ptr %record, ptr %only)
  ret ptr %handle
several:
  {read("outputs", "record", dw.OUTPUT_COUNT)}
  {read("arguments", "record", dw.ARGUMENT_COUNT)}
  %items.count = add i64 %outputs, %arguments
  %list = call ptr @PyList_New(i64 %items.count)
  %no.list = icmp eq ptr %list, null
  br i1 %no.list, label %failed, label %items
items:
  %index = phi i64 [0, %several], [%index.next, %item]
  %items.left = icmp slt i64 %index, %items.count
  br i1 %items.left, label %item, label %hand_over
item:
  ; outputs, and behind them the arguments
  %is.output = icmp slt i64 %index, %outputs
  %behind = sub i64 %index, %outputs
  %within = select i1 %is.output, i64 %index, i64 %behind
  %from = select i1 %is.output, ptr %made, ptr %args
  %item.at = getelementptr ptr, ptr %from, i64 %within
  %listed = load ptr, ptr %item.at
  call void @Py_IncRef(ptr %listed) ; the list takes it
  %set = call i32 @PyList_SetItem(ptr %list, i64 %index, ptr %listed)
  %index.next = add i64 %index, 1
  br label %items
hand_over:
  %result = call ptr @PyObject_CallOneArg(ptr %finisher, ptr %list)
  call void @Py_DecRef(ptr %list)
  ret ptr %result
failed:
  ret ptr null
}}
"""


__all__ = ["results_source"]

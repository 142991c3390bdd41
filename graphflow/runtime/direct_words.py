"""The words of a direct call's record, which ``direct`` writes and the code of ``direct_native`` reads.

As in ``words``, everything is an array of 64-bit words, and these are their numbers in it. Words that hold
objects hold their addresses. At the end is where objects have what is read of them.
"""

from __future__ import annotations

from dataclasses import dataclass

# A record: counts and addresses of the rows below; how many words a run's pointers take, and those that are
# the same in every run; the plan of the run; a function that runs on several threads, from those pointers;
# whether the run is short enough to keep the global interpreter lock.
ARGUMENT_COUNT, ARGUMENTS, WATCH_COUNT, WATCHES, RANGE_COUNT, RANGES, LOCK_COUNT, LOCKS = range(8)
OUTPUT_COUNT, OUTPUTS, VERSION_COUNT, VERSIONS, POINTER_COUNT, POINTERS = range(8, 14)
RUN_PLAN, EXECUTE, IS_SHORT = range(14, 17)
# The status word of the run (0: none) and a function that raises its error; a function from the list of
# outputs and arguments to the result (0: the only output as a tensor); how to make handles and what is behind
# them; the numbers of the function's calls and of the last one that this record took; objects that code
# compares with.
FAILED, FAIL, FINISH, HANDLE, STORAGE, BIRTHS, CALLS, USED = range(17, 25)
ARRAY_CLASS, DECLINED, FALSE, TRUE, ONE = range(25, 30)
# How many arguments come without a name, the tuple of the others' names (0: none), and how many threads
# runs have.
POSITIONAL, NAMES, THREADS, RECORD_WORDS = range(30, 34)
# An argument: its kind, its class, the object that it is (VALUE) or its flag's (TENSOR); dtype, rank, address
# of the sizes, and bytes of its array; the pointer that it becomes.
ARGUMENT_KIND, CLASS, EXPECTED, DTYPE, RANK, SIZES, ARRAY_BYTES, TO, ARGUMENT_WORDS = range(9)
VALUE, ARRAY, TENSOR, NUMBER = range(4)
# A watch: its kind, the object that is looked at, where (an offset, or a key or name), what must be there.
WATCH_KIND, OBJECT, PLACE, THERE, WATCH_WORDS = range(5)
SLOT, ITEM, ATTRIBUTE, RESULT = range(4)
# A range: first and last address, exclusive. A lock and a version are an object each.
START, STOP, RANGE_WORDS = range(3)
# An output: as above, and a function that gives memory for it (0: NumPy gives it).
OUT_DTYPE, OUT_RANK, OUT_SIZES, TAKE, OUT_TO, OUTPUT_WORDS = range(6)
# A class and the attributes of a new object of it: the class, the function that makes one, its arguments,
# count and address of pairs of offset and value.
MADE, NEW, NOTHING, SLOT_COUNT, SLOTS, CLASS_WORDS = range(6)

# Of 64-bit CPython with the global interpreter lock: object.h, tupleobject.h, floatobject.h.
CLASS_OF, TUPLE_SIZE, TUPLE_ITEMS, FLOAT_VALUE, CELL_CONTENT = 8, 16, 24, 16, 16
# numpy/ndarraytypes.h: tagPyArrayObject_fields, which is part of NumPy's ABI, and flags.
DATA, ARRAY_RANK, ARRAY_SIZES, ARRAY_DTYPE, FLAGS = 16, 24, 32, 56, 64
IN_PLACE = 0x1 | 0x100  # NPY_ARRAY_C_CONTIGUOUS and NPY_ARRAY_ALIGNED


@dataclass(frozen=True)
class Offsets:
    """Where classes with ``__slots__`` have theirs: in a tensor, in its storage, in a lock."""

    array: int
    storage: int
    requires_grad: int
    version: int
    born: int
    acquire: int
    release: int

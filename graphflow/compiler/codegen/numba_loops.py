"""How far LLVM may write loops out: marks on the loops of a kernel's text while Numba lowers it.

LLVM would write out rows of known length. A row of 768 floats is 48 vectors: too many for the registers, and
several passes over it are too much code for the processor's cache of decoded instructions.
"""

from __future__ import annotations

from typing import Any

import llvmlite.ir as ll

MOST_UNROLLED = 32  # turns of a loop that may be written out whole
TURNS = 4  # of the vectors of a longer one that are written out, so that they overlap


def keep_rolled(lower: Any, block: Any) -> None:
    """Marks the loop that `block`, which `lower` has just lowered, is the end of: if it is one, and long."""
    blocks, start = lower.blocks, getattr(block.terminator, "target", None)  # which jumps have
    here = next(label for label, other in blocks.items() if other is block)
    if start is None or start > here or _turns(lower, start) <= MOST_UNROLLED:
        return
    inside = [label for label in blocks if start < label <= here]
    is_innermost = all(_step(blocks[label]) is None for label in inside)
    mark = _mark(lower.module, TURNS if is_innermost else 1)
    lower.builder.block.terminator.set_metadata("llvm.loop", mark)


def _step(block: Any) -> Any:
    """What gives a loop its next value, if the block begins one."""
    values = [getattr(statement, "value", None) for statement in block.body]
    return next((v for v in values if getattr(v, "op", None) == "iternext"), None)


def _turns(lower: Any, label: int) -> int:
    """How often the loop runs that a block begins; 0 where that isn't known, or there is none."""
    step = _step(lower.blocks[label])
    if step is None:
        return 0
    walk = lower.func_ir.get_definition(step.value)
    bounds = [lower.typeof(a.name) for a in lower.func_ir.get_definition(walk.value).args]
    known = [b.literal_value for b in bounds if hasattr(b, "literal_value")]
    return len(range(*known)) if len(known) == len(bounds) else 0


def _mark(module: ll.Module, turns: int) -> ll.MDValue:
    """The mark of a loop of which so many turns are written out: a node of its own, which names itself."""
    count = [ll.MetaDataString(module, "llvm.loop.unroll.count"), ll.Constant(ll.IntType(32), turns)]
    mark = ll.MDValue(module, (), str(len(module.metadata)))
    mark.operands = (mark, module.add_metadata(count))
    return mark

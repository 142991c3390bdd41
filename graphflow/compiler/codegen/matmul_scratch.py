"""How much scratch memory a matrix product takes: the sizes that `matmul_driver` lays out, before it runs.

They follow from the words of the argument block, whose sizes and strides may be symbolic, so everything here
is a size, too, and a condition is one that is greater than 0 where it holds.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphflow.compiler.codegen.matmul_arguments import Word
from graphflow.compiler.codegen.matmul_blocking import Blocking
from graphflow.compiler.codegen.matmul_driver import SHALLOW
from graphflow.compiler.codegen.matmul_indirect import ROWS
from graphflow.compiler.codegen.matmul_thin import near_elements
from graphflow.compiler.codegen.matmul_units import FEW_COLUMNS, TURNED
from graphflow.dims import Dim, ceil_div, choose, maximum, minimum

Size = int | Dim
Words = Sequence[Size]

# Up to so many runs of k their length is told exactly where k isn't known.
_RUNS = 3


def scratch_elements(plan: Blocking, words: Words) -> Size:
    """Elements of scratch that a thread needs for the product of an argument block, however its range is cut.

    Instead of addresses `words` may have any number, but 0 where there is none.
    """
    other = list(words)
    for word, place in TURNED.items():
        other[word], other[place] = words[place], words[word]
    return choose(_turned(words), _elements(plan, other), _elements(plan, words))


def scratch_bound(plan: Blocking, depth: Size) -> int:
    """Elements of scratch that are enough for every product of contiguous matrices up to so deep."""
    depth = depth if isinstance(depth, int) and depth < plan.depth else plan.depth
    sums = len(plan.stream) * plan.stream_columns
    panels = max(plan.columns * depth, sums, near_elements(plan))
    tile = max(plan.small_tile if depth < plan.depth else plan.large_tile, plan.rows * plan.columns, sums)
    return plan.unit_rows * depth + panels + tile


def indirect_bytes(plan: Blocking, itemsize: int, words: Words) -> Size:
    """Bytes of scratch that a thread needs for a product of the core of `matmul_indirect`."""
    m, n, k = words[Word.M], words[Word.N], words[Word.K]
    deepest, one = _deepest(plan, k), _at_most(k, plan.depth)
    columns = minimum(plan.columns, _rounded(n, plan.lanes))
    in_place = _equal(words[Word.B_COLUMN], 1) if words[Word.PACK_B] else 0
    along_n, along_m = _equal(words[Word.C_COLUMN], 1), _equal(words[Word.C_ROW], 1)
    straight = 0 if words[Word.EPILOGUE] else along_n
    turned = _both(along_m, _not(along_n))
    fitting = choose(_both(turned, one), plan.small_tile, plan.large_tile)
    rows = minimum(_rounded(m, plan.rows), ROWS // plan.rows * plan.rows)
    # a block of fewer columns takes more rows at a time
    tile = maximum(fitting, plan.rows * columns) + plan.lanes * columns
    tile = minimum(tile, _rounded(rows, plan.lanes) * columns)
    tile = choose(straight, 0, tile * choose(turned, 2, 1))
    return 8 * (rows + plan.columns + 2 * deepest) + itemsize * (
        (0 if words[Word.KEPT] else choose(in_place, 0, deepest * columns)) + tile
    )


def _elements(plan: Blocking, words: Words) -> Size:
    """What `matmul_driver` lays out where it computes C, not C's transpose: panels, a tile and strips."""
    m, n, k = words[Word.M], words[Word.N], words[Word.K]
    deepest, one = _deepest(plan, k), _at_most(k, plan.depth)
    complete = 1 if plan.masks else _equal(n % plan.lanes, 0)
    elsewhere = words[Word.PACK_B] or words[Word.KEPT]
    in_rows = _both(0 if elsewhere else _equal(words[Word.B_COLUMN], 1), complete)
    in_place = _both(in_rows, _at_most(m, plan.rows * 2))
    streamed = _both(in_rows, _at_most(m, len(plan.stream)))
    along_k = 0 if elsewhere else _equal(words[Word.B_DEPTH], 1)
    few = _both(_at_most(m, plan.turn[-1]), _at_most(plan.lanes, k))
    turning = _both(_both(along_k, few), _not(in_place))

    added: Size = 1
    if words[Word.ADDEND]:
        added = _both(_both(_equal(words[Word.ADDEND_COLUMN], 1), one), _not(_either(streamed, turning)))
    straight = 0 if words[Word.EPILOGUE] else _both(_equal(words[Word.C_COLUMN], 1), added)
    width = minimum(_rounded(n, plan.lanes), choose(streamed, plan.stream_columns, plan.columns))
    scattered = _both(_not(_equal(words[Word.A_DEPTH], 1)), _at_most(SHALLOW + 1, deepest))
    copied = 1 if words[Word.PACK_A] else _both(scattered, _at_most(plan.panel + 1, width))
    elements = choose(one, plan.small_tile, plan.large_tile)
    fitting: Size = plan.rows
    if isinstance(width, int) and width:
        fitting = maximum(elements // (width * plan.rows), 1) * plan.rows
    once = _either(_either(straight, _at_most(m, fitting)), _not(one))
    panelwise = _both(once, _at_most(m, plan.panelwise_rows))

    tall, panel = _rounded(m, plan.rows), minimum(width, plan.panel)
    unit = minimum(tall, plan.unit_rows)
    sums = choose(_both(streamed, _not(one)), m * width, 0)
    strips: Size = choose(copied, unit, 0)
    copies = choose(panelwise, minimum(tall + panel, unit + width), unit + width)
    packed = choose(copied, copies, choose(panelwise, panel, width))
    if words[Word.KEPT]:
        packed = strips
    operands = choose(turning, near_elements(plan) + deepest * strips, deepest * packed)
    operands = choose(in_place, sums + deepest * strips, operands)
    tile = choose(straight, 0, minimum(m * width, maximum(elements, plan.rows * width)))
    return operands + tile


def _turned(words: Words) -> Size:
    """Whether the transpose of C is computed, as `matmul_units` decides."""
    if words[Word.PACK_A] or words[Word.PACK_B] or words[Word.KEPT]:
        return 0
    m, n = words[Word.M], words[Word.N]
    few_rows = _both(_at_most(m, FEW_COLUMNS), _at_most(m + 1, n))
    few_columns = _both(_at_most(n, FEW_COLUMNS), _at_most(n + 1, m))
    if words[Word.EPILOGUE]:
        return _both(_equal(n, 1), few_columns)
    across = _both(_equal(words[Word.C_ROW], 1), _not(_equal(words[Word.C_COLUMN], 1)))
    return _either(few_columns, _both(across, _not(few_rows)))


def _deepest(plan: Blocking, k: Size) -> Size:
    """The longest run of k, exact for a few of them where k isn't known."""
    if isinstance(k, int):
        return -(-k // max(1, -(-k // plan.depth)))
    longest: Size = plan.depth
    for runs in range(_RUNS, 0, -1):
        longest = choose(_at_most(k, runs * plan.depth), ceil_div(k, runs), longest)
    return longest


def _rounded(size: Size, step: int) -> Size:
    return ceil_div(size, step) * step


def _at_most(a: Size, b: Size) -> Size:
    return b - a + 1


def _equal(a: Size, b: int) -> Size:
    return _both(_at_most(a, b), _at_most(b, a))


def _both(a: Size, b: Size) -> Size:
    return choose(a, b, 0)


def _either(a: Size, b: Size) -> Size:
    return choose(a, 1, b)


def _not(a: Size) -> Size:
    return choose(a, 0, 1)

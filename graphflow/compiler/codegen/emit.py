"""From a planned unit to kernels: one entry for every kind of unit."""

from __future__ import annotations

from graphflow.compiler.codegen import columns, folds, loops, products, routines, rows, short_rows, tiled
from graphflow.compiler.codegen.kernel import Loops
from graphflow.compiler.codegen.loops import Plan
from graphflow.compiler.codegen.products import Packing, Product
from graphflow.compiler.codegen.scalar import Memory

Emitted = Loops | Product | Packing

_NESTS: dict[str, loops.Emitter] = {
    "map": loops.emit_map,
    "row": rows.emit_row,
    "column": columns.emit_column,
    "fold": folds.emit_fold,
}


def emit(plan: Plan, memory: Memory, name: str) -> list[Emitted]:
    """The kernels of a unit, to run in this order."""
    if plan.kind == "contract":
        return [products.emit_product(plan, memory, name)]
    if plan.kind == "scatter":
        return [products.emit_scatter(plan, memory, name)]
    if plan.kind == "routine":
        return [routines.emit_routine(plan, memory, name)]
    if plan.kind == "tiled":
        return list(tiled.emit_tiled(plan, memory, name))
    if plan.kind == "cat":
        return list(products.emit_cat(plan, memory, name))
    if plan.kind == "row" and short_rows.is_short(plan, memory.stored):
        return list(loops.write(short_rows.emit_short, plan, memory, name))
    return list(loops.write(_NESTS[plan.kind], plan, memory, name))

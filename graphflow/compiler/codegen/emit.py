"""From a planned unit to kernels: one entry for every kind of unit."""

from __future__ import annotations

from collections.abc import Callable, Container

from graphflow.compiler.codegen import columns, loops, products, rows
from graphflow.compiler.codegen.kernel import Loops
from graphflow.compiler.codegen.loops import Plan
from graphflow.compiler.codegen.products import Product
from graphflow.compiler.codegen.scalar import Status
from graphflow.compiler.ir import Node

Emitted = Loops | Product

_NESTS: dict[str, loops.Emitter] = {
    "map": loops.emit_map,
    "row": rows.emit_row,
    "column": columns.emit_column,
}


def emit(
    plan: Plan, buffer_of: Callable[[Node], int], stored: Container[Node], status: Status, name: str
) -> list[Emitted]:
    """The kernels of a unit, to run in this order. Only concatenations take several."""
    if plan.kind == "contract":
        return [products.emit_product(plan, buffer_of, stored, status, name)]
    if plan.kind == "scatter":
        return [products.emit_scatter(plan, buffer_of, stored, status, name)]
    if plan.kind == "cat":
        return list(products.emit_cat(plan, buffer_of, stored, status, name))
    return [loops.write(_NESTS[plan.kind], plan, buffer_of, stored, status, name)]

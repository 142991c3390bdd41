"""What fusion makes of the patterns that matter: how many kernels, of which kind, and what is in place."""

from __future__ import annotations

from collections.abc import Sequence

import graphflow as gf
import graphflow.nn.functional as F
import numpy as np
import pytest
from graphflow.compiler.interpret import run_graph
from graphflow.compiler.ir import OPS, Graph, Node
from graphflow.compiler.passes.autodiff import vjp
from graphflow.compiler.passes.fuse import MAX_NODES, fuse
from graphflow.dims import Dim, evaluate
from graphflow.dtypes import float32, float64, int64
from graphflow.engine import Engine, compile_graph

import models
from models import N, arg, cross_entropy, gradients, layer_norm, linear, log_softmax, mean, softmax, total

X = (N, 40)


def compiled(
    outputs: Sequence[Node], args: Sequence[Node], updates: dict[Node, Node] | None = None
) -> Engine:
    """The graph compiled, its results compared with the evaluator's; `updates` are by state."""
    states = tuple(updates or {})
    graph = Graph("g", tuple(args), states, tuple(outputs), tuple(enumerate((updates or {}).values())))
    engine = compile_graph(graph)
    rng = np.random.default_rng(0)
    arrays = []
    for node in graph.inputs:
        shape = tuple(7 if size == N else size for size in node.shape)
        whole = node.dtype.kind == "int"
        arrays.append(
            (rng.integers(0, 10, shape) if whole else rng.uniform(0.1, 2, shape)).astype(node.dtype.numpy)
        )
    (outputs, states), (exact_outputs, exact_states) = engine.run(arrays), run_graph(graph, arrays)
    for ours, theirs in zip([*outputs, *states], [*exact_outputs, *exact_states], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)
    return engine


def kinds(engine: Engine) -> list[str]:
    """The kinds of the engine's units, in order."""
    return [unit.kind for unit in engine.compiled.fused.units]


def commands(engine: Engine) -> int:
    """How many commands a run executes."""
    return len(engine.compiled.program.commands)


@pytest.mark.parametrize("function", [softmax, log_softmax], ids=["softmax", "log_softmax"])
def test_softmax_and_its_gradient_are_one_row_kernel_each(function) -> None:  # type: ignore[no-untyped-def]
    x, g = arg("x", *X), arg("g", *X)
    assert kinds(compiled([function(x)], [x])) == ["row"]
    (gradient,) = vjp([function(x)], [g], [x])
    assert gradient is not None
    assert kinds(compiled([gradient], [x, g])) == ["row"]
    assert kinds(compiled([function(x), gradient], [x, g])) == ["row"]


def test_cross_entropy_with_its_gradient_is_one_row_kernel_and_the_mean() -> None:
    x, labels = arg("x", N, 10), arg("labels", N, dtype=int64)
    loss = cross_entropy(x, labels)
    assert kinds(compiled([loss], [x, labels])) == ["row", "fold"]
    engine = compiled([loss, *gradients(loss, [x])], [x, labels])
    assert kinds(engine) == ["row", "fold"]
    logits, final = engine.compiled.fused.units
    assert logits.axes == (N, 10)
    assert final.axes == (N,)
    assert commands(engine) == 3  # the mean adds up what chunks of the batch leave


def test_layer_norm_is_one_row_kernel() -> None:
    x, weight, bias, g = arg("x", *X), arg("weight", 40), arg("bias", 40), arg("g", *X)
    out = layer_norm(x, weight, bias)
    assert kinds(compiled([out], [x, weight, bias])) == ["row"]
    (gx,) = vjp([out], [g], [x])
    assert gx is not None
    assert kinds(compiled([gx], [x, weight, bias, g])) == ["row"]


def test_layer_norm_with_all_its_gradients_is_one_row_kernel() -> None:
    x, weight, bias, g = arg("x", *X), arg("weight", 40), arg("bias", 40), arg("g", *X)
    found = vjp([layer_norm(x, weight, bias)], [g], [x, weight, bias])
    engine = compiled([gradient for gradient in found if gradient is not None], [x, weight, bias, g])
    assert kinds(engine) == ["row"]
    assert commands(engine) == 2  # the second adds up the weight's and the bias's gradients by chunks
    stored = {node.shape for node in engine.compiled.fused.stored}
    assert stored == {(N, 40), (1, 40)}


def test_a_bias_gradient_behind_rows_is_theirs_whichever_comes_first() -> None:
    x = arg("x", *X)
    y = OPS["exp"](x)
    column, row = OPS["sum"](y, dims=(0,)), y / OPS["sum"](y, dims=(1,))
    assert kinds(compiled([column, row], [x])) == ["row"]
    assert kinds(compiled([row, column], [x])) == ["row"]


def test_what_needs_a_total_over_rows_waits_for_it() -> None:
    x = arg("x", *X)
    y = softmax(x)
    assert kinds(compiled([y - OPS["sum"](y, dims=(0,))], [x])) == ["row", "map"]
    assert kinds(compiled([y * OPS["max"](y, dims=(0,)), OPS["sum"](y, dims=(0,))], [x])) == ["row", "map"]


@pytest.mark.parametrize(
    ("rows", "units"),
    [((0,), 3), ((1,), 1), ((15,), 2), ((16,), 1), ((300,), 1), ((3, 50), 1)],
    ids=str,
)
def test_totals_over_rows_of_any_number(rows: tuple[int, ...], units: int) -> None:
    x = arg("x", *rows, 40)
    over = tuple(range(len(rows)))
    y = softmax(x)
    engine = compiled([y, OPS["sum"](y, dims=over), OPS["sum"](x * y, dims=over)], [x])
    assert len(kinds(engine)) == units


def test_totals_of_a_products_gradient_are_taken_with_its_rows() -> None:
    x, weight, bias = arg("x", N, 4, 64), arg("weight", 64), arg("bias", 64)
    up, g = arg("up", 64, 80), arg("g", N, 4, 80)
    rows = OPS["reshape"](layer_norm(x, weight, bias), shape=(4 * N, 64))
    given = OPS["reshape"](g, shape=(4 * N, 80)) * 1e-3
    found = vjp([OPS["matmul"](rows, up)], [given], [x, weight, bias])
    made = kinds(compiled([n for n in found if n is not None], [x, weight, bias, up, g]))
    assert "contract" in made and "column" not in made


@pytest.mark.parametrize(("width", "kept"), [(40, 1), (100, 5), (768, 4), (1100, 3), (5000, 1)])
def test_what_passes_over_a_row_need_again_is_kept_while_there_is_room(width: int, kept: int) -> None:
    x, weight, bias, g = arg("x", N, width), arg("weight", width), arg("bias", width), arg("g", N, width)
    out = log_softmax(layer_norm(x, weight, bias))
    engine = compiled([total(out * g), *gradients(total(out * g), [x, weight])], [x, weight, bias, g])
    source = engine.compiled.program.kernels[0].source
    assert source.count("= ptr_f32(scratch") == kept


def test_one_element_of_each_row_is_taken_where_the_row_is() -> None:
    x = arg("x", *X)
    first = OPS["slice"](log_softmax(x), starts=(0, 0), steps=(1, 1), sizes=(N, 1))
    engine = compiled([total(first)], [x])
    assert kinds(engine) == ["row", "fold"]
    assert (N, 40) not in {node.shape for node in engine.compiled.fused.stored}


def test_elementwise_work_with_broadcasts_and_casts_is_one_kernel() -> None:
    x, row, column, k = arg("x", *X), arg("row", 40), arg("column", N, 1), arg("k", N, 40, dtype=int64)
    y = OPS["tanh"](x * row + column) - OPS["cast"](k, dtype=float32)
    z = OPS["cast"](OPS["sigmoid"](OPS["cast"](y, dtype=float64)), dtype=float32)
    engine = compiled([OPS["where"](OPS["gt"](z, 0.5), z, y)], [x, row, column, k])
    assert kinds(engine) == ["map"]
    assert commands(engine) == 1


def test_a_contiguous_elementwise_kernel_is_one_flat_loop() -> None:
    x, y = arg("x", N, 5, 8), arg("y", N, 5, 8)
    (kernel,) = compiled([OPS["exp"](x) * y], [x, y]).compiled.program.kernels
    assert kernel.source.count("for ") == 1
    assert "//" not in kernel.source
    assert "floordiv" not in kernel.source


def test_a_reduction_takes_its_producers_and_consumers() -> None:
    x, y = arg("x", *X), arg("y", *X)
    product = OPS["exp"](x) * y
    rows = OPS["sum"](product, dims=(1,))
    assert kinds(compiled([OPS["sqrt"](rows) + 1.0], [x, y])) == ["row"]
    assert kinds(compiled([OPS["sum"](product, dims=(0,))], [x, y])) == ["column"]
    assert kinds(compiled([rows, OPS["max"](product, dims=(1,)), product], [x, y])) == ["row"]


def test_product_bias_and_activation_are_one_command() -> None:
    x, w, b, r = arg("x", N, 20), arg("w", 30, 20), arg("b", 30), arg("r", N, 30)
    engine = compiled([OPS["relu"](linear(x, w, b)) + r], [x, w, b, r])
    assert kinds(engine) == ["contract"]
    assert commands(engine) == 1
    assert [k.name for k in engine.compiled.program.kernels][1] == "matmul_add_relu_epilogue"


def test_a_product_does_not_take_what_it_reads_itself() -> None:
    # The operand is used behind the product again, but it has to be whole before the product starts.
    x, w = arg("x", 1, 6), arg("w", 6, 6)
    y = OPS["where"](OPS["gt"](x, 1.0), x * x, x)
    engine = compiled([y + OPS["matmul"](y, w)], [x, w])
    assert kinds(engine) == ["map", "contract"]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_all_parameters_are_updated_by_one_command_in_place(optimizer: str) -> None:
    x, y = arg("x", N, 6), arg("y", N, 3)
    params = [arg("w1", 8, 6), arg("b1", 8), arg("w2", 3, 8), arg("b2", 3)]
    error = linear(OPS["tanh"](linear(x, *params[:2])), *params[2:]) - y
    loss = mean(error * error)
    if optimizer == "sgd":
        found = gradients(loss, params)
        moments = [arg(f"m{i}", *p.shape) for i, p in enumerate(params)]
        new = [m * 0.9 + g for m, g in zip(moments, found, strict=True)]
        updates = dict(zip(moments, new, strict=True))
        updates |= {p: p - m * 0.1 for p, m in zip(params, new, strict=True)}
    else:
        lr, step = arg("lr", dtype=float64), arg("step", dtype=float64)
        updates = dict(models.adam(params, loss, lr, step)[1])
        updates[lr] = lr * 0.5
    engine = compiled([loss], [x, y], updates)
    program = engine.compiled.program
    shared = [c for c in program.commands if program.kernels[c.kernel].name == "shared_range"]
    assert [c.label.rpartition("_")[2] for c in shared if "sum" not in c.label] == ["x4"]
    assert not [c for c in program.commands if c.label.endswith("update")], "a state was copied"
    states = set(program.states)
    temps = [b for i, b in enumerate(program.buffers) if b.role == "temp" and i not in states]
    assert not [b for b in temps if b.name in ("sub", "add") and b.shape in [p.shape for p in params]]


def test_states_that_swap_are_not_mixed_up() -> None:
    a, b = arg("a", 50), arg("b", 50)
    compiled([a + b], [], {a: b, b: a})
    compiled([], [], {a: b * 2.0, b: a + b})


def test_a_state_read_elsewhere_is_not_overwritten_too_early() -> None:
    w, x = arg("w", 12, 12), arg("x", 12, 12)
    turned = OPS["permute"](w, dims=(1, 0))
    compiled([OPS["matmul"](x, w), turned * 2.0], [x], {w: w * 0.5 + turned})
    compiled([OPS["sum"](w, dims=(0,))], [x], {w: softmax(w)})
    compiled([w], [x], {w: OPS["matmul"](x, w)})
    picked = OPS["take"](w * 1.5, OPS["cast"](OPS["iota"](size=12), dtype=int64), dim=0)
    reversed_ = OPS["slice"](w * 1.5, starts=(11, 0), steps=(-1, 1), sizes=(12, 12))
    compiled([x], [x], {w: picked + reversed_})


def test_row_sized_states_are_updated_by_their_row_kernel() -> None:
    x, b = arg("x", N, 10), arg("b", 1)
    engine = compiled([], [x], {b: b - OPS["reshape"](total(x), shape=(1,)) * 0.1})
    assert not [c for c in engine.compiled.program.commands if c.label.endswith("update")]


def test_values_of_a_column_are_known_only_after_it() -> None:
    x = arg("x", *X)
    centred = x - OPS["sum"](x, dims=(0,))
    assert kinds(compiled([centred * centred], [x])) == ["column", "map"]


def test_nothing_waits_for_what_it_does_not_need() -> None:
    # The count of valid labels is needed by the gradient; it must not wait for the sum of the losses.
    x, labels = arg("x", N, 10), arg("labels", N, dtype=int64)
    picked = OPS["gather"](log_softmax(x), OPS["reshape"](labels, shape=(N, 1)), dim=1)
    valid = OPS["cast"](OPS["ne"](labels, 3), dtype=float32)
    loss = -total(OPS["reshape"](picked, shape=(N,)) * valid) / total(valid)
    engine = compiled([loss, *gradients(loss, [x])], [x, labels])
    assert kinds(engine) == ["row", "fold", "row"]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_loss_and_its_gradient_read_the_logits_once(reduction: str) -> None:
    @gf.compile
    def loss(x: gf.Tensor, y: gf.Tensor) -> object:
        return gf.value_and_grad(lambda x: F.cross_entropy(x, y, reduction=reduction))(x)

    x, y = gf.randn(50, 40), gf.randint(0, 40, (50,))
    loss(x, y)
    kernels = loss.explain().kernels
    assert sum("exp" in kernel.ops for kernel in kernels) == 1
    moved = [evaluate(k.bytes, {"batch": 50}) if isinstance(k.bytes, Dim) else k.bytes for k in kernels]
    assert 2 * 50 * 40 * 4 < sum(moved) < 2.2 * 50 * 40 * 4


def test_shapes_that_agree_but_for_ones_share_kernels() -> None:
    x, flat = arg("x", N, 10), arg("flat", N)
    scale = OPS["reshape"](OPS["exp"](flat) + OPS["sin"](flat), shape=(N, 1))
    assert kinds(compiled([softmax(x) * scale], [x, flat])) == ["row"]


@pytest.mark.parametrize("model", models.MODELS, ids=lambda m: m.__name__)
def test_units_hold_every_node_once(model) -> None:  # type: ignore[no-untyped-def]
    fused = fuse(model())
    seen: set[Node] = set()
    for unit in fused.units:
        assert len(unit.nodes) <= MAX_NODES
        for node in unit.nodes:
            assert node not in seen
            assert fused.unit_of.get(node, unit) is unit
            assert node in fused.unit_of or node not in fused.stored  # every kernel computes it for itself
            seen.add(node)
        needed = {fused.unit_of[n] for node in unit.nodes for n in node.inputs if n in fused.unit_of} - {unit}
        assert all(seen.issuperset(other.nodes) for other in needed)


def test_without_joining_every_op_is_alone() -> None:
    fused = fuse(models.layer_norm_log_softmax_gradient(), join=False)
    assert all(len(unit.nodes) == 1 for unit in fused.units)


def test_fusion_is_the_same_every_time() -> None:
    texts = [[k.source for k in compile_graph(models.mlp_adam()).compiled.program.kernels] for _ in range(2)]
    assert texts[0] == texts[1]


def labels(engine: Engine) -> list[str]:
    return [c.label.split("_", 1)[1] for c in engine.compiled.program.commands]


def test_parts_of_a_concatenation_are_written_to_their_place() -> None:
    x, w, y = arg("x", N, 3), arg("w", 3, 5), arg("y", N, 2)
    sine, product = OPS["sin"](x), OPS["matmul"](x, w)
    for dim, parts in (
        (1, (sine, product, OPS["cos"](x) * 2.0)),
        (0, (sine, OPS["cos"](x))),
        (1, (OPS["tanh"](product), sine)),
    ):
        for whole in (OPS["cat"](*parts, dim=dim), OPS["exp"](OPS["cat"](*parts, dim=dim))):
            assert "cat" not in labels(compiled([whole], [x, w]))
    # What is an input, read elsewhere as well, there twice, a view, or a result itself, is copied.
    for parts, results, copies in (
        ((sine, y), (), 1),
        ((sine, OPS["cos"](x)), (OPS["matmul"](sine, w),), 1),
        ((sine, sine), (), 2),
        ((sine, OPS["cos"](x)), (OPS["cat"](OPS["cos"](x), sine, dim=1), OPS["cat"](y, sine, dim=1)), 1),
        ((sine, OPS["cos"](x)), (OPS["cat"](OPS["cos"](x), sine, dim=0),), 2),
        ((product, OPS["cos"](x)), (OPS["cat"](OPS["cos"](x), product, dim=1),), 2),
        ((OPS["slice"](OPS["exp"](x), starts=(0, 1), steps=(1, 1), sizes=(N, 2)), sine), (), 1),
        ((sine, OPS["cos"](x)), (sine,), 1),
    ):
        engine = compiled([OPS["cat"](*parts, dim=1), *results], [x, y, w])
        assert labels(engine).count("cat") == copies


def test_a_state_that_becomes_a_concatenation_is_read_before() -> None:
    s, x = arg("s", 4, 6), arg("x", 4, 3)
    parts = [OPS["sin"](x), OPS["cos"](x)]
    last = OPS["slice"](s, starts=(0, 3), steps=(1, 1), sizes=(4, 3)) + parts[0]
    compiled([OPS["sum"](OPS["exp"](s), dims=(0, 1)), last], [x], {s: OPS["cat"](*parts, dim=1)})


def test_a_part_that_is_copied_into_a_state_has_memory_of_its_own() -> None:
    s, x = arg("s", 4, 3), arg("x", 4, 3)
    new = OPS["sin"](x)
    rows, columns = (OPS["cat"](new, OPS["cos"](x), dim=dim) for dim in (0, 1))
    # what reads the old value needs the new one, too
    compiled([OPS["matmul"](rows, OPS["permute"](s, dims=(1, 0)))], [x], {s: new})
    compiled([OPS["matmul"](OPS["permute"](columns, dims=(1, 0)), s)], [x], {s: new})


def test_parts_along_the_first_dimension_are_runs_of_the_whole() -> None:
    """Whoever computes or reads them; and so are slices for those who read by position."""
    x, w = arg("x", N, 3), arg("w", 3, 3)
    sine, product = OPS["sin"](x), OPS["matmul"](x, w)
    column = OPS["sum"](x * 2.0, dims=(0,))
    ordered = OPS["cumsum"](x, reverse=False)
    whole = OPS["cat"](sine, column, product, ordered, dim=0)
    others = [
        OPS["matmul"](sine, w),
        OPS["exp"](ordered),
        product + 1.0,
        OPS["cumsum"](column, reverse=False),
    ]
    assert "cat" not in labels(compiled([OPS["exp"](whole), *others], [x, w]))
    # The inner one of two lies in the outer one; what lies in another one already is copied.
    outer = OPS["cat"](OPS["cat"](sine, x, dim=0), product, dim=0)
    assert labels(compiled([OPS["exp"](outer)], [x, w])).count("cat") == 1
    assert labels(compiled([whole, outer], [x, w])).count("cat") == 3

    rows = OPS["slice"](OPS["exp"](whole), starts=(2, 0), steps=(1, 1), sizes=(3, 3))
    behind = OPS["slice"](rows, starts=(1, 0), steps=(1, 1), sizes=(2, 3))
    assert "copy" not in labels(
        compiled([OPS["cumsum"](rows, reverse=False), OPS["matmul"](behind, w)], [x, w])
    )
    # A narrower slice isn't a run of memory, nor is one with gaps.
    for starts, steps, sizes in (((2, 0), (1, 1), (3, 2)), ((0, 0), (2, 1), (3, 3))):
        part = OPS["slice"](OPS["exp"](whole), starts=starts, steps=steps, sizes=sizes)
        assert "copy" in labels(compiled([OPS["cumsum"](part, reverse=False)], [x, w]))


def test_what_is_only_added_to_a_product_needs_no_epilogue() -> None:
    """The core adds a matrix or a row; anything else is an epilogue's business."""
    x, w, row, column = arg("x", N, 5), arg("w", 5, 6), arg("row", 6), arg("column", N, 1)
    whole, wide, deep = arg("whole", N, 6), arg("wide", 6, N), arg("deep", 1100, 6)
    product = OPS["matmul"](x, w)
    for output, args, epilogue in (
        (product + row, (x, w, row), False),
        (whole + product, (x, w, whole), False),
        (product + OPS["slice"](row, starts=(5,), steps=(-1,), sizes=(6,)), (x, w, row), True),
        (product + column, (x, w, column), True),
        (product + OPS["permute"](wide, dims=(1, 0)), (x, w, wide), True),
        (product + whole + row, (x, w, whole, row), True),
        (product + product, (x, w), True),
        (OPS["tanh"](product + row), (x, w, row), True),
        (OPS["matmul"](OPS["permute"](deep, dims=(1, 0)), deep) + row, (deep, row), True),
        (OPS["cat"](product + whole, OPS["sin"](x), dim=1), (x, w, whole), False),
        (
            OPS["matmul"](x, w) + OPS["slice"](whole, starts=(0, 0), steps=(1, 1), sizes=(N, 6)),
            (x, w, whole),
            False,
        ),
    ):
        program = compiled([output], args).compiled.program
        assert any("epilogue" in k.name for k in program.kernels) is epilogue


def test_a_column_that_only_a_barrier_in_the_same_kernel_waits_for_has_a_place() -> None:
    x, bias = arg("x", *X), arg("bias", 40)
    wide = OPS["tanh"](x)
    column = OPS["prod"](wide, dims=(0,))
    after = OPS["barrier"](bias + 1.0, column)
    engine = compiled([wide, OPS["cos"](wide * after)], [x, bias])
    assert [column in unit.outputs for unit in engine.compiled.fused.units] == [True]

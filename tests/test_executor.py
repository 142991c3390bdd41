from __future__ import annotations

import gc
import threading

import numpy as np
import pytest
from graphflow.errors import CompileError, DTypeError, ShapeError, VerifyError
from graphflow.runtime import loader, threads
from graphflow.runtime.buffers import OutputPool
from graphflow.runtime.executor import INSTANCES_KEPT, Executor
from graphflow.runtime.program import (
    BlockArg,
    Buffer,
    BufferArg,
    Command,
    FunctionArg,
    Kernel,
    Program,
    SizeArg,
)
from graphflow.runtime.report import table

from runtime_kernels import F32, F64, I64, kernel, program, size

N = size("n")
BIG = 10_000_000  # nanoseconds: enough for any number of threads


@pytest.fixture(autouse=True)
def _threads():
    before = threads.get_num_threads()
    threads.set_num_threads(1)
    yield
    threads.set_num_threads(before)


def chain(work: int = 0) -> Program:
    """y = (x + w) mirrored * 0.5 + v, through one temp; one input, two states, one output."""
    flat = N * 16
    return program(
        ["add", "mirror"],
        [
            Buffer("input", F32, (N, 16), "x"),
            Buffer("state", F32, (4, 16), "w"),
            Buffer("state", F32, (4, 16), "v"),
            Buffer("output", F32, (N, 16), "y"),
            Buffer("temp", F32, (N, 16), "t", 0, 1),
        ],
        [
            Command(0, (BufferArg(0), BufferArg(1), BufferArg(4)), flat, 16, False, "first", work=work),
            Command(
                1,
                (BufferArg(4), BufferArg(2), BufferArg(3), SizeArg(flat)),
                flat,
                16,
                True,
                "second",
                work=work,
                bytes=flat * 12,
                flops=flat * 2,
            ),
        ],
        ["n"],
    )


def chain_reference(x, w, v):
    rows = len(x)
    t = (x + w[:rows]).ravel()
    return (t[::-1] * np.float32(0.5) + v[:rows].ravel()).reshape(x.shape)


def arrays(rows=4, seed=0):
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((rows, 16)).astype(np.float32)
    w, v = (generator.standard_normal((4, 16)).astype(np.float32) for _ in range(2))
    return x, w, v


def test_runs_at_several_sizes_and_infers_the_symbol():
    executor = Executor(chain())
    for rows in (4, 1, 3, 4):
        x, w, v = arrays(rows)
        (y,) = executor.run([x], (w, v))
        np.testing.assert_array_equal(y, chain_reference(x, w, v))
    assert [values["n"] for values in executor.kept_assignments] == [1, 3, 4]
    x, w, v = arrays(2)
    np.testing.assert_array_equal(executor.run([x], [w, v], {"n": 2})[0], chain_reference(x, w, v))


def test_zero_rows():
    executor = Executor(chain(BIG))
    for count in (1, 2):
        threads.set_num_threads(count)
        x, w, v = arrays(0)
        (y,) = executor.run([x], (w, v))
        assert y.shape == (0, 16)


def test_same_results_with_any_number_of_threads():
    executor = Executor(chain(BIG))
    x, w, v = arrays()
    expected = chain_reference(x, w, v)
    for count in (1, 2, 4, 7):
        threads.set_num_threads(count)
        for _ in range(50):
            np.testing.assert_array_equal(executor.run([x], (w, v))[0], expected)


def test_states_are_updated_in_place_and_may_be_replaced():
    increase = program(
        ["increase"],
        [Buffer("state", I64, (5,), "s")],
        [Command(0, (BufferArg(0), SizeArg(3)), 5, 1, False, "increase")],
    )
    executor = Executor(increase)
    first, second = np.zeros(5, np.int64), np.zeros(5, np.int64)
    for state in (first, first, second, first):
        assert executor.run([], (state,)) == []
    executor.run([], [second])
    assert (first == 9).all() and (second == 6).all()


def test_strided_misaligned_and_read_only_arrays():
    executor = Executor(chain())
    x, w, v = arrays()
    expected = chain_reference(x, w, v)
    strided = np.zeros((4, 32), np.float32)[:, ::2]
    strided[...] = x
    raw = np.zeros(x.nbytes + 1, np.uint8)
    misaligned = raw[1:].view(np.float32).reshape(x.shape)
    misaligned[...] = x
    frozen = x.copy()
    frozen.flags.writeable = False
    for form in (strided, misaligned, frozen, np.asfortranarray(x)):
        for _ in range(2):
            np.testing.assert_array_equal(executor.run([form], (w, v))[0], expected)


def test_states_with_symbolic_sizes():
    increase = program(
        ["increase"],
        [Buffer("state", I64, (N,), "s"), Buffer("state", I64, (N,), "t")],
        [Command(0, (BufferArg(0), SizeArg(N)), N, 1, False, "increase")],
        ["n"],
    )
    executor = Executor(increase)
    for length in (3, 5, 3):
        pair = (np.zeros(length, np.int64), np.zeros(length, np.int64))
        for call in range(1, 3):
            executor.run([], pair, {"n": length} if call == 1 else None)
            assert (pair[0] == call * length).all()
    for symbols in (None, {"n": 3}):
        with pytest.raises(ShapeError, match="state 't'"):
            executor.run([], (pair[0], pair[1][:2]), symbols)


def test_strided_states_are_written_back():
    increase = program(
        ["increase"],
        [Buffer("state", I64, (5,), "s")],
        [Command(0, (BufferArg(0), SizeArg(3)), 5, 1, False, "increase")],
    )
    executor = Executor(increase)
    state = np.zeros(10, np.int64)[::2]
    executor.run([], (state,))
    executor.run([], (state,))
    assert (state == 6).all()
    state.flags.writeable = False
    with pytest.raises(ValueError, match="'s' is read-only"):
        executor.run([], (state,))


@pytest.mark.parametrize("used", [False, True])
def test_errors_name_the_argument(used):
    executor = Executor(chain())
    x, w, v = arrays()
    if used:  # the fast path must see the same mistakes
        for _ in range(2):
            executor.run([x], (w, v))
    with pytest.raises(DTypeError, match="input 'x' has the dtype float64; it must have float32"):
        executor.run([x.astype(np.float64)], (w, v))
    with pytest.raises(DTypeError, match="'x'"):
        executor.run([x.astype(x.dtype.newbyteorder())], (w, v))
    with pytest.raises(
        ShapeError, match=r"'x' has the shape \(4, 15\); it must have \(4, 16\), which is \(n, 16\)"
    ):
        executor.run([x[:, :15]], (w, v))
    with pytest.raises(ShapeError, match="dimension"):
        executor.run([x[0]], (w, v))
    with pytest.raises(ShapeError, match="state 'v'"):
        executor.run([x], (w, v[:3]))
    with pytest.raises(ShapeError, match=r"'x' has the shape \(4, 16\); it must have \(3, 16\)"):
        executor.run([x], (w, v), {"n": 3})
    with pytest.raises(TypeError, match=r"numpy\.ndarray, not list"):
        executor.run([[1.0]], (w, v))
    with pytest.raises(TypeError, match=r"takes 1 input\(s\), not 2"):
        executor.run([x, x], (w, v))
    with pytest.raises(TypeError, match=r"takes 2 state\(s\), not 1"):
        executor.run([x], (w,))
    with pytest.raises(ShapeError, match="would have the shape"):
        executor.instance({"n": -1})
    with pytest.raises(ShapeError, match="'n'"):
        executor.instance({})
    # none of this left a lock or a broken instance behind
    np.testing.assert_array_equal(executor.run([x], (w, v))[0], chain_reference(x, w, v))


def test_outputs_never_alias_what_is_still_held():
    executor = Executor(chain())
    _, w, v = arrays()
    held = []
    for seed in range(6):
        x = arrays(seed=seed)[0]
        (y,) = executor.run([x], (w, v))
        # alternately the array, a view of it, a buffer
        piece = [y, y[1:], memoryview(y)][seed % 3]
        held.append((piece, np.array(piece)))
        del y
    for piece, copy in held:
        np.testing.assert_array_equal(np.asarray(piece), copy)


def test_output_memory_is_used_again_once_free():
    pool = OutputPool((1000,), np.dtype(np.float64))
    address = pool.take()[1]
    assert address % 64 == 0
    assert pool.take()[1] == address
    held = pool.take()[0]
    other, other_address = pool.take()
    assert other_address != address
    del held, other
    assert {pool.take()[1] for _ in range(5)} <= {address, other_address}
    scalar, _ = OutputPool((), np.dtype(np.float32)).take()
    assert scalar.shape == () and scalar.flags.writeable


def test_only_the_last_sizes_are_kept_and_big_arenas_replace_small_ones():
    executor = Executor(chain())
    small = executor.instance({"n": 1})
    assert executor.instance({"n": 1}) is small
    large = executor.instance({"n": 100})
    assert executor.kept_assignments == [{"n": 100}]
    assert executor.instance({"n": 1}).slab is large.slab
    for rows in range(2, 2 * INSTANCES_KEPT):
        executor.instance({"n": rows})
    assert len(executor.kept_assignments) == INSTANCES_KEPT
    assert executor.kept_assignments[-1] == {"n": 2 * INSTANCES_KEPT - 1}
    assert large.arena_bytes == 100 * 16 * 4


def test_instance_run_takes_addresses():
    executor = Executor(chain())
    x, w, v = arrays()
    y = np.empty_like(x)
    instance = executor.instance({"n": 4})
    del executor
    gc.collect()
    instance.run([a.ctypes.data for a in (x, w, v, y)])
    np.testing.assert_array_equal(y, chain_reference(x, w, v))
    with pytest.raises(ValueError, match="takes 4 pointers, not 1"):
        instance.run([0])


def test_nested_blocks_function_addresses_and_offsets():
    # each row i of the outer range: x[5 + i] += 7, through a function in a block in a block
    inner = BlockArg((BufferArg(0, offset=5), SizeArg(7)))
    nested = program(
        ["indirect", "increase"],
        [Buffer("state", I64, (20,), "s")],
        [Command(0, (BlockArg((FunctionArg(1), inner)),), 10, 1, False, "outer", work=BIG)],
    )
    executor = Executor(nested)
    expected = np.zeros(20, np.int64)
    state = np.zeros(20, np.int64)
    for count in (1, 3):
        threads.set_num_threads(count)
        executor.run([], (state,))
        expected[5:15] += 7
        np.testing.assert_array_equal(state, expected)


def test_scratch_is_private_to_a_thread_and_aligned():
    length = 64 * 50
    scratch = program(
        ["through_scratch", "where_is_scratch"],
        [Buffer("output", I64, (length,), "y"), Buffer("output", I64, (1,), "address")],
        [
            Command(0, (BufferArg(0), SizeArg(1)), length, 64, False, "a", scratch=512, work=BIG),
            Command(1, (BufferArg(1),), 1, 1, True, "b", scratch=100),
        ],
    )
    executor = Executor(scratch)
    for count in (1, 4):
        threads.set_num_threads(count)
        y, address = executor.run([])
        np.testing.assert_array_equal(y, np.arange(length))
        assert address[0] % 64 == 0
        assert executor.instance({}).scratch_bytes == 512 * count


def test_libm_is_found():
    sine = program(
        ["sine"], [Buffer("state", F64, (8,), "x")], [Command(0, (BufferArg(0),), 8, 1, False, "sine")]
    )
    x = np.linspace(0, 1, 8)
    expected = np.sin(x)
    Executor(sine).run([], (x,))
    np.testing.assert_allclose(x, expected, rtol=1e-15)


def test_profile_and_its_table():
    executor = Executor(chain(BIG))
    x, w, v = arrays()
    for count in (1, 2):
        threads.set_num_threads(count)
        (y,), times, _ = executor.profile([x], (w, v))
        np.testing.assert_array_equal(y, chain_reference(x, w, v))
        assert [(t.label, t.kernel) for t in times] == [("first", "add"), ("second", "mirror")]
        assert all(0 < t.nanoseconds < 1_000_000_000 for t in times)
        assert times[1].bytes == 4 * 16 * 12 and times[1].flops == 4 * 16 * 2
    text = table(times)
    assert "first" in text and "mirror" in text and "total" in text


def test_stepwise_shows_every_buffer():
    executor = Executor(chain())
    x, w, v = arrays()
    seen = []

    def before(index, command, array):
        seen.append(("before", index))
        # a callback may use the executor itself
        executor.run([x], (w, v))

    def after(index, command, array):
        seen.append((command.label, array(4).copy(), array(3).copy(), array(0).copy()))

    (y,) = executor.run_stepwise([x], (w, v), before=before, after=after)
    assert [s[0] for s in seen] == ["before", "first", "before", "second"]
    np.testing.assert_array_equal(seen[1][1], x + w)
    np.testing.assert_array_equal(seen[1][3], x)
    np.testing.assert_array_equal(seen[3][2], y)
    np.testing.assert_array_equal(y, chain_reference(x, w, v))
    assert executor.run_stepwise([x[:0]], (w, v), after=after)[0].shape == (0, 16)


def test_many_python_threads_on_one_executor():
    executor = Executor(chain(BIG))
    threads.set_num_threads(2)
    _, w, v = arrays()
    failures = []

    def work(seed):
        for step in range(60):
            x = arrays(1 + (seed + step) % 4, seed)[0]
            if not np.array_equal(executor.run([x], (w, v))[0], chain_reference(x, w, v)):
                failures.append((seed, step))

    callers = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not failures


def test_objects_are_shared_and_go_with_their_last_user():
    gc.collect()
    before = loader.loaded_count()
    first, second = Executor(chain()), Executor(chain())
    assert loader.loaded_count() <= before + 2
    del first
    gc.collect()
    x, w, v = arrays()
    np.testing.assert_array_equal(second.run([x], (w, v))[0], chain_reference(x, w, v))
    del second
    gc.collect()
    assert loader.loaded_count() <= before


def test_two_versions_of_one_symbol():
    a, b = kernel("increase", "twice"), kernel("mark", "twice")
    codes = loader.load([(k.digest, k.symbol, k.object_code) for k in (a, b)])
    assert len({code.address for code in codes}) == 2


def test_bad_objects():
    with pytest.raises(CompileError, match="not a whole object file"):
        loader.load([("0" * 64, "f", b"not an object")])
    good = kernel("add")
    with pytest.raises(CompileError, match="not a whole object file"):
        loader.load([("2" * 64, good.symbol, good.object_code[:-1])])
    with pytest.raises(CompileError, match="does not define"):
        loader.load([("1" * 64, "another_name", good.object_code)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(inputs=(3,)), "listed as input and is output"),
        (dict(outputs=(3, 3)), "listed twice"),
        (dict(inputs=(9,)), "isn't there"),
        (dict(states=(1,)), "is in no list"),
        (dict(symbols=()), "unknown symbol 'n'"),
        (dict(commands=(Command(7, (), 1, 1, False, "c"),)), "names kernel 7"),
        (dict(commands=(Command(0, (BufferArg(9),), 1, 1, False, "c"),)), "uses buffer 9"),
        (dict(commands=(Command(0, (BlockArg((FunctionArg(5),)),), 1, 1, False, "c"),)), "uses kernel 5"),
        (dict(commands=(Command(0, (SizeArg(size("m")),), 1, 1, False, "c"),)), "unknown symbol 'm'"),
    ],
)
def test_broken_programs_are_refused(change, message):
    good = chain()
    fields = {name: getattr(good, name) for name in good.__dataclass_fields__} | change
    with pytest.raises(VerifyError, match=message):
        Executor(Program(**fields))


def test_a_grain_of_zero_is_refused():
    bad = program(["add"], [Buffer("output", F32, (4,), "y")], [Command(0, (), 4, 0, False, "c")])
    with pytest.raises(VerifyError, match="grain"):
        Executor(bad).run([])


def test_no_commands_and_no_kernels():
    empty = Program("empty", (), (), (Buffer("input", F32, (2,), "x"),), (), (0,), (), ())
    assert Executor(empty).run([np.zeros(2, np.float32)]) == []


def test_kernel_is_plain_data():
    assert isinstance(kernel("add"), Kernel) and kernel("add").object_code

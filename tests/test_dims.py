from __future__ import annotations

import pytest
from graphflow.dims import (
    Dim,
    ceil_div,
    choose,
    divide,
    evaluate,
    gcd_constant,
    maximum,
    minimum,
    parse,
    product,
    substitute,
)
from hypothesis import given
from hypothesis import strategies as st

NAMES = ("n", "m", "batch_2")
N, M = Dim.symbol("n"), Dim.symbol("m")

values = st.fixed_dictionaries({name: st.integers(0, 50) for name in NAMES})


def _grow(inner):
    pairs = st.tuples(inner, inner)
    return st.one_of(
        pairs.map(lambda p: p[0] + p[1]),
        pairs.map(lambda p: p[0] - p[1]),
        pairs.map(lambda p: p[0] * p[1]),
        st.tuples(inner, st.integers(1, 9)).map(lambda p: p[0] // p[1]),
        st.tuples(inner, st.integers(1, 9)).map(lambda p: p[0] % p[1]),
        st.tuples(inner, inner, inner).map(lambda p: choose(*p)),
    )


sizes = st.recursive(st.integers(-6, 6) | st.sampled_from(NAMES).map(Dim.symbol), _grow, max_leaves=6)


@given(sizes, sizes, values)
def test_arithmetic_means_that_of_numbers(a, b, numbers):
    x, y = evaluate(a, numbers), evaluate(b, numbers)
    assert evaluate(a + b, numbers) == x + y
    assert evaluate(a - b, numbers) == x - y
    assert evaluate(a * b, numbers) == x * y
    assert evaluate(-1 * a, numbers) == -x
    assert evaluate(product([a, b, a]), numbers) == x * y * x


@given(sizes, sizes, sizes, values)
def test_choices(a, b, c, numbers):
    x, y, z = (evaluate(size, numbers) for size in (a, b, c))
    assert evaluate(choose(a, b, c), numbers) == (y if x > 0 else z)
    assert evaluate(minimum(a, b), numbers) == min(x, y)
    assert evaluate(maximum(a, b), numbers) == max(x, y)


@given(sizes, st.integers(1, 12), values)
def test_division_rounds_down(a, divisor, numbers):
    x = evaluate(a, numbers)
    assert evaluate(a // divisor, numbers) == x // divisor
    assert evaluate(a % divisor, numbers) == x % divisor
    assert evaluate(ceil_div(a, divisor), numbers) == -(-x // divisor)


@given(sizes, sizes, values)
def test_exact_division_is_exact(a, b, numbers):
    quotient = divide(a, b)
    if quotient is not None and evaluate(b, numbers):
        assert evaluate(quotient, numbers) * evaluate(b, numbers) == evaluate(a, numbers)


@given(sizes, sizes)
def test_canonical_form(a, b):
    assert a + b == b + a and hash(a + b) == hash(b + a)
    assert a * b == b * a and (a + b) - b == a
    assert a - a == 0 and isinstance(a - a, int)
    assert (a + 1) * (a - 1) == a * a - 1


@given(sizes)
def test_text_reads_back(a):
    assert parse(str(a)) == a


@given(sizes, sizes, values)
def test_substitution_then_evaluation(a, b, numbers):
    replaced = substitute(a, {"n": b})
    assert evaluate(replaced, numbers) == evaluate(a, numbers | {"n": evaluate(b, numbers)})
    if isinstance(a, Dim):
        assert substitute(a, numbers) == evaluate(a, numbers)


@given(sizes, values)
def test_gcd_divides(a, numbers):
    factor = gcd_constant(a)
    if factor:
        assert evaluate(a, numbers) % factor == 0


def test_constants_are_plain_integers():
    assert N * 0 == 0 and isinstance(N * 0, int)
    assert isinstance(N - N + 3, int)
    assert isinstance((4 * N) // N, int) and (4 * N) // N == 4
    assert isinstance((N % 1), int)


def test_exact_division_leaves_no_floor():
    assert (6 * N * M) // (2 * N) == 3 * M
    assert (4 * N + 8) // 4 == N + 2
    assert divide(N, 2) is None and divide(N + 1, N) is None and divide(7, 2) is None and divide(N, 0) is None
    assert str((N + 1) // 2) == "((n+1)//2)"


def test_text():
    assert str(3 * N * M - N + 2) in {"3*m*n-n+2", "-n+3*m*n+2"}
    assert str(-1 * N) == "-n"
    assert parse("2*(n+1)") == 2 * N + 2
    assert parse(" ((n+1)//2)*4 ") == (N + 1) // 2 * 4


def test_choice_text():
    assert str(choose(N, M, 2)) == "choose(n, m, 2)"
    assert parse("choose(n+1, 3, m)*2") == choose(N + 1, 3, M) * 2
    assert choose(1, M, N) == M and choose(0, M, N) == N and choose(N, M, M) == M


def test_symbols():
    assert choose(N, 1, M).symbols() == {"n", "m"}
    assert ((N + 1) // 2 * M).symbols() == {"n", "m"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "n n",
        "2**n",
        "n//0",
        "n//m",
        "(n",
        "n)",
        "f(n)",
        "n.x",
        "1.5",
        "n+",
        "choose(n, 1)",
        "choose(n, 1, 2, 3)",
        "choose(1, 2, 3",
        "__import__('os')",
        "(" * 60 + "n",
    ],
)
def test_texts_that_are_no_sizes(text):
    with pytest.raises(ValueError, match=r"not a size|can't divide"):
        parse(text)


def test_bad_operations():
    with pytest.raises(ValueError, match="identifier"):
        Dim.symbol("2n")
    with pytest.raises(ValueError, match="can't divide"):
        _ = N // M
    with pytest.raises(ValueError, match="can't divide"):
        _ = N // 0
    with pytest.raises(KeyError):
        evaluate(N, {})

"""Kernel text of attention: online softmax over blocks of keys, and its gradient.

Milakov and Gimelshein, "Online normalizer calculation for softmax" (2018); Dao et al., "FlashAttention"
(2022).
R queries at a time meet C keys at a time. Sums over keys and queries go block by block in order, whoever
computes them, so that results don't depend on the threads.
"""

from __future__ import annotations

import textwrap

from graphflow.compiler.ir import Node

_MASK = "b[(i0 + i) * b_0 + (j0 + j) * b_1]"


def _scores(node: Node, mask: int, used: str) -> str:
    """The loops over a line of products that leave in `y` the score of each key that row i sees, and do what
    `used` says with it.

    Lines are worked off in whole runs of 64, which need no scalar remainder; what isn't seen has a score of
    -inf. A mask ends with the keys, so it is added in a loop of its own.
    """
    scale = f"{{t}}({node.attrs['scale']!r})"
    seen = "maximum_i64(0, minimum_i64(cols, i0 + i + 1 - j0))" if node.attrs["causal"] else "cols"
    lines = ["line = s + i * C", f"seen = {seen}", "wide = (seen + 63) & -64"]
    score = f"select(j < seen, line[j] * {scale}, {{t}}(-inf))"
    if len(node.inputs) > mask:
        there = _MASK
        masked = f"line[j] * {scale} + {there}"
        if node.inputs[mask].dtype.kind == "bool":
            left = "-inf" if node.attrs["fill"] is None else repr(node.attrs["fill"])
            masked = f"select({there}, line[j] * {scale}, {{t}}({left}))"
        lines += ["for j in range(0, seen):", f"    line[j] = {masked}"]
        score = "select(j < seen, line[j], {t}(-inf))"
    lines += ["for j in range(0, wide):", f"    y = {score}", *textwrap.indent(used, "    ").split("\n")]
    return textwrap.indent("\n".join(lines), " " * 8).strip()


def forward(node: Node) -> str:
    """One block of queries against all blocks of keys."""
    last = "minimum_i64(m, i0 + rows)" if node.attrs["causal"] else "m"
    # A row without any key is zero where a mask says so, and NaN where infinite scores do, as softmax has it.
    zeros = len(node.inputs) > 3 and node.attrs["fill"] is None
    empty = "{t}(inf)" if zeros else "select(m > 0, {t}(nan), {t}(inf))"
    largest = _scores(node, 3, "line[j] = y\nbest = acc_max_{t}(best, y)")
    return f"""
i0 = part * R
rows = minimum_i64(R, n - i0)
last = {last}
for i in range(0, rows):
    top[i] = {{t}}(-inf)
    total[i] = {{t}}(0)
for j0 in range(0, last, C):
    cols = minimum_i64(C, last - j0)
    padded = (cols + 63) & -64
    multiply(core, work, q + i0 * q_0, q_0, q_1, k + j0 * k_0, k_1, k_0, s, C, rows, cols, d)
    for i in range(0, rows):
        best = top[i]
        {largest}
        for j in range(wide, padded):
            line[j] = {{t}}(-inf)
        new[i] = best
    for i in range(0, rows):
        best = select(new[i] == {{t}}(-inf), {{t}}(0), new[i])
        factor[i] = exp_{{t}}(top[i] - best)
        top[i] = new[i]
        shift[i] = best
    for i in range(0, rows):
        line = s + i * C
        best = shift[i]
        added = {{t}}(0)
        for j in range(0, padded):
            p = exp_{{t}}(line[j] - best)
            line[j] = p
            added = acc_add_{{t}}(added, p)
        new[i] = added
    for i in range(0, rows):
        total[i] = total[i] * factor[i] + new[i]
    if j0 == 0:
        multiply(core, work, s, C, 1, v, v_0, v_1, o + i0 * e, e, rows, e, cols)
    else:
        multiply(core, work, s, C, 1, v + j0 * v_0, v_0, v_1, t, e, rows, e, cols)
        for i in range(0, rows):
            best = factor[i]
            line = o + (i0 + i) * e
            other = t + i * e
            for c in range(0, e):
                line[c] = line[c] * best + other[c]
for i in range(0, rows):
    none = total[i] == 0
    l[i0 + i] = select(none, {empty}, shift[i] + log_{{t}}(total[i]))
    new[i] = select(none, {empty}, total[i])
for i in range(0, rows):
    line = o + (i0 + i) * e
    best = new[i]
    for c in range(0, e):
        line[c] = select(last > 0, line[c], {{t}}(0)) / best
"""


def _added(target: str, size: str, first: str, spare: str, product: str) -> str:
    """A product stored into `target` at the first turn, and from then on added to it by way of `spare`."""
    return f"""
        if {first}:
            multiply(core, work, {product.replace("TARGET", target)})
        else:
            multiply(core, work, {product.replace("TARGET", spare)})
            line = {target}
            for c in range(0, {size}):
                line[c] = line[c] + {spare}[c]
""".strip("\n")


_OF_VALUES = _added(
    "dv + j0 * e", "cols * e", "i0 == start", "z",
    "s, 1, C, g + i0 * g_0, g_0, g_1, TARGET, e, cols, e, rows",
)  # fmt: skip
_OF_KEYS = _added(
    "dk + j0 * d", "cols * d", "i0 == start", "t",
    "u, 1, C, q + i0 * q_0, q_0, q_1, TARGET, d, cols, d, rows",
)  # fmt: skip
_OF_QUERIES = _added(
    "dq + i0 * d", "rows * d", "j0 == share0", "t",
    "u, C, 1, k + j0 * k_0, k_0, k_1, TARGET, d, rows, d, cols",
)  # fmt: skip


def gradient(node: Node) -> str:
    """A share of a batch item's blocks of keys, each against all blocks of queries."""
    first = "floordiv_i64(j0, R) * R" if node.attrs["causal"] else "i64(0)"
    used = f"""
p = select(j < seen, exp_{{t}}(y - size), {{t}}(0))
line[j] = p
other[j] = select(j < seen, p * (other[j] - mean) * {{t}}({node.attrs["scale"]!r}), {{t}}(0))
"""
    weights = _scores(node, 6, used.strip())
    if node.attrs["fill"] is not None and len(node.inputs) > 6 and node.inputs[6].dtype.kind == "bool":
        weights += f"""
        for j in range(0, seen):
            other[j] = select({_MASK}, other[j], {{t}}(0))"""
    weights = textwrap.indent(weights, " " * 4).strip()
    return f"""
blocks = floordiv_i64(m + C - 1, C)
share0 = floordiv_i64(share * blocks, shares) * C
share1 = minimum_i64(floordiv_i64((share + 1) * blocks, shares) * C, m)
skipped = n
if share0 < share1:
    j0 = share0
    skipped = minimum_i64(n, {first})
for c in range(0, skipped * d):
    dq[c] = {{t}}(0)
for j0 in range(share0, share1, C):
    cols = minimum_i64(C, m - j0)
    start = {first}
    if start >= n:
        for c in range(j0 * d, (j0 + cols) * d):
            dk[c] = {{t}}(0)
        for c in range(j0 * e, (j0 + cols) * e):
            dv[c] = {{t}}(0)
    for i0 in range(start, n, R):
        rows = minimum_i64(R, n - i0)
        multiply(core, work, q + i0 * q_0, q_0, q_1, k + j0 * k_0, k_1, k_0, s, C, rows, cols, d)
        multiply(core, work, g + i0 * g_0, g_0, g_1, v + j0 * v_0, v_1, v_0, u, C, rows, cols, e)
        for i in range(0, rows):
            other = u + i * C
            size = l[(i0 + i) * l_0]
            mean = w[(i0 + i) * w_0]
            {weights}
            for j in range(wide, cols):
                line[j] = {{t}}(0)
                other[j] = {{t}}(0)
{_OF_VALUES}
{_OF_KEYS}
{_OF_QUERIES}
"""

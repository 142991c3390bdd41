"""Kernel text of linear algebra: each is a procedure on one row-major matrix."""

from __future__ import annotations

from graphflow.compiler.ir import Node

# LU decomposition with partial pivoting in w; `extra` are statements that swap what goes along with rows.
_LU = """
for i in range(0, n * n):
    w[i] = a[i]
sign = {t}(1)
regular = n >= 0
for j in range(0, n):
    p = j
    best = abs_{t}(w[j * n + j])
    for i in range(j + 1, n):
        v = abs_{t}(w[i * n + j])
        if (v > best) or ((v != v) and (best == best)):
            best = v
            p = i
    if p != j:
        sign = -sign
        for c in range(0, n):
            v = w[j * n + c]
            w[j * n + c] = w[p * n + c]
            w[p * n + c] = v
EXTRA
    d = w[j * n + j]
    if d == 0:
        regular = n < 0
    else:
        for i in range(j + 1, n):
            f = w[i * n + j] / d
            w[i * n + j] = f
            for c in range(j + 1, n):
                w[i * n + c] = w[i * n + c] - f * w[j * n + c]
"""

_SWAP_X = """
        for c in range(0, k):
            v = x[j * k + c]
            x[j * k + c] = x[p * k + c]
            x[p * k + c] = v
"""

SOLVE = (
    """
for i in range(0, n * k):
    x[i] = b[i]
"""
    + _LU.replace("EXTRA", _SWAP_X.strip("\n"))
    + """
if regular:
    for j in range(0, n):
        for i in range(j + 1, n):
            f = w[i * n + j]
            for c in range(0, k):
                x[i * k + c] = x[i * k + c] - f * x[j * k + c]
    for j in range(n - 1, -1, -1):
        d = w[j * n + j]
        for c in range(0, k):
            x[j * k + c] = x[j * k + c] / d
        for i in range(0, j):
            f = w[i * n + j]
            for c in range(0, k):
                x[i * k + c] = x[i * k + c] - f * x[j * k + c]
else:
    for i in range(0, n * k):
        x[i] = {t}(1e999 - 1e999)
"""
)

DET = (
    (
        _LU.replace("EXTRA\n", "")
        + """
total = sign
for j in range(0, n):
    total = total * w[j * n + j]
d[0] = total
"""
    )
    .replace("    d = w[j * n + j]\n    if d == 0", "    e = w[j * n + j]\n    if e == 0")
    .replace("/ d\n", "/ e\n")
)

SLOGDET = (
    (
        _LU.replace("EXTRA\n", "")
        + """
total = {t}(0)
for j in range(0, n):
    e = w[j * n + j]
    total = total + log_{t}(abs_{t}(e))
    sign = sign * (sign_{t}(e))
s[0] = sign
d[0] = total
"""
    )
    .replace("    d = w[j * n + j]\n    if d == 0", "    e = w[j * n + j]\n    if e == 0")
    .replace("/ d\n", "/ e\n")
)


def triangular(node: Node) -> str:
    """Substitution, forwards or backwards."""
    upper, unit = node.attrs["upper"], node.attrs["unit"]
    steps = "range(n - 1, -1, -1)" if upper else "range(0, n)"
    rest = "range(0, j)" if upper else "range(j + 1, n)"
    divide = (
        ""
        if unit
        else """
    d = a[j * n + j]
    for c in range(0, k):
        x[j * k + c] = x[j * k + c] / d
"""
    )
    return f"""
for i in range(0, n * k):
    x[i] = b[i]
for j in {steps}:
{divide.strip(chr(10))}
    for i in {rest}:
        f = a[i * n + j]
        for c in range(0, k):
            x[i * k + c] = x[i * k + c] - f * x[j * k + c]
"""


CHOLESKY = """
regular = n >= 0
for i in range(0, n):
    for j in range(0, n):
        if j > i:
            x[i * n + j] = {t}(0)
        else:
            total = a[i * n + j]
            for c in range(0, j):
                total = total - x[i * n + c] * x[j * n + c]
            if i == j:
                if total > 0:
                    x[i * n + i] = sqrt_{t}(total)
                else:
                    regular = n < 0
                    x[i * n + i] = {t}(1)
            else:
                x[i * n + j] = total / x[j * n + j]
if not regular:
    for i in range(0, n * n):
        x[i] = {t}(1e999 - 1e999)
"""

# LAPACK's reflections, whose signs they share: the last row of a square matrix isn't reflected.
QR = """
for i in range(0, m * n):
    w[i] = a[i]
steps = minimum_i64(m, n)
for j in range(0, steps):
    below = {t}(0)
    for i in range(j + 1, m):
        below = below + w[i * n + j] * w[i * n + j]
    tau[j] = {t}(0)
    if below != 0:
        alpha = w[j * n + j]
        beta = sqrt_{t}(alpha * alpha + below)
        if alpha >= 0:
            beta = -beta
        tau[j] = (beta - alpha) / beta
        for i in range(j + 1, m):
            w[i * n + j] = w[i * n + j] / (alpha - beta)
        w[j * n + j] = beta
        for c in range(j + 1, n):
            dot = w[j * n + c]
            for i in range(j + 1, m):
                dot = dot + w[i * n + j] * w[i * n + c]
            dot = dot * tau[j]
            w[j * n + c] = w[j * n + c] - dot
            for i in range(j + 1, m):
                w[i * n + c] = w[i * n + c] - dot * w[i * n + j]
for i in range(0, k):
    for c in range(0, n):
        if c >= i:
            r[i * n + c] = w[i * n + c]
        else:
            r[i * n + c] = {t}(0)
for i in range(0, m):
    for c in range(0, k):
        q[i * k + c] = {t}(i == c)
for j in range(steps - 1, -1, -1):
    for c in range(0, k):
        dot = q[j * k + c]
        for i in range(j + 1, m):
            dot = dot + w[i * n + j] * q[i * k + c]
        dot = dot * tau[j]
        q[j * k + c] = q[j * k + c] - dot
        for i in range(j + 1, m):
            q[i * k + c] = q[i * k + c] - dot * w[i * n + j]
"""

_EPSILON = {"float32": 1.2e-7, "float64": 2.3e-16}

_ROTATION = """
                t = {t}(1) / (abs_{t}(zeta) + sqrt_{t}(zeta * zeta + 1))
                if zeta < 0:
                    t = -t
                cosine = {t}(1) / sqrt_{t}(t * t + 1)
                sine = cosine * t
"""


def _rotate(matrix: str, first: str, second: str, count: str) -> str:
    return f"""
                for i in range(0, {count}):
                    x = {matrix}[{first}]
                    y = {matrix}[{second}]
                    {matrix}[{first}] = cosine * x - sine * y
                    {matrix}[{second}] = sine * x + cosine * y
"""


def _settle(descending: bool, values: str, columns: tuple[tuple[str, str], ...], signed: str) -> str:
    """Puts values into order with their columns, and turns columns whose largest element is negative."""
    better = ">" if descending else "<"
    swaps = "".join(
        f"""
        for i in range(0, {rows}):
            x = {name}[i * n + j]
            {name}[i * n + j] = {name}[i * n + best]
            {name}[i * n + best] = x
"""
        for name, rows in columns
    )
    turns = "".join(
        f"""
        for i in range(0, {rows}):
            {name}[i * n + j] = -{name}[i * n + j]
"""
        for name, rows in columns
    )
    return f"""
for j in range(0, n):
    best = j
    for c in range(j + 1, n):
        if {values}[c] {better} {values}[best]:
            best = c
    if best != j:
        x = {values}[j]
        {values}[j] = {values}[best]
        {values}[best] = x
{swaps}
    largest = {{t}}(0)
    for i in range(0, n):
        largest = maximum_{{t}}(largest, abs_{{t}}({signed}[i * n + j]))
    chosen = {{t}}(0)
    for i in range(0, n):
        x = {signed}[i * n + j]
        if (chosen == 0) and (abs_{{t}}(x) >= {{t}}(0.999) * largest):
            chosen = x
    if chosen < 0:
{turns.strip(chr(10))}
"""


def eigh(node: Node) -> str:
    """Cyclic Jacobi rotations until the matrix is diagonal."""
    limit = _EPSILON[node.inputs[0].dtype.name] ** 2
    return f"""
whole = {{t}}(0)
for i in range(0, n):
    for j in range(0, n):
        s[i * n + j] = a[maximum_i64(i, j) * n + minimum_i64(i, j)]
        whole = whole + s[i * n + j] * s[i * n + j]
        v[i * n + j] = {{t}}(i == j)
for sweep in range(0, 60):
    off = {{t}}(0)
    for i in range(0, n):
        for j in range(0, i):
            off = off + s[i * n + j] * s[i * n + j]
    if off <= whole * {{t}}({limit}):
        break
    for p in range(0, n):
        for q in range(p + 1, n):
            g = s[p * n + q]
            if g != 0:
                zeta = (s[q * n + q] - s[p * n + p]) / (2 * g)
{_ROTATION.strip(chr(10))}
{_rotate("s", "i * n + p", "i * n + q", "n").strip(chr(10))}
{_rotate("s", "p * n + i", "q * n + i", "n").strip(chr(10))}
{_rotate("v", "i * n + p", "i * n + q", "n").strip(chr(10))}
for i in range(0, n):
    w[i] = s[i * n + i]
{_settle(False, "w", (("v", "n"),), "v")}
"""


def svd(node: Node) -> str:
    """One-sided Jacobi rotations until the columns of u are orthogonal; their lengths are the values."""
    epsilon = _EPSILON[node.inputs[0].dtype.name]
    return f"""
for i in range(0, m * n):
    u[i] = a[i]
for i in range(0, n):
    for j in range(0, n):
        v[i * n + j] = {{t}}(i == j)
for sweep in range(0, 60):
    turned = i64(0)
    for p in range(0, n):
        for q in range(p + 1, n):
            alpha = {{t}}(0)
            beta = {{t}}(0)
            g = {{t}}(0)
            for i in range(0, m):
                x = u[i * n + p]
                y = u[i * n + q]
                alpha = alpha + x * x
                beta = beta + y * y
                g = g + x * y
            if abs_{{t}}(g) > {{t}}({epsilon}) * sqrt_{{t}}(alpha) * sqrt_{{t}}(beta):
                turned = i64(1)
                zeta = (beta - alpha) / (2 * g)
{_ROTATION.strip(chr(10))}
{_rotate("u", "i * n + p", "i * n + q", "m").strip(chr(10))}
{_rotate("v", "i * n + p", "i * n + q", "n").strip(chr(10))}
    if turned == 0:
        break
for j in range(0, n):
    total = {{t}}(0)
    for i in range(0, m):
        total = total + u[i * n + j] * u[i * n + j]
    s[j] = sqrt_{{t}}(total)
{_settle(True, "s", (("u", "m"), ("v", "n")), "v")}
for j in range(0, n):
    if s[j] > {{t}}({epsilon}) * s[0]:
        for i in range(0, m):
            u[i * n + j] = u[i * n + j] / s[j]
    else:
        # a vanishing column has no direction: any that is orthogonal to those before
        found = i64(0)
        for e in range(0, m):
            if found == 0:
                for i in range(0, m):
                    u[i * n + j] = {{t}}(i == e)
                for twice in range(0, 2):
                    for c in range(0, j):
                        dot = {{t}}(0)
                        for i in range(0, m):
                            dot = dot + u[i * n + c] * u[i * n + j]
                        for i in range(0, m):
                            u[i * n + j] = u[i * n + j] - dot * u[i * n + c]
                total = {{t}}(0)
                for i in range(0, m):
                    total = total + u[i * n + j] * u[i * n + j]
                if total * (2 * m) > 1:
                    found = i64(1)
                    total = sqrt_{{t}}(total)
                    for i in range(0, m):
                        u[i * n + j] = u[i * n + j] / total
"""

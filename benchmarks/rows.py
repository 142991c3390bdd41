"""Row kernels beside PyTorch's: norms, softmax, cross-entropy and pooling, forward and with all gradients.

Run ``python benchmarks/rows.py [--threads N] [--only NAME]``, one thread unless said. The contestants take
turns within one process, so that a busy machine hurts all alike; each figure is the best of its rounds. With
one thread it is that thread's CPU time, with more it is time on the wall. Bytes are those of operands and
results, each once; ratios are PyTorch's time to ours. Results are compared first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import turns

ARGUMENTS = turns.parser(__doc__)
ARGUMENTS.add_argument("--only", default="", help="cases whose title has this in it")
GIVEN = ARGUMENTS.parse_args()
turns.hold(GIVEN.threads)

import numpy as np  # noqa: E402

import graphflow as gf  # noqa: E402
import graphflow.nn.functional as ours  # noqa: E402
from graphflow.utils.checkpoint import checkpoint  # noqa: E402

try:
    import torch
    import torch.nn.functional as theirs
except ImportError:
    sys.exit("this comparison needs PyTorch")
torch.set_num_threads(GIVEN.threads)

Call = Callable[[], Sequence[Any]]
Function = Callable[..., Any]  # of the module of functions, x, and the other operands
Shapes = Sequence[tuple[int, ...]]


def batch_norm(F: Any, x: Any, w: Any, b: Any) -> Any:
    """By the batch's own statistics."""
    return F.batch_norm(x, None, None, w, b, True)


def pool_again(F: Any, x: Any) -> Any:
    """Without stored places of the peaks: the gradient looks for them again."""
    pool = partial(F.max_pool2d, kernel_size=3, stride=2, padding=1)
    return pool(x) if F is theirs else checkpoint(pool, x, use_reentrant=False)


#: Title, shape of x, shapes of parameters, how many classes labels have (0: there are none), the function.
Case = tuple[str, tuple[int, ...], Shapes, int, Function]
CASES: list[Case] = [
    ("layer_norm", (4096, 768), ((768,), (768,)), 0, lambda F, x, w, b: F.layer_norm(x, (768,), w, b)),
    ("layer_norm", (768, 128), ((128,), (128,)), 0, lambda F, x, w, b: F.layer_norm(x, (128,), w, b)),
    ("rms_norm", (4096, 768), ((768,),), 0, lambda F, x, w: F.rms_norm(x, (768,), w)),
    ("batch_norm", (4096, 256), ((256,), (256,)), 0, batch_norm),
    ("batch_norm", (64, 64, 32, 32), ((64,), (64,)), 0, batch_norm),
    ("batch_norm", (64, 512, 4, 4), ((512,), (512,)), 0, batch_norm),
    ("softmax", (4096, 768), (), 0, lambda F, x: F.softmax(x, -1)),
    ("softmax", (48, 64, 64), (), 0, lambda F, x: F.softmax(x, -1)),
    ("log_softmax", (4096, 768), (), 0, lambda F, x: F.log_softmax(x, -1)),
    ("log_softmax", (64, 32000), (), 0, lambda F, x: F.log_softmax(x, -1)),
    ("cross_entropy", (4096, 1000), (), 1000, lambda F, x, y: F.cross_entropy(x, y)),
    ("cross_entropy", (768, 65), (), 65, lambda F, x, y: F.cross_entropy(x, y)),
    ("cross_entropy", (128, 10), (), 10, lambda F, x, y: F.cross_entropy(x, y)),
    ("max_pool 2x2", (32, 64, 32, 32), (), 0, lambda F, x: F.max_pool2d(x, 2)),
    ("max_pool 3x3 by 2", (32, 64, 32, 32), (), 0, lambda F, x: F.max_pool2d(x, 3, 2, 1)),
    ("max_pool 3x3 by 2 again", (32, 64, 32, 32), (), 0, pool_again),
]


def our_calls(function: Function, wanted: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> list[Any]:
    """The compiled function, and a maker of the call that has the gradients for a cotangent."""
    operands, fixed = [gf.tensor(v) for v in wanted], [gf.tensor(v) for v in labels]
    forward = gf.compile(lambda operands, fixed: function(ours, *operands, *fixed))

    @gf.compile
    def step(operands: Any, fixed: Any, g: gf.Tensor) -> Any:
        result, pull = gf.vjp(lambda *o: function(ours, *o, *fixed), *operands)
        return [result, *pull(g)]

    def with_gradients(g: np.ndarray) -> Call:
        cotangent = gf.tensor(g)
        return lambda: step(operands, fixed, cotangent)

    return [lambda: [forward(operands, fixed)], with_gradients]


def their_calls(function: Function, wanted: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> list[Any]:
    """The same in PyTorch."""
    operands = [torch.from_numpy(v).requires_grad_() for v in wanted]
    fixed = [torch.from_numpy(v) for v in labels]

    def forward() -> Sequence[Any]:
        with torch.no_grad():
            return [function(theirs, *operands, *fixed)]

    def with_gradients(g: np.ndarray) -> Call:
        cotangent = torch.from_numpy(g)

        def step() -> Sequence[Any]:
            result = function(theirs, *operands, *fixed)
            return [result.detach(), *torch.autograd.grad(result, operands, cotangent)]

        return step

    return [forward, with_gradients]


def compare(title: str, pair: Sequence[Call], read: int) -> float:
    """Prints one line of the table; the ratio. `read` are bytes of operands."""
    one, other = ([np.asarray(v) for v in call()] for call in pair)
    for a, b in zip(one, other, strict=True):
        if not np.allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(b).max()):
            raise AssertionError(f"{title}: the results differ")
    moved = read + sum(v.nbytes for v in other)
    return turns.row(title, turns.best(pair, GIVEN.threads, GIVEN.rounds), moved)


def main() -> None:
    """Prints the table."""
    random = np.random.default_rng(0)
    turns.head(GIVEN.threads, "GB/s")
    ratios = []
    for name, shape, parameters, classes, function in CASES:
        title = f"{name} {'x'.join(map(str, shape))}"
        if GIVEN.only not in title:
            continue
        wanted = [random.standard_normal(s).astype(np.float32) for s in (shape, *parameters)]
        labels = [random.integers(0, classes, shape[0])] if classes else []
        calls = [of(function, wanted, labels) for of in (our_calls, their_calls)]
        (result,) = calls[1][0]()
        g = np.asarray(random.standard_normal(tuple(result.shape)), np.float32)
        read = sum(v.nbytes for v in (*wanted, *labels))
        ratios.append(compare(f"{title}: forward", [forward for forward, _ in calls], read))
        steps = [with_gradients(g) for _, with_gradients in calls]
        ratios.append(compare(f"{title}: with gradients", steps, read + g.nbytes))
    print(f"geometric mean of the ratios: {np.exp(np.mean(np.log(ratios))):.2f}")


if __name__ == "__main__":
    main()

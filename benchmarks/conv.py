"""The convolutions of the `cnn` workload beside PyTorch's (oneDNN), with the gradients of image and window.

Run ``python benchmarks/conv.py [--threads N] [--all]``, one thread unless said. The contestants take turns
within one process, so that a busy machine hurts all alike; each figure is the best of its rounds. With one
thread it is that thread's CPU time, with more it is time on the wall. Ratios are PyTorch's time to ours.
Results are compared first. ``--all`` adds other kinds of convolution.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import turns

ARGUMENTS = turns.parser(__doc__)
ARGUMENTS.add_argument("--all", action="store_true", help="other kinds of convolution, too")
GIVEN = ARGUMENTS.parse_args()
turns.hold(GIVEN.threads)

import numpy as np  # noqa: E402

import graphflow as gf  # noqa: E402
import graphflow.nn.functional as F  # noqa: E402

try:
    import torch
except ImportError:
    sys.exit("this comparison needs PyTorch")
torch.set_num_threads(GIVEN.threads)

#: Title, image, window, stride, padding, groups.
Case = tuple[str, tuple[int, ...], tuple[int, ...], int, int, int]
CASES: list[Case] = [
    ("64x3x32x32, 3x3 to 32", (64, 3, 32, 32), (32, 3, 3, 3), 1, 1, 1),
    ("64x32x32x32, 3x3 to 64", (64, 32, 32, 32), (64, 32, 3, 3), 1, 1, 1),
    ("64x64x16x16, 3x3 to 64", (64, 64, 16, 16), (64, 64, 3, 3), 1, 1, 1),
]
OTHERS: list[Case] = [
    ("1x1: 64x64x16x16 to 64", (64, 64, 16, 16), (64, 64, 1, 1), 1, 0, 1),
    ("stride 2: 64x32x32x32, 3x3 to 64", (64, 32, 32, 32), (64, 32, 3, 3), 2, 1, 1),
    ("depthwise: 64x64x32x32, 3x3", (64, 64, 32, 32), (64, 1, 3, 3), 1, 1, 64),
    ("groups: 64x64x16x16, 3x3 to 64, 4", (64, 64, 16, 16), (64, 16, 3, 3), 1, 1, 4),
    ("ragged: 64x32x28x28, 3x3 to 64", (64, 32, 28, 28), (64, 32, 3, 3), 1, 1, 1),
    ("small: 64x128x8x8, 3x3 to 128", (64, 128, 8, 8), (128, 128, 3, 3), 1, 1, 1),
    ("lenet: 4x3x32x32, 5x5 to 6", (4, 3, 32, 32), (6, 3, 5, 5), 1, 0, 1),
    ("lenet: 4x6x14x14, 5x5 to 16", (4, 6, 14, 14), (16, 6, 5, 5), 1, 0, 1),
]
Call = Callable[[], object]


def ours(x: np.ndarray, w: np.ndarray, g: np.ndarray, how: dict[str, int]) -> list[Call]:
    """Calls of forward, image gradient, window gradient."""
    image, window, cotangent = gf.tensor(x), gf.tensor(w), gf.tensor(g)

    def convolved(x: gf.Tensor, w: gf.Tensor) -> gf.Tensor:
        return F.conv2d(x, w, **how)

    @gf.compile
    def of_image(x: gf.Tensor, w: gf.Tensor, g: gf.Tensor) -> gf.Tensor:
        return gf.vjp(lambda x: convolved(x, w), x)[1](g)[0]

    @gf.compile
    def of_window(x: gf.Tensor, w: gf.Tensor, g: gf.Tensor) -> gf.Tensor:
        return gf.vjp(lambda w: convolved(x, w), w)[1](g)[0]

    forward = gf.compile(convolved)
    return [
        lambda: forward(image, window),
        lambda: of_image(image, window, cotangent),
        lambda: of_window(image, window, cotangent),
    ]


def theirs(x: np.ndarray, w: np.ndarray, g: np.ndarray, how: dict[str, int]) -> list[Call]:
    """The same in PyTorch."""
    image, window, cotangent = (torch.from_numpy(v) for v in (x, w, g))
    stride, padding = [how["stride"]] * 2, [how["padding"]] * 2

    def backward(wanted: list[bool]) -> Call:
        steps = (stride, padding, [1, 1], False, [0, 0], how["groups"])
        given = (cotangent, image, window, None, *steps, wanted)
        return lambda: torch.ops.aten.convolution_backward(*given)[wanted.index(True)]

    return [
        lambda: torch.nn.functional.conv2d(image, window, **how),
        backward([True, False, False]),
        backward([False, True, False]),
    ]


def main() -> None:
    """Prints the table."""
    random = np.random.default_rng(0)
    turns.head(GIVEN.threads, "GFLOP/s")
    logs = []
    for title, image, window, stride, padding, groups in CASES + OTHERS * GIVEN.all:
        how = {"stride": stride, "padding": padding, "groups": groups}
        x, w = (random.standard_normal(shape).astype(np.float32) for shape in (image, window))
        shape = torch.nn.functional.conv2d(torch.from_numpy(x), torch.from_numpy(w), **how).shape
        g = random.standard_normal(tuple(shape)).astype(np.float32)
        flops = 2 * g.size * w[0].size
        names = ("forward", "image gradient", "window gradient")
        for name, one, other in zip(names, ours(x, w, g, how), theirs(x, w, g, how), strict=True):
            a, b = np.asarray(one()), np.asarray(other())
            if not np.allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(b).max()):
                raise AssertionError(f"{title}, {name}: the results differ")
            seconds = turns.best([one, other], GIVEN.threads, GIVEN.rounds)
            logs.append(np.log(turns.row(f"{title}: {name}", seconds, flops)))
    print(f"geometric mean of the ratios: {np.exp(np.mean(logs)):.2f}")


if __name__ == "__main__":
    main()

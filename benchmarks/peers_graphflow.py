"""The benchmark's workloads in graphflow: each maker returns a step() that runs one training step (or call).
"""

from __future__ import annotations

from collections.abc import Callable

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn, optim

Step = Callable[[], gf.Tensor]

gf.manual_seed(0)


def _train(
    model: nn.Module,
    loss_of: Callable[[gf.Tensor, gf.Tensor], gf.Tensor],
    batch: tuple[gf.Tensor, gf.Tensor],
    optimizer: optim.Optimizer,
) -> Step:
    @gf.compile
    def train_step(x: gf.Tensor, y: gf.Tensor) -> gf.Tensor:
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()  # last, so that gradients live inside the step only
        return loss

    return lambda: train_step(*batch)


def twolayer() -> Step:
    """64×1000→100→10, squared error, SGD with momentum."""
    model = nn.Sequential(nn.Linear(1000, 100), nn.ReLU(), nn.Linear(100, 10))
    batch = (gf.randn(64, 1000), gf.randn(64, 10))
    optimizer = optim.SGD(model.parameters(), lr=1e-4, momentum=0.5)
    return _train(model, lambda z, y: F.mse_loss(z, y, reduction="sum"), batch, optimizer)


def mlp() -> Step:
    """128×784→512→256→10, cross-entropy, Adam."""
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))
    batch = (gf.randn(128, 784), gf.randint(0, 10, (128,)))
    return _train(model, F.cross_entropy, batch, optim.Adam(model.parameters(), lr=1e-3))


def chain() -> Step:
    """A chain of tanh, sigmoid and exp over 10⁶ elements, with its gradient."""
    x = gf.randn(1000, 1000)

    @gf.compile
    @gf.value_and_grad
    def step(x: gf.Tensor) -> gf.Tensor:
        z = gf.tanh(0.79788456 * (x + 0.044715 * x * x * x))
        return (0.5 * x * (1 + z) * gf.sigmoid(x) + gf.exp(-x * x)).mean()

    return lambda: step(x)


def norm() -> Step:
    """Layer norm and log-softmax over 4096×768, with gradients of input, weight and bias."""
    x, w, b = gf.randn(4096, 768), gf.randn(768), gf.randn(768)

    def loss(x: gf.Tensor, w: gf.Tensor, b: gf.Tensor) -> gf.Tensor:
        m = x.mean(-1, keepdim=True)
        v = ((x - m) ** 2).mean(-1, keepdim=True)
        return gf.log_softmax((x - m) * gf.rsqrt(v + 1e-5) * w + b, -1)[:, 0].sum()

    step = gf.compile(gf.value_and_grad(loss, argnums=(0, 1, 2)))
    return lambda: step(x, w, b)


def dispatch() -> Step:
    """relu(4×16 @ 16×16 + b): what one call costs."""
    w, b, x = gf.randn(16, 16), gf.randn(16), gf.randn(4, 16)
    step = gf.compile(lambda x: gf.relu(x @ w + b))
    return lambda: step(x)


ALL: dict[str, Callable[[], Step]] = {
    "twolayer": twolayer,
    "mlp": mlp,
    "chain": chain,
    "norm": norm,
    "dispatch": dispatch,
}

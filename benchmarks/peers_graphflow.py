"""The benchmark's workloads in graphflow: each maker returns a step() running one training step."""

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


class LeNet(nn.Module):
    """Two convolutions with pooling, three linear layers, for 3×32×32 images."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5)
        self.f1, self.f2, self.f3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x: gf.Tensor) -> gf.Tensor:
        """Logits (batch, 10)."""
        x = F.max_pool2d(F.relu(self.c1(x)), 2)
        x = F.max_pool2d(F.relu(self.c2(x)), 2)
        return self.f3(F.relu(self.f2(F.relu(self.f1(x.flatten(1))))))


def lenet(n: int = 4) -> Step:
    """LeNet on n×3×32×32, SGD with momentum."""
    model = LeNet()
    batch = (gf.randn(n, 3, 32, 32), gf.randint(0, 10, (n,)))
    return _train(model, F.cross_entropy, batch, optim.SGD(model.parameters(), lr=1e-3, momentum=0.9))


def cnn() -> Step:
    """64×3×32×32 through three 3×3 convolutions (32, 64, 64), Adam."""
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 64, 10),
    )
    batch = (gf.randn(64, 3, 32, 32), gf.randint(0, 10, (64,)))
    return _train(model, F.cross_entropy, batch, optim.Adam(model.parameters(), lr=1e-3))


class Block(nn.Module):
    """A transformer block: causal attention and a two-layer network, each after a layer norm."""

    def __init__(self, d: int, h: int):
        super().__init__()
        self.l1, self.l2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.o = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.u, self.v = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        self.h = h

    def forward(self, x: gf.Tensor) -> gf.Tensor:
        """(batch, time, d) to the same shape."""
        B, T, D = x.shape
        parts = self.qkv(self.l1(x)).split(D, 2)
        q, k, v = [t.view(B, T, self.h, D // self.h).transpose(1, 2) for t in parts]
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(a.transpose(1, 2).reshape(B, T, D))
        return x + self.v(F.gelu(self.u(self.l2(x)), approximate="tanh"))


class GPT(nn.Module):
    """A small language model over V characters."""

    def __init__(self, V: int = 65, T: int = 64, L: int = 4, h: int = 4, d: int = 128):
        super().__init__()
        self.te, self.pe = nn.Embedding(V, d), nn.Embedding(T, d)
        self.bl = nn.Sequential(*[Block(d, h) for _ in range(L)])
        self.lf, self.head = nn.LayerNorm(d), nn.Linear(d, V, bias=False)

    def forward(self, i: gf.Tensor) -> gf.Tensor:
        """Characters (batch, time) to logits (batch, time, V)."""
        return self.head(self.lf(self.bl(self.te(i) + self.pe(gf.arange(i.shape[1])))))


def gpt() -> Step:
    """GPT on 12×64 characters, AdamW."""
    model = GPT()
    i = gf.randint(0, 65, (12, 65))
    batch = (i[:, :-1].contiguous(), i[:, 1:].contiguous())
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)
    return _train(model, lambda z, y: F.cross_entropy(z.flatten(0, 1), y.flatten()), batch, optimizer)


class Recurrent(nn.Module):
    """An LSTM whose last output is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.l = nn.LSTM(64, 128, batch_first=True)
        self.f = nn.Linear(128, 10)

    def forward(self, x: gf.Tensor) -> gf.Tensor:
        """(batch, time, 64) to logits (batch, 10)."""
        return self.f(self.l(x)[0][:, -1])


def lstm() -> Step:
    """LSTM of 128 over 64×32×64, Adam."""
    model = Recurrent()
    batch = (gf.randn(64, 32, 64), gf.randint(0, 10, (64,)))
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
    "lenet": lenet,
    "cnn": cnn,
    "gpt": gpt,
    "lstm": lstm,
    "chain": chain,
    "norm": norm,
    "dispatch": dispatch,
}

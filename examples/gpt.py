"""A small GPT, one character at a time, on the sources of Python's own standard library.

A. Radford et al.: Language models are unsupervised multitask learners. 2019.

python examples/gpt.py
"""

import math
import os
from pathlib import Path

import numpy as np

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn, optim


def read_library(modules: int) -> str:
    """The first `modules` modules of the standard library, by name, as one ASCII text."""
    paths = sorted(Path(os.__file__).parent.glob("*.py"))[:modules]
    return "\n".join(path.read_text(encoding="utf-8") for path in paths).encode("ascii", "ignore").decode()


class Block(nn.Module):
    """Attention and a perceptron, each beside a shortcut, each behind a layer norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: gf.Tensor) -> gf.Tensor:
        """(N, tokens, width) to the same."""
        batch, tokens, width = x.shape
        split = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    """(N, tokens) int64 to (N, tokens, vocabulary) scores of the next token."""

    def __init__(self, vocabulary: int, tokens: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(0.02 * gf.randn(tokens, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, index: gf.Tensor) -> gf.Tensor:
        """Scores of the next token."""
        return self.head(self.norm(self.blocks(self.token(index) + self.position)))


def main(
    steps: int = 1000, modules: int = 40, tokens: int = 64, width: int = 96, layers: int = 3, seed: int = 0
) -> float:
    """Returns the loss per character on text that wasn't trained on, in nats."""
    gf.manual_seed(seed)
    text = read_library(modules)
    letters = sorted(set(text))
    number = {letter: i for i, letter in enumerate(letters)}
    codes = np.array([number[letter] for letter in text])
    train, test = codes[: -len(codes) // 10], codes[-len(codes) // 10 :]
    random = np.random.default_rng(seed)

    def batch(source: np.ndarray, size: int) -> tuple[gf.Tensor, gf.Tensor]:
        starts = random.integers(0, len(source) - tokens, (size, 1)) + np.arange(tokens)
        return gf.tensor(source[starts]), gf.tensor(source[starts + 1])

    model = GPT(len(letters), tokens, width, 4, layers)
    optimizer = optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)

    def loss_of(x: gf.Tensor, y: gf.Tensor) -> gf.Tensor:
        return F.cross_entropy(model(x).flatten(0, 1), y.flatten())

    @gf.compile
    def train_step(x: gf.Tensor, y: gf.Tensor) -> gf.Tensor:
        loss = loss_of(x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    predict = gf.compile(model)
    print(f"{len(text)} characters, {len(letters)} different; chance is {math.log(len(letters)):.2f} nats")
    for step in range(steps):
        loss = train_step(*batch(train, 16))
        if step % 100 == 0:
            print(f"step {step:4d}  loss {loss.item():.3f}", flush=True)

    model.eval()
    with gf.no_grad():
        test_loss = loss_of(*batch(test, 128)).item()
        line = [number[letter] for letter in f"def {'main(self):':{tokens - 4}}"[:tokens]]
        for _ in range(min(steps, 100)):
            scores = predict(gf.tensor([line[-tokens:]]))[0, -1]
            line.append(int(random.choice(len(letters), p=F.softmax(scores.double(), 0).numpy())))
    print("".join(letters[i] for i in line[tokens:]))
    print(f"loss on held-out text {test_loss:.3f} nats a character")
    return test_loss


if __name__ == "__main__":
    main()

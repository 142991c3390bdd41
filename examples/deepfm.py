"""DeepFM on made-up clicks: a factorisation machine and a network over the same embeddings.

H. Guo, R. Tang, Y. Ye, Z. Li, X. He: DeepFM. IJCAI 2017.

python examples/deepfm.py
"""

from clicks import SIZES
from recommend import train

import graphflow as gf
from graphflow import nn


class DeepFM(nn.Module):
    """(N, fields) category numbers to (N,) scores."""

    def __init__(self, sizes: list[int], rank: int) -> None:
        super().__init__()
        self.weights = nn.ModuleList(nn.Embedding(size, 1) for size in sizes)
        self.factors = nn.ModuleList(nn.Embedding(size, rank) for size in sizes)
        self.deep = nn.Sequential(
            nn.Linear(rank * len(sizes), 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 1)
        )
        for table in (*self.weights, *self.factors):
            nn.init.normal_(table.weight, std=0.05)

    def forward(self, codes: gf.Tensor) -> gf.Tensor:
        """Scores."""
        columns = codes.unbind(1)
        linear = gf.cat([table(column) for table, column in zip(self.weights, columns, strict=True)], 1).sum(
            1
        )
        factors = gf.stack([table(column) for table, column in zip(self.factors, columns, strict=True)], 1)
        pairs = 0.5 * (factors.sum(1) ** 2 - (factors**2).sum(1)).sum(1)
        return linear + pairs + self.deep(factors.flatten(1)).squeeze(1)


def main(samples: int = 100_000, epochs: int = 8, seed: int = 0) -> float:
    """Returns the AUC on clicks that weren't trained on."""
    gf.manual_seed(seed)
    return train(DeepFM(SIZES, 8), samples, epochs, rate=3e-3, decay=0.05)


if __name__ == "__main__":
    main()

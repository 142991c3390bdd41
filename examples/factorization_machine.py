"""A factorisation machine on made-up clicks.

S. Rendle: Factorization machines. ICDM 2010.

python examples/factorization_machine.py
"""

from clicks import SIZES
from recommend import train

import graphflow as gf
from graphflow import nn


class FactorizationMachine(nn.Module):
    """(N, fields) category numbers to (N,) scores: a weight for each category and a product for each pair."""

    def __init__(self, sizes: list[int], rank: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(gf.zeros(()))
        self.weights = nn.ModuleList(nn.Embedding(size, 1) for size in sizes)
        self.factors = nn.ModuleList(nn.Embedding(size, rank) for size in sizes)
        for table in (*self.weights, *self.factors):
            nn.init.normal_(table.weight, std=0.05)

    def forward(self, codes: gf.Tensor) -> gf.Tensor:
        """Scores."""
        columns = codes.unbind(1)
        linear = gf.cat([table(column) for table, column in zip(self.weights, columns, strict=True)], 1).sum(
            1
        )
        factors = gf.stack([table(column) for table, column in zip(self.factors, columns, strict=True)], 1)
        # the sum over all pairs of fields, in linear time (the paper's lemma 3.1)
        pairs = 0.5 * (factors.sum(1) ** 2 - (factors**2).sum(1)).sum(1)
        return self.bias + linear + pairs


def main(samples: int = 100_000, epochs: int = 8, seed: int = 0) -> float:
    """Returns the AUC on clicks that weren't trained on."""
    gf.manual_seed(seed)
    return train(FactorizationMachine(SIZES, 8), samples, epochs, rate=5e-3, decay=0.05)


if __name__ == "__main__":
    main()

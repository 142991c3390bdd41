"""Wide & Deep on made-up clicks: a linear model that memorises pairs beside a network that generalises.

H.-T. Cheng et al.: Wide & deep learning for recommender systems. DLRS 2016.

python examples/wide_deep.py
"""

from clicks import SIZES
from recommend import train

import graphflow as gf
from graphflow import nn


class WideAndDeep(nn.Module):
    """(N, fields) category numbers to (N,) scores."""

    def __init__(self, sizes: list[int], buckets: int, width: int) -> None:
        super().__init__()
        self.buckets = buckets
        self.wide = nn.ModuleList(nn.Embedding(size, 1) for size in sizes)
        self.crossed = nn.Embedding(buckets, 1)
        self.tables = nn.ModuleList(nn.Embedding(size, width) for size in sizes)
        self.deep = nn.Sequential(
            nn.Linear(width * len(sizes), 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1)
        )
        for table in (*self.wide, self.crossed):
            nn.init.zeros_(table.weight)

    def forward(self, codes: gf.Tensor) -> gf.Tensor:
        """Scores."""
        columns = codes.unbind(1)
        # user and item together, hashed into a fixed number of buckets
        crossed = (columns[0] * 2654435761 + columns[1] * 40503) % self.buckets
        wide = gf.cat([table(column) for table, column in zip(self.wide, columns, strict=True)], 1).sum(1)
        wide = wide + self.crossed(crossed).squeeze(1)
        deep = gf.cat([table(column) for table, column in zip(self.tables, columns, strict=True)], 1)
        return wide + self.deep(deep).squeeze(1)


def main(samples: int = 100_000, epochs: int = 8, seed: int = 0) -> float:
    """Returns the AUC on clicks that weren't trained on."""
    gf.manual_seed(seed)
    return train(WideAndDeep(SIZES, 20_000, 16), samples, epochs, rate=3e-3, decay=0.05)


if __name__ == "__main__":
    main()

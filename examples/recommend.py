"""What the recommender examples share: training on clicks and the score on clicks that weren't trained on."""

from clicks import auc, clicks

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn, optim
from graphflow.data import DataLoader, TensorDataset


def train(model: nn.Module, samples: int, epochs: int, rate: float, decay: float) -> float:
    """Trains `model`, which maps (N, 4) category numbers to (N,) scores; returns the test AUC."""
    dataset = TensorDataset(*clicks(samples, seed=1))
    optimizer = optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)

    @gf.compile
    def train_step(codes: gf.Tensor, clicked: gf.Tensor) -> gf.Tensor:
        loss = F.binary_cross_entropy_with_logits(model(codes), clicked)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    for epoch in range(epochs):
        total, steps = 0.0, 0
        for codes, clicked in DataLoader(dataset, batch_size=256, shuffle=True, seed=epoch):
            total += train_step(codes, clicked).item()
            steps += 1
        print(f"epoch {epoch:3d}  loss {total / steps:.4f}")

    model.eval()
    codes, clicked = clicks(20_000, seed=2)
    with gf.no_grad():
        score = auc(model(codes), clicked)
    print(f"test AUC {score:.4f}")
    return score

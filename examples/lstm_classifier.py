"""An LSTM that reads a handwritten digit row by row.

S. Hochreiter, J. Schmidhuber: Long short-term memory. Neural Computation 9, 1997.

pip install 'graphflow[examples]'
python examples/lstm_classifier.py
"""

import numpy as np
from sklearn.datasets import load_digits

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn, optim
from graphflow.data import DataLoader, TensorDataset, random_split


class Reader(nn.Module):
    """(N, steps, features) to (N, classes) scores, from the state after the last step."""

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, hidden, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: gf.Tensor) -> gf.Tensor:
        """Class scores."""
        outputs, _ = self.lstm(x)
        return self.head(outputs[:, -1])


def main(epochs: int = 20, hidden: int = 64, seed: int = 0) -> float:
    """Returns the accuracy on digits that weren't trained on."""
    gf.manual_seed(seed)
    pixels, digits = load_digits(return_X_y=True)
    dataset = TensorDataset(gf.tensor(pixels.reshape(-1, 8, 8) / 16, dtype=gf.float32), gf.tensor(digits))
    train, test = random_split(dataset, [0.8, 0.2], seed=seed)

    model = Reader(8, hidden, 10)
    optimizer = optim.Adam(model.parameters(), lr=5e-3)

    @gf.compile
    def train_step(x: gf.Tensor, y: gf.Tensor) -> gf.Tensor:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    for epoch in range(epochs):
        losses = [
            train_step(x, y).item() for x, y in DataLoader(train, batch_size=64, shuffle=True, seed=epoch)
        ]
        if epoch % 5 == 0:
            print(f"epoch {epoch:3d}  loss {np.mean(losses):.4f}")

    model.eval()
    x, y = test[:]
    with gf.no_grad():
        accuracy = (model(x).argmax(1) == y).float().mean().item()
    print(f"test accuracy {accuracy:.4f}")
    return accuracy


if __name__ == "__main__":
    main()

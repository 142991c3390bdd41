"""A multilayer perceptron on handwritten digits, with the loop people know.

pip install 'graphflow[examples]'
python examples/mlp.py
"""

from sklearn.datasets import load_digits

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn, optim
from graphflow.data import DataLoader, TensorDataset, random_split


def main(epochs: int = 30, seed: int = 0) -> float:
    """Returns the accuracy on digits that weren't trained on."""
    gf.manual_seed(seed)
    pixels, digits = load_digits(return_X_y=True)
    dataset = TensorDataset(gf.tensor(pixels / 16, dtype=gf.float32), gf.tensor(digits))
    train, test = random_split(dataset, [0.8, 0.2], seed=seed)

    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))
    optimizer = optim.Adam(model.parameters(), lr=2e-3)

    @gf.compile
    def train_step(x: gf.Tensor, y: gf.Tensor) -> gf.Tensor:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    loader = DataLoader(train, batch_size=64, shuffle=True)
    for epoch in range(epochs):
        total = 0.0
        for x, y in loader:
            total += train_step(x, y).item()
        if epoch % 5 == 0:
            print(f"epoch {epoch:3d}  loss {total / len(loader):.4f}")

    model.eval()
    x, y = test[:]
    with gf.no_grad():
        accuracy = (model(x).argmax(1) == y).float().mean().item()
    print(f"test accuracy {accuracy:.4f}, {len(train_step.variants)} compiled variant of the step")
    return accuracy


if __name__ == "__main__":
    main()

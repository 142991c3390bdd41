"""Logistic regression on the breast-cancer measurements that come with scikit-learn.

pip install 'graphflow[examples]'
python examples/logistic_regression.py
"""

from sklearn.datasets import load_breast_cancer

import graphflow as gf
from graphflow import nn, optim
from graphflow.data import TensorDataset, random_split


def main(steps: int = 300, seed: int = 0) -> float:
    """Returns the accuracy on samples that weren't trained on."""
    gf.manual_seed(seed)
    measurements, benign = load_breast_cancer(return_X_y=True)
    measurements = (measurements - measurements.mean(0)) / measurements.std(0)
    dataset = TensorDataset(
        gf.tensor(measurements, dtype=gf.float32), gf.tensor(benign, dtype=gf.float32).unsqueeze(1)
    )
    train, test = random_split(dataset, [0.8, 0.2], seed=seed)
    x, y = train[:]
    x_test, y_test = test[:]

    model = nn.Linear(30, 1)
    loss_fn = nn.BCEWithLogitsLoss()
    optimizer = optim.SGD(model.parameters(), lr=0.5, weight_decay=1e-3)

    @gf.compile
    def train_step(x: gf.Tensor, y: gf.Tensor) -> gf.Tensor:
        loss = loss_fn(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    for step in range(steps):
        loss = train_step(x, y)
        if step % 50 == 0:
            print(f"step {step:4d}  loss {loss.item():.4f}")

    with gf.no_grad():
        accuracy = ((model(x_test) > 0) == (y_test > 0.5)).float().mean().item()
    print(f"test accuracy {accuracy:.4f}")
    return accuracy


if __name__ == "__main__":
    main()

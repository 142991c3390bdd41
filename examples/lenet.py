"""LeNet-5 on handwritten digits.

    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner: Gradient-based learning applied to document recognition. 1998.

The digits that come with scikit-learn have 8x8 pixels; each is drawn as 4x4 ones to give the 32x32 of the
paper.

    pip install 'graphflow[examples]'
    python examples/lenet.py
"""

import numpy as np
from sklearn.datasets import load_digits

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn, optim
from graphflow.data import DataLoader, TensorDataset, random_split


class LeNet(nn.Module):
    """(N, 1, 32, 32) to (N, 10) class scores."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: gf.Tensor) -> gf.Tensor:
        """Class scores."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.flatten(1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


def main(epochs: int = 12, seed: int = 0) -> float:
    """Returns the accuracy on digits that weren't trained on."""
    gf.manual_seed(seed)
    images, digits = load_digits(return_X_y=True)
    images = np.kron(images.reshape(-1, 1, 8, 8) / 16, np.ones((4, 4)))
    dataset = TensorDataset(gf.tensor(images, dtype=gf.float32), gf.tensor(digits))
    train, test = random_split(dataset, [0.8, 0.2], seed=seed)

    model = LeNet()
    optimizer = optim.Adam(model.parameters(), lr=2e-3)

    @gf.compile
    def train_step(x: gf.Tensor, y: gf.Tensor) -> gf.Tensor:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    for epoch in range(epochs):
        losses = [
            train_step(x, y).item() for x, y in DataLoader(train, batch_size=32, shuffle=True, seed=epoch)
        ]
        print(f"epoch {epoch:3d}  loss {np.mean(losses):.4f}")

    model.eval()
    x, y = test[:]
    with gf.no_grad():
        accuracy = (model(x).argmax(1) == y).float().mean().item()
    print(f"test accuracy {accuracy:.4f}")
    return accuracy


if __name__ == "__main__":
    main()

"""A small residual network on handwritten digits.

K. He, X. Zhang, S. Ren, J. Sun: Deep residual learning for image recognition. CVPR 2016.

pip install 'graphflow[examples]'
python examples/resnet.py
"""

from collections.abc import Sequence

import numpy as np
from sklearn.datasets import load_digits

import graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn, optim
from graphflow.data import DataLoader, TensorDataset, random_split


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where shapes differ."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: gf.Tensor) -> gf.Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y = F.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return F.relu(y + self.shortcut(x))


def resnet(channels: Sequence[int] = (16, 32, 64), classes: int = 10) -> nn.Module:
    """(N, 1, H, W) to (N, classes) scores; every stage but the first halves the image."""
    layers: list[nn.Module] = [
        nn.Conv2d(1, channels[0], 3, padding=1, bias=False),
        nn.BatchNorm2d(channels[0]),
        nn.ReLU(),
    ]
    inputs = channels[0]
    for stage, outputs in enumerate(channels):
        layers.append(Block(inputs, outputs, 2 if stage else 1))
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


def main(epochs: int = 8, channels: Sequence[int] = (16, 32, 64), seed: int = 0) -> float:
    """Returns the accuracy on digits that weren't trained on."""
    gf.manual_seed(seed)
    images, digits = load_digits(return_X_y=True)
    dataset = TensorDataset(gf.tensor(images.reshape(-1, 1, 8, 8) / 16, dtype=gf.float32), gf.tensor(digits))
    train, test = random_split(dataset, [0.8, 0.2], seed=seed)

    model = resnet(channels)
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)

    @gf.compile
    def train_step(x: gf.Tensor, y: gf.Tensor) -> gf.Tensor:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    for epoch in range(epochs):
        losses = [
            train_step(x, y).item() for x, y in DataLoader(train, batch_size=64, shuffle=True, seed=epoch)
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

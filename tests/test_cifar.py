"""The network of PyTorch's CIFAR-10 tutorial on generated images, eagerly and compiled."""

from __future__ import annotations

import graphflow as torch
import graphflow.nn.functional as F
import numpy as np
from graphflow import nn, optim


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = x.view(-1, 16 * 5 * 5)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


def images(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy pictures of stripes whose direction and colour tell their class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    rows, columns = np.mgrid[:32, :32]
    angle = labels[:, None, None] * np.pi / 10
    stripes = np.sin((np.cos(angle) * rows + np.sin(angle) * columns) * 0.8)
    colour = np.array([1.0, 0.5, -0.5])[(labels[:, None] + np.arange(3)) % 3]
    pictures = stripes[:, None] * colour[:, :, None, None] + 0.3 * rng.standard_normal((count, 3, 32, 32))
    return torch.tensor(pictures.astype(np.float32)), torch.tensor(labels)


def trainer(net: Net):  # type: ignore[no-untyped-def]
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(net.parameters(), lr=0.02, momentum=0.9)

    def step(inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss = criterion(net(inputs), labels)
        loss.backward()
        optimizer.step()
        return loss

    return step


def test_compiled_training_is_eager_training_with_one_variant_for_all_batch_sizes() -> None:
    torch.manual_seed(0)
    one, two = Net(), Net()
    two.load_state_dict(one.state_dict())
    eager, compiled = trainer(one), torch.compile(trainer(two))
    for number, batch in enumerate((4, 4, 7, 1)):
        inputs, labels = images(batch, number)
        np.testing.assert_allclose(eager(inputs, labels).item(), compiled(inputs, labels).item(), rtol=1e-4)
    for ours, wanted in zip(two.parameters(), one.parameters(), strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), wanted.detach().numpy(), rtol=1e-3, atol=1e-5)
    assert len(compiled.variants) == 1


def test_the_network_learns() -> None:
    torch.manual_seed(1)
    net = Net()
    step = torch.compile(trainer(net))
    for number in range(60):
        step(*images(32, 100 + number))
    inputs, labels = images(200, 7)
    with torch.no_grad():
        hits = (net(inputs).argmax(1) == labels).float().mean().item()
    assert hits > 0.9


def test_state_dict_round_trip() -> None:
    one, two = Net(), Net()
    assert [tuple(v.shape) for v in one.state_dict().values()][:4] == [
        (6, 3, 5, 5), (6,), (16, 6, 5, 5), (16,),
    ]  # fmt: skip
    two.load_state_dict(one.state_dict())
    inputs, _ = images(3, 5)
    np.testing.assert_array_equal(one(inputs).detach().numpy(), two(inputs).detach().numpy())

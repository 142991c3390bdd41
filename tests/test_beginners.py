"""Programs from introductions to PyTorch, with only the import changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import graphflow as torch
import graphflow.nn.functional as F
import numpy as np
import pytest
from graphflow import nn, optim
from graphflow.data import transforms


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


# ---------------------------------------------------------------------------------------------- tensors


def test_creation_and_printing() -> None:
    assert torch.empty(5, 3).size() == (5, 3)
    assert ((torch.rand(5, 3) >= 0) & (torch.rand(5, 3) < 1)).all()
    x = torch.zeros(5, 3, dtype=torch.long)
    assert str(x[:2]) == "tensor([[0, 0, 0],\n        [0, 0, 0]])"
    x = torch.tensor([5.5, 3])
    assert str(x) == "tensor([5.5000, 3.0000])"
    x = x.new_ones(5, 3, dtype=torch.double)
    assert x.dtype is torch.float64
    assert x.shape == (5, 3)
    x = torch.randn_like(x, dtype=torch.float)
    assert x.dtype is torch.float32
    rows, columns = x.size()
    assert (rows, columns) == (5, 3)


def test_four_ways_to_add() -> None:
    x, y = torch.rand(5, 3), torch.rand(5, 3)
    expected = x.numpy() + y.numpy()
    np.testing.assert_array_equal((x + y).numpy(), expected)
    np.testing.assert_array_equal(torch.add(x, y).numpy(), expected)
    result = torch.empty(5, 3)
    assert torch.add(x, y, out=result) is result
    np.testing.assert_array_equal(result.numpy(), expected)
    y.add_(x)
    np.testing.assert_array_equal(y.numpy(), expected)
    np.testing.assert_array_equal(y[:, 1].numpy(), expected[:, 1])


def test_views_and_items() -> None:
    x = torch.randn(4, 4)
    assert [t.size() for t in (x, x.view(16), x.view(-1, 8))] == [(4, 4), (16,), (2, 8)]
    y = x.view(16)
    y[0] = 7.0
    assert x[0, 0].item() == 7.0
    assert isinstance(torch.randn(1).item(), float)


def test_memory_is_shared_with_numpy_in_both_directions() -> None:
    a = torch.ones(5)
    b = a.numpy()
    a.add_(1)
    np.testing.assert_array_equal(b, np.full(5, 2, np.float32))
    b[1] = 9
    assert a[1].item() == 9
    a = np.ones(5)
    b = torch.from_numpy(a)
    np.add(a, 1, out=a)
    assert b.tolist() == [2.0] * 5
    b.mul_(3)
    np.testing.assert_array_equal(a, np.full(5, 6.0))


def test_to_a_device_and_a_dtype() -> None:
    x = torch.randn(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    y = torch.ones_like(x, device=device)
    z = x.to(device) + y
    assert z.to("cpu", torch.double).dtype is torch.float64
    assert abs(z.item() - x.item() - 1) < 1e-6


# ---------------------------------------------------------------------------------------------- autograd


def test_the_first_gradient() -> None:
    x = torch.ones(2, 2, requires_grad=True)
    y = x + 2
    assert str(y) == "tensor([[3., 3.],\n        [3., 3.]], grad_fn=<AddBackward0>)"
    assert y.grad_fn is not None
    z = y * y * 3
    out = z.mean()
    assert str(out) == "tensor(27., grad_fn=<MeanBackward0>)"
    out.backward()
    assert str(x.grad) == "tensor([[4.5000, 4.5000],\n        [4.5000, 4.5000]])"


def test_requires_grad_in_place() -> None:
    a = torch.randn(2, 2)
    a = (a * 3) / (a - 1)
    assert not a.requires_grad
    a.requires_grad_(True)
    b = (a * a).sum()
    assert b.requires_grad
    assert b.grad_fn is not None


def test_a_loop_that_depends_on_values_and_a_vector_jacobian_product() -> None:
    x = torch.randn(3, requires_grad=True)
    y = x * 2
    doublings = 1
    while y.data.norm() < 1000:
        y = y * 2
        doublings += 1
    v = torch.tensor([0.1, 1.0, 0.0001], dtype=torch.float)
    y.backward(v)
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), v.numpy() * 2**doublings, rtol=1e-6)
    with pytest.raises(RuntimeError, match="grad can be implicitly created only for scalar outputs"):
        (x * 2).backward()
    with torch.no_grad():
        assert not (x**2).requires_grad
    assert (x**2).requires_grad
    y = x.detach()
    assert not y.requires_grad
    assert x.eq(y).all()


def test_the_mean_of_a_polynomial() -> None:
    x = torch.tensor([[2.0, 4], [3, 5]], requires_grad=True)
    y = 3 * (x + 2) ** 2
    l = y.mean()  # noqa: E741
    assert str(l) == "tensor(94.5000, grad_fn=<MeanBackward0>)"
    l.backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[6.0, 9.0], [7.5, 10.5]]


def test_a_scalar_line() -> None:
    x = torch.tensor(3.0)
    w = torch.tensor(4.0, requires_grad=True)
    b = torch.tensor(5.0, requires_grad=True)
    y = w * x + b
    y.backward()
    assert x.grad is None
    assert (w.grad.item(), b.grad.item()) == (3.0, 1.0)  # type: ignore[union-attr]


# ---------------------------------------------------------------------------------------------- networks

N, D_IN, H, D_OUT = 64, 100, 50, 10


class TwoLayerNet(torch.nn.Module):
    def __init__(self, d_in: int, hidden: int, d_out: int) -> None:
        super(TwoLayerNet, self).__init__()  # noqa: UP008
        self.linear1 = torch.nn.Linear(d_in, hidden)
        self.linear2 = torch.nn.Linear(hidden, d_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear2(self.linear1(x).clamp(min=0))


def test_a_network_of_plain_tensors_with_its_gradient_by_hand() -> None:
    x, y = torch.randn(N, D_IN), torch.randn(N, D_OUT)
    w1, w2 = torch.randn(D_IN, H), torch.randn(H, D_OUT)
    losses = []
    for _ in range(100):
        h = x.mm(w1)
        h_relu = h.clamp(min=0)
        y_pred = h_relu.mm(w2)
        losses.append((y_pred - y).pow(2).sum().item())
        grad_y_pred = 2.0 * (y_pred - y)
        grad_w2 = h_relu.t().mm(grad_y_pred)
        grad_h = grad_y_pred.mm(w2.t()).clone()
        grad_h[h < 0] = 0
        grad_w1 = x.t().mm(grad_h)
        w1 -= 1e-6 * grad_w1
        w2 -= 1e-6 * grad_w2
    assert losses[-1] < 0.2 * losses[0]


def test_a_network_of_plain_tensors_with_autograd_and_updates_by_hand() -> None:
    device = torch.device("cpu")
    x, y = torch.randn(N, D_IN, device=device), torch.randn(N, D_OUT, device=device)
    w1 = torch.randn(D_IN, H, device=device, requires_grad=True)
    w2 = torch.randn(H, D_OUT, device=device, requires_grad=True)
    losses = []
    for _ in range(100):
        y_pred = x.mm(w1).clamp(min=0).mm(w2)
        loss = (y_pred - y).pow(2).sum()
        losses.append(loss.item())
        loss.backward()
        with torch.no_grad():
            w1 -= 1e-6 * w1.grad
            w2 -= 1e-6 * w2.grad
            w1.grad.zero_()
            w2.grad.zero_()
    assert losses[-1] < 0.2 * losses[0]


def test_a_sequential_network_with_updates_by_hand() -> None:
    x, y = torch.randn(N, D_IN), torch.randn(N, D_OUT)
    model = torch.nn.Sequential(torch.nn.Linear(D_IN, H), torch.nn.ReLU(), torch.nn.Linear(H, D_OUT))
    loss_fn = torch.nn.MSELoss(reduction="sum")
    losses = []
    for _ in range(100):
        loss = loss_fn(model(x), y)
        losses.append(loss.item())
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for param in model.parameters():
                param.data -= 1e-4 * param.grad
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("compiled", [False, True])
def test_a_module_and_an_optimizer_over_500_steps(compiled: bool) -> None:
    x, y = torch.randn(N, D_IN), torch.randn(N, D_OUT)
    model = TwoLayerNet(D_IN, H, D_OUT)
    criterion = torch.nn.MSELoss(reduction="sum")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        loss = criterion(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    if compiled:
        step = torch.compile(step)
    losses = [step(x, y).item() for _ in range(500)]
    assert losses[-1] < 1e-3 * losses[0]


class Net(nn.Module):
    """The network of the CIFAR-10 tutorial."""

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
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


class Photographs(torch.utils.data.Dataset):
    """What a reader of images gives: (32, 32, 3) uint8 arrays, here of ten colours, and a class number."""

    classes = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def __init__(self, size: int, transform: Callable[[np.ndarray], torch.Tensor]) -> None:
        rng = np.random.default_rng(0)
        colours = rng.integers(40, 216, (10, 1, 1, 3))
        self.labels = rng.integers(0, 10, size)
        noise = rng.integers(-40, 40, (size, 32, 32, 3))
        self.images = (colours[self.labels] + noise).astype(np.uint8)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[index]), int(self.labels[index])


@pytest.mark.parametrize(("compiled", "size", "epochs", "least"), [(False, 40, 2, 0.1), (True, 400, 4, 0.5)])
def test_the_cifar_10_tutorial(compiled: bool, size: int, epochs: int, least: float, tmp_path: Path) -> None:
    transform = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))]
    )
    trainset = Photographs(size, transform)
    trainloader = torch.utils.data.DataLoader(trainset, batch_size=4, shuffle=True, num_workers=2)
    images, labels = next(iter(trainloader))
    assert images.shape == (4, 3, 32, 32)
    assert labels.dtype is torch.int64
    assert all(isinstance(trainset.classes[label], str) for label in labels)

    net = Net()
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(net.parameters(), lr=0.003, momentum=0.9)

    def step(inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss = criterion(net(inputs), labels)
        loss.backward()
        optimizer.step()
        return loss

    if compiled:
        step = torch.compile(step)
    averages = []
    for _ in range(epochs):
        running_loss = 0.0
        for i, data in enumerate(trainloader, 0):
            inputs, labels = data
            running_loss += step(inputs, labels).item()
            if i % 10 == 9:
                averages.append(running_loss / 10)
                running_loss = 0.0
    assert averages[-1] < averages[0]

    path = tmp_path / "cifar_net.safetensors"
    torch.save(net.state_dict(), path)
    reloaded = Net()
    reloaded.load_state_dict(torch.load(path))
    correct = total = 0
    with torch.no_grad():
        for images, labels in torch.utils.data.DataLoader(trainset, batch_size=100):
            outputs = reloaded(images)
            np.testing.assert_array_equal(outputs.numpy(), net(images).numpy())
            _, predicted = torch.max(outputs.data, 1)
            total += labels.size(0)
            correct += (predicted == labels).sum().item()
    assert correct / total > least

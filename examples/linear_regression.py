"""Linear regression by gradient descent: finds the weights that made the data.

python examples/linear_regression.py
"""

import graphflow as gf
from graphflow import nn, optim


def main(samples: int = 1000, steps: int = 300, seed: int = 0) -> float:
    """Returns the largest error of a recovered weight."""
    gf.manual_seed(seed)
    true_weight = gf.tensor([[2.0, -3.4, 0.7]])
    true_bias = 4.2
    x = gf.randn(samples, 3)
    y = x @ true_weight.T + true_bias + 0.01 * gf.randn(samples, 1)

    model = nn.Linear(3, 1)
    loss_fn = nn.MSELoss()
    optimizer = optim.SGD(model.parameters(), lr=0.05)

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
            print(f"step {step:4d}  loss {loss.item():.6f}")

    with gf.no_grad():
        error = max((model.weight - true_weight).abs().max().item(), abs(model.bias.item() - true_bias))
    print(f"weight {model.weight.tolist()[0]}, bias {model.bias.item():.4f}: largest error {error:.4f}")
    return error


if __name__ == "__main__":
    main()

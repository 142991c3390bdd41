"""Adaline, the adaptive linear neuron, tells two kinds of iris apart.

The neuron's output is linear while it learns (the Widrow-Hoff rule is a gradient step on the squared error)
and is only thresholded to decide. B. Widrow, M. E. Hoff: Adaptive switching circuits. IRE WESCON, 1960.

    pip install 'graphflow[examples]'
    python examples/adaline.py
"""

from sklearn.datasets import load_iris

import graphflow as gf


def main(epochs: int = 20, seed: int = 0) -> float:
    """Returns the accuracy over both kinds."""
    gf.manual_seed(seed)
    measurements, kind = load_iris(return_X_y=True)
    chosen = kind < 2
    x = gf.tensor(measurements[chosen], dtype=gf.float32)
    x = (x - x.mean(0)) / x.std(0)
    target = gf.tensor(2.0 * kind[chosen] - 1.0, dtype=gf.float32)  # -1 or 1

    weight = gf.zeros(4)
    bias = gf.zeros(())
    rate = 0.02

    @gf.compile
    def learn(x: gf.Tensor, target: gf.Tensor) -> gf.Tensor:
        # the Widrow-Hoff rule for one batch: no backward pass is needed
        error = target - (x @ weight + bias)
        weight.add_(rate * (error @ x) / len(x))
        bias.add_(rate * error.mean())
        return (error**2).mean()

    for epoch in range(epochs):
        order = gf.randperm(len(x))
        for batch in order.split(10):
            error = learn(x[batch], target[batch])
        if epoch % 5 == 0:
            print(f"epoch {epoch:3d}  squared error {error.item():.4f}")

    accuracy = ((x @ weight + bias).sign() == target).float().mean().item()
    print(f"weight {[round(w, 3) for w in weight.tolist()]}, accuracy {accuracy:.4f}")
    return accuracy


if __name__ == "__main__":
    main()

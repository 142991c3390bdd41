"""Quadratic regression with plain tensors, the update written out by hand.

python examples/quadratic_regression.py
"""

import graphflow as gf


def main(samples: int = 500, steps: int = 400, seed: int = 0) -> float:
    """Returns the largest error of a recovered coefficient."""
    gf.manual_seed(seed)
    truth = gf.tensor([1.5, -2.0, 0.5])
    x = gf.rand(samples) * 4 - 2
    y = truth[0] + truth[1] * x + truth[2] * x**2 + 0.01 * gf.randn(samples)

    coefficients = gf.zeros(3, requires_grad=True)
    rate = 0.05

    @gf.compile
    def train_step(x: gf.Tensor, y: gf.Tensor) -> gf.Tensor:
        prediction = coefficients[0] + coefficients[1] * x + coefficients[2] * x**2
        loss = ((prediction - y) ** 2).mean()
        (gradient,) = gf.autograd.grad(loss, [coefficients])
        with gf.no_grad():
            coefficients.sub_(rate * gradient)
        return loss

    for step in range(steps):
        loss = train_step(x, y)
        if step % 50 == 0:
            print(f"step {step:4d}  loss {loss.item():.6f}")

    error = (coefficients.detach() - truth).abs().max().item()
    a, b, c = coefficients.tolist()
    print(f"y = {a:.4f} + {b:.4f} x + {c:.4f} x^2: largest error {error:.4f}")
    return error


if __name__ == "__main__":
    main()

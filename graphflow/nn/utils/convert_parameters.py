"""Many parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable

from graphflow import functions as ops
from graphflow.errors import ShapeError
from graphflow.tensor import Tensor, no_grad


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All elements of all parameters, one after the other, 1-d."""
    return ops.cat([p.reshape(-1) for p in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Copies the elements of `vec` into the parameters, one after the other.

    TypeError unless `vec` is a tensor, ShapeError unless it has exactly as many elements.
    """
    if not isinstance(vec, Tensor):
        raise TypeError(f"expected Tensor, but got: {type(vec).__name__}")
    listed = list(parameters)
    sizes = [p.numel() for p in listed]
    if sum(sizes) != vec.numel():
        raise ShapeError(f"the parameters have {sum(sizes)} elements, the vector {vec.numel()}")
    with no_grad():
        for parameter, part in zip(listed, vec.split(sizes), strict=True):
            parameter.copy_(part.reshape(parameter.shape))

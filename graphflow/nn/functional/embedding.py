"""Rows of a table looked up by number."""

from __future__ import annotations

from graphflow import functions as ops
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.registry import asked_by, error, titled
from graphflow.tensor import Tensor, no_grad

__all__ = ["embedding", "one_hot"]


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """int64 rows with a single 1 at each element's class, in a new last dimension of size `num_classes`."""
    return ops.one_hot(tensor, num_classes)


@titled("EmbeddingBackward0", lambda input, weight, *_, **__: (weight,))
def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Rows of `weight` (count, size) at the integers `input`: (...) gives (..., size).

    The gradient adds into the rows that were read. Row `padding_idx` gets none. Rows longer than `max_norm`
    in the `norm_type`-norm are shortened in place first. `scale_grad_by_freq` divides a row's gradient by how
    often it was read. `sparse` changes nothing. IndexError outside [0, count).
    """
    positions, padding = _positions(input, weight, padding_idx)
    flat = positions.flatten()
    if max_norm is not None:
        _shorten(weight, flat, max_norm, norm_type)
    with asked_by("embedding", from_zero=True):
        rows = weight.index_select(0, flat)
    if scale_grad_by_freq:
        ones = ops.ones_like(flat)
        often = ops.zeros(weight.shape[0], dtype=flat.dtype).index_add(0, flat, ones)
        share = 1.0 / often.index_select(0, flat).to(rows.dtype).unsqueeze(-1)
        rows = rows.detach() + (rows - rows.detach()) * share
    if padding is not None:
        rows = ops.where((flat == padding).unsqueeze(-1), rows.detach(), rows)
    result: Tensor = rows.reshape((*input.shape, weight.shape[1]))
    return result


def _positions(input: Tensor, weight: Tensor, padding_idx: int | None) -> tuple[Tensor, int | None]:
    """Indices that can't count from the end, and the padding row's."""
    if weight.ndim != 2:
        raise error(
            ShapeError, "embedding", f"'weight' must be 2-D, got a tensor of shape {tuple(weight.shape)}"
        )
    if input.dtype.kind != "int":
        raise error(
            DTypeError,
            "embedding",
            f"Expected tensor for argument 'indices' to have an integer dtype, but got {input.dtype}; "
            "convert it with .long()",
        )
    count = weight.shape[0]
    if padding_idx is not None:
        if not -count <= padding_idx < count:
            raise error(
                ValueError,
                "embedding",
                f"padding_idx must be within num_embeddings, {count}, got {padding_idx}",
            )
        padding_idx %= count
    index = input.long()
    return ops.where(index < 0, index - count, index), padding_idx


def _shorten(weight: Tensor, positions: Tensor, max_norm: float, norm_type: float) -> None:
    with no_grad():
        rows = weight.index_select(0, positions)
        lengths = rows.norm(norm_type, -1, keepdim=True)
        weight[positions] = ops.where(lengths > max_norm, rows * (max_norm / (lengths + 1e-7)), rows)

"""Attention: weighted means of values, weighted by how well queries and keys agree."""

from __future__ import annotations

import math

from graphflow import functions as ops
from graphflow.dtypes import DType
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.attention import attended
from graphflow.functions.precision import autocasting
from graphflow.functions.registry import error
from graphflow.nn.functional.dropout import dropout
from graphflow.nn.functional.linear import linear
from graphflow.nn.functional.reduction import sizes_differ
from graphflow.tensor import Tensor

__all__ = ["multi_head_attention_forward", "scaled_dot_product_attention"]


@autocasting
def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``softmax(query @ key.T * scale + mask) @ value`` of (..., L, E), (..., S, E) and (..., S, V).

    `attn_mask`, broadcast to (..., L, S), is bool, True where a key takes part, or floating point and added.
    With `is_causal` query i sees keys 0 to i. A query that sees no key gets zeros. `scale` is 1/sqrt(E) by
    default. `dropout_p` drops weights, whatever the mode; without it long sequences take no memory of (L, S).
    `enable_gqa` repeats each of fewer heads of key and value, dimension -3, for several of the query. Vaswani
    et al., NeurIPS 2017; meaning and arguments are those of
    ``torch.nn.functional.scaled_dot_product_attention``.
    """
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise error(
            ShapeError,
            "scaled_dot_product_attention",
            "query, key and value need at least 2 dimensions, got shapes "
            f"{tuple(query.shape)}, {tuple(key.shape)} and {tuple(value.shape)}",
        )
    if attn_mask is not None and is_causal:
        raise error(
            ValueError,
            "scaled_dot_product_attention",
            "Explicit attn_mask should not be set when is_causal=True",
        )
    # products of nothing are 0 at any scale
    factor = 1.0 / math.sqrt(max(query.shape[-1], 1)) if scale is None else scale
    if enable_gqa:
        key, value = (_repeated(t, query.shape[-3]) for t in (key, value))
    if dropout_p == 0.0:
        mask = None if attn_mask is None else _fitting(attn_mask, query.dtype)
        whole: Tensor = attended(query, key, value, mask, scale=float(factor), causal=is_causal)
        return whole
    scores = query @ key.transpose(-2, -1) * factor
    if is_causal:
        queries, keys = (ops.arange(size) for size in (query.shape[-2], key.shape[-2]))
        scores = ops.where(queries.unsqueeze(-1) >= keys, scores, -math.inf)
    if attn_mask is None:
        weights = ops.softmax(scores, -1)
    else:
        weights = _guarded_softmax(_masked(scores, attn_mask))
    result: Tensor = dropout(weights, dropout_p) @ value
    return result


def _repeated(t: Tensor, heads: int) -> Tensor:
    """Each head of a key or value as often as it takes to have `heads`."""
    own = t.shape[-3]
    if heads % own:
        raise error(
            ShapeError,
            "scaled_dot_product_attention",
            f"{heads} heads of the query aren't a multiple of {own} of key or value",
        )
    wide = t.unsqueeze(-3).expand((*t.shape[:-2], heads // own, *t.shape[-2:]))
    result: Tensor = wide.reshape((*t.shape[:-3], heads, *t.shape[-2:]))
    return result


def _fitting(mask: Tensor, dtype: DType) -> Tensor:
    """A mask of two dimensions or more, bool or of the scores' dtype."""
    if mask.dtype.kind != "bool":
        if not mask.dtype.is_floating_point:
            raise error(
                DTypeError,
                "scaled_dot_product_attention",
                f"an attention mask is bool or floating point, got {mask.dtype}; convert with .bool()",
            )
        mask = mask.to(dtype)
    while mask.ndim < 2:
        mask = mask.unsqueeze(0)
    return mask


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    mask = _fitting(mask, scores.dtype)
    result: Tensor = ops.where(mask, scores, -math.inf) if mask.dtype.kind == "bool" else scores + mask
    return result


def _guarded_softmax(scores: Tensor) -> Tensor:
    """Softmax over the last dimension in which a row of -inf gives zeros instead of NaN."""
    largest = scores.detach().amax(-1, keepdim=True)
    powers = (scores - ops.where(largest == -math.inf, 0.0, largest)).exp()
    total = powers.sum(-1, keepdim=True)
    result: Tensor = powers / ops.where(total == 0, 1.0, total)
    return result


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Attention of `num_heads` heads between projections; what ``nn.MultiheadAttention`` computes.

    query is (L, N, E) or (L, E), key (S, N, ...) and value likewise; the result is (output, weights), shaped
    as the query and (N, L, S), or (N, num_heads, L, S) unless averaged. Masks are as there.
    """
    batched = _check(query, key, value, embed_dim_to_check, num_heads)
    if is_causal and attn_mask is None:
        raise error(
            ValueError, "multi_head_attention_forward", "Need attn_mask if specifying the is_causal hint."
        )
    if use_separate_proj_weight:
        weights = q_proj_weight, k_proj_weight, v_proj_weight
        if any(w is None for w in weights):
            raise error(
                ValueError,
                "multi_head_attention_forward",
                "use_separate_proj_weight is True but q_proj_weight, k_proj_weight or v_proj_weight is None",
            )
        biases = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
        projected = [linear(t, w, b) for t, w, b in zip((query, key, value), weights, biases, strict=True)]  # type: ignore[arg-type]
    else:
        if in_proj_weight is None:
            raise error(
                ValueError,
                "multi_head_attention_forward",
                "use_separate_proj_weight is False but in_proj_weight is None",
            )
        projected = _projected(query, key, value, in_proj_weight, in_proj_bias)
    if not batched:
        projected = [t.unsqueeze(1) for t in projected]
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    allowed, added = _masks(attn_mask, key_padding_mask, num_heads, projected[0], projected[1])
    extra = 0
    if bias_k is not None and bias_v is not None:
        row = (1, projected[1].shape[1], embed_dim_to_check)
        projected[1:] = [
            ops.cat([t, b.expand(row)]) for t, b in zip(projected[1:], (bias_k, bias_v), strict=True)
        ]
        extra += 1
    if add_zero_attn:
        projected[1:] = [ops.cat([t, ops.zeros_like(t[:1])]) for t in projected[1:]]
        extra += 1
    q, k, v = (_heads(t, num_heads) for t in projected)
    allowed = None if allowed is None else _widened(allowed, extra, True)
    added = None if added is None else _widened(added, extra, 0.0)
    scale = 1.0 / math.sqrt(q.shape[-1])
    shares = None
    if need_weights or (training and dropout_p > 0.0):
        shares = _shares(q @ k.transpose(-2, -1) * scale, allowed, added, need_weights)
        shares = dropout(shares, dropout_p, training)
        mixed = shares @ v
    else:
        mask = allowed
        if added is not None:
            added = added.to(q.dtype)
            mask = added if allowed is None else ops.where(allowed, added, -math.inf)
        mixed = attended(q, k, v, mask, scale=scale, causal=False)
    mixed = mixed.permute(2, 0, 1, 3)
    output = linear(mixed.reshape((*mixed.shape[:2], embed_dim_to_check)), out_proj_weight, out_proj_bias)
    if shares is not None and average_attn_weights and need_weights:
        shares = shares.mean(1)
    if not batched:
        output = output.squeeze(1)
        shares = None if shares is None else shares.squeeze(0)
    return output, shares if need_weights else None


def _shares(scores: Tensor, allowed: Tensor | None, added: Tensor | None, wanted: bool) -> Tensor:
    """The weights as a matrix. A query that masks leave no key has NaN where weights are `wanted`, else 0."""
    if allowed is not None:
        scores = ops.where(allowed, scores, -math.inf)
    if added is not None:
        scores = scores + added
    plain = wanted or (allowed is None and added is None)
    result: Tensor = ops.softmax(scores, -1) if plain else _guarded_softmax(scores)
    return result


def _check(query: Tensor, key: Tensor, value: Tensor, embed_dim: int, num_heads: int) -> bool:
    """Whether there is a batch dimension, after shapes were compared."""
    shapes = f"query {tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)}"
    if query.ndim not in (2, 3) or not query.ndim == key.ndim == value.ndim:
        raise error(
            ShapeError,
            "multi_head_attention_forward",
            f"attention takes query, key and value of 3 dimensions, or 2 without a batch, got {shapes}",
        )
    if sizes_differ(query.shape[-1], embed_dim):
        raise error(
            ShapeError,
            "multi_head_attention_forward",
            f"was expecting embedding dimension of {embed_dim}, but got {query.shape[-1]}: {shapes}",
        )
    if any(map(sizes_differ, key.shape[:-1], value.shape[:-1])):
        raise error(
            ShapeError,
            "multi_head_attention_forward",
            f"key and value need the same sequence length and batch, got {shapes}",
        )
    if embed_dim % num_heads:
        raise error(
            ShapeError,
            "multi_head_attention_forward",
            f"embed_dim {embed_dim} not divisible by num_heads {num_heads}",
        )
    return query.ndim == 3


def _projected(
    query: Tensor, key: Tensor, value: Tensor, weight: Tensor, bias: Tensor | None
) -> list[Tensor]:
    """The three projections, in as few products as the operands allow."""
    if query is key and key is value:
        return list(linear(query, weight, bias).chunk(3, -1))
    size = query.shape[-1]
    first = linear(query, weight[:size], None if bias is None else bias[:size])
    if key is value:
        both = linear(key, weight[size:], None if bias is None else bias[size:])
        return [first, *both.chunk(2, -1)]
    parts = [
        linear(
            t, weight[i * size : (i + 1) * size], None if bias is None else bias[i * size : (i + 1) * size]
        )
        for i, t in ((1, key), (2, value))
    ]
    return [first, *parts]


def _heads(t: Tensor, num_heads: int) -> Tensor:
    """(L, N, E) as (N, heads, L, E / heads)."""
    length, batch, size = t.shape
    result: Tensor = t.reshape((length, batch, num_heads, size // num_heads)).permute(1, 2, 0, 3)
    return result


def _masks(
    attn_mask: Tensor | None, padding: Tensor | None, num_heads: int, query: Tensor, key: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """What both masks say as (True where a key takes part, numbers to add), to broadcast to the scores."""
    (length, batch, _), keys = query.shape, key.shape[0]
    masks = []
    if attn_mask is not None:
        wanted = (batch * num_heads, length, keys) if attn_mask.ndim == 3 else (length, keys)
        if attn_mask.ndim not in (2, 3) or any(map(sizes_differ, attn_mask.shape, wanted)):
            raise error(
                ShapeError,
                "multi_head_attention_forward",
                f"The shape of attn_mask is {tuple(attn_mask.shape)}, but should be {wanted}.",
            )
        many = attn_mask.ndim == 3
        masks.append(attn_mask.reshape((batch, num_heads, length, keys)) if many else attn_mask)
    if padding is not None:
        if padding.ndim != 2 or any(map(sizes_differ, padding.shape, (batch, keys))):
            raise error(
                ShapeError,
                "multi_head_attention_forward",
                f"expecting key_padding_mask shape of {(batch, keys)}, but got {tuple(padding.shape)}",
            )
        masks.append(padding.unsqueeze(1).unsqueeze(1))
    allowed = added = None
    for mask in masks:
        if mask.dtype.kind == "bool":
            allowed = ~mask if allowed is None else allowed & ~mask
        elif mask.dtype.is_floating_point:
            added = mask.to(query.dtype) if added is None else added + mask.to(query.dtype)
        else:
            raise error(
                DTypeError,
                "multi_head_attention_forward",
                f"only bool and floating types of masks are supported, got {mask.dtype}",
            )
    return allowed, added


def _widened(mask: Tensor, extra: int, filler: bool | float) -> Tensor:
    """A mask with columns for the keys that were added at the end, which all may see."""
    if not extra:
        return mask
    return ops.cat([mask, ops.full((*mask.shape[:-1], extra), filler, dtype=mask.dtype)], -1)

"""Attention and the transformer's layers against NumPy formulas, with every kind of mask."""

from __future__ import annotations

import math
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import nn
from graphflow.nn import functional as F

from compositions import check

RNG = np.random.default_rng(0)
N, L, S, E, H = 3, 4, 5, 6, 2


def draw(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def softmax(x: np.ndarray) -> np.ndarray:
    top = np.where(np.isneginf(x.max(-1, keepdims=True)), 0, x.max(-1, keepdims=True))
    powers = np.exp(x - top)
    total = powers.sum(-1, keepdims=True)
    return powers / np.where(total == 0, 1, total)


def attend(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: Any = 0.0, scale: float | None = None
) -> np.ndarray:
    """`mask` is added, or bool and True where a key takes part."""
    scores = q @ np.swapaxes(k, -1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    mask = np.asarray(mask)
    return softmax(np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask) @ v


# ---------------------------------------------------------------------------------------------- one head


@pytest.mark.parametrize("lead", [(), (N,), (N, 2)])
def test_attention_and_its_gradients(lead: tuple[int, ...]) -> None:
    operands = draw(*lead, L, E), draw(*lead, S, E), draw(*lead, S, 3)
    sizes = (2,) if lead else ()
    check(F.scaled_dot_product_attention, attend, *operands, trained=(0, 1, 2), sizes=sizes)


def test_heads_without_elements_weigh_all_values_alike() -> None:
    v = gf.tensor(draw(4, 5))
    for function in (F.scaled_dot_product_attention, gf.compile(F.scaled_dot_product_attention)):
        found = function(gf.ones(3, 0, dtype=gf.float64), gf.ones(4, 0, dtype=gf.float64), v)
        np.testing.assert_allclose(found.numpy(), np.broadcast_to(v.numpy().mean(0), (3, 5)), rtol=1e-12)


@pytest.mark.parametrize("kind", ["bool", "float", "whole rows", "each"])
def test_masks(kind: str) -> None:
    mask = RNG.random((N, L, S) if kind == "each" else (L, S)) > 0.4
    mask[..., 0] = True
    if kind == "whole rows":
        mask[1] = False
    given = np.where(mask, draw(L, S), -np.inf) if kind == "float" else mask
    operands = draw(N, L, E), draw(N, S, E), draw(N, S, 3)

    def function(q: gf.Tensor, k: gf.Tensor, v: gf.Tensor) -> gf.Tensor:
        return F.scaled_dot_product_attention(q, k, v, gf.tensor(given), scale=0.3)

    check(function, lambda q, k, v: attend(q, k, v, given, 0.3), *operands, trained=(0, 1, 2))


def test_causal_attention_sees_no_later_key_whatever_the_length() -> None:
    def causal(q: gf.Tensor, k: gf.Tensor, v: gf.Tensor) -> gf.Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    def formula(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        return attend(q, k, v, np.tri(q.shape[-2], k.shape[-2], dtype=bool))

    check(causal, formula, draw(N, L, E), draw(N, S, E), draw(N, S, 3), trained=(0, 1, 2), sizes=(2,))
    check(causal, formula, draw(L, E), draw(L, E), draw(L, 3), sizes=(3, 2))


def test_grouped_queries_share_keys_and_values() -> None:
    q, k, v = draw(N, 6, L, E), draw(N, 2, S, E), draw(N, 2, S, 3)
    check(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
        lambda q, k, v: attend(q, np.repeat(k, 3, 1), np.repeat(v, 3, 1)),
        q, k, v, trained=(1, 2), sizes=(2,),
    )  # fmt: skip


def test_dropout_drops_weights() -> None:
    gf.manual_seed(0)
    q, k, v = (gf.ones(1, 100, 2), gf.ones(1, 100, 2), gf.eye(100).unsqueeze(0))
    weights = F.scaled_dot_product_attention(q, k, v, dropout_p=0.25) * 100
    assert sorted({round(w, 4) for w in weights.flatten().tolist()}) == [0.0, 1.3333]
    assert abs((weights == 0).float().mean().item() - 0.25) < 0.02


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: F.scaled_dot_product_attention(x[0], x, x), ValueError, "at least 2 dimensions"),
        (
            lambda x: F.scaled_dot_product_attention(x, x, x, gf.ones(2, 2), is_causal=True),
            ValueError,
            "should not be set when is_causal=True",
        ),
        (lambda x: F.scaled_dot_product_attention(x, x, x, x.long()), TypeError, "bool or floating point"),
        (
            lambda x: F.scaled_dot_product_attention(
                gf.ones(3, 2, 2), gf.ones(2, 2, 2), gf.ones(2, 2, 2), enable_gqa=True
            ),
            ValueError,
            "aren't a multiple of 2",
        ),
    ],
)
def test_attention_says_what_does_not_fit(call, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        call(gf.ones(2, 2))


# ---------------------------------------------------------------------------------------------- several heads


def multi_head(layer: nn.MultiheadAttention, q: Any, k: Any, v: Any, mask: Any = 0.0) -> tuple[Any, Any]:
    """Output and weights of every head, of (N, L, E) arrays, one head after the other."""
    state = {name: p.detach().numpy() for name, p in layer.named_parameters()}
    if "in_proj_weight" in state:
        weights = np.split(state["in_proj_weight"], 3)
    else:
        weights = [state[f"{name}_proj_weight"] for name in "qkv"]
    biases = np.split(state.get("in_proj_bias", np.zeros(3 * E)), 3)
    q, k, v = (x @ w.T + b for x, w, b in zip((q, k, v), weights, biases, strict=True))
    extra = 0
    for wanted, rows in (
        ("bias_k" in state, (state.get("bias_k"), state.get("bias_v"))),
        (layer.add_zero_attn, (np.zeros((1, 1, E)),) * 2),
    ):
        if wanted:
            k, v = (
                np.concatenate([x, np.tile(r, (len(x), 1, 1))], 1) for x, r in zip((k, v), rows, strict=True)
            )
            extra += 1
    mask = np.broadcast_to(mask, (len(q), H, q.shape[1], k.shape[1] - extra))
    mask = np.concatenate([mask, np.zeros((*mask.shape[:-1], extra))], -1)
    size, heads, shares = E // H, [], []
    for h in range(H):
        part = slice(h * size, (h + 1) * size)
        share = softmax(q[..., part] @ k[..., part].swapaxes(1, 2) / math.sqrt(size) + mask[:, h])
        heads.append(share @ v[..., part])
        shares.append(share)
    out = np.concatenate(heads, -1) @ state["out_proj.weight"].T + state.get("out_proj.bias", 0)
    return out, np.stack(shares, 1)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"bias": False},
    {"add_bias_kv": True, "add_zero_attn": True},
    {"kdim": 7, "vdim": 2},
    {"kdim": 7, "bias": False, "add_bias_kv": True},
]


def near(found: Any, wanted: np.ndarray) -> None:
    assert tuple(found.shape) == wanted.shape
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("batch_first", [False, True])
def test_multihead_attention(options: dict[str, Any], batch_first: bool) -> None:
    gf.manual_seed(0)
    layer = nn.MultiheadAttention(E, H, batch_first=batch_first, dtype=gf.float64, **options)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    q, k, v = draw(N, L, E), draw(N, S, options.get("kdim", E)), draw(N, S, options.get("vdim", E))
    turned = [gf.tensor(x if batch_first else x.swapaxes(0, 1)) for x in (q, k, v)]
    padding = RNG.random((N, S)) > 0.7
    padding[:, 0] = False
    forbidden = np.triu(np.ones((L, S), bool), 2)
    added = draw(N * H, L, S)
    for given, mask in (
        ({}, 0.0),
        ({"key_padding_mask": padding}, np.where(padding, -np.inf, 0)[:, None, None]),
        (
            {"key_padding_mask": padding, "attn_mask": forbidden},
            np.where(padding[:, None, None] | forbidden, -np.inf, 0),
        ),
        ({"attn_mask": added}, added.reshape(N, H, L, S)),
    ):
        masks = {name: gf.tensor(m) for name, m in given.items()}
        wanted, shares = multi_head(layer, q, k, v, mask)
        out, weights = layer(*turned, **masks)
        near(out, wanted if batch_first else wanted.swapaxes(0, 1))
        near(weights, shares.mean(1))
        near(layer(*turned, average_attn_weights=False, **masks)[1], shares)
        quick, nothing = layer(*turned, need_weights=False, **masks)
        near(quick, wanted if batch_first else wanted.swapaxes(0, 1))
        assert nothing is None


def test_self_attention_is_one_projection_and_the_same() -> None:
    layer = nn.MultiheadAttention(E, H, dtype=gf.float64)
    x, memory = gf.tensor(draw(L, N, E)), gf.tensor(draw(S, N, E))
    for together, apart in (
        ((x, x, x), (x, x.clone(), x.clone())),
        ((x, memory, memory), (x, memory, memory.clone())),
    ):
        np.testing.assert_allclose(
            *(layer(*ops)[0].detach().numpy() for ops in (together, apart)), atol=1e-12
        )
    single, weights = layer(x[:, 0], memory[:, 0], memory[:, 0])
    assert tuple(single.shape) == (L, E) and tuple(weights.shape) == (L, S)


def test_parameters_have_pytorchs_names_and_start_as_its_do() -> None:
    layer = nn.MultiheadAttention(64, 4, add_bias_kv=True)
    names = ["in_proj_weight", "in_proj_bias", "bias_k", "bias_v", "out_proj.weight", "out_proj.bias"]
    assert list(layer.state_dict()) == names
    bound = math.sqrt(6 / (64 + 192))
    assert 0.9 * bound < layer.in_proj_weight.abs().max().item() <= bound
    assert layer.in_proj_bias.abs().max().item() == layer.out_proj.bias.abs().max().item() == 0
    names = [
        "q_proj_weight",
        "k_proj_weight",
        "v_proj_weight",
        "in_proj_bias",
        "out_proj.weight",
        "out_proj.bias",
    ]
    assert list(nn.MultiheadAttention(64, 4, kdim=3).state_dict()) == names


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, x: nn.MultiheadAttention(5, 2), ValueError, "divisible by num_heads"),
        (lambda m, x: nn.MultiheadAttention(0, 2), ValueError, "must be greater than 0"),
        (lambda m, x: m(x, x, x, is_causal=True), ValueError, "Need attn_mask if specifying the is_causal"),
        (lambda m, x: m(x[0, 0], x, x), ValueError, "3 dimensions, or 2 without a batch"),
        (lambda m, x: m(x[..., :4], x, x), ValueError, "was expecting embedding dimension of 6, but got 4"),
        (lambda m, x: m(x, x, x[:2]), ValueError, "the same sequence length and batch"),
        (lambda m, x: m(x, x, x, attn_mask=gf.ones(2, 2)), ValueError, "The shape of attn_mask is"),
        (lambda m, x: m(x, x, x, gf.ones(2, 2)), ValueError, "expecting key_padding_mask shape of"),
        (lambda m, x: m(x, x, x, attn_mask=gf.ones(3, 3).long()), TypeError, "only bool and floating types"),
    ],
)
def test_multihead_attention_says_what_does_not_fit(call, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        call(nn.MultiheadAttention(6, 2), gf.ones(3, 2, 6))


# ---------------------------------------------------------------------------------------------- transformers


def norm(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def feed_forward(layer: Any, x: np.ndarray) -> np.ndarray:
    w1, b1, w2, b2 = (
        t.detach().numpy()
        for t in (layer.linear1.weight, layer.linear1.bias, layer.linear2.weight, layer.linear2.bias)
    )
    return np.maximum(x @ w1.T + b1, 0) @ w2.T + b2


@pytest.mark.parametrize("norm_first", [False, True])
def test_encoder_and_decoder_layers(norm_first: bool) -> None:
    gf.manual_seed(0)
    options: dict[str, Any] = {
        "dropout": 0.0,
        "batch_first": True,
        "norm_first": norm_first,
        "dtype": gf.float64,
    }
    encoder = nn.TransformerEncoderLayer(E, H, 8, **options)
    decoder = nn.TransformerDecoderLayer(E, H, 8, **options)
    causal = np.triu(np.full((L, L), -np.inf), 1)

    def residual(x: np.ndarray, part: Any) -> np.ndarray:
        return x + part(norm(x)) if norm_first else norm(x + part(x))

    def encoded(x: np.ndarray) -> np.ndarray:
        x = residual(x, lambda h: multi_head(encoder.self_attn, h, h, h, causal)[0])
        return residual(x, lambda h: feed_forward(encoder, h))

    def decoded(x: np.ndarray, memory: np.ndarray) -> np.ndarray:
        x = residual(x, lambda h: multi_head(decoder.self_attn, h, h, h, causal)[0])
        x = residual(x, lambda h: multi_head(decoder.multihead_attn, h, memory, memory)[0])
        return residual(x, lambda h: feed_forward(decoder, h))

    mask = gf.tensor(causal)
    x, memory = draw(N, L, E), draw(N, S, E)
    check(lambda x: encoder(x, src_mask=mask, is_causal=True), encoded, x, sizes=(2,), tolerance=1e-9)
    check(
        lambda x, m: decoder(x, m, tgt_mask=mask),
        decoded,
        x,
        memory,
        trained=(0, 1),
        sizes=(2,),
        tolerance=1e-9,
    )


def test_stacks_apply_their_layers_in_order() -> None:
    gf.manual_seed(0)
    model = nn.Transformer(E, H, 2, 3, 8, dropout=0.0, batch_first=True)
    src, tgt = gf.randn(N, S, E), gf.randn(N, L, E)
    mask = nn.Transformer.generate_square_subsequent_mask(L)
    assert mask.tolist()[1] == [0.0, 0.0, -math.inf, -math.inf]
    memory = src
    for layer in model.encoder.layers:
        memory = layer(memory)
    memory, x = model.encoder.norm(memory), tgt
    for layer in model.decoder.layers:
        x = layer(x, memory, tgt_mask=mask)
    wanted = model.decoder.norm(x).detach().numpy()
    np.testing.assert_allclose(
        model(src, tgt, tgt_mask=mask, tgt_is_causal=True).detach().numpy(), wanted, atol=1e-6
    )
    first, second = (layer.linear1.weight for layer in model.encoder.layers)
    assert first is not second and first.abs().max().item() <= math.sqrt(6 / (8 + E))
    padding = gf.zeros(N, S, dtype=gf.bool)
    padding[:, -1] = True
    hidden = model.encoder(src, src_key_padding_mask=padding)[:, :-1]
    shorter = model.encoder(src[:, :-1])
    np.testing.assert_allclose(hidden.detach().numpy(), shorter.detach().numpy(), atol=1e-6)


def test_a_compiled_training_step_is_the_eager_one_for_every_batch_size() -> None:
    def made() -> tuple[nn.Module, Any]:
        gf.manual_seed(0)
        layer = nn.TransformerEncoderLayer(
            E, H, 8, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        model = nn.TransformerEncoder(layer, 2, nn.LayerNorm(E)).double()
        optimizer = gf.optim.Adam(model.parameters(), lr=0.01)
        mask = nn.Transformer.generate_square_subsequent_mask(L)

        def step(x: gf.Tensor) -> gf.Tensor:
            optimizer.zero_grad()
            loss = F.mse_loss(model(x, mask, is_causal=True), x.roll(1, 1))
            loss.backward()
            optimizer.step()
            return loss.detach()

        return model, step

    (_, plain), (_, quick) = made(), made()
    compiled = gf.compile(quick)
    for size in (3, 5, 2, 4):
        x = gf.tensor(draw(size, L, E))
        assert compiled(x).item() == pytest.approx(plain(x).item(), rel=1e-9)
    assert len(compiled.variants) == 1


def test_dropout_stands_where_it_should_and_only_in_training() -> None:
    layer = nn.TransformerEncoderLayer(E, H, 8, dropout=0.5, batch_first=True)
    x = gf.randn(2, L, E)
    assert layer(x).tolist() != layer(x).tolist()
    assert layer.eval()(x).tolist() == layer(x).tolist()
    assert layer.self_attn.dropout == layer.dropout.p == layer.dropout1.p == layer.dropout2.p == 0.5
    with pytest.raises(ValueError, match="activation should be relu/gelu"):
        nn.TransformerEncoderLayer(E, H, activation="x")

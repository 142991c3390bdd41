"""State dictionaries: what modules add to them, and the functions that see them saved and loaded."""

from __future__ import annotations

import copy
from typing import Any

import graphflow as gf
import pytest
from graphflow import nn
from graphflow.nn.state import StateDictError


class Counter(nn.Module):
    """A layer that keeps a number besides its tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.calls = 0

    def get_extra_state(self) -> Any:
        return {"calls": self.calls}

    def set_extra_state(self, state: Any) -> None:
        self.calls = state["calls"]

    def forward(self, x: gf.Tensor) -> gf.Tensor:
        return self.layer(x)


def test_extra_state_is_saved_and_loaded_with_the_tensors() -> None:
    model, other = nn.Sequential(Counter(), nn.Linear(1, 1)), nn.Sequential(Counter(), nn.Linear(1, 1))
    model[0].calls = 3
    state = model.state_dict()
    assert list(state) == ["0._extra_state", "0.layer.weight", "0.layer.bias", "1.weight", "1.bias"]
    assert str(other.load_state_dict(state)) == "<All keys matched successfully>" and other[0].calls == 3
    del state["0._extra_state"]
    with pytest.raises(StateDictError, match=r"Missing key.*0._extra_state"):
        other.load_state_dict(state)
    with pytest.raises(StateDictError, match=r"Unexpected key.*_extra_state"):
        nn.Linear(1, 1).load_state_dict({**nn.Linear(1, 1).state_dict(), "_extra_state": 1})
    with pytest.raises(RuntimeError, match="Linear doesn't define get_extra_state"):
        nn.Linear(1, 1).get_extra_state()


def test_hooks_see_the_state_saved() -> None:
    model, seen = nn.Sequential(nn.Linear(1, 1)), []
    before = model[0].register_state_dict_pre_hook(lambda m, prefix, keep: seen.append((m, prefix, keep)))

    def after(module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
        state[f"{prefix}size"] = gf.tensor(7)

    handle = model[0].register_state_dict_post_hook(after)
    assert list(model.state_dict(keep_vars=True)) == ["0.weight", "0.bias", "0.size"]
    assert seen == [(model[0], "0.", True)]
    assert "0.size" in copy.deepcopy(model).state_dict()
    before.remove()
    handle.remove()
    assert list(model.state_dict()) == ["0.weight", "0.bias"] and len(seen) == 2
    model.register_state_dict_post_hook(lambda *_: 1)
    with pytest.raises(RuntimeError, match="must return None"):
        model.state_dict()


def test_hooks_change_what_is_loaded() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))

    def rename(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        state[f"{prefix}weight"] = state.pop(f"{prefix}w")

    model[1].register_load_state_dict_pre_hook(rename)
    given = {**model.state_dict(), "1.w": gf.full((1, 1), 5.0)}
    del given["1.weight"]
    model.load_state_dict(given)
    assert model[1].weight.item() == 5.0 and "1.w" in given


def test_hooks_after_loading_may_forgive_names() -> None:
    model = nn.Sequential(nn.Linear(1, 1))
    order = []

    def forgive(module: nn.Module, keys: Any) -> None:
        order.append(type(module).__name__)
        keys.missing_keys.clear()

    handle = model.register_load_state_dict_post_hook(forgive)
    model[0].register_load_state_dict_post_hook(lambda m, keys: order.append(list(keys.missing_keys)))
    assert model.load_state_dict({"0.weight": gf.full((1, 1), 2.0)}).missing_keys == []
    assert order == [["0.bias"], "Sequential"] and model[0].weight.item() == 2.0
    handle.remove()
    with pytest.raises(StateDictError, match=r"Missing key.*0.bias"):
        model.load_state_dict({"0.weight": gf.full((1, 1), 2.0)})


def test_forward_hooks_are_always_called_where_asked_for() -> None:
    class Fails(nn.Module):
        def forward(self, x: gf.Tensor) -> gf.Tensor:
            raise KeyError("no")

    model, seen = Fails(), []
    model.register_forward_hook(lambda m, args, out: seen.append("never"))
    model.register_forward_hook(lambda m, args, out: seen.append(out), always_call=True)
    model.register_forward_hook(
        lambda m, args, kwargs, out: seen.append("first"), always_call=True, prepend=True, with_kwargs=True
    )
    with pytest.raises(KeyError, match="no"):
        model(gf.ones(1))
    assert seen == ["first", None]
    model.register_forward_hook(lambda m, args, out: 1 / 0, always_call=True)
    with pytest.warns(UserWarning, match="silenced"), pytest.raises(KeyError, match="no"):
        model(gf.ones(1))


def test_to_empty_keeps_sizes_and_identity() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    weight = model[0].weight
    assert model.to_empty(device="cpu") is model is model.share_memory()
    assert model[0].weight is weight and tuple(weight.shape) == (3, 2) and weight.requires_grad
    held = model[0].weight.tolist()
    model.to_empty(device="cpu", recurse=False)
    assert str(model[0].weight.tolist()) == str(held)

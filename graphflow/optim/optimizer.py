"""What all optimizers share: parameter groups, state, and its saving and loading."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from graphflow import functions as ops
from graphflow.dtypes import DType, float32, float64
from graphflow.errors import ShapeError, TraceError
from graphflow.optim.arguments import Params, check_implementation, named, required
from graphflow.optim.group import ParamGroup, is_rate
from graphflow.optim.hooks import Hooked
from graphflow.tensor import Tensor, advance_epoch, concrete, enable_grad, no_grad, where_called


class Optimizer(Hooked):
    """Base class: holds parameters in groups and state per parameter. As ``torch.optim.Optimizer``.

    `params` are tensors, (name, tensor) pairs, or dictionaries with ``"params"`` and options of their own;
    `defaults` are the options of groups that don't set them. A subclass defines ``_update``. The same code
    runs eagerly and inside a compiled step; state is written in place, so compiled steps and checkpoints see
    the same tensors.
    """

    switches: ClassVar[frozenset[str]] = frozenset()  # rates that change the formula when they are zero
    scalars: ClassVar[frozenset[str]] = frozenset()  # state that is one number for a parameter
    constants: ClassVar[frozenset[str]] = frozenset()  # numbers that a step's graph is made with, no rates

    def __init__(self, params: Params, defaults: dict[str, Any]):
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, got a "
                "Tensor"
            )
        self.defaults = defaults
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[ParamGroup] = []
        self._splits = 0
        super().__init__()
        given: list[Any] = list(params)
        if not given:
            raise ValueError("optimizer got an empty parameter list")
        for group in given if isinstance(given[0], Mapping) else [{"params": given}]:
            self.add_param_group(group)

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Adds ``{"params": tensors, option: value, ...}``; options that are left out take the defaults."""
        if not isinstance(param_group, Mapping):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        options = {**self.defaults, **param_group}
        for name, value in options.items():
            if value is required:
                raise ValueError(
                    f"parameter group didn't specify a value of required optimization parameter {name}"
                )
        given = options.pop("params")
        if isinstance(given, Tensor):
            given = [given]
        elif isinstance(given, (set, frozenset)):
            raise TypeError(
                "optimizer parameters need to be organized in ordered collections, but the ordering of "
                "tensors in sets will change between runs. Please use a list instead."
            )
        names, tensors = named(given)
        if names:
            options["param_names"] = names
        taken = {p for group in self.param_groups for p in group["params"]}
        if len(set(tensors)) != len(tensors):
            raise ValueError(
                "a parameter group with duplicate parameters: some tensors appear more than once in it; give "
                "each of them once"
            )
        if taken & set(tensors):
            raise ValueError("some parameters appear in more than one parameter group")
        if any(("param_names" in group) != ("param_names" in options) for group in self.param_groups):
            raise ValueError(
                "all optimizer param groups should be with/without names. cannot add param group "
                f"{'with' if names else 'without'} names to the optimizer"
            )
        for name, value in options.items():
            if isinstance(value, Tensor) and name in self.defaults and value.numel() != 1:
                raise ValueError(f"Tensor {name} must be 1-element, got one of shape {tuple(value.shape)}")
        check_implementation(options)
        self._check_options(options)
        rates = frozenset(
            name for name, default in self.defaults.items() if is_rate(default) and name not in self.constants
        )
        self.param_groups.append(ParamGroup(tensors, options, rates, self.switches, len(self.param_groups)))
        advance_epoch()

    def _check_options(self, options: Mapping[str, Any]) -> None:
        """Raises ValueError for options a group can't have."""

    def _update(self, group: ParamGroup, params: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Changes the parameters of one group in place; `params` are (parameter, gradient) pairs."""
        raise NotImplementedError(f"{type(self).__name__} has no _update")

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates every parameter that has a gradient; returns what `closure`, the loss anew, returns."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        with no_grad():
            for group in self.param_groups:
                pairs = [(p, p.grad) for p in group["params"]]
                held = [(p, g) for p, g in pairs if g is not None]
                if held:
                    self._update(group, held)
        return loss

    def _structure(self) -> Hashable:
        kind = type(self).__name__
        facts = [
            (f"{kind}.param_groups[{i}]{what}", value)
            for i, group in enumerate(self.param_groups)
            for what, value in group.structure()
        ]
        shared = (f"{kind}'s step counters", self._splits), (f"{kind}'s hooks", self._hooked())
        return *shared, *facts, *self._numbers()

    def _numbers(self) -> list[tuple[str, Hashable]]:
        return [
            (f"{type(self).__name__}.state[{i}][{name!r}]", value)
            for i, p in enumerate(self._parameters())
            for name, value in self.state.get(p, {}).items()
            if isinstance(value, (bool, int, float, str))
        ]

    def _refuse_lost_state(self, before: list[tuple[str, Hashable]]) -> None:
        if not ops.zeros(()).is_traced:
            return
        made = [
            (p, name)
            for p, entries in self.state.items()
            for name, value in entries.items()
            if isinstance(value, Tensor) and value.is_traced
        ]
        for p, name in made:  # nobody could use it any more
            del self.state[p][name]
            if not any(isinstance(value, Tensor) for value in self.state[p].values()):
                self.state[p].clear()  # what was begun with it
        kind = type(self).__name__
        if made:
            raise TraceError(
                f"{kind}.step made its state {made[0][1]!r} while it was being compiled, where it won't live "
                "on to the next call; call step() once outside of compiled functions first, and change state "
                f"in place{where_called()}"
            )
        changed = [what for what, value in self._numbers() if (what, value) not in before]
        if changed:
            raise TraceError(
                f"{changed[0]} is a Python number that {kind}.step changes, which a compiled function would "
                f"do only once; keep it as a tensor and change it in place, as with .add_(1){where_called()}"
            )

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients, or with ``set_to_none=False`` fills them with zeros."""
        for p in self._parameters():
            if set_to_none or p.grad is None:
                p.grad = None  # without asking for it, so that compiled steps don't depend on there being one
            else:
                with no_grad():
                    p.grad = p.grad.detach().zero_()

    # -------------------------------------------------------------------------------- state tensors

    def _initial(self, name: str, group: ParamGroup) -> float:
        """What the state `name` is filled with at first."""
        return 0.0

    def _moment(self, parameter: Tensor, name: str) -> Tensor:
        """The parameter's state tensor `name`, of its shape and dtype, at first filled with `_initial`."""
        return self._state(parameter, name, parameter.shape, parameter.dtype)

    def _scalar(self, parameter: Tensor, name: str) -> Tensor:
        """The parameter's 0-d float64 state `name`, at first `_initial`."""
        return self._state(parameter, name, (), float64)

    def _state(self, parameter: Tensor, name: str, shape: Sequence[int], dtype: DType) -> Tensor:
        state = self.state[parameter]
        if name not in state:
            with concrete():
                state[name] = ops.full(shape, self._initial(name, self._group_of(parameter)), dtype=dtype)
            state[name].name = f"{parameter.name or 'p'}.{name}"
        held: Tensor = state[name]
        return held

    def _group_of(self, parameter: Tensor) -> ParamGroup:
        return next(g for g in self.param_groups if any(p is parameter for p in g["params"]))

    def _decayed(self, group: ParamGroup, parameter: Tensor, grad: Tensor) -> Tensor:
        """The direction to descend in: the gradient, turned round by `maximize`, with the decay added."""
        direction = -grad if group["maximize"] else grad
        if group.is_active("weight_decay"):
            direction = direction + group.tensor("weight_decay").to(parameter.dtype) * parameter
        return direction

    def _advance(self, params: Sequence[Tensor]) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Counts this step: (number of steps made so far, parameters that have made them).

        Parameters that always step together share one counter, so that what depends on it is computed once.
        """
        fresh: dict[float, Tensor] = {}
        for p in params:
            state = self.state[p]
            if "step" not in state:
                # State from elsewhere without a counter stands for a step already made.
                start = 1.0 if state else 0.0
                state["step"] = (
                    fresh[start] if start in fresh else fresh.setdefault(start, _new_counter(start))
                )
        together: dict[int, list[Tensor]] = {}
        for p in params:
            together.setdefault(id(self.state[p]["step"]), []).append(p)
        for members in together.values():
            counter = self.state[members[0]]["step"]
            self._leave_behind(counter, set(members))
            counter.add_(1.0)
            yield counter, members

    def _leave_behind(self, counter: Tensor, stepping: set[Tensor]) -> None:
        """Gives parameters that share `counter` but don't step now a counter of their own."""
        resting = [p for p, state in self.state.items() if state.get("step") is counter and p not in stepping]
        if resting:
            with concrete():
                copy = _new_counter(float(counter.item()))
            copy.copy_(counter)  # while tracing, an earlier step of the same function may have moved it on
            for p in resting:
                self.state[p]["step"] = copy
            self._restructured()

    def _restructured(self) -> None:
        """Tells compiled steps that the state tensors are no longer those they were traced with."""
        self._splits += 1
        advance_epoch()

    # -------------------------------------------------------------------------------- saving and loading

    def state_dict(self) -> dict[str, Any]:
        """``{"state": {number: {name: tensor}}, "param_groups": [options and parameter numbers]}``."""
        for hook in tuple(self._hooks["state_dict_pre"].values()):
            hook(self)
        numbers = {p: i for i, p in enumerate(self._parameters())}
        groups = [{**g.options(), "params": [numbers[p] for p in g["params"]]} for g in self.param_groups]
        state = {numbers[p]: dict(entries) for p, entries in self.state.items() if entries}
        saved: dict[str, Any] = {"state": dict(sorted(state.items())), "param_groups": groups}
        for hook in tuple(self._hooks["state_dict_post"].values()):
            changed = hook(self, saved)
            saved = saved if changed is None else changed
        return saved

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over options and state; existing state tensors keep their identity, compiled steps go on with
        them.

        ValueError when the groups don't match, ShapeError when a state tensor doesn't fit its parameter.
        """
        given = dict(state_dict)
        for hook in tuple(self._hooks["load_state_dict_pre"].values()):
            changed = hook(self, given)
            given = given if changed is None else changed
        groups = given["param_groups"]
        if len(groups) != len(self.param_groups):
            raise ValueError(
                f"loaded state dict has a different number of parameter groups: {len(groups)} instead of "
                f"{len(self.param_groups)}"
            )
        if any(len(a["params"]) != len(b["params"]) for a, b in zip(groups, self.param_groups, strict=True)):
            raise ValueError(
                "loaded state dict contains a parameter group that doesn't match the size of optimizer's "
                "group"
            )
        saved_numbers = [number for group in groups for number in group["params"]]
        loaded = {
            p: {k: v for k, v in given["state"].get(number, {}).items() if v is not None}
            for number, p in zip(saved_numbers, self._parameters(), strict=True)
        }
        for group in groups:
            check_implementation(group)
        for p, entries in loaded.items():
            self._check_entries(p, entries)
        for group, saved in zip(self.param_groups, groups, strict=True):
            for name, value in saved.items():
                if name != "params":
                    group[name] = copy.deepcopy(value)
        with no_grad():
            for group in self.param_groups if self._counts else ():
                counted = [
                    p for p in group["params"] if "step" in loaded[p] or "step" in self.state.get(p, {})
                ]
                self._load_counters({p: float(loaded[p].get("step", 0.0)) for p in counted})
            for p, entries in loaded.items():
                self._load_entries(p, entries)
        for hook in tuple(self._hooks["load_state_dict_post"].values()):
            hook(self)

    def _parameters(self) -> Iterator[Tensor]:
        return (p for group in self.param_groups for p in group["params"])

    @property
    def _counts(self) -> bool:
        """Whether steps are counted here: not for optimizers whose ``step`` does everything itself."""
        return type(self)._update is not Optimizer._update

    def _state_shape(self, parameter: Tensor, name: str) -> Sequence[int] | None:
        """The shape that the state `name` has to have, None where only the optimizer knows."""
        return parameter.shape if self._counts else None

    def _load_entries(self, parameter: Tensor, entries: Mapping[str, Any]) -> None:
        state = self.state[parameter]
        group = self._group_of(parameter)
        for name in state.keys() - entries.keys() - ({"step"} if self._counts else set()):
            if isinstance(state[name], Tensor):
                state[name].fill_(self._initial(name, group))  # compiled steps may hold on to the tensor
            else:
                del state[name]
        for name, value in entries.items():
            if name == "step" and self._counts:
                continue
            if name in self.scalars:
                self._scalar(parameter, name).fill_(float(value))
            elif not hasattr(value, "shape"):
                state[name] = copy.deepcopy(value)
            else:
                held = state.get(name)
                if not isinstance(held, Tensor) or tuple(held.shape) != tuple(value.shape):
                    if state.pop(name, None) is not None:
                        self._restructured()
                    held = self._state(parameter, name, value.shape, parameter.dtype)
                held.copy_(value)

    def _check_entries(self, parameter: Tensor, entries: Mapping[str, Any]) -> None:
        for name, value in entries.items():
            if name == "step" or name in self.scalars:
                continue
            shape = self._state_shape(parameter, name)
            if shape is not None and tuple(value.shape) != tuple(shape):
                what = "its parameter" if tuple(shape) == tuple(parameter.shape) else "what belongs there"
                raise ShapeError(
                    f"the loaded state {name!r} has shape {tuple(value.shape)}, {what} {tuple(shape)}"
                )

    def _load_counters(self, steps: Mapping[Tensor, float]) -> None:
        """Sets the step counters of one group; those of equal value are shared where they aren't taken
        already.
        """
        filled: dict[int, float] = {}
        fresh: dict[float, Tensor] = {}
        for p, value in steps.items():
            counter = self.state[p].get("step")
            if counter is not None and filled.setdefault(id(counter), value) == value:
                counter.fill_(value)
                continue
            if counter is not None:
                self._restructured()
            if value not in fresh:
                fresh[value] = _new_counter(value)
            self.state[p]["step"] = fresh[value]

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {name}: {value}" for name, value in sorted(group.options().items())]
        return "\n".join([*lines, ")"])


def _new_counter(start: float) -> Tensor:
    with concrete():
        counter = ops.full((), start, dtype=float64)
    counter.name = "step"
    return counter


def cast(scalars: Sequence[Tensor], dtype: DType) -> list[Tensor]:
    """Coefficients, computed in float64, as 0-d tensors of the dtype that arithmetic on the parameter is
    done in.
    """
    wanted = float32 if dtype.is_half else dtype
    return [s.to(wanted) for s in scalars]

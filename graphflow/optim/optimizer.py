"""What all optimizers share: parameter groups, state, and its saving and loading."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypedDict

from graphflow import functions as ops
from graphflow.dtypes import DType, float32, float64
from graphflow.errors import ShapeError
from graphflow.optim.group import ParamGroup, is_rate
from graphflow.tensor import Tensor, advance_epoch, concrete, depends_on, enable_grad, no_grad

Params = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[Mapping[str, Any]]


class Optimizer:
    """Base class: holds parameters in groups and state per parameter. As ``torch.optim.Optimizer``.

    `params` are tensors, (name, tensor) pairs, or dictionaries with ``"params"`` and options of their own;
    `defaults` are the options of groups that don't set them. A subclass defines ``_update``. The same code
    runs eagerly and inside a compiled step; state is written in place, so compiled steps and checkpoints see
    the same tensors.
    """

    switches: ClassVar[frozenset[str]] = frozenset()  # rates that change the formula when they are zero
    scalars: ClassVar[frozenset[str]] = frozenset()  # state that is one number for a parameter

    def __init__(self, params: Params, defaults: dict[str, Any]):
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, got a "
                "Tensor"
            )
        self.defaults = defaults
        self.state: defaultdict[Tensor, dict[str, Tensor]] = defaultdict(dict)
        self.param_groups: list[ParamGroup] = []
        self._splits = 0
        self.has_stepped = False
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
        given = options.pop("params")
        if isinstance(given, Tensor):
            given = [given]
        elif isinstance(given, (set, frozenset)):
            raise TypeError(
                "optimizer parameters need to be organized in ordered collections, but the ordering of "
                "tensors in sets will change between runs. Please use a list instead."
            )
        tensors: list[Tensor] = []
        for item in given:
            tensor = item[1] if isinstance(item, tuple) and len(item) == 2 else item
            if not isinstance(tensor, Tensor):
                raise TypeError(
                    f"optimizer can only optimize Tensors, but one of the params is {type(tensor)}"
                )
            if not tensor.is_leaf:
                raise ValueError("can't optimize a non-leaf Tensor")
            tensors.append(tensor)
        taken = {p for group in self.param_groups for p in group["params"]}
        if len(set(tensors)) != len(tensors) or taken & set(tensors):
            raise ValueError("some parameters appear more than once among the parameter groups")
        self._check_options(options)
        rates = frozenset(name for name, default in self.defaults.items() if is_rate(default))
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
        depends_on(self, self._structure)
        self.has_stepped = True
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
        return (f"{kind}'s step counters", self._splits), *facts

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients, or with ``set_to_none=False`` fills them with zeros."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none or p.grad is None:
                    p.grad = None
                else:
                    with no_grad():
                        p.grad.zero_()

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
        return state[name]

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
        """Tells compiled steps that parameters no longer share the counters they were traced with."""
        self._splits += 1
        advance_epoch()

    # -------------------------------------------------------------------------------- saving and loading

    def state_dict(self) -> dict[str, Any]:
        """``{"state": {number: {name: tensor}}, "param_groups": [options and parameter numbers]}``."""
        numbers = {p: i for i, p in enumerate(self._parameters())}
        groups = [{**g.options(), "params": [numbers[p] for p in g["params"]]} for g in self.param_groups]
        state = {numbers[p]: dict(entries) for p, entries in self.state.items() if entries}
        return {"state": dict(sorted(state.items())), "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over options and state; existing state tensors keep their identity, compiled steps go on with
        them.

        ValueError when the groups don't match, ShapeError when a state tensor doesn't fit its parameter.
        """
        groups = state_dict["param_groups"]
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
            p: {k: v for k, v in state_dict["state"].get(number, {}).items() if v is not None}
            for number, p in zip(saved_numbers, self._parameters(), strict=True)
        }
        for p, entries in loaded.items():
            self._check_entries(p, entries)
        for group, saved in zip(self.param_groups, groups, strict=True):
            for name, value in saved.items():
                if name != "params":
                    group[name] = value
        with no_grad():
            for group in self.param_groups:
                counted = [
                    p for p in group["params"] if "step" in loaded[p] or "step" in self.state.get(p, {})
                ]
                self._load_counters({p: float(loaded[p].get("step", 0.0)) for p in counted})
            for p, entries in loaded.items():
                self._load_entries(p, entries)

    def _parameters(self) -> Iterator[Tensor]:
        return (p for group in self.param_groups for p in group["params"])

    def _load_entries(self, parameter: Tensor, entries: Mapping[str, Any]) -> None:
        state = self.state[parameter]
        group = self._group_of(parameter)
        for name in state.keys() - entries.keys() - {"step"}:
            state[name].fill_(self._initial(name, group))  # compiled steps may hold on to the tensor
        for name, value in entries.items():
            if name == "step":
                continue
            if name in self.scalars:
                self._scalar(parameter, name).fill_(float(value))
            else:
                self._moment(parameter, name).copy_(value)

    def _check_entries(self, parameter: Tensor, entries: Mapping[str, Any]) -> None:
        for name, value in entries.items():
            if name != "step" and name not in self.scalars and tuple(value.shape) != tuple(parameter.shape):
                raise ShapeError(
                    f"the loaded state {name!r} has shape {tuple(value.shape)}, its parameter "
                    f"{tuple(parameter.shape)}"
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


class Implementation(TypedDict, total=False):
    """Arguments by which PyTorch chooses among implementations of one formula. They are accepted; there is
    one implementation here, which is fused over all parameters. ValueError for `differentiable`.
    """

    foreach: bool | None
    fused: bool | None
    capturable: bool
    differentiable: bool


def accept(implementation: Implementation) -> None:
    """TypeError for an unknown argument, ValueError for one that would change what a step means."""
    unknown = implementation.keys() - Implementation.__annotations__.keys()
    if unknown:
        raise TypeError(f"an optimizer got an unexpected keyword argument {min(unknown)!r}")
    if implementation.get("differentiable"):
        raise ValueError("differentiable=True isn't supported: no gradient flows through a step")


def check_betas(betas: Sequence[Any]) -> None:
    """ValueError unless `betas` are two numbers in [0, 1)."""
    if len(betas) != 2:
        raise ValueError(f"betas takes 2 numbers, got {len(betas)}")
    for i, beta in enumerate(betas):
        check_rate(f"beta parameter at index {i}", beta, below=1.0)


def check_rate(name: str, value: Any, below: float = float("inf")) -> None:
    """ValueError unless 0 <= value < below. `name` starts the message: ``Invalid learning rate``."""
    if not 0.0 <= float(value) < below:
        raise ValueError(f"Invalid {name}: {value}")

"""Recurrent layers: whole sequences through ``scan``, with the input's product for all steps taken before it.

Elman (1990); LSTM: Hochreiter and Schmidhuber (1997), with forget gates; GRU: Cho et al. (2014), in the form
of ``torch.nn.GRU``, whose reset gate acts after the product. Parameters have PyTorch's names and start.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from graphflow import functions as ops
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.precision import autocasting
from graphflow.functions.registry import user_level
from graphflow.nn import functional as F
from graphflow.nn import init
from graphflow.nn.module import Module
from graphflow.nn.parameter import Parameter
from graphflow.nn.utils.packed import PackedSequence
from graphflow.tensor import Tensor, where_called

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNBase", "RNNCell", "RNNCellBase"]

State = tuple[Tensor, ...]
# One step: what the input contributes to the gates (with its bias), state, weight_hh, bias_hh -> new state.
Step = Callable[[Tensor, State, Tensor, Tensor | None], State]


def _rnn(activation: Callable[[Tensor], Tensor]) -> Step:
    def step(gates: Tensor, state: State, weight: Tensor, bias: Tensor | None) -> State:
        return (activation(gates + F.linear(state[0], weight, bias)),)

    return step


def _lstm(gates: Tensor, state: State, weight: Tensor, bias: Tensor | None) -> State:
    h, c = state
    i, f, g, o = ops.chunk(gates + F.linear(h, weight, bias), 4, -1)
    c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
    return ops.sigmoid(o) * ops.tanh(c), c


def _gru(gates: Tensor, state: State, weight: Tensor, bias: Tensor | None) -> State:
    (h,) = state
    from_input, from_state = ops.chunk(gates, 3, -1), ops.chunk(F.linear(h, weight, bias), 3, -1)
    reset, update = (ops.sigmoid(a + b) for a, b in zip(from_input[:2], from_state[:2], strict=True))
    new = ops.tanh(from_input[2] + reset * from_state[2])
    return (new + update * (h - new),)


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": ops.tanh, "relu": ops.relu}


def _activation(nonlinearity: str) -> Callable[[Tensor], Tensor]:
    if nonlinearity not in _ACTIVATIONS:
        raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
    return _ACTIVATIONS[nonlinearity]


def _whole(value: Any, name: str, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} should be of type int, got: {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be greater than zero" if least else f"{name} should not be negative")
    return value


def _tensor(value: Any, name: str, argument: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise DTypeError(
            f"{name}: argument {argument!r} must be a Tensor, not {type(value).__name__}{where_called()}"
        )
    return value


def _require(name: str, what: str, tensor: Tensor, last: int, dims: Sequence[int]) -> None:
    if tensor.ndim not in dims:
        expected = " or ".join(f"{d}D" for d in dims)
        raise ShapeError(f"{name}: expected {what} to be {expected}, got {tensor.type_}{where_called()}")
    if tensor.shape[-1] != last:
        raise ShapeError(
            f"{name}: the last dimension of {what} has to be {last}, got {tensor.type_}{where_called()}"
        )


def _no_projection(name: str, other: dict[str, Any]) -> None:
    if "proj_size" in other:
        raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
    for argument in other:
        raise TypeError(f"{name}.__init__() got an unexpected keyword argument {argument!r}")


class _Recurrent(Module):
    """What layers and cells share: their weights, and how these start."""

    gates = 1
    states = 1

    def _weights(self, suffix: str, sizes: dict[str, tuple[int, ...]], options: dict[str, Any]) -> None:
        for kind, shape in sizes.items():
            name = f"{kind}{suffix}"
            if kind.startswith("bias") and not self.bias:
                if not suffix:
                    self.register_parameter(name, None)
                continue
            self.register_parameter(name, Parameter(ops.empty(shape, **options)))

    bias: bool
    hidden_size: int

    def reset_parameters(self) -> None:
        """Draws all parameters anew, uniform in ±1/sqrt(hidden_size)."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def _step(self) -> Step:
        raise NotImplementedError


class RNNBase(_Recurrent):
    """What `RNN`, `LSTM` and `GRU` share; see `RNN` for arguments and shapes."""

    adds_biases = True  # whether a step does no more with its two biases than to add both

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        self.input_size = _whole(input_size, "input_size", 0)
        self.hidden_size = _whole(hidden_size, "hidden_size")
        self.num_layers = _whole(num_layers, "num_layers")
        self.proj_size = _whole(proj_size, "proj_size", 0)
        if proj_size >= hidden_size:
            raise ValueError("proj_size has to be smaller than hidden_size")
        if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout <= 1:
            raise ValueError(
                "dropout should be a number in range [0, 1] representing the probability of an element being "
                "zeroed"
            )
        if dropout > 0 and num_layers == 1:
            warnings.warn(
                "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects "
                f"num_layers greater than 1, but got dropout={dropout} and num_layers={num_layers}",
                stacklevel=user_level(),
            )
        self.bias, self.batch_first, self.bidirectional = bias, batch_first, bidirectional
        self.dropout = float(dropout)
        options = {"device": device, "dtype": dtype}
        rows, out = self.gates * hidden_size, proj_size or hidden_size
        for layer in range(num_layers):
            width = input_size if layer == 0 else out * self._directions
            for suffix in self._suffixes(layer):
                sizes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, width), "weight_hh": (rows, out)}
                sizes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
                if proj_size:
                    sizes["weight_hr"] = (out, hidden_size)
                self._weights(suffix, sizes, options)
        self.reset_parameters()

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}", f"_l{layer}_reverse"][: self._directions]

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The parameters of each layer and direction."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        return [
            [p for name in names if (p := getattr(self, f"{name}{suffix}", None)) is not None]
            for layer in range(self.num_layers)
            for suffix in self._suffixes(layer)
        ]

    def flatten_parameters(self) -> None:
        """Nothing: kept for programs that call it."""

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:
        """The last layer's states at all steps, and the last states of all layers."""
        name = type(self).__name__
        if isinstance(input, PackedSequence):
            return self._packed(input, hx)
        _tensor(input, name, "input")
        _require(name, "input", input, self.input_size, (2, 3))
        given, batched = input, input.ndim == 3
        if not batched:
            input = ops.unsqueeze(input, 1)
        elif self.batch_first:
            input = ops.transpose(input, 0, 1)
        if input.type_.shape[0] == 0:
            raise ShapeError(
                f"{name}: expected sequence length to be larger than 0, got {given.type_}{where_called()}"
            )
        first = self._first(hx, input, batched)
        output, last = self._layers(input, first)
        if not batched:
            return ops.squeeze(output, 1), self._told([ops.squeeze(s, 1) for s in last])
        return ops.transpose(output, 0, 1) if self.batch_first else output, self._told(last)

    def _packed(self, sequence: PackedSequence, hx: Any) -> tuple[PackedSequence, Any]:
        """`forward` for sequences of different lengths: beyond its end, a sequence's state stays as it is."""
        name = type(self).__name__
        _require(name, "the data of input", sequence.data, self.input_size, (2,))
        rows, present = sequence.padded(len(sequence.counts()))
        first = self._first(hx, rows, True)
        order, back = sequence.sorted_indices, sequence.unsorted_indices
        if order is not None and hx is not None:
            first = [ops.index_select(state, 1, order) for state in first]
        output, last = self._layers(rows, first, present.unsqueeze(-1))
        if back is not None:
            last = [ops.index_select(state, 1, back) for state in last]
        return sequence.packed(output), self._told(last)

    def _told(self, state: Sequence[Tensor]) -> Any:
        return state[0] if self.states == 1 else tuple(state)

    def _first(self, hx: Any, input: Tensor, batched: bool) -> list[Tensor]:
        """The states before the first step, (layers · directions, batch, size) each; zeros by default."""
        name, count, batch = type(self).__name__, self.num_layers * self._directions, input.shape[1]
        sizes = [self.proj_size or self.hidden_size, self.hidden_size][: self.states]
        if hx is None:
            return [ops.zeros((count, batch, size), dtype=input.dtype) for size in sizes]
        given = [hx] if self.states == 1 else hx
        if not isinstance(given, (tuple, list)) or len(given) != self.states:
            raise DTypeError(f"{name}: argument 'hx' has to be (h_0, c_0){where_called()}")
        first = []
        for label, state, size in zip(("h_0", "c_0"), given, sizes, strict=False):
            _require(name, label, _tensor(state, name, label), size, (3,) if batched else (2,))
            state = state if batched else ops.unsqueeze(state, 1)
            if state.shape[0] != count or state.shape[1] != batch:
                raise ShapeError(
                    f"{name}: expected {label} to be ({count}, {batch}, {size}), got "
                    f"{state.type_}{where_called()}"
                )
            first.append(state)
        return first

    @functools.partial(autocasting, name="recurrent")
    def _layers(
        self, input: Tensor, first: Sequence[Tensor], present: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        last: list[State] = []
        for layer in range(self.num_layers):
            outputs = []
            for direction, suffix in enumerate(self._suffixes(layer)):
                state = tuple(s[len(last)] for s in first)
                output, state = self._one(input, state, suffix, direction == 1, present)
                outputs.append(output)
                last.append(state)
            input = outputs[0] if len(outputs) == 1 else ops.cat(outputs, -1)
            if self.dropout and layer < self.num_layers - 1:
                input = F.dropout(input, self.dropout, self.training)
        return input, [ops.stack(column) for column in zip(*last, strict=True)]

    def _one(
        self, input: Tensor, state: State, suffix: str, reverse: bool, present: Tensor | None
    ) -> tuple[Tensor, State]:
        """One layer in one direction: states at all steps, and the last one."""
        weight_hh, bias_hh = getattr(self, f"weight_hh{suffix}"), getattr(self, f"bias_hh{suffix}", None)
        projection = getattr(self, f"weight_hr{suffix}", None)
        bias_ih = getattr(self, f"bias_ih{suffix}", None)
        if self.adds_biases and bias_ih is not None:
            bias_ih, bias_hh = bias_ih + bias_hh, None
        gates = F.linear(input, getattr(self, f"weight_ih{suffix}"), bias_ih)
        step = self._step()

        def body(state: State, x: tuple[Tensor, Tensor | None]) -> tuple[State, State]:
            new = step(x[0], state, weight_hh, bias_hh)
            if projection is not None:
                new = (F.linear(new[0], projection), *new[1:])
            if x[1] is not None:
                new = tuple(ops.where(x[1], a, b) for a, b in zip(new, state, strict=True))
            return new, new  # all states: the gradient needs those before each step

        last, steps = ops.scan(body, state, (gates, present), reverse=reverse)
        return steps[0], last

    def extra_repr(self) -> str:
        """Sizes, and what differs from the defaults."""
        text = f"{self.input_size}, {self.hidden_size}"
        if self.proj_size:
            text += f", proj_size={self.proj_size}"
        if self.num_layers != 1:
            text += f", num_layers={self.num_layers}"
        if not self.bias:
            text += f", bias={self.bias}"
        if self.batch_first:
            text += f", batch_first={self.batch_first}"
        if self.dropout:
            text += f", dropout={self.dropout}"
        if self.bidirectional:
            text += f", bidirectional={self.bidirectional}"
        return text


class RNN(RNNBase):
    """``h = tanh(x @ weight_ih.T + bias_ih + h @ weight_hh.T + bias_hh)`` over a sequence: ``torch.nn.RNN``.

    ``forward(input, hx=None)`` takes (steps, batch, input_size), with `batch_first` (batch, steps,
    input_size), or (steps, input_size) without a batch; `hx` is (num_layers · directions, batch,
    hidden_size), zeros by default. It gives the last layer's states at all steps, (steps, batch, directions ·
    hidden_size), and the last states of all layers; for a `PackedSequence`, a packed sequence like it, and
    the states after each sequence's own last step. Between layers, elements are dropped with probability
    `dropout` while training. ShapeError for other shapes. The number of steps, or with `batch_first` the
    batch size, may differ from call to call of one compiled variant.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        **other: Any,
    ):
        _no_projection("RNN", other)
        _activation(nonlinearity)
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, device, dtype
        )
        self.nonlinearity = nonlinearity

    def _step(self) -> Step:
        return _rnn(_activation(self.nonlinearity))


class LSTM(RNNBase):
    """Long short-term memory, as ``torch.nn.LSTM``; gates in the order input, forget, cell, output.

    Arguments and shapes as `RNN`; `hx` and the second result are ``(h, c)``. With `proj_size`, h is
    projected to that size by `weight_hr`.
    """

    gates = 4
    states = 2

    def _step(self) -> Step:
        return _lstm


class GRU(RNNBase):
    """Gated recurrent unit, as ``torch.nn.GRU``; gates in the order reset, update, new. Shapes as `RNN`."""

    gates = 3
    adds_biases = False

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        **other: Any,
    ):
        _no_projection("GRU", other)
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, device, dtype
        )

    def _step(self) -> Step:
        return _gru


class RNNCellBase(_Recurrent):
    """One step of a recurrent layer: what `RNNCell`, `LSTMCell` and `GRUCell` share."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ):
        super().__init__()
        self.input_size = _whole(input_size, "input_size", 0)
        self.hidden_size = _whole(hidden_size, "hidden_size")
        self.bias = bias
        rows = self.gates * hidden_size
        weights = {"weight_ih": (rows, input_size), "weight_hh": (rows, hidden_size)}
        sizes: dict[str, tuple[int, ...]] = {**weights, "bias_ih": (rows,), "bias_hh": (rows,)}
        self._weights("", sizes, {"device": device, "dtype": dtype})
        self.reset_parameters()

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """The state after one step: (batch, hidden_size), or (hidden_size,) for an input without a batch."""
        name = type(self).__name__
        _tensor(input, name, "input")
        _require(name, "input", input, self.input_size, (1, 2))
        shape = (*input.shape[:-1], self.hidden_size)
        state: State
        if hx is None:
            state = tuple(ops.zeros(shape, dtype=input.dtype) for _ in range(self.states))
        else:
            state = (hx,) if self.states == 1 else tuple(hx) if isinstance(hx, (tuple, list)) else ()
        if len(state) != self.states:
            raise DTypeError(f"{name}: argument 'hx' has to be (h_0, c_0){where_called()}")
        for part in state:
            _require(name, "hx", _tensor(part, name, "hx"), self.hidden_size, (input.ndim,))
            if input.ndim == 2 and part.shape[0] != input.shape[0]:
                raise ShapeError(
                    f"{name}: input {input.type_} and hx {part.type_} differ in their batch{where_called()}"
                )
        gates = F.linear(input, self.weight_ih, self.bias_ih)
        new = self._step()(gates, state, self.weight_hh, self.bias_hh)
        return new[0] if self.states == 1 else new

    def extra_repr(self) -> str:
        """Sizes, and whether the biases are left out."""
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else f", bias={self.bias}")


class RNNCell(RNNCellBase):
    """One step of `RNN`: (batch, input_size) and (batch, hidden_size) to (batch, hidden_size)."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ):
        _activation(nonlinearity)
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = nonlinearity

    def _step(self) -> Step:
        return _rnn(_activation(self.nonlinearity))

    def extra_repr(self) -> str:
        """Sizes, and what differs from the defaults."""
        other = "" if self.nonlinearity == "tanh" else f", nonlinearity={self.nonlinearity}"
        return super().extra_repr() + other


class LSTMCell(RNNCellBase):
    """One step of `LSTM`; `hx` and the result are ``(h, c)``."""

    gates = 4
    states = 2

    def _step(self) -> Step:
        return _lstm


class GRUCell(RNNCellBase):
    """One step of `GRU`."""

    gates = 3

    def _step(self) -> Step:
        return _gru

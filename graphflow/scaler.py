"""Scaling losses so that float16 gradients don't vanish, after ``torch.amp.GradScaler``."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from graphflow.compiler.trace import current_trace
from graphflow.dtypes import float16, float32, int32
from graphflow.functions.control import cond
from graphflow.functions.create import tensor
from graphflow.functions.logic import isfinite, logical_not
from graphflow.runtime.device import as_device, cuda_is_available
from graphflow.tensor import Tensor, no_grad

_READY, _UNSCALED, _STEPPED = range(3)


class GradScaler:
    """Multiplies losses by a scale; divides gradients by it before a step, which is left out if one isn't
    finite. `update` halves the scale after such a step (`backoff_factor`) and doubles it (`growth_factor`)
    after `growth_interval` others in a row.

    The scale is a state: in a compiled step it goes on from call to call. For "cuda", PyTorch's default
    device, it warns and does nothing where there is no GPU.
    """

    def __init__(
        self,
        device: str = "cuda",
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ):
        self._enabled = bool(enabled)
        if self._enabled and as_device(device).type == "cuda" and not cuda_is_available():
            warnings.warn(
                'GradScaler is enabled for "cuda", but CUDA is not available. Disabling; '
                'GradScaler("cpu") works',
                UserWarning,
                stacklevel=2,
            )
            self._enabled = False
        if growth_factor <= 1.0:
            raise ValueError(f"GradScaler: growth_factor has to be more than 1, got {growth_factor}")
        if backoff_factor >= 1.0:
            raise ValueError(f"GradScaler: backoff_factor has to be less than 1, got {backoff_factor}")
        self._growth_factor, self._backoff_factor = float(growth_factor), float(backoff_factor)
        self._growth_interval = int(growth_interval)
        self._scale = tensor(float(init_scale), dtype=float32)
        self._growth_tracker = tensor(0, dtype=int32)
        self._scale.name, self._growth_tracker.name = "grad_scale", "growth_tracker"
        self._optimizers: dict[int, tuple[int, Tensor]] = {}  # stage and whether a gradient isn't finite
        self._scaled = False

    def is_enabled(self) -> bool:
        """Whether it does anything."""
        return self._enabled

    def scale(self, outputs: Any) -> Any:
        """A tensor, or each of a sequence of tensors, times the scale."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, Tensor):
            self._scaled = True
            return outputs * self._scale
        if not isinstance(outputs, Iterable):
            raise ValueError("GradScaler.scale: outputs must be a Tensor or an iterable of Tensors")
        made = map(self.scale, outputs)
        return type(outputs)(made) if isinstance(outputs, (list, tuple)) else made

    def _require_scaled(self, name: str) -> None:
        if not self._scaled:
            raise RuntimeError(f"GradScaler.{name}: scaler.scale(loss) hasn't been called before")

    def unscale_(self, optimizer: Any) -> None:
        """Divides the gradients of the optimizer's parameters by the scale, to clip or to look at them."""
        if not self._enabled:
            return
        self._require_scaled("unscale_")
        stage = self._optimizers.get(id(optimizer), (_READY, None))[0]
        if stage is not _READY:
            done = "unscale_() has already been called on this optimizer since the last update()"
            raise RuntimeError(done if stage is _UNSCALED else "unscale_() is being called after step()")
        bad = tensor(False)
        with no_grad():
            inverse = self._scale.double().reciprocal().float()
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is None:
                        continue
                    if parameter.grad.dtype is float16:
                        raise ValueError(
                            "Attempting to unscale FP16 gradients: parameters stay float32, autocast converts"
                        )
                    bad = bad | logical_not(isfinite(parameter.grad).all())
                    parameter.grad.mul_(inverse)
        self._optimizers[id(optimizer)] = (_UNSCALED, bad)

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """`unscale_`, unless it has been called, and ``optimizer.step()`` if all gradients are finite."""
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs:
            raise RuntimeError("Closure use is not currently supported if GradScaler is enabled.")
        self._require_scaled("step")
        if id(optimizer) not in self._optimizers:
            self.unscale_(optimizer)
        stage, bad = self._optimizers[id(optimizer)]
        if stage is _STEPPED:
            raise RuntimeError("step() has already been called since the last update().")
        self._optimizers[id(optimizer)] = (_STEPPED, bad)
        if current_trace() is None:
            return None if bad.item() else optimizer.step(*args, **kwargs)

        def step() -> Tensor:
            optimizer.step(*args, **kwargs)
            return bad

        cond(bad, lambda: bad, step)
        return None

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Adapts the scale to how the steps since the last update went, or sets it."""
        if not self._enabled:
            return
        self._require_scaled("update")
        with no_grad():
            if new_scale is not None:
                self._scale.copy_(new_scale if isinstance(new_scale, Tensor) else tensor(float(new_scale)))
            else:
                if not self._optimizers:
                    raise RuntimeError("GradScaler.update: no optimizer has stepped since the last update()")
                bad = tensor(False)
                for _, one in self._optimizers.values():
                    bad = bad | one
                count = (self._growth_tracker + 1) * logical_not(bad).int()
                grown = count == self._growth_interval
                factor = bad.float() * self._backoff_factor + logical_not(bad).float()
                larger = self._scale * self._growth_factor
                larger = larger.where(grown & isfinite(larger), self._scale)
                self._scale.copy_(larger * factor)
                self._growth_tracker.copy_(count * logical_not(grown).int())
        self._optimizers.clear()

    def get_scale(self) -> float:
        """The scale as a number, 1 where scaling is off."""
        return float(self._scale.item()) if self._enabled else 1.0

    def get_growth_factor(self) -> float:
        """What the scale grows by."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Sets what the scale grows by."""
        self._growth_factor = float(new_factor)

    def get_backoff_factor(self) -> float:
        """What the scale is multiplied by after a step with gradients that aren't finite."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Sets what the scale is multiplied by after a step with gradients that aren't finite."""
        self._backoff_factor = float(new_factor)

    def get_growth_interval(self) -> int:
        """After how many good steps in a row the scale grows."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Sets after how many good steps in a row the scale grows."""
        self._growth_interval = int(new_interval)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes: numbers; empty where scaling is off."""
        if not self._enabled:
            return {}
        return {
            "scale": self.get_scale(),
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": int(self._growth_tracker.item()),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from where the other scaler was."""
        if not self._enabled:
            return
        if not state_dict:
            raise RuntimeError(
                "GradScaler.load_state_dict: the state is empty, of a scaler that was disabled"
            )
        self._growth_factor = float(state_dict["growth_factor"])
        self._backoff_factor = float(state_dict["backoff_factor"])
        self._growth_interval = int(state_dict["growth_interval"])
        with no_grad():
            self._scale.fill_(float(state_dict["scale"]))
            self._growth_tracker.fill_(int(state_dict["_growth_tracker"]))


__all__ = ["GradScaler"]

"""Parameters that are functions of others: PyTorch's ``torch.nn.utils.parametrize``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from graphflow.dtypes import DType
from graphflow.nn.container import ModuleDict, ModuleList
from graphflow.nn.module import Module
from graphflow.nn.parameter import Parameter
from graphflow.tensor import Tensor, no_grad

M = TypeVar("M", bound=Module)

# How many `cached` blocks are open, and the values computed inside of them.
_open = 0
_cache: dict[tuple[int, str], Tensor] = {}


@contextmanager
def cached() -> Iterator[None]:
    """Inside the block every parametrized tensor is computed once, and then remembered."""
    global _open
    _open += 1
    try:
        yield
    finally:
        _open -= 1
        if not _open:
            _cache.clear()


class ParametrizationList(ModuleList):
    """The original tensor (or tensors) of a parametrized one, and the modules that make it from them.

    The original is `original`, or `original0`, `original1`, ... if the first module's ``right_inverse`` gives
    several. Made by `register_parametrization`.
    """

    def __init__(self, modules: Sequence[Module], original: Tensor, unsafe: bool = False):
        super().__init__(modules)
        if not len(self):
            raise ValueError("ParametrizationList requires one or more modules.")
        self.unsafe = unsafe
        new: Any = original
        with no_grad():
            for module in reversed(list(self)):
                if hasattr(module, "right_inverse"):
                    with suppress(NotImplementedError):  # then it counts as the identity
                        new = module.right_inverse(new)
        if not isinstance(new, (Tensor, list, tuple)):
            raise ValueError(
                "'right_inverse' must return a Tensor or a Sequence of tensors (list, tuple...). Got "
                f"{type(new).__name__}"
            )
        self.is_tensor = isinstance(new, Tensor)
        self.ntensors = 1 if self.is_tensor else len(new)
        kind, shape, trained = original.dtype, tuple(original.shape), original.requires_grad
        if isinstance(new, Tensor):
            if new.dtype is not kind:
                raise ValueError(
                    "When `right_inverse` outputs one tensor, it may not change the dtype.\n"
                    f"original.dtype: {kind}\nright_inverse(original).dtype: {new.dtype}"
                )
            if new is not original:  # which stays the tensor that an optimizer knows
                original.data = new.detach()
            self._hold("original", original)
        for number, part in enumerate(() if self.is_tensor else new):
            if not isinstance(part, Tensor):
                raise ValueError(
                    "'right_inverse' must return a Tensor or a Sequence of tensors (list, tuple...). Got "
                    f"element {number} of the sequence with type {type(part).__name__}."
                )
            part = part.detach().clone()
            self._hold(
                f"original{number}", Parameter(part, trained) if isinstance(original, Parameter) else part
            )
        if not unsafe:
            self._check(kind, shape)

    def _names(self) -> list[str]:
        return ["original"] if self.is_tensor else [f"original{i}" for i in range(self.ntensors)]

    def _hold(self, name: str, tensor: Tensor) -> None:
        if isinstance(tensor, Parameter):
            self.register_parameter(name, tensor)
        else:
            self.register_buffer(name, tensor)

    def _check(self, dtype: DType, shape: tuple[Any, ...]) -> None:
        with no_grad():
            made = self()
        if not isinstance(made, Tensor):
            raise ValueError(f"A parametrization must return a tensor. Got {type(made).__name__}.")
        for what, before, after in (("dtype", dtype, made.dtype), ("shape", shape, tuple(made.shape))):
            if before != after:
                raise ValueError(
                    f"Registering a parametrization may not change the {what} of the tensor, unless the "
                    f"`unsafe` flag is enabled.\nunparametrized {what}: {before}\n"
                    f"parametrized {what}: {after}"
                )

    def originals(self) -> list[Tensor]:
        """What the tensor is made from."""
        return [getattr(self, name) for name in self._names()]

    def right_inverse(self, value: Tensor) -> None:
        """Changes the originals so that the parametrized tensor becomes `value`, by the modules'
        ``right_inverse``.

        RuntimeError where a module has none, ValueError for what doesn't fit.
        """
        new: Any = value
        with no_grad():
            for module in reversed(list(self)):
                if not hasattr(module, "right_inverse"):
                    raise RuntimeError(
                        f"parametrization {type(module).__name__} does not implement right_inverse."
                    )
                new = module.right_inverse(new)
            parts = [new] if self.is_tensor else list(new)
            if len(parts) != self.ntensors:
                raise ValueError(
                    f"'right_inverse' must return a sequence of tensors of length {self.ntensors}. Got a "
                    f"sequence of length {len(parts)}."
                )
            for held, part in zip(self.originals(), parts, strict=True):
                if not isinstance(part, Tensor):
                    raise ValueError(f"`right_inverse` should return a tensor. Got {type(part).__name__}")
                if part.dtype is not held.dtype or tuple(part.shape) != tuple(held.shape):
                    raise ValueError(
                        "The tensor returned by `right_inverse` has to be like the original: "
                        f"{held.type_}. Got {part.type_}"
                    )
                held.copy_(part)

    def forward(self) -> Any:
        """The parametrized tensor."""
        modules = list(self)
        result = modules[0](*self.originals())
        for module in modules[1:]:
            result = module(result)
        return result


# ---------------------------------------------------------------------------------------------- classes


def computed(module: Module, name: str, prop: property, title: str = "Parametrized") -> None:
    """Gives this one module a property: its class becomes a class of its own, derived from the one it had."""
    kind = type(module)
    if "_computed" not in kind.__dict__:
        members = {
            "_computed": True,
            "__module__": kind.__module__,
            "__qualname__": title + kind.__qualname__,
        }
        kind = type(f"{title}{kind.__name__}", (kind,), members)
        module.__class__ = kind
    setattr(kind, name, prop)


def plain_again(module: Module, name: str) -> None:
    """Takes back what `computed` did."""
    kind = type(module)
    delattr(kind, name)
    if not any(isinstance(member, property) for member in vars(kind).values()):
        module.__class__ = kind.__bases__[0]


def _property(name: str) -> property:
    def read(self: Any) -> Any:
        key = (id(self), name)
        if key in _cache:
            return _cache[key]
        value = self.parametrizations[name]()
        if _open and not value.is_traced:
            _cache[key] = value
        return value

    def write(self: Any, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"the parametrized {name!r} can be set to a Tensor, not {type(value).__name__}")
        self.parametrizations[name].right_inverse(value)

    return property(read, write)


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether the module has a parametrized tensor, or one of this name."""
    held = module._modules.get("parametrizations")
    if not isinstance(held, ModuleDict):
        return False
    return len(held) > 0 if tensor_name is None else tensor_name in held


def type_before_parametrizations(module: Module) -> type[Module]:
    """The module's class, not the one that parametrization gave it."""
    kind = type(module)
    return kind.__bases__[0] if is_parametrized(module) and "_computed" in kind.__dict__ else kind


def register_parametrization(
    module: M, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> M:
    """Makes the parameter or buffer `tensor_name` a function of itself: ``parametrization(original)``.

    The original becomes ``module.parametrizations[tensor_name].original`` and is what is trained; further
    parametrizations apply to the result. If it has a method ``right_inverse``, the original starts as that of
    the tensor's value, and the tensor can be assigned to. ValueError for a name that the module doesn't have,
    and, unless `unsafe`, for one that changes dtype or shape. As
    ``torch.nn.utils.parametrize.register_parametrization``.
    """
    if not isinstance(module, Module) or not isinstance(parametrization, Module):
        wrong = parametrization if isinstance(module, Module) else module
        raise TypeError(f"register_parametrization: expected modules, got {type(wrong).__name__}")
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        held = module.parametrizations[tensor_name]
        if not unsafe:
            _fits(parametrization, getattr(module, tensor_name))
        held.append(parametrization)
        held.unsafe = held.unsafe or unsafe
    elif tensor_name in module._parameters or tensor_name in module._buffers:
        original = getattr(module, tensor_name)
        if original is None:
            raise ValueError(f"the module's {tensor_name!r} is None, which can't be parametrized")
        made = ParametrizationList([parametrization], original, unsafe=unsafe)
        made.train(module.training)
        if not is_parametrized(module):
            module.parametrizations = ModuleDict()
        delattr(module, tensor_name)
        module.parametrizations[tensor_name] = made
        computed(module, tensor_name, _property(tensor_name))
    else:
        raise ValueError(
            f"Module '{module}' does not have a parameter, a buffer, or a parametrized element with name "
            f"'{tensor_name}'"
        )
    return module


def _fits(parametrization: Any, value: Tensor) -> None:
    """ValueError unless forward and right_inverse keep dtype and shape."""
    with no_grad():
        results = {"forward": parametrization(value)}
        if hasattr(parametrization, "right_inverse"):
            with suppress(NotImplementedError):
                results["right_inverse"] = parametrization.right_inverse(results["forward"])
    for method, result in results.items():
        if not isinstance(result, Tensor):
            raise ValueError(f"parametrization.{method} must return a tensor. Got {type(result).__name__}.")
        if result.dtype is not value.dtype or tuple(result.shape) != tuple(value.shape):
            raise ValueError(
                "Registering a parametrization may not change the dtype or the shape of the tensor, unless "
                f"the `unsafe` flag is enabled: {method} made {result.type_} of {value.type_}"
            )


def remove_parametrizations(module: M, tensor_name: str, leave_parametrized: bool = True) -> M:
    """Makes a parametrized tensor a plain one: with `leave_parametrized` of its present value, else the
    original.

    ValueError for one that isn't parametrized, and for `leave_parametrized=False` if it has several
    originals. The class is what it was before when no parametrized tensor is left.
    """
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"Module {module} does not have a parametrization on {tensor_name}")
    held = module.parametrizations[tensor_name]
    if not held.is_tensor and not leave_parametrized:
        raise ValueError(
            "Cannot leave unparametrized (`leave_parametrized=False`) a tensor that is parametrized in terms "
            "of a sequence of tensors."
        )
    originals = held.originals()
    kept = originals[0]
    if leave_parametrized:
        with no_grad():
            value = getattr(module, tensor_name).detach().clone()
        if not held.is_tensor or value.type_ != kept.type_:
            trained = any(o.requires_grad for o in originals)
            kept = Parameter(value, trained) if isinstance(kept, Parameter) else value
        else:
            with no_grad():
                kept.copy_(value)
    plain_again(module, tensor_name)
    del module.parametrizations[tensor_name]
    if not len(module.parametrizations):
        delattr(module, "parametrizations")
    if isinstance(kept, Parameter):
        module.register_parameter(tensor_name, kept)
    else:
        module.register_buffer(tensor_name, kept)
    return module


__all__ = [
    "ParametrizationList",
    "cached",
    "is_parametrized",
    "register_parametrization",
    "remove_parametrizations",
    "type_before_parametrizations",
]

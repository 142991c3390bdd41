"""Module: what every layer and network is made from. The vocabulary is that of ``torch.nn.Module``."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeVar

from graphflow.api import compile
from graphflow.nn.backward import Passage
from graphflow.nn.facts import plain
from graphflow.nn.hooks import Hook, Hooks, RemovableHandle, run_around, run_before
from graphflow.nn.mistakes import complain, without_forward
from graphflow.nn.parameter import Buffer, Parameter
from graphflow.nn.placement import Placed
from graphflow.nn.printing import bracketed, indented
from graphflow.nn.state import Stored, kept_in_place
from graphflow.tensor import Tensor, advance_epoch, depends_on, no_grad

__all__ = ["Module"]

Self = TypeVar("Self", bound="Module")
Named = TypeVar("Named")

_TABLES = ("_parameters", "_buffers", "_modules")


class Module(Placed, Stored):
    """Base class of all layers and networks.

    A subclass calls ``super().__init__()``, assigns parameters and submodules to attributes, and defines
    ``forward``. Compiled functions notice when plain attributes (numbers, strings, flags such as
    ``training``) or registered tensors and submodules of a module they called are replaced, and trace anew.
    """

    training: bool
    forward: Callable[..., Any]

    def __init__(self) -> None:
        put = super().__setattr__
        put("training", True)
        put("_parameters", OrderedDict())
        put("_buffers", OrderedDict())
        put("_non_persistent_buffers", set())
        put("_modules", OrderedDict())
        for hooks in ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks"):
            put(hooks, OrderedDict())
        put("_state_hooks", {})
        put("_mode", _Mode(self))
        put("_compiled", None)

    _parameters: OrderedDict[str, Parameter | None]
    _buffers: OrderedDict[str, Tensor | None]
    _non_persistent_buffers: set[str]
    _modules: OrderedDict[str, Module | None]
    _forward_pre_hooks: Hooks
    _forward_hooks: Hooks
    _backward_pre_hooks: Hooks
    _backward_hooks: Hooks
    _mode: _Mode
    _compiled: Callable[..., Any] | None

    # -------------------------------------------------------------------------------- calling

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs ``forward`` between the registered hooks; compiled, after `compile`."""
        return (self._compiled or self._run)(*args, **kwargs)

    def compile(self, **options: Any) -> None:
        """Compiles the calls of this module from now on; it stays the module it is. Takes the options of
        ``graphflow.compile``.
        """
        object.__setattr__(self, "_compiled", compile(self._run, **options))

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        depends_on(self._mode, self._mode.read)
        self._observed()
        if self._forward_pre_hooks:
            args, kwargs = run_before(self._forward_pre_hooks, self, args, kwargs)
        passage = None
        if self._backward_hooks or self._backward_pre_hooks:
            passage = Passage(self, self._backward_pre_hooks, self._backward_hooks)
            args = passage.inputs(args)
        if self._forward_hooks:
            result = run_around(self._forward_hooks, self, self._forwarded, args, kwargs)
        else:
            result = self._forwarded(*args, **kwargs)
        return result if passage is None else passage.outputs(result)

    def _forwarded(self, *args: Any, **kwargs: Any) -> Any:
        forward = getattr(self, "forward", None) or without_forward(self)
        try:
            return forward(*args, **kwargs)
        except Exception as problem:
            complain(self, forward, args, kwargs, problem)
            raise

    def _static_facts(self) -> Hashable:
        """What a trace of this module took from it besides its mode and its tensors' values, as (what, value)
        pairs.
        """
        own, kind = self.__dict__, type(self).__name__
        facts = tuple(
            (f"{kind}.{name}", plain(value))
            for name, value in own.items()
            if name not in _OWN_ATTRIBUTES and not isinstance(value, Tensor)
        )
        tables = tuple(
            (f"{kind}.{name}", plain(value)) for table in _TABLES for name, value in own[table].items()
        )
        hooks = (self._forward_pre_hooks, self._forward_hooks, self._backward_pre_hooks, self._backward_hooks)
        return *facts, *tables, (f"{kind}'s hooks", tuple(number for held in hooks for number in held))

    def _observed(self) -> None:
        """While tracing: notes that what this module holds was looked at, so that changing it is noticed."""
        depends_on(self, self._static_facts)

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Calls ``hook(module, args)`` before forward; unless None, its result replaces the arguments."""
        return RemovableHandle(self._forward_pre_hooks, Hook(hook, with_kwargs), prepend)

    def register_forward_hook(
        self,
        hook: Callable[..., Any],
        *,
        prepend: bool = False,
        with_kwargs: bool = False,
        always_call: bool = False,
    ) -> RemovableHandle:
        """Calls ``hook(module, args, output)`` after forward; what it returns, unless None, replaces the
        output. With `always_call` also, the output being None, when forward raises.
        """
        return RemovableHandle(self._forward_hooks, Hook(hook, with_kwargs, always_call), prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Calls ``hook(module, grad_input, grad_output)`` when the gradients of the inputs are computed: two
        tuples, None for what has no gradient. A tuple that it returns takes the place of `grad_input`.

        Positional tensors alone count as inputs, a tensor or a tuple of tensors as outputs. TraceError in a
        compiled function.
        """
        return RemovableHandle(self._backward_hooks, Hook(hook, False), prepend)

    def register_full_backward_pre_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """Calls ``hook(module, grad_output)`` before the gradients of the module are computed; a tuple that
        it returns takes the place of `grad_output`.
        """
        return RemovableHandle(self._backward_pre_hooks, Hook(hook, False), prepend)

    # -------------------------------------------------------------------------------- attributes

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        if "_modules" not in own:
            if isinstance(value, (Parameter, Module)):
                kind = "parameters" if isinstance(value, Parameter) else "module"
                raise AttributeError(f"cannot assign {kind} before Module.__init__() call")
            object.__setattr__(self, name, value)
        elif isinstance(value, Parameter):
            self._forget(name, keep="_parameters")
            self.register_parameter(name, value)
        elif isinstance(value, Buffer):
            self._forget(name, keep="_buffers")
            self.register_buffer(name, value, value.persistent)
        elif isinstance(value, Module):
            self._forget(name, keep="_modules")
            self._set_module(name, value)
        elif name in own["_parameters"]:
            if value is not None:
                raise TypeError(
                    f"cannot assign '{type(value).__name__}' as parameter '{name}' (nn.Parameter or None "
                    "expected)"
                )
            self.register_parameter(name, None)
        elif name in own["_modules"]:
            if value is not None:
                raise TypeError(
                    f"cannot assign '{type(value).__name__}' as child module '{name}' (nn.Module or None "
                    "expected)"
                )
            self._set_module(name, None)
        elif name in own["_buffers"]:
            self._assign_buffer(name, value)
        elif name == "training":
            self._mode.write(bool(value))
        else:
            known = own.get(name, own)
            object.__setattr__(self, name, value)
            if known is not value:
                advance_epoch()

    def __getattr__(self, name: str) -> Any:
        for table in _TABLES:
            entries = self.__dict__.get(table)
            if entries is not None and name in entries:
                self._observed()
                return entries[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __delattr__(self, name: str) -> None:
        for table in _TABLES:
            if name in self.__dict__[table]:
                del self.__dict__[table][name]
                self._non_persistent_buffers.discard(name)
                advance_epoch()
                return
        object.__delattr__(self, name)
        advance_epoch()

    def __dir__(self) -> list[str]:
        names = [*super().__dir__(), *self._parameters, *self._buffers, *self._modules]
        return sorted({name for name in names if not name[:1].isdigit()})

    def _forget(self, name: str, keep: str) -> None:
        """Takes `name` out of every place but the table `keep`, where it is about to be put."""
        self.__dict__.pop(name, None)
        for table in _TABLES:
            if table != keep:
                self.__dict__[table].pop(name, None)
        self._non_persistent_buffers.discard(name)

    def _check_name(self, kind: str, name: str, table: str) -> None:
        if "_modules" not in self.__dict__:
            raise AttributeError(f"cannot assign {kind} before Module.__init__() call")
        if not isinstance(name, str):
            raise TypeError(f"{kind} name should be a string. Got {type(name).__name__}")
        if "." in name:
            raise KeyError(f'{kind} name can\'t contain "."')
        if name == "":
            raise KeyError(f'{kind} name can\'t be empty string ""')
        if hasattr(self, name) and name not in self.__dict__[table]:
            raise KeyError(f"attribute '{name}' already exists")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Adds a parameter under `name`; None reserves the name."""
        self._check_name("parameter", name, "_parameters")
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(
                f"cannot assign '{type(param).__name__}' object to parameter '{name}' (nn.Parameter or None "
                "required)"
            )
        if param is not None and not param.is_leaf:
            raise ValueError(
                f"Cannot assign non-leaf Tensor to parameter '{name}'. Model parameters must be created "
                f"explicitly. To express '{name}' as a function of another Tensor, compute the value in the "
                "forward() method."
            )
        self._parameters[name] = param
        if param is not None:
            param.name = name
        advance_epoch()

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Adds a tensor that is state but not trained; with `persistent` it is part of ``state_dict``."""
        self._check_name("buffer", name, "_buffers")
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"cannot assign '{type(tensor).__name__}' object to buffer '{name}' (Tensor or None required)"
            )
        if persistent:
            self._non_persistent_buffers.discard(name)
        else:
            self._non_persistent_buffers.add(name)
        self._set_buffer(name, tensor)

    def _assign_buffer(self, name: str, value: Any) -> None:
        if value is not None and not isinstance(value, Tensor):
            raise TypeError(
                f"cannot assign '{type(value).__name__}' as buffer '{name}' (Tensor or None expected)"
            )
        if not kept_in_place(self._buffers[name], value):
            self._set_buffer(name, value)

    def _set_buffer(self, name: str, tensor: Tensor | None) -> None:
        self._buffers[name] = tensor
        if tensor is not None:
            tensor.name = name
        advance_epoch()

    def add_module(self, name: str, module: Module | None) -> None:
        """Adds a submodule under `name`; None reserves the name."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{type(module).__name__} is not a Module subclass")
        self._check_name("module", name, "_modules")
        self._set_module(name, module)

    register_module = add_module

    def _set_module(self, name: str, module: Module | None) -> None:
        self._modules[name] = module
        if module is not None:
            # Tensors are called by the longest path known, so that a graph's states read like a state_dict.
            for path, tensor in (*module.named_parameters(), *module.named_buffers()):
                tensor.name = f"{name}.{path}"
        advance_epoch()

    # -------------------------------------------------------------------------------- walking the tree

    def _members(
        self, table: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        modules = (
            self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate)
            if recurse
            else [(prefix, self)]
        )
        for path, module in modules:
            module._observed()
            for name, member in module.__dict__[table].items():
                if member is None or id(member) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(member))
                yield (f"{path}.{name}" if path else name), member

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Every parameter once, this module's own first."""
        return (p for _, p in self.named_parameters(recurse=recurse))

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """(name, parameter) pairs; names are dotted paths."""
        return self._members("_parameters", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Every buffer once."""
        return (b for _, b in self.named_buffers(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """(name, buffer) pairs; names are dotted paths."""
        return self._members("_buffers", prefix, recurse, remove_duplicate)

    def children(self) -> Iterator[Module]:
        """The direct submodules, each once."""
        return (m for _, m in self.named_children())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) pairs of the direct submodules."""
        seen: set[Module] = set()
        self._observed()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def modules(self, remove_duplicate: bool = True) -> Iterator[Module]:
        """This module and everything below it, each once unless `remove_duplicate` is False."""
        return (m for _, m in self.named_modules(remove_duplicate=remove_duplicate))

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """(path, module) pairs of this module (path `prefix`) and everything below it."""
        seen = set() if memo is None else memo
        if self in seen:
            return
        if remove_duplicate:
            seen.add(self)
        self._observed()
        yield prefix, self
        for name, child in self._modules.items():
            if child is not None:
                yield from child.named_modules(seen, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def get_submodule(self, target: str) -> Module:
        """The module at a dotted path; AttributeError when there is none."""
        module = self
        for name in target.split(".") if target else []:
            found = module._modules.get(name)
            if found is None:
                raise AttributeError(f"{type(module).__name__} has no attribute `{name}`")
            module = found
        return module

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Puts a module at a dotted path. ValueError for an empty path, AttributeError where the path leads
        nowhere, with `strict` also where nothing was.
        """
        if not target:
            raise ValueError("Cannot set the submodule without a target name!")
        if not isinstance(module, Module):
            raise ValueError(f"`module` is not an nn.Module, found {type(module).__name__}")
        path, _, name = target.rpartition(".")
        parent = self.get_submodule(path)
        if strict and name not in parent._modules:
            raise AttributeError(f"{type(parent).__name__} has no attribute `{name}`")
        setattr(parent, name, module)

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a dotted path; AttributeError when there is none."""
        return _member(self, target, "_parameters", "an nn.Parameter")  # type: ignore[no-any-return]

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at a dotted path; AttributeError when there is none."""
        return _member(self, target, "_buffers", "a buffer")  # type: ignore[no-any-return]

    def apply(self: Self, fn: Callable[[Module], Any]) -> Self:
        """Calls `fn` on every submodule, then on this module; gives the module back."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    # -------------------------------------------------------------------------------- state

    def train(self: Self, mode: bool = True) -> Self:
        """Sets training mode here and below: dropout drops."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: Self) -> Self:
        """Sets evaluation mode here and below."""
        return self.train(False)

    def requires_grad_(self: Self, requires_grad: bool = True) -> Self:
        """Sets whether the parameters are trained."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the parameters' gradients, or with ``set_to_none=False`` fills them with zeros."""
        for parameter in self.parameters():
            if set_to_none or parameter.grad is None:
                parameter.grad = None
            else:
                with no_grad():
                    parameter.grad.zero_()

    def _convert(self: Self, change: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        for tensor in (*self.parameters(recurse), *self.buffers(recurse)):
            grad, tensor.grad = tensor.grad, None
            tensor.data = change(tensor.data)
            tensor.grad = None if grad is None else change(grad.detach())
        return self

    # -------------------------------------------------------------------------------- printing

    def extra_repr(self) -> str:
        """What stands between the parentheses when the module is printed; subclasses override it."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr().split("\n") if self.extra_repr() else []
        children = [f"({name}): {indented(repr(child))}" for name, child in self._modules.items()]
        return bracketed(self._get_name(), extra, children)

    def _get_name(self) -> str:
        return type(self).__name__


class _Mode:
    """A module's training flag as a fact of its own: functions that set it themselves don't depend on it."""

    def __init__(self, module: Module):
        self._module = module

    def read(self) -> Hashable:
        """The flag."""
        return ((f"{type(self._module).__name__}.training", self._module.training),)

    def write(self, training: bool) -> None:
        """Sets the flag. A trace that sets it before reading it is good for either value."""
        depends_on(self, _nothing)
        if training != self._module.training:
            self._module.__dict__["training"] = training
            advance_epoch()


def _nothing() -> Hashable:
    return None


_OWN_ATTRIBUTES = frozenset(Module().__dict__)


def _member(module: Module, target: str, table: str, kind: str) -> Any:
    path, _, name = target.rpartition(".")
    owner = module.get_submodule(path)
    found = owner.__dict__[table].get(name)
    if found is None:
        problem = "is not " + kind if hasattr(owner, name) else f"{type(owner).__name__} has no attribute"
        raise AttributeError(f"`{name}` {problem}" if problem.startswith("is") else f"{problem} `{name}`")
    return found

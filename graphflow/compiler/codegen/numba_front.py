"""Numba as a front end: the Python text of a kernel becomes LLVM IR.

Numba reads the bytecode, infers types and lowers statements; nothing else of it is used. Its optimiser, its
runtime, its exceptions and its disk cache stay out, and so do its rules for arithmetic: the operators and
functions that a body may use are declared in `vecmath_scalars` and `vecmath` and installed in contexts of
our own, which makes a kernel's meaning independent of Numba's library, and its compile many times quicker.

This is the only module that imports Numba; `numba_loops` knows of its insides, too. Tested on Numba 0.62
(LLVM 20) to 0.68 (LLVM 22); older ones write pointers with types, which the texts of `vecmath` don't.
"""

# Numba has no types:
# mypy: disable-error-code="no-untyped-call, misc, unused-ignore"

from __future__ import annotations

import contextlib
import functools
import gc
import math
import operator
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import llvmlite.ir as ll
from numba.core import (
    callconv,
    compiler,
    cpu,
    errors,
    lowering,
    typed_passes,
    types,
    untyped_passes,
)
from numba.core.compiler_machinery import LoweringPass, PassManager, register_pass
from numba.core.datamodel.models import PrimitiveModel
from numba.core.datamodel.registry import register_default
from numba.core.funcdesc import PythonFunctionDescriptor
from numba.core.typing.context import BaseContext as TypingContext
from numba.core.typing.templates import signature
from numba.cpython import builtins as _builtins  # noqa: F401  (registers constants and casts)
from numba.cpython import numbers as _numbers  # noqa: F401

from graphflow.compiler.codegen import llvm, numba_loops, vecmath
from graphflow.compiler.codegen import vecmath_scalars as scalars
from graphflow.compiler.codegen.function import Function, symbol
from graphflow.errors import CompileError

# -- types ------------------------------------------------------------------------------------------


class _PointerType(types.Type):
    """Numba's view of a `vecmath_scalars.Pointer`."""

    def __init__(self, element: scalars.Scalar) -> None:
        self.pointer, self.value = scalars.Pointer(element), scalars.Pointer(element).value
        super().__init__(name=f"graphflow.pointer({element.code})")


class _HalfType(types.Type):
    """Numba's view of a 16-bit float: its bits."""

    def __init__(self, code: str) -> None:
        self.value = ll.IntType(16)
        super().__init__(name=f"graphflow.half({code})")


class _RangeType(types.Type):
    """What `range(...)` gives."""

    def __init__(self) -> None:
        super().__init__(name="graphflow.range")


class _RangeIterator(types.Type):
    """A range being walked: the address of its (next, stop, step)."""

    def __init__(self) -> None:
        super().__init__(name="graphflow.range_iterator")


_WORD = ll.IntType(64)
_RANGE_LAYOUT = ll.LiteralStructType([_WORD] * 3)
_RANGE, _ITERATOR = _RangeType(), _RangeIterator()
_STEP = types.Pair(types.int64, types.boolean)


@register_default(_PointerType)
@register_default(_HalfType)
class _PlainModel(PrimitiveModel):
    def __init__(self, manager: Any, kind: _PointerType | _HalfType) -> None:
        super().__init__(manager, kind, kind.value)


@register_default(_RangeType)
class _RangeModel(PrimitiveModel):
    def __init__(self, manager: Any, kind: _RangeType) -> None:
        super().__init__(manager, kind, _RANGE_LAYOUT)


@register_default(_RangeIterator)
class _RangeIteratorModel(PrimitiveModel):
    def __init__(self, manager: Any, kind: _RangeIterator) -> None:
        super().__init__(manager, kind, ll.PointerType(_RANGE_LAYOUT))


_ALL, _KINDS = scalars.SCALARS.values(), {"f": "float", "i": "int", "u": "uint"}
_NUMBA_SCALARS: dict[scalars.Scalar, types.Type] = {
    **{s: getattr(types, n + str(s.bits)) for s in _ALL for k, n in _KINDS.items() if s.kind == k},
    **{s: _HalfType(s.code) for s in _ALL if s.kind == "h"},
    scalars.BOOL: types.boolean,
}
_OUR_SCALARS = {theirs: ours for ours, theirs in _NUMBA_SCALARS.items()}


def _ours(kind: types.Type) -> scalars.Type | None:
    if isinstance(kind, _PointerType):
        return kind.pointer
    if isinstance(kind, types.IntegerLiteral):
        return scalars.Literal(kind.literal_value)
    return _OUR_SCALARS.get(types.unliteral(kind))


def _theirs(kind: scalars.Type) -> types.Type:
    if isinstance(kind, scalars.Pointer):
        return _PointerType(kind.element)
    assert isinstance(kind, scalars.Scalar)
    return _NUMBA_SCALARS[kind]


# -- what bodies can call ---------------------------------------------------------------------------


class _Callee(types.Callable, types.Opaque):
    """The type of an operator or function of bodies: it answers Numba's questions from an Operation."""

    def __init__(self, operation: scalars.Operation) -> None:
        self.operation = operation
        super().__init__(name=f"graphflow.callee({operation.name}, {id(operation)})")

    def get_call_type(self, context: Any, args: Sequence[types.Type], kws: Any) -> Any:
        ours = tuple(_ours(a) for a in args)
        if kws or None in ours:
            result = None
        else:
            result = self.operation.resolve(ours)  # type: ignore[arg-type]
        if result is None:
            names = ", ".join(str(a) if o is None else o.code for a, o in zip(args, ours, strict=True))
            raise errors.TypingError(f"{self.operation.name} doesn't take ({names})")
        stores = self.operation is scalars.OPERATORS[operator.setitem]
        return signature(types.none if stores else _theirs(result), *args)

    def get_call_signatures(self) -> tuple[list[Any], bool]:
        return [], False

    def get_impl_key(self, sig: Any) -> Any:
        return self.operation

    def emit(self, builder: ll.IRBuilder, args: Sequence[ll.Value], sig: Any) -> ll.Value:
        return self.operation.emit(builder, tuple(_ours(a) for a in sig.args), list(args))


class _RangeCallee(types.Callable, types.Opaque):
    """The type of `range`, over i64."""

    def __init__(self) -> None:
        super().__init__(name="graphflow.callee(range)")

    def get_call_type(self, context: Any, args: Sequence[types.Type], kws: Any) -> Any:
        whole = all(isinstance(a, types.Integer | types.IntegerLiteral) for a in args)
        if kws or not whole or not 1 <= len(args) <= 3:
            raise errors.TypingError(f"range takes one to three integers, not {args}")
        return signature(_RANGE, *args)

    def get_call_signatures(self) -> tuple[list[Any], bool]:
        return [], False

    def get_impl_key(self, sig: Any) -> Any:
        return range

    def emit(self, builder: ll.IRBuilder, args: Sequence[ll.Value], sig: Any) -> ll.Value:
        words = [
            scalars.convert(builder, v, _ours(a), scalars.I64)  # type: ignore[arg-type]
            for v, a in zip(args, sig.args, strict=True)
        ]
        zero, one = ll.Constant(_WORD, 0), ll.Constant(_WORD, 1)
        start, stop, step = {1: [zero, *words, one], 2: [*words, one], 3: words}[len(words)]
        made: ll.Value = ll.Constant(_RANGE_LAYOUT, ll.Undefined)
        for at, word in enumerate((start, stop, step)):
            made = builder.insert_value(made, word, at)
        return made


def _start_walk(builder: ll.IRBuilder, args: Sequence[ll.Value], sig: Any) -> ll.Value:
    with builder.goto_entry_block():
        state = builder.alloca(_RANGE_LAYOUT)
    builder.store(args[0], state)
    return state


def _next_of_walk(builder: ll.IRBuilder, args: Sequence[ll.Value], sig: Any) -> ll.Value:
    """Gives (value, whether there was one) and moves on, in the one form that loop passes know best."""
    index = ll.IntType(32)
    zero = ll.Constant(index, 0)
    slots = [builder.gep(args[0], [zero, ll.Constant(index, at)], inbounds=True) for at in range(3)]
    value, stop, step = (builder.load(slot) for slot in slots)
    up = builder.icmp_signed(">", step, ll.Constant(_WORD, 0))
    more = builder.select(up, builder.icmp_signed("<", value, stop), builder.icmp_signed(">", value, stop))
    builder.store(builder.add(value, step, flags=("nsw",)), slots[0])
    pair = ll.Constant(ll.LiteralStructType([_WORD, ll.IntType(1)]), ll.Undefined)
    return builder.insert_value(builder.insert_value(pair, value, 0), more, 1)


_WALK = {
    "getiter": (_RANGE, signature(_ITERATOR, _RANGE), _start_walk),
    "iternext": (_ITERATOR, signature(_STEP, _ITERATOR), _next_of_walk),
}


class _Typing(TypingContext):
    """Numba's typing context with our operators and functions in it and nothing else."""

    def init(self) -> None:
        self.callees = {key: _Callee(operation) for key, operation in scalars.OPERATORS.items()}
        for key, callee in self.callees.items():
            self.insert_global(key, callee)
        self.insert_global(range, _RangeCallee())

    def load_additional_registries(self) -> None:
        pass

    def _load_builtins(self) -> None:
        pass

    def resolve_function_type(self, func: Any, args: Any, kws: Any) -> Any:
        if func in _WALK:
            kind, sig, _ = _WALK[func]
            if tuple(args) != (kind,):
                raise errors.TypingError(f"only range(...) can be walked, not {args[0]}")
            return sig
        if func in self.callees:
            return self.callees[func].get_call_type(self, args, kws)
        return super().resolve_function_type(func, args, kws)


class _VoidCalls(callconv.BaseCallConv):
    """Functions that return nothing and can't fail: void(arguments...)."""

    def _make_call_helper(self, builder: ll.IRBuilder) -> None:
        return None

    def get_function_type(self, restype: types.Type, argtypes: Sequence[types.Type]) -> ll.FunctionType:
        return ll.FunctionType(ll.VoidType(), list(self._get_arg_packer(argtypes).argument_types))

    def decorate_function(self, fn: ll.Function, args: Any, fe_argtypes: Any, noalias: bool = False) -> None:
        for argument, name in zip(fn.args, args, strict=True):
            argument.name = name
            if noalias and isinstance(argument.type, ll.PointerType):
                argument.add_attribute("noalias")

    def get_arguments(self, func: ll.Function) -> Any:
        return func.args

    def return_value(self, builder: ll.IRBuilder, retval: ll.Value) -> None:
        builder.ret_void()


class _Lowering(cpu.CPUContext):
    """Numba's lowering context, emitting our operations."""

    def load_additional_registries(self) -> None:
        pass

    @property
    def call_conv(self) -> _VoidCalls:
        return _VoidCalls(self)

    def get_function(self, fn: Any, sig: Any, _firstcall: bool = True) -> Any:
        if isinstance(fn, _Callee | _RangeCallee):
            return lambda builder, args, loc=None: fn.emit(builder, args, sig)
        if isinstance(fn, str) and fn in _WALK:
            return lambda builder, args, loc=None: _WALK[fn][2](builder, args, sig)
        if isinstance(fn, str):
            raise NotImplementedError(fn)
        return super().get_function(fn, sig, _firstcall)


class _Bare:
    """Stands where Numba wants a code library; gives it an empty module and keeps nothing."""

    def create_ir_module(self, name: str) -> ll.Module:
        module = ll.Module("graphflow")
        module.triple, module.data_layout = llvm.host().triple, llvm.data_layout(llvm.host())
        return module


class _Lower(lowering.Lower):
    """Numba's statement lowering without environments, exceptions and reference counts."""

    def lower(self) -> None:
        self.genlower = None
        self.lower_normal_function(self.fndesc)

    def incref(self, typ: types.Type, val: ll.Value) -> None:
        pass

    def decref(self, typ: types.Type, val: ll.Value) -> None:
        pass

    def delvar(self, name: str) -> None:
        pass

    def storevar(self, value: ll.Value, name: str, argidx: int | None = None) -> None:
        self._alloca_var(name, self.typeof(name))
        if name in self._singly_assigned_vars:
            self._blk_local_varmap[name] = value
        else:
            self.builder.store(value, self.getvar(name))

    def lower_block(self, block: Any) -> None:
        super().lower_block(block)
        numba_loops.keep_rolled(self, block)


@register_pass(mutates_CFG=True, analysis_only=False)
class _LowerBody(LoweringPass):
    """The last pass: leaves the llvmlite module in the state's result."""

    _name = "graphflow_lower_body"

    def __init__(self) -> None:
        LoweringPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        descriptor = PythonFunctionDescriptor.from_specialized_function(
            state.func_ir,
            state.typemap,
            state.return_type,
            state.calltypes,
            mangler=lambda name, argtypes, **others: "body",
            inline=False,
            abi_tags=(),
            noalias=state.flags.noalias,
        )
        lower = _Lower(state.targetctx, state.library, descriptor, state.func_ir, metadata=state.metadata)
        lower.lower()
        state.cr = lower.module
        return True


class _Pipeline(compiler.CompilerBase):
    """Bytecode to IR to types to LLVM, and none of Numba's rewrites.

    Nor its `del` statements, which end the lives of objects: a kernel's values are numbers and addresses.
    """

    def define_pipelines(self) -> list[PassManager]:
        manager = PassManager("graphflow")
        for step in (
            untyped_passes.TranslateByteCode,
            untyped_passes.FixupArgs,
            untyped_passes.ReconstructSSA,
            typed_passes.NopythonTypeInference,
            typed_passes.PreLowerStripPhis,
            _LowerBody,
        ):
            manager.add_pass(step, step.__name__)
        manager.finalize()
        return [manager]


# -- entry points -----------------------------------------------------------------------------------

_LOCK = threading.RLock()  # Numba's compiler isn't thread-safe


@functools.cache
def _contexts() -> tuple[_Typing, _Lowering, dict[str, Any]]:
    """The two contexts, and the global names that bodies see."""
    typing_context = _Typing()
    names: dict[str, Any] = {"range": range, "inf": math.inf, "nan": math.nan, "__builtins__": {"bool": bool}}
    for name, operation in scalars.FUNCTIONS.items():
        names[name] = operation
        typing_context.insert_global(operation, _Callee(operation))
    lowering_context = _Lowering(typing_context)
    lowering_context.refresh()
    return typing_context, lowering_context, names


def _flags(noalias: bool) -> compiler.Flags:
    flags = compiler.Flags()
    off = ("nrt", "boundscheck", "enable_pyobject", "enable_looplift")
    on = ("no_compile", "no_cpython_wrapper", "no_cfunc_wrapper", "no_rewrites", "release_gil")
    values = {
        **dict.fromkeys(off, False),
        **dict.fromkeys(on, True),
        "error_model": "numpy",
        "noalias": noalias,
    }
    for name, value in values.items():
        setattr(flags, name, value)
    return flags


def _numba_module(function: Function) -> ll.Module:
    typing_context, lowering_context, names = _contexts()
    scope = dict(names)
    exec(compile(function.source, f"<graphflow {function.name}>", "exec"), scope)
    kinds = [_theirs(scalars.parse(code)) for _, code in (*function.params, *function.trailing)]
    flags = _flags(function.noalias)
    pipeline = _Pipeline(typing_context, lowering_context, _Bare(), tuple(kinds), None, flags, {})
    return pipeline.compile_extra(scope[function.name])


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    """Python's collector waits: a quarter of the time would go to walking live statements again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _add_entry(module: ll.Module, function: Function, symbol: str) -> None:
    """The exported function: takes the block's words apart and calls the body."""
    body = module.globals["body"]
    body.linkage = "internal"
    body.attributes.add("nounwind")
    body.attributes.add("noinline")  # its noalias parameters say more than the scopes inlining makes of them
    trailing = [scalars.parse(code).value for _, code in function.trailing]
    kind = ll.FunctionType(ll.VoidType(), [ll.PointerType(_WORD), *trailing])
    entry = ll.Function(module, kind, symbol)
    entry.attributes.add("nounwind")
    builder = ll.IRBuilder(entry.append_basic_block())
    values: list[ll.Value] = []
    for at, (_, code) in enumerate(function.params):
        word = builder.load(builder.gep(entry.args[0], [ll.Constant(_WORD, at)], inbounds=True))
        wanted = scalars.parse(code).value
        values.append(builder.inttoptr(word, wanted) if isinstance(wanted, ll.PointerType) else word)
    builder.call(body, [*values, *entry.args[1:]])
    builder.ret_void()


def lower(function: Function) -> str:
    """LLVM IR text that defines the symbol `symbol(function)`, with all it calls save libm.

    CompileError when the text isn't valid or doesn't type: kernels are generated, so that's our mistake.
    """
    with _LOCK, _no_collections(), warnings.catch_warnings():
        warnings.simplefilter("ignore", errors.NumbaWarning)
        try:
            module = _numba_module(function)
        except Exception as error:  # Numba raises many kinds, and none of them helps a user
            reason = str(error).strip().splitlines()
            raise CompileError(
                f"kernel {function.name} doesn't compile; this is a bug in graphflow.\n"
                f"{type(error).__name__}: {' '.join(line.strip() for line in reason)}\n"
                f"The kernel is\n{function.source}"
            ) from None
    _add_entry(module, function, symbol(function))
    # or loops that fill and copy would become calls to libc
    text = str(module).replace(" noinline", ' noinline "no-builtins"', 1)
    return vecmath.link(text)


def compile_function(function: Function) -> tuple[str, bytes]:
    """Both steps: the exported symbol, and the object file that defines it for this machine."""
    return symbol(function), llvm.emit([lower(function)])

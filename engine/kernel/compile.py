"""The compile act: the one file that decides all compilation, and the one that imports numba.

Plain Python functions become machine code in four moves:
  1 every function that an entry point reaches is compiled with its globals translated: functions to their
    compiled twins, tables and pointers to address arithmetic;
  2 methods of records become overloads, chosen by the record's layout;
  3 the entry point gets the C calling convention; user handlers are bounds-checked, inside try/except;
  4 LLVM emits one relocatable object, which image.py stores and loads.
"""

import re
import time
from collections.abc import Callable
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

import llvmlite.binding as llvm
import numba as nb
from numba import types

from engine.kernel import domain, image
from engine.kernel.compile_types import (
    address_intrinsic,
    behind_intrinsic,
    invoke_intrinsic,
    pointer_intrinsic,
    prefetch_intrinsic,
    record_type,
    table_intrinsic,
    translators,
)
from engine.kernel.domain import CHECKED
from engine.kernel.layout import Record
from engine.kernel.primitives import AddressOf, Behind, Invoke, Pointer, Prefetch, Table


def plainly(dispatcher: Any) -> Any:
    """A dispatcher that compiles one version for all integers, not one for each constant it is called with.

    The constants reach the code all the same where it is inlined.
    """
    resolve = dispatcher.get_call_template
    dispatcher.get_call_template = lambda args, kws: resolve(
        tuple(types.unliteral(a) for a in args), {name: types.unliteral(a) for name, a in kws.items()}
    )
    return dispatcher


class Translator:
    """Compiled twins of plain functions, one for each function, with one set of compiler options."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.twins: dict[int, Any] = {}
        self.rewrites: dict[int, Any] = {}
        self.keep: list[Any] = []

    def value(self, value: Any) -> Any:
        """What compiled code sees in place of a global value."""
        key = id(value)
        if key in self.twins:
            return self.twins[key]
        twin = value
        if key in CHECKED and self.options["error_model"] == "python":
            checked: Any = CHECKED[key]
            return self.function(checked)
        if isinstance(value, FunctionType) and not hasattr(value, "py_func"):
            return self.function(value)
        if isinstance(value, Table):
            twin = table_intrinsic(value.base, value.offset, value.record)
        elif isinstance(value, Pointer):
            twin = pointer_intrinsic(value.record)
        elif isinstance(value, Behind):
            twin = behind_intrinsic(value.base, value.distance, value.record)
        elif isinstance(value, AddressOf):
            twin = address_intrinsic
        elif isinstance(value, Invoke):
            twin = invoke_intrinsic
        elif isinstance(value, Prefetch):
            twin = prefetch_intrinsic
        self.keep.append(value)
        self.twins[key] = twin
        return twin

    def module(self, module: ModuleType, names: set[str]) -> ModuleType:
        """A copy of a module in which the functions that the code names are compiled ones."""
        if module.__name__.split(".")[0] in ("numpy", "numba"):
            return module
        copy = ModuleType(module.__name__)
        vars(copy).update(vars(module))
        for name in names & set(vars(module)):
            inner = getattr(module, name)
            within = isinstance(inner, ModuleType) and inner.__name__.startswith(module.__name__ + ".")
            setattr(copy, name, self.module(inner, names) if within else self.value(inner))
        return copy

    def function(self, function: FunctionType, inline: bool = False) -> Any:
        """The compiled twin of a plain function."""
        if id(function) not in self.twins:
            extra = {"forceinline": True} if inline or getattr(function, "__hot__", False) else {}
            shell, fill = self._shell(function)
            self.twins[id(function)] = plainly(nb.njit(**self.options, **extra)(shell))
            self.keep.append(function)
            fill()
        return self.twins[id(function)]

    def rewritten(self, function: FunctionType) -> Any:
        """The plain function with translated globals: what an overload hands to numba."""
        if id(function) not in self.rewrites:
            shell, fill = self._shell(function)
            self.rewrites[id(function)] = shell
            self.keep.append(function)
            fill()
        return self.rewrites[id(function)]

    def _shell(self, function: FunctionType) -> tuple[FunctionType, Callable[[], None]]:
        """A copy of a function with globals of its own, and the act that fills them once the copy is known."""
        scope: dict[str, Any] = dict(function.__globals__)
        cells = tuple(CellType(c.cell_contents) for c in function.__closure__ or ())
        shell = FunctionType(function.__code__, scope, function.__name__, function.__defaults__, cells or None)
        shell.__kwdefaults__ = function.__kwdefaults__
        shell.__qualname__ = function.__qualname__
        shell.__module__ = function.__module__

        def fill() -> None:
            names = _names(function.__code__) if function.__module__ != domain.__name__ else set()
            for name in names & set(scope):
                value = scope[name]
                scope[name] = self.module(value, names) if isinstance(value, ModuleType) else self.value(value)
            for cell in cells:
                cell.cell_contents = self.value(cell.cell_contents)

        return shell, fill


def _names(code: CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names(constant)
    return names


def entry(function: FunctionType, signature: Any, translator: Translator) -> Any:
    """A C function from a plain one; whatever it raises is swallowed by its own guard, so none may raise."""
    return nb.cfunc(signature, nopython=True, _nrt=False, error_model="numpy")(translator.rewritten(function))


def guarded(
    handler: FunctionType, self_type: type[Record], event: type[Record], ctx: type[Record], translator: Translator
) -> Any:
    """`void handler(self*, event*, ctx*)`: bounds-checked, inside try/except; a failure sets `ctx.fault`."""
    checked = translator.function(handler, inline=True)

    def guard(self: Any, event: Any, ctx: Any) -> None:
        try:
            checked(self, event, ctx)
        except Exception:  # a code in ctx: the driver runs the event again uncompiled, for the real traceback
            ctx.fault = 1

    signature = types.void(record_type(self_type), record_type(event), record_type(ctx))
    return nb.cfunc(signature, nopython=True, _nrt=False)(guard)


def guarded_loop(function: Any, translator: Translator) -> Any:
    """`void f(address)`, bounds-checked; an exception ends it, the caller sees from its record how far it came."""
    checked = translator.function(function, inline=True)

    def guard(address: int) -> None:
        try:
            checked(address)
        except Exception:  # compiled code can only stop: the caller sees it in `failed` and raises it from plain Python
            pass

    return nb.cfunc(types.void(types.intp), nopython=True, _nrt=False)(guard)


# Helpers of numba's raising path that no process without numba has. A guarded entry point never reaches them.
HELPER = re.compile(r"^declare (?P<result>[^@\n]*)@(?P<name>(?:NRT|numba)_\w+)\((?P<arguments>[^)]*)\)", re.MULTILINE)


def helpers(module: Any) -> Any:
    """A module that defines the helpers a module only names, so that its object needs nothing but the C library.

    Inside the object: a symbol of ours in the process would take the place of numba's own.
    """
    lines = [f'target triple = "{llvm.get_default_triple()}"']
    for found in HELPER.finditer(str(module)):
        result = found["result"].split()[-1]
        value = "ret void" if result == "void" else f"ret {result} {'null' if result.endswith(('*', 'ptr')) else '0'}"
        lines.append(f"define weak hidden {result} @{found['name']}({found['arguments']}) {{ {value} }}")
    return llvm.parse_assembly("\n".join(lines))


def emit(parts: dict[str, Any], cpu: str = "") -> tuple[dict[str, str], bytes]:
    """One relocatable object of several C functions, and the symbol of each."""
    image.platform_words()
    module: Any = None
    for part in parts.values():
        piece = llvm.parse_assembly(part.inspect_llvm())
        if module is None:
            module = piece
        else:
            module.link_in(piece)
    module.link_in(helpers(module))
    target = llvm.Target.from_default_triple()
    features = llvm.get_host_cpu_features().flatten() if not cpu else ""
    machine = target.create_target_machine(
        cpu=cpu or llvm.get_host_cpu_name(), features=features, opt=3, reloc="pic", codemodel="small"
    )
    return {name: part.native_name for name, part in parts.items()}, machine.emit_object(module)


def build(
    digest: str, make: Callable[["Translator"], dict[str, Any]], options: dict[str, Any], words: dict[str, Any]
) -> image.Image:
    """Compile, emit, store, load."""
    start = time.perf_counter()
    translator = Translator(options)
    translators.append(translator)
    try:
        entries, code = emit(make(translator))
    finally:
        translators.pop()
    return image.save(digest, entries, code, time.perf_counter() - start, words)


CompilerErrors = (nb.core.errors.NumbaError, NotImplementedError)

"""The compile act: the one file that decides all compilation, and the one that imports numba.

Plain Python functions become machine code in four moves:
  1 every function that an entry point reaches is compiled with its globals translated: functions to their
    compiled twins, tables and pointers to address arithmetic;
  2 methods of records are compiled apart, for the record's layout, and called by name;
  3 the entry point gets the C calling convention; user handlers are bounds-checked, what they raise is a code;
  4 LLVM emits one relocatable object, which image.py stores and loads.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

import llvmlite.binding as llvm
import numba as nb
from numba import types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import Dispatcher

from engine.kernel import domain, image
from engine.kernel.compile_draft import close, drafting, gathered
from engine.kernel.compile_methods import link, translators
from engine.kernel.compile_types import (
    address_intrinsic,
    behind_intrinsic,
    highest_bit_intrinsic,
    invoke_intrinsic,
    pointer_intrinsic,
    prefetch_intrinsic,
    record_type,
    table_intrinsic,
)
from engine.kernel.domain import CHECKED
from engine.kernel.layout import Record
from engine.kernel.primitives import AddressOf, Behind, HighestBit, Invoke, Pointer, Prefetch, Table


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
        self.methods: dict[Any, Any] = {}  # what compile_methods has found
        self.keep: list[Any] = []
        self.cold: set[str] = set()  # how the symbols of functions begin that are never inlined

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
        if isinstance(value, Dispatcher):
            return self.borrowed(value)
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
        elif isinstance(value, HighestBit):
            twin = highest_bit_intrinsic
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
            # Said either way: what is not said, numba inherits from the caller that is being compiled.
            extra = {"forceinline": inline or getattr(function, "__hot__", False)}
            if getattr(function, "__cold__", False):
                self.cold.add(mangled(function))
            shell, fill = self._shell(function)
            self.twins[id(function)] = plainly(nb.njit(**self.options, **extra)(shell))
            self.keep.append(function)
            fill()
        return self.twins[id(function)]

    def borrowed(self, theirs: Any) -> Any:
        """A twin of a function that somebody else has jitted, with his options: his own stays as it was."""
        shell, fill = self._shell(theirs.py_func)
        self.twins[id(theirs)] = plainly(nb.jit(**{**theirs.targetoptions, "nopython": True, "cache": False})(shell))
        self.keep.append(theirs)
        fill()
        return self.twins[id(theirs)]

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


@dataclass(frozen=True)
class Part:
    """One C function: its name, the function of numba's that it calls, and the LLVM module of both."""

    name: str
    inner: str
    module: Any


def c_function(dispatcher: Any, signature: Any, failed: str = "") -> Part:
    """`void f(arguments)` around a compiled function; `failed` is LLVM code for when it raises, else it must not."""
    dispatcher.compile(signature)
    (overload,) = dispatcher.overloads.values()
    inner = overload.fndesc.llvm_func_name
    kinds = ["i64" if isinstance(kind, types.Integer) else "ptr" for kind in signature.args]
    named = ", ".join(f"{kind} %a{n}" for n, kind in enumerate(kinds))
    name = f"tandem.{inner}"
    context = nb.core.registry.cpu_target.target_context
    value = context.data_model_manager[overload.signature.return_type].get_return_type()
    wrapper = f"""
declare i32 @{inner}(ptr, ptr, {", ".join(kinds)})
define void @{name}({named}) {{
  %value = alloca {value}
  %raised = alloca ptr
  store ptr null, ptr %raised
  %status = call i32 @{inner}(ptr %value, ptr %raised, {named})
  %fine = icmp eq i32 %status, 0
  %none = icmp eq i32 %status, -2
  %returned = or i1 %fine, %none
  br i1 %returned, label %done, label %failed
failed:
  {failed}
  br label %done
done:
  ret void
}}
"""
    module = gathered(overload.library)
    module.link_in(llvm.parse_assembly(wrapper))
    return Part(name, inner, module)


def entry(function: FunctionType, signature: Any, translator: Translator) -> Part:
    """A C function from a plain one, which may not raise."""
    return c_function(nb.njit(**translator.options)(translator.rewritten(function)), signature)


def guarded(
    handler: FunctionType, self_type: type[Record], event: type[Record], ctx: type[Record], translator: Translator
) -> Part:
    """`void handler(self*, event*, ctx*)`, bounds-checked; a failure sets `ctx.fault`.

    The driver then runs the event again uncompiled, for the real traceback.
    """
    fault = ctx.fields["fault"]
    failed = f"%at = getelementptr i8, ptr %a2, i64 {fault.offset}\n  store i{8 * fault.dtype.itemsize} 1, ptr %at"
    signature = types.void(record_type(self_type), record_type(event), record_type(ctx))
    return c_function(nb.njit(**translator.options)(translator.rewritten(handler)), signature, failed)


def guarded_loop(function: Any, translator: Translator) -> Part:
    """`void f(address)`, bounds-checked; an exception ends it, the caller sees from its record how far it came."""
    return c_function(nb.njit(**translator.options)(translator.rewritten(function)), types.void(types.intp))


def mangled(function: FunctionType) -> str:
    """How the symbols of a compiled function begin."""
    words = f"{function.__module__}.{function.__qualname__}".split(".")
    return "_ZN" + "".join(f"{len(word)}{word}" for word in words)


def linked(parts: dict[str, Part], cold: Iterable[str] = ()) -> Any:
    """One module of several C functions and all they call, in which nothing else is visible from outside."""
    module = llvm.parse_assembly("")
    for part in parts.values():
        module.link_in(part.module)
    link(module)
    close(module, {part.name for part in parts.values()}, tuple(cold))
    for part in parts.values():
        module.get_function(part.inner).add_function_attribute("alwaysinline")
    return module


def emit(parts: dict[str, Part], cold: Iterable[str] = (), cpu: str = "") -> tuple[dict[str, str], bytes]:
    """One relocatable object of several C functions, and the symbol of each."""
    image.platform_words()
    module = linked(parts, cold)
    target = llvm.Target.from_default_triple()
    features = llvm.get_host_cpu_features().flatten() if not cpu else ""
    machine = target.create_target_machine(
        cpu=cpu or llvm.get_host_cpu_name(), features=features, opt=3, reloc="pic", codemodel="small"
    )
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    builder.getModulePassManager().run(module, builder)
    missing = sorted(f.name for f in module.functions if f.is_declaration and f.name.startswith(FOREIGN))
    if missing:  # such a call would only work in a process with numba in it
        raise nb.core.errors.UnsupportedError(
            f"compiled code may not call {', '.join(missing)}: a function that needs numba or Python while it runs"
        )
    return {name: part.name for name, part in parts.items()}, machine.emit_object(module)


@contextlib.contextmanager
def compiling(options: dict[str, Any]) -> Iterator[Translator]:
    """A translator at work: alone, and no compilation of the user's own meanwhile."""
    translator = Translator(options)
    with global_compiler_lock:
        _ = nb.core.registry.cpu_target.target_context  # made once, at the level of optimisation it finds
        translators.append(translator)
        level = nb.core.config.OPT
        nb.core.config.OPT = type(level)(0)  # `emit` optimises the whole program, once: faster than piece by piece
        try:
            with drafting():
                yield translator
        finally:
            nb.core.config.OPT = level
            translators.pop()


def build(
    digest: str, make: Callable[["Translator"], dict[str, Any]], options: dict[str, Any], words: dict[str, Any]
) -> image.Image:
    """Compile, emit, store, load."""
    start = time.perf_counter()
    with compiling(options) as translator:
        entries, code = emit(make(translator), translator.cold)
    return image.save(digest, entries, code, time.perf_counter() - start, words)


FOREIGN = ("numba_", "NRT_", "Py", "_Py")  # symbols that a process without numba does not have
CompilerErrors = (nb.core.errors.NumbaError, NotImplementedError)

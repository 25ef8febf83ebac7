"""The compile act, third part: what numba makes of a function stays a draft.

numba makes every function ready to be called from Python as soon as it is typed: wrappers, linking, machine code. An
image needs none of that, only LLVM's module of each function, once. While `drafting`, libraries are therefore finished
when somebody asks for an address: after us, if ever. What the user compiles himself with numba works as always.
"""

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import Any

import llvmlite.binding as llvm
import numba as nb
from numba import _dynfunc
from numba.core.codegen import JITCodeLibrary

OPTIONS = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # of functions that nobody calls from Python


class Draft(JITCodeLibrary):  # type: ignore[misc]
    """A library that is linked and emitted late."""

    at_work = False

    def _ensure_finalized(self) -> None:
        if not Draft.at_work:
            super()._ensure_finalized()

    def _optimize_functions(self, module: Any) -> None:
        module.data_layout = self._codegen._data_layout  # the rest is done once, for the whole program

    def finalize(self) -> None:
        """Link and emit; then the code may find the constants that Python holds for it."""
        super().finalize()
        for name, constants in self.__dict__.pop("constants", ()):
            self._codegen.set_env(name, constants)

    def modules(self, seen: set[int]) -> Iterator[Any]:
        """The module of this library and of those it calls, each once."""
        seen.add(id(self))
        yield self._final_module  # with all it calls, once it is finished
        for other in () if self._finalized else self._linking_libraries:
            if id(other) in seen:
                continue
            if isinstance(other, Draft):
                yield from other.modules(seen)
            else:
                seen.add(id(other))
                yield other._get_module_for_linking()


@contextlib.contextmanager
def drafting() -> Iterator[None]:
    """Let numba write drafts; the caller holds its compiler lock."""
    context = nb.core.registry.cpu_target.target_context
    codegen, finish = context.codegen(), context.get_executable
    _spare_scipy()

    def executable(library: Any, about: Any, constants: Any) -> Any:
        try:
            library.get_function(about.llvm_cpython_wrapper_name)
        except NameError:  # nobody calls it from Python: numba needs an object of its own for it, no more
            library.__dict__.setdefault("constants", []).append((context.get_env_name(about), constants))
            name = about.qualname.rpartition(".")[2]
            return _dynfunc.make_function(about.lookup_module(), name, "", 0, constants, (library,))
        Draft.at_work = False
        try:
            return finish(library, about, constants)
        finally:
            Draft.at_work = True

    codegen._library_class, context.get_executable, Draft.at_work = Draft, executable, True
    try:
        yield
    finally:
        Draft.at_work = False
        del codegen._library_class, context.get_executable


def _spare_scipy() -> None:
    """numba imports SciPy at its first use, to see whether it is there; a look is enough, and 0.2 s faster."""
    from numba.np import linalg

    def present() -> None:
        if importlib.util.find_spec("scipy") is None:
            raise ImportError("no SciPy")

    imports, linalg.ensure_blas = linalg.ensure_blas, present
    try:
        from numba.np import arraymath  # noqa: F401  it asks while it is imported
    finally:
        linalg.ensure_blas = imports


def gathered(library: Any) -> Any:
    """A copy of all that a library needs, in one module that can be linked with others that need the same."""
    found = llvm.parse_assembly("")
    for module in library.modules(set()):
        found.link_in(module, preserve=True)
    for function in found.functions:
        if not function.is_declaration and function.linkage == llvm.Linkage.external:
            function.linkage = "linkonce_odr"
    return found


def close(module: Any, visible: set[str], cold: tuple[str, ...]) -> None:
    """Let nothing else of a module be seen from outside; functions whose names begin with `cold` are never inlined."""
    for function in module.functions:
        if not function.is_declaration and function.name not in visible:
            function.linkage = "internal"
            if function.name.startswith(cold):
                function.add_function_attribute("noinline")
                function.add_function_attribute("cold")

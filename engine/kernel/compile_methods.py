"""The compile act, fourth part: methods and properties of records, each compiled once per machine.

A strategy is edited often, the indicators and the context that it calls are not. So each method is a piece of LLVM
code of its own, named by a digest over all it reaches, kept in the folder `methods` of the user's cache directory and
linked into the images that call it. The methods of a strategy itself are kept in memory only: they change with it.
"""

import hashlib
import inspect
import itertools
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import llvmlite.binding as llvm
import numba as nb
from numba import types
from numba.core import typing
from numba.core.errors import TypingError
from numba.core.typing.templates import AbstractTemplate, AttributeTemplate, infer_getattr
from numba.extending import lower_builtin, lower_getattr

from engine.errors import ImageError
from engine.kernel import image
from engine.kernel.compile_draft import OPTIONS, close, gathered
from engine.kernel.layout import Record
from engine.kernel.strategy import Strategy

HANDLER_OPTIONS = {"error_model": "python", "boundscheck": True, "nogil": True, "_nrt": False, **OPTIONS}
PREFIX = "tandem.method."
KEPT = {str(kind): kind for kind in (types.none, types.boolean, types.int64, types.float64)}  # as results on disk

translators: list[Any] = []  # the one at work is last
records: dict[Any, type[Record]] = {}  # numba type -> our class
_known: dict[str, "Method"] = {}
_count = itertools.count()


@dataclass(frozen=True)
class Method:
    """A compiled method: bitcode in which one function is visible, and the type of what it returns."""

    digest: str
    result: Any
    code: bytes


def method(function: Any, args: tuple[Any, ...]) -> Method:
    """The compiled method for these types of arguments, the receiver first."""
    memory, key = translators[-1].methods, (function, args)
    if key not in memory:
        memory[key] = None
        try:
            memory[key] = _find(function, args)
        finally:
            if memory[key] is None:
                del memory[key]
    found: Method | None = memory[key]
    if found is None:
        raise TypingError(f"{function.__qualname__} calls itself, which compiled code cannot; write a loop")
    return found


def _find(function: Any, args: tuple[Any, ...]) -> Method:
    walk = image.Walk()
    walk.add("method", function.__module__, function.__qualname__, image.kernel_words())
    walk.function(function)
    kept = all(_walked(walk, kind) for kind in args)
    if not kept:
        walk.add(next(_count))
    digest = walk.hexdigest()
    if digest not in _known:
        found = _load(digest) if kept else None
        _known[digest] = found if found is not None else _compiled(function, args, digest, kept)
    return _known[digest]


def _walked(walk: image.Walk, kind: Any) -> bool:
    """Feed the digest with the type of an argument; whether that says all about it, in any process."""
    walk.add(str(kind))
    if kind in records:
        walk.record(records[kind])
        return not issubclass(records[kind], Strategy)
    return isinstance(kind, types.Number | types.Boolean | types.Omitted)


def _compiled(function: Any, args: tuple[Any, ...], digest: str, kept: bool) -> Method:
    translator = translators[-1]
    hot = {"forceinline": True} if getattr(function, "__hot__", False) else {}
    dispatcher = nb.njit(**HANDLER_OPTIONS, **hot)(translator.rewritten(function))
    dispatcher.compile(args)
    (overload,) = dispatcher.overloads.values()
    module = gathered(overload.library)
    module.get_function(overload.fndesc.llvm_func_name).name = PREFIX + digest
    link(module)
    close(module, {PREFIX + digest}, tuple(translator.cold))
    found = Method(digest, overload.signature.return_type, module.as_bitcode())
    if kept and str(found.result) in KEPT:
        content = f"{found.result}\n".encode() + found.code
        image.write_atomically(_place(digest), hashlib.sha256(content).digest() + content)
    return found


def _place(digest: str) -> Path:
    return image.cache_folder("methods") / f"{digest}.bc"


def _load(digest: str) -> Method | None:
    try:
        sha, content = (raw := _place(digest).read_bytes())[:32], raw[32:]
    except FileNotFoundError:
        return None
    if hashlib.sha256(content).digest() != sha:
        raise ImageError(f"compiled method {_place(digest)} is damaged. Delete it and start again.")
    word, _, code = content.partition(b"\n")
    return Method(digest, KEPT[word.decode()], code)


def link(module: Any) -> None:
    """Add the methods that a module calls; each has in itself those that it calls."""
    for name in [f.name for f in module.functions if f.is_declaration and f.name.startswith(PREFIX)]:
        module.link_in(llvm.parse_bitcode(_known[name.removeprefix(PREFIX)].code))


def _call(context: Any, builder: Any, function: Any, kinds: tuple[Any, ...], args: Any) -> Any:
    """Code that calls a method."""
    found = method(function, kinds)
    about = SimpleNamespace(
        mangled_name=PREFIX + found.digest, restype=found.result, argtypes=kinds, noalias=False,
        args=[f"a{n}" for n in range(len(kinds))], inline=getattr(function, "__hot__", False),
    )  # fmt: skip
    return context.call_internal(builder, about, typing.signature(found.result, *kinds), args)


def _template(key: Any, name: str, function: Any) -> Any:
    """How numba finds the type of a call of the method, and the code for it."""
    shape = inspect.signature(function)

    class Called(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args: Any, kws: Any) -> Any:
            try:
                shape.bind(None, *args, **kws)
            except TypeError as error:
                raise TypingError(str(error)) from error
            kinds = typing.fold_arguments(
                shape, (self.this, *args), kws, lambda n, p, kind: kind, lambda n, p, value: types.Omitted(value),
                lambda n, p, kinds: types.StarArgTuple(kinds),
            )  # fmt: skip
            result = method(function, tuple(kinds)).result
            return typing.signature(result, *kinds).replace(pysig=shape).as_method()

    Called.key = (key, name)

    def called(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _call(context, builder, function, signature.args, args)

    lower_builtin(Called.key, key, types.VarArg(types.Any))(called)
    return Called


def register(kind: Any, record: type[Record]) -> None:
    """Let compiled code use the methods and properties of a record, whose numba type has a class of its own."""
    records[kind] = record
    key, found = type(kind), dict(image.methods_of(record))
    read = {name for name in found if isinstance(inspect.getattr_static(record, name), property)}
    templates = {name: _template(key, name, function) for name, function in found.items() if name not in read}

    class Attributes(AttributeTemplate):  # type: ignore[misc]
        def generic_resolve(self, typ: Any, attr: str) -> Any:
            if attr in templates:
                return types.BoundFunction(templates[attr], typ)
            return method(found[attr], (typ,)).result if attr in read else None

    Attributes.key = key
    infer_getattr(Attributes)
    for name in read:

        def value(context: Any, builder: Any, typ: Any, value: Any, function: Any = found[name]) -> Any:
            return _call(context, builder, function, (typ,), (value,))

        lower_getattr(key, name)(value)

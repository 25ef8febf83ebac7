"""The compile act: the one file that decides all compilation, and the one that imports numba.

Plain Python functions become machine code in four moves:
  1 every function that an entry point reaches is compiled with its globals translated: functions to their
    compiled twins, tables and pointers to address arithmetic;
  2 methods of records become overloads, chosen by the record's layout;
  3 the entry point gets the C calling convention; user handlers are bounds-checked, inside try/except;
  4 LLVM emits one relocatable object, which image.py stores and loads.
"""

import inspect
import operator
import time
from collections.abc import Callable
from types import CellType, CodeType, FunctionType
from typing import Any

import llvmlite.binding as llvm
import numba as nb
import numpy as np
from llvmlite import ir
from numba import types
from numba.core.datamodel.models import RecordModel
from numba.core.datamodel.registry import register_default
from numba.extending import intrinsic, overload, overload_attribute, overload_method

from engine.kernel import image
from engine.kernel.layout import AddressOf, Array, Behind, Invoke, PerInstrument, Pointer, Prefetch, Record, Table

KERNEL_OPTIONS = {"error_model": "numpy", "nogil": True, "_nrt": False}
HANDLER_OPTIONS = {"error_model": "python", "boundscheck": True, "nogil": True, "_nrt": False}

_types: dict[type[Record], Any] = {}  # our class -> its numba type
_tables: dict[Any, Any] = {}  # numba type of a PerInstrument field -> its item
_translators: list["Translator"] = []


def _new_type(name: str, members: list[tuple[str, Any, int]], length: int) -> Any:
    """A record type of its own class: numba compares classes, so two records of one shape, or two versions of one
    class in a notebook, stay apart, each with its own methods."""
    cls = type(name, (types.Record,), {})
    register_default(cls)(RecordModel)
    return cls([(key, {"type": kind, "offset": offset}) for key, kind, offset in members], length, True)


def _member(field: Any) -> Any:
    """The numba type of a field."""
    if field.kind is PerInstrument:
        table = _new_type("PerInstrument", [("behind", types.int64, 0), ("length", types.int64, 8)], 16)
        _tables[table] = field.item
        if isinstance(field.item, type):
            record_type(field.item)
        return table
    if field.kind is Array:
        return types.NestedArray(dtype=_scalar_or_record(field.item), shape=(field.length,))
    return _scalar_or_record(field.kind)


def _scalar_or_record(kind: Any) -> Any:
    return record_type(kind) if isinstance(kind, type) else nb.from_dtype(np.dtype(kind))


def record_type(record: type[Record]) -> Any:
    """The numba type of a record, with its methods and properties."""
    if record not in _types:
        members = [(f.name, _member(f), f.offset) for f in record.fields.values()]
        kind = _types[record] = _new_type(record.__name__, members, record.dtype.itemsize)
        for name, function in image.methods_of(record):
            _register(type(kind), record, name, function)
    return _types[record]


def _register(key: Any, record: type[Record], name: str, function: Any) -> None:
    """Compile a method or a property when numba meets it."""

    def body(*args: Any, **kwargs: Any) -> Any:
        return _translators[-1].rewritten(function)

    body.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    register = overload_attribute if isinstance(inspect.getattr_static(record, name), property) else overload_method
    extra = {"forceinline": True} if getattr(function, "__hot__", False) else {}
    register(key, name, strict=False, jit_options={**HANDLER_OPTIONS, **extra})(body)


def _cast(context: Any, builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, context.get_value_type(kind))


def pointer_intrinsic(record: type[Record]) -> Any:
    """(address) -> record."""
    result = record_type(record)

    @intrinsic
    def at(typing: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return _cast(context, builder, args[0], result)

        return result(types.intp), codegen

    return at


def behind_intrinsic(base: type[Record], distance: int, record: type[Record]) -> Any:
    """(record) -> the record a fixed distance behind it."""
    base_type, result = record_type(base), record_type(record)

    @intrinsic
    def behind(typing: Any, first: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            word = ir.IntType(64)
            return _cast(context, builder, builder.add(builder.ptrtoint(args[0], word), word(distance)), result)

        return (result(base_type), codegen) if first == base_type else None

    return behind


def table_intrinsic(base: type[Record], field: str, record: type[Record]) -> Any:
    """(base record, index) -> row of a table whose offset a field of the base holds."""
    base_type, result = record_type(base), record_type(record)
    where, stride = base.fields[field].offset, record.dtype.itemsize

    @intrinsic
    def row(typing: Any, first: Any, index: Any) -> Any:
        if first != base_type or not isinstance(index, types.Integer):
            return None

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            word = ir.IntType(64)
            start = builder.ptrtoint(args[0], word)
            offset = builder.load(builder.inttoptr(builder.add(start, word(where)), word.as_pointer()))
            position = context.cast(builder, args[1], signature.args[1], types.int64)
            return _cast(
                context, builder, builder.add(builder.add(start, offset), builder.mul(position, word(stride))), result
            )

        return result(base_type, index), codegen

    return row


@intrinsic
def address_intrinsic(typing: Any, record: Any) -> Any:
    """(record) -> its address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ptrtoint(args[0], ir.IntType(64))

    return (types.intp(record), codegen) if isinstance(record, types.Record) else None


@intrinsic
def invoke_intrinsic(typing: Any, handler: Any, state: Any, event: Any, ctx: Any) -> Any:
    """Call `void (*)(void*, void*, void*)` through an integer."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        function = builder.inttoptr(args[0], ir.FunctionType(ir.VoidType(), [byte] * 3).as_pointer())
        builder.call(function, [builder.inttoptr(a, byte) for a in args[1:]])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, types.intp), codegen


@intrinsic
def prefetch_intrinsic(typing: Any, address: Any) -> Any:
    """Ask for the cache line at an address, for reading, to be kept."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        function = builder.module.declare_intrinsic(
            "llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        )
        builder.call(function, [builder.inttoptr(args[0], byte), word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(types.intp), codegen


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

    def function(self, function: FunctionType, inline: bool = False) -> Any:
        """The compiled twin of a plain function."""
        if id(function) not in self.twins:
            extra = {"forceinline": True} if inline or getattr(function, "__hot__", False) else {}
            shell, fill = self._shell(function)
            self.twins[id(function)] = nb.njit(**self.options, **extra)(shell)
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
        """A copy of a function with globals of its own, and the act that fills them (after the copy is known, for recursion)."""
        scope: dict[str, Any] = dict(function.__globals__)
        cells = tuple(CellType(c.cell_contents) for c in function.__closure__ or ())
        shell = FunctionType(function.__code__, scope, function.__name__, function.__defaults__, cells or None)
        shell.__kwdefaults__ = function.__kwdefaults__
        shell.__qualname__ = function.__qualname__
        shell.__module__ = function.__module__

        def fill() -> None:
            for name in _names(function.__code__):
                if name in scope:
                    scope[name] = self.value(scope[name])
            for cell in cells:
                cell.cell_contents = self.value(cell.cell_contents)

        return shell, fill


def _names(code: CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names(constant)
    return names


@intrinsic
def _table_item(typing: Any, table: Any, index: Any) -> Any:
    """(PerInstrument field, index) -> address of the item; unchecked."""
    if table not in _tables:
        return None
    item = _tables[table]
    stride = item.dtype.itemsize if isinstance(item, type) else np.dtype(item).itemsize

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        start = builder.ptrtoint(args[0], word)
        offset = builder.load(builder.inttoptr(start, word.as_pointer()))
        position = context.cast(builder, args[1], signature.args[1], types.int64)
        return builder.add(builder.add(start, offset), builder.mul(position, word(stride)))

    return types.intp(table, index), codegen


def _scalar_access(kind: str) -> tuple[Any, Any]:
    """Load and store of a scalar at an address."""
    scalar = nb.from_dtype(np.dtype(kind))

    @intrinsic
    def load(typing: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = builder.inttoptr(args[0], context.get_data_type(scalar).as_pointer())
            return context.unpack_value(builder, scalar, pointer)

        return scalar(types.intp), codegen

    @intrinsic
    def store(typing: Any, address: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = builder.inttoptr(args[0], context.get_data_type(scalar).as_pointer())
            context.pack_value(builder, scalar, context.cast(builder, args[1], signature.args[1], scalar), pointer)
            return context.get_dummy_value()

        return types.void(types.intp, value), codegen

    return load, store


@overload(operator.getitem, strict=False, jit_options=HANDLER_OPTIONS)
def _table_get(table: Any, index: Any) -> Any:
    if not (isinstance(table, types.Record) and table in _tables and isinstance(index, types.Integer)):
        return None
    item = _tables[table]
    get = pointer_intrinsic(item) if isinstance(item, type) else _scalar_access(item)[0]

    def impl(table: Any, index: Any) -> Any:
        if index < 0 or index >= table.length:
            raise IndexError("index is out of bounds for the instruments")
        return get(_table_item(table, index))

    return impl


@overload(operator.setitem, strict=False, jit_options=HANDLER_OPTIONS)
def _table_set(table: Any, index: Any, value: Any) -> Any:
    if not (isinstance(table, types.Record) and table in _tables and isinstance(index, types.Integer)):
        return None
    item = _tables[table]
    if isinstance(item, type):
        return None
    put = _scalar_access(item)[1]

    def impl(table: Any, index: Any, value: Any) -> None:
        if index < 0 or index >= table.length:
            raise IndexError("index is out of bounds for the instruments")
        put(_table_item(table, index), value)

    return impl


@overload(len, strict=False)
def _table_len(table: Any) -> Any:
    if isinstance(table, types.Record) and table in _tables:
        return lambda table: table.length
    return None


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
        except Exception:  # noqa: BLE001  the driver runs the event again uncompiled, for the real traceback
            ctx.fault = 1

    signature = types.void(record_type(self_type), record_type(event), record_type(ctx))
    return nb.cfunc(signature, nopython=True, _nrt=False)(guard)


def guarded_loop(function: Any, translator: Translator) -> Any:
    """`void f(address)`, bounds-checked; an exception ends it, the caller sees from its record how far it came."""
    checked = translator.function(function, inline=True)

    def guard(address: int) -> None:
        try:
            checked(address)
        except Exception:  # noqa: BLE001, S110  the record tells the caller, who raises it from plain Python
            pass

    return nb.cfunc(types.void(types.intp), nopython=True, _nrt=False)(guard)


def emit(parts: dict[str, Any], cpu: str = "") -> tuple[dict[str, str], bytes]:
    """One relocatable object of several C functions, and the symbol of each."""
    image.platform_words()
    module = None
    for part in parts.values():
        piece = llvm.parse_assembly(part.inspect_llvm())
        if module is None:
            module = piece
        else:
            module.link_in(piece)
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
    _translators.append(translator)
    try:
        entries, code = emit(make(translator))
    finally:
        _translators.pop()
    return image.save(digest, entries, code, time.perf_counter() - start, words)


CompilerErrors = (nb.core.errors.NumbaError, NotImplementedError)

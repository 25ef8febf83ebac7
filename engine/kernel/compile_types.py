"""The compile act, first half: our records and primitives as numba sees them.

Each record class becomes a numba type of its own class, with its methods as overloads; tables, pointers and calls
through an address become a few instructions each.
"""

import operator
from typing import Any

import numba as nb
import numpy as np
from llvmlite import ir
from numba import types as types
from numba.core.datamodel.models import RecordModel
from numba.core.datamodel.registry import register_default
from numba.core.typing import arraydecl
from numba.extending import intrinsic, lower_builtin, overload

from engine.kernel.compile_draft import OPTIONS as DRAFT
from engine.kernel.compile_methods import HANDLER_OPTIONS as HANDLER_OPTIONS
from engine.kernel.compile_methods import register
from engine.kernel.layout import Array, PerInstrument, Record

KERNEL_OPTIONS = {"error_model": "numpy", "nogil": True, "_nrt": False, **DRAFT}

_types: dict[type[Record], Any] = {}  # our class -> its numba type
_tables: dict[Any, Any] = {}  # numba type of a PerInstrument field -> its item


class _Tables(types.Record):  # type: ignore[misc]
    """Base of the types of PerInstrument fields."""


def _new_type(name: str, members: list[tuple[str, Any, int]], length: int, base: Any = types.Record) -> Any:
    """A record type of its own class: numba compares classes, so two records of one shape, or two versions of one
    class in a notebook, stay apart, each with its own methods."""
    cls = type(name, (base,), {})
    register_default(cls)(RecordModel)
    return cls([(key, {"type": kind, "offset": offset}) for key, kind, offset in members], length, True)


def _member(field: Any) -> Any:
    """The numba type of a field."""
    if field.kind is PerInstrument:
        table = _new_type("PerInstrument", [("behind", types.int64, 0), ("length", types.int64, 8)], 16, _Tables)
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
        members = members or [("nothing", types.uint8, 0)]  # to numba a record of length 0 is no receiver of a method
        kind = _types[record] = _new_type(record.__name__, members, record.dtype.itemsize)
        register(kind, record)
    return _types[record]


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
            offset.set_metadata("invariant.load", builder.module.add_metadata([]))  # tables never move
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
        builder.call(function, [builder.inttoptr(args[0], byte), word(0), word(2), word(1)])
        return context.get_dummy_value()

    return types.void(types.intp), codegen


@intrinsic
def highest_bit_intrinsic(typing: Any, word: Any) -> Any:
    """The place of the highest bit of a word; one instruction."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.IntType(64)
        leading = builder.ctlz(context.cast(builder, args[0], signature.args[0], types.int64), ir.IntType(1)(1))
        return builder.sub(kind(63), leading)

    return (types.int64(word), codegen) if isinstance(word, types.Integer) else None


@intrinsic
def _table_item(typing: Any, table: Any, index: Any) -> Any:
    """(PerInstrument field, index) -> address of the item; unchecked."""
    if not isinstance(table, _Tables):
        return None
    item = _tables[table]
    stride = np.dtype(item).itemsize if isinstance(item, str) else item.dtype.itemsize

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
    if not (isinstance(table, _Tables) and isinstance(index, types.Integer)):
        return None
    if isinstance(index, types.Literal):
        return None  # asked again with the plain integer
    item = _tables[table]
    get = pointer_intrinsic(item) if isinstance(item, type) else _scalar_access(item)[0]

    def impl(table: Any, index: Any) -> Any:
        if index < 0 or index >= table.length:
            raise IndexError("index is out of bounds for the instruments")
        return get(_table_item(table, index))

    return impl


@overload(operator.setitem, strict=False, jit_options=HANDLER_OPTIONS)
def _table_set(table: Any, index: Any, value: Any) -> Any:
    if not (isinstance(table, _Tables) and isinstance(index, types.Integer)):
        return None
    if isinstance(index, types.Literal):
        return None  # asked again with the plain integer
    item = _tables[table]
    if isinstance(item, type):
        return None
    put = _scalar_access(item)[1]

    def impl(table: Any, index: Any, value: Any) -> None:
        if index < 0 or index >= table.length:
            raise IndexError("index is out of bounds for the instruments")
        put(_table_item(table, index), value)

    return impl


def _leave_tables(template: Any) -> None:
    """To numba a record with a constant index means its n-th field; of a PerInstrument it means the n-th item."""
    fields_by_number = template.generic

    def generic(self: Any, args: Any, kws: Any) -> Any:
        return None if isinstance(args[0], _Tables) else fields_by_number(self, args, kws)

    template.generic = generic


for _template in (arraydecl.StaticGetItemRecord, arraydecl.StaticGetItemLiteralRecord, arraydecl.StaticSetItemRecord):
    _leave_tables(_template)


@lower_builtin("static_getitem", _Tables, types.IntegerLiteral)
def _table_constant(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    table, index = signature.args
    get = context.typing_context.resolve_value_type(operator.getitem)
    plain = get.get_call_type(context.typing_context, (table, types.int64), {})
    return context.get_function(get, plain)(builder, (args[0], ir.Constant(ir.IntType(64), index.literal_value)))


@overload(len, strict=False)
def _table_len(table: Any) -> Any:
    if isinstance(table, _Tables):
        return lambda table: table.length
    return None

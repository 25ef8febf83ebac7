"""The C header of a strategy, written from the records: the ABI for C, C++, Rust and Go.

A strategy is `void on_bar(State *, const Bar *, Ctx *)` and its like, in a shared library that `Strategy.library`
names. The header declares every record that takes part, checks their sizes and offsets while it compiles, and brings
the verbs of `ctx` (see verbs.py) as inline functions that do what engine/kernel/signals.py does, step for step.

`tandem_abi` in the library says which layouts it was built for; the engine refuses another.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

from engine.kernel import codes
from engine.kernel.books import Book
from engine.kernel.events import Bar, Depth, Event, Quote, Report, Slice, Timer, Trade
from engine.kernel.layout import Array, Field, PerInstrument, Record
from engine.kernel.levels import Half
from engine.kernel.records import Desk, Instrument, Kernel, Market, OpenOrder, Position, Signal
from engine.kernel.signals import CTX_BYTES, Ctx
from engine.kernel.strategy import HANDLERS, Strategy
from engine.kernel.verbs import VERBS

C_TYPES = {"i1": "int8_t", "i4": "int32_t", "i8": "int64_t", "u1": "uint8_t", "u2": "uint16_t", "u4": "uint32_t",
           "f8": "double", "b1": "uint8_t"}  # fmt: skip
KEYWORDS = set("auto break case char const continue default do double else enum extern float for goto if inline int "
               "long register restrict return short signed sizeof static struct switch typedef union unsigned void "
               "volatile while bool true false nullptr asm class new delete this".split())  # fmt: skip
PUBLIC = (Ctx, Event, Bar, Quote, Trade, Depth, Report, Timer, Slice, Instrument, Market, Position, Desk, OpenOrder,
          Signal, Book, Half, Kernel)  # fmt: skip
TABLE = "tandem_table"


def header(strategy: type[Strategy]) -> str:
    """The header as text; the strategy's own record is the struct of its class name (shorter: `State`).

    A field whose name is a word of C gets a `_` at its end. Compile with `-ffp-contract=off`, so that no two
    roundings become one.
    """
    names: dict[type[Record], str] = {}
    for record in _ordered([*PUBLIC, strategy]):
        name = record.__name__
        names[record] = name if name not in names.values() else f"{name}_{len(names)}"
    parts = [
        f"/* {strategy.__qualname__} for Tandem, ABI {abi_words(strategy)}. Generated: do not edit. */",
        "#pragma once\n#include <math.h>\n#include <stddef.h>\n#include <stdint.h>\n#include <stdlib.h>",
        '#ifdef __cplusplus\n#define _Static_assert static_assert\nextern "C" {\n#endif',
        "/* One item for each instrument, behind the record: TANDEM_ITEM(double, state->prices, i). */\n"
        f"typedef struct {TABLE} {{ int64_t behind; int64_t length; }} {TABLE};\n"
        "#define TANDEM_ITEM(type, table, i) (((type *)((char *)&(table) + (table).behind))[i])",
        "enum {\n" + "".join(f"    TANDEM_{k} = {v},\n" for k, v in _codes()) + "};",
        *(_struct(record, name, names) for record, name in names.items()),
        f"typedef {names[strategy]} State;",
        f"#define TANDEM_CTX_BYTES {CTX_BYTES}",
        VERBS,
        'extern __attribute__((weak, visibility("default"))) const char tandem_abi[];\n'
        f'const char tandem_abi[] = "{abi_words(strategy)}";',
        *(f"void {name}(State *self, const {names[event]} *event, Ctx *ctx);" for name, (_, event) in HANDLERS.items()),
        "#ifdef __cplusplus\n}\n#endif\n",
    ]
    return "\n\n".join(parts)


def abi_words(strategy: type[Strategy]) -> str:
    """A short name of all layouts, codes and verbs that a library of this strategy is built on."""
    digest = hashlib.sha256(f"{CTX_BYTES} {list(_codes())} {VERBS}".encode())
    for record in _ordered([*PUBLIC, strategy]):
        name = "" if record is strategy else record.__name__  # a subclass with a name of its own has the same layout
        digest.update(f"{name} {_members(record)!r} {record.dtype.itemsize};".encode())
    return digest.hexdigest()[:16]


def _members(record: type[Record]) -> list[tuple[str, str, int, int]]:
    return [(f.name, str(f.dtype), f.offset, f.length) for f in record.fields.values()]


def _codes() -> Iterator[tuple[str, int]]:
    for name, value in vars(codes).items():
        if name.isupper() and isinstance(value, int):
            yield name, value


def _ordered(wanted: list[type[Record]]) -> list[type[Record]]:
    """The records and those inside them, inner ones first."""
    found: list[type[Record]] = []

    def add(record: type[Record]) -> None:
        for field in record.fields.values():
            for inner in (field.kind, field.item):
                if isinstance(inner, type) and issubclass(inner, Record):
                    add(inner)
        if record not in found:
            found.append(record)

    for record in wanted:
        add(record)
    return found


def _c_name(name: str) -> str:
    return f"{name}_" if name in KEYWORDS else name


def _declared(field: Field, names: dict[type[Record], str]) -> str:
    kind: Any = field.item if field.kind is Array else field.kind
    word = TABLE if kind is PerInstrument else names[kind] if isinstance(kind, type) else C_TYPES[kind]
    return f"{word} {_c_name(field.name)}{f'[{field.length}]' if field.kind is Array else ''};"


def _struct(record: type[Record], name: str, names: dict[type[Record], str]) -> str:
    """A struct with every gap written out; overlaid fields become views of a union."""
    views: list[list[Field]] = []
    for field in record.fields.values():
        for view in views:
            if view[-1].offset + view[-1].dtype.itemsize <= field.offset:
                view.append(field)
                break
        else:
            views.append([field])
    bodies, gaps = [], 0
    for view in views or [[]]:
        at, lines = 0, []
        for field in view:
            if field.offset > at:
                lines.append(f"uint8_t gap{gaps}_[{field.offset - at}];")
                gaps += 1
            lines.append(_declared(field, names))
            at = field.offset + field.dtype.itemsize
        if at < record.dtype.itemsize:
            lines.append(f"uint8_t gap{gaps}_[{record.dtype.itemsize - at}];")
            gaps += 1
        bodies.append(lines)
    if len(bodies) == 1:
        text = "".join(f"    {line}\n" for line in bodies[0])
    else:
        inner = ("".join(f"            {line}\n" for line in lines) for lines in bodies)
        text = "    union {\n" + "".join(f"        struct {{\n{x}        }};\n" for x in inner) + "    };\n"
    checks = [f'_Static_assert(sizeof({name}) == {record.dtype.itemsize}, "{name}");']
    for field in record.fields.values():
        where = f"offsetof({name}, {_c_name(field.name)})"
        checks.append(f'_Static_assert({where} == {field.offset}, "{name}.{field.name}");')
    return f"typedef struct {name} {{\n{text}}} {name};\n" + "\n".join(checks)

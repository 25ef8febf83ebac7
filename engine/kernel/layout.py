"""Records: one class is a C struct, a numpy dtype and a Python view of the same bytes.

Law 1: a record is a pointer. Compiled code gets the address, Python gets a view of the address;
       both read and write the same memory, so uncompiled code is an exact oracle of compiled code.
Law 2: every field has a fixed offset; a record holds no Python object and never grows.
Law 3: methods of a record are plain Python over its fields, and compile as they stand.

A view does not own its memory: whoever allocated it must keep it alive (`Record.new()` and
`Record.view(array)` do so for their result).
"""

import ctypes
import sys
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Self, get_args, get_origin, get_type_hints

import numpy as np

from engine.errors import StrategyError

I1 = Annotated[int, "i1"]
I4 = Annotated[int, "i4"]
I8 = Annotated[int, "i8"]
U1 = Annotated[int, "u1"]
U2 = Annotated[int, "u2"]
U4 = Annotated[int, "u4"]
F8 = Annotated[float, "f8"]

SCALARS: dict[str, Any] = {
    "i1": ctypes.c_int8, "i4": ctypes.c_int32, "i8": ctypes.c_int64, "u1": ctypes.c_uint8,
    "u2": ctypes.c_uint16, "u4": ctypes.c_uint32, "f8": ctypes.c_double, "b1": ctypes.c_bool,
}  # fmt: skip
PLAIN = {int: "i8", float: "f8", bool: "b1"}
CURES = {list: "Array[float, 100]", dict: "Array[...] indexed by a small integer", set: "Array[bool, 100]",
         str: "an int code", object: "float or int"}  # fmt: skip


class Capacity:
    """Stands in an annotation for the capacity that `Mean[512]` chooses."""


class Array:
    """A fixed-length array inside a record: `window: Array[float, 256]`. The length is part of the layout."""

    def __class_getitem__(cls, key: Any) -> Any:
        item, *rest = key if isinstance(key, tuple) else (key,)
        if len(rest) != 1:
            raise StrategyError("Array needs an item type and a length: write Array[float, 100].")
        return Annotated[Array, item, rest[0]]

    def __init__(self, address: int, item: Any, length: int) -> None:
        self._address, self._item, self._length = address, item, length
        self._step = ctypes.sizeof(SCALARS[item]) if isinstance(item, str) else item.dtype.itemsize

    def _where(self, index: int) -> int:
        if not -self._length <= index < self._length:
            raise IndexError(f"index {index} is out of bounds for an array of {self._length}")
        return self._address + (index % self._length) * self._step

    def __getitem__(self, index: int) -> Any:
        where = self._where(index)
        return SCALARS[self._item].from_address(where).value if isinstance(self._item, str) else self._item.at(where)

    def __setitem__(self, index: int, value: Any) -> None:
        where = self._where(index)
        if isinstance(self._item, type):
            raise TypeError("an array of records is written field by field")
        SCALARS[self._item].from_address(where).value = value

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(self._length))


class PerInstrument:
    """One item for each instrument of a universe strategy: `prices: PerInstrument[Window]`, `self.prices[i]`.

    The record holds where the items are and how many; the engine lays them out behind the record.
    """

    def __class_getitem__(cls, item: Any) -> Any:
        return Annotated[PerInstrument, item, None]

    def __init__(self, address: int, item: Any) -> None:
        self._address, self._item = address, item
        self._step = ctypes.sizeof(SCALARS[item]) if isinstance(item, str) else item.dtype.itemsize

    def __len__(self) -> int:
        return int(ctypes.c_int64.from_address(self._address + 8).value)

    def _array(self) -> Array:
        behind = ctypes.c_int64.from_address(self._address).value
        return Array(self._address + behind, self._item, len(self))

    def __getitem__(self, index: int) -> Any:
        return self._array()[self._known(index)]

    def __setitem__(self, index: int, value: Any) -> None:
        self._array()[self._known(index)] = value

    def _known(self, index: int) -> int:
        if index < 0:  # -1 is how other code says "no instrument": never the last one
            raise IndexError(f"index {index} is out of bounds for {len(self)} instruments")
        return index


TABLE_DTYPE = np.dtype([("behind", "i8"), ("length", "i8")], align=True)


class Field:
    """Where one field lies and how Python reads it; `kind` is a scalar code, a Record class or Array."""

    def __init__(self, name: str, kind: Any, item: Any, length: int, offset: int) -> None:
        self.name, self.kind, self.item, self.length, self.offset = name, kind, item, length, offset
        self.scalar = SCALARS.get(kind) if isinstance(kind, str) else None

    def __get__(self, record: Any, owner: Any = None) -> Any:
        if record is None:
            return self
        address = record._address + self.offset
        if self.scalar is not None:
            return self.scalar.from_address(address).value
        if self.kind is Array:
            return Array(address, self.item, self.length)
        if self.kind is PerInstrument:
            return PerInstrument(address, self.item)
        return self.kind.at(address)

    def __set__(self, record: Any, value: Any) -> None:
        if self.scalar is None:
            raise TypeError(f"{type(record).__name__}.{self.name} is not a number; write its fields or items")
        if self.kind != "f8" and isinstance(value, float):
            raise TypeError(f"{type(record).__name__}.{self.name} is an integer field, got {value!r}; declare it float")
        if self.kind == "f8":
            value = float(value)
        self.scalar.from_address(record._address + self.offset).value = value

    @property
    def dtype(self) -> Any:
        if self.scalar is not None:
            return np.dtype(self.kind)
        if self.kind is PerInstrument:
            return TABLE_DTYPE
        item: Any = self.item if self.kind is Array else self.kind
        base = np.dtype(item) if isinstance(item, str) else item.dtype
        return np.dtype((base, (self.length,))) if self.kind is Array else base


def _kind(where: str, hint: Any, capacity: int) -> tuple[Any, Any, int, int | None]:
    """The (kind, item, length, offset) that an annotation means, or an error that names the cure."""
    if get_origin(hint) is Annotated or hasattr(hint, "__metadata__"):
        base, *rest = get_args(hint)
        if base is Array or base is PerInstrument:
            item, _, _, _ = _kind(where, rest[0], capacity)
            length = capacity if rest[1] is Capacity else rest[1] or 0
            if base is Array and (not isinstance(length, int) or length < 1):
                raise StrategyError(f"{where}: the length of an Array must be a positive integer, got {length!r}.")
            return base, item, length, None
        if rest[0] is Capacity:
            return base[capacity], None, 0, None
        return rest[0], None, 0, rest[1] if len(rest) > 1 else None
    if hint in PLAIN:
        return PLAIN[hint], None, 0, None
    if isinstance(hint, type) and issubclass(hint, Record):
        return hint, None, 0, None
    name = getattr(hint, "__name__", str(hint))
    cure = CURES.get(get_origin(hint) or hint, "float, int, bool, Array[float, 100], a Record or an indicator")
    raise StrategyError(f"{where}: a field cannot be a {name}, because state has a fixed layout. Use {cure} instead "
                        "(from engine.kernel.strategy import Array).")  # fmt: skip


class Record:
    """Base of all records. Subclass it with annotated fields to declare a layout of your own.

    >>> class Tally(Record):
    ...     n: int
    ...     total: float
    ...     def add(self, x):
    ...         self.n += 1
    ...         self.total += x
    >>> tally = Tally.new()
    >>> tally.add(2.5); tally.add(4.0)
    >>> tally.n, tally.total, Tally.dtype.itemsize
    (2, 6.5, 16)
    """

    dtype: ClassVar[np.dtype[Any]] = np.dtype([])
    fields: ClassVar[dict[str, Field]] = {}
    capacity: ClassVar[int] = 1024
    _variants: ClassVar[dict[int, type]] = {}
    _address: int
    _owner: Any

    def __init_subclass__(cls, capacity: int | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.capacity = capacity or cls.capacity
        cls._variants = {}
        scope: dict[str, Any] = {}  # classes inside functions and notebook cells name their local types
        frame = sys._getframe(1)
        while frame is not None:
            if frame.f_globals.get("__name__") == cls.__module__:
                scope = {**frame.f_locals, **scope}
            frame = frame.f_back  # type: ignore[assignment]
        try:
            hints = get_type_hints(cls, localns=scope, include_extras=True)
        except NameError as error:
            at = declared_at(cls)
            raise StrategyError(
                f"{at}{cls.__qualname__}: an annotation uses a name that is not defined: {error}."
            ) from None
        try:
            cls._lay_out(
                {name: hint for name, hint in hints.items() if not _is_meta(hint) and not name.startswith("_")}
            )
        except StrategyError as error:
            raise StrategyError(f"{declared_at(cls)}{error}") from None

    @classmethod
    def _lay_out(cls, hints: dict[str, Any]) -> None:
        offset, align, fields = 0, 1, {}
        for name, hint in hints.items():
            kind, item, length, fixed = _kind(f"{cls.__qualname__}.{name}", hint, cls.capacity)
            field = Field(name, kind, item, length, 0)
            if cls is not Record and name in dir(np.record) and not name.startswith("_"):
                raise StrategyError(
                    f"{cls.__qualname__}.{name}: numpy records already use the name `{name}`; rename the field."
                )
            if any(not isinstance(vars(base).get(name, field), Field) for base in cls.__mro__[1:]):
                raise StrategyError(
                    f"{cls.__qualname__}.{name}: the engine already uses the name `{name}`; rename the field."
                )
            step = field.dtype.base.alignment
            field.offset = -(-offset // step) * step if fixed is None else fixed
            offset, align = max(offset, field.offset + field.dtype.itemsize), max(align, step)
            fields[name] = field
            setattr(cls, name, field)
        cls.fields = fields
        cls.dtype = np.dtype({
            "names": list(fields), "formats": [f.dtype for f in fields.values()],
            "offsets": [f.offset for f in fields.values()],
            "itemsize": max(8, -(-offset // max(8, align)) * max(8, align)),
        }, align=True)  # fmt: skip

    def __class_getitem__(cls, capacity: Any) -> Any:
        """The same record with another capacity: `Mean[4096]`; `Mean[Capacity]` in a record takes the outer one's."""
        if capacity is Capacity:
            return Annotated[cls, Capacity]
        if not isinstance(capacity, int) or not 1 <= capacity <= 1 << 20:
            raise StrategyError(f"{cls.__name__}[{capacity!r}]: a capacity is an integer from 1 to {1 << 20}.")
        if capacity == cls.capacity:
            return cls
        if capacity not in cls._variants:
            name = f"{cls.__name__}_{capacity}"
            body = {"__module__": cls.__module__, "__doc__": cls.__doc__}
            metaclass: Any = type(cls)
            cls._variants[capacity] = metaclass(name, (cls,), body, capacity=capacity)
        return cls._variants[capacity]

    @classmethod
    def at(cls, address: int) -> Self:
        """A view of the record at an address. The caller keeps the memory alive."""
        record = object.__new__(cls)
        record._address = address
        record._owner = None
        return record

    @classmethod
    def view(cls, memory: "np.ndarray[Any, Any]", index: int = 0) -> Self:
        """A view of row `index` of a structured array, which it keeps alive."""
        record = cls.at(memory.ctypes.data + index * cls.dtype.itemsize)
        record._owner = memory
        return record

    @classmethod
    def new(cls) -> Self:
        """A zeroed record that owns its memory."""
        return cls.view(np.zeros(1, cls.dtype))

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in ("_address", "_owner") and name not in self.fields:
            raise AttributeError(f"{type(self).__name__} has no field `{name}`; it has {', '.join(self.fields)}")
        object.__setattr__(self, name, value)

    def cell(self, name: str) -> Any:
        """The number in a field as an object with a `value`, for who reads or writes it often; keep the record, too."""
        field = self.fields[name]
        assert field.scalar is not None, f"{name} is no number"
        return field.scalar.from_address(self._address + field.offset)

    def tobytes(self) -> bytes:
        """The bytes of the record."""
        return ctypes.string_at(self._address, self.dtype.itemsize)

    def asdict(self) -> dict[str, Any]:
        """The fields by name, nested records as dictionaries, arrays as lists."""
        return {name: _plain(getattr(self, name)) for name in self.fields}

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={getattr(self, k)!r}" for k, f in self.fields.items() if f.scalar is not None)
        return f"{type(self).__name__}({shown})"


def declared_at(record: type) -> str:
    """`file:line: ` of the class statement that is running, for error messages; nothing at a prompt or in a cell."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if (
            frame.f_globals.get("__name__") == record.__module__
            and not name.startswith("<")
            and "ipykernel" not in name
        ):
            return f"{name}:{frame.f_lineno}: "
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def _is_meta(hint: Any) -> bool:
    return hint is ClassVar or get_origin(hint) is ClassVar


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.asdict()
    if isinstance(value, Array | PerInstrument):
        return [_plain(value[i]) for i in range(len(value))]
    return value

"""Primitives: what kernel code says about memory and machine code, in a form that runs and compiles.

Uncompiled, each is the Python object below; the compile act puts address arithmetic in its place.
"""

import ctypes
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

from engine.kernel.layout import Record

Of = TypeVar("Of", bound=Record)


class Pointer(Generic[Of]):
    """`event_at = Pointer(Event)`: the record at an address. Compiled, it is a cast."""

    def __init__(self, record: type[Of]) -> None:
        self.record = record

    def __call__(self, address: int) -> Of:
        return self.record.at(address)


class Behind(Generic[Of]):
    """`kernel_of = Behind(Ctx, 128, Kernel)`: the record a fixed number of bytes behind another one."""

    def __init__(self, base: type[Record], distance: int, record: type[Of]) -> None:
        self.base, self.distance, self.record = base, distance, record

    def __call__(self, base: Record) -> Of:
        return self.record.at(base._address + self.distance)


class Table(Generic[Of]):
    """`orders = Table(Kernel, "orders_at", OpenOrder)`: row i of a table whose offset a field of its base holds."""

    def __init__(self, base: type[Record], offset: str, record: type[Of]) -> None:
        self.base, self.offset, self.record = base, offset, record

    def __call__(self, base: Record, index: int) -> Of:
        return self.record.at(base._address + getattr(base, self.offset) + index * self.record.dtype.itemsize)


class AddressOf:
    """`address_of(record)`: where a record lies, as an integer."""

    def __call__(self, record: Record) -> int:
        return record._address


address_of = AddressOf()


class Prefetch:
    """`prefetch(address)`: ask the processor for a cache line ahead of its use. Changes nothing but time."""

    def __call__(self, address: int) -> None:
        return None


prefetch = Prefetch()


class HighestBit:
    """`highest_bit(word)`: the place, 0 to 63, of the highest bit that is set in a word which is not 0."""

    def __call__(self, word: int) -> int:
        return (word & 0xFFFF_FFFF_FFFF_FFFF).bit_length() - 1


highest_bit = HighestBit()


class Invoke:
    """`invoke(handler, state, event, ctx)`: call `void handler(void*, void*, void*)` through its address.

    Uncompiled handlers are registered under a number of their own by `python_handler`.
    """

    python: ClassVar[dict[int, Callable[[int, int, int], None]]] = {}
    signature: ClassVar[Any] = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)

    def __call__(self, handler: int, state: int, event: int, ctx: int) -> None:
        function = self.python.get(handler)
        if function is None:
            function = self.signature(handler)
        function(state, event, ctx)


invoke = Invoke()


Function = TypeVar("Function", bound=Callable[..., Any])


def hot(function: Function) -> Function:
    """Mark a function of the per-event path: compiled, it is inlined into its caller whatever its length."""
    function.__hot__ = True  # type: ignore[attr-defined]
    return function


def cold(function: Function) -> Function:
    """Mark a function off the per-event path: compiled, it stays a call, so that the path itself stays short."""
    function.__cold__ = True  # type: ignore[attr-defined]
    return function

"""What a strategy is: a class of parameters, state and handlers, laid out as one record.

Law 1: parameters are validated when the strategy is made and written by nobody afterwards.
Law 2: state starts as zeros; `on_start` may set it.
Law 3: a handler is `def on_xxx(self, event, ctx)`, plain Python over fields, events and ctx.
"""

import difflib
import inspect
import math
from collections.abc import Callable
from types import FunctionType
from typing import Any, ClassVar

import numpy as np

from engine.errors import StrategyError
from engine.kernel import codes
from engine.kernel.events import Bar, Depth, Quote, Report, Slice, Timer, Trade
from engine.kernel.layout import Array as Array
from engine.kernel.layout import Field, PerInstrument, Record, declared_at

# handler -> (event kind, what its second argument is)
NOT_PLAIN = 0x0C | 0x80 | 0x200  # flags of code: *args, **kwargs, coroutine, asynchronous generator
HANDLERS: dict[str, tuple[int, type[Record]]] = {
    "on_bar": (codes.BAR, Bar),
    "on_quote": (codes.QUOTE, Quote),
    "on_trade": (codes.TRADE, Trade),
    "on_depth": (codes.DEPTH, Depth),
    "on_report": (codes.REPORT, Report),
    "on_timer": (codes.TIMER, Timer),
    "on_slice": (codes.SLICE, Slice),
    "on_start": (codes.START, Slice),
}
BOUNDS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "ge": (">=", lambda x, y: x >= y), "gt": (">", lambda x, y: x > y),
    "le": ("<=", lambda x, y: x <= y), "lt": ("<", lambda x, y: x < y),
}  # fmt: skip


class Param:
    """A parameter's default and bounds."""

    def __init__(self, default: Any, bounds: dict[str, Any], doc: str) -> None:
        self.default, self.bounds, self.doc = default, bounds, doc

    def check(self, where: str, value: Any, kind: str) -> Any:
        """The value in the parameter's type, or an error that states the range."""
        wanted = {"i8": "an integer", "f8": "a number", "b1": "true or false"}.get(kind, "a number")
        if kind == "b1":
            good = isinstance(value, bool | np.bool_)
        elif kind == "f8":
            good = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        else:
            good = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not good:
            raise StrategyError(f"{where} must be {wanted}, got {value!r} ({type(value).__name__}).")
        if kind == "f8" and math.isnan(value):
            raise StrategyError(f"{where} must be a number, got nan.")
        for word, limit in self.bounds.items():
            if not BOUNDS[word][1](value, limit):
                allowed = " and ".join(f"{BOUNDS[w][0]} {b}" for w, b in self.bounds.items())
                raise StrategyError(f"{where} must be {allowed}, got {value!r}.")
        return value


def param(default: Any, *, ge: Any = None, gt: Any = None, le: Any = None, lt: Any = None, doc: str = "") -> Any:
    """Declare a parameter: `fast: int = param(10, ge=1, le=500)`. Bounds include `ge`/`le`, exclude `gt`/`lt`."""
    return Param(default, {k: v for k, v in (("ge", ge), ("gt", gt), ("le", le), ("lt", lt)) if v is not None}, doc)


class Strategy(Record):
    """Base of all strategies. Subclass it, declare parameters and state, write at least one handler.

    `universe = True` makes one instance for all instruments, with `PerInstrument` state and `on_slice`, instead of
    one instance for each instrument. `validate` may check parameters against each other. `library` names a shared
    library, beside the file of the class, that brings the handlers (`engine.kernel.header` writes its header).

    What a handler finds in `ctx`, the account, the quote and the verbs, is in help(engine.kernel.signals.Ctx); what may
    be nested as state is in help(engine.kernel.indicators). README.md has a table of both.
    """

    universe: ClassVar[bool] = False
    library: ClassVar[str | None] = None
    params: ClassVar[dict[str, Param]] = {}
    handlers: ClassVar[dict[str, FunctionType]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if cls.__init__ is not Strategy.__init__:
            raise StrategyError(
                f"{declared_at(cls)}{cls.__qualname__}.__init__: a strategy has no __init__ of its own. Its parameters "
                "are fields declared with param(), such as `length: int = param(20, ge=2)`; check them against each "
                "other in validate(self), and set what state starts with in on_start(self, event, ctx)."
            )
        own = {name: value for name, value in vars(cls).items() if isinstance(value, Param)}
        cls.params = {**cls.params, **own}
        for name in own:
            if not _annotated(cls, name):
                raise StrategyError(
                    f"{declared_at(cls)}{cls.__qualname__}.{name}: a parameter needs a type; "
                    f"write `{name}: float = param(...)`."
                )
        for name, value in vars(cls).items():
            declared = name in cls.fields or (name in _hints(cls) and "ClassVar" not in str(_hints(cls)[name]))
            if isinstance(value, Record) and not name.startswith("_"):
                kind = type(value).__name__
                raise StrategyError(f"{declared_at(cls)}{cls.__qualname__}.{name}: state is declared, not made; write "
                                    f"`{name}: {kind}` instead of `{name} = {kind}()`.")  # fmt: skip
            if (
                declared
                and not name.startswith("_")
                and isinstance(value, int | float | list | dict | set | str | tuple)
            ):
                raise StrategyError(
                    f"{declared_at(cls)}{cls.__qualname__}.{name} = {value!r}: state starts as zero. "
                    "For a parameter write "
                    f"`{name}: {type(value).__name__} = param({value!r})`; to start state elsewhere set it in on_start."
                )
        super().__init_subclass__(**kwargs)
        if cls.per_instrument() and not cls.universe:
            raise StrategyError(
                f"{declared_at(cls)}{cls.__qualname__}.{cls.per_instrument()[0].name}: PerInstrument is state of a "
                "strategy of universe scope. Write `universe = True` in the class body."
            )
        for name in vars(cls):
            if name.startswith("on_") and name not in HANDLERS:
                near = difflib.get_close_matches(name, HANDLERS, 1)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise StrategyError(
                    f"{declared_at(cls)}{cls.__qualname__}.{name} is not a handler; "
                    f"there are {', '.join(HANDLERS)}.{hint}"
                )
            if name in HANDLERS and not isinstance(vars(cls)[name], FunctionType):
                raise StrategyError(
                    f"{declared_at(cls)}{cls.__qualname__}.{name} is a {type(vars(cls)[name]).__name__}, no function: "
                    f"write a plain `def {name}(self, {name[3:]}, ctx)`, without a decorator."
                )
        cls.handlers = {n: getattr(cls, n) for n in HANDLERS if isinstance(getattr(cls, n, None), FunctionType)}
        for name, function in cls.handlers.items():
            if function.__code__.co_argcount != 3 or function.__code__.co_flags & NOT_PLAIN:
                raise StrategyError(
                    f"{declared_at(cls)}{cls.__qualname__}.{name} must be `def {name}(self, {name[3:]}, ctx)`."
                )

    def __init__(self, **values: Any) -> None:
        cls = type(self)
        if not cls.handlers and cls.library is None:
            raise StrategyError(f"{_place(cls)}{cls.__qualname__} has no handler; write at least `def on_bar(self, "
                                f"bar, ctx)`. There are {', '.join(HANDLERS)}.{_nearly(cls)}")  # fmt: skip
        memory = np.zeros(1, cls.dtype)
        self._address, self._owner = memory.ctypes.data, memory
        for name in values:
            if name not in cls.params:
                near = difflib.get_close_matches(name, cls.params, 1)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise StrategyError(
                    f"{cls.__qualname__} has no parameter `{name}`; it has {', '.join(cls.params) or 'none'}.{hint}"
                )
        for name, declared in cls.params.items():
            field = cls.fields[name]
            setattr(
                self,
                name,
                declared.check(f"{cls.__qualname__}.{name}", values.get(name, declared.default), str(field.kind)),
            )
        try:
            self.validate()
        except ValueError as error:
            raise StrategyError(f"{cls.__qualname__}: {error}.") from error

    def validate(self) -> None:
        """Check parameters against each other: raise ValueError with a sentence. Runs when a strategy is made."""

    @property
    def values(self) -> dict[str, Any]:
        """The parameters by name."""
        return {name: getattr(self, name) for name in self.params}

    @classmethod
    def per_instrument(cls) -> list[Field]:
        """The fields that hold one item for each instrument."""
        return [f for f in cls.fields.values() if f.kind is PerInstrument]

    @classmethod
    def state_bytes(cls, instruments: int) -> int:
        """Bytes of one instance's record with the per-instrument items behind it."""
        total = _round(cls.dtype.itemsize)
        for field in cls.per_instrument():
            total += _round(instruments * _step(field))
        return total

    @classmethod
    def place_tables(cls, state: "Strategy", instruments: int) -> None:
        """Write into a state where its per-instrument items lie and how many there are."""
        at = _round(cls.dtype.itemsize)
        memory = np.frombuffer(_memory(state._address, cls.dtype.itemsize), dtype=np.uint8)
        for field in cls.per_instrument():
            pair = np.array([at - field.offset, instruments], np.int64)
            memory[field.offset : field.offset + 16] = pair.view(np.uint8)
            at += _round(instruments * _step(field))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.values.items())})"


def _place(cls: type) -> str:
    """`file:line: ` of a class, nothing where its source is not known."""
    try:
        return f"{inspect.getsourcefile(cls)}:{inspect.getsourcelines(cls)[1]}: "
    except (OSError, TypeError):
        return ""


def _nearly(cls: type) -> str:
    """A question about the function that was probably meant to be a handler."""
    pairs = (
        (n, difflib.get_close_matches(n, HANDLERS, 1)) for n, v in vars(cls).items() if isinstance(v, FunctionType)
    )
    return next((f" Is `{name}` meant to be {near[0]}?" for name, near in pairs if near), "")


def _memory(address: int, length: int) -> Any:
    import ctypes

    return (ctypes.c_uint8 * length).from_address(address)


def _round(length: int) -> int:
    return -(-length // 64) * 64


def _step(field: Field) -> int:
    item: Any = field.item
    return int(np.dtype(item).itemsize if isinstance(item, str) else item.dtype.itemsize)


def _hints(cls: type) -> dict[str, Any]:
    return inspect.get_annotations(cls)


def _annotated(cls: type, name: str) -> bool:
    return any(name in _hints(base) for base in cls.__mro__)

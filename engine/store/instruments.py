"""What we know of an instrument before the first event: its grid, its costs, its calendar.

Law 1: metadata is complete and validated when it exists; nobody downstream checks it again.
Law 2: the JSON form is canonical (sorted keys), so that equal metadata has equal bytes and equal hashes.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self
from zoneinfo import ZoneInfo

from engine.errors import ConfigError

POSITIVE = ("tick", "lot", "multiplier", "margin")
NOT_NEGATIVE = ("fee_per_unit", "fee_min", "bar_ns")
FINITE = ("maker_bps", "taker_bps")  # a rebate is a negative fee


@dataclass(frozen=True)
class InstrumentInfo:
    """Metadata of one instrument.

    `tick` is the price step and `lot` the quantity step, one unit is worth `price * multiplier` of `currency`.
    Fees: `max(fee_min, |notional| * bps / 1e4 + units * fee_per_unit)`. `margin` is the initial margin as a
    fraction of the notional (1 = fully paid). `calendar` is a name of exchange_calendars or "24/7".
    `bar_ns` is the time from open to close of one bar in ns (0 = unknown).

    Raises ConfigError for a value out of its range.
    """

    name: str
    tick: float = 0.01
    lot: float = 1.0
    multiplier: float = 1.0
    currency: str = "USD"
    maker_bps: float = 0.0
    taker_bps: float = 0.0
    fee_per_unit: float = 0.0
    fee_min: float = 0.0
    margin: float = 1.0
    shortable: bool = True
    calendar: str = "24/7"
    timezone: str = "UTC"
    bar_ns: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise ConfigError(f"instrument name {self.name!r}: give a text that is not empty.")
        for field in fields(self):
            self._check(field.name, getattr(self, field.name), field.default)
        try:
            ZoneInfo(self.timezone)
        except (KeyError, ValueError, OSError) as error:
            raise ConfigError(f"instrument {self.name}: unknown timezone {self.timezone!r}; "
                              "use an IANA name such as America/New_York.") from error  # fmt: skip

    def _check(self, key: str, value: Any, default: Any) -> None:
        if isinstance(default, bool):
            good, wish = isinstance(value, bool), "true or false"
        elif isinstance(default, int | float):
            good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            wish = "a finite number"
            if isinstance(default, int) and good:
                good, wish = isinstance(value, int), "a whole number of ns"
            if key in POSITIVE:
                good, wish = good and value > 0, "a number above 0"
            elif key in NOT_NEGATIVE:
                good, wish = good and value >= 0, f"{wish}, 0 or more"
        else:
            good, wish = isinstance(value, str) and value != "", "a text"
        if not good:
            raise ConfigError(f"instrument {self.name}: {key}={value!r} must be {wish}.")

    @classmethod
    def fill(cls, values: Mapping[str, Any], where: str = "instrument_info") -> Self:
        """From a mapping of fields. Raises ConfigError for an unknown field, naming the choices."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(f"{where}: unknown field {unknown[0]!r}; an instrument has {', '.join(sorted(known))}.")
        return cls(**values)

    def asdict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


def to_json(instruments: Iterable[InstrumentInfo]) -> str:
    """Canonical JSON text: a list of objects in the given order, keys sorted."""
    return json.dumps([info.asdict() for info in instruments], sort_keys=True, indent=1) + "\n"


def from_json(text: str, where: str = "instruments.json") -> tuple[InstrumentInfo, ...]:
    """Back from `to_json`. Raises ConfigError, naming `where`, for text that is not such a list."""
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{where}: not valid JSON ({error}); restore it or import again.") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"{where}: expected a list of objects, one for each instrument.")
    return tuple(InstrumentInfo.fill(row, where) for row in rows)


def override(info: InstrumentInfo, changes: Mapping[str, Any] | None) -> InstrumentInfo:
    """`info` with `changes` applied: fields for all instruments, or under an instrument's name for that one.

    `{"taker_bps": 5, "AAPL": {"taker_bps": 1}}` gives AAPL 1 bps and the others 5.
    """
    if not changes:
        return info
    flat = {key: value for key, value in changes.items() if not isinstance(value, Mapping)}
    own = changes.get(info.name)
    return InstrumentInfo.fill({**info.asdict(), **flat, **(own if isinstance(own, Mapping) else {})})

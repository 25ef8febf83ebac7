"""Settings as frozen dataclasses: the border between YAML or keyword arguments and the records of the kernel.

Law 1: a setting exists once, with its default, its range and its unit, here.
Law 2: nothing below this file has a default of its own; nothing above it invents one.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from engine.errors import ConfigError
from engine.kernel import codes
from engine.kernel.machine import LARGE

BREACHES = {"refuse": codes.REFUSE, "cancel": codes.CANCEL_ORDERS, "flatten": codes.FLATTEN, "halt": codes.HALT}
NEVER_ZERO = ("cash", "leverage", "order_qty", "order_value", "position", "gross", "net", "open_orders", "burst")


@dataclass(frozen=True)
class Risk:
    """Risk limits; each allows values up to and including itself, inf (`.inf` in YAML) switches it off.

    Quantities in units, values in account currency, `drawdown` and `collar` as fractions, `rate` in orders per second
    of event time with `burst` at once, `stale_s` in seconds since the last price. `breach` maps a reason to what its
    breach does beyond the refusal: refuse (default), cancel, flatten or halt.
    """

    leverage: float = 1.0
    short: bool = True
    order_qty: float = math.inf
    order_value: float = math.inf
    position: float = math.inf
    gross: float = math.inf
    net: float = math.inf
    open_orders: int = 1024
    daily_loss: float = math.inf
    drawdown: float = math.inf
    rate: float = math.inf
    burst: float = 1.0
    collar: float = math.inf
    stale_s: float = math.inf
    self_match: bool = True
    netting: bool = False
    allow: tuple[str, ...] = ()
    block: tuple[str, ...] = ()
    breach: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _positive(self)
        for reason, what in self.breach.items():
            if reason not in _reasons():
                raise ConfigError(f"risk.breach: unknown reason {reason!r}; there are {', '.join(_reasons())}.")
            if what not in BREACHES:
                raise ConfigError(f"risk.breach.{reason}: {what!r} is no action; there are {', '.join(BREACHES)}.")

    def limits(self) -> dict[str, float]:
        """The limits as the kernel's record has them."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("allow", "block", "breach", "stale_s")}
        stale = LARGE if self.stale_s == math.inf else int(self.stale_s * 1e9)
        return {**{name: value for name, value in values.items()}, "stale_ns": stale}

    def breaches(self) -> dict[int, int]:
        """Reason code -> action code."""
        return {_reasons()[reason]: BREACHES[what] for reason, what in self.breach.items()}


@dataclass(frozen=True)
class VenueModel:
    """The simulated venue. `slippage_bps` in basis points on market and stop fills, `participation` our largest share of a
    bar's volume (0 = no cap), `touch` lets limits fill at a touch. Fees (basis points, money per unit, money per fill)
    replace those of the instruments where they are given."""

    slippage_bps: float = 0.0
    participation: float = 0.0
    touch: bool = False
    taker_bps: float | None = None
    maker_bps: float | None = None
    fee_per_unit: float | None = None
    fee_min: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.slippage_bps < 10_000:
            raise ConfigError(f"venue.slippage_bps must be from 0 to below 10000, got {self.slippage_bps}.")
        if not 0 <= self.participation <= 1:
            raise ConfigError(f"venue.participation must be from 0 to 1, got {self.participation}.")

    def fees(self) -> dict[str, float]:
        """Fee fields that replace the instruments' own."""
        names = ("taker_bps", "maker_bps", "fee_per_unit", "fee_min")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


def _reasons() -> dict[str, int]:
    return {word: code for code, word in codes.NAMES["reason"].items() if code != codes.OK}


def _positive(settings: Any) -> None:
    for f in fields(settings):
        value = getattr(settings, f.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        low = "> 0" if f.name in NEVER_ZERO else ">= 0"
        if math.isnan(value) or value < 0 or (value == 0 and f.name in NEVER_ZERO):
            raise ConfigError(f"{type(settings).__name__.lower()}.{f.name} must be {low}, got {value}.")


def config_hash(settings: Mapping[str, Any]) -> str:
    """Hash of a resolved configuration: equal settings, equal hash."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


def as_plain(settings: Any) -> dict[str, Any]:
    """A settings dataclass as plain values."""
    return asdict(settings)

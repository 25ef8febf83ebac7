"""Settings as frozen dataclasses: the border between YAML or keyword arguments and the records of the kernel.

Law 1: a setting exists once, with its default, its range and its unit, here.
Law 2: nothing below this file has a default of its own; nothing above it invents one.
Law 3: settings that exist are valid: every way to make them checks types and ranges, and refuses unknown keys.
"""

import dataclasses
import difflib
import hashlib
import json
import math
import types
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

from engine.errors import ConfigError
from engine.kernel import codes
from engine.kernel.machine import LARGE

BREACHES = {"refuse": codes.REFUSE, "cancel": codes.CANCEL_ORDERS, "flatten": codes.FLATTEN, "halt": codes.HALT}
SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
HOLDS: dict[str, Any] = {"ge": float.__ge__, "gt": float.__gt__, "le": float.__le__, "lt": float.__lt__}
CONF = Path(__file__).resolve().parents[1] / "conf"  # by its place: an own `conf` of the user cannot shadow it
_hints: dict[type, dict[str, Any]] = {}


def setting(default: Any, doc: str, **bounds: float) -> Any:
    """A field with its default, its meaning with the unit, and its bounds (`ge`, `gt`, `le`, `lt`)."""
    about = {"doc": doc, "bounds": bounds}
    if isinstance(default, dict | type):
        return field(default_factory=dict if isinstance(default, dict) else default, metadata=about)
    return field(default=default, metadata=about)


@dataclass(frozen=True)
class Settings:
    """Base of all settings. `where` is their place in the grammar of keys (`risk` for `risk.leverage`)."""

    where: ClassVar[str] = ""
    brought: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # key -> keys that must not be given beside it

    def __post_init__(self) -> None:
        for f in fields(self):
            key = f"{self.where}.{spoken(f.name)}" if self.where else spoken(f.name)
            value = coerce(hints(type(self))[spoken(f.name)], getattr(self, f.name), key)
            bounds = f.metadata.get("bounds", {})
            if value is not None and not all(HOLDS[word](float(value), float(limit)) for word, limit in bounds.items()):
                raise ConfigError(f"{key} must be {allowed(bounds)}, got {value}.")
            object.__setattr__(self, f.name, value)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Settings from nested plain values. Raises ConfigError for unknown keys, wrong types, values out of range."""
        names = {spoken(f.name): f.name for f in fields(cls)}
        for key in given:
            if key not in names:
                raise unknown("key", f"{cls.where}.{key}" if cls.where else str(key), names)
        return cls(**{names[key]: value for key, value in given.items()})


def spoken(name: str) -> str:
    """A field's name as a key: `from` is a word of Python, so the field is `from_`."""
    return name.removesuffix("_")


def allowed(bounds: Mapping[str, float]) -> str:
    """A range in words: `>= 0 and < 10000`."""
    return " and ".join(f"{SIGNS[word]} {limit:g}" for word, limit in bounds.items())


def unknown(what: str, given: str, known: Iterable[str]) -> ConfigError:
    """The error for a name that is not among the known: the nearest one, and all of them."""
    prefix, _, last = given.rpartition(".")
    choices = list(known)
    near = difflib.get_close_matches(last if prefix else given, choices, 1)
    hint = f" Did you mean {prefix + '.' if prefix else ''}{near[0]}?" if near else ""
    return ConfigError(f"Unknown {what} {given!r}.{hint} There are {', '.join(choices) or 'none'}.")


def hints(cls: type) -> dict[str, Any]:
    """The types of a dataclass's fields."""
    if cls not in _hints:
        _hints[cls] = {spoken(name): hint for name, hint in get_type_hints(cls).items()}
    return _hints[cls]


def coerce(hint: Any, value: Any, key: str) -> Any:
    """`value` in the type `hint`, without guessing: an integer is a number, a list is a tuple, no more."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, Union):
        if value is None and type(None) in inner:
            return None
        return coerce(next(t for t in inner if t is not type(None)), value, key)
    if isinstance(hint, type) and issubclass(hint, Settings):
        if isinstance(value, Mapping):
            return hint.of(value)
        if value is None:
            return hint()
        if isinstance(value, hint):
            return value
        known = ", ".join(f.name for f in fields(hint))
        raise ConfigError(f"{key} must be a group of settings ({known}), got {value!r}.")
    if origin is Literal:
        if value not in inner:
            raise unknown(f"value of {key}", str(value), map(str, inner))
        return value
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, Iterable):
            value = [value]
        return tuple(coerce(inner[0], item, key) for item in value)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{key} must be a mapping such as {{name: value}}, got {value!r}.")
        return {str(k): coerce(inner[1], v, f"{key}.{k}") for k, v in value.items()}
    return value if hint is Any else _scalar(hint, value, key)


def _scalar(hint: Any, value: Any, key: str) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is float and number and not math.isnan(value):
        return float(value)
    if hint is int and number and float(value).is_integer():
        return int(value)
    if hint is bool and isinstance(value, bool):
        return value
    if hint is str and (isinstance(value, str) or number):
        return str(value)  # a name or a year may look like a number
    wanted = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}[hint]
    raise ConfigError(f"{key} must be {wanted}, got {value!r}.")


INF = math.inf


@dataclass(frozen=True)
class Risk(Settings):
    """Risk limits; each allows values up to and including itself, inf (`.inf` in YAML) switches it off."""

    where: ClassVar[str] = "risk"

    leverage: float = setting(1.0, "what positions may be worth, as a multiple of equity", gt=0)
    short: bool = setting(True, "whether positions may be short")
    order_qty: float = setting(INF, "units in one order", gt=0)
    order_value: float = setting(INF, "account currency in one order", gt=0)
    position: float = setting(INF, "units held of one instrument", gt=0)
    gross: float = setting(INF, "account currency in all positions, longs plus shorts", gt=0)
    net: float = setting(INF, "account currency in all positions, longs less shorts", gt=0)
    open_orders: int = setting(1024, "orders at the venue at once", gt=0)
    daily_loss: float = setting(INF, "account currency lost since the day began", ge=0)
    drawdown: float = setting(INF, "fraction lost since the highest equity", ge=0)
    rate: float = setting(INF, "orders per second of event time", ge=0)
    burst: float = setting(1.0, "orders at once within the rate", gt=0)
    collar: float = setting(INF, "fraction that a limit may lie away from the last price", ge=0)
    stale_s: float = setting(INF, "seconds since the last price", ge=0)
    self_match: bool = setting(True, "refuse orders that would meet our own")
    netting: bool = setting(False, "cross opposing signals of several strategies internally")
    allow: tuple[str, ...] = setting((), "instruments that may be traded (none named: all)")
    block: tuple[str, ...] = setting((), "instruments that may not be traded")
    breach: dict[str, str] = setting({}, "reason -> what its breach does: refuse, cancel, flatten or halt")

    def __post_init__(self) -> None:
        super().__post_init__()
        for reason, what in self.breach.items():
            if reason not in _reasons():
                raise unknown("reason in risk.breach", reason, _reasons())
            if what not in BREACHES:
                raise unknown(f"action in risk.breach.{reason}", what, BREACHES)

    def limits(self) -> dict[str, float]:
        """The limits as the kernel's record has them."""
        apart = ("allow", "block", "breach", "stale_s")
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in apart}
        stale = LARGE if self.stale_s == INF else int(self.stale_s * 1e9)
        return {**values, "stale_ns": stale}

    def breaches(self) -> dict[int, int]:
        """Reason code -> action code."""
        return {_reasons()[reason]: BREACHES[what] for reason, what in self.breach.items()}


@dataclass(frozen=True)
class VenueModel(Settings):
    """The simulated venue. Fees replace those of the instruments where they are given."""

    where: ClassVar[str] = "venue"

    slippage_bps: float = setting(0.0, "basis points lost on market and stop fills", ge=0, lt=10_000)
    participation: float = setting(0.0, "our largest share of a bar's volume (0: no cap)", ge=0, le=1)
    touch: bool = setting(False, "limits fill when touched, not only when crossed")
    taker_bps: float | None = setting(None, "fee of market and stop fills, basis points", gt=-10_000, lt=10_000)
    maker_bps: float | None = setting(None, "fee of limit fills, basis points", gt=-10_000, lt=10_000)
    fee_per_unit: float | None = setting(None, "fee in account currency for one unit", ge=0)
    fee_min: float | None = setting(None, "smallest fee of a fill, account currency", ge=0)
    order_ms: float = setting(0.0, "latency of orders to the venue, milliseconds (quotes and trades)", ge=0, lt=1e6)
    report_ms: float = setting(0.0, "latency of execution reports, milliseconds (quotes and trades)", ge=0, lt=1e6)
    feed_ms: float = setting(0.0, "latency of market data beyond the tape's own, milliseconds", ge=0, lt=1e6)
    latency: str | None = setting(None, "a table of measured latencies (time, order_ns, report_ns, feed_ns) instead")
    jitter: float = setting(0.0, "lognormal spread of order and report latencies, sigma (0: none)", ge=0, le=5)
    seed: int = setting(0, "of that spread", ge=0)
    queue: Literal["back", "front", "power"] = setting(
        "back", "where cancels in a queue are taken from, as seen from us"
    )
    queue_power: float = setting(1.0, "exponent of queue=power; 1 is proportional", gt=0, le=10)

    def __post_init__(self) -> None:
        super().__post_init__()
        own = [name for name in ("order_ms", "report_ms", "feed_ms") if getattr(self, name)]
        if self.latency is not None and own:
            raise ConfigError(f"venue.latency is a table in place of venue.{own[0]}; give one or the other.")

    def fees(self) -> dict[str, float]:
        """Fee fields that replace the instruments' own."""
        names = ("taker_bps", "maker_bps", "fee_per_unit", "fee_min")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclass(frozen=True)
class Data(Settings):
    """Where bars come from; the times of files need a label and a time zone, those of datasets are settled."""

    where: ClassVar[str] = "data"

    source: str = setting("equities", "name of a dataset, or path of a dataset, .parquet or .csv file")
    label: Literal["start", "end"] | None = setting(None, "whether a file's times start or end their bars")
    timezone: str | None = setting(None, "of a file's times that carry none")
    tick: float | None = setting(None, "price step, instead of the metadata's", gt=0)
    lot: float | None = setting(None, "quantity step, instead of the metadata's", gt=0)

    def options(self) -> dict[str, Any]:
        """What is given beside the source."""
        return {k: v for k, v in asdict(self).items() if k != "source" and v is not None}


@dataclass(frozen=True)
class Tracking(Settings):
    """Where runs are tracked."""

    where: ClassVar[str] = "tracking"

    experiment: str = setting("tandem", "the experiment a run belongs to")
    uri: str | None = setting(None, "MLflow tracking URI (default: mlflow.db in the working directory)")


def _reasons() -> dict[str, int]:
    return {word: code for code, word in codes.NAMES["reason"].items() if code not in (codes.OK, codes.NETTED)}


def config_hash(settings: Mapping[str, Any]) -> str:
    """Hash of a resolved configuration: equal settings, equal hash."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


def yaml_of(settings: Mapping[str, Any]) -> str:
    """Settings as YAML."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(dict(settings))


def keys(cls: type[Settings], prefix: str = "") -> dict[str, "dataclasses.Field[Any]"]:
    """Every key of the settings with its field, nested ones dotted."""
    found: dict[str, dataclasses.Field[Any]] = {}
    for f in fields(cls):
        name = spoken(f.name)
        hint = hints(cls)[name]
        if isinstance(hint, type) and issubclass(hint, Settings):
            found.update(keys(hint, f"{prefix}{name}."))
        else:
            found[prefix + name] = f
    return found


def folders() -> list[Path]:
    """Where configuration files are looked for: `conf` of the working directory, then the package's."""
    own = Path.cwd() / "conf"
    return [own, CONF] if own.is_dir() and own.resolve() != CONF else [CONF]


def options(group: str) -> list[str]:
    """The files of a group, those of the user's own `conf` included."""
    return sorted({path.stem for folder in folders() for path in (folder / group).glob("*.yaml")})


def preset(group: str, name: str) -> dict[str, Any]:
    """What a file of a group says, the user's own before ours; empty when there is none."""
    path = next((p for folder in folders() if (p := folder / group / f"{name}.yaml").is_file()), None)
    if path is None:
        return {}
    from omegaconf import OmegaConf

    found: Any = OmegaConf.to_container(OmegaConf.load(path))
    return found if isinstance(found, dict) else {}

"""What a kernel is built of: strategies, instruments, money, limits, sizes.

Law 1: a plan is complete: the same plan gives the same kernel, in whatever seat.
Law 2: all of it stands in the header of a journal, so that the journal alone can build the kernel again; the images are
       named by their digests, and nothing else may take their place unnoticed.
"""

import hashlib
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Self

import numpy as np

from engine.config import Risk
from engine.errors import ConfigError, ImageError
from engine.kernel import build, image
from engine.kernel.machine import Machine, Placed, Sizes, python_handlers
from engine.kernel.records import Instrument
from engine.kernel.strategy import Strategy
from engine.store.instruments import InstrumentInfo

Find = Callable[[str], type[Strategy]]  # the class of a strategy, by the name that the plan has for it
UNCOMPILED = "uncompiled"
SHARED = ("tick", "lot", "multiplier", "maker_bps", "taker_bps", "fee_per_unit", "fee_min", "margin", "shortable",
          "bar_ns")  # fmt: skip


def instrument_rows(infos: Sequence[InstrumentInfo], risk: Risk, fees: Mapping[str, float]) -> "np.ndarray[Any, Any]":
    """Instruments as the kernel's records, with the lists of the risk settings and `fees` instead of their own."""
    names = [info.name for info in infos]
    for what, listed in (("allow", risk.allow), ("block", risk.block)):
        unknown = sorted(set(listed) - set(names))
        if unknown:
            raise ConfigError(f"risk.{what} names {', '.join(unknown)}, which the data do not have; "
                              f"there are {', '.join(names[:20])}.")  # fmt: skip
    currencies = {info.currency for info in infos}
    if len(currencies) > 1:
        raise ConfigError(f"One account has one currency, the data have {', '.join(sorted(currencies))}; "
                          "choose instruments of one.")  # fmt: skip
    rows = np.zeros(len(names), Instrument.dtype)
    for row, info in zip(rows, infos, strict=True):
        for key in SHARED:
            row[key] = getattr(info, key)
        for key, value in fees.items():
            row[key] = value
        row["allowed"] = not risk.allow or info.name in risk.allow
        row["blocked"] = info.name in risk.block
    return rows


def sizes_for(instruments: int, strategies: int) -> Sizes:
    """Tables that hold four orders for each strategy and instrument, and never few."""
    room = 1 << max(10, (4 * instruments * strategies - 1).bit_length())
    orders = min(room, 1 << 16)
    return Sizes(orders=orders, signals=room, outbox=2 * orders, refusals=min(4 * room, 1 << 18))


@dataclass(frozen=True)
class Plan:
    """What a kernel is built of. `names`: how each strategy's class is found; `images`: of their handlers."""

    strategies: tuple[Strategy, ...]
    names: tuple[str, ...]
    infos: tuple[InstrumentInfo, ...]
    rows: "np.ndarray[Any, Any]"
    cash: float
    limits: Mapping[str, float]
    breach: Mapping[int, int]
    sizes: Sizes
    session: int = 1
    compiled: bool = True
    images: tuple[str, ...] = ()  # digests that were asked for; empty: those of the sources as they are
    depth: tuple[int, ...] = ()  # instruments that have a book

    def machine(self) -> Machine:
        """A fresh kernel. Raises ImageError for an image that is asked for and not to be had."""
        everything = tuple(range(len(self.rows)))
        placed = [Placed(s, everything, found) for s, (found, _) in zip(self.strategies, self._handlers(), strict=True)]
        return Machine(placed, self.rows, cash=self.cash, limits=dict(self.limits), breach=dict(self.breach),
                       session=self.session, sizes=self.sizes, depth=self.depth)  # fmt: skip

    def header(self, program: tuple[str, Any], **more: Any) -> dict[str, Any]:
        """The header of a journal; `program`: name and entries of the driver's, `more`: what else is to be kept."""
        strategies = [
            {"name": name, "class": type(s).__qualname__, "params": s.values, "layout": layout_of(type(s)),
             "image": own} for s, name, (_, own) in zip(self.strategies, self.names, self._handlers(), strict=True)
        ]  # fmt: skip
        rows = [dict(zip(self.rows.dtype.names or (), row.item(), strict=True)) for row in self.rows]
        versions = {"tandem": version("tandem"), "python": platform.python_version(), "numpy": np.__version__}
        return {
            "strategies": strategies, "instruments": [info.asdict() for info in self.infos], "rows": rows,
            "cash": self.cash, "limits": dict(self.limits), "breach": {str(k): v for k, v in self.breach.items()},
            "sizes": asdict(self.sizes), "session": self.session, "depth": list(self.depth), "versions": versions,
            "kernel": build.program_digest(*program) if self.compiled else UNCOMPILED,
            "platform": image.platform_words()[:6], **more,
        }  # fmt: skip

    def _handlers(self) -> list[tuple[dict[str, int], str]]:
        wanted = self.images or ("",) * len(self.strategies)
        return [handlers_of(type(s), self.compiled, one) for s, one in zip(self.strategies, wanted, strict=True)]

    @classmethod
    def of(cls, header: Mapping[str, Any], find: Find, *, exact: bool = True) -> Self:
        """From the header of a journal. `exact`: with the images that are named there, else with present sources.

        Raises what `find` raises, StrategyError for parameters or a state that the class no longer has.
        """
        made = [find(one["name"])(**one["params"]) for one in header["strategies"]]
        for strategy, one in zip(made, header["strategies"], strict=True):
            if layout_of(type(strategy)) != one["layout"]:
                raise ConfigError(f"{one['name']}: the fields of {one['class']} are not those that ran then; the "
                                  "journal needs the class as it was.")  # fmt: skip
        names = Instrument.dtype.names or ()
        rows = np.array([tuple(row[name] for name in names) for row in header["rows"]], Instrument.dtype)
        compiled = header["kernel"] != UNCOMPILED
        images = tuple(one["image"] for one in header["strategies"]) if exact and compiled else ()
        return cls(tuple(made), tuple(one["name"] for one in header["strategies"]),
                   tuple(InstrumentInfo.fill(info) for info in header["instruments"]), rows, header["cash"],
                   header["limits"], {int(k): v for k, v in header["breach"].items()}, Sizes(**header["sizes"]),
                   header["session"], compiled, images, tuple(header["depth"]))  # fmt: skip


def layout_of(strategy: type[Strategy]) -> str:
    """Digest of the layout of a strategy's parameters and state."""
    words = f"{sorted((strategy.dtype.fields or {}).items())!r} {list(strategy.params)} {strategy.universe}"
    return hashlib.sha256(words.encode()).hexdigest()[:16]


def handlers_of(strategy: type[Strategy], compiled: bool = True, digest: str = "") -> tuple[dict[str, int], str]:
    """Where the handlers of a strategy are, and the digest of their image; with `digest`, those of that image.

    Raises ImageError when the sources give another one now, and that one is not in the store.
    """
    if not compiled and not strategy.library:
        return python_handlers(strategy), UNCOMPILED
    kept = image.load(digest) if digest and not strategy.library else None
    if kept is not None:
        return kept.addresses, kept.digest
    own = "" if strategy.library else build.handlers_digest(strategy)
    if not digest or own in ("", digest):
        found = build.handlers(strategy)
        own = found.digest
        if own == digest or not digest:
            return found.addresses, own
    raise ImageError(f"{strategy.__qualname__} is not what it was: its image is {own} now, {digest} is asked for and "
                     "not in the store. Take its sources of that time, or images=present to try with what there "
                     "is.")  # fmt: skip

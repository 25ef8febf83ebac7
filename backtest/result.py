"""What a backtest gives back: the raw records, and everything that people derive from them, when asked.

Law 1: building a result costs nothing; frames, figures and plots are made when they are first asked for.
Law 2: what is saved is complete or absent: files are written aside and renamed at the end.
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest import frames
from backtest.drive import has_ticks
from backtest.figures import LABELS, flat, label_of, note, remarks, strategies_of, table
from backtest.history import History, buy_and_hold, scan, scan_ticks
from backtest.metrics import Floats, Ints, Periods, curve_metrics, period_ends, periodic
from backtest.quality import Executions, Profit, executions, profit, quality_metrics
from backtest.record import promotable
from backtest.trades import Fills, Trades, round_trips, trade_metrics, whole_lots
from backtest.writing import jsonable, written
from engine import tracking_names as names
from engine.bundle import RECORDED
from engine.config import config_hash
from engine.errors import DataError
from engine.kernel import codes

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import polars as pl

    from backtest.honesty.verdict import Verdict
    from engine.tracking import Helper, TrackedRun

GRID = 2_000  # times at which the report compares with buy and hold
FRAMES = ("orders", "fills", "trades", "positions", "equity", "refusals")


class Result:
    """Outcome of one backtest.

    `orders`, `reports`, `refusals`, `curve` are the raw arrays (records.Order, Event, Refusal, Curve), kept under
    `raw`; `strategies` are names by index, `start_equity` is in account currency, `seconds` the time the run took,
    `refused` how often risk refused, of which `refusals` keeps what had room.
    """

    def __init__(self, orders: Any, reports: Any, refusals: Any, curve: Any, tape: Any, strategies: list[str],
                 start_equity: float, config: Mapping[str, Any] | None = None,
                 identity: Mapping[str, Any] | None = None, seconds: float = math.nan,
                 title: str = "", refused: int | None = None,
                 record: "Callable[[Result, Path], str] | None" = None) -> None:  # fmt: skip
        self.kind = names.BACKTEST  # names.LANE: the ledger has it already, with the sweep that it comes from
        self.record = record  # writes what a promotion needs to run this again
        self.raw: dict[str, Any] = {"orders": orders, "reports": reports, "refusals": refusals, "curve": curve}
        self.tape, self.strategies, self.start_equity = tape, list(strategies), float(start_equity)
        self.config, self.identity, self.seconds = dict(config or {}), dict(identity or {}), seconds
        self.tested: tuple[dict[str, float], str] = {}, ""  # figures and lead of the sweep that chose it
        self.verdict: Verdict | None = None  # of `backtest.honesty.verdict.judge`
        self.title = title  # a short name: of the parameters only what is not the default
        netted = refusals["reason"] == codes.NETTED
        self.netted, self.refused_rows = refusals[netted], refusals[~netted]
        self.refused = len(self.refused_rows) if refused is None else refused  # those beyond the table's room too
        self.instruments: list[str] = [i.name for i in tape.instruments]
        self.tick: Floats = np.array([i.tick for i in tape.instruments], "f8")
        self.lot: Floats = np.array([i.lot for i in tape.instruments], "f8")
        self.multiplier: Floats = np.array([i.multiplier for i in tape.instruments], "f8")

    # What the figures are made of: plain columns.

    @cached_property
    def curve(self) -> tuple[Ints, Floats, Floats]:
        """Contiguous `ts`, `equity` and `gross` of the curve."""
        curve = self.raw["curve"]
        ts, equity, gross = (np.ascontiguousarray(curve[name]) for name in ("ts", "equity", "gross"))
        return ts, equity, gross

    @cached_property
    def fill_columns(self) -> Fills:
        """Fills as columns, internal crosses under order -1. Raises DataError for a fill without an order."""
        reports, orders = self.raw["reports"], self.raw["orders"]
        rows = reports[reports["code"] == codes.FILL]
        order = np.argsort(orders["id"], kind="stable")
        ids = orders["id"][order]
        at = np.minimum(np.searchsorted(ids, rows["order_id"]), max(len(ids) - 1, 0))
        lost = np.flatnonzero(ids[at] != rows["order_id"]) if len(ids) else np.arange(len(rows))
        if len(lost):
            raise DataError(f"result: {len(lost)} fills belong to no order, the first to order "
                            f"{rows['order_id'][lost[0]]}; pass the orders of the whole run.")  # fmt: skip
        columns: Any = (
            rows["ts"], rows["instrument"].astype("i8"), orders["strategy"][order[at]].astype("i8"), rows["qty"],
            rows["price"], rows["fee"], rows["order_id"], orders["ts"][order[at]],
        )  # fmt: skip
        if len(self.netted):
            columns = self._with_crosses(columns)
        return Fills(*(np.ascontiguousarray(column) for column in columns))

    def _with_crosses(self, columns: Any) -> Any:
        """Each cross after as many fills of the venue as the kernel had heard of."""
        rows, n = self.netted, len(columns[0])
        before = rows["ts"] - 1  # "sent": what bars at the close of a split crossed was crossed before it
        more = (rows["ts"], rows["instrument"], rows["strategy"], rows["qty"], rows["price"], np.zeros(len(rows)),
                np.full(len(rows), -1), before)  # fmt: skip
        order = np.argsort(np.concatenate((2 * np.arange(n) + 1, 2 * rows["value"].astype("i8"))), kind="stable")
        return [np.concatenate((old, new.astype(old.dtype)))[order] for old, new in zip(columns, more, strict=True)]

    @cached_property
    def ticks(self) -> bool:
        """Whether the run was on quotes and trades, which have figures and charts of their own."""
        return has_ticks(self.tape.events)

    @property
    def feed_ns(self) -> int:
        """What the run's latency model added to the arrival of market events."""
        return round(float(self.config.get("venue", {}).get("feed_ms", 0.0)) * 1e6)

    @cached_property
    def executions(self) -> Executions:
        """What each fill of a run on quotes and trades met and won."""
        return executions(self)

    @cached_property
    def profit(self) -> Profit:
        """The profit of a run on quotes and trades by its causes: spread, inventory, funding, fees."""
        return profit(self)

    @cached_property
    def periods(self) -> Periods:
        """Periodic returns: daily when the curve is intraday, else one for each row."""
        return periodic(self.curve[0], self.curve[1], self.start_equity)

    @cached_property
    def history(self) -> History:
        """Closes at the ends of the periods and on a finer grid for charts, first and last closes, splits."""
        ts = self.curve[0]
        ends = period_ends(ts)[0]
        fine = np.linspace(0, len(ts) - 1, GRID).astype("i8") if len(ts) and len(self.lot) <= 50 else ends
        grid = np.unique(ts[np.concatenate((ends, fine))])
        if self.ticks:
            return scan_ticks(self.tape.events, self.tick, grid, self.feed_ns, int(ts[-1]) if len(ts) else 0)
        return scan(self.tape.events, len(self.lot), grid)

    @cached_property
    def hold(self) -> Floats:
        """Worth of one unit of money in equal parts of all instruments, at each time of `history.grid`."""
        events = self.tape.events
        return buy_and_hold(self.history, int(events["ts"][0]) if len(events) else 0)

    @cached_property
    def trips(self) -> Trades:
        """Round trips as columns."""
        last = int(self.curve[0][-1]) if len(self.curve[0]) else 0
        history = self.history
        return round_trips(self.fill_columns, self.lot, self.multiplier, history.last, last, history.actions)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """All figures by name: rates as fractions, money in account currency, NaN where not defined."""
        ts, equity, gross = self.curve
        fills, history = self.fill_columns, self.history
        ends, _, resampled = period_ends(ts)
        held = self.hold[np.searchsorted(history.grid, ts[ends])]
        held = np.concatenate(([1.0], held)) if resampled else held
        unit = self.lot * self.multiplier
        traded = float(np.abs(fills.lots * fills.price * unit[fills.instrument]).sum())
        found = curve_metrics(ts, equity, gross, self.start_equity, traded, held)
        found |= trade_metrics(self.trips, float(fills.fee.sum()))
        found |= {"fills": float(len(fills.ts)), "orders": float(len(self.raw["orders"]))}
        found |= {"refusals": float(self.refused)}
        found |= quality_metrics(self) if self.ticks else {}
        return {key: found[key] for key in LABELS if key in found}  # in the order in which people read them

    # Frames.

    @cached_property
    def orders(self) -> "pl.DataFrame":
        """What was sent to the venue, and what became of it."""
        return frames.orders(self.raw["orders"], self.raw["reports"], self.instruments, self.strategies, self.lot)

    @cached_property
    def fills(self) -> "pl.DataFrame":
        """Executions of our orders, in units; without an order id: crossed with another strategy (risk.netting)."""
        done = self.executions if self.ticks else None
        return frames.fills(self.fill_columns, self.instruments, self.strategies, self.lot, done)

    @cached_property
    def trades(self) -> "pl.DataFrame":
        """Round trips, first in first out; what is open at the end is marked at the last close."""
        return frames.trades(self.trips, self.instruments, self.strategies, self.curve[0])

    @cached_property
    def positions(self) -> "pl.DataFrame":
        """Position of the account over time, in units, for each instrument."""
        fills = whole_lots(self.fill_columns, self.history.actions)
        return frames.positions(fills, self.history, self.instruments, self.lot)

    @cached_property
    def equity(self) -> "pl.DataFrame":
        """Equity, cash, gross exposure and drawdown over time."""
        return frames.equity(self.raw["curve"], self.start_equity)

    @cached_property
    def refusals(self) -> "pl.DataFrame":
        """What risk refused, and why."""
        return frames.refusals(self.refused_rows, self.instruments, self.strategies, self.lot)

    # For people.

    @property
    def label(self) -> str:
        """The strategies with their parameters, for example `momentum fast=10 slow=50`."""
        return label_of(self.config, self.strategies)

    @property
    def params(self) -> dict[str, Any]:
        """Every setting under a flat dotted name; the parameters of a single strategy under their own names."""
        known = strategies_of(self.config, self.strategies)
        own = dict(known[0][1]) if len(known) == 1 else {f"{n}.{k}": v for n, p in known for k, v in p.items()}
        rest = flat({k: v for k, v in self.config.items() if k not in ("strategy", "strategies", "params")})
        return {"strategy": ", ".join(self.strategies), **own, **rest}

    def span(self) -> tuple[str, str]:
        """First and last time of the curve, as text (UTC, seconds; only the day when all times are midnights)."""
        ts = self.curve[0]
        if len(ts) == 0:
            return "–", "–"
        first, last = np.array([ts[0], ts[-1]], "datetime64[ns]").astype("datetime64[s]")
        long = ts[-1] - ts[0] > 60 * 86_400_000_000_000
        cut = slice(0, 10) if long else slice(0, 19)
        return str(first)[cut].replace("T", " "), str(last)[cut].replace("T", " ")

    def summary(self) -> str:
        """A compact table of the main figures, for a terminal."""
        first, last = self.span()
        names = self.instruments
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        money = f", money in {self.tape.instruments[0].currency}" if self.tape.instruments else ""  # one in all: plan
        head = f"{self.label} on {self.tape.name} ({shown})\n{first} to {last}{money}"
        return "\n".join([f"{head}\n\n{table(self.metrics)}", *remarks(self)])

    __repr__ = summary

    def _repr_html_(self) -> str:
        from backtest.report.tables import summary_html

        return summary_html(self)

    def plot(self) -> "go.Figure":
        """Equity against buy and hold, drawdown, and price with fills, as one plotly figure for a notebook."""
        from backtest.report import notebook_figure

        return notebook_figure(self)

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write the report as one HTML file that needs no network; return its path."""
        from backtest.report import page

        with written(Path(path)) as part:
            part.write_text(page(self), encoding="utf-8")
        return Path(path)

    def image(self, path: str | os.PathLike[str]) -> Path:
        """Write equity, drawdown and price with fills as a PNG; return its path."""
        from backtest.report.image import draw

        with written(Path(path)) as part:
            draw(self, part)
        return Path(path)

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write all frames as Parquet, metrics.json and config.json into a directory, all or nothing.

        An older result in that place is replaced. Raises DataError when it cannot be written.
        """
        with written(Path(directory)) as part:
            part.mkdir()
            for name in FRAMES:
                getattr(self, name).write_parquet(part / f"{name}.parquet")
            first, last = self.span()
            about = {
                "label": self.label, "strategies": self.strategies, "config": self.config, "identity": self.identity,
                "data": {"name": self.tape.name, "digest": self.tape.digest, "instruments": self.instruments,
                         "first": first, "last": last},
                "seconds": self.seconds,
            }  # fmt: skip
            for name, content in (("metrics.json", self.metrics), ("config.json", about)):
                text = json.dumps(jsonable(content), indent=2, default=str, allow_nan=False)
                (part / name).write_text(text + "\n", encoding="utf-8")
            if self.record:
                self.record(self, part / RECORDED)
        return Path(directory)

    @cached_property
    def tags(self) -> dict[str, str]:
        """By which the ledger knows this run: what it ran, and on which data."""
        from engine import ledger

        ran = {key: value for key, value in self.config.items() if key != "name"}  # a label makes no other trial
        content = config_hash({"config": ran, "code": _text(self.identity.get("strategies", ""))})
        return ledger.tags(self.kind, self.tape, content, self.strategies)

    def track(self, *, experiment: str = "tandem", name: str | None = None, tracking_uri: str | None = None,
              artifacts_dir: str | os.PathLike[str] | None = None,
              tags: Mapping[str, str] | None = None, helper: "Helper | None" = None) -> "TrackedRun":  # fmt: skip
        """Log this result as a run of the experiment tracker; `artifacts_dir` is a directory that `save` wrote.

        `helper`: an `engine.tracking.Helper` started earlier. Raises TrackingError; what is on disk stays.
        """
        from backtest.honesty.verdict import judge
        from engine import tracking

        self.verdict = self.verdict or judge(self, experiment, tracking_uri, helper)
        with promotable(self, artifacts_dir) as (artifacts, seals):
            told: dict[str, Any] = {"tracking_uri": tracking_uri, "artifacts_dir": artifacts, "helper": helper}
            return tracking.track(experiment=experiment, **told, **self.request({**seals, **(tags or {})}, name))

    def request(self, tags: Mapping[str, str] | None = None, name: str | None = None) -> dict[str, Any]:
        """What the tracker hears of this result, as arguments of `engine.tracking.track`: plain values for JSON."""
        from engine import tracking

        judged = self.verdict.figures if self.verdict else {}
        words = [note(self.metrics, self.label, self.tape.name, self.span())]
        return {
            "name": name or self.title or self.label, "params": self.params, "metrics": {**judged, **self.metrics},
            "curve": ((), ()), "points": tracking.curve_points(*self.curve[:2], self.start_equity),
            "start_equity": self.start_equity, "dataset": (self.tape.name, self.tape.digest),
            "note": "\n\n".join([*words, *([self.verdict.text] if self.verdict else [])]),
            "tags": {**self.tags, **{k: _text(v) for k, v in self.identity.items()}, **(tags or {})},
        }  # fmt: skip


def _text(value: Any) -> str:
    return ", ".join(str(v) for v in value) if isinstance(value, list | tuple) else str(value)

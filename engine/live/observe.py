"""What Prometheus sees of an engine, read when it asks; the engine counts for itself and knows nothing of this.

Law 1: a scrape changes nothing and allocates nothing that lasts: it copies small arrays between two cycles of the loop.
Law 2: every metric stands in TABLE, in Prometheus' base units; nothing else is exported but the metrics of the process
       and of Python's collector (process_*, python_gc_*).
"""

import gc
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from engine.kernel import codes
from engine.live import logs
from engine.live.stats import EDGES_NS

# name{labels}                    kind       meaning; the names have tandem_ before them
TABLE = """
info{version,session}             gauge      1; what runs
ready                             gauge      1 when feeds are fresh, books reconciled, the lease held, all connected
healthy                           gauge      1 while the loop turns and the kernel has not halted
halted                            gauge      why the kernel has halted, 0 while it runs (codes.NAMES["halt"])
killed                            gauge      1 while the kill switch is on
trading{level}                    gauge      1 for the level that holds: live, simulation or observation
cycles_total                      counter    drains of the feeds
events_total                      counter    events that the kernel has taken
orders_total                      counter    instructions that left the kernel
signals_total                     counter    wishes that risk let pass and that did not leave: trading is simulation
reports_total                     counter    execution reports taken
fills_total                       counter    fills
refusals_total{reason}            counter    wishes that risk refused
late_fills_total                  counter    fills of orders that the kernel had closed
unknown_reports_total             counter    reports of orders that the kernel does not know, or that say nothing new
retold_fills_total                counter    fills that the venue told again, under another exec id
open_orders                       gauge      orders at the venue or on the way there
order_latency_seconds             histogram  from the bytes of an event to the handing over of its orders
equity                            gauge      cash and positions at their marks, account currency
cash                              gauge      account currency
gross_exposure                    gauge      sum of |position values|, account currency
realised_pnl                      gauge      account currency, without fees
fees                              gauge      account currency
pnl_today                         gauge      change of equity since the trading day began, account currency
drawdown_ratio                    gauge      equity below its peak, as a fraction of the peak, 0 or negative
position_units{strategy,instrument}  gauge   units held, signed
position_pnl{strategy,instrument} gauge      realised and open profit less fees, account currency
strategy_fills_total{strategy}    counter    fills of a strategy
strategy_active{strategy}         gauge      1 while it gets events
strategy_fault{strategy}          gauge      why it was stopped, 0 while it was not (codes.NAMES["fault"])
feed_connected                    gauge      1 while Redis is connected
feed_lag_seconds                  gauge      from the time of the last market event to its receipt
feed_waiting_messages             gauge      messages that have come and have no room yet
feed_messages_total               counter    messages of market data
feed_events_total                 counter    events in them
feed_gaps_total                   counter    gaps in the sequence of a source
feed_missed_events_total          counter    events missing in these gaps
feed_restarts_total               counter    publishers that began anew
feed_silences_total               counter    sources that fell silent
feed_repeated_events_total        counter    events that came twice and entered once
feed_set_aside_total              counter    events that did not pass the gate
set_aside_total{kind}             counter    what came in and could not be used: messages, events, reports
feed_pauses_total                 counter    times that we read slower than the feed came
feed_disconnects_total            counter    connections to Redis that were lost
feed_reconnects_total             counter    connections to Redis that came back
reports_behind                    gauge      1 when the venue has forgotten reports that we have
report_holes_total                counter    holes in the exec ids that the venue was asked about
venue_connected                   gauge      1 while the execution service is connected
venue_fenced                      gauge      1 when another engine has taken over
venue_in_doubt_orders             gauge      instructions that left and were not answered
venue_waiting_orders              gauge      instructions that have not left yet
venue_orders_total                counter    instructions sent
venue_resent_total                counter    sent again after they were in doubt
venue_unsent_total                counter    that did not leave and were told as rejected
venue_late_acks_total             counter    acks that did not come within the deadline
venue_connections_total           counter    connections that were made
venue_errors_total{code}          counter    calls that ended in an error, by gRPC status
bus_connected                     gauge      1 while NATS is connected
bus_disconnects_total             counter    connections to NATS that were lost
bus_reconnects_total              counter    connections to NATS that came back
bus_errors_total                  counter    errors of NATS
bus_unsaid_total                  counter    signals and status that gave way to newer ones
lease_valid                       gauge      1 while the lease is held for sure
lease_token                       gauge      the fencing token
journal_events_total              counter    events in the journal, those before a restart too
journal_orders_total              counter    orders in the journal, those before a restart too
journal_sync_seconds              gauge      the last force to the disk
gc_pause_seconds_total            counter    spent in Python's garbage collector
gc_pauses_total                   counter    collections
gc_longest_pause_seconds          gauge      the longest of them
heap_blocks                       gauge      memory blocks of Python's own objects
log_records_dropped_total         counter    lines of the log that had no room
"""
LEVELS = {codes.LIVE: "live", codes.SIMULATION: "simulation", codes.OBSERVATION: "observation"}
KINDS = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
COUNTS: Mapping[str, Mapping[str, str]] = {  # part of the engine -> our name -> its name in `counts`
    "feed": {
        "feed_messages_total": "messages", "feed_events_total": "events", "feed_gaps_total": "gaps",
        "feed_missed_events_total": "missed", "feed_restarts_total": "restarts", "feed_silences_total": "silences",
        "feed_repeated_events_total": "repeated", "feed_set_aside_total": "set_aside", "feed_pauses_total": "slow",
        "feed_disconnects_total": "disconnects", "feed_reconnects_total": "reconnects",
    },
    "reports": {"report_holes_total": "holes"},
    "venue": {
        "venue_orders_total": "orders", "venue_resent_total": "resent", "venue_unsent_total": "unsent",
        "venue_late_acks_total": "late_acks", "venue_connections_total": "connections",
    },
    "bus": {
        "bus_disconnects_total": "disconnects", "bus_reconnects_total": "reconnects", "bus_errors_total": "errors",
        "bus_unsaid_total": "unsaid",
    },
}  # fmt: skip
Sample = tuple[str, tuple[str, ...], float]


class Watched(Protocol):
    """The parts of an engine that are looked at; see engine/live/engine.py."""

    names: Any
    plan: Any
    session: Any
    feed: Any
    reports: Any
    venue: Any
    lease: Any
    bus: Any
    stats: Any
    quarantine: Any

    def readiness(self) -> list[str]:
        """Why it is not ready; empty when it is."""

    def healthy(self) -> bool:
        """Whether its loop turns and its kernel has not halted."""


class Pauses:
    """How long Python's garbage collector holds everything up; lives in `gc.callbacks`. Seconds."""

    def __init__(self) -> None:
        self.count, self.total, self.longest, self._began = 0, 0.0, 0.0, 0.0

    def __call__(self, phase: str, about: dict[str, int]) -> None:
        now = time.perf_counter()
        if phase == "start":
            self._began = now
        elif self._began:
            self.count += 1
            self.total += now - self._began
            self.longest = max(self.longest, now - self._began)


class Observer:
    """Metrics of one engine as Prometheus' text; `start` begins to measure the collector's pauses."""

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self, engine: Watched) -> None:
        self.engine, self.pauses, self._registry = engine, Pauses(), CollectorRegistry()
        self._rows = [(name, labels, kind, about) for name, labels, kind, about in table()]
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def start(self) -> None:
        """Measure pauses from now on."""
        gc.callbacks.append(self.pauses)

    def stop(self) -> None:
        """Measure them no more."""
        if self.pauses in gc.callbacks:
            gc.callbacks.remove(self.pauses)

    def text(self) -> bytes:
        """All metrics as they are now."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Nothing ahead: a registry asks so that it need not collect."""
        return []

    def collect(self) -> Iterator[Metric]:
        """What Prometheus' registry asks for."""
        found: dict[str, list[tuple[tuple[str, ...], float]]] = {name: [] for name, _, _, _ in self._rows}
        for part in (self._engine(), self._account(), self._positions(), self._wires(), self._python()):
            for name, labels, value in part:
                found[name].append((labels, value))
        for name, label_names, kind, about in self._rows:
            if kind == "histogram":
                yield latency(f"tandem_{name}", about, self.engine.stats.latency)
                continue
            family = KINDS[kind](f"tandem_{name}", about, labels=label_names)
            for labels, value in found[name]:
                family.add_metric(labels, value)
            yield family

    def _engine(self) -> Iterator[Sample]:
        engine, stats, k = self.engine, self.engine.stats, self.engine.session.machine.kernel
        yield "info", (version("tandem"), str(k.session)), 1.0
        yield "ready", (), float(not engine.readiness())
        yield "healthy", (), float(engine.healthy())
        yield "halted", (), float(k.halt)
        yield "killed", (), float(k.killed)
        for code, word in LEVELS.items():
            yield "trading", (word,), float(k.trading == code)
        for what in ("cycles", "events", "orders", "reports", "fills", "signals"):
            yield f"{what}_total", (), float(getattr(stats, what))
        for reason, count in enumerate(stats.refusals.tolist()):
            if reason in codes.NAMES["reason"] and reason != codes.OK:
                yield "refusals_total", (codes.NAMES["reason"][reason],), float(count)
        yield "retold_fills_total", (), float(stats.retold)
        yield "late_fills_total", (), float(k.late_fills)
        yield "unknown_reports_total", (), float(k.unknown_reports)
        yield "open_orders", (), float(k.opened)

    def _account(self) -> Iterator[Sample]:
        k = self.engine.session.machine.kernel
        equity = k.cash + k.value
        yield "equity", (), equity
        yield "cash", (), k.cash
        yield "gross_exposure", (), k.gross
        yield "realised_pnl", (), k.realised
        yield "fees", (), k.fees
        yield "pnl_today", (), equity - k.day_equity
        yield "drawdown_ratio", (), min(0.0, equity / k.peak - 1.0) if k.peak > 0 else 0.0

    def _positions(self) -> Iterator[Sample]:
        """By strategy and instrument, of those that were ever traded."""
        machine, names = self.engine.session.machine, self.engine.names.names
        held, rows = machine.table("positions_at").copy(), machine.table("instruments_at")
        marks, slots = machine.table("markets_at")["mark"].copy(), machine.table("slots_at").copy()
        strategies = labelled(list(self.engine.plan.names))
        for n in np.flatnonzero((held["fills"] > 0) | (held["qty"] != 0)).tolist():
            strategy, i = divmod(n, len(names))
            p, labels = held[n], (strategies[strategy], names[i])
            open_pnl = float(p["qty"]) * float(rows["unit"][i]) * (float(marks[i]) - float(p["average"]))
            yield "position_units", labels, float(p["qty"]) * float(rows["lot"][i])
            yield "position_pnl", labels, float(p["realised"]) - float(p["fees"]) + (open_pnl if p["qty"] else 0.0)
        fills = held["fills"].reshape(len(strategies), -1).sum(axis=1).tolist()
        for name, slot, count in zip(strategies, slots, fills, strict=True):
            yield "strategy_fills_total", (name,), float(count)
            yield "strategy_active", (name,), float(slot["active"] != 0)
            yield "strategy_fault", (name,), float(slot["fault"])

    def _wires(self) -> Iterator[Sample]:
        e = self.engine
        for part, known in COUNTS.items():
            counts = getattr(getattr(e, part), "counts", Counter())  # reports are None before it listens
            for name, key in known.items():
                yield name, (), float(counts[key])
        for key, count in e.venue.counts.items():
            if key.startswith("status_"):
                yield "venue_errors_total", (key.removeprefix("status_"),), float(count)
        for kind, count in e.quarantine.counts.items():
            yield "set_aside_total", (kind,), float(count)
        for name in ("feed", "venue", "bus"):
            yield f"{name}_connected", (), float(getattr(e, name).connected)
        yield "feed_lag_seconds", (), e.stats.lag_ns / 1e9
        yield "feed_waiting_messages", (), float(e.feed.waiting)
        yield "reports_behind", (), float(e.reports is not None and e.reports.behind)
        yield "venue_fenced", (), float(e.venue.fenced)
        yield "venue_in_doubt_orders", (), float(e.venue.in_doubt)
        yield "venue_waiting_orders", (), float(e.venue.waiting)
        yield "lease_valid", (), float(e.lease.valid)
        yield "lease_token", (), float(e.lease.token)
        if e.session.journal is not None:
            yield "journal_events_total", (), float(e.session.journal.place.events)
            yield "journal_orders_total", (), float(e.session.journal.place.orders)
            yield "journal_sync_seconds", (), e.session.journal.sync_ns / 1e9

    def _python(self) -> Iterator[Sample]:
        yield "gc_pause_seconds_total", (), self.pauses.total
        yield "gc_pauses_total", (), float(self.pauses.count)
        yield "gc_longest_pause_seconds", (), self.pauses.longest
        yield "heap_blocks", (), float(sys.getallocatedblocks())
        yield "log_records_dropped_total", (), float(logs.dropped())


def table() -> Iterator[tuple[str, tuple[str, ...], str, str]]:
    """The rows of TABLE: name, labels, kind, meaning."""
    for line in TABLE.strip().splitlines():
        what, kind, about = line.split(None, 2)
        name, _, labels = what.rstrip("}").partition("{")
        yield name, tuple(labels.split(",")) if labels else (), kind, about


def labelled(names: list[str]) -> list[str]:
    """Names as labels, which must differ: of several equal ones each gets its number."""
    return [name if names.count(name) == 1 else f"{name}#{n}" for n, name in enumerate(names)]


def latency(name: str, about: str, histogram: Any) -> HistogramMetricFamily:
    """A histogram of counts by bucket (upper edges in ns, the last bucket without one) in seconds."""
    counts = np.cumsum(histogram.counts).tolist()
    edges = [f"{edge / 1e9:g}" for edge in EDGES_NS.tolist()]
    buckets = list(zip(edges, map(float, counts), strict=False))
    return HistogramMetricFamily(name, about, [*buckets, ("+Inf", float(counts[-1]))], histogram.total_ns / 1e9)

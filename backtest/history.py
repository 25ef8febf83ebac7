"""What a tape says about prices: closes on a grid of times, corporate actions, buy and hold, lines to draw.

Law 1: the tape is read in chunks, so that a tape larger than memory costs no more memory than one chunk.
Law 2: prices that are compared across a split are told in units of the end of the tape.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backtest.look import KERNEL, look, questions
from backtest.metrics import NAN, Floats, Ints
from backtest.trades import NO_ACTIONS, Actions, adjusted_cash, split_factors
from engine.kernel import codes

CHUNK = 1 << 20  # events
Events = NDArray[Any]


class History(NamedTuple):
    """`first`, `last`: close of each instrument; `closes`: latest close, one row for each time of the grid."""

    grid: Ints
    first: Floats
    last: Floats
    closes: Floats
    actions: Actions


def scan(events: Events, instruments: int, grid: Ints) -> History:
    """One pass over a tape. `grid`: sorted times ns UTC; a close is NaN until the instrument's first bar."""
    closes = np.full((len(grid) + 1, instruments), NAN)  # the last row takes what comes after the grid
    first, last = np.full(instruments, NAN), np.full(instruments, NAN)
    found: list[Actions] = []
    for begin in range(0, len(events), CHUNK):
        chunk = events[begin : begin + CHUNK]
        kind = chunk["kind"]
        bars = kind == codes.BAR
        acts = np.flatnonzero((kind == codes.SPLIT) | (kind == codes.DIVIDEND))
        if len(acts):
            found.append(_actions(chunk, bars, acts, last))
        rows: Any = slice(None) if bars.all() else bars
        instrument, close = chunk["instrument"][rows], chunk["close"][rows]
        ends = np.searchsorted(chunk["ts"], grid, "right")  # rows of the chunk up to each time of the grid
        if instruments == 1 and bars.all():  # the usual long tape needs no scatter
            known = ends > 0
            closes[:-1][known, 0] = close[ends[known] - 1]
            first = np.where(np.isnan(first), close[:1], first)
            last[:] = close[-1]
            continue
        period = np.repeat(np.arange(len(grid) + 1), np.diff(ends, prepend=0, append=len(chunk)))[rows]
        closes[period, instrument] = close  # of equal indices numpy keeps the last, which is the latest
        opening = np.full(instruments, NAN)
        opening[instrument[::-1]] = close[::-1]
        first = np.where(np.isnan(first), opening, first)
        last[instrument] = close
    actions = Actions(*(np.concatenate(columns) for columns in zip(*found, strict=True))) if found else NO_ACTIONS
    return History(grid, first, last, _carried(closes[:-1]), actions)


def rows_of(events: Events, *kinds: int) -> Ints:
    """The places of the events of some kinds."""
    parts = [np.flatnonzero(np.isin(events["kind"][at : at + CHUNK], kinds)) + at
             for at in range(0, len(events), CHUNK)]  # fmt: skip
    return np.concatenate(parts) if parts else np.empty(0, "i8")


def scan_ticks(events: Events, ticks: Floats, grid: Ints, shift: int, until: int) -> History:
    """The same for a tape of quotes and trades: a close is the mark that the kernel knew, `shift` ns after `recv`."""
    rows = rows_of(events, codes.SPLIT, codes.DIVIDEND)
    rows = rows[events["recv"][rows] + shift <= until]
    acts = events["instrument"][rows].astype("i8")
    instruments = len(ticks)
    asked = questions(np.repeat(grid, instruments), np.tile(np.arange(instruments), len(grid)))
    known = events["recv"][rows].astype("i8") + shift
    before = questions(known, acts)
    found = look(events, ticks, np.concatenate((asked, before)), clock=KERNEL, shift=shift, until=until)
    closes, mark = np.split(found.moments["mark"], [len(asked)])
    amount, split = events["amount"][rows].astype("f8"), events["kind"][rows] == codes.SPLIT
    ratio, cash = np.where(split, amount, 1.0), np.where(split, 0.0, amount)
    actions = Actions(known, acts, ratio, cash, mark * ratio) if len(rows) else NO_ACTIONS
    return History(grid, found.first, found.last, closes.reshape(len(grid), instruments), actions)


def _actions(chunk: Events, bars: NDArray[np.bool_], acts: Ints, last: Floats) -> Actions:
    """The splits and dividends at rows `acts`, each with the close before it: in this chunk, else `last`."""
    rows = np.flatnonzero(bars)
    key = np.sort(chunk["instrument"][rows].astype("i8") * len(chunk) + rows)  # by instrument, then by time
    instrument, amount = chunk["instrument"][acts].astype("i8"), chunk["amount"][acts].astype("f8")
    before = np.searchsorted(key, instrument * len(chunk) + acts) - 1
    row = key[np.maximum(before, 0)] if len(key) else np.zeros(len(acts), "i8")
    here = (before >= 0) & (row // len(chunk) == instrument)
    mark = np.where(here, chunk["close"][row % len(chunk)], last[instrument])
    split = chunk["kind"][acts] == codes.SPLIT
    ts = chunk["ts"][acts].astype("i8")
    return Actions(ts, instrument, np.where(split, amount, 1.0), np.where(split, 0.0, amount), mark)


def _carried(closes: Floats) -> Floats:
    """Each NaN replaced by the value above it, where there is one."""
    rows = np.where(np.isnan(closes), 0, np.arange(len(closes))[:, None])
    np.maximum.accumulate(rows, axis=0, out=rows)
    return np.take_along_axis(closes, rows, axis=0) if len(closes) else closes


def buy_and_hold(history: History, begin: int) -> Floats:
    """Worth of one unit of money, split equally over the instruments at their first closes and held.

    One value for each time of the grid. Splits are applied and dividends kept as cash; an instrument is worth what
    it cost until its first bar, and one without any bar is left out. `begin`: ts of the start of the tape.
    """
    held = history.closes / history.first
    for index in np.unique(history.actions.instrument):
        rows, actions = history.actions.instrument == index, history.actions
        base = split_factors(np.array([begin - 1]), actions, rows)[0]
        paid = adjusted_cash(history.grid, actions, rows) * base / history.first[index]
        held[:, index] = held[:, index] * base / split_factors(history.grid, actions, rows) + paid
    traded = ~np.isnan(history.first)
    if not traded.any():
        return np.full(len(history.grid), NAN)
    worth: Floats = np.where(np.isnan(held), 1.0, held)[:, traded].mean(axis=1)
    return worth


def decimate(values: Floats, points: int) -> Ints:
    """Rows of at most about `points` values that keep the lowest and highest of each stretch, and both ends.

    NaN counts as the lowest value.

    >>> decimate(np.array([1.0, 5.0, 2.0, 0.0, 3.0, 3.0, 3.0, 4.0]), 6)
    array([0, 1, 3, 4, 7])
    """
    n = len(values)
    if n <= points or n < 4:
        return np.arange(n)
    buckets = max(1, (points - 2) // 2)
    width = -(-n // buckets)
    padded = np.full(width * -(-n // width), values[-1])
    padded[:n] = np.nan_to_num(values, nan=-np.inf)
    table = padded.reshape(-1, width)
    base = np.arange(len(table)) * width
    picked = np.concatenate(([0], base + table.argmin(axis=1), base + table.argmax(axis=1), [n - 1]))
    return np.unique(np.minimum(picked, n - 1))


def price_line(events: Events, instrument: int, actions: Actions, points: int) -> tuple[Ints, Floats]:
    """Times and closes of the bars of one instrument to draw: at most about `points`, lows and highs kept, splits
    adjusted."""
    share = max(64, 4 * points * CHUNK // max(len(events), 1))
    times, closes = [], []
    for begin in range(0, len(events), CHUNK):
        chunk = events[begin : begin + CHUNK]
        rows = np.flatnonzero((chunk["kind"] == codes.BAR) & (chunk["instrument"] == instrument))
        rows = rows[decimate(chunk["close"][rows], share)]
        times.append(chunk["ts"][rows])
        closes.append(chunk["close"][rows])
    if not times:
        return np.empty(0, "i8"), np.empty(0)
    ts, close = np.concatenate(times), np.concatenate(closes)
    close = close / split_factors(ts, actions, actions.instrument == instrument)
    keep = decimate(close, points)
    return ts[keep], close[keep]

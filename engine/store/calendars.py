"""When markets are open: session closes for daily bars, and what is missing between the first and last bar.

Calendars come from exchange_calendars by name; "24/7" is ours: every UTC day is a session that closes in its last
nanosecond, so that the close belongs to its own date.
"""

import difflib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from importlib.metadata import version
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import numpy as np

from engine.errors import ConfigError
from engine.store.files import atomic_file, cache_dir, text_hash
from engine.store.instruments import InstrumentInfo

DAY_NS = 86_400_000_000_000
SPAN = 3650  # days
Times = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Sessions:
    """Sessions of a calendar in time order: `days` (whole days since 1970), `opens` and `closes` (ns UTC); `zone`:
    the time zone in which the market keeps its hours."""

    days: Times
    opens: Times
    closes: Times
    zone: str = "UTC"

    @property
    def length_ns(self) -> int:
        """The usual length of a session, ns."""
        return int(np.median(self.closes - self.opens)) if len(self.days) else 0


@lru_cache(maxsize=16)
def sessions(calendar: str, first_day: int, last_day: int) -> Sessions:
    """The sessions from one day to another, both included, in days since 1970.

    Raises ConfigError for an unknown calendar, with the nearest name.
    """
    if calendar == "24/7":
        days = np.arange(first_day, last_day + 1, dtype=np.int64)
        return Sessions(days, days * DAY_NS, (days + 1) * DAY_NS - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import exchange_calendars
    from exchange_calendars.errors import InvalidCalendarName

    start, end = (np.datetime64(day, "D") for day in (first_day, last_day))
    try:
        # A week on both sides keeps a span valid that begins or ends between sessions.
        with warnings.catch_warnings():
            # exchange_calendars uses pandas' own deprecated ways; the user can do nothing about it.
            warnings.simplefilter("ignore")
            found = exchange_calendars.get_calendar(calendar, start=str(start - 7), end=str(end + 7))
    except InvalidCalendarName as error:
        names = exchange_calendars.get_calendar_names()
        close = difflib.get_close_matches(calendar, names, 3, 0.4)
        hint = f" Did you mean {', '.join(close)}?" if close else ""
        raise ConfigError(f"calendar {calendar!r} is unknown.{hint} "
                          "Give '24/7' or a name of exchange_calendars, such as XNYS.") from error  # fmt: skip
    days = found.sessions.to_numpy().astype("datetime64[D]").astype(np.int64)
    inside = (days >= first_day) & (days <= last_day)
    opens = found.opens.dt.tz_localize(None).to_numpy().astype("datetime64[ns]").astype(np.int64)
    closes = found.closes.dt.tz_localize(None).to_numpy().astype("datetime64[ns]").astype(np.int64)
    return Sessions(days[inside], opens[inside], closes[inside], str(found.tz))


def check_zone(timezone: str) -> None:
    """Raise ConfigError for a time zone that does not exist, with the nearest names."""
    try:
        ZoneInfo(timezone)
    except (KeyError, ValueError, OSError) as error:
        names = sorted(available_timezones())
        wish = timezone.strip().replace(" ", "_").lower()
        ends = [name for name in names if name.lower() == wish or name.lower().rpartition("/")[2] == wish]
        towns = {name.rpartition("/")[2]: name for name in reversed(names)}
        close = ends or difflib.get_close_matches(timezone, names, 1, 0.7)
        close = close or [towns[one] for one in difflib.get_close_matches(timezone, towns, 1, 0.7)]
        hint = f" Did you mean {', '.join(close[:3])}?" if close else ""
        raise ConfigError(f"timezone={timezone!r} is no time zone.{hint} "
                          "Give an IANA name, such as America/New_York or UTC.") from error  # fmt: skip


def span_of(ts: Times, calendar: str) -> Sessions:
    """The sessions that times (ns UTC, not empty) can lie in."""
    return sessions(calendar, int(ts.min()) // DAY_NS - 1, int(ts.max()) // DAY_NS + 1)


def day_closes(days: Times, calendar: str) -> tuple[Times, "np.ndarray[Any, np.dtype[np.bool_]]", int]:
    """Closes (ns UTC) of the sessions on `days`, which of them are sessions at all, and the usual length.

    A day without a session gets the time of day at which the session before it closed.
    """
    known = sessions(calendar, int(days.min()) - 10, int(days.max()) + 10)
    at = np.clip(np.searchsorted(known.days, days, side="right") - 1, 0, len(known.days) - 1)
    exact = known.days[at] == days
    closes = known.closes[at] + (days - known.days[at]) * DAY_NS
    return closes, exact, known.length_ns


def gaps(ts: Times, calendar: str, step_ns: int, max_gap_ns: int | None) -> list[tuple[int, str]]:
    """What is missing between the first and last of sorted closes: (index of the bar after it, description).

    Sessions without any bar (for bars up to a day), and pauses longer than `max_gap_ns` inside a session.
    """
    if len(ts) == 0 or step_ns > DAY_NS:
        return []
    known = span_of(ts, calendar)
    # A bar that closes at midnight is the last of the day before.
    closes = known.closes + 1 if calendar == "24/7" else known.closes
    at = np.minimum(np.searchsorted(closes, ts, side="left"), len(closes) - 1)  # the session it closes in or before
    held = ~((known.opens >= ts[0]) & (closes <= ts[-1]))  # sessions that are not between the bars owe nothing
    held[at[ts > known.opens[at]]] = True
    found = []
    for i in np.flatnonzero(~held):
        after = int(np.searchsorted(ts, closes[i], side="right"))
        day = np.datetime64(int(known.days[i]), "D")
        found.append((min(after, len(ts) - 1), f"gap: no bar in the session of {day}"))
    if max_gap_ns is not None and len(ts) > 1:
        jump = np.diff(ts)
        same = (at[1:] == at[:-1]) & (ts[:-1] > known.opens[at[:-1]])
        found += [(int(i) + 1, f"gap: {jump[i] / 1e9:g} s since the bar before, inside a session")
                  for i in np.flatnonzero(same & (jump > max_gap_ns))]  # fmt: skip
    return sorted(found)


def holes(ts: Times, calendar: str, step_ns: int) -> tuple[int, list[tuple[int, int, int]]]:
    """Pauses inside sessions that chance does not explain: the bars that may be missing in a row, and (bars missing,
    from, to) of each longer pause, in ns UTC.

    Where minutes without a trade have no bar, short pauses are the rule. If each bar is absent with the probability p
    seen here, `log(1000 n) / log(1 / p)` in a row are absent once in a thousand such series (P. Erdos, A. Renyi, On a
    new law of large numbers, 1970). A pause that a third of the sessions have at the same time is the market's own.
    """
    if len(ts) < 100 or not 0 < step_ns <= DAY_NS // 8:
        return 0, []
    known = span_of(ts, calendar)
    closes = known.closes + 1 if calendar == "24/7" else known.closes
    at = np.minimum(np.searchsorted(closes, ts, side="left"), len(closes) - 1)
    inside = ts > known.opens[at]
    first, last = ts[:-1], ts[1:]
    same = (at[1:] == at[:-1]) & inside[:-1]
    missing = np.where(same, (last - first) // step_ns - 1, 0)
    share = missing.sum() / (missing.sum() + len(ts))
    most = 1 + int(np.log(1000 * len(ts)) / np.log(1 / share)) if share > 0 else 1
    long = np.flatnonzero(missing > most)
    since, which = np.unique(first[long] - known.opens[at[long]], return_inverse=True)
    days = len(np.unique(at[inside]))
    own = (np.bincount(which, minlength=len(since)) * 3 > days)[which] if days > 2 else np.zeros(len(long), bool)
    return most, [(int(missing[i]), int(first[i]), int(last[i])) for i in long[~own]]


def gap_cure(ts: Times, calendar: str) -> str:
    """What to do about the gaps between these times: most often it is the calendar that is wrong, not the bars."""
    if calendar == "24/7":
        days = (ts - 1) // DAY_NS
        span = np.arange(days[0], days[-1] + 1)
        saturdays = span[(span + 3) % 7 == 5]  # 1970-01-01 was a Thursday
        if len(saturdays) and not np.isin(saturdays, days).any():
            return ("No bar lies on a Saturday, but the calendar is 24/7, which never closes: name the market's own, "
                    "such as instruments.calendar=XNYS (shares in New York) or 24/5 (currencies), "
                    "which knows weekends and holidays.")  # fmt: skip
    return ("A gap has no row that could be set aside: complete the source, name a calendar that is closed then "
            f"(instruments.calendar, now {calendar}), or import with on_error='keep', which notes gaps in dataset.json "
            "and goes on.")  # fmt: skip


def outside(ts: Times, calendar: str) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Which bars, by their sorted closes in ns UTC, do not close within a session (after its open, up to its close)."""
    if calendar == "24/7" or len(ts) == 0:
        return np.zeros(len(ts), bool)
    known = span_of(ts, calendar)
    at = np.minimum(np.searchsorted(known.closes, ts, side="left"), len(known.closes) - 1)
    return np.asarray((ts <= known.opens[at]) | (ts > known.closes[at]))


def action_time(when: object, calendar: str) -> int:
    """When a corporate action takes effect, ns UTC: a date at its session's open (or the next), else as is."""
    from datetime import date, datetime

    from engine.store.tape import to_ns

    moment = when if isinstance(when, str | date) else str(when)
    ns = to_ns(moment, "the ts of a corporate action")
    if ns is None:
        raise ConfigError(f"corporate action: ts={when!r} is not a time.")
    if isinstance(moment, datetime) and (moment.tzinfo or ns % DAY_NS):
        return ns
    if ns % DAY_NS:
        return ns
    day = ns // DAY_NS
    first = day // SPAN * SPAN  # the same span for many actions: making a calendar is slow
    known = sessions(calendar, first, first + SPAN + 10)
    at = int(np.searchsorted(known.days, day, side="left"))
    return int(known.opens[at]) if at < len(known.opens) else ns


def trading_hours(calendar: str, timezone: str, first: int, last: int) -> tuple[Times, int]:
    """When a market trades between two times (ns UTC), and when its trading day begins.

    First: opens and closes of its sessions as rows of two, ns UTC; none for "24/7". Second: ns after midnight UTC, the
    middle of the night between two sessions (the median over them, so that summer time does not matter to markets that
    close), or midnight in `timezone` at the first time when the market never closes.
    """
    if calendar == "24/7":
        moment = datetime.fromtimestamp(first / 1e9, ZoneInfo(timezone))
        return np.zeros((0, 2), np.int64), -int((moment.utcoffset() or timedelta()).total_seconds()) * 10**9 % DAY_NS
    hours = _known_hours(calendar, first // DAY_NS - 10, last // DAY_NS + 10)
    night = hours[1:, 0] - hours[:-1, 1]
    middle = (hours[:-1, 1] + night // 2)[night < DAY_NS]
    apart = (middle - middle[:1] + DAY_NS // 2) % DAY_NS - DAY_NS // 2  # of the first, on the circle of a day
    return hours, int(middle[0] + int(np.median(apart))) % DAY_NS if len(middle) else 0


def hours_of(instruments: Sequence[InstrumentInfo], first: int, last: int) -> tuple[list[Times], list[int]]:
    """For each instrument its sessions, and when its trading day begins."""
    kinds = {(i.calendar, i.timezone): trading_hours(i.calendar, i.timezone, first, last) for i in instruments}
    found = [kinds[i.calendar, i.timezone] for i in instruments]
    return [hours for hours, _ in found], [begins for _, begins in found]


def _known_hours(calendar: str, first_day: int, last_day: int) -> Times:
    """Opens and closes of the sessions, kept in the cache: the calendars' own package takes a second to import."""
    key = text_hash(calendar, str(first_day), str(last_day), version("exchange_calendars"))
    path = cache_dir("calendars") / f"{key}.npy"
    if path.is_file():
        try:
            return np.asarray(np.load(path), np.int64).reshape(-1, 2)
        except (OSError, ValueError):  # A cache is rebuilt, not repaired.
            path.unlink(missing_ok=True)
    known = sessions(calendar, first_day, last_day)
    hours = np.stack([known.opens, known.closes], axis=1)
    with atomic_file(path) as part, part.open("wb") as file:
        np.save(file, hours)
    return hours

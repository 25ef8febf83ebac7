"""Trading hours of the venue: when a day ends, and when a bar has begun.

An instrument whose calendar has sessions brings a table of them; what is beyond the table, and any other instrument,
has days of 24 hours that begin `day_offset_ns` after midnight UTC.
"""

from backtest.records import Venue, venue_hours, venue_instruments, venue_sessions
from engine.kernel.events import Event

DAY_NS = 86_400_000_000_000
NEVER = 7 << 60  # in the year 2225; with the longest bar added it still is a time


def session_at(v: Venue, instrument: int, ts: int) -> int:
    """The row of the first session that closes at `ts` or later, -1 when none is known."""
    h = venue_hours(v, instrument)
    low, high = h.first, h.first + h.count
    for row in range(h.latest, min(h.latest + 2, high)):  # mostly it is the one of last time, or the next
        if venue_sessions(v, row).closes >= ts and (row == low or venue_sessions(v, row - 1).closes < ts):
            h.latest = row
            return row
    while low < high:
        middle = (low + high) // 2
        if venue_sessions(v, middle).closes < ts:
            low = middle + 1
        else:
            high = middle
    h.latest = min(low, h.first + max(h.count - 1, 0))
    return low if low < h.first + h.count else -1


def day_end(v: Venue, instrument: int, ts: int) -> int:
    """When the trading day ends; at a close, and while the market is closed, that is the end of the next one."""
    row = session_at(v, instrument, ts + 1)
    if row >= 0:
        return venue_sessions(v, row).closes
    offset = venue_instruments(v, instrument).day_offset_ns
    return ((ts - offset) // DAY_NS + 1) * DAY_NS + offset


def bar_begin(v: Venue, bar: Event) -> int:
    """When a bar began: its usual length before its close, but not before the session that it closes in opened."""
    begin = bar.ts - venue_instruments(v, bar.instrument).bar_ns
    row = session_at(v, bar.instrument, bar.ts)
    if row >= 0:
        s = venue_sessions(v, row)
        later = begin < s.opens < bar.ts
        if later and (row == venue_hours(v, bar.instrument).first or venue_sessions(v, row - 1).closes <= begin):
            return s.opens
    return begin

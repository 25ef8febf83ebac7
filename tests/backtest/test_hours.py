"""Days and sessions: when an order for the day ends, when a bar began, when the day of the risk limits begins."""

from typing import Any

import numpy as np
import pytest

from backtest.run import prepare
from engine.kernel import codes
from engine.store.calendars import trading_hours
from engine.store.instruments import InstrumentInfo
from engine.store.tape import Tape, blank, frozen
from tests.backtest import stage, test_ticks
from tests.backtest.stage import Staged, bars, play, tape_of
from tests.backtest.test_ticks import Trader, buy

HOUR = 3_600_000_000_000
DAY = 24 * HOUR
NEW_YORK: dict[str, Any] = {"calendar": "XNYS", "timezone": "America/New_York"}


def at(text: str) -> int:
    """ns UTC."""
    return int(np.datetime64(text, "ns").astype(np.int64))


def rows(kind: int, times: list[str], price: float = 100.0) -> Any:
    """Flat bars that close, or quotes that are made, at these times."""
    events = blank(len(times))
    for event, when in zip(events, times, strict=True):
        event["ts"] = event["recv"] = at(when)
        event["kind"] = kind
        names = ("open", "high", "low", "close") if kind == codes.BAR else ("bid", "ask", "bid_volume", "ask_volume")
        for name, value in zip(names, (price, price + 1, price - 1, price), strict=True):
            event[name] = value if kind == codes.BAR else {"bid": price, "ask": price + 1}.get(name, 9)
        if kind == codes.BAR:
            event["volume"] = 1e6
    return events


def reports(strategy: Any, events: Any, *infos: InstrumentInfo) -> list[tuple[str, str]]:
    """(word, time) of what the venue reported, without acknowledgements."""
    tape = Tape(frozen(events), infos, "0" * 16, "hours")
    drive = prepare(strategy, tape, cash=1e6, leverage=1e9, compiled=False).drive()
    assert drive.advance() == 0
    found = drive.outputs().reports
    shown = [(codes.NAMES["report"][int(r["code"])], str(np.datetime64(int(r["ts"]), "ns"))[:19]) for r in found]
    return [row for row in shown if row[0] != "ack"]


def test_day_orders_end_at_the_close_of_the_session() -> None:
    """Friday 2023-11-24 closes at 13:00 in New York, 18:00 UTC; Thursday is a holiday."""
    times = ["2023-11-22T20:00", "2023-11-22T20:30", "2023-11-24T15:00", "2023-11-24T17:59:30", "2023-11-24T18:30",
             "2023-11-27T15:00"]  # fmt: skip
    info = InstrumentInfo("N", bar_ns=HOUR // 60, **NEW_YORK)
    for wish, word in ((0, "2023-11-22T21:00:00"), (2, "2023-11-24T18:00:00"), (4, "2023-11-27T21:00:00")):
        test_ticks.WISHES.clear()
        test_ticks.WISHES[wish] = [buy(1, 50.0, tif=codes.DAY)]
        events = rows(codes.QUOTE, [*times, "2023-11-27T22:00"])
        assert reports(Trader(), events, info) == [("expired", word)], wish


def test_the_same_on_bars_also_without_a_bar_of_its_own() -> None:
    """Another instrument has the bars by which time passes; a bar that may still begin before the end is waited for."""
    own = rows(codes.BAR, ["2023-11-24T15:00"])
    other = rows(codes.BAR, ["2023-11-24T15:00", "2023-11-24T17:00", "2023-11-24T18:00", "2023-11-24T18:01"])
    other["instrument"] = 1
    infos = tuple(InstrumentInfo(name, bar_ns=HOUR // 60, **NEW_YORK) for name in "AB")
    stage.WISHES.clear()
    events = np.concatenate([own.view("V64"), other.view("V64")]).view(own.dtype)
    order = np.lexsort((events["instrument"], events["ts"]))
    minute = (at("2023-11-24T15:00") - stage.START) // stage.MINUTE - 1
    stage.WISHES[minute] = [
        lambda ctx: ctx.buy(1, 50.0, tif=codes.DAY),
        lambda ctx: ctx.buy(1, 51.0, life_ms=7_200_000),
    ]
    found = reports(Staged(), events.view("V64")[order].view(own.dtype), *infos)
    assert found == [("expired", "2023-11-24T17:00:00"), ("expired", "2023-11-24T18:00:00")]


def test_without_a_calendar_a_day_order_lives_through_the_day_of_its_first_bar() -> None:
    flat = (100, 101, 99, 100)
    tape = bars(flat, flat, minutes=[0, 1], others=[[flat, flat]])
    later = bars(flat, minutes=[60 * 24 + 5])
    later_row = later.events.copy()
    later_row["instrument"] = 1
    events = tape_of([*(tape.events[i : i + 1] for i in range(len(tape.events))), later_row], 2)
    assert play(events, {0: buy(1, 50.0, tif=codes.DAY)}).reports == [("expired", 60 * 24, "")]


DAILY = ["2023-11-21T21:00", "2023-11-22T21:00", "2023-11-24T18:00", "2023-11-27T21:00"]


def test_a_daily_bar_of_a_half_day_begins_with_its_session() -> None:
    stage.WISHES.clear()
    info = InstrumentInfo("N", bar_ns=13 * HOUR // 2, **NEW_YORK)
    for close, opened in zip(DAILY[:-1], ["2023-11-22T14:30", "2023-11-24T14:30", "2023-11-27T14:30"], strict=True):
        stage.WISHES.clear()
        stage.WISHES[(at(close) - stage.START) // stage.MINUTE - 1] = [lambda ctx: ctx.buy(1)]
        assert reports(Staged(), rows(codes.BAR, DAILY), info) == [("fill", opened + ":00")]


def test_an_hourly_bar_does_not_begin_before_the_session() -> None:
    """15:00 UTC is half an hour after the open; an order of the evening before meets it at the open."""
    info = InstrumentInfo("N", bar_ns=HOUR, **NEW_YORK)
    times = ["2023-11-21T21:00", "2023-11-22T15:00", "2023-11-22T16:00"]
    for close, opened in ((0, "2023-11-22T14:30:00"), (1, "2023-11-22T15:00:00")):
        stage.WISHES.clear()
        stage.WISHES[(at(times[close]) - stage.START) // stage.MINUTE - 1] = [lambda ctx: ctx.buy(1)]
        assert reports(Staged(), rows(codes.BAR, times), info) == [("fill", opened)]


def test_weekly_bars_are_longer_than_a_session() -> None:
    info = InstrumentInfo("N", bar_ns=7 * DAY, **NEW_YORK)
    stage.WISHES.clear()
    stage.WISHES[(at("2023-11-17T21:00") - stage.START) // stage.MINUTE - 1] = [lambda ctx: ctx.buy(1)]
    times = ["2023-11-17T21:00", "2023-11-24T21:00"]
    assert reports(Staged(), rows(codes.BAR, times), info) == [("fill", "2023-11-17T21:00:00")]


# calendar, time zone, from when: hour at which the trading day begins, UTC
BEGINS = [
    ("24/7", "UTC", "2024-01-01", 0.0),
    ("24/7", "America/New_York", "2024-01-01", 5.0),
    ("24/7", "America/New_York", "2024-07-01", 4.0),
    ("24/7", "Asia/Tokyo", "2024-01-01", 15.0),
    ("24/7", "Asia/Kolkata", "2024-01-01", 18.5),
    ("XNYS", "America/New_York", "2024-01-02", 5.75),  # between 21:00 and 14:30
    ("XTKS", "Asia/Tokyo", "2024-01-04", 15.0),  # between 06:00 and 00:00
]


@pytest.mark.parametrize(("calendar", "zone", "day", "hour"), BEGINS)
def test_when_the_trading_day_begins(calendar: str, zone: str, day: str, hour: float) -> None:
    hours, begins = trading_hours(calendar, zone, at(day), at(day) + 5 * DAY)
    assert begins == hour * HOUR
    assert (len(hours) == 0) == (calendar == "24/7")


def test_summer_time_does_not_move_the_day_of_a_market_that_closes() -> None:
    hours, begins = trading_hours("XNYS", "America/New_York", at("2023-01-03"), at("2023-12-29"))
    inside = (hours - begins) // DAY
    assert (inside[:, 0] == inside[:, 1]).all() and (np.diff(inside[:, 0]) > 0).all()


def test_the_daily_loss_starts_afresh_at_the_night_of_the_market() -> None:
    """Minutes around midnight UTC, in the middle of a session in Sydney: the day of the risk limit goes on."""
    times = ["2024-02-06T23:30", "2024-02-06T23:50", "2024-02-07T00:10", "2024-02-07T00:20"]
    for info, refused in ((InstrumentInfo("A", bar_ns=HOUR // 60, calendar="XASX", timezone="Australia/Sydney"), 2),
                          (InstrumentInfo("A", bar_ns=HOUR // 60), 1)):  # fmt: skip
        events = rows(codes.BAR, times)
        events["low"][1:] = events["close"][1:] = 90.0
        stage.WISHES.clear()
        minute = [(at(t) - stage.START) // stage.MINUTE - 1 for t in times]
        stage.WISHES.update({minute[0]: [lambda ctx: ctx.buy(10)], minute[2]: [lambda ctx: ctx.buy(1)]})
        tape = Tape(frozen(events), (info,), "0" * 16, "hours")
        drive = prepare(Staged(), tape, cash=1e4, daily_loss=50.0, compiled=False).drive()
        assert drive.advance() == 0
        reasons = [codes.NAMES["reason"][int(r)] for r in drive.outputs().refusals["reason"]]
        assert reasons == ["daily_loss"] * refused  # the breach, and the order that it refuses the same day

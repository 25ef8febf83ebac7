"""Law 8: the sum of fills is the position, exactly; the account's identities hold to 1e-9; venue and kernel agree."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest.audit import audit
from backtest.check import Subject
from backtest.drive import Drive
from engine.config import Risk, VenueModel
from engine.kernel import codes
from tests.laws.world import MINUTE, Fuzz, decode, stage, subjects


@given(subjects(), st.integers(0, 1 << 30))
def test_any_strategy_conserves(subject: Subject, seed: int) -> None:
    subject.conservation(np.random.default_rng(seed), 2)


@given(subjects())
def test_every_fill_is_explained_by_the_tape(subject: Subject) -> None:
    """A fill is at the open, a stop or a limit of its bar, plus slippage; all of a bar's stay within participation."""
    model, events = subject.prepared.venue, subject.events
    slip, taken = model.slippage_bps * 1e-4, dict[tuple[int, int], float]()
    prices = dict[int, set[float]]()
    orders = subject.whole.orders
    trailing = set(orders["id"][orders["type"] == codes.TRAILING].tolist())
    for order in orders:
        prices.setdefault(int(order["id"]), set()).update((float(order["price"]), float(order["stop"])))
    bars = events[events["kind"] == codes.BAR]
    for row in subject.whole.reports[subject.whole.reports["code"] == codes.FILL]:
        info = subject.tape.instruments[int(row["instrument"])]
        own = bars[(bars["instrument"] == row["instrument"]) & (bars["ts"] >= row["ts"])]
        near = [b for b in own if b["ts"] - info.bar_ns <= row["ts"]] or [own[0]]
        side = 1.0 if row["qty"] > 0 else -1.0
        asked = prices[int(row["order_id"])]
        possible = {p * f for b in near for p in ({float(b["open"])} | asked) for f in (1.0, 1.0 + slip * side)}
        if int(row["order_id"]) in trailing:  # its stop moves within what was traded
            touched = row["price"] / (1.0 + slip * side)
            possible |= {row["price"] for b in near if b["low"] * (1 - 1e-9) <= touched <= b["high"] * (1 + 1e-9)}
        assert any(abs(row["price"] - p) <= 1e-9 * p for p in possible), (row["price"], sorted(possible))
        if len(near) == 1:
            key = (int(row["instrument"]), int(near[0]["ts"]))
            taken[key] = taken.get(key, 0.0) + abs(int(row["qty"])) * info.lot
            if model.participation:
                assert taken[key] <= model.participation * near[0]["volume"] + 1e-6


def _cash(drive: Drive) -> None:
    drive.machine.kernel.cash += 1.0


def _position(drive: Drive) -> None:
    drive.machine.table("positions_at")["qty"][0] += 1


def _opened(drive: Drive) -> None:
    drive.machine.kernel.opened += 1


def _pending(drive: Drive) -> None:
    drive.machine.table("positions_at")["pending"][0] += 1


def _venue(drive: Drive) -> None:
    drive.venue.markets["net"][0] -= 1


def _value(drive: Drive) -> None:
    drive.machine.kernel.value += 0.01


@pytest.mark.parametrize("harm", [_cash, _position, _opened, _pending, _venue, _value])
def test_the_audit_sees_harm(harm: Callable[[Any], None]) -> None:
    tape = decode(np.random.default_rng(5).bytes(900), 2, MINUTE)
    subject = stage([Fuzz(seed=3)], tape, Risk(leverage=5.0), VenueModel())
    assert audit(subject.drive, subject.whole) == []
    harm(subject.drive)
    assert audit(subject.drive, subject.whole) != []

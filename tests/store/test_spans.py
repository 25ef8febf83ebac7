"""A part of a tape with depth begins with the books that the events before it built."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from engine.kernel import codes
from engine.store import import_ticks, merge, open_tape, spans
from engine.store.tape import Events, to_text

S = 10**9
T0 = 1_600_000_000 * S


def random_depth(seed: int, n: int = 200) -> pl.DataFrame:
    """Updates of a few levels, a second apart, with a snapshot of two rows now and then."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[Any, ...]] = []
    for i in range(n):
        whole = i == 0 or rng.random() < 0.03
        for _ in range(2 if whole else int(rng.integers(1, 4))):
            side = int(rng.choice((-1, 1)))
            volume = float(rng.integers(1, 9)) if whole else float(rng.integers(0, 3))
            rows.append((T0 + i * S, 100.0 - side * int(rng.integers(1, 6)), volume, side, whole))
    return pl.DataFrame(rows, schema=["ts", "price", "volume", "side", "snapshot"], orient="row")


def replay(events: Events) -> dict[int, dict[tuple[int, float], float]]:
    """The plainest book there is, row by row."""
    books: dict[int, dict[tuple[int, float], float]] = {}
    closed: dict[int, bool] = {}
    for i, code, side, price, volume, last in zip(
        *(events[f].tolist() for f in ("instrument", "code", "side", "price", "traded", "last")), strict=True
    ):
        book = books.setdefault(i, {})
        if code == codes.SNAPSHOT and closed.get(i, True):
            book.clear()
        closed[i] = bool(last)
        if volume:
            book[side, price] = volume
        else:
            book.pop((side, price), None)
    return books


@pytest.mark.parametrize("piece", [1, 7, 1 << 18])
@pytest.mark.parametrize("at", [1, 50, 133])
def test_a_part_leads_to_the_same_books(places: Path, monkeypatch: pytest.MonkeyPatch, piece: int, at: int) -> None:
    monkeypatch.setattr(spans, "PIECE", piece)
    import_ticks("d", {"A": random_depth(1), "B": random_depth(2)}, kind="depth")
    tape = open_tape("d")
    start = to_text(T0 + at * S)
    part = open_tape("d", start=start)
    assert replay(part.events) == replay(tape.events)
    low = int(np.searchsorted(tape.events["recv"], T0 + at * S))
    head = len(part) - (len(tape) - low)
    assert bytes(merge.to_bytes(part.events[head:])) == bytes(merge.to_bytes(tape.events[low:]))
    assert (part.events["code"][:head] == codes.SNAPSHOT).all()
    assert (part.events["recv"][:head] == T0 + at * S).all()
    assert replay(part.events[:head]) == replay(tape.events[:low])
    again = open_tape("d", start=start)
    assert again.digest == part.digest != tape.digest


def test_a_part_without_depth_is_a_view(places: Path) -> None:
    frame = pl.DataFrame({"ts": [T0 + i * S for i in range(9)], "price": [1.0] * 9, "volume": [1.0] * 9})
    import_ticks("t", frame, instrument="X")
    assert len(open_tape("t", start=to_text(T0 + 3 * S))) == 6

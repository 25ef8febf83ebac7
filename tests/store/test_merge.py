"""Order of a tape, as properties: total, stable, and independent of the pieces it is made in."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.kernel import codes
from engine.kernel.events import Event
from engine.store import merge, synthetic_frame, synthetic_tape, write_synthetic_tape
from engine.store.tape import ROW, Events, blank, join, to_bytes

RUNS = st.lists(st.lists(st.integers(0, 30), max_size=40).map(sorted), min_size=1, max_size=6)


def run_of(times: list[int], instrument: int) -> Events:
    events = blank(len(times))
    events["ts"], events["instrument"], events["kind"] = times, instrument, codes.BAR
    events["recv"] = times
    events["volume"] = np.arange(len(times))  # the place in its own run
    return events


def keys(events: Events) -> list[tuple[int, int, float]]:
    return list(zip(events["ts"].tolist(), events["instrument"].tolist(), events["volume"].tolist(), strict=True))


@given(RUNS, st.integers(1, 50))
def test_merge_is_the_stable_sort_in_pieces_of_any_size(runs: list[list[int]], piece: int) -> None:
    events = [run_of(times, i) for i, times in enumerate(runs)]
    pieces = list(merge.merge(events, piece))
    merged = join(pieces) if pieces else blank(0)
    assert keys(merged) == sorted(key for run in events for key in keys(run))
    assert merged.dtype == Event.dtype


@given(RUNS, st.integers(2, 50))
def test_a_piece_is_bounded_but_for_ties(runs: list[list[int]], piece: int) -> None:
    ties = max((times.count(t) for times in runs for t in times), default=0)
    for part in merge.merge([run_of(times, i) for i, times in enumerate(runs)], piece):
        assert len(part) <= max(piece, len(runs)) + ties * len(runs)


TIMES = st.lists(st.integers(0, 20), unique=True).map(sorted)


@given(TIMES, st.lists(st.integers(0, 21)).map(sorted), st.integers(1, 9))
def test_an_action_stands_between_the_bars_it_parts(bars: list[int], actions: list[int], piece: int) -> None:
    """After the bar that closes at its moment, before every later one; and no piece size changes that."""
    run = run_of(bars, 0)
    events = merge.action_events([(ts, codes.SPLIT, 2.0) for ts in actions], 0)
    pieces = list(merge.with_actions((run[i : i + piece] for i in range(0, len(run), piece)), events))
    found = [(int(e["ts"]), int(e["kind"])) for part in pieces for e in part]
    assert found == sorted([(ts, codes.BAR) for ts in bars] + [(ts, codes.SPLIT) for ts in actions])


@given(RUNS)
def test_spilled_runs_merge_as_those_in_memory(tmp_path_factory: object, runs: list[list[int]]) -> None:
    folder = tmp_path_factory.mktemp("runs")  # type: ignore[attr-defined]
    events = [run_of(times, i) for i, times in enumerate(runs)]
    spilled = [bytes(to_bytes(p)) for p in merge.spill([[run] for run in events], folder)]
    direct = events if len(events) == 1 else list(merge.merge(events))
    assert b"".join(spilled) == b"".join(bytes(to_bytes(p)) for p in direct)
    assert not list(Path(folder).iterdir())


def test_joined_events_keep_their_64_bytes() -> None:
    """numpy's own concatenate would widen overlapping fields; this is why `join` exists."""
    events = run_of([1, 2, 3], 0)
    assert np.concatenate([events, events]).dtype.itemsize > 64
    assert join([events, events]).dtype.itemsize == 64
    assert join([events, events]).view(ROW)[4] == events.view(ROW)[1]


@given(st.integers(1, 200), st.integers(1, 4), st.integers(0, 2**32))
def test_synthetic_bars_keep_the_rules_of_bars(bars: int, instruments: int, seed: int) -> None:
    tape = synthetic_tape(bars, instruments, seed)
    e = tape.events
    assert len(e) == bars * instruments
    assert (np.diff(e["ts"]) >= 0).all()
    assert (e["low"] > 0).all()
    for name in ("open", "close"):
        assert ((e["low"] <= e[name]) & (e[name] <= e["high"])).all()
        np.testing.assert_array_equal(e[name], np.round(e[name], 2))
    assert bytes(to_bytes(e)) == bytes(to_bytes(synthetic_tape(bars, instruments, seed).events))


def test_synthetic_file_frame_and_memory_agree(tmp_path: Path, places: Path) -> None:
    from engine.store import open_tape

    memory = synthetic_tape(40_000, 3, seed=9)
    file = write_synthetic_tape(tmp_path / "s.tape", 40_000, 3, seed=9)
    frame = open_tape(synthetic_frame(40_000, 3, seed=9))
    assert bytes(to_bytes(file.events)) == bytes(to_bytes(memory.events)) == bytes(to_bytes(frame.events))
    assert file.digest == memory.digest
    assert file.instruments == memory.instruments == frame.instruments
    again = write_synthetic_tape(tmp_path / "s.tape", 40_000, 3, seed=9)
    assert again.digest == file.digest
    assert synthetic_tape(100, 1, seed=1).digest != synthetic_tape(100, 1, seed=2).digest

"""The journal: what was written is what is read, whatever the disk, a crash or a signal does in between."""

import errno
import json
import math
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import JournalError
from engine.journal import Journal, JournalWriter, scan, writer
from engine.journal import format as form
from engine.journal.format import EVENTS, ORDERS, REFUSALS, RELOADS, Place
from engine.journal.scan import Scanner
from engine.journal.snapshots import Snapshot, load, newest_first, save
from engine.replay import pieces
from engine.session_loop import READER, program
from tests.store.test_atomic import fail_at

HEADER = {"session": 1, "name": "small"}
Said = list[tuple[int, int, bytes]]


def rows(kind: int, count: int, seed: int) -> "np.ndarray[Any, Any]":
    """Records of a kind with bytes of their own."""
    return np.frombuffer(np.random.default_rng(seed).bytes(64 * count), form.RECORDS[kind])


def write(journal: JournalWriter, kind: int, count: int, seed: int) -> None:
    if kind == RELOADS:
        journal.reload({"seed": seed})
    else:
        {EVENTS: journal.events, ORDERS: journal.orders, REFUSALS: journal.refusals}[kind](rows(kind, count, seed))


SMALL = [(EVENTS, 2), (ORDERS, 1), (EVENTS, 1), (RELOADS, 1), (REFUSALS, 1), (EVENTS, 3), (ORDERS, 2)]


def small(folder: Path, *, seal: bool = False, **settings: Any) -> list[Place]:
    """A journal of a few blocks, and the places between them."""
    journal = JournalWriter(folder, HEADER, sync_ms=math.inf, **settings)
    places = [journal.place]
    for n, (kind, count) in enumerate(SMALL):
        write(journal, kind, count, n)
        places.append(journal.place)
    if seal:
        journal.seal()
    journal.close()
    return places


SCANNER = Scanner(program(which=READER))


def read(folder: Path, start: Place | None = None, scanner: Scanner = SCANNER) -> tuple[Journal, Said]:
    """Block by block, and many in one call: both say the same, or raise the same."""
    journal, many, error = Journal(folder), Journal(folder), None
    found: list[form.Block] = []
    together: dict[int, bytes] = {}
    try:
        found.extend(block._replace(payload=memoryview(bytes(block.payload))) for block in journal.blocks(start))
    except JournalError as one:
        error = one
    try:
        for kind, first, records, payload in many.blocks(start, scanner):
            before = together.setdefault(kind, b"")
            assert kind == RELOADS or records == len(payload) // form.ROW
            assert kind == RELOADS or first == (start.counts[kind] if start else 0) + len(before) // form.ROW
            together[kind] = before + bytes(payload)
    except JournalError as one:
        assert str(one) == str(error)
    assert together == {kind: b"".join(b.payload for b in found if b.kind == kind) for kind in {b.kind for b in found}}
    assert (many.place, many.torn, many.sealed) == (journal.place, journal.torn, journal.sealed)
    if error:
        raise error
    return journal, [(b.kind, b.first, bytes(b.payload)) for b in found]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    places = small(tmp_path / "j", seal=True)
    journal, said = read(tmp_path / "j")
    assert journal.header == {**HEADER, "layouts": form.layouts()}
    assert [kind for kind, _, _ in said] == [kind for kind, _ in SMALL]
    assert [first for kind, first, _ in said if kind == EVENTS] == [0, 2, 3]
    assert journal.sealed and not journal.torn and journal.place.counts == (0, 6, 3, 1, 1)
    assert journal.rows(EVENTS).tobytes() == b"".join(text for kind, _, text in said if kind == EVENTS)
    assert json.loads(said[3][2]) == {"seed": 3}
    for n, place in enumerate(places):
        assert read(tmp_path / "j", place)[1] == said[n:]


@given(st.lists(st.tuples(st.sampled_from([EVENTS, ORDERS, REFUSALS, RELOADS]), st.integers(1, 9)), max_size=40),
       st.integers(1, 2000), st.integers(0, 40))  # fmt: skip
def test_segments_and_restarts_change_nothing(blocks: list[tuple[int, int]], size: int, stop: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder, settings = Path(name) / "j", {"sync_ms": math.inf, "segment_bytes": size}
        journal = JournalWriter(folder, HEADER, **settings)
        for n, (kind, count) in enumerate(blocks):
            if n == stop:
                journal.close()
                before, _ = read(folder)
                journal = JournalWriter(folder, before.header, at=before.place, **settings)
            write(journal, kind, count, n)
        journal.seal()
        after, said = read(folder)
        assert [kind for kind, _, _ in said] == [kind for kind, _ in blocks]
        wanted = [rows(k, c, n).tobytes() for n, (k, c) in enumerate(blocks) if k != RELOADS]
        assert [text for kind, _, text in said if kind != RELOADS] == wanted
        assert after.sealed and not after.torn
        writer_again = JournalWriter(folder, after.header, at=after.place, **settings)  # a sealed one can go on
        writer_again.events(rows(EVENTS, 1, 0))
        writer_again.close()
        assert len(read(folder)[1]) == len(blocks) + 1


@given(st.lists(st.tuples(st.sampled_from([EVENTS, ORDERS, REFUSALS, RELOADS]), st.integers(1, 6)), max_size=20),
       st.integers(1, 3000))  # fmt: skip
def test_a_scanner_of_any_room(blocks: list[tuple[int, int]], size: int) -> None:
    """Four records fill it: larger blocks are left to the reader, and what it said lasts as long as it promises."""
    import tempfile

    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "CAPACITY", 4)
        journal = JournalWriter(Path(name) / "j", HEADER, sync_ms=math.inf, segment_bytes=size)
        for n, (kind, count) in enumerate(blocks):
            write(journal, kind, count, n)
        journal.seal()
        _, said = read(Path(name) / "j", scanner=Scanner())
        events, orders = b"", b""
        for piece in pieces(Journal(Path(name) / "j").blocks(scanner=Scanner()), 2):
            events, orders = events + piece.events.tobytes(), orders + piece.orders
        assert events == b"".join(text for kind, _, text in said if kind == EVENTS)
        assert orders == b"".join(text for kind, _, text in said if kind == ORDERS)


@given(st.binary(max_size=40), st.integers(0, (1 << 32) - 1))
def test_the_checksum_is_that_of_zlib(words: bytes, before: int) -> None:
    data, tables = np.frombuffer(words * 4, np.uint8).copy(), scan.crc_tables()
    found = scan.crc_of(tables.ctypes.data, data.ctypes.data, len(data), before)
    assert found == zlib.crc32(data.tobytes(), before)


@pytest.mark.parametrize("seal", [False, True])
def test_cut_off_at_every_byte(tmp_path: Path, seal: bool) -> None:
    """What is left is the whole blocks before the cut; and one can go on from there."""
    places = small(tmp_path / "j", seal=seal)
    path = tmp_path / "j" / "000000.tape"
    whole, (_, said) = path.read_bytes(), read(tmp_path / "j")
    for cut in range(len(whole) - 1, -1, -1):
        path.write_bytes(whole[:cut])
        if cut < places[0].offset:
            with pytest.raises(JournalError, match=r"000000.tape is damaged at offset 0"):
                read(tmp_path / "j")
            continue
        kept = sum(place.offset <= cut for place in places) - 1
        journal, found = read(tmp_path / "j")
        assert found == said[:kept]
        assert journal.place.counts == places[kept].counts and not journal.sealed
        assert bool(journal.torn) == (cut != places[kept].offset)
        if cut % 61 == 0:
            again = JournalWriter(tmp_path / "j", journal.header, sync_ms=math.inf, at=journal.place)
            again.events(rows(EVENTS, 1, 9))
            again.close()
            assert read(tmp_path / "j")[1] == [*found, (EVENTS, journal.place.events, rows(EVENTS, 1, 9).tobytes())]
            (tmp_path / "j" / "000001.tape").unlink()


def test_a_flipped_byte_anywhere_is_found(tmp_path: Path) -> None:
    places = small(tmp_path / "j", seal=True)
    path = tmp_path / "j" / "000000.tape"
    whole, (_, said) = path.read_bytes(), read(tmp_path / "j")
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        if at < places[0].offset:
            offset = 0
        elif at < places[-1].offset:
            offset = max(place.offset for place in places if place.offset <= at)
        else:  # in the seal, which nothing follows
            journal, found = read(tmp_path / "j")
            assert found == said and journal.torn and not journal.sealed
            continue
        with pytest.raises(JournalError, match=f"000000.tape.* at offset {offset}\\b"):
            read(tmp_path / "j")


def test_missing_pieces_are_named(tmp_path: Path) -> None:
    places = small(tmp_path / "j")
    path = tmp_path / "j" / "000000.tape"
    whole = path.read_bytes()
    path.write_bytes(whole[: places[2].offset] + whole[places[3].offset :])
    said = r"journal j: event 3 follows event 1 \(gap of 1\), .*000000.tape, offset \d+"
    with pytest.raises(JournalError, match=said):
        read(tmp_path / "j")
    path.write_bytes(whole[: places[1].offset] + whole[places[2].offset :])
    with pytest.raises(JournalError, match=r"order 1 follows order -1 \(gap of 1\)"):
        read(tmp_path / "j")


def test_missing_and_foreign_segments(tmp_path: Path) -> None:
    for name in ("j", "k"):
        journal = JournalWriter(tmp_path / name, {"name": name}, sync_ms=math.inf, segment_bytes=1000)
        for n in range(20):
            write(journal, EVENTS, 3, n + (name == "k"))
        journal.close()
    one, other = tmp_path / "j", tmp_path / "k"
    kept = (one / "000002.tape").read_bytes()
    (one / "000002.tape").unlink()
    with pytest.raises(JournalError, match=r"000002.tape is missing"):
        read(one)
    for wrong in ((other / "000002.tape").read_bytes(), kept.replace(b'"name": "j"', b'"name": "x"')):
        (one / "000002.tape").write_bytes(wrong)
        with pytest.raises(JournalError, match=r"000002.tape (does not follow|is damaged at offset 0)"):
            read(one)
    (one / "000002.tape").write_bytes(kept[:-64])
    with pytest.raises(JournalError, match=r"000002.tape is (cut off|damaged) at offset"):
        read(one)
    (one / "000002.tape").write_bytes(kept)
    assert len(read(one)[1]) == 20


def test_what_is_no_journal(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"holds no journal; name the directory that has 000000.tape"):
        Journal(tmp_path)
    small(tmp_path / "j")
    with pytest.raises(JournalError, match=r"There is a journal j in .* already"):
        JournalWriter(tmp_path / "j", HEADER)


STOPS = [pytest.param(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), id="full disk"),
         pytest.param(KeyboardInterrupt(), id="Ctrl-C")]  # fmt: skip


@pytest.mark.parametrize("error", STOPS)
@pytest.mark.parametrize("call", range(1, 8))
def test_a_stopped_write_leaves_what_was_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int, error: BaseException
) -> None:
    journal = JournalWriter(tmp_path / "j", HEADER, sync_ms=math.inf)
    fail_at(monkeypatch, writer.os, "pwritev", call, error)
    for n, (kind, count) in enumerate(SMALL):
        if n != call - 1:
            write(journal, kind, count, n)
            continue
        if isinstance(error, OSError):
            with pytest.raises(JournalError, match=r"journal j: the disk is full.*before is whole.*Make room"):
                write(journal, kind, count, n)
            if kind in (ORDERS, REFUSALS):  # the kernel has gone on, and events behind it would not be its
                with pytest.raises(JournalError, match="open it again"):
                    write(journal, EVENTS, 1, n)
                break
            write(journal, kind, count, n)  # there is room again
        else:
            with pytest.raises(KeyboardInterrupt):
                write(journal, kind, count, n)
            with pytest.raises(JournalError, match="a write of it was interrupted; open it again"):
                write(journal, kind, count, n)
            break
    journal.close()
    found, said = read(tmp_path / "j")
    assert [kind for kind, _, _ in said] == [
        kind for kind, _ in SMALL[: call - 1 if call and not said[call - 1 :] else 9]
    ]
    assert not found.torn


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """The system's own limit on the size of a file stands for the full disk: the same refusal by the same call."""
    resource = pytest.importorskip("resource")
    import signal

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    journal = JournalWriter(tmp_path / "j", HEADER, sync_ms=math.inf)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(JournalError, match="the disk is full"):
            for n in range(100):
                write(journal, EVENTS, 3, n)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    kept, (found, said) = journal.place, read(tmp_path / "j")
    assert found.place == kept and not found.torn and 0 < len(said) < 10
    write(journal, EVENTS, 3, len(said))
    journal.seal()
    assert len(read(tmp_path / "j")[1]) == len(said) + 1


@pytest.mark.parametrize(("sync_ms", "wanted"), [(0.0, 3), (math.inf, 0), (1e6, 0), (1e-6, 3)])
def test_orders_are_on_the_disk_before_they_are_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync_ms: float, wanted: int
) -> None:
    journal, synced = JournalWriter(tmp_path / "j", HEADER, sync_ms=sync_ms), []
    monkeypatch.setattr(writer.os, "fdatasync", synced.append)
    for n in range(3):
        write(journal, EVENTS, 1, n)
        assert len(synced) == min(n, wanted)
        write(journal, ORDERS, 1, n)
    assert len(synced) == wanted


def test_snapshots_are_whole_or_not_used(tmp_path: Path) -> None:
    places = small(tmp_path / "j")
    for place in (places[2], places[5]):
        save(tmp_path / "j", Snapshot(place, {"reloads": {}}, b"state" * 20))
    newest, older = newest_first(tmp_path / "j")
    assert load(newest) == Snapshot(places[5], {"reloads": {}}, b"state" * 20)
    whole = newest.read_bytes()
    for at in range(len(whole)):
        newest.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert load(newest) is None
        newest.write_bytes(whole[:at])
        assert load(newest) is None
    found = load(older)
    assert found is not None and found.place == places[2]

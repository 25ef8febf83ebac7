"""An import and a tape complete or leave nothing, whatever stops them and wherever."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.errors import ConfigError, DataError
from engine.store import dataset, files, import_bars, job, open_tape, synthetic_frame, tape, write_synthetic_tape
from tests.store.conftest import left_in

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
STOPS = [
    pytest.param(FULL, DataError, id="full disk"),
    pytest.param(KeyboardInterrupt(), KeyboardInterrupt, id="Ctrl-C"),
]


def fail_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int, error: BaseException) -> None:
    """Let the `call`-th call of a function write nothing more and raise."""
    real: Callable[..., Any] = getattr(owner, name)
    count = 0

    def failing(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == call:
            raise error
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, failing)


# Where an import of two instruments can be hit: its parts, hashes, manifest, syncs, and the rename itself.
POINTS = [(job, "write_parquet", 1), (job, "write_parquet", 2), (dataset, "file_hash", 1), (Path, "write_text", 1),
          (Path, "write_text", 2), (files, "sync", 1), (files, "sync", 4), (Path, "rename", 1)]  # fmt: skip


TAPE_POINTS = [(tape.TapeWriter, "append", 1), (files, "sync", 1), (Path, "replace", 1), (dataset.merge, "to_bytes", 2)]


@pytest.mark.parametrize(("error", "seen"), STOPS)
@pytest.mark.parametrize(("owner", "name", "call"), POINTS)
def test_a_stopped_import_leaves_nothing(
    places: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int,
    error: BaseException, seen: type[BaseException],
) -> None:  # fmt: skip
    frame = synthetic_frame(50, 2)
    with monkeypatch.context() as patch:
        fail_at(patch, owner, name, call, error)
        with pytest.raises(seen) as caught:
            import_bars(frame, "x")
    assert left_in(places / "data") == []
    if seen is DataError:
        assert "disk is full; nothing was left behind" in str(caught.value)
    import_bars(frame, "x")
    assert len(open_tape("x")) == 100


@pytest.mark.parametrize(("error", "seen"), STOPS)
@pytest.mark.parametrize(("owner", "name", "call"), [*POINTS, (Path, "rename", 2)])
def test_a_stopped_overwrite_keeps_the_old(
    places: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int,
    error: BaseException, seen: type[BaseException],
) -> None:  # fmt: skip
    import_bars(synthetic_frame(20, 1), "x")
    before, names = open_tape("x").digest, left_in(places / "data")
    with pytest.raises(DataError, match="already exists; choose another name or pass overwrite=True"):
        import_bars(synthetic_frame(50, 2), "x")
    with monkeypatch.context() as patch:
        fail_at(patch, owner, name, call, error)
        with pytest.raises(seen):
            import_bars(synthetic_frame(50, 2), "x", overwrite=True)
    assert left_in(places / "data") == names
    assert open_tape("x").digest == before
    import_bars(synthetic_frame(50, 2), "x", overwrite=True)
    assert len(open_tape("x")) == 100


@pytest.mark.parametrize(("error", "seen"), STOPS)
@pytest.mark.parametrize(("owner", "name", "call"), TAPE_POINTS)
def test_a_stopped_tape_leaves_nothing(
    places: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int,
    error: BaseException, seen: type[BaseException],
) -> None:  # fmt: skip
    import_bars(synthetic_frame(50, 2), "x")
    with monkeypatch.context() as patch:
        fail_at(patch, owner, name, call, error)
        with pytest.raises(seen):
            open_tape("x")
    assert [n for n in left_in(places / "cache" / "tapes") if not n.endswith(".seen.json")] == []
    assert len(open_tape("x")) == 100


def test_a_disk_that_is_really_full(places: Path) -> None:
    """The system's own limit on the size of a file stands for the full disk: the same refusal by the same call."""
    resource = pytest.importorskip("resource")
    import signal

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(DataError, match="nothing was left behind"):
            write_synthetic_tape(places / "big.tape", 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert left_in(places) == []


def test_a_reader_that_fails_half_way(places: Path) -> None:
    def frames() -> list[pl.DataFrame]:
        return [synthetic_frame(10), synthetic_frame(10).drop("close")]

    with pytest.raises(DataError, match="no column close"):
        import_bars(frames(), "x")
    assert left_in(places / "data") == []


def test_an_unwritable_cache(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_bars(synthetic_frame(10), "x")
    (places / "file").write_text("not a directory")
    monkeypatch.setenv("TANDEM_CACHE", str(places / "file"))
    with pytest.raises(ConfigError, match=r"cache directory .*file.* cannot be written .*set TANDEM_CACHE"):
        open_tape("x")


def test_a_damaged_cached_tape_is_built_again(places: Path) -> None:
    import_bars(synthetic_frame(100, 2), "x")
    want = open_tape("x")
    good = bytes(tape.to_bytes(want.events))
    (path,) = (places / "cache" / "tapes").glob("*.tape")
    whole = path.read_bytes()
    for damage in (b"", whole[:20], whole[:-64], b"X" + whole[1:], whole[:40] + b"?" + whole[41:]):
        path.write_bytes(damage)
        with pytest.raises(DataError, match="tape"):
            tape.read_tape(path)
        path.write_bytes(damage)
        assert bytes(tape.to_bytes(open_tape("x").events)) == good
        assert path.read_bytes() == whole


def test_a_tape_refuses_time_that_runs_backwards(tmp_path: Path) -> None:
    events = tape.blank(3)
    events["recv"] = [1, 3, 2]
    with pytest.raises(DataError, match="go back in time"), tape.write_tape(tmp_path / "t", (), "d", "n") as writer:
        writer.append(events)
    assert left_in(tmp_path) == []

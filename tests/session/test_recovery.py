"""A restart: the newest sound snapshot and the tail, whatever became of either; and mode=replay as a user sees it."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.errors import JournalError
from engine.journal import Journal, JournalWriter
from engine.journal.format import ORDERS
from engine.journal.snapshots import newest_first
from engine.modes import Replay, run_replay
from engine.recovery import instructions, recover
from engine.session import Session
from engine.session_loop import PROGRAM
from tests.session.test_session import CLASSES, Run, Steps, bar


def left(folder: Path, every: int = 4, bars: int = 10) -> bytes:
    """A session that dies after some bars, with a snapshot every so many; the state it had."""
    run = Run(folder, Steps)
    run.session.snapshot_every = every
    run.bars(*range(1, bars + 1))
    run.session.journal.close()  # type: ignore[union-attr]
    return run.session.state()


def test_from_the_newest_snapshot(tmp_path: Path) -> None:
    state = left(tmp_path / "j")
    assert [path.stem[-2:] for path in newest_first(tmp_path / "j")] == ["08", "04"]
    back = recover(tmp_path / "j", CLASSES.__getitem__)
    assert back.session.state() == state and back.start.events == 8 and back.notes == []
    assert len(back.session.advance(bar(11))) == 1 and back.session.machine.state(0).n == 11


@pytest.mark.parametrize("damage", ["flip", "cut", "ahead"])
def test_a_snapshot_that_is_not_sound_is_passed_over(tmp_path: Path, damage: str) -> None:
    state, newest = left(tmp_path / "j"), newest_first(tmp_path / "j")[0]
    whole = newest.read_bytes()
    if damage == "flip":
        newest.write_bytes(whole[:300] + bytes([whole[300] ^ 1]) + whole[301:])
    elif damage == "cut":
        newest.write_bytes(whole[:-1])
    else:  # the end of the journal was lost, the snapshot behind it was not
        path = tmp_path / "j" / "000000.tape"
        path.write_bytes(path.read_bytes()[: -11 * 64])
    back = recover(tmp_path / "j", CLASSES.__getitem__)
    assert back.start.events == 4 and "snapshot-000000000008.bin is damaged, or ahead of the journal" in back.notes[0]
    assert (back.session.state() == state) == (damage != "ahead")


def test_orders_that_were_not_written_are_written(tmp_path: Path) -> None:
    left(tmp_path / "j", every=0)
    path = tmp_path / "j" / "000000.tape"
    path.write_bytes(path.read_bytes()[:-100])
    back = recover(tmp_path / "j", CLASSES.__getitem__)
    assert "is not whole" in back.notes[0] and "1 orders of the last events had not been written" in back.notes[1]
    orders = Journal(tmp_path / "j").rows(ORDERS)
    assert len(orders) == 10
    found = instructions(Journal(tmp_path / "j"), orders["id"][:3].tolist(), back.journal.place)
    assert sorted(found) == sorted(orders["id"][:3].tolist())


WRITES = """
import pathlib, sys, time
from engine.journal import JournalWriter
writer = JournalWriter(pathlib.Path(sys.argv[1]), {"session": 1})
print("writes", flush=True)
time.sleep(60)
"""


def test_one_writer_at_a_time(tmp_path: Path, root: Path) -> None:
    """The second refuses, in this process or another; reading is for all; a writer that is killed holds nothing."""
    with subprocess.Popen([sys.executable, "-c", WRITES, str(tmp_path / "k")], stdout=subprocess.PIPE, cwd=root) as one:
        assert one.stdout is not None and one.stdout.readline() == b"writes\n"
        said = rf"journal k in {tmp_path}/k is being written by process {one.pid}:.*End that one first"
        with pytest.raises(JournalError, match=said):
            JournalWriter(tmp_path / "k", {"session": 1})
        assert Journal(tmp_path / "k").header["session"] == 1
        one.kill()
    run = Run(tmp_path / "j", Steps)
    run.bars(1)
    for _ in range(2):
        with pytest.raises(JournalError, match=f"process {os.getpid()}"):
            recover(tmp_path / "j", CLASSES.__getitem__)
    run.session.journal.close()  # type: ignore[union-attr]
    back = recover(tmp_path / "j", CLASSES.__getitem__)
    back.session.journal.seal()  # type: ignore[union-attr]
    recover(tmp_path / "j", CLASSES.__getitem__)


def test_a_kernel_that_does_not_agree_is_not_taken(tmp_path: Path) -> None:
    run = Run(tmp_path / "j", Steps)
    run.bars(1, 2)
    journal = run.session.journal
    assert journal is not None
    wrong = np.array(Journal(tmp_path / "j").rows(ORDERS)[:1])
    wrong["qty"] = 77
    journal.orders(wrong)
    journal.close()
    with pytest.raises(JournalError, match=r"journal j and the kernel do not agree.*order 2.*tandem mode=replay"):
        recover(tmp_path / "j", CLASSES.__getitem__)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints the outcome, and its status is 1 for a difference."""
    from tests.session.test_session import plan

    made = plan(Steps)
    named = type(made)(**{**vars(made), "names": ("tests.session.test_session:Steps",)})
    journal = JournalWriter(tmp_path / "j", named.header(PROGRAM), sync_ms=math.inf)
    session = Session(named.machine(), journal, compiled=False)
    for second in range(1, 4):
        session.advance(bar(second))
    settings = Replay(journal=str(tmp_path / "j"))
    assert run_replay(settings, str) == 0 and capsys.readouterr().out == "identical: 3 events, 3 orders\n"
    extra = np.array(Journal(tmp_path / "j").rows(ORDERS)[:1])
    journal.orders(extra)
    journal.seal()
    assert run_replay(settings, str) == 1 and "did not come again. Before it: event" in capsys.readouterr().out

"""The demo: its parts fail in words, and the whole trades, ends in good order and replays."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import WireError
from engine.live import demo
from engine.live.demo import Child
from tests.live.conftest import need


@pytest.fixture
def env(root: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(root)}


@pytest.fixture
def child(tmp_path: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Child]:
    """A process that says what it does and ends with an error when it is told to."""
    text = "import signal,sys,time\nsignal.signal(15, lambda *_: sys.exit('it broke'))\nprint('Ready', flush=True)\n"
    monkeypatch.setattr(demo, "TANDEM", (sys.executable, "-c", text + "time.sleep(60)"))
    found = Child(tmp_path, env, "mode=venue", "data=a b")
    yield found
    found.kill()


def test_a_part_that_fails_is_told_with_its_log(child: Child, tmp_path: Path) -> None:
    assert child.wait_for(r"Re(\w+)")[1] == "ady"
    assert child.said().startswith("$ tandem mode=venue 'data=a b'\n")
    child.check()
    with pytest.raises(WireError, match=r"mode=venue has ended \(1\): it broke See .*venue\.log\."):
        child.end()
    with pytest.raises(WireError, match="has ended"):
        child.wait_for("what it never says")


def test_a_part_that_hangs_is_told(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    child.wait_for("Ready")
    monkeypatch.setattr(demo, "BEGIN_S", 0.2)
    with pytest.raises(WireError, match=r"did not come up in 0\.2 s"):
        child.wait_for("what it never says")
    child.process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(demo, "END_S", 0.2)
    with pytest.raises(WireError, match=r"did not end within 0\.2 s"):
        child.end()


def test_that_a_part_compiles_is_passed_on_once(child: Child, capsys: pytest.CaptureFixture[str],
                                                monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    child.wait_for("Ready")
    with child.log.open("a", encoding="utf-8") as log:
        log.write("tandem: compiling the venue program once for this machine, up to a minute ...\n")
    monkeypatch.setattr(demo, "BEGIN_S", 0.2)
    for _ in range(2):
        with pytest.raises(WireError, match="did not come up"):
            child.wait_for("what it never says")
    assert capsys.readouterr().err.count("tandem: compiling the venue program") == 1


@pytest.mark.slow
@pytest.mark.parametrize("interrupted", [False, True])
def test_the_demo(tmp_path: Path, env: dict[str, str], interrupted: bool) -> None:
    """From servers to replay, to its time or to Ctrl-C."""
    need("redis-server")
    need("nats-server")
    command = [sys.executable, "-m", "engine.app", "mode=demo", f"seconds={600 if interrupted else 10}", "speed=100"]
    with (tmp_path / "said").open("w") as out:
        run = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=out, stderr=out, start_new_session=True)
    if interrupted:
        until = time.monotonic() + 300
        while "\nData  " not in (tmp_path / "said").read_text() and run.poll() is None and time.monotonic() < until:
            time.sleep(0.2)
        time.sleep(5)
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does: all that belong to it
    code, said = run.wait(400), (tmp_path / "said").read_text()
    assert code == 0 and "Traceback" not in said, said
    assert not interrupted or "Stopped after" in said
    same = re.search(r"^Replay   identical: ([\d,]+) events, ([\d,]+) orders$", said, re.MULTILINE)
    assert same and int(same[2].replace(",", "")) > 0, said
    figures = {name: text.split() for name, text in re.findall(r"^(Orders|Fills) +(.*)$", said, re.MULTILINE)}
    assert int(figures["Fills"][0].replace(",", "")) > 0 and len(figures["Orders"]) == 2
    (journal,) = re.findall(r"^Journal  (.*)$", said, re.MULTILINE)
    assert (tmp_path / journal / "000000.tape").is_file()
    for log in (tmp_path / journal).parents[2].glob("*.log"):
        assert "Traceback" not in log.read_text(), log.read_text()

"""What only a process of its own can show: Ctrl-C, a full disk, a closed pipe, and what a warm start imports."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from engine.tracking_ui import _end_group
from tests.app.words import QUICK

HEAVY = ("numba", "polars", "mlflow", "plotly", "matplotlib", "scipy", "pandas", "exchange_calendars", "tqdm")


def left(place: Path) -> set[str]:
    """What lies in the outputs, hidden parts included."""
    return {p.name for p in (place / "outputs").iterdir()} if (place / "outputs").exists() else set()


@pytest.mark.parametrize("what", [[], ["strategy=market_making", "data=ticks"]])
def test_a_warm_run_imports_nothing_heavy(what: list[str], tandem: Any, place: Path, root: Path) -> None:
    assert not what or tandem("mode=backtest", *what, *QUICK).code == 0
    words = ["mode=backtest", *what, *QUICK]
    code = ("import json, sys\nfrom engine.app import main\n"
            f"assert main({words}) == 0\nprint(json.dumps(sorted(sys.modules)))")  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], cwd=place, env=env, capture_output=True, text=True, check=True)
    modules = set(json.loads(done.stdout.splitlines()[-1]))
    assert "hydra" in modules and "numpy" in modules
    assert not modules & set(HEAVY)


def test_ctrl_c_while_writing(process: Any, place: Path) -> None:
    with process("mode=backtest", "track=false") as running:
        until = time.monotonic() + 60
        while not left(place) and running.poll() is None and time.monotonic() < until:
            time.sleep(0.001)
        assert running.poll() is None, "the run ended before it could be interrupted"
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert err.strip() == "tandem: interrupted; nothing half-written was left behind."
    assert left(place) == set()


@pytest.mark.slow
def test_ctrl_c_in_a_loop_without_an_end(process: Any, tandem: Any, place: Path) -> None:
    """Compiled code hears no signal: the process ends all the same."""
    text = "from engine.kernel.strategy import Strategy\n\n\nclass Stuck(Strategy):\n    n: int\n\n"
    text += "    def on_bar(self, bar, ctx):\n        while ctx.now > 0:\n            self.n += 1\n"
    (place / "stuck.py").write_text(text, encoding="utf-8")
    assert tandem("mode=compile", "programs=[backtest]", "strategies=[stuck.py:Stuck]").code == 0
    with process("mode=backtest", "strategy=stuck.py:Stuck", "track=false") as running:
        until, taken = time.monotonic() + 60, 0.0
        while time.monotonic() < until and taken < 6.0:  # a start takes two at most
            time.sleep(0.05)
            words = Path(f"/proc/{running.pid}/stat").read_text().rpartition(")")[2].split()
            taken = int(words[11]) / os.sysconf("SC_CLK_TCK")
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "a handler did not return" in err
    assert left(place) == set()


def test_a_full_disk(process: Any, place: Path) -> None:
    """A limit on the size of a file stands for a disk without room: the report does not fit, so nothing stays."""
    room = 100_000

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    with process("mode=backtest", "track=false", preexec_fn=limit) as running:
        out, err = running.communicate(timeout=60)
    assert running.returncode == 2, err
    assert "Total return" in out
    assert err.startswith("tandem: ") and "outputs" in err and "nothing was left behind" in err
    assert "Traceback" not in err
    assert left(place) == set()


def test_a_closed_pipe(process: Any) -> None:
    with process("--help") as running:
        running.stdout.close()
        err = running.stderr.read()
        running.wait(timeout=60)
    assert running.returncode == 141 and err == ""


def group(leader: int) -> list[int]:
    """The processes of a group that still run; those that nobody has buried yet do not count."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, rest = stat.read_text().rpartition(") ")
        except OSError:  # it has ended in this moment
            continue
        state, _, pgid, *_ = rest.split()
        if int(pgid) == leader and state != "Z":
            found.append(int(stat.parent.name))
    return found


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="groups of processes are read from /proc")


@needs_proc
@pytest.mark.parametrize("deaf", ["", "trap '' TERM; "])
def test_the_end_of_a_group_is_the_end_of_its_children(deaf: str) -> None:
    words = f"{deaf}sleep 60 & sleep 60 & echo there; wait"
    with subprocess.Popen(["sh", "-c", words], start_new_session=True, stdout=subprocess.PIPE) as leader:
        assert leader.stdout and leader.stdout.readline() == b"there\n"
        assert len(group(leader.pid)) == 3
        _end_group(leader, 0.5)
        assert group(leader.pid) == [] and leader.returncode is not None


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("word", [signal.SIGTERM, signal.SIGINT])
def test_the_ui_leaves_nobody_behind(process: Any, word: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with process("mode=ui", f"port={port}") as running:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert running.poll() is None, "the UI ended by itself"
            time.sleep(0.2)
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        (leader,) = (int(child) for child in children)
        assert len(group(leader)) >= 2
        running.send_signal(word)
        assert running.wait(timeout=60) == 0
    assert group(leader) == []

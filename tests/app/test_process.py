"""What only a process of its own can show: Ctrl-C, a full disk, a closed pipe, and what a warm start imports."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

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

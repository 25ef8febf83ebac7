"""What a user may get wrong at the command line: each answer is one paragraph with the cure, and no traceback."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backtest import backtest
from engine.config import VenueModel
from engine.errors import ConfigError
from strategies import Momentum
from tests.app.words import QUICK, Said

Tandem = Callable[..., Said]

# words of the command, and what the answer must contain
WRONG: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    (("strategy=momentum",), ("Name a mode", "mode=backtest", "import", "ui")),
    (("mode=bakctest",), ("'bakctest'", "Did you mean backtest?", "import")),
    (
        ("mode=backtest", "strategy=momentun"),
        ("'momentun'", "Did you mean momentum?", "rsi_reversion", "file.py:Class"),
    ),
    (("mode=backtest", "strategy.fsat=3"), ("fsat", "Did you mean fast?", "slow")),
    (("mode=backtest", "strategy.fast=0"), ("fast must be >= 1 and <= 500, got 0",)),
    (("mode=backtest", "strategy.fast=50"), ("fast must be below slow", "fast=50", "slow=50")),
    (("mode=backtest", "strategy.fast=abc"), ("fast must be an integer", "'abc'")),
    (("mode=backtest", "data=equites"), ("'equites'", "Did you mean equities?")),
    (("mode=backtest", "data=nowhere/bars.csv"), ("nowhere/bars.csv",)),
    (("mode=backtest", "instruments=APPL"), ("'APPL'", "Did you mean AAPL?", "MSFT")),
    (("mode=backtest", "start=2010-01-01", "end=2005-01-01"), ("start=2010-01-01 is not before end=2005-01-01",)),
    (("mode=backtest", "start=2010-01-01", "end=2010-01-01"), ("is not before",)),
    (("mode=backtest", "start=2040-01-01"), ("no events", "2013-03-01")),
    (("mode=backtest", "start=yesterday"), ("'yesterday' is not a date",)),
    (("mode=backtest", "risk=cautios"), ("'cautios'", "Did you mean cautious?", "margin")),
    (("mode=backtest", "risk.levrage=2"), ("'risk.levrage'", "Did you mean risk.leverage?", "drawdown")),
    (("mode=backtest", "risk.leverage=0"), ("risk.leverage must be > 0, got 0.0",)),
    (("mode=backtest", "risk.leverage=much"), ("risk.leverage must be a number", "'much'")),
    (("mode=backtest", "risk.breach={drawdwn: halt}"), ("'drawdwn'", "Did you mean drawdown?")),
    (("mode=backtest", "risk.breach={drawdown: stop}"), ("'stop'", "refuse, cancel, flatten, halt")),
    (("mode=backtest", "risk.allow=[APPL]"), ("risk.allow", "APPL", "AAPL")),
    (("mode=backtest", "venue.participation=2"), ("venue.participation must be >= 0 and <= 1, got 2.0",)),
    (("mode=backtest", "data.label=middle"), ("data.label", "'middle'", "start, end")),
    (("mode=backtest", "cahs=3"), ("'cahs'", "Did you mean cash?", "venue")),
    (("mode=backtest", "cash=0"), ("cash must be > 0, got 0.0",)),
    (("mode=backtest", "track=maybe"), ("track must be true or false, got 'maybe'",)),
    (("mode=backtest", "strategy.fast=1,2"), ("sweep", "[a,b]")),
    (("mode=backtest", "cash=(1"), ("'cash=(1' cannot be read",)),
    (("mode=backtest", "cash=${nothing}"), ("'nothing' not found",)),
    (("mode=backtest", "fast"), ("'fast' is no setting", "key=value")),
    (("mode=backtest", "--confg=job"), ("'--confg=job' is no setting",)),
    (("mode=backtest", "--cfg", "jobs"), ("--cfg takes one of job, hydra, all",)),
    (("mode=backtest", "data=custom"), ("data.source is missing",)),
    (("mode=backtest", "strategy=custom"), ("neither name nor path",)),
    (("mode=backtest", "strategy=nothing.py:X"), ("nothing.py: there is no such file",)),
    (("mode=backtest", "strategy=ideas.py:Breakuot"), ("'Breakuot'", "Did you mean Breakout?")),
    (("mode=backtest", "strategy=ideas.py:Breakout", "strategy.length=1"), ("length must be >= 2 and <= 500, got 1",)),
    (("mode=import", "name=mine"), ("sources=bars.csv name=mine",)),
    (("mode=import", "sources=none.csv", "name=mine"), ("none.csv does not exist",)),
    (("mode=import", "sources=ideas.py", "name=a/b"), ("'a/b'", "without slashes")),
    (
        ("mode=import", "sources=ideas.py", "name=x", "timezone=New_York"),
        ("timezone", "Did you mean America/New_York?"),
    ),
    (("mode=backtest", "data=ideas.py", "data.timezone=Berlin"), ("timezone", "Did you mean Europe/Berlin?")),
    (("mode=import", "soruces=a.csv"), ("'soruces'", "Did you mean sources?")),
    (("mode=compile", "strategies=[momentun]"), ("'momentun'", "Did you mean momentum?")),
    (("mode=compile", "programs=[sesion]"), ("no program 'sesion'; there are ", "session", "gate")),
    (("mode=ui", "port=0"), ("port must be > 0",)),
    (("mode=publish", "url=redis://127.0.0.1:1", "data=equities"), ("Redis at redis://127.0.0.1:1 is not reachable",)),
    (("mode=publish", "url=http://x", "data=equities"), ("write redis://host:port",)),
    (("mode=publish", "rate=5", "speed=2"), ("speed and rate exclude each other",)),
    (("mode=publish", "encoding=xml"), ("value of encoding 'xml'", "raw, pb, json")),
    (("mode=venue", "feed.jmp=1"), ("'feed.jmp'", "Did you mean feed.jump?")),
    (("mode=venue", "data=equities", "execution.account=a.b"), ("account='a.b'", "letters, digits")),
    (("mode=check", "data=equites"), ("'equites'", "Did you mean equities?")),
    (("mode=check", "data.sorce=x"), ("'data.sorce'", "Did you mean data.source?")),
    (("mode=check", "risk=cautious"), ("Unknown key 'risk'. ", "There are strategy, data, events")),
    (("mode=compile", "strategy=momentum"), ("'strategy'", "Did you mean strategies?")),
]


@pytest.mark.parametrize(("words", "parts"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_wrong_words(tandem: Tandem, words: tuple[str, ...], parts: tuple[str, ...]) -> None:
    said = tandem(*(QUICK if "mode=backtest" in words else ()), *words)
    assert said.code == 2, said
    assert said.out == ""
    assert said.err.startswith("tandem: ") and said.err.count("\n") <= 2 and len(said.err) < 900
    assert "Traceback" not in said.err and "hydra.cc" not in said.err
    missing = [part for part in parts if part not in said.err]
    assert not missing, said.err


BAD_FILES = {
    "syntax": ("class Broken(:\n    pass\n", ("line 1", "class Broken(:")),
    "import": ("import no_such_module\n", ("line 1", "ModuleNotFoundError", "no_such_module")),
    "nothing": ("x = 1\n", ("no strategies", "There are none")),
    "no handler": (
        "from engine.kernel.strategy import Strategy, param\n\n\nclass Idle(Strategy):\n    n: int = param(1)\n",
        ("Idle", "no handler", "on_bar"),
    ),
    "own __init__": (
        "from engine.kernel.strategy import Strategy, param\n\n\nclass Mine(Strategy):\n    n: int = param(1)\n\n"
        "    def __init__(self, n=3):\n        self.n = n\n\n    def on_bar(self, bar, ctx):\n        pass\n",
        ("wrong.py:4", "Mine.__init__", "declared with param()", "validate(self)"),
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_strategy_files(tandem: Tandem, place: Path, case: str) -> None:
    text, parts = BAD_FILES[case]
    (place / "wrong.py").write_text(text)
    said = tandem("mode=backtest", "strategy=wrong.py", *QUICK)
    assert said.code == 2 and "Traceback" not in said.err, said
    assert not [part for part in ("wrong.py" if case != "no handler" else "Idle", *parts) if part not in said.err], (
        said.err
    )


def test_the_port_of_the_ui_is_taken(tandem: Tandem) -> None:
    """Said before a URL is shown and MLflow starts."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = tandem("mode=ui", f"port={port}")
    assert said.code == 2 and said.out == ""
    assert f"port={port} cannot be had" in said.err and "tandem mode=ui port=" in said.err


@pytest.mark.parametrize("given", ["cautious", {"leverage": 2}, VenueModel()], ids=["name", "dict", "venue"])
def test_a_risk_that_is_no_risk_in_python(given: Any) -> None:
    """Presets are words of the command line; here the class, or single fields."""
    with pytest.raises(ConfigError, match=r"risk must be a Risk, such as risk=Risk\(leverage=…, .*conf/risk belong"):
        backtest(Momentum(), "equities", risk=given)
    with pytest.raises(ConfigError, match="venue must be a VenueModel"):
        backtest(Momentum(), "equities", venue="retail")  # type: ignore[arg-type]


def test_two_strategies_in_a_file(tandem: Tandem, place: Path) -> None:
    with (place / "ideas.py").open("a") as file:
        file.write("\n\nclass Other(Breakout):\n    pass\n")
    said = tandem("mode=backtest", "strategy=ideas.py", *QUICK)
    assert said.code == 2 and "ideas.py:Class" in said.err and "Breakout, Other" in said.err


BAD_BARS = {
    "empty.csv": (b"", ("empty.csv", "empty")),
    "header.csv": (b"time,open,high,low,close,volume\n", ("header.csv",)),
    "lacking.csv": (b"time,open,high,low,volume\n2020-01-01,1,2,1,3\n", ("lacking.csv", "close")),
    "torn.parquet": (b"PAR1 and then nothing", ("torn.parquet", "damaged")),
}


@pytest.mark.parametrize("name", BAD_BARS)
def test_data_files(tandem: Tandem, place: Path, name: str) -> None:
    content, parts = BAD_BARS[name]
    (place / name).write_bytes(content)
    said = tandem("mode=backtest", f"data={name}", *QUICK)
    assert said.code == 2 and "Traceback" not in said.err, said
    assert not [part for part in parts if part not in said.err], said.err


def test_fault_in_a_handler(tandem: Tandem, place: Path) -> None:
    """The user sees the traceback of the own line, not ours."""
    (place / "faulty.py").write_text(
        "from engine.kernel.strategy import Strategy, param\n\n\nclass Faulty(Strategy):\n    n: int = param(3, ge=0)\n"
        "    seen: int\n\n    def on_bar(self, bar, ctx):\n        self.seen += 1\n"
        "        ctx.target(1.0 / (self.n - self.seen))\n"
    )
    said = tandem("mode=backtest", "strategy=faulty.py:Faulty", *QUICK)
    assert said.code == 2
    assert "ZeroDivisionError" in said.err and "faulty.py" in said.err and "self.n - self.seen" in said.err
    assert "seen=2" in said.err


def test_cache_that_cannot_be_written(process: Any, place: Path) -> None:
    (place / "file").write_text("")
    with process("mode=backtest", *QUICK, env={"TANDEM_CACHE": str(place / "file")}) as running:
        out, err = running.communicate(timeout=60)
    assert running.returncode == 2 and out == ""
    assert err.startswith("tandem: ") and str(place / "file") in err and "set TANDEM_CACHE" in err
    assert "Traceback" not in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_output_that_cannot_be_written(tandem: Tandem, place: Path) -> None:
    (place / "outputs").mkdir(mode=0o500)
    said = tandem("mode=backtest", "track=false")
    assert said.code == 2 and "cannot be written" in said.err


def test_output_below_a_file(tandem: Tandem, place: Path) -> None:
    (place / "outputs").write_text("")
    said = tandem("mode=backtest", "track=false")
    assert said.code == 2 and "outputs" in said.err and "Traceback" not in said.err
    assert "Total return" in said.out  # the figures were there already


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("leverage: [\n", ("default.yaml, line 2", "no YAML", "key: value")),
        ("\tleverage: 3\n", ("default.yaml, line 1", "no YAML")),
        ("leverage 3\n", ("'risk.leverage 3'", "Did you mean risk.leverage?")),
        ("- leverage\n- short\n", ("risk must be a group of settings", "got ['leverage', 'short']")),
        ("leverage: ${nothing}\n", ("'nothing' not found",)),
        ("leverage: \udcff\n", ("no text in UTF-8", "write it again")),
    ],
)
def test_a_damaged_file_of_settings(tandem: Tandem, place: Path, content: str, words: tuple[str, ...]) -> None:
    (place / "conf" / "risk").mkdir(parents=True)
    (place / "conf" / "risk" / "default.yaml").write_text(content, errors="surrogateescape")
    said = tandem("mode=backtest", *QUICK)
    assert said.code == 2 and said.out == "" and not [word for word in words if word not in said.err], said.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["strategy=market_making"],
            "MarketMaking has on_quote, on_trade, on_depth, on_report, and equities holds bars",
        ),
        (["strategy=momentum", "data=ticks"], "holds quotes and trades: none of its handlers would ever run"),
    ],
)
def test_data_that_a_strategy_does_not_listen_to(tandem: Any, words: list[str], said: str) -> None:
    done = tandem("mode=backtest", "track=false", "report=false", *words)
    assert done.code == 2 and said in done.err, done.err

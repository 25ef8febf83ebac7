"""What people watch: a running engine in the terminal, from GET /status of its admin API.

Law 1: it shows what the engine says and computes nothing; when the engine does not answer, it says so and since when.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from engine.config import Settings, setting
from engine.errors import ConfigError, WireError

PLACES = ("journals/*/admin.url", "outputs/*/journals/*/admin.url")  # what a running engine leaves; the demo's, too
URL, WAIT_S = "http://127.0.0.1:8080", 3.0


@dataclass(frozen=True)
class Status(Settings):
    """Settings of mode=status."""

    url: str | None = setting(None, "of the admin API of the engine (null: of the one that runs from this directory)")
    token: str | None = setting(None, "of the admin API (null: TANDEM_TOKEN, else the file that the engine has left)")
    engine: str | None = setting(None, "its id, where several run from this directory")
    every_s: float = setting(1.0, "seconds between two looks", ge=0.1)
    once: bool = setting(False, "print it once and end; where the output is no terminal that is so anyway")


def running(engine: str | None) -> list[tuple[str, Path]]:
    """URL and token file of the engines that listen and were started from this directory."""
    found = [path for place in PLACES for path in sorted(Path().glob(place)) if engine in (None, path.parent.name)]
    said = [(path.read_text(encoding="utf-8").strip(), path.with_name("admin.token")) for path in found]
    return [(url, token) for url, token in said if listens(url)]


def listens(url: str) -> bool:
    """Whether anybody does: who was killed has left his address."""
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 80), WAIT_S).close()
    except OSError:
        return False
    return True


def place_of(settings: Status) -> tuple[str, str]:
    """URL and token: given, in the environment, or of the one engine that runs from here. Raises ConfigError."""
    given = settings.token or os.environ.get("TANDEM_TOKEN")
    if given and settings.url:
        return settings.url, given
    found = running(settings.engine)
    if settings.url:
        found = [one for one in found if one[0] == settings.url.rstrip("/")]
    if len(found) == 1:
        url, file = found[0]
        if given or file.exists():
            return url, given or file.read_text(encoding="utf-8").strip()
        raise ConfigError(f"token is missing: that of {url} was set when it was started; give it by token=…, or "
                          "TANDEM_TOKEN in the environment.")  # fmt: skip
    if found:
        several = ", ".join(f"engine={token.parent.name} url={url}" for url, token in found)
        raise ConfigError(f"several engines run from here: say which, by engine=… or url=…: {several}.")
    if given:
        return URL, given
    raise ConfigError(f"no engine runs that was started from {Path.cwd()} (no {PLACES[0]} of one that listens). Go to "
                      "its directory, or give url=… and token=… (or TANDEM_TOKEN in the environment).")  # fmt: skip


def ask(url: str, token: str) -> dict[str, Any]:
    """What the engine says. Raises WireError when nobody answers, ConfigError when the token is not the right one."""
    import http.client
    import urllib.error
    import urllib.request

    place = url.rstrip("/") + "/status"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy of the web stands before an engine
    try:
        request = urllib.request.Request(place, headers={"Authorization": f"Bearer {token}"})
        with opener.open(request, timeout=WAIT_S) as reply:
            found = json.loads(reply.read())
    except urllib.error.HTTPError as error:
        if error.code == 401:
            raise ConfigError(f"{place}: that token is not the engine's; see admin.token of its journal.") from error
        raise WireError(f"{place}: {error.code} {error.reason}.") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = getattr(error, "reason", error)
        raise WireError(f"{place}: no engine answers ({why}); is it running, and is this its admin.port?") from error
    if not isinstance(found, dict):
        raise WireError(f"{place}: that is no engine.")
    return found


def clock(ns: int) -> str:
    """The time of day in UTC."""
    return time.strftime("%H:%M:%S", time.gmtime(ns // 10**9))


def number(value: Any, digits: int = 2) -> str:
    """A number with thousands separated; a dash for none."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.{digits}f}"
    return f"{value:,}" if isinstance(value, int) else f"{value}"


def coloured(value: Any, digits: int = 2) -> Any:
    """A gain in green, a loss in red."""
    from rich.text import Text

    return Text(number(value, digits), "red" if (value or 0) < 0 else "green" if (value or 0) > 0 else "")


def grid(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], empty: str) -> Any:
    """A table whose first column is text and whose others are numbers."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, expand=True)
    for n, name in enumerate(columns):
        table.add_column(name, justify="right" if n else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell if hasattr(cell, "plain") else str(cell) for cell in row))
    if not rows:
        table.add_row(empty, style="dim")
    return table


def state_of(active: bool) -> str:
    """Whether a strategy runs, in a word."""
    return "runs" if active else "paused"


def head(now: Mapping[str, Any], silent: str) -> Any:
    """Who it is, what it may do, and whether it is well."""
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    why = list(now["readiness"])
    state, style = ("ready", "bold green") if not why else ("not ready: " + "; ".join(why), "bold yellow")
    for bad in ("killed", "halted"):
        if now[bad]:
            state, style = f"{bad.upper()}{f' ({now[bad]})' if now[bad] is not True else ''}, {state}", "bold red"
    if silent:
        state, style = silent, "bold red"
    latency, rates = now["latency"], now["rates"]
    table = Table.grid(expand=True, padding=(0, 2))
    cells = [
        ("equity", number(now["equity"])), ("cash", number(now["cash"])), ("today", coloured(now["pnl_today"])),
        ("in doubt", number(now["in_doubt"])),
        ("events/s", number(rates["events"], 1)), ("orders/s", number(rates["orders"], 1)),
        ("fills/s", number(rates["fills"], 1)), ("gaps", number(now["gaps"])),
        ("µs, p50", number(latency["p50_us"], 1)), ("µs, p99", number(latency["p99_us"], 1)),
        ("reconnects", number(now["reconnects"])), ("journal", number(now["journal"]["events"])),
    ]  # fmt: skip
    for at in range(0, len(cells), 4):
        row: list[Any] = []
        for name, value in cells[at : at + 4]:
            row += [Text(name, "dim"), value]
        table.add_row(*row)
    for n, column in enumerate(table.columns):
        column.justify = "right" if n % 2 else "left"
    title = Text.assemble((str(now["engine"]), "bold"), "  trading ", (str(now["trading"]), "bold cyan"), "  ",
                          (state, style))  # fmt: skip
    return Panel(table, title=title, title_align="left")


def view(now: Mapping[str, Any], silent: str = "") -> Any:
    """All of it, for a terminal. `silent`: since when nobody answers."""
    from rich.console import Group

    held = [(p["instrument"], number(p["qty"]), number(p["average"], 4), number(p["mark"], 4), coloured(p["pnl"]))
            for p in now["positions"]]  # fmt: skip
    running = [
        (f"{n} {s['name']}", " ".join(f"{k}={v}" for k, v in s["params"].items()), s["fault"] or state_of(s["active"]))
        for n, s in enumerate(now["strategies"])
    ]
    refused = [[clock(v) if k == "ts" else str(v) for k, v in one.items()] for one in now["refusals"][-8:][::-1]]
    names = list(now["refusals"][-1]) if now["refusals"] else ["refusals"]
    return Group(
        head(now, silent),
        grid("Positions", ("instrument", "qty", "average", "mark", "pnl"), held, "flat"),
        grid("Strategies", ("strategy", "parameters", "state"), running, "none"),
        grid("Last refusals", names, refused, "none"),
    )


def run_status(settings: Status, dump: Callable[[], str]) -> int:
    """Show an engine until Ctrl-C, or once."""
    from rich.console import Console
    from rich.live import Live

    url, token = place_of(settings)
    now, console = ask(url, token), Console()
    if settings.once or not sys.stdout.isatty():
        console.print(view(now))
        return 0
    since = ""
    try:
        with Live(view(now), console=console, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(settings.every_s)
                try:
                    now, since = ask(url, token), ""
                except WireError:
                    since = since or time.strftime("no answer since %H:%M:%S; asking again")
                live.update(view(now, since), refresh=True)
    except KeyboardInterrupt:
        return 0

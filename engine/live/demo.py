"""A whole live session on this machine, in processes of their own: servers, paper venue, publisher, engine.

Law 1: what is started here ends here, in good order: publisher, engine, venue, servers.
Law 2: nothing is shown that a user could not start by hand; each command line is in the folder, beside what it said.
"""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import WireError
from engine.live.servers import nats_server, redis_server

BEGIN_S, END_S, LOOK_S = 600.0, 30.0, 0.2  # a first start compiles; a graceful end drains; between two looks
ENGINE, TARGET = "demo", "md.demo"
TANDEM = (sys.executable, "-m", "engine.app")


class Child:
    """A mode in a process of its own; what it says goes to a file. `words`: its command line."""

    def __init__(self, folder: Path, env: Mapping[str, str], *words: str) -> None:
        self.name = words[0].partition("=")[2]
        self.told = 0  # lines about compiling that were passed on
        self.log = folder / f"{self.name}.log"
        self.log.write_text(f"$ tandem {shlex.join(words)}\n", encoding="utf-8")
        with self.log.open("ab") as out:
            # A session of its own: Ctrl-C is for us, and we end it in its turn.
            self.process = subprocess.Popen([*TANDEM, *words], stdout=out, stderr=out, env=env, start_new_session=True)

    def said(self) -> str:
        """All that it has said."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, pattern: str) -> "re.Match[str]":
        """Until it has said that; that it compiles is passed on, as nothing else is heard then.

        Raises WireError when it ends before, or does not say it in time.
        """
        until = time.monotonic() + BEGIN_S
        while not (found := re.search(pattern, said := self.said())):
            self.check()
            for line in (lines := re.findall(r"(?m)^tandem: compiling .*\n", said))[self.told :]:
                print(line, end="", file=sys.stderr, flush=True)
            self.told = len(lines)
            if time.monotonic() > until:
                raise WireError(f"mode={self.name} did not come up in {BEGIN_S:g} s; see {self.log}.")
            time.sleep(LOOK_S / 4)
        return found

    def check(self) -> None:
        """Raises WireError when it has ended with an error, or against what was meant."""
        if self.process.poll() is not None:
            last = " ".join(self.said().strip().splitlines()[-1:])
            raise WireError(f"mode={self.name} has ended ({self.process.returncode}): {last} See {self.log}.")

    def end(self) -> None:
        """End it in good order. Raises WireError when it does not, or failed at it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            raise WireError(f"mode={self.name} did not end within {END_S:g} s; see {self.log}.") from None
        if code:
            self.check()

    def kill(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@dataclass(frozen=True)
class Demo:
    """What is played: `strategy` and `data` as words of the command line, `speed` of the data, `seconds` of trading."""

    folder: Path
    strategy: Sequence[str]
    data: str
    speed: float
    seconds: float
    cash: float

    def run(self, told: Callable[[str], None]) -> Path:
        """Trade; the directory of the journal. Raises WireError when a part does not come up, or fails."""
        with (redis_server(self.folder / "redis") as redis, nats_server(self.folder / "nats") as nats,
              self.children() as start):  # fmt: skip
            told(f"Servers  {redis.url}, {nats.url}")
            data, cash = f"data={self.data}", f"cash={self.cash}"
            wires = (f"feed.url={redis.url}", f"feed.channels=[{TARGET}.*]", f"nats.url={nats.url}")
            venue = start("mode=venue", data, cash, "execution.address=127.0.0.1:0", *wires)
            address = venue.wait_for(r"paper at (\S+:\d+),")[1]
            told(f"Venue    paper, gRPC at {address}")
            engine = start("mode=live", data, cash, *self.strategy, f"engine={ENGINE}", "trading=live", *wires,
                           f"execution.address={address}", f"journal={self.folder / 'journals'}", "admin.port=0",
                           "track=false")  # fmt: skip
            admin = engine.wait_for(r"(?m)^Admin +(\S+),")[1]
            told(f"Engine   {self.strategy[0].partition('=')[2]}, trading=live, admin API at {admin}")
            token = shlex.quote(str(self.folder / "journals" / ENGINE / "admin.token"))
            here = self.folder.parents[1] == Path.cwd() and self.folder.parent.name == "outputs"
            told(f"Watch    tandem mode=status{'' if here else f' url={admin} token=$(cat {token})'}")
            publisher = start("mode=publish", data, f"url={redis.url}", f"target={TARGET}", f"speed={self.speed}",
                              "repeat=0")  # fmt: skip
            publisher.wait_for(r"(?m)^Publish ")
            told(f"Data     {self.data} at {self.speed:g} times its speed, for {self.seconds:g} s (Ctrl-C: less)")
            self.wait((venue, engine, publisher), admin)
            for one in (publisher, engine, venue):
                one.end()
            told(engine.wait_for(r"(?m)^Ended .*")[0])
        journals = sorted(path.parent for path in (self.folder / "journals").rglob("000000.tape"))
        if len(journals) != 1:
            raise WireError(f"the engine left {len(journals)} journals in {self.folder / 'journals'}; see its log.")
        return journals[0]

    @contextlib.contextmanager
    def children(self) -> Iterator[Callable[..., Child]]:
        """What starts a mode; whatever still runs at the end is killed."""
        started: list[Child] = []

        def start(*words: str) -> Child:
            started.append(Child(self.folder, os.environ, *words))
            return started[-1]

        try:
            yield start
        finally:
            for one in reversed(started):
                one.kill()

    def wait(self, parts: Sequence[Child], admin: str) -> None:
        """Until the time is over, or Ctrl-C; the status view meanwhile. Raises WireError when a part ends."""
        until, shown = time.monotonic() + self.seconds, sys.stdout.isatty()
        view = self.status(admin) if shown else None
        try:
            while time.monotonic() < until:
                for one in parts:
                    one.check()
                if not shown and time.monotonic() > until - self.seconds / 2:
                    shown, view = True, self.status(admin)  # no terminal: it is printed once
                time.sleep(LOOK_S)
        except KeyboardInterrupt:
            print(f"Stopped after {self.seconds - (until - time.monotonic()):.0f} s", flush=True)
        finally:
            if view is not None:
                view.terminate()
                view.wait()

    def status(self, admin: str) -> "subprocess.Popen[bytes]":
        """The status view, here in the terminal."""
        token = (self.folder / "journals" / ENGINE / "admin.token").read_text(encoding="utf-8").strip()
        return subprocess.Popen([*TANDEM, "mode=status", f"url={admin}"], env={**os.environ, "TANDEM_TOKEN": token})

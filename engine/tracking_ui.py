"""The tracker's own UI on a local store, served until Ctrl-C; it and its children end together."""

import os
import signal
import subprocess
import sys
import time
from tempfile import TemporaryFile
from urllib.request import urlopen

from engine import tracking_view
from engine.errors import TrackingError
from engine.tracking import SETTINGS, artifact_root, store_uri

LOG = 4_000  # bytes of what the server said last that are shown when it fails


def ui(port: int = 5000, tracking_uri: str | None = None) -> int:
    """Show the runs of a local store in a browser until Ctrl-C; return the exit status of the server.

    Raises TrackingError for a store that is a server, because that has a UI of its own.
    """
    uri = store_uri(tracking_uri)
    if uri.startswith("http"):
        raise TrackingError(f"tracker {uri}: it is a server and has its own UI; open {uri} in a browser.")
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", "127.0.0.1",
               "--port", str(port), "--workers", "1"]  # fmt: skip
    root = artifact_root(uri)
    command += ["--default-artifact-root", root] if root else []
    print("Starting the MLflow UI ...", file=sys.stderr, flush=True)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    with TemporaryFile() as log:  # every request is a line there, which nobody wants to see unless it fails
        # A group of its own, as it has children that a signal to it alone would leave alive.
        process = subprocess.Popen(command, env={**SETTINGS, **os.environ}, start_new_session=True, stdout=log,
                                   stderr=subprocess.STDOUT)  # fmt: skip
        try:
            _wait_ready(process, port)
            if process.poll() is None:  # a first experiment has number 1; the default one, 0, is empty
                print(f"MLflow UI: http://127.0.0.1:{port}/#/experiments/1/runs{tracking_view.QUERY} (Ctrl-C ends it)",
                      flush=True)  # fmt: skip
            if process.wait():
                log.seek(0)
                print(log.read()[-LOG:].decode(errors="replace"), file=sys.stderr)
            return process.returncode
        except KeyboardInterrupt:
            return 0
        finally:
            _end_group(process)
            signal.signal(signal.SIGTERM, before)


def _wait_ready(process: "subprocess.Popen[bytes]", port: int) -> None:
    """Until the server answers or has ended."""
    while process.poll() is None:
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except OSError:  # not listening yet
            time.sleep(0.1)


def _end_group(process: "subprocess.Popen[bytes]", patience_s: float = 10.0) -> None:
    """End a process that leads a group, and all the group; whoever has not gone in time is killed."""
    try:
        for word in (signal.SIGTERM, signal.SIGKILL):
            os.killpg(process.pid, word)
            until = time.monotonic() + patience_s
            while time.monotonic() < until:
                process.poll()
                os.killpg(process.pid, 0)
                time.sleep(0.05)
    except ProcessLookupError:  # nobody is left
        process.wait()

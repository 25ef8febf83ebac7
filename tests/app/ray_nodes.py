"""A sweep on two nodes of Ray on this machine, told in JSON; run by an environment that has Ray (test_executors.py).

The second node is killed in mid-sweep; then the command line meets a wrong token, Ctrl-C and a head that dies.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

from backtest import sweep as sweeps
from backtest.cluster import Ray
from backtest.work import Executor, Local
from tests.app.test_executors import sweep

SCRIPT = "import sys, backtest.sweep as s; s.LANES = 32; from engine.app import main; sys.exit(main(sys.argv[1:]))"
WORDS = ("-m", "data=equities", "strategy.fast=range(5,25)", "strategy.slow=range(30,60)", "track=false",
         "report=false", "sweep.best=0", "sweep.split=none", "executor=ray")  # fmt: skip
MEMORY = 100_000_000  # of an object store


def killed(cluster: Cluster, second: Any) -> dict[str, Any]:
    """The same sweep here and there."""
    sweeps.LANES = 4
    here = swept(Local())
    there, heard = Ray(cluster.address), list[float]()
    until = time.monotonic() + 120
    while sum(node.ready for node in there.nodes.values()) < 2 and time.monotonic() < until:
        assert swept(there).equals(here)

    def told(lanes: float) -> None:
        heard.append(lanes)
        if len(heard) == 3:
            cluster.remove_node(second, allow_graceful=False)

    found = swept(there, told=told)
    nodes = [bool(node.lost) for node in there.nodes.values()]
    there.close()
    same = found.columns == here.columns and all(
        found[name].to_numpy().tobytes() == here[name].to_numpy().tobytes() for name in here.columns
    )
    return {"same": same, "lanes": found.height, "lost": sorted(nodes), "heard": sum(heard)}


def swept(executor: Executor, **more: Any) -> Any:
    """The table of the sweep."""
    return sweep(executor=executor, **more).run()


def command(address: str, stop: Any = None, shards: int = 0, **env: str) -> tuple[int | None, int, str]:
    """The command line until it ends, disturbed when so many shards are on disk: exit status, shards left, errors."""
    words = [sys.executable, "-c", SCRIPT, *WORDS, f"executor.address={address}"]
    child = subprocess.Popen(words, env={**os.environ, **env}, text=True, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)  # fmt: skip
    while stop and kept() < shards and child.poll() is None:
        time.sleep(0.05)
    if stop:
        stop(child)
    said = child.communicate(timeout=150)[1]
    return child.returncode, kept(), said


def kept() -> int:
    """Finished shards of sweeps that are not."""
    return len(list(Path("outputs").glob(".sweeps/*/*.npz")))


def main() -> None:
    """All cases, one after another: a cluster takes seconds to start."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": MEMORY})
    second = cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
    found: dict[str, Any] = {"killed": killed(cluster, second)}
    found["token"] = command(cluster.address, RAY_AUTH_TOKEN=secrets.token_hex(32))
    found["stopped"] = command(cluster.address, lambda child: child.send_signal(signal.SIGINT), 3)
    found["dead"] = command(cluster.address, lambda child: cluster.head_node.kill_gcs_server(check_alive=False), 6)
    Path("found.json").write_text(json.dumps(found))
    cluster.shutdown()


if __name__ == "__main__":
    main()

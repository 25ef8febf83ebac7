"""Shards on the nodes of a Ray cluster: one worker for each node, all of whose cores it uses. Alone here is Ray known.

Law 1: the work, events included, goes once into Ray's object store; every node takes it from there.
Law 2: a shard that fails is tried on another node, a bounded number of times; a node whose worker died gets no more.
Law 3: whoever is no member (no token, no cluster) is told so; a cluster that dies is an error, never a wait.
"""

import os
import pickle
import socket
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backtest.sampling import Table
from backtest.work import Shard, Work
from engine.errors import ClusterError, ConfigError, TandemError

LOOK_S = 1.0  # between two looks at who is there
SILENT = 5  # looks without an answer of the head after which the cluster is dead
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


class Worker:
    """Lives on a node: makes the work anew from what the object store has, and does it."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.work: Work | None = None

    def take(self, parts: list[Any]) -> None:
        """The work of the shards that follow. Raises TandemError where it cannot be done as it was meant."""
        import ray

        head, *buffers = ray.get(parts[0])
        work: Work = pickle.loads(head, buffers=buffers)
        work.threads, self.work = self.threads, work

    def run(self, shard: Shard) -> Table:
        """The figures of a shard."""
        assert self.work is not None
        return self.work(shard)


@dataclass
class Node:
    """A node of the cluster with its worker: `has` counts works, 0 for none yet; `ready`: one arrived."""

    name: str
    worker: Any
    has: int = 0
    ready: bool = False
    lost: str = ""


@dataclass
class Job:
    """A shard, and which nodes failed at it."""

    shard: Shard
    failed: list[str] = field(default_factory=list)
    why: str = ""


class Ray:
    """The cluster at `address`. Raises ConfigError when Ray is not installed, ClusterError when nobody answers."""

    def __init__(self, address: str, attempts: int = 3, wait_s: float = 120.0) -> None:
        if os.environ.setdefault("RAY_AUTH_MODE", "token") != "token":
            raise ConfigError(f"RAY_AUTH_MODE={os.environ['RAY_AUTH_MODE']}: whoever reaches a cluster without tokens "
                              "can run code on it. Start all nodes with RAY_AUTH_MODE=token.")  # fmt: skip
        if "://" in address:
            raise ConfigError(f"executor.address={address}: this machine must be a node (ray start "
                              "--address=host:6379); give host:port of the head, or auto.")  # fmt: skip
        os.environ.update({key: os.environ.get(key, value) for key, value in QUIET.items()})
        try:
            import ray
        except ImportError as error:
            raise ConfigError("executor=ray needs Ray: pip install 'tandem[ray]', on every node.") from error
        self.ray, self.attempts, self.wait_s, self.works, self.silent = ray, attempts, wait_s, 0, 0
        if address != "auto" and not answers(address):
            raise ClusterError(f"executor.address={address}: no Ray cluster answers there. Start its head with "
                               "RAY_AUTH_MODE=token ray start --head --port=6379.")  # fmt: skip
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise ClusterError(f"executor.address={address}: Ray does not let this machine in ({first(error)}). Its "
                               "token must be the cluster's (RAY_AUTH_TOKEN or ~/.ray/auth_token), and it must be a "
                               "node: RAY_AUTH_MODE=token ray start --address=host:6379.") from error  # fmt: skip
        self.head = ray.get_runtime_context().gcs_address
        self.nodes: dict[str, Node] = {}
        self.current: Work | None = None
        self.parts: list[Any] = []
        self.busy: dict[Any, tuple[str, Job | None]] = {}

    def close(self) -> None:
        """Leave the cluster; its workers end."""
        self.ray.shutdown()

    def map(self, work: Work, shards: Iterable[Shard]) -> Iterator[tuple[Shard, Table]]:
        """Each shard with its result, in the order in which they are done."""
        fresh, again, begin = iter(shards), deque[Job](), time.monotonic()
        shard: Shard | None = next(fresh, None)
        if shard is not None:
            self._offer(work)
        while shard is not None or again or any(job for _, job in self.busy.values()):
            self._join()
            for key in self._idle():
                job = next((j for j in again if key not in j.failed), None)
                if job is not None:
                    again.remove(job)
                elif shard is not None:
                    job, shard = Job(shard), next(fresh, None)
                if job is not None:
                    self._start(key, job, self.nodes[key].worker.run.remote(job.shard))
            self._check(again, begin)
            if not self.busy:
                time.sleep(LOOK_S)
            for ref in self.ray.wait(list(self.busy), timeout=LOOK_S)[0] if self.busy else ():
                key, job = self.busy.pop(ref)
                found = self._result(ref, key, job, again)
                if job is not None and found is not None:
                    yield job.shard, found

    def _offer(self, work: Work) -> None:
        """Put a work into the object store, unless it is there."""
        if work is self.current:
            return
        buffers: list[pickle.PickleBuffer] = []
        head = pickle.dumps(work, protocol=5, buffer_callback=buffers.append)
        arrays = [np.frombuffer(b.raw(), np.uint8) for b in buffers]
        self.parts, self.current, self.works = [self.ray.put([head, *arrays])], work, self.works + 1

    def _join(self) -> None:
        """A worker on each node that is new, and the present work for each that has an older one."""
        if not answers(self.head):
            self.silent += 1
            if self.silent >= SILENT:
                raise ClusterError(f"The Ray cluster at {self.head} is dead: its head has not answered {SILENT} times.")
            time.sleep(LOOK_S)
            return
        self.silent = 0
        affine = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        for about in self.ray.nodes():
            cpus, key = int(about["Resources"].get("CPU", 0)), about["NodeID"]
            if about["Alive"] and cpus and key not in self.nodes:
                options = {"num_cpus": cpus, "scheduling_strategy": affine(key, soft=False)}
                made = self.ray.remote(Worker).options(**options).remote(cpus)
                self.nodes[key] = Node(f"{about['NodeManagerHostname']} ({key[:8]})", made)
        waiting = {key for key, _ in self.busy.values()}
        for key, node in self.nodes.items():
            if not node.lost and node.has != self.works and key not in waiting:
                node.has = self.works
                self._start(key, None, node.worker.take.remote(self.parts))

    def _start(self, key: str, job: Job | None, ref: Any) -> None:
        self.busy[ref] = key, job

    def _idle(self) -> list[str]:
        waiting = {key for key, _ in self.busy.values()}
        return [key for key, n in self.nodes.items() if not n.lost and n.has == self.works and key not in waiting]

    def _result(self, ref: Any, key: str, job: Job | None, again: deque[Job]) -> Table | None:
        """What a node made of a shard; None when it failed, which the shard and the node remember."""
        try:
            found: Table | None = self.ray.get(ref)
            self.nodes[key].ready = True
            return found
        except self.ray.exceptions.RayTaskError as error:
            why = first(error.cause)
            if job is None or not isinstance(error.cause, TandemError):
                self._lose(key, why)
        except self.ray.exceptions.RayError as error:
            why = f"its worker died ({type(error).__name__})"
            self._lose(key, why)
        if job is not None:
            job.failed.append(key)
            job.why = f"{self.nodes[key].name}: {why}"
            again.append(job)
            if len(job.failed) >= self.attempts:
                raise ClusterError(f"{len(job.failed)} nodes failed at the lanes from {job.shard.begin}, the last of "
                                   f"them {job.why}")  # fmt: skip
        return None

    def _lose(self, key: str, why: str) -> None:
        self.nodes[key].lost = why
        print(f"tandem: node {self.nodes[key].name} is left out: {why}", file=sys.stderr, flush=True)

    def _check(self, again: deque[Job], begin: float) -> None:
        """Raises ClusterError when nobody is left who could go on."""
        alive = [key for key, node in self.nodes.items() if not node.lost]
        for job in again:
            if alive and all(key in job.failed for key in alive):
                raise ClusterError(f"Every node that is left failed at the lanes from {job.shard.begin}: {job.why}")
        late = time.monotonic() - begin > self.wait_s
        if self.nodes and not alive:
            said = "; ".join(dict.fromkeys(node.lost for node in self.nodes.values()))
            raise ClusterError(f"No node of the Ray cluster is left: {said}")
        if late and not any(node.ready for node in self.nodes.values()):
            raise ClusterError(f"No node of the Ray cluster at {self.head} was ready within {self.wait_s:g} s: "
                               "all have no CPU free, or need longer for the tape (executor.wait_s).")  # fmt: skip


def answers(address: str) -> bool:
    """Whether somebody listens at host:port. Raises ConfigError for what is no such address."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"executor.address={address}: write host:port, such as 10.0.0.1:6379, or auto.")
    try:
        with socket.create_connection((host, int(port)), timeout=5):
            return True
    except OSError:
        return False


def first(error: BaseException) -> str:
    """The first line of an error that says anything."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)

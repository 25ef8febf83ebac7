"""How lanes are driven: blocks of them side by side in memory, taken in turn by threads that own a block each.

Law 1: the tables that are empty between two timestamps, and the buffers, exist once for each thread; so a lane costs
       what its orders and its state take, and a sweep no more than a block for each thread.
Law 2: a lane's kernel and venue are copies of what a single run begins with, parameters and addresses apart.
"""

import ctypes
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.drive import PROGRAMS, SimulatedVenue, has_ticks
from backtest.lanes_loop import Block, run_lanes
from backtest.loop import ROUNDS
from backtest.records import Loop
from backtest.run import Prepared
from backtest.tally import ENTRY_BYTES, QUEUE_BYTES, ROW, Tally
from engine.kernel import build
from engine.kernel.events import Event
from engine.kernel.machine import Machine, Sizes
from engine.kernel.primitives import Invoke
from engine.kernel.records import Curve, Kernel, Order, Refusal, Signal, slots
from engine.kernel.signals import CTX_BYTES

if TYPE_CHECKING:
    from backtest.lanes import Grid, Lanes

PROGRAM: tuple[str, dict[str, Callable[[int], None]]] = ("lanes", {"run_lanes": run_lanes})
TILE = 4096  # events: with the curve that they cause, half of a second cache
BLOCK_BYTES, BLOCK_LANES = 48 << 20, 256  # of one thread
QUEUE, STORE, ROOM = (
    128,
    4096,
    4096,
)  # entries of a queue, rows of a store for ticks, rows of a buffer beyond its margin
PARTS = ("arena", "venue", "loop", "scratch", "tally", "queues", "store", "end")  # of a lane


class Pass:
    """One grid's lanes through `run_lanes`: blocks of lanes, taken in turn by threads that own a block each."""

    def __init__(self, lanes: "Lanes", grid: "Grid", chosen: Any, world: Any, tallies: Any, matrix: Any) -> None:
        self.lanes, self.grid, self.chosen, self.world = lanes, grid, chosen, world
        self.tallies, self.matrix, p = tallies, matrix, lanes.prepared
        self.ticks = has_ticks(p.tape.events)
        self.function, self.driver = functions(p, self.ticks)
        self.lock, self.next = threading.Lock(), iter(range(0))

    def run(self, threads: int, told: Callable[[int], None] | None) -> None:
        """All lanes of the pass."""
        first = Room(self, len(self.chosen))
        step = max(1, min(first.lanes, -(-len(self.chosen) // threads)))
        self.next = iter(range(0, len(self.chosen), step))
        count = min(threads, -(-len(self.chosen) // step))
        rooms = [first, *(Room(self, len(self.chosen)) for _ in range(count - 1))]
        with ThreadPoolExecutor(count, "lanes") as pool:
            jobs = [pool.submit(self.work, room, step) for room in rooms]
            try:
                while wait(jobs, timeout=0.2).not_done:
                    if told is not None:
                        told(sum(room.block.done + room.before for room in rooms))
            except BaseException:
                self.next = iter(range(0))
                for room in rooms:
                    room.block.cancel = 1
                raise
        for job in jobs:
            job.result()
        if told is not None:
            told(len(self.chosen) * len(self.lanes.prepared.tape.events))

    def work(self, room: "Room", step: int) -> None:
        """Blocks until none is left."""
        while True:
            with self.lock:
                begin = next(self.next, None)
            if begin is None or room.block.cancel:
                return
            chosen = self.chosen[begin : begin + step]
            room.place(chosen)
            self.function(room.block._address)
            self.tallies[chosen] = room.tallies[: len(chosen)]
            if self.matrix is not None:
                self.matrix[chosen] = room.returns[: len(chosen)]
            room.before += room.block.done
            room.block.done = 0


def functions(prepared: Prepared, ticks: bool) -> tuple[Callable[[int], None], int]:
    """`run_lanes`, and the address of the driver that it calls; both compiled, or both plain Python."""
    if not prepared.compiled:
        driver: Any = prepared.function
        Invoke.python[-1 - ticks] = lambda at, _1, _2: driver(at)
        return run_lanes, -1 - ticks
    address = build.program(*PROGRAM).addresses["run_lanes"]
    return ctypes.CFUNCTYPE(None, ctypes.c_int64)(address), build.program(*PROGRAMS[ticks]).addresses["run"]


class Room:
    """The memory of one thread: a block of lanes side by side, and the buffers and tables that they share."""

    def __init__(self, owner: Pass, wanted: int) -> None:
        self.owner, p = owner, owner.lanes.prepared
        z = p.sizes
        self.machine, self.venue = template(p)
        arena, venue = _round(len(self.machine.arena)), _round(len(self.venue.memory))
        queues = len(p.rows) * (QUEUE_BYTES + QUEUE * ENTRY_BYTES)
        store = STORE if owner.ticks else 256
        sizes = (
            arena,
            venue,
            _round(Loop.dtype.itemsize),
            64,
            _round(Tally.dtype.itemsize),
            _round(queues),
            store * ROW,
        )
        places = np.cumsum((0, *sizes)).tolist()
        self.places = dict(
            zip(("arena", "venue", "loop", "scratch", "tally", "queues", "store", "end"), places, strict=True)
        )
        self.stride = (places[-1] // 64 | 1) * 64  # an odd number of cache lines: lanes do not meet in one set
        self.lanes = max(1, min(wanted, BLOCK_LANES, BLOCK_BYTES // self.stride))
        memory = np.empty(self.lanes * self.stride + 64, np.uint8)
        memory.fill(0)
        shift = -memory.ctypes.data % 64
        self.memory = memory[shift : shift + self.lanes * self.stride].reshape(self.lanes, self.stride)
        margin = ROUNDS * z.outbox
        rows = {
            "orders": (Order, margin + ROOM),
            "reports": (Event, 2 * margin + 4 * z.orders + self.venue.header.levels + ROOM),
            "refusals": (Refusal, z.refusals + ROOM),
            "curve": (Curve, TILE + 64),
        }
        self.buffers = {name: np.empty(count, kind.dtype) for name, (kind, count) in rows.items()}
        kinds = {"signals": (Signal, z.signals), "outbox": (Order, z.outbox), "refusals": (Refusal, z.refusals)}
        self.shared = {name: np.zeros(count, kind.dtype) for name, (kind, count) in kinds.items()}
        self.returns = np.empty((self.lanes if owner.matrix is not None else 0, owner.grid.most))
        self.tallies, self.before = self.view("tally", Tally.dtype), 0
        self.block = self._block()

    def view(self, part: str, kind: Any, more: int = 0) -> Any:
        """A column of records, one for each lane."""
        return np.ndarray((self.lanes,), kind, self.memory, self.places[part] + more, (self.stride,))

    def _block(self) -> Block:
        b, p, grid = Block.new(), self.places, self.owner.grid
        events = self.owner.lanes.prepared.tape.events
        b.run, b.memory, b.stride = self.owner.driver, self.memory.ctypes.data, self.stride
        b.kernel_at, b.loop_at, b.tally_at = p["arena"] + CTX_BYTES, p["loop"], p["tally"]
        b.queues_at, b.store_at = p["queues"], p["store"]
        b.queue_cap, b.store_cap = QUEUE, (p["end"] - p["store"]) // ROW
        b.length, b.begin, b.tile, b.ticks = len(events), self.owner.lanes.warmup, TILE, int(self.owner.ticks)
        b.single = int(grid.single and len(self.owner.lanes.prepared.rows) == 1)
        b.ends, b.returns_row = grid.ends.ctypes.data, grid.most
        b.returns = self.returns.ctypes.data if self.owner.matrix is not None else 0
        return b

    def place(self, chosen: Any) -> None:
        """Fresh lanes at the begin of the tape."""
        owner, n = self.owner, len(chosen)
        lanes, world = owner.lanes, owner.world
        starts = np.append(0, np.flatnonzero(np.diff(world[chosen])) + 1)
        for begin, end in zip(starts.tolist(), [*starts[1:].tolist(), n], strict=True):
            machine, venue = (
                (self.machine, self.venue) if not lanes.others else template(lanes.world(int(chosen[begin])))
            )
            at = self.places["venue"]
            self.memory[begin:end, : len(machine.arena)] = machine.arena
            self.memory[begin:end, at : at + len(venue.memory)] = venue.memory
            self._begin(begin, end, machine.kernel.cash)
        self._parameters(chosen)
        self._loops(n)
        self.block.lanes = n
        if owner.matrix is not None:
            self.returns.fill(math.nan)

    def _begin(self, begin: int, end: int, cash: float) -> None:
        self.memory[begin:end, self.places["tally"] : self.places["store"]] = 0
        t = self.tallies[begin:end]
        t["peak"], t["best"], t["least"] = cash, -math.inf, math.inf
        if self.owner.grid.resampled:
            t["marked"], t["mark"] = 1, cash

    def _parameters(self, chosen: Any) -> None:
        lanes, slot = self.owner.lanes, slots(self.machine.kernel, 0)
        for name, values in lanes.own.items():
            field = lanes.cls.fields[name]
            for instance in range(slot.instances):
                at = CTX_BYTES + slot.state_at + instance * slot.stride + field.offset
                self.view("arena", field.dtype, at)[: len(chosen)] = values[chosen]

    def _loops(self, n: int) -> None:
        p, kernel = self.places, self.view("arena", Kernel.dtype, CTX_BYTES)[:n]
        bases = self.memory.ctypes.data + self.stride * np.arange(n)
        for name, table in self.shared.items():
            kernel[f"{name}_at"] = table.ctypes.data - (bases + p["arena"] + CTX_BYTES)
        z = self.owner.lanes.prepared.sizes
        kernel["signal_cap"], kernel["outbox_cap"], kernel["refusal_cap"] = z.signals, z.outbox, z.refusals
        loop = self.view("loop", Loop.dtype)[:n]
        loop[:] = np.zeros(1, Loop.dtype)
        loop["kernel"], loop["ctx"] = bases + p["arena"] + CTX_BYTES, bases + p["arena"]
        loop["venue"], loop["scratch"] = bases + p["venue"], bases + p["scratch"]
        loop["tape"] = self.owner.lanes.prepared.tape.events.ctypes.data
        for name, rows in self.buffers.items():
            loop[name], loop[f"{name}_cap"] = rows.ctypes.data, len(rows)
        loop["sample_ns"], loop["next_sample"], loop["stop_on_fault"] = self.owner.grid.sample_ns, -(1 << 62), 1


def template(p: Prepared) -> tuple[Machine, SimulatedVenue]:
    """A kernel and a venue as a single run has them, but without the tables that lanes share."""
    sizes = Sizes(p.sizes.orders, 1, 1, 1)
    return p.machine(sizes), p.simulated()


def _round(length: int) -> int:
    return -(-length // 64) * 64

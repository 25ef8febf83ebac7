"""The event loop of a live process on a processor of its own."""

import asyncio
import os
import time
from collections.abc import Iterator

import pytest

from engine.errors import ConfigError
from engine.live import loop


@pytest.fixture
def processors() -> Iterator[set[int]]:
    """Those that this process may use, now and afterwards."""
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system binds no process to a processor")
    allowed = os.sched_getaffinity(0)
    yield allowed
    os.sched_setaffinity(0, allowed)


def test_it_keeps_to_its_processor_and_does_not_sleep(processors: set[int]) -> None:
    busy = dict[int | None, float]()

    async def main(stop: asyncio.Event) -> int:
        began = time.thread_time()
        await asyncio.sleep(0.2)
        busy[cpu] = time.thread_time() - began
        return len(os.sched_getaffinity(0))

    cpu: int | None = None
    assert loop.run(main, cpu) == len(processors)
    cpu = max(processors)
    assert loop.run(main, cpu) == 1
    assert os.sched_getaffinity(0) == {cpu}
    assert busy[cpu] > 4 * busy[None]


def test_a_processor_that_is_not_ours(processors: set[int]) -> None:
    async def main(stop: asyncio.Event) -> int:
        raise AssertionError("it must not begin")

    with pytest.raises(ConfigError, match=f"spin_cpu=4096: this process may use {min(processors)}"):
        loop.run(main, 4096)
    assert os.sched_getaffinity(0) == processors

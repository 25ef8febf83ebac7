"""Real servers, one of each for all tests of a worker; a test that stops or breaks one starts its own."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.live import servers
from engine.live.servers import Server


def need(name: str) -> None:
    """Skip, saying so, where there is no such server."""
    if servers.find(name) is None:
        pytest.skip(f"no {name} here: {servers.CURES[name]}")


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Redis server."""
    need("redis-server")
    with servers.redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A NATS server with JetStream."""
    need("nats-server")
    with servers.nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Server]:
    """A Redis server to stop and start; it keeps its data."""
    need("redis-server")
    with servers.redis_server(tmp_path / "redis", keep=True) as server:
        yield server


@pytest.fixture
def own_nats(tmp_path: Path) -> Iterator[Server]:
    """A NATS server to stop and start."""
    need("nats-server")
    with servers.nats_server(tmp_path / "nats") as server:
        yield server


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a test's coroutine to its end, within a time."""

    def go(what: Coroutine[Any, Any, Any], limit: float = 180.0) -> Any:
        async def limited() -> Any:
            try:
                async with asyncio.timeout(limit):
                    return await what
            finally:
                await asyncio.sleep(0.01)  # what was closed at the end is closed now

        return asyncio.run(limited())

    return go


async def until(condition: Callable[[], Any], limit: float = 20.0) -> None:
    """Wait for something to become true."""
    loop = asyncio.get_running_loop()
    end = loop.time() + limit
    while not condition():
        assert loop.time() < end, "it did not come true in time"
        await asyncio.sleep(0.005)

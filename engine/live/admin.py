"""The admin API: a small HTTP server in the engine's own loop, for probes, for Prometheus, for people.

Law 1: what tells of positions or changes anything needs the token; a change is a journalled command, done when the
       answer comes.
Law 2: an answer says in words what was done, or why it was not; what was refused has changed nothing.

    GET  /metrics, /healthz, /readyz       without the token; 503 with the reasons while it is not healthy, not ready
    GET  /status                           what `tandem mode=status` shows
    POST /trading    {"level": "live"}     or simulation, or observation
    POST /kill       {"flatten": false}    cancel everything and refuse every order, also after a restart
    POST /clear_kill                       let orders pass again
    POST /pause, /resume {"strategy": 0}   by number or by name
    POST /reload     {"strategy": 0, "name": "ideas.py:Breakout", "params": {"entry": 40}}
                                           other code, other parameters, or both
"""

import hmac
import ipaddress
import json
import logging
import math
import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from aiohttp import web

from engine.errors import ConfigError, ImageError, KernelHalted, StrategyError, TandemError
from engine.kernel import codes
from engine.live import settings as wires
from engine.live.observe import Observer, Watched
from engine.live.summary import Summary

LOG = logging.getLogger("tandem.live")
LEVELS = {"live": codes.LIVE, "simulation": codes.SIMULATION, "observation": codes.OBSERVATION}
OPEN = ("/metrics", "/healthz", "/readyz")
BODY, STOP_S = 1 << 16, 1.0  # bytes of a request; seconds that answers may take when we stop
TOKEN, URL = "admin.token", "admin.url"  # names of files
CONFLICTS = (ConfigError, StrategyError, ImageError, KernelHalted)


class Served(Watched, Protocol):
    """What the admin API needs of an engine."""

    def readiness(self) -> list[str]:
        """Why it is not ready; empty when it is."""

    def healthy(self) -> bool:
        """Whether its loop turns and its kernel has not halted."""

    async def command(self, code: int, *, amount: float = 0.0, strategy: int = -1) -> None:
        """A journalled command, done when this returns."""

    async def reload(self, strategy: int, name: str | None, params: dict[str, Any]) -> str:
        """Other code or parameters; the digest of the image. Raises StrategyError, ConfigError."""


def plain(value: Any) -> Any:
    """As JSON has it: no numpy, no NaN and no infinity (null stands for these)."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def answer(words: dict[str, Any], status: int = 200, **headers: str) -> web.Response:
    """Words as an answer."""
    return web.Response(text=json.dumps(plain(words), indent=1) + "\n", status=status, headers=headers,
                        content_type="application/json")  # fmt: skip


def bad(why: str) -> web.HTTPBadRequest:
    """A request that makes no sense."""
    return web.HTTPBadRequest(text=why)


async def words_of(request: web.Request, **kinds: type | tuple[type, ...]) -> dict[str, Any]:
    """The JSON object of a request, with these keys at most. Raises 400 in words."""
    raw = await request.read()
    try:
        given = json.loads(raw) if raw.strip() else {}
    except (ValueError, RecursionError) as error:
        raise bad(f"The body is no JSON ({error}); send an object such as {{}}.") from error
    if not isinstance(given, dict):
        raise bad(f"The body must be a JSON object with {', '.join(kinds) or 'no key'}.")
    for key, value in given.items():
        if key not in kinds:
            raise bad(f"Unknown key {key!r}; {request.path} takes {', '.join(kinds) or 'none'}.")
        if not isinstance(value, kinds[key]) or (isinstance(value, bool) and kinds[key] is not bool):
            raise bad(f"{key} cannot be {value!r}.")
    return given


class Admin:
    """Serves the engine `name`; a random token goes into `folder`. `port`, `token`, `token_file`: since `start`."""

    def __init__(self, engine: Served, settings: wires.Admin, name: str, folder: Path) -> None:
        self.engine, self.settings, self.observer = engine, settings, Observer(engine)
        self.port, self.token = settings.port, settings.token or ""
        self.token_file: Path | None = None
        self.said, self._folder = Summary(engine, name), folder
        self._runner: web.AppRunner | None = None
        self._reloading = False

    @property
    def url(self) -> str:
        """Where it listens."""
        host = self.settings.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    async def start(self) -> None:
        """Listen. Raises ConfigError for an address that cannot be had, or a token that is empty."""
        if self.settings.token is not None and not self.settings.token.strip():
            raise ConfigError("admin.token is empty; give one, or null for a random one.")
        app = web.Application(client_max_size=BODY, middlewares=[self._guarded])
        app.add_routes([web.get("/metrics", self._metrics), web.get("/healthz", self._health),
                        web.get("/readyz", self._ready), web.get("/status", self._status)])  # fmt: skip
        posts: dict[str, Callable[[web.Request], Awaitable[web.Response]]] = {
            "/trading": self._trading, "/kill": self._kill, "/clear_kill": self._clear_kill, "/pause": self._pause,
            "/resume": self._resume, "/reload": self._reload,
        }  # fmt: skip
        app.add_routes([web.post(path, handler) for path, handler in posts.items()])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_S)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self.settings.host, self.settings.port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise ConfigError(f"admin.host={self.settings.host} admin.port={self.settings.port} cannot be had "
                              f"({error.strerror}): end who uses it, or choose another port.") from error  # fmt: skip
        self.port = int(self._runner.addresses[0][1])
        if self.settings.token is None:
            self._make_token()
        (self._folder / URL).write_text(self.url + "\n", encoding="utf-8")
        self.observer.start()
        if not loopback(self.settings.host):
            LOG.warning("the admin API listens on %s without TLS; let a proxy with TLS stand before it", self.url)

    async def stop(self) -> None:
        """Listen no more; a token that we have made is of no use then."""
        self.observer.stop()
        if self._runner is not None:
            await self._runner.cleanup()
            (self._folder / URL).unlink(missing_ok=True)
        if self.token_file is not None:
            self.token_file.unlink(missing_ok=True)

    def _make_token(self) -> None:
        self.token, self.token_file = secrets.token_urlsafe(24), self._folder / TOKEN
        self.token_file.unlink(missing_ok=True)  # one that a killed engine has left may have another mode
        with os.fdopen(os.open(self.token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(self.token + "\n")

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Callable[..., Awaitable[web.StreamResponse]]
                       ) -> web.StreamResponse:  # fmt: skip
        """Ask for the token; errors in words."""
        known = request.match_info.http_exception is None
        if known and request.path not in OPEN and not self._knows(request):
            return answer({"error": f"{request.path} needs the token: send the header Authorization: Bearer …; "
                           f"it is {self.token_file or 'admin.token of the settings'}."}, 401,
                          **{"WWW-Authenticate": "Bearer"})  # fmt: skip
        try:
            return await handler(request)
        except web.HTTPException as error:
            paths = sorted({str(one.canonical) for one in request.app.router.resources()})
            hint = {
                404: f"There is no {request.path}; there are {', '.join(paths)}.",
                405: f"{request.path} takes {', '.join(sorted(getattr(error, 'allowed_methods', ())))}.",
            }
            return answer({"error": hint.get(error.status, error.text)}, error.status)
        except CONFLICTS as error:
            return answer({"error": str(error)}, 409)
        except TandemError as error:
            LOG.error("admin %s: %s", request.path, error)
            return answer({"error": str(error)}, 503)

    def _knows(self, request: web.Request) -> bool:
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self.token.encode())

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self.observer.text(), headers={"Content-Type": self.observer.content_type})

    async def _health(self, request: web.Request) -> web.Response:
        good = self.engine.healthy()
        return answer({"healthy": good}, 200 if good else 503)

    async def _ready(self, request: web.Request) -> web.Response:
        why = self.engine.readiness()
        return answer({"ready": not why, "why": why}, 503 if why else 200)

    async def _status(self, request: web.Request) -> web.Response:
        return answer(self.said())

    async def _command(self, request: web.Request, done: str, code: int, **fields: Any) -> web.Response:
        LOG.warning("admin: %s, asked by %s", done, request.remote)
        await self.engine.command(code, **fields)
        return answer({"done": done})

    async def _trading(self, request: web.Request) -> web.Response:
        level = (await words_of(request, level=str)).get("level")
        if level not in LEVELS:
            raise bad(f"level must be one of {', '.join(LEVELS)}, got {level!r}.")
        return await self._command(request, f"trading {level}", codes.TRADING, amount=float(LEVELS[level]))

    async def _kill(self, request: web.Request) -> web.Response:
        flatten = (await words_of(request, flatten=bool)).get("flatten", False)
        done = "killed, positions are flattened" if flatten else "killed"
        return await self._command(request, done, codes.KILL, amount=float(flatten))

    async def _clear_kill(self, request: web.Request) -> web.Response:
        await words_of(request)
        return await self._command(request, "orders may pass again", codes.CLEAR_KILL)

    async def _pause(self, request: web.Request) -> web.Response:
        number, name = self._strategy(await words_of(request, strategy=(int, str)))
        return await self._command(request, f"paused {name}", codes.PAUSE, strategy=number)

    async def _resume(self, request: web.Request) -> web.Response:
        number, name = self._strategy(await words_of(request, strategy=(int, str)))
        return await self._command(request, f"resumed {name}", codes.RESUME, strategy=number)

    async def _reload(self, request: web.Request) -> web.Response:
        given = await words_of(request, strategy=(int, str), name=(str, type(None)), params=dict)
        number, name = self._strategy(given)
        fresh, params = given.get("name"), given.get("params", {})
        if not fresh and not params:
            raise bad("Give name (of a class), params, or both.")
        if self._reloading:
            raise ConfigError("Another reload is under way; wait for its answer.")
        LOG.warning("admin: reload %s with %s, %s, asked by %s", name, fresh or "its class", params, request.remote)
        self._reloading = True
        try:
            image = await self.engine.reload(number, fresh or None, params)
        finally:
            self._reloading = False
        return answer({"done": f"reloaded {name}", "image": image})

    def _strategy(self, given: dict[str, Any]) -> tuple[int, str]:
        """Number and name of the strategy that a request is about."""
        names, which = [str(one["name"]) for one in self.said()["strategies"]], given.get("strategy")
        found = [n for n, name in enumerate(names) if which in (n, name)]
        if len(found) != 1:
            listed = ", ".join(f"{n} {name}" for n, name in enumerate(names))
            raise bad(f"strategy must name one of them, by number or by a name that only one has: {listed}; "
                      f"got {which!r}.")  # fmt: skip
        return found[0], names[found[0]]


def loopback(host: str) -> bool:
    """Whether an address is one of this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

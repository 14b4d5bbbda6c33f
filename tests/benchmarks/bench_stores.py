"""What sessions in a store cost: a signed-in request, a refresh under its lock, a thousand refreshes at once.

Redis is a real server on a socket file; without one its rows step aside. The issuer answers at once, in this process.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from bench_apps import API, SECRET, Variant, app_of, bare_app, fake_token, new_session
from bench_rounds import measure

from logto_asgi import Logto, LogtoConfig, MemoryStore, RedisStore, SessionStore
from logto_asgi.models import Session

__all__ = ["Figure", "store_figures"]

NO_REDIS = "redis-server is not installed: the rows of RedisStore step aside. Install Redis 7, or Valkey."
_FROM_THE_APP = ("evalsha", "eval", "set", "get", "del", "unlink", "zadd", "ping")
"""Commands that are sent; what a script calls is counted by Redis beside them."""


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    name: str
    value: float
    unit: str = "µs"
    note: str = ""


async def store_figures(*, rounds: int, requests: int, sessions: int) -> tuple[list[Figure], str]:
    """Measure everything once. Return the figures, and a sentence on what stepped aside."""
    with _redis() as redis:
        url = None if redis is None else redis.url
        figures = [*await _requests(redis, rounds, requests), *await _refreshes(redis, rounds, requests)]
        for name, make in _stores(url).items():
            figures += await _all_at_once(name, make, sessions)
        return figures, "" if redis else NO_REDIS


# -- A signed-in request -----------------------------------------------------------------------------------------------


async def _requests(redis: Any, rounds: int, requests: int) -> list[Figure]:
    """Compare requests of a signed-in user by where the session lies. CPU time of this process."""
    variants = {"bare": Variant(bare_app(), repeat(""))}
    stores = _stores(redis and redis.url)
    async with _runtimes(stores) as runtimes:
        for name, logto in runtimes.items():
            variants[f"signed in, {name}"] = Variant(app_of(logto), repeat(await _cookie(logto)))
        measured = await measure(variants, rounds=rounds, requests=requests)
        figures = [Figure("bare", measured.time("bare"))]
        for name in list(variants)[1:]:
            over = measured.over(name, "bare")
            figures.append(Figure(name, measured.time(name), note=f"{over:+.1f} µs over bare"))
        if redis is not None:
            figures += await _round_trips(redis, variants["signed in, RedisStore"])
    return figures


async def _round_trips(redis: Any, variant: Variant, count: int = 500) -> list[Figure]:
    """Count what Redis is asked per request, how often a session in use is written, and what one wait costs."""
    import redis.asyncio as client

    await _serve(variant, 10)
    before, start = _commands(redis), time.perf_counter()
    await _serve(variant, count)
    taken, after = (time.perf_counter() - start) / count * 1e6, _commands(redis)
    asked = {name: number - before.get(name, 0) for name, number in after.items() if number != before.get(name, 0)}
    sent = sum(number for name, number in asked.items() if name in _FROM_THE_APP)
    async with client.Redis.from_url(redis.url) as connection:
        await connection.ping()
        start = time.perf_counter()
        for _ in range(count):
            await connection.ping()
        ping = (time.perf_counter() - start) / count * 1e6
    inside = ", ".join(f"{name} {number / count:g}" for name, number in sorted(asked.items()))
    return [
        Figure("… commands a request", sent / count, "", f"Redis counts, scripts' inside included: {inside}"),
        Figure("… writes for these requests", asked.get("hset", 0), "", f"touches, of {count} within one interval"),
        Figure("… time of a request", taken, note=f"waiting included; a bare PING takes {ping:.0f} µs"),
    ]


async def _serve(variant: Variant, count: int) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        return None

    for scope in variant.scopes(count):
        await variant.app(scope, receive, send)


def _commands(redis: Any) -> dict[str, int]:
    """Return how often Redis ran each command, those inside of scripts included."""
    lines = [line for line in redis.cli("INFO", "commandstats").splitlines() if line.startswith("cmdstat_")]
    pairs = [line.removeprefix("cmdstat_").partition(":calls=") for line in lines]
    return {name: int(rest.partition(",")[0]) for name, _, rest in pairs if name != "info"}


# -- A refresh ---------------------------------------------------------------------------------------------------------


async def _refreshes(redis: Any, rounds: int, requests: int) -> list[Figure]:
    """Compare a refresh in a cookie session, which knows no lock, with one in a store. Rounds alternate."""
    taken: dict[str, list[float]] = {}
    commands = 0.0
    async with _runtimes({"cookies": None, **_stores(redis and redis.url)}) as runtimes:
        sessions = {name: await _started(logto) for name, logto in runtimes.items()}
        for number in range(rounds + 1):
            for name, logto in runtimes.items():
                before = _commands(redis) if name == "RedisStore" and number == rounds else {}
                start = time.process_time()
                for _ in range(requests):
                    await logto.tokens.get(sessions[name], resource=API, force_refresh=True)
                if number:
                    taken.setdefault(name, []).append((time.process_time() - start) / requests * 1e6)
                if before:
                    after = _commands(redis)
                    commands = sum(after.get(key, 0) - before.get(key, 0) for key in _FROM_THE_APP) / requests
    base = median(taken["cookies"])
    notes = {name: f"{median(times) - base:+.0f} µs: lock, mark, save" for name, times in taken.items()}
    notes["cookies"] = "no lock between processes"
    if redis is not None:
        notes["RedisStore"] += f"; {commands:g} commands"
    return [Figure(f"refresh, {name}", median(times), note=notes[name]) for name, times in taken.items()]


async def _all_at_once(name: str, store: SessionStore, count: int) -> list[Figure]:
    """Let many sessions refresh at the same time, once for the time and once for the memory."""
    async with _runtimes({name: store}) as runtimes:
        logto = runtimes[name]
        sessions = [await _started(logto) for _ in range(count)]
        start = time.perf_counter()
        failures = await _refresh_all(logto, sessions)
        seconds = time.perf_counter() - start
        tracemalloc.start()
        try:
            await _refresh_all(logto, sessions)
            left, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    memory = f"peak {peak / 1e6:.1f} MB, {left / 1e6:.1f} MB of it stay (caches)"
    return [Figure(f"{count:,} at once, {name}", count / seconds, "/s", f"{failures} failed; {memory}")]


async def _refresh_all(logto: Logto, sessions: list[Session]) -> int:
    """Refresh every session at the same time. Return how many failed."""
    work = [logto.tokens.get(session, resource=API, force_refresh=True) for session in sessions]
    return sum(isinstance(each, BaseException) for each in await asyncio.gather(*work, return_exceptions=True))


# -- The parts ---------------------------------------------------------------------------------------------------------


def _config() -> LogtoConfig:
    return LogtoConfig(
        endpoint="https://tenant.logto.app",
        app_id="k2v5mq0d8w1r7tz3xc9bn",
        base_url="https://shop.example.com",
        cookie_secret=SECRET,
        resources=[API],
    )


def _stores(url: str | None) -> dict[str, SessionStore]:
    stores: dict[str, SessionStore] = {"MemoryStore": MemoryStore()}
    return stores if url is None else {**stores, "RedisStore": RedisStore.from_url(url)}


@asynccontextmanager
async def _runtimes(stores: Any) -> AsyncIterator[dict[str, Logto]]:
    """Make a runtime for each store; None keeps sessions in cookies."""
    config = _config()
    async with httpx.AsyncClient(transport=httpx.MockTransport(_Issuer(config))) as client:
        runtimes = {name: Logto(config, store=store, http_client=client) for name, store in stores.items()}
        try:
            yield runtimes
        finally:
            for logto in runtimes.values():
                await logto.aclose()


class _Issuer:
    """Answers at once, with a new refresh token each time. There is no ID token, so nothing is verified."""

    def __init__(self, config: LogtoConfig) -> None:
        self._config = config
        self._token = fake_token(config, int(time.time()))
        self._count = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        issuer = self._config.issuer
        if request.url.path.endswith("/openid-configuration"):
            names = ("authorization", "token", "userinfo", "end_session", "revocation")
            endpoints = {f"{name}_endpoint": f"{issuer}/{name}" for name in names}
            lists = {"id_token_signing_alg_values_supported": ["ES384"], "response_types_supported": ["code"]}
            return _json({"issuer": issuer, "jwks_uri": f"{issuer}/jwks", **endpoints, **lists})
        self._count += 1
        answer = {"access_token": self._token, "refresh_token": f"refresh_{self._count}_".ljust(43, "_")}
        return _json({**answer, "expires_in": 3600, "token_type": "Bearer", "scope": "read:items"})


def _json(document: dict[str, Any]) -> httpx.Response:
    return httpx.Response(200, content=json.dumps(document), headers={"Content-Type": "application/json"})


async def _started(logto: Logto) -> Session:
    session = new_session(logto.config)
    await logto.sessions.start(session)
    return session


async def _cookie(logto: Logto) -> str:
    loaded = logto.sessions.load([])
    loaded.session = await _started(logto)
    (line,) = logto.sessions.headers_to_send(loaded, may_roll=True)
    return line.partition(";")[0]


@contextmanager
def _redis() -> Iterator[Any]:
    """Run a Redis, if there is one."""
    if shutil.which("redis-server") is None:
        yield None
        return
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    from redis_server import RedisServer

    with tempfile.TemporaryDirectory() as home, RedisServer(Path(home) / "redis") as server:
        yield server

"""Keeps sessions in Redis 7 or Valkey, for apps of several processes or machines. Knows nothing of what it keeps.

redis-py is imported when a store is made: `pip install 'logto-asgi[redis]'`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from logto_asgi.errors import ConfigurationError, ConfigurationProblem
from logto_asgi.session import redis_scripts as scripts
from logto_asgi.session.redis_clients import RedisClient, UrlClients, clients_of
from logto_asgi.session.redis_failures import Complaints, is_wrong_type, refuses_writes
from logto_asgi.session.stores import StoredSession, Touch

__all__ = ["RedisClient", "RedisStore"]

_log = logging.getLogger("logto_asgi")

T = TypeVar("T")

_GARBAGE = StoredSession(value="?", revision=0, touched_at=0)
"""Stands for what no store of ours wrote under the key. It opens as nothing, so that only this session suffers."""
_LOWEST_MAJOR = 7


class RedisStore:
    """Keeps sessions in Redis 7 or Valkey, with locks across processes.

    `client` is a function that makes a `redis.asyncio.Redis` or `RedisCluster`: it is called once for each event loop,
    at first use, and the store closes what it made. Or it is such a client itself, for example
    `sentinel.master_for("name")`, which belongs to one event loop and stays yours to close. For a URL there is
    `RedisStore.from_url(url)`.

    Keys begin with `prefix`. No call takes longer than `timeout` seconds, whatever happens: then it raises
    `StoreUnavailable`.
    """

    def __init__(
        self,
        client: RedisClient | Callable[[], RedisClient] | UrlClients,
        *,
        prefix: str = "logto:",
        timeout: float = 1.5,
    ) -> None:
        if timeout <= 0:
            raise ValueError("timeout must be more than 0 seconds.")
        self._clients = client if isinstance(client, UrlClients) else clients_of(client)
        self._prefix = prefix
        self.timeout = timeout
        """Seconds that a call may take."""
        self._complaints = Complaints()
        self._running: set[asyncio.Task[Any]] = set()

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        prefix: str = "logto:",
        timeout: float = 1.5,
        max_connections: int = 50,
        **client_options: Any,
    ) -> RedisStore:
        """Return a store for `redis://`, `rediss://` or `unix://`, with a client for each event loop.

        `max_connections` are opened on each at most, and as they are needed; further calls wait for one. The other
        options are those of redis-py's connections, for example `ssl_ca_certs`. Raise `ConfigurationError`.
        """
        clients = UrlClients(url, timeout, {"max_connections": max_connections, **client_options})
        return cls(clients, prefix=prefix, timeout=timeout)

    def __repr__(self) -> str:
        return f"<RedisStore {self._clients} prefix={self._prefix!r}>"

    async def get(self, key: str, *, now: int, touch: Touch | None = None) -> StoredSession | None:
        """Return what lies under a key, and note that it is in use. See `SessionStore.get`."""
        noted = ("", "") if touch is None else (int(touch.idle), int(touch.interval))
        return await self._call(self._get(self._session(key), int(now), *noted))

    async def _get(self, name: str, now: int, *noted: int | str) -> StoredSession | None:
        from redis.exceptions import ResponseError

        try:
            answer = await self._run(scripts.GET, name, now, *noted)
        except ResponseError as error:
            if is_wrong_type(error):
                return _GARBAGE
            if not refuses_writes(error):
                raise
            # Who is signed in stays so while Redis cannot write: only the touch is left out.
            answer = await self._run(scripts.PEEK, name, now)
        except UnicodeDecodeError:  # A client that decodes its answers.
            return _GARBAGE
        return None if answer is None else _stored(answer)

    async def set(
        self,
        key: str,
        value: str,
        *,
        now: int,
        idle: int,
        ends_at: int,
        revision: int | None = None,
        index: Sequence[str] = (),
    ) -> int | None:
        """Create a value, or replace the one of this revision. See `SessionStore.set`."""
        now, ends_at = int(now), int(ends_at)
        expires_at = min(now + int(idle), ends_at)
        if expires_at <= now:
            return None
        wanted = "" if revision is None else revision
        return await self._call(self._set(key, index, value, now, expires_at, ends_at, wanted))

    async def _set(
        self, key: str, index: Sequence[str], value: str, now: int, expires_at: int, ends_at: int, wanted: int | str
    ) -> int | None:
        from redis.exceptions import ResponseError

        for name in index:
            await self._run(scripts.NOTE, self._index(name), key, (ends_at - now) * 1000)
        try:
            answer = await self._run(scripts.SET, self._session(key), value, now, expires_at, ends_at, wanted)
        except ResponseError as error:
            if is_wrong_type(error):
                return None
            raise
        return None if answer is None else int(answer)

    async def delete(self, key: str, *, index: Sequence[str] = ()) -> None:
        """Remove what lies under a key, of whatever type, and the key from these names."""
        await self._call(self._delete(key, index))

    async def _delete(self, key: str, index: Sequence[str]) -> None:
        from redis.exceptions import ResponseError

        await self._command("DEL", self._session(key))
        for name in index:
            try:
                await self._command("ZREM", self._index(name), key)
            except ResponseError as error:
                if not is_wrong_type(error):
                    raise

    async def lock(self, key: str, *, ttl: float) -> str | None:
        """Take the lock of a key for `ttl` seconds. Return its token, None when it is taken."""
        token = secrets.token_hex(16)
        taken = await self._call(self._run(scripts.LOCK, self._lock(key), token, max(1, round(ttl * 1000))))
        return token if taken else None

    async def unlock(self, key: str, token: str) -> None:
        """Free a lock that is held by this token."""
        await self._call(self._run(scripts.UNLOCK, self._lock(key), token))

    async def find(self, index: str) -> list[str]:
        """Return the keys noted under a name, without those past their end."""
        found = await self._call(self._run(scripts.FIND, self._index(index)))
        return [_text(key) for key in found]

    async def check(self) -> list[str]:
        """Return what to warn of in the settings of Redis. Raise `ConfigurationError` where it is older than 7."""
        servers = await self._call(self._servers())
        for server in servers:
            _refuse_old(server)
        # That the scripts may run is part of what an app needs.
        await self.get("check", now=0)
        return list(dict.fromkeys(warning for server in servers for warning in _warnings_of(server)))

    async def _servers(self) -> list[dict[str, Any]]:
        """Return what each server says about itself; nothing where that is forbidden."""
        from redis.exceptions import NoPermissionError

        try:
            info = await self._command("INFO")
        except NoPermissionError:
            _log.debug("Redis does not let this app read INFO: its settings are not checked.")
            return []
        return [info] if "redis_version" in info else [server for server in info.values() if isinstance(server, dict)]

    async def aclose(self) -> None:
        """Wait for what is under way, `timeout` at most, and close the client of this event loop unless it is yours."""
        loop = asyncio.get_running_loop()
        mine = [task for task in tuple(self._running) if task.get_loop() is loop]
        if mine:
            await asyncio.wait(mine, timeout=self.timeout)
        await self._clients.aclose()

    def _session(self, key: str) -> str:
        return f"{self._prefix}{{{key}}}"

    def _lock(self, key: str) -> str:
        return f"{self._prefix}{{{key}}}:lock"

    def _index(self, name: str) -> str:
        return f"{self._prefix}index:{name}"

    async def _call(self, work: Coroutine[Any, Any, T]) -> T:
        """Do some work for `timeout` seconds at most.

        It has a task of its own, so that a caller who hangs up neither leaves it half done, such as an unlock, nor
        costs a connection: redis-py must close one that was left between a command and its answer. The time-out in the
        task ends the work; that of the wait holds even where ending it takes long.
        """
        task = asyncio.create_task(self._bounded(work))
        self._running.add(task)
        task.add_done_callback(self._finish)
        await asyncio.wait((task,), timeout=self.timeout)
        if not task.done():
            raise self._complaints.late()
        error = task.exception()
        if error is not None:
            raise self._complaints.translate(error)
        self._complaints.withdraw()
        return task.result()

    async def _bounded(self, work: Coroutine[Any, Any, T]) -> T:
        async with asyncio.timeout(self.timeout):
            return await work

    def _finish(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # It has been asked for: nobody may be left to ask.

    async def _run(self, script: scripts.Script, key: str, *args: int | str) -> Any:
        from redis.exceptions import NoScriptError

        try:
            return await self._command("EVALSHA", script.digest, 1, key, *args)
        except NoScriptError:
            return await self._command("EVAL", script.text, 1, key, *args)

    async def _command(self, *words: int | str) -> Any:
        return await self._clients.send(*words)


def _stored(answer: Iterable[Any]) -> StoredSession:
    try:
        value, revision, touched_at = answer
        return StoredSession(_text(value), int(revision), int(touched_at))
    except (TypeError, ValueError):
        return _GARBAGE


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _refuse_old(server: dict[str, Any]) -> None:
    version = str(server.get("redis_version", ""))
    major = re.match(r"\d+", version)
    if major and int(major[0]) < _LOWEST_MAJOR:
        raise ConfigurationError(
            [ConfigurationProblem("store", f"Redis {version} is too old.", "Use Redis 7 or Valkey.")]
        )


def _warnings_of(server: dict[str, Any]) -> list[str]:
    warnings = []
    policy = server.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        warnings.append(
            f"Redis removes sessions when its memory is full (maxmemory-policy {policy}), which signs visitors out:"
            " set maxmemory-policy noeviction."
        )
    if str(server.get("aof_enabled", 1)) == "0":
        warnings.append(
            "Redis forgets the latest sessions and refreshes when it stops unexpectedly (appendonly no), which signs"
            " visitors out: set appendonly yes and appendfsync everysec."
        )
    return warnings

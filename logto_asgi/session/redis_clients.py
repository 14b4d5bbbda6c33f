"""The clients of redis-py that a store speaks through: one for each event loop, or the app's. Knows no session."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Callable
from typing import Any, Protocol

from logto_asgi.errors import ConfigurationError, ConfigurationProblem, SetupError

__all__ = ["ClientPerLoop", "GivenClient", "MadeClients", "RedisClient", "UrlClients", "clients_of", "require_redis"]

_SCHEMES = ("redis", "rediss", "unix")
_BAD_URL = ConfigurationProblem(
    "RedisStore",
    "was given a URL that cannot be used.",
    "Write redis://, rediss:// or unix://, and %-encode a password.",
)
_NO_CLIENT = ConfigurationProblem(
    "RedisStore",
    "was not given a client of redis.asyncio, or a function that makes one.",
    "For a URL there is RedisStore.from_url(url).",
)
_SENTINEL = ConfigurationProblem("RedisStore", "was given a Sentinel.", "Give it sentinel.master_for(service_name).")


class RedisClient(Protocol):
    """What a store needs of a client: `redis.asyncio.Redis` and `RedisCluster` have it."""

    async def initialize(self) -> Any:
        """Learn what must be known before the first command."""
        ...

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command and return the answer."""
        ...


def require_redis() -> None:
    """Raise an ImportError that names the extra where redis-py is missing."""
    try:
        import redis.asyncio  # noqa: F401
    except ImportError as error:
        raise ImportError("RedisStore needs redis-py: pip install 'logto-asgi[redis]'") from error


def clients_of(client: RedisClient | Callable[[], RedisClient]) -> GivenClient | MadeClients:
    """Return what speaks through a client of the app's, or through those that a function makes.

    Raise `ConfigurationError` for anything else.
    """
    require_redis()
    makes_clients = callable(client) and not isinstance(client, type) and not hasattr(client, "execute_command")
    if makes_clients:
        return MadeClients(client)  # type: ignore[arg-type] # that is what was asked for
    return GivenClient(_checked(client))


def _checked(client: Any) -> Any:
    if hasattr(client, "master_for"):
        raise ConfigurationError([_SENTINEL])
    if isinstance(client, type) or not inspect.iscoroutinefunction(getattr(client, "execute_command", None)):
        raise ConfigurationError([_NO_CLIENT])
    return client


async def _send(client: Any, words: tuple[str | int, ...]) -> Any:
    # A Cluster's client sends what comes before it knows the slots to any node, and stumbles over the corrections.
    await client.initialize()
    return await client.execute_command(*words)


class GivenClient:
    """A client of the app's own, which stays the app's to close."""

    __slots__ = ("_client", "_loop")

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._loop: asyncio.AbstractEventLoop | None = None

    def __str__(self) -> str:
        return f"a {type(self._client).__name__} of the app's"

    async def send(self, *words: str | int) -> Any:
        """Send a command. Raise `SetupError` on another event loop than the first: the connections belong there."""
        loop = asyncio.get_running_loop()
        if self._loop not in (None, loop):
            raise SetupError(
                "The client of RedisStore(client) is used on a second event loop. Give it a function that makes one"
                " for each, RedisStore(lambda: …), or a URL: RedisStore.from_url(url)."
            )
        self._loop = loop
        return await _send(self._client, words)

    async def aclose(self) -> None:
        """Leave it open."""


class ClientPerLoop:
    """A client for each event loop, made at its first use."""

    __slots__ = ("_clients", "_guard")

    def __init__(self) -> None:
        self._clients: dict[asyncio.AbstractEventLoop, Any] = {}
        self._guard = threading.Lock()

    async def send(self, *words: str | int) -> Any:
        """Send a command through the client of the running event loop."""
        loop = asyncio.get_running_loop()
        return await _send(self._clients.get(loop) or self._open(loop), words)

    async def aclose(self) -> None:
        """Close the client of the running event loop, and what it asks where Redis is."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is None:
            return
        from redis.exceptions import RedisError

        sentinel = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
        for each in (client, *getattr(sentinel, "sentinels", ())):
            # One that cannot be told goodbye to is gone anyway.
            with contextlib.suppress(RedisError, OSError):
                await each.aclose()

    def _open(self, loop: asyncio.AbstractEventLoop) -> Any:
        client = self._make()
        with self._guard:
            # Those of loops that were closed without aclose() hold their loop, which would hold them.
            self._clients = {other: kept for other, kept in self._clients.items() if not other.is_closed()}
            self._clients[loop] = client
        return client

    def _make(self) -> Any:
        raise NotImplementedError


class MadeClients(ClientPerLoop):
    """Clients that a function of the app's makes."""

    __slots__ = ("_factory",)

    def __init__(self, factory: Callable[[], RedisClient]) -> None:
        super().__init__()
        self._factory = factory

    def __str__(self) -> str:
        return "clients of the app's"

    def _make(self) -> Any:
        return _checked(self._factory())


class UrlClients(ClientPerLoop):
    """Clients for a URL. Without `__dict__`: nobody prints or serialises the URL by accident."""

    __slots__ = ("_options", "_tls", "_url")

    def __init__(self, url: str, timeout: float, options: dict[str, Any]) -> None:
        require_redis()
        super().__init__()
        self._url = url
        self._options = _with_defaults(url, timeout, options)
        self._tls = self._read()

    def __str__(self) -> str:
        return f"{self._url.partition(':')[0]}://"

    def _make(self) -> Any:
        from redis.asyncio import Redis

        pool = self._pool()
        if self._tls is not None:
            pool.connection_class = _sharing(pool.connection_class, self._tls)
        return Redis.from_pool(pool)

    def _pool(self) -> Any:
        from redis.asyncio import BlockingConnectionPool

        return BlockingConnectionPool.from_url(self._url, **self._options)

    def _read(self) -> Any:
        """Return the TLS settings that all connections share, made now: reading certificates takes 20 ms of CPU.

        Raise `ConfigurationError` for a URL that redis-py cannot read, without the words it says, which quote it.
        """
        pool = None
        if self._url.partition(":")[0] in _SCHEMES:
            with contextlib.suppress(ValueError):
                pool = self._pool()
        if pool is None:
            raise ConfigurationError([_BAD_URL])
        tls = getattr(pool.make_connection(), "ssl_context", None)
        if tls is not None:
            tls.get()
        return tls


def _sharing(kind: Any, tls: Any) -> Any:
    """Return a class of connections that take over these TLS settings instead of reading the files again for each."""

    def take_over(self: Any, **options: Any) -> None:
        kind.__init__(self, **options)
        self.ssl_context = tls

    return type(f"Sharing{kind.__name__}", (kind,), {"__init__": take_over})


def _with_defaults(url: str, timeout: float, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of the connections: no waits beyond `timeout` seconds, and one retry, at once.

    A connection that has lain in the pool may be dead by now, which shows only when it is used. Every step of a store
    may be repeated, and what Redis did not answer in time it will not answer sooner when asked again.
    """
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import ConnectionError as NoConnection

    defaults: dict[str, Any] = {
        "timeout": timeout,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 1, (NoConnection,)),
        "retry_on_error": [NoConnection],
        "protocol": 2,
    }
    if url.startswith("rediss:") and not any("ssl_cert_reqs" in place for place in (url, options)):
        defaults["ssl_check_hostname"] = True  # redis-py's default since 6.
    return defaults | options

"""Facts about the store in Redis, over each way to reach one. How it fails is in test_redis_fails.py."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from logto_asgi.errors import ConfigurationError, SetupError, StoreUnavailable
from logto_asgi.session.redis import RedisStore
from logto_asgi.session.stores import SessionStore, StoredSession, Touch
from logto_asgi.testing.store_contract import SessionStoreContract
from logto_asgi.testing.store_kit import DAY, NOW, create, new_key, replace
from tests.redis_server import PATIENCE, RedisServer, Tls, free_port

redis = pytest.importorskip("redis")
aioredis = pytest.importorskip("redis.asyncio")
PASSWORD = "hunter2-correct-horse"


@pytest.fixture(scope="module")
def socket_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis on a socket file."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def tcp_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis on a port, with a password."""
    with RedisServer(tmp_path_factory.mktemp("redis"), tcp=True, password=PASSWORD) as server:
        yield server


@pytest.fixture(scope="module")
def tls_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that speaks TLS only."""
    home = tmp_path_factory.mktemp("redis")
    with RedisServer(home, tls=issue(home, "localhost", "127.0.0.1")) as server:
        yield server


def issue(home: Path, *names: str) -> Tls:
    """Write a certificate for these names."""
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    issued = authority.issue_cert(*names)
    files = Tls(cert=home / "cert.pem", key=home / "key.pem", ca=home / "ca.pem")
    authority.cert_pem.write_to_path(str(files.ca))
    issued.private_key_pem.write_to_path(str(files.key))
    files.cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    return files


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    """A Cluster of three masters."""
    with contextlib.ExitStack() as stack:
        servers = []
        for _ in range(3):
            home = tmp_path_factory.mktemp("cluster")
            server = RedisServer(home, tcp=True, cluster_enabled="yes", cluster_port=free_port())
            servers.append(stack.enter_context(server))
        addresses = [f"127.0.0.1:{server.port}" for server in servers]
        servers[0].cli("--cluster", "create", *addresses, "--cluster-yes")
        for server in servers:
            server.wait_for("cluster_state:ok", "CLUSTER", "INFO")
        yield servers


class TestSocket(SessionStoreContract):
    """The contract over a socket file."""

    @pytest.fixture(autouse=True)
    def _server(self, socket_redis: RedisServer) -> None:
        self.url = socket_redis.url

    async def make_store(self) -> SessionStore:
        return RedisStore.from_url(self.url, timeout=PATIENCE)


class TestTcp(SessionStoreContract):
    """The contract over TCP, with a password."""

    @pytest.fixture(autouse=True)
    def _server(self, tcp_redis: RedisServer) -> None:
        self.url = tcp_redis.url

    async def make_store(self) -> SessionStore:
        return RedisStore.from_url(self.url, timeout=PATIENCE, max_connections=5)


class TestTls(SessionStoreContract):
    """The contract over TLS."""

    @pytest.fixture(autouse=True)
    def _server(self, tls_redis: RedisServer) -> None:
        assert tls_redis.tls is not None
        self.url, self.ca = tls_redis.url, str(tls_redis.tls.ca)

    async def make_store(self) -> SessionStore:
        return RedisStore.from_url(self.url, timeout=PATIENCE, max_connections=5, ssl_ca_certs=self.ca)


class GivenClientContract(SessionStoreContract):
    """The contract with a client of the app's, which is closed after each test."""

    @pytest.fixture(autouse=True)
    async def _clients(self) -> AsyncIterator[None]:
        self.clients: list[Any] = []
        yield
        for client in self.clients:
            await client.aclose()

    def client(self) -> Any:
        raise NotImplementedError

    async def make_store(self) -> SessionStore:
        self.clients.append(self.client())
        return RedisStore(self.clients[-1], timeout=PATIENCE)


class TestGivenClient(GivenClientContract):
    """The contract with a client that decodes its answers."""

    @pytest.fixture(autouse=True)
    def _server(self, socket_redis: RedisServer) -> None:
        self.url = socket_redis.url

    def client(self) -> Any:
        return aioredis.Redis.from_url(self.url, decode_responses=True)


class TestMadeClient(SessionStoreContract):
    """The contract with a client that a function makes."""

    @pytest.fixture(autouse=True)
    def _server(self, socket_redis: RedisServer) -> None:
        self.url = socket_redis.url

    async def make_store(self) -> SessionStore:
        return RedisStore(lambda: aioredis.Redis.from_url(self.url), timeout=PATIENCE)


class TestCluster(GivenClientContract):
    """The contract with a client of a Cluster."""

    @pytest.fixture(autouse=True)
    def _server(self, cluster: list[RedisServer]) -> None:
        self.port = cluster[0].port

    def client(self) -> Any:
        return aioredis.RedisCluster(host="127.0.0.1", port=self.port)


async def test_the_first_calls_go_to_the_right_node(cluster: list[RedisServer]) -> None:
    """Many calls at once with a new client of a Cluster: it learns the slots first, and no node sends one elsewhere."""
    for server in cluster:
        server.cli("CONFIG", "RESETSTAT")
    async with contextlib.aclosing(aioredis.RedisCluster(host="127.0.0.1", port=cluster[0].port)) as client:
        store = RedisStore(client, timeout=PATIENCE)
        assert await asyncio.gather(*(create(store, new_key(), "value") for _ in range(50))) == [1] * 50
    assert [server for server in cluster if "errorstat_MOVED" in server.cli("INFO", "errorstats")] == []


async def test_a_certificate_must_be_right(tmp_path: Path, tls_redis: RedisServer) -> None:
    """Over rediss:// one of an unknown authority, or for another host, is refused, unless the app says otherwise."""
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    with RedisServer(stranger, tls=issue(stranger, "other.example")) as server:
        assert tls_redis.tls is not None
        assert server.tls is not None
        unknown = RedisStore.from_url(server.url, timeout=PATIENCE, ssl_ca_certs=str(tls_redis.tls.ca))
        elsewhere = RedisStore.from_url(server.url, timeout=PATIENCE, ssl_ca_certs=str(server.tls.ca))
        for store in (unknown, elsewhere):
            with pytest.raises(StoreUnavailable):
                await store.get(new_key(), now=NOW)
            await store.aclose()
        careless = RedisStore.from_url(f"{server.url}?ssl_cert_reqs=none", timeout=PATIENCE)
        assert await careless.get(new_key(), now=NOW) is None
        await careless.aclose()


async def test_connections_share_their_tls_settings(tls_redis: RedisServer) -> None:
    """Certificates are read once, when the store is made, not for each of many connections on the event loop."""
    assert tls_redis.tls is not None
    store = RedisStore.from_url(tls_redis.url, timeout=PATIENCE, ssl_ca_certs=str(tls_redis.tls.ca))
    await asyncio.gather(*(store.get(new_key(), now=NOW) for _ in range(20)))
    (client,) = store._clients._clients.values()  # type: ignore[union-attr]
    connections = client.connection_pool._available_connections
    assert len(connections) > 1
    assert len({id(connection.ssl_context.get()) for connection in connections}) == 1
    await store.aclose()
    with pytest.raises(FileNotFoundError):
        RedisStore.from_url(tls_redis.url, ssl_ca_certs="absent.pem")


@pytest.fixture
async def store(socket_redis: RedisServer) -> AsyncIterator[RedisStore]:
    """A store on an empty Redis."""
    socket_redis.cli("FLUSHALL")
    store = RedisStore.from_url(socket_redis.url, timeout=PATIENCE)
    yield store
    await store.aclose()


def name_of(key: str) -> str:
    """Where a session lies in Redis."""
    return f"logto:{{{key}}}"


async def test_redis_removes_what_has_expired(store: RedisStore, socket_redis: RedisServer) -> None:
    """Every key has a life in Redis: a session its idle time, the index its longest end, a lock its own."""
    key = new_key()
    await create(store, key, "value", idle=50_000, ends_at=NOW + 90_000, index=["sub:1"])
    await store.lock(key, ttl=70_000)
    lives = [int(socket_redis.cli("TTL", name)) for name in (name_of(key), "logto:index:sub:1", f"{name_of(key)}:lock")]
    assert [round(life, -4) for life in lives] == [50_000, 90_000, 70_000]
    await store.get(key, now=NOW + 100, touch=Touch(80_000, 10))
    assert round(int(socket_redis.cli("TTL", name_of(key))), -4) == 80_000
    await replace(store, key, "newer", 1, now=NOW + 100, idle=20_000)
    assert round(int(socket_redis.cli("TTL", name_of(key))), -4) == 20_000


async def test_an_index_lives_as_long_as_its_longest_entry(store: RedisStore, socket_redis: RedisServer) -> None:
    """A shorter entry does not shorten it, and what has ended is removed when another is added."""
    await create(store, new_key(), "long", ends_at=NOW + 90_000, index=["sub:1"])
    await create(store, new_key(), "short", ends_at=NOW + 1, index=["sub:1"])
    assert round(int(socket_redis.cli("TTL", "logto:index:sub:1")), -4) == 90_000
    async with asyncio.timeout(PATIENCE):
        while len(await store.find("sub:1")) > 1:
            await asyncio.sleep(0.05)
    assert socket_redis.cli("ZCARD", "logto:index:sub:1") == "2"
    await create(store, new_key(), "new", index=["sub:1"])
    assert socket_redis.cli("ZCARD", "logto:index:sub:1") == "2"


async def test_the_index_is_written_first(store: RedisStore, socket_redis: RedisServer) -> None:
    """Where its name cannot be noted, a session that nobody could find to end it is not written either."""
    socket_redis.cli("ACL", "SETUSER", "half", "on", ">pw", "resetkeys", "~logto:{*", "+@all")
    half = RedisStore.from_url(socket_redis.url.replace("unix://", "unix://half:pw@"), timeout=PATIENCE)
    key = new_key()
    with pytest.raises(StoreUnavailable):
        await create(half, key, "value", index=["sub:1"])
    assert await store.get(key, now=NOW) is None
    assert await create(half, key, "value") == 1
    await half.aclose()


async def test_a_touch_writes_once_an_interval(store: RedisStore, socket_redis: RedisServer) -> None:
    """A hundred requests of one interval change Redis once, and reading alone changes nothing."""
    key = new_key()
    await create(store, key, "value")
    before = int(socket_redis.info("rdb_changes_since_last_save"))
    for _ in range(100):
        await store.get(key, now=NOW + 59, touch=Touch(DAY, 60))
        await store.get(key, now=NOW + 60)
    assert int(socket_redis.info("rdb_changes_since_last_save")) == before
    for _ in range(100):
        await store.get(key, now=NOW + 60, touch=Touch(DAY, 60))
    changes = int(socket_redis.info("rdb_changes_since_last_save")) - before
    assert changes == 3, "two fields and a life, once"


async def test_a_read_is_one_command(store: RedisStore, socket_redis: RedisServer) -> None:
    """Reading with a touch is one round trip."""
    key = new_key()
    await create(store, key, "value")
    await store.get(key, now=NOW)
    before = int(socket_redis.cli("INFO", "commandstats").partition("cmdstat_evalsha:calls=")[2].partition(",")[0])
    socket_redis.cli("CONFIG", "RESETSTAT")
    await store.get(key, now=NOW + 100, touch=Touch(DAY, 60))
    stats = socket_redis.cli("INFO", "commandstats")
    assert before > 0
    assert "cmdstat_evalsha:calls=1," in stats
    assert "cmdstat_eval:" not in stats


async def test_stores_with_other_prefixes_are_apart(store: RedisStore, socket_redis: RedisServer) -> None:
    """Two apps on one Redis share neither sessions, locks nor index."""
    other = RedisStore.from_url(socket_redis.url, prefix="other:", timeout=PATIENCE)
    key = new_key()
    await create(store, key, "value", index=["sub:1"])
    await store.lock(key, ttl=60)
    assert await other.get(key, now=NOW) is None
    assert await other.lock(key, ttl=60)
    assert await other.find("sub:1") == []
    assert all(name.startswith(("logto:", "other:")) for name in socket_redis.cli("KEYS", "*").split())
    await other.aclose()


async def test_dead_connections_cost_nobody_an_answer(store: RedisStore, socket_redis: RedisServer) -> None:
    """Connections of the pool that Redis has closed meanwhile are opened again within the call."""
    key = new_key()
    await create(store, key, "value")
    for _ in range(20):
        socket_redis.cli("CLIENT", "KILL", "TYPE", "normal")
        found = await asyncio.gather(*(store.get(key, now=NOW) for _ in range(10)))
        assert found == [StoredSession("value", 1, NOW)] * 10


async def test_calls_wait_for_a_connection(socket_redis: RedisServer) -> None:
    """More calls than connections wait their turn; no more than max_connections are opened."""
    before = int(socket_redis.info("total_connections_received"))
    store = RedisStore.from_url(socket_redis.url, timeout=PATIENCE, max_connections=2)
    keys = [new_key() for _ in range(100)]
    await asyncio.gather(*(create(store, key, key) for key in keys))
    found = await asyncio.gather(*(store.get(key, now=NOW) for key in keys))
    assert [held and held.value for held in found] == keys
    assert int(socket_redis.info("total_connections_received")) - before <= 2 + 1
    await store.aclose()


async def test_callers_that_hang_up_spoil_no_connection(socket_redis: RedisServer) -> None:
    """Calls that are cancelled at any moment, and again while they end, leave every connection open and fit."""
    before = int(socket_redis.info("total_connections_received"))
    store = RedisStore.from_url(socket_redis.url, timeout=PATIENCE, max_connections=3)
    keys = [new_key() for _ in range(30)]
    await asyncio.gather(*(create(store, key, key) for key in keys))
    for patience in range(40):
        calls = [asyncio.create_task(store.get(key, now=NOW)) for key in keys]
        for _ in range(patience):
            await asyncio.sleep(0)
        while not all(call.done() for call in calls):
            for call in calls:
                call.cancel()
            await asyncio.sleep(0)
        await asyncio.gather(*calls, return_exceptions=True)
    found = await asyncio.gather(*(store.get(key, now=NOW) for key in keys))
    assert [held and held.value for held in found] == keys
    assert int(socket_redis.info("total_connections_received")) - before <= 3 + 1
    await store.aclose()


async def test_what_was_begun_is_done(store: RedisStore, socket_redis: RedisServer) -> None:
    """A caller that is cancelled while it frees a lock or ends a session does not leave it locked or alive."""
    key = new_key()
    await create(store, key, "value")
    token = await store.lock(key, ttl=600)
    assert token is not None
    for call in (asyncio.create_task(store.unlock(key, token)), asyncio.create_task(store.delete(key))):
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    await store.aclose()
    assert socket_redis.cli("EXISTS", name_of(key), f"{name_of(key)}:lock") == "0"


def test_each_event_loop_has_a_client_of_its_own(socket_redis: RedisServer) -> None:
    """One store serves several event loops, at once and one after the other."""
    store = RedisStore.from_url(socket_redis.url, timeout=PATIENCE)
    keys = [new_key() for _ in range(4)]

    async def use(key: str) -> str | None:
        await create(store, key, key)
        await asyncio.sleep(0.01)
        held = await store.get(key, now=NOW)
        await store.aclose()
        return held and held.value

    def run(key: str) -> None:
        found.append(asyncio.run(use(key)))

    found: list[str | None] = []
    threads = [threading.Thread(target=run, args=(key,)) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, found)) == sorted(keys)
    assert [asyncio.run(use(key + "0")) for key in keys] == [key + "0" for key in keys]
    assert store._clients._clients == {}  # type: ignore[union-attr]


def test_a_client_of_the_apps_belongs_to_one_loop(socket_redis: RedisServer) -> None:
    """Used on a second event loop it is refused with the remedy, rather than with what asyncio says."""
    client = aioredis.Redis.from_url(socket_redis.url)
    store = RedisStore(client, timeout=PATIENCE)

    async def use() -> None:
        await store.get(new_key(), now=NOW)

    async def use_and_close() -> None:
        await use()
        await client.aclose()

    asyncio.run(use_and_close())
    with pytest.raises(SetupError, match=r"RedisStore\(lambda: …\), or a URL: RedisStore.from_url"):
        asyncio.run(use())


def test_a_function_makes_a_client_for_each_loop(socket_redis: RedisServer) -> None:
    """It is called at the first use on an event loop, and what it made is closed with the store there."""
    made: list[Any] = []

    def make() -> Any:
        made.append(aioredis.Redis.from_url(socket_redis.url))
        return made[-1]

    store = RedisStore(make, timeout=PATIENCE)
    assert repr(store) == "<RedisStore clients of the app's prefix='logto:'>"
    assert made == []

    async def use() -> None:
        await store.aclose()
        await asyncio.gather(*(store.get(new_key(), now=NOW) for _ in range(3)))
        pool = made[-1].connection_pool
        assert any(connection.is_connected for connection in pool._available_connections)
        await store.aclose()
        assert not any(connection.is_connected for connection in pool._available_connections)

    for loops in (1, 2):
        asyncio.run(use())
        assert len(made) == loops
    assert store._clients._clients == {}  # type: ignore[union-attr]


@pytest.mark.parametrize("wrong", [lambda: None, lambda: redis.Redis(), lambda: aioredis.Redis])
async def test_a_function_that_makes_no_client(wrong: Any) -> None:
    """What it made instead is refused when the app starts."""
    with pytest.raises(ConfigurationError, match="a function that makes one"):
        await RedisStore(wrong).check()


async def test_a_client_of_the_apps_stays_open(socket_redis: RedisServer) -> None:
    """Closing the store leaves the app's client as it is."""
    async with aioredis.Redis.from_url(socket_redis.url, single_connection_client=True) as client:
        store = RedisStore(client, timeout=PATIENCE)
        await create(store, new_key(), "value")
        identity = await client.client_id()
        await store.aclose()
        assert await client.client_id() == identity


async def test_settings_that_lose_sessions_are_warned_of(store: RedisStore, socket_redis: RedisServer) -> None:
    """Eviction and a missing append-only file are named with their remedy; with both right there is no warning."""
    for setting in (("maxmemory-policy", "allkeys-lru"), ("appendonly", "no")):
        socket_redis.cli("CONFIG", "SET", *setting)
    warnings = await store.check()
    assert [("noeviction" in warning, "appendonly yes" in warning) for warning in warnings] == [
        (True, False),
        (False, True),
    ]
    for setting in (("maxmemory-policy", "noeviction"), ("appendonly", "yes")):
        socket_redis.cli("CONFIG", "SET", *setting)
    assert await store.check() == []


async def test_a_check_that_may_not_look(
    socket_redis: RedisServer, store: RedisStore, caplog: pytest.LogCaptureFixture
) -> None:
    """A user whose ACL forbids INFO is told nothing, and the store works for what it is allowed."""
    socket_redis.cli("ACL", "SETUSER", "app", "on", ">pw", "resetkeys", "~logto:*", "+@all", "-info", "-config")
    limited = RedisStore.from_url(socket_redis.url.replace("unix://", "unix://app:pw@"), timeout=PATIENCE)
    assert await limited.check() == []
    assert caplog.records == []
    assert await create(limited, new_key(), "value") == 1
    await limited.aclose()


async def test_an_acl_that_forbids_scripts_is_told_at_start_up(
    socket_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The check runs what an app needs, and the log names the commands to allow."""
    socket_redis.cli("ACL", "SETUSER", "poor", "on", ">pw", "resetkeys", "~logto:*", "+@all", "-evalsha")
    poor = RedisStore.from_url(socket_redis.url.replace("unix://", "unix://poor:pw@"), timeout=PATIENCE)
    with pytest.raises(StoreUnavailable):
        await poor.check()
    assert "EVALSHA" in caplog.text
    await poor.aclose()


async def test_an_old_redis_is_refused(tmp_path: Path) -> None:
    """Redis 6 does not know the scripts' first line: the check says which versions will do."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            words = [(await reader.readline(), await reader.readline())[1].strip() for _ in range(int(line[1:]))]
            info = b"redis_version:6.2.14\r\n"
            writer.write(b"$%d\r\n%b\r\n" % (len(info), info) if words[0] == b"INFO" else b"+OK\r\n")
        writer.close()

    server = await asyncio.start_unix_server(answer, tmp_path / "old.sock")
    store = RedisStore.from_url(f"unix://{tmp_path / 'old.sock'}", timeout=PATIENCE)
    with pytest.raises(ConfigurationError, match=r"6\.2\.14 is too old.*Valkey"):
        await store.check()
    await store.aclose()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost",
        "localhost:6379",
        "",
        f"redis://:{PASSWORD}/{PASSWORD}@localhost:6379",
        f"redis://localhost:{PASSWORD}",
        f"redis://localhost?socket_timeout={PASSWORD}",
    ],
)
def test_a_url_that_cannot_be_used(url: str) -> None:
    """It is refused at once, in words that do not repeat it: it may hold a password."""
    with pytest.raises(ConfigurationError) as refused:
        RedisStore.from_url(url)
    assert PASSWORD not in str(refused.value)
    assert refused.value.__context__ is None
    assert "rediss://" in str(refused.value)


def test_what_is_no_client() -> None:
    """A URL, a blocking client or a Sentinel in place of a client is refused with what to write instead."""
    from redis.asyncio.sentinel import Sentinel

    for client, remedy in (
        (f"redis://:{PASSWORD}@localhost", "from_url"),
        (redis.Redis(), "asyncio"),
        (aioredis.Redis, "makes one"),
    ):
        with pytest.raises(ConfigurationError, match=remedy) as refused:
            RedisStore(client)
        assert PASSWORD not in str(refused.value)
    with pytest.raises(ConfigurationError, match="master_for"):
        RedisStore(Sentinel([("localhost", 26379)]))  # type: ignore[arg-type]


def test_a_repr_says_how_but_not_where() -> None:
    """The scheme and the prefix show, neither host nor password."""
    store = RedisStore.from_url(f"rediss://user:{PASSWORD}@redis.internal:6390/2", prefix="shop:")
    assert repr(store) == "<RedisStore rediss:// prefix='shop:'>"
    given = RedisStore(aioredis.Redis.from_url(f"redis://user:{PASSWORD}@redis.internal"))
    assert repr(given) == "<RedisStore a Redis of the app's prefix='logto:'>"


def test_a_timeout_must_be_a_time() -> None:
    """Waiting no time at all would never succeed."""
    with pytest.raises(ValueError, match="timeout"):
        RedisStore.from_url("redis://localhost", timeout=0)


@pytest.mark.parametrize("make", ["RedisStore.from_url('redis://localhost')", "RedisStore(object())"])
def test_without_redis_py(make: str) -> None:
    """The module can be imported; making a store says what to install."""
    script = f"import sys; sys.modules['redis'] = None\nfrom logto_asgi.session.redis import RedisStore\n{make}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert "ImportError: RedisStore needs redis-py: pip install 'logto-asgi[redis]'" in done.stderr

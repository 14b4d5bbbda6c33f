"""Facts about the store when Redis is away, full, slow, read-only, locked, or holds garbage."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from logto_asgi.errors import StoreFull, StoreUnavailable
from logto_asgi.session.redis import RedisStore
from logto_asgi.session.stores import StoredSession, Touch
from logto_asgi.testing.store_kit import DAY, NOW, create, new_key, replace
from tests.redis_server import PATIENCE, RedisServer

aioredis = pytest.importorskip("redis.asyncio")
PASSWORD = "hunter2-correct-horse"

Start = Callable[..., RedisServer]
Open = Callable[..., RedisStore]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a Redis of this test's own: `start(appendonly="yes")`."""
    with contextlib.ExitStack() as stack:

        def run(name: str = "redis", **options: Any) -> RedisServer:
            return stack.enter_context(RedisServer(tmp_path / name, **options))

        yield run


@pytest.fixture
async def connect() -> AsyncIterator[Open]:
    """Open a store: `connect(server)`. Only tests of time-outs give a short one."""
    stores: list[RedisStore] = []

    def run(server: RedisServer, **options: Any) -> RedisStore:
        stores.append(RedisStore.from_url(server.url, **{"timeout": PATIENCE, **options}))
        return stores[-1]

    yield run
    for store in stores:
        await store.aclose()


def name_of(key: str) -> str:
    """Where a session lies in Redis."""
    return f"logto:{{{key}}}"


def every_call(store: RedisStore, key: str) -> dict[str, Any]:
    """One of each call."""
    return {
        "get": store.get(key, now=NOW),
        "touch": store.get(key, now=NOW, touch=Touch(DAY, 60)),
        "create": create(store, key, "value", index=["sub:1"]),
        "replace": replace(store, key, "value", 1),
        "delete": store.delete(key, index=["sub:1"]),
        "lock": store.lock(key, ttl=60),
        "unlock": store.unlock(key, "token"),
        "find": store.find("sub:1"),
        "check": store.check(),
    }


async def failures_of(store: RedisStore) -> list[StoreUnavailable]:
    """Make each call and return what they raise, which must be one kind."""
    raised = []
    calls = every_call(store, new_key())
    for name, error in zip(calls, await asyncio.gather(*calls.values(), return_exceptions=True), strict=True):
        assert isinstance(error, StoreUnavailable), name
        assert error.__cause__ is error.__context__ is None, name
        raised.append(error)
    return raised


async def test_a_redis_that_hangs(start: Start, connect: Open, caplog: pytest.LogCaptureFixture) -> None:
    """Stopped in mid-air, every call ends with 503 within the time-out; going on, the next call works."""
    server = start()
    store, new = connect(server, timeout=0.2), connect(server, timeout=0.2)
    key = new_key()
    await create(connect(server), key, "value")
    server.pause()
    async with asyncio.timeout(PATIENCE):
        raised = await failures_of(store) + await failures_of(new)
        raised += await asyncio.gather(*(store.get(key, now=NOW) for _ in range(200)), return_exceptions=True)
    assert {(error.status_code, type(error)) for error in raised} == {(503, StoreUnavailable)}
    assert all(error.headers == {"Retry-After": "2"} for error in raised)
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2, "once for each store"
    server.resume()
    patient = connect(server)
    patient._clients, unused = store._clients, patient._clients
    assert await patient.get(key, now=NOW) == StoredSession("value", 1, NOW)
    await unused.aclose()


async def test_a_hanging_redis_does_not_hold_the_event_loop(start: Start, connect: Open) -> None:
    """While a call waits for an answer, everything else goes on."""
    server = start()
    store = connect(server, timeout=0.5)
    await store.get(new_key(), now=NOW)
    server.pause()
    call = asyncio.create_task(store.get(new_key(), now=NOW))
    turns = 0
    while not call.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 10
    assert isinstance(call.exception(), StoreUnavailable)
    server.resume()


async def test_a_redis_that_was_killed(start: Start, connect: Open, caplog: pytest.LogCaptureFixture) -> None:
    """Away it is 503; started again, the same store goes on at once with what the append-only file kept."""
    server = start(appendonly="yes", appendfsync="always")
    store, key = connect(server), new_key()
    await asyncio.gather(create(store, key, "value"), *(store.get(new_key(), now=NOW) for _ in range(10)))
    server.kill()
    assert {type(error) for error in await failures_of(store)} == {StoreUnavailable}
    assert len(caplog.records) == 1
    assert "Redis does not answer" in caplog.text
    server.start()
    found = await asyncio.gather(*(store.get(key, now=NOW) for _ in range(20)))
    assert found == [StoredSession("value", 1, NOW)] * 20
    server.kill()
    await failures_of(store)
    assert len(caplog.records) == 2, "what fails again is said again"


async def test_a_restart_is_not_noticed(start: Start, connect: Open) -> None:
    """Between two calls Redis restarts: every connection of the pool is dead, and no call fails."""
    server = start(tcp=True, appendonly="yes", appendfsync="always")
    store, key = connect(server), new_key()
    await create(store, key, "value")
    await asyncio.gather(*(store.get(key, now=NOW) for _ in range(10)))
    server.restart()
    found = await asyncio.gather(*(store.get(key, now=NOW) for _ in range(20)))
    assert found == [StoredSession("value", 1, NOW)] * 20


async def test_a_redis_that_forgot_everything(start: Start, connect: Open) -> None:
    """After FLUSHALL sessions are absent, cannot be replaced, and new ones can be made."""
    server = start()
    store, key = connect(server), new_key()
    await create(store, key, "value", index=["sub:1"])
    server.cli("FLUSHALL")
    assert await store.get(key, now=NOW, touch=Touch(DAY, 0)) is None
    assert await replace(store, key, "newer", 1) is None
    assert await store.find("sub:1") == []
    assert await create(store, key, "value") == 1


async def test_scripts_that_redis_forgot(start: Start, connect: Open) -> None:
    """After SCRIPT FLUSH, as after a failover, each script is sent again."""
    server = start()
    store, key = connect(server), new_key()
    for number in range(3):
        server.cli("SCRIPT", "FLUSH")
        created = new_key()
        assert await create(store, created, "value", index=["sub:1"]) == 1
        assert await store.get(created, now=NOW)
        token = await store.lock(key, ttl=60)
        assert token is not None
        await store.unlock(key, token)
        assert len(await store.find("sub:1")) == number + 1


async def test_a_full_redis(start: Start, connect: Open, caplog: pytest.LogCaptureFixture) -> None:
    """What would add something is refused as full; reading, touching, finding, deleting and unlocking go on."""
    server = start(maxmemory_policy="noeviction")
    store, key, other = connect(server), new_key(), new_key()
    await create(store, key, "value", index=["sub:1"])
    await create(store, other, "value", index=["sub:1"])
    token = await store.lock(key, ttl=600)
    assert token is not None
    server.cli("CONFIG", "SET", "maxmemory", "1")
    full = [create(store, new_key(), "value"), create(store, new_key(), "value", index=["sub:2"])]
    full += [replace(store, key, "newer", 1), store.lock(new_key(), ttl=60)]
    for call in full:
        with pytest.raises(StoreFull) as refused:
            await call
        assert (refused.value.status_code, refused.value.code) == (503, "store_full")
    assert server.cli("EXISTS", "logto:index:sub:2") == "0"
    assert await store.get(key, now=NOW + 100, touch=Touch(DAY, 60)) == StoredSession("value", 1, NOW)
    assert await store.get(key, now=NOW + 100) == StoredSession("value", 1, NOW + 100)
    await store.unlock(key, token)
    assert server.cli("EXISTS", f"{name_of(key)}:lock") == "0"
    await store.delete(other, index=["sub:1"])
    assert await store.get(other, now=NOW) is None
    assert await store.find("sub:1") == [key]
    assert "Raise its maxmemory" in caplog.text
    server.cli("CONFIG", "SET", "maxmemory", "0")
    assert await replace(store, key, "newer", 1) == 2


async def test_a_redis_that_refuses_to_write(start: Start, connect: Open, caplog: pytest.LogCaptureFixture) -> None:
    """Where its disk fails, who is signed in stays so: sessions are read, without a touch."""
    server = start(save="3600 1000", dbfilename="taken")
    store, key = connect(server), new_key()
    await create(store, key, "value")
    (server.home / "taken").mkdir()
    server.cli("BGSAVE")
    server.wait_for("rdb_last_bgsave_status:err", "INFO", "persistence")
    for now in (NOW + 100, NOW + 200):
        assert await store.get(key, now=now, touch=Touch(DAY, 60)) == StoredSession("value", 1, NOW)
    for call in (create(store, new_key(), "value"), replace(store, key, "newer", 1), store.lock(key, ttl=60)):
        with pytest.raises(StoreFull):
            await call
    assert "refuses to write" in caplog.text
    (server.home / "taken").rmdir()
    server.cli("BGSAVE")
    server.wait_for("rdb_last_bgsave_status:ok", "INFO", "persistence")
    assert await replace(store, key, "newer", 1) == 2


async def test_a_master_cut_off_from_its_replicas(
    start: Start, connect: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """It answers nothing: another one may be the master by now, where sessions have ended that it still has."""
    server = start()
    store, key = connect(server), new_key()
    await create(store, key, "value")
    server.cli("CONFIG", "SET", "min-replicas-to-write", "1")
    for call in (
        store.get(key, now=NOW),
        store.get(key, now=NOW + 100, touch=Touch(DAY, 60)),
        replace(store, key, "newer", 1),
        store.delete(key),
        store.lock(key, ttl=60),
    ):
        with pytest.raises(StoreUnavailable) as refused:
            await call
        assert type(refused.value) is StoreUnavailable
    assert "min-replicas-to-write" in caplog.text
    server.cli("CONFIG", "SET", "min-replicas-to-write", "0")
    assert await store.get(key, now=NOW) == StoredSession("value", 1, NOW)


async def test_a_read_only_replica(start: Start, connect: Open, caplog: pytest.LogCaptureFixture) -> None:
    """A replica, or a master that was demoted, answers nothing, not even old sessions; promoted, it does."""
    master = start("master", tcp=True, repl_diskless_sync_delay=0)
    replica = start("replica", tcp=True, replicaof=f"127.0.0.1 {master.port}")
    replica.wait_for("master_link_status:up", "INFO", "replication")
    key = new_key()
    await create(connect(master), key, "value")
    replica.wait_for("1", "EXISTS", name_of(key))
    store = connect(replica)
    for call in (store.get(key, now=NOW), replace(store, key, "newer", 1), store.delete(key), store.lock(key, ttl=60)):
        with pytest.raises(StoreUnavailable) as refused:
            await call
        assert type(refused.value) is StoreUnavailable
    assert "read-only replica" in caplog.text
    replica.cli("REPLICAOF", "NO", "ONE")
    assert await store.get(key, now=NOW) == StoredSession("value", 1, NOW)
    assert await replace(store, key, "newer", 1) == 2


@pytest.mark.parametrize("given", [PASSWORD, ""])
async def test_a_wrong_password(start: Start, given: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is 503, the log says what to check, and no password shows anywhere."""
    caplog.set_level(logging.DEBUG)
    server = start(password="another-battery-staple")
    login = f":{given}@" if given else ""
    store = RedisStore.from_url(f"unix://{login}{server.socket}", timeout=PATIENCE)
    raised = await failures_of(store)
    await store.aclose()
    assert "check the user and password" in caplog.text
    shown = caplog.text + repr(store) + "".join("".join(traceback.format_exception(error)) for error in raised)
    assert PASSWORD not in shown
    assert "another-battery-staple" not in shown


@pytest.mark.parametrize("decodes", [False, True])
async def test_garbage_harms_only_its_session(start: Start, decodes: bool) -> None:
    """Another type, missing or odd fields and bytes that are no text read as what opens as nothing; deleting clears."""
    server = start()
    async with (
        aioredis.Redis.from_url(server.url) as raw,
        aioredis.Redis.from_url(server.url, decode_responses=decodes) as client,
    ):
        store, good = RedisStore(client, timeout=PATIENCE), new_key()
        await create(store, good, "value")
        kinds: dict[str, Any] = {
            "list": raw.rpush(name_of("list"), "x"),
            "string": raw.set(name_of("string"), "x"),
            "odd": raw.hset(name_of("odd"), mapping={"v": "value", "n": "one", "t": "2", "x": NOW + DAY}),
            "bytes": raw.hset(name_of("bytes"), mapping={"v": b"\xff\xfe", "n": 1, "t": NOW, "x": NOW + DAY}),
            "fields": raw.hset(name_of("fields"), mapping={"v": "value", "x": NOW + DAY}),
        }
        for key, make in kinds.items():
            await make
            assert await store.get(key, now=NOW) == StoredSession("?", 0, 0), key
            assert await replace(store, key, "newer", 0) is None
            await store.delete(key)
            assert await store.get(key, now=NOW) is None
            assert await create(store, key, "value") == 1
        await raw.hset(name_of("empty"), mapping={"other": "x"})
        assert await store.get("empty", now=NOW) is None
        assert await create(store, "empty", "value") == 1
        assert await store.get(good, now=NOW) == StoredSession("value", 1, NOW)


@pytest.mark.parametrize("field", ["n", "t", "x", "e"])
async def test_numbers_that_are_none(start: Start, connect: Open, field: str) -> None:
    """A number that is missing, negative, broken, endless or none reads as what opens as nothing, touched or not."""
    server = start()
    store = connect(server)
    sound = {"v": "value", "n": "1", "t": str(NOW), "x": str(NOW + DAY), "e": str(NOW + DAY)}
    for odd in ("", "nan", "inf", "-inf", "1e400", "-1e300", "-1", "1.5", "1e15", "9" * 20, "9" * 5_000, "one", None):
        key = new_key()
        server.cli("HSET", name_of(key), *(word for pair in (sound | {field: odd or ""}).items() for word in pair))
        if odd is None:
            server.cli("HDEL", name_of(key), field)
        for touch in (None, Touch(DAY, 60)):
            assert await store.get(key, now=NOW + 100, touch=touch) == StoredSession("?", 0, 0), odd
        await store.delete(key)
        assert await create(store, key, "value") == 1


@pytest.mark.parametrize("field", ["n", "x"])
async def test_numbers_that_are_none_are_not_counted_on(start: Start, connect: Open, field: str) -> None:
    """Where the fields that a write goes by are garbage nothing is written, not even over the same value."""
    server = start()
    store, key = connect(server), new_key()
    for odd in ("nan", "inf", "-1", "1e15"):
        await create(store, key, "value")
        server.cli("HSET", name_of(key), field, odd)
        for call in (create(store, key, "value"), create(store, key, "other"), replace(store, key, "newer", 1)):
            assert await call is None, odd
        await store.delete(key)


async def test_garbage_under_a_lock_or_a_name(start: Start, connect: Open) -> None:
    """Another type where a lock or an index must be gives way: nobody is locked out, and sign-ins go on."""
    server = start()
    store, key = connect(server), new_key()
    server.cli("RPUSH", f"{name_of(key)}:lock", "x")
    await store.unlock(key, "token")
    token = await store.lock(key, ttl=60)
    assert token is not None
    assert await store.lock(key, ttl=60) is None
    assert int(server.cli("TTL", f"{name_of(key)}:lock")) > 0
    server.cli("SET", "logto:index:sub:1", "x")
    assert await store.find("sub:1") == []
    await store.delete(key, index=["sub:1"])
    assert await create(store, key, "value", index=["sub:1"]) == 1
    assert await store.find("sub:1") == [key]


@pytest.mark.parametrize("decodes", [False, True])
async def test_garbage_in_a_name(start: Start, decodes: bool) -> None:
    """Entries of the index that are no keys are not found, and an end beyond all time keeps nobody from signing in."""
    server = start()
    async with (
        aioredis.Redis.from_url(server.url) as raw,
        aioredis.Redis.from_url(server.url, decode_responses=decodes) as client,
    ):
        store, key, other = RedisStore(client, timeout=PATIENCE), new_key(), new_key()
        await create(store, key, "value", index=["sub:1"])
        odd = [b"\xff\xfe", b"\xff" * 64, b"", b"x", key.upper().encode(), b"g" * 64, b"a" * 63, b"a" * 65]
        await raw.zadd("logto:index:sub:1", dict.fromkeys(odd, 4e12))
        assert await store.find("sub:1") == [key]
        await raw.zadd("logto:index:sub:1", {"f" * 64: float("inf"), "e" * 64: 1e15, "d" * 64: float("-inf")})
        assert await create(store, other, "value", index=["sub:1"]) == 1
        assert sorted(await store.find("sub:1")) == sorted([key, other])


class Cutting:
    """A way to Redis that can lose an answer: the command arrives, and the connection is cut."""

    def __init__(self, server: RedisServer, at: Path) -> None:
        self.server, self.at = server, at
        self.lose = b""
        """Part of a command whose answer is lost, once."""
        self.lost = 0

    async def __aenter__(self) -> Cutting:
        self._way = await asyncio.start_unix_server(self._carry, self.at)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._way.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up, down = await asyncio.open_unix_connection(self.server.socket)
        while command := await reader.read(65_536):
            down.write(command)
            answer = await up.read(65_536)
            if self.lose and self.lose in command and not answer.startswith(b"-NOSCRIPT"):
                self.lose, self.lost = b"", self.lost + 1
                break
            writer.write(answer)
        down.close()
        writer.close()


async def test_an_answer_that_was_lost(start: Start, tmp_path: Path) -> None:
    """The call is repeated at once and means the same: the lock is the caller's, the revision is not taken twice."""
    server = start()
    short = server.socket.with_name("cut.sock")
    async with Cutting(server, short) as way:
        store, key = RedisStore.from_url(f"unix://{short}", timeout=PATIENCE), new_key()
        await store.check()
        way.lose = b":lock"
        assert await store.lock(key, ttl=600)
        way.lose = b"first"
        assert await create(store, key, "first") == 1
        way.lose = b"second"
        assert await replace(store, key, "second", 1) == 2
        way.lose = name_of(key).encode()
        assert await store.get(key, now=NOW) == StoredSession("second", 2, NOW)
        way.lose = name_of(key).encode()
        await store.delete(key)
        assert way.lost == 5
        await store.aclose()


class Reluctant:
    """A client that does not answer, and takes its time to give up."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    async def initialize(self) -> None:
        """Nothing is needed."""

    async def execute_command(self, *_: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await self.may_end.wait()


async def test_a_client_that_is_slow_to_give_up() -> None:
    """The time-out holds for the caller although the client is not done with its connection by then."""
    client = Reluctant()
    store = RedisStore(client, timeout=0.1)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(StoreUnavailable):
            await store.get(new_key(), now=NOW)
        client.may_end.set()
        await store.aclose()


async def test_closing_while_redis_hangs(start: Start, connect: Open) -> None:
    """An app that shuts down is not held up: closing takes no longer than a call."""
    server = start()
    store = connect(server, timeout=0.2)
    await store.get(new_key(), now=NOW)
    server.pause()
    call = asyncio.create_task(store.get(new_key(), now=NOW))
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE):
        await store.aclose()
        with pytest.raises(StoreUnavailable):
            await call
    server.resume()


async def test_sentinel_fails_over(start: Start) -> None:
    """A client of Sentinel's follows the master: after a failover the same store goes on, with what was replicated.

    The store closes what its function made, also the connections to Sentinel.
    """
    from redis.asyncio.sentinel import Sentinel

    master = start("master", tcp=True, repl_diskless_sync_delay=0)
    replica = start("replica", tcp=True, replicaof=f"127.0.0.1 {master.port}")
    replica.wait_for("master_link_status:up", "INFO", "replication")
    lines = [f"monitor main 127.0.0.1 {master.port} 1", "down-after-milliseconds main 1000"]
    sentinel = start("sentinel", sentinel=True, lines=lines)
    sentinel.wait_for(str(replica.port), "SENTINEL", "REPLICAS", "main")
    sentinels: list[Sentinel] = []

    def make() -> Any:
        sentinels.append(Sentinel([("127.0.0.1", sentinel.port)]))
        return sentinels[-1].master_for("main")

    store, key = RedisStore(make, timeout=PATIENCE), new_key()
    await create(store, key, "value")
    await asyncio.gather(*(store.get(key, now=NOW) for _ in range(5)))
    replica.wait_for("1", "EXISTS", name_of(key))

    master.kill()
    assert await answers(lambda: store.get(key, now=NOW)) == StoredSession("value", 1, NOW)
    assert await answers(lambda: replace(store, key, "newer", 1)) == 2
    assert replica.cli("HGET", name_of(key), "v") == "newer"
    (pool,) = [each.connection_pool for each in sentinels[0].sentinels]
    assert any(connection.is_connected for connection in pool._available_connections)
    await store.aclose()
    assert not any(connection.is_connected for connection in pool._available_connections)


async def answers(call: Callable[[], Any]) -> Any:
    """Call until it is not 503, as visitors do."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(StoreUnavailable):
                return await call()
            await asyncio.sleep(0.05)

"""Facts about the guard around a store."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from faulty_store import FaultyStore

from logto_asgi.errors import ConfigurationError, ConfigurationProblem, SetupError, StoreFull, StoreUnavailable
from logto_asgi.events import Events
from logto_asgi.session.circuit import GuardedStore

KEY = "a" * 64


class Monotonic:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore()


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def time() -> Monotonic:
    return Monotonic()


@pytest.fixture
def guarded(store: FaultyStore, events: Events, time: Monotonic) -> GuardedStore:
    return GuardedStore(store, events, clock=time, bound=60)


async def test_every_call_goes_through(guarded: GuardedStore) -> None:
    """While the store answers, its answers are returned."""
    assert await guarded.set(KEY, "v", now=1, idle=10, ends_at=100, index=["sub:1"]) == 1
    stored = await guarded.get(KEY, now=1)
    assert stored is not None
    assert stored.value == "v"
    assert await guarded.find("sub:1") == [KEY]
    token = await guarded.lock(KEY, ttl=5)
    assert token is not None
    await guarded.unlock(KEY, token)
    assert await guarded.lock(KEY, ttl=5) is not None
    await guarded.delete(KEY, index=["sub:1"])
    assert await guarded.get(KEY, now=1) is None
    assert await guarded.check() == []
    await guarded.aclose()


async def test_bounded(guarded: GuardedStore, store: FaultyStore, caplog: pytest.LogCaptureFixture) -> None:
    """A store that never answers is away."""
    guarded._bound = 0.05
    store.hold["get"] = asyncio.Event()
    with pytest.raises(StoreUnavailable) as caught:
        await guarded.get(KEY, now=1)
    assert caught.value.__context__ is None
    assert caught.value.headers == {"Retry-After": "2"}
    assert "no answer within 0.05 s" in caplog.text


async def test_fails_fast(
    guarded: GuardedStore, store: FaultyStore, time: Monotonic, events: Events, caplog: pytest.LogCaptureFixture
) -> None:
    """After a failure the store is not asked for half a second; then one call tries, and may close the circuit."""
    caplog.set_level(logging.INFO)
    store.go_down()
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await guarded.get(KEY, now=1)
    assert store.count("get") == 1
    time.now += 0.499
    with pytest.raises(StoreUnavailable):
        await guarded.get(KEY, now=1)
    assert store.count("get") == 1
    time.now += 0.001
    with pytest.raises(StoreUnavailable):
        await guarded.get(KEY, now=1)
    assert store.count("get") == 2
    store.come_back()
    time.now += 0.5
    assert await guarded.get(KEY, now=1) is None
    assert await guarded.get(KEY, now=1) is None
    assert dict(events.counts) == {"store.down": 1, "store.back": 1}
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "back after 1 s" in caplog.text


async def test_one_probe(guarded: GuardedStore, store: FaultyStore, time: Monotonic) -> None:
    """While one call tries whether the store is back and has no answer, the others go on failing."""
    store.go_down()
    with pytest.raises(StoreUnavailable):
        await guarded.get(KEY, now=1)
    time.now += 1
    store.come_back()
    store.hold["get"] = asyncio.Event()
    probe = asyncio.create_task(guarded.get(KEY, now=1))
    while store.count("get") < 2:
        await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable):
        await guarded.get(KEY, now=1)
    assert store.count("get") == 2
    store.hold["get"].set()
    assert await probe is None
    assert await guarded.get(KEY, now=1) is None


async def test_a_burst_after_an_outage(guarded: GuardedStore, store: FaultyStore, time: Monotonic) -> None:
    """Many calls at once to a store that is back: one tries, the others wait that moment, and none fails."""
    store.go_down()
    with pytest.raises(StoreUnavailable):
        await guarded.get(KEY, now=1)
    time.now += 1
    store.come_back()
    store.hold["get"] = asyncio.Event()
    burst = [asyncio.create_task(guarded.get(KEY, now=1)) for _ in range(50)]
    while store.count("get") < 2:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert store.count("get") == 2
    store.hold["get"].set()
    assert set(await asyncio.gather(*burst)) == {None}


async def test_a_cancelled_probe(guarded: GuardedStore, store: FaultyStore, time: Monotonic) -> None:
    """Where the call that tries is cancelled, the next one tries."""
    store.go_down()
    with pytest.raises(StoreUnavailable):
        await guarded.get(KEY, now=1)
    time.now += 1
    store.come_back()
    store.hold["get"] = asyncio.Event()
    probe = asyncio.create_task(guarded.get(KEY, now=1))
    while store.count("get") < 2:
        await asyncio.sleep(0)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    del store.hold["get"]
    assert await guarded.get(KEY, now=1) is None


async def test_full_is_not_away(guarded: GuardedStore, store: FaultyStore, events: Events) -> None:
    """A store that is full answers: it says so, and everything else goes on."""
    store.full = True
    for _ in range(2):
        with pytest.raises(StoreFull):
            await guarded.set(KEY, "v", now=1, idle=10, ends_at=100)
    assert await guarded.get(KEY, now=1) is None
    assert dict(events.counts) == {}


@pytest.mark.parametrize("error", [RuntimeError("redis://:hunter2@host"), OSError("hunter2"), KeyError("hunter2")])
async def test_whatever_a_store_raises(
    guarded: GuardedStore, store: FaultyStore, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """What a store of somebody else's raises becomes `StoreUnavailable`; its type is logged, its text is nowhere."""
    store.down = error
    with pytest.raises(StoreUnavailable) as caught:
        await guarded.get(KEY, now=1)
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    assert "hunter2" not in str(caught.value) + caplog.text
    assert type(error).__name__ in caplog.text


async def test_configuration_errors_stay(guarded: GuardedStore, store: FaultyStore, events: Events) -> None:
    """What cannot work is said at start-up as it is."""
    store.down = ConfigurationError([ConfigurationProblem("store", "is too old.", "Use another.")])
    with pytest.raises(ConfigurationError):
        await guarded.check()
    store.down = SetupError("Another event loop.")
    with pytest.raises(SetupError):
        await guarded.get(KEY, now=1)
    assert dict(events.counts) == {}


async def test_was_away(guarded: GuardedStore, store: FaultyStore, time: Monotonic) -> None:
    """For a moment after an outage it is known that there was one."""
    assert not guarded.was_away(within=3)
    store.go_down()
    with pytest.raises(StoreUnavailable):
        await guarded.get(KEY, now=1)
    assert guarded.was_away(within=3)
    store.come_back()
    time.now += 100
    await guarded.get(KEY, now=1)
    assert guarded.was_away(within=3)
    time.now += 3
    assert not guarded.was_away(within=3)


@pytest.mark.parametrize("failure", [RuntimeError("hunter2"), None])
async def test_closing_never_fails(
    guarded: GuardedStore, store: FaultyStore, failure: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that cannot be closed, or takes too long, stops no shutdown."""
    guarded._bound = 0.05
    store.down = failure
    if failure is None:
        store.hold["aclose"] = asyncio.Event()
    await guarded.aclose()
    assert "could not be closed" in caplog.text
    assert "hunter2" not in caplog.text

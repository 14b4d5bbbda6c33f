"""Facts about the guard around a store."""

from __future__ import annotations

import asyncio
import logging
import time as real_time
from typing import Any

import pytest
from faulty_store import FaultyStore

from logto_asgi.errors import ConfigurationError, ConfigurationProblem, SetupError, StoreFull, StoreUnavailable
from logto_asgi.events import Events
from logto_asgi.session.in_store.guarded import GuardedStore

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


async def test_three_time_outs(
    guarded: GuardedStore, store: FaultyStore, time: Monotonic, events: Events, caplog: pytest.LogCaptureFixture
) -> None:
    """One call that takes too long says nothing of the others; after three in a row the store is away."""
    guarded._bound = 0.01
    store.hold["get"] = asyncio.Event()
    for _ in range(2):
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await guarded.get(KEY, now=1)
        assert guarded.was_away(within=0)
        assert await guarded.find("sub:1") == []
    assert guarded.was_away(within=3)
    assert "store.down" not in events.counts
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await guarded.get(KEY, now=1)
    assert dict(events.counts) == {"store.down": 1}
    with pytest.raises(StoreUnavailable):
        await guarded.find("sub:1")
    assert store.count("find") == 2
    time.now += 0.5
    with pytest.raises(StoreUnavailable):
        await guarded.get(KEY, now=1)
    with pytest.raises(StoreUnavailable):
        await guarded.find("sub:1")
    time.now += 0.5
    assert await guarded.find("sub:1") == []
    assert dict(events.counts) == {"store.down": 1, "store.back": 1}


async def test_many_time_outs_at_once(guarded: GuardedStore, store: FaultyStore, events: Events) -> None:
    """A store that hangs is away as soon as the first calls have waited for it, not three bounds later."""
    guarded._bound = 0.01
    store.hold["get"] = asyncio.Event()
    results = await asyncio.gather(*(guarded.get(KEY, now=1) for _ in range(5)), return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailable] * 5
    assert dict(events.counts) == {"store.down": 1}


@pytest.mark.parametrize("says", [None, TimeoutError(), OSError(), StoreUnavailable("no answer in time")])
async def test_a_blocked_event_loop(
    guarded: GuardedStore,
    store: FaultyStore,
    events: Events,
    caplog: pytest.LogCaptureFixture,
    says: Exception | None,
) -> None:
    """A call that fails while the event loop was blocked is made again: the store may have answered all the time."""
    if says is None:
        guarded._bound = 0.3

    async def block(name: str) -> None:
        store.before = None
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(real_time.sleep, 0.5)
        await asyncio.sleep(0.35)
        if says is not None:
            raise says

    store.before = block
    assert await guarded.get(KEY, now=1) is None
    assert store.count("get") == 2
    assert dict(events.counts) == {}
    assert "the event loop was blocked" in caplog.text


async def test_a_store_that_is_away_from_a_blocked_event_loop(
    guarded: GuardedStore, store: FaultyStore, events: Events
) -> None:
    """A call is made again once: what fails then fails."""

    async def block(name: str) -> None:
        real_time.sleep(0.5)
        raise StoreUnavailable("away")

    store.before = block
    with pytest.raises(StoreUnavailable):
        await guarded.get(KEY, now=1)
    assert store.count("get") == 2
    assert dict(events.counts) == {"store.down": 1}


class Patient(FaultyStore):
    """A store that says how long it may take."""

    def __init__(self, timeout: Any) -> None:
        super().__init__()
        self.timeout = timeout


@pytest.mark.parametrize(
    ("timeout", "bound"),
    [(5, 5.5), (1.5, 2), (0, 2), (1.75, 2.25), (float("inf"), 2), (float("nan"), 2), ("5", 2), (None, 2)],
)
def test_a_store_says_its_bound(events: Events, timeout: Any, bound: float) -> None:
    """A store that may take longer itself is given half a second more; no store is given less than two."""
    assert GuardedStore(Patient(timeout), events)._bound == bound
    assert GuardedStore(FaultyStore(), events)._bound == 2


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


async def test_a_crowd_waits_outside_of_the_time_limits(guarded: GuardedStore, store: FaultyStore) -> None:
    """A thousand calls at once reach the store a few at a time, and none of them takes its waiting for an outage."""
    under_way = most = 0

    async def look(_: str) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1

    store.before = look
    assert set(await asyncio.gather(*(guarded.get(KEY, now=1) for _ in range(1000)))) == {None}
    assert most == 40


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


async def test_one_bad_row(
    guarded: GuardedStore, store: FaultyStore, time: Monotonic, events: Events, caplog: pytest.LogCaptureFixture
) -> None:
    """An error in a store's code fails the call that meets it, and is logged with its place, once a minute."""

    async def stumble(name: str) -> None:
        if name == "get":
            secret = "hunter2"
            raise KeyError(secret)

    store.before = stumble
    for seconds, logged in [(0, 1), (59, 1), (1, 2)]:
        time.now += seconds
        with pytest.raises(StoreUnavailable):
            await guarded.get(KEY, now=1)
        assert len(caplog.records) == logged
    assert await guarded.find("sub:1") == []
    assert dict(events.counts) == {}
    assert not guarded.was_away(within=3)
    assert "KeyError" in caplog.text
    assert "in stumble" in caplog.text
    assert "raise KeyError(secret)" in caplog.text
    assert "hunter2" not in caplog.text.replace('secret = "hunter2"', "")


@pytest.mark.parametrize("error", [StoreUnavailable("away"), ConnectionResetError(), OSError()])
async def test_what_counts_as_away(guarded: GuardedStore, store: FaultyStore, events: Events, error: Exception) -> None:
    """A store that says so is away, and one that cannot be reached."""
    store.down = error
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await guarded.get(KEY, now=1)
    assert store.count("get") == 1
    assert dict(events.counts) == {"store.down": 1}


async def test_an_error_is_no_answer(guarded: GuardedStore, store: FaultyStore, time: Monotonic) -> None:
    """While a store is away, an error in its code does not bring it back."""
    store.go_down()
    with pytest.raises(StoreUnavailable):
        await guarded.get(KEY, now=1)
    time.now += 1
    store.down = KeyError()
    with pytest.raises(StoreUnavailable):
        await guarded.get(KEY, now=1)
    assert repr(guarded) == "<GuardedStore away>"
    store.come_back()
    assert await guarded.get(KEY, now=1) is None
    assert repr(guarded) == "<GuardedStore up>"


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

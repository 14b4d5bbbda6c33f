"""Facts about refreshes of one session in several processes, each with a backend of its own on one store."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from faulty_store import FaultyStore

from logto_asgi.config import LogtoConfig
from logto_asgi.errors import IssuerUnavailable, SessionEnded, StoreFull, StoreUnavailable
from logto_asgi.events import Events
from logto_asgi.models import Session
from logto_asgi.session.backend import Overtaken, Saved
from logto_asgi.session.in_store.backend import StoreBackend
from logto_asgi.session.in_store.records import Live, key_of

SECRET = "qPz2mW7tKx9dLr4vHs8bYn3cJf6gTu1a"
OTHER_SECRET = "Zk5rQe8wNi2xVo7cBm4jDy9pSh3fLt6u"
TTL = 14
"""Seconds of a lock: `http_timeout` and a margin."""

Make = Callable[..., Session]


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore()


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def process(
    store: FaultyStore, make_config: Callable[..., LogtoConfig], clock: Any, events: Events
) -> Callable[..., StoreBackend]:
    """Return another process of the same app."""

    def make(**arguments: Any) -> StoreBackend:
        return StoreBackend(make_config(**arguments), store, clock=clock, events=events)

    return make


@pytest.fixture
async def session(process: Callable[..., StoreBackend], make_session: Make) -> Session:
    """A session in the store, started by a process of its own."""
    session = make_session()
    await process().start(session)
    return session


def never(session: Session) -> bool:
    return False


def after(session: Session, **fields: Any) -> Session:
    version = session.version + 1
    return replace(session, **({"version": version, "refresh_token": f"refresh_{version}"} | fields))


def live(backend: StoreBackend, store: FaultyStore, session: Session) -> Live:
    """Return what lies in the store, as whoever has the secret reads it."""
    key = key_of(session.id)
    record = backend._keeper.records.open(key, store.values[key])
    assert isinstance(record, Live)
    return record


def mend(*backends: StoreBackend) -> None:
    """Let the next call try at once whether the store is back."""
    for backend in backends:
        backend._store._closed_until = 0.0


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


class Dead:
    """A process that takes a turn, departs, and is killed or paused: it neither saves nor says anything."""

    def __init__(self, backend: StoreBackend, session: Session) -> None:
        self.manager = backend.turn(session, never)
        self.turn: Any = None

    async def depart(self) -> Any:
        self.turn = await self.manager.__aenter__()
        await self.turn.depart()
        return self.turn

    async def wake(self) -> None:
        await self.manager.__aexit__(None, None, None)


def free_locks(store: FaultyStore) -> None:
    """Let every lock come to its end."""
    store.inside._locks.clear()


# -- Taking turns ------------------------------------------------------------------------------------------------------


async def test_enough(process: Callable[..., StoreBackend], store: FaultyStore, session: Session) -> None:
    """Where the newest state is enough, it is given without a lock."""
    async with process().turn(session, lambda newest: newest.version == 1) as turn:
        assert turn.session == session
    assert store.count("lock") == 0


async def test_one_at_a_time(process: Callable[..., StoreBackend], store: FaultyStore, session: Session) -> None:
    """Of processes that want the same, one refreshes, and the others go on from what it saved."""
    refreshed = 0

    async def work(backend: StoreBackend) -> Session:
        nonlocal refreshed
        async with backend.turn(session, lambda newest: newest.version > 1) as turn:
            if turn.session.version > 1:
                return turn.session
            await turn.depart()
            refreshed += 1
            await asyncio.sleep(0.05)
            assert await turn.save(after(turn.session), spent=turn.session.refresh_token) is Saved.KEPT
            return turn.session

    results = await asyncio.gather(*(work(process()) for _ in range(8)))
    assert refreshed == 1
    assert {result.refresh_token for result in results} == {"refresh_2"}
    assert store.inside._locks == {}


async def test_each_in_its_turn(process: Callable[..., StoreBackend], session: Session) -> None:
    """Processes that want different things refresh one after the other, each from the newest state."""
    inside = 0

    async def work(backend: StoreBackend) -> None:
        nonlocal inside
        async with backend.turn(session, never) as turn:
            inside += 1
            assert inside == 1
            await turn.depart()
            await asyncio.sleep(0.01)
            assert await turn.save(after(turn.session), spent=turn.session.refresh_token) is Saved.KEPT
            inside -= 1

    backends = [process() for _ in range(5)]
    await asyncio.gather(*(work(backend) for backend in backends))
    newest = await process().current(session)
    assert newest is not None
    assert newest.version == 6


async def test_ended(process: Callable[..., StoreBackend], session: Session) -> None:
    """There is no turn for a session that has ended."""
    await process().end(session)
    with pytest.raises(SessionEnded):
        async with process().turn(session, never):
            pass


async def test_ended_while_waiting(process: Callable[..., StoreBackend], session: Session) -> None:
    """Whoever waits for a turn learns that the session has ended."""
    async with process().turn(session, never):

        async def wait() -> None:
            async with process().turn(session, never):
                pass

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0.05)
        await process().end(session)
        with pytest.raises(SessionEnded):
            await waiting


async def test_patience(process: Callable[..., StoreBackend], session: Session, store: FaultyStore) -> None:
    """Whoever waits for too long is told that the issuer could not be asked; nothing ends."""
    waiting = process(resources=["https://a.example", "https://b.example"])
    assert waiting._turns._patience == 3 * TTL + 4
    waiting._turns._patience = 0.2
    async with process().turn(session, never):
        with pytest.raises(IssuerUnavailable, match="Another process"):
            async with waiting.turn(session, never):
                pass
    assert await waiting.current(session) == session


async def test_the_lock_is_released(process: Callable[..., StoreBackend], session: Session, store: FaultyStore) -> None:
    """An error inside of a turn releases the lock; where the store is away just then, a little later."""
    with pytest.raises(RuntimeError):
        async with process().turn(session, never):
            raise RuntimeError
    assert store.inside._locks == {}
    async with process().turn(session, never):
        store.go_down()
    assert store.count("unlock") == 2
    assert len(store.inside._locks) == 1
    store.come_back()
    await until(lambda: not store.inside._locks)


async def test_cancelled_in_a_turn(process: Callable[..., StoreBackend], session: Session, store: FaultyStore) -> None:
    """A turn that is cancelled after its request left notes that the answer may be lost, and releases the lock."""
    backend = process()
    departed = asyncio.Event()

    async def work() -> None:
        async with backend.turn(session, never) as turn:
            await turn.depart()
            departed.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await departed.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert store.inside._locks == {}
    mark = live(backend, store, session).mark
    assert mark is not None
    assert mark.over


async def test_cancelled_while_locking(
    process: Callable[..., StoreBackend], session: Session, store: FaultyStore
) -> None:
    """A lock that is got after its taker was cancelled is given back."""
    backend = process()
    store.hold["lock"] = asyncio.Event()

    async def work() -> None:
        async with backend.turn(session, never):
            pass

    task = asyncio.create_task(work())
    await until(lambda: store.count("lock"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    store.hold["lock"].set()
    await backend._turns.aclose()
    assert store.count("unlock") == 1
    assert store.inside._locks == {}


async def test_what_is_read_under_the_lock_counts(
    process: Callable[..., StoreBackend], session: Session, store: FaultyStore
) -> None:
    """A state saved between the first look and the lock is found under the lock, which is released again."""
    here, there = process(), process()

    async def interfere(name: str) -> None:
        if name == "lock":
            store.before = None
            async with there.turn(session, never) as turn:
                await turn.depart()
                await turn.save(after(session), spent=session.refresh_token)

    store.before = interfere
    async with here.turn(session, lambda newest: newest.version > 1) as turn:
        assert turn.session.version == 2
        assert store.inside._locks == {}


async def test_a_lock_whose_answer_was_lost(
    process: Callable[..., StoreBackend], session: Session, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock that nobody knows to hold holds nobody up for its whole life."""
    monkeypatch.setattr("logto_asgi.session.in_store.turns._UNMARKED", 0.1)
    store.inside._clock = lambda: 0.0
    store.lost.add("lock")
    with pytest.raises(StoreUnavailable):
        async with process().turn(session, never):
            pass
    assert len(store.inside._locks) == 1
    async with process().turn(session, never) as turn, process().turn(session, never) as other:
        await turn.depart()
        with pytest.raises(Overtaken):
            await other.depart()
        assert await turn.save(after(session), spent=session.refresh_token) is Saved.KEPT


# -- Departing ---------------------------------------------------------------------------------------------------------


async def test_marked_while_away(process: Callable[..., StoreBackend], session: Session, store: FaultyStore) -> None:
    """The session is marked before a request leaves, and no longer when its answer is saved."""
    backend = process()
    async with backend.turn(session, never) as turn:
        assert live(backend, store, session).mark is None
        await turn.depart()
        assert live(backend, store, session).mark is not None
        assert await turn.save(after(session), spent=session.refresh_token) is Saved.KEPT
    assert live(backend, store, session).mark is None
    assert live(backend, store, session).session == after(session)


async def test_overtaken_before_departing(process: Callable[..., StoreBackend], session: Session) -> None:
    """Where somebody else changed the session in between, no request leaves."""
    here, there = process(), process()
    async with here.turn(session, never) as turn:
        held = await there._keeper.look(key_of(session.id), touch=False)
        await there._keeper.write(there._keeper.change(held, after(session)))  # type: ignore[arg-type]
        with pytest.raises(Overtaken):
            await turn.depart()


async def test_ended_before_departing(process: Callable[..., StoreBackend], session: Session) -> None:
    """Where the session ended in between, no request leaves."""
    async with process().turn(session, never) as turn:
        await process().end(session)
        with pytest.raises(Overtaken):
            await turn.depart()


async def test_a_full_store_refuses_before_departing(
    process: Callable[..., StoreBackend], session: Session, store: FaultyStore
) -> None:
    """A store that takes nothing in stops the request before anything is spent."""
    async with process().turn(session, never) as turn:
        store.full = True
        with pytest.raises(StoreFull):
            await turn.depart()


async def test_departing_without_an_answer(
    process: Callable[..., StoreBackend], session: Session, store: FaultyStore, events: Events
) -> None:
    """A mark that arrived though its answer did not is removed as soon as possible, and holds nobody up."""
    here, there = process(), process()
    store.lost.add("set")
    with pytest.raises(StoreUnavailable):
        async with here.turn(session, never) as turn:
            await turn.depart()
    assert live(here, store, session).mark is not None
    await until(lambda: live(here, store, session).mark is None)
    async with there.turn(session, never) as turn:
        await turn.depart()
        assert await turn.save(after(session), spent=session.refresh_token) is Saved.KEPT
    assert "save.deferred" not in events.counts
    assert "refresh.interrupted" not in events.counts


# -- Saving ------------------------------------------------------------------------------------------------------------


async def test_saved_twice(process: Callable[..., StoreBackend], session: Session) -> None:
    """A turn saves a rotated token first, and later what came with it."""
    async with process().turn(session, never) as turn:
        await turn.depart()
        assert await turn.save(after(session), spent=session.refresh_token) is Saved.KEPT
        assert await turn.save(after(turn.session, refresh_token="refresh_2"), spent=None) is Saved.KEPT
        assert turn.session.version == 3
    newest = await process().current(session)
    assert newest is not None
    assert (newest.version, newest.refresh_token) == (3, "refresh_2")


@pytest.mark.parametrize("replaced", [False, True])
async def test_ended_during_a_refresh(process: Callable[..., StoreBackend], session: Session, replaced: bool) -> None:
    """A session that ended meanwhile stays ended; whether its new token may be revoked depends on how it ended."""
    async with process().turn(session, never) as turn:
        await turn.depart()
        await process().end(session, replaced=replaced)
        assert await turn.save(after(session), spent=session.refresh_token) is Saved.ENDED
        assert turn.revocable is not replaced
    assert await process().current(session) is None


async def test_deleted_during_a_refresh(
    process: Callable[..., StoreBackend], session: Session, store: FaultyStore
) -> None:
    """A session that was deleted meanwhile is not brought back."""
    async with process().turn(session, never) as turn:
        await turn.depart()
        await store.delete(key_of(session.id))
        assert await turn.save(after(session), spent=session.refresh_token) is Saved.ENDED
        assert turn.revocable
    assert store.values == {}


async def test_a_tombstone_lasts_for_a_refresh(
    process: Callable[..., StoreBackend], session: Session, store: FaultyStore, clock: Any
) -> None:
    """What is left of an ended session outlives two deadlines of a refresh and a minute, and then goes."""
    await process().end(session)
    clock.now += 79
    assert await store.get(key_of(session.id), now=int(clock.now)) is not None
    clock.now += 1
    assert await store.get(key_of(session.id), now=int(clock.now)) is None


async def test_a_paused_holder_overwrites_nothing(
    process: Callable[..., StoreBackend], session: Session, store: FaultyStore, events: Events, clock: Any
) -> None:
    """A holder that was paused past its lock and mark finds a newer state, and goes on from that."""
    dead = Dead(process(), session)
    turn = await dead.depart()
    free_locks(store)
    clock.now += TTL + 2
    there = process()
    async with there.turn(session, never) as other:
        await other.depart()
        assert await other.save(after(session, refresh_token="of another"), spent=session.refresh_token) is Saved.KEPT
    assert await turn.save(after(session), spent=session.refresh_token) is Saved.OVERTAKEN
    assert turn.session.refresh_token == "of another"
    assert await turn.save(after(after(session)), spent=None) is Saved.OVERTAKEN
    await dead.wake()
    assert live(there, store, session).session.refresh_token == "of another"
    assert events.counts["save.overtaken"] == 1


async def test_a_paused_holder_saves_what_nobody_else_has(
    process: Callable[..., StoreBackend], session: Session, store: FaultyStore, clock: Any
) -> None:
    """While another is only trying, a paused holder's answer is the newest, and saved."""
    dead = Dead(process(), session)
    turn = await dead.depart()
    free_locks(store)
    clock.now += TTL + 2
    there = process()
    async with there.turn(session, never) as other:
        await other.depart()
        assert await turn.save(after(session), spent=session.refresh_token) is Saved.KEPT
        newest = await other.reread()
        assert newest is not None
        assert newest.refresh_token == "refresh_2"
    await dead.wake()
    assert live(there, store, session).session.refresh_token == "refresh_2"


async def test_a_late_save_leaves_the_mark_of_the_next(
    process: Callable[..., StoreBackend], session: Session, store: FaultyStore
) -> None:
    """What comes after the rotated token is left out where another has departed with that token meanwhile."""
    here, there = process(), process()
    async with here.turn(session, never) as turn:
        await turn.depart()
        assert await turn.save(after(session), spent=session.refresh_token) is Saved.KEPT
        free_locks(store)
        async with there.turn(session, never) as other:
            await other.depart()
            assert await turn.save(after(turn.session, refresh_token="refresh_2"), spent=None) is Saved.OVERTAKEN
            assert live(there, store, session).mark is not None
            assert turn.session == after(session)
            assert await other.save(after(other.session), spent="refresh_2") is Saved.KEPT
    assert live(there, store, session).session.refresh_token == "refresh_3"


async def test_a_deferred_save_leaves_the_mark_of_the_next(
    process: Callable[..., StoreBackend], session: Session, store: FaultyStore, events: Events
) -> None:
    """Where the rotated token arrived and its answer did not, another departs with it: what waits here is left out.

    Otherwise the other one's answer would count as overtaken, and the session go on with a token that is spent.
    """
    here, there = process(), process()
    async with here.turn(session, never) as turn:
        await turn.depart()
        store.lost.add("set")
        assert await turn.save(after(session), spent=session.refresh_token) is Saved.KEPT
        store.go_down()
        assert await turn.save(after(turn.session, refresh_token="refresh_2"), spent=None) is Saved.KEPT
        store.come_back()
        free_locks(store)
        async with there.turn(session, never) as other:
            await other.depart()
            assert other.session.refresh_token == "refresh_2"
            await until(lambda: len(here._keeper.unsaved) == 0)
            assert await other.save(after(other.session), spent="refresh_2") is Saved.KEPT
    assert live(there, store, session).session.refresh_token == "refresh_3"
    assert events.counts["save.overtaken"] == 1


async def test_saved_across_a_change_of_secrets(
    process: Callable[..., StoreBackend], session: Session, store: FaultyStore, clock: Any
) -> None:
    """A record that is sealed anew during a refresh takes the answer all the same."""
    async with process(cookie_secret=[SECRET, OTHER_SECRET]).turn(session, never) as turn:
        await turn.depart()
        clock.now += 600
        both = process(cookie_secret=[OTHER_SECRET, SECRET])
        before = store.values
        await both.current(session)
        assert store.values != before
        assert await turn.save(after(session), spent=session.refresh_token) is Saved.KEPT
        assert turn.session.version == 2
    assert live(both, store, session).session == after(session)


async def test_a_record_that_only_a_newer_worker_reads(
    process: Callable[..., StoreBackend], session: Session, clock: Any
) -> None:
    """Where a newer worker has sealed the record under a secret unknown here, nothing of the session is revoked."""
    async with process().turn(session, never) as turn:
        await turn.depart()
        clock.now += 600
        await process(cookie_secret=[OTHER_SECRET, SECRET]).current(session)
        assert await turn.save(after(session), spent=session.refresh_token) is Saved.ENDED
        assert not turn.revocable


async def test_overtaken_without_departing(process: Callable[..., StoreBackend], session: Session) -> None:
    """A save that asked the issuer nothing starts over where somebody else was faster."""
    here, there = process(), process()
    async with here.turn(session, never) as turn:
        held = await there._keeper.look(key_of(session.id), touch=False)
        await there._keeper.write(there._keeper.change(held, after(session)))  # type: ignore[arg-type]
        with pytest.raises(Overtaken):
            await turn.save(after(session, refresh_token="mine"), spent=None)


async def test_store_away_without_departing(
    process: Callable[..., StoreBackend], session: Session, store: FaultyStore
) -> None:
    """A save that asked the issuer nothing fails where the store is away."""
    async with process().turn(session, never) as turn:
        store.go_down()
        with pytest.raises(StoreUnavailable):
            await turn.save(after(session), spent=None)
        store.come_back()


# -- When the store is away in the middle ------------------------------------------------------------------------------


@pytest.mark.parametrize("arrived", [False, True])
async def test_kept_until_the_store_is_back(
    process: Callable[..., StoreBackend], session: Session, store: FaultyStore, events: Events, arrived: bool
) -> None:
    """An answer that cannot be saved is kept, believed here, and saved when the store is back, whatever had arrived."""
    backend = process()
    async with backend.turn(session, never) as turn:
        await turn.depart()
        if arrived:
            store.lost.add("set")
        store.down = None if arrived else StoreUnavailable("away")
        assert await turn.save(after(session), spent=session.refresh_token) is Saved.KEPT
        store.go_down()
        assert await turn.save(after(turn.session, refresh_token="refresh_2"), spent=None) is Saved.KEPT
        assert turn.session.version == 3
    assert await backend.current(session) == turn.session
    assert backend.newest(session.id) == turn.session
    assert events.counts["save.deferred"] == 1
    store.come_back()
    await until(lambda: "save.recovered" in events.counts)
    assert live(backend, store, session) == Live(turn.session, live(backend, store, session).saved_at)
    assert await process().current(session) == turn.session
    assert events.counts["save.recovered"] == 1
    assert len(backend._keeper.unsaved) == 0


async def test_believed_before_it_is_saved(
    process: Callable[..., StoreBackend], session: Session, store: FaultyStore, clock: Any
) -> None:
    """Between the return of the store and the late save, this process reads the newer state."""
    backend = process()
    async with backend.turn(session, never) as turn:
        await turn.depart()
        store.go_down()
        assert await turn.save(after(session), spent=session.refresh_token) is Saved.KEPT
    store.come_back()
    mend(backend)
    clock.now += 6
    store.full = True
    assert await backend.current(session) == after(session)
    async with backend.turn(session, lambda newest: newest.version > 1) as turn:
        assert turn.session == after(session)


async def test_a_full_store_keeps_nothing_from_being_kept(
    process: Callable[..., StoreBackend], session: Session, store: FaultyStore, events: Events
) -> None:
    """A store that filled up after the request left is as good as one that is away."""
    backend = process()
    async with backend.turn(session, never) as turn:
        await turn.depart()
        store.full = True
        assert await turn.save(after(session), spent=session.refresh_token) is Saved.KEPT
    store.full = False
    await until(lambda: "save.recovered" in events.counts)
    assert live(backend, store, session).session == after(session)


async def test_ended_before_it_is_saved(
    process: Callable[..., StoreBackend], session: Session, store: FaultyStore, events: Events
) -> None:
    """What was kept is dropped where the session ended meanwhile, here or elsewhere."""
    here, there = process(), process()
    async with here.turn(session, never) as turn:
        await turn.depart()
        store.full = True
        assert await turn.save(after(session), spent=session.refresh_token) is Saved.KEPT
    store.full = False
    await there.end(session)
    await until(lambda: len(here._keeper.unsaved) == 0)
    assert await here.current(session) is None
    assert "save.recovered" not in events.counts


async def test_ending_what_is_not_saved_yet(
    process: Callable[..., StoreBackend], session: Session, store: FaultyStore
) -> None:
    """Whoever ends a session learns its newest state, saved or not, and nothing is saved afterwards."""
    backend = process()
    async with backend.turn(session, never) as turn:
        await turn.depart()
        store.full = True
        assert await turn.save(after(session), spent=session.refresh_token) is Saved.KEPT
    assert (await backend.end(session)) == after(session)
    assert len(backend._keeper.unsaved) == 0


async def test_cancelled_while_saving(
    process: Callable[..., StoreBackend], session: Session, store: FaultyStore, events: Events
) -> None:
    """A save that is cancelled goes on without its caller."""
    backend = process()
    gate = asyncio.Event()

    async def work() -> None:
        async with backend.turn(session, never) as turn:
            await turn.depart()
            store.hold["set"] = gate
            await turn.save(after(session), spent=session.refresh_token)

    task = asyncio.create_task(work())
    await until(lambda: store.count("set") == 3)
    task.cancel()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: len(backend._keeper.unsaved) == 0)
    assert live(backend, store, session).session == after(session)


async def test_an_outage_is_not_taken_for_a_death(
    process: Callable[..., StoreBackend], session: Session, store: FaultyStore, clock: Any, events: Events
) -> None:
    """After an outage an old mark is not acted upon at once: its process may be about to save the answer."""
    here, there = process(), process()
    async with here.turn(session, never) as turn:
        await turn.depart()
        store.go_down()
        assert await turn.save(after(session), spent=session.refresh_token) is Saved.KEPT
    with pytest.raises(StoreUnavailable):
        await there._keeper.look(key_of(session.id), touch=False)
    clock.now += TTL + 2
    store.come_back()
    mend(there)
    async with there.turn(session, lambda newest: newest.version > 1) as turn:
        assert turn.session == after(session)
    assert "refresh.interrupted" not in events.counts


# -- Requests that bring nothing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("processed", "left"), [(False, None), (True, None), (None, True)])
async def test_missed(
    process: Callable[..., StoreBackend],
    session: Session,
    store: FaultyStore,
    processed: bool | None,
    left: bool | None,
) -> None:
    """A request that brought nothing leaves a mark only where nobody can know what became of it."""
    backend = process()
    async with backend.turn(session, never) as turn:
        await turn.depart()
        await turn.missed(processed=processed)
        mark = live(backend, store, session).mark
        assert (None if mark is None else mark.over) == left
    assert live(backend, store, session).mark == mark


async def test_a_second_try_in_one_turn(process: Callable[..., StoreBackend], session: Session) -> None:
    """After a request that was not processed the same turn sends another."""
    async with process().turn(session, never) as turn:
        await turn.depart()
        await turn.missed(processed=False)
        await turn.depart()
        assert await turn.save(after(session), spent=session.refresh_token) is Saved.KEPT


async def test_after_a_request_of_unknown_fate(
    process: Callable[..., StoreBackend], session: Session, events: Events
) -> None:
    """The next one does not wait, tries once, and says why."""
    async with process().turn(session, never) as turn:
        await turn.depart()
        await turn.missed(processed=None)
    async with process().turn(session, never) as turn:
        await turn.depart()
        assert events.counts["refresh.interrupted"] == 1
        assert await turn.save(after(session), spent=session.refresh_token) is Saved.KEPT
    async with process().turn(session, never) as turn:
        await turn.depart()
    assert events.counts["refresh.interrupted"] == 1


@pytest.mark.parametrize(("processed", "doubt"), [(False, True), (True, False)])
async def test_doubt_remains(
    process: Callable[..., StoreBackend], session: Session, store: FaultyStore, processed: bool, doubt: bool
) -> None:
    """What became of an earlier request stays unclear until the issuer answers with the token that it had."""
    backend = process()
    async with backend.turn(session, never) as turn:
        await turn.depart()
        await turn.missed(processed=None)
    async with backend.turn(session, never) as turn:
        await turn.depart()
        await turn.missed(processed=processed)
    assert (live(backend, store, session).mark is not None) is doubt


async def test_missed_while_the_store_is_away(
    process: Callable[..., StoreBackend], session: Session, store: FaultyStore, events: Events
) -> None:
    """Taking the mark away never fails; it is done when the store is back."""
    backend = process()
    async with backend.turn(session, never) as turn:
        await turn.depart()
        store.go_down()
        await turn.missed(processed=False)
    store.come_back()
    await until(lambda: live(backend, store, session).mark is None)
    assert "save.deferred" not in events.counts


# -- A process that is killed ------------------------------------------------------------------------------------------


async def test_killed_in_the_middle(
    process: Callable[..., StoreBackend], session: Session, store: FaultyStore, events: Events, clock: Any
) -> None:
    """Others wait until a killed process's request must be over, try once, and go on where the issuer lets them."""
    dead = Dead(process(), session)
    await dead.depart()
    free_locks(store)
    there = process()
    there._turns._patience = 0.2
    clock.now += TTL
    with pytest.raises(IssuerUnavailable):
        async with there.turn(session, never):
            pass
    clock.now += 1
    async with there.turn(session, never) as turn:
        assert "refresh.interrupted" not in events.counts
        await turn.depart()
        assert events.counts["refresh.interrupted"] == 1
        assert await turn.save(after(session), spent=session.refresh_token) is Saved.KEPT
    assert "refresh.lost" not in events.counts


async def test_killed_after_the_issuer_rotated(
    process: Callable[..., StoreBackend],
    session: Session,
    store: FaultyStore,
    events: Events,
    clock: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where the issuer refuses then, the session ends everywhere, with a clear warning and a count."""
    dead = Dead(process(), session)
    await dead.depart()
    free_locks(store)
    clock.now += TTL + 2
    async with process().turn(session, never) as turn:
        await turn.depart()
        assert await turn.reread() is None
        await turn.end_refused()
    assert await process().current(session) is None
    assert events.counts["refresh.lost"] == 1
    assert "must sign in again" in caplog.text


async def test_a_mark_of_the_far_future(
    process: Callable[..., StoreBackend], session: Session, store: FaultyStore, clock: Any
) -> None:
    """A mark of a clock that is far wrong holds nobody up."""
    clock.now += 3_600
    dead = Dead(process(), session)
    await dead.depart()
    free_locks(store)
    clock.now -= 3_600
    async with process().turn(session, never) as turn:
        await turn.depart()


# -- Refused refresh tokens --------------------------------------------------------------------------------------------


async def test_refused(
    process: Callable[..., StoreBackend], session: Session, store: FaultyStore, events: Events
) -> None:
    """A refresh token that the issuer refuses ends its session in every process, without talk of a lost answer."""
    there = process()
    assert await there.current(session)
    async with process().turn(session, never) as turn:
        await turn.depart()
        assert await turn.reread() is None
        await turn.end_refused()
    with pytest.raises(SessionEnded):
        async with there.turn(session, never):
            pass
    assert "refresh.lost" not in events.counts
    assert events.counts["session.ended"] == 1
    assert store.inside._locks == {}


async def test_refused_but_somebody_has_a_newer_one(
    process: Callable[..., StoreBackend], session: Session, clock: Any
) -> None:
    """A refused refresh token ends nothing where somebody else has rotated."""
    here, there = process(), process()
    async with here.turn(session, never) as turn:
        await turn.depart()
        held = await there._keeper.look(key_of(session.id), touch=False)
        await there._keeper.write(there._keeper.change(held, after(session)))  # type: ignore[arg-type]
        await turn.end_refused()
        assert turn.session == after(session)
    assert await process().current(session) == after(session)


async def test_reread(process: Callable[..., StoreBackend], session: Session, store: FaultyStore) -> None:
    """After a refusal the newest state is read once more, and the turn goes on from that."""
    here, there = process(), process()
    async with here.turn(session, never) as turn:
        await turn.depart()
        held = await there._keeper.look(key_of(session.id), touch=False)
        await there._keeper.write(there._keeper.change(held, after(session)))  # type: ignore[arg-type]
        assert await turn.reread() == turn.session == after(session)
        await turn.depart()
        assert await turn.save(after(turn.session), spent=turn.session.refresh_token) is Saved.KEPT
    assert live(here, store, session).session.version == 3


async def test_refused_after_the_session_ended(process: Callable[..., StoreBackend], session: Session) -> None:
    """A refusal of a session that ended meanwhile changes nothing."""
    async with process().turn(session, never) as turn:
        await turn.depart()
        await process().end(session, replaced=True)
        assert await turn.reread() is None
        await turn.end_refused()
    assert await process().current(session) is None


async def test_ending_what_somebody_else_is_refreshing(
    process: Callable[..., StoreBackend], session: Session, store: FaultyStore
) -> None:
    """Where another saves between the last look and the tombstone, its state is looked at, and lives."""
    here, there = process(), process()
    async with here.turn(session, never) as turn:
        await turn.depart()

        async def interfere(name: str) -> None:
            if name == "set":
                store.before = None
                held = await there._keeper.look(key_of(session.id), touch=False)
                await there._keeper.write(there._keeper.change(held, after(session)))  # type: ignore[arg-type]

        store.before = interfere
        await turn.end_refused()
        assert turn.session == after(session)
    assert await here.current(session) == after(session)
    assert await process().current(session) == after(session)


# -- Shutting down -----------------------------------------------------------------------------------------------------


async def test_shutdown_saves_what_it_can(
    process: Callable[..., StoreBackend], session: Session, store: FaultyStore, events: Events
) -> None:
    """A shutdown waits a moment for the store, and saves what it has kept."""
    backend = process()
    async with backend.turn(session, never) as turn:
        await turn.depart()
        store.full = True
        assert await turn.save(after(session), spent=session.refresh_token) is Saved.KEPT
    store.full = False
    await backend.aclose()
    assert live(backend, store, session).session == after(session)
    assert "save.lost" not in events.counts


async def test_shutdown_says_what_is_lost(
    process: Callable[..., StoreBackend],
    session: Session,
    store: FaultyStore,
    events: Events,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What cannot be saved by then is given up, counted and said."""
    backend = process()
    async with backend.turn(session, never) as turn:
        await turn.depart()
        store.go_down()
        assert await turn.save(after(session), spent=session.refresh_token) is Saved.KEPT
    await backend._keeper.unsaved.aclose(0.2)
    await backend.aclose()
    assert events.counts["save.lost"] == 1
    assert "1 refreshed sessions could not be saved" in caplog.text
    assert len(backend._keeper.unsaved) == 0


async def test_nothing_is_left_running(process: Callable[..., StoreBackend], session: Session) -> None:
    """After a shutdown no task of ours is left."""
    backend = process()
    with contextlib.suppress(RuntimeError):
        async with backend.turn(session, never) as turn:
            await turn.depart()
            raise RuntimeError
    await backend.aclose()
    assert [task for task in asyncio.all_tasks() if "logto_asgi" in task.get_name()] == []

"""Facts about sessions that wait to be saved, about changes, and about what a process knows of sessions."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from logto_asgi.errors import StoreUnavailable
from logto_asgi.events import Events
from logto_asgi.models import Session
from logto_asgi.session.in_store import unsaved as module
from logto_asgi.session.in_store.changes import Change
from logto_asgi.session.in_store.known import Gone, Held, KnownStates
from logto_asgi.session.in_store.records import Live, Mark
from logto_asgi.session.in_store.unsaved import Unsaved

START = 1_700_000_000

Make = Callable[..., Session]


def held(session: Session, *, saved_at: int = START, revision: int = 1, value: str = "v", mark: Any = None) -> Held:
    return Held(Live(session, saved_at, mark), value, revision, START)


@pytest.fixture
def base(make_session: Make) -> Held:
    return held(make_session(version=5), revision=7)


def change_of(base: Held, key: str = "key", value: str = "new", token: str | None = None, **fields: Any) -> Change:
    before = base.live.session
    session = replace(before, version=before.version + 1, refresh_token=token or before.refresh_token)
    return Change(key, Live(session, START + 1), value, base, **fields)


# -- Changes -----------------------------------------------------------------------------------------------------------


EARLIER, OURS, THEIRS, THEIRS_OVER = (
    Mark(1, "earlier"),
    Mark(1, "ours"),
    Mark(2, "theirs"),
    Mark(2, "theirs", over=True),
)


@pytest.mark.parametrize("mark", [None, OURS, THEIRS])
def test_goes_over_its_own_earlier_try(base: Held, mark: Mark | None) -> None:
    """A change goes over what it or an earlier one has written without getting an answer."""
    change = change_of(base, tried=("lost",))
    assert change.may_replace(held(replace(base.live.session, version=6), revision=8, value="lost", mark=mark))
    assert change.may_replace(held(replace(base.live.session, version=6), revision=8, value="new", mark=None)) is False


@pytest.mark.parametrize(
    ("mark", "token", "may"),
    [
        (None, "the same", True),
        (None, "later", True),
        (EARLIER, "the same", True),
        (EARLIER, "later", True),
        (OURS, "the same", True),
        (OURS, "later", True),
        (THEIRS, "the same", False),
        (THEIRS, "later", True),
        (THEIRS_OVER, "the same", False),
        (THEIRS_OVER, "later", True),
    ],
)
@pytest.mark.parametrize("there", ["began with", "led here", "set back"])
def test_goes_over_what_led_to_it(make_session: Make, there: str, mark: Mark | None, token: str, may: bool) -> None:
    """A change goes over the states that led to it, and over older ones in a store that was set back.

    It goes over the mark of another only where that one's refresh token is spent anyway.
    """
    version = {"began with": 5, "led here": 4, "set back": 3}[there]
    sessions = {number: make_session(id="s", refresh_token="the same", version=number) for number in (3, 4, 5)}
    first = Change("key", Live(sessions[5], START), "first", held(sessions[4], revision=7, mark=EARLIER))
    base = held(sessions[5], revision=7, mark=OURS)
    live = Live(replace(sessions[5], version=6, refresh_token=token), START + 1)
    change = Change("key", live, "new", base).after(first)
    found = held(sessions[version], revision=7 if there == "set back" else 9, value="sealed anew", mark=mark)
    assert change.may_replace(found) is may
    assert change.is_newer_than(found) is may


@pytest.mark.parametrize("mark", [None, OURS])
def test_may_not_replace(base: Held, mark: Mark | None) -> None:
    """A change goes over nothing that somebody else has saved since, whatever its version."""
    change = change_of(base, token="later")
    for version in (4, 5, 6, 9):
        session = replace(base.live.session, version=version)
        assert not change.may_replace(held(session, saved_at=START + 1, revision=8, mark=mark))


def test_states_of_one_second(base: Held) -> None:
    """Of two states with one version that were made in one second, the refresh token tells which is which."""
    session = replace(base.live.session, refresh_token="of another")
    for revision in (6, 7, 8):
        assert not change_of(base, token="later").may_replace(held(session, revision=revision))


def test_may_replace_what_was_set_back(base: Held) -> None:
    """Over an older state it goes only where the store has lost writes: its revision tells."""
    older = replace(base.live.session, version=4)
    change = change_of(base)
    assert change.may_replace(held(older, saved_at=START - 5, revision=6))
    assert change.may_replace(held(older, saved_at=START - 5, revision=7))
    assert not change.may_replace(held(older, saved_at=START - 5, revision=8))
    assert not change.may_replace(held(older, saved_at=START + 5, revision=6))


def test_successors_know_what_led_to_them(base: Held) -> None:
    """A change built on one that is not saved yet goes over whatever that one may go over."""
    first = change_of(base, value="first")
    second = change_of(held(first.live.session, saved_at=START + 1, revision=7), value="second").after(first)
    assert second.may_replace(replace(base, revision=8, value="sealed anew"))
    assert second.may_replace(held(replace(base.live.session, version=6), revision=8, value="first"))
    assert not second.may_replace(held(replace(base.live.session, version=6), saved_at=START + 9, revision=8))
    assert second.is_newer_than(base)
    assert change_of(base).after(None) == change_of(base)


# -- What waits --------------------------------------------------------------------------------------------------------


class Writer:
    """Stands for a store that is away until `back` is set."""

    def __init__(self) -> None:
        self.back = False
        self.written: list[str] = []
        self.answer: Callable[[Change], Held | Gone] = lambda change: held(change.live.session, value=change.value)
        self.unsaved: Unsaved | None = None

    async def __call__(self, change: Change) -> Held | Gone:
        await asyncio.sleep(0)
        if not self.back:
            raise StoreUnavailable("away")
        self.written.append(change.value)
        answer = self.answer(change)
        if self.unsaved is not None and isinstance(answer, Held) and answer.value == change.value:
            self.unsaved.saved(change)
        return answer


@pytest.fixture
def writer() -> Writer:
    return Writer()


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def unsaved(writer: Writer, events: Events, clock: Any, monkeypatch: pytest.MonkeyPatch) -> Unsaved:
    monkeypatch.setattr(module, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(module, "_LONGEST_PAUSE", 0.01)
    unsaved = Unsaved(writer, lambda session: session.created_at + 100, events, clock=clock)
    writer.unsaved = unsaved
    return unsaved


async def until_empty(unsaved: Unsaved) -> None:
    async with asyncio.timeout(10):
        while len(unsaved):
            await asyncio.sleep(0.001)


async def test_tried_until_it_is_saved(unsaved: Unsaved, writer: Writer, events: Events, base: Held) -> None:
    """What waits is tried again and again, written once, and counted once."""
    unsaved.keep(change_of(base))
    await asyncio.sleep(0.05)
    assert writer.written == []
    writer.back = True
    await until_empty(unsaved)
    assert writer.written == ["new"]
    assert dict(events.counts) == {"save.deferred": 1, "save.recovered": 1}


async def test_the_latest_is_written(unsaved: Unsaved, writer: Writer, events: Events, base: Held) -> None:
    """Of several states of a session the latest waits; that is one loss avoided, not several."""
    unsaved.keep(change_of(base, value="first"))
    unsaved.keep(change_of(base, value="second"))
    writer.back = True
    await until_empty(unsaved)
    assert writer.written == ["second"]
    assert dict(events.counts) == {"save.deferred": 1, "save.recovered": 1}


async def test_saved_by_somebody_here(unsaved: Unsaved, events: Events, base: Held) -> None:
    """What a later write of this process includes need not wait any more; an earlier one changes nothing."""
    change = change_of(base)
    unsaved.keep(change)
    unsaved.saved(replace(change, live=base.live))
    assert len(unsaved) == 1
    unsaved.saved(change)
    assert len(unsaved) == 0
    assert events.counts["save.recovered"] == 1


async def test_marks_are_not_counted(unsaved: Unsaved, writer: Writer, events: Events, base: Held) -> None:
    """Taking a mark away late is no session saved late."""
    unsaved.keep(change_of(base), counts=False)
    writer.back = True
    await until_empty(unsaved)
    assert dict(events.counts) == {}


async def test_overtaken(unsaved: Unsaved, writer: Writer, events: Events, base: Held) -> None:
    """Where somebody else saved a newer state, it is said, and what waits is dropped."""
    writer.back, writer.answer = True, lambda change: held(change.live.session, value="other")
    unsaved.keep(change_of(base))
    await until_empty(unsaved)
    assert dict(events.counts) == {"save.deferred": 1, "save.overtaken": 1}


async def test_ended(unsaved: Unsaved, writer: Writer, events: Events, base: Held) -> None:
    """Where the session ended nothing is saved, and that is said; a mark that waited is not worth a word."""
    writer.back, writer.answer = True, lambda change: Gone("ended")
    unsaved.keep(change_of(base))
    await until_empty(unsaved)
    assert dict(events.counts) == {"save.deferred": 1, "refresh.discarded": 1}
    unsaved.keep(change_of(base), counts=False)
    await until_empty(unsaved)
    assert dict(events.counts) == {"save.deferred": 1, "refresh.discarded": 1}


@pytest.mark.parametrize(
    ("found", "revoked"),
    [(Gone("ended", word="ended"), True), (Gone("ended", word="replaced"), False), (Gone("unknown_key"), False)],
    ids=["ended", "replaced", "newer"],
)
async def test_what_nobody_holds_is_revoked(
    unsaved: Unsaved, writer: Writer, base: Held, found: Gone, revoked: bool
) -> None:
    """The refresh token of a session that ended meanwhile is revoked, unless that would end another one.

    Nobody waits for that but a shutdown: other sessions are saved in the meantime.
    """
    asked, go_on = asyncio.Event(), asyncio.Event()
    tokens: list[str] = []

    async def revoke(token: str) -> None:
        asked.set()
        await go_on.wait()
        tokens.append(token)

    unsaved._revoke = revoke
    writer.back = True
    writer.answer = lambda change: found if change.key == "key" else held(change.live.session, value=change.value)
    unsaved.keep(change_of(base))
    await until_empty(unsaved)
    unsaved.keep(change_of(base, key="other"))
    await until_empty(unsaved)
    closing = asyncio.create_task(unsaved.aclose(60))
    if revoked:
        await asyncio.wait_for(asked.wait(), 10)
        assert not closing.done()
    go_on.set()
    await closing
    assert tokens == ([base.live.session.refresh_token] if revoked else [])


async def test_a_revocation_does_not_hold_up_a_shutdown(unsaved: Unsaved, writer: Writer, base: Held) -> None:
    """What takes longer than a shutdown may is given up."""

    async def revoke(token: str) -> None:
        await asyncio.Event().wait()

    unsaved._revoke = revoke
    writer.back, writer.answer = True, lambda change: Gone("ended")
    unsaved.keep(change_of(base))
    await until_empty(unsaved)
    async with asyncio.timeout(10):
        await unsaved.aclose(0.01)
    assert not unsaved._revoking


async def test_given_up_at_its_end(unsaved: Unsaved, events: Events, clock: Any, base: Held) -> None:
    """What waits beyond the end of its session is given up."""
    unsaved.keep(change_of(base))
    clock.now += 100
    await until_empty(unsaved)
    assert events.counts["save.lost"] == 1


async def test_bounded(unsaved: Unsaved, events: Events, base: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound the oldest is given up, and counted."""
    monkeypatch.setattr(module, "_MAX_KEPT", 3)
    for number in range(5):
        unsaved.keep(change_of(base, key=str(number)))
    assert len(unsaved) == 3
    assert unsaved.get("1") is None
    assert unsaved.get("2") is not None
    assert events.counts["save.lost"] == 2
    await unsaved.aclose(0)
    assert events.counts["save.lost"] == 5
    assert len(unsaved) == 0


async def test_many(unsaved: Unsaved, writer: Writer, base: Held) -> None:
    """However many wait, each is written once."""
    for number in range(500):
        unsaved.keep(change_of(base, key=str(number), value=str(number)))
    writer.back = True
    await until_empty(unsaved)
    assert sorted(writer.written) == sorted(map(str, range(500)))


def test_another_event_loop_goes_on(unsaved: Unsaved, writer: Writer, base: Held) -> None:
    """What a closed event loop has left is written by the next one that has something to write."""

    async def keep(key: str) -> None:
        unsaved.keep(change_of(base, key=key, value=key))

    async def keep_and_wait() -> None:
        await keep("second")
        await until_empty(unsaved)

    asyncio.run(keep("first"))
    gc.collect()
    writer.back = True
    asyncio.run(keep_and_wait())
    assert sorted(writer.written) == ["first", "second"]


async def test_nothing_to_close(unsaved: Unsaved) -> None:
    """Closing costs nothing where nothing waits."""
    await unsaved.aclose(60)


# -- What a process knows ----------------------------------------------------------------------------------------------


def test_known_states(make_session: Make) -> None:
    """The newest state is known; an answer that was overtaken does not bring back an older one."""
    known = KnownStates()
    session = make_session(version=2)
    newest = held(session, value="2")
    known.note("key", newest, now=10, expires_at=100)
    known.note("key", held(replace(session, version=1), value="1"), now=11, expires_at=100)
    assert known.get("key") == newest
    assert known.recent("key", since=10) == newest
    assert known.recent("key", since=10.1) is None
    assert known.get("other") is None


def test_known_ends(make_session: Make) -> None:
    """What has ended for good is not known again; what was just absent is."""
    known = KnownStates()
    state = held(make_session())
    known.absent("absent", now=10)
    known.end("ended", "replaced", now=10)
    for key in ("absent", "ended"):
        known.note(key, state, now=11, expires_at=100)
    assert known.get("absent") == state
    assert known.get("ended") is None
    assert known.ended("absent", now=12) is None
    assert known.ended("ended", now=69) == Gone("ended", word="replaced")
    assert known.ended("ended", now=70) == Gone("ended", clear=True, word="replaced")


def test_known_is_bounded(make_session: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many sessions a process meets, it remembers a bounded number of bytes and of ends."""
    monkeypatch.setattr("logto_asgi.session.in_store.known._MAX_GONE", 10)
    known = KnownStates(limit=50_000)
    session = make_session()
    for number in range(100):
        known.note(str(number), held(session, value="v" * 1_000), now=10, expires_at=100)
        known.end(f"ended {number}", "ended", now=10)
    assert known._states.cost <= 50_000
    assert len(known._gone) == 10
    assert known.get("99") is not None
    assert known.ended("ended 99", now=10) is not None

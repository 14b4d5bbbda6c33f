"""Facts about states of sign-ins that several processes are asked for."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from faulty_store import FaultyStore

from logto_asgi.config import LogtoConfig
from logto_asgi.errors import AttemptNotFound, IssuerUnavailable, StoreUnavailable
from logto_asgi.models import Session
from logto_asgi.session.in_store.backend import StoreBackend
from logto_asgi.session.in_store.records import key_of, key_of_state
from logto_asgi.session.stores import MemoryStore

CODE, OTHER_CODE = (hashlib.sha256(code).hexdigest() for code in (b"code", b"other"))
OTHER_SECRET = "Zk5rQe8wNi2xVo7cBm4jDy9pSh3fLt6u"

Make = Callable[..., Session]


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore()


@pytest.fixture
def process(store: FaultyStore, make_config: Callable[..., LogtoConfig], clock: Any) -> Callable[..., StoreBackend]:
    """Return another process of the same app."""

    def make(**arguments: Any) -> StoreBackend:
        return StoreBackend(make_config(**arguments), store, clock=clock)

    return make


async def finish(backend: StoreBackend, session: Session | None) -> None:
    if session is not None:
        await backend.start(session)
    await backend.settle_state("state", CODE, session)


async def test_claimed_once(process: Callable[..., StoreBackend]) -> None:
    """Of several call-backs with one state, in whatever processes, one claims it."""
    results = await asyncio.gather(*(process().claim_state("state", CODE) for _ in range(5)))
    assert sorted(results) == [False] * 4 + [True]
    assert await process().claim_state("other", CODE)


async def test_the_others_get_the_outcome(process: Callable[..., StoreBackend], make_session: Make) -> None:
    """Whoever comes second waits for the first one's session, and gets the same."""
    here, there = process(), process()
    session = make_session()
    assert await here.claim_state("state", CODE)
    waiting = asyncio.create_task(there.outcome_of_state("state", CODE))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await finish(here, session)
    assert await waiting == session


async def test_the_others_learn_of_a_failure(process: Callable[..., StoreBackend]) -> None:
    """Where the first one got no session, the others are told to start again."""
    here, there = process(), process()
    await here.claim_state("state", CODE)
    await finish(here, None)
    with pytest.raises(AttemptNotFound):
        await there.outcome_of_state("state", CODE)


@pytest.mark.parametrize(("seconds", "shared"), [(60, True), (61, False)])
async def test_shared_for_a_minute(
    process: Callable[..., StoreBackend], make_session: Make, clock: Any, seconds: int, shared: bool
) -> None:
    """After a minute the outcome is shared no more."""
    here, there = process(), process()
    await here.claim_state("state", CODE)
    await finish(here, make_session())
    clock.now += seconds
    if shared:
        assert await there.outcome_of_state("state", CODE)
    else:
        with pytest.raises(AttemptNotFound):
            await there.outcome_of_state("state", CODE)


@pytest.mark.parametrize(("end", "seconds"), [("claimed", 55), ("failed", 60), ("signed in", 75)])
async def test_forgotten_soon(
    process: Callable[..., StoreBackend], make_session: Make, clock: Any, end: str, seconds: int
) -> None:
    """Strangers fill no store with states: a claim lives as long as an exchange can take, an outcome for a minute."""
    backend = process()
    assert await backend.claim_state("state", CODE)
    if end != "claimed":
        clock.now += 40
        await finish(backend, make_session() if end == "signed in" else None)
    clock.now += seconds - 1
    assert not await process().claim_state("state", CODE)
    clock.now += 1
    assert await process().claim_state("state", CODE)


async def test_shared_with_the_same_code_only(process: Callable[..., StoreBackend], make_session: Make) -> None:
    """Who brings another code to a state gets nothing, while it is claimed and when it is settled."""
    here, there = process(), process()
    session = make_session()
    await here.claim_state("state", CODE)
    assert not await there.claim_state("state", OTHER_CODE)
    with pytest.raises(AttemptNotFound):
        await there.outcome_of_state("state", OTHER_CODE)
    await finish(here, session)
    with pytest.raises(AttemptNotFound):
        await there.outcome_of_state("state", OTHER_CODE)
    assert await there.outcome_of_state("state", CODE) == session


async def test_claims_take_no_place_of_a_session(
    make_config: Callable[..., LogtoConfig], make_session: Make, clock: Any
) -> None:
    """However many call-backs strangers make, who is signed in stays so."""
    backend = StoreBackend(make_config(), MemoryStore(max_sessions=3), clock=clock)
    sessions = [make_session() for _ in range(3)]
    for session in sessions:
        await backend.start(session)
    for number in range(20):
        assert await backend.claim_state(f"state {number}", CODE)
        await backend.settle_state(f"state {number}", CODE, None)
    clock.now += 10
    assert [await backend.current(session) for session in sessions] == sessions


async def test_an_ended_session_is_not_shared(process: Callable[..., StoreBackend], make_session: Make) -> None:
    """A session that has ended since is no outcome."""
    here, there = process(), process()
    session = make_session()
    await here.claim_state("state", CODE)
    await finish(here, session)
    await here.end(session)
    with pytest.raises(AttemptNotFound):
        await there.outcome_of_state("state", CODE)


async def test_unknown(process: Callable[..., StoreBackend]) -> None:
    """A state that nobody has claimed has no outcome."""
    with pytest.raises(AttemptNotFound):
        await process().outcome_of_state("state", CODE)


async def test_never_settled(process: Callable[..., StoreBackend], clock: Any) -> None:
    """Where the first one was killed the others wait no longer than that could have taken."""
    here, there = process(), process(http_timeout=0.02)
    await here.claim_state("state", CODE)
    with pytest.raises(IssuerUnavailable):
        await there.outcome_of_state("state", CODE)
    clock.now += 41
    with pytest.raises(AttemptNotFound, match="interrupted"):
        await process().outcome_of_state("state", CODE)


async def test_a_newer_workers_claim(process: Callable[..., StoreBackend]) -> None:
    """A claim that a newer worker has sealed holds, and is waited for."""
    assert await process(cookie_secret=OTHER_SECRET).claim_state("state", CODE)
    backend = process(http_timeout=0.02)
    assert not await backend.claim_state("state", CODE)
    with pytest.raises(IssuerUnavailable):
        await backend.outcome_of_state("state", CODE)


async def test_nothing_shows(process: Callable[..., StoreBackend], store: FaultyStore, make_session: Make) -> None:
    """Neither the state nor the session's id can be read in the store."""
    backend = process()
    session = make_session()
    await backend.claim_state("state-of-ada", CODE)
    await backend.start(session)
    await backend.settle_state("state-of-ada", CODE, session)
    assert "state-of-ada" not in repr(store.values)
    assert session.id not in repr(store.values)


@pytest.mark.parametrize("value", ["?", "session"])
async def test_garbage(
    process: Callable[..., StoreBackend], store: FaultyStore, make_session: Make, value: str
) -> None:
    """What is no outcome, a session copied there included, is none."""
    backend = process()
    session = make_session()
    await backend.start(session)
    await backend.claim_state("state", CODE)
    store.put(key_of_state("state"), store.values[key_of(session.id)] if value == "session" else value)
    with pytest.raises(AttemptNotFound):
        await backend.outcome_of_state("state", CODE)


async def test_a_session_under_the_state_is_no_outcome(
    process: Callable[..., StoreBackend], store: FaultyStore, make_session: Make
) -> None:
    """A session's record that was sealed for this very key is no outcome either."""
    backend = process()
    await backend.claim_state("state", CODE)
    key = key_of_state("state")
    store.put(key, backend._keeper.records.seal_session(key, make_session(), saved_at=1))
    with pytest.raises(AttemptNotFound):
        await backend.outcome_of_state("state", CODE)


async def test_store_away(process: Callable[..., StoreBackend], store: FaultyStore, make_session: Make) -> None:
    """Without the store no state is claimed; an outcome that cannot be noted fails nobody."""
    backend = process()
    await backend.claim_state("state", CODE)
    store.go_down()
    await backend.settle_state("state", CODE, make_session())
    with pytest.raises(StoreUnavailable):
        await process().claim_state("other", CODE)
    with pytest.raises(StoreUnavailable):
        await process().outcome_of_state("state", CODE)

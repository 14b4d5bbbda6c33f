"""Facts about states of sign-ins that several processes are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from faulty_store import FaultyStore

from logto_asgi.config import LogtoConfig
from logto_asgi.errors import AttemptNotFound, IssuerUnavailable, StoreUnavailable
from logto_asgi.models import Session
from logto_asgi.session.records import key_of, key_of_state
from logto_asgi.session.store_backend import StoreBackend

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
    await backend.settle_state("state", session)


async def test_claimed_once(process: Callable[..., StoreBackend]) -> None:
    """Of several call-backs with one state, in whatever processes, one claims it."""
    results = await asyncio.gather(*(process().claim_state("state") for _ in range(5)))
    assert sorted(results) == [False] * 4 + [True]
    assert await process().claim_state("other")


async def test_the_others_get_the_outcome(process: Callable[..., StoreBackend], make_session: Make) -> None:
    """Whoever comes second waits for the first one's session, and gets the same."""
    here, there = process(), process()
    session = make_session()
    assert await here.claim_state("state")
    waiting = asyncio.create_task(there.outcome_of_state("state"))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await finish(here, session)
    assert await waiting == session


async def test_the_others_learn_of_a_failure(process: Callable[..., StoreBackend]) -> None:
    """Where the first one got no session, the others are told to start again."""
    here, there = process(), process()
    await here.claim_state("state")
    await finish(here, None)
    with pytest.raises(AttemptNotFound):
        await there.outcome_of_state("state")


@pytest.mark.parametrize(("seconds", "shared"), [(60, True), (61, False)])
async def test_shared_for_a_minute(
    process: Callable[..., StoreBackend], make_session: Make, clock: Any, seconds: int, shared: bool
) -> None:
    """After a minute the outcome is shared no more, and the state stays claimed as long as its attempt may live."""
    here, there = process(), process()
    await here.claim_state("state")
    await finish(here, make_session())
    clock.now += seconds
    if shared:
        assert await there.outcome_of_state("state")
    else:
        with pytest.raises(AttemptNotFound):
            await there.outcome_of_state("state")
    clock.now += 3_599 - seconds
    assert not await there.claim_state("state")


async def test_an_ended_session_is_not_shared(process: Callable[..., StoreBackend], make_session: Make) -> None:
    """A session that has ended since is no outcome."""
    here, there = process(), process()
    session = make_session()
    await here.claim_state("state")
    await finish(here, session)
    await here.end(session)
    with pytest.raises(AttemptNotFound):
        await there.outcome_of_state("state")


async def test_unknown(process: Callable[..., StoreBackend]) -> None:
    """A state that nobody has claimed has no outcome."""
    with pytest.raises(AttemptNotFound):
        await process().outcome_of_state("state")


async def test_never_settled(process: Callable[..., StoreBackend], clock: Any) -> None:
    """Where the first one was killed the others wait no longer than that could have taken."""
    here, there = process(), process(http_timeout=0.02)
    await here.claim_state("state")
    with pytest.raises(IssuerUnavailable):
        await there.outcome_of_state("state")
    clock.now += 41
    with pytest.raises(AttemptNotFound, match="interrupted"):
        await process().outcome_of_state("state")


async def test_a_newer_workers_claim(process: Callable[..., StoreBackend]) -> None:
    """A claim that a newer worker has sealed holds, and is waited for."""
    assert await process(cookie_secret=OTHER_SECRET).claim_state("state")
    backend = process(http_timeout=0.02)
    assert not await backend.claim_state("state")
    with pytest.raises(IssuerUnavailable):
        await backend.outcome_of_state("state")


async def test_nothing_shows(process: Callable[..., StoreBackend], store: FaultyStore, make_session: Make) -> None:
    """Neither the state nor the session's id can be read in the store."""
    backend = process()
    session = make_session()
    await backend.claim_state("state-of-ada")
    await backend.start(session)
    await backend.settle_state("state-of-ada", session)
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
    await backend.claim_state("state")
    store.put(key_of_state("state"), store.values[key_of(session.id)] if value == "session" else value)
    with pytest.raises(AttemptNotFound):
        await backend.outcome_of_state("state")


async def test_a_session_under_the_state_is_no_outcome(
    process: Callable[..., StoreBackend], store: FaultyStore, make_session: Make
) -> None:
    """A session's record that was sealed for this very key is no outcome either."""
    backend = process()
    await backend.claim_state("state")
    key = key_of_state("state")
    store.put(key, backend._keeper.records.seal_session(key, make_session(), saved_at=1))
    with pytest.raises(AttemptNotFound):
        await backend.outcome_of_state("state")


async def test_store_away(process: Callable[..., StoreBackend], store: FaultyStore, make_session: Make) -> None:
    """Without the store no state is claimed; an outcome that cannot be noted fails nobody."""
    backend = process()
    await backend.claim_state("state")
    store.go_down()
    await backend.settle_state("state", make_session())
    with pytest.raises(StoreUnavailable):
        await process().claim_state("other")
    with pytest.raises(StoreUnavailable):
        await process().outcome_of_state("state")

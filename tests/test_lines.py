"""Lines: one piece of work at a time for a session, shared by all who ask for the same, and nobody's own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from logto_asgi import IssuerUnavailable, SessionEnded, StoreUnavailable
from logto_asgi.claims import IdTokenClaims
from logto_asgi.lines import Lines
from logto_asgi.models import Session

SESSION = Session(
    id="one",
    version=1,
    created_at=0,
    sealed_at=0,
    claims=IdTokenClaims.parse({"iss": "https://issuer.example", "sub": "alice", "aud": "app", "exp": 9, "iat": 1}),
)


class Work:
    """Work that waits until it is let go, and remembers what it was given."""

    def __init__(self, result: Any = "done") -> None:
        self.begun: list[Session] = []
        self.gate = asyncio.Event()
        self.result = result

    async def __call__(self, session: Session) -> Any:
        self.begun.append(session)
        await self.gate.wait()
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


async def settle() -> None:
    """Let every task go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


Ask = Callable[..., "asyncio.Task[Any]"]


@pytest.fixture
def lines() -> Lines[Any]:
    return Lines()


@pytest.fixture
def ask(lines: Lines[Any]) -> Ask:
    """Ask in a task of its own."""

    def ask(work: Work, what: str = "a", session: Session = SESSION, **options: Any) -> asyncio.Task[Any]:
        return asyncio.ensure_future(lines.join(session, what, work, **options))

    return ask


async def test_everyone_who_asks_for_the_same_shares_it(ask: Ask) -> None:
    """A hundred callers, one piece of work, one result."""
    work = Work()
    callers = [ask(work) for _ in range(100)]
    await settle()
    work.gate.set()
    assert await asyncio.gather(*callers) == ["done"] * 100
    assert len(work.begun) == 1


async def test_other_work_of_the_session_waits(ask: Ask) -> None:
    """The second begins when the first has ended, not before."""
    first, second = Work(1), Work(2)
    callers = [ask(first, "a"), ask(second, "b")]
    await settle()
    assert (len(first.begun), len(second.begun)) == (1, 0)
    first.gate.set()
    second.gate.set()
    assert await asyncio.gather(*callers) == [1, 2]


async def test_sessions_do_not_wait_for_each_other(ask: Ask) -> None:
    """A slow refresh of one session holds up no other."""
    slow, quick = Work(1), Work(2)
    waiting = ask(slow)
    quick.gate.set()
    assert await ask(quick, session=replace(SESSION, id="two")) == 2
    slow.gate.set()
    assert await waiting == 1


async def test_fresh_work_begins_after_it_was_asked_for(ask: Ask) -> None:
    """Work that has begun does not do; fifty who ask meanwhile share the one after it."""
    first, second = Work(1), Work(2)
    begun = ask(first, fresh=True)
    await settle()
    late = [ask(second, fresh=True) for _ in range(50)]
    await settle()
    first.gate.set()
    second.gate.set()
    assert await begun == 1
    assert set(await asyncio.gather(*late)) == {2}
    assert len(second.begun) == 1


async def test_work_goes_on_when_everyone_hangs_up(ask: Ask, lines: Lines[Any]) -> None:
    """Cancelled callers leave; the work ends by itself, and shutting down waits for it."""
    work = Work()
    callers = [ask(work) for _ in range(3)]
    await settle()
    for caller in callers:
        caller.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*callers)
    assert lines.waiting() == 1
    asyncio.get_running_loop().call_soon(work.gate.set)
    await lines.drain(5)
    assert lines.waiting() == 0
    assert len(work.begun) == 1


async def test_shutdown_waits_for_a_while_and_cancels_nothing(ask: Ask, lines: Lines[Any]) -> None:
    """Work that takes longer than the shutdown waits goes on."""
    work = Work()
    caller = ask(work)
    await settle()
    await asyncio.wait_for(lines.drain(0.01), 10)
    work.gate.set()
    assert await caller == "done"


@pytest.mark.parametrize("failure", [IssuerUnavailable("down"), StoreUnavailable("away"), SessionEnded("over")])
async def test_failure_that_befalls_all_is_not_tried_again(ask: Ask, failure: Exception) -> None:
    """With the issuer down, whoever waits for another token of the session fails as well, without a call."""
    down, pointless = Work(failure), Work()
    pointless.gate.set()
    callers = [ask(down, "a"), ask(pointless, "b")]
    await settle()
    down.gate.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(result) for result in results] == [type(failure)] * 2
    assert pointless.begun == []


async def test_work_without_the_issuer_goes_on_without_it(ask: Ask) -> None:
    """Clearing tokens needs no issuer, so that its outage is no reason to fail."""
    down, local = Work(IssuerUnavailable("down")), Work("cleared")
    callers = [ask(down, "a"), ask(local, "b", asks_issuer=False)]
    await settle()
    down.gate.set()
    local.gate.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(results[0], IssuerUnavailable)
    assert results[1] == "cleared"


async def test_other_failures_are_of_their_own_work(ask: Ask) -> None:
    """A refused resource says nothing about the next one."""
    refused, other = Work(ValueError("no")), Work(2)
    callers = [ask(refused, "a"), ask(other, "b")]
    await settle()
    refused.gate.set()
    other.gate.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(results[0], ValueError)
    assert results[1] == 2


async def test_end_of_an_old_copy_is_not_the_end_of_a_newer_state(ask: Ask) -> None:
    """Who holds a newer state than the one that was refused asks again with it."""
    refused, again = Work(SessionEnded("an old copy")), Work("alive")
    old = ask(refused)
    await settle()
    newer = ask(again, session=replace(SESSION, version=2))
    other = ask(again, "b", session=replace(SESSION, version=2))
    await settle()
    refused.gate.set()
    again.gate.set()
    with pytest.raises(SessionEnded):
        await old
    assert await newer == "alive"
    assert await other == "alive"


async def test_work_that_is_done_is_not_joined_again(lines: Lines[Any]) -> None:
    """Who comes between its end and the loop's next round has it begun anew, and does not turn in circles."""
    again = Work("alive")
    again.gate.set()
    late: list[asyncio.Task[Any]] = []

    async def end_with_a_latecomer(_: Session) -> Any:
        # The latecomer's first step is queued before the callbacks of this task's end.
        late.append(asyncio.ensure_future(lines.join(replace(SESSION, version=2), "a", again)))
        raise SessionEnded("an old copy")

    with pytest.raises(SessionEnded):
        await lines.join(SESSION, "a", end_with_a_latecomer)
    assert await late[0] == "alive"


async def test_work_that_has_not_begun_takes_the_newest_state(ask: Ask) -> None:
    """It begins from the newest that any of its callers holds, whoever comes last."""
    first, second = Work(1), Work(2)
    others = [ask(second, "b", session=replace(SESSION, version=version)) for version in (1, 7, 3)]
    callers = [ask(first, "a"), *others]
    await settle()
    first.gate.set()
    second.gate.set()
    await asyncio.gather(*callers)
    assert [session.version for session in second.begun] == [7]


async def test_nothing_is_kept_of_finished_work(ask: Ask, lines: Lines[Any]) -> None:
    """A line goes with its last job, also after a failure that nobody waited for."""
    for result in ("done", ValueError("no")):
        work = Work(result)
        work.gate.set()
        with contextlib.suppress(ValueError):
            await ask(work)
        await settle()
    assert lines.waiting() == 0
    assert not any(lines._lines.values())

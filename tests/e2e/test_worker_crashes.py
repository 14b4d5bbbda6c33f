"""The worker that refreshes is killed, paused or replaced in the middle, or its answer gets lost: what that costs."""

from __future__ import annotations

import asyncio
import time

import pytest
from e2e_load import Tally
from e2e_traffic import Traffic, count_lost
from e2e_workers import Settings

SESSIONS = 5
HOUR = 3600
TOPOLOGY = "4 workers, Redis (AOF everysec)"
SETTINGS = {"http_timeout": 4}
"""Seconds. A refresh whose end nobody saw is repeated when its lock has ended: this and some more."""


async def strike_in_the_middle(crowd, provider, workers, strike, *, phase):
    """Let worker 0 begin a refresh for each of the sessions, and strike it while the issuer holds them.

    The issuer's answers are lost. The other workers are asked for the same in the meantime. Return the guests, what
    the others and worker 0 answered, and for how long the others waited.
    """
    guests = [await crowd.sign_in(workers.url) for _ in range(SESSIONS)]
    for guest in guests:
        assert (await crowd.ask(guest, "/token/shop")).status_code == 200
    workers.turn_clock(HOUR)
    provider.reset()
    provider.hold("token", times=SESSIONS, phase=phase)
    victims, others = Tally(), Tally()
    first = [asyncio.create_task(crowd.note(victims, guest, "/token/shop", url=workers[0].url)) for guest in guests]
    await asyncio.to_thread(provider.wait_for_held, "token", calls=SESSIONS, phase=phase)
    waiting = [
        asyncio.create_task(crowd.note(others, guest, "/token/shop", url=url))
        for guest in guests
        for url in workers.urls[1:]
        for _ in range(3)
    ]
    began = time.monotonic()
    await asyncio.to_thread(strike)
    provider.release("token", phase=phase, cut=True)
    await asyncio.gather(*waiting)
    seconds = time.monotonic() - began
    workers[0].resume()
    await asyncio.gather(*first)
    return guests, others, victims, seconds


async def test_a_kill_before_the_issuer_has_processed(fleet, redis, crowd, proof):
    """Where the issuer has not processed the refresh, another worker repeats it, and every session lives."""
    provider, workers = fleet(Settings(store=redis().url, config=SETTINGS))

    guests, others, victims, seconds = await strike_in_the_middle(
        crowd, provider, workers, workers[0].kill, phase="before"
    )

    assert sum(victims.broken.values()) == SESSIONS
    outcomes = provider.outcomes()
    assert others.failed == 0, others
    assert (outcomes.refreshed, outcomes.errors) == (SESSIONS, {})
    assert workers.events("refresh.interrupted") == SESSIONS
    assert workers.events("refresh.lost") == 0
    for guest in guests:
        assert (await crowd.ask(guest, "/who", at=workers[1].url)).json() == {"sub": "alice"}
    proof.row(
        f"SIGKILL of the refreshing worker, before the issuer processed it, {SESSIONS} sessions",
        TOPOLOGY,
        requests=others.asked,
        refreshes=outcomes.refreshed,
        needed=SESSIONS,
        failed=others.failed,
        recovery=f"{seconds:.1f} s",
    )


async def test_a_kill_after_the_issuer_has_processed(fleet, redis, crowd, proof):
    """Where the issuer has rotated and its answer died with the worker, the user signs in once; each is counted."""
    provider, workers = fleet(Settings(store=redis().url, config=SETTINGS))

    guests, others, victims, seconds = await strike_in_the_middle(
        crowd, provider, workers, workers[0].kill, phase="after"
    )

    assert sum(victims.broken.values()) == SESSIONS
    assert set(others.statuses) == {401}, others
    assert workers.events("refresh.interrupted") == SESSIONS
    assert workers.events("refresh.lost") == SESSIONS
    assert provider.outcomes().reused == SESSIONS, "one try each, no more"
    for guest in guests:
        assert (await crowd.ask(guest, "/who", at=workers[1].url)).json() == {"sub": None}
        await crowd.sign_in_again(guest)
        assert (await crowd.ask(guest, "/token/shop", at=workers[2].url)).status_code == 200
    proof.row(
        f"SIGKILL of the refreshing worker, after the issuer rotated, {SESSIONS} sessions",
        TOPOLOGY,
        requests=others.asked,
        refreshes=SESSIONS,
        needed=SESSIONS,
        failed=others.failed,
        lost=SESSIONS,
        recovery=f"{seconds:.1f} s",
        note="the answer was lost with the process; asked to sign in once, event refresh.lost",
    )


async def test_a_worker_that_was_paused_overwrites_nothing(fleet, redis, crowd, proof):
    """A worker is stopped (SIGSTOP) until others have refreshed; when it goes on it leaves the newer sessions alone."""
    provider, workers = fleet(Settings(store=redis().url, config=SETTINGS))

    guests, others, victims, seconds = await strike_in_the_middle(
        crowd, provider, workers, workers[0].pause, phase="before"
    )

    outcomes = provider.outcomes()
    assert others.failed == 0, others
    assert set(victims.statuses) <= {200, 503}, victims
    assert (outcomes.refreshed, outcomes.errors) == (SESSIONS, {})
    for guest in guests:
        tokens = {(await crowd.ask(guest, "/token/shop", at=url)).json()["fingerprint"] for url in workers.urls}
        assert len(tokens) == 1
    assert provider.outcomes() == outcomes
    proof.row(
        f"SIGSTOP of the refreshing worker past its lock, {SESSIONS} sessions",
        TOPOLOGY,
        requests=others.asked + victims.asked,
        refreshes=outcomes.refreshed,
        needed=SESSIONS,
        unavailable=victims.statuses[503],
        failed=others.failed,
        recovery=f"{seconds:.1f} s",
    )


async def test_rolling_deploys_lose_nothing(fleet, redis, crowd, proof):
    """All workers are replaced twice (SIGTERM) while tokens are refreshed all the time: no request fails."""
    settings = Settings(store=redis().url)
    provider, workers = fleet(settings, ACCESS_TOKEN_TTL=6)
    guests = await crowd.sign_in_many(workers.url, 20)
    provider.reset()

    async with Traffic(crowd, guests, workers) as traffic:
        for _ in range(2):
            await traffic.every_guest_again()
            await asyncio.to_thread(workers.roll, settings)
        await traffic.every_guest_again()

    outcomes = provider.outcomes()
    assert (traffic.tally.failed, outcomes.errors, outcomes.reused) == (0, {}, 0), traffic.tally
    assert await count_lost(crowd, guests) == 0
    assert workers.tracebacks() == 0
    proof.row(
        "Two rolling deploys (SIGTERM) under load",
        TOPOLOGY,
        requests=traffic.tally.asked,
        refreshes=outcomes.refreshed,
        failed=traffic.tally.failed,
    )


@pytest.mark.parametrize(("grace", "lost"), [(0, SESSIONS), (3600, 0)], ids=["no grace", "grace"])
async def test_an_answer_that_is_lost_on_its_way(fleet, redis, crowd, proof, grace, lost):
    """The connection ends after the issuer has rotated: 503, and the next request tries once with what there is.

    An issuer that lets a spent token pass for a while, as Logto does for 3 s, then gives another; one without such a
    grace asks the user to sign in.
    """
    provider, workers = fleet(Settings(store=redis().url), count=2, REUSE_GRACE=grace)
    guests = await crowd.sign_in_many(workers.url, SESSIONS)
    provider.reset()
    provider.cut("token", times=SESSIONS, phase="after")

    first = [await crowd.ask(guest, "/token/shop", at=workers[0].url) for guest in guests]
    second = [await crowd.ask(guest, "/token/shop", at=workers[1].url) for guest in guests]

    assert {answer.status_code for answer in first} == {503}
    assert [answer.status_code for answer in second].count(401) == lost
    assert workers.events("refresh.interrupted") == SESSIONS
    assert workers.events("refresh.lost") == lost
    refreshed = provider.outcomes().refreshed
    assert await count_lost(crowd, guests) == lost
    proof.row(
        f"The issuer's answer is lost after it has rotated, {SESSIONS} sessions",
        f"2 workers, Redis (AOF everysec); a spent token {'passes for a while' if grace else 'revokes the grant'}",
        requests=2 * SESSIONS,
        refreshes=refreshed,
        needed=SESSIONS,
        unavailable=SESSIONS,
        failed=lost,
        lost=lost,
    )

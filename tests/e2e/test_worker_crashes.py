"""The worker that refreshes is killed in the middle (SIGKILL): what the others do, and whom it costs the session."""

from __future__ import annotations

import asyncio
import time

from e2e_load import Tally
from e2e_workers import Settings

SESSIONS = 5
HOUR = 3600
TOPOLOGY = "4 workers, Redis (AOF everysec)"
SETTINGS = {"http_timeout": 4}
"""Seconds. A refresh whose end nobody saw is repeated when its lock has ended: this and some more."""


async def kill_in_the_middle(crowd, provider, workers, *, phase):
    """Let worker 0 begin a refresh for each of the sessions, and kill it while the issuer holds them.

    The other workers are asked for the same in the meantime. Return the guests, what they got, and how long it took.
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
    await asyncio.to_thread(workers[0].kill)
    provider.release("token", phase=phase, cut=True)
    await asyncio.gather(*first, *waiting)
    assert sum(victims.broken.values()) == SESSIONS
    return guests, others, time.monotonic() - began


async def test_a_kill_before_the_issuer_has_processed(fleet, redis, crowd, proof):
    """Where the issuer has not processed the refresh, another worker repeats it, and every session lives."""
    provider, workers = fleet(Settings(store=redis().url, config=SETTINGS))

    guests, others, seconds = await kill_in_the_middle(crowd, provider, workers, phase="before")

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

    guests, others, seconds = await kill_in_the_middle(crowd, provider, workers, phase="after")

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

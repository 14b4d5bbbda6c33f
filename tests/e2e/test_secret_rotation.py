"""The cookie secret is replaced under load, by rolling deploys: whoever is there meanwhile is not signed out."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from e2e_traffic import Traffic
from e2e_workers import DAY, SECRET, Settings

ANOTHER = "Kq3vXw8ZpR5tYb1NcJ7mLh2GfD9sEa4UoVi6TzQyB0k"
HOUR = 3600
ACTIVE, IDLE = 15, 5


@pytest.mark.parametrize("where", ["cookies", "Redis"])
async def test_nobody_is_signed_out_by_a_new_secret(fleet, redis, crowd, proof, where):
    """[a], [a, b], [b, a], [b]: who was there under [b, a] stays; who was not is anonymous at the end, and no error."""
    server = redis() if where == "Redis" else None
    settings = Settings(store=server.url if server else "", cookie_secrets=(SECRET,))
    _provider, workers = fleet(settings, ACCESS_TOKEN_TTL=30 * DAY)
    guests = await crowd.sign_in_many(workers.url, ACTIVE + IDLE)
    active, idle = guests[:ACTIVE], guests[ACTIVE:]

    async with Traffic(crowd, active, workers, path="/me") as traffic:
        await traffic.more(ACTIVE)
        for secrets in [(SECRET, ANOTHER), (ANOTHER, SECRET)]:
            await asyncio.to_thread(workers.roll, replace(settings, cookie_secrets=secrets))
            await traffic.more(2 * ACTIVE)
        workers.turn_clock(HOUR)
        await traffic.every_guest_again()
        await asyncio.to_thread(workers.roll, replace(settings, cookie_secrets=(ANOTHER,)))
        await traffic.every_guest_again()

    assert (traffic.tally.failed, traffic.signed_out) == (0, []), traffic.tally
    for guest in idle:
        answer = await crowd.ask(guest, "/who")
        assert (answer.status_code, answer.json()) == (200, {"sub": None})
        await crowd.sign_in_again(guest)
    assert workers.tracebacks() == 0
    proof.row(
        "Secrets rotate under load: [a], [a, b], [b, a], [b]",
        f"4 workers, {where}, rolling deploys",
        requests=traffic.tally.asked,
        failed=traffic.tally.failed,
        lost=len(traffic.signed_out),
        note=f"{ACTIVE} in use stayed; {IDLE} unused since before [b, a] are anonymous at the end, without an error",
    )

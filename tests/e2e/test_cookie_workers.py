"""Cookie sessions under many requests at once: what they keep in one process, and what several cannot promise."""

from __future__ import annotations

from e2e_load import Tally
from e2e_provider import PARTS, SHOP, STOCK
from e2e_workers import Settings

PATHS = ("/token/shop", "/token/stock", "/token/parts", "/token/@org-1")
HOUR = 3600
EACH_ONCE = {f"{SHOP}|": 1, f"{STOCK}|": 1, f"{PARTS}|": 1, "|org-1": 1}
ROUNDS = 20


async def test_one_worker_refreshes_each_token_once(fleet, crowd, proof):
    """200 requests at once, four tokens expired: four refreshes, no failure, twenty times in a row."""
    provider, workers = fleet(Settings(), count=1)
    guest = await crowd.sign_in(workers.url)
    total, refreshes = Tally(), 0
    for _ in range(ROUNDS):
        provider.reset()
        tally = await crowd.storm(guest, PATHS, count=200, urls=workers.urls)
        outcomes = provider.outcomes()
        assert (tally.failed, outcomes.errors, outcomes.reused) == (0, {}, 0), tally
        assert outcomes.refreshes == EACH_ONCE
        total.add(tally)
        refreshes += outcomes.refreshed
        workers.turn_clock(HOUR)

    assert (await crowd.ask(guest, "/who")).json() == {"sub": "alice"}
    assert workers.tracebacks() == 0
    proof.row(
        f"200 requests at once, all tokens expired, {ROUNDS} times",
        "1 worker, cookies",
        requests=total.asked,
        refreshes=refreshes,
        needed=ROUNDS * len(PATHS),
        failed=total.failed,
    )


async def test_four_workers_may_lose_a_cookie_session(fleet, crowd, proof):
    """Four workers with cookies race for one refresh token: who loses is asked to sign in, and can; nothing crashes."""
    provider, workers = fleet(Settings(), count=4)
    guest = await crowd.sign_in(workers.url)
    total, refreshes, lost, reused = Tally(), 0, 0, 0
    for _ in range(ROUNDS):
        provider.reset()
        tally = await crowd.storm(guest, PATHS, count=200, urls=workers.urls)
        assert tally.bare == 0, tally
        assert not tally.broken, tally
        total.add(tally)
        outcomes = provider.outcomes()
        refreshes, reused = refreshes + outcomes.refreshed, reused + outcomes.reused
        workers.turn_clock(HOUR)
        after = await crowd.ask(guest, "/token/shop")
        if after.status_code != 200:
            assert after.status_code == 401, f"HTTP {after.status_code} {after.text}"
            lost += 1
            await crowd.sign_in_again(guest)
            assert (await crowd.ask(guest, "/token/shop")).status_code == 200
        workers.turn_clock(HOUR)

    assert workers.tracebacks() == 0
    proof.row(
        f"200 requests at once, all tokens expired, {ROUNDS} times",
        "4 workers, cookies (no store)",
        requests=total.asked,
        refreshes=refreshes,
        needed=ROUNDS * len(PATHS),
        unavailable=total.statuses[503],
        failed=total.failed - total.statuses[503],
        lost=lost,
        note=f"{reused} spent tokens came back; every user could sign in again",
    )

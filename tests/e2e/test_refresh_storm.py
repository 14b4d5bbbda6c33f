"""Many requests at once over four workers and one Redis: each token is refreshed once, and nobody is signed out.

The provider is harsh: every refresh spends its token, and a spent one that comes back revokes the grant at once.
"""

from __future__ import annotations

import asyncio
import itertools
import os

from e2e_load import Tally, call_and_wait, spread
from e2e_provider import PARTS, SHOP, STOCK
from e2e_workers import Settings

PATHS = ("/token/shop", "/token/stock", "/token/parts", "/token/@org-1")
EACH_ONCE = {f"{SHOP}|": 1, f"{STOCK}|": 1, f"{PARTS}|": 1, "|org-1": 1}
HOUR = 3600
ROUNDS = 20
MORE = int(os.environ.get("PROOF_ROUNDS", "1"))
"""How often the slower ones are repeated."""
TOPOLOGY = "4 workers, Redis (AOF everysec)"


async def storms(crowd, provider, workers, *, rounds, storm=None, delay=0):
    """Let all tokens expire and many requests come at once, several times. Return the tally and the refreshes."""
    guest = await crowd.sign_in(workers.url)
    total, refreshes = Tally(), 0
    for _ in range(rounds):
        provider.reset()
        if delay:
            provider.delay("token", milliseconds=delay, times=1000)
        tally = await (storm(guest) if storm else crowd.storm(guest, PATHS, count=200, urls=workers.urls))
        outcomes = provider.outcomes()
        assert (tally.failed, outcomes.errors, outcomes.reused) == (0, {}, 0), tally
        assert outcomes.refreshes == EACH_ONCE
        assert [len(tokens) for tokens in tally.tokens.values()] == [1] * 4, "all workers hand out the same tokens"
        total.add(tally)
        refreshes += outcomes.refreshed
        workers.turn_clock(HOUR)
    assert (await crowd.ask(guest, "/who")).json() == {"sub": "alice"}
    assert workers.tracebacks() == 0
    return total, refreshes


async def test_one_refresh_for_each_token(fleet, redis, crowd, proof):
    """200 requests at once, three resources and an organization expired: four refreshes, 20 times in a row."""
    provider, workers = fleet(Settings(store=redis().url))

    total, refreshes = await storms(crowd, provider, workers, rounds=ROUNDS)

    assert set(total.workers) == {"0", "1", "2", "3"}
    proof.row(
        f"200 requests at once, all 4 tokens expired, {ROUNDS} times",
        TOPOLOGY,
        requests=total.asked,
        refreshes=refreshes,
        needed=ROUNDS * len(PATHS),
        failed=total.failed,
    )


async def test_one_refresh_for_each_token_of_a_slow_issuer(fleet, redis, crowd, proof):
    """The same where the token endpoint takes two seconds: everyone waits, nobody fails, nothing is asked twice."""
    provider, workers = fleet(Settings(store=redis().url))

    total, refreshes = await storms(crowd, provider, workers, rounds=MORE, delay=2_000)

    proof.row(
        f"200 requests at once, the token endpoint takes 2 s, {MORE} times",
        TOPOLOGY,
        requests=total.asked,
        refreshes=refreshes,
        needed=MORE * len(PATHS),
        failed=total.failed,
    )


async def test_one_refresh_for_each_token_whoever_hangs_up(fleet, redis, crowd, proof):
    """The same where 100 of 200 callers hang up once the issuer has rotated, and their requests are cancelled."""
    provider, workers = fleet(Settings(store=redis().url))
    rounds, hung_up, gone = 4 * MORE, 100, []

    async def storm(guest):
        provider.hold("token", phase="after")
        targets = itertools.islice(spread([path.replace("/token/", "/hang/") for path in PATHS], workers.urls), hung_up)
        callers = [await call_and_wait(guest, path, url=url) for path, url in targets]
        await asyncio.to_thread(provider.wait_for_held, "token", phase="after")
        patient = asyncio.create_task(crowd.storm(guest, PATHS, count=200 - hung_up, urls=workers.urls))
        for caller in callers:
            caller.transport.abort()
        gone.append(hung_up)
        await asyncio.to_thread(workers.wait_for_hung_up, sum(gone))
        provider.release("token", phase="after")
        return await patient

    total, refreshes = await storms(crowd, provider, workers, rounds=rounds, storm=storm)

    proof.row(
        f"200 requests at once, {hung_up} callers hang up, {rounds} times",
        TOPOLOGY,
        requests=total.asked + rounds * hung_up,
        refreshes=refreshes,
        needed=rounds * len(PATHS),
        failed=total.failed,
    )

"""200 sessions with short-lived tokens for a while: as many refreshes as expiries, and nothing is left behind.

SOAK_SECONDS makes it longer.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from collections import Counter

from e2e_load import Tally
from e2e_workers import Settings

SECONDS = float(os.environ.get("SOAK_SECONDS", "30"))
SESSIONS = 200
LIFETIME = 12
"""Seconds."""
AT_ONCE = 2
PAUSES = (1.0, 3.0)


def lasting_keys(server):
    """Count the keys that live for over an hour: sessions and their index, not claims of sign-ins, which go soon."""
    script = (
        "local n = 0 for _, key in ipairs(redis.call('KEYS', '*')) do "
        "if redis.call('PTTL', key) > 3600000 then n = n + 1 end end return n"
    )
    return server.cli("EVAL", script, "0")


async def visit(crowd, guest, workers, tally, chance, until):
    """Ask two workers at once for a token, over and over. Return the tokens that were handed out."""
    seen = {}
    await asyncio.sleep(chance.uniform(0, PAUSES[1]))
    while time.monotonic() < until:
        urls = chance.sample(workers.urls, AT_ONCE)
        answers = await asyncio.gather(*(crowd.note(tally, guest, "/token/shop", url=url) for url in urls))
        for token in (answer.json() for answer in answers if answer is not None and answer.status_code == 200):
            seen[token["fingerprint"]] = token
        await asyncio.sleep(chance.uniform(*PAUSES))
    return sorted(seen.values(), key=lambda token: token["iat"])


async def test_as_many_refreshes_as_expiries(fleet, redis, crowd, proof):
    """Every refresh follows an expiry, none fails, and no task, lock or connection is left over."""
    server = redis()
    settings = Settings(store=server.url, config={"refresh_margin": 0})
    provider, workers = fleet(settings, ACCESS_TOKEN_TTL=LIFETIME)
    guests = await crowd.sign_in_many(workers.url, SESSIONS)
    provider.reset()
    keys = lasting_keys(server)
    tally, half, until = Tally(), time.monotonic() + SECONDS / 2, time.monotonic() + SECONDS
    visits = [
        asyncio.create_task(visit(crowd, guest, workers, tally, random.Random(number), until))
        for number, guest in enumerate(guests)
    ]
    await asyncio.sleep(half - time.monotonic())
    before = [each["rss"] for each in workers.debug()]
    tokens = await asyncio.gather(*visits)

    outcomes = provider.outcomes()
    expiries = sum(new["iat"] >= old["exp"] for each in tokens for old, new in itertools.pairwise(each))
    assert tally.failed == 0, tally
    assert (outcomes.errors, outcomes.reused) == ({}, 0)
    assert outcomes.refreshed == SESSIONS + expiries == sum(map(len, tokens))
    left, after = await left_behind(workers), [each["rss"] for each in workers.debug()]
    assert left == Counter()
    assert server.cli("--scan", "--pattern", "*:lock") == ""
    assert int(lasting_keys(server)) == int(keys) > SESSIONS
    connections = int(server.info("connected_clients"))
    assert connections <= 4 * 50 + 1
    assert workers.tracebacks() == 0
    proof.row(
        f"Soak: {SESSIONS} sessions, tokens of {LIFETIME} s, {SECONDS:g} s",
        "4 workers, Redis (AOF everysec)",
        requests=tally.asked,
        refreshes=outcomes.refreshed,
        needed=SESSIONS + expiries,
        unavailable=tally.statuses[503],
        failed=tally.failed,
        note=f"workers' memory at half time {mib(before)} MiB, at the end {mib(after)} MiB; {connections} connections",
    )


async def left_behind(workers):
    """Return the library's tasks that the workers still run, once they had a moment to end."""
    for _ in range(100):
        tasks = sum((Counter(each["tasks"]) for each in workers.debug()), Counter())
        if not tasks:
            break
        await asyncio.sleep(0.1)
    return tasks


def mib(sizes):
    """Write sizes in KiB as a list of MiB."""
    return "/".join(str(round(size / 1024)) for size in sizes)

"""Redis goes away, comes back, forgets, is full or slow, while 20 guests keep asking: nobody is signed out for it.

Except where Redis itself lost what had been saved: these cases are listed here, and each lost session is counted.
"""

from __future__ import annotations

import asyncio
import shutil
import time

from e2e_slow_proxy import SlowProxy
from e2e_traffic import Traffic, count_lost
from e2e_workers import Settings

GUESTS = 20
SHORT_LIVED = {"ACCESS_TOKEN_TTL": 6}
"""Seconds; a token is refreshed at half of that, so that refreshes are under way all the time."""
AOF = "4 workers, Redis with AOF everysec"


class Scene:
    """Four workers, a Redis, and guests who are signed in."""

    def __init__(self, fleet, crowd, proof, settings, **provider):
        self.provider, self.workers = fleet(settings, **{**SHORT_LIVED, **provider})
        self.crowd, self.proof = crowd, proof
        self.guests = []

    async def fill(self):
        self.guests = await self.crowd.sign_in_many(self.workers.url, GUESTS)
        self.provider.reset()
        return self

    def traffic(self):
        return Traffic(self.crowd, self.guests, self.workers)

    async def close(self, what, topology, traffic, *, back_at, may_lose=False, note=""):
        """Count who has lost a session, check what must hold in every case, and take the row."""
        before = self.provider.outcomes()
        lost = await count_lost(self.crowd, self.guests)
        tally, outcomes = traffic.tally, self.provider.outcomes()
        row = self.proof.row(
            what,
            topology,
            requests=tally.asked,
            refreshes=before.refreshed,
            unavailable=tally.statuses[503],
            failed=tally.failed - tally.statuses[503],
            lost=lost,
            recovery=f"{max(0.0, traffic.last_trouble - back_at):.1f} s",
            note="; ".join(filter(None, [note, f"slowest 503 {traffic.slowest_refusal:.1f} s", self.told()])),
        )
        assert tally.bare == 0, tally
        assert not tally.broken, tally
        assert set(tally.statuses) <= ({200, 503, 401} if may_lose else {200, 503}), tally
        assert self.workers.tracebacks() == 0
        if not may_lose:
            assert (lost, outcomes.reused, outcomes.errors) == (0, 0, {}), (row, outcomes)
        return row

    def told(self):
        """Say which of the rarer events the workers counted."""
        names = ("save.deferred", "save.recovered", "save.overtaken", "save.lost", "store.healed", "refresh.lost")
        counts = {name: self.workers.events(name) for name in names}
        return ", ".join(f"{name} {count}" for name, count in counts.items() if count)


async def pages_without_a_user_go_on(scene):
    """Whoever reads the user gets 503 with a time to come back, whoever does not is answered."""
    for url in scene.workers.urls:
        read = await scene.crowd.ask(scene.guests[0], "/who", at=url)
        assert (read.status_code, "retry-after" in read.headers) == (503, True), read.text
        assert (await scene.crowd.ask(scene.guests[0], "/public", at=url)).status_code == 200


async def test_stopped_and_started(fleet, redis, crowd, proof):
    """Redis is stopped in order and started again: 503 meanwhile, and every session is there afterwards."""
    server = redis()
    scene = await Scene(fleet, crowd, proof, Settings(store=server.url)).fill()
    async with scene.traffic() as traffic:
        await traffic.more(100)
        await asyncio.to_thread(server.stop)
        await traffic.more(40, status=503)
        await pages_without_a_user_go_on(scene)
        await asyncio.to_thread(server.start)
        back_at = time.monotonic()
        await traffic.recovered()
    await scene.close("Redis stopped and started", AOF, traffic, back_at=back_at)


async def test_killed(fleet, redis, crowd, proof):
    """Redis is killed (-9) and started again: with its append-only file every session is there afterwards."""
    server = redis()
    scene = await Scene(fleet, crowd, proof, Settings(store=server.url)).fill()
    async with scene.traffic() as traffic:
        await traffic.more(100)
        await asyncio.to_thread(server.kill)
        await traffic.more(40, status=503)
        await asyncio.to_thread(server.start)
        back_at = time.monotonic()
        await traffic.recovered()
    await scene.close("Redis killed (-9) and started", AOF, traffic, back_at=back_at)


async def test_killed_while_the_issuer_answers(fleet, redis, crowd, proof):
    """Redis dies between a refresh's departure and its answer: the workers keep what came, and save it later."""
    server = redis()
    scene = await Scene(fleet, crowd, proof, Settings(store=server.url)).fill()
    scene.provider.hold("token", times=GUESTS, phase="after")
    async with scene.traffic() as traffic:
        await asyncio.to_thread(scene.provider.wait_for_held, "token", calls=GUESTS, phase="after")
        await asyncio.to_thread(server.kill)
        scene.provider.release("token", phase="after")
        await traffic.until(lambda: scene.workers.events("save.deferred") == GUESTS, "deferred saves")
        await asyncio.to_thread(server.start)
        back_at = time.monotonic()
        await traffic.recovered()
    assert scene.workers.events("save.recovered") == GUESTS
    assert scene.workers.events("save.lost") == 0
    what = "Redis killed (-9) between the refreshes and their answers, and started"
    await scene.close(what, AOF, traffic, back_at=back_at)


async def test_killed_without_persistence(fleet, redis, crowd, proof):
    """Without persistence a killed Redis has forgotten everybody: they sign in again, and nothing breaks."""
    server = redis(appendonly="no")
    scene = await Scene(fleet, crowd, proof, Settings(store=server.url)).fill()
    async with scene.traffic() as traffic:
        await traffic.more(100)
        await asyncio.to_thread(server.kill)
        await traffic.more(20, status=503)
        await asyncio.to_thread(server.start)
        back_at = time.monotonic()
        await traffic.recovered()
    topology = "4 workers, Redis without persistence"
    await scene.close("Redis killed (-9) and started", topology, traffic, back_at=back_at, may_lose=True)


async def test_paused(fleet, redis, crowd, proof):
    """Redis hangs (SIGSTOP) and goes on: 503 within 2 s meanwhile, and nobody is signed out."""
    server = redis()
    scene = await Scene(fleet, crowd, proof, Settings(store=server.url)).fill()
    async with scene.traffic() as traffic:
        await traffic.more(100)
        server.pause()
        await traffic.more(40, status=503)
        await pages_without_a_user_go_on(scene)
        server.resume()
        back_at = time.monotonic()
        await traffic.recovered()
    await scene.close("Redis hangs (SIGSTOP) and goes on", AOF, traffic, back_at=back_at)


async def test_slow(fleet, redis, crowd, proof):
    """Redis answers slowly, after 0.1 s and then after 3 s, which is 503: nobody is signed out."""
    server = redis()
    with SlowProxy(server.socket) as proxy:
        scene = await Scene(fleet, crowd, proof, Settings(store=proxy.url)).fill()
        async with scene.traffic() as traffic:
            proxy.delay = 0.1
            await traffic.more(100)
            proxy.delay = 3.0
            await traffic.more(40, status=503)
            proxy.delay = 0.0
            back_at = time.monotonic()
            await traffic.recovered()
        await scene.close("Redis answers after 0.1 s, then after 3 s", AOF, traffic, back_at=back_at)


async def test_failed_over(fleet, redis, crowd, proof):
    """The primary dies and Sentinel promotes its replica: the workers find it; what was not replicated is counted."""
    primary = redis(tcp=True)
    replica = redis(tcp=True, replicaof=f"127.0.0.1 {primary.port}")
    replica.wait_for("master_link_status:up", "INFO", "replication")
    watch = [
        f"monitor shop 127.0.0.1 {primary.port} 1",
        "down-after-milliseconds shop 1000",
        "failover-timeout shop 10000",
    ]
    sentinel = redis(sentinel=True, lines=watch)
    settings = Settings(store="sentinel", sentinel=("127.0.0.1", sentinel.port, "shop"))
    scene = await Scene(fleet, crowd, proof, settings).fill()
    sentinel.wait_for(str(replica.port), "SENTINEL", "replicas", "shop")
    async with scene.traffic() as traffic:
        await traffic.more(100)
        await asyncio.to_thread(primary.kill)
        gone_at = time.monotonic()
        await traffic.more(20, status=503)
        await asyncio.to_thread(replica.wait_for, "role:master", "INFO", "replication")
        await traffic.recovered()
    topology = "4 workers, Sentinel, primary and replica (asynchronous), AOF everysec"
    note = "recovery counts from the kill; Sentinel waits 1 s"
    await scene.close(
        "Primary killed (-9), replica promoted", topology, traffic, back_at=gone_at, may_lose=True, note=note
    )


async def test_full(fleet, redis, crowd, proof):
    """Redis takes nothing more in: a refresh is refused before anything is spent, and works when there is room."""
    server = redis()
    scene = await Scene(fleet, crowd, proof, Settings(store=server.url)).fill()
    async with scene.traffic() as traffic:
        await traffic.more(100)
        server.cli("CONFIG", "SET", "maxmemory", "1mb")
        await traffic.more(40, status=503)
        server.cli("CONFIG", "SET", "maxmemory", "0")
        back_at = time.monotonic()
        await traffic.recovered()
    assert traffic.tally.codes["store_full"] > 0, traffic.tally
    await scene.close("Redis is full (maxmemory, noeviction)", AOF, traffic, back_at=back_at)


async def test_restored_under_running_workers(fleet, redis, crowd, proof):
    """Redis is restored from an older snapshot: what the running workers still know, they put back."""
    server = redis(appendonly="no")
    scene = await Scene(fleet, crowd, proof, Settings(store=server.url)).fill()
    async with scene.traffic() as traffic:
        await traffic.more(60)
        snapshot = take_snapshot(server)
        before = scene.provider.outcomes().refreshed
        await traffic.until(lambda: scene.provider.outcomes().refreshed >= before + GUESTS, "refreshes")
        await asyncio.to_thread(restore, server, snapshot)
        back_at = time.monotonic()
        await traffic.recovered()
    topology = "4 workers that go on, Redis with a snapshot (RDB)"
    await scene.close("Redis restored from an older snapshot", topology, traffic, back_at=back_at, may_lose=True)


async def test_restored_with_new_workers(fleet, redis, crowd, proof):
    """Redis is restored from an older snapshot and the workers are new: who was refreshed since signs in again."""
    server = redis(appendonly="no")
    settings = Settings(store=server.url)
    scene = await Scene(fleet, crowd, proof, settings).fill()
    async with scene.traffic() as traffic:
        await traffic.more(60)
    snapshot = take_snapshot(server)
    since, until = scene.guests[: GUESTS // 2], scene.guests[GUESTS // 2 :]
    scene.workers.turn_clock(60)
    for guest in since:
        assert (await crowd.ask(guest, "/token/shop")).status_code == 200
    await asyncio.to_thread(restore, server, snapshot)
    await asyncio.to_thread(scene.workers.deploy, settings)

    assert await count_lost(crowd, until) == 0
    row = await scene.close(
        "Redis restored from an older snapshot",
        "4 new workers, Redis with a snapshot (RDB)",
        traffic,
        back_at=time.monotonic(),
        may_lose=True,
        note=f"{len(since)} sessions were refreshed after the snapshot",
    )
    assert row.lost == len(since)


def take_snapshot(server):
    """Save what Redis holds now, and return where."""
    assert server.cli("SAVE") == "OK"
    return shutil.copy(server.home / "dump.rdb", server.home / "older.rdb")


def restore(server, snapshot):
    """Let Redis begin anew from a snapshot."""
    server.kill()
    shutil.copy(snapshot, server.home / "dump.rdb")
    server.start()

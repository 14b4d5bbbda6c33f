"""Many processes refresh one session at once, over a network that fails, at an issuer that forgives nothing.

Time jumps, and all chance comes from a seed: whatever fails does so again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
from faulty_store import FaultyStore

from logto_asgi.config import LogtoConfig
from logto_asgi.errors import IssuerUnavailable, SessionEnded, StoreUnavailable
from logto_asgi.events import Events
from logto_asgi.models import Session
from logto_asgi.session.backend import Overtaken, Saved
from logto_asgi.session.in_store.backend import StoreBackend
from tests.interleavings_loop import JumpingLoop

Make = Callable[..., Session]


class StrictIssuer:
    """Rotates at every refresh; a token that was spent before revokes everything."""

    def __init__(self, token: str, chance: random.Random) -> None:
        self.valid = token
        self.chance = chance
        self.refreshes = 0
        self.reused = 0

    async def refresh(self, token: str) -> str:
        await asyncio.sleep(self.chance.uniform(0, 0.004))
        if token != self.valid:
            self.reused += 1
            self.valid = "revoked"
        assert self.valid != "revoked", "a spent refresh token came back"
        self.refreshes += 1
        self.valid = f"token {self.refreshes}"
        await asyncio.sleep(self.chance.uniform(0, 0.004))
        return self.valid


async def refresh(backend: StoreBackend, issuer: StrictIssuer, session: Session) -> None:
    """Refresh as the library does: depart, ask, save what was rotated, save what came with it."""
    async with backend.turn(session, lambda newest: False) as turn:
        await turn.depart()
        rotated = await issuer.refresh(turn.session.refresh_token or "")
        for fields in ({"refresh_token": rotated}, {"checked_at": issuer.refreshes}):
            successor = replace(turn.session, version=turn.session.version + 1, **fields)  # type: ignore[arg-type]
            assert await turn.save(successor, spent=None) is not Saved.ENDED
            await asyncio.sleep(issuer.chance.uniform(0, 0.004))


class BadNetwork(FaultyStore):
    """Loses calls and answers now and then."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance = chance
        self.losses = 0.0

    async def _call(self, name: str, *args: Any, **fields: Any) -> Any:
        await asyncio.sleep(self.chance.uniform(0, 0.002))
        if self.chance.random() < self.losses:
            raise StoreUnavailable("lost")
        answer = await super()._call(name, *args, **fields)
        await asyncio.sleep(self.chance.uniform(0, 0.002))
        if self.chance.random() < self.losses:
            raise StoreUnavailable("lost")
        return answer


class World:
    """A store, an issuer and four processes, on an event loop whose time jumps."""

    def __init__(self, config: LogtoConfig, clock: Any, session: Session, seed: int) -> None:
        self.clock = clock
        self.chance = random.Random(seed)
        self.loop = JumpingLoop()
        self.session = replace(session, refresh_token="token 0")
        self.issuer = StrictIssuer("token 0", self.chance)
        self.store = BadNetwork(self.chance)
        self.store.inside._clock = self.loop.time
        self.events = Events()
        self.processes = [self.process(config) for _ in range(4)]

    def process(self, config: LogtoConfig) -> StoreBackend:
        backend = StoreBackend(config, self.store, clock=self.clock, events=self.events)
        backend._store._clock = self.loop.time
        backend._store._pause = 0.005
        backend._turns._between = self.chance.uniform
        return backend

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(work)

    async def close(self) -> None:
        self.store.losses = 0.0
        await asyncio.gather(*(process.aclose() for process in self.processes))
        self.clock.now += 6  # What a process has seen lately it does not ask for again.
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


@pytest.fixture
def make_world(
    config: LogtoConfig, clock: Any, make_session: Make, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], World]:
    monkeypatch.setattr("logto_asgi.session.in_store.turns._LATER", 0.01)
    monkeypatch.setattr("logto_asgi.session.in_store.turns._PAUSES", (0.001, 0.005))
    monkeypatch.setattr("logto_asgi.session.in_store.turns._UNMARKED", 0.05)
    monkeypatch.setattr("logto_asgi.session.in_store.unsaved._LONGEST_PAUSE", 0.1)
    return lambda seed: World(config, clock, make_session(), seed)


@pytest.mark.parametrize("seed", range(50))
@pytest.mark.parametrize("losses", [0.0, 0.05])
def test_no_session_is_lost(make_world: Callable[[int], World], seed: int, losses: float) -> None:
    """Whatever the network loses, no spent token is used again, and in the end all know the newest state."""
    world = make_world(seed)
    issuer, session = world.issuer, world.session

    async def request(process: StoreBackend) -> None:
        while True:
            try:
                return await refresh(process, issuer, session)
            except (StoreUnavailable, IssuerUnavailable, Overtaken):
                await asyncio.sleep(world.chance.uniform(0, 0.01))

    async def work() -> None:
        await world.processes[0].start(session)
        world.store.losses = losses
        async with asyncio.timeout(600):
            await asyncio.gather(*(request(process) for process in world.processes for _ in range(3)))
        await world.close()
        for process in world.processes:
            newest = await process.current(session)
            assert newest is not None
            assert newest.refresh_token == issuer.valid

    world.run(work())
    assert issuer.reused == 0
    assert issuer.refreshes >= 12
    assert not {"save.lost", "refresh.interrupted", "refresh.lost"} & set(world.events.counts)


@pytest.mark.parametrize("seed", range(50))
def test_a_session_ended_in_the_middle_stays_ended(make_world: Callable[[int], World], seed: int) -> None:
    """Whenever a session is ended among refreshes, afterwards nobody refreshes it and nothing is left of it."""
    world = make_world(seed)
    issuer, session = world.issuer, world.session

    async def refresh_until_it_ends(process: StoreBackend) -> None:
        with pytest.raises((SessionEnded, AssertionError)):
            while True:
                with contextlib.suppress(Overtaken):
                    await refresh(process, issuer, session)

    async def work() -> None:
        await world.processes[0].start(session)
        refreshing = [asyncio.create_task(refresh_until_it_ends(process)) for process in world.processes]
        await asyncio.sleep(0.001 * seed)
        ended = await world.processes[seed % 4].end(session)
        refreshes = issuer.refreshes
        await asyncio.gather(*refreshing)
        await world.close()
        assert issuer.refreshes <= refreshes + 1
        assert ended.refresh_token is not None
        for process in world.processes:
            assert await process.current(session) is None

    world.run(work())

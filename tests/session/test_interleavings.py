"""Many processes refresh one session at once, over a network that fails, at an issuer that forgives nothing."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from faulty_store import FaultyStore

from logto_asgi.config import LogtoConfig
from logto_asgi.errors import IssuerUnavailable, SessionEnded, StoreUnavailable
from logto_asgi.events import Events
from logto_asgi.models import Session
from logto_asgi.session.backend import Overtaken
from logto_asgi.session.store_backend import StoreBackend

Make = Callable[..., Session]


class StrictIssuer:
    """Rotates at every refresh; a token that was spent before revokes everything."""

    def __init__(self, token: str) -> None:
        self.valid = token
        self.refreshes = 0
        self.reused = 0

    async def refresh(self, token: str) -> str:
        await asyncio.sleep(random.uniform(0, 0.004))
        if token != self.valid:
            self.reused += 1
            self.valid = "revoked"
        assert self.valid != "revoked", "a spent refresh token came back"
        self.refreshes += 1
        self.valid = f"token {self.refreshes}"
        await asyncio.sleep(random.uniform(0, 0.004))
        return self.valid


async def refresh(backend: StoreBackend, issuer: StrictIssuer, session: Session) -> None:
    """Refresh as the library does: depart, ask, save what was rotated, save what came with it."""
    async with backend.turn(session, lambda newest: False) as turn:
        await turn.depart()
        rotated = await issuer.refresh(turn.session.refresh_token or "")
        for fields in ({"refresh_token": rotated}, {"checked_at": issuer.refreshes}):
            successor = replace(turn.session, version=turn.session.version + 1, **fields)  # type: ignore[arg-type]
            assert await turn.save(successor, spent=None)
            await asyncio.sleep(random.uniform(0, 0.004))


class BadNetwork(FaultyStore):
    """Loses calls and answers now and then."""

    def __init__(self, seed: int, *, lost_calls: float, lost_answers: float) -> None:
        super().__init__()
        self.chance = random.Random(seed)
        self.lost_calls = lost_calls
        self.lost_answers = lost_answers

    async def _call(self, name: str, *args: Any, **fields: Any) -> Any:
        await asyncio.sleep(self.chance.uniform(0, 0.002))
        if self.chance.random() < self.lost_calls:
            raise StoreUnavailable("lost")
        answer = await super()._call(name, *args, **fields)
        await asyncio.sleep(self.chance.uniform(0, 0.002))
        if self.chance.random() < self.lost_answers:
            raise StoreUnavailable("lost")
        return answer


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("losses", [0.0, 0.05])
async def test_no_session_is_lost(
    make_config: Callable[..., LogtoConfig],
    clock: Any,
    make_session: Make,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    losses: float,
) -> None:
    """Whatever the network loses, no spent token is used again, and in the end all know the newest state."""
    monkeypatch.setattr("logto_asgi.session.turns._LATER", 0.01)
    monkeypatch.setattr("logto_asgi.session.turns._PAUSES", (0.001, 0.005))
    monkeypatch.setattr("logto_asgi.session.turns._UNMARKED", 0.05)
    monkeypatch.setattr("logto_asgi.session.unsaved._LONGEST_PAUSE", 0.1)
    session = make_session(refresh_token="token 0")
    issuer = StrictIssuer("token 0")
    store = BadNetwork(seed, lost_calls=0, lost_answers=0)
    events = Events()
    backends = [StoreBackend(make_config(), store, clock=clock, events=events) for _ in range(4)]
    for backend in backends:
        backend._store._pause = 0.005
    await backends[0].start(session)
    store.lost_calls = store.lost_answers = losses

    async def request(backend: StoreBackend) -> None:
        while True:
            try:
                return await refresh(backend, issuer, session)
            except (StoreUnavailable, IssuerUnavailable, Overtaken):
                await asyncio.sleep(random.uniform(0, 0.01))

    async with asyncio.timeout(60):
        await asyncio.gather(*(request(backend) for backend in backends for _ in range(3)))
        store.lost_calls = store.lost_answers = 0.0
        await asyncio.gather(*(backend.aclose() for backend in backends))
    assert issuer.reused == 0
    assert issuer.refreshes >= 12
    newest = await StoreBackend(make_config(), store, clock=clock).current(session)
    assert newest is not None
    assert newest.refresh_token == issuer.valid
    for name in ("save.lost", "refresh.interrupted", "refresh.lost"):
        assert name not in events.counts
    counts = events.counts
    assert counts.get("save.deferred", 0) >= counts.get("save.recovered", 0)


@pytest.mark.parametrize("seed", range(10))
async def test_a_session_ended_in_the_middle_stays_ended(
    make_config: Callable[..., LogtoConfig],
    clock: Any,
    make_session: Make,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    """Whenever a session is ended among refreshes, afterwards nobody refreshes it and nothing is left of it."""
    monkeypatch.setattr("logto_asgi.session.turns._PAUSES", (0.001, 0.005))
    session = make_session(refresh_token="token 0")
    issuer = StrictIssuer("token 0")
    store = BadNetwork(seed, lost_calls=0, lost_answers=0)
    backends = [StoreBackend(make_config(), store, clock=clock) for _ in range(4)]
    await backends[0].start(session)

    async def work(backend: StoreBackend) -> None:
        with pytest.raises((SessionEnded, AssertionError)):
            while True:
                with contextlib.suppress(Overtaken):
                    await refresh(backend, issuer, session)

    working = [asyncio.create_task(work(backend)) for backend in backends]
    await asyncio.sleep(0.003 * seed)
    ended = await backends[seed % 4].end(session)
    refreshes = issuer.refreshes
    await asyncio.gather(*working)
    assert issuer.refreshes <= refreshes + 1
    assert ended.refresh_token is not None
    for backend in backends:
        assert await backend.current(session) is None

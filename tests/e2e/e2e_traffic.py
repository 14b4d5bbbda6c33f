"""Guests who keep asking while something happens to the store, and what became of their sessions. Knows no store."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Self

from e2e_load import Crowd, Guest, Tally
from e2e_workers import Workers

PATIENCE = 90
"""Seconds for anything that must happen at last."""
PAUSES = (0.1, 0.4)
"""Seconds between two requests of a guest."""


class Traffic:
    """`async with Traffic(crowd, guests, workers) as traffic:` keeps all guests asking for a token until it ends."""

    def __init__(self, crowd: Crowd, guests: list[Guest], workers: Workers, *, path: str = "/token/shop") -> None:
        self._crowd = crowd
        self._guests = guests
        self._workers = workers
        self._path = path
        self._running = True
        self._tasks: list[asyncio.Task[None]] = []
        self._visits = [0] * len(guests)
        self._recent: deque[int] = deque(maxlen=2 * len(guests))
        self.tally = Tally()
        self.signed_out: list[Guest] = []
        self.slowest_refusal = 0.0
        """Seconds that the slowest 503 took."""
        self.last_trouble = time.monotonic()
        """When the last answer came that was no 200."""

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._visit(number)) for number in range(len(self._guests))]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._running = False
        await asyncio.gather(*self._tasks)

    async def _visit(self, number: int) -> None:
        guest, chance = self._guests[number], random.Random(number)
        while self._running:
            url = chance.choice(self._workers.urls)
            began = time.monotonic()
            answer = await self._crowd.note(self.tally, guest, self._path, url=url)
            self._visits[number] += 1
            self._note(0 if answer is None else answer.status_code, time.monotonic() - began)
            if answer is not None and answer.status_code == 401:
                self.signed_out.append(guest)
                return
            await asyncio.sleep(chance.uniform(*PAUSES))

    def _note(self, status: int, seconds: float) -> None:
        self._recent.append(status)
        if status != 200:
            self.last_trouble = time.monotonic()
        if status == 503:
            self.slowest_refusal = max(self.slowest_refusal, seconds)

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Go on until something is so."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while not condition():
                    await asyncio.sleep(0.02)
                return
        raise AssertionError(f"{what} did not happen within {PATIENCE} s: {self.tally}")

    async def more(self, count: int, status: int = 200) -> None:
        """Go on until so many more answers of a status came."""
        wanted = self.tally.statuses[status] + count
        await self.until(lambda: self.tally.statuses[status] >= wanted, f"{count} more answers of {status}")

    async def every_guest_again(self) -> None:
        """Go on until every guest has begun and finished two more visits."""
        wanted = [count + 2 for count in self._visits]
        await self.until(
            lambda: all(count >= goal for count, goal in zip(self._visits, wanted, strict=True)), "a visit of everybody"
        )

    async def recovered(self) -> None:
        """Go on until every guest, on average, was answered twice in a row, with a token or a request to sign in."""
        self._recent.clear()
        await self.until(self._is_calm, "recovery")

    def _is_calm(self) -> bool:
        if len(self.signed_out) == len(self._guests):
            return True
        return len(self._recent) == self._recent.maxlen and set(self._recent) <= {200, 401}


async def count_lost(crowd: Crowd, guests: list[Guest], *, url: str | None = None) -> int:
    """Return how many guests have lost their session. Whoever has can sign in again."""
    lost = 0
    for guest in guests:
        answer = await _settled(crowd, guest, url)
        if answer.status_code == 200:
            continue
        assert answer.status_code == 401, answer.text
        lost += 1
        await crowd.sign_in_again(guest)
        assert (await crowd.ask(guest, "/token/shop", at=url)).status_code == 200
    return lost


async def _settled(crowd: Crowd, guest: Guest, url: str | None) -> Any:
    """Ask until the answer is no 503."""
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = await crowd.ask(guest, "/token/shop", at=url)
            if answer.status_code != 503:
                return answer
            await asyncio.sleep(0.1)

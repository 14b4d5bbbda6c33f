"""How processes take turns at refreshing a session that lies in a store they share. Knows no issuer.

Whoever refreshes holds a lock, and marks the session before the request leaves: the lock frees itself when its process
is killed, the mark stays and tells that an answer may have been lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from logto_asgi.errors import IssuerUnavailable, SessionEnded, StoreUnavailable
from logto_asgi.models import Session
from logto_asgi.session.in_store.ending import Ending
from logto_asgi.session.in_store.keeper import Keeper
from logto_asgi.session.in_store.known import Gone, Held
from logto_asgi.session.in_store.records import key_of
from logto_asgi.session.in_store.turn import StoreTurn

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig
    from logto_asgi.events import Events

__all__ = ["Turns"]

_MARGIN = 4.0
"""Seconds that a lock outlives the deadline of a refresh: two calls of the store, and some."""
_PAUSES = (0.03, 0.09)
"""Seconds between two looks at a session that somebody else refreshes: between these, by chance."""
_LATER = 0.3
"""Seconds between tries to release a lock while the store is away."""
_UNMARKED = 3.0
"""Seconds after which a lock counts for nothing whose holder does nothing: the answer that gave it may have been lost.

That is safe: of two who mark the same revision one is told that he was overtaken.
"""
_SETTLING = 3.0
"""Seconds that a store is back before an interrupted refresh is repeated: its process may yet save the answer."""


class Turns:
    """Lets one refresh per session happen at a time, in all processes that share a store.

    `clock` gives seconds since 1970; `between` a number between two by chance, which spreads load and guards nothing.
    """

    def __init__(
        self,
        config: LogtoConfig,
        keeper: Keeper,
        ending: Ending,
        events: Events,
        *,
        clock: Callable[[], float],
        between: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._between = between
        self._keeper = keeper
        self._ending = ending
        self._events = events
        self._clock = clock
        self._ttl = config.http_timeout + _MARGIN
        self._patience = (len(config.resources) + 1) * self._ttl + _MARGIN
        self._unlocking: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def take(self, session: Session, enough: Callable[[Session], bool]) -> AsyncIterator[StoreTurn]:
        """Wait until nobody else refreshes the session, or until a newer state of it is `enough`.

        Raise `SessionEnded`, `StoreUnavailable`, and `IssuerUnavailable` when it takes too long.
        """
        key = key_of(session.id)
        held, lock = await self._wait(key, enough)
        turn = StoreTurn(self._keeper, self._ending, self._events, self._clock, held)
        try:
            yield turn
        finally:
            try:
                await turn.leave()
            finally:
                if lock is not None:
                    await self._release(key, lock)

    async def aclose(self) -> None:
        """Wait a moment for locks of this event loop that are being released; the others end by themselves."""
        loop = asyncio.get_running_loop()
        tasks = [task for task in list(self._unlocking) if task.get_loop() is loop]
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=2 * _LATER)
            for task in pending:
                task.cancel()

    async def _wait(self, key: str, enough: Callable[[Session], bool]) -> tuple[Held, str | None]:
        """Return the session, and the token of its lock; no token where its newest state is enough."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        unmarked, since = 0, 0.0
        while loop.time() < deadline:
            held = await self._look(key)
            if enough(held.live.session):
                return held, None
            taken = self._is_taken(held)
            lock = None if taken else await self._lock(key)
            if lock is not None:
                held, is_mine = await self._look_again(key, lock, enough)
                if is_mine or enough(held.live.session):
                    return held, lock if is_mine else None
            elif taken or unmarked != held.revision:
                unmarked, since = 0 if taken else held.revision, loop.time()
            elif loop.time() - since > _UNMARKED:
                return held, None
            await asyncio.sleep(self._between(*_PAUSES))
        raise IssuerUnavailable("Another process is refreshing this session for too long. Try again in a moment.")

    async def _look_again(self, key: str, lock: str, enough: Callable[[Session], bool]) -> tuple[Held, bool]:
        """Read the session under the lock. Return whether there is something to do; if not, the lock is free again."""
        is_mine = False
        try:
            held = await self._look(key)
            is_mine = not self._is_taken(held) and not enough(held.live.session)
        finally:
            if not is_mine:
                await self._release(key, lock)
        return held, is_mine

    async def _look(self, key: str) -> Held:
        found = await self._keeper.look(key, touch=False)
        if isinstance(found, Gone):
            raise SessionEnded("This session has ended. Sign in again.")
        return found

    def _is_taken(self, held: Held) -> bool:
        """Tell whether somebody's request to the issuer is under way, or its answer may still come in."""
        mark = held.live.mark
        if mark is None or mark.over:
            return False
        if mark.at - self._ttl <= self._clock() <= mark.at + self._ttl:
            return True
        return self._keeper.store.was_away(within=_SETTLING)

    async def _lock(self, key: str) -> str | None:
        """Take the lock. Whoever is cancelled meanwhile gives it back, as soon as it is known whether it was got."""
        task = asyncio.get_running_loop().create_task(self._keeper.store.lock(key, ttl=self._ttl))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._spawn(self._give_back(key, task))
            raise

    async def _give_back(self, key: str, locking: asyncio.Task[str | None]) -> None:
        with contextlib.suppress(StoreUnavailable):
            lock = await locking
            if lock is not None:
                await self._unlock(key, lock)

    async def _release(self, key: str, lock: str) -> None:
        """Release a lock, also where the caller is cancelled once more; where the store is away, a little later."""
        await asyncio.shield(self._spawn(self._unlock(key, lock)))

    async def _unlock(self, key: str, lock: str) -> None:
        try:
            await self._keeper.store.unlock(key, lock)
        except StoreUnavailable:
            self._spawn(self._unlock_later(key, lock))

    async def _unlock_later(self, key: str, lock: str) -> None:
        """Try until the lock has come to its own end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._ttl):
                while True:
                    await asyncio.sleep(_LATER)
                    with contextlib.suppress(StoreUnavailable):
                        return await self._keeper.store.unlock(key, lock)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name="logto_asgi unlock")
        self._unlocking.add(task)
        task.add_done_callback(self._unlocking.discard)
        return task

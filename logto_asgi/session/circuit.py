"""A guard around a store: bounds each call, turns whatever fails into our errors, and fails fast while it is away.

Knows nothing of what is stored.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from logto_asgi.errors import ConfigurationError, SetupError, StoreFull, StoreUnavailable
from logto_asgi.session.stores import SessionStore, StoredSession, Touch

if TYPE_CHECKING:
    from logto_asgi.events import Events

__all__ = ["GuardedStore"]

logger = logging.getLogger("logto_asgi")

_T = TypeVar("_T")

_LOOKS = 20
_BETWEEN_LOOKS = 0.01
"""Seconds: together a fifth of one for which a call waits for another that tries whether the store is back."""

_AWAY = "The session store does not answer. Nobody is signed out; try again in a moment."


class GuardedStore:
    """A store whose calls end within `bound` seconds, in an answer, `StoreUnavailable` or `StoreFull`.

    After a failure, calls fail at once for `pause` seconds. Then one of them tries; the others wait a moment for its
    answer and go on failing where it has none. `clock` is a monotonic one, in seconds. Safe to use from several event
    loops and threads.
    """

    def __init__(
        self,
        store: SessionStore,
        events: Events,
        *,
        bound: float = 2.0,
        pause: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._events = events
        self._bound = bound
        self._pause = pause
        self._clock = clock
        self._lock = threading.Lock()
        self._down_since: float | None = None
        self._closed_until = 0.0
        self._is_probing = False
        self._back_at = float("-inf")

    def __repr__(self) -> str:
        return f"<GuardedStore {'away' if self._down_since is not None else 'up'}>"

    def was_away(self, *, within: float) -> bool:
        """Tell whether the store is away, or was within the last seconds, as far as this process has seen."""
        return self._down_since is not None or self._clock() - self._back_at < within

    async def get(self, key: str, *, now: int, touch: Touch | None = None) -> StoredSession | None:
        """Return what the store holds under a key."""
        return await self._call(lambda: self._store.get(key, now=now, touch=touch))

    async def set(
        self,
        key: str,
        value: str,
        *,
        now: int,
        idle: int,
        ends_at: int,
        revision: int | None = None,
        index: Sequence[str] = (),
    ) -> int | None:
        """Create a value, or replace the one of this revision."""
        return await self._call(
            lambda: self._store.set(key, value, now=now, idle=idle, ends_at=ends_at, revision=revision, index=index)
        )

    async def delete(self, key: str, *, index: Sequence[str] = ()) -> None:
        """Remove what lies under a key."""
        await self._call(lambda: self._store.delete(key, index=index))

    async def lock(self, key: str, *, ttl: float) -> str | None:
        """Take the lock of a key. Return its token, None when it is taken."""
        return await self._call(lambda: self._store.lock(key, ttl=ttl))

    async def unlock(self, key: str, token: str) -> None:
        """Free a lock."""
        await self._call(lambda: self._store.unlock(key, token))

    async def find(self, index: str) -> list[str]:
        """Return the keys noted under a name."""
        return await self._call(lambda: self._store.find(index))

    async def check(self) -> list[str]:
        """Return what to warn of at start-up."""
        return await self._call(self._store.check)

    async def aclose(self) -> None:
        """Close the store's part of this event loop. What fails then is logged: nobody could do anything about it."""
        try:
            async with asyncio.timeout(self._bound):
                await self._store.aclose()
        except Exception as error:  # noqa: BLE001 - a store of somebody else's, at shutdown
            logger.warning("the session store could not be closed: %s", type(error).__name__)

    async def _call(self, start: Callable[[], Awaitable[_T]]) -> _T:
        probing = await self._admitted()
        try:
            return await self._attempt(start)
        finally:
            if probing:
                self._is_probing = False  # Also where the caller was cancelled: the next one tries.

    async def _attempt(self, start: Callable[[], Awaitable[_T]]) -> _T:
        try:
            async with asyncio.timeout(self._bound):
                answer = await start()
        except StoreFull:
            self._answered()
            raise
        except (ConfigurationError, SetupError):
            raise
        except StoreUnavailable:
            self._failed("it says so")
            raise
        except TimeoutError:
            self._failed(f"no answer within {self._bound:g} s")
        except Exception as error:  # noqa: BLE001 - a store of somebody else's may raise anything
            self._failed(type(error).__name__)
        else:
            self._answered()
            return answer
        # Outside of `except`, so that nothing is chained: what failed may name an address or a password.
        raise StoreUnavailable(_AWAY)

    async def _admitted(self) -> bool:
        """Let a call through, True for the one that tries whether the store is back. Raise `StoreUnavailable`.

        Whoever comes while that one tries waits a moment: a store that is back answers at once, and a burst of
        requests after an outage need not fail for all but one.
        """
        for _ in range(_LOOKS):
            admitted = self._admit()
            if admitted is not None:
                return admitted
            await asyncio.sleep(_BETWEEN_LOOKS)
        raise StoreUnavailable(_AWAY)

    def _admit(self) -> bool | None:
        """Return None while another call tries whether the store is back."""
        with self._lock:
            if self._down_since is None:
                return False
            if self._is_probing:
                return None
            if self._clock() < self._closed_until:
                raise StoreUnavailable(_AWAY)
            self._is_probing = True
            return True

    def _failed(self, word: str) -> None:
        now = self._clock()
        with self._lock:
            self._closed_until = now + self._pause
            first = self._down_since is None
            if first:
                self._down_since = now
        if first:
            self._events.note(
                "store.down",
                f"the session store is away ({word}): whoever reads the user gets 503 until it is back, and nobody is "
                "signed out. Check that it runs, its address, and the network between.",
                level=logging.WARNING,
            )

    def _answered(self) -> None:
        if self._down_since is None:
            return
        with self._lock:
            down_since, self._down_since = self._down_since, None
            self._back_at = self._clock()
        if down_since is not None:
            seconds = round(self._back_at - down_since, 1)
            self._events.note("store.back", f"the session store is back after {seconds:g} s", seconds=seconds)

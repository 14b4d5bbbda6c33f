"""A guard around a store: bounds each call, turns whatever fails into our errors, and fails fast while it is away.

Knows nothing of what is stored.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

from logto_asgi.errors import ConfigurationError, SetupError, StoreFull, StoreUnavailable
from logto_asgi.session.in_store.loop_watch import LoopWatch
from logto_asgi.session.stores import SessionStore, StoredSession, Touch

if TYPE_CHECKING:
    from logto_asgi.events import Events

__all__ = ["GuardedStore"]

logger = logging.getLogger("logto_asgi")

_T = TypeVar("_T")

_BOUND = 2.0
"""Seconds that a call may take."""
_PAUSE = 0.5
"""Seconds for which a store that is away is not asked."""
_ROOM = 0.5
"""Seconds that a store with a time-out of its own has to say so."""
_TIMEOUTS = 3
"""Calls in a row without an answer in time from which on the store counts as away. One may be a single slow row."""
_COMPLAINT_KEPT = 60
"""Seconds for which a line that may come with every request is not logged again."""
_MAX_COMPLAINTS = 100
_AT_ONCE = 40
"""Calls of one event loop under way; fewer than the connections of a `RedisStore`, so that none waits for one."""
_LOOKS = 20
_BETWEEN_LOOKS = 0.01
"""Seconds: together a fifth of one for which a call waits for another that tries whether the store is back."""

_AWAY = "The session store does not answer. Nobody is signed out; try again in a moment."
_BLOCKED = (
    "the event loop was blocked for %.1f s while the session store was asked, and asks it again: something in an async "
    "function does not await, such as time.sleep or a synchronous client, and holds up everybody"
)


class GuardedStore:
    """A store whose calls end within a bound, in an answer, `StoreUnavailable` or `StoreFull`.

    The bound is 2 seconds. A store that says in an attribute `timeout` how many seconds it may take itself gets half a
    second more than that, where this is longer. Time in which the event loop was blocked is not the store's: such a
    call is made once more, so every call of a store must be one that can be repeated.

    After a failure, calls fail at once for `pause` seconds. Then one of them tries; the others wait a moment for its
    answer and go on failing where it has none. A failure is `StoreUnavailable`, an `OSError`, or the third time-out in
    a row; any other exception is an error of the store's code, and fails this one call. `clock` is a monotonic one, in
    seconds. Safe to use from several event loops and threads.
    """

    def __init__(
        self,
        store: SessionStore,
        events: Events,
        *,
        bound: float | None = None,
        pause: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._events = events
        self._bound = _bound_of(store) if bound is None else bound
        self._pause = _PAUSE if pause is None else pause
        self._clock = clock
        self._lock = threading.Lock()
        self._gates: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
        self._down_since: float | None = None
        self._closed_until = 0.0
        self._is_probing = False
        self._timeouts = 0
        """Since the last answer."""
        self._troubled_at = float("-inf")
        self._complaints: dict[str, float] = {}
        """When a line was logged last that may come with every request."""

    def __repr__(self) -> str:
        return f"<GuardedStore {'away' if self._down_since is not None else 'up'}>"

    def was_away(self, *, within: float) -> bool:
        """Tell whether the store is away, or was within the last seconds, as far as this process has seen."""
        is_away = self._down_since is not None or self._timeouts > 0
        return is_away or self._clock() - self._troubled_at < within

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
        async with self._gate():
            probing = await self._admitted()
            try:
                return await self._attempt(start)
            finally:
                if probing:
                    self._is_probing = False  # Also where the caller was cancelled: the next one tries.

    def _gate(self) -> asyncio.Semaphore:
        """Return what lets so many calls of this event loop through: to wait here says nothing of the store."""
        loop = asyncio.get_running_loop()
        gate = self._gates.get(loop)
        if gate is None:
            gate = self._gates[loop] = asyncio.Semaphore(_AT_ONCE)
        return gate

    async def _attempt(self, start: Callable[[], Awaitable[_T]]) -> _T:
        for is_last in (False, True):
            watch = LoopWatch()
            try:
                with watch:
                    async with asyncio.timeout(self._bound):
                        answer = await start()
            except StoreFull:
                self._answered()
                raise
            except (ConfigurationError, SetupError):
                raise
            except (StoreUnavailable, OSError) as error:
                if watch.blocked and not is_last:
                    if self._is_new(_BLOCKED):
                        logger.warning(_BLOCKED, watch.blocked)
                    continue
                self._failed(error)
                if isinstance(error, StoreUnavailable):
                    raise
            except Exception as error:  # noqa: BLE001 - a store of somebody else's may raise anything
                self._complain(error)
            else:
                self._answered()
                return answer
            break
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

    def _failed(self, error: Exception) -> None:
        """Count the store as away: at once, but for the first time-outs."""
        word = "it says so" if isinstance(error, StoreUnavailable) else type(error).__name__
        if isinstance(error, TimeoutError):
            word = f"no answer within {self._bound:g} s"
            if self._is_only_late():
                logger.warning("the session store: %s", word)
                return
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

    def _is_only_late(self) -> bool:
        """Count a time-out, and tell whether the store does not count as away for it."""
        with self._lock:
            self._timeouts += 1
            self._troubled_at = self._clock()
            return self._down_since is None and self._timeouts < _TIMEOUTS

    def _complain(self, error: Exception) -> None:
        """Log where an error comes from that no store should raise, without its text, which may quote a password."""
        text = f"{type(error).__name__}. It was raised in:\n{''.join(traceback.format_tb(error.__traceback__))}"
        if self._is_new(text):
            logger.error("the session store raised an error that fails this call: %s", text)

    def _is_new(self, complaint: str) -> bool:
        """Tell whether a line was not logged within the last minute, and count it as logged."""
        now = self._clock()
        if now - self._complaints.get(complaint, float("-inf")) < _COMPLAINT_KEPT:
            return False
        if len(self._complaints) >= _MAX_COMPLAINTS:
            self._complaints = {}
        self._complaints[complaint] = now
        return True

    def _answered(self) -> None:
        self._timeouts = 0
        if self._down_since is None:
            return
        with self._lock:
            down_since, self._down_since = self._down_since, None
            self._troubled_at = self._clock()
        if down_since is not None:
            seconds = round(self._troubled_at - down_since, 1)
            self._events.note("store.back", f"the session store is back after {seconds:g} s", seconds=seconds)


def _bound_of(store: SessionStore) -> float:
    own = getattr(store, "timeout", None)
    if isinstance(own, (int, float)) and math.isfinite(own):
        return max(_BOUND, own + _ROOM)
    return _BOUND

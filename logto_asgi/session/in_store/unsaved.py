"""Sessions that could not be saved because their store was away: kept, and tried again. Knows no store and no key.

What they hold cannot be had a second time, because the issuer has spent the token that it was given for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from logto_asgi.errors import LogtoError
from logto_asgi.models import Session
from logto_asgi.session.in_store.changes import Change
from logto_asgi.session.in_store.known import Gone, Held

if TYPE_CHECKING:
    from logto_asgi.events import Events

__all__ = ["Unsaved"]

logger = logging.getLogger("logto_asgi")

_MAX_KEPT = 10_000
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0
"""Seconds between tries."""
_AT_ONCE = 32


@dataclass(slots=True)
class _Kept:
    change: Change
    loop: asyncio.AbstractEventLoop
    counts: bool
    """Whether a state would be lost, and not just a mark left behind."""


class Unsaved:
    """Changes by key, at most 10,000, written by a task of each event loop until that succeeds or nobody wants them.

    `write` writes one, tells `saved`, and returns what lies there then; `ends_at` says until when one may be wanted.
    `revoke` revokes a refresh token whose session has ended meanwhile, and does not fail. `clock` gives seconds since
    1970. Safe to use from several threads.
    """

    def __init__(
        self,
        write: Callable[[Change], Awaitable[Held | Gone]],
        ends_at: Callable[[Session], int],
        events: Events,
        *,
        clock: Callable[[], float],
        revoke: Callable[[str], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._write = write
        self._ends_at = ends_at
        self._events = events
        self._clock = clock
        self._revoke = revoke
        self._revoking: set[asyncio.Task[None]] = set()
        self._kept: dict[str, _Kept] = {}
        self._lock = threading.Lock()
        self._tasks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[None]] = WeakKeyDictionary()

    def __len__(self) -> int:
        return len(self._kept)

    def __repr__(self) -> str:
        return f"<Unsaved {len(self._kept)}>"

    def get(self, key: str) -> Change | None:
        """Return what waits to be written under a key."""
        kept = self._kept.get(key)
        return None if kept is None else kept.change

    def keep(self, change: Change, *, counts: bool = True) -> None:
        """Write a change as soon as possible, instead of an earlier one under its key.

        `counts`: it holds a state, and is not just the removal of a mark.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            before = self._kept.pop(change.key, None)
            self._kept[change.key] = _Kept(change, loop, counts or (before is not None and before.counts))
            surplus = [next(iter(self._kept))] if len(self._kept) > _MAX_KEPT else []
        for key in surplus:
            self._give_up(key)
        if counts and (before is None or not before.counts):
            self._events.note(
                "save.deferred",
                "the session store did not take a session whose token was refreshed: kept here, and tried again",
                level=logging.WARNING,
            )
        task = self._tasks.get(loop)
        if task is None or task.done():
            self._tasks[loop] = loop.create_task(self._run(loop), name="logto_asgi unsaved sessions")

    def drop(self, key: str) -> None:
        """Forget what waits under a key: nobody wants it any more."""
        with self._lock:
            self._kept.pop(key, None)

    def saved(self, change: Change) -> None:
        """Note that a change was written: what waits under its key, if it is no later one, need not wait any more."""
        with self._lock:
            kept = self._kept.get(change.key)
            if kept is None or kept.change.live.session.version > change.live.session.version:
                return
            del self._kept[change.key]
        if kept.counts:
            self._events.note("save.recovered", "a session that was kept while the store was away is saved")

    async def aclose(self, timeout: float) -> None:  # noqa: ASYNC109 - what is left is given up
        """Try for up to `timeout` seconds more what waits on this event loop, then give it up."""
        loop = asyncio.get_running_loop()
        task = self._tasks.pop(loop, None)
        if task is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await asyncio.wait([task])
                await asyncio.gather(*(each for each in self._revoking if each.get_loop() is loop))
        task.cancel()
        lost = sum(self._give_up(key) for key in self._of(loop))
        if lost:
            logger.error(
                "%d refreshed sessions could not be saved before this process stopped: their users will be asked to "
                "sign in again. Start the session store first, and stop it last.",
                lost,
            )

    def _of(self, loop: asyncio.AbstractEventLoop) -> list[str]:
        """Return the keys that a loop takes care of: its own, and those of loops that are gone."""
        with self._lock:
            return [key for key, kept in self._kept.items() if kept.loop is loop or kept.loop.is_closed()]

    async def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        pause = _FIRST_PAUSE
        while keys := self._of(loop):
            await asyncio.sleep(pause)
            is_back = True
            for start in range(0, len(keys), _AT_ONCE):
                results = await asyncio.gather(*(self._try(key) for key in keys[start : start + _AT_ONCE]))
                is_back = is_back and all(results)
                if not is_back:
                    break
            pause = _FIRST_PAUSE if is_back else min(2 * pause, _LONGEST_PAUSE)

    async def _try(self, key: str) -> bool:
        """Write what waits under a key. Return False while the store is away."""
        kept = self._kept.get(key)
        if kept is None:
            return True
        if self._clock() >= self._ends_at(kept.change.live.session):
            self._give_up(key)
            return True
        try:
            found = await self._write(kept.change)
        except LogtoError:
            return False
        if self._kept.get(key) is not kept:
            return True  # It is saved, or a later state has taken its place.
        self.drop(key)
        if kept.counts and isinstance(found, Gone):
            self._discard(kept.change.live.session, found)
        elif kept.counts:
            self._events.note(
                "save.overtaken",
                "a session that was kept was not saved: somebody else has saved a newer state",
                level=logging.WARNING,
            )
        return True

    def _discard(self, session: Session, found: Gone) -> None:
        """Have the refresh token revoked that nobody holds now; other sessions do not wait for that."""
        self._events.note(
            "refresh.discarded", "a refreshed session is thrown away: it ended while it waited to be saved"
        )
        if self._revoke is None or session.refresh_token is None or not found.revocable:
            return
        task = asyncio.create_task(self._revoke(session.refresh_token), name="logto_asgi revocation")
        self._revoking.add(task)
        task.add_done_callback(self._revoking.discard)

    def _give_up(self, key: str) -> bool:
        """Forget a change for good. Return whether a state is lost with it."""
        with self._lock:
            kept = self._kept.pop(key, None)
        if kept is None or not kept.counts:
            return False
        self._events.note("save.lost")
        return True

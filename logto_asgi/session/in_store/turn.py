"""`StoreTurn`: what one refresh may do with a session in a store, while nobody else refreshes it. Knows no issuer.

The session is marked before the request leaves, and saved by compare-and-set: a holder that was paused for too long
does not write over something newer.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from logto_asgi.errors import StoreUnavailable
from logto_asgi.models import Session
from logto_asgi.session.backend import Overtaken, Saved
from logto_asgi.session.in_store.ending import Ending
from logto_asgi.session.in_store.keeper import Keeper
from logto_asgi.session.in_store.known import Gone, Held
from logto_asgi.session.in_store.records import Mark, key_of

if TYPE_CHECKING:
    from logto_asgi.events import Events
    from logto_asgi.session.in_store.changes import Change

__all__ = ["StoreTurn"]

logger = logging.getLogger("logto_asgi")

_REFUSED = "session ended: the issuer refused its refresh token (invalid_grant)"


class StoreTurn:
    """One refresh's view of a session. `clock` gives seconds since 1970."""

    session: Session
    revocable: bool

    def __init__(self, keeper: Keeper, ending: Ending, events: Events, clock: Callable[[], float], held: Held) -> None:
        self._keeper = keeper
        self._ending = ending
        self._events = events
        self._clock = clock
        self._held = held
        """What lies in the store, as far as this turn knows: the base of its next write."""
        self._doubt = held.live.mark
        """The mark of an earlier refresh whose answer nobody saw."""
        self._mark: Mark | None = None
        """Ours, while a request is under way."""
        self._departed = False
        """Whether this turn asked the issuer for something: from then on what it saves must not be lost."""
        self._overtaken = False
        self.session = held.live.session
        self.revocable = True

    def __repr__(self) -> str:
        return f"<StoreTurn {self.session!r}>"

    async def depart(self) -> None:
        """Mark the session before a request leaves. Raise `Overtaken`, `StoreUnavailable` or `StoreFull`."""
        if self._held.live.mark != self._doubt:
            raise Overtaken  # Somebody else's request is under way.
        mark = Mark(int(self._clock()), secrets.token_hex(16))
        change = self._keeper.change(self._held, self._held.live.session, mark=mark)
        try:
            found = await self._keeper.write(change, once=True)
        except (StoreUnavailable, asyncio.CancelledError):
            # The mark may have arrived, though nothing leaves now: it must not keep others waiting.
            undone = self._unmarked(self._doubt)
            self._later(replace(undone, tried=(*undone.tried, change.value)))
            raise
        if isinstance(found, Gone) or found.value != change.value:
            raise Overtaken
        self._held, self._mark, self._departed = found, mark, True
        if self._doubt is not None:
            self._events.note(
                "refresh.interrupted",
                "an earlier refresh of this session was interrupted, its answer may be lost: trying once more",
            )

    async def save(self, session: Session, *, spent: str | None) -> Saved:
        """Keep a successor, and take the mark away.

        Where somebody else has saved a newer state, `session` is that one. Raise `Overtaken` for this before `depart`,
        and `StoreUnavailable` only then.
        """
        if self._overtaken:
            return Saved.OVERTAKEN  # What it builds on was not kept either.
        change = self._keeper.change(self._held, session)
        try:
            found = await self._keeper.write(change)
        except (StoreUnavailable, asyncio.CancelledError) as error:
            if not self._departed:
                raise
            self._keeper.unsaved.keep(change)
            if isinstance(error, asyncio.CancelledError):
                raise
            found = replace(self._held, live=change.live)
        if isinstance(found, Gone):
            self.revocable, self._mark = found.revocable, None
            return Saved.ENDED
        if found.live is not change.live:
            self._was_overtaken(found)
            return Saved.OVERTAKEN
        self._keep_to(found)
        return Saved.KEPT

    def _was_overtaken(self, found: Held) -> None:
        self._overtaken = True
        self.session = found.live.session
        if not self._departed:
            raise Overtaken
        self._mark = None
        self._keeper.unsaved.drop(key_of(self.session.id))
        self._events.note(
            "save.overtaken",
            "a refreshed session was not saved: another process has refreshed it since (this one was held up, or the "
            "store's answer was lost)",
            level=logging.WARNING,
        )

    def _keep_to(self, found: Held) -> None:
        self._held, self.session = found, found.live.session
        self._mark = self._doubt = None

    async def missed(self, *, processed: bool | None) -> None:
        """Note that the request brought nothing: take the mark away, or call it over where its answer may be lost.

        Never raises: where the store is away it is done later.
        """
        mark = self._mark
        if mark is None:
            return
        self._mark = None
        left = self._left_of(mark, processed)
        change = self._unmarked(left)
        try:
            found = await self._keeper.write(change)
        except (StoreUnavailable, asyncio.CancelledError) as error:
            self._later(change)
            if isinstance(error, asyncio.CancelledError):
                raise
            return
        self._doubt = left
        if isinstance(found, Held) and found.value == change.value:
            self._held = found

    async def reread(self) -> Session | None:
        """Return the newest state if somebody else has made one, else None. Raise `StoreUnavailable`."""
        found = await self._keeper.look(key_of(self.session.id), touch=False)
        if isinstance(found, Gone) or not self._is_newer(found):
            return None
        self._keep_to(found)
        mark = found.live.mark
        self._doubt = mark if mark is not None and mark.over else None
        return self.session

    async def end_refused(self) -> None:
        """End the session, whose refresh token the issuer refused, unless a newer state of it is known.

        Raise `StoreUnavailable`.
        """
        key = key_of(self.session.id)
        while True:
            found = await self._keeper.look(key, touch=False)
            if isinstance(found, Gone):
                self._mark = None
                return
            if self._is_newer(found):
                self.session, self._mark = found.live.session, None
                logger.info("refresh token refused (invalid_grant): an old copy, there is a newer one")
                return
            if await self._ending.bury(found.live.session, "ended", found.revision):
                self._keeper.forget(key, "ended")
                self._mark = None
                self._tell_of_end()
                return

    def _tell_of_end(self) -> None:
        if self._doubt is None:
            self._events.note("session.ended", _REFUSED, reason="invalid_grant")
            return
        self._events.note(
            "refresh.lost",
            "session ended: the issuer has spent its refresh token in an earlier refresh whose answer was never saved "
            "(no answer in time, a process killed, or a store that lost its last writes): the user must sign in again",
            level=logging.WARNING,
        )
        self._events.note("session.ended", reason="refresh_lost")

    async def leave(self) -> None:
        """Call a request over whose end this turn was never told."""
        if self._mark is not None:
            await self.missed(processed=None)

    def _is_newer(self, found: Held) -> bool:
        there, mine = found.live.session, self.session
        return there.version > mine.version or (
            there.version == mine.version and there.refresh_token != mine.refresh_token
        )

    def _left_of(self, mark: Mark, processed: bool | None) -> Mark | None:
        """Return the mark that a request leaves which brought nothing."""
        # 1. Nobody can know whether the issuer processed it: the next one finds out.
        if processed is None:
            return replace(mark, over=True)
        # 2. It answered, so the refresh token was good. 3. It never read it: what was unclear before still is.
        return None if processed else self._doubt

    def _unmarked(self, mark: Mark | None) -> Change:
        """Return the change that leaves another mark, or none, and the session as it is."""
        return self._keeper.change(self._held, self._held.live.session, mark=mark)

    def _later(self, change: Change) -> None:
        self._keeper.unsaved.keep(change, counts=False)

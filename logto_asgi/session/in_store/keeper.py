"""Sessions in a store as one process sees them: read, reconciled with what it knows, written. Knows no cookie.

Every write is a compare-and-set on the revision that was read.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from logto_asgi.errors import StoreUnavailable
from logto_asgi.models import Session
from logto_asgi.session.in_store.changes import Change
from logto_asgi.session.in_store.guarded import GuardedStore
from logto_asgi.session.in_store.index_names import IndexNames
from logto_asgi.session.in_store.known import Gone, Held, KnownStates
from logto_asgi.session.in_store.records import Live, Mark, Records, Tombstone, Unreadable, Word, key_of
from logto_asgi.session.in_store.unsaved import Unsaved
from logto_asgi.session.stores import StoredSession, Touch

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig
    from logto_asgi.events import Events

__all__ = ["Keeper"]

_TRIES = 8
"""Writes that lose against others before a store counts as unavailable for this session."""


class Keeper:
    """Reads and writes the sessions of one store. `clock` gives seconds since 1970."""

    def __init__(
        self,
        config: LogtoConfig,
        store: GuardedStore,
        events: Events,
        *,
        clock: Callable[[], float],
        revoke: Callable[[str], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self.store = store
        self.records = Records(config)
        self.known = KnownStates()
        self.unsaved = Unsaved(self.write, self.ends_at, events, clock=clock, revoke=revoke)
        secrets = [secret.get_secret_value() for secret in config.cookie_secrets]
        self.names = IndexNames(secrets, issuer=config.issuer, client_id=config.app_id)
        self._events = events
        self._clock = clock
        self._idle = int(config.idle_lifetime)
        self._absolute = int(config.absolute_lifetime)
        self._touch = Touch(idle=self._idle, interval=int(config.roll_interval))

    # -- Reading -------------------------------------------------------------------------------------------------------

    async def look(self, key: str, *, touch: bool) -> Held | Gone:
        """Return the newest state of a session. Raise `StoreUnavailable`.

        With `touch` it counts as used now. What this process knows and a store forgot is given back to the store.
        """
        found = self.known.ended(key, now=self._clock()) or await self.fetch(key, touch=touch)
        if isinstance(found, Gone):
            return found
        waiting = self.unsaved.get(key)
        if waiting is not None and waiting.is_newer_than(found):
            return replace(found, live=waiting.live)
        known = self.known.get(key)
        if known is not None and known.live.session.version > found.live.session.version:
            if found.live.saved_at <= known.live.saved_at:
                return await self._healed(key, found, known)
            self.known.drop(key)  # Set back, and somebody went on from there: that is what counts now.
        if touch and found.live.is_outdated and self._clock() - found.touched_at >= self._touch.interval:
            found = await self._sealed_anew(key, found)
        self._note(key, found)
        return found

    async def fetch(self, key: str, *, touch: bool = False) -> Held | Gone:
        """Return what lies in the store, whatever this process knows. Raise `StoreUnavailable`."""
        now = int(self._clock())
        stored = await self.store.get(key, now=now, touch=self._touch if touch else None)
        ended = self.known.ended(key, now=now)  # After the answer: it may have been on its way while this ended.
        if ended is not None:
            return ended
        if stored is None:
            self.known.absent(key, now=now)
            return self.known.gone(key, now=now)
        try:
            live = self._open(key, stored)
        except Unreadable as error:
            return await self._unreadable(key, error)
        if isinstance(live, Tombstone):
            self.known.end(key, live.word, now=now)
            return self.known.gone(key, now=now)
        held = Held(live, stored.value, stored.revision, stored.touched_at)
        if now >= min(stored.touched_at + self._idle, self.ends_at(live.session)):
            await self._remove(key, live.session)
            return Gone("expired", clear=True)
        return held

    def newest(self, session_id: str) -> Session | None:
        """Return the newest state that this process knows, without asking the store."""
        key = key_of(session_id)
        held, waiting = self.known.get(key), self.unsaved.get(key)
        if waiting is not None and (held is None or waiting.is_newer_than(held)):
            return waiting.live.session
        return None if held is None else held.live.session

    def recent(self, session_id: str, *, within: float) -> Session | None:
        """Return the newest state if the store was asked for it within the last seconds, and None else."""
        now = self._clock()
        if self.known.recent(key_of(session_id), since=now - within) is None:
            return None
        newest = self.newest(session_id)
        return newest if newest is not None and now < self.ends_at(newest) else None

    def ends_at(self, session: Session) -> int:
        """Return the absolute end of a session, in seconds since 1970."""
        return session.created_at + self._absolute

    def _open(self, key: str, stored: StoredSession) -> Live | Tombstone:
        known = self.known.get(key)
        if known is not None and known.value == stored.value:
            return known.live
        return self.records.open(key, stored.value)

    async def _unreadable(self, key: str, error: Unreadable) -> Gone:
        """Leave alone what may be a newer worker's, in the middle of a deploy; remove everything else."""
        if error.may_be_newer:
            return Gone(error.problem)
        self._events.note(
            "record.refused",
            f"a stored session does not open ({error.problem}) and is removed: its browser is anonymous from now on",
            level=logging.WARNING,
            problem=error.problem,
        )
        await self._remove(key, None)
        return Gone(error.problem, clear=True)

    async def _remove(self, key: str, session: Session | None) -> None:
        self.known.absent(key, now=self._clock())
        with contextlib.suppress(StoreUnavailable):  # It does not open next time either.
            await self.store.delete(key, index=self.names.of(session.claims) if session else ())

    def _note(self, key: str, held: Held) -> None:
        now = self._clock()
        session = held.live.session
        self.known.note(key, held, now=now, expires_at=min(now + self._idle, self.ends_at(session)))

    # -- Giving back ---------------------------------------------------------------------------------------------------

    async def _healed(self, key: str, found: Held, known: Held) -> Held:
        """Return the newer state that this process knows, and save it where the store has really lost it."""
        live = Live(known.live.session, known.live.saved_at)
        healed = await self._replaced(key, found, live)
        if healed is None:
            return known  # Mostly an answer that was under way while somebody saved.
        self._events.note(
            "store.healed",
            "the session store had an older state than was saved before (restored from a snapshot, or failed over): "
            "saved the newer one again",
            level=logging.WARNING,
        )
        self._note(key, healed)
        return healed

    async def _sealed_anew(self, key: str, found: Held) -> Held:
        """Seal under the first secret what an older one sealed, so that the older one can be removed in time."""
        return await self._replaced(key, found, replace(found.live, is_outdated=False)) or found

    async def _replaced(self, key: str, found: Held, live: Live) -> Held | None:
        """Replace what was found, noting it in the index again. Return None where that was not possible now."""
        value = self.records.seal_session(key, live.session, saved_at=live.saved_at, mark=live.mark)
        try:
            revision = await self._set(key, value, live.session, found.revision, index=True)
        except StoreUnavailable:
            return None
        return None if revision is None else Held(live, value, revision, int(self._clock()))

    # -- Writing -------------------------------------------------------------------------------------------------------

    async def create(self, session: Session) -> None:
        """Take up a new session. Raise `SessionTooLarge`, `StoreUnavailable` or `StoreFull`."""
        key = key_of(session.id)
        now = int(self._clock())
        live = Live(session, now)
        value = self.records.seal_session(key, session, saved_at=now)
        revision = await self._set(key, value, session, None, index=True)
        if revision is None:
            raise StoreUnavailable("The session store did not take the new session. Try again.")
        self._note(key, Held(live, value, revision, now))

    def change(self, base: Held, session: Session, *, mark: Mark | None = None) -> Change:
        """Return a change of `base` to another state, sealed. Raise `SessionTooLarge`."""
        key = key_of(session.id)
        saved_at = base.live.saved_at if session is base.live.session else int(self._clock())
        value = self.records.seal_session(key, session, saved_at=saved_at, mark=mark)
        return Change(key, Live(session, saved_at, mark), value, base).after(self.unsaved.get(key))

    async def write(self, change: Change, *, once: bool = False) -> Held | Gone:
        """Write a change if nobody has saved a state since its base. Raise `StoreUnavailable` or `StoreFull`.

        Return what lies there now: the change, something newer, or nothing. With `once`, any other revision stops it.
        """
        base = change.base
        for _ in range(_TRIES):
            session, index = change.live.session, change.must_note(base.live)
            revision = await self._set(change.key, change.value, session, base.revision, index=index)
            if revision is not None:
                held = Held(change.live, change.value, revision, int(self._clock()))
                self._note(change.key, held)
                self.unsaved.saved(change)
                return held
            found = await self.fetch(change.key)
            if isinstance(found, Gone) or once or not change.may_replace(found):
                return found
            base = found
        raise StoreUnavailable("The session is being changed too often at once. Try again in a moment.")

    def forget(self, key: str, word: Word) -> None:
        """Note that a session is over: this process serves no state of it any more."""
        self.known.end(key, word, now=self._clock())
        self.unsaved.drop(key)

    async def _set(
        self, key: str, value: str, session: Session, revision: int | None, *, index: bool = False
    ) -> int | None:
        return await self.store.set(
            key,
            value,
            now=int(self._clock()),
            idle=self._idle,
            ends_at=self.ends_at(session),
            revision=revision,
            index=self.names.of(session.claims) if index else (),
        )

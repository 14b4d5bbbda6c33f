"""How a session in a store ends: a tombstone takes its place for a moment. Knows no issuer and no cookie."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from logto_asgi.errors import StoreFull
from logto_asgi.models import Session
from logto_asgi.session.in_store.keeper import Keeper
from logto_asgi.session.in_store.records import Tombstone, Unreadable, Word, key_of

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig

__all__ = ["Ending"]

_TRIES = 20
"""Writes that lose against others before the session is deleted without a tombstone."""


class Ending:
    """Ends sessions. A refresh under way finds the tombstone, so that its answer is not saved.

    `clock` gives seconds since 1970.
    """

    def __init__(self, config: LogtoConfig, keeper: Keeper, *, clock: Callable[[], float]) -> None:
        self._keeper = keeper
        self._clock = clock
        self._tombstone_life = int(2 * config.http_timeout) + 60

    async def end(self, session: Session, word: Word) -> Session:
        """End a session, whatever state it is in. Return the newest that it had. Raise `StoreUnavailable`."""
        keeper, key = self._keeper, key_of(session.id)
        newest = _newer(session, keeper.newest(session.id) or session)
        for _ in range(_TRIES):
            stored = await keeper.store.get(key, now=int(self._clock()))
            if stored is None:
                break
            try:
                record = keeper.records.open(key, stored.value)
            except Unreadable:
                await keeper.store.delete(key)
                break
            if isinstance(record, Tombstone):
                break
            newest = _newer(newest, record.session)
            if await self.bury(newest, word, stored.revision):
                break
        else:
            await keeper.store.delete(key, index=keeper.names.of(newest.claims))
        keeper.forget(key, word)
        return newest

    async def left(self, key: str) -> Session | None:
        """Return the session that lies under a key although it may have ended. Raise `StoreUnavailable`."""
        stored = await self._keeper.store.get(key, now=int(self._clock()))
        if stored is None:
            return None
        try:
            record = self._keeper.records.open(key, stored.value)
        except Unreadable:
            return None
        return None if isinstance(record, Tombstone) else record.session

    async def bury(self, session: Session, word: Word, revision: int) -> bool:
        """Replace a session of this revision by a tombstone. Return False where it has another revision by now.

        A store that is full takes no tombstone; there it is deleted.
        """
        keeper, key = self._keeper, key_of(session.id)
        now = int(self._clock())
        ends_at = now + self._tombstone_life
        value = keeper.records.seal_tombstone(key, word)
        try:
            done = await keeper.store.set(
                key, value, now=now, idle=self._tombstone_life, ends_at=ends_at, revision=revision
            )
        except StoreFull:
            await keeper.store.delete(key, index=keeper.names.of(session.claims))
            return True
        return done is not None


def _newer(one: Session, other: Session) -> Session:
    return other if other.version > one.version else one

"""What a store of sessions must do, `SessionStore`, and one in this process's memory. Knows nothing of what it keeps.

A store holds opaque text under opaque keys. Whoever writes another: `logto_asgi.testing` has the tests that it must
pass.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from logto_asgi.session.siblings import warnings_of_siblings

__all__ = ["MemoryStore", "SessionStore", "StoredSession", "Touch"]

_log = logging.getLogger("logto_asgi")

_LOOKED_AT = 4
"""Entries that each write looks at, to forget those that have expired."""


@dataclass(frozen=True, slots=True)
class StoredSession:
    """What a store holds under a key."""

    value: str = field(repr=False)
    """Sealed text, never empty."""
    revision: int
    """1 when created, one more at each replacement."""
    touched_at: int
    """When it was last set or touched before this call, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Touch:
    """Note that a session is in use."""

    idle: int
    """Seconds that it lives from now on."""
    interval: int
    """Seconds. Where it was touched more recently than this, nothing is written."""


class SessionStore(Protocol):
    """Where sessions lie: text by key, each until its end, with locks and an index.

    Keys are lower-case hex of 64 characters, index names short ASCII: hashes, which say nothing of what they stand for.
    Values are ASCII text of up to 64 KiB. `now` and `ends_at` are seconds since 1970 by the app's clock, which decides
    what has expired; the store's own clock frees locks, ends entries of the index, and removes what nobody asks for.

    Every call ends within a bound of some seconds. One that cannot be answered raises `StoreUnavailable`, and a write
    that finds no room `StoreFull`; their messages name no secret. Every call may be repeated: its answer may be lost.
    A store is used from several tasks at once, perhaps on several event loops in several threads.
    """

    async def get(self, key: str, *, now: int, touch: Touch | None = None) -> StoredSession | None:
        """Return what lies under a key, None where nothing does or it has expired.

        With a `touch`, `touch.interval` seconds or more after the last one: note the time, and let it live until
        `touch.idle` seconds from now, no longer than its `ends_at`. That never brings back what is gone.
        One round trip, with or without: this is called at every request of a signed-in user.
        """
        ...

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
        """Create a value, or replace the one of this `revision`. Return the new revision.

        None where there is something already (no `revision` given), nothing any more, or another revision: nothing was
        written. The same value again is no other: its revision is returned, because the first answer may be lost.
        Deciding and writing are one step: of several that replace one revision at once, one succeeds.

        It lives for `idle` seconds, no longer than until `ends_at`, and counts as touched now. The key is noted under
        each name of `index` until `ends_at`, before the value can be read. Names add up: a replacement without
        `index`, as most are, takes none away.
        """
        ...

    async def delete(self, key: str, *, index: Sequence[str] = ()) -> None:
        """Remove what lies under a key, and the key from these names. What is not there is no error."""
        ...

    async def lock(self, key: str, *, ttl: float) -> str | None:
        """Take the lock of a key, which need not exist. Return a random token of 128 bits, None when it is taken.

        It frees itself after `ttl` seconds of the store's own clock.
        """
        ...

    async def unlock(self, key: str, token: str) -> None:
        """Free a lock that is held by this token; one that somebody else holds by now stays."""
        ...

    async def find(self, index: str) -> list[str]:
        """Return the keys noted under a name, in any order, without those past their `ends_at`.

        It may name keys under which nothing lies any more.
        """
        ...

    async def check(self) -> list[str]:
        """Return what to warn of when an app starts: sentences that each name the remedy.

        Raise `ConfigurationError` for what cannot work, `StoreUnavailable` where the store cannot be asked now.
        """
        ...

    async def aclose(self) -> None:
        """Close what was opened on this event loop. A later call opens it again."""
        ...


@dataclass(slots=True)
class _Kept:
    value: str
    revision: int
    touched_at: int
    expires_at: int
    ends_at: int
    index: tuple[str, ...]


class MemoryStore:
    """Keeps sessions in the memory of one process: for development, tests, and apps of one worker.

    They are gone when it ends. At most `max_sessions` are kept; beyond that, those go that were not used for longest.
    What is noted under no name of an index is nobody's session, and takes no place of one: it has as many of its own.
    `clock` gives the seconds by which locks free themselves and entries of the index end. Safe to use from several
    event loops and threads.
    """

    def __init__(self, max_sessions: int = 100_000, *, clock: Callable[[], float] = time.monotonic) -> None:
        if max_sessions < 1:
            raise ValueError("max_sessions must be at least 1.")
        self._max_sessions = max_sessions
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        """Least recently used first."""
        self._nameless: OrderedDict[str, None] = OrderedDict()
        """Those of them that no index names, oldest first: strangers make them, by trying to sign in."""
        self._round: OrderedDict[str, None] = OrderedDict()
        """The same keys, those first that were not looked at for longest."""
        self._index: dict[str, dict[str, float]] = {}
        self._locks: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._has_warned = False
        self._guard = threading.Lock()

    def __repr__(self) -> str:
        return f"<MemoryStore {len(self._kept)} of {self._max_sessions} sessions>"

    async def get(self, key: str, *, now: int, touch: Touch | None = None) -> StoredSession | None:
        """Return what lies under a key, and note that it is in use. See `SessionStore.get`."""
        with self._guard:
            kept = self._living(key, now)
            if kept is None:
                return None
            self._kept.move_to_end(key)
            found = StoredSession(kept.value, kept.revision, kept.touched_at)
            if touch is not None and now - kept.touched_at >= touch.interval:
                kept.touched_at = now
                kept.expires_at = min(now + touch.idle, kept.ends_at)
            return found

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
        """Create a value, or replace the one of this revision. See `SessionStore.set`."""
        with self._guard:
            self._sweep(now)
            held = self._living(key, now)
            # 1. The same again: the answer to the first may be lost.
            if held is not None and held.value == value:
                return held.revision
            # 2. Not what the caller takes it to be, or over before it begins.
            expires_at = min(now + idle, ends_at)
            if (held and held.revision) != revision or expires_at <= now:
                return None
            # 3. Create or replace.
            names = tuple(dict.fromkeys((*(held.index if held else ()), *index)))
            kept = _Kept(value, (revision or 0) + 1, now, expires_at, ends_at, names)
            self._note(key, index, lifetime=ends_at - now)
            self._keep(key, kept)
            return kept.revision

    async def delete(self, key: str, *, index: Sequence[str] = ()) -> None:
        """Remove what lies under a key, and the key from every name: they are known here, `index` or not."""
        with self._guard:
            self._drop(key)

    async def lock(self, key: str, *, ttl: float) -> str | None:
        """Take the lock of a key for `ttl` seconds. Return its token, None when it is taken."""
        with self._guard:
            now = self._clock()
            self._sweep_locks(now)
            held = self._locks.get(key)
            if held is not None and now < held[1]:
                return None
            token = secrets.token_hex(16)
            self._locks[key] = (token, now + ttl)
            return token

    async def unlock(self, key: str, token: str) -> None:
        """Free a lock that is held by this token."""
        with self._guard:
            held = self._locks.get(key)
            if held is not None and held[0] == token:
                del self._locks[key]

    async def find(self, index: str) -> list[str]:
        """Return the keys noted under a name, without those past their end."""
        with self._guard:
            now = self._clock()
            return [key for key, until in self._index.get(index, {}).items() if now < until]

    async def check(self) -> list[str]:
        """Return a warning where this process seems to be one of several, each of which would know its own sessions."""
        return warnings_of_siblings()

    async def aclose(self) -> None:
        """Do nothing: there is nothing to close."""

    def _living(self, key: str, now: int) -> _Kept | None:
        kept = self._kept.get(key)
        if kept is None or now < kept.expires_at:
            return kept
        self._drop(key)
        return None

    def _note(self, key: str, index: Sequence[str], *, lifetime: int) -> None:
        until = self._clock() + lifetime
        for name in index:
            self._index.setdefault(name, {})[key] = until

    def _keep(self, key: str, kept: _Kept) -> None:
        self._kept[key] = kept
        self._kept.move_to_end(key)
        self._round.setdefault(key)
        self._nameless.pop(key, None)
        if not kept.index:
            self._nameless[key] = None
        while len(self._nameless) > self._max_sessions:
            self._drop(next(iter(self._nameless)))
        while len(self._kept) - len(self._nameless) > self._max_sessions:
            self._drop(self._least_used())
            self._warn_of_evictions()

    def _least_used(self) -> str:
        """Return the session that was not used for longest. What is none steps aside."""
        while (key := next(iter(self._kept))) in self._nameless:
            self._kept.move_to_end(key)
        return key

    def _drop(self, key: str) -> None:
        kept = self._kept.pop(key, None)
        self._nameless.pop(key, None)
        self._round.pop(key, None)
        if kept is not None:
            self._unnote(key, kept.index)

    def _unnote(self, key: str, index: Sequence[str]) -> None:
        for name in index:
            keys = self._index.get(name, {})
            keys.pop(key, None)
            if not keys:
                self._index.pop(name, None)

    def _sweep(self, now: int) -> None:
        """Look at a few sessions, each in its turn, so that what nobody reads any more goes in time too."""
        for _ in range(min(_LOOKED_AT, len(self._round))):
            key = next(iter(self._round))
            self._round.move_to_end(key)
            self._living(key, now)

    def _sweep_locks(self, now: float) -> None:
        for _ in range(min(_LOOKED_AT, len(self._locks))):
            key, (_, until) = next(iter(self._locks.items()))
            self._locks.move_to_end(key)
            if until <= now:
                del self._locks[key]

    def _warn_of_evictions(self) -> None:
        if self._has_warned:
            return
        self._has_warned = True
        _log.warning(
            "MemoryStore holds max_sessions=%d: from now on a new session ends the one that was not used for longest."
            " Raise max_sessions, or use RedisStore.",
            self._max_sessions,
        )

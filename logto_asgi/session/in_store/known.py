"""What this process knows of sessions in a store: their newest states, and which are gone. Bounded. Knows no store."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from logto_asgi.session.bounded import Bounded
from logto_asgi.session.in_store.records import Live, Word

__all__ = ["Gone", "Held", "KnownStates"]

_MAX_BYTES = 16 * 1024 * 1024
_EMPTY_ENTRY = 3_000
"""About what an entry takes in memory besides its text."""
_MAX_GONE = 50_000
_GRACE = 60
"""Seconds before a cookie without a session is deleted: that of a new sign-in may be on its way to the browser."""


@dataclass(frozen=True, slots=True)
class Held:
    """A session as a store holds it: `value` is its sealed text, `touched_at` is in seconds since 1970."""

    live: Live
    value: str = field(repr=False)
    revision: int
    touched_at: int


@dataclass(frozen=True, slots=True)
class Gone:
    """There is no session: a word for logs, whether the cookie may be deleted, and how it ended where it is known."""

    problem: str
    clear: bool = False
    word: Word | None = None

    @property
    def revocable(self) -> bool:
        """Whether a refresh token of the session may be revoked.

        Not where it just cannot be read: it lives on with a newer worker. Nor where a new sign-in replaced it: at Logto
        both share a grant, and revoking would end the new one.
        """
        return self.problem != "unknown_key" and self.word != "replaced"


@dataclass(slots=True)
class _Known:
    held: Held
    read_at: float
    expires_at: float
    cost: int
    used: bool = False


@dataclass(slots=True)
class _Absence:
    since: float
    word: Word | None = None
    """Set where it has ended for good; None where a store just does not have it."""


class KnownStates:
    """The newest states seen, by key, and keys of sessions that are over. Safe to use from several threads."""

    def __init__(self, limit: int = _MAX_BYTES) -> None:
        self._states: Bounded[str, _Known] = Bounded(limit)
        self._gone: OrderedDict[str, _Absence] = OrderedDict()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<KnownStates {len(self._states)}, {len(self._gone)} gone>"

    def get(self, key: str) -> Held | None:
        """Return the newest state that was seen, however long ago."""
        known = self._states.get(key)
        if known is None:
            return None
        known.used = True
        return known.held

    def recent(self, key: str, *, since: float) -> Held | None:
        """Return the newest state if a store was asked at `since` (seconds since 1970) or later."""
        known = self._states.get(key)
        return known.held if known is not None and known.read_at >= since else None

    def note(self, key: str, held: Held, *, now: float, expires_at: float) -> None:
        """Keep what a store holds. What an answer that was overtaken says is older, and is not kept."""
        known = self._states.get(key)
        if known is not None and held.live.session.version < known.held.live.session.version:
            return
        if key in self._gone:
            with self._lock:
                absence = self._gone.get(key)
                if absence is not None and absence.word is not None:
                    return
                self._gone.pop(key, None)
        if known is not None and known.held.value == held.value:
            known.held, known.read_at = held, now
        else:
            cost = _EMPTY_ENTRY + 2 * len(held.value)
            self._states.put(key, _Known(held, now, expires_at, cost), now=now)

    def drop(self, key: str) -> None:
        """Forget a state."""
        self._states.drop(key)

    def end(self, key: str, word: Word, *, now: float) -> None:
        """Note that a session is over for good."""
        self._note_gone(key, now, word)
        self._states.drop(key)

    def absent(self, key: str, *, now: float) -> None:
        """Note that a store does not have a session."""
        self._note_gone(key, now, None)
        self._states.drop(key)

    def ended(self, key: str, *, now: float) -> Gone | None:
        """Return how a session ended, None where this process does not know that it did."""
        absence = self._gone.get(key)
        return None if absence is None or absence.word is None else self.gone(key, now=now)

    def gone(self, key: str, *, now: float) -> Gone:
        """Return what to say of a session that is not there."""
        absence = self._gone.get(key)
        since, word = (now, None) if absence is None else (absence.since, absence.word)
        return Gone("ended", clear=now - since >= _GRACE, word=word)

    def _note_gone(self, key: str, now: float, word: Word | None) -> None:
        with self._lock:
            absence = self._gone.setdefault(key, _Absence(now))
            absence.word = absence.word or word
            while len(self._gone) > _MAX_GONE:
                self._gone.popitem(last=False)

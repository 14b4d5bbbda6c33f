"""A mapping that forgets: bounded in cost, entries that nobody used go first. Knows nothing of what it holds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

__all__ = ["Bounded", "Entry"]


class Entry(Protocol):
    """What the mapping must know of a value."""

    used: bool
    """Set by whoever reads the entry; spares it once when room is needed."""
    cost: int
    expires_at: float
    """Seconds since 1970; from then on it may go."""


K = TypeVar("K")
E = TypeVar("E", bound=Entry)


class Bounded(Generic[K, E]):
    """Entries by key, together at most `limit` in cost: second chance, a cheap kin of least recently used.

    `get` takes no lock and costs one look-up. Safe to use from several threads.
    """

    __slots__ = ("_entries", "_limit", "_lock", "cost", "get")

    def __init__(self, limit: int) -> None:
        self._entries: dict[K, E] = {}
        self._limit = limit
        self._lock = threading.Lock()
        self.cost = 0
        self.get: Callable[[K], E | None] = self._entries.get

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: K, entry: E, *, now: float) -> None:
        """Keep an entry; forget what has expired at the old end, and then what is over the limit."""
        with self._lock:
            self._remove(key)
            self._entries[key] = entry
            self.cost += entry.cost
            self._sweep(now)
            while self.cost > self._limit and self._entries:
                self._evict(now)

    def drop(self, key: K) -> None:
        """Forget an entry, if it is there."""
        with self._lock:
            self._remove(key)

    def drop_all(self, unwanted: Callable[[E], bool]) -> None:
        """Forget every entry that is unwanted. Looks at each."""
        with self._lock:
            for key in [key for key, entry in self._entries.items() if unwanted(entry)]:
                self._remove(key)

    def _remove(self, key: K) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.cost -= entry.cost

    def _sweep(self, now: float) -> None:
        """Move along the old end a little, so that what nobody reads any more goes in time too."""
        for _ in range(2):
            key, entry = next(iter(self._entries.items()))
            if now < entry.expires_at:
                return
            self._remove(key)
            if not self._entries:
                return

    def _evict(self, now: float) -> None:
        key, entry = next(iter(self._entries.items()))
        self._remove(key)
        if entry.used and now < entry.expires_at:
            entry.used = False
            self._entries[key] = entry
            self.cost += entry.cost

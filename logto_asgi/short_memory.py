"""What is remembered for some seconds, by key, bounded in number. Knows nothing of what it holds."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["ShortMemory"]

K = TypeVar("K")
V = TypeVar("V")


class ShortMemory(Generic[K, V]):
    """Notes that all live for `lifetime` seconds; beyond `limit` the oldest go. Safe to use from several threads."""

    def __init__(self, *, lifetime: float, limit: int, clock: Callable[[], float]) -> None:
        self._lifetime = lifetime
        self._limit = limit
        self._clock = clock
        self._notes: OrderedDict[K, tuple[float, V]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._notes)

    def put(self, key: K, value: V) -> None:
        """Remember a value from now on, in place of an earlier one."""
        with self._lock:
            self._notes.pop(key, None)
            self._notes[key] = (self._clock() + self._lifetime, value)
            while len(self._notes) > self._limit:
                self._notes.popitem(last=False)

    def get(self, key: K) -> V | None:
        """Return what was noted, None when that was too long ago."""
        noted = self._notes.get(key)
        if noted is None:
            return None
        until, value = noted
        if self._clock() < until:
            return value
        with self._lock:
            self._notes.pop(key, None)
        return None

    def forget(self, unwanted: Callable[[K], bool]) -> None:
        """Forget the notes whose key is unwanted. Looks at each."""
        with self._lock:
            for key in [key for key in self._notes if unwanted(key)]:
                del self._notes[key]

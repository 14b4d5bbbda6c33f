"""Notices that the event loop was blocked while something was under way. Knows nothing of what that is."""

from __future__ import annotations

import asyncio
from types import TracebackType

__all__ = ["LoopWatch"]

_STEP = 0.1
_LATE = 0.2
"""Seconds between looks at the clock, and by how many more than these the event loop must have missed one."""


class LoopWatch:
    """A `with` block that tells whether the event loop stood still in it: a synchronous call, or a paused machine.

    Time-outs that fall into such a moment say nothing about whoever was to answer.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._longest = 0.0
        self._next()

    def __enter__(self) -> LoopWatch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._timer.cancel()
        self._note()

    @property
    def blocked(self) -> float:
        """How many seconds at a time the event loop stood still at most, 0.0 where that is nothing to speak of."""
        return self._longest if self._longest > _LATE else 0.0

    def _next(self) -> None:
        self._due = self._loop.time() + _STEP
        self._timer = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        self._note()
        self._next()

    def _note(self) -> None:
        self._longest = max(self._longest, self._loop.time() - self._due)

"""Clock: time that a test moves by hand. Knows nothing of what is told the time."""

from __future__ import annotations

import time

__all__ = ["Clock"]


class Clock:
    """Time that stands still until it is moved: give one to the app's `Logto` and the provider alike.

    `now` is in seconds since 1970; without it the clock stands at the moment it was made.
    """

    def __init__(self, now: float | None = None) -> None:
        self.now = time.time() if now is None else now

    def __call__(self) -> float:
        """Return the time, in seconds since 1970."""
        return self.now

    def __repr__(self) -> str:
        return f"Clock({self.now})"

    def move(self, seconds: float) -> None:
        """Let that many seconds pass at once."""
        self.now += seconds

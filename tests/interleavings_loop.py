"""An event loop whose time jumps to the next thing to do, so that hours of waiting take none. Knows no session."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

__all__ = ["JumpingLoop"]


class _Jumping(selectors.DefaultSelector):
    """Never waits: what the loop would have waited for is skipped."""

    loop: JumpingLoop

    def select(self, timeout: float | None = None) -> Any:
        """Return what is ready; where nothing is, let the time pass that the loop wanted to wait."""
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everything waits for something that never comes")
        if not ready and timeout:
            self.loop.skip(timeout)
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop with a time of its own, in seconds. Nothing on it may use sockets; what wants a thread runs at once."""

    def __init__(self) -> None:
        self._now = 0.0
        selector = _Jumping()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        """Return the seconds since the loop was made."""
        return self._now

    def skip(self, seconds: float) -> None:
        """Let so much time pass at once; what was due meanwhile happens afterwards."""
        self._now += seconds

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        """Do it now: a thread would take real time."""
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done

"""Let many callers share one running piece of work. It knows nothing of what the work is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from logto_asgi.errors import IssuerUnavailable

__all__ = ["SingleFlight"]

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Runs work at most once at a time, for one event loop.

    Whoever asks while it runs gets the same result or the same error. A caller that is cancelled leaves; the work goes
    on.
    """

    def __init__(self) -> None:
        self._task: asyncio.Task[T] | None = None

    @property
    def running(self) -> bool:
        """Whether work is under way."""
        return self._task is not None and not self._task.done()

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Join the work that runs, or start `work`. Raise what it raises; `IssuerUnavailable` if `cancel` ends it."""
        task = self._task
        if task is None or task.done():
            task = self._task = asyncio.create_task(work())
            task.add_done_callback(self._landed)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if not task.cancelled() or (caller is not None and caller.cancelling()):
                raise
        raise IssuerUnavailable("The call to the issuer was stopped, because the app is shutting down.")

    def cancel(self) -> None:
        """Stop the work that runs, if any."""
        if self._task is not None:
            self._task.cancel()

    def _landed(self, task: asyncio.Task[T]) -> None:
        # A failure's traceback holds the request of everyone who waited for it.
        if self._task is task:
            self._task = None
        # Every waiter may have left; without this asyncio would then log a failure that nobody waits for.
        if not task.cancelled():
            task.exception()

"""Work that many wait for, once at a time for each key and event loop. Knows nothing of what the work is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from logto_asgi.errors import IssuerUnavailable

__all__ = ["Flights"]

T = TypeVar("T")


class Flights(Generic[T]):
    """Runs work by key.

    Whoever asks while it runs gets the same result or error; who is cancelled leaves it running.
    """

    def __init__(self) -> None:
        self._tasks: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, asyncio.Task[T]]] = WeakKeyDictionary()

    async def join(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, T]], *, fresh: bool = False) -> T:
        """Return what `work` brings, begun anew or shared. With `fresh`, what was begun before does not do.

        Raise what it raises, and `IssuerUnavailable` where `drain` ends it.
        """
        running = self._running(key)
        if fresh and running is not None:
            # Its own waiters hear of a failure. Whoever wakes up first begins anew, and the others join that.
            await asyncio.wait([running])
            running = self._running(key)
        task = running or self._begin(key, work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if not task.cancelled() or (caller is not None and caller.cancelling()):
                raise
        raise IssuerUnavailable("The call to the issuer was stopped, because the app is shutting down.")

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - an amount of patience, which ends in no error
        """Wait up to `timeout` seconds for the work of this event loop, then stop what still runs."""
        tasks = list(self._of_this_loop().values())
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=timeout)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def waiting(self) -> int:
        """Return how many pieces of work are under way in this event loop."""
        return len(self._of_this_loop())

    def _of_this_loop(self) -> dict[Hashable, asyncio.Task[T]]:
        return self._tasks.setdefault(asyncio.get_running_loop(), {})

    def _running(self, key: Hashable) -> asyncio.Task[T] | None:
        """Return the task that may be joined. One that is done serves nobody, although its callback is still to run."""
        task = self._of_this_loop().get(key)
        return None if task is None or task.done() else task

    def _begin(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        tasks = self._of_this_loop()
        task = tasks[key] = asyncio.get_running_loop().create_task(work(), name="logto_asgi token")
        task.add_done_callback(lambda done: _landed(tasks, key, done))
        return task


def _landed(tasks: dict[Hashable, asyncio.Task[T]], key: Hashable, task: asyncio.Task[T]) -> None:
    if tasks.get(key) is task:
        del tasks[key]
    if not task.cancelled():
        task.exception()  # Everyone who waited may have hung up: marks it as seen.

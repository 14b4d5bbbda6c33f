"""Work that many wait for: once at a time by key, few calls at a time, an error for each. Knows no token or request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from logto_asgi.errors import HTTPError, IssuerUnavailable
from logto_asgi.oidc.transport import within

__all__ = ["Flights", "Gate", "again"]

T = TypeVar("T")
E = TypeVar("E", bound=HTTPError)

_TURNS = 5
"""Turns of the event loop in which those who waited may begin new work, which a shutdown waits for too."""


def again(error: E) -> E:
    """Return a copy of one of our errors, for one more caller: without the requests and frames it was raised in."""
    copy = type(error).__new__(type(error))
    copy.__dict__.update(error.__dict__)
    copy.args = error.args
    copy.headers = None if error.headers is None else dict(error.headers)
    return copy


class Flights(Generic[T]):
    """Runs work by key.

    Whoever asks while it runs gets the same result, or an error of the same words; who is cancelled leaves it running.
    """

    def __init__(self) -> None:
        self._tasks: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, asyncio.Task[T]]] = WeakKeyDictionary()

    async def join(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, T]], *, fresh: bool = False) -> T:
        """Return what `work` brings, begun anew or shared. With `fresh`, what was begun before does not do.

        Raise what it raises, one of ours as a copy for each who waits, and `IssuerUnavailable` where `drain` ends it.
        """
        running = self._running(key)
        if fresh and running is not None:
            # Its own waiters hear of a failure. Whoever wakes up first begins anew, and the others join that.
            await asyncio.wait([running])
            running = self._running(key)
        task = running or self._begin(key, work)
        failure: HTTPError
        try:
            return await asyncio.shield(task)
        except HTTPError as error:
            failure = again(error)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if not task.cancelled() or (caller is not None and caller.cancelling()):
                raise
            failure = IssuerUnavailable("The call to the issuer was stopped, because the app is shutting down.")
        raise failure

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - an amount of patience, which ends in no error
        """Wait up to `timeout` seconds for the work of this event loop, then stop what still runs.

        Waits as well for what is begun meanwhile, as by a caller that asks for the next token.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        while tasks := list(self._of_this_loop().values()):
            _, late = await asyncio.wait(tasks, timeout=max(0.0, until - loop.time()))
            if late:
                for task in late:
                    task.cancel()
                await asyncio.gather(*late, return_exceptions=True)
                return
            for _ in range(_TURNS):
                await asyncio.sleep(0)

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


class Gate:
    """Lets `most` calls of an event loop be under way at a time; the others wait in line."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lines: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    async def through(self, call: Callable[[], Awaitable[T]], *, seconds: float) -> T:
        """Make a call when it is its turn. Raise `IssuerUnavailable` where line and call take longer than `seconds`."""
        return await within(seconds, self._in_line(call))

    async def _in_line(self, call: Callable[[], Awaitable[T]]) -> T:
        line = self._lines.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(self._most))
        async with line:
            return await call()


def _landed(tasks: dict[Hashable, asyncio.Task[T]], key: Hashable, task: asyncio.Task[T]) -> None:
    if tasks.get(key) is task:
        del tasks[key]
    if not task.cancelled():
        task.exception()  # Everyone who waited may have hung up: marks it as seen.

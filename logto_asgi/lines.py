"""Work on sessions, one piece at a time for each, shared by everyone who asks for the same. Knows no token.

The work belongs to nobody's request: whoever asked may hang up, and it goes on. Sessions do not wait for each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from logto_asgi.errors import IssuerUnavailable, LogtoError, SessionEnded, StoreUnavailable
from logto_asgi.models import Session

__all__ = ["Lines"]

T = TypeVar("T")

Work = Callable[[Session], Coroutine[Any, Any, T]]

_MOST_JOBS = 64
"""Different pieces of work that may wait for one session; callers may share each of them in any number."""

_FOR_ALL = (IssuerUnavailable, StoreUnavailable, SessionEnded)
"""What befalls one piece of work befalls those behind it as well: asking again at once would bring the same."""


@dataclass(eq=False)
class _Job(Generic[T]):
    what: Hashable
    session: Session
    fresh: bool
    """Whether it was asked to begin after the asking."""
    asks_issuer: bool
    task: asyncio.Task[T] = field(init=False)
    begun: bool = False
    verdict: LogtoError | None = None
    """Why it need not begin."""


class _Line(Generic[T]):
    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.jobs: list[_Job[T]] = []

    def find(self, what: Hashable, *, fresh: bool) -> _Job[T] | None:
        """Return a job whose result serves: the same work, and begun no earlier than asked when that matters.

        One that is done serves nobody, although it is here until its callback runs: who joined it again and again
        would never let the callback run.
        """
        same = (job for job in self.jobs if job.what == what and not job.task.done())
        return next((job for job in same if not (fresh and job.begun)), None)


class Lines(Generic[T]):
    """A line of jobs for each session, in each event loop."""

    def __init__(self) -> None:
        self._lines: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Line[T]]] = WeakKeyDictionary()

    async def join(
        self, session: Session, what: Hashable, work: Work[T], *, fresh: bool = False, asks_issuer: bool = True
    ) -> T:
        """Return what `work` brings, begun anew or shared. With `fresh`, what was begun before does not do.

        Raise what it raises; a job that another one's failure makes pointless fails the same way.
        """
        while True:
            job = self._enter(_Job(what, session, fresh, asks_issuer), work)
            try:
                return await asyncio.shield(job.task)
            except SessionEnded:
                # It began from an older copy of the session than this caller's, and says nothing about that one.
                if session.version <= job.session.version:
                    raise

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - cancels nothing
        """Wait up to `timeout` seconds for the jobs of this event loop."""
        lines = self._lines.get(asyncio.get_running_loop(), {})
        tasks = [job.task for line in lines.values() for job in line.jobs]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)

    def waiting(self) -> int:
        """Return how many jobs are under way or wait in this event loop."""
        return sum(len(line.jobs) for line in self._lines.get(asyncio.get_running_loop(), {}).values())

    def _enter(self, asked: _Job[T], work: Work[T]) -> _Job[T]:
        """Return a job that serves as well as the one asked for, which joins the line if there is none."""
        session = asked.session
        loop = asyncio.get_running_loop()
        lines = self._lines.setdefault(loop, {})
        line = lines.setdefault(session.id, _Line())
        job = line.find(asked.what, fresh=asked.fresh)
        if job is not None:
            if not job.begun and session.version > job.session.version:
                job.session = session
            return job
        if len(line.jobs) >= _MOST_JOBS:
            raise IssuerUnavailable("This session asks for too many tokens at once. Try again in a moment.")
        line.jobs.append(asked)
        asked.task = loop.create_task(_run(line, asked, work), name="logto_asgi refresh")
        asked.task.add_done_callback(lambda task: _left(lines, session.id, line, asked, task))
        return asked


async def _run(line: _Line[T], job: _Job[T], work: Work[T]) -> T:
    async with line.turn:
        if job.verdict is not None:
            raise job.verdict
        job.begun = True
        try:
            return await work(job.session)
        except _FOR_ALL as error:
            for other in line.jobs:
                spared = isinstance(error, IssuerUnavailable) and not other.asks_issuer
                if not other.begun and not spared and other.session.version <= job.session.version:
                    other.verdict = error
            raise


def _left(lines: dict[str, _Line[T]], session_id: str, line: _Line[T], job: _Job[T], task: asyncio.Task[T]) -> None:
    line.jobs.remove(job)
    if not line.jobs and lines.get(session_id) is line:
        del lines[session_id]
    if not task.cancelled():
        task.exception()  # Everyone who waited may have hung up: marks it as seen.

"""Whether this process seems to be one of several workers of an app, and what to say then. Knows no session."""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
from collections.abc import Sequence
from itertools import zip_longest

__all__ = ["warnings_of_siblings"]

_ONE_OF_SEVERAL = (
    "MemoryStore keeps sessions in one process, and this seems to be one of several ({signs}): a visitor would be"
    " signed in at one of them only. Use RedisStore, the cookies (no store=), or a single worker."
)
_MAYBE_SEVERAL = (
    "Is this one of several workers? Another process of Python started it, and MemoryStore keeps sessions in one"
    " process. A single worker may use it; several need RedisStore, or the cookies (no store=)."
)
_WORKERS = re.compile(r"(?:--workers|-w)=?(\d+)?")


def warnings_of_siblings() -> list[str]:
    """Return what an app that keeps its sessions in memory should be told of its workers, if anything."""
    signs = _signs()
    if signs:
        return [_ONE_OF_SEVERAL.format(signs=signs)]
    return [_MAYBE_SEVERAL] if _may_have_siblings() else []


def _signs() -> str:
    """Return what speaks for other workers beside this one, "" where nothing does."""
    workers = os.environ.get("WEB_CONCURRENCY", "")
    signs = []
    if workers.isdecimal() and int(workers) > 1:
        signs.append(f"WEB_CONCURRENCY={workers}")
    if "gunicorn" in os.environ.get("SERVER_SOFTWARE", "").lower():
        signs.append("it runs under gunicorn")
    asked_for = _workers_of(sys.argv[1:])
    if _was_started_here() and asked_for is not None and asked_for > 1:
        signs.append(f"--workers {asked_for}")
    return ", ".join(signs)


def _may_have_siblings() -> bool:
    """Tell whether another process of Python started this one, and the command line does not say that it is alone.

    So do uvicorn and hypercorn start their workers; but also the only one, which is started anew when code changes.
    """
    command = sys.argv[1:]
    is_alone = _workers_of(command) == 1 or "--reload" in command or command[:1] == ["dev"]
    return _was_started_here() and not is_alone


def _was_started_here() -> bool:
    return multiprocessing.parent_process() is not None


def _workers_of(command: Sequence[str]) -> int | None:
    """Return the number of workers that the command line of a server asks for, None where it names none."""
    for word, following in zip_longest(command, command[1:], fillvalue=""):
        match = _WORKERS.fullmatch(word)
        number = (match[1] or following) if match else ""
        if number.isdecimal():
            return int(number)
    return None

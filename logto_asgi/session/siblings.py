"""Whether this process seems to be one of several workers of an app. Knows no store and no session."""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
from collections.abc import Sequence

__all__ = ["may_have_siblings", "signs_of_siblings"]

_WORKERS = re.compile(r"(?:--workers|-w)=?(\d+)?")


def signs_of_siblings() -> str:
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


def may_have_siblings() -> bool:
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
    for word, following in zip(command, [*command[1:], ""], strict=True):
        match = _WORKERS.fullmatch(word)
        number = (match[1] or following) if match else ""
        if number.isdecimal():
            return int(number)
    return None

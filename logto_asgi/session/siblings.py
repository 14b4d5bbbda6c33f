"""Whether this process seems to be one of several workers of an app. Knows no store and no session."""

from __future__ import annotations

import multiprocessing
import os

__all__ = ["signs_of_siblings"]


def signs_of_siblings() -> str:
    """Return what speaks for other workers beside this one, "" where nothing does."""
    workers = os.environ.get("WEB_CONCURRENCY", "")
    signs = []
    if workers.isdecimal() and int(workers) > 1:
        signs.append(f"WEB_CONCURRENCY={workers}")
    if "gunicorn" in os.environ.get("SERVER_SOFTWARE", "").lower():
        signs.append("it runs under gunicorn")
    if multiprocessing.parent_process() is not None:
        signs.append("another process of Python started it")
    return ", ".join(signs)

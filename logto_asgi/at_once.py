"""Much work of one kind, a few pieces at a time. Knows nothing of what the work is."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

__all__ = ["few_at_once"]

T = TypeVar("T")


async def few_at_once(work: Iterable[Coroutine[Any, Any, T]], *, limit: int) -> list[T | BaseException]:
    """Return what each piece brings, or the exception that it raises, in order; at most `limit` run at a time."""
    gate = asyncio.Semaphore(limit)

    async def one(each: Coroutine[Any, Any, T]) -> T:
        async with gate:
            return await each

    return await asyncio.gather(*(one(each) for each in work), return_exceptions=True)

"""What the tests of a `SessionStore` share: a store for each, time that passes, sessions to set. Knows no store."""
# ruff: noqa: S101  (these are tests)

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
import unittest
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import ClassVar

from logto_asgi.session.stores import SessionStore

__all__ = ["DAY", "NOW", "StoreTests", "create", "new_key", "replace"]

NOW = 4_102_444_800
"""1 January 2100 by the app's clock, which no machine's clock shows: a store must go by the time that it is told."""
DAY = 86_400
_PATIENCE = 60.0
"""Seconds within which what must happen has happened on any machine."""


class StoreTests:
    """What tests of a store need; see `SessionStoreContract`."""

    of_one_process: ClassVar[bool] = False
    """True for a store that keeps sessions in its process's memory: two of them then share nothing."""

    async def make_store(self) -> SessionStore:
        """Return a store to test. A fixture of your class may prepare what it needs.

        Some tests call it twice, for two stores that know of each other's sessions as two processes' stores must.
        """
        raise NotImplementedError

    async def pass_time(self, seconds: float) -> None:
        """Let time pass for the store's own clock: really, unless the clock is yours to turn."""
        await asyncio.sleep(seconds)

    @contextlib.asynccontextmanager
    async def open_store(self) -> AsyncIterator[SessionStore]:
        """Make a store, and close it afterwards."""
        store = await self.make_store()
        try:
            yield store
        finally:
            await store.aclose()

    @contextlib.asynccontextmanager
    async def open_two(self) -> AsyncIterator[tuple[SessionStore, SessionStore]]:
        """Make two stores, as two processes would, and close them afterwards. Skips for a store of one process."""
        if self.of_one_process:
            raise unittest.SkipTest("this store is of one process")
        async with self.open_store() as one, self.open_store() as other:
            yield one, other

    async def until(self, holds: Callable[[], Awaitable[bool]], *, step: float = 0.05) -> None:
        """Let time pass until something holds that must hold sooner or later."""
        patience = time.monotonic() + _PATIENCE
        while not await holds():
            assert time.monotonic() < patience, "this must have happened by now"
            await self.pass_time(step)


def new_key() -> str:
    """Return a random key, as the library makes them."""
    return secrets.token_hex(32)


async def create(
    store: SessionStore,
    key: str,
    value: str,
    *,
    now: int = NOW,
    idle: int = DAY,
    ends_at: int = NOW + 7 * DAY,
    index: Sequence[str] = (),
) -> int | None:
    """Create a session of a day without use, a week in all."""
    return await store.set(key, value, now=now, idle=idle, ends_at=ends_at, index=index)


async def replace(
    store: SessionStore,
    key: str,
    value: str,
    revision: int,
    *,
    now: int = NOW,
    idle: int = DAY,
    ends_at: int = NOW + 7 * DAY,
    index: Sequence[str] = (),
) -> int | None:
    """Replace the session of this revision."""
    return await store.set(key, value, now=now, idle=idle, ends_at=ends_at, revision=revision, index=index)

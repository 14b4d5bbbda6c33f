"""What the tests of a `SessionStore` share: a store for each, time that passes, sessions to set. Knows no store."""
# ruff: noqa: S101  (these are tests)

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from logto_asgi.session.stores import SessionStore

__all__ = ["DAY", "NOW", "StoreTests", "create", "new_key", "replace"]

NOW = 1_800_000_000
"""A time of the app's clock that no machine's clock shows: a store must go by the time that it is told."""
DAY = 86_400
_PATIENCE = 60.0
"""Seconds within which what must happen has happened on any machine."""


class StoreTests:
    """What tests of a store need; see `SessionStoreContract`."""

    async def make_store(self) -> SessionStore:
        """Return a store to test. A fixture of your class may prepare what it needs."""
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

"""A store as a bad network shows it: away, slow, losing answers, set back to an earlier time. Wraps a real one."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from typing import Any

from logto_asgi.errors import StoreFull, StoreUnavailable
from logto_asgi.session.stores import MemoryStore

WRITES = frozenset({"set", "lock"})


class FaultyStore:
    """A `MemoryStore` behind a network that a test breaks and mends."""

    def __init__(self) -> None:
        self.inside = MemoryStore()
        self.calls: list[str] = []
        self.deleted: list[tuple[str, int]] = []
        """Keys, and from how many names of the index."""
        self.down: Exception | None = None
        """Raised by every call instead of reaching the store."""
        self.full = False
        self.lost: set[str] = set()
        """Calls that reach the store, and whose next answer does not come back."""
        self.hold: dict[str, asyncio.Event] = {}
        """Calls that wait until the event is set, before they reach the store."""
        self.before: Callable[[str], Awaitable[None]] | None = None
        self.after: Callable[[str], Awaitable[None]] | None = None
        """Run before a call reaches the store, and before its answer comes back."""

    def go_down(self) -> None:
        self.down = StoreUnavailable("away")

    def come_back(self) -> None:
        self.down = None

    def snapshot(self) -> Any:
        return copy.deepcopy(self.inside._kept)

    def restore(self, snapshot: Any) -> None:
        self.inside._kept = copy.deepcopy(snapshot)

    def count(self, name: str) -> int:
        return self.calls.count(name)

    @property
    def values(self) -> dict[str, str]:
        return {key: kept.value for key, kept in self.inside._kept.items()}

    def put(self, key: str, value: str) -> None:
        """Write as somebody who has the store's password may."""
        self.inside._kept[key].value = value

    async def _call(self, name: str, *args: Any, **fields: Any) -> Any:
        self.calls.append(name)
        if self.before is not None:
            await self.before(name)
        if name in self.hold:
            await self.hold[name].wait()
        if self.down is not None:
            raise self.down
        if self.full and name in WRITES:
            raise StoreFull("full")
        answer = await getattr(self.inside, name)(*args, **fields)
        if self.after is not None:
            await self.after(name)
        if name in self.lost:
            self.lost.remove(name)
            raise StoreUnavailable("the answer was lost")
        return answer

    async def get(self, *args: Any, **fields: Any) -> Any:
        return await self._call("get", *args, **fields)

    async def set(self, *args: Any, **fields: Any) -> Any:
        return await self._call("set", *args, **fields)

    async def delete(self, key: str, **fields: Any) -> Any:
        self.deleted.append((key, len(fields.get("index", ()))))
        return await self._call("delete", key, **fields)

    async def lock(self, *args: Any, **fields: Any) -> Any:
        return await self._call("lock", *args, **fields)

    async def unlock(self, *args: Any, **fields: Any) -> Any:
        return await self._call("unlock", *args, **fields)

    async def find(self, *args: Any, **fields: Any) -> Any:
        return await self._call("find", *args, **fields)

    async def check(self) -> Any:
        return await self._call("check")

    async def aclose(self) -> Any:
        return await self._call("aclose")

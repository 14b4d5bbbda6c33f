"""What every `SessionStore` must do with a value: create, replace, expire, touch, delete. Part of its contract."""
# ruff: noqa: S101  (these are tests)

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from logto_asgi.session.stores import SessionStore, StoredSession, Touch
from logto_asgi.testing.store_kit import DAY, NOW, StoreTests, create, new_key, replace

__all__ = ["ValuesContract"]

T = TypeVar("T")

_ORDERS = 20
"""How many ways of meeting are tried where two calls are under way at once."""


class ValuesContract(StoreTests):
    """Tests of values; see `SessionStoreContract`."""

    async def test_what_was_never_set_is_absent(self) -> None:
        """Nothing lies under an unknown key, and touching or deleting it makes nothing."""
        async with self.open_store() as store:
            key = new_key()
            assert await store.get(key, now=NOW) is None
            assert await store.get(key, now=NOW, touch=Touch(DAY, 60)) is None
            await store.delete(key)
            assert await store.get(key, now=NOW) is None

    async def test_what_is_created_can_be_read(self) -> None:
        """A new value has revision 1 and the time at which it was set."""
        async with self.open_store() as store:
            key = new_key()
            assert await create(store, key, "value") == 1
            assert await store.get(key, now=NOW + 5) == StoredSession("value", 1, NOW)

    async def test_creating_never_replaces(self) -> None:
        """Without a revision something that is there stays as it is."""
        async with self.open_store() as store:
            key = new_key()
            await create(store, key, "first")
            assert await create(store, key, "second", now=NOW + 1) is None
            assert await store.get(key, now=NOW + 1) == StoredSession("first", 1, NOW)

    async def test_replacing_needs_the_revision_that_is_held(self) -> None:
        """The revision that was read is replaced by the next; an older, a later or an absent one by nothing."""
        async with self.open_store() as store:
            key = new_key()
            await create(store, key, "first")
            assert await replace(store, key, "second", 1, now=NOW + 1) == 2
            assert await replace(store, key, "late", 1, now=NOW + 2) is None
            assert await replace(store, key, "early", 3, now=NOW + 2) is None
            assert await store.get(key, now=NOW + 2) == StoredSession("second", 2, NOW + 1)
            absent = new_key()
            assert await replace(store, absent, "value", 1) is None
            assert await store.get(absent, now=NOW) is None

    async def test_the_same_value_again_succeeds_again(self) -> None:
        """A call whose answer was lost can be repeated: it returns the revision that the first one made."""
        async with self.open_store() as store:
            key = new_key()
            assert [await create(store, key, "first") for _ in range(2)] == [1, 1]
            assert [await replace(store, key, "second", 1) for _ in range(3)] == [2, 2, 2]
            assert await store.get(key, now=NOW) == StoredSession("second", 2, NOW)

    async def test_an_idle_session_expires(self) -> None:
        """It is there in the last second of its idle life, and gone in the next."""
        async with self.open_store() as store:
            key = new_key()
            await create(store, key, "value", idle=100)
            assert await store.get(key, now=NOW + 99)
            assert await store.get(key, now=NOW + 100) is None

    async def test_what_has_expired_counts_as_absent(self) -> None:
        """It cannot be replaced, and something new may be created in its place."""
        async with self.open_store() as store:
            key = new_key()
            await create(store, key, "first", idle=100)
            assert await replace(store, key, "second", 1, now=NOW + 100) is None
            assert await create(store, key, "second", now=NOW + 100) == 1
            assert await store.get(key, now=NOW + 100) == StoredSession("second", 1, NOW + 100)

    async def test_nothing_outlives_its_end(self) -> None:
        """Neither idle time nor touching carries a session over its `ends_at`."""
        async with self.open_store() as store:
            key = new_key()
            await create(store, key, "value", idle=100, ends_at=NOW + 150)
            assert await store.get(key, now=NOW + 99, touch=Touch(100, 10))
            assert await store.get(key, now=NOW + 149, touch=Touch(100, 10))
            assert await store.get(key, now=NOW + 150, touch=Touch(100, 10)) is None

    async def test_what_is_over_before_it_begins_is_not_kept(self) -> None:
        """A value whose end has come is neither created nor does it replace one."""
        async with self.open_store() as store:
            key = new_key()
            assert await create(store, key, "value", ends_at=NOW) is None
            assert await create(store, key, "value", idle=0) is None
            assert await store.get(key, now=NOW - 1) is None

    async def test_touching_prolongs_the_idle_life(self) -> None:
        """A session that is touched lives as long again from then on."""
        async with self.open_store() as store:
            key = new_key()
            await create(store, key, "value", idle=100)
            assert await store.get(key, now=NOW + 60, touch=Touch(100, 10))
            assert await store.get(key, now=NOW + 159)
            assert await store.get(key, now=NOW + 160) is None

    async def test_touching_writes_once_an_interval(self) -> None:
        """Before the interval is over nothing is noted, then once; the answer tells the time of the last touch."""
        async with self.open_store() as store:
            key = new_key()
            await create(store, key, "value", idle=1000)
            noted = []
            for seconds in (59, 60, 61, 119, 120, 121):
                found = await store.get(key, now=NOW + seconds, touch=Touch(1000, 60))
                assert found is not None
                noted.append(found.touched_at - NOW)
            assert noted == [0, 0, 60, 60, 60, 120]

    async def test_a_touch_of_the_past_takes_nothing_back(self) -> None:
        """A request that is late, or a machine whose clock is slow, does not shorten a life."""
        async with self.open_store() as store:
            key = new_key()
            await create(store, key, "value")
            await store.get(key, now=NOW + 100, touch=Touch(DAY, 10))
            await store.get(key, now=NOW + 50, touch=Touch(DAY, 10))
            assert await store.get(key, now=NOW + DAY + 99) == StoredSession("value", 1, NOW + 100)

    async def test_touching_goes_with_no_revision(self) -> None:
        """Whoever read a session before it was touched may still replace it."""
        async with self.open_store() as store:
            key = new_key()
            await create(store, key, "first")
            assert await store.get(key, now=NOW + 60, touch=Touch(DAY, 60)) == StoredSession("first", 1, NOW)
            assert await replace(store, key, "second", 1, now=NOW + 61) == 2

    async def test_touching_never_brings_back(self) -> None:
        """What has expired or was deleted stays gone."""
        async with self.open_store() as store:
            expired, deleted = new_key(), new_key()
            await create(store, expired, "value", idle=100)
            await create(store, deleted, "value", idle=100)
            await store.delete(deleted)
            for key in (expired, deleted):
                assert await store.get(key, now=NOW + 100, touch=Touch(100, 1)) is None
                assert await store.get(key, now=NOW + 101) is None

    async def test_a_touch_beside_a_deletion_never_brings_back(self) -> None:
        """Whichever of them comes first, the session is gone: a touch writes into what is there, not a whole row."""
        async with self.open_store() as store:
            for turns in range(_ORDERS):
                key = new_key()
                await create(store, key, "value")
                await asyncio.gather(*_touches(store, key), _after(turns, partial(store.delete, key)))
                assert await store.get(key, now=NOW + 60) is None

    async def test_a_touch_beside_a_replacement_keeps_the_new_value(self) -> None:
        """Whichever of them comes first, the new value is there: a touch notes a time, and writes nothing else back."""
        async with self.open_store() as store:
            for turns in range(_ORDERS):
                key = new_key()
                await create(store, key, "first")
                replacing = _after(turns, partial(replace, store, key, "second", 1, now=NOW + 60))
                *_, replaced = await asyncio.gather(*_touches(store, key), replacing)
                assert replaced == 2
                assert await store.get(key, now=NOW + 60) == StoredSession("second", 2, NOW + 60)

    async def test_replacing_counts_as_touching(self) -> None:
        """A replacement begins a new idle life, and has an end of its own."""
        async with self.open_store() as store:
            key = new_key()
            await create(store, key, "first", idle=100)
            await replace(store, key, "second", 1, now=NOW + 90, idle=100, ends_at=NOW + 185)
            assert await store.get(key, now=NOW + 184) == StoredSession("second", 2, NOW + 90)
            assert await store.get(key, now=NOW + 185) is None

    async def test_deleting(self) -> None:
        """What was deleted cannot be read or replaced; a second time is no error."""
        async with self.open_store() as store:
            key = new_key()
            await create(store, key, "first")
            await store.delete(key)
            await store.delete(key)
            assert await store.get(key, now=NOW) is None
            assert await replace(store, key, "second", 1) is None
            assert await create(store, key, "third") == 1

    async def test_keys_are_apart(self) -> None:
        """Keys that begin alike, and an index name that is also a key, hold what was set under them."""
        async with self.open_store() as store:
            stem = new_key()[:-1]
            keys = [f"{stem}{digit}" for digit in "0123456789abcdef"]
            for key in keys:
                await create(store, key, f"value of {key}", index=[stem])
            await store.delete(keys[0])
            assert [await store.get(key, now=NOW) is None for key in keys] == [True, *[False] * 15]
            for key in keys[1:]:
                assert await store.get(key, now=NOW) == StoredSession(f"value of {key}", 1, NOW)

    async def test_large_values(self) -> None:
        """64 KiB come back as they were."""
        async with self.open_store() as store:
            key, value = new_key(), secrets.token_urlsafe(48 * 1024)
            await create(store, key, value)
            assert await store.get(key, now=NOW) == StoredSession(value, 1, NOW)

    async def test_any_text(self) -> None:
        """Text of every kind comes back as it was: alphabets, quotes, line ends, zeros, what looks like a number."""
        async with self.open_store() as store:
            for value in ("žluťoučký 🦊 狐", "\"'{}[]\\ %s $1", "a\r\nb\n\0c", "007", "1e3", " ", "None", "?"):
                key = new_key()
                await create(store, key, value)
                assert await store.get(key, now=NOW) == StoredSession(value, 1, NOW)


def _touches(store: SessionStore, key: str) -> list[Awaitable[StoredSession | None]]:
    return [store.get(key, now=NOW + 60, touch=Touch(DAY, 60)) for _ in range(4)]


async def _after(turns: int, call: Callable[[], Awaitable[T]]) -> T:
    """Call a little later than others that were begun with it."""
    for _ in range(turns):
        await asyncio.sleep(0)
    return await call()

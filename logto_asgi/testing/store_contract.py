"""What every `SessionStore` must do, as tests: run them against a store of your own. Knows no store and no pytest."""
# ruff: noqa: S101  (these are tests)

from __future__ import annotations

import asyncio
import secrets

from logto_asgi.session.stores import StoredSession, Touch
from logto_asgi.testing.store_kit import DAY, NOW, create, new_key, replace
from logto_asgi.testing.store_values import ValuesContract

__all__ = ["SessionStoreContract"]


class SessionStoreContract(ValuesContract):
    """Tests for a store, to inherit from.

    ```python
    class TestMyStore(SessionStoreContract):
        async def make_store(self) -> SessionStore:
            return MyStore()
    ```

    Each test makes a store and closes it; some make two, which must share everything, as those of two processes do.
    For a store of one process say `of_one_process = True`, and those are skipped. The tests run under pytest-asyncio in
    its auto mode; elsewhere mark your class with `@pytest.mark.asyncio` or `@pytest.mark.anyio`. Keys are random: the
    place behind the store need not be empty.
    """

    async def test_a_lock_has_one_holder(self) -> None:
        """A lock that is taken is not given again; the lock of another key is free, and locking sets nothing."""
        async with self.open_store() as store:
            key, other = new_key(), new_key()
            token = await store.lock(key, ttl=600)
            assert token is not None
            assert await store.lock(key, ttl=600) is None
            assert await store.lock(other, ttl=600) not in (None, token)
            assert await store.get(key, now=NOW) is None

    async def test_a_lock_does_not_lock_the_value(self) -> None:
        """Under a lock the value can be read, replaced and deleted, and the lock stays."""
        async with self.open_store() as store:
            key = new_key()
            await create(store, key, "first")
            assert await store.lock(key, ttl=600)
            assert await replace(store, key, "second", 1) == 2
            assert await store.get(key, now=NOW) == StoredSession("second", 2, NOW)
            await store.delete(key)
            assert await store.lock(key, ttl=600) is None

    async def test_only_its_holder_frees_a_lock(self) -> None:
        """A wrong token frees nothing, the right one does, and both are no error where there is no lock."""
        async with self.open_store() as store:
            key = new_key()
            token = await store.lock(key, ttl=600)
            assert token is not None
            await store.unlock(key, secrets.token_hex(16))
            assert await store.lock(key, ttl=600) is None
            await store.unlock(key, token)
            await store.unlock(key, token)
            assert await store.lock(key, ttl=600)

    async def test_a_lock_frees_itself(self) -> None:
        """Its time over, somebody else may take it, whom the first holder cannot free."""
        async with self.open_store() as store:
            key = new_key()
            first = await store.lock(key, ttl=0.1)
            assert first is not None
            tokens: list[str | None] = []

            async def taken() -> bool:
                tokens.append(await store.lock(key, ttl=600))
                return tokens[-1] is not None

            await self.until(taken)
            assert tokens[-1] != first
            await store.unlock(key, first)
            assert await store.lock(key, ttl=600) is None

    async def test_the_index_names_keys(self) -> None:
        """A key is found under each name that it was noted under, and under no other."""
        async with self.open_store() as store:
            one, two = new_key(), new_key()
            user, device = f"sub:{new_key()}", f"sid:{new_key()}"
            await create(store, one, "one", index=[user, device])
            await create(store, two, "two", index=[user])
            await create(store, new_key(), "three")
            assert sorted(await store.find(user)) == sorted([one, two])
            assert await store.find(device) == [one]
            assert await store.find(f"sub:{new_key()}") == []

    async def test_a_replacement_may_be_noted_anew(self) -> None:
        """A key is noted once, however often it is set, and a replacement may add a name."""
        async with self.open_store() as store:
            key, user, device = new_key(), f"sub:{new_key()}", f"sid:{new_key()}"
            await create(store, key, "first", index=[user])
            await replace(store, key, "second", 1, index=[user, device])
            assert await store.find(user) == [key]
            assert await store.find(device) == [key]

    async def test_a_replacement_keeps_its_names(self) -> None:
        """The names of a replacement are added to those before: without any, and with others, the key stays noted."""
        async with self.open_store() as store:
            key, user, device = new_key(), f"sub:{new_key()}", f"sid:{new_key()}"
            await create(store, key, "first", index=[user])
            await replace(store, key, "second", 1)
            assert await store.find(user) == [key]
            await replace(store, key, "third", 2, index=[device])
            assert await store.find(user) == [key]
            assert await store.find(device) == [key]

    async def test_deleting_removes_from_the_index(self) -> None:
        """The names that a deletion gives forget the key; others' keys stay."""
        async with self.open_store() as store:
            one, two, user = new_key(), new_key(), f"sub:{new_key()}"
            await create(store, one, "one", index=[user])
            await create(store, two, "two", index=[user])
            await store.delete(one, index=[user, f"sid:{new_key()}"])
            assert await store.find(user) == [two]

    async def test_entries_of_the_index_end(self) -> None:
        """An entry is gone when its session's `ends_at` has come, and a later one under the same name stays."""
        async with self.open_store() as store:
            brief, lasting, user = new_key(), new_key(), f"sub:{new_key()}"
            await create(store, brief, "brief", ends_at=NOW + 1, index=[user])
            await create(store, lasting, "lasting", index=[user])

            async def ended() -> bool:
                return await store.find(user) == [lasting]

            await self.until(ended)

    async def test_one_of_many_replacements_wins(self) -> None:
        """Of fifty at once that replace the same revision one succeeds, and its value is kept."""
        async with self.open_store() as store:
            key = new_key()
            await create(store, key, "first")
            answers = await asyncio.gather(*(replace(store, key, f"value {number}", 1) for number in range(50)))
            assert sorted(answers, key=str) == [2, *[None] * 49]
            assert await store.get(key, now=NOW) == StoredSession(f"value {answers.index(2)}", 2, NOW)

    async def test_one_of_many_creations_wins(self) -> None:
        """Of fifty at once that create one key one succeeds: so a sign-in is finished once."""
        async with self.open_store() as store:
            key = new_key()
            answers = await asyncio.gather(*(create(store, key, f"value {number}") for number in range(50)))
            assert sorted(answers, key=str) == [1, *[None] * 49]
            assert await store.get(key, now=NOW) == StoredSession(f"value {answers.index(1)}", 1, NOW)

    async def test_one_of_many_lockers_wins(self) -> None:
        """Of fifty at once one gets the lock."""
        async with self.open_store() as store:
            key = new_key()
            tokens = await asyncio.gather(*(store.lock(key, ttl=600) for _ in range(50)))
            assert sum(token is not None for token in tokens) == 1

    async def test_two_stores_share_their_sessions(self) -> None:
        """What one process sets, touches and deletes, another sees; of two that replace one revision one succeeds."""
        async with self.open_two() as (one, other):
            key, user = new_key(), f"sub:{new_key()}"
            assert await create(one, key, "first", index=[user]) == 1
            assert await create(other, key, "another") is None
            assert await other.get(key, now=NOW + 60, touch=Touch(DAY, 60)) == StoredSession("first", 1, NOW)
            assert await one.get(key, now=NOW + 60) == StoredSession("first", 1, NOW + 60)
            answers = await asyncio.gather(replace(one, key, "of one", 1), replace(other, key, "of the other", 1))
            assert sorted(answers, key=str) == [2, None]
            assert await other.find(user) == [key]
            await other.delete(key, index=[user])
            assert await one.get(key, now=NOW) is None
            assert await one.find(user) == []

    async def test_two_stores_share_their_locks(self) -> None:
        """A lock that one process holds no other gets, until its holder's token frees it, wherever that is shown."""
        async with self.open_two() as (one, other):
            key = new_key()
            token = await one.lock(key, ttl=600)
            assert token is not None
            assert await other.lock(key, ttl=600) is None
            await other.unlock(key, secrets.token_hex(16))
            assert await other.lock(key, ttl=600) is None
            await other.unlock(key, token)
            assert await other.lock(key, ttl=600)
            assert await one.lock(key, ttl=600) is None

    async def test_a_closed_store_opens_again(self) -> None:
        """Closing twice is no error, and a call afterwards works."""
        async with self.open_store() as store:
            await store.aclose()
            await store.aclose()
            assert await create(store, new_key(), "value") == 1

    async def test_the_check_at_start_up(self) -> None:
        """It returns sentences, and a store that can be used raises nothing."""
        async with self.open_store() as store:
            assert all(warning.strip() for warning in await store.check())

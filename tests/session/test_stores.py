"""Facts about the store in one process's memory."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import pytest

from logto_asgi.session.stores import MemoryStore, SessionStore, StoredSession, Touch
from logto_asgi.testing import Clock
from logto_asgi.testing.store_contract import SessionStoreContract
from logto_asgi.testing.store_kit import NOW, create, new_key, replace


async def get(store: MemoryStore, key: str) -> StoredSession | None:
    return await store.get(key, now=NOW)


class TestMemoryStore(SessionStoreContract):
    """MemoryStore keeps the contract of stores."""

    clock: Clock
    # It is of one process, and says so: there are no two that could share anything.
    test_two_stores_share_their_sessions = None  # type: ignore[assignment]
    test_two_stores_share_their_locks = None  # type: ignore[assignment]

    async def make_store(self) -> SessionStore:
        self.clock = Clock()
        return MemoryStore(clock=self.clock)

    async def pass_time(self, seconds: float) -> None:
        self.clock.move(seconds)


async def test_the_least_recently_used_goes_first(caplog: pytest.LogCaptureFixture) -> None:
    """Over max_sessions those go that nobody read or set for longest, and the log says so once."""
    store = MemoryStore(max_sessions=3)
    for key in "abc":
        await create(store, key, key, index=["sub:1"])
    await store.get("a", now=NOW)
    await replace(store, "b", "newer", 1)
    for key in "de":
        await create(store, key, key, index=["sub:1"])
    held = [key for key in "abcde" if await store.get(key, now=NOW)]
    assert held == ["b", "d", "e"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "RedisStore" in caplog.text


async def test_reading_keeps_a_session_in() -> None:
    """A session that is read between new ones outlives any number of them."""
    store = MemoryStore(max_sessions=3)
    await create(store, "read", "value", index=["sub:1"])
    for number in range(50):
        await create(store, f"new {number}", "value", index=["sub:1"])
        assert await store.get("read", now=NOW)


async def test_what_is_nobodys_pushes_out_no_session(caplog: pytest.LogCaptureFixture) -> None:
    """However many values come that no index names, the sessions stay; of those values the oldest go."""
    store = MemoryStore(max_sessions=3)
    for key in "abc":
        await create(store, key, key, index=["sub:1"])
    for number in range(50):
        assert await create(store, f"claim {number}", "value") == 1
    assert await replace(store, "claim 48", "newer", 1) == 2
    await create(store, "claim 50", "value")
    held = [key for key in ("a", "b", "c", *(f"claim {number}" for number in range(51))) if await get(store, key)]
    assert held == ["a", "b", "c", "claim 48", "claim 49", "claim 50"]
    assert caplog.records == []
    await create(store, "d", "d", index=["sub:1"])
    held = [key for key in ("a", "b", "c", "d", "claim 48", "claim 49", "claim 50") if await get(store, key)]
    assert held == ["b", "c", "d", "claim 48", "claim 49", "claim 50"]
    assert len(caplog.records) == 1


async def test_what_is_nobodys_goes_for_no_session() -> None:
    """Too many sessions cost one of theirs, although something that is none was not used for longer."""
    store = MemoryStore(max_sessions=2)
    await create(store, "claim", "value")
    for key in "abc":
        await create(store, key, key, index=["sub:1"])
    assert [key for key in ("claim", "a", "b", "c") if await get(store, key)] == ["claim", "b", "c"]


async def test_a_value_that_gets_a_name_is_a_session(caplog: pytest.LogCaptureFixture) -> None:
    """What an index names from a replacement on counts as a session from then on."""
    store = MemoryStore(max_sessions=2)
    for key in "ab":
        await create(store, key, key)
        await replace(store, key, "newer", 1, index=["sub:1"])
    await create(store, "c", "c", index=["sub:1"])
    assert [key for key in "abc" if await get(store, key)] == ["b", "c"]


async def test_what_is_gone_leaves_nothing_behind() -> None:
    """Sessions that were deleted, expired or made room are forgotten with their index and locks."""
    clock = Clock()
    store = MemoryStore(max_sessions=100, clock=clock)
    for number in range(1_000):
        await create(store, f"{number}", "value", idle=10, index=[f"sub:{number}"])
        await store.lock(f"{number}", ttl=10)
    clock.move(10)
    for number in range(1_000):
        await create(store, "last", f"{number}", now=NOW + 10)
        await store.lock("last", ttl=10)
    await store.delete("last", index=["sub:last"])
    assert repr(store) == "<MemoryStore 0 of 100 sessions>"
    assert (store._index, dict(store._nameless), dict(store._round), list(store._locks)) == ({}, {}, {}, ["last"])


async def test_writes_sweep_behind_a_session_that_lives_long() -> None:
    """What has expired goes although the least recently used session, before it, lives on."""
    store = MemoryStore()
    await create(store, "lives", "value")
    for number in range(100):
        await create(store, f"{number}", "value", idle=10)
    for number in range(50):
        await create(store, f"later {number}", "value", now=NOW + 10)
    assert repr(store) == "<MemoryStore 51 of 100000 sessions>"


async def test_a_lock_frees_itself_among_many() -> None:
    """However many locks there are, one whose time is over is free at once."""
    clock = Clock()
    store = MemoryStore(clock=clock)
    for number in range(20):
        assert await store.lock(f"{number}", ttl=10)
    clock.move(10)
    assert await store.lock("19", ttl=10)
    assert await store.lock("19", ttl=10) is None


async def test_a_deleted_session_leaves_every_name() -> None:
    """Deleting without naming the index removes the key from it all the same."""
    store = MemoryStore()
    await create(store, "a", "value", index=["sub:1"])
    await replace(store, "a", "newer", 1, index=["sid:1"])
    await store.delete("a")
    assert await store.find("sub:1") == await store.find("sid:1") == []


def test_threads_replace_one_revision_once() -> None:
    """Of many threads, each with an event loop, that replace one revision one succeeds, a hundred times over."""
    store = MemoryStore()
    asyncio.run(create(store, "key", "value 0"))
    start = threading.Barrier(8)
    won: list[int] = []

    def run(name: int) -> None:
        start.wait()
        for revision in range(1, 101):
            while True:
                answer = asyncio.run(replace(store, "key", f"{name} {revision}", revision))
                held = asyncio.run(store.get("key", now=NOW))
                assert held is not None
                if answer is not None:
                    won.append(revision)
                if held.revision > revision:
                    break

    threads = [threading.Thread(target=run, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == list(range(1, 101))


@pytest.fixture
def no_signs(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without signs of several workers."""
    for name in ("WEB_CONCURRENCY", "SERVER_SOFTWARE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.usefixtures("no_signs")
async def test_one_process_is_no_reason_to_warn() -> None:
    """A single worker that nothing of Python's started is what the store is for."""
    assert await MemoryStore().check() == []


@pytest.mark.parametrize(
    ("name", "value", "warns"),
    [
        ("WEB_CONCURRENCY", "4", True),
        ("WEB_CONCURRENCY", "1", False),
        ("WEB_CONCURRENCY", "auto", False),
        ("SERVER_SOFTWARE", "gunicorn/23.0.0", True),
        ("SERVER_SOFTWARE", "uvicorn", False),
    ],
)
async def test_signs_of_several_workers(no_signs: pytest.MonkeyPatch, name: str, value: str, warns: bool) -> None:
    """What servers put into the environment is noticed, and the warning names the sign and the remedy."""
    no_signs.setenv(name, value)
    warnings = await MemoryStore().check()
    assert bool(warnings) is warns
    assert all("RedisStore" in warning and ("gunicorn" in warning or value in warning) for warning in warnings)


def warnings_of_a_child(*command: str) -> str:
    """Return what a process says that multiprocessing started, as uvicorn's are, for this command line."""
    script = """
import asyncio, multiprocessing, os
from logto_asgi.session.stores import MemoryStore
os.environ.pop("WEB_CONCURRENCY", None)
os.environ.pop("SERVER_SOFTWARE", None)
def warn(queue): queue.put(asyncio.run(MemoryStore().check()))
context = multiprocessing.get_context("fork")
queue = context.Queue()
context.Process(target=warn, args=(queue,)).start()
print(*queue.get())
"""
    words = [sys.executable, "-c", script, *command]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("app:app --workers 4", "seems to be one of several (--workers 4)"),
        ("app:app --workers=2 --reload-dir x", "seems to be one of several (--workers 2)"),
        ("run -w 3", "seems to be one of several (--workers 3)"),
        ("", "Is this one of several workers?"),
        ("app:app", "Is this one of several workers?"),
        ("app:app --workers many", "Is this one of several workers?"),
        ("app:app --workers", "Is this one of several workers?"),
    ],
)
def test_a_child_process_warns(command: str, said: str) -> None:
    """A worker that multiprocessing started may have siblings: it is asked, or said where the command line says so."""
    warning = warnings_of_a_child(*command.split())
    assert said in warning
    assert "RedisStore" in warning


@pytest.mark.parametrize("command", ["app:app --reload", "dev main.py", "app:app --workers 1"])
def test_a_reloaded_process_is_alone(command: str) -> None:
    """The only worker, started anew when code changes, is what the store is for."""
    assert warnings_of_a_child(*command.split()).strip() == ""


@pytest.mark.usefixtures("no_signs")
async def test_words_of_another_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command line counts for what it started only."""
    monkeypatch.setattr(sys, "argv", ["pytest", "--workers", "4"])
    assert await MemoryStore().check() == []


def test_values_do_not_show() -> None:
    """Neither what a store holds nor the store itself prints a value."""
    held = StoredSession("sealed", 1, NOW)
    assert "sealed" not in repr(held)
    store = MemoryStore()
    asyncio.run(create(store, new_key(), "sealed"))
    assert "sealed" not in repr(store)


def test_no_room_at_all_is_refused() -> None:
    """A store for no session is a mistake."""
    with pytest.raises(ValueError, match="max_sessions"):
        MemoryStore(max_sessions=0)


class Unlike(MemoryStore):
    """A store that is wrong in one way; see its kinds."""

    places: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, MemoryStore]] = WeakKeyDictionary()

    def __init__(self) -> None:
        super().__init__()
        shared = self.places.setdefault(asyncio.get_running_loop(), MemoryStore())
        self.__dict__.update(shared.__dict__)


class ForgetsNames(Unlike):
    """Takes the index of a replacement for the whole of it, as two columns of a row would."""

    async def set(self, key: str, value: str, *, index: Sequence[str] = (), **more: Any) -> int | None:
        self._unnote(key, [name for name in self._index if name not in index])
        return await super().set(key, value, index=index, **more)


class WritesRowsBack(Unlike):
    """Touches by reading a row and, later, writing all of it."""

    async def get(self, key: str, *, now: int, touch: Touch | None = None) -> StoredSession | None:
        row = self._kept.get(key)
        found = await super().get(key, now=now, touch=touch)
        if row is not None and found is not None and touch is not None and now > found.touched_at:
            await asyncio.sleep(0)
            self._kept[key] = row
        return found


class LocksAlone(Unlike):
    """Keeps the locks of one process."""

    def __init__(self) -> None:
        super().__init__()
        self._locks = OrderedDict()


class SharesNothing(MemoryStore):
    """Keeps everything in one process, and does not say so."""


class GoesByItsOwnClock(Unlike):
    """Takes the machine's time for the app's."""

    async def get(self, key: str, *, now: int, touch: Touch | None = None) -> StoredSession | None:
        return await super().get(key, now=int(time.time()), touch=touch)


@pytest.mark.parametrize(
    ("kind", "noticed_by"),
    [
        (ForgetsNames, "test_a_replacement_keeps_its_names"),
        (WritesRowsBack, "test_a_touch_beside_a_deletion_never_brings_back"),
        (WritesRowsBack, "test_a_touch_beside_a_replacement_keeps_the_new_value"),
        (LocksAlone, "test_two_stores_share_their_locks"),
        (SharesNothing, "test_two_stores_share_their_sessions"),
        (SharesNothing, "test_two_stores_share_their_locks"),
        (GoesByItsOwnClock, "test_an_idle_session_expires"),
    ],
)
async def test_the_contract_notices(kind: type[MemoryStore], noticed_by: str) -> None:
    """A store that is wrong in a way that looks right fails the test made for it; the same store without it passes."""

    class Suite(SessionStoreContract):
        def __init__(self, kind: type[MemoryStore]) -> None:
            self.kind = kind

        async def make_store(self) -> SessionStore:
            return self.kind()

    await getattr(Suite(Unlike), noticed_by)()
    with pytest.raises(AssertionError):
        await getattr(Suite(kind), noticed_by)()


def test_a_failing_contract_shows_values(tmp_path: Path) -> None:
    """Whoever writes a store reads what it answered, not just that it was wrong."""
    suite = """
from logto_asgi import MemoryStore
from logto_asgi.testing import SessionStoreContract

class Store(MemoryStore):
    async def set(self, key, value, **more):
        await super().set(key, value, **more)
        return 4321

class TestStore(SessionStoreContract):
    async def make_store(self):
        return Store()
"""
    (tmp_path / "test_store.py").write_text(suite, "utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n", "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "what_is_created", "test_store.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert "assert 4321 == 1" in done.stdout, done.stdout + done.stderr


def test_the_contract_needs_no_pytest() -> None:
    """Importing it brings no pytest along, so the demo starts without."""
    script = "import sys, logto_asgi.testing; sys.exit('pytest' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], timeout=120, check=True)

"""Facts about the mapping that forgets, and the cache of opened cookies."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

from logto_asgi.models import Session
from logto_asgi.session.bounded import Bounded
from logto_asgi.session.in_cookie.backend import CookieBackend
from logto_asgi.session.in_cookie.opened import OpenedCache


@dataclass(slots=True)
class Item:
    cost: int = 1
    expires_at: float = 1_000.0
    used: bool = False


def test_never_over_the_limit() -> None:
    """The oldest goes when there is no room, and the cost is that of what is left."""
    kept: Bounded[int, Item] = Bounded(10)
    for key in range(100):
        kept.put(key, Item(cost=3), now=0)
    assert (len(kept), kept.cost) == (3, 9)
    assert kept.get(99)


def test_used_entries_stay_once() -> None:
    """What was read since it was last looked at outlives what nobody read."""
    kept: Bounded[str, Item] = Bounded(2)
    kept.put("a", Item(used=True), now=0)
    kept.put("b", Item(), now=0)
    kept.put("c", Item(), now=0)
    assert kept.get("a")
    assert kept.get("b") is None


def test_larger_than_the_limit() -> None:
    """What is larger than the whole limit is not kept, used or not."""
    kept: Bounded[str, Item] = Bounded(2)
    kept.put("a", Item(cost=3, used=True), now=0)
    assert (len(kept), kept.cost) == (0, 0)


def test_replacing_counts_once() -> None:
    """A key put twice costs what it costs now."""
    kept: Bounded[str, Item] = Bounded(10)
    kept.put("a", Item(cost=7), now=0)
    kept.put("a", Item(cost=2), now=0)
    kept.drop("unknown")
    assert (len(kept), kept.cost) == (1, 2)


def test_expired_entries_go_with_new_ones() -> None:
    """Expired entries at the old end leave when another one comes."""
    kept: Bounded[str, Item] = Bounded(10)
    for key in "abc":
        kept.put(key, Item(expires_at=5, used=True), now=0)
    kept.put("d", Item(), now=5)
    assert kept.get("a") is None
    assert kept.get("b") is None


def test_drop_all() -> None:
    """Entries can be dropped by what they hold, and their cost goes with them."""
    kept: Bounded[int, Item] = Bounded(100)
    for key in range(4):
        kept.put(key, Item(cost=key), now=0)
    kept.drop_all(lambda item: item.cost > 1)
    assert (len(kept), kept.cost) == (2, 1)


def test_opened_cookies_cost_what_they_take(
    backend: CookieBackend, make_session: Callable[..., Session], sign_in: Callable[..., object], make_browser: type
) -> None:
    """What the cache counts for an entry is no less than the memory that it takes, within a fifth."""
    browsers = [make_browser() for _ in range(60)]
    for browser in browsers:
        sign_in(backend, browser, make_session(padding=500, tokens=1))
    sent = [browser.headers for browser in browsers]
    backend.load(sent.pop())
    before = backend._opened.cost
    tracemalloc.start()
    for headers in sent:
        backend.load(headers)
    gc.collect()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert backend._opened.cost - before > taken * 0.8


def test_opened_cookies_are_bounded(make_session: Callable[..., Session]) -> None:
    """Twenty thousand different cookies never take more than 16 MiB by that count."""
    cache, session = OpenedCache(), make_session()
    for number in range(20_000):
        cache.add(str(number).encode() * 300, session, expires_at=10, now=0)
    assert cache.cost <= 16 * 1024 * 1024
    assert len(cache) > 1_000

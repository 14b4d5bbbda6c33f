"""Facts about sessions that live in a store, as requests see them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from faulty_store import FaultyStore

from logto_asgi.claims import IdTokenClaims
from logto_asgi.config import LogtoConfig
from logto_asgi.errors import SessionTooLarge, StoreFull, StoreUnavailable
from logto_asgi.events import Events
from logto_asgi.models import Session
from logto_asgi.session.backend import Saved, SessionBackend
from logto_asgi.session.in_cookie.backend import CookieBackend
from logto_asgi.session.in_store.backend import StoreBackend
from logto_asgi.session.in_store.records import key_of
from logto_asgi.session.loaded import Loaded
from logto_asgi.session.redis import RedisStore

SECRET = "qPz2mW7tKx9dLr4vHs8bYn3cJf6gTu1a"
OTHER_SECRET = "Zk5rQe8wNi2xVo7cBm4jDy9pSh3fLt6u"
NAME = "__Host-logto_d1437d2e5c54"
DAY = 86_400
START = 1_700_000_000

Make = Callable[..., Session]


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore()


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def process(
    store: FaultyStore, make_config: Callable[..., LogtoConfig], clock: Any, events: Events
) -> Callable[..., StoreBackend]:
    """Return another process of the same app, or of one with other settings."""

    def make(**arguments: Any) -> StoreBackend:
        return StoreBackend(make_config(**arguments), store, clock=clock, events=events)

    return make


@pytest.fixture
def backend(process: Callable[..., StoreBackend]) -> StoreBackend:  # type: ignore[override]
    return process()


async def sign_in(backend: StoreBackend, browser: Any, session: Session) -> list[str]:
    loaded = backend.load(browser.headers)
    await backend.start(session)
    loaded.session = session
    return respond(backend, browser, loaded)


def respond(backend: StoreBackend, browser: Any, loaded: Loaded, *, may_roll: bool = True) -> list[str]:
    lines = backend.headers_to_send(loaded, may_roll=may_roll)
    browser.receive(lines)
    return lines


async def request(backend: StoreBackend, browser: Any) -> Loaded:
    loaded = backend.load(browser.headers)
    await backend.read(loaded)
    return loaded


def restart(process: Callable[..., StoreBackend]) -> StoreBackend:
    """Return a process that has seen nothing yet."""
    return process()


async def refresh(backend: StoreBackend, session: Session, **fields: Any) -> Session:
    async with backend.turn(session, lambda newest: False) as turn:
        await turn.depart()
        version = turn.session.version + 1
        successor = replace(turn.session, **({"version": version, "refresh_token": f"refresh_{version}"} | fields))
        assert await turn.save(successor, spent=turn.session.refresh_token) is Saved.KEPT
        return turn.session


def with_claims(session: Session, **claims: Any) -> Session:
    return replace(session, claims=IdTokenClaims.parse({**session.claims.raw(), **claims}))


# -- The cookie --------------------------------------------------------------------------------------------------------


def test_is_a_backend(backend: StoreBackend) -> None:
    """It has everything that is asked of a backend."""
    typed: SessionBackend = backend
    assert typed.remote


async def test_signed_in(backend: StoreBackend, browser: Any, make_session: Make) -> None:
    """What a sign-in stores, the next request reads."""
    session = make_session(tokens=2)
    await sign_in(backend, browser, session)
    loaded = await request(backend, browser)
    assert (loaded.session, loaded.presented, loaded.problem, loaded.id) == (session, session, None, None)
    assert respond(backend, browser, loaded) == []


async def test_signed_in_elsewhere(process: Callable[..., StoreBackend], browser: Any, make_session: Make) -> None:
    """Another process reads what one has stored."""
    session = make_session(tokens=2)
    await sign_in(process(), browser, session)
    assert (await request(process(), browser)).session == session


async def test_cookie_holds_a_signed_id_and_nothing_else(
    backend: StoreBackend, browser: Any, make_session: Make
) -> None:
    """The one cookie is an id and a signature, written with what a session cookie needs."""
    session = make_session(tokens=2)
    [line] = await sign_in(backend, browser, session)
    value, *attributes = line.split("; ")
    assert attributes == [f"Max-Age={30 * DAY}", "Path=/", "HttpOnly", "SameSite=Lax", "Secure"]
    assert value.startswith(f"{NAME}={session.id}.")
    assert len(value) == len(NAME) + 1 + 87


async def test_max_age_is_what_is_left(backend: StoreBackend, browser: Any, clock: Any, make_session: Make) -> None:
    """A cookie written late lives no longer than its session."""
    session = make_session()
    await backend.start(session)
    clock.now += 29 * DAY
    loaded = backend.load([])
    loaded.session = session
    assert f"Max-Age={DAY};" in backend.headers_to_send(loaded, may_roll=True)[0]
    clock.now += DAY
    assert backend.headers_to_send(loaded, may_roll=True) == []


async def test_an_outdated_signature_is_renewed(
    process: Callable[..., StoreBackend], browser: Any, clock: Any, make_session: Make
) -> None:
    """The id is written again when an older secret signed it, where the response may, and then no more."""
    await sign_in(process(cookie_secret=[SECRET]), browser, make_session())
    backend = process(cookie_secret=[OTHER_SECRET, SECRET])
    loaded = await request(backend, browser)
    assert respond(backend, browser, loaded, may_roll=False) == []
    clock.now += 5.5
    assert respond(backend, browser, loaded) == []
    loaded = await request(backend, browser)
    [line] = respond(backend, browser, loaded)
    assert f"Max-Age={30 * DAY - 6}" in line
    assert respond(backend, browser, await request(backend, browser)) == []
    assert (await request(process(cookie_secret=[OTHER_SECRET, SECRET]), browser)).session is not None


async def test_no_cookie(backend: StoreBackend, store: FaultyStore) -> None:
    """Without a cookie there is nothing to read, and nothing to say."""
    loaded = backend.load([(b"cookie", b"theme=dark")])
    await backend.read(loaded)
    assert (loaded.session, loaded.id, loaded.problem, loaded.clear) == (None, None, None, False)
    assert store.calls == []


@pytest.mark.parametrize("value", ["", "x", "a" * 43, "a" * 9_000, f"{'i' * 43}.{'s' * 44}"])
def test_malformed_cookies(backend: StoreBackend, value: str) -> None:
    """What is no id of ours is anonymous, is never looked up, and is left alone."""
    loaded = backend.load([(b"cookie", f"{NAME}={value}".encode())])
    assert (loaded.id, loaded.problem, loaded.clear) == (None, "malformed", False)


def test_unknown_signature(backend: StoreBackend, process: Callable[..., StoreBackend]) -> None:
    """An id signed by an unknown secret is anonymous and left alone: in a deploy it is a newer worker's."""
    value = process(cookie_secret=OTHER_SECRET)._ids.sign("i" * 43)
    loaded = backend.load([(b"cookie", f"{NAME}={value}".encode())])
    assert (loaded.id, loaded.problem, loaded.clear) == (None, "unknown_key", False)


@pytest.mark.parametrize("padding", [0, 4_000])
async def test_sealed_cookies_are_left_over(
    config: LogtoConfig, clock: Any, browser: Any, backend: StoreBackend, make_session: Make, padding: int
) -> None:
    """A session of cookie mode is anonymous and cleared with all its chunks."""
    cookies = CookieBackend(config, clock=clock)
    loaded = cookies.load([])
    loaded.session = make_session(padding=padding)
    await_started = cookies.start(loaded.session)
    if await_started is not None:
        await await_started
    browser.receive(cookies.headers_to_send(loaded, may_roll=True))
    assert len(browser.cookies) == (1 if padding == 0 else 2)
    loaded = await request(backend, browser)
    assert (loaded.session, loaded.problem) == (None, "sealed")
    respond(backend, browser, loaded)
    assert browser.cookies == {}


async def test_sign_in_clears_left_over_chunks(backend: StoreBackend, make_browser: Any, make_session: Make) -> None:
    """A sign-in deletes chunks of a longer value."""
    browser = make_browser(**{NAME: "c2.abcdefgh.x", f"{NAME}.1": "abcdefgh.y"})
    await sign_in(backend, browser, make_session())
    assert list(browser.cookies) == [NAME]


def test_a_doubled_cookie_is_not_deleted(backend: StoreBackend) -> None:
    """Of two cookies with our name nobody knows which a deletion would hit."""
    value = f"{NAME}=c1.abcdefgh.x; {NAME}=c1.abcdefgh.y".encode()
    assert not backend.load([(b"cookie", value)]).clear


# -- What lies in the store --------------------------------------------------------------------------------------------


async def test_a_dump_tells_nothing(
    backend: StoreBackend, browser: Any, store: FaultyStore, make_session: Make
) -> None:
    """Neither keys nor values nor index names of a store hold an id, a token, or anything about the user."""
    session = with_claims(make_session(tokens=1), sid="issuer-session")
    await sign_in(backend, browser, session)
    dump = repr(store.inside._kept) + repr(store.values) + repr(store.inside._index)
    token = next(iter(session.access_tokens.values())).value
    for secret in (session.id, session.refresh_token, token, session.claims.sub, "issuer-session", "Ada Ĺovelace"):
        assert secret
        assert secret not in dump


async def test_a_copied_record_does_not_open(
    backend: StoreBackend,
    process: Callable[..., StoreBackend],
    make_browser: Any,
    store: FaultyStore,
    make_session: Make,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whoever can write to the store cannot give one user's session to another: that one is signed out."""
    ada, eve = make_session(), make_session()
    browsers = make_browser(), make_browser()
    await sign_in(backend, browsers[0], ada)
    await sign_in(backend, browsers[1], eve)
    store.put(key_of(eve.id), store.values[key_of(ada.id)])
    other = process()
    loaded = await request(other, browsers[1])
    assert (loaded.session, loaded.problem, loaded.clear) == (None, "copied", True)
    assert key_of(eve.id) not in store.values
    assert (await request(other, browsers[0])).session == ada
    assert "copied" in caplog.text


@pytest.mark.parametrize("value", ["?", "a.b.c.d.e"])
async def test_garbage(
    backend: StoreBackend,
    browser: Any,
    store: FaultyStore,
    events: Events,
    make_session: Make,
    caplog: pytest.LogCaptureFixture,
    value: str,
) -> None:
    """Garbage under a key makes its session anonymous; unless it may be a newer worker's it is removed, logged once."""
    session = make_session()
    await sign_in(backend, browser, session)
    store.put(key_of(session.id), value)
    loaded = await request(backend, browser)
    if value == "?":
        assert (loaded.session, loaded.problem, loaded.clear) == (None, "malformed", True)
        assert store.values == {}
        await request(backend, browser)
        assert len(caplog.records) == events.counts["record.refused"] == 1
    else:
        assert (loaded.session, loaded.problem, loaded.clear) == (None, "unknown_key", False)
        assert store.values
        assert not caplog.records


async def test_tampered(backend: StoreBackend, browser: Any, store: FaultyStore, make_session: Make) -> None:
    """A record changed by one character is removed, and its cookie cleared."""
    session = make_session()
    await sign_in(backend, browser, session)
    value = store.values[key_of(session.id)]
    store.put(key_of(session.id), value[:-30] + ("A" if value[-30] != "A" else "B") + value[-29:])
    loaded = await request(backend, browser)
    assert (loaded.problem, loaded.clear) == ("tampered", True)


async def test_a_record_of_another_purpose(
    backend: StoreBackend, browser: Any, store: FaultyStore, make_session: Make
) -> None:
    """A sign-in's outcome is no session, not even under the session's key."""
    session = make_session()
    await sign_in(backend, browser, session)
    key = key_of(session.id)
    records = backend._keeper.records
    store.put(key, records._sealer.seal({"k": key, "c": [START, None, None]}))
    assert (await request(backend, browser)).problem == "malformed"


async def test_a_newer_workers_record(
    process: Callable[..., StoreBackend], browser: Any, store: FaultyStore, make_session: Make
) -> None:
    """A record under an unknown secret is anonymous for this request, and nothing is cleared or deleted."""
    await sign_in(process(), browser, make_session())
    newer, older = process(cookie_secret=[SECRET, OTHER_SECRET]), process()
    for key, value in store.values.items():
        session = newer._keeper.records.open(key, value).session  # type: ignore[union-attr]
        sealed = process(cookie_secret=OTHER_SECRET)._keeper.records.seal_session(key, session, saved_at=START)
        store.put(key, sealed)
    loaded = await request(older, browser)
    assert (loaded.session, loaded.problem, loaded.clear) == (None, "unknown_key", False)
    assert (await request(newer, browser)).session is not None


async def test_access_tokens_beyond_48_kib(backend: StoreBackend, browser: Any, make_session: Make) -> None:
    """The least recently used access tokens are left out of a record that grows too large."""
    session = make_session(tokens=60, token_size=900)
    await sign_in(backend, browser, session)
    backend._keeper.known.drop(key_of(session.id))
    loaded = await request(backend, browser)
    assert loaded.session is not None
    kept = sorted(token.used_at for token in loaded.session.access_tokens.values())
    assert 20 < len(kept) < 60
    assert kept == list(range(60 - len(kept), 60))


async def test_claims_too_large(backend: StoreBackend, store: FaultyStore, make_session: Make) -> None:
    """Claims that alone are too large fail at sign-in, and the error says what to do."""
    with pytest.raises(SessionTooLarge, match="fewer scopes") as caught:
        await backend.start(make_session(padding=50_000))
    assert "cookie" not in str(caught.value)
    assert caught.value.__context__ is None
    await backend.start(make_session(padding=40_000))


async def test_opened_once(backend: StoreBackend, browser: Any, make_session: Make) -> None:
    """The same record is opened once per process: requests share one session object."""
    await sign_in(backend, browser, make_session())
    first, second = await request(backend, browser), await request(backend, browser)
    assert first.session is second.session


# -- Lifetimes ---------------------------------------------------------------------------------------------------------


async def test_one_round_trip(backend: StoreBackend, browser: Any, store: FaultyStore, make_session: Make) -> None:
    """A signed-in request asks the store once."""
    await sign_in(backend, browser, make_session())
    store.calls.clear()
    await request(backend, browser)
    assert store.calls == ["get"]


@pytest.mark.parametrize(("seconds", "alive"), [(59, True), (60, False)])
async def test_idle_lifetime(
    process: Callable[..., StoreBackend],
    browser: Any,
    store: FaultyStore,
    clock: Any,
    make_session: Make,
    seconds: int,
    alive: bool,
) -> None:
    """A session ends after its idle lifetime, also where the store kept it for longer."""
    backend = process(idle_lifetime=60)
    session = make_session()
    await sign_in(backend, browser, session)
    for kept in store.inside._kept.values():
        kept.expires_at += DAY
    clock.now += seconds
    loaded = await request(backend, browser)
    assert (loaded.session is not None) is alive
    if not alive:
        assert (loaded.problem, loaded.clear) == ("expired", True)
        assert store.values == {}
        assert store.inside._index == {}


async def test_use_extends_the_idle_lifetime(
    process: Callable[..., StoreBackend], browser: Any, clock: Any, make_session: Make
) -> None:
    """A session in use outlives its idle lifetime many times over."""
    backend = process(idle_lifetime=60)
    await sign_in(backend, browser, make_session())
    for _ in range(5):
        clock.now += 59
        assert (await request(backend, browser)).session is not None
    clock.now += 60
    assert (await request(backend, browser)).session is None


@pytest.mark.parametrize(("seconds", "alive"), [(99, True), (100, False)])
async def test_absolute_lifetime(
    process: Callable[..., StoreBackend],
    browser: Any,
    store: FaultyStore,
    clock: Any,
    make_session: Make,
    seconds: int,
    alive: bool,
) -> None:
    """A session in use ends at its absolute end all the same, also where the store kept it for longer."""
    backend = process(idle_lifetime=60, absolute_lifetime=100)
    await sign_in(backend, browser, make_session())
    clock.now += 50
    await request(backend, browser)
    for kept in store.inside._kept.values():
        kept.ends_at += DAY
        kept.expires_at += DAY
    clock.now += seconds - 50
    assert ((await request(backend, browser)).session is not None) is alive


async def test_absent(backend: StoreBackend, browser: Any, store: FaultyStore, clock: Any, make_session: Make) -> None:
    """A session that is not there is anonymous; its cookie goes when that has been so for a minute."""
    session = make_session()
    await sign_in(backend, browser, session)
    store.restore({})
    loaded = await request(backend, browser)
    assert (loaded.session, loaded.problem, loaded.clear) == (None, "ended", False)
    clock.now += 59
    assert not (await request(backend, browser)).clear
    clock.now += 1
    late = await request(backend, browser)
    loaded = await request(backend, browser)
    assert respond(backend, browser, loaded)
    assert browser.cookies == {}
    clock.now += 5.5
    assert backend.headers_to_send(late, may_roll=True) == []


# -- The end of a session ----------------------------------------------------------------------------------------------


async def test_end(process: Callable[..., StoreBackend], browser: Any, clock: Any, make_session: Make) -> None:
    """An ended session has ended in every process, whatever it knew, and stays so."""
    session = make_session()
    here, there = process(), process()
    await sign_in(here, browser, session)
    assert (await request(there, browser)).session is not None
    assert await here.end(session) == session
    for backend in (here, there):
        loaded = await request(backend, browser)
        assert (loaded.session, loaded.problem, loaded.clear) == (None, "ended", False)
        assert await backend.current(session) is None
    clock.now += DAY
    assert (await request(process(), browser)).session is None


async def test_end_returns_the_newest_state(process: Callable[..., StoreBackend], make_session: Make) -> None:
    """Whoever ends a session by an old state learns the newest, whose refresh token is to be revoked."""
    session = make_session()
    here, there = process(), process()
    await here.start(session)
    newest = await refresh(there, session)
    assert await here.end(session) == newest


async def test_end_where_the_store_is_full(backend: StoreBackend, store: FaultyStore, make_session: Make) -> None:
    """A full store takes no tombstone, and the session ends all the same, with its index."""
    session = make_session()
    await backend.start(session)
    store.full = True
    await backend.end(session)
    assert store.values == {}
    assert store.inside._index == {}


async def test_end_while_others_write(
    process: Callable[..., StoreBackend], store: FaultyStore, make_session: Make
) -> None:
    """Ending tries again where somebody saved in between, and returns what was saved."""
    session = make_session()
    here, there = process(), process()
    await here.start(session)
    store_calls = 0

    async def interfere(name: str) -> None:
        nonlocal store_calls
        store_calls += name == "set"
        if name == "set" and store_calls == 1:
            await refresh(there, session)

    store.before = interfere
    assert (await here.end(session)).version == 2
    assert await process().current(session) is None


async def test_end_without_the_store(
    backend: StoreBackend, browser: Any, store: FaultyStore, make_session: Make
) -> None:
    """Where the store is away nothing is said to have ended."""
    session = make_session()
    await sign_in(backend, browser, session)
    store.go_down()
    with pytest.raises(StoreUnavailable):
        await backend.end(session)
    store.come_back()
    backend._store._down_since = None
    assert (await request(backend, browser)).session == session


async def test_no_cookie_for_an_ended_session(backend: StoreBackend, browser: Any, make_session: Make) -> None:
    """Nothing is written for a session that ended before its response began."""
    session = make_session()
    await backend.start(session)
    loaded = backend.load([])
    loaded.session = session
    await backend.end(session)
    assert respond(backend, browser, loaded) == []


async def test_slow_response_across_a_sign_in(
    process: Callable[..., StoreBackend], browser: Any, make_session: Make
) -> None:
    """A response that began as one user writes nothing over the sign-in of another."""
    ada, eve = make_session(), make_session()
    await sign_in(process(cookie_secret=SECRET), browser, ada)
    backend = process(cookie_secret=[OTHER_SECRET, SECRET])
    slow = await request(backend, browser)
    await sign_in(backend, browser, eve)
    await backend.end(ada, replaced=True)
    assert respond(backend, browser, slow) == []
    assert (await request(backend, browser)).session == eve


async def test_sign_out_clears_the_cookie(backend: StoreBackend, browser: Any, make_session: Make) -> None:
    """A response that signs out deletes the cookie."""
    await sign_in(backend, browser, make_session())
    loaded = await request(backend, browser)
    assert loaded.session
    await backend.end(loaded.session)
    loaded.session, loaded.clear = None, True
    respond(backend, browser, loaded)
    assert browser.cookies == {}


# -- The newest state --------------------------------------------------------------------------------------------------


async def test_current_without_asking(
    process: Callable[..., StoreBackend], store: FaultyStore, clock: Any, make_session: Make
) -> None:
    """For 5 seconds the newest state is known without asking; then another process may have saved a newer one."""
    session = make_session()
    here, there = process(), process()
    await here.start(session)
    newest = await refresh(there, session)
    store.calls.clear()
    clock.now += 5
    assert await here.current(session) == session
    assert store.calls == []
    clock.now += 0.1
    assert await here.current(session) == newest
    assert store.calls == ["get"]
    assert here.newest(session.id) == newest


async def test_current_ends_in_time(process: Callable[..., StoreBackend], clock: Any, make_session: Make) -> None:
    """What is known without asking ends at its absolute end too."""
    backend = process(absolute_lifetime=100)
    session = make_session()
    await backend.start(session)
    clock.now += 97
    assert await backend.current(session) == session
    clock.now += 3
    assert await backend.current(session) is None


async def test_a_store_set_back_is_healed(
    process: Callable[..., StoreBackend],
    browser: Any,
    store: FaultyStore,
    events: Events,
    make_session: Make,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A store restored from an older snapshot gets back what this process saved since, by its name and its index."""
    session = make_session()
    backend = process()
    await sign_in(backend, browser, session)
    snapshot = store.snapshot()
    newest = await refresh(backend, session)
    store.restore(snapshot)
    assert (await request(backend, browser)).session == newest
    assert (await request(process(), browser)).session == newest
    assert events.counts["store.healed"] == 1
    assert "older state" in caplog.text


async def test_absent_stays_absent(backend: StoreBackend, browser: Any, store: FaultyStore, make_session: Make) -> None:
    """A session that a store has lost altogether is not brought back: it may have been ended."""
    session = make_session()
    await sign_in(backend, browser, session)
    await refresh(backend, session)
    store.restore({})
    assert (await request(backend, browser)).session is None
    assert store.values == {}


async def test_ended_stays_ended_in_a_store_set_back(
    backend: StoreBackend, browser: Any, store: FaultyStore, make_session: Make
) -> None:
    """A session ended here does not come back to life with an older snapshot."""
    session = make_session()
    await sign_in(backend, browser, session)
    snapshot = store.snapshot()
    await backend.end(session)
    store.restore(snapshot)
    assert (await request(backend, browser)).session is None


async def test_ended_while_it_was_read(
    backend: StoreBackend, browser: Any, store: FaultyStore, make_session: Make
) -> None:
    """An answer that was on its way while the session ended signs nobody in."""
    session = make_session()
    await sign_in(backend, browser, session)

    async def end(name: str) -> None:
        store.after = None
        await backend.end(session)

    store.after = end
    loaded = await request(backend, browser)
    assert (loaded.session, loaded.problem) == (None, "ended")


async def test_what_was_saved_after_a_restore_counts(
    process: Callable[..., StoreBackend], browser: Any, store: FaultyStore, clock: Any, make_session: Make
) -> None:
    """Where another process went on from an older snapshot, its state is newer than one of before, whatever counts."""
    session = make_session()
    here, there = process(), process()
    await sign_in(here, browser, session)
    snapshot = store.snapshot()
    await refresh(here, await refresh(here, session))
    store.restore(snapshot)
    clock.now += 10
    newest = await refresh(there, session, refresh_token="after")
    assert newest.version == 2
    assert (await request(here, browser)).session == newest


async def test_records_are_sealed_anew(
    process: Callable[..., StoreBackend], browser: Any, clock: Any, store: FaultyStore, make_session: Make
) -> None:
    """A record under an older secret is sealed under the first when its touch is due, so that the older can go."""
    session = make_session()
    await sign_in(process(), browser, session)
    both = process(cookie_secret=[OTHER_SECRET, SECRET])
    sealed = store.values
    clock.now += 599
    respond(both, browser, await request(both, browser))
    assert store.values == sealed
    clock.now += 1
    await request(both, browser)
    assert store.values != sealed
    new = process(cookie_secret=OTHER_SECRET)
    assert (await request(new, browser)).session == session
    assert await new.find(sub=session.claims.sub) == [session]


# -- Errors ------------------------------------------------------------------------------------------------------------


async def test_store_away(backend: StoreBackend, browser: Any, store: FaultyStore, make_session: Make) -> None:
    """Where the store is away nobody is anonymous: reading raises, and works again when it is back."""
    session = make_session()
    await sign_in(backend, browser, session)
    store.go_down()
    loaded = backend.load(browser.headers)
    with pytest.raises(StoreUnavailable):
        await backend.read(loaded)
    assert respond(backend, browser, loaded) == []
    assert browser.cookies
    store.come_back()
    backend._store._closed_until = 0
    await backend.read(loaded)
    assert loaded.session == session


async def test_store_full(backend: StoreBackend, browser: Any, store: FaultyStore, make_session: Make) -> None:
    """A full store refuses a sign-in and goes on serving those who are signed in."""
    session = make_session()
    await sign_in(backend, browser, session)
    store.full = True
    with pytest.raises(StoreFull):
        await backend.start(make_session())
    assert (await request(backend, browser)).session == session


# -- Finding -----------------------------------------------------------------------------------------------------------


async def test_find(process: Callable[..., StoreBackend], make_session: Make) -> None:
    """Sessions are found by user and by session at the issuer, in every process, and under every secret."""
    ada, eve = (with_claims(make_session(), sub=name, sid=f"sid-{name}") for name in ("ada", "eve"))
    second = with_claims(make_session(), sub="ada", sid="sid-2")
    old = process()
    for session in (ada, eve, second):
        await old.start(session)
    for backend in (old, process(cookie_secret=[OTHER_SECRET, SECRET])):
        assert sorted(await backend.find(sub="ada"), key=lambda found: found.id) == [ada, second]
        assert await backend.find(sid="sid-eve") == [eve]
        assert await backend.find(sub="ada", sid="sid-2") == [second]
        assert await backend.find(sub="eve", sid="sid-2") == []
        assert await backend.find(sub="nobody") == []
    with pytest.raises(ValueError, match="sub or a sid"):
        await old.find()


async def test_find_skips_what_is_over(
    process: Callable[..., StoreBackend], store: FaultyStore, make_session: Make
) -> None:
    """Sessions that have ended or are gone are not found."""
    ended, gone, alive = (with_claims(make_session(), sub="ada") for _ in range(3))
    backend = process()
    for session in (ended, gone, alive):
        await backend.start(session)
    await backend.end(ended)
    del store.inside._kept[key_of(gone.id)]
    assert await process().find(sub="ada") == [alive]


async def test_find_leaves_a_sign_in_alone(
    process: Callable[..., StoreBackend], store: FaultyStore, make_session: Make
) -> None:
    """A session that is in the index and not in the store yet, because it is just being created, is found later."""
    session = make_session()
    await process().start(session)
    created = store.inside._kept.pop(key_of(session.id))
    assert await process().find(sub=session.claims.sub) == []
    assert store.deleted == []
    store.inside._kept[key_of(session.id)] = created
    assert await process().find(sub=session.claims.sub) == [session]


async def test_find_sees_what_was_restored(
    process: Callable[..., StoreBackend], store: FaultyStore, make_session: Make
) -> None:
    """A session that ended, and that the store has again because it was set back, can be ended by whoever ended it."""
    session = make_session()
    here, there = process(), process()
    await here.start(session)
    snapshot = store.snapshot()
    await here.end(session)
    assert await here.find(sub=session.claims.sub) == []
    store.restore(snapshot)
    assert await here.find(sub=session.claims.sub) == [session]
    await here.end(session)
    assert await here.find(sub=session.claims.sub) == []
    assert await there.current(session) is None


async def test_find_skips_what_does_not_open(
    process: Callable[..., StoreBackend], store: FaultyStore, make_session: Make
) -> None:
    """What lies instead of a session that has ended, and is none, is none to end."""
    session = make_session()
    backend = process()
    await backend.start(session)
    await backend.end(session)
    store.put(key_of(session.id), "?")
    assert await backend.find(sub=session.claims.sub) == []
    del store.inside._kept[key_of(session.id)]
    assert await backend.find(sub=session.claims.sub) == []


async def test_a_refresh_under_a_new_secret_is_in_the_index(
    process: Callable[..., StoreBackend], make_session: Make
) -> None:
    """A session whose first write under a new secret is a refresh is found once the old secret is gone."""
    session = make_session()
    await process().start(session)
    newest = await refresh(process(cookie_secret=[OTHER_SECRET, SECRET]), session)
    assert await process(cookie_secret=OTHER_SECRET).find(sub=session.claims.sub) == [newest]


@pytest.mark.parametrize("deferred", [False, True])
async def test_a_sid_that_comes_later_is_in_the_index(
    process: Callable[..., StoreBackend], store: FaultyStore, make_session: Make, deferred: bool
) -> None:
    """A session at the issuer that a refresh names first is found by it, also where that could be saved only later."""
    session = make_session()
    backend = process()
    await backend.start(session)
    async with backend.turn(session, lambda newest: False) as turn:
        await turn.depart()
        if deferred:
            store.go_down()
        successor = replace(with_claims(session, sid="later"), version=2)
        assert await turn.save(successor, spent=None) is Saved.KEPT
        store.come_back()
        backend._store._closed_until = 0
        assert await turn.save(replace(successor, version=3), spent=None) is Saved.KEPT
    assert [found.version for found in await process().find(sid="later")] == [3]


# -- Secrets -----------------------------------------------------------------------------------------------------------


async def test_nothing_secret_is_shown(
    process: Callable[..., StoreBackend],
    browser: Any,
    store: FaultyStore,
    make_session: Make,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No repr and no log holds an id, a token or a secret."""
    caplog.set_level(logging.DEBUG)
    backend = process()
    session = make_session(tokens=1)
    await sign_in(backend, browser, session)
    async with backend.turn(session, lambda newest: False) as turn:
        await turn.depart()
        shown = repr(turn) + repr(vars(turn))
        await turn.missed(processed=None)
    await refresh(backend, session)
    store.put(key_of(session.id), "?")
    await request(backend, browser)
    parts = (backend, *vars(backend).values(), *vars(backend._keeper).values())
    shown += "".join(repr(part) for part in parts) + caplog.text
    for secret in (session.id, session.refresh_token, SECRET, "0" * 100):
        assert secret
        assert secret not in shown


def text_within(value: object, seen: set[int]) -> str:
    """Return what a serializer reads that goes along `vars`, as FastAPI's does."""
    if id(value) in seen:
        return ""
    seen.add(id(value))
    if isinstance(value, str | bytes):
        return f"{value!r} "
    if isinstance(value, dict):
        return "".join(text_within(part, seen) for part in (*value, *value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return "".join(text_within(part, seen) for part in value)
    return text_within(getattr(value, "__dict__", {}), seen)


async def test_no_secret_is_an_attribute(make_config: Callable[..., LogtoConfig], make_session: Make) -> None:
    """Whoever serialises a backend finds no secret and no password in it, neither before its first use nor after."""
    redis = pytest.importorskip("redis.asyncio")
    url = "redis://:hunter2-correct-horse@localhost:1/0"
    stores: list[Any] = [RedisStore.from_url(url), RedisStore(redis.Redis.from_url(url)), FaultyStore()]
    for store in stores:
        backend = StoreBackend(make_config(), store)
        shown = text_within(backend, set())
        with contextlib.suppress(StoreUnavailable):
            await backend.start(make_session())
        shown += text_within(backend, set())
        assert "localhost" not in shown
        assert "hunter2" not in shown
        assert SECRET not in shown
        await backend.aclose()

"""Facts about sessions that live in the browser's cookie."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logto_asgi.claims import IdTokenClaims
from logto_asgi.config import LogtoConfig
from logto_asgi.errors import SessionTooLarge
from logto_asgi.models import AccessToken, Session
from logto_asgi.session.in_cookie.backend import NOT_LOOKED_AT, CookieBackend, Loaded

SECRET = "qPz2mW7tKx9dLr4vHs8bYn3cJf6gTu1a"
OTHER_SECRET = "Zk5rQe8wNi2xVo7cBm4jDy9pSh3fLt6u"
NAME = "__Host-logto_d1437d2e5c54"
DAY = 86_400
START = 1_700_000_000

Make = Callable[..., Session]
SignIn = Callable[[CookieBackend, Any, Session], Loaded]


def successor(session: Session, **fields: Any) -> Session:
    version = session.version + 1
    return replace(session, **({"version": version, "refresh_token": f"refresh_{version}"} | fields))


def refresh(backend: CookieBackend, session: Session, **fields: Any) -> Session:
    new = successor(session, **fields)
    assert backend.save(new, spent=session.refresh_token)
    return new


def respond(backend: CookieBackend, browser: Any, loaded: Loaded, *, may_roll: bool = True) -> list[str]:
    lines = backend.headers_to_send(loaded, may_roll=may_roll)
    browser.receive(lines)
    return lines


def names(lines: list[str]) -> list[str]:
    return [line.partition("=")[0] for line in lines]


# -- Reading -----------------------------------------------------------------------------------------------------------


def test_signed_in(backend: CookieBackend, browser: Any, make_session: Make, sign_in: SignIn) -> None:
    """What a sign-in writes, the next request reads, from the cookie and from the cache alike."""
    session = make_session(tokens=1)
    sign_in(backend, browser, session)
    for _ in range(2):
        loaded = backend.load(browser.headers)
        assert (loaded.session, loaded.presented) == (session, session)
        assert (loaded.problem, loaded.clear, loaded.chunks) == (None, False, 1)
        assert backend.headers_to_send(loaded, may_roll=True) == []


def test_opened_once(backend: CookieBackend, browser: Any, make_session: Make, sign_in: SignIn) -> None:
    """The same cookie value gives the very same objects the second time."""
    sign_in(backend, browser, make_session(padding=4_000))
    assert backend.load(browser.headers).presented is backend.load(browser.headers).presented


def test_another_process_opens_it(
    backend: CookieBackend, config: LogtoConfig, browser: Any, make_session: Make, sign_in: SignIn, clock: Any
) -> None:
    """Nothing but the cookie is needed."""
    session = make_session(padding=4_000)
    sign_in(backend, browser, session)
    assert CookieBackend(config, clock=clock).load(browser.headers).session == session


@pytest.mark.parametrize(
    "cookie",
    [
        None,
        b"theme=dark",
        f"{NAME}_x=1; {NAME}.99=1; {NAME}-1a=1; {NAME}x=1; x{NAME}=1".encode(),
        f"theme={NAME}=c1.AAAAAAAA.x".encode(),
    ],
)
def test_no_cookie_of_ours(backend: CookieBackend, cookie: bytes | None) -> None:
    """Without a cookie of ours a visitor is anonymous, and strangers' cookies are no problem to speak of."""
    loaded = backend.load([] if cookie is None else [(b"cookie", cookie)])
    assert (loaded.session, loaded.problem, loaded.clear, loaded.chunks) == (None, None, False, 0)
    assert backend.headers_to_send(loaded, may_roll=True) == []


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", "chunks"),
        ("x", "chunks"),
        ("c1", "chunks"),
        ("c1.", "malformed"),
        ("c1.AAAAAAAA.", "malformed"),
        ("c1.AAAAAAAA.\x00\xff\xfe", "malformed"),
        ("c1.AAAAAAAA.e30.e30.e30.e30.e30", "unknown_key"),
        ("c2.AAAAAAAA.x", "chunks"),
        ("c1.AAAAAAAA." + "A" * 65_536, "malformed"),
        ("c1.AAAAAAAA." + "\xff" * 70_000, "too_large"),
        ("ü" * 40_000, "chunks"),
    ],
)
def test_garbage_is_anonymous_and_left_alone(backend: CookieBackend, value: str, problem: str) -> None:
    """What names no key of ours is anonymous, says why in a word, and is not deleted."""
    loaded = backend.load([(b"cookie", f"{NAME}={value}".encode("latin-1"))])
    assert (loaded.session, loaded.problem, loaded.clear) == (None, problem, False)
    assert backend.headers_to_send(loaded, may_roll=True) == []
    assert len(backend._opened) == 0


@pytest.mark.parametrize("padding", [0, 4_000])
def test_tampered_is_cleared(
    backend: CookieBackend, browser: Any, make_session: Make, sign_in: SignIn, padding: int
) -> None:
    """What fails under a key of ours is anonymous, and all its cookies are deleted."""
    sign_in(backend, browser, make_session(padding=padding))
    last = list(browser.cookies)[-1]
    value = browser.cookies[last]
    browser.cookies[last] = value[:-9] + ("A" if value[-9] != "A" else "B") + value[-8:]
    loaded = backend.load(browser.headers)
    assert (loaded.session, loaded.problem, loaded.clear) == (None, "tampered", True)
    respond(backend, browser, loaded)
    assert browser.cookies == {}


def test_payload_of_another_shape_is_cleared(backend: CookieBackend) -> None:
    """A sealed value that is no session is malformed, and deleted."""
    value = backend._sealer.seal({"s": "only an id"})
    loaded = backend.load([(b"cookie", f"{NAME}=c1.{value[-8:]}.{value}".encode())])
    assert (loaded.session, loaded.problem, loaded.clear) == (None, "malformed", True)


@pytest.mark.parametrize(
    "other",
    [{"cookie_secret": OTHER_SECRET}, {"endpoint": "https://other.logto.app"}],
)
def test_unknown_key_is_left_alone(
    backend: CookieBackend,
    make_config: Callable[..., LogtoConfig],
    browser: Any,
    make_session: Make,
    sign_in: SignIn,
    clock: Any,
    other: dict[str, Any],
) -> None:
    """Another secret's or issuer's cookie may be a newer worker's: anonymous here, and not deleted."""
    sign_in(CookieBackend(make_config(**other), clock=clock), browser, make_session())
    loaded = backend.load(browser.headers)
    assert (loaded.session, loaded.problem, loaded.clear) == (None, "unknown_key", False)


def test_rotation_of_the_secret(
    backend: CookieBackend,
    make_config: Callable[..., LogtoConfig],
    browser: Any,
    make_session: Make,
    sign_in: SignIn,
    clock: Any,
) -> None:
    """With the old secret behind the new one, sessions go on, and are sealed with the new one when written next."""
    session = make_session()
    sign_in(backend, browser, session)
    new = CookieBackend(make_config(cookie_secret=[OTHER_SECRET, SECRET]), clock=clock)
    assert new.load(browser.headers).session == session
    clock.now += 600
    respond(new, browser, new.load(browser.headers))
    assert backend.load(browser.headers).problem == "unknown_key"
    assert new.load(browser.headers).session


def test_two_apps_on_one_host(
    backend: CookieBackend,
    make_config: Callable[..., LogtoConfig],
    browser: Any,
    make_session: Make,
    sign_in: SignIn,
    clock: Any,
) -> None:
    """Two apps keep two sessions in one browser."""
    other = CookieBackend(make_config(app_id="app_2"), clock=clock)
    ours, theirs = make_session(padding=4_000), make_session(padding=4_000)
    sign_in(backend, browser, ours)
    sign_in(other, browser, theirs)
    assert backend.load(browser.headers).session == ours
    assert other.load(browser.headers).session == theirs


def test_purpose(backend: CookieBackend, config: LogtoConfig) -> None:
    """A value sealed as an attempt to sign in is no session."""
    from logto_asgi.session.attempts import AttemptCookies

    value = AttemptCookies(config)._sealer.seal({})
    assert backend.load([(b"cookie", f"{NAME}=c1.{value[-8:]}.{value}".encode())]).problem == "unknown_key"


def test_cookie_headers_apart(backend: CookieBackend, browser: Any, make_session: Make, sign_in: SignIn) -> None:
    """HTTP/2 may send every cookie in a header of its own."""
    session = make_session(padding=4_000)
    sign_in(backend, browser, session)
    apart = [(b"cookie", f"{name}={value}".encode()) for name, value in browser.cookies.items()]
    assert len(apart) == 2
    assert backend.load(apart).session == session


def test_first_of_two_decides(
    backend: CookieBackend, browser: Any, make_browser: type, make_session: Make, sign_in: SignIn
) -> None:
    """Of two cookies with our name the first counts; when it fails nobody is signed in, and nothing is deleted."""
    session = make_session()
    sign_in(backend, browser, session)
    pair = browser.header.encode()
    assert backend.load([(b"cookie", pair + b"; " + NAME.encode() + b"=junk")]).session == session
    broken = backend.load([(b"cookie", pair[:-1] + b"; " + pair)])
    assert (broken.session, broken.problem, broken.clear) == (None, "tampered", False)


# -- Lifetimes ---------------------------------------------------------------------------------------------------------


def test_idle_end(backend: CookieBackend, browser: Any, make_session: Make, sign_in: SignIn, clock: Any) -> None:
    """A cookie lives for the idle lifetime, and is refused and deleted then, though it was opened before."""
    sign_in(backend, browser, make_session())
    clock.now += 7 * DAY - 1
    assert backend.load(browser.headers).session
    clock.now += 1
    loaded = backend.load(browser.headers)
    assert (loaded.session, loaded.problem, loaded.clear) == (None, "expired", True)
    assert len(backend._opened) == 0
    respond(backend, browser, loaded)
    assert browser.cookies == {}


def test_expired_and_never_opened(
    backend: CookieBackend, config: LogtoConfig, browser: Any, make_session: Make, sign_in: SignIn, clock: Any
) -> None:
    """An expired cookie does not enter the cache."""
    sign_in(backend, browser, make_session())
    clock.now += 7 * DAY
    fresh = CookieBackend(config, clock=clock)
    assert fresh.load(browser.headers).problem == "expired"
    assert len(fresh._opened) == 0


def test_absolute_end(backend: CookieBackend, browser: Any, make_session: Make, sign_in: SignIn, clock: Any) -> None:
    """However busy, a session ends at its absolute lifetime."""
    sign_in(backend, browser, make_session())
    for _ in range(29):
        clock.now += DAY
        respond(backend, browser, backend.load(browser.headers))
        assert backend.load(browser.headers).session
    clock.now += DAY - 1
    assert backend.load(browser.headers).session
    clock.now += 1
    assert backend.load(browser.headers).problem == "expired"


def test_rolling(backend: CookieBackend, browser: Any, make_session: Make, sign_in: SignIn, clock: Any) -> None:
    """The idle lifetime is extended every ten minutes at most, and only where that is allowed."""
    sign_in(backend, browser, make_session())
    clock.now += 599
    assert backend.headers_to_send(backend.load(browser.headers), may_roll=True) == []
    clock.now += 1
    loaded = backend.load(browser.headers)
    assert backend.headers_to_send(loaded, may_roll=False) == []
    assert names(respond(backend, browser, loaded)) == [NAME]
    assert backend.headers_to_send(backend.load(browser.headers), may_roll=True) == []
    clock.now += 7 * DAY - 1
    assert backend.load(browser.headers).session


def test_max_age_is_what_is_left(
    backend: CookieBackend, browser: Any, make_session: Make, sign_in: SignIn, clock: Any
) -> None:
    """The browser keeps the cookie no longer than we accept it, near the absolute end too."""
    loaded = backend.load([])
    loaded.session = make_session()
    assert f"; Max-Age={7 * DAY};" in backend.headers_to_send(loaded, may_roll=True)[0]
    clock.now += 30 * DAY - 100
    assert "; Max-Age=100;" in backend.headers_to_send(loaded, may_roll=True)[0]
    clock.now += 100
    assert backend.headers_to_send(loaded, may_roll=True) == []


def test_lifetimes_are_of_the_cookie_presented(
    backend: CookieBackend, browser: Any, make_session: Make, sign_in: SignIn, clock: Any
) -> None:
    """A newer state in this process does not keep an older cookie alive."""
    session = make_session()
    sign_in(backend, browser, session)
    clock.now += 6 * DAY
    refresh(backend, session, sealed_at=int(clock.now))
    clock.now += DAY
    assert backend.load(browser.headers).problem == "expired"


def test_late_response_rolls_only_in_need(
    backend: CookieBackend, browser: Any, make_session: Make, sign_in: SignIn, clock: Any
) -> None:
    """A response that starts late leaves rolling to others, until half of the idle lifetime has gone."""
    sign_in(backend, browser, make_session())
    for elapsed, lines in ((DAY, 0), (4 * DAY, 1)):
        clock.now = START + elapsed
        loaded = backend.load(browser.headers)
        clock.now += 6
        assert len(backend.headers_to_send(loaded, may_roll=True)) == lines


def test_late_response_deletes_nothing(
    backend: CookieBackend, browser: Any, make_session: Make, sign_in: SignIn, clock: Any
) -> None:
    """When a response is late a new sign-in may have taken the dead cookie's place: it stays."""
    sign_in(backend, browser, make_session())
    clock.now += 7 * DAY
    loaded = backend.load(browser.headers)
    clock.now += 6
    assert backend.headers_to_send(loaded, may_roll=True) == []


# -- Size --------------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 5_000))
def test_any_size(backend: CookieBackend, make_browser: type, make_session: Make, sign_in: SignIn, size: int) -> None:
    """A session of any size that fits comes back equal, in lines that a browser stores."""
    browser, session = make_browser(), make_session(padding=size)
    sign_in(backend, browser, session)
    assert backend.load(browser.headers).session == session


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 1), st.integers(0, 10_000), st.integers(1, 255))
def test_any_mutation(
    backend: CookieBackend,
    make_browser: type,
    make_session: Make,
    sign_in: SignIn,
    chunk: int,
    position: int,
    mask: int,
) -> None:
    """Whatever byte of a cookie changes, nobody is signed in by it and nothing is raised."""
    browser = make_browser()
    sign_in(backend, browser, make_session(padding=4_000))
    name = sorted(browser.cookies)[chunk]
    value = bytearray(browser.cookies[name].encode())
    value[position % len(value)] ^= mask
    browser.cookies[name] = value.decode("latin-1")
    loaded = backend.load(browser.headers)
    assert loaded.session is None
    assert loaded.problem
    backend.headers_to_send(loaded, may_roll=True)


def test_shorter_session_deletes_chunks(
    backend: CookieBackend, browser: Any, make_session: Make, sign_in: SignIn
) -> None:
    """A session in fewer chunks deletes those that are left over, and only those that were sent."""
    long = make_session(tokens=4)
    sign_in(backend, browser, long)
    assert len(browser.cookies) == 2
    refresh(backend, long, access_tokens=MappingProxyType({}))
    lines = respond(backend, browser, backend.load(browser.headers))
    assert names(lines) == [NAME, f"{NAME}.1"]
    assert list(browser.cookies) == [NAME]


def test_surplus_chunks_are_ignored_and_deleted_when_written(
    backend: CookieBackend, browser: Any, make_session: Make, sign_in: SignIn, clock: Any
) -> None:
    """A chunk too many changes nothing when reading, and goes with the next write."""
    session = make_session()
    sign_in(backend, browser, session)
    browser.cookies |= {f"{NAME}.1": "left.over", f"{NAME}.3": "left.over", f"{NAME}.99": "a stranger's"}
    loaded = backend.load(browser.headers)
    assert (loaded.session, loaded.chunks) == (session, 3)
    clock.now += 600
    respond(backend, browser, backend.load(browser.headers))
    assert list(browser.cookies) == [NAME, f"{NAME}.99"]


def test_mixed_generations(
    backend: CookieBackend, browser: Any, make_browser: type, make_session: Make, sign_in: SignIn
) -> None:
    """Chunks of two writings are anonymous and left alone."""
    other, session = make_browser(), make_session(padding=4_000)
    sign_in(backend, browser, session)
    sign_in(backend, other, session)
    browser.cookies[f"{NAME}.1"] = other.cookies[f"{NAME}.1"]
    loaded = backend.load(browser.headers)
    assert (loaded.session, loaded.problem, loaded.clear, loaded.chunks) == (None, "chunks", False, 2)


def test_missing_chunk(backend: CookieBackend, browser: Any, make_session: Make, sign_in: SignIn) -> None:
    """So is a value that lost a chunk, and a chunk that lost its first."""
    sign_in(backend, browser, make_session(padding=4_000))
    second = browser.cookies.pop(f"{NAME}.1")
    assert backend.load(browser.headers).problem == "chunks"
    browser.cookies = {f"{NAME}.1": second}
    assert backend.load(browser.headers).session is None


def test_least_recently_used_tokens_are_left_out(
    backend: CookieBackend, browser: Any, make_session: Make, sign_in: SignIn
) -> None:
    """Access tokens that do not fit are left out, those used last stay, and the header keeps below 7.5 KiB."""
    session = make_session(tokens=9)
    sign_in(backend, browser, session)
    kept = backend.load(browser.headers).session
    assert kept is not None
    assert [token.used_at for token in kept.access_tokens.values()] == [8, 7, 6, 5, 4]
    assert replace(kept, access_tokens=session.access_tokens) == session
    assert len(browser.header) <= 7_680


def test_tokens_left_out_of_the_cookie_are_still_in_the_process(
    backend: CookieBackend, browser: Any, make_session: Make, sign_in: SignIn
) -> None:
    """What this process got from a refresh it does not fetch again because the cookie is full."""
    session = make_session(tokens=9)
    sign_in(backend, browser, session)
    newest = refresh(backend, session)
    respond(backend, browser, backend.load(browser.headers))
    loaded = backend.load(browser.headers)
    assert loaded.presented is not None
    assert len(loaded.presented.access_tokens) < 9
    assert loaded.session is newest


async def test_too_large(backend: CookieBackend, browser: Any, make_session: Make) -> None:
    """Claims that alone do not fit are refused at sign-in, in words that name both remedies and show no claim."""
    session = make_session(padding=8_000)
    with pytest.raises(SessionTooLarge, match=r"store=.*fewer scopes") as caught:
        await backend.start(session)
    assert "ppp" not in caught.value.message
    with pytest.raises(SessionTooLarge):
        await backend.start(make_session(refresh_token="r" * 8_000))


def test_grown_too_large_later(
    backend: CookieBackend,
    browser: Any,
    make_session: Make,
    sign_in: SignIn,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Claims that grow too large with a refresh are not written but logged, and the session goes on here."""
    session = make_session()
    sign_in(backend, browser, session)
    claims = IdTokenClaims.parse(session.claims.raw() | {"padding": "p" * 8_000})
    newest = refresh(backend, session, claims=claims)
    with caplog.at_level(logging.ERROR, "logto_asgi"):
        assert respond(backend, browser, backend.load(browser.headers)) == []
    assert "store=" in caplog.text
    assert "ppp" not in caplog.text
    assert backend.load(browser.headers).session is newest


async def test_largest_at_start_is_written(backend: CookieBackend, make_browser: type, make_session: Make) -> None:
    """What start accepts can be written, to the byte."""
    low, high = 0, 8_000
    while high - low > 1:
        middle = (low + high) // 2
        try:
            await backend.start(make_session(padding=middle, id="x" * 43, refresh_token="r"))
            low = middle
        except SessionTooLarge:
            high = middle
    browser, loaded = make_browser(), backend.load([])
    loaded.session = make_session(padding=low, id="x" * 43, refresh_token="r")
    respond(backend, browser, loaded)
    assert 7_600 < len(browser.header) <= 7_680


# -- Newest state ------------------------------------------------------------------------------------------------------


def test_refresh_is_written(backend: CookieBackend, browser: Any, make_session: Make, sign_in: SignIn) -> None:
    """The response of a request that refreshed carries the new state, even where nothing may be rolled."""
    session = make_session()
    sign_in(backend, browser, session)
    loaded = backend.load(browser.headers)
    newest = refresh(backend, session)
    assert respond(backend, browser, loaded, may_roll=False)
    assert backend.load(browser.headers).presented == newest


def test_slow_response_across_a_refresh(
    backend: CookieBackend, browser: Any, make_session: Make, sign_in: SignIn, clock: Any
) -> None:
    """A response that began before a refresh writes the newest state or nothing, never the one that it began with."""
    session = make_session()
    sign_in(backend, browser, session)
    clock.now += 600
    slow, slower = backend.load(browser.headers), backend.load(browser.headers)
    newest = refresh(backend, session, sealed_at=int(clock.now))
    respond(backend, browser, backend.load(browser.headers))
    respond(backend, browser, slow)
    assert backend.load(browser.headers).presented == newest
    clock.now += 1
    assert backend.load(browser.headers).session is newest
    assert respond(backend, browser, slower) == []


def test_very_slow_response_across_two_refreshes(
    backend: CookieBackend, browser: Any, make_session: Make, sign_in: SignIn, clock: Any
) -> None:
    """A response that is minutes late, after its own refresh and another, writes nothing old either."""
    session = make_session()
    sign_in(backend, browser, session)
    slow = backend.load(browser.headers)
    slow.session = refresh(backend, session)
    newest = refresh(backend, slow.session)
    respond(backend, browser, backend.load(browser.headers))
    assert backend.load(browser.headers).session is newest
    clock.now += 300
    assert backend.headers_to_send(slow, may_roll=True) == []


def test_slow_response_across_a_refresh_elsewhere(
    backend: CookieBackend, config: LogtoConfig, browser: Any, make_session: Make, sign_in: SignIn, clock: Any
) -> None:
    """Nor does it roll an older state over one that another process made and a browser showed here."""
    session = make_session()
    sign_in(backend, browser, session)
    clock.now += 600
    slow = backend.load(browser.headers)
    elsewhere = CookieBackend(config, clock=clock)
    refresh(elsewhere, session, sealed_at=int(clock.now))
    respond(elsewhere, browser, elsewhere.load(browser.headers))
    assert backend.load(browser.headers).session
    assert backend.headers_to_send(slow, may_roll=True) == []


async def test_slow_response_across_a_sign_out(
    backend: CookieBackend, browser: Any, make_session: Make, sign_in: SignIn, clock: Any
) -> None:
    """A response that began before a sign-out writes nothing, rolling or refreshed."""
    session = make_session()
    sign_in(backend, browser, session)
    clock.now += 600
    slow, leaving = backend.load(browser.headers), backend.load(browser.headers)
    newest = refresh(backend, session)
    await backend.end(newest)
    leaving.session, leaving.clear = None, True
    respond(backend, browser, leaving)
    assert backend.headers_to_send(slow, may_roll=True) == []
    assert browser.cookies == {}
    assert not backend.save(successor(newest), spent=newest.refresh_token)
    assert backend.newest(session.id) is None


async def test_slow_response_across_a_sign_in_as_somebody_else(
    backend: CookieBackend, browser: Any, make_session: Make, sign_in: SignIn, clock: Any
) -> None:
    """A response that began as somebody else leaves the new session alone; so does one with the cookie from before."""
    old, new = make_session(), make_session()
    sign_in(backend, browser, old)
    clock.now += 600
    before = browser.headers
    slow = backend.load(before)
    await backend.end(old)
    sign_in(backend, browser, new)
    assert backend.headers_to_send(slow, may_roll=True) == []
    on_the_way = backend.load(before)
    assert (on_the_way.session, on_the_way.problem) == (None, "ended")
    assert backend.headers_to_send(on_the_way, may_roll=True) == []
    assert backend.load(browser.headers).session == replace(new, sealed_at=int(clock.now))


async def test_ended_is_anonymous_and_cleared(
    backend: CookieBackend, browser: Any, make_session: Make, sign_in: SignIn, clock: Any
) -> None:
    """After the end every cookie of the session is nobody; it is deleted once no sign-in can be replacing it."""
    session = make_session()
    sign_in(backend, browser, session)
    assert len(backend._opened) == 0
    backend.load(browser.headers)
    assert len(backend._opened) == 1
    await backend.end(session)
    assert len(backend._opened) == 0
    assert backend.is_ended(session.id)
    loaded = backend.load(browser.headers)
    assert (loaded.session, loaded.problem, loaded.clear) == (None, "ended", False)
    clock.now += 60
    loaded = backend.load(browser.headers)
    assert (loaded.session, loaded.problem, loaded.clear) == (None, "ended", True)
    respond(backend, browser, loaded)
    assert browser.cookies == {}


async def test_sign_out_deletes_however_long_it_takes(
    backend: CookieBackend, browser: Any, make_session: Make, sign_in: SignIn, clock: Any
) -> None:
    """The sign-out's own response deletes all chunks, after a slow issuer too."""
    session = make_session(padding=4_000)
    sign_in(backend, browser, session)
    loaded = backend.load(browser.headers)
    await backend.end(session)
    loaded.session, loaded.clear = None, True
    clock.now += 30
    assert names(respond(backend, browser, loaded)) == [NAME, f"{NAME}.1"]


def test_sign_in_replaces(backend: CookieBackend, browser: Any, make_session: Make, sign_in: SignIn) -> None:
    """A sign-in over a longer session writes the new one and deletes what is left of the old."""
    sign_in(backend, browser, make_session(padding=4_000))
    new = make_session()
    sign_in(backend, browser, new)
    assert list(browser.cookies) == [NAME]
    assert backend.load(browser.headers).session == new


def test_lost_response(backend: CookieBackend, browser: Any, make_session: Make, sign_in: SignIn, clock: Any) -> None:
    """A rotation whose response never arrived is written with the next one, days later too."""
    session = make_session()
    sign_in(backend, browser, session)
    newest = refresh(backend, session)
    backend.headers_to_send(backend.load(browser.headers), may_roll=True)
    clock.now += 6 * DAY
    loaded = backend.load(browser.headers)
    assert loaded.session is newest
    respond(backend, browser, loaded)
    presented = backend.load(browser.headers).presented
    assert presented == replace(newest, sealed_at=int(clock.now))


def test_browser_that_fell_back(
    backend: CookieBackend, browser: Any, make_browser: type, make_session: Make, sign_in: SignIn, clock: Any
) -> None:
    """A browser that showed the newest state and comes back with an older one gets the newest again."""
    session = make_session()
    sign_in(backend, browser, session)
    older = make_browser(**browser.cookies)
    newest = refresh(backend, session)
    respond(backend, browser, backend.load(browser.headers))
    backend.load(browser.headers)
    clock.now += 1
    loaded = backend.load(older.headers)
    assert loaded.session is newest
    assert respond(backend, older, loaded)


async def test_state_to_refresh_from(
    backend: CookieBackend, browser: Any, make_session: Make, sign_in: SignIn, clock: Any
) -> None:
    """For a minute a spent state leads to the newest, then nowhere; an unknown state stands for itself."""
    session = make_session()
    sign_in(backend, browser, session)
    assert await backend.current(session) is session
    newest = refresh(backend, session)
    respond(backend, browser, backend.load(browser.headers))
    backend.load(browser.headers)
    clock.now += 59
    assert await backend.current(session) is newest
    clock.now += 1
    assert await backend.current(session) is None
    backend.load(browser.headers)
    assert await backend.current(session) is None
    assert await backend.current(newest) is newest
    elsewhere = replace(session, refresh_token="made elsewhere")
    assert await backend.current(elsewhere) is elsewhere
    await backend.end(newest)
    assert await backend.current(newest) is None


def test_access_token_without_rotation(
    backend: CookieBackend, browser: Any, make_session: Make, sign_in: SignIn
) -> None:
    """A further access token is a new state as well, and reaches the cookie."""
    session = make_session()
    sign_in(backend, browser, session)
    token = AccessToken(value="new", expires_at=START + 60, resource="https://x.api")
    newest = replace(session, version=3, access_tokens=MappingProxyType({token.key: token}))
    assert backend.save(newest, spent=None)
    assert respond(backend, browser, backend.load(browser.headers))
    assert backend.load(browser.headers).presented == newest
    assert backend.newest(session.id) is newest


# -- Secrets -----------------------------------------------------------------------------------------------------------


def test_repr_shows_no_secret(backend: CookieBackend, browser: Any, make_session: Make, sign_in: SignIn) -> None:
    """Neither a backend nor what it loaded shows a secret, a token or a cookie."""
    session = make_session(tokens=1)
    sign_in(backend, browser, session)
    shown = repr(backend) + repr(backend.load(browser.headers))
    for secret in (SECRET, session.id, "refresh_1", browser.cookies[NAME], "0" * 20):
        assert secret not in shown


def test_not_looked_at_takes_no_session(backend: CookieBackend, make_session: Make) -> None:
    """What many requests share writes nothing and refuses to be written."""
    assert backend.headers_to_send(NOT_LOOKED_AT, may_roll=True) == []
    assert (NOT_LOOKED_AT.session, NOT_LOOKED_AT.chunks) == (None, 0)
    with pytest.raises(AttributeError, match="not looked at"):
        NOT_LOOKED_AT.session = make_session()


def test_plain_http(make_config: Callable[..., LogtoConfig], browser: Any, make_session: Make, sign_in: SignIn) -> None:
    """On plain http there is neither prefix nor Secure, and it works the same."""
    backend = CookieBackend(make_config(base_url="http://localhost:8000"), clock=lambda: START)
    session = make_session()
    loaded = sign_in(backend, browser, session)
    assert "Secure" not in backend.headers_to_send(loaded, may_roll=True)[0]
    assert list(browser.cookies) == [NAME.removeprefix("__Host-")]
    assert backend.load(browser.headers).session == session

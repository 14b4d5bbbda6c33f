"""Facts about refreshing sessions that lie in cookies, and about what their backend leaves to a store."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from logto_asgi.config import LogtoConfig
from logto_asgi.errors import AttemptNotFound, SessionEnded, SetupError
from logto_asgi.events import Events
from logto_asgi.models import AccessToken, Session
from logto_asgi.session.backend import Saved, SessionBackend, Turn
from logto_asgi.session.in_cookie.backend import CookieBackend, Loaded

Make = Callable[..., Session]
SignIn = Callable[[CookieBackend, Any, Session], Loaded]


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def backend(config: LogtoConfig, clock: Any, events: Events) -> CookieBackend:
    return CookieBackend(config, clock=clock, events=events)


@pytest.fixture
def other_process(config: LogtoConfig, clock: Any) -> CookieBackend:
    return CookieBackend(config, clock=clock)


def never(_: Session) -> bool:
    return False


def rotated(session: Session) -> Session:
    version = session.version + 1
    return replace(session, version=version, refresh_token=f"refresh_{version}")


async def refresh(backend: CookieBackend, session: Session) -> Session:
    async with backend.turn(session, never) as turn:
        await turn.depart()
        assert await turn.save(rotated(turn.session), spent=turn.session.refresh_token) is Saved.KEPT
        return turn.session


def test_it_is_a_backend(backend: CookieBackend) -> None:
    """mypy holds it to the interface of all backends; a request's session is known without waiting."""
    held: SessionBackend = backend
    assert not held.remote


async def test_a_turn_begins_with_the_newest_state(backend: CookieBackend, make_session: Make) -> None:
    """Whatever older state is in hand, the turn goes on from the one that it led to."""
    session = make_session()
    await backend.start(session)
    newest = await refresh(backend, session)
    async with backend.turn(session, never) as turn:
        assert turn.session is newest


async def test_no_turn_after_the_end(backend: CookieBackend, make_session: Make) -> None:
    """There is nothing to refresh in a session that has ended."""
    session = make_session()
    await backend.start(session)
    await backend.end(session)
    with pytest.raises(SessionEnded, match="has ended, or the browser sent an old copy"):
        async with backend.turn(session, never):
            pass


async def test_no_turn_for_an_old_copy(
    backend: CookieBackend, browser: Any, make_session: Make, sign_in: SignIn, clock: Any
) -> None:
    """A refresh token that was spent here leads nowhere once its minute is over: it is not sent again."""
    session = make_session()
    sign_in(backend, browser, session)
    await refresh(backend, session)
    browser.receive(backend.headers_to_send(backend.load(browser.headers), may_roll=True))
    backend.load(browser.headers)
    clock.now += 60
    with pytest.raises(SessionEnded):
        async with backend.turn(session, never):
            pass


async def test_a_turn_goes_on_from_what_it_saved(backend: CookieBackend, make_session: Make) -> None:
    """The rotated refresh token is saved first, then what came with it, in one turn."""
    session = make_session()
    await backend.start(session)
    async with backend.turn(session, never) as turn:
        await turn.depart()
        first = rotated(turn.session)
        assert await turn.save(first, spent=session.refresh_token) is Saved.KEPT
        assert turn.session is first
        second = replace(turn.session, version=turn.session.version + 1)
        assert await turn.save(second, spent=None) is Saved.KEPT
        assert turn.session is second
    assert backend.newest(session.id) is second


@pytest.mark.parametrize(("replaced", "revocable"), [(False, True), (True, False)])
async def test_a_session_that_ends_during_its_refresh(
    backend: CookieBackend, make_session: Make, replaced: bool, revocable: bool
) -> None:
    """What came is not kept; it may be revoked unless a new sign-in, which may share its grant, took the place."""
    session = make_session()
    await backend.start(session)
    async with backend.turn(session, never) as turn:
        await turn.depart()
        await backend.end(session, replaced=replaced)
        assert await turn.save(rotated(session), spent=session.refresh_token) is Saved.ENDED
        assert (turn.session, turn.revocable) == (session, revocable)
    assert backend.newest(session.id) is None


async def test_a_noted_use_does_not_cost_a_rotation(backend: CookieBackend, make_session: Make, clock: Any) -> None:
    """Another request notes, during a refresh, that it used a kept token: the rotation is kept all the same."""
    session = make_session(tokens=2)
    await backend.start(session)
    clock.now += 600
    async with backend.turn(session, never) as turn:
        await turn.depart()
        noted = backend.used(session, next(iter(session.access_tokens.values())))
        assert backend.newest(session.id) is noted
        assert await turn.save(rotated(session), spent=session.refresh_token) is Saved.KEPT
        assert turn.session.version > noted.version
    newest = backend.newest(session.id)
    assert newest is turn.session
    assert newest.refresh_token == "refresh_2"
    assert await backend.current(session) is newest
    assert await backend.current(noted) is newest


async def test_a_newer_state_of_another_process_stays(
    backend: CookieBackend, other_process: CookieBackend, browser: Any, make_session: Make, sign_in: SignIn
) -> None:
    """A browser shows, during a refresh, what another process made of the session: that counts further and stays."""
    session = make_session()
    sign_in(backend, browser, session)
    second = await refresh(backend, session)
    browser.receive(backend.headers_to_send(backend.load(browser.headers), may_roll=True))
    async with backend.turn(second, never) as turn:
        await turn.depart()
        loaded = other_process.load(browser.headers)
        theirs = replace(second, version=second.version + 1, refresh_token="made elsewhere")
        assert other_process.save(theirs, spent=second.refresh_token)
        browser.receive(other_process.headers_to_send(loaded, may_roll=True))
        assert backend.load(browser.headers).session == theirs
        assert await turn.save(rotated(second), spent=second.refresh_token) is Saved.KEPT
    assert backend.newest(session.id) == theirs


async def test_uses_of_tokens_are_noted_now_and_then(backend: CookieBackend, make_session: Make, clock: Any) -> None:
    """Once in ten minutes, and only where there is more than one token to choose from when a cookie is full."""
    session = make_session(tokens=2)
    await backend.start(session)
    token = next(iter(session.access_tokens.values())).used(int(clock.now))
    clock.now += 599
    assert backend.used(session, token) is session
    clock.now += 1
    noted = backend.used(session, token)
    assert (noted.version, noted.access_tokens[token.key].used_at) == (2, int(clock.now))
    assert backend.newest(session.id) is noted
    alone = make_session(tokens=1)
    assert backend.used(alone, next(iter(alone.access_tokens.values()))) is alone
    await backend.end(session)
    assert backend.used(session, token) is session


async def test_reread(backend: CookieBackend, make_session: Make) -> None:
    """After a refusal only a state with another refresh token is worth a second try."""
    session = make_session()
    await backend.start(session)
    async with backend.turn(session, never) as turn:
        assert await turn.reread() is None
        token = AccessToken(value="new", expires_at=1_700_003_600)
        kept = replace(session, version=2, access_tokens=MappingProxyType({token.key: token}))
        assert backend.save(kept, spent=None)
        assert await turn.reread() is None
        newer = rotated(kept)
        assert backend.save(newer, spent=session.refresh_token)
        assert await turn.reread() is newer


async def test_end_returns_the_newest_state(backend: CookieBackend, make_session: Make) -> None:
    """Whoever signs out with an old cookie gets the refresh token that is to be revoked."""
    session, unknown = make_session(), make_session()
    await backend.start(session)
    newest = await refresh(backend, session)
    assert await backend.end(session) is newest
    assert await backend.end(session) is session
    assert await backend.end(unknown) is unknown


async def test_end_is_not_led_back(backend: CookieBackend, make_session: Make) -> None:
    """A state that counts further than what is known here is the newest, wherever it was made."""
    session = make_session()
    await refresh(backend, session)
    elsewhere = replace(session, version=7, refresh_token="made elsewhere")
    assert await backend.end(elsewhere) is elsewhere


# -- A refused refresh token -------------------------------------------------------------------------------------------


async def refused(backend: CookieBackend, session: Session) -> None:
    async with backend.turn(session, never) as turn:
        await turn.depart()
        await turn.end_refused()


@pytest.mark.parametrize("rotations", [0, 2])
async def test_refused_here(
    backend: CookieBackend, make_session: Make, events: Events, caplog: pytest.LogCaptureFixture, rotations: int
) -> None:
    """A refused token of a sign-in or rotation in this process ends the session, and blames no other process."""
    session = newest = make_session()
    await backend.start(session)
    for _ in range(rotations):
        newest = await refresh(backend, newest)
    with caplog.at_level(logging.INFO, "logto_asgi"):
        await refused(backend, newest)
    assert backend.is_ended(session.id)
    assert events.counts == {"session.ended": 1}
    assert caplog.messages == ["session ended: the issuer refused its refresh token (invalid_grant)"]


async def test_refused_and_made_elsewhere(
    backend: CookieBackend,
    other_process: CookieBackend,
    browser: Any,
    make_session: Make,
    sign_in: SignIn,
    events: Events,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A token that another process got may have been spent there: the session ends, and the remedy is logged."""
    session = make_session()
    sign_in(other_process, browser, session)
    loaded = backend.load(browser.headers)
    assert loaded.session is not None
    with caplog.at_level(logging.INFO, "logto_asgi"):
        await refused(backend, loaded.session)
    assert backend.is_ended(session.id)
    assert events.counts == {"cookie.other_process": 1, "session.ended": 1}
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    assert "store=" in caplog.messages[-1]
    assert session.id not in caplog.text
    assert str(session.refresh_token) not in caplog.text


async def test_refused_with_a_newer_state_elsewhere(
    backend: CookieBackend,
    other_process: CookieBackend,
    browser: Any,
    make_session: Make,
    sign_in: SignIn,
    events: Events,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An old copy that is refused does not end a session that another process went on with; the remedy is logged."""
    session = make_session()
    sign_in(backend, browser, session)
    loaded = other_process.load(browser.headers)
    newer = await refresh(other_process, session)
    browser.receive(other_process.headers_to_send(loaded, may_roll=True))
    assert backend.load(browser.headers).session == newer
    with caplog.at_level(logging.INFO, "logto_asgi"):
        await refused(backend, session)
    assert not backend.is_ended(session.id)
    assert events.counts == {"cookie.other_process": 1}
    assert "store=" in caplog.messages[-1]


# -- What takes a store ------------------------------------------------------------------------------------------------


async def test_what_a_store_would_do(backend: CookieBackend, browser: Any, make_session: Make, sign_in: SignIn) -> None:
    """Without a store every claim of a state succeeds, nothing is told to others, and nothing is checked or closed."""
    sign_in(backend, browser, make_session())
    loaded = backend.load(browser.headers)
    before = (loaded.session, loaded.presented, loaded.problem, loaded.clear)
    await backend.read(loaded)
    assert (loaded.session, loaded.presented, loaded.problem, loaded.clear) == before
    assert [await backend.claim_state("state", "code") for _ in range(2)] == [True, True]
    await backend.settle_state("state", "code", loaded.session)
    with pytest.raises(AttemptNotFound):
        await backend.outcome_of_state("state", "code")
    assert await backend.check() == []
    await backend.aclose()


@pytest.mark.parametrize("who", [{"sub": "user_1"}, {"sid": "sid_1"}])
async def test_sessions_of_a_user_are_in_a_store_only(backend: CookieBackend, who: dict[str, str]) -> None:
    """The error names the line that is missing, and not the user."""
    with pytest.raises(SetupError, match="store=") as caught:
        await backend.find(**who)
    assert "_1" not in caught.value.message


async def test_a_turn_shows_no_secret(backend: CookieBackend, make_session: Make) -> None:
    """The repr of a turn names neither session nor token."""
    session = make_session()
    async with backend.turn(session, never) as turn:
        held: Turn = turn
        assert repr(held) == "<CookieTurn version=1>"
        await held.missed(processed=None)

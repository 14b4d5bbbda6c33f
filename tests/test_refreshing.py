"""A refresh as its store sees it: the mark before it leaves, and an end or a full store in the middle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import pytest

from logto_asgi import Logto, LogtoError, SessionEnded
from logto_asgi.models import Session
from logto_asgi.session.in_store.backend import StoreBackend
from logto_asgi.session.in_store.known import Held
from logto_asgi.session.in_store.records import Live, Mark, key_of
from logto_asgi.testing import issuer_client
from tests.conftest import API, MakeSite, Site
from tests.network import Forward, Network
from tests.session.faulty_store import FaultyStore

HOUR = 3600


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore()


@pytest.fixture
def site(make_site: MakeSite, store: FaultyStore) -> Site:
    return make_site({"rotate": "always", "grace": 0}, store=store)


async def visit(site: Site) -> tuple[Any, Session]:
    """Return a visitor and the session that its sign-in made."""
    visitor = await site.visitor()
    await visitor.sign_in()
    (session,) = await site.logto.sessions.find(sub="alice")
    return visitor, session


def mark_of(logto: Logto, store: FaultyStore, session: Session) -> Mark | None:
    """Return the mark of a session in the store, as whoever has the secret reads it."""
    assert isinstance(logto.sessions, StoreBackend)
    key = key_of(session.id)
    record = logto.sessions._keeper.records.open(key, store.values[key])
    assert isinstance(record, Live)
    return record.mark


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        (httpx.ConnectError("refused"), False),
        (httpx.ReadTimeout("silent"), True),
        (httpx.Response(200, text="<html>"), True),
        (httpx.Response(403, json={"error": "access_denied"}), False),
        (httpx.Response(200, json={"access_token": "opaque", "token_type": "Bearer"}), False),
    ],
    ids=["not-sent", "no-answer", "unreadable", "refused", "another-token"],
)
async def test_session_is_marked_until_the_fate_of_its_refresh_is_known(
    site: Site, store: FaultyStore, answer: httpx.Response | httpx.HTTPError, left: bool
) -> None:
    """The mark is there before the request leaves, and stays where nobody can know what became of it."""
    _, session = await visit(site)
    network = Network(site.provider)
    logto = Logto(site.config, store=store, http_client=httpx.AsyncClient(transport=network), clock=site.clock)
    marks = []

    async def step(request: httpx.Request, forward: Forward) -> httpx.Response:
        marks.append(mark_of(logto, store, session))
        if isinstance(answer, httpx.HTTPError):
            raise answer
        return answer

    for _ in range(2):  # What surely was not sent is sent once more.
        network.step_in("/token", step)
    with pytest.raises(LogtoError):
        await logto.tokens.get(session, resource=API)
    assert marks
    assert all(mark is not None and not mark.over for mark in marks)
    mark = mark_of(logto, store, session)
    assert (mark is not None and mark.over) is left


async def test_token_of_a_replaced_session_is_not_revoked(site: Site, store: FaultyStore) -> None:
    """A new sign-in replaced the session during its refresh: both share a grant at Logto, which must go on."""
    visitor, session = await visit(site)
    network = Network(site.provider)
    logto = Logto(site.config, store=store, http_client=httpx.AsyncClient(transport=network), clock=site.clock)

    async def replaced_meanwhile(request: httpx.Request, forward: Forward) -> httpx.Response:
        response = await forward(request)
        await visitor.sign_in()
        return response

    network.step_in("/token", replaced_meanwhile)
    with pytest.raises(SessionEnded):
        await logto.tokens.get(session, resource=API)
    assert logto.counts["refresh.discarded"] == 1
    assert site.provider.requests.count("revocation") == 0


async def test_refresh_that_was_overtaken_starts_over(site: Site, store: FaultyStore) -> None:
    """Somebody without the lock changed the session before the request left: the next try goes on from there."""
    _, session = await visit(site)
    backend = Logto(site.config, store=store, http_client=issuer_client(site.provider), clock=site.clock).sessions
    assert isinstance(backend, StoreBackend)

    async def change_first(name: str) -> None:
        if name == "set":
            store.before = None
            held = await backend._keeper.look(key_of(session.id), touch=False)
            assert isinstance(held, Held)
            await backend._keeper.write(backend._keeper.change(held, replace(session, version=7)))

    store.before = change_first
    newest, _ = await site.logto.tokens.get(session, resource=API)
    assert newest.version > 7
    assert site.refreshes() == 1


async def test_refresh_whose_answer_comes_too_late_goes_on_from_the_newer_state(site: Site, store: FaultyStore) -> None:
    """Somebody saved a newer state while the answer was under way: that one counts, and no refresh is reported."""
    _, session = await visit(site)
    network = Network(site.provider)
    logto = Logto(site.config, store=store, http_client=httpx.AsyncClient(transport=network), clock=site.clock)
    backend = site.logto.sessions
    assert isinstance(backend, StoreBackend)
    theirs = replace(session, version=7, refresh_token="theirs")

    async def overtaken_meanwhile(request: httpx.Request, forward: Forward) -> httpx.Response:
        response = await forward(request)
        held = await backend._keeper.look(key_of(session.id), touch=False)
        assert isinstance(held, Held)
        await backend._keeper.write(backend._keeper.change(held, theirs))
        return response

    network.step_in("/token", overtaken_meanwhile)
    newest, token = await logto.tokens.get(session, resource=API)
    assert newest == theirs
    assert token.resource == API
    assert await backend.current(session) == theirs
    assert (logto.counts["save.overtaken"], "refresh.done" in logto.counts) == (1, False)


async def test_session_that_ends_while_its_tokens_are_cleared(site: Site, store: FaultyStore) -> None:
    """Whoever clears learns of the end, and the session does not come back."""
    visitor, session = await visit(site)
    other = Logto(site.config, store=store, http_client=issuer_client(site.provider), clock=site.clock)

    async def end_first(name: str) -> None:
        if name == "set":
            store.before = None
            await other.end_sessions(sub="alice")

    store.before = end_first
    with pytest.raises(SessionEnded):
        await site.logto.tokens.clear(session)
    assert (await visitor.get("/")).json() == {"sub": None}


async def test_full_store_lets_older_claims_pass(site: Site, store: FaultyStore) -> None:
    """Claims of an hour cannot be renewed then: nothing is spent, and nobody is refused for that."""
    visitor, _ = await visit(site)
    site.clock.move(HOUR)
    store.full = True
    assert (await visitor.get("/me")).status_code == 200
    assert (site.refreshes(), site.logto.counts["claims.stale"]) == (0, 1)

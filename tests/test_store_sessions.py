"""An app whose sessions lie in a store, from its visitors' side, with the store there and away."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, WebSocket
from starlette.authentication import requires
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.testclient import TestClient

from logto_asgi import (
    ConfigurationError,
    Logto,
    LogtoMiddleware,
    MemoryStore,
    RequireAuthMiddleware,
    SetupError,
    StoreUnavailable,
)
from logto_asgi.fastapi import SignedIn
from logto_asgi.testing import issuer_client, signed_in
from logto_asgi.testing.visitor import NAVIGATION
from tests.conftest import API, MakeSite, Site, build_app
from tests.session.faulty_store import FaultyStore
from tests.test_middleware import session_cookies

HOUR = 3600


def with_pages(logto: Logto) -> FastAPI:
    """Return the app with pages that read the user in other ways."""
    app = build_app(logto)

    @app.get("/required")
    @requires("authenticated")
    async def required(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.user.identity)

    @app.get("/bare")
    async def bare(request: Request):  # type: ignore[no-untyped-def]
        return request.state.user

    @app.get("/nested")
    async def nested(request: Request) -> dict[str, Any]:
        return {"user": dict(request.state.user)}

    @app.get("/stream")
    async def stream(user: SignedIn) -> StreamingResponse:
        async def parts() -> Any:
            yield b"begun "
            yield (await user.get_access_token(API, force_refresh=True)).encode()

        return StreamingResponse(parts())

    @app.get("/group")
    async def group(user: SignedIn) -> int:
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(user.get_access_token(API)) for _ in range(20)]
        return len({task.result() for task in asked})

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse(scope["state"]["user"].identity)(scope, receive, send)

    app.mount("/mounted", RequireAuthMiddleware(plain))
    return app


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore()


@pytest.fixture
def make_site(make_site: MakeSite) -> MakeSite:
    """Make sites that ask a store again at once that has just failed, so that no test must wait."""

    def make(*given: Any, **options: Any) -> Site:
        site = make_site(*given, **options)
        if site.logto.sessions.remote:
            site.logto.sessions._store._pause = 0.0  # type: ignore[attr-defined] # the breaker of a store
        return site

    return make


@pytest.fixture
def site(make_site: MakeSite, store: FaultyStore) -> Site:
    return make_site({"rotate": "always", "grace": 0}, app=with_pages, store=store)


async def visit(site: Site, **options: Any) -> Any:
    visitor = await site.visitor(**options)
    await visitor.sign_in()
    return visitor


async def test_cookie_holds_a_signed_id_and_is_written_once(site: Site, store: FaultyStore) -> None:
    """Sign-in writes it; no request after that does, however long the session is in use."""
    visitor = await site.visitor()
    answer = await visitor.sign_in()
    written = [line for each in [*answer.history, answer] for line in session_cookies(each)]
    assert len(written) == 1
    assert len(written[0]) < 300
    for _ in range(5):
        site.clock.move(86_400)
        response = await visitor.get("/me")
        assert response.status_code == 200
        assert session_cookies(response) == []


async def test_nothing_of_a_visitor_can_be_read_in_the_store(site: Site, store: FaultyStore) -> None:
    """Neither id nor token nor name: values are sealed, keys are hashes."""
    visitor = await visit(site)
    token = (await visitor.get("/token")).json()
    (cookie,) = [cookie.value for cookie in visitor.cookies.jar if cookie.name.count("_") == 1]
    dump = repr(store.inside._kept) + repr(store.values)
    secret = [token, cookie.partition(".")[0], "alice", *site.provider._core.storage.refresh_tokens]
    assert not [each for each in secret if each in dump]


async def test_public_page_asks_the_store_nothing_for_a_stranger(site: Site, store: FaultyStore) -> None:
    """A request without our cookie costs no look-up, nor does a bearer token."""
    stranger = await site.visitor()
    await stranger.get("/")
    visitor = await visit(site)
    store.calls.clear()
    await visitor.get("/", headers={"Authorization": "Bearer abc"})
    await stranger.get("/untouched")
    assert store.calls == []


async def test_signed_in_request_is_one_look(site: Site, store: FaultyStore) -> None:
    """One round trip, with the cached token as well; touching is part of it."""
    visitor = await visit(site)
    await visitor.get("/token")
    store.calls.clear()
    await visitor.get("/token")
    site.clock.move(700)
    await visitor.get("/me")
    assert store.calls == ["get", "get"]


async def test_page_that_never_reads_the_user_does_not_vary_by_cookie(site: Site) -> None:
    """The middleware looks ahead, the app did not ask: a shared cache may keep the page."""
    visitor = await visit(site)
    assert "vary" not in (await visitor.get("/untouched")).headers
    assert "Cookie" in (await visitor.get("/")).headers["vary"]


async def test_sign_out_ends_the_session_in_every_process(site: Site, store: FaultyStore) -> None:
    """Another process with the same store knows at once, and a copied cookie opens nothing."""
    visitor = await visit(site)
    copy = httpx.Cookies(visitor.cookies)
    other = Logto(site.config, store=store, http_client=issuer_client(site.provider), clock=site.clock)
    elsewhere = httpx.AsyncClient(
        transport=httpx.ASGITransport(build_app(other)), base_url=site.config.base_url, cookies=copy
    )
    assert (await elsewhere.get("/")).json() == {"sub": "alice"}
    await visitor.sign_out()
    assert (await elsewhere.get("/")).json() == {"sub": None}
    assert (await (await site.visitor(cookies=copy)).get("/")).json() == {"sub": None}


async def test_sign_in_makes_a_new_id_and_ends_the_old_session(make_site: MakeSite, store: FaultyStore) -> None:
    """A fixed or copied id is of no use after the next sign-in."""
    site = make_site(store=store, prompt="login consent")
    visitor = await visit(site)
    old = httpx.Cookies(visitor.cookies)
    await visitor.sign_in("bob")
    assert (await visitor.get("/")).json()["sub"] == "bob"
    assert (await (await site.visitor(cookies=old)).get("/")).json() == {"sub": None}


async def test_end_sessions_signs_a_user_out_everywhere(site: Site) -> None:
    """Three browsers of Alice, one of Bob: three end, their refresh tokens are revoked, Bob stays."""
    alice = [await visit(site) for _ in range(3)]
    bob = await site.visitor()
    await bob.sign_in("bob")
    assert await site.logto.end_sessions(sub="alice") == 3
    assert [(await each.get("/")).json()["sub"] for each in [*alice, bob]] == [None, None, None, "bob"]
    assert site.provider.requests.count("revocation") == 3
    assert await site.logto.end_sessions(sub="alice") == 0
    assert site.logto.counts["session.ended"] == 3


async def test_end_sessions_needs_to_know_whose(site: Site) -> None:
    """Neither a user nor a session at the issuer: a sentence, and nobody is signed out."""
    with pytest.raises(SetupError, match="sub="):
        await site.logto.end_sessions()


async def test_end_sessions_can_be_repeated(site: Site, store: FaultyStore) -> None:
    """A store that fails half-way is raised, nothing is left half done, and the next call ends the rest."""
    visitors = [await visit(site) for _ in range(4)]
    failing = iter([True])

    async def fail_once(name: str) -> None:
        if name == "set" and next(failing, False):
            raise StoreUnavailable("away")

    store.before = fail_once
    with pytest.raises(StoreUnavailable):
        await site.logto.end_sessions(sub="alice")
    ended = site.logto.counts.get("session.ended", 0)
    assert site.provider.requests.count("revocation") == ended
    assert await site.logto.end_sessions(sub="alice") == 4 - ended
    assert [(await each.get("/")).json()["sub"] for each in visitors] == [None] * 4


async def test_end_sessions_waits_for_the_issuer_three_seconds_at_most(
    make_site: MakeSite, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are ended first; an issuer that hangs leaves their refresh tokens unrevoked, and nobody waiting."""
    monkeypatch.setattr("logto_asgi.flows._SIGN_OUT_BUDGET", 0.01)
    site = make_site(store=store, http_timeout=300)
    for _ in range(3):
        await visit(site)
    site.provider.delay("revocation", 300)
    async with asyncio.timeout(60):  # only so that a mistake ends the test
        assert await site.logto.end_sessions(sub="alice") == 3


async def test_user_leads_to_the_runtime(make_site: MakeSite) -> None:
    """In a mounted app, or without a lifespan, a request finds its `Logto` through its user."""

    def with_button(logto: Logto) -> FastAPI:
        app = build_app(logto)

        @app.post("/everywhere")
        async def everywhere(user: SignedIn) -> int:
            return await user.logto.end_sessions(sub=user.identity)

        return app

    site = make_site(app=with_button, store=MemoryStore())
    visitor = await visit(site)
    assert (await visitor.post("/everywhere")).json() == 1
    assert (await visitor.get("/")).json() == {"sub": None}


async def test_end_sessions_needs_a_store(make_site: MakeSite) -> None:
    """With cookies nobody knows where a user is signed in, and the error says what to do."""
    with pytest.raises(SetupError, match="store="):
        await make_site().logto.end_sessions(sub="alice")


async def test_refresh_in_a_stream_is_not_lost(site: Site) -> None:
    """The headers are gone, the store has it: the next request goes on with the rotated token."""
    visitor = await visit(site)
    streamed = (await visitor.get("/stream")).text
    assert streamed.startswith("begun ")
    assert (await visitor.get("/token")).json() == streamed.removeprefix("begun ")
    site.clock.move(HOUR)
    assert (await visitor.get("/token")).status_code == 200
    assert site.provider.requests.count("token", "refresh_token") == 2


async def test_task_group_shares_one_refresh(site: Site) -> None:
    """An endpoint that hands the user to twenty tasks gets one token."""
    visitor = await visit(site)
    assert (await visitor.get("/group")).json() == 1
    assert site.refreshes() == 1


def test_websocket_outlives_its_token_and_learns_of_a_sign_out(make_site: MakeSite, store: FaultyStore) -> None:
    """A connection gets a new token when the old one has expired; once the session has ended elsewhere, none."""

    def with_socket(logto: Logto) -> FastAPI:
        app = build_app(logto)

        @app.websocket("/tokens")
        async def tokens(websocket: WebSocket, user: SignedIn) -> None:
            await websocket.accept()
            while await websocket.receive_text() == "more":
                await websocket.send_text(await user.get_access_token(API))

        return app

    site = make_site({"rotate": "always", "grace": 0}, app=with_socket, store=store)
    client = TestClient(site.app, base_url=site.config.base_url)
    with client:
        asyncio.run(_sign_in_for(client, site))
        with client.websocket_connect("/tokens") as socket:
            tokens = []
            for _ in range(3):
                socket.send_text("more")
                tokens.append(socket.receive_text())
                site.clock.move(HOUR)
            assert len(set(tokens)) == 3
            client.post("/logto/sign-out")
            socket.send_text("more")
            closed = socket.receive()
            assert (closed["type"], closed["code"]) == ("websocket.close", 1008)


async def _sign_in_for(client: TestClient, site: Site) -> None:
    visitor = await site.visitor()
    await visitor.sign_in()
    for cookie in visitor.cookies.jar:
        client.cookies.set(cookie.name, cookie.value)


class TestStoreAway:
    """Reading the user is 503, never "nobody"; what does not read it goes on; nothing is lost (security line 25)."""

    @pytest.fixture
    async def visitor(self, site: Site, store: FaultyStore) -> Any:
        visitor = await visit(site)
        await visitor.get("/token")
        store.go_down()
        return visitor

    @pytest.mark.parametrize(
        "path", ["/", "/me", "/maybe", "/token", "/required", "/mounted/", "/sync", "/info", "/bare", "/nested"]
    )
    async def test_reading_the_user_is_503(self, visitor: Any, store: FaultyStore, path: str) -> None:
        """For a program JSON with the code and when to come back; no cookie is touched; afterwards all is as before."""
        response = await visitor.get(path)
        assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
        assert response.headers["retry-after"] == "2"
        assert "set-cookie" not in response.headers
        store.come_back()
        assert (await visitor.get(path)).status_code == 200

    async def test_browser_gets_a_page(self, visitor: Any) -> None:
        """It says that nobody was signed out, and offers to try again."""
        page = await visitor.navigate("/me")
        assert page.status_code == 503
        assert "Nobody was signed out" in page.text
        assert "We can&#x27;t look up your session" in page.text
        assert "Try again" in page.text

    async def test_pages_that_do_not_read_the_user_go_on(self, visitor: Any, site: Site) -> None:
        """Also for a browser with a session cookie; strangers notice nothing at all."""
        assert (await visitor.get("/untouched")).json() == "ok"
        stranger = await site.visitor()
        assert (await stranger.get("/")).json() == {"sub": None}
        assert (await stranger.get("/me")).status_code == 401

    async def test_websocket_is_refused(self, visitor: Any, site: Site) -> None:
        """A handshake that needs the user is denied with 503."""
        client = TestClient(site.app, base_url=site.config.base_url, cookies=dict(visitor.cookies))
        from starlette.testclient import WebSocketDenialResponse

        with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/ws-guarded"):
            pass
        assert denied.value.status_code == 503

    async def test_sign_out_says_that_it_did_not_happen(self, visitor: Any, store: FaultyStore) -> None:
        """A session that cannot be ended is not said to have ended: 503, and it is there afterwards."""
        page = await visitor.sign_out()
        assert page.status_code == 503
        store.come_back()
        assert (await visitor.get("/")).json() == {"sub": "alice"}

    async def test_store_that_fails_while_a_session_ends(self, site: Site, store: FaultyStore) -> None:
        """It was read and cannot be ended: 503 instead of a sign-out that did not happen."""
        visitor = await visit(site)

        async def fail_the_end(name: str) -> None:
            if name in ("set", "delete"):
                store.go_down()

        store.before = fail_the_end
        assert (await visitor.sign_out()).status_code == 503
        store.before = None
        store.come_back()
        assert (await visitor.get("/")).json() == {"sub": "alice"}

    @pytest.mark.parametrize("writes", [2, 3], ids=["outcome", "replaced-session"])
    async def test_sign_in_does_without_what_comes_after_it(
        self, make_site: MakeSite, store: FaultyStore, writes: int
    ) -> None:
        """Neither the outcome for other processes nor the end of the session before is worth a sign-in."""
        site = make_site(store=store, prompt="login consent")
        visitor = await visit(site)
        page = await visitor.navigate("/logto/sign-in")
        store.calls.clear()

        async def fail_then(name: str) -> None:
            if name == "set" and store.count("set") > writes:
                store.go_down()

        store.before = fail_then
        answer = await visitor.choose(page, "bob")
        assert answer.url.path == "/"
        store.before = None
        store.come_back()
        assert (await visitor.get("/")).json() == {"sub": "bob"}

    async def test_callback_can_be_repeated(self, site: Site, store: FaultyStore) -> None:
        """Nothing is spent before the store has claimed the state: the same address works once it is back."""
        visitor = await site.visitor()
        page = await visitor.navigate("/logto/sign-in")
        store.go_down()
        refused = await visitor.choose(page)
        assert refused.status_code == 503
        assert site.provider.requests.count("token") == 0
        store.come_back()
        answer = await visitor.navigate(str(refused.url))
        assert answer.json() == {"sub": "alice"}

    async def test_store_that_fails_after_the_code_was_spent(self, site: Site, store: FaultyStore) -> None:
        """The visitor is told to sign in again, with a page and not a traceback; the tokens are revoked."""
        visitor = await site.visitor()
        page = await visitor.navigate("/logto/sign-in")

        async def fail_the_session(name: str) -> None:
            if name == "set" and store.count("set") > 1:
                store.go_down()

        store.before = fail_the_session
        answer = await visitor.choose(page)
        assert answer.status_code < 500
        assert "Try again" in answer.text
        assert site.provider.requests.count("revocation") == 1

    async def test_full_store_takes_no_refresh(self, site: Site, store: FaultyStore) -> None:
        """It refuses before anything is spent: 503, the issuer is not asked, and the session lives."""
        visitor = await visit(site)
        store.full = True
        response = await visitor.get("/token")
        assert (response.status_code, response.json()["code"]) == (503, "store_full")
        assert site.refreshes() == 0
        assert (await visitor.get("/me")).status_code == 200
        store.full = False
        assert (await visitor.get("/token")).status_code == 200

    async def test_store_that_is_set_up_wrongly_fails_no_other_page(self, visitor: Any, store: FaultyStore) -> None:
        """What only an app's author can mend is said where the user is read, and not on every page."""
        store.down = SetupError("This client belongs to another event loop.")
        assert (await visitor.get("/untouched")).status_code == 200
        response = await visitor.get("/")
        assert (response.status_code, response.json()["code"]) == (500, "setup_incomplete")

    async def test_prefetching_middleware_goes_on(self, make_site: MakeSite, store: FaultyStore) -> None:
        """What the configuration wants fetched for every request is not fetched, and no page suffers."""

        def with_prefetched(logto: Logto) -> FastAPI:
            app = with_pages(logto)

            @app.get("/prefetched")
            async def prefetched(request: Request) -> bool:
                return request.state.user.user_info is not None

            return app

        site = make_site(
            app=with_prefetched, store=store, fetch_user_info=True, get_access_token=True, revalidate_every=60
        )
        visitor = await visit(site)
        store.go_down()
        assert (await visitor.get("/untouched")).status_code == 200
        assert (await visitor.get("/")).status_code == 503
        assert (await visitor.get("/prefetched")).status_code == 503


async def test_made_up_session_asks_no_store(site: Site, store: FaultyStore) -> None:
    """Also where the browser sends the id of a real one."""
    visitor = await visit(site)
    store.calls.clear()
    with signed_in(site.app, sub="carol"):
        assert (await visitor.get("/")).json() == {"sub": "carol"}
    assert store.calls == []


async def test_two_processes_refresh_once(make_site: MakeSite, store: FaultyStore) -> None:
    """Two processes with one store, a hundred requests with an expired token: one refresh, and the session lives."""
    site = make_site({"rotate": "always", "grace": 0}, store=store)
    other = Logto(site.config, store=store, http_client=issuer_client(site.provider), clock=site.clock)
    visitor = await visit(site)
    elsewhere = httpx.AsyncClient(
        transport=httpx.ASGITransport(build_app(other)), base_url=site.config.base_url, cookies=visitor.cookies
    )
    await visitor.get("/token")
    for round_ in range(3):
        site.clock.move(HOUR)
        answers = await asyncio.gather(*(each.get("/token") for each in [visitor, elsewhere] * 50))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.text for answer in answers}) == 1
        assert site.refreshes() == 2 + round_


async def test_second_process_that_gets_the_same_callback_shares_the_session(
    make_site: MakeSite, store: FaultyStore
) -> None:
    """The state is claimed in the store: the code is exchanged once, and both answers sign the visitor in."""
    site = make_site(store=store)
    other = build_app(Logto(site.config, store=store, http_client=issuer_client(site.provider), clock=site.clock))
    visitor = await site.visitor()
    page = await visitor.navigate("/logto/sign-in")
    back = await visitor.post(page.url, data={"sub": "alice"}, headers=NAVIGATION)
    while "sign-in-callback" not in back.headers["location"]:
        back = await visitor.get(back.headers["location"], headers=NAVIGATION)
    callback = back.headers["location"]
    elsewhere = httpx.AsyncClient(
        transport=httpx.ASGITransport(other), base_url=site.config.base_url, cookies=visitor.cookies
    )
    first, second = await asyncio.gather(
        visitor.get(callback, headers=NAVIGATION), elsewhere.get(callback, headers=NAVIGATION)
    )
    assert (first.status_code, second.status_code) == (303, 303)
    assert site.provider.requests.count("token") == 1
    assert (await elsewhere.get("/")).json() == (await visitor.get("/")).json() == {"sub": "alice"}


@pytest.mark.parametrize("other", ["redis://localhost:6379/0", MemoryStore, object()], ids=["url", "class", "object"])
def test_what_is_no_store_is_refused_at_once(site: Site, other: Any) -> None:
    """A URL or a class in place of a store is said when the app is made, not by 503 at each request."""
    with pytest.raises(ConfigurationError, match=r"RedisStore\.from_url"):
        Logto(site.config, store=other)


def test_middleware_takes_a_store_with_its_config(site: Site) -> None:
    """`store=` goes with `config=`; a runtime has a store of its own."""
    middleware = LogtoMiddleware(site.app, config=site.config, store=MemoryStore())
    assert middleware.logto.sessions.remote
    with pytest.raises(ConfigurationError, match=r"Logto\(config, store=store\)"):
        LogtoMiddleware(site.app, logto=site.logto, store=MemoryStore())


class TestStartUp:
    """What the start says of a store."""

    async def run(self, site: Site) -> list[dict[str, Any]]:
        """Start the app as a server does, and return what it answered."""
        answers: list[dict[str, Any]] = []
        messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            answers.append(message)

        await site.app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
        return answers

    async def test_store_that_is_away_does_not_stop_the_start(
        self, site: Site, store: FaultyStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Public pages can be served; the log says what is missing."""
        store.go_down()
        assert (await self.run(site))[0]["type"] == "lifespan.startup.complete"
        assert "session store is away at start-up" in caplog.text

    async def test_shutdown_closes_the_store(self, site: Site, store: FaultyStore) -> None:
        """Its connections end with the app."""
        await self.run(site)
        assert store.calls == ["check", "aclose"]

    async def test_with_verify_on_startup_it_does(self, make_site: MakeSite, store: FaultyStore) -> None:
        """One sentence, no traceback."""
        store.go_down()
        (answer,) = await self.run(make_site(store=store, verify_on_startup=True))
        assert answer["type"] == "lifespan.startup.failed"
        assert "could not start" in answer["message"]
        assert answer["message"].endswith("away")

    async def test_warnings_of_the_store_are_logged(
        self, make_site: MakeSite, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A `MemoryStore` under several workers says so, with the remedy."""
        monkeypatch.setenv("WEB_CONCURRENCY", "4")
        await self.run(make_site(store=MemoryStore()))
        assert "RedisStore" in caplog.text

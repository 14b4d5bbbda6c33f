"""The middleware: a user on every connection, and a session that is written with whatever response there is."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI, HTTPException, Request, Response
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient, WebSocketDenialResponse

from logto_asgi import (
    IssuerUnavailable,
    Logto,
    LogtoConfig,
    LogtoMiddleware,
    RequireAuthMiddleware,
    SetupError,
    SignInOptions,
    SignInRequired,
    auth_routes,
)
from logto_asgi.fastapi import SignedIn, auth_router
from logto_asgi.testing import DevelopmentProvider
from logto_asgi.testing.visitor import NAVIGATION, Visitor, development_config, issuer_client
from tests.conftest import API, MakeSite, Site, build_app


def session_cookies(response: httpx.Response) -> list[str]:
    """Return the Set-Cookie values of the session itself."""
    return [value for value in response.headers.get_list("set-cookie") if value.partition("=")[0].count("_") == 1]


async def refreshed(visitor: Visitor, site: Site, path: str, **options: Any) -> httpx.Response:
    """Ask for a page of an app that refreshes a token on the way, with a token that has expired."""
    site.clock.move(3700)
    return await visitor.get(path, **options)


def with_pages(logto: Logto) -> FastAPI:
    """Return an app whose endpoints refresh a token and answer in each way there is."""
    app = build_app(logto)

    @app.get("/stream")
    async def stream(user: SignedIn) -> StreamingResponse:
        await user.get_access_token(API)

        async def parts() -> AsyncIterator[bytes]:
            for part in (b"a", b"b"):
                await asyncio.sleep(0)
                yield part

        return StreamingResponse(parts())

    @app.get("/late")
    async def late(user: SignedIn) -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"first "
            yield (await user.get_access_token(API))[:10].encode()

        return StreamingResponse(parts())

    @app.get("/file")
    async def file(user: SignedIn) -> FileResponse:
        await user.get_access_token(API)
        return FileResponse(Path(__file__), headers={"Cache-Control": "public, max-age=60", "ETag": '"x"'})

    @app.get("/own-response")
    async def own_response(user: SignedIn, response: Response) -> JSONResponse:
        response.headers["x-lost"] = "an injected response is not the one that is sent"
        await user.get_access_token(API)
        return JSONResponse({"own": True})

    @app.get("/http-exception")
    async def http_exception(user: SignedIn) -> None:
        await user.get_access_token(API)
        raise HTTPException(418, "teapot")

    @app.get("/crash")
    async def crash(user: SignedIn) -> None:
        await user.get_access_token(API)
        raise RuntimeError("boom")

    @app.get("/background")
    async def background(user: SignedIn, tasks: BackgroundTasks) -> str:
        tasks.add_task(user.get_access_token, API)
        return "ok"

    @app.get("/public")
    async def public(request: Request) -> PlainTextResponse:
        text = "in" if request.state.user.is_authenticated else "out"
        return PlainTextResponse(text, headers={"Cache-Control": "public, max-age=600"})

    return app


@pytest.mark.parametrize("path", ["/stream", "/file", "/own-response", "/http-exception"])
async def test_refreshed_session_leaves_with_every_kind_of_response(make_site: MakeSite, path: str) -> None:
    """The cookie is written by the send wrapper, so no response class loses it, and no shared cache may keep it."""
    site = make_site({"rotate": "always"}, app=with_pages, claims_max_age=7200)
    visitor = await site.visitor()
    await visitor.sign_in()
    response = await refreshed(visitor, site, path)
    assert len(session_cookies(response)) == 1
    assert response.headers["cache-control"] == "private, no-store"
    assert "Cookie" in response.headers["vary"]
    again = await visitor.get("/token")
    assert again.status_code == 200
    assert site.refreshes() == 1


@pytest.mark.parametrize("path", ["/late", "/background", "/crash"])
async def test_refresh_whose_response_has_gone_is_written_with_the_next(make_site: MakeSite, path: str) -> None:
    """A refresh inside a stream, after the response or before a crash is remembered and not lost."""
    site = make_site({"rotate": "always", "grace": 0}, app=with_pages, claims_max_age=7200)
    visitor = await site.visitor()
    visitor._transport.raise_app_exceptions = False  # type: ignore[attr-defined]
    await visitor.sign_in()
    site.clock.move(3200)
    await visitor.get("/")
    site.clock.move(500)
    response = await visitor.get(path)
    assert session_cookies(response) == []
    site.clock.move(30)
    following = await visitor.get("/")
    assert len(session_cookies(following)) == 1
    assert (await visitor.get("/token")).status_code == 200
    assert site.refreshes() == 1


async def test_log_warns_of_a_user_that_is_read_too_late(make_site: MakeSite, caplog: pytest.LogCaptureFixture) -> None:
    """A stream that asks for the user in its body has sent its headers: no cache learns that it varies by cookie."""

    def build(logto: Logto) -> FastAPI:
        app = build_app(logto)

        @app.get("/tardy")
        async def tardy(request: Request) -> StreamingResponse:
            async def parts() -> AsyncIterator[bytes]:
                yield b"Hello, "
                yield request.state.user.display_name.encode()

            return StreamingResponse(parts())

        return app

    site = make_site(app=build)
    visitor = await site.visitor()
    await visitor.get("/tardy")
    assert "first read after the response began" not in caplog.text
    await visitor.sign_in()
    assert (await visitor.get("/tardy")).text == "Hello, Alice Martin"
    assert "first read after the response began" in caplog.text


async def test_untouched_request_costs_nothing_and_says_nothing(site: Site) -> None:
    """A response of an endpoint that never asked for the user has no Vary and no cookie."""
    visitor = await site.visitor()
    await visitor.sign_in()
    response = await visitor.get("/untouched")
    assert "vary" not in response.headers
    assert "set-cookie" not in response.headers


async def test_reading_the_user_varies_by_cookie(site: Site) -> None:
    """A cache must not hand one visitor's page to another; a signed-in read writes no cookie."""
    visitor = await site.visitor()
    assert (await visitor.get("/")).headers["vary"] == "Cookie"
    await visitor.sign_in()
    response = await visitor.get("/")
    assert response.headers["vary"] == "Cookie"
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize(
    ("own", "sent"),
    [("Accept", ["Accept", "Cookie"]), ("Accept, COOKIE", ["Accept, COOKIE"]), ("*", ["*"])],
)
async def test_vary_of_the_app_is_kept(make_site: MakeSite, own: str, sent: list[str]) -> None:
    """Cookie is added to what the response varies by already, once."""

    def build(logto: Logto) -> FastAPI:
        app = build_app(logto)

        @app.get("/varying")
        async def varying(request: Request) -> PlainTextResponse:
            return PlainTextResponse(request.state.user.identity, headers={"Vary": own})

        return app

    response = await (await make_site(app=build).visitor()).get("/varying")
    assert response.headers.get_list("vary") == sent


async def test_session_rolls_once_per_interval(site: Site) -> None:
    """At 599 seconds nothing is written, at 600 the idle lifetime is extended, and then again not."""
    visitor = await site.visitor()
    await visitor.sign_in()
    site.clock.move(599)
    assert session_cookies(await visitor.get("/")) == []
    site.clock.move(1)
    assert len(session_cookies(await visitor.get("/"))) == 1
    assert session_cookies(await visitor.get("/")) == []


async def test_rolling_is_left_out_where_the_response_may_be_shared(make_site: MakeSite) -> None:
    """A publicly cacheable response keeps its Cache-Control and carries no cookie; it varies by cookie."""
    site = make_site(app=with_pages)
    visitor = await site.visitor()
    await visitor.sign_in()
    site.clock.move(700)
    response = await visitor.get("/public")
    assert session_cookies(response) == []
    assert response.headers["cache-control"] == "public, max-age=600"
    assert response.headers["vary"] == "Cookie"
    assert len(session_cookies(await visitor.get("/"))) == 1


async def test_idle_and_absolute_lifetimes_are_the_servers(site: Site) -> None:
    """A kept copy of the cookie opens nothing after its time, whatever the browser does."""
    visitor = await site.visitor()
    await visitor.sign_in()
    copy = httpx.Cookies(visitor.cookies)
    site.clock.move(site.config.idle_lifetime - 1)
    assert (await visitor.get("/")).json() == {"sub": "alice"}
    site.clock.move(1)
    assert (await visitor.get("/")).json() == {"sub": "alice"}, "it was rolled a second ago"
    late = await site.visitor(cookies=copy)
    response = await late.get("/")
    assert response.json() == {"sub": None}
    assert "Max-Age=0" in session_cookies(response)[0]
    while site.clock() < 1_800_000_000 + site.config.absolute_lifetime - 1:
        site.clock.now = min(site.clock() + 500_000, 1_800_000_000 + site.config.absolute_lifetime - 1)
        assert (await visitor.get("/")).json() == {"sub": "alice"}
    site.clock.move(1)
    assert (await visitor.get("/")).json() == {"sub": None}


class TestSlowResponses:
    """When headers leave, the newest known state is written, never an older one (security line 4)."""

    @staticmethod
    def app_with_a_gate(gate: asyncio.Event) -> Callable[[Logto], FastAPI]:
        def build(logto: Logto) -> FastAPI:
            app = build_app(logto)

            @app.get("/slow")
            async def slow(user: SignedIn) -> str:
                await gate.wait()
                return user.identity

            return app

        return build

    async def test_across_a_refresh(self, make_site: MakeSite) -> None:
        """A request that began before a refresh does not bring the old state back."""
        gate = asyncio.Event()
        site = make_site({"rotate": "always", "grace": 0}, app=self.app_with_a_gate(gate), claims_max_age=7200)
        visitor = await site.visitor()
        await visitor.sign_in()
        site.clock.move(3700)
        slow = asyncio.create_task(visitor.get("/slow"))
        await asyncio.sleep(0.01)
        await visitor.get("/token")
        gate.set()
        await slow
        assert (await visitor.get("/token")).status_code == 200
        assert site.refreshes() == 1

    async def test_across_a_sign_out(self, make_site: MakeSite) -> None:
        """Nothing is written for a session that ended in the meantime."""
        gate = asyncio.Event()
        site = make_site(app=self.app_with_a_gate(gate))
        visitor = await site.visitor()
        await visitor.sign_in()
        site.clock.move(700)
        slow = asyncio.create_task(visitor.get("/slow"))
        await asyncio.sleep(0.01)
        await visitor.post("/logto/sign-out")
        gate.set()
        assert session_cookies(await slow) == []
        assert (await visitor.get("/")).json() == {"sub": None}

    async def test_across_a_sign_in_as_somebody_else(self, make_site: MakeSite) -> None:
        """The slow response of the user before does not replace the new one's session."""
        gate = asyncio.Event()
        site = make_site(app=self.app_with_a_gate(gate), sign_in_options=SignInOptions(prompt="login consent"))
        visitor = await site.visitor()
        await visitor.sign_in("alice")
        site.clock.move(700)
        slow = asyncio.create_task(visitor.get("/slow"))
        await asyncio.sleep(0.01)
        await visitor.sign_in("bob")
        gate.set()
        assert session_cookies(await slow) == []
        assert (await visitor.get("/")).json() == {"sub": "bob"}


@pytest.mark.parametrize(
    "value", ["Bearer nonsense", "bearer eyJhbGciOiJub25lIn0.e30.", "BEARER  x", "Bearer", "Bearer\tx"]
)
async def test_bearer_header_decides_alone(site: Site, value: str) -> None:
    """A request with a bearer token is judged by it; its cookie is not looked at (security line 18)."""
    visitor = await site.visitor()
    await visitor.sign_in()
    response = await visitor.get("/me", headers={"Authorization": value})
    assert response.status_code == 401
    assert 'error="invalid_token"' in response.headers["www-authenticate"]
    for other in ("Basic eDp5", "Bearers x"):
        assert (await visitor.get("/me", headers={"Authorization": other})).status_code == 200


CRAFTED = [
    ("tampered", lambda value: value[:-8] + "AAAAAAAA"),
    ("truncated", lambda value: value[:60]),
    ("64 KB", lambda value: "c1." + "a" * 65_536),
    ("quoted", lambda value: f'"{value}"'),
    ("empty", lambda value: ""),
    ("percent", lambda value: "%00%ff"),
    ("five dots", lambda value: "c1.x.....    "),
]


@pytest.mark.parametrize("change", [change for _, change in CRAFTED], ids=[name for name, _ in CRAFTED])
async def test_crafted_cookie_is_anonymous(site: Site, change: Callable[[str], str]) -> None:
    """Whatever the cookie holds, nobody is signed in and nothing crashes."""
    visitor = await site.visitor()
    await visitor.sign_in()
    name, value = next((c.name, c.value) for c in visitor.cookies.jar if c.name.count("_") == 1 and "logto_" in c.name)
    stranger = await site.visitor()
    response = await stranger.get("/", headers={"Cookie": f"{name}={change(value or '')}"})
    assert response.status_code == 200
    assert response.json() == {"sub": None}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda value: value[:-8] + "AAAAAAAA", "chunks|tampered"),
        (lambda value: value[:-30] + "A" * 22 + value[-8:], "tampered"),
        (lambda value: "c1.x.y", "malformed"),
    ],
)
async def test_log_says_why_a_cookie_is_not_used(
    site: Site, change: Callable[[str], str], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A word for whoever looks for a reason, and nothing of the cookie's value."""
    caplog.set_level("INFO", "logto_asgi")
    visitor = await site.visitor()
    await visitor.sign_in()
    name, value = next((c.name, c.value) for c in visitor.cookies.jar if c.name.count("_") == 1 and "logto_" in c.name)
    await (await site.visitor()).get("/", headers={"Cookie": f"{name}={change(value or '')}"})
    assert re.search(f"session cookie not used: ({why})", caplog.text)
    assert (value or "")[-40:-30] not in caplog.text


async def test_non_ascii_cookie_is_anonymous(site: Site) -> None:
    """Raw bytes beyond ASCII in the header do no harm."""
    stranger = await site.visitor()
    response = await stranger.get("/", headers=[(b"cookie", b"logto_\xff=\xfe; x=\xc3\xbc")])
    assert response.json() == {"sub": None}


async def test_cookie_of_another_secret_is_anonymous_and_left_alone(make_site: MakeSite) -> None:
    """During a deploy it may be a newer worker's: it is not deleted (security line 5)."""
    one, other = make_site(), make_site()
    visitor = await one.visitor()
    await visitor.sign_in()
    response = await (await other.visitor(cookies=visitor.cookies)).get("/")
    assert response.json() == {"sub": None}
    assert "set-cookie" not in response.headers


async def test_secrets_rotate_in_two_deploys(make_site: MakeSite) -> None:
    """Append the new secret, then move it first: sessions live through both."""
    old, new = "AhQ7rT2mXw9Lp4sVb8Nc6Kj3Fd5Gz1YtUe", "BkW3nR8vZq5Tm2Xp7Ls9Jd4Hc6Fg1SbQa"
    first = make_site(cookie_secret=old)
    visitor = await first.visitor()
    await visitor.sign_in()
    for secrets in ([old, new], [new, old]):
        site = make_site(cookie_secret=secrets)
        carrier = await site.visitor(cookies=visitor.cookies)
        assert (await carrier.get("/")).json() == {"sub": "alice"}
    site.clock.move(700)
    await carrier.get("/")
    last = make_site(cookie_secret=new)
    last.clock.now = site.clock.now
    assert (await (await last.visitor(cookies=carrier.cookies)).get("/")).json() == {"sub": "alice"}


class TestOtherMiddleware:
    """The session survives whatever stands on either side."""

    @pytest.mark.parametrize("outside", [True, False], ids=["outside", "inside"])
    async def test_base_http_middleware(self, make_site: MakeSite, outside: bool) -> None:
        """A BaseHTTPMiddleware may read the user and keeps the cookie."""
        seen: list[bool] = []

        class Reader(BaseHTTPMiddleware):
            async def dispatch(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
                if not outside:
                    seen.append(request.state.user.is_authenticated)
                return await call_next(request)

        def build(logto: Logto) -> FastAPI:
            app = FastAPI()
            first, second = (LogtoMiddleware, Reader) if outside else (Reader, LogtoMiddleware)
            for each in (first, second):
                app.add_middleware(each, **({"logto": logto} if each is LogtoMiddleware else {}))  # type: ignore[arg-type]
            inner = build_app(logto)
            app.router.routes.extend(inner.router.routes)
            return app

        site = make_site({"rotate": "always"}, app=build)
        visitor = await site.visitor()
        await visitor.sign_in()
        response = await refreshed(visitor, site, "/token")
        assert len(session_cookies(response)) == 1
        if not outside:
            assert seen[-1] is True

    async def test_gzip_and_cors(self, make_site: MakeSite) -> None:
        """A compressed answer to a cross-origin read keeps its cookie, and both headers vary."""

        def build(logto: Logto) -> FastAPI:
            app = build_app(logto)
            app.add_middleware(GZipMiddleware, minimum_size=10)
            app.add_middleware(CORSMiddleware, allow_origins=["https://spa.example"], allow_credentials=True)
            return app

        site = make_site(app=build)
        visitor = await site.visitor()
        await visitor.sign_in()
        site.clock.move(700)
        headers = {"Origin": "https://spa.example", "Accept-Encoding": "gzip"}
        response = await visitor.get("/me", headers=headers)
        assert response.headers["content-encoding"] == "gzip"
        assert response.headers["access-control-allow-origin"] == "https://spa.example"
        assert {"cookie", "accept-encoding", "origin"} <= {
            each.strip().lower() for each in response.headers["vary"].split(",")
        }
        assert len(session_cookies(response)) == 1

    async def test_refusal_carries_cors_headers(self, make_site: MakeSite) -> None:
        """A 401 is answered inside of CORSMiddleware, so a page elsewhere may read it."""

        def build(logto: Logto) -> FastAPI:
            app = build_app(logto)
            app.add_middleware(CORSMiddleware, allow_origins=["https://spa.example"], allow_credentials=True)
            return app

        site = make_site(app=build)
        response = await (await site.visitor()).get("/me", headers={"Origin": "https://spa.example"})
        assert response.status_code == 401
        assert response.headers["access-control-allow-origin"] == "https://spa.example"


class TestStarlette:
    """Everything works without FastAPI."""

    @staticmethod
    def build(logto: Logto) -> Any:
        async def home(request: Request) -> JSONResponse:
            return JSONResponse({"name": request.user.display_name, "scopes": request.auth.scopes})

        @requires("authenticated", redirect="logto:sign-in")
        async def account(request: Request) -> PlainTextResponse:
            return PlainTextResponse(request.user.identity)

        @requires("authenticated")
        async def change(request: Request) -> PlainTextResponse:
            return PlainTextResponse(request.user.identity)

        @requires("read:secrets", redirect="logto:sign-in")
        async def secrets(request: Request) -> PlainTextResponse:
            return PlainTextResponse("a scope that nobody is given")

        files = RequireAuthMiddleware(StaticFiles(directory=Path(__file__).parent))
        return Starlette(
            routes=[
                *auth_routes(logto.config),
                Route("/", home),
                Route("/account", account),
                Route("/secrets", secrets),
                Route("/change", change, methods=["POST"]),
                Mount("/files", files),
            ],
            middleware=[Middleware(LogtoMiddleware, logto=logto)],
        )

    async def test_user_and_auth(self, make_site: MakeSite) -> None:
        """`request.user`, `request.auth` and `@requires` speak of the same visitor."""
        site = make_site(app=self.build)
        visitor = await site.visitor()
        assert (await visitor.get("/")).json() == {"name": "", "scopes": []}
        page = await visitor.sign_in(path="/account?tab=1")
        assert (page.text, str(page.url)) == ("alice", "http://localhost:8000/account?tab=1")
        assert (await visitor.get("/")).json()["scopes"][0] == "authenticated"

    async def test_requires_that_nobody_meets_is_no_loop(self, make_site: MakeSite) -> None:
        """Signed in without the scope: one round through sign-in, then a page, which offers another by hand."""
        site = make_site(app=self.build)
        visitor = await site.visitor()
        page = await visitor.sign_in(path="/secrets?id=1")
        assert page.status_code == 403
        assert "permission_missing" in page.text
        assert site.provider.requests.count("token") == 1
        again = "http://localhost:8000/logto/sign-in?return_to=%2Fsecrets%3Fid%3D1"
        assert again in page.text
        assert "permission_missing" in (await visitor.navigate(again)).text
        assert site.provider.requests.count("token") == 2

    async def test_requires_refuses_a_foreign_post(self, make_site: MakeSite) -> None:
        """`request.auth` holds nothing for a request that another site sent by cookie."""
        site = make_site(app=self.build)
        visitor = await site.visitor()
        await visitor.sign_in()
        assert (await visitor.post("/change")).status_code == 200
        assert (await visitor.post("/change", headers={"Origin": "https://evil.example"})).status_code == 403

    async def test_mounted_files_are_guarded(self, make_site: MakeSite) -> None:
        """A browser goes to sign-in and comes back to the file; a program gets 401."""
        site = make_site(app=self.build)
        visitor = await site.visitor()
        assert (await visitor.get("/files/conftest.py")).status_code == 401
        page = await visitor.sign_in(path="/files/conftest.py")
        assert str(page.url) == "http://localhost:8000/files/conftest.py"
        assert page.status_code == 200

    async def test_guard_outside_of_the_apps_error_handling_answers_itself(self, make_site: MakeSite) -> None:
        """RequireAuthMiddleware around the whole app answers 401 and not 500."""

        def build(logto: Logto) -> Any:
            return Starlette(
                routes=[*auth_routes(logto.config), Route("/", lambda request: PlainTextResponse("in"))],
                middleware=[
                    Middleware(LogtoMiddleware, logto=logto),
                    Middleware(RequireAuthMiddleware, redirect=False),
                ],
            )

        site = make_site(app=build)
        response = await (await site.visitor()).get("/")
        assert response.status_code == 401
        assert response.json()["code"] == "sign_in_required"


class TestLifecycle:
    """With and without lifespan, over many event loops, twice in one process."""

    def test_many_loops_without_lifespan(self) -> None:
        """TestClient without `with` uses a new event loop for each request."""
        provider = DevelopmentProvider()
        config = development_config(provider, base_url="http://localhost:8000")
        app = build_app(Logto(config, http_client=issuer_client(provider)))
        client = TestClient(app, base_url="http://localhost:8000", follow_redirects=False)
        for _ in range(3):
            assert client.get("/").json() == {"sub": None}
            assert client.get("/logto/sign-in").status_code == 302

    def test_lifespan_puts_the_runtime_on_app_state(self) -> None:
        """Once started, `app.state.logto` is the runtime, for jobs."""
        provider = DevelopmentProvider()
        config = development_config(provider)
        app = build_app(Logto(config, http_client=issuer_client(provider)))
        with TestClient(app, base_url=config.base_url):
            assert app.state.logto.config is config

    @pytest.mark.parametrize("server", [{"asgi": {"version": "3.0"}}, {}], ids=["server", "test-client"])
    def test_verify_on_startup_fails_in_one_sentence(self, server: dict[str, Any]) -> None:
        """A wrong endpoint stops the server with a sentence, not a traceback; it says where and why."""
        app, config = self.app_without_issuer()
        sent: list[Any] = []

        async def run() -> None:
            async def receive() -> dict[str, str]:
                return {"type": "lifespan.startup"}

            async def send(message: Any) -> None:
                sent.append(message)

            await app({"type": "lifespan", "app": app, "state": {}, **server}, receive, send)

        with contextlib.nullcontext() if server else pytest.raises(IssuerUnavailable):
            asyncio.run(run())
        assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
        assert sent[0]["message"].startswith(f"logto-asgi could not verify {config.issuer}: The issuer cannot be reach")
        assert sent[0]["message"].endswith("(no connection to localhost:3001: ConnectError: no route)")
        assert "\n" not in sent[0]["message"]

    def test_start_that_fails_raises_in_a_test_client(self) -> None:
        """Starlette's test client would wait for ever otherwise; the error comes with the sentence."""
        app, config = self.app_without_issuer()
        ends: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

        def start() -> None:
            try:
                with TestClient(app, base_url=config.base_url):
                    ends.put(None)
            except BaseException as error:
                ends.put(error)

        threading.Thread(target=start, daemon=True).start()  # so that a start that hangs fails here
        error = ends.get(timeout=10)
        assert isinstance(error, IssuerUnavailable)
        assert f"logto-asgi could not verify {config.issuer}: " in error.__notes__[-1]

    def app_without_issuer(self) -> tuple[FastAPI, LogtoConfig]:
        """Return an app that looks for its issuer at start-up, where nobody is."""
        logto, config = self.logto_without_issuer(verify_on_startup=True)
        return build_app(logto), config

    @staticmethod
    def logto_without_issuer(*, verify_on_startup: bool) -> tuple[Logto, LogtoConfig]:
        def unreachable(request: httpx.Request) -> httpx.Response:
            raise httpx.ConnectError("no route", request=request)

        config = development_config(DevelopmentProvider(), verify_on_startup=verify_on_startup)
        return Logto(config, http_client=httpx.AsyncClient(transport=httpx.MockTransport(unreachable))), config

    def test_verify_on_startup_passes(self) -> None:
        """With the issuer up the app starts."""
        provider = DevelopmentProvider()
        config = development_config(provider, verify_on_startup=True)
        with TestClient(build_app(Logto(config, http_client=issuer_client(provider))), base_url=config.base_url):
            assert provider.requests.count("discovery") == 1

    async def test_two_apps_in_one_process_never_meet(self, make_site: MakeSite) -> None:
        """Another app id has cookies of another name: one browser is signed in to one of them only."""
        one = make_site(app_id="one", cookie_secret="Zr0vVdT1xq9k3m8Yw5bJc7nL2pQ4sFhG")
        two = make_site(app_id="two", cookie_secret="Zr0vVdT1xq9k3m8Yw5bJc7nL2pQ4sFhG")
        visitor = await one.visitor()
        await visitor.sign_in()
        assert (await (await two.visitor(cookies=visitor.cookies)).get("/")).json() == {"sub": None}

    async def test_second_middleware_of_one_config_passes_through(self, site: Site) -> None:
        """Added twice, there is still one user, and the session is written once."""
        seen: list[Any] = []

        def looking(app: Any) -> Any:
            async def look(scope: Any, receive: Any, send: Any) -> None:
                seen.append(scope["logto_asgi"])
                await app(scope, receive, send)

            return look

        async def answer(scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope["logto_asgi"])
            await PlainTextResponse("ok")(scope, receive, send)

        twice = LogtoMiddleware(looking(LogtoMiddleware(answer, logto=site.logto)), logto=site.logto)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(twice), base_url="http://localhost:8000") as client:
            await client.get("/")
        assert seen[0] is seen[1]

    async def test_mounted_app_has_the_user(self, make_site: MakeSite) -> None:
        """A mounted FastAPI app reads the same user, and its guards redirect and refuse as the outer app's do."""

        def build(logto: Logto) -> FastAPI:
            inner = FastAPI()

            @inner.get("/me")
            async def me(user: SignedIn) -> str:
                return user.identity

            app = build_app(logto)
            app.mount("/sub", inner)
            return app

        site = make_site(app=build)
        visitor = await site.visitor()
        refused = await visitor.get("/sub/me")
        assert (refused.status_code, refused.json()["code"]) == (401, "sign_in_required")
        page = await visitor.sign_in(path="/sub/me")
        assert (str(page.url), page.json()) == ("http://localhost:8000/sub/me", "alice")

    async def test_app_that_has_a_user_of_its_own_keeps_it(self, make_site: MakeSite) -> None:
        """Guards read our own place in the scope, so an app may put its user into `request.state.user`."""

        def build(logto: Logto) -> FastAPI:
            app = build_app(logto)

            class Own(BaseHTTPMiddleware):
                async def dispatch(
                    self, request: Request, call_next: Callable[[Request], Awaitable[Response]]
                ) -> Response:
                    request.state.user = "a user of the app's own"
                    return await call_next(request)

            app.user_middleware.append(Middleware(Own))
            return app

        site = make_site(app=build)
        visitor = await site.visitor()
        assert (await visitor.get("/me")).status_code == 401
        assert (await visitor.sign_in(path="/me")).status_code == 200


class TestBasePath:
    """An app behind a proxy at /shop, whether the proxy strips the path or not."""

    @pytest.mark.parametrize("root_path", ["", "/shop"], ids=["root_path unset", "root_path set"])
    async def test_proxy_strips_it(self, make_site: MakeSite, root_path: str) -> None:
        """Every address that leaves holds the base path."""
        site = make_site(base_url="http://localhost:8000/shop")
        async with Visitor(strip(site.app, root_path), site.provider, config=site.config) as visitor:
            page = await visitor.sign_in(path="http://localhost:8000/shop/me")
            assert str(page.url) == "http://localhost:8000/shop/me"
            assert page.status_code == 200
            signed_out = await visitor.sign_out()
            assert "/shop" in str(signed_out.url) or "3001" in str(signed_out.url)

    async def test_proxy_keeps_it(self, make_site: MakeSite) -> None:
        """The app is mounted at /shop itself."""
        site = make_site(base_url="http://localhost:8000/shop")
        outer = Starlette(routes=[Mount("/shop", site.app)])
        async with Visitor(outer, site.provider, config=site.config) as visitor:
            page = await visitor.sign_in(path="http://localhost:8000/shop/me")
            assert (str(page.url), page.status_code) == ("http://localhost:8000/shop/me", 200)


def strip(app: Any, root_path: str) -> Any:
    """Return an app behind a proxy that strips /shop; with a root path the server puts it back, as uvicorn does."""

    async def proxied(scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"].removeprefix("/shop")
        await app({**scope, "path": root_path + path, "root_path": root_path}, receive, send)

    return proxied


class TestSetup:
    """A line that is missing is named (section 6 of the issue)."""

    async def test_middleware_is_missing(self, make_site: MakeSite) -> None:
        """The guard names the line to add."""

        def build(logto: Logto) -> FastAPI:
            app = FastAPI()
            app.include_router(auth_router(logto.config))

            @app.get("/me")
            async def me(user: SignedIn) -> str:
                return user.identity

            return app

        site = make_site(app=build)
        visitor = await site.visitor()
        for path in ("/me", "/logto/sign-in"):
            response = await visitor.get(path)
            assert response.status_code == 500
            assert "app.add_middleware(LogtoMiddleware, config=config)" in response.text

    async def test_router_is_missing(self, make_site: MakeSite) -> None:
        """A guard that would send somebody to a page that is not there says so."""

        def build(logto: Logto) -> FastAPI:
            app = FastAPI()
            app.add_middleware(LogtoMiddleware, logto=logto)

            @app.get("/me")
            async def me(user: SignedIn) -> str:
                return user.identity

            return app

        site = make_site(app=build)
        response = await (await site.visitor()).get("/me")
        assert response.status_code == 500
        assert "app.include_router(auth_router(config))" in response.text

    async def test_router_under_another_prefix(self, make_site: MakeSite) -> None:
        """The first request explains both remedies: to the routes, or to a guard that would send people there."""

        def build(logto: Logto) -> FastAPI:
            app = FastAPI()
            app.add_middleware(LogtoMiddleware, logto=logto)
            app.include_router(auth_router(logto.config), prefix="/api")

            @app.get("/me")
            async def me(user: SignedIn) -> str:
                return user.identity

            return app

        site = make_site(app=build)
        for path in ("/api/logto/sign-in", "/me"):
            response = await (await site.visitor()).get(path)
            assert response.status_code == 500
            assert "without a prefix" in response.json()["detail"]
            assert "auth_path='/api/logto'" in response.json()["detail"]

    async def test_two_configs_mixed_up(self, make_site: MakeSite) -> None:
        """Middleware and routes of two configurations are an error that names both lines."""
        other = make_site(app_id="other")

        def build(logto: Logto) -> FastAPI:
            app = FastAPI()
            app.add_middleware(LogtoMiddleware, logto=logto)
            app.include_router(auth_router(other.config))
            return app

        site = make_site(app=build)
        response = await (await site.visitor()).get("/logto/sign-in")
        assert response.status_code == 500
        assert "auth_router(config)" in response.json()["detail"]

    def test_middleware_without_config(self) -> None:
        """`LogtoMiddleware` alone is a configuration error."""
        with pytest.raises(ValueError, match="config="):
            LogtoMiddleware(FastAPI())

    def test_blocking_client_is_refused(self) -> None:
        """An `httpx.Client` would hold up the event loop; the error names what to pass instead."""
        config = development_config(DevelopmentProvider())
        with httpx.Client() as blocking, pytest.raises(ValueError, match=r"httpx\.AsyncClient"):
            Logto(config, http_client=blocking)

    def test_setup_error_has_a_code(self) -> None:
        """The code is stable."""
        assert SetupError("x").code == "setup_incomplete"


class TestNo:
    """Who gets a redirect and who a 401 (the design's "No to a visitor")."""

    async def test_navigation_goes_to_sign_in(self, site: Site) -> None:
        """A GET of the address bar: 303 with an absolute address of base_url, and nothing that a cache keeps."""
        response = await (await site.visitor()).navigate("/me?x=1", follow_redirects=False)
        assert response.status_code == 303
        assert response.headers["location"] == "http://localhost:8000/logto/sign-in?return_to=/me%3Fx%3D1"
        assert response.headers["cache-control"] == "private, no-store"

    async def test_old_browser_goes_to_sign_in_by_accept(self, site: Site) -> None:
        """Without Sec-Fetch-Mode, `text/html` tells a browser; `*/*` is a program."""
        visitor = await site.visitor()
        assert (await visitor.get("/me", headers={"Accept": "text/html"})).status_code == 303
        assert (await visitor.get("/me", headers={"Accept": "*/*"})).status_code == 401

    @pytest.mark.parametrize(
        "headers",
        [
            {"Sec-Fetch-Mode": "cors", "Accept": "text/html"},
            {"Sec-Fetch-Mode": "no-cors", "Accept": "text/html"},
            {"X-Requested-With": "XMLHttpRequest", "Accept": "text/html"},
            {"Sec-Purpose": "prefetch;prerender", **NAVIGATION},
            {},
        ],
    )
    async def test_program_gets_401(self, site: Site, headers: dict[str, str]) -> None:
        """JSON with the sign-in address, and a challenge."""
        response = await (await site.visitor()).get("/me", headers=headers)
        assert response.status_code == 401
        assert response.json()["sign_in_url"] == "http://localhost:8000/logto/sign-in?return_to=/me"
        assert response.headers["www-authenticate"].startswith("Cookie ")

    async def test_htmx_gets_hx_redirect(self, site: Site) -> None:
        """The whole page goes to sign-in and back to where htmx was; a foreign HX-Current-URL leads home."""
        visitor = await site.visitor()
        headers = {"HX-Request": "true", "HX-Current-URL": "http://localhost:8000/list?p=2"}
        response = await visitor.get("/me", headers=headers)
        assert response.status_code == 401
        assert response.headers["hx-redirect"] == "http://localhost:8000/logto/sign-in?return_to=/list%3Fp%3D2"
        response = await visitor.get("/me", headers={**headers, "HX-Current-URL": "https://evil.example/"})
        assert response.headers["hx-redirect"] == "http://localhost:8000/logto/sign-in"

    @pytest.mark.parametrize(
        ("method", "headers"), [("POST", {}), ("GET", {"Sec-Fetch-Dest": "iframe"})], ids=["post", "iframe"]
    )
    async def test_navigation_that_cannot_come_back_gets_a_page(
        self, site: Site, method: str, headers: dict[str, str]
    ) -> None:
        """A form's POST and a frame get the 401 page with a link."""
        visitor = await site.visitor()
        response = await visitor.request(
            method, "/me", headers={**NAVIGATION, "Sec-Fetch-Site": "same-origin", **headers}
        )
        assert response.status_code == 401
        assert "Sign in to continue" in response.text
        assert "frame-ancestors 'none'" in response.headers["content-security-policy"]

    async def test_redirect_option_overrides(self, site: Site) -> None:
        """`redirect=False` never redirects, `redirect=True` redirects programs too."""
        visitor = await site.visitor()
        assert (await visitor.navigate("/program", follow_redirects=False)).status_code == 401
        assert (await visitor.get("/always")).status_code == 303

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost:8000"}, 200),
            ({"Sec-Fetch-Site": "none"}, 200),
            ({}, 200),
            ({"Origin": "http://localhost:8000"}, 200),
            ({"Origin": "https://trusted.example", "Sec-Fetch-Site": "cross-site"}, 200),
            ({"Sec-Fetch-Site": "cross-site"}, 403),
            ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost:8000"}, 403),
            ({"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:8000"}, 403),
            ({"Sec-Fetch-Site": "same-site"}, 403),
            ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 403),
            ({"Origin": "https://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Origin": "http://localhost:8001"}, 403),
        ],
    )
    async def test_unsafe_method_by_cookie(self, make_site: MakeSite, headers: dict[str, str], status: int) -> None:
        """What may change something by cookie comes from this site, a trusted one, or no browser (security line 16)."""
        site = make_site(trusted_origins=["https://trusted.example"])
        visitor = await site.visitor()
        await visitor.sign_in()
        assert (await visitor.post("/me", headers=headers)).status_code == status

    async def test_apps_own_handler_goes_first(self, make_site: MakeSite) -> None:
        """A handler for the class, the status or, for programs, for every HTTPException is the app's word."""

        def build(logto: Logto) -> FastAPI:
            app = build_app(logto)

            @app.exception_handler(SignInRequired)
            async def own(request: Request, error: Exception) -> Response:
                return PlainTextResponse("own", 499)

            return app

        site = make_site(app=build)
        assert (await (await site.visitor()).get("/me")).status_code == 499

    async def test_apps_envelope_for_programs_redirect_for_browsers(self, make_site: MakeSite) -> None:
        """An app that wraps every HTTPException keeps its envelope, and browsers still go to sign-in."""

        def build(logto: Logto) -> FastAPI:
            app = build_app(logto)

            @app.exception_handler(StarletteHTTPException)
            async def own(request: Request, error: StarletteHTTPException) -> Response:
                return JSONResponse({"error": {"status": error.status_code}}, error.status_code)

            return app

        site = make_site(app=build)
        visitor = await site.visitor()
        assert (await visitor.get("/me")).json() == {"error": {"status": 401}}
        assert (await visitor.navigate("/me", follow_redirects=False)).status_code == 303


class TestWebSockets:
    """The user is there on every WebSocket; a foreign page's is anonymous."""

    @staticmethod
    async def signed_in_client(site: Site) -> TestClient:
        visitor = await site.visitor()
        await visitor.sign_in()
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in visitor.cookies.jar)
        return TestClient(site.app, base_url="http://localhost:8000", headers={"Cookie": cookies})

    @pytest.mark.parametrize(
        ("origin", "sub"),
        [
            (None, "alice"),
            ("http://localhost:8000", "alice"),
            ("https://trusted.example", "alice"),
            ("https://evil.example", ""),
            ("null", ""),
        ],
    )
    async def test_origin_of_the_handshake(self, make_site: MakeSite, origin: str | None, sub: str) -> None:
        """Any other origin than ours is anonymous: CORS does not filter handshakes (security line 17)."""
        site = make_site(trusted_origins=["https://trusted.example"])
        client = await self.signed_in_client(site)
        with client.websocket_connect("/ws", headers={"Origin": origin} if origin else {}) as socket:
            assert socket.receive_json() == {"sub": sub}

    async def test_guarded_socket_is_denied_with_401(self, site: Site) -> None:
        """A handshake without a user gets a denial response."""
        client = TestClient(site.app, base_url="http://localhost:8000")
        with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/ws-guarded"):
            pass
        assert denied.value.status_code == 401
        assert denied.value.json()["code"] == "sign_in_required"

    async def test_server_without_denial_response_gets_1008(self, site: Site) -> None:
        """Where the server has no such extension the handshake is closed."""
        sent: list[Any] = []

        async def receive() -> dict[str, str]:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "websocket", "path": "/ws-guarded", "raw_path": b"/ws-guarded", "query_string": b""}
        await site.app({**scope, "headers": [], "root_path": "", "subprotocols": []}, receive, send)
        assert sent == [{"type": "websocket.close", "code": 1008, "reason": ""}]

    async def test_guarded_socket_passes_the_user(self, site: Site) -> None:
        """Signed in, the endpoint runs; a rolled session leaves with the handshake."""
        client = await self.signed_in_client(site)
        site.clock.move(700)
        with client.websocket_connect("/ws-guarded") as socket:
            assert socket.receive_json() == {"sub": "alice"}
            names = [value for name, value in socket.extra_headers or [] if name == b"set-cookie"]
            assert len(names) == 1

    async def test_socket_ends_with_the_sessions_absolute_lifetime(self, make_site: MakeSite) -> None:
        """A connection that would outlive its session is closed with 1008."""

        site = make_site()
        visitor = await site.visitor()
        await visitor.sign_in()
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in visitor.cookies.jar).encode()
        sent: list[Any] = []
        closed = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert scope["logto_asgi"].is_authenticated
            await send({"type": "websocket.accept"})
            async with asyncio.timeout(10):
                await closed.wait()
            with pytest.raises(OSError, match="ended"):
                await send({"type": "websocket.send", "text": "too late"})

        async def send(message: Any) -> None:
            sent.append(message)
            if message["type"] == "websocket.close":
                closed.set()

        site.logto.clock = lambda: 1_800_000_000 + site.config.absolute_lifetime - 0.01
        scope = {"type": "websocket", "path": "/", "headers": [(b"cookie", cookies)], "query_string": b""}
        await LogtoMiddleware(app, logto=site.logto)(scope, None, send)  # type: ignore[arg-type]
        assert sent[-1] == {"type": "websocket.close", "code": 1008, "reason": "session_ended"}

    async def test_socket_that_reads_its_user_late_ends_too(self, site: Site) -> None:
        """An app that accepts first and asks who it is afterwards is closed at the same end."""
        visitor = await site.visitor()
        await visitor.sign_in()
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in visitor.cookies.jar).encode()
        sent: list[Any] = []
        closed = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            assert scope["logto_asgi"].is_authenticated
            assert (await receive())["type"] == "websocket.disconnect"

        async def receive() -> dict[str, str]:
            async with asyncio.timeout(10):
                await closed.wait()
            return {"type": "websocket.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)
            if message["type"] == "websocket.close":
                closed.set()

        site.logto.clock = lambda: 1_800_000_000 + site.config.absolute_lifetime - 0.01
        scope = {"type": "websocket", "path": "/", "headers": [(b"cookie", cookies)], "query_string": b""}
        await LogtoMiddleware(app, logto=site.logto)(scope, receive, send)
        assert sent[-1] == {"type": "websocket.close", "code": 1008, "reason": "session_ended"}

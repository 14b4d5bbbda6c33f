"""The switch for an app's own tests: every guard obeys it, and nothing of it stays."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Host, Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from logto_asgi import (
    IssuerUnavailable,
    Logto,
    LogtoConfig,
    LogtoMiddleware,
    PublicUser,
    RequireAuthMiddleware,
    SetupError,
    UserInfo,
    auth_routes,
)
from logto_asgi.fastapi import (
    SignedIn,
    access_token,
    auth_router,
    current_user,
    organization_token,
    require_auth,
    user_info,
)
from logto_asgi.testing import (
    Clock,
    DevelopmentProvider,
    Visitor,
    development_config,
    issuer_client,
    signed_in,
    signed_out,
)

API = "https://shopping.example.com/api"
ORGANIZATIONS = "urn:logto:scope:organizations"


def make_config(**settings: Any) -> LogtoConfig:
    """Return a configuration whose issuer cannot be reached: whoever tried would fail."""
    chosen: dict[str, Any] = {
        "endpoint": "https://unreachable.invalid",
        "app_id": "app",
        "app_secret": "a secret of some length",
        "base_url": "http://localhost:8000",
        "cookie_secret": "kT3-vQ8zYw1LpRb6NfXe0SgHu5JmDc7aOi2BqEx9tZs",
        "resources": [API],
        "scopes": [ORGANIZATIONS],
    }
    return LogtoConfig(**{**chosen, **settings})


def who(request: Request) -> Response:
    return JSONResponse([request.state.user.identity, request.user.identity, request.auth.scopes])


@requires(["authenticated", "admin"])
async def admins_only(request: Request) -> Response:
    return PlainTextResponse(request.user.identity)


async def greet(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(websocket.state.user.identity)
    await websocket.close()


async def behind(scope: Scope, receive: Receive, send: Send) -> None:
    """Be an app without any framework."""
    assert scope["type"] == "http"
    await PlainTextResponse(scope["logto_asgi"].identity)(scope, receive, send)


def fastapi_app(**settings: Any) -> FastAPI:
    config = make_config(**settings)
    app = FastAPI()
    app.add_middleware(LogtoMiddleware, config=config)
    app.include_router(auth_router(config))
    app.add_route("/who", who)
    app.add_route("/admins", admins_only)
    app.add_api_websocket_route("/greet", greet)
    app.mount("/files", RequireAuthMiddleware(behind))

    @app.get("/me")
    @app.post("/me")
    async def me(user: SignedIn) -> PublicUser:
        return user.public()

    @app.get("/maybe")
    def maybe(user: Annotated[Any, Depends(current_user)]) -> bool:
        return bool(user.is_authenticated)

    @app.get("/token")
    async def token(value: Annotated[str, Depends(access_token(resource=API))]) -> str:
        return value

    @app.get("/token-in-organization")
    async def token_in(value: Annotated[str, Depends(access_token(API, "harbour"))]) -> str:
        return value

    @app.get("/organization-token")
    async def of_organization(value: Annotated[str, Depends(organization_token("harbour"))]) -> str:
        return value

    @app.get("/opaque-token")
    async def opaque(value: Annotated[str, Depends(access_token())]) -> str:
        return value

    @app.get("/unknown-token")
    async def unknown(value: Annotated[str, Depends(access_token("https://never.asked.example"))]) -> str:
        return value

    @app.get("/info")
    async def info(value: Annotated[UserInfo, Depends(user_info)]) -> UserInfo:
        return value

    @app.websocket("/guarded")
    async def guarded(websocket: WebSocket, user: SignedIn) -> None:
        await greet(websocket)

    return app


def starlette_routes(config: LogtoConfig) -> list[Any]:
    return [
        *auth_routes(config),
        Route("/who", who),
        Route("/admins", admins_only),
        WebSocketRoute("/greet", greet),
        Mount("/files", RequireAuthMiddleware(behind)),
    ]


def starlette_app(**settings: Any) -> Starlette:
    config = make_config(**settings)
    return Starlette(routes=starlette_routes(config), middleware=[Middleware(LogtoMiddleware, config=config)])


def app_wrapped_by_hand(**settings: Any) -> ASGIApp:
    config = make_config(**settings)
    return LogtoMiddleware(Starlette(routes=starlette_routes(config)), config=config)


def wrapped_twice(**settings: Any) -> ASGIApp:
    """Hide the middleware behind another one, which calls what it wraps by a name of its own."""

    class Middle:
        def __init__(self, inner: ASGIApp) -> None:
            self._whatever = inner

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self._whatever(scope, receive, send)

    class Passing:
        """Hand on without being a coroutine function."""

        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
            return self.app(scope, receive, send)

    return Middle(GZipMiddleware(Passing(app_wrapped_by_hand(**settings))))


Build = Callable[..., Any]
every_kind_of_app = pytest.mark.parametrize(
    "build", [fastapi_app, starlette_app, app_wrapped_by_hand, wrapped_twice], ids=lambda build: build.__name__
)


def client_of(app: Any) -> Any:
    return TestClient(app, base_url="http://localhost:8000", follow_redirects=False)


@pytest.fixture
def app() -> FastAPI:
    return fastapi_app()


@pytest.fixture
def client(app: FastAPI) -> Any:
    return client_of(app)


# -- Every guard obeys ---------------------------------------------------------------------------------------------


@every_kind_of_app
def test_whatever_reads_the_user_sees_somebody(build: Build) -> None:
    """`request.state.user`, `request.user`, `request.auth` and `@requires` agree, in every kind of app."""
    app = build()
    client = client_of(app)
    with signed_in(app, sub="alice", scopes=["admin"]):
        assert client.get("/who").json() == ["alice", "alice", ["authenticated", "admin"]]
        assert client.get("/admins").text == "alice"
    assert client.get("/who").json() == ["", "", []]
    assert client.get("/admins").status_code == 403


@every_kind_of_app
def test_a_guarded_mount_lets_in(build: Build) -> None:
    """`RequireAuthMiddleware` obeys the switch."""
    app = build()
    with signed_in(app):
        assert client_of(app).get("/files/").text == "alice"
    assert client_of(app).get("/files/").status_code == 401


@every_kind_of_app
def test_a_websocket_has_a_user(build: Build) -> None:
    """A handshake is signed in like a request."""
    app = build()
    with signed_in(app, "zoe"), client_of(app).websocket_connect("/greet") as websocket:
        assert websocket.receive_text() == "zoe"


@pytest.mark.parametrize("path", ["/me", "/token", "/organization-token", "/opaque-token", "/info"])
def test_every_dependency_lets_in(app: FastAPI, client: Any, path: str) -> None:
    """FastAPI's guards obey the switch, and refuse outside of the block."""
    with signed_in(app):
        assert client.get(path).status_code == 200
    assert client.get(path).status_code == 401


def test_current_user_is_signed_in(app: FastAPI, client: Any) -> None:
    """`current_user`, which guards nothing, gives the same user; also in a thread."""
    with signed_in(app):
        assert client.get("/maybe").json() is True
    assert client.get("/maybe").json() is False


def test_a_guarded_websocket_lets_in(app: FastAPI, client: Any) -> None:
    """`require_auth` on a WebSocket obeys the switch."""
    with signed_in(app), client.websocket_connect("/guarded") as websocket:
        assert websocket.receive_text() == "alice"


def test_prefetched_values_are_there() -> None:
    """What the configuration fetches for every request comes from the switch, not from the network."""
    app = fastapi_app(fetch_user_info=True, get_access_token=True, resource=API, get_organization_token=True)

    @app.get("/prefetched")
    async def prefetched(user: SignedIn) -> list[Any]:
        return [user.user_info, user.access_token, user.organization_tokens]

    with signed_in(app, organizations=["harbour"]):
        answer = client_of(app).get("/prefetched").json()
    assert answer[0]["sub"] == "alice"
    assert answer[1:] == [f"access token for {API}", {"harbour": "access token for organization harbour"}]


# -- Where the middleware may be -----------------------------------------------------------------------------------


def child(app_id: str) -> Starlette:
    """Return an app to mount that signs its visitors in itself."""
    middleware = [Middleware(LogtoMiddleware, config=make_config(app_id=app_id))]
    return Starlette(routes=[Route("/who", who)], middleware=middleware)


def mounted_in_starlette() -> ASGIApp:
    return Starlette(routes=[Mount("/child", routes=[Mount("/deep", child("child"))])])


def mounted_in_fastapi() -> ASGIApp:
    app = fastapi_app()
    app.mount("/child/deep", child("child"))
    return app


def mounted_behind_a_host() -> ASGIApp:
    return Starlette(routes=[Host("localhost:8000", Starlette(routes=[Mount("/child/deep", child("child"))]))])


def middleware_of_a_mount() -> ASGIApp:
    guarded = [Middleware(LogtoMiddleware, config=make_config())]
    return Starlette(routes=[Mount("/child/deep", routes=[Route("/who", who)], middleware=guarded)])


@pytest.mark.parametrize(
    "build", [mounted_in_starlette, mounted_in_fastapi, mounted_behind_a_host, middleware_of_a_mount]
)
def test_a_mounted_app_obeys_too(build: Build) -> None:
    """A mounted app with a LogtoMiddleware of its own is found, however deep it lies."""
    app = build()
    with signed_in(app, "bob", scopes=[]):
        assert client_of(app).get("/child/deep/who").json() == ["bob", "bob", ["authenticated"]]
    assert client_of(app).get("/child/deep/who").json()[0] == ""


def test_an_app_and_its_mount_obey_together() -> None:
    """Apps of two configurations in each other are switched, and restored, both."""
    app = mounted_in_fastapi()
    paths = ("/who", "/child/deep/who")
    with signed_in(app, "bob"):
        assert [client_of(app).get(path).json()[0] for path in paths] == ["bob", "bob"]
    assert [client_of(app).get(path).json()[0] for path in paths] == ["", ""]


def test_an_included_router_is_searched() -> None:
    """Newer FastAPI keeps an included router as it is; older ones copy its routes and leave mounts out."""
    router, app = APIRouter(), FastAPI()
    router.mount("/child", child("child"))
    app.include_router(router)
    if client_of(app).get("/child/who").status_code == 404:
        pytest.skip("this FastAPI leaves out the mounts of an included router")
    with signed_in(app):
        assert client_of(app).get("/child/who").json()[0] == "alice"


def test_a_logto_stands_for_itself() -> None:
    """Where the middleware is hidden in a function, the test passes the `Logto`."""
    logto = Logto(make_config())
    inside = LogtoMiddleware(behind, logto=logto)

    async def hidden(scope: Scope, receive: Receive, send: Send) -> None:
        await inside(scope, receive, send)

    with pytest.raises(SetupError, match=r"No LogtoMiddleware was found in function.*or the Logto itself"):
        signed_in(hidden).__enter__()
    with signed_in(logto):
        assert client_of(hidden).get("/").text == "alice"


def test_one_logto_in_two_middlewares_is_one() -> None:
    """A `Logto` that two apps share is switched, and restored, once."""
    logto = Logto(make_config())
    inner = LogtoMiddleware(behind, logto=logto)
    app = LogtoMiddleware(inner, logto=logto)
    with signed_in(app):
        assert client_of(app).get("/").text == "alice"
    assert client_of(app).get("/").text == ""


def test_an_app_without_the_middleware_is_told_so() -> None:
    """The error names what to pass."""
    with pytest.raises(SetupError, match="Pass the app that your server runs"), signed_in(FastAPI()):
        pass


def test_a_client_that_was_passed_is_looked_through(app: FastAPI, client: Any) -> None:
    """Passing the test client means the app inside."""
    with signed_in(client):
        assert client.get("/who").json()[0] == "alice"


# -- Every client, at every moment ---------------------------------------------------------------------------------


def test_before_and_after_the_first_request(app: FastAPI, client: Any) -> None:
    """The app keeps the middleware that the switch built: outside of the block it goes on as it was."""
    with signed_in(app):
        built = app.middleware_stack
    assert client.get("/who").json()[0] == ""
    assert app.middleware_stack is built
    with signed_in(app):
        assert client.get("/who").json()[0] == "alice"


def test_with_a_client_that_starts_the_app(app: FastAPI) -> None:
    """`with TestClient(app)` may begin outside or inside of the block, and end inside."""
    with client_of(app) as client, signed_in(app):
        assert client.get("/who").json()[0] == "alice"
    with signed_in(app):
        with client_of(app) as client:
            assert client.get("/who").json()[0] == "alice"
        assert client_of(app).get("/who").json()[0] == "alice"


async def test_with_an_asynchronous_client(app: FastAPI) -> None:
    """httpx's ASGI transport works, in a test that runs in the app's own event loop."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
        async with signed_in(app):
            assert (await client.get("/token")).json() == f"access token for {API}"
        assert (await client.get("/token")).status_code == 401


def test_the_inner_block_counts(app: FastAPI, client: Any) -> None:
    """Blocks nest, and the outer one is back when the inner one ends."""
    with signed_in(app, "alice"):
        with signed_in(app, "bob"):
            assert client.get("/who").json()[0] == "bob"
        assert client.get("/who").json()[0] == "alice"
        with signed_out(app):
            assert client.get("/me").status_code == 401
        assert client.get("/who").json()[0] == "alice"


def test_blocks_may_end_in_any_order(app: FastAPI, client: Any) -> None:
    """A block that ends while a later one goes on takes only itself away."""
    first, second = signed_in(app, "alice"), signed_in(app, "bob")
    first.__enter__()
    second.__enter__()
    first.__exit__()
    assert client.get("/who").json()[0] == "bob"
    second.__exit__()
    assert client.get("/who").json()[0] == ""


def state_of(logto: Logto) -> list[dict[str, Any]]:
    return [dict(vars(each)) for each in (logto, logto.sessions, logto.tokens)]


def test_nothing_stays_after_an_error() -> None:
    """Whatever happens inside, the runtime is as it was before, down to its attributes."""
    logto = Logto(make_config())
    vars(logto.tokens)["get"] = mine = object()  # Somebody's own patch is put back too.
    before = state_of(logto)

    def fail() -> None:
        with signed_in(logto), signed_in(logto):
            assert state_of(logto) != before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert state_of(logto) == before
    assert vars(logto.tokens)["get"] is mine


def test_claims_that_are_no_claims_change_nothing() -> None:
    """A mistake in the arguments is raised before anything is replaced, in every app that is found."""
    logto = Logto(make_config())
    before = state_of(logto)
    with pytest.raises(ValueError, match="sub"), signed_in(logto, claims={"sub": 5}):
        pass
    assert state_of(logto) == before


def test_a_decorated_test_runs_signed_in(app: FastAPI, client: Any) -> None:
    """Each call of a decorated function is a block of its own, one inside of the other too."""

    @signed_in(app, "bob")
    def ask(again: bool = False) -> str:
        return ask() if again else client.get("/who").json()[0]

    assert [ask(), ask(again=True), client.get("/who").json()[0]] == ["bob", "bob", ""]
    assert ask.__name__ == "ask"


def test_a_decorated_coroutine_runs_signed_in(app: FastAPI) -> None:
    """The block lasts until the coroutine is done, not until it is made."""

    @signed_in(app, "bob")
    async def ask() -> str:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
            return str((await client.get("/who")).json()[0])

    assert asyncio.run(ask()) == "bob"
    assert client_of(app).get("/who").json()[0] == ""


def test_what_would_run_outside_of_the_block_is_not_decorated(app: FastAPI) -> None:
    """A fixture that yields, or a class of tests, would silently run signed out: it is refused."""

    def fixture() -> Iterator[int]:
        yield 1

    async def async_fixture() -> Any:
        yield 1

    class TestSomething:
        pass

    for each in (fixture, async_fixture, TestSomething):
        with pytest.raises(TypeError, match="with signed_in"):
            signed_in(app)(each)


# -- Who it is ------------------------------------------------------------------------------------------------------


def test_claims_and_scopes_are_those_given(app: FastAPI, client: Any) -> None:
    """Claims come as a mapping or by name; `scopes` are what the issuer granted."""
    with signed_in(app, "bob", claims={"email": "bob@example.com"}, organizations=["harbour"], scopes="a b"):
        user = client.get("/me").json()
    assert user["claims"].items() >= {"sub": "bob", "email": "bob@example.com", "aud": "app"}.items()
    assert user["claims"]["iss"] == "https://unreachable.invalid/oidc"
    assert (user["scopes"], user["organizations"]) == (["a", "b"], ["harbour"])


def test_scopes_are_what_the_configuration_asks_for(app: FastAPI, client: Any) -> None:
    """Without `scopes` the issuer granted everything."""
    with signed_in(app):
        assert client.get("/me").json()["scopes"] == ["openid", "offline_access", "profile", ORGANIZATIONS]


def test_tokens_are_those_given_or_made_up(app: FastAPI, client: Any) -> None:
    """Tokens are looked up by resource, by resource and organization, or by None; others are obvious fakes."""
    given: dict[Any, Any] = {API: "one", (API, "harbour"): "two", (None, "harbour"): "three", None: "four"}
    paths = ["/token", "/token-in-organization", "/organization-token", "/opaque-token"]
    with signed_in(app, access_tokens=given):
        assert [client.get(path).json() for path in paths] == ["one", "two", "three", "four"]
    with signed_in(app):
        assert [client.get(path).json() for path in paths] == [
            f"access token for {API}",
            f"access token for {API} in organization harbour",
            "access token for organization harbour",
            "access token for userinfo",
        ]


def guarded_by_scopes() -> FastAPI:
    """Return an app whose guards ask for scopes of a resource, of an organization, and of one in the other."""
    app, config = FastAPI(), make_config(scopes=[ORGANIZATIONS, "read:items", "manage:members"])
    app.add_middleware(LogtoMiddleware, config=config)
    app.include_router(auth_router(config))
    guards = {
        "/items": require_auth(resource=API, scopes=["read:items"]),
        "/o/{org}": require_auth(organization="{org}", scopes=["manage:members"]),
        "/o/{org}/items": require_auth(organization="{org}", resource=API, scopes=["read:items"]),
    }
    for path, guard in guards.items():
        app.add_api_route(path, lambda: "in", dependencies=[Depends(guard)])
    return app


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/items", API),
        ("/items", (API, None)),
        ("/o/harbour", (None, "harbour")),
        ("/o/harbour/items", (API, "harbour")),
    ],
)
def test_scopes_of_access_tokens_are_those_granted(path: str, key: Any) -> None:
    """A guard that asks for scopes goes by `granted`, never by what sign-in granted; without it there are none."""
    app = guarded_by_scopes()
    client, member = client_of(app), {"organizations": ["harbour"]}
    scopes = ["read:items", "manage:members"]
    with signed_in(app, granted={key: scopes}, claims=member):
        assert client.get(path).json() == "in"
    with signed_in(app, granted={key: " ".join(scopes)}, claims=member):
        assert client.get(path).json() == "in"
    elsewhere = dict.fromkeys(((API, None), (None, "harbour"), (API, "harbour")), scopes)
    del elsewhere[key if isinstance(key, tuple) else (key, None)]
    for missing in ({}, {key: []}, elsewhere):
        with signed_in(app, granted=missing, claims=member, scopes=scopes):
            assert client.get(path).status_code == 403


@pytest.mark.parametrize("key", [API, (API, "harbour"), (None, "harbour")])
def test_a_scope_that_sign_in_never_asks_for_is_refused(key: Any) -> None:
    """What no visitor can have is no test's to give: the error names the scope and the setting."""
    app = guarded_by_scopes()
    remedy = re.escape("The test grants 'a', 'b', and sign-in") + ".*" + re.escape("LogtoConfig(scopes=['a', 'b'])")
    with pytest.raises(SetupError, match=remedy), signed_in(app, granted={key: ["b", "read:items", "a"]}):
        pass
    with signed_in(app, granted={key: "read:items"}):
        pass
    elsewhere = fastapi_app(endpoint=None, issuer="https://unreachable.invalid")
    with signed_in(elsewhere, granted={key: "a b"}):  # another issuer grants what it likes
        pass


def test_of_two_apps_the_one_that_asks_for_a_scope_gets_it() -> None:
    """Two apps beside each other ask for different scopes; one block is for both."""

    def shop(path: str, *scopes: str) -> Mount:
        config = make_config(scopes=scopes, base_url=f"http://localhost:8000{path}")
        guard = Middleware(RequireAuthMiddleware, resource=API, scopes=["read:items"])
        routes = [Route("/items", who, middleware=[guard]), *auth_routes(config)]
        return Mount(path, Starlette(routes=routes, middleware=[Middleware(LogtoMiddleware, config=config)]))

    both = Starlette(routes=[shop("/one", "read:items"), shop("/two", "write:items")])
    with signed_in(both, granted={API: ["read:items"]}):
        statuses = [client_of(both).get(f"{path}/items").status_code for path in ("/one", "/two")]
    assert statuses == [200, 403]


CLAIMS = {
    "roles": ["admin"],
    "organizations": ["harbour"],
    "organization_roles": ["harbour:admin"],
}


@pytest.mark.parametrize("name", CLAIMS)
def test_roles_that_sign_in_never_asks_for_are_refused(name: str) -> None:
    """Logto sends roles and organizations to who asks for them; the error names the scope."""
    scope = {"roles": "roles"}.get(name, f"urn:logto:scope:{name}")
    claim = {name: CLAIMS[name]}
    with pytest.raises(SetupError, match=rf"{name}=….*UserScope\.{name.upper()}\]"):
        signed_in(fastapi_app(scopes=[]), **claim).__enter__()
    with signed_in(fastapi_app(scopes=[]), claims={name: []}), signed_in(fastapi_app(scopes=[scope]), **claim):
        pass
    elsewhere = fastapi_app(endpoint=None, issuer="https://unreachable.invalid", scopes=[])
    with signed_in(elsewhere, claims=claim):  # another issuer has rules of its own
        pass


@pytest.mark.parametrize("argument", ["granted", "access_tokens"])
@pytest.mark.parametrize("value", [["read:items"], "read:items"])
def test_what_is_said_by_api_has_the_api(argument: str, value: Any) -> None:
    """A list in place of a mapping is told how it is written."""
    app = fastapi_app()
    with pytest.raises(TypeError, match=rf'{argument} says it by API: {argument}={{"https'):
        signed_in(app, **{argument: value})


def test_user_info_is_the_one_given_or_what_the_claims_say(app: FastAPI, client: Any) -> None:
    """Without `user_info` it repeats the claims, without those that only ID tokens have."""
    with signed_in(app, name="Alice", sid="session"):
        assert client.get("/info").json() == {"sub": "alice", "name": "Alice"}
    with signed_in(app, name="Alice", user_info={"custom_data": {"plan": "pro"}}):
        assert client.get("/info").json() == {"sub": "alice", "custom_data": {"plan": "pro"}}
    with signed_in(app, user_info=UserInfo.parse({"sub": "alice", "email": "alice@example.com"})):
        assert client.get("/info").json() == {"sub": "alice", "email": "alice@example.com"}
    with pytest.raises(ValueError, match="'bob', and 'alice' is signed in"), signed_in(app, user_info={"sub": "bob"}):
        pass


def test_errors_are_raised_where_the_app_asks(app: FastAPI, client: Any) -> None:
    """An app's tests can see what it does while the issuer is down."""
    down = IssuerUnavailable("The issuer is down.")
    with signed_in(app, access_tokens={API: down}, user_info=down):
        assert [client.get(path).status_code for path in ("/token", "/info", "/opaque-token")] == [503, 503, 200]


def test_a_resource_that_is_not_configured_is_refused(
    app: FastAPI, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The mistake that would show at the first real visitor shows in the test."""
    with signed_in(app):
        assert client.get("/unknown-token").status_code == 500
    assert "was never asked for at sign-in" in caplog.text


# -- What still applies ---------------------------------------------------------------------------------------------


def test_a_post_from_another_site_is_still_refused(app: FastAPI, client: Any) -> None:
    """The switch takes the place of the cookie, not of the check of where a request comes from."""
    with signed_in(app):
        assert client.post("/me").status_code == 200
        assert client.post("/me", headers={"Origin": "http://localhost:8000"}).status_code == 200
        assert client.post("/me", headers={"Origin": "https://evil.example"}).status_code == 403
        assert client.post("/me", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_a_websocket_from_another_site_is_still_anonymous(app: FastAPI, client: Any) -> None:
    """A handshake of a foreign page is nobody's."""
    foreign = {"Origin": "https://evil.example"}
    with signed_in(app), client.websocket_connect("/greet", headers=foreign) as websocket:
        assert websocket.receive_text() == ""


def test_a_bearer_token_still_decides_alone(app: FastAPI, client: Any) -> None:
    """A request with a bearer token is not signed in by the switch, as it is not by a cookie."""
    with signed_in(app):
        assert client.get("/me", headers={"Authorization": "Bearer x"}).status_code == 401


def test_no_cookie_is_written(app: FastAPI, client: Any) -> None:
    """The made-up session never reaches a browser, so it cannot outlive the block."""
    with signed_in(app), client.websocket_connect("/greet") as websocket:
        responses = [client.get("/me"), client.post("/me"), client.get("/token")]
    assert [response.headers.get("set-cookie") for response in responses] == [None] * 3
    assert [name for name, _ in websocket.extra_headers if name == b"set-cookie"] == []


def test_time_does_not_end_it() -> None:
    """However far the app's clock is moved, the visitor is signed in, and a WebSocket stays open."""
    clock = Clock()
    logto = Logto(make_config(), clock=clock)

    async def greet_later(websocket: WebSocket) -> None:
        name = websocket.user.identity
        await websocket.accept()
        await websocket.receive_text()
        await websocket.send_text(name)

    app = LogtoMiddleware(Starlette(routes=[Route("/who", who), WebSocketRoute("/greet", greet_later)]), logto=logto)
    with signed_in(app):
        clock.move(400 * 86400)
        assert client_of(app).get("/who").json()[0] == "alice"
        with client_of(app).websocket_connect("/greet") as websocket:
            websocket.send_text("Who am I?")
            assert websocket.receive_text() == "alice"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def provider(clock: Clock) -> DevelopmentProvider:
    return DevelopmentProvider(clock=clock)


@pytest.fixture
def real_app(provider: DevelopmentProvider, clock: Clock) -> tuple[FastAPI, LogtoConfig]:
    config = development_config(provider)
    app = FastAPI()
    app.add_middleware(LogtoMiddleware, logto=Logto(config, http_client=issuer_client(provider), clock=clock))
    app.include_router(auth_router(config))
    app.add_route("/", who)
    return app, config


def test_refreshing_and_clearing_ask_nobody() -> None:
    """The made-up session goes on as it is, and the issuer, which cannot be reached, is not missed."""
    app = fastapi_app()

    @app.get("/anew")
    async def anew(user: SignedIn) -> str:
        await user.clear_access_tokens()
        return (await user.refresh()).sub

    with signed_in(app, sub="alice"):
        answer = TestClient(app).get("/anew")
    assert (answer.status_code, answer.json()) == (200, "alice")


async def test_a_real_session_waits(real_app: tuple[FastAPI, LogtoConfig], provider: DevelopmentProvider) -> None:
    """A browser that has signed in is somebody else, or nobody, inside; afterwards it is who it was."""
    app, config = real_app
    async with Visitor(app, provider, config=config) as visitor:
        await visitor.sign_in("zoe")
        with signed_in(app, "bob"):
            answer = await visitor.get("/")
            assert (answer.json()[0], "set-cookie" in answer.headers) == ("bob", False)
        with signed_out(app):
            answer = await visitor.get("/")
            assert (answer.json()[0], "set-cookie" in answer.headers) == ("", False)
        assert (await visitor.get("/")).json()[0] == "zoe"


async def test_a_real_sign_in_inside_is_kept(
    real_app: tuple[FastAPI, LogtoConfig], provider: DevelopmentProvider
) -> None:
    """Whoever signs in through the provider inside of a block has a session of its own afterwards."""
    app, config = real_app
    async with Visitor(app, provider, config=config) as visitor:
        with signed_in(app, "bob"):
            await visitor.sign_in("zoe")
            assert (await visitor.get("/")).json()[0] == "bob"
        assert (await visitor.get("/")).json()[0] == "zoe"


async def test_an_expired_cookie_is_left_alone(
    real_app: tuple[FastAPI, LogtoConfig], provider: DevelopmentProvider, clock: Clock
) -> None:
    """A browser's dead cookie does not matter inside, and is deleted afterwards, as always."""
    app, config = real_app
    async with Visitor(app, provider, config=config) as visitor:
        await visitor.sign_in("zoe")
        clock.move(config.idle_lifetime)
        for switch in (signed_in, signed_out):
            with switch(app):
                assert "set-cookie" not in (await visitor.get("/")).headers
        assert "Max-Age=0" in (await visitor.get("/")).headers["set-cookie"]

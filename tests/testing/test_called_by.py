"""Calling an app in a test with a made-up bearer token: every guard obeys, none is skipped, and nothing of it stays."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from logto_asgi import (
    AccessTokenClaims,
    IssuerUnavailable,
    Logto,
    LogtoConfig,
    LogtoMiddleware,
    LogtoUser,
    RequireAuthMiddleware,
    SetupError,
    any_of,
    auth_routes,
)
from logto_asgi.fastapi import SignedIn, auth_router, bearer_token, require_auth
from logto_asgi.testing import Clock, DevelopmentProvider, called_by, issuer_client, signed_in, signed_out
from logto_asgi.testing.finding import runtimes_of

API = "https://shopping.example.com/api"
OTHER = "https://stock.example.com/api"
ORGANIZATIONS = "urn:logto:scope:organizations"


def make_config(**settings: Any) -> LogtoConfig:
    """Return a configuration whose issuer cannot be reached: whoever tried would fail."""
    chosen: dict[str, Any] = {
        "endpoint": "https://unreachable.invalid",
        "app_id": "app",
        "app_secret": "a secret of some length",
        "base_url": "http://localhost:8000",
        "cookie_secret": "kT3-vQ8zYw1LpRb6NfXe0SgHu5JmDc7aOi2BqEx9tZs",
        "resources": [API, OTHER],
        "api_resource": API,
        "scopes": [ORGANIZATIONS],
    }
    return LogtoConfig(**{**chosen, **settings})


def make_app(logto: Logto | None = None) -> FastAPI:
    """Return an API with a guard of each kind."""
    app = FastAPI()
    app.add_middleware(LogtoMiddleware, logto=logto or Logto(make_config()))
    app.include_router(auth_router((logto and logto.config) or make_config()))

    @app.get("/")
    async def claims(token: Annotated[AccessTokenClaims, Depends(bearer_token())]) -> dict[str, Any]:
        return token.raw()

    @app.get("/items")
    async def items(token: Annotated[AccessTokenClaims, Depends(bearer_token(scopes=["read:items"]))]) -> str:
        return token.sub

    @app.get("/stock")
    async def stock(token: Annotated[AccessTokenClaims, Depends(bearer_token(resource=OTHER))]) -> str:
        return token.sub

    @app.get("/robots")
    async def robots(token: Annotated[AccessTokenClaims, Depends(bearer_token(machines="only"))]) -> str:
        return token.sub

    @app.get("/o/{org}")
    async def inside(
        token: Annotated[AccessTokenClaims, Depends(bearer_token(organization="{org}", scopes=["manage"]))],
    ) -> str:
        return token.sub

    @app.get("/o/{org}/items")
    async def items_inside(
        token: Annotated[AccessTokenClaims, Depends(bearer_token(organization="{org}", resource=API))],
    ) -> str:
        return token.sub

    @app.post("/either")
    async def either(user: Annotated[LogtoUser, Depends(require_auth(accept=["session", "bearer"]))]) -> list[Any]:
        return [user.identity, user.client_id, user.is_machine]

    @app.get("/exchange")
    async def exchange(user: Annotated[LogtoUser, Depends(require_auth(accept="bearer"))]) -> str:
        return await user.get_access_token(OTHER)

    @app.get("/page")
    async def page(user: SignedIn) -> str:
        return user.identity

    @app.get("/recent")
    async def recent(user: Annotated[LogtoUser, Depends(require_auth(accept="bearer", max_age=60))]) -> str:
        return user.identity

    @app.websocket("/live")
    async def live(websocket: WebSocket, user: Annotated[LogtoUser, Depends(require_auth(accept="bearer"))]) -> None:
        await websocket.accept()
        await websocket.send_text(user.identity)
        await websocket.close()

    return app


@pytest.fixture
def app() -> FastAPI:
    return make_app()


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    return TestClient(app, base_url="http://localhost:8000")


def test_every_request_brings_a_token(app, client):
    """The guard hands out claims as of a verified token for the configured API."""
    assert client.get("/").status_code == 401
    with called_by(app, "bob", scopes="read:items", plan="gold", claims={"claims": "odd"}):
        claims = client.get("/").json()
    assert client.get("/").status_code == 401
    assert claims["exp"] - claims.pop("iat") == 3600
    del claims["exp"]
    assert claims == {
        "iss": "https://unreachable.invalid/oidc",
        "aud": API,
        "sub": "bob",
        "client_id": "test-client",
        "scope": "read:items",
        "plan": "gold",
        "claims": "odd",
    }


def test_scopes_decide(app, client):
    """A guard that asks for a scope refuses a caller without it, and says which one."""
    with called_by(app):
        answer = client.get("/items")
    assert (answer.status_code, answer.json()["missing"]) == (403, ["read:items"])
    with called_by(app, "bob", scopes=["read:items"]):
        assert client.get("/items").json() == "bob"


def test_the_resource_decides(app, client):
    """A token for one API opens no other."""
    with called_by(app):
        assert client.get("/stock").status_code == 401
    with called_by(app, resource=OTHER):
        assert client.get("/stock").status_code == 200
        assert client.get("/").status_code == 401


def test_machines(app, client):
    """A caller that is its own client is a machine, and users are none."""
    with called_by(app, "robot", client_id="robot"):
        assert client.get("/robots").json() == "robot"
        assert client.get("/").status_code == 403
    with called_by(app):
        assert client.get("/robots").status_code == 403


def test_organizations(app, client):
    """An organization's own token, and one for the resource in it, open what is meant for them."""
    with called_by(app, organization_id="harbour", scopes=["manage"]):
        assert client.get("/o/harbour").status_code == 200
        assert client.get("/o/other").status_code == 401
        assert client.get("/").status_code == 401
    with called_by(app, organization_id="harbour", resource=API):
        assert client.get("/o/harbour/items").status_code == 200
        assert client.get("/o/harbour").status_code == 401


def test_claims_are_what_the_test_says(client, app):
    """A step-up guard goes by `auth_time`, which no token has of itself."""
    with called_by(app):
        assert client.get("/recent").status_code == 401
    with called_by(app, auth_time=int(Clock().now)):
        assert client.get("/recent").status_code == 200


def test_the_token_decides_alone(app, client):
    """A guard for sessions refuses the caller, and a POST from another site passes: no browser sends a token itself."""
    with called_by(app), signed_in(app, "alice"), called_by(app, "bob"):
        assert client.get("/page").status_code == 401
        foreign = client.post("/either", headers={"Origin": "https://evil.example"})
        assert foreign.json() == ["bob", "test-client", False]


def test_blocks_nest(app, client):
    """The inner one counts, of whichever kind it is; after it the outer one does."""
    with called_by(app, "bob"):
        with signed_in(app, "alice"):
            assert client.post("/either").json() == ["alice", "app", False]
            assert client.get("/").status_code == 401
            with called_by(app, "zoe"):
                assert client.post("/either").json()[0] == "zoe"
            with signed_out(app):
                assert client.post("/either").status_code == 401
            assert client.post("/either").json()[0] == "alice"
        assert client.post("/either").json()[0] == "bob"
    assert client.post("/either").status_code == 401


def test_a_token_that_came_with_the_request_decides(app, client):
    """It is judged as ever: this one is none."""
    with called_by(app):
        assert client.get("/", headers={"Authorization": "Bearer something"}).status_code == 401
        assert client.get("/", headers={"Authorization": "Basic eDp5"}).status_code == 200


async def test_a_real_token_goes_on_working():
    """The provider's token passes next to the made-up one, and each is itself."""
    provider = DevelopmentProvider()
    logto = Logto(make_config(endpoint=provider.endpoint), http_client=issuer_client(provider))
    client = TestClient(make_app(logto), base_url="http://localhost:8000")
    real = {"Authorization": f"Bearer {provider.mint_access_token('zoe', resource=API)}"}
    with called_by(logto, "bob"):
        assert client.get("/", headers=real).json()["sub"] == "zoe"
        assert client.get("/", headers=real).json()["sub"] == "zoe"
        assert client.get("/").json()["sub"] == "bob"


def test_a_websocket(app, client):
    """It brings the token too."""
    with called_by(app, "bob"), client.websocket_connect("/live") as websocket:
        assert websocket.receive_text() == "bob"
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/live"):
        pass


def test_tokens_in_exchange(app, client):
    """What the app gets on behalf of the caller is made up, or what the test says, an error included."""
    with called_by(app):
        assert client.get("/exchange").json() == f"access token for {OTHER}"
    with called_by(app, access_tokens={OTHER: "token-1"}):
        assert client.get("/exchange").json() == "token-1"
    with called_by(app, access_tokens={OTHER: IssuerUnavailable("away")}):
        assert client.get("/exchange").status_code == 503


def test_it_needs_to_know_what_the_token_is_for():
    """Without `api_resource` a SetupError says so."""
    app = make_app(Logto(make_config(api_resource=None)))
    with pytest.raises(SetupError, match="resource="), called_by(app):
        pass
    with called_by(app, resource=OTHER):
        assert TestClient(app).get("/stock").status_code == 200


def test_an_api_without_sign_in():
    """`called_by` is all that it needs, and `signed_in` says so."""
    config = LogtoConfig.without_sign_in(endpoint="https://unreachable.invalid", api_resource=API)
    app = make_plain_app(config, accept="bearer")
    with called_by(app, "bob"):
        assert TestClient(app).get("/api/").text == "bob"
    with pytest.raises(SetupError, match="called_by"), signed_in(app):
        pass


def make_plain_app(config: LogtoConfig, accept: Any) -> Starlette:
    """Return an app without FastAPI: a mount behind a guard, and `@requires` by what the middleware found."""

    def who(request: Request) -> Response:
        return PlainTextResponse(request.user.identity)

    @requires(["authenticated", "read:items"])
    async def items(request: Request) -> Response:
        return JSONResponse(list(request.user.scopes))

    guard = Middleware(RequireAuthMiddleware, accept=accept, scopes=any_of("read:items", "write:items"))
    guard = guard if config.signs_in else Middleware(RequireAuthMiddleware, accept=accept)
    routes: list[BaseRoute] = [Mount("/api", routes=[Route("/", who)], middleware=[guard]), Route("/items", items)]
    if config.signs_in:
        routes += auth_routes(config)
    return Starlette(routes=routes, middleware=[Middleware(LogtoMiddleware, config=config, accept=accept)])


def test_plain_starlette():
    """`@requires` and a guarded mount obey as well."""
    app = make_plain_app(make_config(), ["session", "bearer"])
    client = TestClient(app, base_url="http://localhost:8000")
    assert client.get("/items").status_code == 403
    with called_by(app, "bob", scopes="read:items"):
        assert client.get("/items").json() == ["read:items"]
        assert client.get("/api/").text == "bob"
    with called_by(app, "bob"):
        assert client.get("/api/").status_code == 403


async def test_it_decorates(app, client):
    """Asynchronous test functions run inside of it."""

    @called_by(app, "bob", scopes="read:items")
    async def inside() -> str:
        return await asyncio.to_thread(lambda: client.get("/items").json())

    assert await inside() == "bob"


def test_other_apps_are_left_alone(app, client):
    """The switch is of one app, and with the last block the middleware is what it was."""
    serve, other = LogtoMiddleware.__call__, TestClient(make_app())
    with called_by(app):
        assert other.get("/").status_code == 401
        with called_by(app):
            pass
        assert client.get("/").status_code == 200
    assert LogtoMiddleware.__call__ is serve
    assert all("known" not in vars(logto.bearer) for logto in runtimes_of(app))

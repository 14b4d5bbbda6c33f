"""Bearer tokens in plain Starlette: the middleware, `@requires`, mounts; and in WebSockets and streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from logto_asgi import (
    ConfigurationError,
    Logto,
    LogtoMiddleware,
    LogtoUser,
    RequireAuthMiddleware,
    TokenRequired,
    auth_routes,
)
from logto_asgi.testing import Visitor
from tests.api_site import API, OTHER_API, Api, make_api

BOTH = ("session", "bearer")


async def _who(request: Request) -> JSONResponse:
    user: LogtoUser = request.state.user
    return JSONResponse({"sub": user.identity, "auth": list(request.auth.scopes), "bearer": user.bearer is not None})


@requires("read:items")
async def _items(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.user.identity)


async def _stream(request: Request) -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        for number in range(3):
            yield f"data: {number} {request.state.user.identity}\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")


def starlette_app(logto: Logto, accept: Any = BOTH) -> Starlette:
    def guard(**options: Any) -> Middleware:
        return Middleware(RequireAuthMiddleware, **{"accept": "bearer", **options})

    return Starlette(
        routes=[
            *auth_routes(logto.config),
            Route("/", _who, methods=["GET", "POST"]),
            Route("/items", _items, methods=["GET", "POST"]),
            Route("/stream", _stream, middleware=[guard()]),
            Route("/guarded", _who, middleware=[guard(scopes=["read:items"])]),
            Route("/org/{org_id}", _who, middleware=[guard(organization="{org_id}")]),
            Route("/machine", _who, middleware=[guard(machines="only")]),
            Mount("/mounted", RequireAuthMiddleware(PlainTextResponse("in"), accept="bearer", resource=OTHER_API)),
        ],
        middleware=[Middleware(LogtoMiddleware, logto=logto, accept=accept)],
    )


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    """Return a Starlette app whose middleware takes both."""
    made = make_api(starlette_app)
    yield made
    await made.client.aclose()


async def test_the_caller_is_the_user(api: Api) -> None:
    """`request.state.user`, `request.user` and `request.auth` know who called with a token."""
    response = await api.get("/", api.token(scopes=["read:items"]))
    assert response.json() == {"sub": "alice", "auth": ["authenticated", "read:items"], "bearer": True}
    assert (await api.get("/items", api.token(scopes=["read:items"]))).text == "alice"
    assert (await api.get("/items", api.token())).status_code == 403
    assert (await api.get("/items", api.token(scopes=["read:items"]), method="POST")).status_code == 200


NOBODY: dict[str, dict[str, Any]] = {
    "for-another-api": {"resource": OTHER_API},
    "expired": {"exp": 1_700_000_000},
    "for-an-organization": {"organization_id": "harbour"},
    "for-the-api-in-an-organization": {"resource": API, "organization_id": "harbour"},
    "of-a-machine": {"sub": "spa"},
    "of-another-kind": {"header": {"typ": "JWT"}},
}


@pytest.mark.parametrize("options", NOBODY.values(), ids=NOBODY)
async def test_any_other_token_is_nobodys(api: Api, options: dict[str, Any]) -> None:
    """The middleware refuses nobody; who brings a token that is of no use here is anonymous."""
    response = await api.get("/", api.token(**{"sub": "alice", **options}))
    assert response.json() == {"sub": "", "auth": [], "bearer": False}
    assert (await api.get("/items", api.token(**{"sub": "alice", **options}))).status_code == 403


async def test_two_tokens_are_nobodys(api: Api) -> None:
    """Neither of them is taken."""
    headers = [("Authorization", f"Bearer {api.token()}"), ("Authorization", f"Bearer {api.token('bob')}")]
    assert (await api.client.get("/", headers=headers)).json()["sub"] == ""


async def test_middleware_takes_sessions_alone_unless_told() -> None:
    """A token makes nobody a user of an app that was written for sessions."""
    api = make_api(lambda logto: starlette_app(logto, accept=("session",)))
    assert (await api.get("/", api.token())).json()["sub"] == ""
    assert (await api.get("/guarded", api.token(scopes=["read:items"]))).status_code == 200


async def test_good_session_is_not_looked_at_beside_a_bad_token() -> None:
    """The header decides alone."""
    api = make_api(starlette_app)
    async with Visitor(api.app, api.provider, config=api.logto.config) as visitor:
        await visitor.sign_in("alice")
        assert (await visitor.get("/")).json()["sub"] == "alice"
        headers = {"Authorization": f"Bearer {api.token('bob', exp=1_700_000_000)}"}
        assert (await visitor.get("/", headers=headers)).json()["sub"] == ""


async def test_lack_of_keys_is_raised_by_whoever_asks() -> None:
    """It is 503, as for a session store that is away, and never "anonymous"."""
    api = make_api(starlette_app)
    api.provider.fail_next("discovery", 503)
    response = await api.get("/", api.token())
    assert (response.status_code, response.json()["code"]) == (503, "issuer_unavailable")


async def test_middleware_needs_the_name_of_the_api() -> None:
    """Without an audience every API's tokens would do."""
    with pytest.raises(ConfigurationError, match="api_resource"):
        make_api(starlette_app, api_resource=None).app.build_middleware_stack()


async def test_middleware_of_an_app_with_sign_in_takes_no_tokens_alone() -> None:
    """Its sessions would be users all the same."""
    with pytest.raises(ConfigurationError, match="without_sign_in"):
        make_api(lambda logto: starlette_app(logto, accept="bearer")).app.build_middleware_stack()


async def test_answer_to_a_caller_varies_by_token(api: Api) -> None:
    """Whether the app looked or not: the middleware did."""
    assert "Authorization" in (await api.get("/", api.token())).headers.get_list("vary")


async def test_guards_of_routes_and_mounts(api: Api) -> None:
    """`RequireAuthMiddleware` takes the options of `require_auth`."""
    assert (await api.get("/guarded", api.token())).json()["code"] == "insufficient_scope"
    assert (await api.get("/guarded")).headers["www-authenticate"] == 'Bearer scope="read:items"'
    assert (await api.get("/org/harbour", api.token(organization_id="harbour"))).status_code == 200
    assert (await api.get("/org/other", api.token(organization_id="harbour"))).status_code == 401
    assert (await api.get("/machine", api.token("spa"))).status_code == 200
    assert (await api.get("/machine", api.token())).status_code == 403
    assert (await api.get("/mounted/x", api.token())).status_code == 401
    assert (await api.get("/mounted/x", api.token(resource=OTHER_API))).text == "in"


async def test_guard_among_the_middleware_of_a_mounted_app() -> None:
    """It answers in place: the mounted app's own error page would make a 500 of a 401."""

    def build(logto: Logto) -> Starlette:
        guard = Middleware(RequireAuthMiddleware, accept="bearer", scopes=["read:items"])
        inner = Starlette(routes=[Route("/x", _who)], middleware=[guard])
        return Starlette(routes=[Mount("/in", inner)], middleware=[Middleware(LogtoMiddleware, logto=logto)])

    api = make_api(build)
    assert (await api.get("/in/x")).headers["www-authenticate"] == 'Bearer scope="read:items"'
    assert (await api.get("/in/x", api.token())).status_code == 403
    assert (await api.get("/in/x", api.token(scopes=["read:items"]))).status_code == 200


async def test_guard_answers_with_the_apps_own_handler() -> None:
    """An app that handles a status or a class of ours itself is asked."""

    async def own(request: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse("mine", 418)

    def build(logto: Logto) -> Starlette:
        guarded = RequireAuthMiddleware(PlainTextResponse("in"), accept="bearer")
        return Starlette(
            routes=[Mount("/in", guarded)],
            middleware=[Middleware(LogtoMiddleware, logto=logto)],
            exception_handlers={TokenRequired: own},
        )

    assert (await make_api(build).get("/in/")).status_code == 418


async def test_stream_by_token(api: Api) -> None:
    """A stream is guarded when it begins, and knows its caller to its end."""
    response = await api.get("/stream", api.token())
    assert response.text.count("alice") == 3
    assert (await api.get("/stream")).status_code == 401


# -- WebSockets --------------------------------------------------------------------------------------------------------


def test_websocket_by_header() -> None:
    """A program sends the token as with any other request."""
    api = make_api()
    with TestClient(api.app) as client, client.websocket_connect("/ws", headers=_bearer(api.token())) as websocket:
        assert websocket.accepted_subprotocol is None
        assert websocket.receive_json() == {"sub": "alice"}


def test_websocket_by_subprotocol() -> None:
    """A browser cannot set headers; the server answers `logto.bearer` and never repeats the token."""
    api = make_api()
    protocols = ["logto.bearer", api.token()]
    with TestClient(api.app) as client, client.websocket_connect("/ws", subprotocols=protocols) as websocket:
        assert websocket.accepted_subprotocol == "logto.bearer"
        assert websocket.receive_json() == {"sub": "alice"}


def test_websocket_with_a_subprotocol_of_the_apps_own() -> None:
    """The app's choice stays."""

    def build(logto: Logto) -> FastAPI:
        app = FastAPI()
        app.add_middleware(LogtoMiddleware, logto=logto, accept=BOTH)

        @app.websocket("/")
        async def endpoint(websocket: WebSocket) -> None:
            await websocket.accept(subprotocol="chat.v1")
            await websocket.send_text(websocket.state.user.identity)

        return app

    api = make_api(build)
    protocols = ["chat.v1", "logto.bearer", api.token()]
    with TestClient(api.app) as client, client.websocket_connect("/", subprotocols=protocols) as websocket:
        assert websocket.accepted_subprotocol == "chat.v1"
        assert websocket.receive_text() == "alice"


@pytest.mark.parametrize(
    ("protocols", "status"),
    [
        (["logto.bearer"], 401),
        (["logto.bearer", "not-a-token"], 401),
        (["not-a-token", "logto.bearer"], 401),
        (["chat"], 401),
    ],
)
def test_websocket_without_a_good_token_is_denied(protocols: list[str], status: int) -> None:
    """Before it is accepted, and whatever cookie it carries."""
    api = make_api()
    with (
        TestClient(api.app) as client,
        pytest.raises(WebSocketDenialResponse) as denied,
        client.websocket_connect("/ws", subprotocols=protocols),
    ):
        pass
    assert denied.value.status_code == status


def test_websocket_with_two_tokens_is_denied() -> None:
    """One in the header and one in the subprotocol."""
    api = make_api()
    token = api.token()
    with (
        TestClient(api.app) as client,
        pytest.raises(WebSocketDenialResponse) as denied,
        client.websocket_connect("/ws", subprotocols=["logto.bearer", token], headers=_bearer(token)),
    ):
        pass
    assert denied.value.status_code == 400


def test_foreign_page_may_open_a_websocket_with_a_token() -> None:
    """`Origin` guards cookies, which browsers send by themselves; a token was put there on purpose."""
    api = make_api()
    headers = {"Origin": "https://spa.example.com"}
    with (
        TestClient(api.app) as client,
        client.websocket_connect("/ws", subprotocols=["logto.bearer", api.token()], headers=headers) as websocket,
    ):
        assert websocket.receive_json() == {"sub": "alice"}


def test_websocket_ends_with_its_token() -> None:
    """Nobody goes on for hours on a token of minutes."""
    api = make_api()
    headers = _bearer(api.token(exp=int(api.clock()) + 1))
    with TestClient(api.app) as client, client.websocket_connect("/ws", headers=headers) as websocket:
        assert websocket.receive_json() == {"sub": "alice"}
        with pytest.raises(WebSocketDisconnect) as closed:
            websocket.receive_text()
    assert (closed.value.code, closed.value.reason) == (1008, "token_expired")


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_mounted_app_answers_in_its_own_way() -> None:
    """A guard inside of a mounted FastAPI app answers there, with the challenge."""
    from fastapi import Depends

    from logto_asgi.fastapi import bearer_token

    def build(logto: Logto) -> FastAPI:
        outer, inner = FastAPI(), FastAPI(dependencies=[Depends(bearer_token)])
        outer.add_middleware(LogtoMiddleware, logto=logto)
        inner.get("/x")(lambda: "in")
        outer.mount("/api", inner)
        return outer

    api = make_api(build)
    client = AsyncClient(transport=ASGITransport(api.app), base_url="http://localhost:8000")
    assert (await client.get("/api/x")).headers["www-authenticate"] == "Bearer"
    assert (await client.get("/api/x", headers=_bearer(api.token()))).status_code == 200

"""Whole ways through an API: what several guards, sign-in, machines and an outage make of one request after another."""

from __future__ import annotations

import logging
import re
import secrets
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Body, Depends, FastAPI, Security
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from logto_asgi import AccessTokenClaims, Logto, LogtoConfig, LogtoMiddleware, LogtoUser, SubjectTokenType
from logto_asgi.fastapi import auth_router, bearer_token, require_auth
from logto_asgi.testing import Client, DevelopmentProvider, Visitor, issuer_client
from tests.api_site import API, BOTH, Api, Claims, make_api

SECRET = secrets.token_urlsafe(24)
Admin = Annotated[AccessTokenClaims, Depends(bearer_token(scopes=["all"], machines="only"))]
MACHINE_PAGE = Path(__file__).resolve().parent.parent / "docs" / "machine-to-machine.md"


@pytest.fixture
def api() -> Api:
    return make_api()


def bearer(token: str) -> dict[str, str]:
    """Return the header that brings a token."""
    return {"Authorization": f"Bearer {token}"}


# -- Guards of routers and guards side by side -------------------------------------------------------------------------


def app_of_routers(logto: Logto) -> FastAPI:
    """Return an app with a guard per router, one router within the other, and endpoints with two guards."""
    app = FastAPI()
    app.add_middleware(LogtoMiddleware, logto=logto)
    app.include_router(auth_router(logto.config))
    shop = APIRouter(prefix="/shop", dependencies=[Depends(require_auth(accept=BOTH, scopes=["read:items"]))])
    stock = APIRouter(prefix="/stock", dependencies=[Security(bearer_token, scopes=["write:items"])])

    @app.get("/free")
    async def free() -> str:
        return "free"

    @shop.get("/items")
    async def items() -> str:
        return "items"

    @stock.get("/levels")
    async def levels(claims: Claims) -> str:
        return claims.sub

    @stock.get("/orders")
    async def orders(user: Annotated[LogtoUser, Depends(require_auth)]) -> str:
        return user.identity

    @app.get("/two-guards")
    async def two_guards(user: Annotated[LogtoUser, Depends(require_auth)], claims: Claims) -> str:
        return user.identity + claims.sub

    @app.get("/two-guards-turned")
    async def two_guards_turned(claims: Claims, user: Annotated[LogtoUser, Depends(require_auth)]) -> str:
        return user.identity + claims.sub

    shop.include_router(stock)
    app.include_router(shop)
    return app


READ, WRITE = "read:items", "write:items"
ROUTERS = [
    # path, scopes of the token, status, scope of the challenge
    ("/free", None, 200, None),
    ("/shop/items", None, 401, None),
    ("/shop/items", [], 403, READ),
    ("/shop/items", [WRITE], 403, READ),
    ("/shop/items", [READ], 200, None),
    ("/shop/stock/levels", None, 401, None),
    ("/shop/stock/levels", [READ], 403, WRITE),
    ("/shop/stock/levels", [WRITE], 403, READ),
    ("/shop/stock/levels", [READ, WRITE], 200, None),
]


@pytest.mark.parametrize(("path", "scopes", "status", "scope"), ROUTERS)
async def test_guard_of_a_router_stands_before_its_routes(
    path: str, scopes: list[str] | None, status: int, scope: str | None
) -> None:
    """A router's guard is asked at each request, the outer router's and the inner one's, and no other route's."""
    api = make_api(app_of_routers)
    response = await api.get(path, None if scopes is None else api.token(scopes=scopes))
    assert response.status_code == status
    assert response.json().get("scope") == scope if status == 403 else True


PATHS_OF_TWO = ["/two-guards", "/two-guards-turned", "/shop/stock/orders"]


@pytest.mark.parametrize("path", PATHS_OF_TWO)
@pytest.mark.parametrize("with_token", [False, True], ids=["no-token", "token"])
@pytest.mark.parametrize("with_session", [False, True], ids=["no-session", "session"])
async def test_guard_of_sessions_and_guard_of_tokens_on_one_endpoint(
    path: str, with_token: bool, with_session: bool
) -> None:
    """One request comes in one way, and so never passes both: neither guard takes the other's word."""
    api = make_api(app_of_routers, scopes=[READ, WRITE])
    async with Visitor(api.app, api.provider, config=api.logto.config) as visitor:
        if with_session:
            await visitor.sign_in("alice")
        headers = bearer(api.token(scopes=[READ, WRITE])) if with_token else {}
        response = await visitor.get(path, headers=headers)
    assert response.status_code == 401


async def test_mounted_api_has_the_guards_of_its_routers() -> None:
    """In another app, under a prefix, the guards are the same."""
    api = make_api(app_of_routers)
    outer = httpx.ASGITransport(FastAPI(routes=[Mount("/v1", api.app)]))
    async with httpx.AsyncClient(transport=outer, base_url="http://localhost:8000") as client:
        few, enough = api.token(scopes=[READ]), api.token(scopes=[READ, WRITE])
        assert (await client.get("/v1/shop/stock/levels", headers=bearer(few))).status_code == 403
        assert (await client.get("/v1/shop/stock/levels", headers=bearer(enough))).json() == "alice"


# -- Sign-in, callers and machines -------------------------------------------------------------------------------------


async def test_sign_in_and_callers_share_the_keys(api: Api) -> None:
    """After a sign-in the first caller's token is verified without a call to the issuer."""
    async with Visitor(api.app, api.provider, config=api.logto.config) as visitor:
        await visitor.sign_in("alice")
    assert (await api.get("/me", api.token())).status_code == 200
    assert (api.provider.requests.count("discovery"), api.provider.requests.count("jwks")) == (1, 1)


async def test_who_acts_for_a_user_is_the_actor() -> None:
    """Bob of the support acts as Alice: an exchange with his token, a call with the result, and `user.actor` is Bob."""
    support = Client("support", SECRET, token_exchange=True)
    api = make_api(provider={"clients": [Client("spa"), support]})
    config = LogtoConfig.without_sign_in(endpoint=api.provider.endpoint, app_id="support", app_secret=SECRET)
    async with Logto(config, http_client=issuer_client(api.provider), clock=api.clock) as logto:
        token = await logto.exchange_token(
            api.provider.impersonation_token("alice"),
            SubjectTokenType.IMPERSONATION_TOKEN,
            resource=API,
            scopes=[READ],
            actor_token=api.provider.opaque_access_token("bob", client_id="support", scopes=["openid"]),
        )
    caller = (await api.get("/who", token.value)).json()
    assert (caller["sub"], caller["actor"], caller["client"]) == ("alice", "bob", "support")
    assert (caller["machine"], caller["scopes"]) == (False, [READ])


def management_api(provider: DevelopmentProvider, suspended: dict[str, bool]) -> FastAPI:
    """Return the one endpoint of Logto's Management API that the page calls, guarded as Logto guards it."""
    config = LogtoConfig.without_sign_in(endpoint=provider.endpoint, api_resource="https://default.logto.app/api")
    app = FastAPI()
    app.add_middleware(LogtoMiddleware, logto=Logto(config, http_client=issuer_client(provider)))

    @app.patch("/api/users/{sub}/is-suspended")
    async def suspend(sub: str, isSuspended: Annotated[bool, Body(embed=True)], token: Admin) -> dict[str, Any]:  # noqa: N803
        suspended[sub] = isSuspended
        return {"id": sub, "isSuspended": isSuspended, "by": token.client_id}

    return app


@pytest.mark.parametrize("may", [True, False], ids=["with-the-role", "without-the-role"])
async def test_management_api_is_called_as_the_page_says(may: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job of docs/machine-to-machine.md, as printed, suspends a user; without the role it is refused."""
    resource, suspended = "https://default.logto.app/api", dict[str, bool]()
    machine = Client(
        "admin-machine", "of-the-machine-kept-safe", machine=True, permissions={resource: ["all"]} if may else {}
    )
    provider = DevelopmentProvider(clients=[machine], resources={resource: ["all"]})
    management = management_api(provider, suspended)

    async def logto(scope: Scope, receive: Receive, send: Send) -> None:
        there: ASGIApp = management if scope["path"].startswith("/api/") else provider
        await there(scope, receive, send)

    edge = httpx.ASGITransport(logto)
    monkeypatch.setattr(
        httpx.AsyncHTTPTransport, "handle_async_request", lambda _, request: edge.handle_async_request(request)
    )
    (block,) = [
        code
        for code in re.findall(r"```python\n(.*?)```", MACHINE_PAGE.read_text("utf-8"), re.DOTALL)
        if "suspend(" in code
    ]
    page: dict[str, Any] = {}
    exec(compile(block, str(MACHINE_PAGE), "exec", dont_inherit=True), page)
    page["ENDPOINT"] = provider.endpoint
    if may:
        assert await page["suspend"]("alice") == {"id": "alice", "isSuspended": True, "by": "admin-machine"}
        assert suspended == {"alice": True}
        return
    with pytest.raises(httpx.HTTPStatusError, match="403"):
        await page["suspend"]("alice")
    assert suspended == {}


# -- What strangers write into the log ---------------------------------------------------------------------------------


def levels_of(caplog: pytest.LogCaptureFixture, code: str) -> list[str]:
    """Return the levels of the lines that begin with a code, and forget all lines."""
    levels = [record.levelname for record in caplog.records if record.getMessage().startswith(code)]
    caplog.clear()
    return levels


async def test_strangers_without_keys_are_one_line(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """However many tokens meet the outage, one line in ten seconds is a warning; every caller gets 503."""
    caplog.set_level(logging.DEBUG, "logto_asgi")
    for _ in range(100):
        api.provider.fail_next("discovery", status=503)
    for _ in range(2):
        statuses = [(await api.get("/me", api.token(f"user-{number}"))).status_code for number in range(20)]
        assert statuses == [503] * 20
        assert levels_of(caplog, "issuer_unavailable") == ["WARNING", *["DEBUG"] * 19]
        api.clock.move(10)
    assert api.provider.requests.count("discovery") == 2


async def test_unknown_keys_in_an_outage_are_one_line(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """The same where keys are known, and strangers make up ids of others."""
    assert (await api.get("/me", api.token())).status_code == 200
    caplog.set_level(logging.DEBUG, "logto_asgi")
    for _ in range(100):
        api.provider.fail_next("jwks", status=503)
    tokens = [api.token(header={"kid": f"key-{number}"}) for number in range(20)]
    assert [(await api.get("/me", token)).status_code for token in tokens] == [503] * 20
    assert levels_of(caplog, "issuer_unavailable") == ["WARNING", *["DEBUG"] * 19]
    assert api.provider.requests.count("jwks") == 2
    assert (await api.get("/me", api.token("bob"))).status_code == 200


async def test_each_fault_of_the_app_is_heard_once(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """A guard that cannot work is an error in the log, whatever else has been logged; callers do not repeat it."""
    caplog.set_level(logging.DEBUG, "logto_asgi")
    for _ in range(3):
        assert (await api.get("/no-such-parameter", api.token(organization_id="harbour"))).status_code == 500
    assert levels_of(caplog, "setup_incomplete") == ["ERROR", "DEBUG", "DEBUG"]


async def test_what_visitors_meet_is_logged_each_time(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody who is signed in is no stranger."""
    async with Visitor(api.app, api.provider, config=api.logto.config) as visitor:
        await visitor.sign_in("alice")
        for _ in range(2):
            assert (await visitor.get("/no-such-parameter")).status_code == 500
    assert levels_of(caplog, "setup_incomplete") == ["ERROR", "ERROR"]


# -- Small slips -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["Bearer", "bearer ", "Bearer    "])
async def test_nothing_behind_bearer(api: Api, header: str) -> None:
    """An empty variable in a script: the answer asks whether it is empty."""
    response = await api.get("/me", headers={"Authorization": header})
    assert (response.status_code, response.json()["code"]) == (401, "invalid_token")
    assert response.json()["detail"] == "Nothing stands behind Bearer. Is the variable empty?"
    assert 'error="invalid_token"' in response.headers["www-authenticate"]

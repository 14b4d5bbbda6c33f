"""What a visitor with a session is answered by guards that ask for more than a session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection

from logto_asgi import Logto, LogtoMiddleware, LogtoUser, PermissionDenied, UserScope
from logto_asgi.fastapi import auth_router, require_auth
from logto_asgi.testing import DemoUser, Organization, Visitor
from tests.api_site import API, Api, make_api

USERS = [
    DemoUser("alice", "Alice", "alice@example.com", roles=("admin",)),
    DemoUser("bob", "Bob", roles=("reader",), permissions={API: ("read:items",)}),
    DemoUser("eve", "Eve", permissions={}),
]
HARBOUR = Organization(
    "harbour",
    "Harbour Books",
    members={"alice": ("admin",), "bob": ("member",)},
    roles={"admin": ("read:items", "manage:members"), "member": ()},
)
LEEWAY = 60
"""Seconds, the default of `clock_leeway`."""
SCOPES = ["read:items", "write:items", "manage:members", UserScope.ROLES, UserScope.ORGANIZATIONS]
SETTINGS: dict[str, Any] = {
    "provider": {"users": USERS, "organizations": [HARBOUR]},
    "scopes": [*SCOPES, UserScope.ORGANIZATION_ROLES],
}


@pytest.fixture
async def visit() -> AsyncIterator[Callable[..., Any]]:
    """Return a function that signs somebody in and returns the API and the browser."""
    visitors: list[Visitor] = []

    async def sign_in(sub: str, **options: Any) -> tuple[Api, Visitor]:
        api = make_api(**{**SETTINGS, **options})
        visitor = Visitor(api.app, api.provider, config=api.logto.config)
        visitors.append(visitor)
        await visitor.sign_in(sub)
        return api, visitor

    yield sign_in
    for visitor in visitors:
        await visitor.aclose()


ANSWERS = [
    # path, who, status, code, missing
    ("/read", "alice", 200, None, None),
    ("/read", "bob", 200, None, None),
    ("/read", "eve", 403, "insufficient_scope", ["read:items"]),
    ("/both-scopes", "alice", 200, None, None),
    ("/both-scopes", "bob", 403, "insufficient_scope", ["write:items"]),
    ("/one-scope", "bob", 200, None, None),
    ("/one-scope", "eve", 403, "insufficient_scope", ["read:items", "write:items"]),
    ("/security", "bob", 200, None, None),
    ("/security", "eve", 403, "insufficient_scope", ["read:items"]),
    ("/role", "alice", 200, None, None),
    ("/role", "bob", 403, "permission_denied", ["admin"]),
    ("/one-role", "alice", 200, None, None),
    ("/one-role", "eve", 403, "permission_denied", ["admin", "owner"]),
    ("/org/harbour", "bob", 200, None, None),
    ("/org/harbour", "eve", 403, "permission_denied", ["organization"]),
    ("/org/other", "alice", 403, "permission_denied", ["organization"]),
    ("/org/harbour/items", "alice", 200, None, None),
    ("/org/harbour/items", "bob", 403, "insufficient_scope", ["read:items"]),
    ("/org/harbour/members", "alice", 200, None, None),
    ("/org/harbour/members", "bob", 403, "insufficient_scope", ["manage:members"]),
    ("/org/harbour/admin", "alice", 200, None, None),
    ("/org/harbour/admin", "bob", 403, "permission_denied", ["admin"]),
    ("/no-such-parameter", "alice", 500, "setup_incomplete", None),
]


@pytest.mark.parametrize(("path", "sub", "status", "code", "missing"), ANSWERS)
async def test_answers(
    visit: Any, path: str, sub: str, status: int, code: str | None, missing: list[str] | None
) -> None:
    """Scopes come from access tokens, roles and membership from fresh claims; the answer says what is missing."""
    _, visitor = await visit(sub)
    response = await visitor.get(path)
    assert response.status_code == status, response.text
    if code is not None:
        body = response.json()
        assert (body["code"], body.get("missing")) == (code, missing)
        assert "Bearer" not in response.headers.get("www-authenticate", "")


async def test_browser_sees_a_page_that_says_what_is_missing(visit: Any) -> None:
    """Nobody is sent to sign in again for a permission that they will not have then either."""
    _, visitor = await visit("bob")
    response = await visitor.navigate("/role")
    assert response.status_code == 403
    assert "You may not see this" in response.text
    assert "A role is missing: admin." in response.text


async def test_scopes_of_sign_in_open_nothing(visit: Any) -> None:
    """What was granted at sign-in is not what a resource grants: Eve asked for `read:items`, and has it not."""
    api, visitor = await visit("eve")
    assert "read:items" in api.logto.config.scopes
    assert (await visitor.get("/read")).status_code == 403


async def test_scope_that_was_taken_away_counts_at_the_next_refresh(visit: Any) -> None:
    """A guard that insists on claims of a minute insists on a token of a minute, too."""

    def build(logto: Logto) -> FastAPI:
        app = FastAPI()
        app.add_middleware(LogtoMiddleware, logto=logto)
        app.include_router(auth_router(logto.config))
        app.get("/", dependencies=[Depends(require_auth(scopes=["read:items"], claims_max_age=60))])(lambda: "in")
        return app

    api, visitor = await visit("bob", app=build)
    assert (await visitor.get("/")).status_code == 200
    api.provider._core.directory._users["bob"] = DemoUser("bob", "Bob", permissions={})
    api.clock.move(30)
    assert (await visitor.get("/")).status_code == 200
    api.clock.move(31)
    assert (await visitor.get("/")).status_code == 403


async def test_role_that_was_taken_away_counts_after_an_hour(visit: Any) -> None:
    """Guards refresh claims that are older than `claims_max_age` (an hour) before they go by them."""
    api, visitor = await visit("alice")
    api.provider.set_claims("alice", roles=["reader"])
    api.clock.move(3599)
    assert (await visitor.get("/role")).status_code == 200
    api.clock.move(1)
    assert (await visitor.get("/role")).status_code == 403


async def test_scopes_without_a_resource_are_a_mistake_of_the_app(visit: Any) -> None:
    """A session has no scopes of its own."""

    def build(logto: Logto) -> FastAPI:
        app = FastAPI()
        app.add_middleware(LogtoMiddleware, logto=logto)
        app.include_router(auth_router(logto.config))
        app.get("/", dependencies=[Depends(require_auth(scopes=["read:items"]))])(lambda: "in")
        return app

    _, visitor = await visit("alice", app=build, api_resource=None)
    response = await visitor.get("/")
    assert response.status_code == 500
    assert "names none" in response.json()["detail"]


async def test_organizations_that_sign_in_never_asked_for(visit: Any) -> None:
    """Everybody would be refused: the app is told which scope it lacks."""
    _, visitor = await visit("alice", scopes=["read:items"])
    response = await visitor.get("/org/harbour")
    assert response.status_code == 500
    assert "UserScope.ORGANIZATIONS" in response.json()["detail"]


async def test_scope_that_sign_in_never_asks_for_is_told_to_the_makers(visit: Any, caplog: Any) -> None:
    """Nobody can have it, and the visitor's answer cannot say so."""
    _, visitor = await visit("alice", scopes=[], app_id="forgetful")
    for path in ("/read", "/read", "/role"):
        assert (await visitor.get(path)).status_code == 403
    told = [record.getMessage() for record in caplog.records if "nobody has it" in record.getMessage()]
    assert [text.split("'")[1] for text in told] == ["read:items", "roles"]


# -- Step-up -----------------------------------------------------------------------------------------------------------


async def test_old_sign_in_is_asked_for_again_and_comes_back(visit: Any) -> None:
    """A browser goes to sign-in with `max_age` and returns to the page; a program gets the address."""
    api, visitor = await visit("alice")
    program = await visitor.get("/recent")
    assert (program.status_code, program.json()["code"]) == (401, "step_up_required")
    assert program.json()["sign_in_url"].endswith("/logto/sign-in?return_to=/recent&max_age=300")
    api.clock.move(301)
    page = await visitor.choose(await visitor.navigate("/recent"), "alice")
    assert page.status_code == 200, page.text
    assert str(page.url).endswith("/recent")
    assert page.json()["claims"]["auth_time"] == api.clock()
    api.clock.move(300 + LEEWAY)
    assert (await visitor.get("/recent")).status_code == 200
    api.clock.move(1)
    assert (await visitor.get("/recent")).status_code == 401


@pytest.mark.parametrize("behind", [1, LEEWAY - 1])
async def test_issuer_whose_clock_is_behind_sends_nobody_in_circles(visit: Any, behind: int) -> None:
    """What the issuer calls recent enough is so for the guard, within the leeway."""
    api, visitor = await visit("alice")
    await visitor.choose(await visitor.navigate("/recent"), "alice")
    api.clock.move(300)
    api.provider._core.clock = lambda: api.clock() - behind
    api.clock.move(behind)
    assert (await visitor.navigate("/recent")).status_code == 200


async def test_nobody_signs_in_once_for_a_page_that_wants_it_recent(visit: Any) -> None:
    """The first sign-in asks for the time of authentication already."""
    api = make_api(**SETTINGS)
    async with Visitor(api.app, api.provider, config=api.logto.config) as visitor:
        page = await visitor.choose(await visitor.navigate("/recent"), "alice")
        assert page.status_code == 200, page.text
    assert api.provider.requests.count("token", "authorization_code") == 1


async def test_form_that_came_too_late_is_not_sent_away(visit: Any) -> None:
    """A POST is not repeated after sign-in: the page says so and offers it."""
    _, visitor = await visit("alice")
    headers = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
    response = await visitor.post("/recent", headers=headers)
    assert response.status_code == 401
    assert "Sign in again" in response.text
    assert "max_age=300" in response.text


async def test_refresh_makes_no_sign_in_younger(visit: Any) -> None:
    """Claims are new after a refresh; that somebody proved who they are is as long ago as before."""
    api, visitor = await visit("alice")
    await visitor.choose(await visitor.navigate("/recent"), "alice")
    api.clock.move(3700)
    assert (await visitor.get("/either")).status_code == 200
    assert api.provider.requests.count("token", "refresh_token") >= 1
    assert (await visitor.get("/recent")).status_code == 401


# -- Predicates --------------------------------------------------------------------------------------------------------


def _is_verified(user: LogtoUser, connection: HTTPConnection) -> bool:
    return user.claims.email_verified is True


async def _owns(user: LogtoUser, connection: HTTPConnection) -> bool:
    return connection.path_params["owner"] == user.identity


def _raises(user: LogtoUser, connection: HTTPConnection) -> bool:
    raise PermissionDenied("Not on a Sunday.", missing=["monday"])


def _forgot_to_return(user: LogtoUser, connection: HTTPConnection) -> Any:
    return None


def predicates(logto: Logto) -> FastAPI:
    app = FastAPI()
    app.add_middleware(LogtoMiddleware, logto=logto)
    app.include_router(auth_router(logto.config))
    table = {"/verified": _is_verified, "/of/{owner}": _owns, "/sunday": _raises, "/forgot": _forgot_to_return}
    for path, predicate in table.items():
        guard = require_auth(accept=("session", "bearer"), predicate=predicate)

        @app.get(path)
        async def endpoint(user: LogtoUser = Depends(guard)) -> str:
            return user.identity

    return app


@pytest.mark.parametrize(
    ("path", "sub", "status", "words"),
    [
        ("/verified", "alice", 200, "alice"),
        ("/verified", "bob", 403, "permission_denied"),
        ("/of/alice", "alice", 200, "alice"),
        ("/of/alice", "bob", 403, "permission_denied"),
        ("/sunday", "alice", 403, "Not on a Sunday."),
        ("/forgot", "alice", 500, "returns True or False"),
    ],
)
async def test_predicate_of_ones_own(visit: Any, path: str, sub: str, status: int, words: str) -> None:
    """It may be asynchronous, and knows user and request; only True lets somebody in."""
    _, visitor = await visit(sub, app=predicates, scopes=["email"])
    response = await visitor.get(path)
    assert response.status_code == status, response.text
    assert words in response.text


async def test_predicate_is_asked_about_a_bearer_too(visit: Any) -> None:
    """The same guard, the same question."""
    api, _ = await visit("alice", app=predicates, scopes=["email"])
    token = api.token("alice")
    assert (await api.get("/of/alice", token)).status_code == 200
    refused = await api.get("/of/bob", token)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (403, "Bearer")


async def test_predicate_is_not_asked_about_who_was_refused(visit: Any) -> None:
    """It sees only callers who satisfied the rest."""
    asked: list[str] = []

    def predicate(user: LogtoUser, connection: HTTPConnection) -> bool:
        asked.append(user.identity)
        return True

    def build(logto: Logto) -> FastAPI:
        app = FastAPI()
        app.add_middleware(LogtoMiddleware, logto=logto)
        app.include_router(auth_router(logto.config))
        app.get("/", dependencies=[Depends(require_auth(roles=["admin"], predicate=predicate))])(lambda: "in")
        return app

    _, visitor = await visit("bob", app=build)
    assert (await visitor.get("/")).status_code == 403
    assert asked == []

"""`LogtoUser`: every way to serialise it gives one public view, and nothing of it shows a token."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request, Security
from fastapi.encoders import jsonable_encoder
from fastapi.security import SecurityScopes
from starlette.requests import HTTPConnection

from logto_asgi import Logto, LogtoMiddleware, LogtoUser, PublicUser, SignInRequired
from logto_asgi.fastapi import (
    AUTH_RESPONSES,
    SignedIn,
    access_token,
    auth_router,
    current_user,
    organization_token,
    require_auth,
)
from logto_asgi.visit import Visit
from tests.conftest import API, MakeSite, Site, build_app

PUBLIC = {"is_authenticated", "claims", "scopes", "organizations"}


def with_views(logto: Logto) -> FastAPI:
    """Return an app that returns the user in each way there is."""
    app = build_app(logto)
    app.state.seen = []

    @app.get("/plain")
    async def plain(request: Request, user: Annotated[LogtoUser, Depends(current_user)]) -> Any:
        await user.get_access_token(API) if user.is_authenticated else None
        app.state.seen.append(user)
        return user

    @app.get("/bare")
    async def bare(user: Annotated[LogtoUser, Depends(current_user)]):  # type: ignore[no-untyped-def]
        return user

    @app.get("/declared")
    async def declared(user: Annotated[LogtoUser, Depends(current_user)]) -> LogtoUser:
        return user

    @app.get("/public")
    async def public(user: Annotated[LogtoUser, Depends(current_user)]) -> PublicUser:
        return user  # type: ignore[return-value]

    @app.get("/dict")
    async def as_dict(user: Annotated[LogtoUser, Depends(current_user)]) -> Any:
        return dict(user)

    @app.get("/nested")
    async def nested(user: Annotated[LogtoUser, Depends(current_user)]) -> Any:
        return [user, {"user": user}]

    return app


@pytest.mark.parametrize("path", ["/plain", "/bare", "/declared", "/public", "/dict"])
async def test_every_way_to_return_a_user_is_the_public_view(make_site: MakeSite, path: str) -> None:
    """Claims, scopes and organizations; nothing else, for a visitor and for a user."""
    site = make_site(app=with_views)
    visitor = await site.visitor()
    anonymous = (await visitor.get(path)).json()
    assert anonymous == {"is_authenticated": False, "claims": None, "scopes": [], "organizations": []}
    await visitor.sign_in()
    body = (await visitor.get(path)).json()
    assert set(body) == PUBLIC
    assert body["claims"]["sub"] == "alice"
    assert "nonce" not in body["claims"]
    assert "nickname" not in body["claims"], "claims that were never sent are not shown as null"


async def test_no_secret_in_any_response_repr_log_or_traceback(
    make_site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    """Tokens, the code, the verifier, the session id and the secrets stay inside (security line 34)."""
    caplog.set_level(logging.DEBUG)
    site = make_site(app=with_views)
    visitor = await site.visitor()
    texts = [str((await visitor.sign_in()).text)]
    for path in ("/plain", "/bare", "/declared", "/public", "/dict", "/nested", "/info", "/me"):
        texts.append((await visitor.get(path)).text)
    user: LogtoUser = site.app.state.seen[-1]
    session = user._visit.session
    assert session is not None
    objects: list[Any] = [
        user,
        session,
        site.logto,
        site.config,
        user._visit,
        user._visit.loaded,
        vars(user),
        site.logto.tokens,
    ]
    objects += [site.logto.sessions, site.logto.attempts, site.logto.flows, *session.access_tokens.values()]
    texts += [repr(each) for each in objects]
    texts += [json.dumps(jsonable_encoder(user)), repr(jsonable_encoder({"user": user}))]
    # The browser of this test is httpx too, and logs the addresses that it opens.
    texts += [record.getMessage() for record in caplog.records if record.name != "httpx"]
    site.provider.revoke("alice")
    try:
        await user.get_access_token(API, force_refresh=True)
    except SignInRequired as error:
        texts.append("".join(traceback.format_exception(error)))
        texts.append(repr(error) + repr(error.__cause__) + repr(error.__context__))
    secrets = [
        session.refresh_token or "",
        session.id,
        session.claims.nonce or "",
        *(token.value for token in session.access_tokens.values()),
        site.config.app_secret.get_secret_value() if site.config.app_secret else "",
        site.config.cookie_secrets[0].get_secret_value(),
    ]
    assert all(len(secret) > 15 for secret in secrets)
    for text in texts:
        for secret in secrets:
            assert secret not in text


async def test_claims_of_a_visitor_raise(site: Site) -> None:
    """An anonymous user has no claims: reading them is 401 in an endpoint, so their type is not optional."""
    app = FastAPI()
    app.mount("/", site.app)

    @site.app.get("/claims")
    async def claims(request: Request) -> str:
        return str(request.state.user.claims.sub)

    response = await (await site.visitor()).get("/claims")
    assert (response.status_code, response.json()["code"]) == (401, "sign_in_required")


async def test_user_cannot_be_pickled_or_copied(make_site: MakeSite) -> None:
    """It belongs to its request."""
    site = make_site(app=with_views)
    visitor = await site.visitor()
    await visitor.get("/plain")
    user = site.app.state.seen[-1]
    for refused in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="public"):
            refused(user)


async def test_names_of_a_user(make_site: MakeSite) -> None:
    """Starlette's `display_name` and `identity`."""
    site = make_site(app=with_views)
    visitor = await site.visitor()
    await visitor.get("/plain")
    anonymous = site.app.state.seen[-1]
    assert (anonymous.display_name, anonymous.identity, repr(anonymous)) == ("", "", "<LogtoUser, anonymous>")
    await visitor.sign_in()
    await visitor.get("/plain")
    user = site.app.state.seen[-1]
    assert (user.display_name, user.identity, repr(user)) == ("Alice Martin", "alice", "<LogtoUser 'alice'>")
    with pytest.raises(KeyError):
        user["_session"]
    assert not hasattr(user, "anything")


def test_guards_of_the_same_arguments_are_one_object() -> None:
    """So `dependency_overrides` finds a guard by its arguments."""
    assert require_auth(redirect=False) is require_auth(redirect=False)
    assert access_token(resource=API) is access_token(resource=API)
    assert access_token(resource=API) is not access_token(resource="https://other.example")
    assert access_token(API) is access_token(resource=API, organization_id=None)
    assert organization_token("o1") is organization_token(organization_id="o1")
    assert require_auth() is require_auth(redirect=None) is require_auth


async def test_dependency_override_replaces_a_guard(site: Site) -> None:
    """An app's tests may override `require_auth` and `access_token(resource=…)`."""

    async def nobody() -> str:
        return "overridden"

    site.app.dependency_overrides[access_token(resource=API)] = nobody
    assert (await (await site.visitor()).get("/token")).json() == "overridden"


async def test_openapi_shows_guards_and_the_public_view(make_site: MakeSite) -> None:
    """A guarded operation has a security scheme, and a returned user the schema of its public view."""
    site = make_site(app=with_views)
    schema = site.app.openapi()
    assert schema["components"]["securitySchemes"]["LogtoSession"]["in"] == "cookie"
    assert schema["paths"]["/me"]["get"]["security"] == [{"LogtoSession": []}]
    assert "security" not in schema["paths"]["/maybe"]["get"]
    declared = schema["paths"]["/declared"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert declared == {"$ref": "#/components/schemas/PublicUser"}
    assert set(schema["components"]["schemas"]["PublicUser"]["properties"]) == PUBLIC
    assert not [path for path in schema["paths"] if path.startswith("/logto")]
    assert {303, 400, 401, 403, 503} == set(AUTH_RESPONSES)


async def test_guard_on_the_whole_app_leaves_sign_in_open(make_site: MakeSite) -> None:
    """`FastAPI(dependencies=[…])` guards every endpoint and cannot lock the sign-in page."""

    def build(logto: Logto) -> FastAPI:
        app = FastAPI(dependencies=[Depends(require_auth)])
        app.add_middleware(LogtoMiddleware, logto=logto)
        app.include_router(auth_router(logto.config), dependencies=[Depends(require_auth)])

        @app.get("/")
        async def home(user: SignedIn) -> str:
            return user.identity

        return app

    site = make_site(app=build)
    visitor = await site.visitor()
    assert (await visitor.get("/")).status_code == 401
    assert (await visitor.sign_in()).json() == "alice"


async def test_guard_refuses_before_there_is_a_coroutine(site: Site) -> None:
    """A framework that forgot to await the guard would still let nobody in."""
    scope = {"type": "http", "method": "GET", "headers": [], "path": "/", "query_string": b"", "app": site.app}
    scope["logto_asgi"] = LogtoUser(Visit(site.logto, scope))
    with pytest.raises(SignInRequired):
        require_auth(HTTPConnection(scope), SecurityScopes())  # type: ignore[unused-coroutine]


async def test_scopes_on_a_session_guard_are_refused(make_site: MakeSite) -> None:
    """A session has no scopes of an API: `Security(require_auth, scopes=…)` is explained, not ignored."""

    def build(logto: Logto) -> FastAPI:
        app = build_app(logto)

        @app.get("/scoped", dependencies=[Security(require_auth, scopes=["read:items"])])
        async def scoped() -> str:
            return "in"

        return app

    site = make_site(app=build)
    visitor = await site.visitor()
    await visitor.sign_in()
    response = await visitor.get("/scoped")
    assert (response.status_code, response.json()["code"]) == (500, "setup_incomplete")


async def test_sync_endpoint_has_the_user(site: Site) -> None:
    """An endpoint without async reads the same user, in its thread."""
    visitor = await site.visitor()
    assert (await visitor.get("/sync")).status_code == 401
    await visitor.sign_in()
    assert (await visitor.get("/sync")).json() == {"sub": "alice"}

"""What a caller with a bearer token is answered, guard by guard (RFC 6750 §3)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from httpx import ASGITransport, AsyncClient

from logto_asgi import (
    ConfigurationError,
    Logto,
    LogtoConfig,
    LogtoMiddleware,
    LogtoUser,
    PermissionDenied,
    SetupError,
    auth_routes,
    organization_urn,
)
from logto_asgi.fastapi import access_token, bearer_token, require_auth
from logto_asgi.oidc.peek import read_unverified_claims
from logto_asgi.testing import Visitor, issuer_client
from logto_asgi.visit import Visit
from tests.api_site import API, BOTH, OTHER_API, Api, make_api

RESOURCE = {"resource": API}
ORGANIZATION = {"organization_id": "harbour"}


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    """Return an API, and close its client."""
    made = make_api()
    yield made
    await made.client.aclose()


# -- Who passes --------------------------------------------------------------------------------------------------------

PASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "token-for-this-api": ("/me", {}),
    "audience-is-a-list": ("/me", {"aud": [API, OTHER_API]}),
    "scope-absent": ("/either", {"scope": None}),
    "scope-that-is-asked-for": ("/read", {"scopes": ["read:items"]}),
    "all-scopes": ("/both-scopes", {"scopes": ["write:items", "read:items", "more"]}),
    "one-of-the-scopes": ("/one-scope", {"scopes": ["write:items"]}),
    "scopes-of-security": ("/security", {"scopes": ["read:items"]}),
    "scopes-of-security-and-one-of-the-guards": ("/security-and-own", {"scopes": ["c", "b"]}),
    "resource-that-the-guard-names": ("/other-api", {"resource": OTHER_API}),
    "role-in-the-token": ("/role", {"roles": ["admin", "x"]}),
    "one-of-the-roles": ("/one-role", {"roles": ["owner"]}),
    "recent-sign-in": ("/recent", {"auth_time": 1_800_000_000 - 360}),
    "machine-where-they-may": ("/machines", {"sub": "spa"}),
    "user-where-machines-may": ("/machines", {}),
    "machine-where-only-they-may": ("/only-machines", {"sub": "spa"}),
    "client-that-is-named": ("/clients", {"client_id": "phone"}),
    "organization-of-the-path": ("/org/harbour", ORGANIZATION),
    "resource-in-the-organization": ("/org/harbour/items", {**RESOURCE, **ORGANIZATION, "scopes": ["read:items"]}),
    "scope-of-the-organization": ("/org/harbour/members", {**ORGANIZATION, "scopes": ["manage:members"]}),
    "role-in-the-organization": ("/org/harbour/admin", {**ORGANIZATION, "organization_roles": ["harbour:admin"]}),
    "any-organization": ("/any-org", ORGANIZATION),
}


@pytest.mark.parametrize(("path", "token"), PASSES.values(), ids=PASSES)
async def test_passes(api: Api, path: str, token: dict[str, Any]) -> None:
    """A token that has what the guard asks for is let in, twice: the second time from memory."""
    made = api.token(**{"sub": "alice", **token})
    for _ in range(2):
        response = await api.get(path, made)
        assert response.status_code == 200, response.text


# -- Who does not ------------------------------------------------------------------------------------------------------

# path, the token's options, status, code, what the answer says is missing or which check failed
REFUSED: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "token-for-another-api": ("/me", {"resource": OTHER_API}, 401, "invalid_token"),
    "token-for-this-api-where-another-is-named": ("/other-api", {}, 401, "invalid_token"),
    "audience-that-only-begins-alike": ("/me", {"aud": API + "/v2"}, 401, "invalid_token"),
    "expired": ("/me", {"exp": 1_799_999_000}, 401, "invalid_token"),
    "not-valid-yet": ("/me", {"nbf": 1_800_001_000}, 401, "invalid_token"),
    "of-another-issuer": ("/me", {"iss": "http://localhost:3001/other"}, 401, "invalid_token"),
    "typ-of-a-plain-jwt": ("/me", {"header": {"typ": "JWT"}}, 401, "invalid_token"),
    "organization-token-where-none-is-named": ("/me", ORGANIZATION, 401, "invalid_token"),
    "organization-resource-token-where-none-is-named": ("/me", {**RESOURCE, **ORGANIZATION}, 401, "invalid_token"),
    "two-audiences-one-an-organization": ("/me", {"aud": [API, organization_urn("harbour")]}, 401, "invalid_token"),
    "plain-token-where-an-organization-is-named": ("/org/harbour", {}, 401, "invalid_token"),
    "token-for-another-organization": ("/org/lighthouse", ORGANIZATION, 401, "invalid_token"),
    "organization-of-a-resource-where-the-organization-is-meant": (
        "/org/harbour",
        {**RESOURCE, **ORGANIZATION},
        401,
        "invalid_token",
    ),
    "organization-token-where-a-resource-in-it-is-meant": (
        "/org/harbour/items",
        {**ORGANIZATION, "scopes": ["read:items"]},
        401,
        "invalid_token",
    ),
    "resource-in-another-organization": (
        "/org/lighthouse/items",
        {**RESOURCE, **ORGANIZATION, "scopes": ["read:items"]},
        401,
        "invalid_token",
    ),
    "two-organizations-in-one-token": (
        "/any-org",
        {"aud": [organization_urn("harbour"), organization_urn("other")]},
        401,
        "invalid_token",
    ),
    "plain-token-where-any-organization-is-asked": ("/any-org", {}, 401, "invalid_token"),
    "claim-and-audience-name-two-organizations": (
        "/org/harbour",
        {"aud": organization_urn("other"), "organization_id": "harbour"},
        401,
        "invalid_token",
    ),
    "machine-where-users-are-meant": ("/me", {"sub": "spa"}, 403, "permission_denied"),
    "user-where-machines-are-meant": ("/only-machines", {}, 403, "permission_denied"),
    "client-that-is-not-named": ("/clients", {"client_id": "cron"}, 403, "permission_denied"),
    "scope-missing": ("/read", {"scopes": ["write:items"]}, 403, "insufficient_scope"),
    "scope-absent": ("/read", {"scope": None}, 403, "insufficient_scope"),
    "one-of-two-scopes": ("/both-scopes", {"scopes": ["read:items"]}, 403, "insufficient_scope"),
    "none-of-the-scopes": ("/one-scope", {"scopes": ["x"]}, 403, "insufficient_scope"),
    "scope-that-only-begins-alike": ("/read", {"scopes": ["read:items:all"]}, 403, "insufficient_scope"),
    "scope-of-security": ("/security", {"scopes": ["write:items"]}, 403, "insufficient_scope"),
    "scope-of-security-besides-the-guards": ("/security-and-own", {"scopes": ["a"]}, 403, "insufficient_scope"),
    "scope-of-the-guard-besides-securitys": ("/security-and-own", {"scopes": ["c"]}, 403, "insufficient_scope"),
    "scope-of-the-organization": ("/org/harbour/members", ORGANIZATION, 403, "insufficient_scope"),
    "role-missing": ("/role", {"roles": ["editor"]}, 403, "permission_denied"),
    "no-roles-in-the-token": ("/role", {}, 403, "permission_denied"),
    "roles-of-another-type": ("/role", {"roles": [{"name": "admin"}]}, 403, "permission_denied"),
    "role-as-one-string": ("/role", {"roles": "admin"}, 403, "permission_denied"),
    "role-in-another-organization": (
        "/org/harbour/admin",
        {**ORGANIZATION, "organization_roles": ["other:admin"]},
        403,
        "permission_denied",
    ),
    "no-role-in-the-organization": ("/org/harbour/admin", ORGANIZATION, 403, "permission_denied"),
    "sign-in-too-old": ("/recent", {"auth_time": 1_800_000_000 - 361}, 401, "step_up_required"),
    "sign-in-of-unknown-age": ("/recent", {}, 401, "step_up_required"),
    "sign-in-in-the-future": ("/recent", {"auth_time": 1_800_000_100}, 401, "step_up_required"),
    "guard-for-sessions": ("/session", {}, 401, "sign_in_required"),
}


@pytest.mark.parametrize(("path", "token", "status", "code"), REFUSED.values(), ids=REFUSED)
async def test_refused(api: Api, path: str, token: dict[str, Any], status: int, code: str) -> None:
    """What the token lacks, or is not for, decides; the same from memory, and never a redirect."""
    made = api.token(**{"sub": "alice", **token})
    for _ in range(2):
        response = await api.get(path, made, headers={"Accept": "text/html", "Sec-Fetch-Mode": "navigate"})
        assert response.status_code == status, response.text
        program = await api.get(path, made)
        assert (program.status_code, program.json()["code"]) == (status, code)
        assert made not in response.text + str(response.headers) + program.text


async def test_what_was_remembered_for_one_guard_opens_no_other(api: Api) -> None:
    """The memory holds what a token says, never that it may pass."""
    token = api.token(resource=OTHER_API)
    assert (await api.get("/other-api", token)).status_code == 200
    assert (await api.get("/me", token)).status_code == 401
    assert (await api.get("/other-api", token)).status_code == 200


@pytest.mark.parametrize(
    "mint",
    [
        lambda provider: provider.mint_id_token("alice"),
        lambda provider: provider.mint_id_token("alice", aud=API, client_id="spa"),
        lambda provider: provider.mint_id_token("alice", header={"typ": "logout+jwt"}, aud=API, client_id="spa"),
        lambda provider: provider.opaque_access_token("alice", client_id="spa"),
    ],
    ids=["id-token", "id-token-with-our-audience", "logout-token", "opaque-token"],
)
async def test_token_of_another_kind(api: Api, mint: Any) -> None:
    """An ID token says who signed in and opens no API; nor does a logout token, nor one that only userinfo takes."""
    response = await api.get("/me", mint(api.provider))
    assert response.status_code == 401
    assert response.json()["code"] == "invalid_token"


# -- The answers -------------------------------------------------------------------------------------------------------


async def test_no_token_gets_a_challenge_without_an_error(api: Api) -> None:
    """RFC 6750 §3.1: who brought nothing made no mistake. The scopes that are needed are named."""
    response = await api.get("/me")
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["code"] == "token_required"
    assert (await api.get("/security-and-own")).headers["www-authenticate"] == 'Bearer scope="a b c"'


async def test_no_token_where_a_session_would_do(api: Api) -> None:
    """Both ways in are named, and a browser is sent to sign in."""
    response = await api.get("/read")
    assert response.status_code == 401
    challenge = response.headers["www-authenticate"]
    assert challenge == 'Bearer scope="read:items", Cookie realm="http://localhost:8000/logto/sign-in"'
    assert response.json()["sign_in_url"].startswith("http://localhost:8000/logto/sign-in")
    browser = await api.get("/read", headers={"Sec-Fetch-Mode": "navigate", "Accept": "text/html"})
    assert browser.status_code == 303


async def test_invalid_token_says_why(api: Api) -> None:
    """RFC 6750 §3: the error and a description that helps."""
    response = await api.get("/me", api.token(exp=1_799_000_000))
    challenge = response.headers["www-authenticate"]
    assert challenge.startswith('Bearer error="invalid_token", error_description="')
    assert "expired" in challenge
    assert response.headers["cache-control"] == "private, no-store"


async def test_insufficient_scope_names_the_scopes(api: Api) -> None:
    """RFC 6750 §3.1: `scope` lists what is needed, the body what is missing."""
    response = await api.get("/both-scopes", api.token(scopes=["read:items"]))
    assert response.status_code == 403
    assert 'error="insufficient_scope"' in response.headers["www-authenticate"]
    assert 'scope="read:items write:items"' in response.headers["www-authenticate"]
    body = response.json()
    assert (body["missing"], body["scope"]) == (["write:items"], "read:items write:items")


async def test_old_sign_in_is_answered_by_rfc_9470(api: Api) -> None:
    """RFC 9470 §3: the client learns how recent the sign-in must be."""
    challenge = (await api.get("/recent", api.token())).headers["www-authenticate"]
    assert challenge.startswith('Bearer error="insufficient_user_authentication", error_description="')
    assert challenge.endswith('max_age="300"')


async def test_permission_that_is_no_scope_has_a_plain_challenge(api: Api) -> None:
    """A role is nothing that RFC 6750 has an error for."""
    response = await api.get("/role", api.token())
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["missing"] == ["admin"]


TWO_TOKENS: dict[str, dict[str, Any]] = {
    "two-headers": {"headers": [("Authorization", "Bearer {}"), ("Authorization", "Bearer {}")]},
    "two-in-one-header": {"headers": [("Authorization", "Bearer {}, Bearer {}")]},
    "header-and-query": {"headers": [("Authorization", "Bearer {}")], "params": {"access_token": "{}"}},
    "query-alone": {"headers": [], "params": {"access_token": "{}"}},
    "query-empty": {"headers": [], "params": {"a": "b", "access_token": ""}},
}


@pytest.mark.parametrize("request_", TWO_TOKENS.values(), ids=TWO_TOKENS)
async def test_two_tokens_or_one_in_the_query(api: Api, request_: dict[str, Any]) -> None:
    """RFC 6750 §2 allows one way at a time; the query string is none of ours."""
    token = api.token()
    headers = [(name, value.format(token, token)) for name, value in request_["headers"]]
    params = {name: value.format(token) for name, value in request_.get("params", {}).items()}
    response = await api.client.get("/me", headers=headers, params=params)
    assert response.status_code == 400
    assert response.json()["code"] == "invalid_request"
    assert 'error="invalid_request"' in response.headers["www-authenticate"]
    assert token not in response.text + str(response.headers)


async def test_query_that_only_looks_alike_is_no_token(api: Api) -> None:
    """A parameter of another name may hold the words."""
    response = await api.client.get("/me?x=access_token&my_access_token=1", headers=_bearer(api.token()))
    assert response.status_code == 200


@pytest.mark.parametrize(
    "value",
    ["Bearer", "Bearer ", "bearer x y", "Bearer ü", "Bearer a.b", "Bearer " + "a" * 20_000, "Bearer =a"],
)
async def test_malformed_header_is_an_invalid_token(api: Api, value: str) -> None:
    """It is 401 whatever it holds, and no issuer is asked."""
    response = await api.client.get("/me", headers=[(b"authorization", value.encode("utf-8"))])
    assert (response.status_code, response.json()["code"]) == (401, "invalid_token")
    assert api.provider.requests.counts() == {}


@pytest.mark.parametrize("value", ["Basic YTpi", "DPoP abc", "Bearerabc", ""])
async def test_another_scheme_is_no_token(api: Api, value: str) -> None:
    """What is not `Bearer` says nothing to us."""
    response = await api.client.get("/me", headers={"Authorization": value})
    assert (response.status_code, response.json()["code"]) == (401, "token_required")


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
async def test_scheme_is_case_insensitive(api: Api, scheme: str) -> None:
    """RFC 9110 §11.1; more than one space is harmless."""
    response = await api.client.get("/me", headers={"Authorization": f"{scheme} {api.token()}"})
    assert response.status_code == 200


# -- The user ----------------------------------------------------------------------------------------------------------


async def test_user_of_a_token(api: Api) -> None:
    """One `LogtoUser`, whichever way: what it says comes from the token."""
    answer = await api.get("/who", api.token(scopes=["b", "a"], name="Alice", act={"sub": "support"}))
    assert answer.json() == {
        "sub": "alice",
        "identity": "alice",
        "display_name": "Alice",
        "client": "spa",
        "machine": False,
        "actor": "support",
        "scopes": ["a", "b"],
        "organizations": [],
        "bearer": True,
    }


async def test_user_of_a_machines_token(api: Api) -> None:
    """A machine is told apart from a user (RFC 9068 §5)."""
    body = (await api.get("/who", api.token("spa"))).json()
    assert (body["machine"], body["sub"], body["client"]) == (True, "spa", "spa")


async def test_organization_of_the_user(api: Api) -> None:
    """The endpoint learns which organization the guard let the caller into."""
    response = await api.get("/org/harbour", api.token(**ORGANIZATION))
    assert response.json() == {"organization": "harbour", "of_token": ["harbour"]}


async def test_public_view_of_a_caller_holds_no_token(api: Api) -> None:
    """`return user` answers claims, custom ones too, and never what they were read from."""
    token = api.token(tier="gold")
    body = (await api.get("/either", token)).json()
    assert body["is_authenticated"] is True
    assert body["claims"]["tier"] == "gold"
    assert token not in str(body)


async def test_session_only_methods_explain_themselves() -> None:
    """A caller with a token has no session to refresh."""

    def build(logto: Logto) -> FastAPI:
        app = FastAPI()
        app.add_middleware(LogtoMiddleware, logto=logto)

        @app.get("/{name}")
        async def endpoint(name: str, user: Annotated[LogtoUser, Depends(require_auth(accept="bearer"))]) -> None:
            await getattr(user, name)()

        return app

    api = make_api(build)
    for name in ("fetch_user_info", "refresh", "clear_access_tokens"):
        response = await api.get(f"/{name}", api.token())
        assert response.status_code == 500
        assert "needs a session" in response.json()["detail"]


async def test_token_on_behalf_of_the_caller() -> None:
    """`get_access_token` exchanges the caller's token for one that another API takes (RFC 8693)."""

    def build(logto: Logto) -> FastAPI:
        app = FastAPI()
        app.add_middleware(LogtoMiddleware, logto=logto)

        @app.get("/")
        async def endpoint(
            token: Annotated[str, Depends(access_token(resource=OTHER_API, accept="bearer"))],
        ) -> str:
            return token

        return app

    api = make_api(build, resources=[OTHER_API])
    app_client = api.provider._core.clients["app"]
    api.provider.add_client(type(app_client)("app", app_client.app_secret, token_exchange=True))
    token = api.token()
    answer = await api.get("/", token)
    assert answer.status_code == 200, answer.text
    claims = read_unverified_claims(answer.json())
    assert claims is not None
    assert (claims["sub"], claims["aud"], claims["client_id"]) == ("alice", OTHER_API, "app")


# -- Session or bearer -------------------------------------------------------------------------------------------------


async def test_bearer_header_decides_alone() -> None:
    """An invalid token is 401 although a good session cookie is there; a good one is the caller whoever signed in."""
    api = make_api()
    async with _signed_in(api) as visitor:
        assert (await visitor.get("/either")).json()["claims"]["sub"] == "alice"
        refused = await visitor.get("/either", headers=_bearer(api.token(exp=1_700_000_000)))
        assert (refused.status_code, refused.json()["code"]) == (401, "invalid_token")
        other = await visitor.get("/either", headers=_bearer(api.token("bob")))
        assert other.json()["claims"]["sub"] == "bob"
        session_only = await visitor.get("/session", headers=_bearer(api.token("bob")))
        assert session_only.status_code == 401
        assert "takes no bearer token" in session_only.headers["www-authenticate"]
        assert session_only.json()["detail"] == "This endpoint takes no bearer token."


async def test_unsafe_method_by_cookie_is_checked_and_by_token_is_not() -> None:
    """A browser sends cookies by itself; it never sends a token by itself."""
    api = make_api()
    cross_site = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    async with _signed_in(api) as visitor:
        assert (await visitor.post("/either", headers={"Sec-Fetch-Site": "same-origin"})).status_code == 200
        refused = await visitor.post("/either", headers=cross_site)
        assert (refused.status_code, refused.json()["code"]) == (403, "cross_site_request")
        assert (await visitor.post("/either", headers={**cross_site, **_bearer(api.token())})).status_code == 200


# -- The issuer --------------------------------------------------------------------------------------------------------


async def test_known_keys_go_on_through_an_outage(api: Api) -> None:
    """Tokens whose keys are known need no issuer, seen before or not; without any key it is 503, never 401."""
    assert (await api.get("/me", api.token())).status_code == 200
    for _ in range(20):
        api.provider.fail_next("jwks", 503)
        api.provider.fail_next("discovery", 503)
    api.clock.move(2 * 3600)
    assert (await api.get("/me", api.token("bob"))).status_code == 200
    api.clock.move(23 * 3600)
    response = await api.get("/me", api.token("bob"))
    assert (response.status_code, response.json()["code"]) == (503, "issuer_unavailable")


async def test_tokens_of_a_hundred_callers_fetch_the_keys_once(api: Api) -> None:
    """However many tokens come at once to an app that has just started."""
    tokens = [api.token(f"user-{number}") for number in range(100)]
    answers = await asyncio.gather(*(api.get("/me", token) for token in tokens))
    assert {answer.status_code for answer in answers} == {200}
    assert api.provider.requests.count("jwks") == 1


# -- Opaque tokens -----------------------------------------------------------------------------------------------------


async def test_opaque_token_of_this_app_passes_where_it_may(api: Api) -> None:
    """It was issued to this very app; one of another client's says nothing of being meant for us."""
    own, others = (api.provider.opaque_access_token("alice", client_id=each) for each in ("app", "spa"))
    assert (await api.get("/opaque", own)).status_code == 200
    refused = await api.get("/opaque", others)
    assert (refused.status_code, refused.json()["code"]) == (401, "invalid_token")
    assert (await api.get("/opaque-clients", others)).status_code == 200
    assert (await api.get("/opaque-clients", own)).status_code == 401
    assert (await api.get("/me", own)).status_code == 401


async def test_opaque_token_is_for_no_organization(api: Api) -> None:
    """Nothing in it names one."""
    token = api.provider.opaque_access_token("alice", client_id="app")
    assert (await api.get("/opaque-org", token)).status_code == 401


async def test_opaque_token_of_an_organization_opens_no_guard_that_names_none() -> None:
    """An issuer may say so at introspection, without an audience."""
    api = make_api()
    token = api.provider.opaque_access_token("alice", client_id="app")
    active = {"active": True, "client_id": "app", "sub": "alice", "token_type": "Bearer", "organization_id": "harbour"}
    api.provider.fail_next("introspection", 200, body=active)
    assert (await api.get("/opaque", token)).status_code == 401


async def test_opaque_token_that_was_accepted_opens_no_guard_that_takes_none(api: Api) -> None:
    """That it is remembered makes it no JWT."""
    token = api.provider.opaque_access_token("alice", client_id="app")
    assert (await api.get("/opaque", token)).status_code == 200
    assert (await api.get("/either", token)).status_code == 401


# -- How an app is put together ----------------------------------------------------------------------------------------


def _only(*guards: Any) -> Any:
    def build(logto: Logto) -> FastAPI:
        app = FastAPI(dependencies=[Depends(guard) for guard in guards])
        app.add_middleware(LogtoMiddleware, logto=logto)
        app.get("/")(lambda: "in")
        return app

    return build


@pytest.mark.parametrize("with_token", [True, False])
async def test_guard_without_any_resource_is_a_mistake_of_the_app(with_token: bool) -> None:
    """Nobody passes where no audience is named; it shows at the first request, whatever that brings."""
    api = make_api(_only(bearer_token), api_resource=None)
    response = await api.get("/", api.token() if with_token else None)
    assert response.status_code == 500
    assert "LOGTO_API_RESOURCE" in response.json()["detail"]


async def test_answers_to_callers_vary_by_their_token() -> None:
    """A shared cache that an app lets keep an answer hands it to nobody else."""

    def build(logto: Logto) -> FastAPI:
        app = FastAPI()
        app.add_middleware(LogtoMiddleware, logto=logto)

        @app.get("/", dependencies=[Depends(require_auth(accept=BOTH))])
        async def endpoint(response: Response) -> str:
            response.headers["Cache-Control"] = "public, max-age=60"
            response.headers["Vary"] = "Accept"
            return "in"

        return app

    api = make_api(build)
    answer = await api.get("/", api.token())
    assert answer.headers.get_list("vary") == ["Accept", "Authorization"]


async def test_caller_whom_a_predicate_refused_is_nobody() -> None:
    """An app that catches the refusal and goes on has no user of that request."""
    seen: list[bool] = []

    def build(logto: Logto) -> FastAPI:
        app = FastAPI()
        app.add_middleware(LogtoMiddleware, logto=logto)

        @app.exception_handler(PermissionDenied)
        async def anonymous(request: Request, error: PermissionDenied) -> PlainTextResponse:
            seen.append(request.state.user.is_authenticated)
            return PlainTextResponse("as nobody")

        guard = require_auth(accept="bearer", predicate=lambda user, connection: False)
        app.get("/", dependencies=[Depends(guard)])(lambda: "in")
        return app

    api = make_api(build)
    token = api.token()
    for _ in range(2):
        assert (await api.get("/", token)).text == "as nobody"
    assert seen == [False, False]


async def test_guard_that_names_no_organization_forgets_none() -> None:
    """A router's guard names it, the endpoint's asks for more: the endpoint still learns which."""

    def build(logto: Logto) -> FastAPI:
        app = FastAPI()
        app.add_middleware(LogtoMiddleware, logto=logto)
        inner = require_auth(accept="bearer", organization="{org_id}", predicate=lambda user, connection: True)
        router = APIRouter(dependencies=[Depends(require_auth(accept="bearer", organization="{org_id}"))])

        @router.get("/{org_id}")
        async def endpoint(user: LogtoUser = Depends(inner)) -> str | None:
            return user.organization_id

        @app.get("/{src}/{dst}")
        async def two(
            one: LogtoUser = Depends(require_auth(accept="bearer", organization="{src}")),
            other: LogtoUser = Depends(require_auth(accept="bearer", organization="*")),
        ) -> str | None:
            return other.organization_id

        app.include_router(router)
        return app

    api = make_api(build)
    token = api.token(**ORGANIZATION)
    assert (await api.get("/harbour", token)).json() == "harbour"
    assert (await api.get("/harbour/x", token)).json() == "harbour"


async def test_user_of_two_organizations_is_of_none(api: Api) -> None:
    """Which of them is meant, only the endpoint knows."""
    visit = Visit(api.logto, {"type": "http", "method": "GET", "headers": []})
    visit.enter("a")
    visit.enter(None)
    assert LogtoUser(visit).organization_id == "a"
    visit.enter("b")
    with pytest.raises(SetupError, match="several organizations"):
        LogtoUser(visit).organization_id  # noqa: B018


async def test_organization_without_its_braces_is_a_mistake_of_the_app() -> None:
    """Everybody would be refused, and nobody would know why."""

    def build(logto: Logto) -> FastAPI:
        app = FastAPI()
        app.add_middleware(LogtoMiddleware, logto=logto)
        guard = require_auth(accept="bearer", organization="org_id")
        app.get("/{org_id}", dependencies=[Depends(guard)])(lambda org_id: "in")
        return app

    api = make_api(build)
    response = await api.get("/harbour", api.token(**ORGANIZATION))
    assert response.status_code == 500
    assert 'organization="{org_id}"' in response.json()["detail"]


@pytest.mark.parametrize("query", [b"access_token=\xff", b"\xff&access_token", b"a=1&access_token=x"])
async def test_query_that_is_no_text_is_refused_all_the_same(api: Api, query: bytes) -> None:
    """Some servers hand over whatever came."""
    response = await _raw(api, query, [(b"authorization", b"Bearer " + api.token().encode())])
    assert response == 400


async def _raw(api: Api, query: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    sent: list[Any] = []
    scope = {"type": "http", "method": "GET", "path": "/me", "query_string": query, "headers": headers}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await api.app(scope, receive, send)
    return int(sent[0]["status"])


async def test_several_guards_must_all_be_satisfied() -> None:
    """They compose: each decides for itself."""
    api = make_api(_only(bearer_token(scopes=["a"]), bearer_token(scopes=["b"])))
    assert (await api.get("/", api.token(scopes=["a"]))).status_code == 403
    assert (await api.get("/", api.token(scopes=["b"]))).status_code == 403
    assert (await api.get("/", api.token(scopes=["a", "b"]))).status_code == 200


# -- One app in another ------------------------------------------------------------------------------------------------


async def test_mounted_api_is_guarded_by_its_own_settings() -> None:
    """Two APIs on one host are two, also one in the other: each takes the tokens for itself."""
    made = make_api(_only(bearer_token))
    shop, admin = (
        Logto(
            LogtoConfig.without_sign_in(endpoint=made.provider.endpoint, api_resource=f"https://a.example/{name}"),
            http_client=issuer_client(made.provider),
            clock=made.clock,
        )
        for name in ("shop", "admin")
    )
    outer = FastAPI()
    outer.add_middleware(LogtoMiddleware, logto=shop)
    outer.get("/", dependencies=[Depends(bearer_token)])(lambda: "shop")
    outer.mount("/admin", _only(bearer_token)(admin))
    client = AsyncClient(transport=ASGITransport(outer), base_url="https://a.example")
    of_shop, of_admin = (_bearer(made.token(resource=f"https://a.example/{name}")) for name in ("shop", "admin"))
    assert (await client.get("/", headers=of_shop)).status_code == 200
    assert (await client.get("/", headers=of_admin)).status_code == 401
    assert (await client.get("/admin/", headers=of_admin)).status_code == 200
    assert (await client.get("/admin/", headers=of_shop)).status_code == 401


async def test_one_app_in_itself_with_other_settings_is_a_mistake() -> None:
    """A session has one set of rules."""
    made = make_api(_only(require_auth))
    config = made.logto.config
    settings = {
        name: getattr(config, name) for name in ("endpoint", "app_id", "app_secret", "base_url", "api_resource")
    }
    secret = config.cookie_secrets[0]
    same = LogtoConfig(**settings, cookie_secret=secret)
    other = LogtoConfig(**settings, cookie_secret=secret, trusted_origins=["https://partner.example"])
    for inner, status in ((same, 401), (other, 500)):
        outer = FastAPI()
        outer.add_middleware(LogtoMiddleware, logto=made.logto)
        outer.mount("/in", _only(require_auth(redirect=False))(Logto(inner)))
        client = AsyncClient(transport=ASGITransport(outer), base_url=config.base_url)
        response = await client.get("/in/")
        assert response.status_code == status, response.text
    assert "different settings" in response.json()["detail"]


async def test_api_without_sign_in() -> None:
    """An API needs no client, no secret and no cookie; a guard for sessions says what is wrong."""
    made = make_api(_only(require_auth(accept=BOTH)))
    config = LogtoConfig.without_sign_in(endpoint=made.provider.endpoint, api_resource=API)
    logto = Logto(config, http_client=issuer_client(made.provider), clock=made.clock)
    client = AsyncClient(transport=ASGITransport(_only(require_auth(accept=BOTH))(logto)), base_url="http://a")
    headers = {"Cookie": "logto=anything", "Sec-Fetch-Mode": "navigate", "Accept": "text/html"}
    assert (await client.get("/", headers=_bearer(made.token()))).status_code == 200
    assert (await client.get("/", headers=headers)).status_code == 401
    session = AsyncClient(transport=ASGITransport(_only(require_auth)(logto)), base_url="http://a")
    refused = await session.get("/")
    assert refused.status_code == 500
    assert 'accept="bearer"' in refused.json()["detail"]


def test_auth_routes_need_a_configuration_that_signs_in() -> None:
    """An API that was made without sign-in has no page for it."""
    with pytest.raises(ConfigurationError, match="without sign-in"):
        auth_routes(LogtoConfig.without_sign_in(endpoint="https://tenant.logto.app"))


async def test_organization_from_a_function(api: Api) -> None:
    """Where the path names none, the app says which; a request that names none is refused."""
    token = api.token(**ORGANIZATION)
    assert (await api.get("/header-org", token, headers={"X-Org": "harbour"})).status_code == 200
    assert (await api.get("/header-org", token, headers={"X-Org": "other"})).status_code == 401
    missing = await api.get("/header-org", token)
    assert (missing.status_code, missing.json()["missing"]) == (403, ["organization"])


async def test_path_without_the_parameter_is_a_mistake_of_the_app(api: Api) -> None:
    """A guard that can find no organization never lets somebody in."""
    response = await api.get("/no-such-parameter", api.token(**ORGANIZATION))
    assert response.status_code == 500
    assert "no parameter 'org_id'" in response.json()["detail"]


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def _signed_in(api: Api) -> AsyncIterator[Visitor]:
    async with Visitor(api.app, api.provider, config=api.logto.config) as visitor:
        await visitor.sign_in("alice")
        yield visitor

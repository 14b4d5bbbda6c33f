"""Swagger UI in a real browser: "Authorize" signs in at a real provider as a public client, then the API is called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import parse_qsl

import pytest
from e2e_provider import APP_ID, APP_SECRET, HOME, SHOP, Provider, client, step_aside
from fastapi import FastAPI, Security
from starlette.staticfiles import StaticFiles

from logto_asgi import LogtoConfig, LogtoMiddleware, LogtoUser
from logto_asgi.fastapi import auth_router, require_auth
from logto_asgi.fastapi.swagger import add_swagger_ui

COOKIE_SECRET = "Zt4nRw8kVx2cLq6mJp9sHd3fBg7yTa1eUo5iKvNzXrQ"
SWAGGER = "swagger-ui"
DIST = HOME / "node_modules" / "swagger-ui-dist"

caller = require_auth(accept=("session", "bearer"))


@dataclass
class Site:
    """The app, its provider, and what went wrong in the browser."""

    url: str
    provider: Provider
    config: LogtoConfig


@pytest.fixture
def site(reserve: Callable[..., Any], oidc_provider: Callable[..., Provider], serve: Callable[..., str]) -> Site:
    """An API for sessions and bearer tokens, whose Swagger UI is served from the npm package, not from a CDN."""
    place = reserve()
    public = {
        "client_id": SWAGGER,
        "token_endpoint_auth_method": "none",
        "redirect_uris": [f"{place.url}/docs/oauth2-redirect"],
    }
    provider = oidc_provider(clients=[client(place.url), public])
    if not DIST.exists():
        step_aside(f"swagger-ui-dist is not installed: npm ci in {HOME.name}")
    config = LogtoConfig(
        endpoint=provider.endpoint,
        app_id=APP_ID,
        app_secret=APP_SECRET,
        base_url=place.url,
        cookie_secret=COOKIE_SECRET,
        api_resource=SHOP,
        scopes=["read:items", "write:items"],
    )
    serve(build_app(config), site=place)
    return Site(place.url, provider, config)


def build_app(config: LogtoConfig) -> FastAPI:
    app = FastAPI(title="Shop </script><b>", docs_url=None, redoc_url=None)
    app.add_middleware(LogtoMiddleware, config=config)
    app.include_router(auth_router(config))
    app.mount("/assets", StaticFiles(directory=DIST))

    @app.get("/items")
    async def items(user: Annotated[LogtoUser, Security(caller, scopes=["read:items"])]) -> dict[str, Any]:
        token = user.bearer
        came_by = "session" if token is None else token.client_id
        return {"sub": user.claims.sub, "came_by": came_by}

    @app.post("/items")
    async def add(user: Annotated[LogtoUser, Security(caller, scopes=["write:items"])]) -> dict[str, str]:
        return {"added by": user.claims.sub}

    add_swagger_ui(
        app,
        config,
        client_id=SWAGGER,
        swagger_js_url="/assets/swagger-ui-bundle.js",
        swagger_css_url="/assets/swagger-ui.css",
    )
    return app


@pytest.fixture
def docs(site: Site, page: Any) -> Any:
    """The documentation in a browser. No script, style or request of it may be refused by its own policy."""
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if "Content Security Policy" in said.text else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(site.url + "/docs")
    page.get_by_role("button", name="Authorize").wait_for()
    yield page
    assert complaints == []


def try_out(page: Any, operation: str) -> tuple[int, str]:
    """Execute an operation as a reader does. Return the status and the body that the page shows."""
    block = page.locator(f"#operations-default-{operation}")
    block.wait_for()
    if "is-open" not in (block.get_attribute("class") or ""):
        block.locator(".opblock-summary-control").click()
        block.get_by_role("button", name="Try it out").click()
    with page.expect_response("**/items") as answer:
        block.get_by_role("button", name="Execute").click()
    return answer.value.status, block.locator(".live-responses-table .microlight").first.inner_text()


def open_dialog(page: Any) -> Any:
    """Press "Authorize" and return the dialog."""
    page.get_by_role("button", name="Authorize").first.click()
    dialog = page.locator(".modal-ux")
    dialog.wait_for()
    return dialog


def authorize(page: Any, without: Sequence[str] = ()) -> None:
    """Press "Authorize", sign in at the provider in the window that opens, and come back."""
    dialog = open_dialog(page)
    for scope in without:
        dialog.locator(f'label[for^="{scope}-"]').click()
    with page.expect_popup() as popup:
        dialog.get_by_role("button", name="Apply given OAuth2 credentials").click()
    window = popup.value
    with window.expect_event("close"):
        window.get_by_role("button", name="Alice Example").click()
    dialog.locator("button", has_text="Logout").wait_for()
    dialog.locator(".btn-done").first.click()


def test_authorize_signs_in_and_the_api_answers(site, docs):
    """Before "Authorize" the guarded endpoint answers 401; afterwards 200, for the user who signed in there."""
    before, _ = try_out(docs, "items_items_get")

    authorize(docs)
    after, body = try_out(docs, "items_items_get")

    assert (before, after) == (401, 200)
    assert '"sub": "alice"' in body
    assert f'"came_by": "{SWAGGER}"' in body


def test_what_the_provider_was_asked(site, docs):
    """The sign-in is that of a public client: PKCE by S256, the resource, the guards' scopes, and no consent."""
    with docs.expect_request("**/oidc/token*") as exchange:
        authorize(docs)

    (request,) = site.provider.authorizations()
    asked = dict(request)
    assert len(asked) == len(request)
    assert (asked["client_id"], asked["resource"]) == (SWAGGER, SHOP)
    assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
    assert len(asked["code_challenge"]) == 43
    assert asked["scope"].split() == ["openid", "read:items", "write:items"]
    assert "prompt" not in asked
    sent = dict(parse_qsl(exchange.value.post_data))
    assert sent.keys() == {"grant_type", "code", "client_id", "redirect_uri", "code_verifier", "resource"}
    assert (sent["client_id"], sent["resource"]) == (SWAGGER, SHOP)
    assert exchange.value.url == site.provider.issuer + "/token"
    assert "x-requested-with" not in exchange.value.headers  # with it, the browser would have to ask first


def test_what_is_not_granted_is_said(site, docs):
    """Without the scope of an operation the page shows 403 and what is missing; another sign-in brings it."""
    authorize(docs, without=["read:items"])
    status, body = try_out(docs, "items_items_get")

    assert status == 403
    assert '"insufficient_scope"' in body


def test_a_session_needs_no_authorize(site, docs):
    """Who is signed in to the app calls the endpoints by cookie, those that change something too."""
    docs.goto(site.url + "/logto/sign-in?return_to=/docs")
    docs.get_by_role("button", name="Bob").click()
    docs.wait_for_url(site.url + "/docs")

    read, body = try_out(docs, "items_items_get")
    written, _ = try_out(docs, "add_items_post")

    assert (read, written) == (200, 200)
    assert '"came_by": "session"' in body


def test_cancelled(site, docs):
    """Who turns back at the provider sees in the dialog that nothing came of it."""
    dialog = open_dialog(docs)
    with docs.expect_popup() as popup:
        dialog.get_by_role("button", name="Apply given OAuth2 credentials").click()
    with popup.value.expect_event("close"):
        popup.value.get_by_role("button", name="Cancel").click()

    dialog.locator(".errors").wait_for()
    assert "The issuer refused: access_denied." in dialog.locator(".errors").inner_text()


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("code=stolen&state=another", "another sign-in"),
        ("code=stolen", "another sign-in"),
        ("code=stolen&state=mine&iss=https://evil.example", "another issuer"),
        ("error=<img src=x>_x&error_description=Call+us&state=mine", "The issuer refused: imgsrcx_x."),
        ("state=mine", "no code came"),
    ],
)
def test_an_answer_that_does_not_fit(site, docs, query, words):
    """An answer of another sign-in or another issuer is refused: its code goes nowhere."""
    script = """(url) => new Promise((resolve) => {
        window.swaggerUIRedirectOauth2 = {
            auth: {name: "LogtoBearer"}, state: "mine", redirectUrl: url,
            errCb: (error) => resolve(error.message), callback: () => resolve("taken"),
        };
        window.open(url);
    })"""
    answer = docs.evaluate(script, f"{site.url}/docs/oauth2-redirect?{query}")

    assert words in answer
    assert site.provider.counts().get("token", 0) == 0


def test_an_answer_that_nobody_waits_for(site, docs):
    """The page that a sign-in comes back to explains itself where no Swagger UI opened it."""
    docs.goto(site.url + "/docs/oauth2-redirect?code=x&state=y")

    assert "press Authorize again" in docs.locator("p").inner_text()


def test_another_name_of_the_host(site, page):
    """Under another name of the host the page goes to `base_url`, where the redirect URI is registered."""
    page.goto(site.url.replace("127.0.0.1", "localhost") + "/docs?tab=1#/default")

    page.wait_for_url(site.url + "/docs?tab=1#/default")
    page.get_by_role("button", name="Authorize").wait_for()

"""What the OpenAPI document says of guards, and the page of Swagger UI with its sign-in."""

import json
import re
from collections.abc import Callable
from html import unescape
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Security
from fastapi.openapi.models import OpenAPI
from fastapi.security import APIKeyHeader
from starlette.testclient import TestClient

from logto_asgi import LogtoConfig, LogtoUser, SetupError, any_of
from logto_asgi.fastapi import SignedIn, auth_router, bearer_token, describe_guards, require_auth
from logto_asgi.fastapi.swagger import add_swagger_ui
from logto_asgi.session.cookies import cookie_name

API = "https://shopping.example.com/api"
ISSUER = "https://tenant.logto.example/oidc"
BASE = "https://app.example.com"
BOTH = ("session", "bearer")
SESSION, BEARER = "LogtoSession", "LogtoBearer"


def config(**settings: Any) -> LogtoConfig:
    return LogtoConfig(
        **{
            "endpoint": "https://tenant.logto.example",
            "app_id": "the-app",
            "app_secret": "a-secret-of-the-app",
            "base_url": BASE,
            "cookie_secret": "Hq7vXz2kTn9wRb4mLc8yJf5pDs1gVa6eUo3iKxNtWrQ",
            "api_resource": API,
            **settings,
        }
    )


def document(app: FastAPI) -> dict[str, Any]:
    """Return the app's document as it is served, checked: readable as OpenAPI, and no name without its scheme."""
    served = TestClient(app).get("/openapi.json").json()
    OpenAPI.model_validate(served)
    assert served["openapi"].startswith("3.1")
    schemes = served.get("components", {}).get("securitySchemes", {})
    for path in served["paths"].values():
        for operation in path.values():
            for entry in operation.get("security", ()):
                (name,) = entry
                flows = schemes[name].get("flows", {})
                assert all(set(entry[name]) <= set(flow["scopes"]) for flow in flows.values())
    assert "logto-guard" not in json.dumps(served)
    return served


def security(app: FastAPI, path: str = "/", method: str = "get") -> Any:
    return document(app)["paths"][path][method].get("security")


def app_with(*dependencies: Any, describe: bool = False) -> FastAPI:
    """Return an app with one endpoint that depends on these."""
    app = FastAPI()

    @app.get("/", dependencies=list(dependencies))
    async def read() -> None: ...

    if describe:
        describe_guards(app)
    return app


@pytest.mark.parametrize("describe", [False, True])
def test_a_guard_for_sessions(describe):
    """A guard for sessions is the session's cookie, and nothing else."""
    app = app_with(Depends(require_auth), describe=describe)

    assert security(app) == [{SESSION: []}]
    (scheme,) = document(app)["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["in"]) == ("apiKey", "cookie")


@pytest.mark.parametrize("describe", [False, True])
def test_a_guard_for_bearer_tokens(describe):
    """A guard for bearer tokens is the scheme `bearer` with JWTs, however it is written."""
    app = app_with(Depends(bearer_token()), describe=describe)

    @app.get("/too")
    async def too(user: Annotated[LogtoUser, Depends(require_auth(accept="bearer"))]) -> None: ...

    assert security(app) == security(app, "/too") == [{BEARER: []}]
    (scheme,) = document(app)["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"], scheme["bearerFormat"]) == ("http", "bearer", "JWT")


@pytest.mark.parametrize("describe", [False, True])
def test_a_guard_for_both(describe):
    """A guard for sessions and bearer tokens names both, one beside the other: either is enough."""
    app = app_with(Depends(require_auth(accept=BOTH)), describe=describe)

    assert security(app) == [{SESSION: []}, {BEARER: []}]
    assert document(app)["components"]["securitySchemes"].keys() == {SESSION, BEARER}


@pytest.mark.parametrize("describe", [False, True])
def test_scopes_of_security(describe):
    """The scopes of `Security(…, scopes=[…])` stand beside each way in."""
    app = app_with(Security(require_auth(accept=BOTH), scopes=["read:items"]), describe=describe)

    assert security(app) == [{SESSION: ["read:items"]}, {BEARER: ["read:items"]}]


def test_scopes_of_the_guard_itself():
    """The scopes that a guard names itself are added by `describe_guards`, before those of `Security`."""
    guard = bearer_token(scopes=["read:items"])
    app = app_with(Security(guard, scopes=["write:items", "read:items"]))

    @app.get("/alone")
    async def alone(token: Annotated[Any, Depends(guard)]) -> None: ...

    assert security(app, "/alone") == [{BEARER: []}]
    describe_guards(app)

    assert security(app, "/alone") == [{BEARER: ["read:items"]}]
    assert security(app) == [{BEARER: ["read:items", "write:items"]}]


def test_one_of_several_scopes_is_an_alternative():
    """`any_of` makes an alternative of each scope, not a list of which all are needed."""
    app = app_with(Depends(require_auth(accept=BOTH, scopes=any_of("read:items", "write:items"))), describe=True)

    assert security(app) == [
        {SESSION: ["read:items"]},
        {SESSION: ["write:items"]},
        {BEARER: ["read:items"]},
        {BEARER: ["write:items"]},
    ]


def test_guards_of_a_router():
    """A guard of the router and one of the endpoint are both needed: by a way that both accept, with all scopes."""
    app = FastAPI()
    router = APIRouter(prefix="/shop", dependencies=[Depends(require_auth(accept=BOTH, scopes=["shop"]))])

    @router.get("/items")
    async def items(user: Annotated[LogtoUser, Security(require_auth(accept="bearer"), scopes=["read"])]) -> None: ...

    @router.get("/open")
    async def others() -> None: ...

    app.include_router(router)
    describe_guards(app)

    assert security(app, "/shop/items") == [{BEARER: ["shop", "read"]}]
    assert security(app, "/shop/open") == [{SESSION: ["shop"]}, {BEARER: ["shop"]}]


def test_guards_that_nobody_satisfies():
    """Guards that exclude each other do not read as "nothing is needed"."""
    app = app_with(Depends(require_auth), Depends(bearer_token()), describe=True)

    assert security(app) == [{SESSION: []}, {BEARER: []}]


def test_a_scheme_of_the_app_stays():
    """What else the app asks for stays in the document, scheme and all."""
    app = app_with(Depends(APIKeyHeader(name="X-Key")), Depends(require_auth), describe=True)

    assert {"APIKeyHeader": []} in security(app)
    assert {SESSION: []} in security(app)


def test_open_endpoints_and_websockets():
    """An endpoint without a guard has no security, and a WebSocket is not in the document at all."""
    app = app_with(describe=True)

    @app.websocket("/ws")
    async def ws(user: SignedIn) -> None: ...

    assert security(app) is None
    assert document(app)["paths"].keys() == {"/"}
    assert "components" not in document(app)


def test_webhooks_and_callbacks():
    """The operations of webhooks and callbacks are described too."""
    callbacks = APIRouter()
    guard = Depends(bearer_token(scopes=["notify"]))

    @callbacks.post("{$request.body.url}", dependencies=[guard])
    async def notify() -> None: ...

    app = FastAPI()

    @app.post("/", callbacks=callbacks.routes)
    async def order() -> None: ...

    @app.webhooks.post("sold", dependencies=[guard])
    async def sold() -> None: ...

    describe_guards(app)
    served = document(app)

    callback = served["paths"]["/"]["post"]["callbacks"]["notify"]["{$request.body.url}"]["post"]
    assert callback["security"] == served["webhooks"]["sold"]["post"]["security"] == [{BEARER: ["notify"]}]


def test_the_document_is_made_once():
    """The document is the same object each time, also where it was described twice, and as FastAPI made it else."""
    app = app_with(Depends(require_auth(accept=BOTH, scopes=["read"])), describe=True)
    described = app.openapi()
    describe_guards(app)

    assert app.openapi() is app.openapi() is app.openapi_schema
    assert app.openapi() == described


def test_a_document_that_was_made_before():
    """A document from before `describe_guards` is made anew."""
    app = app_with(Depends(bearer_token(scopes=["read"])))
    before = app.openapi()

    describe_guards(app)

    assert app.openapi() is not before
    assert security(app) == [{BEARER: ["read"]}]


def test_an_openapi_function_of_the_app():
    """What an app's own `openapi` does to the document stays, wherever it keeps it."""
    app = app_with(Depends(bearer_token(scopes=["read"])))
    plain, kept = app.openapi, list[dict[str, Any]]()

    def own() -> dict[str, Any]:
        if not kept:
            kept.append({**plain(), "x-own": True})
        return kept[0]

    app.openapi = own  # type: ignore[method-assign]
    describe_guards(app)

    assert document(app)["x-own"]
    assert security(app) == [{BEARER: ["read"]}]


# Swagger UI


def swagger(settings: dict[str, Any] | None = None, **options: Any) -> FastAPI:
    """Return an app with Swagger UI and one endpoint for both ways."""
    app = FastAPI(title="Shop", docs_url=None, redoc_url=None)
    here = config(**(settings or {}))
    app.include_router(auth_router(here))

    @app.get("/")
    async def read(user: Annotated[LogtoUser, Security(require_auth(accept=BOTH), scopes=["read:items"])]) -> None: ...

    add_swagger_ui(app, here, **{"client_id": "swagger-ui", **options})
    return app


def page(app: FastAPI, path: str = "/docs") -> tuple[str, dict[str, Any], dict[str, list[str]]]:
    """Return a page, the settings in it, and its policy."""
    answer = TestClient(app, base_url=BASE).get(path)
    assert answer.status_code == 200
    (settings,) = re.findall(r'<script type="application/json" id="settings">(.*?)</script>', answer.text)
    directives = [each.split() for each in answer.headers["Content-Security-Policy"].split(";")]
    return answer.text, json.loads(settings), {name: sources for name, *sources in directives}


def test_the_document_says_where_to_sign_in():
    """The bearer scheme is OAuth with the issuer's endpoints; its scopes are those passed and those of the guards."""
    app = swagger(scopes={"write:items": "Change items", "read:items": "See items"})

    scheme = document(app)["components"]["securitySchemes"][BEARER]

    assert scheme["type"] == "oauth2"
    assert scheme["flows"] == {
        "authorizationCode": {
            "authorizationUrl": f"{ISSUER}/auth",
            "tokenUrl": f"{ISSUER}/token",
            "refreshUrl": f"{ISSUER}/token",
            "scopes": {"openid": "Sign in", "read:items": "See items", "write:items": "Change items"},
        }
    }
    assert security(app) == [{SESSION: ["read:items"]}, {BEARER: ["read:items"]}]


def test_the_document_names_the_cookie():
    """The session's scheme has the name of this app's cookie, and says where to sign in."""
    scheme = document(swagger())["components"]["securitySchemes"][SESSION]

    assert scheme["name"] == cookie_name("the-app", secure=True)
    assert f"({BASE}/logto/sign-in?return_to=/docs)" in scheme["description"]


def test_routes_that_come_later_are_asked_for_too():
    """An endpoint added after the page brings its scopes along."""
    app = swagger()

    @app.get("/later", dependencies=[Depends(bearer_token(scopes=["later"]))])
    async def later() -> None: ...

    assert page(app)[1]["scopes"] == ["openid", "read:items", "later"]


def test_what_the_page_is_told():
    """The page knows the public client, the resource and the scopes; its addresses are relative to itself."""
    _, settings, _ = page(swagger(path="/api/reference", scopes=["write:items"]), "/api/reference")

    assert settings == {
        "origin": BASE,
        "openapi": "../openapi.json",
        "redirect": "reference/oauth2-redirect",
        "clientId": "swagger-ui",
        "resource": API,
        "scopes": ["openid", "read:items", "write:items"],
        "tokenEndpoint": f"{ISSUER}/token",
    }


@pytest.mark.parametrize("path", ["/docs", "/docs/oauth2-redirect"])
def test_the_policy_of_the_pages(path):
    """Nothing runs on the pages but their own script and Swagger UI, nothing frames them, and nobody keeps them."""
    app = swagger()
    text, _, policy = page(app, path)
    headers = TestClient(app, base_url=BASE).get(path).headers

    assert (
        policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == ["'none'"]
    )
    assert "'unsafe-inline'" not in policy["script-src"] + policy["style-src"]
    assert policy.get("connect-src") in (["'self'", "https://tenant.logto.example"], None)
    assert (headers["Cache-Control"], headers["Referrer-Policy"]) == ("no-store", "no-referrer")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert re.findall(r"<[^>]+ on\w+=", text) == []


def test_the_files_of_the_cdn_are_pinned():
    """Swagger UI comes from the CDN in one version, whose hash the page demands; files of one's own need none."""
    text, _, policy = page(swagger())
    own, _, own_policy = page(
        swagger(swagger_js_url="/assets/ui.js?v=1", swagger_css_url="https://cdn.example/ui.css?v=1")
    )

    pinned = re.findall(r'(?:src|href)="https://\S+@\d+\.\d+\.\d+/\S+" integrity="sha384-\S+" crossorigin', text)
    assert len(pinned) == 2
    assert all("?" not in source for source in policy["script-src"] + own_policy["style-src"])
    assert "integrity" not in own
    assert "'self'" in own_policy["script-src"]
    assert "https://cdn.example/ui.css" in own_policy["style-src"]


@pytest.mark.parametrize(
    "evil", ["</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "<!--<script>"]
)
def test_text_cannot_leave_its_place(evil):
    """Title, client and scopes are data: none can end its element or begin another."""
    app = swagger(title=evil, client_id=evil, scopes=[evil], resource=evil)

    text, settings, _ = page(app)

    assert evil not in text
    assert unescape(re.findall("<title>(.*?)</title>", text)[0]) == evil
    assert (settings["clientId"], settings["resource"], settings["scopes"][-1]) == (evil, evil, evil)
    assert len(re.findall("<script", text)) == 3


def test_no_secret_is_on_the_page():
    """The app's own id and secret are not on the pages, nor in the document."""
    app = swagger()

    for path in ("/docs", "/docs/oauth2-redirect", "/openapi.json"):
        text = TestClient(app, base_url=BASE).get(path).text
        assert "a-secret-of-the-app" not in text
        assert "the-app" not in text


def test_other_servers_may_be_called():
    """The page may call the servers that the document names, and nobody else; odd ones are left out."""
    app = FastAPI(docs_url=None, servers=[{"url": "https://eu.example.com/v1"}, {"url": "/v2"}, {"url": "https://a b"}])
    add_swagger_ui(app, config(), client_id="swagger-ui")

    assert page(app)[2]["connect-src"] == ["'self'", "https://tenant.logto.example", "https://eu.example.com"]


def test_another_issuer():
    """An issuer that is no Logto is described by the endpoints passed, and refused without them."""
    other = {"endpoint": None, "issuer": "https://login.example.com"}
    endpoints = {
        "authorization_endpoint": "https://login.example.com/oauth2/authorize",
        "token_endpoint": "https://login.example.com/oauth2/token",
    }

    flow = document(swagger(other, **endpoints))["components"]["securitySchemes"][BEARER]["flows"]["authorizationCode"]

    assert (flow["authorizationUrl"], flow["tokenUrl"]) == tuple(endpoints.values())
    with pytest.raises(SetupError, match="token_endpoint"):
        swagger(other)


def test_an_api_without_sign_in():
    """An API whose configuration has no sign-in sends nobody to another address, and names its resource."""
    here = LogtoConfig.without_sign_in(endpoint="https://tenant.logto.example", api_resource=API)
    app = FastAPI(docs_url=None)
    add_swagger_ui(app, here, client_id="swagger-ui")

    assert (page(app)[1]["origin"], page(app)[1]["resource"]) == (None, API)


def test_a_public_client_of_the_app_itself():
    """An app without a secret is public itself and may lend its id."""
    assert page(swagger({"app_secret": None}, client_id="the-app"))[1]["clientId"] == "the-app"


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "the confidential client": (lambda: swagger(client_id="the-app"), "single-page application"),
    "no client": (lambda: swagger(client_id=""), "client_id is missing"),
    "no resource": (lambda: swagger({"api_resource": None}), "resource="),
    "offline_access": (lambda: swagger(scopes=["offline_access"]), "offline_access"),
    "FastAPI's own page": (lambda: add_swagger_ui(FastAPI(), config(), client_id="s"), "docs_url=None"),
    "no document": (lambda: add_swagger_ui(FastAPI(openapi_url=None), config(), client_id="s"), "openapi_url=None"),
    "a taken path": (lambda: swagger(path="/openapi.json"), "a route at /openapi.json"),
    "no path": (lambda: swagger(path="docs"), "starts with a slash"),
    "a path with an end": (lambda: swagger(path="/docs/"), "ends without"),
    "a template": (lambda: swagger(path="/{docs}"), "like"),
    "a script by another scheme": (lambda: swagger(swagger_js_url="data:text/javascript,1"), "https addresses"),
    "a script of another host": (lambda: swagger(swagger_js_url="//cdn.example/ui.js"), "https addresses"),
    "a second directive": (lambda: swagger(swagger_css_url="/ui.css;script-src *"), "https addresses"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_at_start(name):
    """What cannot work or is not safe is refused when the app is built, with the remedy."""
    attempt, remedy = REFUSED[name]

    with pytest.raises(SetupError, match=re.escape(remedy)):
        attempt()

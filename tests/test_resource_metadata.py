"""The document that says who issues an API's tokens (RFC 9728): what it holds, where it is, and who may read it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount

from logto_asgi import ConfigurationError, LogtoConfig, LogtoMiddleware
from logto_asgi.resource_metadata import protected_resource_routes

WELL_KNOWN = "/.well-known/oauth-protected-resource"
API = "https://api.example.com/orders"


def config_of(base_url: str = "https://api.example.com", **settings: Any) -> LogtoConfig:
    return LogtoConfig(
        endpoint="https://tenant.logto.example",
        app_id="orders",
        app_secret="one secret for the tests",
        base_url=base_url,
        cookie_secret="kT3-vQ8zYw1LpRb6NfXe0SgHu5JmDc7aOi2BqEx9tZs",
        **settings,
    )


async def ask(app: Starlette, path: str, method: str = "GET", **options: Any) -> httpx.Response:
    root_path = options.pop("root_path", "")
    transport = httpx.ASGITransport(app, root_path=root_path)
    async with httpx.AsyncClient(transport=transport, base_url="https://api.example.com") as client:
        return await client.request(method, path, **options)


async def test_document() -> None:
    """It names the resource, its issuer and the way to send a token; what nobody said is left out (§2)."""
    config = config_of(api_resource=API)
    response = await ask(Starlette(routes=[*protected_resource_routes(config)]), f"{WELL_KNOWN}/orders")
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        "resource": API,
        "authorization_servers": ["https://tenant.logto.example/oidc"],
        "bearer_methods_supported": ["header"],
    }


@pytest.mark.parametrize("scopes", [["read:orders", "write:orders"], "read:orders write:orders"])
async def test_document_says_what_it_is_told(scopes: Any) -> None:
    """Scopes, a page for developers and a name are for people and their tools (§2)."""
    routes = protected_resource_routes(
        config_of(), resource=API, scopes=scopes, documentation="https://docs.example.com/", name="Orders"
    )
    document = (await ask(Starlette(routes=[*routes]), f"{WELL_KNOWN}/orders")).json()
    assert document["scopes_supported"] == ["read:orders", "write:orders"]
    assert document["resource_documentation"] == "https://docs.example.com/"
    assert document["resource_name"] == "Orders"


PLACES = {
    "https://api.example.com": "",
    "https://api.example.com/": "",
    "https://API.example.com:443": "",
    "HTTPS://api.example.com/orders": "/orders",
    "https://api.example.com/orders": "/orders",
    "https://api.example.com/orders/": "/orders/",
    "https://api.example.com/orders?tenant=1": "/orders",
    "https://api.example.com/shop/v2": "/shop/v2",
    "https://api.example.com/caf%C3%A9": "/caf%C3%A9",
    "https://other.example.com/orders": "",
    "http://api.example.com/orders": "",
    "https://api.example.com:8443/orders": "",
    "urn:example:orders": "",
    "api://orders": "",
}


@pytest.mark.parametrize(("resource", "suffix"), PLACES.items(), ids=PLACES)
async def test_place_of_the_document(resource: str, suffix: str) -> None:
    """The API's path follows the well-known one, where the API is on this origin (§3.1)."""
    app = Starlette(routes=[*protected_resource_routes(config_of(), resource=resource)])
    response = await ask(app, WELL_KNOWN + suffix)
    assert (response.status_code, response.json()["resource"]) == (200, resource)
    for other in {"", "/orders", "/orders/"} - {suffix}:
        assert (await ask(app, WELL_KNOWN + other)).status_code in (307, 404)


async def test_several_apis_of_one_app() -> None:
    """Each has its document, and each is found by the name of its route."""
    config, apis = config_of(), [API, "https://api.example.com/stock", "urn:example:stock"]
    app = Starlette(routes=[route for api in apis for route in protected_resource_routes(config, resource=api)])
    for api in apis:
        path = app.url_path_for(f"logto:protected-resource {api}")
        assert (await ask(app, path)).json()["resource"] == api


@pytest.mark.parametrize("root_path", ["", "/shop"])
async def test_app_under_a_path_serves_it_at_the_root_of_the_host(root_path: str) -> None:
    """§3.1 puts it before the path of `base_url`, whether or not the server tells the app of that path."""
    api = "https://api.example.com/shop/orders"
    config = config_of("https://api.example.com/shop", api_resource=api)
    app = Starlette(routes=[*protected_resource_routes(config)])
    response = await ask(app, f"{WELL_KNOWN}/shop/orders", root_path=root_path)
    assert (response.status_code, response.json()["resource"]) == (200, api)


async def test_app_around_a_mounted_one_serves_it() -> None:
    """Where a proxy keeps the path and the app is mounted, the route belongs to the app around it."""
    api = "https://api.example.com/shop/orders"
    config = config_of("https://api.example.com/shop", api_resource=api)
    app = Starlette(routes=[*protected_resource_routes(config), Mount("/shop", Starlette())])
    assert (await ask(app, f"{WELL_KNOWN}/shop/orders")).json()["resource"] == api


async def test_api_without_sign_in_has_one() -> None:
    """`LogtoConfig.without_sign_in` needs nothing else: `base_url` is the API's origin then."""
    config = LogtoConfig.without_sign_in(endpoint="https://tenant.logto.example", api_resource=API)
    response = await ask(Starlette(routes=[*protected_resource_routes(config)]), f"{WELL_KNOWN}/orders")
    assert response.json()["resource"] == API


async def test_everybody_may_read_and_keep_it() -> None:
    """It is cacheable and the same for all: no cookie is read, set or varied by, and any page may fetch it."""
    config = config_of(api_resource=API)
    app = Starlette(
        routes=[*protected_resource_routes(config)], middleware=[Middleware(LogtoMiddleware, config=config)]
    )
    headers = {"Origin": "https://client.example", "Cookie": "__Host-logto_session=1"}
    response = await ask(app, f"{WELL_KNOWN}/orders", headers=headers)
    assert response.headers["cache-control"] == "public, max-age=3600"
    assert response.headers["access-control-allow-origin"] == "*"
    assert not {"vary", "set-cookie"} & set(response.headers)


async def test_preflight_is_answered() -> None:
    """A client in a browser may send headers of its own."""
    app = Starlette(routes=[*protected_resource_routes(config_of(api_resource=API))])
    headers = {"Origin": "https://client.example", "Access-Control-Request-Method": "GET"}
    response = await ask(app, f"{WELL_KNOWN}/orders", "OPTIONS", headers=headers)
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (204, "*")
    assert response.headers["access-control-allow-headers"] == "*"


async def test_cors_of_the_app_does_not_double_the_header() -> None:
    """Two values of `Access-Control-Allow-Origin` would be none."""
    cors = Middleware(CORSMiddleware, allow_origins=["*"])
    app = Starlette(routes=[*protected_resource_routes(config_of(api_resource=API))], middleware=[cors])
    response = await ask(app, f"{WELL_KNOWN}/orders", headers={"Origin": "https://client.example"})
    assert response.headers.get_list("access-control-allow-origin") == ["*"]


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("POST", 405), ("DELETE", 405)])
async def test_other_methods(method: str, status: int) -> None:
    """It is read and nothing else."""
    app = Starlette(routes=[*protected_resource_routes(config_of(api_resource=API))])
    response = await ask(app, f"{WELL_KNOWN}/orders", method)
    assert (response.status_code, response.content) == (status, b"" if status == 200 else response.content)


@pytest.mark.parametrize(
    "resource",
    [
        None,
        "",
        "orders",
        "/orders",
        "//api.example.com/orders",
        "https://api.example.com/#orders",
        "https://api.example.com/a b",
        "https://api.example.com/ä",
        "https://api.example.com/%7Bid%7D",
        "https://api.example.com:port/",
        "https://[api/",
    ],
)
def test_resource_that_can_have_no_document(resource: str | None) -> None:
    """A mistake shows when the app is put together, with what to write instead."""
    with pytest.raises(ConfigurationError) as caught:
        protected_resource_routes(config_of(), resource=resource)
    (problem,) = caught.value.problems
    assert problem.field == "resource"
    assert problem.remedy

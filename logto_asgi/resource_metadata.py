"""The document by which an API says who issues its tokens (RFC 9728). Knows no request, no session and no issuer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from logto_asgi.errors import ConfigurationError, ConfigurationProblem

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig

__all__ = ["metadata_path", "protected_resource_routes"]

_WELL_KNOWN = "/.well-known/oauth-protected-resource"
_PORTS = {"http": 80, "https": 443}

_CACHEABLE = {"Cache-Control": "public, max-age=3600", "Access-Control-Allow-Origin": "*"}
_PREFLIGHT = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, HEAD",
    "Access-Control-Allow-Headers": "*",
    "Access-Control-Max-Age": "3600",
}
"""A client in a browser may send headers of its own protocol along."""


def protected_resource_routes(
    config: LogtoConfig,
    *,
    resource: str | None = None,
    scopes: Sequence[str] = (),
    documentation: str | None = None,
    name: str | None = None,
) -> list[Route]:
    """Return the route of the metadata document of one API resource (RFC 9728 §3), for an app's `routes=`.

    `resource` is the configuration's `api_resource` if None, `scopes` those that the API knows, `documentation` a page
    for developers, `name` what people call the API. Call it once for each API of an app. Raises `ConfigurationError`.

    A client compares `resource` with the address that it called (§3.3), so it should be the API's own URL. Then the
    document is where §3.1 wants it: at the root of the host, followed by the API's path. It is there too when
    `base_url` has a path: a proxy that hands the app `/shop/` only has to hand it `/.well-known/` besides, and an app
    that is mounted at `/shop` leaves the route to the app around it. The document of a resource that is no URL on
    `base_url`'s origin is at `/.well-known/oauth-protected-resource`, and an app has one such.
    """
    resource = _checked(resource if resource is not None else config.api_resource)
    document: dict[str, Any] = {
        "resource": resource,
        "authorization_servers": [config.issuer],
        "bearer_methods_supported": ["header"],
        "scopes_supported": scopes.split() if isinstance(scopes, str) else list(scopes),
        "resource_name": name,
        "resource_documentation": documentation,
    }
    body = JSONResponse({key: value for key, value in document.items() if value}).body

    async def serve(request: Request) -> Response:
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=_PREFLIGHT)
        return Response(bytes(body), headers=_CACHEABLE, media_type="application/json")

    return [
        Route(
            metadata_path(config, resource),
            serve,
            methods=["GET", "OPTIONS"],
            name=f"logto:protected-resource {resource}",
            include_in_schema=False,
        )
    ]


def metadata_path(config: LogtoConfig, resource: str) -> str:
    """Return the path of a resource's document from the root of its host on, decoded as ASGI has paths (§3.1)."""
    parts = urlsplit(resource)
    own = urlsplit(config.origin)
    if parts.scheme.lower() != own.scheme or parts.hostname != own.hostname or _port(parts) != _port(own):
        return _WELL_KNOWN
    # "Any terminating slash following the host component" goes; the others belong to the path.
    return _WELL_KNOWN + (unquote(parts.path) if parts.path != "/" else "")


def _port(parts: Any) -> int | None:
    return parts.port or _PORTS.get(parts.scheme.lower())


def _checked(resource: str | None) -> str:
    """Return a resource that can have a document: an absolute URI without a fragment (§1.2)."""
    if resource is None:
        raise _problem("is missing.", "Pass resource=… or set LogtoConfig(api_resource=…) or LOGTO_API_RESOURCE.")
    try:
        parts = urlsplit(resource)
        fits = bool(parts.scheme) and "#" not in resource and (parts.port is None or parts.port > 0)
    except ValueError:
        fits = False
    if not fits or not resource.isascii() or not resource.isprintable() or " " in resource:
        raise _problem("is no absolute URI without a fragment.", "Write it like https://api.example.com/orders.")
    if set(unquote(resource)) & set("{}"):
        raise _problem("has a brace in its path, which no route can have.", "Name the API without braces.")
    return resource


def _problem(fault: str, remedy: str) -> ConfigurationError:
    return ConfigurationError([ConfigurationProblem("resource", fault, remedy)])

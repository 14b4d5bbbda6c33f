"""The auth routes as a FastAPI router, and what guards answer, for OpenAPI. Knows no guard."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from pydantic import BaseModel

from logto_asgi.resource_metadata import protected_resource_routes
from logto_asgi.routes import auth_routes

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig

__all__ = ["AUTH_RESPONSES", "ErrorBody", "auth_router", "protected_resource_router"]


class ErrorBody(BaseModel):
    """The JSON body of a refusal."""

    detail: str
    code: str
    sign_in_url: str | None = None
    missing: list[str] | None = None
    scope: str | None = None


AUTH_RESPONSES: dict[int | str, dict[str, Any]] = {
    303: {"description": "A browser's navigation without a session: to sign-in and back"},
    400: {"model": ErrorBody, "description": "Two bearer tokens came, or one in the query string"},
    401: {"model": ErrorBody, "description": "Nobody is signed in, or the bearer token is of no use here"},
    403: {"model": ErrorBody, "description": "The request came from another site, or its user may not do this"},
    503: {"model": ErrorBody, "description": "The issuer can't be reached; the session goes on"},
}
"""For `responses=` of an app, a router or an endpoint: what a guard may answer."""


def auth_router(config: "LogtoConfig") -> APIRouter:
    """Return a router with the auth routes at their full paths: `app.include_router(auth_router(config))`.

    They are plain Starlette routes, so that a guard on the whole app (`FastAPI(dependencies=[…])`) cannot lock the
    sign-in page.
    """
    return APIRouter(routes=list(auth_routes(config)))


def protected_resource_router(
    config: "LogtoConfig",
    *,
    resource: str | None = None,
    scopes: Sequence[str] = (),
    documentation: str | None = None,
    name: str | None = None,
) -> APIRouter:
    """Return a router with the metadata document of an API resource (RFC 9728); see `protected_resource_routes`."""
    routes = protected_resource_routes(config, resource=resource, scopes=scopes, documentation=documentation, name=name)
    return APIRouter(routes=list(routes))

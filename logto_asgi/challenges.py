"""What a refused caller is told to bring: the `WWW-Authenticate` header (RFC 6750 §3, RFC 9470 §3, RFC 9728 §5.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote
from weakref import WeakKeyDictionary

from starlette.routing import NoMatchFound

from logto_asgi.errors import HTTPError, InsufficientScope, InvalidRequest, InvalidToken, StepUpRequired, TokenRequired
from logto_asgi.requirements import Requirement
from logto_asgi.visit import Visit

__all__ = ["METADATA_ROUTE", "NO_BEARER", "bearer_challenge", "session_challenge", "with_challenge"]

METADATA_ROUTE = "logto:protected-resource {}"
"""Name of the route that serves a resource's metadata (RFC 9728 §3); its indicator goes into the braces."""

NO_BEARER = "This endpoint takes no bearer token."

_metadata_urls: WeakKeyDictionary[Any, dict[str, str | None]] = WeakKeyDictionary()
_NOT_IN_QUOTES = re.compile(r"[^ !#-\[\]-~]")


def with_challenge(error: HTTPError, visit: Visit, need: Requirement) -> HTTPError:
    """Return a refusal of a bearer token, or of its absence, with the challenge that goes with it."""
    error.headers = {**(error.headers or {}), "WWW-Authenticate": bearer_challenge(error, visit, need)}
    return error


def bearer_challenge(error: HTTPError | None, visit: Visit, need: Requirement) -> str:
    """Return the challenge for an error; without one, as where no token came, it names none (RFC 6750 §3.1)."""
    said: dict[str, str] = {}
    if isinstance(error, InvalidToken | InvalidRequest | InsufficientScope):
        said |= {"error": error.code, "error_description": error.message}
    if isinstance(error, StepUpRequired):
        said |= {"error": "insufficient_user_authentication", "error_description": error.message}
        said["max_age"] = str(error.max_age)
    if isinstance(error, InsufficientScope):
        said["scope"] = error.scope
    elif isinstance(error, TokenRequired | None) and need.all_scopes:
        said["scope"] = " ".join(need.all_scopes)
    metadata = _metadata_url(visit, need.resource or visit.config.api_resource)
    if metadata is not None:
        said["resource_metadata"] = metadata
    return "Bearer" + ",".join(f' {name}="{_NOT_IN_QUOTES.sub("_", value)}"' for name, value in said.items())


def session_challenge(scope: Mapping[str, Any], visit: Visit, need: Requirement, *, came_with_token: bool) -> str:
    """Return the challenge of a guard that takes sessions, for a caller who has none (RFC 9110 §11.6.1)."""
    if came_with_token:
        return f'Bearer error="invalid_token", error_description="{NO_BEARER}"'
    cookie = f'Cookie realm="{visit.config.auth_url("sign-in")}"'
    return f"{bearer_challenge(None, visit, need)}, {cookie}" if need.bearer else cookie


def _metadata_url(visit: Visit, resource: str | None) -> str | None:
    """Return where the app serves the metadata of a resource, if it does."""
    app = visit.app
    if app is None or resource is None:
        return None
    known = _metadata_urls.setdefault(app, {})
    if resource not in known:
        known[resource] = _find(app, resource, visit.config.origin)
    return known[resource]


def _find(app: Any, resource: str, origin: str) -> str | None:
    try:
        return origin + quote(app.url_path_for(METADATA_ROUTE.format(resource)))
    except (NoMatchFound, AttributeError):
        return None

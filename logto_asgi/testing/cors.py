"""Answers for scripts of other origins (CORS): those of public apps, whose pages call the provider themselves.

It knows origins and headers, and no endpoint but by name.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from logto_asgi.testing.core import Core

__all__ = ["CORS_ENDPOINTS", "CrossOrigin"]

CORS_ENDPOINTS = frozenset({"discovery", "jwks", "token", "userinfo"})


class CrossOrigin:
    """Lets the pages of public apps read answers: an origin counts when a redirect URI of such an app has it."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def preflight(self, request: Request) -> Response:
        """Answer the question that a browser asks first (Fetch standard, CORS-preflight request)."""
        response = Response(status_code=204)
        if self.allow(request, response):
            response.headers["Access-Control-Allow-Methods"] = "GET, POST"
            response.headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type"
        return response

    def allow(self, request: Request, response: Response) -> bool:
        """Let the page that sent a request read the answer, without cookies. Return whether it may."""
        response.headers.append("Vary", "Origin")
        origin = request.headers.get("origin")
        if origin is None or origin not in self._origins():
            return False
        response.headers["Access-Control-Allow-Origin"] = origin
        return True

    def _origins(self) -> set[str]:
        public = (client for client in self._core.clients.values() if client.is_public)
        places = (urlsplit(uri) for client in public for uri in client.redirect_uris)
        return {f"{place.scheme}://{place.netloc}" for place in places if place.scheme in ("http", "https")}

"""Swagger UI whose "Authorize" signs in at the issuer and calls the API with the access token that it gets.

It is an app of its own at the issuer, a public one: authorization code with PKCE (RFC 7636), no secret. Nothing here
holds a token.
"""

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse

from logto_asgi.errors import SetupError
from logto_asgi.fastapi.schemes import BEARER, SESSION, Document, describe_guards, operations
from logto_asgi.fastapi.swagger_page import SWAGGER_CSS_URL, SWAGGER_JS_URL, redirect_page, swagger_page
from logto_asgi.session.cookies import cookie_name

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig

__all__ = ["add_swagger_ui"]

_BREAKS_POLICY = frozenset(" ;,'\"<>\\")


def add_swagger_ui(
    app: FastAPI,
    config: "LogtoConfig",
    *,
    client_id: str,
    scopes: Sequence[str] | Mapping[str, str] = (),
    resource: str | None = None,
    path: str = "/docs",
    title: str | None = None,
    authorization_endpoint: str | None = None,
    token_endpoint: str | None = None,
    swagger_js_url: str = SWAGGER_JS_URL,
    swagger_css_url: str = SWAGGER_CSS_URL,
) -> None:
    """Serve Swagger UI at `path`, in the place of FastAPI's own page: `FastAPI(docs_url=None)`.

    `client_id` is a single-page application registered for this page, with the redirect URI
    `{base_url}{path}/oauth2-redirect`. Asked for are `openid`, `scopes` (a mapping says in words what each allows) and
    those that the app's guards name, for `resource` (default: the configuration's `api_resource`). An issuer that is
    no Logto needs both endpoints. The document says what `describe_guards` does, and where to sign in. Everybody can
    open the page. Raises `SetupError`.
    """
    url = _Urls.of(config, path, authorization_endpoint, token_endpoint)
    asked = dict(scopes) if isinstance(scopes, Mapping) else dict.fromkeys(scopes, "")
    _check_client(config, client_id)
    _check_app(app, url)
    _check_files(swagger_js_url, swagger_css_url)
    target = _check_asked(resource or config.api_resource, asked)
    describe_guards(app, lambda document: _describe_sign_in(document, config, url, asked))
    pages = _Pages(app, config, client_id, target, asked, url, title, swagger_js_url, swagger_css_url)
    app.add_route(url.path, pages.show, include_in_schema=False)
    app.add_route(url.redirect_path, pages.come_back, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class _Urls:
    """Where the page is, and where the issuer's endpoints are."""

    path: str
    authorization: str
    token: str

    @classmethod
    def of(cls, config: "LogtoConfig", path: str, authorization: str | None, token: str | None) -> "_Urls":
        if not path.startswith("/") or path.endswith("/") or "{" in path:
            raise SetupError('path is where the page is served: it starts with a slash and ends without, like "/docs".')
        if not config.is_logto and not (authorization and token):
            raise SetupError(
                "Swagger UI has to know where this issuer signs in: pass authorization_endpoint=… and "
                "token_endpoint=…, as its discovery document names them."
            )
        return cls(path, authorization or f"{config.issuer}/auth", token or f"{config.issuer}/token")

    @property
    def redirect_path(self) -> str:
        return f"{self.path}/oauth2-redirect"


@dataclass(frozen=True, slots=True)
class _Pages:
    """The two pages, made anew for each request: routes may have been added."""

    app: FastAPI
    config: "LogtoConfig"
    client_id: str
    resource: str
    asked: Mapping[str, str]
    url: _Urls
    title: str | None
    js_url: str
    css_url: str

    async def show(self, request: Request) -> HTMLResponse:
        html, headers = swagger_page(
            self._settings(),
            title=self.title or self.app.title,
            js_url=self.js_url,
            css_url=self.css_url,
            connect=filter(
                None, [_origin(self.url.token), *(_origin(str(each.get("url"))) for each in self.app.servers)]
            ),
        )
        return HTMLResponse(html, headers=headers)

    async def come_back(self, request: Request) -> HTMLResponse:
        html, headers = redirect_page({"issuer": self.config.issuer}, title=self.title or self.app.title)
        return HTMLResponse(html, headers=headers)

    def _settings(self) -> dict[str, Any]:
        return {
            "origin": self.config.origin if self.config.signs_in else None,
            "openapi": _relative(self.app.openapi_url or "", self.url.path),
            "redirect": _relative(self.url.redirect_path, self.url.path),
            "clientId": self.client_id,
            "resource": self.resource,
            "scopes": [*_named(self.app.openapi(), self.asked)],
            "tokenEndpoint": self.url.token,
        }


def _check_client(config: "LogtoConfig", client_id: str) -> None:
    if not client_id:
        raise SetupError("client_id is missing: register a single-page application for Swagger UI and pass its id.")
    if client_id == config.app_id and config.app_secret is not None:
        raise SetupError(
            "client_id is the app's own, which has a secret. Swagger UI runs in the browser and can keep none: "
            "register a single-page application for it and pass that one's id."
        )


def _check_asked(resource: str | None, scopes: Mapping[str, str]) -> str:
    if resource is None:
        raise SetupError(
            "Swagger UI needs to know for which API it asks for tokens: pass resource=…, or set api_resource in the "
            "configuration. Without one Logto's access tokens are opaque."
        )
    if "offline_access" in scopes:
        raise SetupError("Leave offline_access out of scopes: Swagger UI would ask for consent, and refreshes nothing.")
    return resource


def _check_app(app: FastAPI, url: _Urls) -> None:
    if app.openapi_url is None:
        raise SetupError("Swagger UI shows the OpenAPI document, and FastAPI(openapi_url=None) serves none.")
    if app.docs_url is not None:
        raise SetupError("FastAPI serves a page of its own that cannot sign in for an API: FastAPI(docs_url=None).")
    if any(getattr(route, "path", None) == url.path for route in app.routes):
        raise SetupError(f"The app has a route at {url.path} already. Pass another path=….")


def _check_files(*urls: str) -> None:
    for url in urls:
        known = url.startswith(("https://", "http://")) or (url.startswith("/") and not url.startswith("//"))
        if not known or _BREAKS_POLICY & set(url) or not url.isprintable():
            raise SetupError(
                "swagger_js_url and swagger_css_url are https addresses, or paths that start with one slash."
            )


def _describe_sign_in(document: Document, config: "LogtoConfig", url: _Urls, asked: Mapping[str, str]) -> None:
    """Say where to sign in: OAuth in the place of the bearer scheme, and this app's cookie."""
    schemes = document.get("components", {}).get("securitySchemes", {})
    if BEARER in schemes:
        schemes[BEARER] = {
            "type": "oauth2",
            "description": "Sign in and call this API with the access token. The session cookie is not looked at then.",
            "flows": {
                "authorizationCode": {
                    "authorizationUrl": url.authorization,
                    "tokenUrl": url.token,
                    "refreshUrl": url.token,
                    "scopes": _named(document, asked),
                }
            },
        }
    if SESSION in schemes and config.signs_in:
        schemes[SESSION]["name"] = cookie_name(config.app_id, secure=config.secure)
        schemes[SESSION]["description"] = (
            f"The session cookie that [signing in]({config.auth_url('sign-in')}?return_to={url.path}) sets. The "
            "browser sends it by itself: there is nothing to fill in here."
        )


def _named(document: Document, asked: Mapping[str, str]) -> dict[str, str]:
    """Return each scope that is asked for or that an operation needs, with what is said of it."""
    entries = [entry for operation in operations(document) for entry in operation["security"]]
    needed = [scope for entry in entries for scope in entry.get(BEARER, ())]
    return {"openid": "Sign in", **dict.fromkeys(needed, ""), **asked}


def _relative(target: str, page: str) -> str:
    """Return the address of a path as the page can write it wherever the app is mounted."""
    return posixpath.relpath(target, posixpath.dirname(page))


def _origin(url: str) -> str | None:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc and not _BREAKS_POLICY & set(url) else None

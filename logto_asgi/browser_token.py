"""The route `token`: hands a page of this app an access token for an API that the page calls itself.

Answers in JSON only, never with a redirect or a page. Knows no refresh token and no other token of the session.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from logto_asgi.auth_requests import read_body
from logto_asgi.claims import is_organization_id
from logto_asgi.errors import CrossSiteRequest, HTTPError, InvalidRequest, SetupError, SignInRequired
from logto_asgi.models import AccessToken, ReservedResource, Session
from logto_asgi.oidc.strict_json import MalformedJSON, parse_object
from logto_asgi.origins import header
from logto_asgi.presented import brings_token
from logto_asgi.return_to import path_of_own_url
from logto_asgi.visit import Visit

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig

__all__ = ["hand_out"]

logger = logging.getLogger("logto_asgi")

_HEADERS = {
    "Cache-Control": "no-store",
    "Pragma": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_FIELDS = ("resource", "organization_id")
_LONGEST = 2048
"""Characters of a field."""


class _InvalidTarget(InvalidRequest):
    """The resource is none that a page may have a token for (RFC 8707 §2)."""

    code = "invalid_target"


async def hand_out(request: Request, visit: Visit) -> Response:
    """Answer a page of this app with an access token for its own calls (RFC 6749 §5.1), or say why not.

    The checks, in this order; nothing is asked of the issuer before all have passed:

    1. A script of this very origin asks: what CORS allows to others, and `trusted_origins`, do not count.
    2. A session came along, and no bearer token in its place.
    3. The body is a small form or JSON object, and names an allow-listed resource.
    """
    try:
        _check_origin(request, visit.config)
        session = _session(request, visit)
        resource, organization_id = await _asked(request, visit.config)
        newest, token = await visit.runtime.tokens.get(session, resource=resource, organization_id=organization_id)
    except HTTPError as error:
        return _refused(request, visit.config, error)
    except _UnreadableBody as unreadable:
        return _answer(unreadable.status, {"detail": unreadable.message, "code": unreadable.code})
    visit.advance(newest)
    return _answer(200, _token_answer(token, visit.runtime.clock()))


def _check_origin(request: Request, config: LogtoConfig) -> None:
    """Let a script of this origin pass, by the browser's word for it; a program that sends neither header is refused.

    `Origin` is `null` in a request to one's own origin where the page has `Referrer-Policy: no-referrer`.
    """
    headers = request.scope["headers"]
    site, origin = header(headers, b"sec-fetch-site"), header(headers, b"origin")
    own = origin == config.origin if site is None else site == "same-origin" and origin in (None, "null", config.origin)
    # A form that was sent or a frame that was opened would show the token; only a script reads it.
    if not own or header(headers, b"sec-fetch-dest") not in (None, "empty"):
        raise CrossSiteRequest("Tokens are handed to scripts of this app's own pages only.")


def _session(request: Request, visit: Visit) -> Session:
    challenge = {"WWW-Authenticate": f'Cookie realm="{visit.config.auth_url("sign-in")}"'}
    if brings_token(request.scope):
        raise SignInRequired("This takes the session of a browser and no bearer token.", headers=challenge)
    session = visit.ask()
    if session is None:
        raise SignInRequired("Nobody is signed in.", headers=challenge)
    return visit.newest(session)


async def _asked(request: Request, config: LogtoConfig) -> tuple[str, str | None]:
    """Return the resource and organization that a token is asked for."""
    fields = await _fields(request)
    resource, organization_id = fields.get("resource"), fields.get("organization_id")
    if resource is None:
        raise InvalidRequest("The field resource is missing: it names the API that the token is for.")
    if resource not in config.browser_token_resources:
        raise _InvalidTarget(
            "Pages of this app get no token for this resource. Its makers can add it: "
            "LogtoConfig(browser_token_resources=[…])."
        )
    if organization_id is not None:
        _check_organization(organization_id, config)
    return resource, organization_id


def _check_organization(organization_id: str, config: LogtoConfig) -> None:
    """Refuse what can be no organization; whether the user is a member, the issuer says."""
    if ReservedResource.ORGANIZATION not in config.resources:
        raise InvalidRequest("This app asks for no organizations: it lacks the scope urn:logto:scope:organizations.")
    if not is_organization_id(organization_id):
        raise InvalidRequest("There is no organization with this id.")


class _UnreadableBody(Exception):
    def __init__(self, status: HTTPStatus, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


async def _fields(request: Request) -> dict[str, str]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    read = _READERS.get(kind)
    if read is None:
        words = f"Send a form or JSON: {' or '.join(_READERS)}."
        raise _UnreadableBody(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", words)
    body = await read_body(request)
    if body is None:
        raise _UnreadableBody(HTTPStatus(413), "content_too_large", "The body is longer than 8 KiB.")
    return read(body)


def _from_form(body: bytes) -> dict[str, str]:
    pairs = [pair for pair in parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True) if pair[0] in _FIELDS]
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise InvalidRequest("A field came twice. Ask for one token at a time.")
    return _checked(fields)


def _from_json(body: bytes) -> dict[str, str]:
    try:
        value = parse_object(body)
    except MalformedJSON as error:
        fault = str(error)
    else:
        return _checked({name: value[name] for name in _FIELDS if value.get(name) is not None})
    raise InvalidRequest(f"The body cannot be read: {fault}.")


def _checked(fields: Mapping[str, Any]) -> dict[str, str]:
    for name, value in fields.items():
        if not isinstance(value, str) or not 0 < len(value) <= _LONGEST:
            raise InvalidRequest(f"The field {name} is no text, or none of this length.")
    return dict(fields)


_READERS = {"application/x-www-form-urlencoded": _from_form, "application/json": _from_json}


def _token_answer(token: AccessToken, now: float) -> dict[str, Any]:
    """Return the parameters of a token answer; `expires_in` is what is left of the life that the issuer gave it."""
    answer: dict[str, Any] = {
        "access_token": token.value,
        "token_type": "Bearer",
        "expires_in": max(0, int(token.expires_at - now)),
    }
    return {**answer, "scope": " ".join(token.scopes)} if token.scopes else answer


def _refused(request: Request, config: LogtoConfig, error: HTTPError) -> Response:
    if error.status >= 500:
        level = logging.ERROR if isinstance(error, SetupError) else logging.WARNING
        logger.log(level, "%s: %s", error.code, error.message)
    body = {"detail": error.message, "code": error.code}
    if isinstance(error, SignInRequired):
        back = path_of_own_url(header(request.scope["headers"], b"referer"), config)
        query = f"?{urlencode({'return_to': back}, safe='/')}" if back else ""
        body["sign_in_url"] = config.auth_url("sign-in") + query
    return _answer(error.status, body, error.headers)


def _answer(status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(dict(body), status, {**(headers or {}), **_HEADERS})

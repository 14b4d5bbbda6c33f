"""The back channel, as pure functions: requests to the token, revocation and userinfo endpoints, and their answers.

It knows no network. Text that the issuer wrote never becomes ours: of an error only its code is kept, if it looks like
one.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus, urlencode

from logto_asgi.claims import UserInfo
from logto_asgi.errors import InvalidGrant, IssuerRefused, IssuerResponseInvalid, VerificationError
from logto_asgi.models import PendingSignIn, TokenSet
from logto_asgi.oidc.strict_json import MalformedJSON, parse_object
from logto_asgi.oidc.transport import Answer, Request, header_value

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig

__all__ = [
    "build_client_request",
    "build_code_request",
    "build_introspection_request",
    "build_refresh_request",
    "build_revocation_request",
    "build_userinfo_request",
    "parse_document",
    "parse_introspection_response",
    "parse_revocation_response",
    "parse_token_response",
    "parse_userinfo_response",
]

MAX_EXPIRES_IN = 10 * 365 * 24 * 3600
"""Seconds; a longer life of an access token is cut to this."""
MAX_TOKEN = 16 * 1024
"""Characters of one token."""

_TOKEN = re.compile(r"[!-~]+", re.ASCII)
_SCOPE = re.compile(r"[ -~]*", re.ASCII)
_ERROR = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_CHALLENGE_ERROR = re.compile(r'error="([A-Za-z0-9_.-]{1,64})"', re.ASCII)

_REMEDIES: Mapping[str, str] = {
    "invalid_client": "Check LOGTO_APP_ID and LOGTO_APP_SECRET.",
    "invalid_request": "Has the app's secret expired? Check LOGTO_APP_SECRET.",
    "invalid_grant": "Sign in again.",
    "invalid_target": "Is the API listed in `resources`, and does the issuer know it? Then sign in again.",
    "invalid_scope": "Check `scopes`.",
    "insufficient_scope": "Organization tokens need the scope urn:logto:scope:organizations at sign-in.",
    "access_denied": "This user may not have it.",
    "unauthorized_client": "Check the app's type and its grant types at the issuer.",
    "unsupported_grant_type": "Check the app's grant types at the issuer.",
    "invalid_token": "The access token has expired or is not for this.",
}


def build_code_request(pending: PendingSignIn, code: str) -> dict[str, str]:
    """Return the form that exchanges a code (RFC 6749 §4.1.3, RFC 7636 §4.5)."""
    return {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": pending.redirect_uri,
        "code_verifier": pending.code_verifier,
    }


def build_refresh_request(
    refresh_token: str, *, resource: str | None = None, organization_id: str | None = None, scope: str | None = None
) -> dict[str, str]:
    """Return the form that refreshes (RFC 6749 §6), for a resource (RFC 8707 §2.2), an organization (Logto) or both."""
    form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
    optional = {"resource": resource, "organization_id": organization_id, "scope": scope}
    return form | {name: value for name, value in optional.items() if value is not None}


def build_revocation_request(token: str) -> dict[str, str]:
    """Return the form that revokes a token (RFC 7009 §2.1)."""
    return {"token": token}


def build_introspection_request(token: str) -> dict[str, str]:
    """Return the form that asks about an access token (RFC 7662 §2.1)."""
    return {"token": token, "token_type_hint": "access_token"}


def build_client_request(url: str, form: Mapping[str, str], config: LogtoConfig) -> Request:
    """Return the POST of a form with the client's authentication in exactly one place (RFC 6749 §2.3)."""
    fields, headers = dict(form), {"Content-Type": "application/x-www-form-urlencoded"}
    secret = config.app_secret.get_secret_value() if config.app_secret is not None else ""
    if config.token_endpoint_auth_method == "client_secret_basic":
        headers["Authorization"] = _basic(config.app_id, secret)
    else:
        fields["client_id"] = config.app_id
    if config.token_endpoint_auth_method == "client_secret_post":
        fields["client_secret"] = secret
    return Request("POST", url, headers, urlencode(fields).encode("ascii"))


def build_userinfo_request(url: str, access_token: str) -> Request:
    """Return the request for claims about a user (Core §5.3.1). Raise `ValueError` for a token unfit for a header."""
    return Request("GET", url, {"Authorization": header_value(f"Bearer {access_token}")})


def _basic(client_id: str, secret: str) -> str:
    # RFC 6749 §2.3.1: each part is form-urlencoded before they are joined; a colon in an id would move the border.
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return "Basic " + base64.b64encode(pair.encode("ascii")).decode("ascii")


def parse_token_response(answer: Answer) -> TokenSet:
    """Return the tokens of a token endpoint's answer (RFC 6749 §5.1), none of them verified.

    Raise `InvalidGrant` or `IssuerRefused` for an error (§5.2), `IssuerResponseInvalid` for an answer out of order.
    """
    values = _success(answer, "token endpoint")
    if _required(values, "token_type").lower() != "bearer":
        raise IssuerResponseInvalid("The issuer's token endpoint answered with a `token_type` other than Bearer.")
    _required(values, "access_token")
    for name in ("access_token", "refresh_token", "id_token"):
        if values.get(name) is not None and not _is_token(values[name]):
            raise IssuerResponseInvalid(f"The issuer's token endpoint answered with a bad `{name}`.")
    scope = values.get("scope")
    if scope is not None and not (isinstance(scope, str) and _SCOPE.fullmatch(scope)):
        raise IssuerResponseInvalid("The issuer's token endpoint answered with a bad `scope`.")
    return TokenSet(
        access_token=values["access_token"],
        expires_in=_expires_in(values.get("expires_in")),
        scope=scope,
        refresh_token=values.get("refresh_token"),
        id_token=values.get("id_token"),
    )


def parse_userinfo_response(answer: Answer, *, sub: str) -> UserInfo:
    """Return the claims of a userinfo answer that is about `sub` (Core §5.3.2, §5.3.4).

    Raise `VerificationError` when it is about somebody else, `IssuerRefused` and `IssuerResponseInvalid` as above.
    """
    if answer.headers.get("content-type", "").lower().startswith("application/jwt"):
        raise IssuerResponseInvalid("The issuer's userinfo is a signed token. Switch it to plain JSON for this app.")
    values = _success(answer, "userinfo endpoint")
    if _required(values, "sub", "userinfo endpoint") != sub:
        raise VerificationError("sub", "The issuer's userinfo is about another user.")
    try:
        return UserInfo.parse(values)
    except ValueError as error:
        fault = str(error)
    raise IssuerResponseInvalid(f"The issuer's userinfo is not acceptable: {fault}.")


def parse_introspection_response(answer: Answer) -> dict[str, Any] | None:
    """Return what the issuer says of an active token, or None of one that is not (RFC 7662 §2.2).

    Raise `IssuerRefused` for an error (§2.3), `IssuerResponseInvalid` for an answer that leaves it open.
    """
    values = _success(answer, "introspection endpoint")
    if not isinstance(values.get("active"), bool):
        raise IssuerResponseInvalid("The answer of the issuer's introspection endpoint has no `active`: true or false.")
    return values if values["active"] is True else None


def parse_revocation_response(answer: Answer) -> None:
    """Accept a revocation's answer (RFC 7009 §2.2), whatever its body. Raise `IssuerRefused` for an error."""
    if answer.status != 200:
        raise _refusal(answer)


def parse_document(answer: Answer, what: str) -> dict[str, Any]:
    """Return a public document of the issuer. `what` names it in the errors, which are those above."""
    if answer.status != 200:
        raise IssuerRefused(
            f"The issuer does not hand out its {what} (HTTP {answer.status}). Check LOGTO_ENDPOINT or LOGTO_ISSUER.",
            error=f"http_{answer.status}",
            issuer_status=answer.status,
        )
    return _object(answer, what)


def _success(answer: Answer, what: str) -> dict[str, Any]:
    if answer.status != 200:
        raise _refusal(answer)
    return _object(answer, what)


def _object(answer: Answer, what: str) -> dict[str, Any]:
    try:
        return parse_object(answer.body)
    except MalformedJSON as error:
        fault = str(error)
    raise IssuerResponseInvalid(f"The answer of the issuer's {what} is not acceptable: {fault}.")


def _refusal(answer: Answer) -> IssuerRefused:
    error = _error_code(answer)
    remedy = _REMEDIES.get(error, "")
    message = f"The issuer refused ({error}, HTTP {answer.status}). {remedy}".rstrip()
    kind = InvalidGrant if error == "invalid_grant" else IssuerRefused
    return kind(message, error=error, issuer_status=answer.status)


def _error_code(answer: Answer) -> str:
    """Return `error`, Logto's `code`, or the challenge's error (RFC 6750 §3), whichever first looks like one."""
    try:
        values = parse_object(answer.body)
    except MalformedJSON:
        values = {}
    challenge = _CHALLENGE_ERROR.search(answer.headers.get("www-authenticate", ""))
    for candidate in (values.get("error"), values.get("code"), challenge[1] if challenge else None):
        if isinstance(candidate, str) and _ERROR.fullmatch(candidate):
            return candidate
    return f"http_{answer.status}"


def _required(values: Mapping[str, Any], name: str, what: str = "token endpoint") -> str:
    value = values.get(name)
    if not isinstance(value, str) or not value:
        raise IssuerResponseInvalid(f"The answer of the issuer's {what} has no `{name}`, or it is not a string.")
    return value


def _is_token(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TOKEN and _TOKEN.fullmatch(value) is not None


def _expires_in(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,12}", value, re.ASCII):
        value = int(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or value < 0 or (isinstance(value, float) and not math.isfinite(value)):
        raise IssuerResponseInvalid("The issuer's token endpoint answered with an `expires_in` that is no time.")
    return int(min(value, MAX_EXPIRES_IN))

"""The apps that the development provider knows, and how they authenticate at its endpoints (RFC 6749 §2.3).

It knows no user and no grant.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_plus

from logto_asgi.testing.parameters import Parameters
from logto_asgi.testing.refusals import Refusal

__all__ = [
    "AUTHORIZATION_CODE",
    "CLIENT_CREDENTIALS",
    "GRANT_TYPES",
    "REFRESH_TOKEN",
    "TOKEN_EXCHANGE",
    "Client",
    "authenticate",
]


AUTHORIZATION_CODE = "authorization_code"
REFRESH_TOKEN = "refresh_token"
CLIENT_CREDENTIALS = "client_credentials"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
GRANT_TYPES = (AUTHORIZATION_CODE, REFRESH_TOKEN, CLIENT_CREDENTIALS, TOKEN_EXCHANGE)


@dataclass(frozen=True, slots=True)
class Client:
    """An app: with `app_secret` a confidential one (a traditional web app), without it a public one.

    With `machine` it signs nobody in and gets tokens by its own name. Raise `ValueError` for one without a secret.
    """

    app_id: str
    app_secret: str | None = field(default=None, repr=False)
    redirect_uris: tuple[str, ...] | list[str] = ()
    post_logout_redirect_uris: tuple[str, ...] | list[str] = ()
    backchannel_logout_uri: str | None = None
    """Where a logout token would go. An app that has one gets a `sid` in its ID tokens, as Logto does."""
    third_party: bool = False
    """The user is asked for consent, and cancelling leads to the bare redirect URI."""
    name: str | None = None
    """Shown on the sign-in page; the app id otherwise."""
    secret_expires_at: float | None = None
    """Seconds since 1970."""
    machine: bool = False
    """A machine-to-machine app: client credentials, and no sign-in."""
    permissions: Mapping[str, Collection[str]] = field(default_factory=dict)
    """What a machine may do by its roles: scopes by resource."""
    organizations: Mapping[str, Collection[str]] = field(default_factory=dict)
    """The organizations that a machine belongs to, and the scopes that its roles give there."""
    token_exchange: bool = False
    """The app may exchange tokens (RFC 8693). A third-party one may not, whatever this says."""

    def __post_init__(self) -> None:
        if self.machine and self.app_secret is None:
            raise ValueError("a machine authenticates: give the client an app_secret")

    @property
    def grant_types(self) -> frozenset[str]:
        """Return what the app may send to the token endpoint (RFC 7591 §2)."""
        own = {CLIENT_CREDENTIALS} if self.machine else {AUTHORIZATION_CODE, REFRESH_TOKEN}
        return frozenset(own | {TOKEN_EXCHANGE} if self.token_exchange and not self.third_party else own)

    @property
    def is_public(self) -> bool:
        """Say whether the app has no secret."""
        return self.app_secret is None

    @property
    def title(self) -> str:
        """Return the name to show."""
        return self.name or self.app_id


def authenticate(clients: Mapping[str, Client], authorization: str | None, params: Parameters, now: float) -> Client:
    """Return the client that sent a request, by its header or its form. Raise `Refusal` as Logto would."""
    app_id, secret = _presented(authorization, params)
    client = clients.get(app_id)
    if client is None:
        raise Refusal("invalid_client", "client is invalid")
    if client.app_secret is None:
        if secret is not None:
            raise _wrong_client()
        return client
    if secret is None or not hmac.compare_digest(secret.encode(), client.app_secret.encode()):
        raise _wrong_client()
    if client.secret_expires_at is not None and client.secret_expires_at <= now:
        raise Refusal("invalid_request", "client secret has expired")
    return client


def _presented(authorization: str | None, params: Parameters) -> tuple[str, str | None]:
    """Return the id and secret as presented. One mechanism only (RFC 6749 §2.3)."""
    app_id, secret = params.get("client_id"), params.get("client_secret")
    if authorization is None:
        if app_id is None:
            raise Refusal("invalid_request", "no client authentication mechanism provided")
        return app_id, secret
    header_id, header_secret = _basic(authorization)
    if secret is not None:
        raise Refusal("invalid_request", "client authentication must only be provided using one mechanism")
    if app_id is not None and app_id != header_id:
        raise Refusal("invalid_request", "mismatch in body and authorization client ids")
    return header_id, header_secret


def _basic(authorization: str) -> tuple[str, str]:
    """Return id and secret of an `Authorization: Basic` header; each is form-urlencoded inside (RFC 6749 §2.3.1)."""
    scheme, _, encoded = authorization.partition(" ")
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
    except ValueError:  # of base64, of UTF-8, or for a character beyond ASCII
        text = ""
    if scheme.lower() != "basic" or ":" not in text:
        raise Refusal("invalid_request", "invalid authorization header value format")
    app_id, _, secret = text.partition(":")
    return unquote_plus(app_id), unquote_plus(secret)


def _wrong_client() -> Refusal:
    return Refusal("invalid_client", "client authentication failed", status=401, challenge="Basic")

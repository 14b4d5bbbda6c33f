"""Decide whether an access token that a caller brings is true (RFC 9068 §4). It knows no network, clock or guard.

Whom a token is for and what it allows is not decided here: guards ask its claims for that at each use. What the issuer
says of an opaque token (RFC 7662) is held to the same rules, as far as it says anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from logto_asgi.claims import AccessTokenClaims
from logto_asgi.errors import VerificationError
from logto_asgi.oidc.claim_rules import (
    Claims,
    Shape,
    check_shapes,
    has_begun,
    is_audience,
    is_subject,
    is_text,
    is_time,
    is_unexpired,
    was_issued,
    whole_seconds,
)
from logto_asgi.oidc.jose import open_with, split_token
from logto_asgi.oidc.keys import KeySet, PublicKey

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig
    from logto_asgi.oidc.metadata import ProviderMetadata

__all__ = ["read_introspected_claims", "verify_access_token"]

_TYPES = frozenset({"at+jwt", "application/at+jwt"})
_SCOPE = re.compile(r"[ !#-\[\]-~]*", re.ASCII)
"""Words of RFC 6749 §3.3, parted by spaces. No other character that some function takes for a space."""


def verify_access_token(
    raw: str, *, keys: KeySet, metadata: ProviderMetadata, config: LogtoConfig, now: float
) -> tuple[AccessTokenClaims, PublicKey]:
    """Return the claims of an access token that passes every check but the audience's, and the key that signed it.

    Times are in seconds. Raise `KeyNotFound` when the key set lacks the key, `VerificationError`, whose `check` names
    the failed one, otherwise (RFC 9068 §4).
    """
    token = split_token(raw, allowed=metadata.id_token_signing_alg_values_supported)
    if token.typ is None or token.typ.lower() not in _TYPES:
        raise VerificationError("typ", _ANOTHER_KIND)
    key = keys.find(kid=token.kid, alg=token.alg)
    claims = open_with(token, key)
    check_shapes(claims, _SHAPES, "access token")
    return _judge(claims, _CHECKS, config, now), key


def read_introspected_claims(answer: Claims, *, config: LogtoConfig, now: float, lifetime: int) -> AccessTokenClaims:
    """Return the claims of an active token as the issuer told them (RFC 7662 §2.2).

    What is not said is filled in: `iss` is the issuer that was asked, `iat` is now, `exp` is `lifetime` seconds from
    now, `aud` is nothing at all. Without `sub` the token belongs to nobody but its client, so that is its `sub` too.
    Raise `VerificationError` for a token that is none for an API, such as a refresh token, or not valid now.
    """
    told = {name: value for name, value in answer.items() if name != "active" and value is not None}
    check_shapes(told, _INTROSPECTED_SHAPES, "access token")
    exp = int(now) + max(lifetime, 1)
    defaults = {"iss": config.issuer, "sub": told["client_id"], "iat": int(now), "exp": exp, "aud": ()}
    return _judge({**defaults, **told}, _INTROSPECTED_CHECKS, config, now)


def _judge(claims: Claims, checks: Iterable[_Check], config: LogtoConfig, now: float) -> AccessTokenClaims:
    for name, holds, message in checks:
        if not holds(claims, config, now):
            raise VerificationError(name, message)
    try:
        return AccessTokenClaims.parse(whole_seconds(claims))
    except ValueError as error:
        fault = str(error)
    raise VerificationError("claims", f"The access token is not acceptable: {fault}.")


def _is_scope(value: Any) -> bool:
    return isinstance(value, str) and _SCOPE.fullmatch(value) is not None


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_for_access(claims: Claims, config: LogtoConfig, now: float) -> bool:
    # Issuers tell of refresh tokens too, without `token_type` (oidc-provider) or with `token_use` (Hydra).
    return (claims["token_type"].lower(), claims.get("token_use", "access_token")) == ("bearer", "access_token")


_OPTIONAL_SHAPES: tuple[Shape, ...] = (
    ("nbf", False, is_time),
    ("jti", False, is_text),
    ("scope", False, _is_scope),
    ("organization_id", False, is_text),
    ("auth_time", False, is_time),
    ("act", False, _is_object),
)

_SHAPES: tuple[Shape, ...] = (
    ("iss", True, is_text),
    ("sub", True, is_subject),
    ("aud", True, is_audience),
    ("exp", True, is_time),
    ("iat", True, is_time),
    ("client_id", True, is_text),
    *_OPTIONAL_SHAPES,
)

_INTROSPECTED_SHAPES: tuple[Shape, ...] = (
    ("token_type", True, is_text),
    ("client_id", True, is_text),
    ("iss", False, is_text),
    ("sub", False, is_subject),
    ("aud", False, is_audience),
    ("exp", False, is_time),
    ("iat", False, is_time),
    *_OPTIONAL_SHAPES,
)

_ANOTHER_KIND = (
    "This is no access token for an API: its header does not say `at+jwt`. Is it an ID token? "
    "Ask the issuer for an access token with `resource`, and send that."
)
_EXPIRED = "The access token has expired."
_Check = tuple[str, Callable[[Claims, "LogtoConfig", float], bool], str]

_TIME_CHECKS: tuple[_Check, ...] = (
    ("exp", lambda c, config, now: is_unexpired(c, now, config.clock_leeway), _EXPIRED),
    ("iat", lambda c, config, now: was_issued(c, now, config.clock_leeway), "The access token is from the future."),
    ("nbf", lambda c, config, now: has_begun(c, now, config.clock_leeway), "The access token is not valid yet."),
)

_CHECKS: tuple[_Check, ...] = (
    ("iss", lambda c, config, now: c["iss"] == config.issuer, "The access token comes from another issuer."),
    # An issuer that signs all its tokens with one key and forgets `typ` would still not put these into one of ours.
    ("nonce", lambda c, config, now: "nonce" not in c, "This is no access token but an ID token: it has a `nonce`."),
    ("events", lambda c, config, now: "events" not in c, "This is no access token: it tells of an event."),
    *_TIME_CHECKS,
)

_INTROSPECTED_CHECKS: tuple[_Check, ...] = (
    ("token_type", _is_for_access, "The issuer does not call this an access token. Is it a refresh token?"),
    ("iss", lambda c, config, now: c["iss"] == config.issuer, "The access token comes from another issuer."),
    *_TIME_CHECKS,
)

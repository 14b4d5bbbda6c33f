"""Decide whether an ID token is true and meant for us (OpenID Connect Core §3.1.3.7). It knows no network and no clock.

The rules are tables: what type each claim has, and one function per check, run in order.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from logto_asgi.claims import IdTokenClaims
from logto_asgi.errors import VerificationError
from logto_asgi.oidc.claim_rules import (
    Claims,
    Shape,
    audiences,
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
from logto_asgi.oidc.jose import open_signed, split_token
from logto_asgi.oidc.keys import ALGORITHMS, KeyNotFound, KeySet

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig
    from logto_asgi.oidc.metadata import ProviderMetadata

__all__ = ["KeyNotFound", "same_text", "verify_id_token", "verify_refreshed_id_token"]


@dataclass(frozen=True, slots=True)
class _Expected:
    issuer: str
    client_id: str
    now: float
    leeway: float
    alg: str
    nonce: str | None = field(repr=False)
    max_age: int | None
    access_token: str | None = field(repr=False)
    code: str | None = field(repr=False)


def verify_id_token(
    raw: str,
    *,
    keys: KeySet,
    metadata: ProviderMetadata,
    config: LogtoConfig,
    now: float,
    nonce: str | None = None,
    max_age: int | None = None,
    access_token: str | None = None,
    code: str | None = None,
) -> IdTokenClaims:
    """Return the claims of an ID token that passes every check (Core §3.1.3.7).

    Times are in seconds. `nonce` and `max_age` are compared when given; `at_hash` and `c_hash` when the token has them
    and their subject is given (Core §3.1.3.6, §3.3.2.11). Raise `KeyNotFound` when the key set lacks the key,
    `VerificationError`, whose `check` names the failed one, otherwise.
    """
    token = split_token(raw, allowed=metadata.id_token_signing_alg_values_supported)
    if token.typ is not None and token.typ.lower() != "jwt":
        raise VerificationError("typ", "The token is not an ID token but one of another kind.")
    claims = open_signed(token, keys=keys)
    expected = _Expected(
        issuer=config.issuer,
        client_id=config.app_id,
        now=now,
        leeway=config.clock_leeway,
        alg=token.alg,
        nonce=nonce,
        max_age=max_age,
        access_token=access_token,
        code=code,
    )
    check_shapes(claims, _SHAPES, "ID token")
    for name, holds, message in _CHECKS:
        if not holds(claims, expected):
            raise VerificationError(name, message)
    return _parse(claims)


def verify_refreshed_id_token(
    raw: str,
    *,
    previous: IdTokenClaims,
    keys: KeySet,
    metadata: ProviderMetadata,
    config: LogtoConfig,
    now: float,
    access_token: str | None = None,
) -> IdTokenClaims:
    """Return the claims of an ID token that came with a refresh and continues `previous` (Core §12.2).

    Everything that `verify_id_token` checks, and `iss`, `sub`, `aud` and `azp` are what they were; a nonce, if there
    is one, is the original.
    """
    claims = verify_id_token(raw, keys=keys, metadata=metadata, config=config, now=now, access_token=access_token)
    for name, holds in _CONTINUITY:
        if not holds(claims, previous):
            raise VerificationError(name, f"The refreshed ID token has another `{name}` than the one from sign-in.")
    return claims


def same_text(left: str, right: str) -> bool:
    """Compare two texts in a time that tells nothing about where they differ."""
    return hmac.compare_digest(left.encode(), right.encode())


_SHAPES: tuple[Shape, ...] = (
    ("iss", True, is_text),
    ("sub", True, is_subject),
    ("aud", True, is_audience),
    ("exp", True, is_time),
    ("iat", True, is_time),
    ("nbf", False, is_time),
    ("auth_time", False, is_time),
    ("nonce", False, is_text),
    ("azp", False, is_text),
    ("at_hash", False, is_text),
    ("c_hash", False, is_text),
    ("sid", False, is_text),
)


def _is_ours_alone(claims: Claims, expected: _Expected) -> bool:
    # Core §3.1.3.7 step 3: other audiences must be trusted; they are when the token was issued to us (azp).
    return len(audiences(claims["aud"])) == 1 or "azp" in claims


def _nonce_fits(claims: Claims, expected: _Expected) -> bool:
    return expected.nonce is None or ("nonce" in claims and same_text(claims["nonce"], expected.nonce))


def _sign_in_is_recent(claims: Claims, expected: _Expected) -> bool:
    if expected.max_age is None:
        return True
    age = expected.now - claims["auth_time"] if "auth_time" in claims else None
    return age is not None and -expected.leeway <= age <= expected.max_age + expected.leeway


def _hash_fits(claim: str, subject: Callable[[_Expected], str | None]) -> Callable[[Claims, _Expected], bool]:
    def holds(claims: Claims, expected: _Expected) -> bool:
        text = subject(expected)
        return claim not in claims or text is None or same_text(claims[claim], _half_hash(text, expected.alg))

    return holds


def _half_hash(text: str, alg: str) -> str:
    digest = hashlib.new(ALGORITHMS[alg].digest, text.encode()).digest()
    return base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()


_CHECKS: tuple[tuple[str, Callable[[Claims, _Expected], bool], str], ...] = (
    ("iss", lambda c, e: c["iss"] == e.issuer, "The ID token comes from another issuer."),
    ("aud", lambda c, e: e.client_id in audiences(c["aud"]), "The ID token is for another app."),
    ("azp", lambda c, e: c.get("azp", e.client_id) == e.client_id, "The ID token was issued to another app."),
    ("aud", _is_ours_alone, "The ID token is for several apps and does not say that it was issued to this one."),
    ("exp", lambda c, e: is_unexpired(c, e.now, e.leeway), "The ID token has expired. Is this machine's clock right?"),
    (
        "iat",
        lambda c, e: was_issued(c, e.now, e.leeway),
        "The ID token is from the future. Is this machine's clock right?",
    ),
    ("nbf", lambda c, e: has_begun(c, e.now, e.leeway), "The ID token is not valid yet."),
    ("nonce", _nonce_fits, "The ID token belongs to another sign-in."),
    (
        "auth_time",
        _sign_in_is_recent,
        "The sign-in at the issuer is older than was asked for, or of unknown age.",
    ),
    ("at_hash", _hash_fits("at_hash", lambda e: e.access_token), "The ID token came with another access token."),
    ("c_hash", _hash_fits("c_hash", lambda e: e.code), "The ID token came with another code."),
)

_CONTINUITY: tuple[tuple[str, Callable[[IdTokenClaims, IdTokenClaims], bool]], ...] = (
    ("iss", lambda new, old: new.iss == old.iss),
    ("sub", lambda new, old: new.sub == old.sub),
    ("aud", lambda new, old: audiences(new.aud) == audiences(old.aud)),
    ("azp", lambda new, old: new.azp == old.azp),
    ("nonce", lambda new, old: new.nonce is None or new.nonce == old.nonce),
)


def _parse(claims: Claims) -> IdTokenClaims:
    try:
        return IdTokenClaims.parse(whole_seconds(claims))
    except ValueError as error:
        fault = str(error)
    raise VerificationError("claims", f"The ID token is not acceptable: {fault}.")

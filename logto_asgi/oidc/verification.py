"""Decide whether an ID token is true and meant for us (OpenID Connect Core §3.1.3.7). It knows no network and no clock.

The rules are tables: what type each claim has, and one function per check, run in order.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from logto_asgi.claims import IdTokenClaims
from logto_asgi.errors import VerificationError
from logto_asgi.oidc.jose import open_signed, split_token
from logto_asgi.oidc.keys import ALGORITHMS, KeyNotFound, KeySet

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig
    from logto_asgi.oidc.metadata import ProviderMetadata

__all__ = ["KeyNotFound", "same_text", "verify_id_token", "verify_refreshed_id_token"]

_LATEST = 253_402_300_799
"""The end of the year 9999. What lies beyond is no time."""
_MAX_SUB = 255
"""Characters (Core §2)."""


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


_Claims = Mapping[str, Any]


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
    _check_shapes(claims)
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


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_subject(value: Any) -> bool:
    return _is_text(value) and len(value) <= _MAX_SUB


def _is_audience(value: Any) -> bool:
    return _is_text(value) or (isinstance(value, list) and bool(value) and all(map(_is_text, value)))


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LATEST


_SHAPES: tuple[tuple[str, bool, Callable[[Any], bool]], ...] = (
    # claim, required, its type
    ("iss", True, _is_text),
    ("sub", True, _is_subject),
    ("aud", True, _is_audience),
    ("exp", True, _is_time),
    ("iat", True, _is_time),
    ("nbf", False, _is_time),
    ("auth_time", False, _is_time),
    ("nonce", False, _is_text),
    ("azp", False, _is_text),
    ("at_hash", False, _is_text),
    ("c_hash", False, _is_text),
    ("sid", False, _is_text),
)


def _check_shapes(claims: _Claims) -> None:
    for name, required, is_right in _SHAPES:
        if name not in claims:
            if required:
                raise VerificationError(name, f"The ID token has no `{name}`.")
        elif not is_right(claims[name]):
            raise VerificationError(name, f"The ID token's `{name}` has the wrong type or size.")


def _audiences(value: str | list[str] | tuple[str, ...]) -> frozenset[str]:
    return frozenset([value] if isinstance(value, str) else value)


def _is_ours_alone(claims: _Claims, expected: _Expected) -> bool:
    # Core §3.1.3.7 step 3: other audiences must be trusted; they are when the token was issued to us (azp).
    return len(_audiences(claims["aud"])) == 1 or "azp" in claims


def _nonce_fits(claims: _Claims, expected: _Expected) -> bool:
    return expected.nonce is None or ("nonce" in claims and same_text(claims["nonce"], expected.nonce))


def _sign_in_is_recent(claims: _Claims, expected: _Expected) -> bool:
    if expected.max_age is None:
        return True
    age = expected.now - claims["auth_time"] if "auth_time" in claims else None
    return age is not None and -expected.leeway <= age <= expected.max_age + expected.leeway


def _hash_fits(claim: str, subject: Callable[[_Expected], str | None]) -> Callable[[_Claims, _Expected], bool]:
    def holds(claims: _Claims, expected: _Expected) -> bool:
        text = subject(expected)
        return claim not in claims or text is None or same_text(claims[claim], _half_hash(text, expected.alg))

    return holds


def _half_hash(text: str, alg: str) -> str:
    digest = hashlib.new(ALGORITHMS[alg].digest, text.encode()).digest()
    return base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()


_CHECKS: tuple[tuple[str, Callable[[_Claims, _Expected], bool], str], ...] = (
    ("iss", lambda c, e: c["iss"] == e.issuer, "The ID token comes from another issuer."),
    ("aud", lambda c, e: e.client_id in _audiences(c["aud"]), "The ID token is for another app."),
    ("azp", lambda c, e: c.get("azp", e.client_id) == e.client_id, "The ID token was issued to another app."),
    ("aud", _is_ours_alone, "The ID token is for several apps and does not say that it was issued to this one."),
    ("exp", lambda c, e: e.now < c["exp"] + e.leeway, "The ID token has expired. Is this machine's clock right?"),
    (
        "iat",
        lambda c, e: c["iat"] <= e.now + e.leeway,
        "The ID token is from the future. Is this machine's clock right?",
    ),
    ("nbf", lambda c, e: c.get("nbf", 0) <= e.now + e.leeway, "The ID token is not valid yet."),
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
    ("aud", lambda new, old: _audiences(new.aud) == _audiences(old.aud)),
    ("azp", lambda new, old: new.azp == old.azp),
    ("nonce", lambda new, old: new.nonce is None or new.nonce == old.nonce),
)


def _parse(claims: _Claims) -> IdTokenClaims:
    # Times may have a fraction (RFC 7519 §2); whole seconds are what the models hold.
    whole = {name: int(claims[name]) for name in ("exp", "iat", "nbf", "auth_time") if name in claims}
    try:
        return IdTokenClaims.parse({**claims, **whole})
    except ValueError as error:
        fault = str(error)
    raise VerificationError("claims", f"The ID token is not acceptable: {fault}.")

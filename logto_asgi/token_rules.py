"""Which access token is it: what a token answer gave, for how long, and whether it is what was asked. Pure."""

from __future__ import annotations

from logto_asgi.claims import organization_urn
from logto_asgi.errors import AccessTokenMismatch
from logto_asgi.models import AccessToken, TokenSet
from logto_asgi.oidc.peek import read_unverified_claims

__all__ = ["REFUSALS_OF_ONE_TOKEN", "TokenKey", "access_token_of", "margin_of", "refusal_of"]

TokenKey = tuple[str | None, str | None]
"""What a token is for: resource and organization, both optional."""

REFUSALS_OF_ONE_TOKEN = frozenset({"invalid_target", "insufficient_scope", "access_denied", "invalid_scope"})
"""Errors of the token endpoint that say no to this token, and nothing about the session."""

_DEFAULT_LIFETIME = 300
"""Seconds that a token without `expires_in` and without `exp` is taken to live."""


def access_token_of(tokens: TokenSet, key: TokenKey, *, now: int, strict: bool) -> AccessToken:
    """Return the access token of an answer as one to keep; `now` is in seconds since 1970.

    Raise `AccessTokenMismatch` for a token that is for something else. With `strict`, a token for a resource or
    organization must be a JWT, as Logto's are: it answers some mistakes with 200 and an opaque token.
    """
    resource, organization_id = key
    claims = read_unverified_claims(tokens.access_token)
    _check_made_for(claims, key, strict=strict)
    return AccessToken(
        value=tokens.access_token,
        expires_at=_expiry(tokens, claims, now),
        scopes=_scopes(tokens, claims),
        resource=resource,
        organization_id=organization_id,
        issued_at=now,
        used_at=now,
    )


def margin_of(token: AccessToken, *, margin: int, min_ttl: int | None) -> int:
    """Return how many seconds before its end a token is renewed: the `margin`, or what `min_ttl` asks for."""
    life = token.expires_at - token.issued_at
    # A token that lives shorter than twice the margin would never be used: half its life is the margin then.
    margin = min(margin, life // 2)
    # Nor would one that never lives as long as somebody asks: it is used while it is new.
    return margin if min_ttl is None else max(margin, min(min_ttl, life * 9 // 10))


def _check_made_for(claims: dict[str, object] | None, key: TokenKey, *, strict: bool) -> None:
    resource, organization_id = key
    wanted = resource if organization_id is None else resource or organization_urn(organization_id)
    if wanted is None or (claims is None and not strict):
        return
    audience = (claims or {}).get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if wanted not in audiences:
        raise AccessTokenMismatch(
            f"The issuer's token is not for {wanted!r}. Check that this API resource or organization exists in Logto's "
            "console under exactly that name, and that the application may use it."
        )
    if resource and (claims or {}).get("organization_id") != organization_id:
        raise AccessTokenMismatch(
            f"The issuer's token for {resource!r} belongs to another organization than the one asked for. "
            "Check in Logto's console that the user is a member of the organization."
        )


def _expiry(tokens: TokenSet, claims: dict[str, object] | None, now: int) -> int:
    if tokens.expires_in is not None:
        return now + tokens.expires_in
    expires = (claims or {}).get("exp")
    return int(expires) if isinstance(expires, int | float) else now + _DEFAULT_LIFETIME


def _scopes(tokens: TokenSet, claims: dict[str, object] | None) -> tuple[str, ...]:
    scope = tokens.scope if tokens.scope is not None else (claims or {}).get("scope")
    return tuple(scope.split()) if isinstance(scope, str) else ()


def refusal_of(error: str, resource: str | None, organization_id: str | None) -> str:
    """Say in a sentence why there is no token, and what to do. `error` is one of `REFUSALS_OF_ONE_TOKEN`."""
    what = " and ".join(
        [*([f"resource {resource!r}"] if resource else []), *(["this organization"] if organization_id else [])]
    )
    remedy = {
        "invalid_target": "Register it as an API resource in Logto's console, list it in LogtoConfig(resources=…), "
        "and sign in again.",
        "insufficient_scope": "Add urn:logto:scope:organizations to LogtoConfig(scopes=…), and sign in again.",
        "access_denied": "Check in Logto's console that the user is a member and that multi-factor rules are met.",
        "invalid_scope": "Check the scopes of the API resource in Logto's console.",
    }[error]
    return f"The issuer gives no access token for {what or 'this user'} ({error}). {remedy}"

"""Sessions and pending sign-ins as small JSON objects, and back. Knows neither sealing nor cookies.

What comes back was opened before and is ours; still every field is looked at, and any fault is a `ValueError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from logto_asgi.claims import IdTokenClaims
from logto_asgi.models import AccessToken, PendingSignIn, Session

__all__ = ["dump_access_token", "dump_pending", "dump_session", "parse_pending", "parse_session"]

_T = TypeVar("_T")


def dump_session(session: Session, access_tokens: Iterable[list[Any]] = ()) -> dict[str, Any]:
    """Return the session without its access tokens, and those given as `dump_access_token` returns them."""
    payload = {
        "s": session.id,
        "n": session.version,
        "t": session.created_at,
        "r": session.sealed_at,
        "c": session.claims.raw(),
        "o": " ".join(session.scopes),
        "a": list(access_tokens),
        "k": session.checked_at,
    }
    if session.refresh_token is not None:
        payload["f"] = session.refresh_token
    if session.id_token is not None:
        payload["h"] = session.id_token
    return payload


def dump_access_token(token: AccessToken) -> list[Any]:
    """Return an access token as a list, shorter than an object."""
    scopes = " ".join(token.scopes)
    times = [token.expires_at, token.issued_at, token.used_at]
    return [token.value, *times, scopes, token.resource, token.organization_id]


def parse_session(payload: Mapping[str, Any]) -> Session:
    """Return the session of a payload that `dump_session` made. Raise `ValueError` for any other."""
    tokens = [_access_token(item) for item in _of(list, payload.get("a"))]
    return Session(
        id=_of(str, payload.get("s")),
        version=_whole(payload.get("n")),
        created_at=_whole(payload.get("t")),
        sealed_at=_whole(payload.get("r")),
        claims=_claims(payload.get("c")),
        scopes=tuple(_of(str, payload.get("o")).split()),
        refresh_token=_optional(_text, payload.get("f")),
        id_token=_optional(_text, payload.get("h")),
        access_tokens=MappingProxyType({token.key: token for token in tokens}),
        checked_at=_whole(payload.get("k", 0)),
    )


def _access_token(item: Any) -> AccessToken:
    if not isinstance(item, list) or len(item) != 7:
        raise ValueError("not an access token")
    value, expires_at, issued_at, used_at, scopes, resource, organization_id = item
    return AccessToken(
        value=_of(str, value),
        expires_at=_whole(expires_at),
        issued_at=_whole(issued_at),
        used_at=_whole(used_at),
        scopes=tuple(_of(str, scopes).split()),
        resource=_optional(_text, resource),
        organization_id=_optional(_text, organization_id),
    )


def _claims(value: Any) -> IdTokenClaims:
    return IdTokenClaims.parse(_of(dict, value))


def dump_pending(pending: PendingSignIn) -> dict[str, Any]:
    """Return an attempt to sign in."""
    payload = {
        "s": pending.state,
        "n": pending.nonce,
        "v": pending.code_verifier,
        "u": pending.redirect_uri,
        "b": pending.return_to,
        "t": pending.created_at,
    }
    if pending.max_age is not None:
        payload["m"] = pending.max_age
    return payload


def parse_pending(payload: Mapping[str, Any]) -> PendingSignIn:
    """Return the attempt of a payload that `dump_pending` made. Raise `ValueError` for any other."""
    return PendingSignIn(
        state=_of(str, payload.get("s")),
        nonce=_of(str, payload.get("n")),
        code_verifier=_of(str, payload.get("v")),
        redirect_uri=_of(str, payload.get("u")),
        return_to=_of(str, payload.get("b")),
        created_at=_whole(payload.get("t")),
        max_age=_optional(_whole, payload.get("m")),
    )


def _of(kind: type[_T], value: Any) -> _T:
    if not isinstance(value, kind):
        raise ValueError(f"not a {kind.__name__}")
    return value


def _text(value: Any) -> str:
    return _of(str, value)


def _whole(value: Any) -> int:
    if isinstance(value, bool):
        raise ValueError("not an int")
    return _of(int, value)


def _optional(parse: Callable[[Any], _T], value: Any) -> _T | None:
    return None if value is None else parse(value)

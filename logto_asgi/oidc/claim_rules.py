"""What tokens have in common: the type that each claim must have, and how times compare. It knows no kind of token."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from logto_asgi.errors import VerificationError

__all__ = [
    "Claims",
    "Shape",
    "audiences",
    "check_shapes",
    "has_begun",
    "is_audience",
    "is_subject",
    "is_text",
    "is_time",
    "is_unexpired",
    "was_issued",
    "whole_seconds",
]

Claims = Mapping[str, Any]
Shape = tuple[str, bool, Callable[[Any], bool]]
"""A claim, whether it is required, and whether a value has its type."""

_LATEST = 253_402_300_799
"""The end of the year 9999. What lies beyond is no time."""
_MAX_SUB = 255
"""Characters (OpenID Connect Core §2)."""
_TIMES = ("exp", "iat", "nbf", "auth_time")


def check_shapes(claims: Claims, shapes: Iterable[Shape], what: str) -> None:
    """Raise `VerificationError` for a claim that lacks or has the wrong type; `what` names the token in its message."""
    for name, required, is_right in shapes:
        if name not in claims:
            if required:
                raise VerificationError(name, f"The {what} has no `{name}`.")
        elif not is_right(claims[name]):
            raise VerificationError(name, f"The {what}'s `{name}` has the wrong type or size.")


def is_text(value: Any) -> bool:
    """Tell whether it is a string with something in it."""
    return isinstance(value, str) and value != ""


def is_subject(value: Any) -> bool:
    """Tell whether it can be a `sub`."""
    return is_text(value) and len(value) <= _MAX_SUB


def is_audience(value: Any) -> bool:
    """Tell whether it can be an `aud`: a string, or a list of some (RFC 7519 §4.1.3)."""
    return is_text(value) or (isinstance(value, list) and bool(value) and all(map(is_text, value)))


def is_time(value: Any) -> bool:
    """Tell whether it can be a time in seconds since 1970, with or without a fraction (RFC 7519 §2)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LATEST


def is_unexpired(claims: Claims, now: float, leeway: float) -> bool:
    """Compare `exp` (RFC 7519 §4.1.4)."""
    return bool(now < claims["exp"] + leeway)


def was_issued(claims: Claims, now: float, leeway: float) -> bool:
    """Compare `iat`, which must not lie in the future (RFC 7519 §4.1.6)."""
    return bool(claims["iat"] <= now + leeway)


def has_begun(claims: Claims, now: float, leeway: float) -> bool:
    """Compare `nbf`, if it is there (RFC 7519 §4.1.5)."""
    return bool(claims.get("nbf", 0) <= now + leeway)


def audiences(value: str | Iterable[str]) -> frozenset[str]:
    """Return the values of an `aud`."""
    return frozenset([value] if isinstance(value, str) else value)


def whole_seconds(claims: Claims) -> dict[str, Any]:
    """Return the claims with times cut to whole seconds, which is what the models hold."""
    return {**claims, **{name: int(claims[name]) for name in _TIMES if name in claims}}

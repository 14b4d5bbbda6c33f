"""What an issuer says about itself, read strictly (OpenID Connect Discovery §3, RFC 8414 §2). It knows no network."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from logto_asgi.config import is_loopback
from logto_asgi.errors import IssuerResponseInvalid
from logto_asgi.oidc.keys import ALGORITHMS

__all__ = ["ProviderMetadata", "discovery_url", "parse_metadata"]

_URL = re.compile(r"https?://[!#-;=?-\[\]_a-z~%]{1,2000}", re.ASCII)
"""Printable ASCII without space, quotes, angle brackets, backslash, caret, backtick, braces and bar (RFC 3986 §2)."""


@dataclass(frozen=True, slots=True)
class ProviderMetadata:
    """The part of a discovery document that this library uses. Every URL in it is https, or http on loopback."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    id_token_signing_alg_values_supported: tuple[str, ...]
    """Only those that are asymmetric and known to us; never empty."""
    userinfo_endpoint: str | None = None
    end_session_endpoint: str | None = None
    revocation_endpoint: str | None = None
    introspection_endpoint: str | None = None
    authorization_response_iss_parameter_supported: bool = False
    backchannel_logout_supported: bool = False
    backchannel_logout_session_supported: bool = False


def discovery_url(issuer: str) -> str:
    """Return where the issuer's document lies (Discovery §4)."""
    return issuer.rstrip("/") + "/.well-known/openid-configuration"


def parse_metadata(document: Mapping[str, Any], *, issuer: str) -> ProviderMetadata:
    """Read a discovery document that must be `issuer`'s, to the letter (Discovery §4.3).

    Raise `IssuerResponseInvalid`, which names the field and, where the configuration can be at fault, the remedy.
    """
    if document.get("issuer") != issuer:
        raise IssuerResponseInvalid(_another_issuer(document.get("issuer"), issuer))
    values = {name: _read(document, name, required, parse) for name, required, parse in _FIELDS}
    return ProviderMetadata(issuer=issuer, **{name: value for name, value in values.items() if value is not None})


def _read(document: Mapping[str, Any], name: str, required: bool, parse: Callable[[Any], Any]) -> Any:
    value = document.get(name)
    if value is None:
        if required:
            raise IssuerResponseInvalid(f"The issuer's discovery document has no `{name}`.")
        return None
    try:
        return parse(value)
    except ValueError as error:
        fault = str(error)
    raise IssuerResponseInvalid(f"The issuer's discovery document has a bad `{name}`: {fault}")


def _endpoint(value: Any) -> str:
    if not isinstance(value, str) or not _URL.fullmatch(value):
        raise ValueError("it is not a URL.")
    parts = urlsplit(value)
    if not parts.hostname or parts.fragment or "@" in parts.netloc:
        raise ValueError("it lacks a host, or has a fragment or a user name.")
    if parts.scheme != "https" and not is_loopback(parts.hostname):
        raise ValueError("it is plain http to another machine.")
    return value


def _algorithms(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("it is not a list of strings.")
    usable = tuple(item for item in value if item in ALGORITHMS)
    if not usable:
        raise ValueError(
            f"none of it is asymmetric. Let the issuer sign ID tokens with one of {', '.join(ALGORITHMS)}."
        )
    return usable


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("it is not true or false.")
    return value


_FIELDS: tuple[tuple[str, bool, Callable[[Any], Any]], ...] = (
    # field, required, how it is read
    ("authorization_endpoint", True, _endpoint),
    ("token_endpoint", True, _endpoint),
    ("jwks_uri", True, _endpoint),
    ("id_token_signing_alg_values_supported", True, _algorithms),
    ("userinfo_endpoint", False, _endpoint),
    ("end_session_endpoint", False, _endpoint),
    ("revocation_endpoint", False, _endpoint),
    ("introspection_endpoint", False, _endpoint),
    ("authorization_response_iss_parameter_supported", False, _flag),
    ("backchannel_logout_supported", False, _flag),
    ("backchannel_logout_session_supported", False, _flag),
)


def _another_issuer(found: Any, configured: str) -> str:
    shown = found if isinstance(found, str) and len(found) <= 200 and _URL.fullmatch(found) else None
    if shown is None:
        return f"The discovery document of {configured} names no issuer. Check LOGTO_ENDPOINT or LOGTO_ISSUER."
    return (
        f"The configuration says that the issuer is {configured}, but its discovery document says {shown}. "
        "Set LOGTO_ENDPOINT (or LOGTO_ISSUER) to the address that the issuer uses for itself, letter for letter."
    )

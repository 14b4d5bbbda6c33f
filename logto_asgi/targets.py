"""What a token of the app's own is asked for: resource, organization and scopes; and why there is none. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from logto_asgi.claims import is_organization_id
from logto_asgi.errors import AccessTokenRefused, SetupError
from logto_asgi.token_rules import TokenKey

__all__ = [
    "Target",
    "check_token",
    "check_token_type",
    "refusal_of_exchange",
    "refusal_of_machine",
    "target_of",
]

_RESOURCE = re.compile(r"[!-~]{1,2048}", re.ASCII)
_SCOPE = re.compile(r"[!#-\[\]-~]{1,256}", re.ASCII)
"""RFC 6749 §3.3."""
_TOKEN = re.compile(r"[!-~]{1,16384}", re.ASCII)
_TOKEN_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]{1,256}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Target:
    """What a token is for, and by which it is kept."""

    resource: str | None
    organization_id: str | None
    scopes: frozenset[str]
    caller: bytes = b""
    """The SHA-256 of the token that is exchanged; empty where the app asks for itself."""

    @property
    def key(self) -> TokenKey:
        """What an answer's audience is compared with."""
        return self.resource, self.organization_id

    @property
    def scope(self) -> str | None:
        """The scopes as they are sent; None for none."""
        return " ".join(sorted(self.scopes)) or None


def target_of(
    resource: str | None, organization_id: str | None, scopes: Iterable[str] | str, caller: bytes = b""
) -> Target:
    """Check what an app asks for. `scopes` may be one string with spaces.

    Raise `SetupError`, and `AccessTokenRefused` for an organization's id, which often comes from a path or query.
    """
    if resource is not None and not _RESOURCE.fullmatch(resource):
        raise SetupError("A resource is a URI of printable ASCII characters, such as https://api.example.com.")
    if organization_id is not None and not is_organization_id(organization_id):
        raise AccessTokenRefused("There is no organization with this id.", error="invalid_request")
    names = frozenset(scopes.split(" ") if isinstance(scopes, str) else scopes) - {""}
    if not all(_SCOPE.fullmatch(name) for name in names):
        raise SetupError("A scope holds printable ASCII characters, no spaces, quotes or backslashes (RFC 6749 §3.3).")
    return Target(resource, organization_id, names, caller)


def check_token(token: str) -> None:
    """Raise `AccessTokenRefused`, without the token, for a text that no issuer would have made."""
    if not _TOKEN.fullmatch(token):
        raise AccessTokenRefused("This is no token that could be exchanged.", error="invalid_request")


def check_token_type(name: str) -> None:
    """Raise `SetupError` for what is no URI (RFC 8693 §3)."""
    if not _TOKEN_TYPE.fullmatch(name):
        raise SetupError("The type of a token is a URI: use one of SubjectTokenType (RFC 8693 §3).")


def refusal_of_machine(error: str, target: Target) -> str | None:
    """Say in a sentence why the app itself gets no token; None for an error that is not about this token."""
    return _sentence(error, target, _OF_MACHINES)


def refusal_of_exchange(error: str, target: Target) -> str | None:
    """Say in a sentence why nothing is given in exchange; None for an error that is not about this token."""
    return _sentence(error, target, _OF_EXCHANGES)


_OF_MACHINES: Mapping[str, str] = {
    "invalid_target": "Register it in Logto's console as an API resource, under exactly that name.",
    "access_denied": "Check in Logto's console that the application is a member of the organization.",
    "invalid_scope": "Check the scopes of the API resource, and the roles of the application, in Logto's console.",
    "insufficient_scope": "Give the application a machine-to-machine role with these permissions in Logto's console.",
    "unauthorized_client": "Use the id and the secret of an application of the type machine-to-machine.",
    # What Logto's engine answers for a grant that an application may not use, and for a secret that has expired.
    "invalid_request": "Is the application of the type machine-to-machine? Then its secret may have expired.",
}
_OF_EXCHANGES: Mapping[str, str] = {
    "invalid_target": "Register it in Logto's console as an API resource, under exactly that name.",
    "access_denied": "Check in Logto's console that the user is a member and that multi-factor rules are met.",
    "invalid_scope": "Check the scopes of the API resource in Logto's console.",
    "insufficient_scope": "The token that is exchanged allows less than what was asked for.",
    "unauthorized_client": "Allow token exchange for the application in Logto's console; it must not be third-party.",
    "invalid_request": "Is token exchange allowed for the application? Then its secret may have expired.",
    "invalid_grant": "The token that is exchanged is spent, expired, revoked, or no user's: get another one.",
}


def _sentence(error: str, target: Target, remedies: Mapping[str, str]) -> str | None:
    if error not in remedies:
        return None
    resource = [f"resource {target.resource!r}"] if target.resource else []
    organization = ["this organization"] if target.organization_id else []
    what = " and ".join([*resource, *organization])
    return f"The issuer gives no access token{f' for {what}' if what else ''} ({error}). {remedies[error]}"

"""What a token is asked for by an app's own id and secret, own or exchanged; and why there is none. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from logto_asgi.claims import AccessTokenClaims, is_organization_id
from logto_asgi.errors import AccessTokenRefused, SetupError
from logto_asgi.token_rules import TokenKey

__all__ = [
    "Target",
    "advice",
    "check_token",
    "check_token_type",
    "organization_of_exchange",
    "refusal_of_person",
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
    def size(self) -> int:
        """Characters of what it names, which may come from a path."""
        return sum(map(len, (self.resource or "", self.organization_id or "", *self.scopes)))

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


def organization_of_exchange(caller: AccessTokenClaims, organization_id: str | None, *, is_logto: bool) -> str | None:
    """Return the organization in which a caller is acted for. A token for one opens nothing else, on the way out too.

    1. A machine's token: Logto exchanges those of users only. Raise `AccessTokenRefused`.
    2. A token for no organization: the one that the app names, if any.
    3. A token for one: that one, whether the app names it or none.
    4. Any other: raise `AccessTokenRefused`.
    """
    if is_logto and caller.is_machine:
        raise AccessTokenRefused("A machine's token cannot be exchanged: it stands for no user.", error="invalid_grant")
    if not caller.is_for_organization:
        return organization_id
    if caller.organization is not None and organization_id in (None, caller.organization):
        return caller.organization
    raise AccessTokenRefused("The caller's token is for another organization.", error="access_denied")


def refusal_of_person(error: str, target: Target, *, is_exchange: bool) -> str | None:
    """Say, in words for anybody, why who is asked for gets no token; None where that is the app's own fault."""
    if error == "access_denied" and target.organization_id is not None:
        if is_exchange:
            return "The user is no member of this organization, or its multi-factor rules are not met (access_denied)."
        return "The application is no member of this organization (access_denied)."
    if error == "access_denied" and is_exchange:
        return "The issuer does not let this user have it (access_denied)."
    if error == "invalid_grant" and is_exchange:
        return "The token that is exchanged is spent, expired, revoked, or no user's: get another one (invalid_grant)."
    return None


def advice(error: str, target: Target, *, is_exchange: bool) -> str | None:
    """Say, in words for the app's makers, what to do about a refusal; None for an error that is not about a token."""
    remedy = (_OF_EXCHANGES if is_exchange else _OF_MACHINES).get(error)
    if remedy is None:
        return None
    resource = [f"resource {target.resource!r}"] if target.resource else []
    organization = ["an organization"] if target.organization_id else []
    what = " and ".join([*resource, *organization])
    return f"it gives no access token{f' for {what}' if what else ''} ({error}). {remedy}"


_OF_MACHINES: Mapping[str, str] = {
    "invalid_target": "Register it in Logto's console as an API resource, under exactly that name.",
    "invalid_scope": "Check the scopes of the API resource, and the roles of the application, in Logto's console.",
    "insufficient_scope": "Give the application a machine-to-machine role with these permissions in Logto's console.",
    "unauthorized_client": "Use the id and the secret of an application of the type machine-to-machine.",
    # What Logto's engine answers for a grant that an application may not use, and for a secret that has expired.
    "invalid_request": "Has the application's secret expired? If not, is its type machine-to-machine?",
}
_OF_EXCHANGES: Mapping[str, str] = {
    "invalid_target": "Register it in Logto's console as an API resource, under exactly that name.",
    "invalid_scope": "Check the scopes of the API resource in Logto's console.",
    "insufficient_scope": "The token that is exchanged allows less than what was asked for.",
    "unauthorized_client": "Allow token exchange for the application in Logto's console; it must not be third-party.",
    "invalid_request": "Has the application's secret expired? If not, is token exchange allowed for it?",
}

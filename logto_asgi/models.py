"""Nouns that cross the layers: tokens, a session, a pending sign-in, and Logto's enumerations.

They hold data and check its shape; they know no HTTP, no cookie and no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, SchemaSerializer, core_schema

from logto_asgi.claims import IdTokenClaims

__all__ = [
    "AccessToken",
    "FirstScreen",
    "Identifier",
    "PendingSignIn",
    "Prompt",
    "ReservedResource",
    "ReservedScope",
    "Session",
    "SignInOptions",
    "SubjectTokenType",
    "TokenSet",
    "UserScope",
]


class Prompt(StrEnum):
    """Values of the `prompt` parameter that Logto knows (OpenID Connect Core §3.1.2.1)."""

    NONE = "none"
    CONSENT = "consent"
    LOGIN = "login"


class FirstScreen(StrEnum):
    """The page of Logto's sign-in experience that a visitor sees first."""

    SIGN_IN = "sign_in"
    REGISTER = "register"
    RESET_PASSWORD = "reset_password"
    IDENTIFIER_SIGN_IN = "identifier:sign_in"
    IDENTIFIER_REGISTER = "identifier:register"
    SINGLE_SIGN_ON = "single_sign_on"


class Identifier(StrEnum):
    """What a visitor may be asked to identify with, for the screens `identifier:…`."""

    EMAIL = "email"
    PHONE = "phone"
    USERNAME = "username"


class ReservedScope(StrEnum):
    """Scopes that are added to every sign-in unless `include_reserved_scopes` is off."""

    OPENID = "openid"
    OFFLINE_ACCESS = "offline_access"
    PROFILE = "profile"


class UserScope(StrEnum):
    """Scopes that bring claims about the user."""

    PROFILE = "profile"
    EMAIL = "email"
    PHONE = "phone"
    ADDRESS = "address"
    CUSTOM_DATA = "custom_data"
    IDENTITIES = "identities"
    ROLES = "roles"
    ORGANIZATIONS = "urn:logto:scope:organizations"
    ORGANIZATION_ROLES = "urn:logto:scope:organization_roles"


class ReservedResource(StrEnum):
    """Resource indicators with a meaning of their own in Logto."""

    ORGANIZATION = "urn:logto:resource:organizations"


class SubjectTokenType(StrEnum):
    """What is exchanged for an access token (RFC 8693 §3), as Logto knows it."""

    ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
    IMPERSONATION_TOKEN = "urn:logto:token-type:impersonation_token"
    PERSONAL_ACCESS_TOKEN = "urn:logto:token-type:personal_access_token"


@dataclass(frozen=True, slots=True)
class TokenSet:
    """A parsed answer of the token endpoint (RFC 6749 §5.1). The tokens never show in a repr."""

    access_token: str = field(repr=False)
    expires_in: int | None = None
    """Seconds, when the issuer said so."""
    scope: str | None = None
    refresh_token: str | None = field(default=None, repr=False)
    id_token: str | None = field(default=None, repr=False)


class AccessToken:
    """An access token, and what it is for. The token shows neither in a repr nor in an endpoint's answer.

    No dataclass: FastAPI answers with all fields of one. `dict(token)` and every answer are what may be seen of it; an
    endpoint that hands the token out says so: `return token.value`. Times are in seconds since 1970.
    """

    __slots__ = ("expires_at", "issued_at", "organization_id", "resource", "scopes", "used_at", "value")

    def __init__(
        self,
        value: str,
        expires_at: int,
        scopes: tuple[str, ...] = (),
        resource: str | None = None,
        organization_id: str | None = None,
        issued_at: int = 0,
        used_at: int = 0,
    ) -> None:
        self.value: Final = value
        self.expires_at: Final = expires_at
        self.scopes: Final = scopes
        self.resource: Final = resource
        self.organization_id: Final = organization_id
        self.issued_at: Final = issued_at
        self.used_at: Final = used_at
        """The least recently used are left out of a cookie that grows too large."""

    @property
    def key(self) -> tuple[str | None, str | None]:
        """What the token is for: resource and organization."""
        return self.resource, self.organization_id

    def used(self, now: int) -> AccessToken:
        """Return the same token as one that was used just now."""
        return AccessToken(*self._values()[:-1], now)

    def keys(self) -> tuple[str, ...]:
        """Name what may be seen of it, so that `dict(token)` is just that."""
        return ("expires_at", "scopes", "resource", "organization_id")

    def __getitem__(self, name: str) -> Any:
        if name not in self.keys():
            raise KeyError(name)
        return getattr(self, name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AccessToken) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        return f"AccessToken({', '.join(f'{name}={self[name]!r}' for name in self.keys())})"

    def _values(self) -> tuple[str, int, tuple[str, ...], str | None, str | None, int, int]:
        what = self.value, self.expires_at, self.scopes, self.resource, self.organization_id
        return *what, self.issued_at, self.used_at

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.is_instance_schema(cls, serialization=_WITHOUT_VALUE)


_WITHOUT_VALUE = core_schema.plain_serializer_function_ser_schema(
    dict, return_schema=core_schema.dict_schema(core_schema.str_schema())
)
# What `-> Any` in FastAPI, and a field of type `Any`, ask the value itself for.
AccessToken.__pydantic_serializer__ = SchemaSerializer(core_schema.any_schema(serialization=_WITHOUT_VALUE))  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Session:
    """What is remembered of a signed-in browser. A change is a new value with a higher `version`."""

    id: str = field(repr=False)
    """Random, 256 bits, new at every sign-in."""
    version: int
    """Counts the changes of this session, from 1."""
    created_at: int
    """Seconds since 1970; the absolute lifetime runs from here."""
    sealed_at: int
    """Seconds since 1970; the idle lifetime runs from here."""
    claims: IdTokenClaims = field(repr=False)
    scopes: tuple[str, ...] = ()
    """What the issuer granted at sign-in."""
    refresh_token: str | None = field(default=None, repr=False)
    id_token: str | None = field(default=None, repr=False)
    """Raw, kept only for issuers that need it as a hint at sign-out."""
    access_tokens: Mapping[tuple[str | None, str | None], AccessToken] = field(
        default_factory=lambda: MappingProxyType({}), repr=False
    )
    """By resource and organization."""
    checked_at: int = 0
    """Seconds since 1970: when the issuer last vouched for the session, at sign-in or by a refresh."""


@dataclass(frozen=True, slots=True)
class PendingSignIn:
    """One attempt to sign in, between the redirect to the issuer and the call-back."""

    state: str = field(repr=False)
    nonce: str = field(repr=False)
    code_verifier: str = field(repr=False)
    redirect_uri: str
    return_to: str
    created_at: int
    """Seconds since 1970."""
    max_age: int | None = None
    """Seconds; when set, the ID token must carry an `auth_time` that is recent enough."""


@dataclass(frozen=True, slots=True)
class SignInOptions:
    """What one sign-in asks of the issuer. Parameters that only Logto knows are sent to Logto only."""

    first_screen: FirstScreen | str | None = None
    identifiers: tuple[Identifier | str, ...] = ()
    direct_sign_in: str | None = None
    """`social:<target>` or `sso:<connector id>`."""
    login_hint: str | None = None
    prompt: Prompt | str | None = None
    """Replaces the configuration's prompt."""
    ui_locales: str | None = None
    max_age: int | None = None
    """Seconds; an older sign-in at the issuer is asked again (OpenID Connect Core §3.1.2.1)."""
    one_time_token: str | None = field(default=None, repr=False)
    """A magic link's token; goes with `login_hint`."""
    extra_params: Mapping[str, str] = field(default_factory=dict)
    """Further parameters of the authorization request; those of the protocol itself are refused."""

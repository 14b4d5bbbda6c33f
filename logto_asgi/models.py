"""Nouns that cross the layers: tokens, claims, a session, a pending sign-in, and Logto's enumerations.

They hold data and check its shape; they know no HTTP, no cookie and no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    StrictBool,
    ValidationError,
    model_serializer,
)

__all__ = [
    "AccessToken",
    "Address",
    "FirstScreen",
    "IdTokenClaims",
    "Identifier",
    "PendingSignIn",
    "Prompt",
    "ReservedResource",
    "ReservedScope",
    "Session",
    "SignInOptions",
    "TokenSet",
    "UserInfo",
    "UserScope",
    "organization_id_from_urn",
    "organization_urn",
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


_ORGANIZATION_URN = "urn:logto:organization:"


def organization_urn(organization_id: str) -> str:
    """Return the audience of an organization token, `urn:logto:organization:<id>`."""
    return _ORGANIZATION_URN + organization_id


def organization_id_from_urn(urn: str) -> str:
    """Return the id inside an organization's URN. Raise `ValueError` for any other string."""
    if not urn.startswith(_ORGANIZATION_URN) or urn == _ORGANIZATION_URN:
        raise ValueError("not an organization URN: it starts with urn:logto:organization: and ends with an id")
    return urn.removeprefix(_ORGANIZATION_URN)


_BINDINGS = frozenset({"nonce", "at_hash", "c_hash", "s_hash"})


def _plain(value: Any) -> Any:
    return value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value


class _Claims(BaseModel):
    """Claims as the issuer sent them: typed where they are known, kept where they are not.

    A known optional claim of the wrong type is dropped, so that a string such as `"false"` is never read as a boolean.
    """

    model_config = ConfigDict(frozen=True, extra="allow", hide_input_in_errors=True)

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Self:
        """Build from decoded JSON. Raise `ValueError` when a required claim is missing or of another type."""
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            wrong = {str(item["loc"][0]) for item in error.errors(include_input=False, include_url=False)}
        required = sorted(name for name in wrong if cls.model_fields[name].is_required())
        if required:
            raise ValueError("claims missing or of the wrong type: " + ", ".join(required))
        return cls.model_validate({name: value for name, value in raw.items() if name not in wrong})

    def raw(self) -> dict[str, Any]:
        """Return the claims as JSON values, just those that were sent."""
        values = {**self.__dict__, **(self.__pydantic_extra__ or {})}
        sent = self.model_fields_set
        return {name: _plain(value) for name, value in values.items() if name in sent}

    @model_serializer(mode="wrap")
    def _only_what_was_sent(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what was never sent, and the values that only bind an ID token to its sign-in."""
        shown = self.model_fields_set - _BINDINGS
        return {name: value for name, value in dump(self).items() if name in shown}


class Address(BaseModel):
    """The `address` claim (OpenID Connect Core §5.1.1)."""

    model_config = ConfigDict(frozen=True, extra="allow")

    formatted: str | None = None
    street_address: str | None = None
    locality: str | None = None
    region: str | None = None
    postal_code: str | None = None
    country: str | None = None


class _Profile(_Claims):
    sub: str
    name: str | None = None
    given_name: str | None = None
    family_name: str | None = None
    middle_name: str | None = None
    nickname: str | None = None
    preferred_username: str | None = None
    username: str | None = None
    profile: str | None = None
    picture: str | None = None
    website: str | None = None
    gender: str | None = None
    birthdate: str | None = None
    zoneinfo: str | None = None
    locale: str | None = None
    email: str | None = None
    email_verified: StrictBool | None = None
    phone_number: str | None = None
    phone_number_verified: StrictBool | None = None
    address: Address | None = None
    roles: tuple[str, ...] | None = None
    organizations: tuple[str, ...] | None = None
    organization_roles: tuple[str, ...] | None = None
    created_at: int | None = None
    """Milliseconds since 1970, as Logto sends it."""
    updated_at: int | None = None
    """Milliseconds since 1970 from Logto, seconds from others (OpenID Connect Core §5.1)."""


class IdTokenClaims(_Profile):
    """The claims of a verified ID token (OpenID Connect Core §2, §5.1). Unknown claims are attributes too."""

    iss: str
    aud: str | tuple[str, ...]
    exp: int
    iat: int
    auth_time: int | None = None
    nonce: str | None = None
    acr: str | None = None
    amr: tuple[str, ...] | None = None
    azp: str | None = None
    sid: str | None = None


class UserInfo(_Profile):
    """The answer of the userinfo endpoint (OpenID Connect Core §5.3.2), with what Logto adds."""

    custom_data: dict[str, Any] | None = None
    identities: dict[str, Any] | None = None
    sso_identities: list[dict[str, Any]] | None = None
    organization_data: list[dict[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class TokenSet:
    """A parsed answer of the token endpoint (RFC 6749 §5.1). The tokens never show in a repr."""

    access_token: str = field(repr=False)
    expires_in: int | None = None
    """Seconds, when the issuer said so."""
    scope: str | None = None
    refresh_token: str | None = field(default=None, repr=False)
    id_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An access token that a session keeps, and what it is for. The token never shows in a repr."""

    value: str = field(repr=False)
    expires_at: int
    """Seconds since 1970."""
    scopes: tuple[str, ...] = ()
    resource: str | None = None
    organization_id: str | None = None
    issued_at: int = 0
    """Seconds since 1970."""
    used_at: int = 0
    """Seconds since 1970; the least recently used are left out of a cookie that grows too large."""

    @property
    def key(self) -> tuple[str | None, str | None]:
        """What the token is for: resource and organization."""
        return self.resource, self.organization_id


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

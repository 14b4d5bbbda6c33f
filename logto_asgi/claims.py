"""Claims: what a token or the issuer says of somebody, typed where it is known and kept where it is not.

They hold data and check its shape; they know no signature, no network and no clock.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    StrictBool,
    ValidationError,
    ValidationInfo,
    model_serializer,
    model_validator,
)

from logto_asgi.errors import SetupError

__all__ = [
    "AccessTokenClaims",
    "Address",
    "IdTokenClaims",
    "OrganizationData",
    "TokenClaims",
    "UserInfo",
    "is_organization_id",
    "organization_id_from_urn",
    "organization_urn",
]

_ORGANIZATION_URN = "urn:logto:organization:"
_ORGANIZATION_ID = re.compile(r"[!-~]{1,256}", re.ASCII)


def is_organization_id(text: str) -> bool:
    """Tell whether a text, which often comes from a path or a query, could be an organization's id."""
    return _ORGANIZATION_ID.fullmatch(text) is not None


def organization_urn(organization_id: str) -> str:
    """Return the audience of an organization token, `urn:logto:organization:<id>`."""
    return _ORGANIZATION_URN + organization_id


def organization_id_from_urn(urn: str) -> str:
    """Return the id inside an organization's URN. Raise `ValueError` for any other string."""
    if not urn.startswith(_ORGANIZATION_URN) or urn == _ORGANIZATION_URN:
        raise ValueError("not an organization URN: it starts with urn:logto:organization: and ends with an id")
    return urn.removeprefix(_ORGANIZATION_URN)


ODD = "odd claims"
"""Where an access token's claims of an unexpected type are kept in the model's `__dict__`."""

_VERIFIED = object()
"""Says to the validator that the claims come from a verified token, or from the issuer itself."""

_BINDINGS = frozenset({"nonce", "at_hash", "c_hash", "s_hash"})


def _plain(value: Any) -> Any:
    if isinstance(value, tuple) and any(isinstance(each, BaseModel) for each in value):
        return [_plain(each) for each in value]
    return value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else _copied(value)


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copied(child) for name, child in value.items()}
    return [_copied(child) for child in value] if isinstance(value, list) else value


class _Claims(BaseModel):
    """Claims as the issuer sent them: typed where they are known, kept where they are not.

    A known optional claim of the wrong type is dropped, so that a string such as `"false"` is never read as a boolean.
    """

    model_config = ConfigDict(frozen=True, extra="allow", hide_input_in_errors=True, defer_build=True)

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Self:
        """Build from decoded JSON. Raise `ValueError` when a required claim is missing or of another type."""
        try:
            return cls.model_validate(raw, context=_VERIFIED)
        except ValidationError as error:
            wrong = {str(item["loc"][0]) for item in error.errors(include_input=False, include_url=False)}
        required = sorted(name for name in wrong if cls.model_fields[name].is_required())
        if required:
            raise ValueError("claims missing or of the wrong type: " + ", ".join(required))
        return cls.model_validate({name: value for name, value in raw.items() if name not in wrong}, context=_VERIFIED)

    @model_validator(mode="before")
    @classmethod
    def _never_from_a_request(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse to be built from what somebody sent: a parameter of this type that lacks its guard would be."""
        if info.context is _VERIFIED or isinstance(value, BaseModel):
            return value
        raise SetupError(
            f"{cls.__name__} stands here without a guard and would believe what a caller sends. Write "
            "Annotated[AccessTokenClaims, Depends(bearer_token)]; where they come from an issuer, parse(…)."
        )

    def raw(self) -> dict[str, Any]:
        """Return the claims as JSON values, just those that were sent. Lists and objects are copies."""
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


class TokenClaims(_Profile):
    """What ID tokens and access tokens have in common. Unknown claims are attributes too."""

    iss: str
    aud: str | tuple[str, ...]
    exp: int
    iat: int
    auth_time: int | None = None
    acr: str | None = None
    amr: tuple[str, ...] | None = None
    azp: str | None = None
    sid: str | None = None


class IdTokenClaims(TokenClaims):
    """The claims of a verified ID token (OpenID Connect Core §2, §5.1). Unknown claims are attributes too."""

    nonce: str | None = None


class AccessTokenClaims(TokenClaims):
    """The claims of a verified access token (RFC 9068 §2.2), or of an active one (RFC 7662 §2.2).

    Logto's custom claims are attributes too. A claim that has a standard name and an unexpected type is in `raw()`.
    """

    client_id: str
    jti: str | None = None
    nbf: int | None = None
    scope: str = ""
    organization_id: str | None = None
    act: dict[str, Any] | None = None
    """Who acts in the user's name (RFC 8693 §4.1)."""
    groups: tuple[str, ...] | None = None
    entitlements: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Self:
        """Build from decoded JSON. Raise `ValueError` when a required claim is missing or of another type."""
        claims = super().parse(raw)
        odd = {name: raw[name] for name in raw.keys() - claims.model_fields_set}
        if odd:
            claims.__dict__[ODD] = odd  # a private attribute would cost every token some microseconds
        return claims

    def raw(self) -> dict[str, Any]:
        """Return the claims as JSON values, just those that were sent. Lists and objects are copies."""
        return {**super().raw(), **_copied(self.__dict__.get(ODD, {}))}

    @cached_property
    def scopes(self) -> frozenset[str]:
        """The words of `scope`."""
        return frozenset(self.scope.split())

    @cached_property
    def audiences(self) -> frozenset[str]:
        """The values of `aud`."""
        return frozenset([self.aud] if isinstance(self.aud, str) else self.aud)

    @cached_property
    def organization(self) -> str | None:
        """The organization that the token is for: `organization_id`, or the id in `urn:logto:organization:<id>`."""
        if self.organization_id is not None:
            return self.organization_id
        ids = [each.removeprefix(_ORGANIZATION_URN) for each in self.audiences if each.startswith(_ORGANIZATION_URN)]
        return ids[0] if len(ids) == 1 else None

    @cached_property
    def is_for_organization(self) -> bool:
        """Whether the token is for an organization, or for a resource in one; also where it names several."""
        return self.organization_id is not None or any(each.startswith(_ORGANIZATION_URN) for each in self.audiences)

    @property
    def is_machine(self) -> bool:
        """Whether the client speaks for itself and for no user: `sub` is `client_id` (RFC 9068 §5)."""
        return self.sub == self.client_id

    @property
    def actor(self) -> str | None:
        """The `sub` of who acts in the user's name, if somebody does."""
        sub = (self.act or {}).get("sub")
        return sub if isinstance(sub, str) else None


class OrganizationData(BaseModel):
    """What userinfo says of one organization of the user, with the scope `UserScope.ORGANIZATIONS` (Logto)."""

    model_config = ConfigDict(frozen=True, extra="allow")

    id: str
    name: str | None = None
    description: str | None = None


class UserInfo(_Profile):
    """The answer of the userinfo endpoint (OpenID Connect Core §5.3.2), with what Logto adds."""

    custom_data: dict[str, Any] | None = None
    identities: dict[str, Any] | None = None
    sso_identities: list[dict[str, Any]] | None = None
    organization_data: tuple[OrganizationData, ...] | None = None

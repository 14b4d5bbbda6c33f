"""What may be said of a user in a response. Knows no session, no token and no request."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
from starlette.authentication import BaseUser

from logto_asgi.claims import AccessTokenClaims, IdTokenClaims

__all__ = ["PublicUser"]


class PublicUser(BaseModel):
    """What may be said of a user in a response: never a token. `return user` in an endpoint answers this."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    is_authenticated: bool
    claims: IdTokenClaims | AccessTokenClaims | None = None
    scopes: tuple[str, ...] = ()
    organizations: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _from_user(cls, value: Any) -> Any:
        return dict(value) if isinstance(value, BaseUser) else value  # type: ignore[call-overload]

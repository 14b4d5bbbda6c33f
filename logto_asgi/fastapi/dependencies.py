"""The dependencies of FastAPI apps: who calls, who may pass, and the tokens to call others with.

Annotations are real objects here: FastAPI reads the signatures of the guards.
"""

from collections.abc import Callable, Sequence
from functools import cache
from operator import attrgetter
from typing import Annotated, Any, cast

from fastapi import Depends
from fastapi.encoders import ENCODERS_BY_TYPE
from starlette.requests import HTTPConnection

from logto_asgi.claims import AccessTokenClaims, UserInfo
from logto_asgi.fastapi.guard import BearerConfigurable, Configurable, Entrance, Guard, MadeByCall
from logto_asgi.guards import visitor
from logto_asgi.requirements import Requirement, Way, requirement_of
from logto_asgi.user import LogtoUser

__all__ = [
    "CurrentUser",
    "SignedIn",
    "access_token",
    "bearer_token",
    "current_user",
    "organization_token",
    "require_auth",
    "user_info",
]


def _encoded(user: LogtoUser) -> dict[str, Any]:
    return user.public().model_dump(mode="json")


# `jsonable_encoder` would otherwise try `dict(user)`, swallow what that raises when the session store is away, and
# send an empty object.
ENCODERS_BY_TYPE[LogtoUser] = _encoded


async def current_user(connection: HTTPConnection) -> LogtoUser:
    """Dependency: the visitor, anonymous or signed in. Raises `SetupError` where the middleware is missing."""
    return visitor(connection.scope)[0]


@cache
def _require_auth(need: Requirement) -> Entrance[LogtoUser]:
    return Entrance(Guard[LogtoUser](need), "require_auth", None)


@cache
def _user_info(need: Requirement) -> Entrance[UserInfo]:
    return Entrance(Guard(need, LogtoUser.fetch_user_info), "user_info", None)


_claims_of = cast("Callable[[LogtoUser], AccessTokenClaims]", attrgetter("bearer"))


@cache
def _bearer_token(need: Requirement) -> Entrance[AccessTokenClaims]:
    return Entrance(Guard(need, view=_claims_of), "bearer_token", None)


require_auth: Configurable[LogtoUser] = Configurable(
    _require_auth,
    "require_auth",
    """Dependency: the caller, as `Depends(require_auth)` or with the options of `GuardOptions`.

    By default somebody with a session. An anonymous browser goes to sign-in and comes back, a program gets 401;
    `redirect=True` sends every GET to sign-in, `redirect=False` none. A request that would change something and came by
    cookie from another site gets 403. Claims older than the configuration's `claims_max_age` are refreshed first, where
    that can be done; `claims_max_age=60` (seconds) on the guard itself insists. With `accept=("session", "bearer")` a
    bearer token will do, and decides alone where one comes. `scopes=`, `roles=`, `organization=`,
    `organization_roles=`, `max_age=` and `predicate=` ask for more; `Security(require_auth, scopes=[…])` for scopes.
    The same arguments give the same object, so `app.dependency_overrides` finds it.
    """,
)

user_info: Configurable[UserInfo] = Configurable(
    _user_info,
    "user_info",
    """Dependency: the answer of the issuer's userinfo endpoint for the signed-in user, asked for at every request.

    Takes the options of `require_auth`, and raises as `LogtoUser.fetch_user_info`. By session only.
    """,
    only="session",
)

bearer_token: BearerConfigurable[AccessTokenClaims] = BearerConfigurable(
    _bearer_token,
    "bearer_token",
    """Dependency: the verified claims of the caller's access token (RFC 9068 §4), as `Depends(bearer_token)` or called.

    The options are those of `BearerOptions`. The token must be for `resource`, by default the configuration's
    `api_resource`, or for `organization`; and a user's, unless `machines=` says otherwise. Answers by RFC 6750 §3: 401
    without an error where no token came, `invalid_token`, `insufficient_scope` with the scopes.
    """,
    only="bearer",
)


@cache
def _access_token(resource: str | None, organization_id: str | None, need: Requirement) -> Entrance[str]:
    async def read(user: LogtoUser) -> str:
        return await user.get_access_token(resource, organization_id)

    return Entrance(Guard(need, read), "access_token", access_token.__doc__)


def access_token(
    resource: Annotated[str | None, MadeByCall("Depends(access_token(resource=…))")] = None,
    organization_id: str | None = None,
    *,
    redirect: bool | None = None,
    accept: Way | Sequence[Way] = "session",
) -> Entrance[str]:
    """Return a dependency: an access token to call an API with, refreshed when it is about to expire.

    Guards as `require_auth` does, then raises as `LogtoUser.get_access_token`. Without `resource` the token is good
    for the issuer's userinfo only. A caller with a bearer token for the configuration's `api_resource`, where `accept`
    lets one in, has it exchanged. To ask more of the caller, write `Depends(require_auth(…))` and
    `await user.get_access_token(…)`.
    """
    return _access_token(resource, organization_id, requirement_of(redirect=redirect, accept=accept))


@cache
def _organization_token(organization_id: str, need: Requirement) -> Entrance[str]:
    async def read(user: LogtoUser) -> str:
        return await user.get_organization_token(organization_id)

    return Entrance(Guard(need, read), "organization_token", organization_token.__doc__)


def organization_token(
    organization_id: Annotated[str, MadeByCall("Depends(organization_token(id))")],
    *,
    redirect: bool | None = None,
    accept: Way | Sequence[Way] = "session",
) -> Entrance[str]:
    """Return a dependency: a token for an organization itself. Guards and raises as `access_token`."""
    return _organization_token(organization_id, requirement_of(redirect=redirect, accept=accept))


CurrentUser = Annotated[LogtoUser, Depends(current_user)]
"""Type of an endpoint's parameter: the visitor, anonymous or signed in."""

SignedIn = Annotated[LogtoUser, Depends(require_auth)]
"""Type of an endpoint's parameter: the signed-in user."""

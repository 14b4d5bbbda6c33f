"""FastAPI: the auth router and the dependencies that guard endpoints. The only module that imports FastAPI.

Annotations are real objects here: FastAPI reads the signatures of the guards.
"""

from collections.abc import Callable, Coroutine
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Generic, NoReturn, TypeVar, overload

try:
    import fastapi
    from fastapi import APIRouter, Depends
    from fastapi.encoders import ENCODERS_BY_TYPE
    from fastapi.openapi.models import APIKey, APIKeyIn
    from fastapi.security import SecurityScopes
    from fastapi.security.base import SecurityBase
except ImportError as error:
    raise ImportError("logto_asgi.fastapi needs FastAPI: pip install 'logto-asgi[fastapi]'") from error

from pydantic import BaseModel
from starlette.requests import HTTPConnection

from logto_asgi.claims import UserInfo
from logto_asgi.errors import SetupError
from logto_asgi.guards import admit, is_due, recheck, visitor
from logto_asgi.responses import install
from logto_asgi.routes import auth_routes
from logto_asgi.user import LogtoUser
from logto_asgi.visit import Visit

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig

__all__ = [
    "AUTH_RESPONSES",
    "CurrentUser",
    "SignedIn",
    "access_token",
    "auth_router",
    "current_user",
    "organization_token",
    "require_auth",
    "user_info",
]

_OLDEST = (0, 123, 10)

if tuple(int(part) for part in fastapi.__version__.split(".")[:3] if part.isdigit()) < _OLDEST:
    # 0.122 never awaits a wrapped callable: the guard would let everyone in.
    raise ImportError(f"logto_asgi.fastapi needs FastAPI 0.123.10 or newer, and this is {fastapi.__version__}")

T = TypeVar("T")


def _encoded(user: LogtoUser) -> dict[str, Any]:
    return user.public().model_dump(mode="json")


# `jsonable_encoder` would otherwise try `dict(user)`, swallow what that raises when the session store is away, and
# send an empty object.
ENCODERS_BY_TYPE[LogtoUser] = _encoded


class ErrorBody(BaseModel):
    """The JSON body of a refusal."""

    detail: str
    code: str
    sign_in_url: str | None = None


AUTH_RESPONSES: dict[int | str, dict[str, Any]] = {
    303: {"description": "A browser's navigation without a session: to sign-in and back"},
    401: {"model": ErrorBody, "description": "Nobody is signed in"},
    403: {"model": ErrorBody, "description": "The request came from another site, or its user may not do this"},
    503: {"model": ErrorBody, "description": "The issuer can't be reached; the session goes on"},
}
"""For `responses=` of an app, a router or an endpoint: what a guard may answer."""


def auth_router(config: "LogtoConfig") -> APIRouter:
    """Return a router with the auth routes at their full paths: `app.include_router(auth_router(config))`.

    They are plain Starlette routes, so that a guard on the whole app (`FastAPI(dependencies=[…])`) cannot lock the
    sign-in page.
    """
    return APIRouter(routes=list(auth_routes(config)))


async def current_user(connection: HTTPConnection) -> LogtoUser:
    """Dependency: the visitor, anonymous or signed in. Raises `SetupError` where the middleware is missing."""
    return visitor(connection.scope)[0]


class _Guard(SecurityBase, Generic[T]):
    """One flat dependency. FastAPI reads its signature and awaits it; `_Entrance` is what it calls."""

    model = APIKey.model_validate(
        {"in": APIKeyIn.cookie, "name": "logto session", "description": "The session cookie that signing in sets."}
    )
    scheme_name = "LogtoSession"

    def __init__(
        self,
        read: Callable[[LogtoUser], Coroutine[Any, Any, T]] | None,
        redirect: bool | None,
        claims_max_age: int | None = None,
    ) -> None:
        if claims_max_age is not None and claims_max_age < 1:
            raise SetupError("claims_max_age is a number of seconds, at least 1; user.refresh() asks the issuer now.")
        self._read = read
        self._redirect = redirect
        self._claims_max_age = claims_max_age

    def enter(self, connection: HTTPConnection, security_scopes: SecurityScopes) -> Coroutine[Any, Any, T]:
        """Refuse an anonymous visitor at once, before there is a coroutine that somebody could forget to await."""
        if security_scopes.scopes:
            install(connection.scope)
            raise SetupError(
                "Scopes belong to an API resource, and a session has none: leave out Security(…, scopes=[…]) here."
            )
        return self._answer(*admit(connection.scope, redirect=self._redirect))

    async def _answer(self, user: LogtoUser, visit: Visit) -> T:
        # A token that is refreshed brings new claims along: these are looked at afterwards.
        answer = user if self._read is None else await self._read(user)
        if is_due(visit, self._claims_max_age):
            await recheck(visit, self._claims_max_age)
        return answer  # type: ignore[return-value]

    async def __call__(self, connection: HTTPConnection, security_scopes: SecurityScopes) -> T:
        return await self.enter(connection, security_scopes)


class _MadeByCall:
    """Marks a parameter that the app passes. FastAPI reads it only where the call was forgotten: it guards nothing."""

    def __init__(self, remedy: str) -> None:
        self._remedy = remedy

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> NoReturn:
        raise SetupError(f"A guard stands here without its call and would let everyone in. Write {self._remedy}.")


class _Entrance(Generic[T]):
    """What an endpoint depends on. `inspect.unwrap` leads FastAPI to the guard for signature, kind and OpenAPI."""

    def __init__(self, guard: _Guard[T], name: str, doc: str | None) -> None:
        self.__wrapped__ = guard
        self.__name__ = self.__qualname__ = name
        self.__doc__ = doc

    def __call__(self, connection: HTTPConnection, security_scopes: SecurityScopes) -> Coroutine[Any, Any, T]:
        return self.__wrapped__.enter(connection, security_scopes)

    def __repr__(self) -> str:
        return f"<{self.__name__}>"

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> NoReturn:
        """Refuse to be a type: `Annotated[…, require_auth]` asks nobody."""
        self._refuse()

    def __deepcopy__(self, memo: object) -> NoReturn:
        """Refuse to be a default value, which FastAPI copies for each request: `user=require_auth` asks nobody."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise SetupError(
            f"{self.__name__} stands here without Depends and would let everyone in. Write Depends(…) around it."
        )


class _Configurable(_Entrance[T]):
    """An entrance that can be used bare, or called with options for another one."""

    def __init__(self, make: Callable[..., _Entrance[T]], name: str, doc: str | None) -> None:
        super().__init__(make().__wrapped__, name, doc)
        self._make = make

    @overload
    def __call__(self, connection: HTTPConnection, security_scopes: SecurityScopes) -> Coroutine[Any, Any, T]: ...
    @overload
    def __call__(self, *, redirect: bool | None = None, claims_max_age: int | None = None) -> _Entrance[T]: ...
    def __call__(
        self,
        connection: HTTPConnection | None = None,
        security_scopes: SecurityScopes | None = None,
        *,
        redirect: bool | None = None,
        claims_max_age: int | None = None,
    ) -> Coroutine[Any, Any, T] | _Entrance[T]:
        if (connection is None) is not (security_scopes is None):
            raise TypeError(f"FastAPI calls {self.__name__}: write Depends({self.__name__}), and options by name.")
        if connection is None or security_scopes is None:
            bare = redirect is None and claims_max_age is None
            return self if bare else self._make(redirect=redirect, claims_max_age=claims_max_age)
        return self.__wrapped__.enter(connection, security_scopes)


@cache
def _require_auth(redirect: bool | None = None, claims_max_age: int | None = None) -> _Entrance[LogtoUser]:
    return _Entrance(_Guard[LogtoUser](None, redirect, claims_max_age), "require_auth", None)


@cache
def _user_info(redirect: bool | None = None, claims_max_age: int | None = None) -> _Entrance[UserInfo]:
    return _Entrance(_Guard(LogtoUser.fetch_user_info, redirect, claims_max_age), "user_info", None)


require_auth: _Configurable[LogtoUser] = _Configurable(
    _require_auth,
    "require_auth",
    """Dependency: the signed-in user, as `Depends(require_auth)` or `Depends(require_auth(redirect=False))`.

    An anonymous browser goes to sign-in and comes back, a program gets 401; `redirect=True` sends every GET to
    sign-in, `redirect=False` none. A request that would change something and came by cookie from another site gets
    403. Claims older than the configuration's `claims_max_age` are refreshed first, where that can be done;
    `claims_max_age=60` (seconds) on the guard itself insists. The same arguments give the same object, so
    `app.dependency_overrides` finds it.
    """,
)

user_info: _Configurable[UserInfo] = _Configurable(
    _user_info,
    "user_info",
    """Dependency: the answer of the issuer's userinfo endpoint for the signed-in user, asked for at every request.

    Takes the options of `require_auth`, and raises as `LogtoUser.fetch_user_info`.
    """,
)


@cache
def _access_token(resource: str | None, organization_id: str | None, redirect: bool | None) -> _Entrance[str]:
    async def read(user: LogtoUser) -> str:
        return await user.get_access_token(resource, organization_id)

    return _Entrance(_Guard(read, redirect), "access_token", access_token.__doc__)


def access_token(
    resource: Annotated[str | None, _MadeByCall("Depends(access_token(resource=…))")] = None,
    organization_id: str | None = None,
    *,
    redirect: bool | None = None,
) -> _Entrance[str]:
    """Return a dependency: an access token for an API resource, refreshed when it is about to expire.

    Guards as `require_auth` does, then raises as `LogtoUser.get_access_token`. Without `resource` the token is good
    for the issuer's userinfo only.
    """
    return _access_token(resource, organization_id, redirect)


@cache
def _organization_token(organization_id: str, redirect: bool | None) -> _Entrance[str]:
    async def read(user: LogtoUser) -> str:
        return await user.get_organization_token(organization_id)

    return _Entrance(_Guard(read, redirect), "organization_token", organization_token.__doc__)


def organization_token(
    organization_id: Annotated[str, _MadeByCall("Depends(organization_token(id))")],
    *,
    redirect: bool | None = None,
) -> _Entrance[str]:
    """Return a dependency: a token for an organization itself. Guards and raises as `access_token`."""
    return _organization_token(organization_id, redirect)


CurrentUser = Annotated[LogtoUser, Depends(current_user)]
"""Type of an endpoint's parameter: the visitor, anonymous or signed in."""

SignedIn = Annotated[LogtoUser, Depends(require_auth)]
"""Type of an endpoint's parameter: the signed-in user."""

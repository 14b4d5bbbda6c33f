"""What FastAPI sees of a guard: a dependency with its security scheme, and the object that stands in `Depends`.

Annotations are real objects here: FastAPI reads the signatures of the guards. Who may pass is decided elsewhere.
"""

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, Unpack, overload

from fastapi.security import SecurityScopes
from starlette.requests import HTTPConnection

from logto_asgi.errors import SetupError
from logto_asgi.fastapi.schemes import GuardScheme
from logto_asgi.guards import decide, enter, is_due, passes_at_once, recheck
from logto_asgi.requirements import BearerOptions, GuardOptions, Requirement, Way, requirement_of
from logto_asgi.user import LogtoUser
from logto_asgi.visit import Visit

__all__ = ["BearerConfigurable", "Configurable", "Entrance", "Guard", "MadeByCall"]

T = TypeVar("T")


class Guard(GuardScheme, Generic[T]):
    """A dependency. FastAPI reads its signature and awaits it; `Entrance` is what it calls."""

    def __init__(
        self,
        need: Requirement,
        read: Callable[[LogtoUser], Coroutine[Any, Any, T]] | None = None,
        *,
        view: Callable[[LogtoUser], T] | None = None,
    ) -> None:
        """Make a guard that hands over the user, what `read` fetches, or what `view` shows of the user."""
        super().__init__(need)
        self._read = read
        self._view = view
        self._with_scopes: dict[tuple[str, ...], Requirement] = {}

    def enter(self, connection: HTTPConnection, security_scopes: SecurityScopes) -> Coroutine[Any, Any, T]:
        """Refuse an anonymous visitor at once, before there is a coroutine that somebody could forget to await."""
        need = self._asking_for(tuple(security_scopes.scopes)) if security_scopes.scopes else self.need
        scope = connection.scope
        user, visit, token = enter(scope, need)
        if token is not None and passes_at_once(visit, token, need, scope):
            return self._hand_over(user)
        return self._answer(need, scope, user, visit, token)

    async def _hand_over(self, user: LogtoUser) -> T:
        if self._view is not None:
            return self._view(user)
        return user if self._read is None else await self._read(user)  # type: ignore[return-value]

    async def _answer(self, need: Requirement, scope: Any, user: LogtoUser, visit: Visit, token: str | None) -> T:
        read = self._read
        if token is not None or need.asks_more:
            await decide(user, visit, token, need, scope)
            return await self._hand_over(user)
        # A token that is refreshed brings new claims along: these are looked at afterwards.
        answer = user if read is None else await read(user)
        if is_due(visit, need.claims_max_age):
            await recheck(visit, need.claims_max_age)
        return answer  # type: ignore[return-value]

    def _asking_for(self, scopes: tuple[str, ...]) -> Requirement:
        """Return the requirement with the scopes of `Security(…, scopes=[…])`, here or further out."""
        need = self._with_scopes.get(scopes)
        if need is None:
            need = self._with_scopes[scopes] = self.need.with_scopes(scopes)
        return need

    async def __call__(self, connection: HTTPConnection, security_scopes: SecurityScopes) -> T:
        """Say to FastAPI that this is asynchronous, and what it takes."""
        return await self.enter(connection, security_scopes)


class MadeByCall:
    """Marks a parameter that the app passes. FastAPI reads it only where the call was forgotten: it guards nothing."""

    def __init__(self, remedy: str) -> None:
        self._remedy = remedy

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> NoReturn:
        raise SetupError(f"A guard stands here without its call and would let everyone in. Write {self._remedy}.")


class Entrance(Generic[T]):
    """What an endpoint depends on. `inspect.unwrap` leads FastAPI to the guard for signature, kind and OpenAPI."""

    def __init__(self, guard: Guard[T], name: str, doc: str | None) -> None:
        self.__wrapped__ = guard
        self.__name__ = self.__qualname__ = name
        self.__doc__ = doc

    def __call__(self, connection: HTTPConnection, security_scopes: SecurityScopes) -> Coroutine[Any, Any, T]:
        """Let a caller in, or refuse one. FastAPI calls it for each request."""
        return self.__wrapped__.enter(connection, security_scopes)

    def __repr__(self) -> str:
        return f"<{self.__name__}>"

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> NoReturn:
        """Refuse to be a type: `Annotated[…, require_auth]` asks nobody."""
        self._refuse()

    def __deepcopy__(self, memo: object) -> NoReturn:
        """Refuse to be a default value, which FastAPI copies for each request: `user=require_auth` asks nobody."""
        self._refuse()

    @property
    def dependency(self) -> NoReturn:
        """Refuse to stand in for `Depends(…)`, as in `dependencies=[require_auth]`."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise SetupError(
            f"{self.__name__} stands here without Depends and would let everyone in. Write Depends(…) around it."
        )


_NEVER: dict[Way | None, frozenset[str]] = {
    None: frozenset(),
    "session": frozenset({"accept"}),
    "bearer": frozenset({"accept", "redirect", "claims_max_age"}),
}
"""Options that say nothing where there is one way in."""


class Configurable(Entrance[T]):
    """An entrance that can be used bare, or called with options for another one.

    `make` returns the entrance of a requirement, the same one for an equal one; `only` names the one way in that it
    is about, if so.
    """

    def __init__(
        self, make: Callable[[Requirement], Entrance[T]], name: str, doc: str | None, *, only: Way | None = None
    ) -> None:
        super().__init__(make(requirement_of(accept=only or "session")).__wrapped__, name, doc)
        self._make = make
        self._only = only

    @overload
    def __call__(self, connection: HTTPConnection, security_scopes: SecurityScopes) -> Coroutine[Any, Any, T]: ...
    @overload
    def __call__(self, **options: Unpack[GuardOptions]) -> Entrance[T]: ...
    def __call__(
        self,
        connection: HTTPConnection | None = None,
        security_scopes: SecurityScopes | None = None,
        **options: Unpack[GuardOptions],
    ) -> Coroutine[Any, Any, T] | Entrance[T]:
        """Let a caller in, or refuse one; without a connection, return the guard with these options."""
        if (connection is None) is not (security_scopes is None):
            raise TypeError(f"FastAPI calls {self.__name__}: write Depends({self.__name__}), and options by name.")
        if connection is None or security_scopes is None:
            for name in _NEVER[self._only] & options.keys():
                raise SetupError(f"{self.__name__} takes no {name}=…; require_auth does.")
            if self._only is not None:
                options["accept"] = self._only
            need = requirement_of(**options)
            return self if need == self.__wrapped__.need else self._make(need)
        return self.__wrapped__.enter(connection, security_scopes)


class BearerConfigurable(Configurable[T]):
    """A configurable entrance for callers with a bearer token. To type checkers it takes `BearerOptions`."""

    if TYPE_CHECKING:  # a method of its own would be one call more for each request

        @overload  # type: ignore[override]
        def __call__(self, connection: HTTPConnection, security_scopes: SecurityScopes) -> Coroutine[Any, Any, T]: ...
        @overload
        def __call__(self, **options: Unpack[BearerOptions]) -> Entrance[T]: ...
        def __call__(self, *args: Any, **options: Any) -> Any: ...  # noqa: D102

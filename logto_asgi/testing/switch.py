"""`signed_in` and `signed_out`: decide in a test who the visitor is, for every guard of an app at once.

Production code knows nothing of this: the runtime's own methods are replaced for the time of a block.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, TypeVar

from starlette.types import ASGIApp

from logto_asgi.claims import UserInfo
from logto_asgi.errors import LogtoError
from logto_asgi.runtime import Logto
from logto_asgi.testing.finding import runtimes_of
from logto_asgi.testing.standin import Somebody, StandIn

__all__ = ["Switch", "signed_in", "signed_out"]

Function = TypeVar("Function", bound=Callable[..., Any])


def signed_in(
    app: ASGIApp | Logto,
    sub: str = "alice",
    *,
    claims: Mapping[str, Any] | None = None,
    scopes: str | Iterable[str] | None = None,
    access_tokens: Mapping[Any, str | LogtoError] | None = None,
    user_info: Mapping[str, Any] | UserInfo | LogtoError | None = None,
    **more_claims: Any,
) -> Switch:
    """Sign every visitor of an app in, for the time of a `with` block; keyword arguments are claims.

    Every guard, `request.user` and every WebSocket obeys, in mounted apps too, whichever client sends the request and
    whatever cookies it has. No cookie is written, and nothing but the auth routes asks the issuer. Also `async with`,
    and a decorator of test functions. Inside of another block the inner one counts.

    `scopes`: what the issuer granted; all that the configuration asks for, unless given.
    `access_tokens`: by resource, by `(resource, organization_id)` or None for the token without either; one that is
    not given is made up, `access token for https://…`. `user_info`: the issuer's answer; the claims, unless given.
    An error in place of either is raised where the app asks: `IssuerUnavailable(…)`.

    What a request is refused for still applies: an unsafe method or a WebSocket from another site, a bearer token,
    and a resource that is not configured. Raises `SetupError` when the app has no LogtoMiddleware.
    """
    keyed = {key if isinstance(key, tuple) else (key, None): token for key, token in (access_tokens or {}).items()}
    somebody = Somebody(
        claims={"sub": sub, **(claims or {}), **more_claims},
        scopes=None if scopes is None else tuple(scopes.split() if isinstance(scopes, str) else scopes),
        access_tokens=keyed,
        user_info=user_info.raw() if isinstance(user_info, UserInfo) else user_info,
    )
    return Switch(app, somebody)


def signed_out(app: ASGIApp | Logto) -> Switch:
    """Make every visitor of an app anonymous, whatever its cookies say. Used as `signed_in`; no cookie is written."""
    return Switch(app, None)


class Switch:
    """What `signed_in` and `signed_out` return: a context manager, with or without `async`, and a decorator."""

    def __init__(self, app: ASGIApp | Logto, somebody: Somebody | None) -> None:
        self._app = app
        self._somebody = somebody
        self._blocks: list[list[StandIn]] = []

    def __enter__(self) -> None:
        block = [StandIn(runtime, self._somebody) for runtime in runtimes_of(self._app)]
        for stand_in in block:
            stand_in.put_up()
        self._blocks.append(block)

    def __exit__(self, *error: object) -> None:
        for stand_in in self._blocks.pop():
            stand_in.take_down()

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(self, *error: object) -> None:
        self.__exit__(*error)

    def __call__(self, function: Function) -> Function:
        """Decorate a test function, with or without `async`. Raises `TypeError` for what would run outside of it."""
        if not inspect.isfunction(function) or inspect.isgeneratorfunction(function):
            raise TypeError(_NOT_DECORATED)
        if inspect.isasyncgenfunction(function):
            raise TypeError(_NOT_DECORATED)
        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def within_async(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return await function(*args, **kwargs)

            return within_async  # type: ignore[return-value]

        @wraps(function)
        def within(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return within  # type: ignore[return-value]


_NOT_DECORATED = (
    "signed_in(…) and signed_out(…) decorate test functions. Inside of a fixture or a class write "
    "`with signed_in(app):` around what shall run signed in."
)

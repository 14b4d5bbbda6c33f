"""`signed_in`, `signed_out` and `called_by`: decide in a test who the visitor is, for every guard of an app at once.

Production code knows nothing of this: the runtime's own methods are replaced for the time of a block.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from itertools import chain
from typing import Any, TypeVar

from starlette.types import ASGIApp

from logto_asgi.claims import UserInfo
from logto_asgi.errors import LogtoError, SetupError
from logto_asgi.runtime import Logto
from logto_asgi.testing.asked import check_claims, check_granted
from logto_asgi.testing.caller import Call, Caller
from logto_asgi.testing.finding import runtimes_of
from logto_asgi.testing.standin import Somebody, StandIn
from logto_asgi.testing.standing import Standing
from logto_asgi.token_rules import TokenKey

__all__ = ["Switch", "called_by", "signed_in", "signed_out"]

Function = TypeVar("Function", bound=Callable[..., Any])


def signed_in(
    app: ASGIApp | Logto,
    sub: str = "alice",
    *,
    claims: Mapping[str, Any] | None = None,
    scopes: str | Iterable[str] | None = None,
    granted: Mapping[Any, str | Iterable[str]] | None = None,
    access_tokens: Mapping[Any, str | LogtoError] | None = None,
    user_info: Mapping[str, Any] | UserInfo | LogtoError | None = None,
    **more_claims: Any,
) -> Switch:
    """Sign every visitor of an app in, for the time of a `with` block; keyword arguments are claims.

    Every guard, `request.user` and every WebSocket obeys, in mounted apps too, whichever client sends the request and
    whatever cookies it has. No cookie is written, and nothing but the auth routes asks the issuer. Also `async with`,
    and a decorator of test functions. Inside of another block the inner one counts.

    `scopes`: what the issuer granted at sign-in; all that the configuration asks for, unless given.
    `granted`: the scopes of the access tokens, by resource or by `(resource, organization_id)`, `(None, id)` for the
    organization itself; none, unless given. `access_tokens`: the tokens themselves, by the same keys or None for the
    one without either; one that is not given is made up, `access token for https://…`. `user_info`: the issuer's
    answer; the claims, unless given. An error in place of either is raised where the app asks: `IssuerUnavailable(…)`.

    What a request is refused for still applies: an unsafe method or a WebSocket from another site, a bearer token,
    and a resource that is not configured. Raises `SetupError` when the app has no LogtoMiddleware, or no sign-in, and
    for what no visitor could have, because sign-in does not ask Logto for it: a scope in `granted`, and the claims
    `roles`, `organizations` and `organization_roles`.
    """
    somebody = Somebody(
        claims={"sub": sub, **(claims or {}), **more_claims},
        scopes=None if scopes is None else _words(scopes),
        access_tokens=_keyed("access_tokens", access_tokens),
        granted={key: _words(value) for key, value in _keyed("granted", granted).items()},
        user_info=user_info.raw() if isinstance(user_info, UserInfo) else user_info,
    )

    def stand_ins(runtimes: list[Logto]) -> list[Standing]:
        signing_in = [runtime for runtime in runtimes if runtime.config.signs_in]
        configs = [runtime.config for runtime in signing_in]
        if configs:
            check_granted(chain(*somebody.granted.values()), configs)
            check_claims(somebody.claims, configs)
        return [StandIn(runtime, somebody) for runtime in signing_in]

    return Switch(app, stand_ins, "This app has no sign-in. Say who calls it: called_by(app, …).")


def signed_out(app: ASGIApp | Logto) -> Switch:
    """Make every visitor of an app anonymous, whatever its cookies say. Used as `signed_in`; no cookie is written."""
    return Switch(app, lambda runtimes: [StandIn(runtime, None) for runtime in runtimes])


def called_by(
    app: ASGIApp | Logto,
    sub: str = "alice",
    *,
    client_id: str = "test-client",
    scopes: str | Iterable[str] = (),
    resource: str | None = None,
    organization_id: str | None = None,
    claims: Mapping[str, Any] | None = None,
    access_tokens: Mapping[Any, str | LogtoError] | None = None,
    **more_claims: Any,
) -> Switch:
    """Let every request to an app bring a verified bearer token, for the time of a `with` block.

    No token is made and nobody is asked; keyword arguments are claims of the token: `auth_time=…`, `roles=[…]`.
    A machine is `called_by(app, "robot", client_id="robot")`. Used as `signed_in`, WebSockets included.

    `resource` and `organization_id` say what the token is for: the configuration's `api_resource`, unless given; an
    organization alone is the organization's own token. `access_tokens` is what `user.get_access_token` gets in
    exchange, by resource or by `(resource, organization_id)`; made up, unless given.

    Every guard still decides whether such a caller may: one that takes sessions only refuses it. A request that brings
    a token itself is judged by that. Raises `SetupError` when the app has no LogtoMiddleware, or it is not known what
    the token is for.
    """
    scope = " ".join(_words(scopes))
    call = Call(
        claims={"sub": sub, "client_id": client_id, "scope": scope, **(claims or {}), **more_claims},
        resource=resource,
        organization_id=organization_id,
        access_tokens=_keyed("access_tokens", access_tokens),
    )

    def callers(runtimes: list[Logto]) -> list[Standing]:
        return [Caller(runtime, call) for runtime in runtimes if call.audience(runtime)]

    return Switch(
        app, callers, "Say which API the token is for: called_by(app, resource=…), or LogtoConfig(api_resource=…)."
    )


class Switch:
    """What `signed_in` and the others return: a context manager, with or without `async`, and a decorator."""

    def __init__(self, app: ASGIApp | Logto, make: Callable[[list[Logto]], list[Standing]], remedy: str = "") -> None:
        self._app = app
        self._make = make
        self._remedy = remedy
        self._blocks: list[list[Standing]] = []

    def __enter__(self) -> None:
        block = self._make(runtimes_of(self._app))
        if not block:
            raise SetupError(self._remedy)
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


def _keyed(argument: str, values: Any) -> dict[TokenKey, Any]:
    if values is not None and not isinstance(values, Mapping):
        example = '["read:items"]' if argument == "granted" else '"a token"'
        raise TypeError(f'{argument} says it by API: {argument}={{"https://shopping.example.com/api": {example}}}')
    return {key if isinstance(key, tuple) else (key, None): value for key, value in (values or {}).items()}


def _words(scopes: str | Iterable[str]) -> tuple[str, ...]:
    return tuple(scopes.split() if isinstance(scopes, str) else scopes)


_NOT_DECORATED = (
    "signed_in(…), signed_out(…) and called_by(…) decorate test functions. Inside of a fixture or a class write "
    "`with signed_in(app):` around what shall run signed in."
)

"""Who may pass: the rules that every guard shares, whichever framework asks. Knows no response."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from starlette.routing import NoMatchFound

from logto_asgi.errors import CrossSiteRequest, SetupError, SignInRequired
from logto_asgi.origins import SAFE_METHODS, is_bearer, is_same_origin_request
from logto_asgi.responses import install
from logto_asgi.user import SCOPE_KEY, LogtoUser, visit_of
from logto_asgi.visit import Visit

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig

__all__ = ["admit", "challenge", "is_due", "misplaced_routes", "recheck", "same_app", "visitor"]

_apps_with_routes: WeakSet[Any] = WeakSet()


def visitor(scope: Any) -> tuple[LogtoUser, Visit]:
    """Return the user that the middleware put there, and its visit. Raises `SetupError` without the middleware."""
    visit = visit_of(scope)
    if visit is None:
        install(scope)
        raise SetupError(
            "LogtoMiddleware is missing around this app. Add the line: "
            "app.add_middleware(LogtoMiddleware, config=config)"
        )
    return scope[SCOPE_KEY], visit


def admit(scope: Any, *, redirect: bool | None = None) -> tuple[LogtoUser, Visit]:
    """Let a signed-in visitor pass.

    Raises `SignInRequired` for an anonymous one, `CrossSiteRequest` where a request that may change something came by
    cookie from another site, and `StoreUnavailable`.
    """
    user, visit = visitor(scope)
    if visit.ask() is None:
        install(scope)
        if redirect is not False:
            _check_routes(visit)
        raise SignInRequired(
            "Sign in to see this.", redirect=redirect, headers={"WWW-Authenticate": challenge(scope, visit)}
        )
    if scope["type"] == "http" and scope["method"] not in SAFE_METHODS:
        _check_origin(scope, visit)
    return user, visit


def is_due(visit: Visit, max_age: int | None) -> bool:
    """Tell whether the claims of a visitor who passed were too old to go by when the request came; see `recheck`."""
    session, loaded = visit.session, visit.loaded
    if session is None or loaded is None:
        return False
    limit = visit.runtime.config.claims_max_age if max_age is None else max_age
    return loaded.at - (session.checked_at or session.created_at) >= limit


async def recheck(visit: Visit, max_age: int | None) -> None:
    """Refresh the claims of a visitor who passed, where `is_due` says so.

    None takes the configuration's `claims_max_age`, and older claims where they cannot be had newer for now. A guard's
    own `max_age`, in seconds, is strict: it raises `IssuerUnavailable`, `RefreshTokenMissing` and so on. Raises
    `SessionEnded` in any case.
    """
    session = visit.session
    if session is None:
        return
    limit = visit.config.claims_max_age if max_age is None else max_age
    visit.prepare_errors()
    visit.advance(await visit.runtime.tokens.checked(visit.newest(session), limit, strict=max_age is not None))


def same_app(one: LogtoConfig, other: LogtoConfig) -> bool:
    """Tell whether two configurations are of one app at one issuer: reading the environment twice is no mistake."""
    if one is other:
        return True
    return all(getattr(one, name) == getattr(other, name) for name in ("issuer", "app_id", "base_url", "auth_path"))


def challenge(scope: Mapping[str, Any], visit: Visit) -> str:
    """Return the challenge of a 401 (RFC 9110 §11.6.1): what a refused bearer token or a missing session needs."""
    if any(name == b"authorization" and is_bearer(value) for name, value in scope["headers"]):
        return 'Bearer error="invalid_token", error_description="This endpoint takes no bearer token."'
    return f'Cookie realm="{visit.config.auth_url("sign-in")}"'


def misplaced_routes(path: str, config: LogtoConfig) -> SetupError:
    """Return what explains auth routes whose `path`, such as `/api/logto/sign-in`, is not the configured one."""
    prefix = path.removeprefix(config.base_path).rpartition("/")[0]
    return SetupError(
        f"The auth routes are served under {prefix!r}, but auth_path says {config.auth_path!r}. Include them without a "
        f"prefix; to have them there, set LogtoConfig(auth_path={prefix!r}) or LOGTO_AUTH_PATH too. If the whole app "
        "is served under a path, base_url has to hold it."
    )


def _check_routes(visit: Visit) -> None:
    """Explain a missing or misplaced auth router before somebody is sent to a page that does not exist."""
    app = visit.app
    if app is None or app in _apps_with_routes or not hasattr(app, "url_path_for"):
        return
    try:
        path = app.url_path_for("logto:sign-in")
    except NoMatchFound:
        raise SetupError(
            "The auth routes are missing in this app. Add app.include_router(auth_router(config)) in FastAPI, "
            "or routes=[*auth_routes(config), …] in Starlette."
        ) from None
    # A proxy may strip the base path, or the app may have it in front of its own routes.
    config = visit.config
    expected = f"{config.auth_path}/sign-in"
    if path not in (expected, config.base_path + expected):
        raise misplaced_routes(path, config)
    _apps_with_routes.add(app)


def _check_origin(scope: Any, visit: Visit) -> None:
    if is_same_origin_request(scope["headers"], visit.config):
        return
    install(scope)
    raise CrossSiteRequest(
        "This request came from another site and was refused. If that site is yours, add its origin: "
        "LogtoConfig(trusted_origins=[…])."
    )

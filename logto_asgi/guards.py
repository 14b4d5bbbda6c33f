"""Who may pass: the rules that every guard shares, whichever framework asks. Knows no response."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from starlette.requests import HTTPConnection
from starlette.routing import NoMatchFound

from logto_asgi.challenges import NO_BEARER, session_challenge, with_challenge
from logto_asgi.claims import AccessTokenClaims
from logto_asgi.errors import (
    CrossSiteRequest,
    HTTPError,
    InvalidRequest,
    InvalidToken,
    PermissionDenied,
    SetupError,
    SignInRequired,
    TokenRequired,
)
from logto_asgi.origins import SAFE_METHODS, is_same_origin_request
from logto_asgi.permissions import decide_bearer, decide_session, no_api_named, satisfies_predicate
from logto_asgi.presented import brings_token, check_single, presented_token
from logto_asgi.requirements import Requirement
from logto_asgi.responses import install
from logto_asgi.user import SCOPE_KEY, LogtoUser, visit_of
from logto_asgi.visit import Visit

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig

__all__ = [
    "decide",
    "enter",
    "is_due",
    "misplaced_routes",
    "passes_at_once",
    "recheck",
    "same_app",
    "take_bearer",
    "visitor",
]

logger = logging.getLogger("logto_asgi")

_NO_TOKEN = "Send an access token: `Authorization: Bearer …`."

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


def enter(scope: Any, need: Requirement) -> tuple[LogtoUser, Visit, str | None]:
    """Let in who came in a way that the guard accepts; `decide` says whether that is enough.

    Returns the bearer token where it decides. Raises `TokenRequired`, `SignInRequired`, `InvalidRequest`,
    `CrossSiteRequest` where a request that may change something came by cookie from another site, and
    `StoreUnavailable`.
    """
    user, visit = visitor(scope)
    if need.bearer:
        visit.varies_by_token = True
        if need.resource is None and need.organization is None:
            _check_api_is_named(visit)
        token = _presented(scope, visit, need)
        if token is not None:
            return user, visit, token
        if not need.session:
            install(scope)
            raise with_challenge(TokenRequired(_NO_TOKEN), visit, need)
    if visit.ask() is None:
        install(scope)
        raise _nobody(scope, visit, need)
    if scope["type"] == "http" and scope["method"] not in SAFE_METHODS:
        _check_origin(scope, visit)
    return user, visit, None


def _check_api_is_named(visit: Visit) -> None:
    """Tell the app's makers before somebody takes a 401 for proof that everything is set up."""
    if visit.runtime.config.api_resource is None:
        visit.prepare_errors()
        raise no_api_named()


def passes_at_once(visit: Visit, token: str, need: Requirement, scope: Any) -> bool:
    """Let a caller pass whose token was verified before, if it has what the guard asks: nothing is waited for.

    Returns False where `decide` has to look. Raises as `decide` for a token that is not enough.
    """
    if need.predicate is not None:
        return False
    claims = visit.runtime.bearer.known(token, opaque=need.opaque)
    if claims is None:
        return False
    _take(visit, claims, need, scope)
    return True


async def decide(user: LogtoUser, visit: Visit, token: str | None, need: Requirement, scope: Any) -> None:
    """Let a caller who was let in pass, if it has what the guard asks.

    Raises `InvalidToken`, `PermissionDenied`, `InsufficientScope`, `StepUpRequired`, `SessionEnded`, and what the
    issuer and the session store fail with.
    """
    before = visit.bearer, visit.organizations
    if token is None:
        if is_due(visit, need.claims_max_age):
            await recheck(visit, need.claims_max_age)
        if need.asks_more:
            await _decide_session(visit, need, scope)
    else:
        await _decide_bearer(visit, token, need, scope)
    if need.predicate is not None:
        install(scope)
        try:
            await satisfies_predicate(need, user, HTTPConnection(scope))
        except BaseException as error:  # also where the app's own function fails, or the request was given up
            visit.bearer, visit.organizations = before
            if token is not None and isinstance(error, PermissionDenied):
                with_challenge(error, visit, need)
            raise


async def take_bearer(visit: Visit, need: Requirement) -> None:
    """Let a caller with a good bearer token be the user of this request; any other is nobody. Never raises."""
    try:
        visit.varies_by_token = True
        token = presented_token(visit.scope)
        if token is not None:
            await _decide_bearer(visit, token, need, visit.scope)
    except (InvalidToken, InvalidRequest, PermissionDenied) as error:
        logger.debug("bearer token not used: %s", error.message)
    except HTTPError as error:
        visit.failure = error


async def _decide_session(visit: Visit, need: Requirement, scope: Any) -> None:
    session = visit.ask()
    if session is None:  # it was signed out while its claims were refreshed
        install(scope)
        raise _nobody(scope, visit, need)
    install(scope)
    visit.enter(await decide_session(session, need, visit, scope))


async def _decide_bearer(visit: Visit, token: str, need: Requirement, scope: Any) -> None:
    try:
        check_single(token)
        claims = await visit.runtime.bearer.verify(token, opaque=need.opaque)
    except HTTPError as error:
        raise _said(error, visit, need, scope) from None
    _take(visit, claims, need, scope)


def _take(visit: Visit, claims: AccessTokenClaims, need: Requirement, scope: Any) -> None:
    """Make a caller with these claims the user of the request, if they are what the guard asks."""
    try:
        visit.enter(decide_bearer(claims, need, visit, scope))
    except HTTPError as error:
        if isinstance(error, InvalidToken):
            visit.runtime.events.note("bearer.refused", reason=error.check)
        raise _said(error, visit, need, scope) from None
    visit.bearer = claims


def _said(error: HTTPError, visit: Visit, need: Requirement, scope: Any) -> HTTPError:
    install(scope)
    return with_challenge(error, visit, need) if error.status < 500 else error


def _presented(scope: Any, visit: Visit, need: Requirement) -> str | None:
    try:
        return presented_token(scope)
    except InvalidRequest as error:
        raise _said(error, visit, need, scope) from None


def _nobody(scope: Any, visit: Visit, need: Requirement) -> HTTPError:
    if not visit.config.signs_in:
        if need.bearer:
            return with_challenge(TokenRequired(_NO_TOKEN), visit, need)
        raise SetupError('This app has no sign-in (LogtoConfig.without_sign_in), so a guard here says accept="bearer".')
    came_with_token = brings_token(scope)
    redirect = False if came_with_token else need.redirect
    if redirect is not False:
        _check_routes(visit)
    challenge = session_challenge(scope, visit, need, came_with_token=came_with_token)
    headers = {"WWW-Authenticate": challenge}
    message = NO_BEARER if came_with_token else "Sign in to see this."
    return SignInRequired(message, redirect=redirect, max_age=need.max_age, headers=headers)


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
    """Tell whether two configurations are of one app at one issuer: reading the environment twice is no mistake.

    What has no sign-in shares no cookie with anybody, and is an app of its own.
    """
    if one is other:
        return True
    if not (one.signs_in and other.signs_in):
        return False
    return all(getattr(one, name) == getattr(other, name) for name in ("issuer", "app_id", "base_url", "auth_path"))


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

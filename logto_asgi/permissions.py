"""Whether a caller has what a guard asks: decided anew at each use, from claims that are verified already.

Knows callers by session and by bearer token; makes no response and reads no cookie.
"""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any

from starlette.requests import HTTPConnection

from logto_asgi.claims import AccessTokenClaims, IdTokenClaims, is_organization_id, organization_urn
from logto_asgi.errors import InsufficientScope, InvalidToken, PermissionDenied, SetupError, StepUpRequired
from logto_asgi.models import Session, UserScope
from logto_asgi.requirements import (
    ANY_ORGANIZATION,
    AnyOf,
    Organization,
    Requirement,
    lacking,
    organization_parameter,
)

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig
    from logto_asgi.user import LogtoUser
    from logto_asgi.visit import Visit

__all__ = ["decide_bearer", "decide_session", "no_api_named", "satisfies_predicate"]

logger = logging.getLogger("logto_asgi")

_warned: set[tuple[str, str, str]] = set()
"""Issuer, app and scope of each slip that was told."""


def no_api_named() -> SetupError:
    """Return what explains a guard for bearer tokens that nothing says the audience of."""
    return SetupError(
        "A guard takes bearer tokens, and nothing says which API they must be for. Set LogtoConfig(api_resource=…) or "
        "LOGTO_API_RESOURCE; bearer_token, require_auth and RequireAuthMiddleware also take it as resource=…"
    )


# -- By bearer token ---------------------------------------------------------------------------------------------------


def decide_bearer(claims: AccessTokenClaims, need: Requirement, visit: Visit, scope: Any) -> str | None:
    """Let a caller with these claims pass, and return the organization that it acts in, if the guard names one.

    Raises `InvalidToken` for a token that is for something else, `PermissionDenied`, `InsufficientScope`,
    `StepUpRequired`, and `SetupError` for a guard that names no resource.
    """
    organization_id = _check_audience(claims, need, visit.runtime.config, scope)
    if need.clients and claims.client_id not in need.clients:
        raise PermissionDenied("This client may not call here.", missing=("client",))
    if claims.is_machine is not (need.machines == "only") and need.machines is not True:
        who = ("a machine", "user") if claims.is_machine else ("a user", "machine")
        raise PermissionDenied(f"The token is of {who[0]}, and this is not for those.", missing=(who[1],))
    if need.max_age is not None:
        _check_auth_time(claims.auth_time, need.max_age, visit)
    if need.scopes or need.and_scopes:
        _check_scopes(need, claims.scopes)
    if need.roles:
        _check_names("role", need.roles, claims.roles)
    if need.organization_roles:
        _check_organization_roles(need, claims.organization_roles, organization_id)
    return organization_id


def _check_audience(claims: AccessTokenClaims, need: Requirement, config: LogtoConfig, scope: Any) -> str | None:
    """Compare what the token is for with what the guard is (security: an organization's token opens nothing else).

    1. An opaque token whose issuer names no audience: it must have been issued to this app, or to the named clients.
    2. The guard names no organization: the token must be for none, and for the resource.
    3. The guard names one: the token is for it, or for the resource in it.
    """
    if not claims.audiences:
        of_this_app = claims.client_id in (need.clients or (config.app_id,))
        if need.organization is not None or claims.is_for_organization or not of_this_app:
            raise InvalidToken("The access token is not for this API.", check="aud")
        return None
    if need.organization is None:
        if claims.is_for_organization:
            raise InvalidToken("The token is for an organization, and this endpoint is not.", check="organization_id")
        _check_resource(claims, need.resource or config.api_resource)
        return None
    if claims.organization is None:
        raise InvalidToken("This endpoint needs a token for one organization.", check="organization_id")
    organization_id = _organization_of(need.organization, scope, claims)
    if claims.organization != organization_id:
        raise InvalidToken("The access token is for another organization.", check="organization_id")
    _check_resource(claims, need.resource or organization_urn(organization_id))
    return organization_id


def _check_resource(claims: AccessTokenClaims, resource: str | None) -> None:
    if resource is None:
        raise no_api_named()
    if resource not in claims.audiences:
        raise InvalidToken(
            f"The access token is for another API. This one is {resource}, letter for letter.", check="aud"
        )


# -- By session --------------------------------------------------------------------------------------------------------


async def decide_session(session: Session, need: Requirement, visit: Visit, scope: Any) -> str | None:
    """Let a signed-in visitor pass, and return the organization that the guard names, if it names one.

    Raises `StepUpRequired`, `PermissionDenied`, `InsufficientScope`, and for a token that scopes are read from as
    `LogtoUser.get_access_token`. Logs, once, what nobody can have because sign-in never asks for it.
    """
    try:
        return await _decide_session(session, need, visit, scope)
    except PermissionDenied:
        _warn_of_what_nobody_has(need, visit.config)
        raise


async def _decide_session(session: Session, need: Requirement, visit: Visit, scope: Any) -> str | None:
    claims = session.claims
    if need.max_age is not None:
        _check_auth_time(claims.auth_time, need.max_age, visit, redirect=need.redirect)
    organization_id = None
    if need.organization is not None:
        organization_id = _organization_of(need.organization, scope, None)
        _check_member(claims, organization_id, visit.config)
    if need.roles:
        _check_names("role", need.roles, claims.roles)
    if need.organization_roles:
        _check_organization_roles(need, claims.organization_roles, organization_id)
    if need.scopes or need.and_scopes:
        _check_scopes(need, await _granted(session, need, visit, organization_id))
    return organization_id


async def _granted(session: Session, need: Requirement, visit: Visit, organization_id: str | None) -> frozenset[str]:
    """Return the scopes that an access token of this session has: for the resource, the organization, or both."""
    resource = need.resource if organization_id is not None else need.resource or visit.config.api_resource
    if resource is None and organization_id is None:
        raise SetupError(
            "Scopes belong to an API resource, and this guard names none. Set LogtoConfig(api_resource=…) or "
            "LOGTO_API_RESOURCE, or name it at the guard: resource=…"
        )
    tokens, limit = visit.runtime.tokens, need.claims_max_age
    newest, token = await tokens.get(visit.newest(session), resource=resource, organization_id=organization_id)
    if limit is not None and visit.runtime.clock() - token.issued_at >= limit:
        newest, token = await tokens.get(newest, resource=resource, organization_id=organization_id, force_refresh=True)
    visit.advance(newest)
    return frozenset(token.scopes)


def _warn_of_what_nobody_has(need: Requirement, config: LogtoConfig) -> None:
    """Tell the app's makers of a scope that a guard needs and sign-in does not ask for: Logto grants it to nobody."""
    needed = [*need.all_scopes]
    needed += [UserScope.ROLES] if need.roles else []
    needed += [UserScope.ORGANIZATION_ROLES] if need.organization_roles else []
    for name in needed:
        slip = (config.issuer, config.app_id, str(name))
        if config.is_logto and name not in config.scopes and slip not in _warned:
            _warned.add(slip)
            logger.warning(
                "a guard asks for the scope %r, and sign-in does not, so nobody has it. Add it: "
                "LogtoConfig(scopes=[%r]) or LOGTO_SCOPES, and sign in again",
                slip[2],
                slip[2],
            )


def _check_member(claims: IdTokenClaims, organization_id: str, config: LogtoConfig) -> None:
    if claims.organizations is None and UserScope.ORGANIZATIONS not in config.scopes:
        raise SetupError(
            "A guard asks for an organization, and sign-in does not. Add the scope: "
            "LogtoConfig(scopes=[UserScope.ORGANIZATIONS]) or LOGTO_SCOPES, and sign in again."
        )
    if organization_id not in (claims.organizations or ()):
        raise PermissionDenied("You are no member of this organization.", missing=("organization",))


# -- By either ---------------------------------------------------------------------------------------------------------


async def satisfies_predicate(need: Requirement, user: LogtoUser, connection: HTTPConnection) -> None:
    """Ask the app's own predicate. Raise `PermissionDenied` where it says no; what it raises itself goes on."""
    if need.predicate is None:
        return
    answer: Any = need.predicate(user, connection)
    if inspect.isawaitable(answer):
        answer = await answer
    if answer is not True:
        if answer is not False:
            raise SetupError(f"A guard's predicate answered {type(answer).__name__}; it returns True or False.")
        raise PermissionDenied("You may not do this.")


def _organization_of(organization: Organization, scope: Any, claims: AccessTokenClaims | None) -> str:
    """Return the id of the organization that a guard names. Raise `PermissionDenied` where there is none."""
    if not isinstance(organization, str):
        found = organization(HTTPConnection(scope))
    elif organization == ANY_ORGANIZATION:
        found = claims.organization if claims is not None else None
    else:
        parameter = organization_parameter(organization)
        if parameter is None and organization in scope.get("path_params", {}):
            raise SetupError(f'A guard says organization={organization!r}. Write organization="{{{organization}}}".')
        found = organization if parameter is None else _path_parameter(scope, parameter)
    if not isinstance(found, str) or not is_organization_id(found):
        raise PermissionDenied("The request names no organization.", missing=("organization",))
    return found


def _path_parameter(scope: Any, name: str) -> str:
    parameters = scope.get("path_params", {})
    if name not in parameters:
        has = f"It has {', '.join(parameters)}" if parameters else "It has none"
        raise SetupError(
            f'A guard says organization="{{{name}}}", and the path has no parameter {name!r}. {has}: write it '
            "into the path of the route, or name the route's own at the guard."
        )
    return str(parameters[name])


def _check_auth_time(auth_time: int | None, max_age: int, visit: Visit, *, redirect: bool | None = False) -> None:
    # With the leeway that the call-back allows: stricter than that, a visitor would be sent around in circles.
    age, leeway = None if auth_time is None else visit.runtime.clock() - auth_time, visit.config.clock_leeway
    if age is None or not -leeway <= age <= max_age + leeway:
        raise StepUpRequired(
            "This needs a sign-in that is more recent. Sign in again.", max_age=max_age, redirect=redirect
        )


def _check_scopes(need: Requirement, held: frozenset[str]) -> None:
    missing = lacking(need.scopes, held)
    if need.and_scopes:
        missing = (*missing, *lacking(need.and_scopes, held))
    if missing:
        words = " or ".join(missing) if isinstance(need.scopes, AnyOf) and not need.and_scopes else ", ".join(missing)
        raise InsufficientScope(f"A scope is missing: {words}.", scope=" ".join(need.all_scopes), missing=missing)


def _check_names(kind: str, needed: tuple[str, ...], held: Any) -> None:
    missing = lacking(needed, held)
    if missing:
        words = (" or " if isinstance(needed, AnyOf) else ", ").join(missing)
        raise PermissionDenied(f"A {kind} is missing: {words}.", missing=missing)


def _check_organization_roles(need: Requirement, held: tuple[str, ...] | None, organization_id: str | None) -> None:
    prefix = f"{organization_id}:"
    names = [each.removeprefix(prefix) for each in held or () if each.startswith(prefix)]
    _check_names("role in this organization", need.organization_roles, names)

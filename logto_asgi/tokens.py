"""Outgoing tokens: the right one for a resource or organization, kept, and refreshed once for all who wait.

Knows sessions and the issuer's client; knows no request, response or user object.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from logto_asgi.errors import (
    AccessTokenMismatch,
    AccessTokenRefused,
    InvalidGrant,
    IssuerError,
    IssuerRefused,
    IssuerResponseInvalid,
    IssuerUnavailable,
    LogtoError,
    RefreshTokenMissing,
    SessionEnded,
    SetupError,
    VerificationError,
)
from logto_asgi.models import AccessToken, ReservedResource, Session, TokenSet, organization_urn
from logto_asgi.oidc.peek import read_unverified_claims

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig
    from logto_asgi.oidc.client import OidcClient
    from logto_asgi.session.backends import CookieBackend

__all__ = ["AccessTokens", "TokenKey"]

logger = logging.getLogger("logto_asgi")

TokenKey = tuple[str | None, str | None]
"""What a token is for: resource and organization, both optional."""

_DEFAULT_LIFETIME = 300
"""Seconds that a token without `expires_in` and without `exp` is taken to live."""

_REFUSALS_OF_ONE_TOKEN = frozenset({"invalid_target", "insufficient_scope", "access_denied", "invalid_scope"})


@dataclass(frozen=True, slots=True)
class _Flight:
    key: TokenKey
    task: asyncio.Task[tuple[Session, AccessToken]]


class AccessTokens:
    """Hands out access tokens of sessions; one refresh per session at a time, shared by everyone who waits."""

    def __init__(
        self,
        config: LogtoConfig,
        sessions: CookieBackend,
        client: Callable[[], OidcClient],
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._sessions = sessions
        self._client = client
        self._clock = clock
        self._flights: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Flight]] = WeakKeyDictionary()

    async def get(
        self,
        session: Session,
        *,
        resource: str | None = None,
        organization_id: str | None = None,
        force_refresh: bool = False,
    ) -> tuple[Session, AccessToken]:
        """Return the newest state of the session and a token that lives longer than the refresh margin.

        Raises `SessionEnded`, `RefreshTokenMissing`, `AccessTokenRefused`, `AccessTokenMismatch`, `IssuerUnavailable`,
        `IssuerRefused`, `IssuerResponseInvalid`, and `SetupError` for a resource that sign-in never asks for.
        """
        self._check_configured(resource, organization_id)
        current = self._current(session)
        key = (resource, organization_id)
        if not force_refresh:
            token = self._usable(current, key)
            if token is not None:
                return self._touched(current, token), token
        return await self._obtain(current, key, force_refresh)

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - cancels nothing
        """Wait up to `timeout` seconds for the refreshes of this event loop that are under way."""
        flights = self._flights.get(asyncio.get_running_loop())
        if flights:
            await asyncio.wait([flight.task for flight in flights.values()], timeout=timeout)

    def _current(self, session: Session) -> Session:
        current = self._sessions.current(session)
        if current is None:
            raise SessionEnded("This session has ended, or the browser sent an old copy of it. Sign in again.")
        return current

    def _usable(self, session: Session, key: TokenKey) -> AccessToken | None:
        token = session.access_tokens.get(key)
        if token is None:
            return None
        # A token that lives shorter than twice the margin would never be used: half its life is the margin then.
        margin = min(self._config.refresh_margin, (token.expires_at - token.issued_at) // 2)
        return token if self._clock() < token.expires_at - margin else None

    def _touched(self, session: Session, token: AccessToken) -> Session:
        """Note the use now and then, so that the least recently used token is the first to leave a full cookie."""
        now = int(self._clock())
        if len(session.access_tokens) < 2 or now - token.used_at < self._config.roll_interval:
            return session
        successor = _with_token(session, replace(token, used_at=now))
        return successor if self._sessions.save(successor, spent=None) else session

    async def _obtain(self, session: Session, key: TokenKey, force: bool) -> tuple[Session, AccessToken]:
        loop = asyncio.get_running_loop()
        flights = self._flights.setdefault(loop, {})
        while (flight := flights.get(session.id)) is not None:
            shared = flight.key == key and not force
            try:
                result = await asyncio.shield(flight.task)
            except LogtoError as error:
                if shared or isinstance(error, IssuerUnavailable | SessionEnded):
                    raise
                continue
            if shared:
                return result
            current = self._current(session)
            token = None if force else self._usable(current, key)
            if token is not None:
                return current, token
        task = loop.create_task(self._refresh(self._current(session), key), name="logto_asgi refresh")
        flights[session.id] = _Flight(key, task)
        task.add_done_callback(lambda done: self._landed(flights, session.id, done))
        return await asyncio.shield(task)

    @staticmethod
    def _landed(flights: dict[str, _Flight], session_id: str, task: asyncio.Task[tuple[Session, AccessToken]]) -> None:
        flights.pop(session_id, None)
        if not task.cancelled():
            task.exception()  # Everyone who waited may have hung up: marks it as seen.

    async def _refresh(self, session: Session, key: TokenKey) -> tuple[Session, AccessToken]:
        if session.refresh_token is None:
            raise RefreshTokenMissing(
                "The access token has expired and the session has no refresh token. Sign in again; to get one, "
                "ask for the scope offline_access with prompt=consent (both are defaults with a Logto endpoint)."
            )
        try:
            session, tokens = await self._ask(session, key)
        except AccessTokenRefused as refused:
            await self._recover(session, key, refused)
            raise
        session = await self._keep_rotated(session, tokens)
        session = await self._check_id_token(session, tokens)
        token = self._as_access_token(tokens, key)
        successor = _with_token(session, token)
        if not self._sessions.save(successor, spent=None):
            raise SessionEnded("This session ended while its token was being refreshed. Sign in again.")
        return successor, token

    async def _recover(self, session: Session, key: TokenKey, refused: AccessTokenRefused) -> None:
        """Save the session after a refusal that may have spent its refresh token.

        Logto's engine rotates before it looks at the resource, and an error carries no new token; the spent one works
        for three seconds more, so a plain refresh within these gets another.
        """
        if refused.error == "invalid_target" and key != (None, None):
            with contextlib.suppress(LogtoError):
                await self._refresh(session, (None, None))

    async def _ask(self, session: Session, key: TokenKey) -> tuple[Session, TokenSet]:
        """Make the refresh request; after `invalid_grant` look once whether somebody else rotated in the meantime."""
        resource, organization_id = key
        try:
            return session, await self._client().refresh(
                session.refresh_token or "", resource=resource, organization_id=organization_id
            )
        except InvalidGrant:
            newest = self._sessions.newest(session.id)
            if newest is None or newest.refresh_token in (None, session.refresh_token):
                self._sessions.end(session)
                logger.info("session ended: the issuer refused its refresh token (invalid_grant)")
                raise SessionEnded("The issuer has ended this session. Sign in again.") from None
            return await self._ask(newest, key)
        except IssuerRefused as error:
            if error.error in _REFUSALS_OF_ONE_TOKEN:
                raise AccessTokenRefused(_refusal(error.error, resource, organization_id), error=error.error) from error
            raise

    async def _keep_rotated(self, session: Session, tokens: TokenSet) -> Session:
        """Save a rotated refresh token before anything that came with it is looked at."""
        if tokens.refresh_token in (None, session.refresh_token):
            return session
        rotated = replace(session, version=session.version + 1, refresh_token=tokens.refresh_token)
        if self._sessions.save(rotated, spent=session.refresh_token):
            return rotated
        await self._revoke_quietly(tokens.refresh_token)
        raise SessionEnded("This session ended while its token was being refreshed. Sign in again.")

    async def _check_id_token(self, session: Session, tokens: TokenSet) -> Session:
        try:
            claims = await self._client().verify_refreshed(tokens, session.claims)
        except VerificationError as error:
            if error.check == "sub":
                self._sessions.end(session)
                await self._revoke_quietly(session.refresh_token)
                logger.warning("session ended: the refreshed ID token belongs to another user")
                raise SessionEnded("The issuer answered for another user. Sign in again.") from error
            logger.warning("refreshed ID token refused: %s", error.check)
            raise IssuerResponseInvalid(
                f"The issuer's refreshed ID token failed the check of {error.check}."
            ) from error
        if claims is None:
            return session
        return replace(
            session, version=session.version + 1, claims=claims, id_token=session.id_token and tokens.id_token
        )

    async def _revoke_quietly(self, refresh_token: str | None) -> None:
        if refresh_token is None:
            return
        try:
            await self._client().revoke(refresh_token)
        except IssuerError as error:
            logger.info("could not revoke a refresh token that is no longer needed: %s", error.code)

    def _as_access_token(self, tokens: TokenSet, key: TokenKey) -> AccessToken:
        resource, organization_id = key
        claims = read_unverified_claims(tokens.access_token)
        _check_made_for(claims, key, strict=self._config.is_logto)
        now = int(self._clock())
        return AccessToken(
            value=tokens.access_token,
            expires_at=_expiry(tokens, claims, now),
            scopes=_scopes(tokens, claims),
            resource=resource,
            organization_id=organization_id,
            issued_at=now,
            used_at=now,
        )

    def first_token(self, tokens: TokenSet) -> AccessToken:
        """Return the access token of a sign-in as one to keep: it is for userinfo, for no resource."""
        return self._as_access_token(tokens, (None, None))

    def _check_configured(self, resource: str | None, organization_id: str | None) -> None:
        if resource is not None and resource not in self._config.resources:
            raise SetupError(
                f"The resource {resource!r} was never asked for at sign-in. Add it: "
                f"LogtoConfig(resources=[{resource!r}]) or LOGTO_RESOURCES, and sign in again."
            )
        if organization_id is not None and ReservedResource.ORGANIZATION not in self._config.resources:
            raise SetupError(
                "Organization tokens need the scope urn:logto:scope:organizations. Add it: "
                "LogtoConfig(scopes=[UserScope.ORGANIZATIONS]) or LOGTO_SCOPES, and sign in again."
            )


def _with_token(session: Session, token: AccessToken) -> Session:
    tokens = MappingProxyType({**session.access_tokens, token.key: token})
    return replace(session, version=session.version + 1, access_tokens=tokens)


def _check_made_for(claims: dict[str, object] | None, key: TokenKey, *, strict: bool) -> None:
    """Refuse a token for something else. Logto answers some mistakes with 200 and an opaque token (`strict`)."""
    resource, organization_id = key
    wanted = resource or (organization_urn(organization_id) if organization_id else None)
    if wanted is None or (claims is None and not strict):
        return
    audience = (claims or {}).get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if wanted not in audiences:
        raise AccessTokenMismatch(
            f"The issuer's token is not for {wanted!r}. Check that this API resource or organization exists in Logto's "
            "console under exactly that name, and that the application may use it."
        )
    if resource and (claims or {}).get("organization_id") != organization_id:
        raise AccessTokenMismatch(
            f"The issuer's token for {resource!r} belongs to another organization than the one asked for. "
            "Check in Logto's console that the user is a member of the organization."
        )


def _expiry(tokens: TokenSet, claims: dict[str, object] | None, now: int) -> int:
    if tokens.expires_in is not None:
        return now + tokens.expires_in
    expires = (claims or {}).get("exp")
    return int(expires) if isinstance(expires, int | float) else now + _DEFAULT_LIFETIME


def _scopes(tokens: TokenSet, claims: dict[str, object] | None) -> tuple[str, ...]:
    scope = tokens.scope if tokens.scope is not None else (claims or {}).get("scope")
    return tuple(scope.split()) if isinstance(scope, str) else ()


def _refusal(error: str, resource: str | None, organization_id: str | None) -> str:
    what = " and ".join(
        [*([f"resource {resource!r}"] if resource else []), *(["this organization"] if organization_id else [])]
    )
    remedy = {
        "invalid_target": "Register it as an API resource in Logto's console, list it in LogtoConfig(resources=…), "
        "and sign in again.",
        "insufficient_scope": "Add urn:logto:scope:organizations to LogtoConfig(scopes=…), and sign in again.",
        "access_denied": "Check in Logto's console that the user is a member and that multi-factor rules are met.",
        "invalid_scope": "Check the scopes of the API resource in Logto's console.",
    }[error]
    return f"The issuer gives no access token for {what or 'this user'} ({error}). {remedy}"

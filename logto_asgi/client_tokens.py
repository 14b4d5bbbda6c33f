"""Tokens that the app gets by its own name: client credentials and token exchange. Knows no session and no request."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from logto_asgi.errors import (
    AccessTokenMismatch,
    AccessTokenRefused,
    IssuerRefused,
    IssuerUnavailable,
    SetupError,
)
from logto_asgi.flights import Flights
from logto_asgi.models import AccessToken, ReservedScope, SubjectTokenType, TokenSet, UserScope
from logto_asgi.oidc.peek import read_unverified_claims
from logto_asgi.session.bounded import Bounded
from logto_asgi.short_memory import ShortMemory
from logto_asgi.targets import Target, check_token, check_token_type, refusal_of_exchange, refusal_of_machine, target_of
from logto_asgi.token_rules import access_token_of, margin_of

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig
    from logto_asgi.events import Events
    from logto_asgi.oidc.client import OidcClient

__all__ = ["ClientTokens"]

logger = logging.getLogger("logto_asgi")

_KEPT = 4 * 1024 * 1024
"""Bytes of tokens that are kept of each kind; beyond, those that nobody used go first."""
_REFUSAL_KEPT = 10
"""Seconds for which a refusal is not asked for again."""
_REST = 5
"""Seconds for which a kept token is used in an outage before the issuer is asked again."""
_NOTES_KEPT = 4_096
_FOR_EVER = float("inf")

Fetch = Callable[[], Coroutine[Any, Any, AccessToken]]


@dataclass(eq=False, slots=True)
class _Kept:
    """A token that is kept, as `Bounded` wants it."""

    token: AccessToken
    expires_at: float
    """Seconds since 1970: the end of the token, or of what it was exchanged for."""
    cost: int
    used: bool = False


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is asked for, and how new it must be."""

    target: Target
    fetch: Fetch = field(repr=False)
    kept: Bounded[Target, _Kept] = field(repr=False)
    force_refresh: bool
    min_ttl: int | None
    until: float = _FOR_EVER
    """Seconds since 1970, after which the token is not to be used, whatever it says itself."""


class ClientTokens:
    """Hands out tokens of the app itself, and tokens that it exchanges others for.

    One request at a time for each target and event loop, however many wait. Safe to use from several threads.
    """

    def __init__(
        self,
        config: LogtoConfig,
        client: Callable[[], OidcClient],
        clock: Callable[[], float],
        events: Events,
    ) -> None:
        self._config = config
        self._client = client
        self._clock = clock
        self._events = events
        self._own: Bounded[Target, _Kept] = Bounded(_KEPT)
        self._of_callers: Bounded[Target, _Kept] = Bounded(_KEPT)
        self._flights: Flights[AccessToken] = Flights()
        self._refusals: ShortMemory[Target, _Refusal] = ShortMemory(
            lifetime=_REFUSAL_KEPT, limit=_NOTES_KEPT, clock=clock
        )
        self._resting: ShortMemory[Target, bool] = ShortMemory(lifetime=_REST, limit=_NOTES_KEPT, clock=clock)

    async def client_credentials(
        self,
        *,
        resource: str | None = None,
        organization_id: str | None = None,
        scopes: Sequence[str] = (),
        force_refresh: bool = False,
        min_ttl: int | None = None,
    ) -> AccessToken:
        """Return a token of the app itself (RFC 6749 §4.4), which lives longer than the refresh margin.

        With `min_ttl`, longer than so many seconds, as far as the issuer's tokens do. Raises `SetupError`,
        `AccessTokenRefused`, `AccessTokenMismatch`, `IssuerUnavailable`, `IssuerRefused`, `IssuerResponseInvalid`.
        """
        target = target_of(resource, organization_id, scopes)
        self._check_credentials("Tokens of the app itself need")
        if self._config.is_logto and target.key == (None, None):
            raise SetupError("Logto gives a machine a token for something: name a resource=… or an organization_id=….")
        wish = _Wish(target, partial(self._ask_for_own, target), self._own, force_refresh, min_ttl)
        return await self._grant(wish)

    async def exchange(
        self,
        subject_token: str,
        subject_token_type: SubjectTokenType | str,
        *,
        resource: str | None = None,
        organization_id: str | None = None,
        scopes: Sequence[str] = (),
        actor_token: str | None = None,
    ) -> AccessToken:
        """Exchange a token for another one (RFC 8693 §2). Never kept: an impersonation token works once.

        Raises as `client_credentials`.
        """
        target = target_of(resource, organization_id, scopes)
        self._check_credentials("To exchange a token takes")
        check_token_type(subject_token_type)
        for token in (subject_token, *([] if actor_token is None else [actor_token])):
            check_token(token)
        return await self._exchange(subject_token, str(subject_token_type), target, actor_token)

    async def on_behalf_of(
        self,
        access_token: str,
        *,
        resource: str | None = None,
        organization_id: str | None = None,
        scopes: Sequence[str] | None = None,
        force_refresh: bool = False,
        min_ttl: int | None = None,
    ) -> AccessToken:
        """Return a token for another API in the name of who called with `access_token`.

        It is kept until it expires, or the caller's token does. `scopes` are those of the configuration unless given,
        without what is about the user's claims. Raises as `client_credentials`.
        """
        self._check_credentials("To exchange a caller's token takes")
        check_token(access_token)
        caller = hashlib.sha256(access_token.encode("ascii")).digest()
        target = target_of(resource, organization_id, self._api_scopes() if scopes is None else scopes, caller)
        exchange = partial(self._exchange, access_token, SubjectTokenType.ACCESS_TOKEN.value, target, None)
        wish = _Wish(target, exchange, self._of_callers, force_refresh, min_ttl, until=_end_of(access_token))
        return await self._grant(wish)

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - an amount of patience, which ends in no error
        """Wait up to `timeout` seconds for what this event loop is asking the issuer, then stop it."""
        await self._flights.drain(timeout)

    # -- From what is kept, or from the issuer -------------------------------------------------------------------------

    async def _grant(self, wish: _Wish) -> AccessToken:
        """Return a kept token that will do, else a new one; in an outage, a kept one that is still valid."""
        target = wish.target
        if not wish.force_refresh:
            token = self._usable(wish) or (self._valid(wish) if self._resting.get(target) else None)
            if token is not None:
                return token
            self._check_refusals(target)
        try:
            return await self._flights.join(target, partial(self._renew, wish), fresh=wish.force_refresh)
        except IssuerUnavailable:
            token = None if wish.force_refresh else self._valid(wish)
            if token is None:
                raise
        self._resting.put(target, True)
        logger.info("the issuer is away: a token for %s is used to its end", target.resource or "an organization")
        return token

    async def _renew(self, wish: _Wish) -> AccessToken:
        try:
            token = await wish.fetch()
        except (AccessTokenRefused, AccessTokenMismatch, IssuerRefused) as error:
            self._refusals.put(wish.target, _Refusal(error))
            raise
        entry = _Kept(token, min(token.expires_at, wish.until), len(token.value))
        wish.kept.put(wish.target, entry, now=self._clock())
        return token

    def _usable(self, wish: _Wish) -> AccessToken | None:
        """Return the kept token if it lives longer than the margin."""
        entry = wish.kept.get(wish.target)
        if entry is None:
            return None
        token = entry.token
        margin = margin_of(token, margin=self._config.refresh_margin, min_ttl=wish.min_ttl)
        now = self._clock()
        if now >= min(token.expires_at - margin, entry.expires_at):
            return None
        entry.used = True
        return token

    def _valid(self, wish: _Wish) -> AccessToken | None:
        """Return the kept token as long as it is valid, and for `min_ttl` seconds more."""
        entry = wish.kept.get(wish.target)
        if entry is None or self._clock() + (wish.min_ttl or 0) >= entry.expires_at:
            return None
        return entry.token

    def _check_refusals(self, target: Target) -> None:
        noted = self._refusals.get(target)
        if noted is not None:
            raise noted.again()

    # -- The issuer ----------------------------------------------------------------------------------------------------

    async def _ask_for_own(self, target: Target) -> AccessToken:
        try:
            tokens = await self._client().client_credentials(
                resource=target.resource, organization_id=target.organization_id, scope=target.scope
            )
            return self._checked(tokens, target)
        except IssuerRefused as error:
            refused = error
        raise self._explained(refused, refusal_of_machine(refused.error, target))

    async def _exchange(self, token: str, kind: str, target: Target, actor_token: str | None) -> AccessToken:
        try:
            tokens = await self._client().exchange_token(
                token,
                kind,
                resource=target.resource,
                organization_id=target.organization_id,
                scope=target.scope,
                actor_token=actor_token,
            )
            return self._checked(tokens, target)
        except IssuerRefused as error:
            refused = error
        raise self._explained(refused, refusal_of_exchange(refused.error, target))

    def _checked(self, tokens: TokenSet, target: Target) -> AccessToken:
        """Return the access token, if it is for what was asked. Raise `AccessTokenMismatch`."""
        return access_token_of(tokens, target.key, now=int(self._clock()), strict=self._config.is_logto)

    def _explained(self, refused: IssuerRefused, why: str | None) -> AccessTokenRefused | IssuerRefused:
        """Return what says best that the issuer refused: one token, or the app altogether."""
        if why is None:
            return refused
        self._events.note("token.refused")
        return AccessTokenRefused(why, error=refused.error)

    # -- The configuration ---------------------------------------------------------------------------------------------

    def _check_credentials(self, what: str) -> None:
        if not self._config.app_id or self._config.app_secret is None:
            raise SetupError(
                f"{what} the id and the secret of an application at the issuer. "
                "Set LOGTO_APP_ID and LOGTO_APP_SECRET, or pass app_id=… and app_secret=… to the configuration."
            )

    def _api_scopes(self) -> tuple[str, ...]:
        about_the_user = {*ReservedScope, *UserScope}
        return tuple(scope for scope in self._config.scopes if scope not in about_the_user)


class _Refusal:
    """What a refusal said, without the requests that it was raised in."""

    def __init__(self, error: AccessTokenRefused | AccessTokenMismatch | IssuerRefused) -> None:
        self._message = error.message
        self._error = None if isinstance(error, AccessTokenMismatch) else error.error
        self._issuer_status = error.issuer_status if isinstance(error, IssuerRefused) else None

    def again(self) -> AccessTokenRefused | AccessTokenMismatch | IssuerRefused:
        """Return the refusal as a new exception."""
        if self._error is None:
            return AccessTokenMismatch(self._message)
        if self._issuer_status is None:
            return AccessTokenRefused(self._message, error=self._error)
        return IssuerRefused(self._message, error=self._error, issuer_status=self._issuer_status)


def _end_of(access_token: str) -> float:
    """Return when a caller's token expires, in seconds since 1970; never for an opaque one, which does not say."""
    expires = (read_unverified_claims(access_token) or {}).get("exp")
    return min(expires, _FOR_EVER) if isinstance(expires, int | float) else _FOR_EVER

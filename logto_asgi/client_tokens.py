"""Tokens that the app gets with its own id and secret: its own, and exchanged ones. Knows no session and no request."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from logto_asgi.errors import AccessTokenRefused, HTTPError, IssuerRefused, SetupError
from logto_asgi.flights import Flights, Gate, again
from logto_asgi.kept_tokens import KeptTokens, Wish
from logto_asgi.models import AccessToken, ReservedScope, SubjectTokenType, TokenSet, UserScope
from logto_asgi.oidc.peek import read_unverified_claims
from logto_asgi.short_memory import ShortMemory
from logto_asgi.targets import Target, advice, check_token, check_token_type, refusal_of_person, target_of
from logto_asgi.token_rules import access_token_of

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig
    from logto_asgi.events import Events
    from logto_asgi.oidc.client import OidcClient

__all__ = ["ClientTokens"]

logger = logging.getLogger("logto_asgi")

_MOST_CALLS = 16
"""Calls of each kind that are under way at a time, in one event loop: strangers may decide how many are wanted."""
_REFUSAL_TOLD = 10
"""Seconds for which the log is not told again of a refusal that is the app's own fault."""
_FRESH = 10
"""Seconds for which a token is so new that another one would be refused by an API as well."""
_NOTES_KEPT = 4_096

GetToken = Callable[..., Coroutine[Any, Any, str]]
"""Gets a token, with `force_refresh=True` a new one."""


class ClientTokens:
    """Hands out tokens of the app itself, and tokens that it exchanges others for.

    What is kept is asked for once at a time for each target and event loop, however many wait; exchanges that are not
    kept, as often as somebody asks. Calls stand in line, 16 of each kind at a time. Safe to use from several threads.
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
        self._own = KeptTokens(config, clock)
        self._of_callers = KeptTokens(config, clock)
        self._replacing: Flights[None] = Flights()
        self._line_of_own, self._line_of_exchanges = Gate(_MOST_CALLS), Gate(_MOST_CALLS)
        self._told: ShortMemory[tuple[str | None, str], bool] = ShortMemory(
            lifetime=_REFUSAL_TOLD, limit=_NOTES_KEPT, clock=clock
        )
        self._replaced: ShortMemory[bytes, bool] = ShortMemory(lifetime=_FRESH, limit=_NOTES_KEPT, clock=clock)

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
        return await self._own.get(Wish(target, partial(self._ask_for_own, target), force_refresh, min_ttl))

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
        check_token(subject_token)
        if actor_token is not None:
            check_token(actor_token)
        work = self._exchange(subject_token, subject_token_type, target, actor_token)
        del subject_token, actor_token  # an error tracker prints what the frames of an error hold
        try:
            return await work
        except HTTPError as error:
            failure = again(error)
        raise failure

    async def on_behalf_of(
        self,
        access_token: str,
        *,
        until: float,
        resource: str | None = None,
        organization_id: str | None = None,
        scopes: Sequence[str] | None = None,
        force_refresh: bool = False,
        min_ttl: int | None = None,
    ) -> AccessToken:
        """Return a token for another API in the name of who called with `access_token`.

        It is kept until it expires, or until `until`, the end of the caller's token in seconds since 1970. `scopes` are
        those of the configuration unless given, without what is about the user's claims. Raises as
        `client_credentials`.
        """
        self._check_credentials("To exchange a caller's token takes")
        check_token(access_token)
        caller = _digest(access_token)
        target = target_of(resource, organization_id, self._api_scopes() if scopes is None else scopes, caller)
        fetch = partial(self._exchange, access_token, SubjectTokenType.ACCESS_TOKEN, target, None)
        wish = Wish(target, fetch, force_refresh, min_ttl, until)
        del access_token, fetch  # an error tracker prints what the frames of an error hold
        return await self._of_callers.get(wish)

    async def replacement(self, refused: str, get: GetToken) -> str | None:
        """Return another token than the one that an API refused; None where that one is as new as can be.

        One new token for all who were refused with the same one. Raises what `get` raises.
        """
        key = _digest(refused)
        if self._replaced.get(key) or self._was_just_issued(refused):
            return None
        del refused
        await self._replacing.join(key, partial(self._replace, key, get))
        token = await get()
        return None if _digest(token) == key else token

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - an amount of patience, which ends in no error
        """Wait up to `timeout` seconds for what this event loop is asking the issuer, then stop it."""
        await asyncio.gather(*(each.drain(timeout) for each in (self._replacing, self._own, self._of_callers)))

    # -- What an API refused -------------------------------------------------------------------------------------------

    async def _replace(self, key: bytes, get: GetToken) -> None:
        token = await get()  # Another request may have been refused and got a new one meanwhile.
        if _digest(token) == key:
            token = await get(force_refresh=True)
        self._replaced.put(_digest(token), True)

    def _was_just_issued(self, token: str) -> bool:
        """Tell by `iat` (RFC 9068 §2.2), as far as the issuer's clock is right. An opaque token does not say."""
        issued = (read_unverified_claims(token) or {}).get("iat")
        return isinstance(issued, int | float) and abs(self._clock() - issued) < _FRESH

    # -- The issuer ----------------------------------------------------------------------------------------------------

    async def _ask_for_own(self, target: Target) -> AccessToken:
        ask = partial(
            self._client().client_credentials,
            resource=target.resource,
            organization_id=target.organization_id,
            scope=target.scope,
        )
        try:
            return self._checked(await self._line_of_own.through(ask, seconds=self._config.http_timeout), target)
        except IssuerRefused as error:
            refused = error
        raise self._explained(refused, target, is_exchange=False)

    async def _exchange(self, token: str, kind: str, target: Target, actor_token: str | None) -> AccessToken:
        ask = partial(
            self._client().exchange_token,
            token,
            kind,
            resource=target.resource,
            organization_id=target.organization_id,
            scope=target.scope,
            actor_token=actor_token,
        )
        try:
            return self._checked(await self._line_of_exchanges.through(ask, seconds=self._config.http_timeout), target)
        except IssuerRefused as error:
            refused = error
        raise self._explained(refused, target, is_exchange=True)

    def _checked(self, tokens: TokenSet, target: Target) -> AccessToken:
        """Return the access token, if it is for what was asked. Raise `AccessTokenMismatch`."""
        return access_token_of(tokens, target.key, now=int(self._clock()), strict=self._config.is_logto)

    def _explained(self, refused: IssuerRefused, target: Target, *, is_exchange: bool) -> HTTPError:
        """Return what a visitor may see of a refusal; tell the log what to do about one that is the app's own fault."""
        self._events.note("token.refused")
        why = refusal_of_person(refused.error, target, is_exchange=is_exchange)
        if why is not None:
            return AccessTokenRefused(why, error=refused.error)
        topic = (target.resource, refused.error)
        if not self._told.get(topic):
            self._told.put(topic, True)
            hint = advice(refused.error, target, is_exchange=is_exchange) or refused.message
            logger.warning("the issuer refuses this app: %s", hint)
        message = f"The issuer gives this app no token ({refused.error}). The app's log says what to do."
        return IssuerRefused(message, error=refused.error, issuer_status=refused.issuer_status)

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


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()

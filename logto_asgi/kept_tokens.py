"""Tokens of one kind that are kept: the right one, asked for once, used to its end. Knows no issuer and no request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from logto_asgi.errors import (
    AccessTokenMismatch,
    AccessTokenRefused,
    HTTPError,
    IssuerRefused,
    IssuerResponseInvalid,
    IssuerUnavailable,
)
from logto_asgi.flights import Flights, again
from logto_asgi.models import AccessToken
from logto_asgi.session.bounded import Bounded
from logto_asgi.short_memory import ShortMemory
from logto_asgi.targets import Target
from logto_asgi.token_rules import margin_of

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig

__all__ = ["KeptTokens", "Wish"]

logger = logging.getLogger("logto_asgi")

_KEPT = 4 * 1024 * 1024
"""Bytes that kept tokens may take; beyond, those that nobody used go first."""
_EMPTY_ENTRY = 700
"""About what a kept token takes in memory besides its text and its scopes: the objects around it, the slot here."""
_PATIENCE = 2.0
"""Seconds that somebody waits for a new token who could go on with a kept one; the request goes on."""
_REFUSAL_KEPT = 10
"""Seconds for which a refusal is not asked for again."""
_REST = 5
"""Seconds for which a kept token is used in an outage before the issuer is asked again."""
_NOTES_KEPT = 4_096
_FOR_EVER = float("inf")
_AILING = (IssuerUnavailable, IssuerRefused, IssuerResponseInvalid)
"""Failures of the issuer, or of the app's standing with it, that say nothing of a token that was got before."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for, and how new it must be."""

    target: Target
    fetch: Callable[[], Coroutine[Any, Any, AccessToken]] = field(repr=False)
    force_refresh: bool
    min_ttl: int | None
    until: float = _FOR_EVER
    """Seconds since 1970, after which the token is not to be used, whatever it says itself."""


@dataclass(eq=False, slots=True)
class _Kept:
    """A token that is kept, as `Bounded` wants it."""

    token: AccessToken
    expires_at: float
    """Seconds since 1970: the end of the token, or of what it was exchanged for."""
    cost: int
    used: bool = False


class KeptTokens:
    """Keeps tokens by target, and fetches each once at a time in an event loop, however many wait.

    Safe to use from several threads. `patience` is in seconds.
    """

    def __init__(self, config: LogtoConfig, clock: Callable[[], float], *, patience: float = _PATIENCE) -> None:
        self._margin = config.refresh_margin
        self._clock = clock
        self._patience = patience
        self._kept: Bounded[Target, _Kept] = Bounded(_KEPT)
        self._flights: Flights[AccessToken] = Flights()
        self._refusals: ShortMemory[Target, HTTPError] = ShortMemory(
            lifetime=_REFUSAL_KEPT, limit=_NOTES_KEPT, clock=clock
        )
        self._resting: ShortMemory[Target, bool] = ShortMemory(lifetime=_REST, limit=_NOTES_KEPT, clock=clock)

    def __len__(self) -> int:
        return len(self._kept)

    def waiting(self) -> int:
        """Return how many tokens are being fetched in this event loop."""
        return self._flights.waiting()

    async def get(self, wish: Wish) -> AccessToken:
        """Return a token. Raise what fetching it raises.

        1. A kept one lives long enough.
        2. The issuer failed a moment ago: a kept one, as long as it is valid, else the same error again.
        3. The issuer gives a new one; who could go on with a kept one does not wait long.
        4. The issuer fails: as 2.
        """
        kept = None
        if not wish.force_refresh:
            token = self._usable(wish)
            if token is not None:
                return token
            kept = self._valid(wish)
            refusal = self._refusals.get(wish.target)
            if kept is not None and (self._resting.get(wish.target) or isinstance(refusal, _AILING)):
                return kept
            if refusal is not None:
                raise again(refusal)
        try:
            async with asyncio.timeout(None if kept is None else self._patience):
                return await self._flights.join(wish.target, partial(self._renew, wish), fresh=wish.force_refresh)
        except TimeoutError:
            failure: HTTPError = IssuerUnavailable("The issuer did not answer in time. Try again in a moment.")
        except _AILING as error:
            failure = error
        kept = None if kept is None else self._valid(wish)
        if kept is None:
            raise failure
        self._rest(wish.target, failure)
        return kept

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - an amount of patience, which ends in no error
        """Wait up to `timeout` seconds for what this event loop is fetching, then stop it."""
        await self._flights.drain(timeout)

    async def _renew(self, wish: Wish) -> AccessToken:
        try:
            token = await wish.fetch()
        except (AccessTokenRefused, AccessTokenMismatch, IssuerRefused, IssuerResponseInvalid) as error:
            self._refusals.put(wish.target, again(error))
            raise
        cost = _EMPTY_ENTRY + len(token.value) + wish.target.size + sum(map(len, token.scopes))
        self._kept.put(wish.target, _Kept(token, min(token.expires_at, wish.until), cost), now=self._clock())
        return token

    def _usable(self, wish: Wish) -> AccessToken | None:
        """Return the kept token if it lives longer than the margin."""
        entry = self._kept.get(wish.target)
        if entry is None:
            return None
        token = entry.token
        margin = margin_of(token, margin=self._margin, min_ttl=wish.min_ttl)
        now = self._clock()
        if now >= min(token.expires_at - margin, entry.expires_at):
            return None
        entry.used = True
        return token

    def _valid(self, wish: Wish) -> AccessToken | None:
        """Return the kept token as long as it is valid, and for `min_ttl` seconds more if any token lives so long."""
        entry = self._kept.get(wish.target)
        if entry is None:
            return None
        least = wish.min_ttl or 0
        if least > (entry.expires_at - entry.token.issued_at) * 9 // 10:
            least = 0  # Not even a new one would do, as in `margin_of`.
        return entry.token if self._clock() + least < entry.expires_at else None

    def _rest(self, target: Target, failure: HTTPError) -> None:
        self._resting.put(target, True)
        what = target.resource or "an organization"
        logger.info("no new token (%s): a kept one for %s is used to its end", failure.code, what)

"""What the issuer says of opaque tokens (RFC 7662), asked once for all who wait. Knows no request and no signature.

Strangers decide how many tokens come. So few calls are under way at a time, the others wait in line no longer than a
call may take, and a refusal is remembered for a moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from logto_asgi.claims import AccessTokenClaims
from logto_asgi.errors import InvalidToken, IssuerUnavailable, SetupError, VerificationError
from logto_asgi.flights import Flights
from logto_asgi.oidc.access_tokens import read_introspected_claims
from logto_asgi.oidc.transport import within
from logto_asgi.short_memory import ShortMemory

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig
    from logto_asgi.events import Events
    from logto_asgi.oidc.client import OidcClient

__all__ = ["Introspection"]

MOST_CALLS = 16
"""Calls that are under way at a time, in one event loop; a process has one as a rule."""
REFUSED_FOR = 10
"""Seconds for which a refusal is remembered at most."""
MOST_REFUSED = 4_096
UNREACHABLE_FOR = 2
"""Seconds for which nobody is asked after no connection came about."""

_Refusal = tuple[str, str]
"""The check that failed, and what to say of it."""

_INACTIVE = "The access token has expired, was revoked, or is not one of this issuer's."
_UNREACHABLE = "The issuer cannot be reached, and so cannot be asked about opaque tokens. Try again in a moment."


class Introspection:
    """Asks the issuer about opaque tokens. Remembers refusals only: what is true is for the caller to keep."""

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
        self._flights: Flights[AccessTokenClaims | _Refusal] = Flights()
        self._gates: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
        lifetime = min(REFUSED_FOR, config.introspection_cache)
        self._refused: ShortMemory[bytes, _Refusal] = ShortMemory(lifetime=lifetime, limit=MOST_REFUSED, clock=clock)
        self._unreachable: ShortMemory[str, bool] = ShortMemory(lifetime=UNREACHABLE_FOR, limit=1, clock=clock)

    async def claims(self, token: str, key: bytes) -> AccessTokenClaims:
        """Return what the issuer says of a token, known as `key`. Takes `http_timeout` seconds at most, line included.

        Raise `InvalidToken` for one that is not active, `IssuerUnavailable`, `IssuerRefused` where the issuer does not
        answer this app, `SetupError` for a configuration that cannot ask.
        """
        self._check_setup()
        verdict: AccessTokenClaims | _Refusal | None = self._refused.get(key)
        if verdict is None:
            if self._unreachable.get(self._config.issuer):
                raise IssuerUnavailable(_UNREACHABLE, unreachable=True)
            verdict = await self._flights.join(key, partial(self._ask, token, key))
        if isinstance(verdict, AccessTokenClaims):
            return verdict
        check, message = verdict
        raise InvalidToken(message, check=check)

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - an amount of patience, which ends in no error
        """Wait up to `timeout` seconds for calls under way, then stop them."""
        await self._flights.drain(timeout)

    def _check_setup(self) -> None:
        config = self._config
        if not config.app_id or config.app_secret is None or config.token_endpoint_auth_method == "none":
            raise SetupError(
                "opaque=True asks the issuer about tokens, and it answers apps with a secret only: "
                "set LOGTO_APP_ID and LOGTO_APP_SECRET, or leave opaque=True out."
            )

    async def _ask(self, token: str, key: bytes) -> AccessTokenClaims | _Refusal:
        # One deadline for line and call: whoever asked may be gone, and a line nobody waits in must not grow.
        verdict = self._read(await within(self._config.http_timeout, self._in_line(token)))
        self._events.note("bearer.introspected")
        if isinstance(verdict, tuple):
            self._refused.put(key, verdict)
        return verdict

    async def _in_line(self, token: str) -> dict[str, Any] | None:
        gate = self._gates.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(MOST_CALLS))
        async with gate:
            try:
                return await self._client().introspect(token)
            except IssuerUnavailable as error:
                if error.unreachable:
                    self._unreachable.put(self._config.issuer, True)
                raise

    def _read(self, answer: dict[str, Any] | None) -> AccessTokenClaims | _Refusal:
        """Return the claims, or why there are none: a value, because one error must not be raised for many callers."""
        if answer is None:
            return "active", _INACTIVE
        try:
            return read_introspected_claims(
                answer, config=self._config, now=self._clock(), lifetime=self._config.introspection_cache
            )
        except VerificationError as error:
            return error.check, error.message

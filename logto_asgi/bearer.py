"""Incoming tokens: verified access tokens and what is remembered of them, never a decision. Knows no request.

What is remembered is found by the token's SHA-256; no token is kept. At each use the clock decides anew, and the key
that signed must still be published.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from logto_asgi.claims import ODD, AccessTokenClaims
from logto_asgi.errors import InvalidToken, IssuerError, IssuerUnavailable, VerificationError
from logto_asgi.introspection import Introspection
from logto_asgi.oidc.jose import MAX_TOKEN
from logto_asgi.session.bounded import Bounded
from logto_asgi.short_memory import ShortMemory

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig
    from logto_asgi.events import Events
    from logto_asgi.oidc.client import OidcClient
    from logto_asgi.oidc.discovery import DiscoveryCache
    from logto_asgi.oidc.keys import PublicKey

__all__ = ["BearerTokens"]

MAX_BYTES = 16 * 1024 * 1024
"""Bytes that all remembered claims may take together."""
_EMPTY_ENTRY = 3_500
"""About what the claims of a token take in memory besides their text: the model, its dictionaries, the slot here."""

_TOLD_FOR = 10
"""Seconds for which the log hears of one kind of failure once, however many callers meet it."""
_MOST_KINDS = 64

_CONTAINERS = (dict, list, tuple)
_PLAIN = frozenset({str, int, float, bool, type(None)})
_CHANGEABLE = (dict, list, BaseModel)
_FORM = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)
"""What a bearer token may look like (RFC 6750 §2.1)."""
_IS_OPAQUE = (
    "The token is no JWT but an opaque one, which this API does not take. "
    "Ask the issuer for an access token with `resource`, and send that."
)


@dataclass(slots=True)
class _Remembered:
    """Claims that were verified once, or told by the issuer. Times are in seconds since 1970."""

    claims: AccessTokenClaims
    starts_at: float
    expires_at: float
    signed_by: bytes | None
    """The key's fingerprint; None for an opaque token."""
    cost: int
    changeable: bool
    """Whether the claims hold lists or objects, which one request could change for the next."""
    used: bool = False

    def handed_out(self) -> AccessTokenClaims:
        return _copied(self.claims) if self.changeable else self.claims


class BearerTokens:
    """Verifies access tokens that callers bring, and remembers the claims of those that are true.

    An event `bearer.refused` counts each refusal; nothing is logged, because strangers decide how many there are.
    """

    def __init__(
        self,
        config: LogtoConfig,
        client: Callable[[], OidcClient],
        discovery: DiscoveryCache,
        clock: Callable[[], float],
        events: Events,
        *,
        limit: int = MAX_BYTES,
    ) -> None:
        self._config = config
        self._client = client
        self._discovery = discovery
        self._clock = clock
        self._events = events
        self._memory: Bounded[bytes, _Remembered] = Bounded(limit)
        self._introspection = Introspection(config, client, clock, events)
        self._lately: ShortMemory[str, bool] = ShortMemory(lifetime=_TOLD_FOR, limit=_MOST_KINDS, clock=clock)

    def known(self, token: str, *, opaque: bool = False) -> AccessTokenClaims | None:
        """Return the claims of a token that was verified before and is still good; None where it must be verified.

        Fetches nothing, and so knows no signed token while the issuer's keys are older than an hour.
        """
        if not token.isascii() or len(token) > MAX_TOKEN:
            return None
        entry = self._memory.get(sha256(token.encode()).digest())
        if entry is None:
            return None
        now = self._clock()
        if not entry.starts_at <= now < entry.expires_at:
            return None
        if entry.signed_by is None:
            if not opaque:
                return None
        else:
            keys = self._discovery.fresh_keys(now)
            if keys is None or entry.signed_by not in keys.fingerprints:
                return None
        entry.used = True
        return entry.handed_out()

    async def verify(self, token: str, *, opaque: bool = False) -> AccessTokenClaims:
        """Return the claims of a token. Raise `InvalidToken`, whose `check` names what failed.

        Raise `IssuerUnavailable` where the issuer's keys cannot be had: that is not the token's fault. With `opaque`
        the issuer is asked about what is no JWT (RFC 7662); then `IssuerRefused`, `IssuerResponseInvalid` and
        `SetupError` are possible too.
        """
        try:
            _check_form(token)
            if token.count(".") == 2:
                return await self._signed(token)
            if opaque:
                return await self._told(token)
            raise InvalidToken(_IS_OPAQUE, check="format")
        except InvalidToken as error:
            self._events.note("bearer.refused", reason=error.check)
            raise

    def is_news(self, kind: str) -> bool:
        """Tell whether the log has not heard of this kind of failure for some seconds, and note that it has now.

        Callers decide how often they meet one, and nobody knows them.
        """
        if self._lately.get(kind):
            return False
        self._lately.put(kind, True)
        return True

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - an amount of patience, which ends in no error
        """Wait up to `timeout` seconds for calls to the issuer about opaque tokens, then stop them."""
        await self._introspection.drain(timeout)

    async def _signed(self, token: str) -> AccessTokenClaims:
        key = sha256(token.encode()).digest()
        entry = self._memory.get(key)
        check: str | None = None
        try:
            if entry is not None and await self._still_stands(entry):
                return entry.handed_out()
            self._memory.drop(key)
            claims, signed_by = await self._client().verify_access_token(token)
        except VerificationError as error:
            check, fault = error.check, error.message
        except IssuerUnavailable:
            raise
        except IssuerError as error:
            fault = error.message
        else:
            return self._remember(key, token, claims, signed_by)
        # Outside of the handler, so that nothing that holds the token hangs on the error.
        if check is not None:
            raise InvalidToken(fault, check=check)
        raise IssuerUnavailable(f"No access token can be verified without the issuer's keys. {fault}")

    async def _still_stands(self, entry: _Remembered) -> bool:
        """Ask what `known` asks, but wait for newer keys, or go on with older ones through an outage."""
        keys = await self._client().keys()
        return entry.starts_at <= self._clock() < entry.expires_at and entry.signed_by in keys.fingerprints

    async def _told(self, token: str) -> AccessTokenClaims:
        claims = self.known(token, opaque=True)
        if claims is not None:
            return claims
        key = sha256(token.encode()).digest()
        claims = await self._introspection.claims(token, key)
        return self._remember(key, token, claims, None)

    def _remember(
        self, key: bytes, token: str, claims: AccessTokenClaims, signed_by: PublicKey | None
    ) -> AccessTokenClaims:
        now, leeway = self._clock(), self._config.clock_leeway
        containers = _containers(claims)
        changeable = any(isinstance(value, _CHANGEABLE) for value in containers)
        expires_at: float = claims.exp + leeway
        if signed_by is None:
            expires_at = min(expires_at, now + self._config.introspection_cache)
        if now < expires_at:
            starts_at = max(claims.iat, claims.nbf or 0) - leeway
            fingerprint = None if signed_by is None else signed_by.fingerprint
            # In memory, lists and objects are many times their text.
            cost = _EMPTY_ENTRY + len(token) + sum(map(_size, containers))
            entry = _Remembered(claims, starts_at, expires_at, fingerprint, cost, changeable)
            self._memory.put(key, entry, now=now)
        # Others may have waited for the same answer of the issuer, and get the same claims.
        return _copied(claims) if changeable else claims


def _check_form(token: str) -> None:
    if not token:
        raise InvalidToken("Nothing stands behind Bearer. Is the variable empty?", check="format")
    if len(token) > MAX_TOKEN:
        raise InvalidToken("The access token is too long.", check="size")
    if not _FORM.fullmatch(token):
        raise InvalidToken("This is no access token: it has characters that none has.", check="format")


def _containers(claims: AccessTokenClaims) -> list[Any]:
    """Return the claims that hold others: lists, objects and the address, also those of an unexpected type."""
    known = claims.__dict__
    values = [known.get(name) for name in claims.model_fields_set]
    values += (claims.__pydantic_extra__ or {}).values()
    values += known.get(ODD, {}).values()
    return [value for value in values if type(value) not in _PLAIN]


def _copied(claims: AccessTokenClaims) -> AccessTokenClaims:
    """Return claims of their own: `deepcopy` of all of them would take three times as long."""
    copy = claims.model_copy()
    for each in (copy.__dict__, copy.__pydantic_extra__ or {}):
        for name, value in each.items():
            if isinstance(value, _CHANGEABLE):
                each[name] = deepcopy(value)
    return copy


def _size(value: Any) -> int:
    size = sys.getsizeof(value)
    if isinstance(value, dict):
        return size + sum(_size(key) + _size(child) for key, child in value.items())
    return size + sum(map(_size, value)) if isinstance(value, _CONTAINERS) else size

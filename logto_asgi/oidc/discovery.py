"""Keep the issuer's two documents, metadata and keys: their age, their one refetch, what outlives an outage.

It knows no HTTP: the client passes a function that fetches a document.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from logto_asgi.errors import IssuerError, IssuerResponseInvalid, IssuerUnavailable
from logto_asgi.oidc.keys import KeySet, parse_key_set
from logto_asgi.oidc.metadata import ProviderMetadata, discovery_url, parse_metadata
from logto_asgi.oidc.single_flight import SingleFlight
from logto_asgi.oidc.transport import within

__all__ = ["Discovery", "DiscoveryCache"]

logger = logging.getLogger(__name__)

METADATA_AGE = 3600
KEYS_AGE = 3600
"""Seconds after which a document is fetched again."""
KEYS_LIMIT = 24 * 3600
"""Seconds for which keys are used while they cannot be fetched again."""
FAILURE_COOLDOWN = 10
"""Seconds in which a failed refetch is not repeated, while there is an older document to use."""
UNKNOWN_KEY_COOLDOWN = 1
"""Seconds between refetches because of a token of the token endpoint whose key is unknown."""
STRANGERS_COOLDOWN = 5
"""The same for bearer tokens, which anybody may send. Neither uses up the other's."""
NOTHING_COOLDOWN = 2
"""Seconds after a failure in which callers' tokens fetch nothing, while there is no document at all."""
OUTAGE = 60
"""Seconds after a failure in which nobody with an older document waits for the next try."""

T = TypeVar("T")


@dataclass(slots=True)
class _Kept(Generic[T]):
    """A document, when it came, and when and why fetching it failed last. Times are in seconds."""

    value: T | None = None
    fetched_at: float = 0.0
    failed_at: float | None = None
    fault: IssuerError | None = None
    told_at: float | None = None
    """When the log was told last that this cannot be renewed."""

    def store(self, value: T, now: float) -> T:
        self.value, self.fetched_at, self.failed_at, self.fault = value, now, None, None
        return value

    def failed(self, error: IssuerError, now: float) -> None:
        # Another error of the kind: this one's traceback holds the request of whoever waited.
        kind = type(error) if isinstance(error, IssuerUnavailable | IssuerResponseInvalid) else IssuerError
        self.failed_at, self.fault = now, kind(error.message)

    def younger_than(self, limit: float, now: float) -> T | None:
        # A clock that was set back makes everything look as if it came from the future: that counts as old.
        return self.value if 0 <= now - self.fetched_at < limit else None

    def failed_within(self, limit: float, now: float) -> bool:
        return self.failed_at is not None and 0 <= now - self.failed_at < limit

    def is_news(self, now: float) -> bool:
        """Tell whether the log has not heard lately that this cannot be renewed, and hears it now."""
        if self.told_at is not None and 0 <= now - self.told_at < FAILURE_COOLDOWN:
            return False
        self.told_at = now
        return True


@dataclass(slots=True)
class _Cooldown:
    """When a document was last fetched out of turn. Times are in seconds."""

    lasts: int
    began_at: float | None = None

    def is_on(self, now: float) -> bool:
        return self.began_at is not None and 0 <= now - self.began_at < self.lasts


class DiscoveryCache:
    """What is known of one issuer: plain data without lock or loop, shared by the clients of several event loops."""

    __slots__ = ("keys", "metadata", "strangers_key", "unknown_key")

    def __init__(self) -> None:
        self.metadata: _Kept[ProviderMetadata] = _Kept()
        self.keys: _Kept[KeySet] = _Kept()
        self.unknown_key = _Cooldown(UNKNOWN_KEY_COOLDOWN)
        self.strangers_key = _Cooldown(STRANGERS_COOLDOWN)

    def fresh_keys(self, now: float) -> KeySet | None:
        """Return keys at most an hour old without fetching, or None."""
        return self.keys.younger_than(KEYS_AGE, now)


class Discovery:
    """Answers for metadata and keys from the cache, and fetches them once however many wait. For one event loop."""

    def __init__(
        self,
        *,
        issuer: str,
        fetch: Callable[[str], Awaitable[Mapping[str, Any]]],
        cache: DiscoveryCache | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._issuer = issuer
        self._fetch = fetch
        self._cache = cache if cache is not None else DiscoveryCache()
        self._clock = clock
        self._metadata_flight: SingleFlight[ProviderMetadata] = SingleFlight()
        self._keys_flight: SingleFlight[KeySet] = SingleFlight()

    def cached_metadata(self) -> ProviderMetadata | None:
        """Return the metadata of any age without fetching, or None."""
        return self._cache.metadata.value

    def fresh(self) -> tuple[ProviderMetadata, KeySet] | None:
        """Return both documents without fetching, if both are at most an hour old."""
        now = self._clock()
        metadata, keys = self._cache.metadata.younger_than(METADATA_AGE, now), self._cache.fresh_keys(now)
        return None if metadata is None or keys is None else (metadata, keys)

    async def metadata(self, *, patience: float | None = None) -> ProviderMetadata:
        """Return metadata at most an hour old, or older where fetching fails. Raise `IssuerError` without any.

        With `patience`, for callers' tokens, older metadata also serves where fetching takes longer than so many
        seconds; it goes on. Where there is none, a failure is not repeated at once: strangers decide how many ask.
        """
        kept, now = self._cache.metadata, self._clock()
        value = kept.younger_than(METADATA_AGE, now)
        if value is not None:
            return value
        return await self._renew(kept, self._metadata_flight, self._fetch_metadata, kept.value, patience)

    async def keys(self, *, patience: float | None = None) -> KeySet:
        """Return keys at most an hour old, or a day where fetching fails. Raise `IssuerError` without any.

        `patience` as for `metadata`.
        """
        kept, now = self._cache.keys, self._clock()
        value = kept.younger_than(KEYS_AGE, now)
        if value is not None:
            return value
        usable = kept.younger_than(KEYS_LIMIT, now)
        return await self._renew(kept, self._keys_flight, self._fetch_keys, usable, patience)

    async def keys_beyond(self, known: KeySet, *, strangers: bool = False) -> KeySet:
        """Return a key set that is newer than `known`, which lacks the key of a token; `known` itself in the cooldown.

        `strangers`: the token came from anybody, so the longer cooldown of such tokens counts, and only theirs.
        Raise `IssuerError` when it cannot be fetched: a lack of keys is not the token's fault.
        """
        kept, now = self._cache.keys, self._clock()
        if kept.value is not None and kept.value is not known:
            return kept.value
        cooldown = self._cache.strangers_key if strangers else self._cache.unknown_key
        if not self._keys_flight.running and cooldown.is_on(now):
            if kept.failed_at is not None:
                raise IssuerUnavailable(
                    "The issuer's keys cannot be fetched at the moment.", retry_after=cooldown.lasts
                )
            return known
        cooldown.began_at = now
        return await self._keys_flight.run(self._fetch_keys)

    def cancel(self) -> None:
        """Stop what is being fetched."""
        self._metadata_flight.cancel()
        self._keys_flight.cancel()

    async def _renew(
        self,
        kept: _Kept[T],
        flight: SingleFlight[T],
        fetch: Callable[[], Any],
        usable: T | None,
        patience: float | None,
    ) -> T:
        if usable is not None and kept.failed_within(FAILURE_COOLDOWN, self._clock()):
            return usable
        if usable is None and patience is not None and not flight.running:
            self._spare_the_issuer(kept)
        if usable is not None and patience is not None:
            return await self._renew_in_passing(kept, flight, fetch, usable, patience)
        try:
            return await flight.run(fetch)
        except IssuerError as error:
            if usable is None:
                raise
            if kept.is_news(self._clock()):
                name = type(usable).__name__
                logger.warning("The issuer's %s cannot be renewed; the older one is used: %s", name, error)
            return usable

    def _spare_the_issuer(self, kept: _Kept[Any]) -> None:
        """Raise what the last call failed with, if that was just now."""
        if kept.fault is not None and kept.failed_within(NOTHING_COOLDOWN, self._clock()):
            raise type(kept.fault)(kept.fault.message)

    async def _renew_in_passing(
        self, kept: _Kept[T], flight: SingleFlight[T], fetch: Callable[[], Any], usable: T, patience: float
    ) -> T:
        """Return the renewed document if it comes soon. In an outage only the first ones wait at all."""
        is_outage = kept.failed_within(OUTAGE, self._clock())
        try:
            return await within(0 if is_outage else patience, flight.run(fetch))
        except IssuerError as error:
            if not is_outage and kept.is_news(self._clock()):
                logger.warning("The issuer's %s is used beyond its time: %s", type(usable).__name__, error)
        if kept.value is usable:  # Else it came just now.
            kept.failed_at = self._clock()
        return usable

    async def _fetch_metadata(self) -> ProviderMetadata:
        kept = self._cache.metadata
        try:
            document = await self._fetch(discovery_url(self._issuer))
            metadata = parse_metadata(document, issuer=self._issuer)
        except IssuerError as error:
            kept.failed(error, self._clock())
            raise
        return kept.store(metadata, self._clock())

    async def _fetch_keys(self) -> KeySet:
        kept = self._cache.keys
        try:
            document = await self._fetch((await self.metadata()).jwks_uri)
            # In a thread: the first import of joserfc takes 33 ms, and big keys take their time too.
            keys = await asyncio.to_thread(parse_key_set, document)
        except IssuerError as error:
            kept.failed(error, self._clock())
            raise
        return kept.store(keys, self._clock())

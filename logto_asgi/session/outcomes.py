"""What states of sign-ins led to, for other processes that are asked for the same. Knows no request and no issuer.

A state is claimed by creating a record under it, so that of several call-backs one exchanges the code.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from logto_asgi.errors import AttemptNotFound, IssuerUnavailable, StoreUnavailable
from logto_asgi.models import Session
from logto_asgi.session.keeping import Keeper
from logto_asgi.session.known import Gone
from logto_asgi.session.records import Claim, Unreadable, key_of, key_of_state

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig

__all__ = ["Outcomes"]

logger = logging.getLogger("logto_asgi")

_SHARED = 60
"""Seconds for which a second call-back of the same state gets the first one's outcome: a reload, a lost answer."""
_PAUSES = (0.07, 0.13)
"""Seconds between two looks at a state that somebody else has claimed: between these, by chance."""


class Outcomes:
    """Claims of states and what they led to, in a store. `clock` gives seconds since 1970."""

    def __init__(self, config: LogtoConfig, keeper: Keeper, *, clock: Callable[[], float]) -> None:
        self._keeper = keeper
        self._clock = clock
        self._lifetime = int(config.attempt_lifetime)
        self._patience = 4 * config.http_timeout

    async def claim(self, state: str) -> bool:
        """Claim a state for as long as its attempt may live, False when somebody has. Raise `StoreUnavailable`."""
        now = int(self._clock())
        return await self._write(state, Claim(now), now + self._lifetime, revision=None)

    async def settle(self, state: str, session: Session | None) -> None:
        """Note what a state led to. Where the store is away whoever waits is told to try again."""
        now = int(self._clock())
        claim = Claim(now, settled=now, session_id=session.id if session else None)
        try:
            await self._write(state, claim, now + self._lifetime, revision=1)
        except StoreUnavailable:
            logger.info("the outcome of a sign-in could not be noted for other processes: the session store is away")

    async def _write(self, state: str, claim: Claim, ends_at: int, *, revision: int | None) -> bool:
        key = key_of_state(state)
        value = self._keeper.records.seal_claim(key, claim)
        now = int(self._clock())
        written = await self._keeper.store.set(
            key, value, now=now, idle=self._lifetime, ends_at=ends_at, revision=revision
        )
        return written is not None

    async def wait(self, state: str) -> Session:
        """Wait until a claimed state is settled, and return its session.

        Raise `AttemptNotFound` where there is none, `IssuerUnavailable` when it takes too long, `StoreUnavailable`.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        while loop.time() < deadline:
            claim = await self._read(state)
            if claim is not None and claim.settled is not None:
                return await self._session(claim, claim.settled)
            if claim is not None and self._clock() > claim.at + self._patience:
                raise AttemptNotFound("This sign-in was interrupted. Start again.")
            await asyncio.sleep(random.uniform(*_PAUSES))  # noqa: S311 - spreads load, guards nothing
        raise IssuerUnavailable("The sign-in took too long. Try again.")

    async def _read(self, state: str) -> Claim | None:
        """Return the claim, None for one that a newer worker has sealed."""
        key = key_of_state(state)
        stored = await self._keeper.store.get(key, now=int(self._clock()))
        if stored is None:
            raise AttemptNotFound("This sign-in was finished before. Start again.")
        try:
            return self._keeper.records.open_claim(key, stored.value)
        except Unreadable as error:
            problem = error
        if problem.may_be_newer:
            return None
        raise AttemptNotFound("This sign-in cannot be finished. Start again.")

    async def _session(self, claim: Claim, settled: int) -> Session:
        if claim.session_id is None or self._clock() - settled > _SHARED:
            raise AttemptNotFound("This sign-in was finished before. Start again.")
        found = await self._keeper.look(key_of(claim.session_id), touch=False)
        if isinstance(found, Gone):
            raise AttemptNotFound("This sign-in was finished before, and its session has ended. Start again.")
        return found.live.session

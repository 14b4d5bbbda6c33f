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
from logto_asgi.session.in_store.claims import Claim, Claims
from logto_asgi.session.in_store.keeper import Keeper
from logto_asgi.session.in_store.known import Gone
from logto_asgi.session.in_store.records import Unreadable, key_of, key_of_state

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig

__all__ = ["Outcomes"]

logger = logging.getLogger("logto_asgi")

_SHARED = 60
"""Seconds for which a second call-back of the same state gets the first one's outcome: a reload, a lost answer.

A code lives no longer, so that nothing is lost when the state is forgotten then.
"""
_MARGIN = 15
"""Seconds that a record lives beyond its use."""
_PAUSES = (0.07, 0.13)
"""Seconds between two looks at a state that somebody else has claimed: between these, by chance."""


class Outcomes:
    """Claims of states and what they led to, in a store. `clock` gives seconds since 1970."""

    def __init__(self, config: LogtoConfig, keeper: Keeper, *, clock: Callable[[], float]) -> None:
        self._keeper = keeper
        self._clock = clock
        secrets = [secret.get_secret_value() for secret in config.cookie_secrets]
        self._claims = Claims(secrets, issuer=config.issuer, client_id=config.app_id)
        self._patience = 4 * config.http_timeout
        self._claimed = int(self._patience) + _MARGIN

    async def claim(self, state: str, code_digest: str) -> bool:
        """Claim a state for as long as an exchange can take, False when somebody has. Raise `StoreUnavailable`."""
        claim = Claim(int(self._clock()))
        return await self._write(state, code_digest, claim, lifetime=self._claimed, revision=None)

    async def settle(self, state: str, code_digest: str, session: Session | None) -> None:
        """Note what a state led to. Where the store is away whoever waits is told to try again."""
        claim = Claim(int(self._clock()), settled=True, session_key=key_of(session.id) if session else None)
        lifetime = _SHARED + _MARGIN if session else _SHARED
        try:
            await self._write(state, code_digest, claim, lifetime=lifetime, revision=1)
        except StoreUnavailable:
            logger.info("the outcome of a sign-in could not be noted for other processes: the session store is away")

    async def _write(self, state: str, code_digest: str, claim: Claim, *, lifetime: int, revision: int | None) -> bool:
        key = key_of_state(state)
        value = self._claims.sign(claim, key=key, code_digest=code_digest)
        ends_at = claim.at + lifetime
        written = await self._keeper.store.set(
            key, value, now=claim.at, idle=lifetime, ends_at=ends_at, revision=revision
        )
        return written is not None

    async def wait(self, state: str, code_digest: str) -> Session:
        """Wait until a claimed state is settled, and return its session to who brings the same code.

        Raise `AttemptNotFound` for anybody else and where there is none, `IssuerUnavailable` when it takes too long,
        `StoreUnavailable`.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        while loop.time() < deadline:
            claim = await self._read(state, code_digest)
            if claim is not None and claim.settled:
                return await self._session(claim)
            if claim is not None and self._clock() > claim.at + self._patience:
                raise AttemptNotFound("This sign-in was interrupted. Start again.")
            await asyncio.sleep(random.uniform(*_PAUSES))  # noqa: S311 - spreads load, guards nothing
        raise IssuerUnavailable("The sign-in took too long. Try again.")

    async def _read(self, state: str, code_digest: str) -> Claim | None:
        """Return the claim, None for one that a newer worker has sealed."""
        key = key_of_state(state)
        stored = await self._keeper.store.get(key, now=int(self._clock()))
        if stored is None:
            raise AttemptNotFound("This sign-in was finished before. Start again.")
        try:
            return self._claims.read(stored.value, key=key, code_digest=code_digest)
        except Unreadable as error:
            problem = error
        if problem.may_be_newer:
            return None
        raise AttemptNotFound("This sign-in cannot be finished. Start again.")

    async def _session(self, claim: Claim) -> Session:
        if claim.session_key is None or self._clock() - claim.at > _SHARED:
            raise AttemptNotFound("This sign-in was finished before. Start again.")
        found = await self._keeper.look(claim.session_key, touch=False)
        if isinstance(found, Gone):
            raise AttemptNotFound("This sign-in was finished before, and its session has ended. Start again.")
        return found.live.session

"""What every backend of sessions does, `SessionBackend`, and `Turn`, the right to refresh one. Knows no issuer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from enum import Enum
from typing import Protocol

from logto_asgi.models import AccessToken, Session
from logto_asgi.session.cookies import RawHeaders
from logto_asgi.session.loaded import Loaded

__all__ = ["Overtaken", "Saved", "SessionBackend", "Turn"]


class Overtaken(Exception):
    """Somebody else changed the session between taking a turn and using it."""


class Saved(Enum):
    """What became of a state that was to be saved."""

    KEPT = "kept"
    """It is the session's newest, saved or to be saved as soon as its store takes it."""
    OVERTAKEN = "overtaken"
    """Somebody else has saved a newer one, which the turn goes on from; this one is thrown away."""
    ENDED = "ended"
    """The session has ended: nothing is saved."""


class Turn(Protocol):
    """What one refresh may do with a session while nobody else refreshes it."""

    session: Session
    """The newest state."""
    revocable: bool
    """After `save` returned `ENDED`: whether the refresh token that was not saved may be revoked.

    Not where a new sign-in replaced the session: at Logto both share a grant, and revoking would end the new one.
    """

    async def depart(self) -> None:
        """Note that a request to the issuer leaves now. Raise `Overtaken`, `StoreUnavailable` or `StoreFull`."""
        ...

    async def save(self, session: Session, *, spent: str | None) -> Saved:
        """Keep a successor; `spent` is the refresh token that it replaced, if it did. Return what became of it.

        After `depart` a store that is away does not raise: the state is kept and saved as soon as that is possible.
        """
        ...

    async def missed(self, *, processed: bool | None) -> None:
        """Note that the request brought nothing: whether the issuer processed it, None when nobody can know."""
        ...

    async def reread(self) -> Session | None:
        """Return the newest state if somebody else has made one, else None."""
        ...

    async def end_refused(self) -> None:
        """End the session, whose refresh token the issuer refused, unless a newer state of it is known."""
        ...


class SessionBackend(Protocol):
    """Where sessions live."""

    remote: bool
    """Whether `read` must be awaited before `Loaded.session` is known."""

    def load(self, headers: RawHeaders) -> Loaded:
        """Return what the cookie of a request says. Never raises."""
        ...

    async def read(self, loaded: Loaded) -> None:
        """Fill in the session of a `load`. Raise `StoreUnavailable`."""
        ...

    def headers_to_send(self, loaded: Loaded, *, may_roll: bool) -> list[str]:
        """Return the `Set-Cookie` values that a response which starts now must carry, mostly none."""
        ...

    async def start(self, session: Session) -> None:
        """Take up a new session. Raise `SessionTooLarge`, `StoreUnavailable` or `StoreFull`."""
        ...

    def newest(self, session_id: str) -> Session | None:
        """Return the newest state that this process knows of a session, if it knows one."""
        ...

    async def current(self, session: Session) -> Session | None:
        """Return the newest state that a state in hand led to, None when there is nothing to go on from."""
        ...

    def used(self, session: Session, token: AccessToken) -> Session:
        """Note now and then that a kept token was used, so that the least recently used one is the first to go."""
        ...

    async def end(self, session: Session, *, replaced: bool = False) -> Session:
        """End a session, `replaced` by a new sign-in or not, and return the newest state that it had."""
        ...

    def turn(self, session: Session, enough: Callable[[Session], bool]) -> AbstractAsyncContextManager[Turn]:
        """Wait until nobody else refreshes the session, or until a newer state of it is `enough`.

        Raise `SessionEnded` when it has ended, `StoreUnavailable`, and `IssuerUnavailable` when it takes too long.
        """
        ...

    async def claim_state(self, state: str, code_digest: str) -> bool:
        """Claim a state for an exchange of the code with this digest (SHA-256). Return False when another has."""
        ...

    async def settle_state(self, state: str, code_digest: str, session: Session | None) -> None:
        """Note what a claimed state led to, for another process that is asked for the same."""
        ...

    async def outcome_of_state(self, state: str, code_digest: str) -> Session:
        """Wait for what a state led to elsewhere with this code.

        Raise `AttemptNotFound` where that was nothing, or for another code.
        """
        ...

    async def find(self, *, sub: str | None = None, sid: str | None = None) -> list[Session]:
        """Return the sessions of a user, or of a session at the issuer. Raise `SetupError` without a store."""
        ...

    async def check(self) -> list[str]:
        """Return what to warn of at start-up, a sentence each. Raise `ConfigurationError` or `StoreUnavailable`."""
        ...

    async def aclose(self) -> None:
        """Finish what is being written, for a moment, and close what this event loop opened."""
        ...

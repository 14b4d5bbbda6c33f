"""What a backend of sessions answers where only a store could do something. Knows no session and no cookie."""

from __future__ import annotations

from logto_asgi.errors import AttemptNotFound, SetupError
from logto_asgi.models import Session
from logto_asgi.session.loaded import Loaded

__all__ = ["Storeless"]


class Storeless:
    """The half of `SessionBackend` that concerns other processes, for a backend that knows of none."""

    remote = False

    async def read(self, loaded: Loaded) -> None:
        """Do nothing: `load` has read all there is."""

    async def claim_state(self, state: str, code_digest: str) -> bool:
        """Return True: nobody outside of this process can be asked."""
        return True

    async def settle_state(self, state: str, code_digest: str, session: Session | None) -> None:
        """Do nothing: nobody outside of this process can ask."""

    async def outcome_of_state(self, state: str, code_digest: str) -> Session:
        """Raise `AttemptNotFound`: what another process made of a state is not known here."""
        raise AttemptNotFound("This sign-in was finished elsewhere. Start again.")

    async def find(self, *, sub: str | None = None, sid: str | None = None) -> list[Session]:
        """Raise `SetupError`: cookies lie with the browsers, and only a store knows whose sessions there are."""
        raise SetupError(
            "Sessions of a user can be found in a store only. Add one: "
            "LogtoMiddleware(app, config=config, store=RedisStore.from_url(…))."
        )

    async def check(self) -> list[str]:
        """Return nothing to warn of."""
        return []

    async def aclose(self) -> None:
        """Do nothing: there is nothing to finish or to close."""

"""The right to refresh a session that lies in a cookie: good for this process alone. Knows no cookie and no issuer.

Where another process refreshes the same session, both send the same refresh token, and an issuer that looks for reuse
may end the session: nothing here can prevent that, but it is noted, with the remedy.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from logto_asgi.events import Events
from logto_asgi.models import Session
from logto_asgi.session.backend import Saved
from logto_asgi.session.in_cookie.registry import SessionRegistry

if TYPE_CHECKING:
    from logto_asgi.session.in_cookie.backend import CookieBackend

__all__ = ["CookieTurn"]

logger = logging.getLogger("logto_asgi")

_REFUSED = "session ended: the issuer refused its refresh token (invalid_grant)"

_OTHER_PROCESS = (
    "a refresh token was refused that another process may have used, or this one before it was restarted: sessions in "
    "cookies cannot be refreshed by two processes at once. With several workers keep them in a store: store=RedisStore."
)


class CookieTurn:
    """What one refresh does with a session of a `CookieBackend`; see `Turn`."""

    def __init__(self, session: Session, sessions: CookieBackend, registry: SessionRegistry, events: Events) -> None:
        self.session = session
        self.revocable = True
        self._sessions = sessions
        self._registry = registry
        self._events = events

    def __repr__(self) -> str:
        return f"<CookieTurn version={self.session.version}>"

    async def depart(self) -> None:
        """Do nothing: no other process could read a mark."""

    async def missed(self, *, processed: bool | None) -> None:
        """Do nothing: there is no mark to take back."""

    async def save(self, session: Session, *, spent: str | None) -> Saved:
        """Keep a successor and go on from it. `revocable` is settled where the session has ended."""
        newest = self._registry.newest(session.id)
        replaces = spent or session.refresh_token
        if newest is not None and newest.version >= session.version and newest.refresh_token == replaces:
            # A request has noted meanwhile that it used a kept token: that must not stand in a new refresh token's way.
            session = replace(session, version=newest.version + 1)
        if not self._sessions.save(session, spent=spent):
            self.revocable = not self._registry.was_replaced(session.id)
            return Saved.ENDED
        self.session = session
        return Saved.KEPT

    async def reread(self) -> Session | None:
        """Return the newest state that this process knows, if it has another refresh token."""
        newest = self._registry.newest(self.session.id)
        return None if newest is None or newest.refresh_token == self.session.refresh_token else newest

    async def end_refused(self) -> None:
        """End the session, unless a browser has shown a newer state of it."""
        session = self.session
        is_newest, made_here = self._registry.is_newest(session), self._registry.is_made_here(session)
        if is_newest:
            await self._sessions.end(session)
            self._events.note("session.ended", _REFUSED, reason="invalid_grant")
        else:
            logger.info("refresh token refused (invalid_grant): an old copy, another process has a newer one")
        if not (is_newest and made_here):
            self._events.note("cookie.other_process", _OTHER_PROCESS, level=logging.WARNING)

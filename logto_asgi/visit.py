"""What one request or WebSocket brings along: the app's runtime, its session, and what the response must say of it.

Knows no user object, guard or response; `user` is the view of it that apps see.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from logto_asgi.claims import AccessTokenClaims
from logto_asgi.errors import AccessTokenRefused, HTTPError, SessionEnded, StoreUnavailable
from logto_asgi.models import Session
from logto_asgi.origins import is_trusted_handshake
from logto_asgi.presented import brings_token
from logto_asgi.session.loaded import NOT_LOOKED_AT, Loaded

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig
    from logto_asgi.runtime import Logto

__all__ = ["Visit"]

logger = logging.getLogger("logto_asgi")


class Visit:
    """One request's session, or the claims of its bearer token.

    Its cookie is looked at when somebody asks, or by `open` before the app runs; its token by a guard.
    """

    # Set when they come to differ: most requests never do, and every one would pay for it.
    loaded: Loaded | None = None
    session: Session | None = None
    failure: HTTPError | None = None
    """Why nobody can say who this is. Whoever asks gets it raised."""
    asked = False
    """Whether the app asked who it is: the response varies by cookie then."""
    headers_gone = False
    bearer: AccessTokenClaims | None = None
    """What a guard found the caller's bearer token to say."""
    organizations: tuple[str, ...] = ()
    """The organizations that guards let the caller into: one as a rule."""
    varies_by_token = False
    """Whether a guard asked for a bearer token: the response varies by it then."""

    def __init__(
        self,
        runtime: Logto,
        scope: MutableMapping[str, Any],
        on_error: Callable[[MutableMapping[str, Any]], None] | None = None,
    ) -> None:
        self.runtime = runtime
        self.scope = scope
        self.app = scope.get("app")  # a mount puts its own there
        self._on_error = on_error

    @property
    def config(self) -> LogtoConfig:
        """The configuration of the app."""
        return self.runtime.config

    def ask(self) -> Session | None:
        """Return the session, None for an anonymous visitor. Raise `StoreUnavailable` when nobody can say."""
        if not self.asked:
            self.asked = True
            if self.loaded is None:
                self._look()
            if self.headers_gone and self.session is not None:
                logger.warning(
                    "the user was first read after the response began: it lacks Vary: Cookie for shared caches"
                )
        if self.failure is not None:
            self.prepare_errors()
            raise self.failure
        return self.session

    async def open(self) -> None:
        """Read the session from its store, if the request names one. Never raises: `ask` does."""
        if self.loaded is None:
            self._look()
        loaded = self.loaded
        if loaded is None or loaded.id is None:
            return
        try:
            await self.runtime.sessions.read(loaded)
        except HTTPError as error:  # mostly StoreUnavailable; a store set up wrongly is not every page's failure either
            self.failure = error
            return
        self.session = loaded.session
        if loaded.problem is not None:
            logger.info("session cookie not used: %s", loaded.problem)

    async def revalidate(self, max_age: int) -> None:
        """Let the issuer vouch for the session, if it has not for so long. Never raises; one that has ended is over."""
        if self.session is None:
            return
        try:
            self.advance(await self.runtime.tokens.checked(self.session, max_age, strict=False))
        except SessionEnded:
            self.forget()
        except AccessTokenRefused:
            await self._end_refused(self.session)
        except HTTPError as error:
            self.failure = error

    async def _end_refused(self, session: Session) -> None:
        """End the session of a user whom the issuer does not let into this app any more."""
        try:
            await self.runtime.sessions.end(session)
        except StoreUnavailable as error:
            self.failure = error
            return
        self.runtime.events.note("session.ended", "session ended: the issuer denies the user", reason="access_denied")
        self.forget()

    def newest(self, session: Session) -> Session:
        """Return the newest state that this process knows: a stream lives longer than the one that it began with.

        An old copy of a cookie stays what it is.
        """
        stray = self.loaded is not None and self.loaded.stray
        return session if stray else self.runtime.sessions.newest(session.id) or session

    def advance(self, session: Session) -> None:
        """Go on from a later state, unless somebody signed out or in meanwhile, or was faster."""
        now = self.session
        if now is not None and now.id == session.id and now.version <= session.version:
            self.session = session

    def become(self, session: Session) -> None:
        """Go on as the user of a new session, which the response will write."""
        loaded = self.loaded
        if loaded is None or loaded is NOT_LOOKED_AT:
            loaded = self.loaded = self.runtime.sessions.load(self.scope["headers"])
        loaded.session = self.session = session
        self.asked = True

    def enter(self, organization_id: str | None) -> None:
        """Note the organization that a guard let the caller into; a guard that names none changes nothing."""
        if organization_id is not None and organization_id not in self.organizations:
            self.organizations = (*self.organizations, organization_id)

    def forget(self) -> None:
        """Go on as nobody; the response will delete the cookie."""
        loaded = self.loaded
        if loaded is not None and loaded is not NOT_LOOKED_AT:
            loaded.session, loaded.clear = None, True
        self.session = None

    def leave(self) -> None:
        """Let go of a request that is over. Its scope refers to its user, and both would wait for a collection."""
        scope = self.scope
        self.scope = {"type": scope["type"], "method": scope.get("method"), "headers": scope["headers"]}

    def prepare_errors(self) -> None:
        """Let the app answer our errors in our way, where it has none of its own."""
        if self._on_error is not None:
            self._on_error(self.scope)

    def _look(self) -> None:
        """Look at the cookie, unless a bearer token decides alone or a foreign page opened this WebSocket."""
        scope = self.scope
        headers = scope["headers"]
        if brings_token(scope) or not self.runtime.config.signs_in:
            self.loaded = NOT_LOOKED_AT
            return
        if scope["type"] == "websocket" and not is_trusted_handshake(headers, self.runtime.config):
            logger.warning("websocket: the session cookie is ignored, its Origin is neither base_url nor trusted")
            self.loaded = NOT_LOOKED_AT
            return
        self.loaded = loaded = self.runtime.sessions.load(headers)
        self.session = loaded.session
        if loaded.problem is not None:
            logger.info("session cookie not used: %s", loaded.problem)

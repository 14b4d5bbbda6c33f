"""Where sessions live: `CookieBackend` keeps all of one in the browser's cookie. Knows no response and no issuer.

What it knows beyond the cookies it knows for this process alone; `cookie_turn` says where that is not enough.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from logto_asgi.errors import SessionEnded, SessionTooLarge
from logto_asgi.events import Events
from logto_asgi.models import AccessToken, Session
from logto_asgi.session.backend import Turn
from logto_asgi.session.cookies import BrokenChunks, ChunkedCookie, RawHeaders, cookie_name, cut
from logto_asgi.session.fitting import fit
from logto_asgi.session.in_cookie.opened import Opened, OpenedCache
from logto_asgi.session.in_cookie.registry import SessionRegistry
from logto_asgi.session.in_cookie.storeless import Storeless
from logto_asgi.session.in_cookie.turn import CookieTurn
from logto_asgi.session.loaded import NOT_LOOKED_AT, Loaded
from logto_asgi.session.sealing import Sealer, Unsealable
from logto_asgi.session.serialization import parse_session

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig

__all__ = ["NOT_LOOKED_AT", "CookieBackend", "Loaded"]

logger = logging.getLogger("logto_asgi")

_PROMPT = 5.0
"""Seconds after which a response is late: its browser may hold a newer cookie by then that this process never saw."""


class _Refused(Exception):
    """A cookie that holds no session for us: a word for logs, and whether to delete it."""

    def __init__(self, problem: str, *, clear: bool) -> None:
        super().__init__(problem)
        self.problem = problem
        self.clear = clear


class CookieBackend(Storeless):
    """Reads and writes sessions that lie whole, sealed, in the browser's cookie.

    `clock` gives seconds since 1970. Safe to use from several threads and event loops; it never waits for anything.
    """

    def __init__(
        self, config: LogtoConfig, *, clock: Callable[[], float] = time.time, events: Events | None = None
    ) -> None:
        self._clock = clock
        self._events = events or Events()
        self._idle = config.idle_lifetime
        self._absolute = config.absolute_lifetime
        self._roll_interval = config.roll_interval
        self._cookie = ChunkedCookie(cookie_name(config.app_id, secure=config.secure), secure=config.secure)
        self._prefix = self._cookie.prefix
        self._sealer = Sealer(
            [secret.get_secret_value() for secret in config.cookie_secrets],
            purpose="session",
            issuer=config.issuer,
            client_id=config.app_id,
        )
        self._opened = OpenedCache()
        self._registry = SessionRegistry(idle_lifetime=self._idle, absolute_lifetime=self._absolute)

    def __repr__(self) -> str:
        return f"<CookieBackend {self._cookie.name}>"

    # -- Reading -------------------------------------------------------------------------------------------------------

    def load(self, headers: RawHeaders) -> Loaded:
        """Return what the session cookie of a request holds. Never raises: whatever it holds, nobody is the worst."""
        cookies: bytes | None = None
        for name, value in headers:
            if name == b"cookie":
                cookies = value if cookies is None else b"; ".join((cookies, value))
        first = None if cookies is None else cut(cookies, self._prefix)
        if cookies is None or first is None:
            return Loaded(self._cookie, cookies)
        now = self._clock()
        try:
            opened = self._open(cookies, first, now)
        except _Refused as refused:
            clear = refused.clear and not self._cookie.is_doubled(cookies)
            return Loaded(self._cookie, cookies, now, problem=refused.problem, clear=clear)
        presented = opened.session
        session = self._registry.resolve(presented, now)
        if session is None:
            clear = self._registry.is_long_ended(presented.id, now) and not self._cookie.is_doubled(cookies)
            return Loaded(self._cookie, cookies, now, problem="ended", clear=clear)
        newest = self._registry.newest(presented.id)
        stray = newest is not None and newest is not session
        return Loaded(self._cookie, cookies, now, session, presented, stray=stray)

    def _open(self, cookies: bytes, first: bytes, now: float) -> Opened:
        """Return the opened cookie if it has not expired. Raise `_Refused` for everything else."""
        try:
            raw = first if first[:3] == b"c1." else self._cookie.read(cookies, first)
        except BrokenChunks:
            raise _Refused("chunks", clear=False) from None
        opened = self._opened.get(raw)
        if opened is None:
            opened = self._unseal(raw, now)
        if now >= opened.expires_at:
            self._opened.drop(raw)
            raise _Refused("expired", clear=True)
        opened.used = True
        return opened

    def _unseal(self, raw: bytes, now: float) -> Opened:
        try:
            payload = self._sealer.open(self._cookie.join(raw))
        except BrokenChunks:
            raise _Refused("chunks", clear=False) from None
        except Unsealable as error:
            # One of an unknown key may be a newer worker's, in the middle of a deploy.
            raise _Refused(error.reason, clear=error.known_key) from None
        try:
            session = parse_session(payload)
        except ValueError:
            raise _Refused("malformed", clear=True) from None
        self._registry.note(session)
        return self._opened.add(raw, session, expires_at=self._expires_at(session), now=now)

    def _expires_at(self, session: Session) -> float:
        return min(session.sealed_at + self._idle, session.created_at + self._absolute)

    # -- Writing -------------------------------------------------------------------------------------------------------

    def headers_to_send(self, loaded: Loaded, *, may_roll: bool) -> list[str]:
        """Return the `Set-Cookie` values that a response which starts now must carry, mostly none.

        The newest known state is written when the browser has an older one, and now and then (`may_roll`) to extend
        the idle lifetime. Nothing is written for a session that ended since it was loaded.
        """
        session = loaded.session
        now = self._clock()
        if session is None:
            return self._deletions(loaded, now)
        newest = self._registry.follow(session, now)
        if newest is not None and newest is loaded.presented and now - newest.sealed_at < self._roll_interval:
            return []  # What nearly every response comes to: the browser has it, and it is not due.
        if newest is None or not self._registry.is_newest(newest):
            return []
        if _has_newest(loaded, newest):
            must_write = may_roll and self._is_due(loaded, now)
        else:
            must_write = not self._registry.was_delivered(newest, since=loaded.at)
        return self._written(loaded, newest, now) if must_write else []

    def _deletions(self, loaded: Loaded, now: float) -> list[str]:
        # A dead cookie can wait for a later response; by now the name may hold the session of a sign-in since.
        late = loaded.problem is not None and now - loaded.at > _PROMPT
        return self._cookie.clear(loaded.names) if loaded.clear and not late else []

    def _is_due(self, loaded: Loaded, now: float) -> bool:
        """Tell whether to write only for the idle lifetime. A late response does so only when it must."""
        late = now - loaded.at > _PROMPT
        interval = max(self._roll_interval, self._idle / 2) if late else self._roll_interval
        presented = loaded.presented
        return presented is not None and now - presented.sealed_at >= interval

    def _written(self, loaded: Loaded, session: Session, now: float) -> list[str]:
        session = replace(session, sealed_at=int(now))
        max_age = int(self._expires_at(session) - now)
        if max_age <= 0:
            return []
        try:
            lines = self._sealed(session, max_age)
        except SessionTooLarge as error:
            logger.error("session not written, this process alone knows its newest state: %s", error.message)
            return []
        written = {line.partition("=")[0] for line in lines}
        return lines + self._cookie.clear([name for name in loaded.names if name not in written])

    def _sealed(self, session: Session, max_age: int) -> list[str]:
        payload = fit(session, self._sealer, capacity=self._cookie.capacity(max_age=max_age))
        return self._cookie.split(self._sealer.seal(payload), max_age=max_age)

    # -- The life of a session -----------------------------------------------------------------------------------------

    async def start(self, session: Session) -> None:
        """Take up a new session. Raise `SessionTooLarge` when it does not fit its cookie even without access tokens.

        The response that signs in puts it into its `Loaded.session`.
        """
        fit(session, self._sealer, capacity=self._cookie.capacity(max_age=int(self._absolute)))
        self._registry.note(session)
        self._registry.note_made(session)

    def save(self, session: Session, *, spent: str | None) -> bool:
        """Keep a successor, one version on; `spent` is the refresh token that it replaced, if it did.

        Return False when the session has ended. What is not newer than the newest known state is not kept.
        """
        return self._registry.save(session, spent=spent, now=self._clock())

    def used(self, session: Session, token: AccessToken) -> Session:
        """Note the use now and then, so that the least recently used token is the first to leave a full cookie."""
        now = int(self._clock())
        if len(session.access_tokens) < 2 or now - token.used_at < self._roll_interval:
            return session
        tokens = MappingProxyType({**session.access_tokens, token.key: token.used(now)})
        successor = replace(session, version=session.version + 1, access_tokens=tokens)
        return successor if self.save(successor, spent=None) else session

    @asynccontextmanager
    async def turn(self, session: Session, enough: Callable[[Session], bool]) -> AsyncIterator[Turn]:
        """Give the turn at once: within a process its callers line up, and no other process is known here."""
        current = await self.current(session)
        if current is None:
            raise SessionEnded("This session has ended, or the browser sent an old copy of it. Sign in again.")
        yield CookieTurn(current, self, self._registry, self._events)

    async def current(self, session: Session) -> Session | None:
        """Return the state to refresh from: the newest that this one led to, or itself when nothing newer is known.

        None when the session has ended, or when this state's refresh token was spent here and its minute is over:
        another use could make the issuer revoke the tokens of whoever goes on from the newest.
        """
        now = self._clock()
        return None if self._registry.is_spent(session, now) else self._registry.follow(session, now)

    def newest(self, session_id: str) -> Session | None:
        """Return the newest state, if this process made one that the cookie may not hold."""
        return self._registry.newest(session_id)

    def is_newest(self, session: Session) -> bool:
        """Tell whether no later state is known, neither made here nor presented by a browser."""
        return self._registry.is_newest(session)

    def is_ended(self, session_id: str) -> bool:
        """Tell whether the session has ended, as far as this process knows."""
        return self._registry.is_ended(session_id)

    async def end(self, session: Session, *, replaced: bool = False) -> Session:
        """End a session: its cookies no longer open here, and nothing is written for it any more.

        Return its newest state, whose refresh token is the one to revoke; `replaced` is kept for `Turn.revocable`.
        """
        newest = self._registry.newest(session.id)
        self._registry.end(session, self._clock(), replaced=replaced)
        self._opened.forget(session.id)
        return session if newest is None or newest.version < session.version else newest


def _has_newest(loaded: Loaded, newest: Session) -> bool:
    """Tell whether the browser sent the newest state, however long ago that was sealed."""
    sent = loaded.presented
    return sent is not None and (sent.id, sent.version, sent.refresh_token) == (
        newest.id,
        newest.version,
        newest.refresh_token,
    )

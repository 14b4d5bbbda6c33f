"""`StoreBackend` keeps sessions in a store; the browser's cookie holds a signed id. Knows no response and no issuer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from logto_asgi.events import Events
from logto_asgi.models import AccessToken, Session
from logto_asgi.session.cookies import ChunkedCookie, RawHeaders, cookie_name, cut, raw_cookies, set_cookie
from logto_asgi.session.in_store.ending import Ending
from logto_asgi.session.in_store.guarded import GuardedStore
from logto_asgi.session.in_store.keeper import Keeper
from logto_asgi.session.in_store.known import Gone
from logto_asgi.session.in_store.records import key_of
from logto_asgi.session.in_store.session_ids import SessionIds, is_sealed_session
from logto_asgi.session.in_store.sign_ins import Outcomes
from logto_asgi.session.in_store.turns import Turns
from logto_asgi.session.loaded import Loaded
from logto_asgi.session.stores import SessionStore

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig
    from logto_asgi.session.backend import Turn

__all__ = ["StoreBackend"]

_PROMPT = 5.0
"""Seconds after which a response is late: its browser may have signed in anew meanwhile."""
_FRESH = 5.0
"""Seconds for which a state is taken for the newest without asking the store."""
_LAST_TRIES = 2.0
"""Seconds that a shutdown spends on sessions that could not be saved yet."""
_FOUND_AT_ONCE = 16


class _Presented(Loaded):
    """A request's session id, and whether an older secret signed it."""

    __slots__ = ("is_outdated", "sent_id")

    sent_id: str | None
    is_outdated: bool

    def __init__(self, *args: Any, sent_id: str | None = None, is_outdated: bool = False, **fields: Any) -> None:
        super().__init__(*args, **fields)
        self.sent_id = sent_id
        self.is_outdated = is_outdated

    @property
    def is_doubled(self) -> bool:
        """Whether the request carried our name twice, so that nobody knows which one a deletion would hit."""
        return self._cookie is not None and self._raw is not None and self._cookie.is_doubled(self._raw)


class StoreBackend:
    """Reads and writes sessions that lie in a store, sealed, under a hash of their id.

    `clock` gives seconds since 1970. `revoke` revokes a refresh token at the issuer and does not fail. Safe to use from
    several threads and event loops, as far as the store is.
    """

    remote = True

    def __init__(
        self,
        config: LogtoConfig,
        store: SessionStore,
        *,
        clock: Callable[[], float] = time.time,
        events: Events | None = None,
        revoke: Callable[[str], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        events = events or Events()
        self._clock = clock
        self._secure = config.secure
        self._absolute = int(config.absolute_lifetime)
        self._cookie = ChunkedCookie(cookie_name(config.app_id, secure=config.secure), secure=config.secure)
        secrets = [secret.get_secret_value() for secret in config.cookie_secrets]
        self._ids = SessionIds(secrets, issuer=config.issuer, client_id=config.app_id)
        self._store = GuardedStore(store, events)
        self._keeper = Keeper(config, self._store, events, clock=clock, revoke=revoke)
        self._ending = Ending(config, self._keeper, clock=clock)
        self._turns = Turns(config, self._keeper, self._ending, events, clock=clock)
        self._outcomes = Outcomes(config, self._keeper, clock=clock)

    def __repr__(self) -> str:
        return f"<StoreBackend {self._cookie.name}>"

    # -- A request and its response ------------------------------------------------------------------------------------

    def load(self, headers: RawHeaders) -> Loaded:
        """Return the session id that a request's cookie names, in `Loaded.id`. Never raises."""
        cookies = raw_cookies(headers)
        value = None if cookies is None else cut(cookies, self._cookie.prefix)
        if cookies is None or value is None:
            return _Presented(self._cookie, cookies)
        now = self._clock()
        signed = self._ids.read(value)
        if signed is not None:
            outdated = signed.is_outdated
            return _Presented(self._cookie, cookies, now, id=signed.id, sent_id=signed.id, is_outdated=outdated)
        # 1. A session from before the app had a store: nobody opens it any more.
        if is_sealed_session(value):
            return _Presented(self._cookie, cookies, now, problem="sealed", clear=not self._cookie.is_doubled(cookies))
        # 2. Perhaps an id that a newer worker has signed, in the middle of a deploy. 3. Nothing of ours.
        problem = "unknown_key" if self._ids.has_shape(value) else "malformed"
        return _Presented(self._cookie, cookies, now, problem=problem)

    async def read(self, loaded: Loaded) -> None:
        """Fill in the session that a cookie names; the session counts as used now. Raise `StoreUnavailable`."""
        if loaded.id is None:
            return
        found = await self._keeper.look(key_of(loaded.id), touch=True)
        loaded.id = None
        if isinstance(found, Gone):
            loaded.problem = found.problem
            loaded.clear = found.clear and not (isinstance(loaded, _Presented) and loaded.is_doubled)
            return
        loaded.session = loaded.presented = found.live.session

    def headers_to_send(self, loaded: Loaded, *, may_roll: bool) -> list[str]:
        """Return the `Set-Cookie` values that a response which starts now must carry, mostly none.

        The id is written at sign-in, and again (`may_roll`) when an older secret signed it.
        """
        session = loaded.session
        now = self._clock()
        late = now - loaded.at > _PROMPT
        if session is None:
            # A dead cookie can wait for a later response; by now the name may hold the session of a sign-in since.
            return self._cookie.clear(loaded.names) if loaded.clear and not (late and loaded.problem) else []
        if isinstance(loaded, _Presented) and loaded.sent_id == session.id:
            must_write = loaded.is_outdated and may_roll and not late
        else:
            must_write = True
        return self._written(loaded, session, now) if must_write else []

    def _written(self, loaded: Loaded, session: Session, now: float) -> list[str]:
        max_age = int(session.created_at + self._absolute - now)
        if max_age <= 0 or self._keeper.known.ended(key_of(session.id), now=now) is not None:
            return []
        line = set_cookie(self._cookie.name, self._ids.sign(session.id), max_age=max_age, secure=self._secure)
        return [line, *self._cookie.clear([name for name in loaded.names if name != self._cookie.name])]

    # -- The life of a session -----------------------------------------------------------------------------------------

    async def start(self, session: Session) -> None:
        """Take up a new session. Raise `SessionTooLarge`, `StoreUnavailable` or `StoreFull`.

        The response that signs in puts it into its `Loaded.session`.
        """
        await self._keeper.create(session)

    def newest(self, session_id: str) -> Session | None:
        """Return the newest state that this process knows of a session, if it knows one."""
        return self._keeper.newest(session_id)

    async def current(self, session: Session) -> Session | None:
        """Return the newest state of a session, None when it has ended. Raise `StoreUnavailable`.

        The store is asked when that was last done more than 5 seconds ago; the session counts as used then.
        """
        recent = self._keeper.recent(session.id, within=_FRESH)
        if recent is not None:
            return recent
        found = await self._keeper.look(key_of(session.id), touch=True)
        return None if isinstance(found, Gone) else found.live.session

    def used(self, session: Session, token: AccessToken) -> Session:
        """Return the session as it is: here is room for many tokens, and no write is worth their order."""
        return session

    async def end(self, session: Session, *, replaced: bool = False) -> Session:
        """End a session in every process, and return the newest state that it had. Raise `StoreUnavailable`."""
        return await self._ending.end(session, "replaced" if replaced else "ended")

    def turn(self, session: Session, enough: Callable[[Session], bool]) -> AbstractAsyncContextManager[Turn]:
        """Wait until nobody else refreshes the session, or until a newer state of it is `enough`.

        Raise `SessionEnded` when it has ended, `StoreUnavailable`, and `IssuerUnavailable` when it takes too long.
        """
        return self._turns.take(session, enough)

    async def find(self, *, sub: str | None = None, sid: str | None = None) -> list[Session]:
        """Return the live sessions of a user, or of a session at the issuer; with both, those that fit both.

        Raise `StoreUnavailable`, and `ValueError` without either.
        """
        if sid is not None:
            names = self._keeper.names.sids(sid)
        elif sub is not None:
            names = self._keeper.names.subs(sub)
        else:
            raise ValueError("find needs a sub or a sid")
        lists = [await self._store.find(name) for name in names]
        keys = list(dict.fromkeys(key for found in lists for key in found))
        sessions: list[Session] = []
        for start in range(0, len(keys), _FOUND_AT_ONCE):
            batch = keys[start : start + _FOUND_AT_ONCE]
            sessions += [each for each in await asyncio.gather(*(self._found(key) for key in batch)) if each]
        return [
            session for session in sessions if sub in (None, session.claims.sub) and sid in (None, session.claims.sid)
        ]

    async def _found(self, key: str) -> Session | None:
        """Return the session under a key of the index, if there is one.

        An entry without a session stays: a sign-in may be about to put it there. It ends by itself.
        """
        found = await self._keeper.look(key, touch=False)
        if not isinstance(found, Gone):
            return found.live.session
        # A store that was set back to an earlier time may have what this process knows to be over.
        return None if found.word is None else await self._ending.left(key)

    # -- Sign-ins in several processes ---------------------------------------------------------------------------------

    async def claim_state(self, state: str, code_digest: str) -> bool:
        """Claim a state of a sign-in. Return False when somebody has. Raise `StoreUnavailable` or `StoreFull`."""
        return await self._outcomes.claim(state, code_digest)

    async def settle_state(self, state: str, code_digest: str, session: Session | None) -> None:
        """Note what a claimed state led to, for whoever waits for it. Does not fail."""
        await self._outcomes.settle(state, code_digest, session)

    async def outcome_of_state(self, state: str, code_digest: str) -> Session:
        """Wait for what a state led to with this code.

        Raise `AttemptNotFound`, `IssuerUnavailable` or `StoreUnavailable`.
        """
        return await self._outcomes.wait(state, code_digest)

    # -- Start and stop ------------------------------------------------------------------------------------------------

    async def check(self) -> list[str]:
        """Return what to warn of at start-up. Raise `ConfigurationError` or `StoreUnavailable`."""
        return await self._store.check()

    async def aclose(self) -> None:
        """Save what waits to be saved, for at most 2 seconds, and close what this event loop opened."""
        await self._keeper.unsaved.aclose(_LAST_TRIES)
        await self._turns.aclose()
        await self._store.aclose()

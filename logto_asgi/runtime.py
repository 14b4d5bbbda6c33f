"""What an app shares: one `Logto` for its configuration, with an issuer's client for each event loop.

Knows no request and no response.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary

from logto_asgi.bearer import BearerTokens
from logto_asgi.claims import UserInfo
from logto_asgi.client_tokens import ClientTokens
from logto_asgi.errors import (
    ConfigurationError,
    ConfigurationProblem,
    IssuerRefused,
    IssuerResponseInvalid,
    SetupError,
    SignInRequired,
    StoreUnavailable,
    VerificationError,
)
from logto_asgi.events import Event, Events
from logto_asgi.flows import Flows
from logto_asgi.models import AccessToken, Session, SubjectTokenType
from logto_asgi.oidc.client import OidcClient
from logto_asgi.oidc.discovery import DiscoveryCache
from logto_asgi.session.attempts import AttemptCookies
from logto_asgi.session.backend import SessionBackend
from logto_asgi.session.in_cookie.backend import CookieBackend
from logto_asgi.session.tries import TriesCookie
from logto_asgi.tokens import AccessTokens

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig
    from logto_asgi.session.stores import SessionStore

__all__ = ["Logto"]

logger = logging.getLogger("logto_asgi")

_DRAIN = 1.0
"""Seconds that a shutdown waits for refreshes and sign-ins beyond the deadline of a call to the issuer."""

_STORE_METHODS = ("get", "set", "delete", "lock", "unlock", "find", "check", "aclose")

_NO_STORE = ConfigurationProblem(
    "store",
    "is no session store: it needs the asynchronous methods of SessionStore.",
    'Pass an object such as RedisStore.from_url("redis://localhost:6379/0") or MemoryStore().',
)

_BLOCKING_CLIENT = ConfigurationProblem(
    "http_client", "is not an asynchronous client.", "Pass an httpx.AsyncClient or an httpx2.AsyncClient."
)


class Logto:
    """The runtime of one configuration: sessions, pending sign-ins, tokens and the issuer's client.

    The middleware makes one from its `config=`; make it yourself to hand in an HTTP client (`httpx.AsyncClient` or
    httpx2's; it stays yours to close) and pass it as `logto=`. Once the app has started it is `app.state.logto`.
    With `store=` sessions live on the server, otherwise in the browser's cookie. `on_event`, a plain function, is
    called with every `Event` of `logto_asgi.events`. Nothing with a socket is made before it is needed.
    """

    def __init__(
        self,
        config: LogtoConfig,
        *,
        store: SessionStore | None = None,
        on_event: Callable[[Event], None] | None = None,
        http_client: Any = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if http_client is not None and not hasattr(http_client, "aclose"):
            raise ConfigurationError([_BLOCKING_CLIENT])
        self.config = config
        self.clock = clock
        self.events = Events(on_event)
        self.sessions = _backend(config, store, clock, self.events, lambda token: self.flows.revoke(token))
        self.attempts = AttemptCookies(config, clock=clock)
        self.tries = TriesCookie(config)
        self.tokens = AccessTokens(config, self.sessions, self.client, clock, self.events)
        self.flows = Flows(config, self.sessions, self.tokens, self.client, clock, self.events)
        self._http_client = http_client
        self._discovery = DiscoveryCache()
        self.bearer = BearerTokens(config, self.client, self._discovery, clock, self.events)
        self.client_tokens = ClientTokens(config, self.client, clock, self.events)
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, OidcClient] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"<Logto {self.config.issuer}>"

    def client(self) -> OidcClient:
        """Return the issuer's client of the running event loop."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = OidcClient(
                self.config,
                http_client=self._http_client,
                clock=self.clock,
                cache=self._discovery,
                on_retry=partial(self.events.note, "refresh.retried"),
            )
            self._clients[loop] = client
        return client

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each event of `logto_asgi.events.EVENTS` has happened in this process."""
        return self.events.counts

    async def verify(self) -> None:
        """Fetch discovery once, so that a wrong endpoint shows at start-up. Raises `IssuerError`."""
        await self.client().metadata()

    async def check(self) -> None:
        """Look at start-up whether everything is there; the middleware calls it.

        Logs what to improve about the session store. Raises `ConfigurationError` for a store that cannot do, and, with
        `verify_on_startup`, `StoreUnavailable` and `IssuerError`.
        """
        strict = self.config.verify_on_startup
        try:
            for warning in await self.sessions.check():
                logger.warning("%s", warning)
        except StoreUnavailable as error:
            if strict:
                raise
            logger.warning("the session store is away at start-up: %s", error.message)
        if strict:
            await self.verify()

    async def get_client_credentials_token(
        self,
        resource: str | None = None,
        organization_id: str | None = None,
        *,
        scopes: Sequence[str] = (),
        force_refresh: bool = False,
        min_ttl: int | None = None,
    ) -> str:
        """Return an access token of the app itself, for a resource, an organization or both (RFC 6749 §4.4).

        It is kept until `refresh_margin` seconds before it expires, and asked for once however many wait. With Logto it
        has no scope but those of `scopes` that the app's roles grant. `min_ttl` asks for one that lives so many seconds
        more, `force_refresh` for a new one. Where the issuer fails a kept one is returned while it is valid. Raises
        `IssuerRefused` for what is wrong at the issuer with the app, its secret or its roles, and logs what to do;
        `AccessTokenRefused` where it is no member of the organization, `SetupError`, `AccessTokenMismatch`,
        `IssuerUnavailable`, `IssuerResponseInvalid`.
        """
        token = await self.client_tokens.client_credentials(
            resource=resource,
            organization_id=organization_id,
            scopes=scopes,
            force_refresh=force_refresh,
            min_ttl=min_ttl,
        )
        return token.value

    async def exchange_token(
        self,
        subject_token: str,
        subject_token_type: SubjectTokenType | str,
        *,
        resource: str | None = None,
        organization_id: str | None = None,
        scopes: Sequence[str] = (),
        actor_token: str | None = None,
    ) -> AccessToken:
        """Exchange an impersonation, personal access or access token for an access token (RFC 8693 §2).

        `actor_token`, an access token of who acts, makes the claim `act`. Nothing is kept: an impersonation token works
        once. Raises as `get_client_credentials_token`; a token that is spent or expired is `AccessTokenRefused`.
        """
        work = self.client_tokens.exchange(
            subject_token,
            subject_token_type,
            resource=resource,
            organization_id=organization_id,
            scopes=scopes,
            actor_token=actor_token,
        )
        del subject_token, actor_token  # an error tracker prints what the frames of an error hold
        return await work

    async def end_sessions(self, *, sub: str | None = None, sid: str | None = None) -> int:
        """End every session of a user (`sub`), or of one session at the issuer (`sid`); return how many that were.

        Works with `store=` only, because nobody else knows where a user is signed in: otherwise raises `SetupError`.
        Refresh tokens are revoked as far as the issuer can be reached within three seconds. Raises `StoreUnavailable`
        when some could not be ended; the others are.
        """
        if sub is None and sid is None:
            raise SetupError("end_sessions needs to know whose: end_sessions(sub=user.identity), or sid=…")
        return await self.flows.end_all(await self.sessions.find(sub=sub, sid=sid))

    async def fetch_user_info(self, session: Session) -> tuple[Session, UserInfo]:
        """Ask the userinfo endpoint (OpenID Connect Core §5.3). Raises as `AccessTokens.get`, or `IssuerError`."""
        session, token = await self.tokens.get(session)
        try:
            return session, await self._user_info(token, session)
        except IssuerRefused as error:
            if error.issuer_status != 401:
                raise
        # Revoked early, for example by a sign-out elsewhere: a refresh tells whether the session lives.
        session, token = await self.tokens.get(session, force_refresh=True)
        try:
            return session, await self._user_info(token, session)
        except IssuerRefused as error:
            if error.issuer_status != 401:
                raise
            raise SignInRequired("The issuer no longer accepts this session's tokens. Sign in again.") from error

    async def _user_info(self, token: AccessToken, session: Session) -> UserInfo:
        try:
            return await self.client().userinfo(token.value, sub=session.claims.sub)
        except VerificationError as error:
            raise IssuerResponseInvalid("The issuer's userinfo is of another user (`sub` differs).") from error

    async def __aenter__(self) -> Self:
        """Check the settings, as the middleware does at start-up: `async with Logto(config) as logto`, for a job."""
        try:
            await self.check()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Wait for what is under way at the issuer, its deadline and a second at most; then close what is open here."""
        within = self.config.http_timeout + _DRAIN
        await asyncio.gather(
            self.tokens.drain(within),
            self.flows.drain(within),
            self.client_tokens.drain(within),
            self.bearer.drain(within),
        )
        await self.sessions.aclose()
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()


def _backend(
    config: LogtoConfig,
    store: SessionStore | None,
    clock: Callable[[], float],
    events: Events,
    revoke: Callable[[str], Coroutine[Any, Any, None]],
) -> SessionBackend:
    if store is None:
        return CookieBackend(config, clock=clock, events=events)
    if not _is_store(store):
        raise ConfigurationError([_NO_STORE])
    from logto_asgi.session.in_store.backend import StoreBackend  # what signs ids is needed here only

    return StoreBackend(config, store, clock=clock, events=events, revoke=revoke)


def _is_store(candidate: Any) -> bool:
    """Tell whether somebody passed a store, and not its URL or its class."""
    methods = (inspect.iscoroutinefunction(getattr(candidate, name, None)) for name in _STORE_METHODS)
    return not inspect.isclass(candidate) and all(methods)

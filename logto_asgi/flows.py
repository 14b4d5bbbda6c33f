"""Start and finish a sign-in, end a session. Knows the issuer and sessions; makes no response and reads no request."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from logto_asgi.at_once import few_at_once
from logto_asgi.errors import AttemptNotFound, IssuerError, IssuerUnavailable, LogtoError, SignInError, StoreUnavailable
from logto_asgi.models import PendingSignIn, Session, SignInOptions
from logto_asgi.oidc.protocol import (
    build_authorization_url,
    build_end_session_url,
    create_code_verifier,
    parse_callback,
    random_token,
)

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig
    from logto_asgi.events import Events
    from logto_asgi.oidc.client import OidcClient
    from logto_asgi.session.backend import SessionBackend
    from logto_asgi.tokens import AccessTokens

__all__ = ["Flows", "SignedOut"]

logger = logging.getLogger("logto_asgi")

_CLAIMS_KEPT = 10_000
"""States that were claimed, kept for as long as an attempt may live; the oldest go first."""

_OUTCOME_SHARED = 60
"""Seconds for which a second call-back of the same state gets the first one's outcome: a reload, a lost answer."""

_AT_ONCE = 10
"""Sessions of one user that are ended at the same time."""

_SIGN_OUT_BUDGET = 3.0
"""Seconds that a sign-out may spend on calls to the issuer, in all."""


@dataclass(frozen=True, slots=True)
class SignedOut:
    """Where the browser goes to end the session at the issuer, and whether the issuer could be asked at all."""

    end_session_url: str | None
    """None where the issuer has no such page, or its discovery document could not be had."""
    issuer_known: bool = True


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a state leads to, for whoever brings the same code."""

    claimed_at: float
    code_digest: str
    future: Future[Session | LogtoError]


class Flows:
    """The steps of a browser's way in and out."""

    def __init__(
        self,
        config: LogtoConfig,
        sessions: SessionBackend,
        tokens: AccessTokens,
        client: Callable[[], OidcClient],
        clock: Callable[[], float],
        events: Events,
    ) -> None:
        self._config = config
        self._sessions = sessions
        self._events = events
        self._tokens = tokens
        self._client = client
        self._clock = clock
        self._claimed: OrderedDict[str, float] = OrderedDict()
        self._outcomes: OrderedDict[str, _Outcome] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start_sign_in(self, options: SignInOptions, return_to: str) -> tuple[str, PendingSignIn]:
        """Return the authorization URL and the attempt to remember until the call-back (RFC 6749 §4.1.1).

        Raises `IssuerUnavailable` or `IssuerResponseInvalid` when discovery fails, `ConfigurationError` for options
        that the protocol or Logto refuses.
        """
        metadata = await self._client().metadata()
        pending = PendingSignIn(
            state=random_token(),
            nonce=random_token(),
            code_verifier=create_code_verifier(),
            redirect_uri=self._config.redirect_uri,
            return_to=return_to,
            created_at=int(self._clock()),
            max_age=options.max_age,
        )
        return build_authorization_url(metadata, self._config, pending=pending, options=options), pending

    async def finish_sign_in(self, query: Sequence[tuple[str, str]], pending: PendingSignIn) -> Session:
        """Turn a call-back into a new session (RFC 6749 §4.1.2, OpenID Connect Core §3.1.3).

        A state is spent once: whoever comes second with the same one and the same code gets the first one's outcome.
        Raises `SignInError`, `VerificationError`, `IssuerError`, `SessionTooLarge` or `StoreUnavailable`.
        """
        code_digest = _code_digest(query)
        mine = self._claim(pending.state, code_digest)
        if mine is None:
            return await self._outcome_of_another(pending.state, code_digest)
        task = asyncio.get_running_loop().create_task(self._settle(mine, query, pending), name="logto_asgi sign-in")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)
        return _session_of(mine.result())

    async def _outcome_of_another(self, state: str, code_digest: str) -> Session:
        found = self._outcomes.get(state)
        # The cookie and the state of an attempt may be known to who planted them; the code is the browser's own.
        if found is None or found.code_digest != code_digest:
            raise AttemptNotFound("This sign-in was finished before. Start again.")
        try:
            # A generous bound: discovery, exchange and keys each have a deadline of their own.
            async with asyncio.timeout(4 * self._config.http_timeout):
                session = _session_of(await asyncio.shield(asyncio.wrap_future(found.future)))
        except TimeoutError:
            raise IssuerUnavailable("The sign-in took too long. Try again.") from None
        if await self._sessions.current(session) is None:
            raise AttemptNotFound("This sign-in was finished before, and its session has ended. Start again.")
        return session

    def _claim(self, state: str, code_digest: str) -> Future[Session | LogtoError] | None:
        """Claim a state. Return the future to settle, or None when somebody else did already."""
        self._forget_old_claims()
        if state in self._claimed:
            return None
        now = self._clock()
        future: Future[Session | LogtoError] = Future()
        self._claimed[state] = now
        self._outcomes[state] = _Outcome(now, code_digest, future)
        return future

    def _forget_old_claims(self) -> None:
        """Let go of outcomes after a minute, they hold tokens; of states when their attempt could not live any more."""
        now = self._clock()
        while self._outcomes and now - next(iter(self._outcomes.values())).claimed_at > _OUTCOME_SHARED:
            self._outcomes.popitem(last=False)
        while self._claimed:
            claimed_at = next(iter(self._claimed.values()))
            if len(self._claimed) < _CLAIMS_KEPT and now - claimed_at <= self._config.attempt_lifetime:
                break
            self._claimed.popitem(last=False)

    async def _settle(
        self, outcome: Future[Session | LogtoError], query: Sequence[tuple[str, str]], pending: PendingSignIn
    ) -> None:
        """Exchange and settle the outcome, whatever becomes of the request that waits for it."""
        try:
            outcome.set_result(await self._spend(query, pending))
        except StoreUnavailable as error:
            self._claimed.pop(pending.state, None)  # Nothing was spent: the same call-back may come again.
            outcome.set_result(_bare(error))
        except LogtoError as error:
            outcome.set_result(_bare(error))
        except BaseException:
            # A bug, or the loop is closing: whoever waits for this state must not wait for ever.
            outcome.set_result(IssuerUnavailable("The sign-in was interrupted. Try again."))
            raise

    async def _spend(self, query: Sequence[tuple[str, str]], pending: PendingSignIn) -> Session:
        """Exchange the code, unless another process does: its session is the outcome then."""
        client = self._client()
        code = parse_callback(query, config=self._config, metadata=await client.metadata(), pending=pending)
        code_digest = _code_digest(query)
        if not await self._sessions.claim_state(pending.state, code_digest):
            return await self._sessions.outcome_of_state(pending.state, code_digest)
        session = None
        try:
            session = await self._exchange(code, pending)
        finally:
            with contextlib.suppress(StoreUnavailable):
                await self._sessions.settle_state(pending.state, code_digest, session)
        return session

    async def _exchange(self, code: str, pending: PendingSignIn) -> Session:
        tokens, claims = await self._client().exchange_code(pending, code)
        first = self._tokens.first_token(tokens)
        now = int(self._clock())
        session = Session(
            id=secrets.token_urlsafe(32),
            version=1,
            created_at=now,
            sealed_at=now,
            claims=claims,
            scopes=first.scopes or tuple(self._config.scopes),
            refresh_token=tokens.refresh_token,
            id_token=None if self._config.is_logto else tokens.id_token,
            access_tokens=MappingProxyType({first.key: first}),
            checked_at=now,
        )
        await self._start(session)
        if tokens.refresh_token is None and "offline_access" in self._config.scopes:
            logger.info("signed in without a refresh token: the issuer gave none for offline_access")
        return session

    async def _start(self, session: Session) -> None:
        """Take up a session. The code is spent by now, so a store that is away means another sign-in."""
        try:
            await self._sessions.start(session)
        except StoreUnavailable as error:
            if session.refresh_token:
                await self.revoke(session.refresh_token)
            raise SignInError("Your session could not be kept. Please sign in again.") from error
        self._events.note("session.started")

    async def replace(self, old: Session, new: Session) -> None:
        """End the session that a sign-in replaced; revoke its refresh token where that cannot touch the new session.

        The same user's sessions share one grant at Logto, and revoking a refresh token revokes its grant.
        """
        if old.id == new.id:
            return
        try:
            newest = await self._sessions.end(old, replaced=True)  # Another tab may have refreshed it meanwhile.
        except StoreUnavailable:
            logger.warning("the session that a sign-in replaced could not be deleted: the store is away")
            return
        self._events.note("session.ended", reason="replaced")
        if newest.refresh_token and (old.claims.iss, old.claims.sub) != (new.claims.iss, new.claims.sub):
            await self.revoke(newest.refresh_token)

    async def sign_out(self, session: Session | None) -> SignedOut:
        """End the session here, revoke its refresh token, and say where the browser goes to end it at the issuer.

        Takes at most 3 seconds for the issuer; what fails there never keeps the session alive here. Raises
        `StoreUnavailable`, and then nothing has changed.
        """
        newest = None if session is None else await self._sessions.end(session)
        if newest is not None:
            self._events.note("session.ended", reason="sign_out")
        try:
            async with asyncio.timeout(_SIGN_OUT_BUDGET):
                if newest is not None and newest.refresh_token:
                    await self.revoke(newest.refresh_token)
                hint = newest.id_token if newest else None
                return SignedOut(await self._client().end_session_url(id_token_hint=hint))
        except (IssuerError, TimeoutError) as error:
            logger.warning("signed out here, but the issuer could not be asked: %s", getattr(error, "code", "time-out"))
            return self._without_discovery(newest)

    async def end_all(self, sessions: Sequence[Session]) -> int:
        """End sessions, then revoke their refresh tokens for at most 3 seconds. Return how many were ended.

        Raises `StoreUnavailable` when some could not be; the others are ended and revoked all the same.
        """
        results = await few_at_once((self._sessions.end(session) for session in sessions), limit=_AT_ONCE)
        ended = [result for result in results if isinstance(result, Session)]
        for _ in ended:
            self._events.note("session.ended", reason="end_sessions")
        tokens = [session.refresh_token for session in ended if session.refresh_token]
        try:
            async with asyncio.timeout(_SIGN_OUT_BUDGET):
                await few_at_once((self.revoke(token) for token in tokens), limit=_AT_ONCE)
        except TimeoutError:
            logger.warning("sessions were ended here, but the issuer took too long to revoke their refresh tokens")
        failed = next((result for result in results if isinstance(result, BaseException)), None)
        if failed is not None:
            raise failed
        return len(ended)

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - cancels nothing
        """Wait up to `timeout` seconds for the sign-ins of this event loop that are under way."""
        loop = asyncio.get_running_loop()
        tasks = [task for task in self._tasks if task.get_loop() is loop]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)

    def _without_discovery(self, session: Session | None) -> SignedOut:
        metadata = self._client().cached_metadata()
        if metadata is None:
            return SignedOut(None, issuer_known=False)
        hint = session.id_token if session else None
        landing = self._config.url(self._config.post_sign_out_path)
        return SignedOut(
            build_end_session_url(metadata, self._config, post_logout_redirect_uri=landing, id_token_hint=hint)
        )

    async def revoke(self, refresh_token: str) -> None:
        """Revoke a refresh token that is no longer needed. What fails is logged: it ends by itself."""
        try:
            await self._client().revoke(refresh_token)
        except IssuerError as error:
            logger.warning("could not revoke a refresh token: %s", error.code)


def _code_digest(query: Sequence[tuple[str, str]]) -> str:
    """Return the SHA-256 of the code that a call-back brings, of nothing where it brings none."""
    return hashlib.sha256(dict(query).get("code", "").encode("utf-8", "surrogatepass")).hexdigest()


def _session_of(outcome: Session | LogtoError) -> Session:
    if isinstance(outcome, LogtoError):
        raise _bare(outcome)
    return outcome


def _bare(error: LogtoError) -> LogtoError:
    """Return a copy without traceback and cause: what is kept must not hold the requests that it was raised in."""
    copy = type(error).__new__(type(error), *error.args)
    copy.__dict__.update(error.__dict__)
    return copy

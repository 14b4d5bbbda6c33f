"""One refresh of one session: ask the issuer, keep what it gave before looking at it, then look. Knows no waiting.

Whoever calls holds the session's `Turn`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from logto_asgi.claims import IdTokenClaims
from logto_asgi.errors import (
    AccessTokenRefused,
    InvalidGrant,
    IssuerError,
    IssuerRefused,
    IssuerResponseInvalid,
    IssuerUnavailable,
    LogtoError,
    RefreshTokenMissing,
    SessionEnded,
    VerificationError,
)
from logto_asgi.models import AccessToken, Session, TokenSet
from logto_asgi.session.backend import Overtaken, Saved, SessionBackend, Turn
from logto_asgi.token_rules import REFUSALS_OF_ONE_TOKEN, TokenKey, access_token_of, refusal_of

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig
    from logto_asgi.events import Events
    from logto_asgi.oidc.client import OidcClient

__all__ = ["Refresher"]

logger = logging.getLogger("logto_asgi")

_PLAIN: TokenKey = (None, None)


class Refresher:
    """Makes the refresh request (RFC 6749 §6) and turns its answer into the session's next state."""

    def __init__(
        self,
        config: LogtoConfig,
        sessions: SessionBackend,
        client: Callable[[], OidcClient],
        clock: Callable[[], float],
        events: Events,
    ) -> None:
        self._config = config
        self._sessions = sessions
        self._client = client
        self._clock = clock
        self._events = events

    async def refresh(self, turn: Turn, key: TokenKey) -> tuple[Session, AccessToken]:
        """Return the session's next state, which is saved, and the token for `key`.

        Raises `SessionEnded`, `RefreshTokenMissing`, `AccessTokenRefused`, `AccessTokenMismatch`, `IssuerUnavailable`,
        `IssuerRefused`, `IssuerResponseInvalid`, `StoreUnavailable`; and `Overtaken`, before anything was asked.
        """
        try:
            return await self._refresh(turn, key)
        except AccessTokenRefused as refused:
            await self._recover(turn, key, refused)
            raise

    async def _refresh(self, turn: Turn, key: TokenKey) -> tuple[Session, AccessToken]:
        tokens = await self._ask(turn, key)
        try:
            await self._keep_rotated(turn, tokens)
            claims = await self._check_id_token(turn, tokens)
            claims = claims and _since_sign_in(claims, turn.session.claims)
            token = self.as_access_token(tokens, key)
        except LogtoError:
            await turn.missed(processed=True)
            raise
        session = turn.session
        checked = replace(
            session,
            version=session.version + 1,
            checked_at=int(self._clock()),
            claims=claims or session.claims,
            id_token=session.id_token and (tokens.id_token or session.id_token),
            access_tokens=MappingProxyType({**session.access_tokens, token.key: token}),
        )
        if await self._save(turn, checked, spent=None):
            self._events.note("refresh.done")
        return turn.session, token

    async def _recover(self, turn: Turn, key: TokenKey, refused: AccessTokenRefused) -> None:
        """Save the session after a refusal that may have spent its refresh token.

        Logto's engine rotates before it looks at the resource, and an error carries no new token; the spent one works
        for three seconds more, so a plain refresh within these gets another.
        """
        if refused.error == "invalid_target" and key != _PLAIN:
            with contextlib.suppress(LogtoError, Overtaken):
                await self._refresh(turn, _PLAIN)

    async def _ask(self, turn: Turn, key: TokenKey, *, again: bool = True) -> TokenSet:
        """Make the refresh request; after `invalid_grant` look once whether somebody else rotated in the meantime."""
        spent = turn.session.refresh_token
        if spent is None:
            raise RefreshTokenMissing(
                "The access token has expired and the session has no refresh token. Sign in again; to get one, "
                "ask for the scope offline_access with prompt=consent (both are defaults with a Logto endpoint)."
            )
        await turn.depart()
        try:
            return await self._client().refresh(spent, resource=key[0], organization_id=key[1])
        except InvalidGrant:
            newest = await turn.reread()
        except IssuerError as error:
            await self._went_wrong(turn, key, error)
            raise
        if newest is not None and again and newest.refresh_token not in (None, spent):
            turn.session = newest
            return await self._ask(turn, key, again=False)
        self._events.note("refresh.refused")
        await turn.end_refused()
        raise SessionEnded("The issuer has ended this session. Sign in again.")

    async def _went_wrong(self, turn: Turn, key: TokenKey, error: IssuerError) -> None:
        """Number the cases of a request that brought no tokens; raise what says it better than `error` does.

        1. Nobody may have read it, or nobody can know.
        2. The issuer refuses this one token: nothing about the session.
        3. It refuses the app, or answered something unreadable.
        """
        if isinstance(error, IssuerUnavailable):
            self._events.note("refresh.failed")
            await turn.missed(processed=error.processed)
            return
        refused = isinstance(error, IssuerRefused)
        await turn.missed(processed=True if refused else None)
        if isinstance(error, IssuerRefused) and error.error in REFUSALS_OF_ONE_TOKEN:
            self._events.note("token.refused")
            raise AccessTokenRefused(refusal_of(error.error, *key), error=error.error) from error
        self._events.note("refresh.failed")

    async def _keep_rotated(self, turn: Turn, tokens: TokenSet) -> None:
        """Save a rotated refresh token before anything that came with it is looked at."""
        session = turn.session
        if tokens.refresh_token in (None, session.refresh_token):
            return
        rotated = replace(session, version=session.version + 1, refresh_token=tokens.refresh_token)
        await self._save(turn, rotated, spent=session.refresh_token)

    async def _save(self, turn: Turn, session: Session, *, spent: str | None) -> bool:
        """Return False where another process has saved a newer state, which `turn.session` is then."""
        saved = await turn.save(session, spent=spent)
        if saved is not Saved.ENDED:
            return saved is Saved.KEPT
        self._events.note("refresh.discarded", "the answer of a refresh was thrown away: its session has ended")
        if spent is not None and turn.revocable:
            await self._revoke_quietly(session.refresh_token)
        raise SessionEnded("This session ended while its token was being refreshed. Sign in again.")

    async def _check_id_token(self, turn: Turn, tokens: TokenSet) -> IdTokenClaims | None:
        """Return the verified claims of the answer's ID token, None where there is none (Core §12.2)."""
        try:
            return await self._client().verify_refreshed(tokens, turn.session.claims)
        except VerificationError as error:
            failed = error
        if failed.check != "sub":
            self._events.note("refresh.failed", f"refreshed ID token refused: {failed.check}", level=logging.WARNING)
            raise IssuerResponseInvalid(
                f"The issuer's refreshed ID token failed the check of {failed.check}."
            ) from failed
        await self._sessions.end(turn.session)
        await self._revoke_quietly(turn.session.refresh_token)
        self._events.note(
            "session.ended",
            "session ended: the refreshed ID token belongs to another user",
            level=logging.WARNING,
            reason="another_user",
        )
        raise SessionEnded("The issuer answered for another user. Sign in again.") from failed

    async def _revoke_quietly(self, refresh_token: str | None) -> None:
        if refresh_token is None:
            return
        try:
            await self._client().revoke(refresh_token)
        except IssuerError as error:
            logger.info("could not revoke a refresh token that is no longer needed: %s", error.code)

    def as_access_token(self, tokens: TokenSet, key: TokenKey) -> AccessToken:
        """Return the access token of an answer as one to keep. Raise `AccessTokenMismatch`."""
        return access_token_of(tokens, key, now=int(self._clock()), strict=self._config.is_logto)


def _since_sign_in(claims: IdTokenClaims, before: IdTokenClaims) -> IdTokenClaims:
    """Return refreshed claims with the `auth_time` of the sign-in, or none where that had none.

    A refresh is no sign-in, so it must stay that of the original authentication (Core §12.2). Issuers leave it out, or
    send the time of the refresh, by which a guard that wants a new sign-in would never get one.
    """
    if claims.auth_time == before.auth_time:
        return claims
    kept = {name: value for name, value in claims.raw().items() if name != "auth_time"}
    return IdTokenClaims.parse(kept if before.auth_time is None else {**kept, "auth_time": before.auth_time})

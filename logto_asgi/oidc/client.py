"""Carry the steps of OpenID Connect to the issuer and bring back checked answers. It knows no ASGI, cookie or session.

This is the only module that opens a connection to the issuer; `transport` bounds what comes through it. What is said
and what an answer means is in `protocol`, `token_endpoint` and `verification`; what is remembered is in `discovery`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from logto_asgi.claims import AccessTokenClaims, IdTokenClaims, UserInfo
from logto_asgi.errors import IssuerResponseInvalid, IssuerUnavailable, SetupError
from logto_asgi.models import PendingSignIn, TokenSet
from logto_asgi.oidc.access_tokens import verify_access_token
from logto_asgi.oidc.client_grants import (
    build_client_credentials_request,
    build_exchange_request,
    parse_exchange_response,
)
from logto_asgi.oidc.discovery import Discovery, DiscoveryCache
from logto_asgi.oidc.keys import KeyNotFound, KeySet, PublicKey
from logto_asgi.oidc.metadata import ProviderMetadata
from logto_asgi.oidc.protocol import build_end_session_url
from logto_asgi.oidc.token_endpoint import (
    build_client_request,
    build_code_request,
    build_introspection_request,
    build_refresh_request,
    build_revocation_request,
    build_userinfo_request,
    parse_document,
    parse_introspection_response,
    parse_revocation_response,
    parse_token_response,
    parse_userinfo_response,
)
from logto_asgi.oidc.transport import DOCUMENT_LIMIT, Answer, HTTPClient, Request, Transport, within
from logto_asgi.oidc.verification import verify_id_token, verify_refreshed_id_token

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig

__all__ = ["OidcClient"]

T = TypeVar("T")

_PATIENCE = 2.0
"""Seconds that a caller's token waits for newer keys while there are older ones."""


class OidcClient:
    """The issuer, as one event loop sees it.

    Every method takes at most `config.http_timeout` seconds in all. Raises, unless said otherwise: `IssuerUnavailable`
    when the issuer is down, slow or busy; `IssuerRefused` when it says no; `IssuerResponseInvalid` when its answer
    breaks the specification; `VerificationError` when the answer is well-formed and not true.
    """

    def __init__(
        self,
        config: LogtoConfig,
        *,
        http_client: HTTPClient | None = None,
        cache: DiscoveryCache | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_retry: Callable[[], None] | None = None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._transport = Transport(
            deadline=config.http_timeout,
            http_client=http_client,
            make_client=_new_http_client,
            clock=clock,
            sleep=sleep,
            on_retry=on_retry,
        )
        self._discovery = Discovery(issuer=config.issuer, fetch=self._fetch_document, cache=cache, clock=clock)

    async def metadata(self) -> ProviderMetadata:
        """Return what the issuer says about itself, from the cache or fetched."""
        return await within(self._config.http_timeout, self._discovery.metadata())

    def cached_metadata(self) -> ProviderMetadata | None:
        """Return what the issuer said about itself last, without a call, or None."""
        return self._discovery.cached_metadata()

    async def exchange_code(self, pending: PendingSignIn, code: str) -> tuple[TokenSet, IdTokenClaims]:
        """Exchange a code and verify the ID token that comes (Core §3.1.3). Never retried: a code works once."""
        return await within(self._config.http_timeout, self._exchange_code(pending, code))

    async def refresh(
        self,
        refresh_token: str,
        *,
        resource: str | None = None,
        organization_id: str | None = None,
        scope: str | None = None,
    ) -> TokenSet:
        """Refresh (RFC 6749 §6). Raise `InvalidGrant` when the refresh token is of no use any more.

        Within the same deadline, a request that was surely not processed is sent once more (`Transport.send`). Where
        `IssuerUnavailable.processed` is None in the end, the issuer may have rotated and the answer is lost.
        Nothing is verified: save a rotated refresh token first, then call `verify_refreshed`.
        """
        form = build_refresh_request(refresh_token, resource=resource, organization_id=organization_id, scope=scope)
        return await self._request_tokens_insistently(form)

    async def client_credentials(
        self, *, resource: str | None = None, organization_id: str | None = None, scope: str | None = None
    ) -> TokenSet:
        """Get a token of the client itself (RFC 6749 §4.4). Sent once more where it was surely not processed."""
        form = build_client_credentials_request(resource=resource, organization_id=organization_id, scope=scope)
        return await self._request_tokens_insistently(form)

    async def exchange_token(
        self,
        subject_token: str,
        subject_token_type: str,
        *,
        resource: str | None = None,
        organization_id: str | None = None,
        scope: str | None = None,
        actor_token: str | None = None,
    ) -> TokenSet:
        """Exchange a token for an access token (RFC 8693 §2). Raise `InvalidGrant` for one that is of no use.

        Sent once more where it was surely not processed: an impersonation token works only once.
        """
        form = build_exchange_request(
            subject_token,
            subject_token_type,
            resource=resource,
            organization_id=organization_id,
            scope=scope,
            actor_token=actor_token,
        )
        return await self._request_tokens_insistently(form, parse_exchange_response)

    async def verify_refreshed(self, tokens: TokenSet, previous: IdTokenClaims) -> IdTokenClaims | None:
        """Verify the ID token of a refresh as the continuation of `previous` (Core §12.2); None where none came."""
        if tokens.id_token is None:
            return None
        raw = tokens.id_token

        def verify(metadata: ProviderMetadata, keys: KeySet) -> IdTokenClaims:
            return verify_refreshed_id_token(
                raw,
                previous=previous,
                keys=keys,
                metadata=metadata,
                config=self._config,
                now=self._clock(),
                access_token=tokens.access_token,
            )

        return await within(self._config.http_timeout, self._with_keys(verify))

    async def userinfo(self, access_token: str, *, sub: str) -> UserInfo:
        """Fetch the claims about the user `sub` (Core §5.3)."""
        return await within(self._config.http_timeout, self._userinfo(access_token, sub))

    async def revoke(self, token: str, *, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Revoke a token (RFC 7009 §2), if the issuer offers that. `timeout` shortens the deadline, in seconds."""
        await within(self._deadline(timeout), self._revoke(token))

    async def keys(self) -> KeySet:
        """Return the keys for tokens that callers bring: an hour old at most, or a day where fetching fails."""
        return await within(self._config.http_timeout, self._discovery.keys(patience=self._patience))

    async def verify_access_token(self, raw: str) -> tuple[AccessTokenClaims, PublicKey]:
        """Verify an access token that a caller brought (RFC 9068 §4), and tell which key signed it."""

        def verify(metadata: ProviderMetadata, keys: KeySet) -> tuple[AccessTokenClaims, PublicKey]:
            return verify_access_token(raw, keys=keys, metadata=metadata, config=self._config, now=self._clock())

        fresh = self._discovery.fresh()
        if fresh is not None:  # As a rule nothing need be waited for, and then not even a deadline is set up.
            with suppress(KeyNotFound):
                return verify(*fresh)
        return await within(self._config.http_timeout, self._with_keys_for_callers(verify))

    async def introspect(self, token: str) -> dict[str, Any] | None:
        """Ask what an opaque access token is (RFC 7662 §2): what the issuer says, or None when it is not active.

        Raise `SetupError` where the issuer does not offer that.
        """
        return await within(self._config.http_timeout, self._introspect(token))

    async def end_session_url(
        self,
        *,
        id_token_hint: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> str | None:
        """Return where the browser signs out at the issuer and comes back from, or None where it cannot."""
        metadata = await within(self._deadline(timeout), self._discovery.metadata())
        home = self._config.url(self._config.post_sign_out_path)
        return build_end_session_url(metadata, self._config, post_logout_redirect_uri=home, id_token_hint=id_token_hint)

    async def aclose(self) -> None:
        """Stop what is being fetched and close the connections, except those of a client that was handed in."""
        self._discovery.cancel()
        await self._transport.aclose()

    @property
    def _patience(self) -> float:
        return min(_PATIENCE, self._config.http_timeout / 4)

    def _deadline(self, timeout: float | None) -> float:
        return self._config.http_timeout if timeout is None else min(timeout, self._config.http_timeout)

    async def _exchange_code(self, pending: PendingSignIn, code: str) -> tuple[TokenSet, IdTokenClaims]:
        # The keys come first: a code that is spent while they are out of reach would be lost.
        await self._discovery.keys()
        tokens = await self._request_tokens(build_code_request(pending, code))
        if tokens.id_token is None:
            raise IssuerResponseInvalid("The issuer's token endpoint sent no `id_token`. Is `openid` among the scopes?")
        raw = tokens.id_token

        def verify(metadata: ProviderMetadata, keys: KeySet) -> IdTokenClaims:
            return verify_id_token(
                raw,
                keys=keys,
                metadata=metadata,
                config=self._config,
                now=self._clock(),
                nonce=pending.nonce,
                max_age=pending.max_age,
                access_token=tokens.access_token,
                code=code,
            )

        return tokens, await self._with_keys(verify)

    async def _request_tokens_insistently(
        self, form: Mapping[str, str], parse: Callable[[Answer], TokenSet] = parse_token_response
    ) -> TokenSet:
        until = asyncio.get_running_loop().time() + self._config.http_timeout
        return await within(self._config.http_timeout, self._request_tokens(form, parse, retry_until=until))

    async def _request_tokens(
        self,
        form: Mapping[str, str],
        parse: Callable[[Answer], TokenSet] = parse_token_response,
        *,
        retry_until: float | None = None,
    ) -> TokenSet:
        try:
            metadata = await self._discovery.metadata()
        except IssuerUnavailable as error:
            error.processed = False  # Whatever became of the document, the request itself never left.
            raise
        request = build_client_request(metadata.token_endpoint, form, self._config)
        return parse(await self._transport.send(request, retry_until=retry_until))

    async def _with_keys(self, verify: Callable[[ProviderMetadata, KeySet], T]) -> T:
        metadata = await self._discovery.metadata()
        keys = await self._discovery.keys()
        try:
            return verify(metadata, keys)
        except KeyNotFound:
            pass
        return verify(metadata, await self._discovery.keys_beyond(keys))

    async def _with_keys_for_callers(self, verify: Callable[[ProviderMetadata, KeySet], T]) -> T:
        """Do the same for tokens that anybody may send: through an outage and apart from sign-in."""
        metadata = await self._discovery.metadata(patience=self._patience)
        keys = await self._discovery.keys(patience=self._patience)
        try:
            return verify(metadata, keys)
        except KeyNotFound:
            pass
        return verify(metadata, await self._discovery.keys_beyond(keys, strangers=True))

    async def _introspect(self, token: str) -> dict[str, Any] | None:
        metadata = await self._discovery.metadata(patience=self._patience)
        if metadata.introspection_endpoint is None:
            raise SetupError("The issuer offers no introspection of opaque tokens. Leave `opaque=True` out.")
        request = build_client_request(
            metadata.introspection_endpoint, build_introspection_request(token), self._config
        )
        return parse_introspection_response(await self._transport.send(request))

    async def _userinfo(self, access_token: str, sub: str) -> UserInfo:
        metadata = await self._discovery.metadata()
        if metadata.userinfo_endpoint is None:
            raise IssuerResponseInvalid("The issuer's discovery document has no `userinfo_endpoint`.")
        answer = await self._transport.send(build_userinfo_request(metadata.userinfo_endpoint, access_token))
        return parse_userinfo_response(answer, sub=sub)

    async def _revoke(self, token: str) -> None:
        metadata = await self._discovery.metadata()
        if metadata.revocation_endpoint is None:
            return
        form = build_revocation_request(token)
        parse_revocation_response(
            await self._transport.send(build_client_request(metadata.revocation_endpoint, form, self._config))
        )

    async def _fetch_document(self, url: str) -> dict[str, Any]:
        answer = await self._transport.send(Request("GET", url, limit=DOCUMENT_LIMIT))
        return parse_document(answer, "keys or discovery document")


def _new_http_client() -> HTTPClient:
    from http.cookiejar import CookieJar, DefaultCookiePolicy

    import httpx

    # One client serves all users: a cookie that came with one's answer must not go out with another's request.
    no_cookies = CookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))
    return httpx.AsyncClient(follow_redirects=False, cookies=no_cookies)

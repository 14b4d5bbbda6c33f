"""What one request may ask about its visitor: `LogtoUser`.

Knows sessions and tokens through the runtime; makes no response.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import GetCoreSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema, core_schema
from starlette.authentication import BaseUser

from logto_asgi.claims import AccessTokenClaims, IdTokenClaims, TokenClaims, UserInfo
from logto_asgi.errors import AccessTokenMismatch, SetupError, SignInRequired
from logto_asgi.models import Session
from logto_asgi.oidc.peek import read_unverified_claims
from logto_asgi.prefetched import Prefetched
from logto_asgi.presented import presented_token
from logto_asgi.public_user import PublicUser
from logto_asgi.targets import organization_of_exchange
from logto_asgi.visit import Visit

if TYPE_CHECKING:
    from logto_asgi.runtime import Logto

__all__ = ["SCOPE_KEY", "LogtoUser", "visit_of"]

SCOPE_KEY = "logto_asgi"
"""Where the middleware puts the user in the ASGI scope. `request.state.user` may belong to the app."""

_PUBLIC = ("is_authenticated", "claims", "scopes", "organizations")


class LogtoUser(BaseUser):
    """The visitor of one request or WebSocket, signed in or not.

    Reading anything of it opens the session, once; a response to a request that read it varies by cookie.
    Every way to serialise it gives the `PublicUser` view. It belongs to its request and cannot be pickled.
    """

    __slots__ = ("_prefetched", "_visit")

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._prefetched: Prefetched | None = None

    # -- Who it is ---------------------------------------------------------------------------------------------------

    @property
    def is_authenticated(self) -> bool:
        """Whether somebody is signed in, or a guard has accepted the caller's bearer token.

        Asks nobody; raises `StoreUnavailable` when the session store is away.
        """
        return self._visit.bearer is not None or self._visit.ask() is not None

    @property
    def claims(self) -> TokenClaims:
        """The verified claims: `IdTokenClaims` of a session, `AccessTokenClaims` of a bearer token.

        Raises `SignInRequired` for an anonymous visitor.
        """
        return self._visit.bearer or self._signed_in().claims

    @property
    def scopes(self) -> tuple[str, ...]:
        """What the issuer granted at sign-in, or what the bearer token says; empty for an anonymous visitor."""
        visit = self._visit
        if visit.bearer is not None:
            return tuple(visit.bearer.scope.split())
        session = visit.ask()
        return () if session is None else session.scopes

    @property
    def organizations(self) -> tuple[str, ...]:
        """The ids of the user's organizations, with the scope `UserScope.ORGANIZATIONS`; the one of a bearer token."""
        visit = self._visit
        if visit.bearer is not None:
            return () if visit.bearer.organization is None else (visit.bearer.organization,)
        session = visit.ask()
        return () if session is None else session.claims.organizations or ()

    @property
    def organization_id(self) -> str | None:
        """The organization that a guard with `organization=` let the caller into, or None.

        Raises `SetupError` where guards let the caller into several: read those from the path.
        """
        entered = self._visit.organizations
        if len(entered) > 1:
            self._visit.prepare_errors()
            raise SetupError("Guards named several organizations here. Read them from the path's parameters.")
        return entered[0] if entered else None

    @property
    def bearer(self) -> AccessTokenClaims | None:
        """The claims of the bearer token, if the caller came with one that a guard accepted."""
        return self._visit.bearer

    @property
    def client_id(self) -> str:
        """The client that the caller's token was issued to; for a session this app."""
        bearer = self._visit.bearer
        return self._visit.config.app_id if bearer is None else bearer.client_id

    @property
    def is_machine(self) -> bool:
        """Whether a client calls for itself and for no user (RFC 9068 §5)."""
        bearer = self._visit.bearer
        return bearer is not None and bearer.is_machine

    @property
    def actor(self) -> str | None:
        """The `sub` of who acts in the user's name: impersonation, delegation (RFC 8693 §4.1)."""
        bearer = self._visit.bearer
        return None if bearer is None else bearer.actor

    @property
    def display_name(self) -> str:
        """A name to greet with: name, username, e-mail or `sub`; empty for an anonymous visitor (as in Starlette)."""
        if not self.is_authenticated:
            return ""
        claims = self.claims
        return claims.name or claims.username or claims.email or claims.sub

    @property
    def identity(self) -> str:
        """The user's `sub`, the only claim that never changes; empty for an anonymous visitor (as in Starlette)."""
        return self.claims.sub if self.is_authenticated else ""

    @property
    def logto(self) -> Logto:
        """The runtime behind this request, for what is not this user's alone: `await user.logto.end_sessions(…)`."""
        return self._visit.runtime

    # -- What the configuration asked to fetch for every request ------------------------------------------------------

    @property
    def user_info(self) -> UserInfo | None:
        """The userinfo, when `fetch_user_info` is set; raises what the fetch raised."""
        fetched: UserInfo | None = self._fetched("user_info")
        return fetched

    @property
    def access_token(self) -> str | None:
        """The access token, when `get_access_token` is set; raises what the fetch raised."""
        fetched: str | None = self._fetched("access_token")
        return fetched

    @property
    def organization_tokens(self) -> Mapping[str, str] | None:
        """Tokens by organization id, when `get_organization_token` is set; raises what the fetch raised."""
        fetched: Mapping[str, str] | None = self._fetched("organization_tokens")
        return fetched

    # -- What can be asked ---------------------------------------------------------------------------------------------

    async def get_access_token(
        self,
        resource: str | None = None,
        organization_id: str | None = None,
        *,
        scopes: Sequence[str] | None = None,
        force_refresh: bool = False,
        min_ttl: int | None = None,
    ) -> str:
        """Return an access token, refreshed when it would expire within the margin (RFC 6749 §6, RFC 8707 §2).

        Without `resource` it is good for the issuer's userinfo only. `min_ttl` asks for one that lives so many seconds
        more, `force_refresh` for a new one. For a caller with a bearer token that one is exchanged (RFC 8693 §2.1) for
        one with `scopes`, by default the configuration's, in the organization that it is for. Raises `SignInRequired`
        (also its subclasses `SessionEnded` and `RefreshTokenMissing`), `AccessTokenRefused`, `AccessTokenMismatch`,
        `IssuerUnavailable`, `IssuerRefused`, `StoreUnavailable`, and `SetupError` for `scopes` with a session.
        """
        if self._visit.bearer is not None:
            how = {"resource": resource, "scopes": scopes, "force_refresh": force_refresh, "min_ttl": min_ttl}
            return await self._exchanged(self._visit.bearer, organization_id, **how)
        if scopes is not None:
            self._visit.prepare_errors()
            raise SetupError("scopes=… is for callers with a bearer token; a session has what sign-in asked for.")
        visit, session = self._visit, self._to_ask_with()
        newest, token = await visit.runtime.tokens.get(
            session, resource=resource, organization_id=organization_id, force_refresh=force_refresh, min_ttl=min_ttl
        )
        visit.advance(newest)
        return token.value

    async def get_organization_token(
        self, organization_id: str, *, force_refresh: bool = False, min_ttl: int | None = None
    ) -> str:
        """Return a token for an organization itself. Raises as `get_access_token`."""
        return await self.get_access_token(None, organization_id, force_refresh=force_refresh, min_ttl=min_ttl)

    async def get_access_token_claims(
        self, resource: str | None = None, organization_id: str | None = None
    ) -> Mapping[str, Any]:
        """Return what the token says that `get_access_token` returns (RFC 9068 §2.2): `scope`, `exp` and so on.

        It came from the issuer itself, and is for the API to verify. Raises as `get_access_token`, and
        `AccessTokenMismatch` for an opaque token, which says nothing.
        """
        claims = read_unverified_claims(await self.get_access_token(resource, organization_id))
        if claims is None:
            raise AccessTokenMismatch("This access token is opaque and has no claims. Ask for one with resource=.")
        return claims

    async def fetch_user_info(self) -> UserInfo:
        """Ask the issuer's userinfo endpoint; its `sub` must be this user's. Raises as `get_access_token`."""
        visit, session = self._visit, self._to_ask_with()
        newest, info = await visit.runtime.fetch_user_info(session)
        visit.advance(newest)
        return info

    async def refresh(self) -> IdTokenClaims:
        """Ask the issuer for new claims now, for example after a role changed, and return them (Core §12.2).

        Access tokens that are kept stay; see `clear_access_tokens`. Raises as `get_access_token`.
        """
        visit, session = self._visit, self._to_ask_with()
        renewed = await visit.runtime.tokens.renew(session)
        visit.advance(renewed)
        return renewed.claims

    async def clear_access_tokens(self) -> None:
        """Forget the access tokens that the session keeps, so that each is asked for anew. Raises `SignInRequired`."""
        visit, session = self._visit, self._to_ask_with()
        visit.advance(await visit.runtime.tokens.clear(session))

    # -- How it leaves the server ------------------------------------------------------------------------------------

    def public(self) -> PublicUser:
        """Return the view that may be sent to a browser."""
        return PublicUser.model_validate(self)

    def keys(self) -> Iterator[str]:
        """Name the fields of the public view, so that `dict(user)` is just these."""
        return iter(_PUBLIC)

    def __getitem__(self, name: str) -> Any:
        if name not in _PUBLIC:
            raise KeyError(name)
        if name == "claims" and not self.is_authenticated:
            return None
        return getattr(self, name)

    def __repr__(self) -> str:
        visit = self._visit
        if visit.bearer is not None:
            return f"<LogtoUser {visit.bearer.sub!r}, by bearer token>"
        if visit.failure is not None:
            return "<LogtoUser, unknown: the session store is away>"
        if visit.loaded is None:
            return "<LogtoUser, not read yet>"
        return f"<LogtoUser {visit.session.claims.sub!r}>" if visit.session else "<LogtoUser, anonymous>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A LogtoUser belongs to its request. Pass user.public() instead.")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.is_instance_schema(
            cls,
            serialization=core_schema.plain_serializer_function_ser_schema(
                cls.public, return_schema=handler.generate_schema(PublicUser)
            ),
        )

    # -- Inside --------------------------------------------------------------------------------------------------------

    def _signed_in(self) -> Session:
        session = self._visit.ask()
        if session is None:
            self._visit.prepare_errors()
            raise SignInRequired("Nobody is signed in.")
        return session

    async def _exchanged(self, caller: AccessTokenClaims, organization_id: str | None, **how: Any) -> str:
        visit = self._visit
        visit.prepare_errors()
        where = organization_of_exchange(caller, organization_id, is_logto=visit.config.is_logto)
        token = await visit.runtime.client_tokens.on_behalf_of(
            presented_token(visit.scope) or "", until=caller.exp, organization_id=where, **how
        )
        return token.value

    def _to_ask_with(self) -> Session:
        """Return the newest state of the session, for a call that may raise one of our errors."""
        if self._visit.bearer is not None:
            self._visit.prepare_errors()
            raise SetupError("This needs a session, and the caller came with a bearer token: see user.bearer.")
        session = self._visit.newest(self._signed_in())
        self._visit.prepare_errors()
        return session

    def _fetched(self, name: str) -> Any:
        visit = self._visit
        visit.ask()
        if self._prefetched is None:
            return None
        visit.prepare_errors()
        return self._prefetched.get(name)

    async def prefetch(self) -> None:
        """Fetch what the configuration wants on every request. Failures are kept for whoever reads the value."""
        if self._visit.ask() is not None:
            fetched = Prefetched()
            await fetched.fetch(self, self._visit.config)
            self._prefetched = fetched


class _Serializer:
    """What a field of type `Any`, and `-> Any` in FastAPI, ask the value itself for. Made at its first use."""

    @cached_property
    def _made(self) -> Any:
        return TypeAdapter(LogtoUser).serializer

    def __get__(self, user: LogtoUser | None, owner: type[LogtoUser]) -> Any:
        return self._made


LogtoUser.__pydantic_serializer__ = _Serializer()  # type: ignore[attr-defined]


def visit_of(scope: Mapping[str, Any]) -> Visit | None:
    """Return the visit behind the user that the middleware put into a scope; None without the middleware."""
    user: LogtoUser | None = scope.get(SCOPE_KEY)
    return None if user is None else user._visit

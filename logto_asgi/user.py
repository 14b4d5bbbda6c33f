"""What one request may ask about its visitor: `LogtoUser`, and `PublicUser`, the view of it that may leave the server.

Knows sessions and tokens through the runtime; makes no response.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, TypeAdapter, model_validator
from pydantic_core import CoreSchema, core_schema
from starlette.authentication import AuthCredentials, BaseUser

from logto_asgi.errors import LogtoError, SignInRequired
from logto_asgi.models import IdTokenClaims, Session, UserInfo
from logto_asgi.origins import SAFE_METHODS, is_bearer, is_same_origin_request, is_trusted_handshake
from logto_asgi.session.backends import NOT_LOOKED_AT, Loaded

if TYPE_CHECKING:
    from logto_asgi.runtime import Logto

__all__ = ["SCOPE_KEY", "Credentials", "LogtoUser", "PublicUser"]

logger = logging.getLogger("logto_asgi")

SCOPE_KEY = "logto_asgi"
"""Where the middleware puts the user in the ASGI scope. `request.state.user` may belong to the app."""

_PUBLIC = ("is_authenticated", "claims", "scopes", "organizations")


class PublicUser(BaseModel):
    """What may be said of a user in a response: never a token. `return user` in an endpoint answers this."""

    model_config = ConfigDict(frozen=True)

    is_authenticated: bool
    claims: IdTokenClaims | None = None
    scopes: tuple[str, ...] = ()
    organizations: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _from_user(cls, value: Any) -> Any:
        return dict(value) if isinstance(value, LogtoUser) else value


class LogtoUser(BaseUser):
    """The visitor of one request or WebSocket, signed in or not.

    Reading anything of it opens the session, once; a response to a request that read it varies by cookie.
    Every way to serialise it gives the `PublicUser` view. It belongs to its request and cannot be pickled.
    """

    __slots__ = (
        "_access_token",
        "_app",
        "_failures",
        "_headers_gone",
        "_loaded",
        "_on_error",
        "_organization_tokens",
        "_runtime",
        "_scope",
        "_session",
        "_user_info",
    )

    def __init__(
        self,
        runtime: Logto,
        scope: MutableMapping[str, Any],
        on_error: Callable[[MutableMapping[str, Any]], None] | None = None,
    ) -> None:
        self._runtime = runtime
        self._scope = scope
        self._on_error = on_error
        self._app = scope.get("app")
        self._loaded: Loaded | None = None
        self._session: Session | None = None
        self._failures: dict[str, LogtoError] | None = None
        self._headers_gone = False

    # -- Who it is ---------------------------------------------------------------------------------------------------

    @property
    def is_authenticated(self) -> bool:
        """Whether somebody is signed in. Never raises and asks nobody."""
        if self._loaded is None:
            self._load()
        return self._session is not None

    @property
    def claims(self) -> IdTokenClaims:
        """The verified claims of the ID token. Raises `SignInRequired` for an anonymous visitor."""
        return self._signed_in().claims

    @property
    def scopes(self) -> tuple[str, ...]:
        """What the issuer granted at sign-in; empty for an anonymous visitor."""
        return self._session.scopes if self.is_authenticated and self._session else ()

    @property
    def organizations(self) -> tuple[str, ...]:
        """The ids of the user's organizations, with the scope `UserScope.ORGANIZATIONS`."""
        return (self._session.claims.organizations or ()) if self.is_authenticated and self._session else ()

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

    # -- What the configuration asked to fetch for every request ------------------------------------------------------

    @property
    def user_info(self) -> UserInfo | None:
        """The userinfo, when `fetch_user_info` is set; raises what the fetch raised."""
        fetched: UserInfo | None = self._fetched("_user_info")
        return fetched

    @property
    def access_token(self) -> str | None:
        """The access token, when `get_access_token` is set; raises what the fetch raised."""
        fetched: str | None = self._fetched("_access_token")
        return fetched

    @property
    def organization_tokens(self) -> Mapping[str, str] | None:
        """Tokens by organization id, when `get_organization_token` is set; raises what the fetch raised."""
        fetched: Mapping[str, str] | None = self._fetched("_organization_tokens")
        return fetched

    # -- What can be asked ---------------------------------------------------------------------------------------------

    async def get_access_token(
        self, resource: str | None = None, organization_id: str | None = None, *, force_refresh: bool = False
    ) -> str:
        """Return an access token, refreshed when it would expire within the margin (RFC 6749 §6, RFC 8707 §2).

        Without `resource` it is good for the issuer's userinfo only. Raises `SignInRequired` (also its subclasses
        `SessionEnded` and `RefreshTokenMissing`), `AccessTokenRefused`, `AccessTokenMismatch`, `IssuerUnavailable`.
        """
        session = self._newest()
        self._prepare_errors()
        self._session, token = await self._runtime.tokens.get(
            session, resource=resource, organization_id=organization_id, force_refresh=force_refresh
        )
        return token.value

    async def get_organization_token(self, organization_id: str, *, force_refresh: bool = False) -> str:
        """Return a token for an organization itself. Raises as `get_access_token`."""
        return await self.get_access_token(organization_id=organization_id, force_refresh=force_refresh)

    async def fetch_user_info(self) -> UserInfo:
        """Ask the issuer's userinfo endpoint; its `sub` must be this user's. Raises as `get_access_token`."""
        session = self._newest()
        self._prepare_errors()
        self._session, info = await self._runtime.fetch_user_info(session)
        return info

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
        if self._loaded is None:
            return "<LogtoUser, not read yet>"
        return f"<LogtoUser {self._session.claims.sub!r}>" if self._session else "<LogtoUser, anonymous>"

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

    # -- For the middleware, routes and guards -------------------------------------------------------------------------

    def _load(self) -> None:
        """Open the session, unless a bearer token decides alone or a foreign page opened this WebSocket."""
        scope = self._scope
        headers = scope["headers"]
        for name, value in headers:
            if name == b"authorization" and is_bearer(value):
                self._loaded = NOT_LOOKED_AT
                return
        if scope["type"] == "websocket" and not is_trusted_handshake(headers, self._runtime.config):
            logger.warning("websocket: the session cookie is ignored, its Origin is neither base_url nor trusted")
            self._loaded = NOT_LOOKED_AT
            return
        self._loaded = loaded = self._runtime.sessions.load(headers)
        self._session = loaded.session
        if self._headers_gone and loaded.session is not None:
            logger.warning("the user was first read after the response began: it lacks Vary: Cookie for shared caches")
        if loaded.problem is not None:
            logger.info("session cookie not used: %s", loaded.problem)

    def _become(self, session: Session) -> None:
        """Go on as the user of a new session, which the response will write."""
        loaded = self._loaded
        if loaded is None or loaded is NOT_LOOKED_AT:
            loaded = self._loaded = self._runtime.sessions.load(self._scope["headers"])
        loaded.session = self._session = session

    def _forget(self) -> None:
        """Go on as nobody; the response will delete the cookie."""
        loaded = self._loaded
        if loaded is not None and loaded is not NOT_LOOKED_AT:
            loaded.session, loaded.clear = None, True
        self._session = None

    def _leave(self) -> None:
        """Let go of a request that is over. Its scope refers to this user, and both would wait for a collection."""
        scope = self._scope
        self._scope = {"type": scope["type"], "method": scope.get("method"), "headers": scope["headers"]}

    def _signed_in(self) -> Session:
        if not self.is_authenticated or self._session is None:
            self._prepare_errors()
            raise SignInRequired("Nobody is signed in.")
        return self._session

    def _newest(self) -> Session:
        """Return the newest state: a stream or WebSocket lives longer than the one that it began with."""
        session = self._signed_in()
        newest = self._runtime.sessions.newest(session.id)
        return session if newest is None or (self._loaded is not None and self._loaded.stray) else newest

    def _prepare_errors(self) -> None:
        """Let the app answer our errors in our way, where it has none of its own."""
        if self._on_error is not None:
            self._on_error(self._scope)

    def _fetched(self, slot: str) -> Any:
        if self._failures and slot in self._failures:
            self._prepare_errors()
            raise self._failures[slot]
        return getattr(self, slot, None)

    async def _prefetch(self) -> None:
        """Fetch what the configuration wants on every request. Failures are kept for whoever reads the value."""
        config = self._runtime.config
        if not self.is_authenticated:
            return
        if config.fetch_user_info:
            await self._attempt("_user_info", self.fetch_user_info)
        if config.get_access_token:
            await self._attempt("_access_token", lambda: self.get_access_token(config.resource, config.organization_id))
        if config.get_organization_token:
            await self._attempt("_organization_tokens", self._all_organization_tokens)

    async def _all_organization_tokens(self) -> Mapping[str, str]:
        return {each: await self.get_organization_token(each) for each in self.organizations}

    async def _attempt(self, slot: str, fetch: Callable[[], Any]) -> None:
        try:
            setattr(self, slot, await fetch())
        except LogtoError as error:
            self._failures = {**(self._failures or {}), slot: error}


# A field of type `Any`, and `-> Any` in FastAPI, ask the value itself for its serialiser.
LogtoUser.__pydantic_serializer__ = TypeAdapter(LogtoUser).serializer  # type: ignore[attr-defined]


class Credentials(AuthCredentials):
    """Starlette's `request.auth`: `authenticated` and the granted scopes, looked up when somebody asks.

    For a request that would change something and comes from another site it holds nothing, so that `@requires`
    refuses it as every guard does.
    """

    def __init__(self, user: LogtoUser) -> None:
        self._user = user

    @property
    def scopes(self) -> list[str]:  # type: ignore[override]
        """What Starlette's `@requires` compares."""
        user = self._user
        if not user.is_authenticated or not _may_act(user):
            return []
        return ["authenticated", *user.scopes]


def _may_act(user: LogtoUser) -> bool:
    scope = user._scope
    if scope["type"] == "websocket" or scope["method"] in SAFE_METHODS:
        return True
    return is_same_origin_request(scope["headers"], user._runtime.config)

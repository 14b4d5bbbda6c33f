"""Authentication of outgoing requests for httpx and httpx2: `LogtoUserAuth` and `ClientCredentialsAuth`.

Knows to which origins a token may go, and leaves redirects to the library, which sends it nowhere else but from http to
https of the same host. Knows no session, and keeps no token.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from httpx import URL, Auth, ByteStream, InvalidURL

from logto_asgi.config.urls import is_loopback
from logto_asgi.errors import ConfigurationError, ConfigurationProblem, SetupError
from logto_asgi.oidc.transport import header_value

if TYPE_CHECKING:
    from httpx2 import Auth as Auth2
    from httpx2 import ByteStream as ByteStream2

    from logto_asgi.runtime import Logto
    from logto_asgi.user import LogtoUser
else:
    # Each library's client takes heirs of its own class only, so ours inherit from both where both are there.
    try:
        from httpx2 import Auth as Auth2
        from httpx2 import ByteStream as ByteStream2
    except ImportError:
        Auth2, ByteStream2 = object, ByteStream

__all__ = ["ClientCredentialsAuth", "LogtoUserAuth"]

_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+", re.ASCII)


class _Origin(NamedTuple):
    """Scheme, host and port of a URL, as httpx writes them: lower case, IDNA, no default port (RFC 6454 §4)."""

    scheme: str
    host: str
    port: int | None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port is None else f":{self.port}")


class _BearerAuth(Auth, Auth2):
    """Attaches a token to requests to declared origins, and gets another one, once, when it is refused."""

    def __init__(
        self, logto: Logto, resource: str | None, organization_id: str | None, origins: Iterable[str] | str | None
    ) -> None:
        self._logto = logto
        self._resource = resource
        self._organization_id = organization_id
        self._origins = _of_resource(resource) if origins is None else _declared(origins)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} for {_listed(self._origins)}>"

    def auth_flow(self, request: Any) -> NoReturn:
        """Raise `SetupError`: a token is got without blocking, or not at all."""
        raise SetupError(
            f"{type(self).__name__} works with httpx.AsyncClient and httpx2.AsyncClient. The synchronous client would "
            "block the event loop."
        )

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Raise `SetupError`, as `auth_flow`."""
        self.auth_flow(request)

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """Send the request with a token, and a second time after a 401 (RFC 6750 §3.1) where that may help.

        Raise `SetupError` for an origin that is not declared, before anything is sent.
        """
        self._check_origin(request)
        # A generator or a file is used up by sending it.
        is_repeatable = isinstance(request.stream, ByteStream | ByteStream2)
        request.headers["Authorization"] = header_value(f"Bearer {await self._get_token()}")
        response = yield request
        if response.status_code != 401 or not is_repeatable or not _is_answer_to(request, response):
            return
        refused = request.headers["Authorization"].removeprefix("Bearer ")
        replacing = self._logto.client_tokens.replacement(refused, self._get_token)
        del refused  # an error tracker prints what the frames of an error hold
        newer = await replacing
        if newer is not None:
            request.headers["Authorization"] = header_value(f"Bearer {newer}")
            yield request

    async def _get_token(self, *, force_refresh: bool = False) -> str:
        raise NotImplementedError

    def _check_origin(self, request: Any) -> None:
        origin = _origin(request.url)
        if origin not in self._origins:
            raise SetupError(
                f"This token may go to {_listed(self._origins)} only, and the request goes to {origin}. Nothing was "
                f"sent. If the API is there, say so: {type(self).__name__}(…, origins=[{str(origin)!r}])."
            )


class LogtoUserAuth(_BearerAuth):
    """Calls an API in the name of this request's user: `client.get(url, auth=LogtoUserAuth(user, resource))`.

    The token comes from `user.get_access_token`, and raises what that raises. It goes to `origins` only, by default
    the resource's own; a resource that is no https URL needs them, else `ConfigurationError`. After a 401 the request
    is sent once more with a new token, if its body can be. For `httpx.AsyncClient` and `httpx2.AsyncClient`. `scopes`
    limits what a caller's bearer token is exchanged for; a session's tokens have no such choice.
    """

    def __init__(
        self,
        user: LogtoUser,
        resource: str | None = None,
        organization_id: str | None = None,
        *,
        scopes: Sequence[str] | None = None,
        origins: Iterable[str] | str | None = None,
    ) -> None:
        super().__init__(user.logto, resource, organization_id, origins)
        self._user = user
        self._scopes = scopes

    async def _get_token(self, *, force_refresh: bool = False) -> str:
        return await self._user.get_access_token(
            self._resource, self._organization_id, scopes=self._scopes, force_refresh=force_refresh
        )


class ClientCredentialsAuth(_BearerAuth):
    """Calls an API in the name of the app itself: `httpx.AsyncClient(auth=ClientCredentialsAuth(logto, resource))`.

    The token comes from `logto.get_client_credentials_token`, and raises what that raises. With Logto it has the
    `scopes` that are named here and no others. The rest is as for `LogtoUserAuth`.
    """

    def __init__(
        self,
        logto: Logto,
        resource: str | None = None,
        organization_id: str | None = None,
        *,
        scopes: Sequence[str] = (),
        origins: Iterable[str] | str | None = None,
    ) -> None:
        super().__init__(logto, resource, organization_id, origins)
        self._scopes = scopes

    async def _get_token(self, *, force_refresh: bool = False) -> str:
        return await self._logto.get_client_credentials_token(
            self._resource, self._organization_id, scopes=self._scopes, force_refresh=force_refresh
        )


def _is_answer_to(request: Any, response: Any) -> bool:
    """Tell whether this request was refused, and not another one, or another server's, that a redirect led to."""
    sent = response.request
    return _origin(sent.url) == _origin(request.url) and bool(sent.method == request.method)


def _of_resource(resource: str | None) -> frozenset[_Origin]:
    """Return the origin of a resource that is a URL. Raise `ConfigurationError` for one that tells no safe address."""
    try:
        origin = None if resource is None else _origin(URL(resource))
    except InvalidURL:
        origin = None
    if origin is not None and origin.host and (origin.scheme == "https" or _is_local(origin)):
        return frozenset({origin})
    fault = "there is no resource" if resource is None else f"the resource {resource!r} is no https:// address"
    raise _refused(f"are needed, because {fault} that tells where the token may go.")


def _declared(origins: Iterable[str] | str) -> frozenset[_Origin]:
    given = [origins] if isinstance(origins, str) else list(origins)
    if not given:
        raise _refused("are empty, so that the token may go nowhere.")
    return frozenset(_parse(text) for text in given)


def _parse(text: str) -> _Origin:
    try:
        url = URL(text)
    except InvalidURL:
        raise _refused("hold a text that is no URL.") from None
    if url.userinfo or url.path not in ("", "/") or "?" in text or "#" in text:
        raise _refused("hold more than a scheme, a host and a port.")
    origin = _origin(url)
    if origin.scheme not in ("http", "https") or not _HOST.fullmatch(origin.host):
        raise _refused("hold an address without http:// or https:// and the name of one host.")
    return origin


def _origin(url: Any) -> _Origin:
    return _Origin(url.scheme, url.raw_host.decode("ascii"), url.port)


def _is_local(origin: _Origin) -> bool:
    return origin.scheme == "http" and is_loopback(origin.host)


def _refused(fault: str) -> ConfigurationError:
    remedy = "Say where the API is: origins=['https://api.example.com']."
    return ConfigurationError([ConfigurationProblem("origins", fault, remedy)])


def _listed(origins: Iterable[_Origin]) -> str:
    return ", ".join(sorted(map(str, origins)))

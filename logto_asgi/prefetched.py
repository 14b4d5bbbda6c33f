"""What the configuration wants fetched before each request, and what failed of it. Knows no request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from logto_asgi.errors import LogtoError

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig
    from logto_asgi.user import LogtoUser

__all__ = ["Prefetched"]


class Prefetched:
    """Values by name, such as `user_info`; a failure is kept for whoever reads the value."""

    __slots__ = ("_failures", "_values")

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._failures: dict[str, LogtoError] = {}

    async def fetch(self, user: LogtoUser, config: LogtoConfig) -> None:
        """Fetch what the configuration wants for a user with a session. Raises none of our errors."""

        async def organization_tokens() -> Mapping[str, str]:
            return {each: await user.get_organization_token(each) for each in user.organizations}

        if config.fetch_user_info:
            await self._attempt("user_info", user.fetch_user_info)
        if config.get_access_token:
            await self._attempt("access_token", lambda: user.get_access_token(config.resource, config.organization_id))
        if config.get_organization_token:
            await self._attempt("organization_tokens", organization_tokens)

    def get(self, name: str) -> Any:
        """Return a value, None where nobody wanted it. Raise what the fetch raised."""
        if name in self._failures:
            raise self._failures[name]
        return self._values.get(name)

    async def _attempt(self, name: str, fetch: Callable[[], Awaitable[Any]]) -> None:
        try:
            self._values[name] = await fetch()
        except LogtoError as error:
            self._failures[name] = error

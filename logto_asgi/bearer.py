"""Incoming tokens: verified access tokens and what is remembered of them, never a decision. Knows no request."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from logto_asgi.claims import AccessTokenClaims

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig
    from logto_asgi.events import Events
    from logto_asgi.oidc.client import OidcClient
    from logto_asgi.oidc.discovery import DiscoveryCache

__all__ = ["BearerTokens"]


class BearerTokens:
    """Verifies access tokens that callers bring, and remembers the claims of those that are true."""

    def __init__(
        self,
        config: LogtoConfig,
        client: Callable[[], OidcClient],
        discovery: DiscoveryCache,
        clock: Callable[[], float],
        events: Events,
    ) -> None:
        self._config = config

    def known(self, token: str, *, opaque: bool = False) -> AccessTokenClaims | None:
        """Return the claims of a token that was verified before and is still good; None where it must be verified."""
        raise NotImplementedError

    async def verify(self, token: str, *, opaque: bool = False) -> AccessTokenClaims:
        """Return the claims of a token. Raise `InvalidToken`, and `IssuerUnavailable` for lack of keys."""
        raise NotImplementedError

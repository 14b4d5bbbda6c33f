"""Tokens that the app gets by its own name: client credentials and token exchange. Knows no session and no request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from logto_asgi.models import AccessToken, SubjectTokenType

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig
    from logto_asgi.events import Events
    from logto_asgi.oidc.client import OidcClient

__all__ = ["ClientTokens"]


class ClientTokens:
    """Hands out tokens of the app itself, and tokens that it exchanges others for."""

    def __init__(
        self,
        config: LogtoConfig,
        client: Callable[[], OidcClient],
        clock: Callable[[], float],
        events: Events,
    ) -> None:
        self._config = config

    async def client_credentials(
        self,
        *,
        resource: str | None = None,
        organization_id: str | None = None,
        scopes: Sequence[str] = (),
        force_refresh: bool = False,
        min_ttl: int | None = None,
    ) -> AccessToken:
        """Return a token of the app itself (RFC 6749 §4.4)."""
        raise NotImplementedError

    async def exchange(
        self,
        subject_token: str,
        subject_token_type: SubjectTokenType | str,
        *,
        resource: str | None = None,
        organization_id: str | None = None,
        scopes: Sequence[str] = (),
        actor_token: str | None = None,
    ) -> AccessToken:
        """Exchange a token for another one (RFC 8693 §2). Never kept: an impersonation token works once."""
        raise NotImplementedError

    async def on_behalf_of(
        self,
        access_token: str,
        *,
        resource: str | None = None,
        organization_id: str | None = None,
        force_refresh: bool = False,
        min_ttl: int | None = None,
    ) -> AccessToken:
        """Return a token for another API in the name of who called with `access_token`, kept while it lasts."""
        raise NotImplementedError

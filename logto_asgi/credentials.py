"""Starlette's `request.auth` for our user: what `@requires` may go by. Makes no response."""

from __future__ import annotations

from starlette.authentication import AuthCredentials

from logto_asgi.origins import SAFE_METHODS, is_same_origin_request
from logto_asgi.user import LogtoUser
from logto_asgi.visit import Visit

__all__ = ["Credentials"]


class Credentials(AuthCredentials):
    """Starlette's `request.auth`: `authenticated` and the granted scopes, looked up when somebody asks.

    For a request that would change something and comes from another site it holds nothing, so that `@requires`
    refuses it as every guard does.
    """

    def __init__(self, user: LogtoUser, visit: Visit) -> None:
        self._user = user
        self._visit = visit

    @property
    def scopes(self) -> list[str]:  # type: ignore[override]
        """What Starlette's `@requires` compares."""
        user = self._user
        if not user.is_authenticated or not _may_act(self._visit):
            return []
        return ["authenticated", *user.scopes]


def _may_act(visit: Visit) -> bool:
    if visit.bearer is not None:  # no browser sends it by itself
        return True
    if visit.scope["type"] == "websocket" or visit.scope["method"] in SAFE_METHODS:
        return True
    return is_same_origin_request(visit.scope["headers"], visit.config)

"""Signs in through the development provider with Starlette's TestClient. Knows redirects, and nothing of sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from logto_asgi.testing.visitor import NAVIGATION, check_user

if TYPE_CHECKING:
    from starlette.testclient import TestClient

    from logto_asgi.config import LogtoConfig
    from logto_asgi.testing.provider import DevelopmentProvider

__all__ = ["sign_in"]

_MOST_HOPS = 20


def sign_in(
    client: TestClient, provider: DevelopmentProvider, *, config: LogtoConfig, sub: str = "alice", return_to: str = "/"
) -> Any:
    """Sign a `TestClient` in as a demo user, through the provider, and return the response that it ends on.

    The client needs the app's own address, `TestClient(app, base_url=config.base_url)`: its cookies belong to that.
    """
    from starlette.testclient import TestClient

    _check_address(client, config)
    check_user(provider, sub)
    at_provider = TestClient(provider, base_url=provider.endpoint, client=("127.0.0.1", 50000))
    still: dict[str, Any] = {"headers": NAVIGATION, "follow_redirects": False}
    response = client.get(config.auth_url("sign-in"), params={"return_to": return_to}, **still)
    for _ in range(_MOST_HOPS):
        if _is_at(str(response.url), provider.issuer + "/interaction") and response.status_code == 200:
            response = at_provider.post(str(response.url), data={"sub": sub}, **still)
        if not response.has_redirect_location:
            break
        target = str(response.url.join(response.headers["location"]))
        response = (at_provider if _is_at(target, provider.issuer) else client).get(target, **still)
    return response


def _check_address(client: TestClient, config: LogtoConfig) -> None:
    at = urlsplit(str(client.base_url))
    if f"{at.scheme}://{at.netloc}" != config.origin:
        raise ValueError(
            f"The client is at {client.base_url} and the app at {config.base_url}: its cookies would not come back. "
            "Write TestClient(app, base_url=config.base_url)."
        )


def _is_at(url: str, base: str) -> bool:
    return url.startswith(base + "/")

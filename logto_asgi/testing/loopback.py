"""Keeps the development provider on this machine: it signs anybody in, so nobody else may reach it.

It looks at the client's address and at the `Host` header (against DNS rebinding), and knows nothing of OpenID Connect.
"""

from __future__ import annotations

from ipaddress import ip_address

from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

__all__ = ["is_loopback", "refuse", "why_refused"]

_HINT = (
    "In process, give the client a loopback address: "
    "TestClient(provider, base_url='http://localhost:3001', client=('127.0.0.1', 50000))."
)


def is_loopback(host: str) -> bool:
    """Say whether a host, without port, is this machine: `localhost`, 127.0.0.0/8 or ::1."""
    if host.lower() in ("localhost", "localhost."):
        return True
    try:
        address = ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def why_refused(scope: Scope) -> str | None:
    """Return a sentence when the request is not from and for this machine, else None. Unknown counts as foreign."""
    client = scope.get("client")
    if not client or not is_loopback(client[0]):
        return (
            f"The development provider answers this machine only, and the client's address is not loopback. {_HINT}\n"
        )
    if not all(map(is_loopback, _forwarded_for(scope))):
        return f"The development provider answers this machine only, and a proxy names another client. {_HINT}\n"
    hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    if len(hosts) != 1 or not is_loopback(_without_port(hosts[0])):
        return f"The development provider answers to localhost only, and the Host header names another host. {_HINT}\n"
    return None


def _forwarded_for(scope: Scope) -> list[str]:
    """Return the addresses that a proxy or tunnel names; `Forwarded` (RFC 7239) counts as foreign unread."""
    addresses: list[str] = []
    for name, value in scope["headers"]:
        if name == b"x-forwarded-for":
            addresses += [each.strip() for each in value.decode("latin-1").split(",")]
        elif name == b"forwarded":
            addresses.append("unread")
    return addresses


async def refuse(scope: Scope, receive: Receive, send: Send, why: str) -> None:
    """Answer 403 with the sentence; a WebSocket is denied, or closed where the server knows no denial."""
    if scope["type"] == "http" or "websocket.http.response" in scope.get("extensions", {}):
        await PlainTextResponse(why, status_code=403)(scope, receive, send)
        return
    await send({"type": "websocket.close", "code": 1008, "reason": "loopback only"})


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]

"""Serves apps on real sockets, over http or https, also behind a reverse proxy. It knows no provider and no library.

A site's socket is bound before its app exists, because the app's address must be registered with the provider first.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

HOP_BY_HOP = {b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"host"}


@dataclass(frozen=True)
class Tls:
    """A certificate for localhost, and the authority that signed it."""

    cert: Path
    key: Path
    ca: Path

    def context(self) -> ssl.SSLContext:
        """Return a context that trusts the authority, for an HTTP client."""
        return ssl.create_default_context(cafile=self.ca)


class Site:
    """One address, `url`, which may serve one app after another."""

    def __init__(self, *, host: str = "127.0.0.1", tls: Tls | None = None) -> None:
        self._tls = tls
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(64)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://{host}:{self.port}"

    def close(self) -> None:
        """Give the address up."""
        self._socket.close()

    @contextlib.contextmanager
    def serve(self, app: Any, **options: Any) -> Iterator[str]:
        """Serve an app from a thread of its own, with lifespan. Yield the address."""
        if self._tls:
            options |= {"ssl_certfile": str(self._tls.cert), "ssl_keyfile": str(self._tls.key)}
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2, **options)
        server = uvicorn.Server(config)
        # uvicorn closes the socket it serves; a duplicate keeps the address ours for the next app.
        thread = threading.Thread(target=server.run, kwargs={"sockets": [self._socket.dup()]}, daemon=True)
        thread.start()
        try:
            _wait(server, thread)
            yield self.url
        finally:
            server.should_exit = True
            thread.join(timeout=10)


def _wait(server: uvicorn.Server, thread: threading.Thread) -> None:
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("the app did not start; uvicorn's log says why")
        time.sleep(0.01)


class ReverseProxy:
    """An ASGI app that passes requests on to `upstream`, as nginx in front of an app does.

    `base_path` is what the outside sees before every path. With `strip` the app does not see it.
    """

    def __init__(self, upstream: str, *, base_path: str = "", strip: bool = False) -> None:
        self._upstream = upstream
        self._base_path = base_path.encode()
        self._strip = strip

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await self._lifespan(receive, send)
        path: bytes = scope["raw_path"]
        if not path.startswith(self._base_path + b"/"):
            return await _plain(send, 404, b"not behind this proxy")
        if self._strip:
            path = path.removeprefix(self._base_path)
        answer = await self._pass_on(scope, path, await _body(receive))
        headers = [(name, value) for name, value in answer.headers.raw if name.lower() not in HOP_BY_HOP]
        await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": answer.content})
        return None

    async def _lifespan(self, receive: Any, send: Any) -> None:
        await receive()
        async with httpx.AsyncClient(base_url=self._upstream, trust_env=False) as self._http:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _pass_on(self, scope: Any, path: bytes, body: bytes) -> httpx.Response:
        headers = [(name, value) for name, value in scope["headers"] if name not in HOP_BY_HOP]
        target = path + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        url = self._http.base_url.copy_with(raw_path=target)
        headers += [(b"accept-encoding", b"identity")]
        return await self._http.request(scope["method"], url, headers=headers, content=body)


async def _body(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _plain(send: Any, status: int, text: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": text})

"""Browsers whose responses may come late or never, and the requests that they make. Judges nothing."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from interleavings_world import BASE, Process, World

from logto_asgi.testing.visitor import NAVIGATION

__all__ = ["Browser", "Response", "Visit", "call", "sign_in_page"]


@dataclass
class Browser:
    """A cookie jar."""

    name: str
    cookies: dict[str, str] = field(default_factory=dict)

    def receive(self, lines: list[str]) -> None:
        """Take what `Set-Cookie` says."""
        for line in lines:
            pair, *attributes = line.split("; ")
            name, _, value = pair.partition("=")
            if name.endswith("_tries"):
                continue  # Who signs in too often is asked to wait; here that is nobody's fault.
            if "Max-Age=0" in attributes:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value

    @property
    def header(self) -> str:
        """The `Cookie` header, without attempts to sign in that are under way elsewhere."""
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())


@dataclass
class Response:
    """What a process answered: status 0 where it died first, 599 where an exception came out of the app."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    @property
    def lines(self) -> list[str]:
        """Every `Set-Cookie`."""
        return [value for name, value in self.headers if name == "set-cookie"]

    @property
    def location(self) -> str:
        """Where it redirects to, or nothing."""
        return dict(self.headers).get("location", "")

    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


@dataclass
class Visit:
    """One request that reads the user, and all that is known of it."""

    browser: Browser
    process: Process
    path: str
    cookie: str
    """The `Cookie` header that it sends."""
    patience: float | None = None
    """Seconds after which the browser hangs up."""
    on_headers: Any = None
    """Called with the response the moment its headers leave."""
    response: Response | None = None

    async def go(self) -> None:
        """Make the request. There is no `response` when the process died or the browser hung up."""
        work = call(self.process, self.path, self.cookie, on_headers=self.on_headers)
        task = asyncio.get_running_loop().create_task(work)
        await asyncio.wait({task, self.process.died}, timeout=self.patience, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            response = await task
            self.response = None if self.process.dead else response
        elif not self.process.dead:
            task.cancel()
            await asyncio.wait({task})


async def call(
    process: Process, path: str, cookie: str, *, on_headers: Any = None, headers: dict[str, str] | None = None
) -> Response:
    """Let an app answer a request."""
    response = Response(599)
    parts = urlsplit(path)
    raw = [(b"host", urlsplit(BASE).netloc.encode())]
    raw += [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    if cookie:
        raw.append((b"cookie", cookie.encode()))
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("localhost", 8000),
        "client": ("127.0.0.1", 50000),
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": parts.path,
        "raw_path": parts.path.encode(),
        "query_string": parts.query.encode(),
        "headers": raw,
        "state": {},
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            response.status = message["status"]
            response.headers = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in message["headers"]]
            if on_headers is not None and not process.dead:
                on_headers(response)
        else:
            response.body += message.get("body", b"")

    try:
        await process.app(scope, receive, send)  # type: ignore[arg-type]
    except Exception as error:
        response.status, response.body = 599, repr(error).encode()
    return response


async def sign_in_page(world: World, process: Process, browser: Browser, sub: str) -> str | None:
    """Start a sign-in and go through the issuer's pages. Return the call-back's path, None where that failed."""
    start = await call(process, f"/logto/sign-in?login_hint={quote(sub)}", browser.header, headers=NAVIGATION)
    if start.status not in (302, 303):
        return None
    browser.receive(start.lines)
    url = start.location
    async with httpx.AsyncClient(transport=httpx.ASGITransport(world.provider), headers=NAVIGATION) as issuer:
        for _ in range(5):
            if url.startswith(BASE):
                return url.removeprefix(BASE)
            answer = await issuer.get(url)
            url = str(answer.url.join(answer.headers.get("location", "")))
    return None

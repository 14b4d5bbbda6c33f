"""A small HTTP/1.1 client for hundreds of requests at once to this machine. It keeps connections, and no cookies.

httpx looks at every connection of its pool for every request: with hundreds of them the tests would wait for that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit

import httpx

PATIENCE = 120
"""Seconds that an answer may take: longer than anything that is tested."""
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Client:
    """Sends requests over connections that it keeps for the next ones."""

    def __init__(self) -> None:
        self._idle: dict[int, list[Connection]] = {}

    async def aclose(self) -> None:
        """Close what is idle."""
        for connection in [each for idle in self._idle.values() for each in idle]:
            await _close(connection)
        self._idle.clear()

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], data: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Return the answer; redirects are not followed. Raise `httpx.TransportError`."""
        port = urlsplit(url).port or 80
        request = render(method, url, headers, data)
        idle = self._idle.setdefault(port, [])
        while idle:
            connection = idle.pop()
            if not connection[0].at_eof():
                return await self._exchange(connection, request, method, url)
            await _close(connection)  # Its server has gone while nobody used it.
        try:
            connection = await asyncio.open_connection("127.0.0.1", port)
        except OSError as error:
            raise httpx.ConnectError(str(error)) from error
        return await self._exchange(connection, request, method, url)

    async def _exchange(self, connection: Connection, request: bytes, method: str, url: str) -> httpx.Response:
        reader, writer = connection
        try:
            async with asyncio.timeout(PATIENCE):
                writer.write(request)
                await writer.drain()
                answer = await _read(reader, method, url)
        except TimeoutError as error:
            await _close(connection)
            raise httpx.ReadTimeout("no answer") from error
        except (OSError, asyncio.IncompleteReadError) as error:
            await _close(connection)
            raise httpx.ReadError(type(error).__name__) from error
        except BaseException:
            await _close(connection)
            raise
        if answer.headers.get("connection", "").lower() == "close":
            await _close(connection)
        else:
            self._idle[urlsplit(url).port or 80].append(connection)
        return answer


def render(method: str, url: str, headers: Mapping[str, str], data: Mapping[str, str] | None = None) -> bytes:
    """Return a request as it goes over the wire."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    body = urlencode(data).encode() if data is not None else b""
    sent = {"host": parts.netloc, **headers}
    if data is not None:
        sent |= {"content-type": "application/x-www-form-urlencoded"}
    if body or method == "POST":
        sent |= {"content-length": str(len(body))}
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items()), "", ""]
    return "\r\n".join(lines).encode() + body


async def _read(reader: asyncio.StreamReader, method: str, url: str) -> httpx.Response:
    status_line = await reader.readline()
    if not status_line:
        raise httpx.RemoteProtocolError("closed without an answer")
    headers: list[tuple[str, str]] = []
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        name, _, value = line.decode("latin-1").partition(":")
        headers.append((name.strip().lower(), value.strip()))
    fields = dict(headers)
    if fields.get("transfer-encoding") == "chunked":
        body = await _read_chunks(reader)
    else:
        body = await reader.readexactly(int(fields.get("content-length", "0")))
    status = int(status_line.split()[1])
    return httpx.Response(status, headers=headers, content=body, request=httpx.Request(method, url))


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")
    return body


async def _close(connection: Connection) -> None:
    writer = connection[1]
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()

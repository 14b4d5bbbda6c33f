"""What the network may do to us: compress, redirect, drip, flood, hang up, be busy. Real sockets where it matters."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import httpx2
import pytest

from logto_asgi.errors import IssuerError, IssuerResponseInvalid, IssuerUnavailable
from logto_asgi.oidc.client import _new_http_client
from logto_asgi.oidc.transport import Answer, Request, Transport, header_value, within

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
NOW = 1_800_000_000
SECRET = "secret-of-the-request"


@asynccontextmanager
async def server(*parts: bytes, forever: bytes = b"") -> AsyncIterator[tuple[str, list[bytes]]]:
    """Answer each connection with these bytes, then sixty times with `forever`; give the URL and what came in."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            for part in parts:
                writer.write(part)
                await writer.drain()
            for _ in range(60 if forever else 0):
                writer.write(forever)
                await writer.drain()
                await asyncio.sleep(0.01)
        except OSError:
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/x", heads
    finally:
        listening.close()


async def send(url: str, *, deadline: float = 20.0, limit: int = 256 * 1024, client: Any = None) -> Answer:
    transport = Transport(deadline=deadline, make_client=_new_http_client, http_client=client, clock=lambda: NOW)
    try:
        return await transport.send(Request("POST", url, {"Authorization": SECRET}, SECRET.encode(), limit))
    finally:
        await transport.aclose()


def head(status: str, *fields: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode()


BOMB = gzip.compress(bytes(64 * 1024 * 1024))
LIMIT = 64 * 1024

# id: (parts of the answer, what comes again and again, the error, a word of its message)
ANSWERS: dict[str, tuple[tuple[bytes, ...], bytes, type[IssuerError], str]] = {
    "gzip-bomb": ((head("200 OK", "Content-Encoding: gzip"), BOMB), b"", IssuerResponseInvalid, "compressed"),
    "deflate": ((head("200 OK", "Content-Encoding: deflate"),), b"", IssuerResponseInvalid, "compressed"),
    "unknown-encoding": ((head("200 OK", "Content-Encoding: x"),), b"", IssuerResponseInvalid, "compressed"),
    "two-encodings": ((head("200 OK", "Content-Encoding: identity, br"),), b"", IssuerResponseInvalid, "compressed"),
    "redirect-302": ((head("302 Found", "Location: https://evil.example/"),), b"", IssuerResponseInvalid, "redirect"),
    "redirect-307": ((head("307 T", "Location: https://evil.example/"),), b"", IssuerResponseInvalid, "redirect"),
    "too-large": ((head("200 OK"), b"x" * (LIMIT + 1)), b"", IssuerResponseInvalid, "larger"),
    "endless": ((head("200 OK"),), b"x" * LIMIT, IssuerResponseInvalid, "larger"),
    "hangs-up-at-once": ((), b"", IssuerUnavailable, "reached"),
    "hangs-up-in-the-body": ((head("200 OK", "Content-Length: 9"), b"{}"), b"", IssuerUnavailable, "reached"),
    "no-http": ((b"SSH-2.0-OpenSSH\r\n\r\n",), b"", IssuerUnavailable, "reached"),
    "500": ((head("500 E", "Content-Length: 0"),), b"", IssuerUnavailable, "HTTP 500"),
    "503": ((head("503 E", "Content-Length: 0"),), b"", IssuerUnavailable, "HTTP 503"),
    "429-in-plain-text": ((head("429 E", "Content-Length: 4"), b"wait"), b"", IssuerUnavailable, "HTTP 429"),
    "408": ((head("408 E", "Content-Length: 0"),), b"", IssuerUnavailable, "HTTP 408"),
}


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
@pytest.mark.parametrize(("parts", "forever", "kind", "word"), ANSWERS.values(), ids=ANSWERS)
async def test_refused(
    parts: tuple[bytes, ...], forever: bytes, kind: type[IssuerError], word: str, library: Any
) -> None:
    """An answer like this one is refused, with either library, and no request hangs on the error."""
    async with server(*parts, forever=forever) as (url, _), library.AsyncClient() as client:
        with pytest.raises(kind, match=word) as caught:
            await send(url, limit=LIMIT, client=client)
    assert type(caught.value) is kind
    assert caught.value.__context__ is None
    assert SECRET not in f"{caught.value!r} {vars(caught.value)}"


async def test_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    """A refused connection means that the issuer is unavailable, for a while; the log says more."""
    async with server() as (url, _):
        pass
    with pytest.raises(IssuerUnavailable, match="reached") as caught:
        await send(url)
    assert caught.value.retry_after == 5
    assert f"the issuer cannot be reached at {urlsplit(url).netloc}: ConnectError: " in caplog.text


async def test_the_log_quotes_no_request(caplog: pytest.LogCaptureFixture) -> None:
    """An error of the library may hold a header's text: its name alone is logged."""

    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.LocalProtocolError(f"Illegal header value {SECRET}", request=request)

    async with httpx.AsyncClient(transport=httpx.MockTransport(fail)) as client:
        with pytest.raises(IssuerUnavailable):
            await send("https://x.example", client=client)
    assert caplog.messages[-1] == "the issuer cannot be reached at x.example: LocalProtocolError"
    assert SECRET not in caplog.text


async def test_the_deadline_is_for_all_of_it() -> None:
    """An answer that drips a byte at a time never lets a single read time out; the total deadline ends it."""
    async with server(head("200 OK"), forever=b" ") as (url, _):
        with pytest.raises(IssuerUnavailable, match="in time") as caught:
            await send(url, deadline=0.2)
    assert caught.value.__context__ is None


async def test_a_caller_that_is_cancelled_is_cancelled() -> None:
    """The deadline does not swallow a cancellation from outside."""
    waiting = asyncio.ensure_future(within(30, asyncio.Event().wait()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_what_is_sent() -> None:
    """Nothing compressed is asked for, JSON is, and credentials of the handed-in client stay out of our request."""
    body = json.dumps({"a": 1}).encode()
    handed_in = httpx.AsyncClient(auth=("app's", "own"), headers={"Accept-Encoding": "gzip"})
    async with server(head("200 OK", f"Content-Length: {len(body)}"), body) as (url, heads), handed_in as client:
        found = await send(url, client=client)
    lines = heads[0].decode().lower().split("\r\n")
    assert found == Answer(200, found.headers, body)
    assert {line for line in lines if line.startswith(("accept", "authorization"))} == {
        "accept: application/json",
        f"authorization: {SECRET}",
        "accept-encoding: identity",
    }


async def test_content_encoding_identity_is_none() -> None:
    """Some proxies say that they did nothing."""
    fields = ("Content-Encoding: identity", "Content-Length: 2")
    async with server(head("200 OK", *fields), b"{}") as (url, _):
        assert (await send(url)).body == b"{}"


async def test_an_answer_at_the_limit_is_read() -> None:
    """One byte less than too much is fine."""
    async with server(head("200 OK", f"Content-Length: {LIMIT}"), b"x" * LIMIT) as (url, _):
        assert len((await send(url, limit=LIMIT)).body) == LIMIT


RETRY_AFTER = {
    # id: (header, seconds)
    "absent": (None, 5),
    "seconds": ("7", 7),
    "zero": ("0", 1),
    "an-hour": ("3600", 300),
    "date": ("Fri, 15 Jan 2027 08:00:30 GMT", 30),
    "date-in-the-past": ("Fri, 15 Jan 2027 07:00:00 GMT", 1),
    "date-far-away": ("Sat, 15 Jan 2028 08:00:00 GMT", 300),
    "date-without-a-zone": ("Fri, 15 Jan 2027 08:00:30 -0000", 30),
    "negative": ("-3", 5),
    "words": ("soon", 5),
    "absurd-digits": ("9" * 400, 5),
}


@pytest.mark.parametrize(("header", "seconds"), RETRY_AFTER.values(), ids=RETRY_AFTER)
async def test_retry_after(header: str | None, seconds: int) -> None:
    """`Retry-After` is a number or a date, and what comes of it is from 1 to 300 seconds (RFC 9110 §10.2.3)."""
    headers = {} if header is None else {"Retry-After": header}
    client = httpx.AsyncClient(transport=httpx.MockTransport(lambda request: httpx.Response(503, headers=headers)))
    async with client:
        with pytest.raises(IssuerUnavailable) as caught:
            await send("https://x.example", client=client)
    assert caught.value.retry_after == seconds
    assert (caught.value.headers or {})["Retry-After"] == str(caught.value.retry_after)


class AppsOwnClient(httpx.AsyncClient):
    """A subclass, whose module is not the library's."""


async def test_errors_of_a_subclass_are_the_librarys() -> None:
    """The exceptions are those of the library that the client's class comes from."""

    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectTimeout("slow", request=request)

    async with AppsOwnClient(transport=httpx.MockTransport(fail)) as client:
        with pytest.raises(IssuerUnavailable):
            await send("https://x.example", client=client)


async def test_a_bug_is_not_an_outage() -> None:
    """An exception that is not the network's comes through as it is."""

    def fail(request: httpx.Request) -> httpx.Response:
        raise ZeroDivisionError

    async with httpx.AsyncClient(transport=httpx.MockTransport(fail)) as client:
        with pytest.raises(ZeroDivisionError):
            await send("https://x.example", client=client)


async def test_the_own_client_keeps_no_cookies() -> None:
    """One client serves everybody: a cookie of one answer never goes out with the next request."""
    fields = ("Set-Cookie: _session=one-user; Path=/", "Content-Length: 2")
    transport = Transport(deadline=20, make_client=_new_http_client)
    async with server(head("200 OK", *fields), b"{}") as (url, heads):
        await transport.send(Request("GET", url))
        await transport.send(Request("GET", url))
    await transport.aclose()
    assert len(heads) == 2
    assert b"cookie" not in heads[1].lower()


async def test_a_handed_in_client_stays_open() -> None:
    """It belongs to the app; ours is closed and made anew when it is needed again."""
    async with httpx.AsyncClient() as client, server(head("200 OK", "Content-Length: 2"), b"{}") as (url, _):
        await send(url, client=client)
        assert not client.is_closed


async def test_the_own_client_is_made_once_and_closed() -> None:
    """However many wait for the first call, one client is made."""
    made: list[httpx.AsyncClient] = []

    def make() -> httpx.AsyncClient:
        made.append(httpx.AsyncClient(transport=httpx.MockTransport(lambda request: httpx.Response(200))))
        return made[-1]

    transport = Transport(deadline=20, make_client=make)
    await asyncio.gather(*(transport.send(Request("GET", "https://x.example")) for _ in range(5)))
    await transport.aclose()
    assert [client.is_closed for client in made] == [True]


@pytest.mark.parametrize("text", ["a\r\nb", "a\nb", "a\x00", "é", "\x7f", "a\tb"])
def test_header_values(text: str) -> None:
    """A header holds printable ASCII only."""
    with pytest.raises(ValueError, match="printable"):
        header_value(text)
    assert header_value("Bearer a.b-c_d~e") == "Bearer a.b-c_d~e"

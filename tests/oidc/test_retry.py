"""A refresh is sent a second time only where the first was surely not processed: a spent token ends a session."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import httpx2
import pytest
from oidc_signing import ACCESS_TOKEN, APP_ID, ENDPOINT, ISSUER, NOW, discovery_document

from logto_asgi.config import LogtoConfig
from logto_asgi.errors import IssuerUnavailable
from logto_asgi.models import PendingSignIn
from logto_asgi.oidc.client import OidcClient, _new_http_client
from logto_asgi.oidc.discovery import DiscoveryCache
from logto_asgi.oidc.keys import KeySet
from logto_asgi.oidc.metadata import parse_metadata
from logto_asgi.oidc.transport import RETRY_PAUSE, RETRY_ROOM, Request, Transport

Outcome = tuple[int, dict[str, str]] | str
"""A status with headers, or the name of an error of the HTTP library."""
GOOD: Outcome = (200, {})
BODY = b'{"access_token": "%s", "token_type": "Bearer"}' % ACCESS_TOKEN.encode()
REFRESH_TOKEN = "refresh-token-of-a-user"

libraries = pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])


class Issuer:
    """An issuer at the network's edge that does to each call what a test listed, and notes the pauses between."""

    def __init__(self, library: Any, *outcomes: Outcome) -> None:
        self.library = library
        self.outcomes = list(outcomes)
        self.calls: list[str] = []
        self.pauses: list[float] = []

    def answer(self, request: Any) -> Any:
        self.calls.append(request.url.path)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, str):
            raise getattr(self.library, outcome)(f"{outcome} {REFRESH_TOKEN}", request=request)
        status, headers = outcome
        return self.library.Response(status, headers=headers, content=BODY)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


def known_issuer(keys: KeySet, **changes: Any) -> DiscoveryCache:
    cache = DiscoveryCache()
    cache.metadata.store(parse_metadata(discovery_document(**changes), issuer=ISSUER), NOW)
    cache.keys.store(keys, NOW)
    return cache


Connect = Callable[..., Any]


@pytest.fixture
def connect(config: LogtoConfig, keys: KeySet) -> Connect:
    """Return a function that gives a client of this issuer, whose documents are known."""

    @asynccontextmanager
    async def open_client(issuer: Issuer, cache: DiscoveryCache | None = None) -> AsyncIterator[OidcClient]:
        async with issuer.library.AsyncClient(transport=issuer.library.MockTransport(issuer.answer)) as http_client:
            cache = cache or known_issuer(keys)
            yield OidcClient(config, http_client=http_client, cache=cache, clock=lambda: NOW, sleep=issuer.sleep)

    return open_client


NOT_CONNECTED = ("ConnectError", "ConnectTimeout", "PoolTimeout")


@libraries
@pytest.mark.parametrize("error", NOT_CONNECTED)
async def test_a_connection_that_did_not_come_about(error: str, library: Any, connect: Connect) -> None:
    """Nothing was sent: after a short pause, by chance, the refresh is sent again and succeeds."""
    issuer = Issuer(library, error, GOOD)
    async with connect(issuer) as client:
        assert (await client.refresh(REFRESH_TOKEN)).access_token == ACCESS_TOKEN
    assert len(issuer.calls) == 2
    assert [RETRY_PAUSE[0] <= pause <= RETRY_PAUSE[1] for pause in issuer.pauses] == [True]


@libraries
@pytest.mark.parametrize("seconds", [0, 1, 3])
async def test_an_issuer_that_says_when(seconds: int, library: Any, connect: Connect) -> None:
    """A 503 with `Retry-After` in seconds turned the request away: it is sent again just that much later."""
    issuer = Issuer(library, (503, {"Retry-After": str(seconds)}), GOOD)
    async with connect(issuer) as client:
        assert (await client.refresh(REFRESH_TOKEN)).access_token == ACCESS_TOKEN
    assert issuer.pauses == [seconds]


SENT_ONCE: dict[str, tuple[Outcome, bool | None]] = {
    # id: (what happens to the first, whether the issuer processed it; None: nobody knows)
    "silent": ("ReadTimeout", None),
    "hangs-up": ("ReadError", None),
    "hangs-up-without-an-answer": ("RemoteProtocolError", None),
    "half-sent": ("WriteError", None),
    "half-sent-and-slow": ("WriteTimeout", None),
    "408": ((408, {"Retry-After": "1"}), None),
    "500": ((500, {}), None),
    "500-with-seconds": ((500, {"Retry-After": "1"}), None),
    "502-with-seconds": ((502, {"Retry-After": "1"}), None),
    "504-with-seconds": ((504, {"Retry-After": "1"}), None),
    "503": ((503, {}), None),
    "503-with-words": ((503, {"Retry-After": "soon"}), None),
    "503-with-a-fraction": ((503, {"Retry-After": "1.5"}), None),
    "503-with-a-sign": ((503, {"Retry-After": "-1"}), None),
    "503-with-a-date": ((503, {"Retry-After": "Fri, 15 Jan 2027 08:00:01 GMT"}), False),
    "503-with-more-than-is-left": ((503, {"Retry-After": "10"}), False),
    "503-with-a-year": ((503, {"Retry-After": "31536000"}), False),
    "429": ((429, {}), False),
    "429-with-seconds": ((429, {"Retry-After": "1"}), False),
}


@libraries
@pytest.mark.parametrize(("outcome", "processed"), SENT_ONCE.values(), ids=SENT_ONCE)
async def test_sent_once(outcome: Outcome, processed: bool | None, library: Any, connect: Connect) -> None:
    """After this the refresh is not sent again, and the error says whether its token may be spent."""
    issuer = Issuer(library, outcome, GOOD)
    async with connect(issuer) as client:
        with pytest.raises(IssuerUnavailable) as caught:
            await client.refresh(REFRESH_TOKEN)
    assert (len(issuer.calls), issuer.pauses) == (1, [])
    assert caught.value.processed is processed


BUSY: Outcome = (503, {"Retry-After": "1"})
SENT_TWICE: dict[str, tuple[Outcome, Outcome, bool | None]] = {
    # id: (what happens to the first, to the second, whether the issuer processed it)
    "refused-twice": ("ConnectError", "ConnectError", False),
    "refused-then-busy": ("ConnectError", BUSY, False),
    "refused-then-silent": ("ConnectError", "ReadTimeout", None),
    "refused-then-down": ("ConnectError", (500, {}), None),
    "busy-twice": (BUSY, BUSY, False),
    "busy-then-refused": (BUSY, "ConnectError", False),
    "busy-then-hangs-up": (BUSY, "ReadError", None),
}


@libraries
@pytest.mark.parametrize(("first", "second", "processed"), SENT_TWICE.values(), ids=SENT_TWICE)
async def test_sent_no_more_than_twice(
    first: Outcome, second: Outcome, processed: bool | None, library: Any, connect: Connect
) -> None:
    """There is one second try, and what became of it decides what is known."""
    issuer = Issuer(library, first, second, GOOD)
    async with connect(issuer) as client:
        with pytest.raises(IssuerUnavailable) as caught:
            await client.refresh(REFRESH_TOKEN)
    assert (len(issuer.calls), len(issuer.pauses)) == (2, 1)
    assert caught.value.processed is processed
    assert caught.value.__context__ is None


@pytest.mark.parametrize("outcome", ["ConnectError", BUSY], ids=["refused", "busy"])
async def test_only_a_refresh_is_sent_again(outcome: Outcome, connect: Connect, pending: PendingSignIn) -> None:
    """A code, a revocation and a request for userinfo are sent once."""
    calls: list[Callable[[OidcClient], Awaitable[object]]] = [
        lambda client: client.exchange_code(pending, "c0de"),
        lambda client: client.revoke(REFRESH_TOKEN),
        lambda client: client.userinfo("at", sub="user-1"),
    ]
    for call in calls:
        issuer = Issuer(httpx, outcome, GOOD)
        async with connect(issuer) as client:
            with pytest.raises(IssuerUnavailable):
                await call(client)
        assert (len(issuer.calls), issuer.pauses) == (1, [])


@pytest.mark.parametrize("outcome", ["ConnectError", "ReadTimeout", (500, {})], ids=str)
async def test_a_refresh_that_never_left(outcome: Outcome, connect: Connect) -> None:
    """Without the issuer's documents nothing is sent, so the refresh token is not spent whatever happened."""
    issuer = Issuer(httpx, outcome)
    async with connect(issuer, DiscoveryCache()) as client:
        with pytest.raises(IssuerUnavailable) as caught:
            await client.refresh(REFRESH_TOKEN)
    assert issuer.calls == ["/oidc/.well-known/openid-configuration"]
    assert caught.value.processed is False


@pytest.mark.parametrize("room", [RETRY_ROOM, 0.0])
async def test_a_second_try_needs_room(room: float) -> None:
    """Where too little of the deadline is left, a second try could be cut off in the middle: there is none."""
    issuer = Issuer(httpx, "ConnectError", GOOD)
    async with httpx.AsyncClient(transport=httpx.MockTransport(issuer.answer)) as client:
        transport = Transport(deadline=20, make_client=_new_http_client, http_client=client, sleep=issuer.sleep)
        with pytest.raises(IssuerUnavailable, match="reached"):
            await transport.send(Request("POST", ISSUER), retry_until=asyncio.get_running_loop().time() + room)
    assert (len(issuer.calls), issuer.pauses) == (1, [])


async def test_the_pause_is_within_the_deadline() -> None:
    """A pause that lasts longer than it should is ended by the deadline of the whole call."""
    issuer = Issuer(httpx, "ConnectError", GOOD)

    async def oversleep(seconds: float) -> None:
        await asyncio.Event().wait()

    async with httpx.AsyncClient(transport=httpx.MockTransport(issuer.answer)) as client:
        transport = Transport(deadline=0.05, make_client=_new_http_client, http_client=client, sleep=oversleep)
        with pytest.raises(IssuerUnavailable, match="in time") as caught:
            await transport.send(Request("POST", ISSUER), retry_until=asyncio.get_running_loop().time() + 60)
    assert len(issuer.calls) == 1
    assert caught.value.processed is None


async def test_the_log_says_so_and_no_more(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """Both kinds of a second try are logged, by host and reason; neither token nor secret is in it."""
    for outcome in ("ConnectTimeout", BUSY):
        async with connect(Issuer(httpx, outcome, GOOD)) as client:
            with caplog.at_level(logging.INFO, logger="logto_asgi"):
                await client.refresh(REFRESH_TOKEN)
    told = [message for message in caplog.messages if "sent again" in message]
    host = ENDPOINT.removeprefix("https://")
    assert [message.startswith(f"a request to {host} is sent again in ") for message in told] == [True, True]
    assert [message.rpartition(": ")[2] for message in told] == ["it could not be delivered", "HTTP 503"]
    assert REFRESH_TOKEN not in caplog.text


@libraries
async def test_an_issuer_that_is_just_restarting(library: Any, keys: KeySet) -> None:
    """A real port that refuses the first connection and takes the second: the refresh succeeds."""
    servers: list[asyncio.Server] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY))
        await writer.drain()
        writer.close()

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))

        async def start(seconds: float) -> None:
            bound.listen()
            servers.append(await asyncio.start_server(serve, sock=bound))

        cache = known_issuer(keys, token_endpoint=f"http://127.0.0.1:{bound.getsockname()[1]}/token")
        config = LogtoConfig(
            endpoint=ENDPOINT,
            app_id=APP_ID,
            base_url="https://shop.example.com",
            cookie_secret="Zk3vQ8yT1mB6xR0sN5wJ9dG2hL7cF4pK-aUeVoXi",
        )
        async with library.AsyncClient() as http_client:
            client = OidcClient(config, http_client=http_client, cache=cache, clock=lambda: NOW, sleep=start)
            assert (await client.refresh(REFRESH_TOKEN)).access_token == ACCESS_TOKEN
        servers[0].close()

"""Send one request to the issuer within one deadline and read a bounded answer. It knows no OpenID Connect.

A request that was surely not processed can be sent a second time; one whose answer may have been lost never is.

An answer is refused when it is compressed (a small gzip can unpack to gigabytes at once), redirects, or outgrows its
limit. Exceptions of the HTTP library never leave, nor hang on one of ours as its context: they hold the request.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from logto_asgi.errors import IssuerResponseInvalid, IssuerUnavailable
from logto_asgi.oidc.single_flight import SingleFlight

__all__ = ["Answer", "HTTPClient", "Request", "Transport", "header_value", "within"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

DOCUMENT_LIMIT = 1024 * 1024
"""Bytes of a discovery document or key set."""
ANSWER_LIMIT = 256 * 1024
"""Bytes of any other answer."""
RETRY_AFTER = range(1, 301)
"""Seconds; what an issuer asks for beyond is cut."""
RETRY_PAUSE = (0.05, 0.15)
"""Seconds before a second try after a connection that did not come about; between the two by chance."""
RETRY_ROOM = 1.0
"""Seconds that a second try must have: cut off while the issuer processes it, it would do more harm than good."""

_HEADER_TEXT = re.compile(r"[ -~]*", re.ASCII)
_SILENT = "The issuer did not answer in time. Try again in a moment."
_UNREACHABLE = "The issuer cannot be reached. Try again in a moment."
_NOT_CONNECTED = {"ConnectError", "ConnectTimeout", "PoolTimeout", "ConnectionRefusedError"}
"""Errors, of httpx and httpx2 alike, after which not a byte of the request has left."""


class HTTPResponse(Protocol):
    """What is used of a response of httpx or httpx2."""

    @property
    def status_code(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in any case."""
        ...

    def aiter_bytes(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it arrives."""
        ...


class HTTPClient(Protocol):
    """What is used of `httpx.AsyncClient` or `httpx2.AsyncClient`."""

    def stream(
        self,
        method: str,
        url: str,
        *,
        content: bytes | None = ...,
        headers: Mapping[str, str] | None = ...,
        auth: None = ...,
        follow_redirects: bool = ...,
        timeout: float | None = ...,
    ) -> AbstractAsyncContextManager[HTTPResponse]:
        """Send a request; the answer's body is read inside of the context."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Headers and content may hold secrets and never show in a repr."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    content: bytes | None = field(default=None, repr=False)
    limit: int = ANSWER_LIMIT


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer. Header names are lower case; the body may hold tokens and never shows in a repr."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class Transport:
    """The way to the issuer, for one event loop. Its HTTP client is handed in, or made at first use, off the loop."""

    def __init__(
        self,
        *,
        deadline: float,
        make_client: Callable[[], HTTPClient],
        http_client: HTTPClient | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_retry: Callable[[], None] | None = None,
    ) -> None:
        self._deadline = deadline
        self._make_client = make_client
        self._clock = clock
        self._sleep = sleep
        self._on_retry = on_retry
        self._handed_in = http_client
        self._own: HTTPClient | None = None
        self._making: SingleFlight[HTTPClient] = SingleFlight()

    async def send(self, request: Request, *, retry_until: float | None = None) -> Answer:
        """Return the issuer's answer, whatever it decides (2xx and 4xx).

        With `retry_until`, a time of the event loop, a request is sent a second time where there is room before then:
        after a connection that did not come about, and after a 503 whose `Retry-After` is a number of seconds.

        Raise `IssuerUnavailable` for 408, 429, 5xx, an unreachable issuer and a passed deadline,
        `IssuerResponseInvalid` for a redirect and for an answer that is compressed or too large.
        """
        answer = await within(self._deadline, self._send(request, retry_until))
        if answer.status in (408, 429) or answer.status >= 500:
            seconds = _retry_after(answer.headers.get("retry-after"), self._clock())
            turned_away = answer.status == 429 or (answer.status == 503 and seconds is not None)
            raise IssuerUnavailable(
                f"The issuer is busy or down (HTTP {answer.status}). Try again in a moment.",
                retry_after=5 if seconds is None else seconds,
                processed=False if turned_away else None,
            )
        return answer

    async def aclose(self) -> None:
        """Close the client that was made here; one that was handed in belongs to its owner."""
        self._making.cancel()
        own, self._own = self._own, None
        if own is not None:
            await own.aclose()

    async def _send(self, request: Request, retry_until: float | None) -> Answer:
        answer, reason = await self._attempt(request)
        pause = _pause_before_retry(answer)
        if pause is not None and _fits(pause, retry_until):
            why = "it could not be delivered" if answer is None else f"HTTP {answer.status}"
            logger.info("a request to %s is sent again in %.2f s: %s", _place(request.url), pause, why)
            await self._sleep(pause)
            if self._on_retry is not None:
                self._on_retry()
            answer, reason = await self._attempt(request)
        if answer is None:
            raise _unreachable(request, reason, processed=False)
        return answer

    async def _attempt(self, request: Request) -> tuple[Answer | None, str]:
        """Return the answer, or None and why no connection came about. Raise `IssuerUnavailable` where one broke."""
        client = self._handed_in or self._own or await self._making.run(self._make)
        try:
            return await self._stream(client, request), ""
        except _errors_of(client) as error:
            reason = _reason(error)
            logger.warning("the issuer cannot be reached at %s: %s", _place(request.url), reason)
            if not _NOT_CONNECTED.isdisjoint(kind.__name__ for kind in type(error).__mro__):
                return None, reason
        raise _unreachable(request, reason, processed=None)

    async def _make(self) -> HTTPClient:
        # 20 ms of CPU for the TLS context and the import: in a thread, so that no other request waits.
        self._own = await asyncio.to_thread(self._make_client)
        return self._own

    async def _stream(self, client: HTTPClient, request: Request) -> Answer:
        async with client.stream(
            request.method,
            request.url,
            content=request.content,
            headers={"Accept": "application/json", **request.headers, "Accept-Encoding": "identity"},
            auth=None,
            follow_redirects=False,
            timeout=self._deadline,
        ) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            _check_head(response.status_code, headers)
            return Answer(response.status_code, headers, await _read(response, request.limit))


async def within(seconds: float | None, work: Awaitable[T]) -> T:
    """Await `work` for at most so many seconds. Raise `IssuerUnavailable` after that."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        pass
    raise IssuerUnavailable(_SILENT)


def _unreachable(request: Request, reason: str, *, processed: bool | None) -> IssuerUnavailable:
    """Return the error for a connection that failed. Where and why is a note: for a traceback, never for a visitor."""
    error = IssuerUnavailable(_UNREACHABLE, processed=processed, unreachable=True)
    error.add_note(f"no connection to {_place(request.url)}: {reason}")
    return error


def header_value(text: str) -> str:
    """Return text that may stand in a header: printable ASCII. Raise `ValueError`, without the text, for any other."""
    if not _HEADER_TEXT.fullmatch(text):
        raise ValueError("a header value may hold printable ASCII characters only")
    return text


def _check_head(status: int, headers: Mapping[str, str]) -> None:
    if 300 <= status < 400:
        raise IssuerResponseInvalid(
            f"The issuer answered with a redirect (HTTP {status}), which is never followed. "
            "Check that LOGTO_ENDPOINT (or LOGTO_ISSUER) is the address that the issuer uses for itself."
        )
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise IssuerResponseInvalid("The issuer's answer is compressed, although it was asked not to be.")


async def _read(response: HTTPResponse, limit: int) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > limit:
            raise IssuerResponseInvalid(f"The issuer's answer is larger than {limit} bytes.")
    return bytes(body)


def _pause_before_retry(answer: Answer | None) -> float | None:
    """Return the seconds to wait before a second try, or None where the issuer may have processed the first."""
    if answer is None:
        return random.uniform(*RETRY_PAUSE)  # noqa: S311 - spreads the callers, guards nothing
    seconds = _whole_seconds(answer.headers.get("retry-after")) if answer.status == 503 else None
    return None if seconds is None else float(seconds)


def _fits(pause: float, until: float | None) -> bool:
    return until is not None and asyncio.get_running_loop().time() + pause + RETRY_ROOM <= until


def _retry_after(value: str | None, now: float) -> int | None:
    """Read `Retry-After`, a number of seconds or a date (RFC 9110 §10.2.3); None when it is absent or unreadable."""
    seconds: float | None = _whole_seconds(value)
    if seconds is None and value is not None:
        with suppress(ValueError, OverflowError):
            moment = parsedate_to_datetime(value)
            seconds = moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() - now
    return None if seconds is None else int(min(max(seconds, RETRY_AFTER.start), RETRY_AFTER.stop - 1))


def _whole_seconds(value: str | None) -> int | None:
    return int(value) if value is not None and re.fullmatch(r"\s*[0-9]{1,9}\s*", value, re.ASCII) else None


def _place(url: str) -> str:
    """Return host and port of an address, for the log."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _reason(error: Exception) -> str:
    """Name an error for the log: its text only where nothing was sent yet, as others may quote a header or body."""
    name = type(error).__name__
    return f"{name}: {error}" if name == "ConnectError" else name


def _errors_of(client: HTTPClient) -> tuple[type[Exception], ...]:
    """Return what this client raises when a request fails: the errors of the library that its class comes from."""
    for ancestor in type(client).__mro__:
        library: Any = sys.modules.get(ancestor.__module__.partition(".")[0])
        if hasattr(library, "HTTPError") and hasattr(library, "InvalidURL"):
            return (library.HTTPError, library.InvalidURL, library.StreamError, OSError)
    return (OSError,)

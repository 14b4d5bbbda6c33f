"""Visitors by the hundred: signs them in without a browser, and sends many requests at once. It knows no store."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import httpx
from e2e_http import Client, render


@dataclass
class Tally:
    """What came back."""

    statuses: Counter[int] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    """The `code` of answers that are errors of ours."""
    workers: Counter[str] = field(default_factory=Counter)
    tokens: dict[str, set[str]] = field(default_factory=dict)
    """Fingerprints by path."""
    broken: Counter[str] = field(default_factory=Counter)
    """Connections that ended without an answer, by error."""
    bare: int = 0
    """Answers of 500 that are not ours: a bug."""

    @property
    def asked(self) -> int:
        return sum(self.statuses.values()) + sum(self.broken.values())

    @property
    def failed(self) -> int:
        return self.asked - self.statuses[200]

    def note(self, path: str, answer: httpx.Response) -> None:
        self.statuses[answer.status_code] += 1
        self.workers[answer.headers.get("x-worker", "?")] += 1
        body = _json(answer)
        if answer.status_code == 200:
            self.tokens.setdefault(path, set()).add(body.get("fingerprint", ""))
            return
        code = body.get("error") or body.get("code")
        self.codes[str(code)] += 1
        self.bare += answer.status_code == 500 and not code

    def add(self, other: Tally) -> None:
        for name in ("statuses", "codes", "workers", "broken"):
            getattr(self, name).update(getattr(other, name))
        for path, tokens in other.tokens.items():
            self.tokens.setdefault(path, set()).update(tokens)
        self.bare += other.bare


def _json(answer: httpx.Response) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        body = answer.json()
        return body if isinstance(body, dict) else {}
    return {}


class Guest:
    """One browser: the cookies that the app gave it."""

    def __init__(self, url: str, sub: str) -> None:
        self.url = url
        self.sub = sub
        self.cookies: dict[str, str] = {}

    @property
    def headers(self) -> dict[str, str]:
        """What the browser sends to the app, whichever worker of it that is."""
        headers = {"host": self.url.removeprefix("http://")} if self.url else {}
        if self.cookies:
            headers["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return headers

    def take(self, answer: httpx.Response) -> None:
        """Take the cookies of an answer as a browser does."""
        for line in answer.headers.get_list("set-cookie"):
            pair, _, attributes = line.partition(";")
            name, _, value = pair.partition("=")
            if "max-age=0" in attributes.lower():
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value


class Crowd:
    """An HTTP client that many guests share: it pools connections and keeps no cookies."""

    def __init__(self) -> None:
        self._client = Client()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def ask(self, guest: Guest, path: str, *, at: str | None = None, method: str = "GET") -> httpx.Response:
        """Send one request, to the worker whose address is `at` or to any, and take the cookies of the answer."""
        answer = await self._client.send(method, (at or guest.url) + path, guest.headers)
        guest.take(answer)
        return answer

    async def sign_in(self, url: str, sub: str = "alice") -> Guest:
        """Sign in through the provider's pages and return the guest."""
        guest = Guest(url, sub)
        await self.sign_in_again(guest)
        return guest

    async def sign_in_many(self, url: str, count: int) -> list[Guest]:
        """Sign in several guests, ten at a time."""
        guests: list[Guest] = []
        while len(guests) < count:
            batch = min(10, count - len(guests))
            guests += await asyncio.gather(*(self.sign_in(url) for _ in range(batch)))
        return guests

    async def sign_in_again(self, guest: Guest) -> None:
        """Sign in with the browser that the guest has; at the provider it is a stranger.

        The cookie that stops loops of sign-ins lives for half a minute, which no test waits out.
        """
        guest.cookies = {name: value for name, value in guest.cookies.items() if not name.endswith("_tries")}
        at_provider = Guest("", guest.sub)
        method, url = "GET", f"{guest.url}/logto/sign-in?return_to=/who"
        for _ in range(12):
            here = guest if url.startswith(guest.url) else at_provider
            answer = await self._client.send(
                method, url, here.headers, {"sub": guest.sub} if method == "POST" else None
            )
            here.take(answer)
            if answer.is_redirect:
                method, url = "GET", urljoin(url, answer.headers["location"])
            elif "/interaction/" in url:
                method = "POST"
            else:
                break
        assert answer.status_code == 200, f"{url}: HTTP {answer.status_code} {answer.text[:300]}"
        assert answer.json() == {"sub": guest.sub}, answer.text[:300]

    async def storm(self, guest: Guest, paths: Sequence[str], *, count: int, urls: Sequence[str]) -> Tally:
        """Send `count` requests at once, spread evenly over paths and workers, all with the cookies of this moment.

        What the answers set is taken as they come.
        """
        tally, headers = Tally(), guest.headers
        targets = itertools.islice(spread(paths, urls), count)
        await asyncio.gather(*(self.note(tally, guest, path, url=url, headers=headers) for path, url in targets))
        return tally

    async def note(
        self,
        tally: Tally,
        guest: Guest,
        path: str,
        *,
        url: str,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response | None:
        """Send one request and note in the tally what came of it."""
        try:
            answer = await self._client.send("GET", url + path, guest.headers if headers is None else headers)
        except httpx.TransportError as error:
            tally.broken[type(error).__name__] += 1
        else:
            guest.take(answer)
            tally.note(path, answer)
            return answer
        return None


async def call_and_wait(guest: Guest, path: str, *, url: str) -> asyncio.StreamWriter:
    """Send a request and return its connection, for a caller that will hang up: `writer.transport.abort()`."""
    _, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
    writer.write(render("GET", url + path, guest.headers))
    await writer.drain()
    return writer


def spread(paths: Sequence[str], urls: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield every path at every worker, then again."""
    return itertools.cycle([(path, url) for path in paths for url in urls])

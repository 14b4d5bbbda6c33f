"""Requests that no browser sends: none is an error of ours, and none costs more than it should."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.types import ASGIApp, Message

from logto_asgi import LogtoMiddleware, RequireAuthMiddleware
from logto_asgi.return_to import own_address, safe_return_to
from tests.conftest import Site

NAVIGATION = [(b"accept", b"text/html"), (b"sec-fetch-mode", b"navigate"), (b"sec-fetch-dest", b"document")]
ROUTES = ["sign-in", "sign-up", "sign-in-callback", "sign-out"]


async def ask(app: ASGIApp, path: str, query: bytes = b"", *headers: tuple[bytes, bytes], **more: Any) -> list[Message]:
    """Send one request with exactly these bytes and return what is answered."""
    body: list[Message] = more.pop("body", [{"type": "http.request"}])
    answers: list[Message] = []
    scope = {"type": "http", "method": "GET", "path": path, "query_string": query, "headers": list(headers), **more}

    async def receive() -> Message:
        return body.pop(0) if body else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        answers.append(message)

    await app({"http_version": "1.1", "scheme": "http", "server": ("localhost", 8000), **scope}, receive, send)
    return answers


def header(answers: list[Message], name: bytes) -> bytes:
    """Return the value of one header of the answer."""
    value: bytes = dict(answers[0]["headers"])[name]
    return value


@pytest.mark.parametrize("host", [b"localhost:8000", b"[", b"[::1]x", b"a?b#c", b"\xff", b"", None])
@pytest.mark.parametrize(
    "query",
    [
        b"return_to=http://[",
        b"next=http://[",
        b"next=//[",
        b"return_to=\xff",
        b"\xff=\xfe",
        b"state=\xed\xa0\x80&code=\xff",
    ],
)
@pytest.mark.parametrize("name", ROUTES)
async def test_malformed_query_or_host_is_no_error(site: Site, name: str, query: bytes, host: bytes | None) -> None:
    """An unfinished IPv6 address, half a surrogate pair and bytes that are no UTF-8 count as nothing."""
    headers = [*NAVIGATION, *([] if host is None else [(b"host", host)])]
    answers = await ask(site.app, f"/logto/{name}", query, *headers)
    assert answers[0]["status"] < 500


async def test_visitor_who_hangs_up_is_no_error(site: Site) -> None:
    """A form that breaks off starts an ordinary sign-in, and leaves no traceback in the log."""
    begun = {"type": "http.request", "body": b"login_hint=a", "more_body": True}
    answers = await ask(site.app, "/logto/sign-in", b"", (b"host", b"localhost:8000"), method="POST", body=[begun])
    assert answers[0]["status"] == 303


async def test_path_that_has_no_encoding_leads_to_sign_in(site: Site) -> None:
    """A server may leave half a surrogate pair in a path."""
    guarded = LogtoMiddleware(RequireAuthMiddleware(site.app), logto=site.logto)
    answers = await ask(guarded, "/caf\udce9", b"", *NAVIGATION)
    assert header(answers, b"location") == b"http://localhost:8000/logto/sign-in?return_to=/caf%253F"


@pytest.mark.parametrize("path", [".evil.example/", "@evil.example/", "*", "", "//evil.example/"])
def test_own_address_stays_on_this_host(site: Site, path: str) -> None:
    """The target of a request need not start with a slash, and must not go on with the host's name."""
    assert own_address({"path": path}, site.config).startswith("http://localhost:8000/")


class Unread(str):
    """A text that must not be looked at character by character."""

    __slots__ = ()

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("somebody looks at every character")


def test_long_return_to_is_not_examined(site: Site) -> None:
    """What is too long leads home before it is read: at a megabyte, reading took a second of everybody's event loop."""
    assert safe_return_to(Unread("/" + "a" * 1024), site.config) is None
    with pytest.raises(AssertionError, match="every character"):
        safe_return_to(Unread("/" + "a" * 1023), site.config)


@pytest.mark.parametrize("query", [b"return_to=/" + b"%25" * 30_000, b"next=/" + b"%C3%A9" * 15_000])
async def test_long_return_to_leads_home(site: Site, query: bytes) -> None:
    """A sign-in with it starts all the same."""
    answers = await ask(site.app, "/logto/sign-in", query, *NAVIGATION, (b"host", b"localhost:8000"))
    assert header(answers, b"location").startswith(b"http://localhost:3001/oidc/auth?")


async def test_repeated_identifiers_are_sent_once(site: Site) -> None:
    """A link cannot blow the authorization request up until the issuer refuses it."""
    query = b"identifiers=" + b"email,phone," * 5000
    answers = await ask(site.app, "/logto/sign-in", query, *NAVIGATION, (b"host", b"localhost:8000"))
    assert b"identifier=email%20phone&" in header(answers, b"location") + b"&"


@pytest.mark.parametrize(
    ("path", "query", "more"),
    [
        ("/oidc/auth", b"\xff", {}),
        ("/oidc/token", b"", {"method": "POST", "body": [{"type": "http.request", "body": b"grant_type=x"}]}),
    ],
)
async def test_development_provider_answers_bytes_that_are_no_text(
    site: Site, path: str, query: bytes, more: dict[str, Any]
) -> None:
    """A query and an `Authorization` beyond ASCII are refused."""
    headers = [(b"host", b"localhost:3001"), (b"authorization", b"Basic \xff")]
    answers = await ask(site.provider, path, query, *headers, client=("127.0.0.1", 50000), **more)
    assert answers[0]["status"] == 400

"""Where a visitor may be sent back to: a path on `base_url` and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logto_asgi.config import LogtoConfig
from logto_asgi.return_to import MAX_BYTES, current_location, path_of_own_url, safe_return_to

SECRET = "Zr0vVdT1xq9k3m8Yw5bJc7nL2pQ4sFhG"


def config(base_url: str = "https://app.example.com", **more: Any) -> LogtoConfig:
    return LogtoConfig(
        endpoint="https://tenant.logto.app", app_id="app", base_url=base_url, cookie_secret=SECRET, **more
    )


ACCEPTED = [
    ("/", "/"),
    ("/profile", "/profile"),
    ("/a/b?x=1&y=%2F", "/a/b?x=1&y=%2F"),
    ("/search?q=http://elsewhere.example", "/search?q=http://elsewhere.example"),
    ("/profil-ü", "/profil-%C3%BC"),
    ("/with%20space", "/with%20space"),
    ("/user@home", "/user@home"),
    ("/a//b", "/a//b"),
    ("/logtopus", "/logtopus"),
]

REFUSED = [
    ("empty", ""),
    ("relative", "profile"),
    ("unfinished IPv6 address", "http://["),
    ("absolute", "https://evil.example/"),
    ("absolute, own host", "https://app.example.com/x"),
    ("scheme only", "javascript:alert(1)"),
    ("scheme-relative", "//evil.example"),
    ("three slashes", "///evil.example"),
    ("backslash", "/\\evil.example"),
    ("backslash first", "\\\\evil.example"),
    ("encoded backslash", "/%5Cevil.example"),
    ("encoded slash first", "/%2Fevil.example"),
    ("twice encoded slash", "/%252Fevil.example"),
    ("tab inside", "/\t/evil.example"),
    ("line feed", "/a\nSet-Cookie:x"),
    ("carriage return", "/a\rx"),
    ("encoded line feed", "/a%0Ax"),
    ("nul", "/a\x00"),
    ("space in front", " /a"),
    ("fullwidth solidus", "/\uff0fevil.example"),
    ("fullwidth backslash", "/\uff3cevil.example"),
    ("fullwidth full stops", "/\uff0e\uff0e/logto/sign-out"),
    ("zero width space", "/\u200b/evil.example"),
    ("right-to-left override", "/\u202eevil"),
    ("line separator", "/\u2028evil"),
    ("lone surrogate", "/\ud800"),
    ("dot segment", "/./a"),
    ("dot segments up", "/a/../../b"),
    ("encoded dot segments", "/a/%2e%2e/b"),
    ("own route", "/logto/sign-out"),
    ("own prefix", "/logto"),
    ("own route, encoded", "/%6Cogto/sign-out"),
    ("own route, double slash", "/logto//sign-out"),
    ("too long", "/" + "a" * MAX_BYTES),
    ("too long once encoded", "/" + "ü" * (MAX_BYTES // 4)),
]


def test_1024_bytes_are_the_most() -> None:
    """The longest path that is accepted has 1,024 bytes."""
    assert safe_return_to("/" + "a" * (MAX_BYTES - 1), config()) is not None


@pytest.mark.parametrize(("value", "expected"), ACCEPTED, ids=[value for value, _ in ACCEPTED])
def test_path_on_this_site_is_accepted(value: str, expected: str) -> None:
    """A path with its query comes back encoded."""
    assert safe_return_to(value, config()) == expected


@pytest.mark.parametrize("value", [value for _, value in REFUSED], ids=[name for name, _ in REFUSED])
def test_anything_else_is_refused(value: str) -> None:
    """Absolute and scheme-relative URLs, tricks of encoding and Unicode, and our own routes lead home."""
    assert safe_return_to(value, config()) is None


def test_base_path_is_kept_or_added() -> None:
    """Under a base path every target lies inside of it."""
    shop = config("https://app.example.com/shop")
    assert safe_return_to("/shop/items", shop) == "/shop/items"
    assert safe_return_to("/items", shop) == "/shop/items"
    assert safe_return_to("/shopping", shop) == "/shop/shopping"
    assert safe_return_to("/shop/logto/sign-in", shop) is None


@pytest.mark.parametrize("url", ["https://app.example.com/a?b=c", "http://app.example.com/a?b=c"])
def test_absolute_url_of_this_site_gives_its_path(url: str) -> None:
    """A proxy may have taken TLS off, so the scheme does not count; the host does."""
    assert path_of_own_url(url, config()) == "/a?b=c"


@pytest.mark.parametrize(
    "url",
    [None, "", "https://evil.example/a", "//app.example.com/a", "https://app.example.com@evil.example/", "http://["],
)
def test_url_of_another_site_gives_nothing(url: str | None) -> None:
    """Another host, a missing scheme and an unreadable URL are refused."""
    assert path_of_own_url(url, config()) is None


@pytest.mark.parametrize("path", ["/items", "/shop/items"])
def test_current_location_holds_the_base_path(path: str) -> None:
    """Whether the proxy strips the base path or not, the visitor comes back to the same address."""
    scope = {"path": path, "query_string": b"page=2"}
    assert current_location(scope, config("https://app.example.com/shop")) == "/shop/items?page=2"


@given(st.text(max_size=60))
def test_no_text_leaves_this_site(value: str) -> None:
    """Whatever the text, an accepted one is printable ASCII that starts with one slash."""
    target = safe_return_to(value, config())
    if target is not None:
        assert target.isascii()
        assert target.isprintable()
        assert target.startswith("/")
        assert not target.startswith(("//", "/\\"))

"""Facts about cookies as text: names, lines, chunks."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logto_asgi.session.cookies import (
    BrokenChunks,
    ChunkedCookie,
    clear_cookie,
    cookie_name,
    cut,
    raw_cookies,
    set_cookie,
)

COOKIE = ChunkedCookie("__Host-logto_abc", secure=True)
NAME = COOKIE.name
WEEK = 604_800


def value_of(size: int) -> str:
    return base64.urlsafe_b64encode(bytes(index * 7 % 256 for index in range(size))).decode()[:size]


def sent(lines: list[str]) -> bytes:
    return "; ".join(line.partition(";")[0] for line in lines).encode()


def read(cookies: bytes) -> str:
    first = cut(cookies, COOKIE.prefix)
    assert first is not None
    return COOKIE.join(COOKIE.read(cookies, first))


def test_host_prefix_on_https_only() -> None:
    """On https the name is bound to the host; on http a browser would refuse that."""
    assert cookie_name("app", secure=True) == "__Host-" + cookie_name("app", secure=False)


def test_names_of_two_apps_differ() -> None:
    """Two apps on one host have cookies of their own, whatever their ids hold."""
    assert cookie_name("app_1", secure=True) != cookie_name("app_2", secure=True)
    assert cookie_name("ä; =\n", secure=True).replace("__Host-", "").isidentifier()


def test_attributes() -> None:
    """A line has all attributes; Secure only on https."""
    assert set_cookie("n", "v", max_age=5, secure=True) == "n=v; Max-Age=5; Path=/; HttpOnly; SameSite=Lax; Secure"
    assert set_cookie("n", "v", max_age=5, secure=False) == "n=v; Max-Age=5; Path=/; HttpOnly; SameSite=Lax"
    assert clear_cookie("n", secure=True) == "n=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax; Secure"


@pytest.mark.parametrize(
    ("cookies", "value"),
    [
        (b"n=1", b"1"),
        (b"a=0; n=1", b"1"),
        (b"a=0;n=1", b"1"),
        (b"a=0; \t n=1; b=2", b"1"),
        (b" n=1 ; b=2", b"1"),
        (b"n=", b""),
        (b"n=1; n=2", b"1"),
        (b"n=\xff\x00", b"\xff\x00"),
        (b"xn=0; n=1", b"1"),
        (b"x=n=0; n=1", b"1"),
        (b"x=0 n=0; n=1", b"1"),
        (b"x=0 n=0", None),
        (b"xn=0", None),
        (b"x=n=0", None),
        (b"n.1=0; n_x=0; n-1a=0; nn=0", None),
        (b"n", None),
        (b"N=1", None),
        (b"", None),
    ],
)
def test_cut(cookies: bytes, value: bytes | None) -> None:
    """The first pair of exactly this name counts, wherever it stands; look-alikes and values do not."""
    assert cut(cookies, b"n=") == value


def test_cut_is_linear() -> None:
    """A header full of near misses with blanks is answered."""
    assert cut(b"x n=" * 20_000, b"n=") is None


def test_cookie_headers_are_joined() -> None:
    """HTTP/2 may send cookies one by one; None means that there were none."""
    headers = [(b"cookie", b"a=1"), (b"host", b"h"), (b"cookie", b"b=2")]
    assert raw_cookies(headers) == b"a=1; b=2"
    assert raw_cookies([(b"host", b"h")]) is None


@settings(deadline=None)
@given(st.integers(9, 7_500))
def test_split_and_join(size: int) -> None:
    """Whatever its size, a value comes back from its chunks, in any order and among others, each short enough."""
    lines = COOKIE.split(value_of(size), max_age=WEEK)
    assert all(len(line) < 4096 for line in lines)
    assert len(lines) == (1 if size <= COOKIE._room(WEEK) else 2)
    pairs = [*sent(lines).split(b"; "), b"theme=dark"]
    assert read(b"; ".join(reversed(pairs))) == value_of(size)


def test_capacity_keeps_the_header_short() -> None:
    """A value as long as the capacity takes at most 7.5 KiB of the header, names and separators counted."""
    capacity = COOKIE.capacity(max_age=WEEK)
    for size in (capacity, capacity - 1):
        cookies = sent(COOKIE.split(value_of(size), max_age=WEEK))
        assert 7_600 < len(cookies) <= 7_680


def test_every_generation_is_its_own() -> None:
    """Chunks of two writings do not join, even where both have as many."""
    one, two = (COOKIE.split(value_of(6_000) + end, max_age=WEEK) for end in ("AAAAAAAA", "BBBBBBBB"))
    with pytest.raises(BrokenChunks):
        read(sent([one[0], two[1]]))
    with pytest.raises(BrokenChunks):
        read(sent([two[0], one[1]]))


def test_missing_chunk() -> None:
    """A value that lost a chunk is broken."""
    lines = COOKIE.split(value_of(6_000), max_age=WEEK)
    with pytest.raises(BrokenChunks):
        read(sent(lines[:1]))


def test_surplus_chunks_are_not_read() -> None:
    """Chunks left over from a longer value, and strangers, change nothing."""
    cookies = sent(COOKIE.split(value_of(100), max_age=WEEK))
    left = f"{NAME}.1=old.x; {NAME}.99=1; {NAME}.x=1; {NAME}_x=1; {NAME}-1a=1; ".encode()
    assert read(left + cookies) == value_of(100)


@pytest.mark.parametrize(
    "first", [b"", b"c", b"c1", b"c0.g.x", b"c5.g.x", b"c9.g.x", b"x1.g.x", b"c\xff.g.x", b"1.g.x"]
)
def test_broken_first_chunk(first: bytes) -> None:
    """A first chunk without a sensible count is broken, not an exception of another kind."""
    with pytest.raises(BrokenChunks):
        COOKIE.read(COOKIE.prefix + first, first)


def test_names_that_a_request_carried() -> None:
    """Only our own names count, for deletion too."""
    cookies = f"{NAME}.2=x; {NAME}_1=x; {NAME}.99=x; a={NAME}=b; {NAME}=x".encode()
    assert COOKIE.sent(cookies) == [NAME, f"{NAME}.2"]
    assert COOKIE.sent(b"theme=dark") == []
    assert COOKIE.sent(None) == []


def test_doubled_names() -> None:
    """The same name twice is noticed, whichever chunk."""
    assert COOKIE.is_doubled(f"{NAME}=1; a=1; {NAME}=2".encode())
    assert COOKIE.is_doubled(f"{NAME}=1; {NAME}.1=2;{NAME}.1=3".encode())
    assert not COOKIE.is_doubled(f"{NAME}=1; a=1; a=1; {NAME}.1=1".encode())

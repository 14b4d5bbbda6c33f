"""Cookies as text: names, `Set-Cookie` lines, what a `Cookie` header holds, and values in chunks (RFC 6265bis).

Knows nothing of what the values mean.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence

__all__ = [
    "BrokenChunks",
    "ChunkedCookie",
    "RawHeaders",
    "clear_cookie",
    "cookie_name",
    "cut",
    "raw_cookies",
    "set_cookie",
]

MAX_SET_COOKIE = 4_093
"""Characters of one `Set-Cookie` line, name and attributes counted: what every browser stores."""
MAX_TOTAL = 7_680
"""Characters of all chunks in a `Cookie` header, names counted; proxies stop at 8 KiB a header."""
MAX_CHUNKS = 4
"""Chunks that are looked at. What fits `MAX_TOTAL` needs two."""
_GENERATION = 8

RawHeaders = Iterable[tuple[bytes, bytes]]


def cookie_name(app_id: str, *, secure: bool) -> str:
    """Return the name of the session cookie: of this app only, and bound to its host when the site is https."""
    digest = hashlib.sha256(app_id.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{'__Host-' if secure else ''}logto_{digest}"


def set_cookie(name: str, value: str, *, max_age: int, secure: bool) -> str:
    """Return a `Set-Cookie` value. `max_age` is in seconds."""
    end = "; Secure" if secure else ""
    return f"{name}={value}; Max-Age={max_age}; Path=/; HttpOnly; SameSite=Lax{end}"


def clear_cookie(name: str, *, secure: bool) -> str:
    """Return a `Set-Cookie` value that deletes the cookie; it repeats what `__Host-` asks for."""
    return set_cookie(name, "", max_age=0, secure=secure)


def raw_cookies(headers: RawHeaders) -> bytes | None:
    """Return the `Cookie` header as it came. HTTP/2 may split it (RFC 9113 §8.2.3)."""
    cookies: bytes | None = None
    for name, value in headers:
        if name == b"cookie":
            cookies = value if cookies is None else b"; ".join((cookies, value))
    return cookies


def cut(cookies: bytes, prefix: bytes) -> bytes | None:
    """Return the value of the first cookie whose pair starts with `prefix` (its name and "=").

    Browsers send the most specific path first, so the first of two with one name decides (RFC 6265bis §5.8.3).
    """
    start = cookies.find(prefix)
    while start >= 0:
        if start == 0 or cookies[start - 2 : start] == b"; " or _begins_pair(cookies, start):
            begin = start + len(prefix)
            end = cookies.find(b";", begin)
            return (cookies[begin:] if end < 0 else cookies[begin:end]).rstrip(b" \t")
        start = cookies.find(prefix, start + 1)
    return None


def _begins_pair(cookies: bytes, start: int) -> bool:
    while start > 0 and cookies[start - 1] in b" \t":
        start -= 1
    return start == 0 or cookies[start - 1 : start] == b";"


class BrokenChunks(Exception):
    """The chunks of a value do not fit each other: one is missing, or they come from two writings."""


class ChunkedCookie:
    """A value over several cookies: `name`, `name.1` and so on.

    The first holds `c<count>.<generation>.<data>`, the others `<generation>.<data>`.
    """

    __slots__ = ("_names", "_prefixes", "_secure", "name", "prefix")

    def __init__(self, name: str, *, secure: bool) -> None:
        self.name = name
        self.prefix = f"{name}=".encode()
        self._secure = secure
        self._names = [name, *(f"{name}.{number}" for number in range(1, MAX_CHUNKS))]
        self._prefixes = [f"{each}=".encode() for each in self._names]

    def read(self, cookies: bytes, first: bytes) -> bytes:
        """Return the value as sent, chunks joined by ";". Raise `BrokenChunks` when one is missing.

        Chunks beyond the count are left over from a longer value and are not looked at.
        """
        count = first[1] - 48 if first[:1] == b"c" and first[2:3] == b"." else 0
        if not 1 <= count <= MAX_CHUNKS:
            raise BrokenChunks
        parts = [first]
        for prefix in self._prefixes[1:count]:
            part = cut(cookies, prefix)
            if part is None:
                raise BrokenChunks
            parts.append(part)
        return b";".join(parts)

    @staticmethod
    def join(raw: bytes) -> str:
        """Return the value inside of what `read` returned. Raise `BrokenChunks` when it mixes two writings."""
        first, *others = raw.decode("latin-1").split(";")
        generation, _, data = first[3:].partition(".")
        parts = [data]
        for other in others:
            other_generation, _, data = other.partition(".")
            if other_generation != generation:
                raise BrokenChunks
            parts.append(data)
        return "".join(parts)

    def split(self, value: str, *, max_age: int) -> list[str]:
        """Return the `Set-Cookie` values that store `value`, whose last characters must be random."""
        room = self._room(max_age)
        pieces = [value[start : start + room] for start in range(0, len(value), room)]
        generation = value[-_GENERATION:]
        return [
            set_cookie(name, f"{_head(number, len(pieces), generation)}{piece}", max_age=max_age, secure=self._secure)
            for number, (name, piece) in enumerate(zip(self._names, pieces, strict=False))
        ]

    def capacity(self, *, max_age: int) -> int:
        """Return the length of the longest value that may be stored."""
        count = math.ceil(MAX_TOTAL / self._room(max_age))
        heads = sum(
            len(f"{name}={_head(number, count, '-' * _GENERATION)}; ")
            for number, name in enumerate(self._names[:count])
        )
        return MAX_TOTAL - heads

    def _room(self, max_age: int) -> int:
        """Return how much of the value one cookie takes, by the longest name and head."""
        longest = _head(0, MAX_CHUNKS, "-" * _GENERATION)
        return MAX_SET_COOKIE - len(set_cookie(self._names[-1], longest, max_age=max_age, secure=self._secure))

    def sent(self, cookies: bytes | None) -> list[str]:
        """Return the names of our cookies that a request carried."""
        if cookies is None or self.name.encode() not in cookies:
            return []
        named = zip(self._names, self._prefixes, strict=True)
        return [name for name, prefix in named if cut(cookies, prefix) is not None]

    def is_doubled(self, cookies: bytes) -> bool:
        """Tell whether a request carried one of our names twice, as a sibling domain can make it on plain http."""
        pairs = [pair.strip(b" \t").partition(b"=")[0] for pair in cookies.split(b";")]
        return any(pairs.count(prefix[:-1]) > 1 for prefix in self._prefixes)

    def clear(self, names: Sequence[str]) -> list[str]:
        """Return the `Set-Cookie` values that delete cookies of ours."""
        return [clear_cookie(name, secure=self._secure) for name in names]


def _head(number: int, count: int, generation: str) -> str:
    return f"c{count}.{generation}." if number == 0 else f"{generation}."

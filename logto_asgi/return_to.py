"""Where a visitor goes back to: a path on `base_url` and nothing else. Pure; reads no cookie and makes no response."""

from __future__ import annotations

import posixpath
import unicodedata
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from logto_asgi.config import LogtoConfig

__all__ = ["current_location", "own_address", "path_of_own_url", "safe_return_to", "served_path"]

MAX_BYTES = 1024
"""A longer `return_to` leads home."""

# RFC 3986 §3.3 and §3.4: what may stand in a path and a query without being encoded.
_PATH_AND_QUERY = "/?%:@!$&'()*+,;=-._~"


def safe_return_to(value: str | None, config: LogtoConfig) -> str | None:
    """Return the value as an encoded path under the base path of `base_url`, or None where it is anything else.

    Refused: absolute and scheme-relative URLs, backslashes, control and format characters, characters that normalise
    to a separator, dot segments, the library's own routes (they would loop), and more than 1,024 bytes.
    A path outside the base path is taken as one inside of it.
    """
    if not value or not value.startswith("/") or value.startswith("//"):
        return None
    # Encoding only makes it longer, and looking at each of 64 KB would take 40 ms.
    if len(value) > MAX_BYTES or not _harmless(value):
        return None
    target = urlsplit(value)
    if target.scheme or target.netloc or not _plain_path(target.path):
        return None
    inside = _under_base_path(target.path, config)
    if _is_own_route(inside, config):
        return None
    encoded = quote(inside + (f"?{target.query}" if target.query else ""), safe=_PATH_AND_QUERY)
    return encoded if len(encoded) <= MAX_BYTES else None


def path_of_own_url(url: str | None, config: LogtoConfig, *, host: str | None = None) -> str | None:
    """Return the safe path of an absolute URL on this site, or None. `host` is another name this request came by."""
    if not url:
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or parts.netloc not in {urlsplit(config.origin).netloc, host}:
        return None
    return safe_return_to((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), config)


def current_location(scope: Mapping[str, Any], config: LogtoConfig) -> str | None:
    """Return where this request is, as a safe path on `base_url`, whether or not a proxy stripped the base path."""
    path = _quoted(scope["path"])
    query = scope.get("query_string", b"").decode("latin-1")
    return safe_return_to(path + (f"?{query}" if query else ""), config)


def own_address(scope: Mapping[str, Any], config: LogtoConfig) -> str:
    """Return the absolute URL of this request on `base_url`, for a link that tries again."""
    # The target of a request can lack its first slash, and would go on with the host's name.
    path = "/" + _quoted(served_path(scope, config)).removeprefix("/")
    query = quote(scope.get("query_string", b""), safe=_PATH_AND_QUERY)
    return config.origin + path + (f"?{query}" if query else "")


def served_path(scope: Mapping[str, Any], config: LogtoConfig) -> str:
    """Return the path of a request as the browser sees it, base path included, not encoded."""
    return _under_base_path(scope["path"], config)


def _quoted(path: str) -> str:
    """Encode a decoded path. A server may leave half a surrogate pair in it, which has no encoding."""
    return quote(path, safe=_PATH_AND_QUERY.replace("?", "").replace("%", ""), errors="replace")


def _under_base_path(path: str, config: LogtoConfig) -> str:
    base = config.base_path
    inside = path == base or path.startswith(base + "/")
    return path if inside else base + path


def _harmless(value: str) -> bool:
    return "\\" not in value and all(_harmless_character(character) for character in value)


def _harmless_character(character: str) -> bool:
    if " " < character < "\x7f":
        return True
    if character.isascii() or unicodedata.category(character)[0] in "CZ":
        return False
    return not set(unicodedata.normalize("NFKC", character)) & set("/\\:@?#.%")


def _plain_path(path: str) -> bool:
    """Tell whether a path is one, also after a server or a proxy has decoded it once or twice more."""
    for _ in range(3):
        segments = path.split("/")
        if not path.startswith("/") or path.startswith("//") or not _harmless(path.replace(" ", "")):
            return False
        if "." in segments or ".." in segments:
            return False
        path = unquote(path)
    return True


def _is_own_route(path: str, config: LogtoConfig) -> bool:
    own = config.base_path + config.auth_path
    for _ in range(3):
        plain = posixpath.normpath(path)
        if plain == own or plain.startswith(own + "/"):
            return True
        path = unquote(path)
    return False

"""Parse the URLs of a configuration. It knows which form each must have, and opens none of them."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from logto_asgi.config.faults import Wrong, shown

__all__ = ["is_loopback", "origin_of", "parse_base_url", "parse_endpoint", "parse_issuer", "parse_origin", "parse_uri"]

_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")
_BASE_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")


def is_loopback(host: str | None) -> bool:
    """Tell whether a host is this very computer: `localhost`, `*.localhost` (RFC 6761 §6.3), 127.0.0.0/8, `::1`."""
    name = (host or "").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def origin_of(parts: SplitResult) -> str:
    """Return scheme, host and port as browsers write them in `Origin`: lower case, no default port (RFC 6454 §6.2)."""
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    port = "" if parts.port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


def parse_endpoint(text: str) -> str:
    """Return the address of a Logto without a slash at its end; `/oidc` and what follows it is the issuer's."""
    parts = _parse(text, "https://tenant.logto.app")
    if re.search(r"/oidc(/|$)|/\.well-known/", parts.path):
        raise Wrong(
            (
                f"{shown(text)} goes too far: the path from /oidc on is added to it.",
                "Keep what comes before /oidc, or pass it all as issuer= for another provider.",
            )
        )
    return text.rstrip("/")


def parse_issuer(text: str) -> str:
    """Return the issuer unchanged, because discovery must repeat it exactly (OpenID Connect Discovery §4.3)."""
    parts = _parse(text, "https://tenant.logto.app/oidc")
    if "/.well-known/" in parts.path:
        raise Wrong((f"{shown(text)} is the discovery document.", "Keep what comes before /.well-known/."))
    return text


def parse_base_url(text: str) -> str:
    """Return origin and base path in their plain form, without a slash at the end."""
    parts = _parse(text, "https://app.example.com")
    path = parts.path.rstrip("/")
    if not _BASE_PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        raise Wrong((f"{shown(text)} has a path that a proxy would change.", "Use letters, digits and -._~ in it."))
    return origin_of(parts) + path


def parse_origin(text: str) -> str:
    """Return an origin in the form in which browsers send it."""
    parts = _parse(text, "https://admin.example.com")
    if parts.path not in ("", "/"):
        raise Wrong((f"{shown(text)} has a path.", f"Write {origin_of(parts)}."))
    return origin_of(parts)


def parse_uri(text: str) -> str:
    """Return a resource indicator: an absolute URI without a fragment (RFC 8707 §2)."""
    if "#" in text:
        raise Wrong((f"{shown(text)} has a fragment.", "Leave out # and what follows it (RFC 8707 §2)."))
    # 1. a name and a port look like a scheme and a path   2. https://… needs a host   3. urn:… and the like
    match = re.fullmatch(r"([A-Za-z][A-Za-z0-9+.-]*):([!-~]+)", text)
    scheme, rest = (match[1].lower(), match[2]) if match else ("", "")
    if not scheme or "." in scheme or scheme == "localhost" or re.match(r"\d", rest):
        raise Wrong((f"{shown(text)} is not an absolute URI.", "Write the API's identifier in full, scheme included."))
    if scheme in _DEFAULT_PORTS and not re.match(r"//[^/?]", rest):
        raise Wrong((f"{shown(text)} has no host.", "Write it like https://api.example.com."))
    return text


def _parse(text: str, example: str) -> SplitResult:
    """Split an http(s) URL and refuse what none of ours may have."""
    if not re.fullmatch(r"[!-\[\]-~]+", text):
        raise Wrong((f"{shown(text)} holds a space, a backslash or a character outside ASCII.", f"Write {example}."))
    if not re.match(r"https?://", text, re.IGNORECASE):
        raise Wrong((f"{shown(text)} has no scheme.", f"Write it with https:// in front, like {example}."))
    if "?" in text or "#" in text:
        raise Wrong((f"{shown(text)} has a query or a fragment.", "Leave out ? or # and what follows."))
    parts = _split(text)
    if parts is None:
        raise Wrong((f"{shown(text)} has no valid host and port.", f"Write it like {example}."))
    if "@" in parts.netloc:
        raise Wrong((f"{shown(text)} carries a user name or a password.", "Leave out all up to the @."))
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise Wrong((f"{shown(text)} is not encrypted.", "Use https://; http:// is for localhost and 127.0.0.1 only."))
    return parts


def _split(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text)
        valid = _HOST.fullmatch(parts.hostname or "") and parts.port != 0
    except ValueError:  # square brackets without an address in them, or a port beyond 65535
        return None
    return parts if valid else None

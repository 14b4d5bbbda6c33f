"""Counts how often in a row a browser was signed in without its session coming back. Knows no session.

The count lies in a short-lived cookie, unsealed: whoever forges it only gets a page that stops a loop earlier or later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from logto_asgi.session.cookies import RawHeaders, clear_cookie, cookie_name, cut, raw_cookies, set_cookie

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig

__all__ = ["TriesCookie"]

_LIFETIME = 30
"""Seconds; a loop turns faster, and nobody signs in by hand three times within."""


class TriesCookie:
    """How many sign-ins in a row a browser has finished within half a minute."""

    def __init__(self, config: LogtoConfig) -> None:
        self._name = cookie_name(config.app_id, secure=config.secure) + "_tries"
        self._secure = config.secure

    def count(self, headers: RawHeaders) -> int:
        """Return the count that a request carries, 0 to 9."""
        value = cut(raw_cookies(headers) or b"", f"{self._name}=".encode())
        return int(value) if value is not None and len(value) == 1 and value.isdigit() else 0

    def clear(self, headers: RawHeaders) -> list[str]:
        """Return the `Set-Cookie` value that starts the count anew, if there is one: the session did come back."""
        return [clear_cookie(self._name, secure=self._secure)] if self.count(headers) else []

    def add(self, headers: RawHeaders) -> str:
        """Return the `Set-Cookie` value with one more."""
        return set_cookie(self._name, str(min(self.count(headers) + 1, 9)), max_age=_LIFETIME, secure=self._secure)

"""Pending sign-ins, each in a sealed cookie of its own, named by its state. Knows no request, response or issuer."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from logto_asgi.models import PendingSignIn
from logto_asgi.session.cookies import RawHeaders, clear_cookie, cookie_name, cut, raw_cookies, set_cookie
from logto_asgi.session.sealing import Sealer, Unsealable
from logto_asgi.session.serialization import dump_pending, parse_pending

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig

__all__ = ["AttemptCookies"]

_KEPT = 4
_LOOKED_AT = 16
_MAX_RETURN_TO = 1_024
"""Bytes."""


class AttemptCookies:
    """Remembers at most four attempts of a browser to sign in, so that two tabs both succeed.

    `clock` gives seconds since 1970.
    """

    def __init__(self, config: LogtoConfig, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lifetime = int(config.attempt_lifetime)
        self._redirect_uri = config.redirect_uri
        self._home = config.post_sign_in_path
        self._secure = config.secure
        self._stem = cookie_name(config.app_id, secure=config.secure) + "_"
        self._name = re.compile(rb"(?:^|;)[ \t]*(" + re.escape(self._stem.encode()) + rb"[0-9a-f]{32})=")
        self._sealer = Sealer(
            [secret.get_secret_value() for secret in config.cookie_secrets],
            purpose="attempt",
            issuer=config.issuer,
            client_id=config.app_id,
        )

    def __repr__(self) -> str:
        return f"<AttemptCookies {self._stem}*>"

    def start(self, headers: RawHeaders, pending: PendingSignIn) -> list[str]:
        """Return the `Set-Cookie` values that remember an attempt and delete the oldest beyond four.

        A `return_to` of more than 1,024 bytes becomes `post_sign_in_path`.
        """
        if len(pending.return_to.encode("utf-8", "surrogatepass")) > _MAX_RETURN_TO:
            pending = replace(pending, return_to=self._home)
        name = self._named(pending.state)
        value = self._sealer.seal(dump_pending(pending))
        line = set_cookie(name, value, max_age=self._lifetime, secure=self._secure)
        return [line, *(clear_cookie(old, secure=self._secure) for old in self._surplus(headers) if old != name)]

    def find(self, headers: RawHeaders, state: str) -> PendingSignIn | None:
        """Return the attempt of this browser with this state, unless it is too old or was made for another address."""
        cookies = raw_cookies(headers)
        pending = None if cookies is None else self._read(cookies, self._named(state))
        if pending is None or not hmac.compare_digest(_bytes(pending.state), _bytes(state)):
            return None
        return pending if pending.redirect_uri == self._redirect_uri else None

    def clear(self, headers: RawHeaders, state: str) -> list[str]:
        """Return the `Set-Cookie` value that deletes this attempt, if the request carried it."""
        name = self._named(state)
        carried = cut(raw_cookies(headers) or b"", f"{name}=".encode()) is not None
        return [clear_cookie(name, secure=self._secure)] if carried else []

    def _named(self, state: str) -> str:
        """Return the cookie's name. A digest, because a state of the query may hold anything."""
        return self._stem + hashlib.sha256(_bytes(state)).digest()[:16].hex()

    def _surplus(self, headers: RawHeaders) -> list[str]:
        """Return the names to delete so that one more fits: dead ones, and the oldest.

        One of an unknown key is left alone; it may be a newer worker's, and expires by itself.
        """
        cookies = raw_cookies(headers) or b""
        names = list(dict.fromkeys(name.decode() for name in self._name.findall(cookies)))
        alive: list[tuple[int, str]] = []
        surplus = names[_LOOKED_AT:]
        for name in names[:_LOOKED_AT]:
            try:
                pending = self._opened(cookies, name)
            except Unsealable as error:
                surplus += [name] if error.known_key else []
                continue
            if pending is None:
                surplus.append(name)
            else:
                alive.append((pending.created_at, name))
        oldest_first = [name for _, name in sorted(alive)]
        return surplus + oldest_first[: max(0, len(alive) - (_KEPT - 1))]

    def _read(self, cookies: bytes, name: str) -> PendingSignIn | None:
        try:
            return self._opened(cookies, name)
        except Unsealable:
            return None

    def _opened(self, cookies: bytes, name: str) -> PendingSignIn | None:
        """Return a pending sign-in, or None when it has expired. Raise `Unsealable` for what does not open."""
        value = cut(cookies, f"{name}=".encode())
        payload = self._sealer.open((value or b"").decode("latin-1"))
        try:
            pending = parse_pending(payload)
        except ValueError:
            return None
        return pending if self._clock() < pending.created_at + self._lifetime else None


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")

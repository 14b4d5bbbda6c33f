"""Cookie values that were opened before, so that a known browser costs one look-up. Knows no key and no name."""

from __future__ import annotations

from dataclasses import dataclass

from logto_asgi.models import Session
from logto_asgi.session.bounded import Bounded

__all__ = ["Opened", "OpenedCache"]

_MAX_BYTES = 16 * 1024 * 1024
_EMPTY_ENTRY = 3_000
"""About what an entry takes in memory besides its text: objects, dictionaries, the slot in the mapping."""


@dataclass(slots=True)
class Opened:
    """A session and when its cookie expires."""

    session: Session
    expires_at: float
    """Seconds since 1970: the nearer one of the idle and the absolute end."""
    cost: int
    used: bool = False


class OpenedCache(Bounded[bytes, Opened]):
    """Sessions by the exact value of their cookie. Holds nothing that failed to open."""

    __slots__ = ()

    def __init__(self, limit: int = _MAX_BYTES) -> None:
        super().__init__(limit)

    def add(self, value: bytes, session: Session, *, expires_at: float, now: float) -> Opened:
        """Keep an opened session. Its cost is the text, once sealed and once open, and the objects around."""
        opened = Opened(session, expires_at, _EMPTY_ENTRY + 2 * len(value))
        self.put(value, opened, now=now)
        return opened

    def forget(self, session_id: str) -> None:
        """Drop every value of a session."""
        self.drop_all(lambda opened: opened.session.id == session_id)

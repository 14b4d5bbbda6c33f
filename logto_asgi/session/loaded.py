"""What a request's cookie turned out to be. Knows no key and no clock."""

from __future__ import annotations

from typing import Any, Final, NoReturn

from logto_asgi.models import Session
from logto_asgi.session.cookies import ChunkedCookie

__all__ = ["NOT_LOOKED_AT", "Loaded"]


class Loaded:
    """One request's session, and what the response needs to know of its cookie.

    Whoever signs in puts the new session into `session`; whoever signs out sets it to None and `clear` to True.
    """

    __slots__ = ("_cookie", "_raw", "at", "clear", "id", "presented", "problem", "session", "stray")

    session: Session | None
    """The newest known state of what the cookie held."""
    presented: Session | None
    """What the cookie held."""
    problem: str | None
    """Why there is no session though a cookie was there, in a word for logs."""
    clear: bool
    """Whether the response should delete the cookie."""
    stray: bool
    """Whether the cookie is an old copy, which leads to no newer state any more."""
    at: float
    """When it was loaded, in seconds since 1970."""
    id: str | None
    """The id of a session that has to be read from its store; None where there is nothing to read, or no longer."""

    def __init__(
        self,
        cookie: ChunkedCookie | None = None,
        raw: bytes | None = None,
        at: float = 0.0,
        session: Session | None = None,
        presented: Session | None = None,
        problem: str | None = None,
        clear: bool = False,
        stray: bool = False,
        id: str | None = None,  # noqa: A002 - the field's name
    ) -> None:
        self._cookie = cookie
        self._raw = raw
        self.at = at
        self.session = session
        self.presented = presented
        self.problem = problem
        self.clear = clear
        self.stray = stray
        self.id = id

    @property
    def names(self) -> list[str]:
        """The names of our cookies that the request carried."""
        return [] if self._cookie is None else self._cookie.sent(self._raw)

    @property
    def chunks(self) -> int:
        """How many cookies of ours the request carried."""
        return len(self.names)

    def __repr__(self) -> str:
        return f"<Loaded session={self.session!r} problem={self.problem!r} clear={self.clear}>"


class _NotLookedAt(Loaded):
    """Shared by requests whose cookie nobody may read, so it must never take a session."""

    __slots__ = ("_ready",)

    def __init__(self) -> None:
        super().__init__()
        self._ready = True

    def __setattr__(self, name: str, value: Any) -> None:
        if hasattr(self, "_ready"):
            self._refuse()
        super().__setattr__(name, value)

    @staticmethod
    def _refuse() -> NoReturn:
        raise AttributeError("the cookie of this request was not looked at: load it before writing a session")


NOT_LOOKED_AT: Final[Loaded] = _NotLookedAt()
"""Stands for a request that is answered without its session cookie: no session, and nothing to write."""

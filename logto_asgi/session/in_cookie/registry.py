"""What this process knows of sessions beyond their cookies: newer states, and which have ended. Knows no cookie.

A response that is lost or slow leaves a browser with an older state than this process has. The newest state is kept by
session id, with a mark of each older one that led to it: a request with an older cookie goes on from the newest.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from logto_asgi.models import Session
from logto_asgi.session.bounded import Bounded

__all__ = ["SessionRegistry"]

_GRACE = 60
"""Seconds that an older state is remembered once a newer one was presented."""
_MAX_RECORDS = 4_096
_MAX_ANCESTORS = 16
_MAX_NOTES = 50_000
"""Sessions of which only an end, a version or who made it is noted."""
_MARK = 8
"""Bytes of a digest that tell one session's own tokens apart."""
_NEVER = float("inf")


class _End(NamedTuple):
    at: float
    """Seconds since 1970."""
    replaced: bool
    """Whether a new sign-in took the session's place."""


@dataclass(slots=True)
class _Ancestor:
    """A state that led to the newest one: those with this refresh token, up to this version."""

    digest: bytes
    version: float
    forget_at: float = _NEVER


@dataclass(slots=True)
class _Record:
    newest: Session
    expires_at: float
    ancestors: list[_Ancestor] = field(default_factory=list)
    """Oldest first."""
    spent: list[bytes] = field(default_factory=list)
    """Digests of refresh tokens of ancestors that are forgotten."""
    seen_at: float | None = None
    """When the newest state was first presented, in seconds since 1970."""
    used: bool = False
    cost: int = 1


class SessionRegistry:
    """Newest states by session id, and ended ids. Bounded; safe to use from several threads.

    `idle_lifetime` and `absolute_lifetime` are in seconds.
    """

    def __init__(self, *, idle_lifetime: float, absolute_lifetime: float) -> None:
        self._idle = idle_lifetime
        self._absolute = absolute_lifetime
        self._records: Bounded[str, _Record] = Bounded(_MAX_RECORDS)
        self._ended: OrderedDict[str, _End] = OrderedDict()
        self._versions: OrderedDict[str, int] = OrderedDict()
        self._made: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<SessionRegistry {len(self._records)} newer states, {len(self._ended)} ended>"

    def note(self, session: Session) -> None:
        """Note the version of a state that a browser presented, made perhaps by another process."""
        with self._lock:
            known = self._versions.pop(session.id, 0)
            self._versions[session.id] = max(known, session.version)
            _shorten(self._versions)

    def note_made(self, session: Session) -> None:
        """Note a state whose refresh token this process has got by a sign-in."""
        with self._lock:
            self._remember_made(session)

    def is_made_here(self, session: Session) -> bool:
        """Tell whether this process got this state's refresh token from the issuer, as the last one of its session."""
        return self._made.get(session.id) == _token(session)[:_MARK]

    def resolve(self, presented: Session, now: float) -> Session | None:
        """Return the state to go on from, or None when the session has ended."""
        record = self._records.get(presented.id)
        if record is None:
            return None if presented.id in self._ended else presented
        record.used = True
        newest = record.newest
        # 1. The newest itself: the browser has it.
        if presented.version == newest.version and presented.refresh_token == newest.refresh_token:
            if record.seen_at is None or record.ancestors:
                self._saw(newest, record, now)
            return newest
        with self._lock:
            if presented.id in self._ended:
                return None
            # 2. One that led to it: the browser has not got the newest yet, or a slow request is late.
            led_by = _find(record.ancestors, presented, now)
            if led_by is not None:
                _let_go(record.ancestors[:led_by], now)
                return record.newest
            # 3. Unknown: another process made it. It is taken as it is, and is the newest when it counts further.
            if presented.version > record.newest.version:
                self._follow(record, presented, _mark(record.newest), now)
                self._meet(record, now)
            return presented

    def follow(self, session: Session, now: float) -> Session | None:
        """Return the newest state that a state in hand led to, or None when the session has ended."""
        record = self._records.get(session.id)
        if record is None:
            return None if session.id in self._ended else session
        with self._lock:
            return session if _find(record.ancestors, session, now) is None else record.newest

    def is_spent(self, session: Session, now: float) -> bool:
        """Tell whether this state's refresh token was replaced here, so long ago that it leads nowhere any more."""
        record = self._records.get(session.id)
        if record is None or session.refresh_token in (None, record.newest.refresh_token):
            return False
        digest = _token(session)
        with self._lock:
            forgotten = [ancestor.digest for ancestor in record.ancestors if now >= ancestor.forget_at]
            return digest in forgotten or digest in record.spent

    def save(self, session: Session, *, spent: str | None, now: float) -> bool:
        """Keep a successor; `spent` is the refresh token that it replaced. Return False when its session has ended.

        A state that is not newer than the newest known is not kept.
        """
        with self._lock:
            if session.id in self._ended:
                return False
            record = self._records.get(session.id)
            before = _Ancestor(_digest(spent), _NEVER) if spent else _Ancestor(_token(session), session.version - 1)
            if record is not None:
                if session.version > record.newest.version:
                    self._follow(record, session, _mark(record.newest), now)
                    if spent:
                        record.ancestors.append(before)
            elif session.version >= self._versions.get(session.id, 0):
                record = _Record(session, self._end_of(session, now), [before])
                self._records.put(session.id, record, now=now)
            if spent:
                self._remember_made(session)
            return True

    def newest(self, session_id: str) -> Session | None:
        """Return the newest state that this process made or saw since it made one, if any."""
        record = self._records.get(session_id)
        return None if record is None else record.newest

    def is_newest(self, session: Session) -> bool:
        """Tell whether no later version of the session is known."""
        newest = self.newest(session.id)
        known = self._versions.get(session.id, 0)
        return session.version >= max(known, 0 if newest is None else newest.version)

    def was_delivered(self, session: Session, since: float) -> bool:
        """Tell whether a browser presented this state at `since` (seconds since 1970) or later."""
        record = self._records.get(session.id)
        if record is None or record.seen_at is None or record.newest.version != session.version:
            return False
        return record.seen_at >= since

    def is_ended(self, session_id: str) -> bool:
        """Tell whether the session has ended, as far as this process knows."""
        return session_id in self._ended

    def is_long_ended(self, session_id: str, now: float) -> bool:
        """Tell whether the session ended a minute ago or earlier.

        Before that its cookie may just be giving way to that of a new sign-in, which a deletion would hit.
        """
        end = self._ended.get(session_id)
        return end is not None and end.at + _GRACE <= now

    def was_replaced(self, session_id: str) -> bool:
        """Tell whether the session ended because a new sign-in took its place."""
        end = self._ended.get(session_id)
        return end is not None and end.replaced

    def end(self, session: Session, now: float, *, replaced: bool = False) -> None:
        """Forget every state of the session, and remember until after its absolute end that it has ended."""
        with self._lock:
            known = self._ended.get(session.id, _End(now, replaced))
            self._ended[session.id] = _End(known.at, known.replaced or replaced)
            self._records.drop(session.id)
            self._versions.pop(session.id, None)
            self._made.pop(session.id, None)
            for oldest in list(islice(self._ended, 2)):
                if self._ended[oldest].at + self._absolute <= now:
                    del self._ended[oldest]
            _shorten(self._ended)

    def _remember_made(self, session: Session) -> None:
        self._made.pop(session.id, None)
        self._made[session.id] = _token(session)[:_MARK]
        _shorten(self._made)

    def _end_of(self, session: Session, now: float) -> float:
        """Return when the last cookie that leads to this state has expired."""
        return min(max(session.sealed_at, now) + self._idle, session.created_at + self._absolute)

    def _follow(self, record: _Record, session: Session, before: _Ancestor, now: float) -> None:
        record.ancestors.append(before)
        del record.ancestors[:-_MAX_ANCESTORS]
        record.newest = session
        record.seen_at = None
        record.expires_at = self._end_of(session, now)

    def _saw(self, newest: Session, record: _Record, now: float) -> None:
        with self._lock:
            if record.newest is newest:  # Another thread may have saved a successor just now.
                self._meet(record, now)

    @staticmethod
    def _meet(record: _Record, now: float) -> None:
        """Note that the newest state was presented: from now on its ancestors have their grace."""
        if record.seen_at is None:
            record.seen_at = now
        _let_go(record.ancestors, now)
        gone = [ancestor.digest for ancestor in record.ancestors if now >= ancestor.forget_at]
        if gone:
            record.ancestors = [ancestor for ancestor in record.ancestors if now < ancestor.forget_at]
            record.spent = (record.spent + gone)[-_MAX_ANCESTORS:]


def _find(ancestors: list[_Ancestor], session: Session, now: float) -> int | None:
    """Return where among the ancestors the session is, unless it is forgotten."""
    digest = _token(session)
    for index, ancestor in enumerate(ancestors):
        if ancestor.digest == digest and session.version <= ancestor.version:
            return index if now < ancestor.forget_at else None
    return None


def _let_go(ancestors: list[_Ancestor], now: float) -> None:
    for ancestor in ancestors:
        ancestor.forget_at = min(ancestor.forget_at, now + _GRACE)


def _mark(session: Session) -> _Ancestor:
    return _Ancestor(_token(session), session.version)


def _token(session: Session) -> bytes:
    return _digest(session.refresh_token or "")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _shorten(notes: OrderedDict[str, Any]) -> None:
    while len(notes) > _MAX_NOTES:
        notes.popitem(last=False)

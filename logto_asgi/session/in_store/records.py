"""What lies in a store, sealed: sessions, and tombstones of ended ones. Knows no store.

Each record repeats the key that it lies under, so that a copy does not open under another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from logto_asgi.errors import SessionTooLarge
from logto_asgi.models import Session
from logto_asgi.session.fitting import fit
from logto_asgi.session.sealing import Sealer, Unsealable
from logto_asgi.session.serialization import parse_session

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig

__all__ = ["Live", "Mark", "Records", "Tombstone", "Unreadable", "Word", "key_of", "key_of_state"]

Word = Literal["ended", "replaced"]
"""Why a session is over: signed out or refused, or because the same browser signed in anew."""

_CAPACITY = 64_512
"""Sealed characters of a session, about 48 KiB of JSON: what can be opened, less what is around it in a record."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A refresh in flight: since when, in seconds since 1970, and whose. `over`: it has ended, nobody knows how."""

    at: int
    by: str
    over: bool = False


@dataclass(frozen=True, slots=True)
class Live:
    """A session that goes on. `saved_at` (seconds since 1970) is when this state of it was made."""

    session: Session
    saved_at: int
    mark: Mark | None = None
    is_outdated: bool = False
    """Whether an older secret than the first sealed it."""


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What is left of an ended session for a moment, for whoever refreshes it just now."""

    word: Word


class Unreadable(Exception):
    """A record that does not open: a word for logs, and whether it may be a newer worker's with a new secret."""

    def __init__(self, problem: str, *, may_be_newer: bool = False) -> None:
        super().__init__(problem)
        self.problem = problem
        self.may_be_newer = may_be_newer


def key_of(session_id: str) -> str:
    """Return the key of a session. A digest: whoever reads the store learns no id."""
    return hashlib.sha256(session_id.encode("utf-8", "surrogatepass")).hexdigest()


def key_of_state(state: str) -> str:
    """Return the key of a sign-in's outcome. No session id holds a space, so none has this key."""
    return key_of(f"state {state}")


class Records:
    """Seals and opens records. The first secret seals, all open."""

    def __init__(self, config: LogtoConfig) -> None:
        secrets = [secret.get_secret_value() for secret in config.cookie_secrets]
        self._sealer = Sealer(secrets, purpose="store", issuer=config.issuer, client_id=config.app_id)

    def __repr__(self) -> str:
        return "<Records>"

    def seal_session(self, key: str, session: Session, *, saved_at: int, mark: Mark | None = None) -> str:
        """Return a session's record. The least recently used access tokens are left out of one beyond 48 KiB.

        Raise `SessionTooLarge` when the claims alone are too large.
        """
        record: dict[str, Any] = {"k": key, "d": self._fitted(session), "w": saved_at}
        if mark is not None:
            record["m"] = [mark.at, mark.by, mark.over]
        return self._sealer.seal(record)

    def _fitted(self, session: Session) -> dict[str, Any]:
        try:
            return fit(session, self._sealer, capacity=_CAPACITY)
        except SessionTooLarge:
            pass  # Its text speaks of cookies.
        raise SessionTooLarge(
            "The claims of this user are too large for a session: more than 48 KiB. Ask for fewer scopes; custom_data, "
            "identities and organization_roles are the usual large ones, and fetch_user_info() brings them when needed."
        )

    def seal_tombstone(self, key: str, word: Word) -> str:
        """Return the record of a session that is over."""
        return self._sealer.seal({"k": key, "x": word})

    def open(self, key: str, value: str) -> Live | Tombstone:
        """Return what lies under a session's key. Raise `Unreadable`."""
        record = self._opened(key, value)
        if record.get("x") in ("ended", "replaced"):
            return Tombstone(record["x"])
        try:
            session = parse_session(_mapping(record.get("d")))
            saved_at, mark = _whole(record.get("w")), _mark(record.get("m"))
        except ValueError:
            raise Unreadable("malformed") from None
        return Live(session, saved_at, mark, is_outdated=not value.startswith(self._first_header))

    def _opened(self, key: str, value: str) -> dict[str, Any]:
        try:
            record = self._sealer.open(value)
        except Unsealable as error:
            raise Unreadable(error.reason, may_be_newer=error.reason == "unknown_key") from None
        if record.get("k") != key:
            raise Unreadable("copied")
        return record

    @cached_property
    def _first_header(self) -> str:
        """How every value begins that the first secret seals."""
        return self._sealer.seal({}).partition(".")[0] + "."


def _mark(value: object) -> Mark | None:
    match value:
        case None:
            return None
        case [int(at), str(by), bool(over)]:
            return Mark(at, by, over)
    raise ValueError("not a mark")


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _whole(value: object) -> int:
    if not isinstance(value, int):
        raise ValueError("not a number")
    return value

"""What went wrong at Redis, as an error of ours and one line in the log. Knows no session, and shows no credentials."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from logto_asgi.errors import StoreFull, StoreUnavailable

__all__ = ["Complaints", "is_wrong_type", "refuses_writes"]

_log = logging.getLogger("logto_asgi")


@dataclass(frozen=True, slots=True)
class _Fault:
    error: type[StoreUnavailable]
    message: str
    """For a visitor."""
    log: str
    """For whoever runs the app: with the remedy."""


_AWAY = _Fault(
    StoreUnavailable,
    "The session store cannot be reached. Try again in a moment.",
    "Redis does not answer (%s): sessions cannot be read until it does. Is it running, and is its URL right?",
)
_LATE = _Fault(
    StoreUnavailable,
    "The session store takes too long to answer. Try again in a moment.",
    "Redis does not answer in time (%s): is it stopped, overloaded, or behind a firewall?",
)
_ACCESS = _Fault(
    StoreUnavailable,
    "The session store refuses this app.",
    "Redis refuses this app (%s): check the user and password in its URL, and that its ACL allows EVAL, EVALSHA, and"
    " the commands HMGET, HSET, EXPIRE, SET, GET, DEL, ZADD, ZREM, ZRANGE, ZRANGEBYSCORE, ZREMRANGEBYSCORE, PEXPIREAT"
    " and TIME on its keys.",
)
_READ_ONLY = _Fault(
    StoreUnavailable,
    "The session store takes no changes at the moment. Try again in a moment.",
    "Redis is a read-only replica (%s): give the app the master, by Sentinel where masters change.",
)
_FULL = _Fault(
    StoreFull,
    "The session store is full.",
    "Redis is full (%s): nobody can sign in and nothing is refreshed. Raise its maxmemory.",
)
_NO_WRITES = _Fault(
    StoreFull,
    "The session store takes nothing in.",
    "Redis refuses to write (%s): its disk is full, or fails. Its own log says more.",
)
_ALONE = _Fault(
    StoreUnavailable,
    "The session store takes no changes at the moment. Try again in a moment.",
    "Redis has fewer replicas than min-replicas-to-write asks for (%s). It may be cut off from them, and another one be"
    " the master by now: what it holds is not believed until they are back.",
)
_TIMEOUT = "TimeoutError"
_FAULTS: dict[str, _Fault] = {
    "OutOfMemoryError": _FULL,
    "OOM": _FULL,
    "MISCONF": _NO_WRITES,
    "NOREPLICAS": _ALONE,
    "AuthenticationError": _ACCESS,
    "AuthenticationWrongNumberOfArgsError": _ACCESS,
    "AuthorizationError": _ACCESS,
    "NoPermissionError": _ACCESS,
    "ReadOnlyError": _READ_ONLY,
    _TIMEOUT: _LATE,
}
"""By the class of redis-py, or by the word that the answer of Redis begins with."""


class Complaints:
    """Turns failures into errors, and logs each kind once until something has worked again."""

    def __init__(self) -> None:
        self._made: set[str] = set()

    def translate(self, error: BaseException) -> BaseException:
        """Return the `StoreUnavailable` or `StoreFull` that stands for a failure of Redis; another error as it is."""
        from redis.exceptions import RedisClusterException, RedisError

        if not isinstance(error, RedisError | RedisClusterException | OSError | TimeoutError):
            return error
        kind = _kind_of(error)
        return self._make(kind, _FAULTS.get(kind, _AWAY))

    def late(self) -> StoreUnavailable:
        """Return the error of a call that took too long."""
        return self._make(_TIMEOUT, _LATE)

    def withdraw(self) -> None:
        """Note that something has worked: what fails from now on is said again."""
        if self._made:
            self._made = set()

    def _make(self, kind: str, fault: _Fault) -> StoreUnavailable:
        if kind not in self._made:
            self._made.add(kind)
            _log.error(fault.log, kind)
        return fault.error(fault.message)


def is_wrong_type(error: BaseException | None) -> bool:
    """Tell whether a key holds something else than it must."""
    return _word_of(error) == "WRONGTYPE"


def refuses_writes(error: BaseException | None) -> bool:
    """Tell whether Redis answers, but takes no change of any kind, because of its disk."""
    return _FAULTS.get(_word_of(error)) is _NO_WRITES


def _kind_of(error: BaseException) -> str:
    """Return the key of the fault. redis-py may wrap what Redis says to a new connection into a `ConnectionError`."""
    said: BaseException | None = error
    while said is not None:
        for kind in (_word_of(said), *(base.__name__ for base in type(said).__mro__)):
            if kind in _FAULTS:
                return kind
        said = said.__cause__
    return type(error).__name__


def _word_of(error: BaseException | None) -> str:
    """Return the word in capitals that an answer of Redis begins with."""
    return str(error).partition(" ")[0] if error is not None else ""

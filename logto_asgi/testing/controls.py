"""Levers for tests: answers that fail, answers that are late, and a log of what was called.

It knows names of endpoints and nothing else; no parameter, header or token ever reaches the log.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.responses import JSONResponse, PlainTextResponse, Response

__all__ = ["ENDPOINTS", "Faults", "LoggedRequest", "RequestLog"]

ENDPOINTS = (
    "discovery",
    "jwks",
    "authorization",
    "interaction",
    "token",
    "userinfo",
    "revocation",
    "introspection",
    "end_session",
)


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request: the endpoint, and for the token endpoint the kind of grant."""

    endpoint: str
    grant_type: str | None = None


class RequestLog:
    """What was called, oldest first; the newest 10,000 are kept."""

    def __init__(self) -> None:
        self.entries: deque[LoggedRequest] = deque(maxlen=10_000)

    def add(self, endpoint: str, grant_type: str | None = None) -> None:
        """Note a request when it arrives."""
        self.entries.append(LoggedRequest(endpoint, grant_type))

    def count(self, endpoint: str, grant_type: str | None = None) -> int:
        """Return how often an endpoint was called, or how often with one kind of grant."""
        check_endpoint(endpoint)
        return sum(each.endpoint == endpoint and grant_type in (None, each.grant_type) for each in self.entries)

    def counts(self) -> Mapping[str, int]:
        """Return the number of calls by endpoint."""
        return Counter(each.endpoint for each in self.entries)

    def clear(self) -> None:
        """Forget everything."""
        self.entries.clear()


@dataclass(frozen=True, slots=True)
class _Fault:
    status: int
    headers: Mapping[str, str]
    body: Mapping[str, object] | str | None

    def response(self) -> Response:
        if isinstance(self.body, str):
            return PlainTextResponse(self.body, status_code=self.status, headers=dict(self.headers))
        body = self.body or {"code": "development.fail_next", "message": "a failure that a test asked for"}
        return JSONResponse(dict(body), status_code=self.status, headers=dict(self.headers))


@dataclass(slots=True)
class Faults:
    """Failures and delays that were ordered, by endpoint."""

    _failures: dict[str, deque[_Fault]] = field(default_factory=dict)
    _delays: dict[str, tuple[float, bool]] = field(default_factory=dict)

    def fail(
        self, endpoint: str, status: int, headers: Mapping[str, str] | None, body: Mapping[str, object] | str | None
    ) -> None:
        """Order one failure; several are used up one after the other."""
        check_endpoint(endpoint)
        self._failures.setdefault(endpoint, deque()).append(_Fault(status, headers or {}, body))

    def delay(self, endpoint: str, seconds: float, after: bool) -> None:
        """Make every answer late, until 0 seconds are ordered."""
        check_endpoint(endpoint)
        self._delays[endpoint] = (seconds, after)

    def take(self, endpoint: str) -> Response | None:
        """Return the failure that is next, and forget it."""
        waiting = self._failures.get(endpoint)
        return waiting.popleft().response() if waiting else None

    def wait(self, endpoint: str, *, after: bool) -> float:
        """Return how many seconds to wait before the work, or after it."""
        seconds, is_after = self._delays.get(endpoint, (0.0, False))
        return seconds if is_after == after else 0.0


def check_endpoint(endpoint: str) -> None:
    """Raise `ValueError` for a name that is no endpoint, so that a typo in a test does not pass silently."""
    if endpoint not in ENDPOINTS:
        raise ValueError(f"no endpoint is called {endpoint!r}; there are {', '.join(ENDPOINTS)}")

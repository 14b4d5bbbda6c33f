"""Count what happens to sessions, log it, and tell the app. It knows no session, request or store, and no secret."""

from __future__ import annotations

import inspect
import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

__all__ = ["EVENTS", "EVENT_NAMES", "Event", "Events"]

logger = logging.getLogger("logto_asgi")

EVENTS: Mapping[str, str] = MappingProxyType(
    {
        "session.started": "Somebody signed in.",
        "session.ended": "A session is over: signed out, signed in anew, or ended by the issuer.",
        "refresh.done": "The issuer answered a refresh, and its answer is kept.",
        "refresh.refused": "The issuer refused a refresh token (invalid_grant).",
        "token.refused": "The issuer gave no token for a resource or organization; a session goes on.",
        "refresh.failed": "A refresh brought nothing: the issuer is down, slow or busy. The session goes on.",
        "refresh.interrupted": "A refresh found the mark of an earlier one whose end nobody saw, and tries once.",
        "refresh.lost": "The issuer refused after such an interrupted refresh: its answer was lost, the user signs in.",
        "refresh.retried": "A refresh was sent a second time; the first was surely not processed.",
        "refresh.discarded": "The answer to a refresh was thrown away: its session had ended meanwhile.",
        "save.deferred": "A session could not be saved: the store is away. It is kept and tried again.",
        "save.recovered": "A session that was kept so is in the store now.",
        "save.overtaken": "A session was not saved: somebody else saved a newer state first.",
        "save.lost": "A session that was kept so was given up, or its process stopped before the store came back.",
        "store.down": "The session store does not answer; requests that read a user get 503.",
        "store.back": "The session store answers again.",
        "store.healed": "A store restored from an older state got back what this process still knew.",
        "record.refused": "A stored session could not be opened or belongs to another key; it was removed.",
        "cookie.other_process": "A cookie session's refresh token may have been used by another process: use store=.",
        "bearer.refused": "A caller's access token was refused; the fact `reason` names the check.",
        "bearer.introspected": "The issuer was asked about an opaque access token.",
        "claims.stale": "The claims of a user are older than wished, and could not be refreshed.",
    }
)
"""Every event: its name and what it means."""

EVENT_NAMES: tuple[str, ...] = tuple(EVENTS)


@dataclass(frozen=True, slots=True)
class Event:
    """What the app's `on_event` is called with. `message` may be empty; `facts` are plain values and no secrets."""

    name: str
    message: str = ""
    facts: Mapping[str, str | int | float] = field(default_factory=dict)


class Events:
    """Notes what happens, in any thread.

    `on_event` is called where the event happens, often on an event loop: it must be a plain function that returns
    quickly. Nothing that it raises reaches a request.
    """

    def __init__(self, on_event: Callable[[Event], None] | None = None) -> None:
        if inspect.iscoroutinefunction(on_event) or inspect.iscoroutinefunction(type(on_event).__call__):
            raise TypeError("on_event must be a plain function: a coroutine would never be awaited.")
        self._on_event = on_event
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def counts(self) -> Mapping[str, int]:
        """Return how often each event happened so far; a copy, read-only, without those that never did."""
        with self._lock:
            return MappingProxyType(dict(self._counts))

    def note(self, name: str, message: str = "", *, level: int = logging.INFO, **facts: str | int | float) -> None:
        """Count an event, log its message if there is one, and tell the app.

        Raise ValueError for a name that is not in `EVENTS`, TypeError for a fact that is no str, int, float or bool:
        an object could bring a secret along.
        """
        if name not in EVENTS:
            raise ValueError(f"No event is called {name!r}: the names are those of logto_asgi.events.EVENTS.")
        for fact, value in facts.items():
            if not isinstance(value, str | int | float):
                raise TypeError(f"The fact {fact!r} of {name} is a {type(value).__name__}, not a plain value.")
        with self._lock:
            self._counts[name] += 1
        if message:
            logger.log(level, "%s", message)
        if self._on_event is not None:
            self._tell(self._on_event, Event(name, message, MappingProxyType(facts)))

    @staticmethod
    def _tell(on_event: Callable[[Event], None], event: Event) -> None:
        try:
            on_event(event)
        except Exception as error:  # noqa: BLE001 - the app's own code: its fault must not fail a request or refresh
            logger.warning("on_event raised %s at %s", type(error).__name__, event.name)

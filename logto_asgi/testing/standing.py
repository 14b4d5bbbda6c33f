"""Who answers for a runtime during a test: the newest of those put up. Knows no session and no token."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from logto_asgi.runtime import Logto

__all__ = ["Answers", "Standing", "standing_for"]

Answers = list[tuple[Any, str, Callable[..., Any]]]
"""Where requests ask, by object and name of its method, and what answers there instead."""

_lock = threading.Lock()
_standing: dict[Logto, list[Standing]] = {}
_before: dict[Logto, dict[tuple[int, str], tuple[Any, Any]]] = {}


class Standing(ABC):
    """Answers in place of one runtime's own methods, from `put_up` to `take_down`."""

    def __init__(self, runtime: Logto) -> None:
        self._runtime = runtime

    @abstractmethod
    def answers(self) -> Answers:
        """Return what to answer, and where. A place that another one stood in, and this one does not, is as ever."""

    def put_up(self) -> None:
        """Answer from now on, also in place of somebody who is already there."""
        with _lock:
            _standing.setdefault(self._runtime, []).append(self)
            _change(self._runtime)

    def take_down(self) -> None:
        """Leave; who was there before answers again."""
        with _lock:
            _standing[self._runtime].remove(self)
            _change(self._runtime)


def standing_for(runtime: Logto) -> Standing | None:
    """Return who answers for a runtime, if it is not the runtime itself."""
    others = _standing.get(runtime)
    return others[-1] if others else None


def _change(runtime: Logto) -> None:
    """Let the newest one answer, and nobody else: what it leaves alone is put back."""
    before, top = _before.setdefault(runtime, {}), standing_for(runtime)
    answers = [] if top is None else top.answers()
    for place, name, answer in answers:
        before.setdefault((id(place), name), (place, place.__dict__.get(name)))
        place.__dict__[name] = answer
    for key in before.keys() - {(id(place), name) for place, name, _ in answers}:
        place, own = before.pop(key)
        place.__dict__.pop(key[1], None)
        if own is not None:
            place.__dict__[key[1]] = own
    if top is None:
        del _standing[runtime], _before[runtime]

"""Collect what is wrong with a configuration, so that all of it is said at once. It knows no rule."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

from logto_asgi.errors import ConfigurationProblem

__all__ = ["Faults", "Wrong", "closest", "each", "shown"]

T = TypeVar("T")


class Wrong(Exception):
    """A value has faults. Each is a pair: what is wrong, said of the field, and what to do about it."""

    def __init__(self, *faults: tuple[str, str]) -> None:
        super().__init__()
        self.faults = faults


class Faults:
    """The problems found so far. `origins` says which fields came from which environment variable."""

    def __init__(self, origins: Mapping[str, str]) -> None:
        self._origins = origins
        self.problems: list[ConfigurationProblem] = []

    def add(self, field: str, fault: str, remedy: str) -> None:
        """Note one problem, with the variable that the value was read from."""
        if field in self._origins:
            fault = f"{fault.removesuffix('.')} ({self._origins[field]})."
        self.problems.append(ConfigurationProblem(field, fault, remedy))

    def attempt(self, field: str, parse: Callable[[], object], into: dict[str, object]) -> None:
        """Put the parsed value under the field's name, or note what is wrong with it."""
        try:
            into[field] = parse()
        except Wrong as wrong:
            for fault, remedy in wrong.faults:
                self.add(field, fault, remedy)


def each(items: Iterable[str], check: Callable[[str], T]) -> tuple[T, ...]:
    """Check all items before complaining, so that a list with three faults says three. Drop repeated items."""
    checked: dict[T, None] = {}
    faults: list[tuple[str, str]] = []
    for item in items:
        try:
            checked[check(item)] = None
        except Wrong as wrong:
            faults.extend(wrong.faults)
    if faults:
        raise Wrong(*faults)
    return tuple(checked)


def closest(word: str, known: Iterable[str], *, cutoff: float = 0.7) -> str | None:
    """Return the known word that is most like `word`, if one is at all."""
    matches = get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return matches[0] if matches else None


def shown(value: str) -> str:
    """Return a value that is not secret for a message: short, printable, without the password or query of a URL."""
    bare = re.sub(r"^([a-z][a-z0-9+.-]*://)?.*@", r"\1…@", value, flags=re.DOTALL | re.IGNORECASE)
    bare = re.sub(r"([?#]).*", r"\1…", bare, flags=re.DOTALL)
    return ascii(bare if len(bare) <= 80 else bare[:79] + "…").replace("\\u2026", "…")

"""Short rounds that alternate between variants, so that a busy machine is busy for all of them alike.

Time is CPU time of this process: what other processes do in between does not count.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Mapping
from statistics import median
from typing import Any

from bench_apps import Variant

__all__ = ["Rounds", "measure", "requests_of"]

WARM_UP = 2
"""Rounds that are not counted."""
WAKE_UP = 3
"""Requests of every round that are not counted: the variant before has filled the processor's caches with its own."""


def requests_of(rounds: int, requests: int) -> int:
    """Return how many requests each variant gets in all."""
    return (WARM_UP + rounds) * (WAKE_UP + requests) + 1


class Rounds:
    """Microseconds per request: of every variant, in every round."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self.taken: dict[str, list[float]] = {name: [] for name in names}

    def time(self, name: str) -> float:
        """Return the median of the rounds."""
        return median(self.taken[name])

    def over(self, name: str, baseline: str) -> float:
        """Return the median of the differences within each round: what slowed a whole round down cancels out."""
        return median(one - other for one, other in zip(self.taken[name], self.taken[baseline], strict=True))


async def measure(variants: Mapping[str, Variant], *, rounds: int, requests: int) -> Rounds:
    """Run each variant `requests` times in each of `rounds`, which all have an order of their own."""
    result = Rounds(variants)
    names = list(variants)
    shuffle = random.Random(1).shuffle
    for name in names:
        await _check(name, variants[name])
    gc.collect()
    gc.freeze()
    for number in range(-WARM_UP, rounds):
        shuffle(names)
        for name in names:
            taken = await _run(variants[name], requests)
            if number >= 0:
                result.taken[name].append(taken)
    gc.unfreeze()
    return result


async def _run(variant: Variant, requests: int) -> float:
    app, scopes = variant.app, variant.scopes(requests)
    for scope in variant.scopes(WAKE_UP):
        await app(scope, _receive, _send)
    start = time.process_time()
    while scopes:
        await app(scopes.pop(), _receive, _send)
    return (time.process_time() - start) / requests * 1e6


async def _check(name: str, variant: Variant) -> None:
    """Hold every variant to the same answer; a guard that refused would be fast."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    (scope,) = variant.scopes(1)
    await variant.app(scope, _receive, send)
    if sent[0]["status"] != 200 or sent[1]["body"] != b"Ada Lovelace":
        raise RuntimeError(f"{name} answers {sent}")


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: Any) -> None:
    return None

"""Judge whether a secret could have been made up by a person. It knows nothing of what the secret is for."""

from __future__ import annotations

import math
import re
from collections import Counter
from itertools import pairwise

__all__ = ["MIN_LENGTH", "is_guessable"]

MIN_LENGTH = 32
_MIN_BITS = 80.0
"""What 32 random digits pass; estimated from the characters' own frequencies."""
_COMMON = re.compile(
    "secret|password|change|cookie|example|replace|default|testing|development|insecure|qwerty|asdfgh|12345678|abcdefg",
    re.IGNORECASE,
)
"""Six letters and more, which turn up in random text once in millions of secrets."""


def is_guessable(secret: str) -> bool:
    """Tell whether the text is common words, a repetition or a row of the alphabet rather than random."""
    return bool(_COMMON.search(secret)) or _bits(secret) < _MIN_BITS or _repeats(secret) or _counts(secret)


def _bits(secret: str) -> float:
    size = len(secret)
    return -sum(count * math.log2(count / size) for count in Counter(secret).values())


def _repeats(secret: str) -> bool:
    """Random text of 32 hexadecimal digits repeats hardly one group of three in twenty."""
    groups = [secret[start : start + 3] for start in range(len(secret) - 2)]
    return len(set(groups)) < 0.7 * min(len(groups), 256)


def _counts(secret: str) -> bool:
    """A row such as `abcd`, `4321` or `aaaa` steps by one or none nearly always; random digits do so at 28 %."""
    steps = [abs(ord(after) - ord(before)) <= 1 for before, after in pairwise(secret)]
    return sum(steps) > 0.6 * len(steps)

"""docs/refusals.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROWS = re.findall(
    r"^\| (.+?) \| (.+?) \| `([\w/]+\.py)`: `(\w+)",
    (TESTS.parent / "docs/refusals.md").read_text("utf-8"),
    re.MULTILINE,
)


def test_every_test_that_the_page_names_exists() -> None:
    """A reader can open the test of each refusal; a renamed test is renamed on the page too."""
    assert len(ROWS) > 100
    missing = [
        f"{file}: {name}"
        for _, _, file, name in ROWS
        if not (TESTS / file).is_file() or f"def {name}(" not in (TESTS / file).read_text("utf-8")
    ]
    assert missing == []

"""docs/refusals.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
ROWS = re.findall(
    r"^\| (.+?) \| (.+?) \| `([\w/]+\.py)`: `(\w+)",
    (ROOT / "docs/refusals.md").read_text("utf-8"),
    re.MULTILINE,
)


def text_of(file: str) -> str:
    """Return a file of tests; those that every store inherits are in the package. An empty text where there is none."""
    path = (ROOT if file.startswith("logto_asgi/") else TESTS) / file
    return path.read_text("utf-8") if path.is_file() else ""


def test_every_test_that_the_page_names_exists() -> None:
    """A reader can open the test of each refusal; a renamed test is renamed on the page too."""
    assert len(ROWS) > 100
    missing = [f"{file}: {name}" for _, _, file, name in ROWS if f"def {name}(" not in text_of(file)]
    assert missing == []

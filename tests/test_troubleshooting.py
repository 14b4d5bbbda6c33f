"""docs/troubleshooting.md and the code name the same errors."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from logto_asgi import LogtoError
from logto_asgi.oidc.token_endpoint import _REMEDIES

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
ERRORS = importlib.import_module("logto_asgi.errors")
CLASSES = [value for value in vars(ERRORS).values() if isinstance(value, type) and issubclass(value, LogtoError)]
PAGES = re.findall(r'detail="(\w+)"', (ROOT / "logto_asgi" / "notices.py").read_text("utf-8"))


def section(code: str) -> str:
    found = re.search(rf"^### {code}\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"troubleshooting.md has no section {code}"
    return found[1]


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_every_error_has_its_section(error: type[LogtoError]) -> None:
    """A reader who has a code finds the class, its status and what to do."""
    text = section(error.code)
    assert f"`{error.__name__}`" in text
    status = getattr(error, "status", None)
    if status is not None and "not raised itself" not in text:
        assert f"status {status}" in text


@pytest.mark.parametrize("code", PAGES)
def test_every_code_of_a_page_has_its_section(code: str) -> None:
    """The last line of an error page is a heading here."""
    assert section(code)


def test_no_section_is_about_an_error_that_does_not_exist() -> None:
    """A code that has gone from the library goes from the page."""
    codes = {error.code for error in CLASSES} | set(PAGES)
    assert set(re.findall(r"^### (\w+)$", PAGE, re.MULTILINE)) == codes


def test_every_check_that_can_fail_is_explained() -> None:
    """What `VerificationError.check` may say is in the table."""
    text = section("verification_failed")
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "logto_asgi" / "oidc").glob("*.py"))
    checks = set(re.findall(r'VerificationError\(\s*"(\w+)"', sources))
    assert {check for check in checks if f"`{check}`" not in text} == set()


def test_refusals_of_the_client_are_explained() -> None:
    """The issuer's codes that the library has a remedy for are on the page."""
    others = {"invalid_grant", "invalid_token"}  # a section of its own; asked again by the library itself
    assert [code for code in _REMEDIES.keys() - others if f"`{code}`" not in PAGE] == []

"""What leaves in headers: text that cannot break out of its line."""

from __future__ import annotations

import pytest

from logto_asgi.responses import redirect


@pytest.mark.parametrize("text", ["a\r\nSet-Cookie: x=1", "a\nb", "a\rb", "ü", "a\x00b", "\x7f"])
def test_redirect_goes_to_printable_ascii_only(text: str) -> None:
    """Line breaks, controls and anything beyond ASCII are refused (security line 35)."""
    with pytest.raises(ValueError, match="printable ASCII"):
        redirect(text, 303)


def test_redirect_keeps_an_address() -> None:
    """A URL passes unchanged."""
    assert redirect("https://app.example.com/a?b=%20", 302).headers["location"] == "https://app.example.com/a?b=%20"

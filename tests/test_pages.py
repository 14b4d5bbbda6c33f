"""Facts about the pages that a visitor sees."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from logto_asgi.pages import PAGE_STYLE, Action, page_headers, render_page

HOSTILE = "<script>alert(1)</script>\"'&"


class Reader(HTMLParser):
    """Collects the tags, with attributes, and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page(**changes: object) -> str:
    arguments: dict[str, object] = {"title": "T", "heading": "H", "paragraphs": ["P"], **changes}
    return render_page(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"title": HOSTILE},
        {"heading": HOSTILE},
        {"paragraphs": [HOSTILE]},
        {"detail": HOSTILE},
        {"actions": [Action(HOSTILE, "/")]},
        {"actions": [Action("Go", "/?a=" + HOSTILE)]},
        {"actions": [Action(HOSTILE, "/", method="POST")]},
        {"actions": [Action("Go", "/?a=" + HOSTILE, method="POST")]},
        {"actions": [Action("Go", "/", method="POST", fields={HOSTILE: "x"})]},
        {"actions": [Action("Go", "/", method="POST", fields={"x": HOSTILE})]},
    ],
)
def test_every_argument_is_escaped(changes: dict[str, object]) -> None:
    """Foreign text never becomes a tag or an attribute, wherever it stands."""
    html = page(**changes)
    seen = Reader(html)
    assert "<script" not in html
    assert not seen.all("script")
    values = [text for _, attributes in seen.tags for text in (*attributes, *attributes.values()) if text]
    assert any(HOSTILE in text for text in [*values, "".join(seen.text)])


def test_a_link_a_form_and_a_form_by_get() -> None:
    """An action is a link unless it posts or carries fields; a form works without scripts."""
    seen = Reader(
        page(
            actions=[
                Action("Home", "/", primary=True),
                Action("Out", "/out", method="POST"),
                Action("Again", "/in", fields={"return_to": "/a?b=1"}),
            ]
        )
    )
    assert seen.all("a") == [{"class": "button primary", "href": "/"}]
    assert seen.all("form") == [{"method": "post", "action": "/out"}, {"method": "get", "action": "/in"}]
    assert seen.all("input") == [{"type": "hidden", "name": "return_to", "value": "/a?b=1"}]


@pytest.mark.parametrize(
    "href",
    [
        "javascript:alert(1)",
        "JavaScript:alert(1)",
        "data:text/html,x",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "/a\nb",
        " https://x.example",
        "sign-in",
        "",
    ],
)
def test_an_action_leads_to_a_path_or_a_web_address(href: str) -> None:
    """An address that could run a script or leave by a trick is refused when the action is made."""
    with pytest.raises(ValueError, match="an action leads to"):
        Action("Go", href)


def test_an_action_is_sent_by_get_or_post() -> None:
    """Another method would be a plain link in a browser: it is refused."""
    with pytest.raises(ValueError, match="GET or POST"):
        Action("Go", "/", method="DELETE")  # type: ignore[arg-type]


@pytest.mark.parametrize(("tone", "mark"), [("neutral", None), ("error", "!"), ("success", "✓")])
def test_a_tone_has_a_mark_that_readers_skip(tone: str, mark: str | None) -> None:
    """The tone shows as a mark that a screen reader does not read out."""
    marks = [item for item in Reader(page(tone=tone)).all("div") if item.get("class") == "mark"]
    assert marks == ([] if mark is None else [{"class": "mark", "aria-hidden": "true"}])
    assert mark is None or mark in page(tone=tone)


def test_the_policy_allows_exactly_the_style_of_the_page() -> None:
    """The hash in `style-src` is the hash of what stands between the style tags."""
    style = re.search(r"<style>(.*)</style>", page(), re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in page_headers()["Content-Security-Policy"]


def test_the_headers_of_a_page() -> None:
    """A page is not stored, framed, sniffed or named to others, and sends no form unless told."""
    headers = page_headers()
    policy = headers.pop("Content-Security-Policy").split("; ")
    assert headers == {
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    assert {"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"} <= set(policy)


def test_forms_may_lead_where_the_caller_says() -> None:
    """The sources are joined into one directive."""
    policy = page_headers(["'self'", "https://tenant.logto.app"])["Content-Security-Policy"]
    assert policy.endswith("form-action 'self' https://tenant.logto.app")


@pytest.mark.parametrize("source", ["'self'; script-src *", "a b", "a,b", "a\r\nX: y", "https://exämple"])
def test_a_source_cannot_end_the_directive(source: str) -> None:
    """A source with a separator, a line break or foreign letters is refused."""
    with pytest.raises(ValueError, match="one word"):
        page_headers([source])


def test_no_page_needs_a_script_an_image_or_another_host() -> None:
    """The page is complete by itself."""
    assert not re.search(r"<(script|img|link|iframe)|url\(|@import", page(tone="error", detail="x"))
    assert "https:" not in PAGE_STYLE


def _luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    digits = "".join(digit * 2 for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[index : index + 2], 16) / 255 for index in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("front", "back", "least"),
    [
        ("text", "card", 4.5),
        ("soft", "card", 4.5),
        ("text", "quiet", 4.5),
        ("soft", "quiet", 4.5),
        ("on-accent", "accent", 4.5),
        ("on-accent", "hover", 4.5),
        ("accent", "card", 4.5),
        ("bad", "bad-soft", 4.5),
        ("bad", "card", 4.5),
        ("good", "good-soft", 4.5),
        ("edge", "card", 3.0),
    ],
)
def test_colours_have_enough_contrast(scheme: str, front: str, back: str, least: float) -> None:
    """Text reaches 4.5 to 1 and borders of controls 3 to 1, light and dark (WCAG 2.2 §1.4.3, §1.4.11)."""
    light, dark = PAGE_STYLE.split("@media(prefers-color-scheme:dark)")
    colours = dict(re.findall(r"--([a-z-]+):(#[0-9a-f]{3,6})\b", light if scheme == "light" else dark))
    brighter, darker = sorted((_luminance(colours[front]), _luminance(colours[back])), reverse=True)
    assert (brighter + 0.05) / (darker + 0.05) >= least

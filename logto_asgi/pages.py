"""Small pages for a visitor: one card with a heading, a few sentences and buttons.

It writes HTML and the headers that go with it. It knows no request, no session and no issuer.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Literal

__all__ = ["PAGE_STYLE", "Action", "document", "page_headers", "render_action", "render_page"]

Tone = Literal["neutral", "error", "success"]

# Text keeps a contrast of at least 4.5 to 1 in both schemes (WCAG 2.2 §1.4.3), borders of controls 3 to 1 (§1.4.11).
PAGE_STYLE = """
:root{color-scheme:light dark;--ground:#f3f4f8;--card:#fff;--line:#dfe2ea;--edge:#858b9c;--text:#191c24;--soft:#565d6e;
--accent:#4a41d4;--on-accent:#fff;--hover:#3a32b4;--quiet:#f0f1f6;--bad:#b3261e;--bad-soft:#fdecea;
--good:#116b3a;--good-soft:#e5f5eb;--shadow:0 1px 2px #1a1f3312,0 12px 32px -8px #1a1f3324}
@media(prefers-color-scheme:dark){:root{--ground:#0f1116;--card:#191c23;--line:#2d323d;--edge:#767d8e;--text:#eceef4;
--soft:#a8afc0;--accent:#b3adff;--on-accent:#17143a;--hover:#cbc7ff;--quiet:#232731;--bad:#ffb4ab;--bad-soft:#3b1d1b;
--good:#8fdcae;--good-soft:#16301f;--shadow:0 1px 2px #0006,0 16px 40px -12px #000a}}
*{box-sizing:border-box}
body{margin:0;min-height:100vh;min-height:100dvh;display:flex;padding:1.25rem;
background:var(--ground);color:var(--text);-webkit-text-size-adjust:100%;
font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{margin:auto;width:100%;max-width:27rem;min-width:0;padding:2.25rem;
background:var(--card);border:1px solid var(--line);border-radius:1rem;box-shadow:var(--shadow);overflow-wrap:anywhere}
h1{margin:0 0 .75rem;font-size:1.5rem;line-height:1.25;font-weight:650;letter-spacing:-.012em;text-wrap:balance}
p{margin:0 0 .75rem;color:var(--soft);text-wrap:pretty}
.mark{display:grid;place-items:center;width:2.75rem;height:2.75rem;margin:0 0 1.25rem;border-radius:50%;
font-size:1.375rem;font-weight:700;line-height:1}
.error .mark{background:var(--bad-soft);color:var(--bad)}
.success .mark{background:var(--good-soft);color:var(--good)}
.actions{display:flex;flex-direction:column;gap:.625rem;margin-top:1.5rem}
form{margin:0}
.button{display:block;width:100%;padding:.6875rem 1rem;border:1px solid var(--edge);border-radius:.625rem;
background:transparent;color:var(--text);font:inherit;font-weight:600;text-align:center;text-decoration:none;
overflow-wrap:anywhere;cursor:pointer}
.button:hover{background:var(--quiet)}
.button.primary{background:var(--accent);border-color:var(--accent);color:var(--on-accent)}
.button.primary:hover{background:var(--hover);border-color:var(--hover)}
:focus-visible{outline:3px solid var(--accent);outline-offset:3px}
.detail{margin:1.5rem 0 0;padding-top:1rem;border-top:1px solid var(--line);color:var(--soft);
font:.8125rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
@media(max-width:28rem){body{padding:.75rem}main{padding:1.5rem 1.25rem}}
"""

_MARKS: Mapping[Tone, str] = {"neutral": "", "error": "!", "success": "✓"}


@dataclass(frozen=True, slots=True)
class Action:
    """A button of a page: a link, or a form when it posts or carries fields.

    `href` is a path that starts with one slash, or an absolute http(s) address; anything else is a `ValueError`,
    because escaping alone would let `javascript:` pass.
    """

    label: str
    href: str
    method: Literal["GET", "POST"] = "GET"
    fields: Mapping[str, str] = field(default_factory=dict, repr=False)
    primary: bool = False

    def __post_init__(self) -> None:
        if self.method not in ("GET", "POST"):
            raise ValueError("an action is sent by GET or POST")
        if not _is_plain_address(self.href):
            raise ValueError("an action leads to a path that starts with one slash, or to an absolute http(s) address")


def render_page(
    *,
    title: str,
    heading: str,
    paragraphs: Sequence[str],
    actions: Sequence[Action] = (),
    tone: Tone = "neutral",
    detail: str | None = None,
) -> str:
    """Return a whole HTML page. Every argument is text and is escaped.

    `detail` is a line for whoever helps the visitor, such as an error code. Send the page with `page_headers`.
    """
    mark = f'<div class="mark" aria-hidden="true">{_MARKS[tone]}</div>' if _MARKS[tone] else ""
    parts = [mark, f"<h1>{escape(heading)}</h1>", *(f"<p>{escape(text)}</p>" for text in paragraphs)]
    if actions:
        parts.append(f'<div class="actions">{"".join(map(render_action, actions))}</div>')
    if detail is not None:
        parts.append(f'<p class="detail">{escape(detail)}</p>')
    return document(title=title, body="".join(parts), tone=tone)


def document(*, title: str, body: str, tone: Tone = "neutral", style: str = PAGE_STYLE) -> str:
    """Return the frame of a page around `body`, which is HTML already, and so is `style`. `title` is escaped."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="robots" content="noindex">'
        f"<title>{escape(title)}</title><style>{style}</style></head>"
        f'<body><main class="{escape(tone)}">{body}</main></body></html>'
    )


def render_action(action: Action) -> str:
    """Return one button as HTML: a link by GET without fields, else a form that works without scripts."""
    style = "button primary" if action.primary else "button"
    label, href = escape(action.label), escape(action.href)
    if action.method == "GET" and not action.fields:
        return f'<a class="{style}" href="{href}">{label}</a>'
    hidden = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in action.fields.items()
    )
    method = action.method.lower()
    return f'<form method="{method}" action="{href}">{hidden}<button class="{style}">{label}</button></form>'


def page_headers(form_action: Sequence[str] = (), *, style: str = PAGE_STYLE) -> dict[str, str]:
    """Return the headers of a page: never stored, framed, sniffed or named as a referrer, and no script runs.

    `form_action` lists where its forms may lead, redirects included: `"'self'"` and origins such as
    `https://tenant.logto.app` (CSP3 §6.4.1). Without it no form can be sent. A source that could end the
    directive is a `ValueError`.
    """
    if any(not source.isascii() or not source.isprintable() or set(source) & set(" ;,") for source in form_action):
        raise ValueError("a source of form-action is one word: 'self', an origin or a scheme")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    targets = " ".join(form_action) or "'none'"
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; frame-ancestors 'none'; base-uri 'none'; "
        f"form-action {targets}"
    )
    return {
        "Cache-Control": "no-store",
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


def _is_plain_address(href: str) -> bool:
    # Browsers drop control characters and read a backslash as a slash, so neither may stand in front of the checks.
    if not href.isprintable() or "\\" in href or href.startswith("//"):
        return False
    return href.startswith(("/", "https://", "http://"))

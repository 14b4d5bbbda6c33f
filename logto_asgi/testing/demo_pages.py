"""How the demo looks: its pages as HTML, with a style of their own and no script. It decides nothing.

Everything that comes from a user, a token or the address bar is escaped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Any

from logto_asgi.pages import page_headers

__all__ = ["HEADERS", "STYLE", "Frame", "TokenFacts", "home", "profile", "token"]

STYLE = """
:root{color-scheme:light dark;--ground:#f6f7fb;--card:#fff;--line:#e0e3ec;--edge:#858b9c;--text:#191c24;--soft:#565d6e;
--accent:#4a41d4;--on-accent:#fff;--hover:#3a32b4;--quiet:#eef0f6;--tint:#eceafd;--good:#116b3a;--good-soft:#e5f5eb;
--shadow:0 1px 2px #1a1f330f,0 8px 24px -12px #1a1f3329}
@media(prefers-color-scheme:dark){:root{--ground:#0f1116;--card:#191c23;--line:#2d323d;--edge:#767d8e;--text:#eceef4;
--soft:#a8afc0;--accent:#b3adff;--on-accent:#17143a;--hover:#cbc7ff;--quiet:#232731;--tint:#2b2950;--good:#8fdcae;
--good-soft:#16301f;--shadow:0 1px 2px #0006,0 16px 32px -16px #000a}}
*{box-sizing:border-box}
body{margin:0;min-height:100vh;min-height:100dvh;display:flex;flex-direction:column;background:var(--ground);
color:var(--text);-webkit-text-size-adjust:100%;
font:1rem/1.6 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
header,main,footer{width:100%;max-width:60rem;margin:0 auto;padding:0 1.5rem}
header{display:flex;flex-wrap:wrap;align-items:center;gap:.5rem 1.5rem;padding-top:1.125rem;padding-bottom:1.125rem}
.brand{margin-right:auto;font-weight:700;letter-spacing:-.01em;color:var(--text);text-decoration:none}
.brand i{display:inline-block;width:.75rem;height:.75rem;margin-right:.5rem;border-radius:.25rem;
background:var(--accent)}
nav{display:flex;flex-wrap:wrap;gap:.25rem}
nav a{padding:.375rem .75rem;border-radius:.5rem;color:var(--soft);font-weight:550;text-decoration:none}
nav a:hover{background:var(--quiet);color:var(--text)}
nav a[aria-current]{background:var(--tint);color:var(--accent)}
main{flex:1;padding-top:2rem;padding-bottom:3rem;overflow-wrap:anywhere}
h1{margin:0 0 .75rem;font-size:clamp(1.75rem,1.2rem + 2.4vw,2.5rem);line-height:1.15;font-weight:700;
letter-spacing:-.022em;text-wrap:balance}
h2{margin:0 0 .375rem;font-size:1.0625rem;line-height:1.35;font-weight:650}
p{margin:0 0 .75rem;max-width:42rem;color:var(--soft);text-wrap:pretty}
.lead{font-size:1.125rem}
a{color:var(--accent)}
.actions{display:flex;flex-wrap:wrap;gap:.75rem;margin:1.5rem 0 0}
form{margin:0}
.button{display:inline-block;padding:.625rem 1.25rem;border:1px solid var(--edge);border-radius:.625rem;
background:transparent;color:var(--text);font:inherit;font-weight:600;text-align:center;text-decoration:none;
cursor:pointer}
.button:hover{background:var(--quiet)}
.button.primary{background:var(--accent);border-color:var(--accent);color:var(--on-accent)}
.button.primary:hover{background:var(--hover);border-color:var(--hover)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,16rem),1fr));gap:1rem;margin:2.5rem 0 0;
padding:0;list-style:none}
.card{padding:1.25rem 1.375rem;background:var(--card);border:1px solid var(--line);border-radius:.875rem;
box-shadow:var(--shadow)}
.card p{margin:0;font-size:.9375rem}
.card a{font-weight:600}
.sheet{width:100%;margin:1.5rem 0 0;border-collapse:separate;border-spacing:0;background:var(--card);
border:1px solid var(--line);border-radius:.875rem;box-shadow:var(--shadow);overflow:hidden}
.sheet th,.sheet td{padding:.75rem 1.25rem;border-top:1px solid var(--line);text-align:start;vertical-align:top}
.sheet tr:first-child>*{border-top:0}
.sheet th{width:13rem;font-weight:600}
.sheet small{display:block;color:var(--soft);font-size:.875rem;font-weight:400}
code,.sheet th code{font:.9375em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.pill{display:inline-block;margin:0 .375rem .25rem 0;padding:.0625rem .625rem;border-radius:1rem;background:var(--tint);
color:var(--accent);font:.875rem/1.6 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.state{display:flex;gap:.75rem;margin:1.5rem 0 0;padding:.75rem 1.125rem;border-radius:.75rem;background:var(--quiet);
color:var(--text);max-width:none}
.state.fresh{background:var(--good-soft);color:var(--good)}
footer{padding-top:1rem;padding-bottom:1.5rem;border-top:1px solid var(--line);color:var(--soft);font-size:.875rem}
:focus-visible{outline:3px solid var(--accent);outline-offset:3px}
@media(max-width:40rem){header,main,footer{padding-left:1rem;padding-right:1rem}main{padding-top:1rem}
nav{margin-left:-.625rem;gap:0}nav a{padding:.375rem .625rem}.brand{width:100%}.actions .button{flex:1 1 auto}
.sheet th,.sheet td{display:block;width:auto;padding-left:1rem;padding-right:1rem}
.sheet th{padding-bottom:0}.sheet td{border-top:0;padding-top:.125rem}}
"""

HEADERS = page_headers(["'self'"], style=STYLE)
"""For every page: never stored, framed or sniffed, and no script runs."""

_MEANING: Mapping[str, str] = {
    "sub": "The user's id here, the only claim that never changes",
    "iss": "Who says all this: the issuer",
    "aud": "For whom: this app's client id",
    "exp": "The ID token's own end; the session goes on",
    "iat": "When the ID token was made",
    "name": "From the scope profile",
    "username": "From the scope profile",
    "picture": "From the scope profile",
    "email": "From the scope email",
    "email_verified": "Whether the issuer has checked it",
    "roles": "From the scope roles",
    "created_at": "When the account was made",
    "updated_at": "When the account was changed",
}
_SECONDS = ("exp", "iat", "auth_time")
_MILLISECONDS = ("created_at", "updated_at")


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands around every page."""

    url: Callable[[str], str]
    auth_url: Callable[[str], str]
    path: str
    name: str
    """Of the visitor; empty for an anonymous one."""


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """What may be shown of an access token. Times are in seconds since 1970, None for an opaque token."""

    fingerprint: str
    now: int
    issued_at: int | None
    expires_at: int | None
    renewed_at: int | None
    scopes: tuple[str, ...]


def home(frame: Frame) -> str:
    """Return the home page, which has something for a visitor and something for a user."""
    profile_page, token_page, sign_out = frame.url("/profile"), frame.url("/token"), frame.auth_url("sign-out")
    if frame.name:
        heading = f"Hello, {escape(frame.name)}"
        lead = "You are signed in. Here is what an app knows of you, and what it can do for you."
        actions = _button(profile_page, "See your profile", primary=True) + _button(sign_out, "Sign out")
        third = (sign_out, "Sign out", "Here first, then at the provider. The refresh token is revoked.")
    else:
        heading = "Hello, visitor"
        lead = "Nobody is signed in. Sign in as one of the demo users, or open a guarded page and be taken there."
        actions = _button(frame.auth_url("sign-in"), "Sign in", primary=True)
        actions += _button(frame.auth_url("sign-up"), "Create an account")
        stale = frame.auth_url("sign-in-callback?state=stale")
        third = (stale, "An error page", "What a visitor sees who finishes a sign-in twice, or too late.")
    first = (profile_page, "A guarded page", "A visitor who opens it is taken to sign-in and comes back to it.")
    second = (token_page, "An access token", "For an API that the app would call. It is refreshed before it expires.")
    cards = "".join(map(_card, (first, second, third)))
    body = f'<h1>{heading}</h1><p class="lead">{lead}</p><div class="actions">{actions}</div>'
    return _document(frame, "logto-asgi demo", f'{body}<ul class="cards">{cards}</ul>')


def profile(frame: Frame, claims: Mapping[str, Any], scopes: Sequence[str]) -> str:
    """Return the claims as a table, one line each."""
    rows = "".join(_row(name, _claim(name, value), _MEANING.get(name, "")) for name, value in claims.items())
    body = (
        "<h1>Your profile</h1><p>The verified claims of the ID token, as <code>request.state.user.claims</code> has "
        f'them. They live in an encrypted cookie of this browser.</p><table class="sheet">{rows}</table>'
        f'<p class="state"><span>Granted at sign-in: {_pills(scopes)}</span></p>'
    )
    return _document(frame, "Your profile", body)


def token(frame: Frame, resource: str | None, facts: TokenFacts, before: str | None) -> str:
    """Return what there is to say of an access token. `before` is the fingerprint that the last page showed."""
    rows = [
        _row("For", f"<code>{escape(resource)}</code>" if resource else "the issuer's userinfo", code=False),
        _row("Scopes", _pills(facts.scopes) or "none in the token", code=False),
        _row("Fingerprint", f"<code>{facts.fingerprint}</code>", "The token itself stays on the server", code=False),
    ]
    if facts.issued_at is not None and facts.expires_at is not None and facts.renewed_at is not None:
        rows += [
            _row("Issued", _moment(facts.issued_at, facts.now), code=False),
            _row("Expires", _moment(facts.expires_at, facts.now), code=False),
            _row("Next refresh", _moment(facts.renewed_at, facts.now), "Or at the next use after that", code=False),
        ]
    again = _button(frame.url(f"/token?before={facts.fingerprint}"), "Look again", primary=True)
    body = (
        "<h1>An access token</h1><p>What <code>await user.get_access_token(resource)</code> returned just now. It is "
        "refreshed once for all requests that wait for it, and the session's new refresh token is saved.</p>"
        f'{_state(facts, before)}<table class="sheet">{"".join(rows)}</table><div class="actions">{again}'
        f'<form method="post" action="{escape(frame.url("/token/refresh"))}">'
        '<button class="button">Refresh now</button></form></div>'
    )
    return _document(frame, "An access token", body)


def _state(facts: TokenFacts, before: str | None) -> str:
    if before is None:
        return ""
    if before == facts.fingerprint:
        return '<p class="state" role="status">Not refreshed: this is the token from before, out of the session.</p>'
    return (
        '<p class="state fresh" role="status"><span>Refreshed: the token from before was '
        f"<code>{escape(before[:12])}</code>, this one is <code>{facts.fingerprint}</code>.</span></p>"
    )


def _claim(name: str, value: Any) -> str:
    if value is None:
        return "not known"
    if isinstance(value, list):
        return _pills(value) or "none"
    if name in _SECONDS and isinstance(value, int):
        return _clock(value)
    if name in _MILLISECONDS and isinstance(value, int):
        # Logto sends milliseconds, others seconds; a number this large is no time in seconds.
        return _clock(value // 1000 if value > 100_000_000_000 else value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return escape(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _row(name: str, value: str, note: str = "", *, code: bool = True) -> str:
    """Return a line of a table. `value` is HTML already."""
    head = f"<code>{escape(name)}</code>" if code else escape(name)
    small = f"<small>{escape(note)}</small>" if note else ""
    return f'<tr><th scope="row">{head}</th><td>{value}{small}</td></tr>'


def _card(card: tuple[str, str, str]) -> str:
    href, title, text = card
    return f'<li class="card"><h2><a href="{escape(href)}">{title}</a></h2><p>{text}</p></li>'


def _pills(words: Sequence[Any]) -> str:
    return "".join(f'<span class="pill">{escape(str(word))}</span>' for word in words)


def _moment(at: int, now: int) -> str:
    seconds = at - now
    minutes, rest = divmod(abs(seconds), 60)
    span = f"{minutes} min" + (f" {rest} s" if rest else "") if minutes else f"{rest} s"
    words = "just now" if seconds == 0 else f"in {span}" if seconds > 0 else f"{span} ago"
    return f"{words}<small>{_clock(at)}</small>"


def _clock(seconds: int) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, OSError, ValueError):
        return str(seconds)


def _button(href: str, label: str, *, primary: bool = False) -> str:
    style = "button primary" if primary else "button"
    return f'<a class="{style}" href="{escape(href)}">{label}</a>'


def _document(frame: Frame, title: str, body: str) -> str:
    links = [("/", "Home"), ("/profile", "Profile"), ("/token", "Token")]
    nav = "".join(
        f'<a href="{escape(frame.url(path))}"{" aria-current=page" if path == frame.path else ""}>{label}</a>'
        for path, label in links
    )
    if frame.name:
        nav += f'<a href="{escape(frame.auth_url("sign-out"))}">Sign out</a>'
    else:
        nav += f'<a href="{escape(frame.auth_url("sign-in"))}">Sign in</a>'
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f'<header><a class="brand" href="{escape(frame.url("/"))}"><i></i>logto-asgi demo</a>'
        f'<nav aria-label="Site">{nav}</nav></header><main>{body}</main>'
        "<footer>A demo of logto-asgi: no scripts, nothing from other hosts.</footer></body></html>"
    )

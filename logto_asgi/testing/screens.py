"""The pages of the development provider. It turns what it is given into HTML and decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from urllib.parse import urlsplit

from starlette.responses import HTMLResponse

from logto_asgi.pages import PAGE_STYLE, Action, document, page_headers, render_page
from logto_asgi.testing.refusals import Refusal
from logto_asgi.testing.storage import AuthorizationRequest
from logto_asgi.testing.users import DemoUser

__all__ = ["consent", "form_post", "interaction_over", "refused", "register", "sign_in", "signed_out"]

STYLE = (
    PAGE_STYLE
    + """
.notice{margin:0 0 1.5rem;padding:.5rem .75rem;border-radius:.5rem;background:var(--note-soft);color:var(--note);
font-size:.875rem;line-height:1.4}
.notice b{display:block;font-weight:600}
:root{--note:#6b4a00;--note-soft:#fdf3d8;--tint:#eceafd}
@media(prefers-color-scheme:dark){:root{--note:#f2cf7e;--note-soft:#332810;--tint:#2b2950}}
.app{color:var(--text);font-weight:600}
.problem{color:var(--bad);font-size:.875rem;margin:.375rem 0 0}
.problem.top{margin:0 0 1rem;padding:.625rem .75rem;border-radius:.5rem;background:var(--bad-soft);font-size:1rem}
.people{list-style:none;display:flex;flex-direction:column;gap:.5rem;margin:1.25rem 0 0;padding:0}
.person{display:flex;align-items:center;gap:.875rem;width:100%;min-width:0;padding:.625rem .75rem;text-align:start;
border:1px solid var(--line);border-radius:.75rem;background:transparent;color:inherit;font:inherit;cursor:pointer}
.person:hover{background:var(--quiet);border-color:var(--edge)}
.initial{flex:none;display:grid;place-items:center;width:2.5rem;height:2.5rem;border-radius:50%;
background:var(--tint);color:var(--accent);font-weight:650}
.who{min-width:0;line-height:1.35}
.who b{display:block;font-weight:600}
.who span{color:var(--soft);font-size:.875rem}
.row{display:flex;flex-wrap:wrap;gap:.625rem;margin-top:1.25rem}
.row>*{flex:1 1 auto;width:auto}
label{display:block;margin:1rem 0 .3125rem;font-weight:600}
input:not([type=hidden]){width:100%;padding:.625rem .75rem;border:1px solid var(--edge);border-radius:.625rem;
background:var(--card);color:var(--text);font:inherit}
input[aria-invalid]{border-color:var(--bad)}
.scopes{margin:0 0 .75rem;padding:0 0 0 1.25rem;color:var(--soft)}
"""
)

_NOTICE = '<p class="notice"><b>Development provider, not for production</b>Anybody can be anyone here.</p>'


def sign_in(
    url: str, wanted: AuthorizationRequest, users: Iterable[DemoUser], problem: str | None = None
) -> HTMLResponse:
    """List the demo users as buttons; each signs in at once."""
    top = f'<p class="problem top" role="alert">{escape(problem)}</p>' if problem else ""
    people = "".join(map(_person, users))
    body = (
        f"{_NOTICE}<h1>Sign in</h1><p>Choose who you are for {_app(wanted)}.</p>{top}"
        f'<form method="post" action="{escape(url)}"><ul class="people">{people}</ul>'
        f'<div class="row"><a class="button" href="{escape(url)}?screen=register">Create an account</a>'
        '<button class="button" name="action" value="cancel">Cancel</button></div></form>'
    )
    return _page("Sign in", body, wanted.redirect_uri)


def register(
    url: str,
    wanted: AuthorizationRequest,
    name: str = "",
    email: str = "",
    problems: Mapping[str, str] | None = None,
) -> HTMLResponse:
    """Ask for the name and e-mail address of a new user."""
    found = problems or {}
    body = (
        f"{_NOTICE}<h1>Create an account</h1><p>For {_app(wanted)}. It lives until this provider stops.</p>"
        f'<form method="post" action="{escape(url)}" novalidate>'
        f"{_field('name', 'Name', 'text', 'name', name, found.get('name'))}"
        f"{_field('email', 'E-mail address', 'email', 'email', email, found.get('email'))}"
        '<div class="actions">'
        '<button class="button primary" name="action" value="register">Create account</button></div>'
        f'<div class="row"><a class="button" href="{escape(url)}?screen=sign_in">I have an account</a>'
        '<button class="button" name="action" value="cancel">Cancel</button></div></form>'
    )
    return _page("Create an account", body, wanted.redirect_uri)


def consent(url: str, wanted: AuthorizationRequest, name: str) -> HTMLResponse:
    """Ask whether a third-party app may have what it asks for."""
    asked = "".join(f"<li>{escape(scope)}</li>" for scope in sorted(wanted.scopes))
    body = (
        f"{_NOTICE}<h1>Allow access?</h1><p>{_app(wanted)} asks for this, {escape(name)}:</p>"
        f'<ul class="scopes">{asked}</ul><form method="post" action="{escape(url)}"><div class="actions">'
        '<button class="button primary" name="action" value="allow">Allow</button>'
        '<button class="button" name="action" value="cancel">Cancel</button></div></form>'
    )
    return _page("Allow access?", body, wanted.redirect_uri)


def form_post(redirect_uri: str, values: Mapping[str, str]) -> HTMLResponse:
    """Carry the answer to the app in a form that the visitor sends (OAuth Form Post Response Mode)."""
    html = render_page(
        title="Continue",
        heading="Continue to the app",
        paragraphs=["The app asked for its answer in a form."],
        actions=[Action("Continue", redirect_uri, method="POST", fields=values, primary=True)],
    )
    return HTMLResponse(html, headers=page_headers([_origin(redirect_uri)]))


def refused(refusal: Refusal) -> HTMLResponse:
    """Say why a request cannot be sent back to an app."""
    html = render_page(
        title="Request refused",
        heading="This request cannot go on",
        paragraphs=[
            "The development provider does not know the app or its address, so it does not send you back there.",
            f"What is wrong: {refusal.description}.",
            "Compare the app id and the redirect URI with the provider's clients, letter by letter.",
        ],
        tone="error",
        detail=refusal.error,
    )
    return HTMLResponse(html, status_code=refusal.status, headers=page_headers())


def interaction_over() -> HTMLResponse:
    """Say that a sign-in page was left open too long, or was used already."""
    html = render_page(
        title="This sign-in is over",
        heading="This sign-in is over",
        paragraphs=["It was finished, cancelled or left open too long. Go back to the app and sign in again."],
        tone="error",
        detail="interaction_not_found",
    )
    return HTMLResponse(html, status_code=400, headers=page_headers())


def signed_out() -> HTMLResponse:
    """Say that the session of the provider has ended."""
    html = render_page(
        title="Signed out",
        heading="You are signed out",
        paragraphs=["The session of the development provider has ended. You can close this page."],
        tone="success",
    )
    return HTMLResponse(html, headers=page_headers())


def _person(user: DemoUser) -> str:
    return (
        f'<li><button class="person" name="sub" value="{escape(user.sub)}">'
        f'<span class="initial" aria-hidden="true">{escape(user.name[:1].upper() or "?")}</span>'
        f'<span class="who"><b>{escape(user.name)}</b> <span>{escape(user.email or user.sub)}</span></span>'
        "</button></li>"
    )


def _field(name: str, label: str, kind: str, autocomplete: str, value: str, problem: str | None) -> str:
    wrong = f' aria-invalid="true" aria-describedby="{name}-problem"' if problem else ""
    hint = f'<p class="problem" id="{name}-problem">{escape(problem)}</p>' if problem else ""
    return (
        f'<label for="{name}">{label}</label><input id="{name}" name="{name}" type="{kind}" '
        f'autocomplete="{autocomplete}" value="{escape(value)}" required{wrong}>{hint}'
    )


def _app(wanted: AuthorizationRequest) -> str:
    return f'<span class="app">{escape(wanted.client.title)}</span> ({escape(_origin(wanted.redirect_uri))})'


def _page(title: str, body: str, redirect_uri: str) -> HTMLResponse:
    # Chrome applies form-action to the redirects after a form, so the app's origin has to be among them.
    headers = page_headers(["'self'", _origin(redirect_uri)], style=STYLE)
    return HTMLResponse(document(title=title, body=body, style=STYLE), headers=headers)


def _origin(redirect_uri: str) -> str:
    parts = urlsplit(redirect_uri)
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme in ("http", "https") else f"{parts.scheme}:"

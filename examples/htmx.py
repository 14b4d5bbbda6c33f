"""htmx: fragments are guarded like pages, and a refusal takes the whole page to sign-in and back.

    uvicorn htmx:app

Open it in two tabs, sign out in one and add a note in the other: the guard answers htmx with `HX-Redirect`. Deleting
asks for a sign-in of the last five minutes in the same way. What a user may not do at all is a fragment that says so.
"""

from html import escape
from itertools import count
from typing import Annotated

from fastapi import Depends, FastAPI, Form, Request
from fastapi.responses import HTMLResponse

from logto_asgi import LogtoConfig, LogtoMiddleware, LogtoUser, PermissionDenied, UserScope
from logto_asgi.fastapi import SignedIn, auth_router, require_auth

config = LogtoConfig(scopes=[UserScope.ROLES])
app = FastAPI(default_response_class=HTMLResponse)
app.add_middleware(LogtoMiddleware, config=config)
app.include_router(auth_router(config))

JustSignedIn = Annotated[LogtoUser, Depends(require_auth(max_age=300))]
Admin = Annotated[LogtoUser, Depends(require_auth(roles=["admin"]))]

numbers = count(1)
notes: dict[str, dict[int, str]] = {}  # by `sub`, the only claim that never changes

PAGE = """<!doctype html><meta charset="utf-8"><title>Notes</title>
<meta name="htmx-config" content='{{"responseHandling": [{{"code": "[23]..|403", "swap": true}}]}}'>
<script src="https://unpkg.com/htmx.org@2.0.4/dist/htmx.min.js" integrity="{hash}" crossorigin="anonymous"></script>
<p>Notes of {name}. <a href="/logto/sign-out">Sign out</a></p>
<form hx-post="/notes" hx-target="#notes" hx-swap="beforeend"><input name="text" required><button>Add</button></form>
<ul id="notes">{notes}</ul>
<button hx-get="/statistics" hx-target="next p">Statistics</button><p></p>"""
HASH = "sha384-HGfztofotfshcF7+8n44JQL2oJmowVChPTg48S+jvZoztPfvwD79OC/LTtG6dMp+"


def row(number: int, text: str) -> str:
    button = f'<button hx-delete="/notes/{number}" hx-target="closest li" hx-swap="outerHTML">Delete</button>'
    return f"<li>{escape(text)} {button}</li>"


@app.get("/")
async def home(user: SignedIn) -> str:
    rows = "".join(row(number, text) for number, text in notes.get(user.claims.sub, {}).items())
    return PAGE.format(name=escape(user.display_name), notes=rows, hash=HASH)


@app.post("/notes")
async def add(text: Annotated[str, Form()], user: SignedIn) -> str:  # from another site's page: 403
    number = next(numbers)
    notes.setdefault(user.claims.sub, {})[number] = text
    return row(number, text)


@app.delete("/notes/{number}")
async def delete(number: int, user: JustSignedIn) -> str:
    notes.get(user.claims.sub, {}).pop(number, None)
    return ""


@app.get("/statistics")
async def statistics(user: Admin) -> str:
    return f"{sum(map(len, notes.values()))} notes of {len(notes)} people"


@app.exception_handler(PermissionDenied)
async def not_allowed(request: Request, error: PermissionDenied) -> HTMLResponse:
    return HTMLResponse(f"Not for you: {escape(error.message)}", 403)

"""A page that anybody signed in may see, and one for which the sign-in must be at most five minutes old.

    uvicorn step_up:app

Nothing needs to be set up in Logto's console for it.
"""

from html import escape
from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi.responses import HTMLResponse

from logto_asgi import LogtoConfig, LogtoMiddleware, LogtoUser
from logto_asgi.fastapi import AUTH_RESPONSES, CurrentUser, SignedIn, auth_router, require_auth

config = LogtoConfig()
app = FastAPI(responses=AUTH_RESPONSES)
app.add_middleware(LogtoMiddleware, config=config)
app.include_router(auth_router(config))

# An older sign-in leads to the issuer, which asks for the password again, and back to the page.
Recent = Annotated[LogtoUser, Depends(require_auth(max_age=300))]

accounts: dict[str, str] = {}


@app.get("/", response_class=HTMLResponse)
async def home(user: CurrentUser) -> str:
    return '<a href="/account">Your account</a>' if user.is_authenticated else '<a href="/logto/sign-in">Sign in</a>'


@app.get("/account", response_class=HTMLResponse)
async def account(user: SignedIn) -> str:
    number = escape(accounts.get(user.identity, "none yet"))
    return f'<p>{escape(user.display_name)}, we pay to: {number}</p><a href="/account/payout">Change it</a>'


@app.get("/account/payout", response_class=HTMLResponse)
async def payout_form(user: Recent) -> str:
    return '<form method="post"><button>Pay to my savings account</button></form>'


@app.post("/account/payout", response_class=HTMLResponse)
async def change_payout(user: Recent) -> str:  # guarded as well: the form may have been open for an hour
    accounts[user.identity] = "savings account"
    return '<p>Changed.</p><a href="/account">Back</a>'


@app.get("/api/sign-in-age")  # a program gets 401 with the code step_up_required instead of a redirect
async def sign_in_age(user: Annotated[LogtoUser, Depends(require_auth(max_age=300, redirect=False))]) -> dict[str, int]:
    return {"signed_in_at": user.claims.auth_time or 0}

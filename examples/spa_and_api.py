"""A page that works by `fetch`, and its API: called by the page's session, by a phone's token, and by the page's own.

    uvicorn spa_and_api:app

In Logto's console: an API resource with the indicator below and the permissions `read:items` and `write:items`.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI
from fastapi.responses import HTMLResponse, Response

from logto_asgi import AccessTokenClaims, LogtoConfig, LogtoMiddleware, LogtoUser, PublicUser
from logto_asgi.fastapi import (
    AUTH_RESPONSES,
    CurrentUser,
    auth_router,
    bearer_token,
    protected_resource_router,
    require_auth,
)

RESOURCE = "https://shopping.example.com/api"
SCOPES = ["read:items", "write:items"]
config = LogtoConfig(api_resource=RESOURCE, scopes=SCOPES, browser_token_resources=[RESOURCE])

app = FastAPI(title="Shop")
app.add_middleware(LogtoMiddleware, config=config)
app.include_router(auth_router(config))  # with POST /logto/token, because of browser_token_resources
app.include_router(protected_resource_router(config, scopes=SCOPES))

# One guard for both: the page's session cookie, or a token in the Authorization header. Either needs the permission.
BOTH = ("session", "bearer")
Reader = Annotated[LogtoUser, Depends(require_auth(accept=BOTH, scopes=["read:items"]))]
Writer = Annotated[LogtoUser, Depends(require_auth(accept=BOTH, scopes=["write:items"]))]
Partner = Annotated[AccessTokenClaims, Depends(bearer_token(scopes=["read:items"]))]

basket: dict[str, list[str]] = {}
api = APIRouter(prefix="/api", responses=AUTH_RESPONSES)


@api.get("/user")
async def who(user: CurrentUser) -> PublicUser:  # for everybody; it never holds a token
    return user.public()


@api.get("/basket")
async def show(user: Reader) -> dict[str, list[str] | str]:
    return {"items": basket.get(user.identity, []), "came_by": "token" if user.bearer else "session"}


@api.post("/basket/{item}")
async def add(item: str, user: Writer) -> dict[str, list[str]]:  # from another site's page, by cookie: 403
    basket.setdefault(user.identity, []).append(item)
    return {"items": basket[user.identity]}


app.include_router(api)


@app.get("/partner/stock", responses=AUTH_RESPONSES)
async def stock(caller: Partner) -> dict[str, int]:
    """Stands for an API on another host, where the session cookie does not go: it takes tokens only."""
    return {"lamp": 3, "chair": 12}


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Shop</title><script src="/page.js" defer></script></head>
<body><h1>Shop</h1><p id="who"></p>
<button id="add">Put a lamp into the basket</button> <button id="stock">Ask the partner for its stock</button>
<pre id="out"></pre></body></html>
"""

SCRIPT = """
const out = document.querySelector("#out");
let kept = { until: 0 };

async function answerOf(response) {
  const body = await response.json();
  if (body.sign_in_url) location.assign(`/logto/sign-in?return_to=${encodeURIComponent(location.pathname)}`);
  if (!response.ok) throw new Error(body.code);
  return body;
}

async function partnerToken() {  // kept in memory only, and asked for again shortly before it expires
  if (Date.now() < kept.until) return kept.token;
  const response = await fetch("/logto/token", { method: "POST", body: new URLSearchParams({ resource: RESOURCE }) });
  const { access_token, expires_in } = await answerOf(response);
  kept = { token: access_token, until: Date.now() + (expires_in - 30) * 1000 };
  return kept.token;
}

function when(button, work) {
  document.querySelector(button).addEventListener("click", async () => {
    try { out.textContent = JSON.stringify(await work()); } catch (error) { out.textContent = error.message; }
  });
}

when("#add", async () => answerOf(await fetch("/api/basket/lamp", { method: "POST" })));
when("#stock", async () => {
  const headers = { Authorization: `Bearer ${await partnerToken()}` };
  return answerOf(await fetch("/partner/stock", { headers }));
});
fetch("/api/user").then(answerOf).then((user) => {
  document.querySelector("#who").textContent = user.is_authenticated ? `Hello, ${user.claims.name}` : "Hello, visitor";
});
"""

# The page runs its own script and no other: whoever gets a script into it can ask for the token as well.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; frame-ancestors 'none'"
}


@app.get("/", response_class=HTMLResponse)
async def page() -> HTMLResponse:
    return HTMLResponse(PAGE, headers=PAGE_HEADERS)


@app.get("/page.js")
async def script() -> Response:
    return Response(f'"use strict";\nconst RESOURCE = "{RESOURCE}";\n{SCRIPT}', media_type="text/javascript")

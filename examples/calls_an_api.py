"""One app calls another in the user's name. Both are here: a shop with sign-in, and a stock that is called with tokens.

    uvicorn calls_an_api:stock --port 8001
    uvicorn calls_an_api:app --port 8000

In Logto's console the stock is an API resource with this name and the permissions `read:stock` and `write:stock`.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
from fastapi import Depends, FastAPI, HTTPException, Request

from logto_asgi import AccessTokenClaims, LogtoConfig, LogtoMiddleware, LogtoUser
from logto_asgi.fastapi import SignedIn, auth_router, bearer_token
from logto_asgi.httpx import LogtoUserAuth

STOCK = "https://stock.example.com/api"  # its name at the issuer …
ADDRESS = "http://localhost:8001"  # … and where it is

# The stock: no pages, no sign-in. It trusts tokens of the issuer that are for it, and does what their scopes allow.

stock = FastAPI(title="Stock")
stock.add_middleware(LogtoMiddleware, config=LogtoConfig.without_sign_in(api_resource=STOCK))
shelves = {"lamp": 3, "chair": 12}

Reader = Annotated[AccessTokenClaims, Depends(bearer_token(scopes=["read:stock"]))]
Writer = Annotated[AccessTokenClaims, Depends(bearer_token(scopes=["write:stock"]))]


@stock.get("/items")
async def shelf(caller: Reader) -> dict[str, Any]:
    return {"asked by": caller.sub, "items": shelves}


@stock.post("/items/{item}/take")
async def take(item: str, caller: Writer) -> dict[str, Any]:
    if not shelves.get(item):
        raise HTTPException(404, "There is none left.")
    shelves[item] -= 1
    return {"taken by": caller.sub, "left": shelves[item]}


# The shop: its users sign in, and it asks the stock in their name.


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    async with httpx.AsyncClient(base_url=ADDRESS, timeout=10) as client:
        app.state.stock = client  # one for all users: it holds connections, and nobody's token
        yield


config = LogtoConfig(resources=[STOCK], scopes=["read:stock", "write:stock"])
app = FastAPI(title="Shop", lifespan=lifespan)
app.add_middleware(LogtoMiddleware, config=config)
app.include_router(auth_router(config))


@app.get("/")
async def home() -> dict[str, str]:
    return {"items": "/items", "buy": "POST /items/lamp/buy"}


@app.get("/items")
async def items(request: Request, user: SignedIn) -> Any:
    return await ask_stock(request, user, "GET", "/items")


@app.post("/items/{item}/buy")
async def buy(request: Request, item: str, user: SignedIn) -> Any:
    return await ask_stock(request, user, "POST", f"/items/{item}/take")


async def ask_stock(request: Request, user: LogtoUser, method: str, path: str) -> Any:
    client: httpx.AsyncClient = request.app.state.stock
    try:
        answer = await client.request(method, path, auth=LogtoUserAuth(user, STOCK, origins=[ADDRESS]))
    except httpx.HTTPError:
        raise HTTPException(503, "The stock cannot be reached. Try again in a moment.") from None
    if answer.status_code in (403, 404):  # what the user may not do, and what there is not
        raise HTTPException(answer.status_code, answer.json()["detail"])
    if answer.status_code != 200:
        raise HTTPException(502, "The stock did not answer as expected.")
    return answer.json()

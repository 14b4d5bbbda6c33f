"""Call an API of yours in the user's name: a token for its resource, refreshed by itself, sent with httpx.

    uvicorn access_tokens:app

Write the address of an API that exists into `API`; in Logto's console it is an API resource with this indicator and the
permission `read:items`. `calls_an_api.py` brings an API of its own.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
from fastapi import Depends, FastAPI, HTTPException, Request

from logto_asgi import LogtoConfig, LogtoMiddleware
from logto_asgi.fastapi import SignedIn, access_token, auth_router

API = "https://shopping.example.com/api"
config = LogtoConfig(resources=[API], scopes=["read:items"])


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    async with httpx.AsyncClient(timeout=10) as client:
        app.state.shop = client
        yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(LogtoMiddleware, config=config)
app.include_router(auth_router(config))


@app.get("/")
async def home() -> dict[str, str]:
    return {"items": "/items", "basket": "/basket"}


@app.get("/items")
async def items(request: Request, token: Annotated[str, Depends(access_token(resource=API))]) -> Any:
    answer = await request.app.state.shop.get(f"{API}/items", headers={"Authorization": f"Bearer {token}"})
    if answer.status_code != 200:
        raise HTTPException(502, "The shop did not answer as expected.")
    return answer.json()


@app.post("/basket/{item}")
async def add_to_basket(request: Request, item: str, user: SignedIn) -> dict[str, int]:
    shop: httpx.AsyncClient = request.app.state.shop
    token = await user.get_access_token(API)
    answer = await shop.post(f"{API}/basket", json={"item": item}, headers={"Authorization": f"Bearer {token}"})
    if answer.status_code == 401:  # for example after a role was taken away: once more, with a new token
        token = await user.get_access_token(API, force_refresh=True)
        answer = await shop.post(f"{API}/basket", json={"item": item}, headers={"Authorization": f"Bearer {token}"})
    return {"status": answer.status_code}

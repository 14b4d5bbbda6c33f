"""An API without pages: phones, single-page apps and other services call it with access tokens of the issuer.

    LOGTO_ENDPOINT=https://<your-tenant>.logto.app uvicorn api:app
    curl http://localhost:8000/items -H "Authorization: Bearer $TOKEN"

Without a Logto, `provider.py` takes its place and prints a token: LOGTO_ENDPOINT=http://localhost:3001. In Logto's
console it is an API resource with this indicator and the permissions `read:items` and `write:items`.
"""

from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Security, WebSocket
from fastapi.responses import StreamingResponse

from logto_asgi import AccessTokenClaims, LogtoConfig, LogtoMiddleware, any_of
from logto_asgi.fastapi import AUTH_RESPONSES, bearer_token, protected_resource_router

RESOURCE = "https://shopping.example.com/api"
SCOPES = {"read:items": "See what the shop has", "write:items": "Change what the shop has"}
config = LogtoConfig.without_sign_in(api_resource=RESOURCE)

app = FastAPI(title="Shop")
app.add_middleware(LogtoMiddleware, config=config)
app.include_router(protected_resource_router(config, scopes=list(SCOPES)))  # tells callers where to get a token

# A guard is a type of a parameter; give the ones that you use a name.
Caller = Annotated[AccessTokenClaims, Depends(bearer_token)]
Reader = Annotated[AccessTokenClaims, Security(bearer_token, scopes=["read:items"])]
Writer = Annotated[AccessTokenClaims, Security(bearer_token, scopes=["write:items"])]
Warehouse = Annotated[AccessTokenClaims, Depends(bearer_token(scopes=["write:items"], machines="only"))]

stock = {"lamp": 3, "chair": 12}


@app.get("/health")
async def health() -> dict[str, str]:  # no guard: open to everybody
    return {"status": "ok"}


@app.get("/me", responses=AUTH_RESPONSES)
async def me(caller: Caller) -> dict[str, str | list[str]]:  # any user's token for this API
    return {"sub": caller.sub, "client": caller.client_id, "scopes": sorted(caller.scopes)}


@app.get("/items", responses=AUTH_RESPONSES)
async def items(caller: Reader) -> dict[str, int]:
    return stock


@app.put("/items/{name}", responses=AUTH_RESPONSES)
def put_item(name: str, count: int, caller: Writer) -> dict[str, str | int]:  # a synchronous endpoint works the same
    stock[name] = count
    return {"item": name, "count": count, "by": caller.sub}


@app.post("/deliveries", responses=AUTH_RESPONSES)
async def deliver(name: str, count: int, machine: Warehouse) -> dict[str, str | int]:  # no user gets in here
    stock[name] = stock.get(name, 0) + count
    return {"item": name, "count": stock[name], "by": machine.client_id}


# For a whole router: the guard's answer is not needed, only that it lets through. One of the scopes is enough here.
reports = APIRouter(
    prefix="/reports",
    dependencies=[Depends(bearer_token(scopes=any_of("read:items", "write:items"), machines=True))],
    responses=AUTH_RESPONSES,
)


@reports.get("/stock.csv")
async def stock_report() -> StreamingResponse:
    async def lines() -> AsyncGenerator[str, None]:
        yield "item,count\n"
        for name, count in stock.items():
            yield f"{name},{count}\n"

    return StreamingResponse(lines(), media_type="text/csv")


app.include_router(reports)


@app.websocket("/updates")
async def updates(websocket: WebSocket, caller: Reader) -> None:
    """In a browser: `new WebSocket(url, ["logto.bearer", token])`. Elsewhere the header does."""
    await websocket.accept()
    async for name in websocket.iter_text():
        await websocket.send_json({"item": name, "count": stock.get(name, 0)})

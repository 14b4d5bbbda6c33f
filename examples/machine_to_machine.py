"""A job without a browser calls a service in its own name. Both are here: the service, and the job as a command.

    LOGTO_ENDPOINT=https://<your-tenant>.logto.app uvicorn machine_to_machine:app --port 8001
    LOGTO_ENDPOINT=… LOGTO_APP_ID=… LOGTO_APP_SECRET=… python machine_to_machine.py lamp 5

In Logto's console: an API resource with this name and the permissions below, and an application of the type
machine-to-machine with a role that grants them.
"""

import argparse
import asyncio
from typing import Annotated, Any

import httpx
from fastapi import Depends, FastAPI

from logto_asgi import AccessTokenClaims, Logto, LogtoConfig, LogtoError, LogtoMiddleware
from logto_asgi.fastapi import bearer_token
from logto_asgi.httpx import ClientCredentialsAuth

STOCK = "https://stock.example.com/api"  # its name at the issuer …
ADDRESS = "http://localhost:8001"  # … and where it is

# The service. Machines are refused where a guard does not let them in.

app = FastAPI(title="Stock")
app.add_middleware(LogtoMiddleware, config=LogtoConfig.without_sign_in(api_resource=STOCK))
shelves = {"lamp": 3, "chair": 12}

User = Annotated[AccessTokenClaims, Depends(bearer_token(scopes=["read:stock"]))]
Anyone = Annotated[AccessTokenClaims, Depends(bearer_token(scopes=["read:stock"], machines=True))]
Machine = Annotated[AccessTokenClaims, Depends(bearer_token(scopes=["write:stock"], machines="only"))]


@app.get("/items")
async def items(caller: Anyone) -> dict[str, int]:
    return shelves


@app.get("/favourites")
async def favourites(caller: User) -> dict[str, str]:
    return {"of": caller.sub}


@app.post("/deliveries")
async def deliver(item: str, count: int, machine: Machine) -> dict[str, Any]:
    shelves[item] = shelves.get(item, 0) + count
    return {"item": item, "count": shelves[item], "delivered by": machine.client_id}


# The job.


def authentication(logto: Logto) -> ClientCredentialsAuth:
    return ClientCredentialsAuth(logto, STOCK, scopes=["read:stock", "write:stock"], origins=[ADDRESS])


async def delivery(logto: Logto, client: httpx.AsyncClient, item: str, count: int) -> str:
    """Deliver, and say what is there now. One token does for both requests."""
    client.auth = authentication(logto)
    delivered = await client.post("/deliveries", params={"item": item, "count": count})
    delivered.raise_for_status()
    answer = await client.get("/items")
    answer.raise_for_status()
    return ", ".join(f"{count} {item}" for item, count in answer.json().items())


async def main(item: str, count: int) -> None:
    config = LogtoConfig.without_sign_in()
    async with Logto(config) as logto, httpx.AsyncClient(base_url=ADDRESS, timeout=10) as client:
        print(await delivery(logto, client, item, count))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Deliver something to the stock.")
    parser.add_argument("item")
    parser.add_argument("count", type=int)
    arguments = parser.parse_args()
    try:
        asyncio.run(main(arguments.item, arguments.count))
    except (LogtoError, httpx.HTTPError) as error:
        raise SystemExit(str(error)) from None

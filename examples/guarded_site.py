"""What is guarded by what: endpoints and routers by dependencies, files by a middleware, a WebSocket by either.

    uvicorn guarded_site:app

The pages of administrators need a user with the role `admin`, such as the development provider's Alice.
"""

from pathlib import Path

from fastapi import APIRouter, Depends, FastAPI, HTTPException, WebSocket
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

from logto_asgi import LogtoConfig, LogtoMiddleware, RequireAuthMiddleware, UserScope
from logto_asgi.fastapi import AUTH_RESPONSES, CurrentUser, SignedIn, auth_router, require_auth

config = LogtoConfig(scopes=[UserScope.EMAIL, UserScope.ROLES])
app = FastAPI(openapi_url=None)  # /docs and /openapi.json are not guarded by dependencies
app.add_middleware(LogtoMiddleware, config=config)
app.include_router(auth_router(config))


@app.get("/", response_class=HTMLResponse)
async def home(user: CurrentUser) -> str:
    return "Welcome back." if user.is_authenticated else "Welcome."


@app.get("/profile", responses=AUTH_RESPONSES)
def profile(user: SignedIn) -> dict[str, str]:  # a synchronous endpoint is guarded in the same way
    return {"name": user.display_name, "email": user.claims.email or "not known"}


def require_admin(user: SignedIn) -> None:
    if "admin" not in (user.claims.roles or ()):
        raise HTTPException(403, "This is for administrators.")


admin = APIRouter(prefix="/admin", dependencies=[Depends(require_admin)])


@admin.get("/users")
async def users() -> list[str]:
    return ["alice", "bob", "zoe"]


@admin.delete("/users/{name}")
async def remove_user(name: str) -> dict[str, str]:  # from another site's page: 403
    return {"removed": name}


@app.websocket("/updates")
async def updates(websocket: WebSocket, user: SignedIn) -> None:
    await websocket.accept()
    await websocket.send_json({"hello": user.display_name})
    await websocket.close()


@app.get("/api/me", dependencies=[Depends(require_auth(redirect=False))])  # 401 for everybody, never a redirect
async def me(user: CurrentUser) -> dict[str, str]:
    return {"sub": user.identity}


app.include_router(admin)
app.mount("/files", RequireAuthMiddleware(StaticFiles(directory=Path(__file__).parent)))

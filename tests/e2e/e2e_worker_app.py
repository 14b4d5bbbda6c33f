"""The app that several worker processes serve, one event loop each. A test asks it for tokens, over and over.

`e2e_workers.Settings` explains what it is told.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import mmap
import os
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import uvicorn
from e2e_provider import APP_ID, APP_SECRET, PARTS, SHOP, STOCK
from e2e_visitor import decode
from fastapi import BackgroundTasks, FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse

from logto_asgi import Logto, LogtoConfig, LogtoMiddleware, LogtoUser, UserScope
from logto_asgi.fastapi import CurrentUser, SignedIn, auth_router

RESOURCES = {"shop": SHOP, "stock": STOCK, "parts": PARTS}
CLOCK = struct.Struct("d")
HUNG_UP: Counter[str] = Counter()


def shared_clock(path: str) -> Callable[[], float]:
    """Return a clock that is ahead of the real one by as many seconds as the file says, which all workers share."""
    with Path(path).open("rb") as file:
        ahead = mmap.mmap(file.fileno(), CLOCK.size, access=mmap.ACCESS_READ)
    return lambda: time.time() + CLOCK.unpack(ahead)[0]


def make_store(settings: dict[str, Any]) -> Any:
    """Make what `store` describes: nothing, a URL, or a Sentinel that knows the primary."""
    if not settings["store"]:
        return None
    from logto_asgi import RedisStore

    if sentinel := settings.get("sentinel"):
        from redis.asyncio.sentinel import Sentinel

        host, port, name = sentinel
        return RedisStore(Sentinel([(host, port)], socket_timeout=1).master_for(name, socket_timeout=1))
    return RedisStore.from_url(settings["store"])


def make_logto(settings: dict[str, Any]) -> Logto:
    """Configure the library as an app with three resources and organizations does."""
    config = LogtoConfig(
        endpoint=settings["endpoint"],
        app_id=APP_ID,
        app_secret=APP_SECRET,
        base_url=settings["base_url"],
        cookie_secret=settings["cookie_secrets"],
        scopes=[UserScope.ORGANIZATIONS, "read:items", "read:stock", "read:parts"],
        resources=list(RESOURCES.values()),
        **settings["config"],
    )
    return Logto(config, store=make_store(settings), clock=shared_clock(settings["clock"]))


def describe(token: str) -> dict[str, Any]:
    """Say what a test may know of a token: which one it is and what it is for."""
    told = {"fingerprint": hashlib.sha256(token.encode()).hexdigest()[:16], "aud": None, "organization": None}
    if "." not in token:
        return told
    claims = decode(token)
    told |= {"aud": claims["aud"], "organization": claims.get("organization_id")}
    return told | {"iat": claims["iat"], "exp": claims["exp"]}


async def ask(user: LogtoUser, name: str) -> dict[str, Any]:
    """Get the token that a path names: `shop`, `shop@org-1`, `@org-1`, `opaque`."""
    resource, _, organization = name.partition("@")
    if resource == "opaque":
        return describe(await user.get_access_token())
    if not resource:
        return describe(await user.get_organization_token(organization))
    return describe(await user.get_access_token(RESOURCES[resource], organization or None))


async def until_hung_up(request: Request, work: Any) -> Any:
    """Cancel the work when the caller hangs up, as frameworks do whose requests are cancelled."""
    task = asyncio.ensure_future(work)

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        task.cancel()

    watching = asyncio.create_task(watch())
    try:
        return await task
    except asyncio.CancelledError:
        HUNG_UP["callers"] += 1
        return {}  # Nobody reads it.
    finally:
        watching.cancel()


def build_app(logto: Logto, index: int) -> FastAPI:
    """Build the app. No answer holds a token."""
    app = FastAPI(openapi_url=None)
    app.add_middleware(LogtoMiddleware, logto=logto)
    app.include_router(auth_router(logto.config))
    later: dict[str, Any] = {}

    @app.get("/pid")
    async def pid() -> dict[str, int]:
        return {"pid": os.getpid(), "worker": index}

    @app.get("/public")
    async def public() -> dict[str, str]:
        return {"open": "to all"}

    @app.get("/me")
    async def me(user: SignedIn) -> dict[str, str]:
        return {"sub": user.claims.sub}

    @app.get("/who")
    async def who(user: CurrentUser) -> dict[str, str | None]:
        return {"sub": user.claims.sub if user.is_authenticated else None}

    @app.get("/token/{name}")
    async def token(name: str, user: SignedIn) -> dict[str, Any]:
        return await ask(user, name)

    @app.get("/hang/{name}")
    async def hang(name: str, user: SignedIn, request: Request) -> dict[str, Any]:
        return await until_hung_up(request, ask(user, name))

    @app.get("/together")
    async def together(user: SignedIn) -> dict[str, Any]:
        async with asyncio.TaskGroup() as group:
            tasks = {name: group.create_task(ask(user, name)) for name in RESOURCES}
        return {name: task.result() for name, task in tasks.items()}

    @app.get("/stream/{name}")
    async def stream(name: str, user: SignedIn) -> StreamingResponse:
        async def events_of() -> AsyncIterator[str]:
            yield "event: begun\ndata: {}\n\n"
            yield f"event: token\ndata: {json.dumps(await ask(user, name))}\n\n"

        return StreamingResponse(events_of(), media_type="text/event-stream")

    @app.post("/later/{key}/{name}")
    async def do_later(key: str, name: str, user: SignedIn, tasks: BackgroundTasks) -> dict[str, str]:
        async def fetch() -> None:
            later[key] = await ask(user, name)

        tasks.add_task(fetch)
        return {"key": key}

    @app.get("/later/{key}")
    async def done_later(key: str) -> dict[str, Any]:
        return {"done": later.pop(key, None)}

    @app.websocket("/ws")
    async def socket(websocket: WebSocket, user: CurrentUser) -> None:
        await websocket.accept()
        async for name in websocket.iter_text():
            await websocket.send_json(await ask(user, name))

    @app.get("/debug")
    async def debug() -> dict[str, Any]:
        gc.collect()
        tasks = Counter(task.get_name() for task in asyncio.all_tasks() if "logto" in task.get_name())
        return {
            "events": dict(logto.counts),
            "tasks": dict(tasks),
            "all_tasks": len(asyncio.all_tasks()),
            "rss": _resident(),
            "threads": threading.active_count(),
            "hung_up": HUNG_UP["callers"],
        }

    return app


def signed_by(app: FastAPI, index: int) -> Any:
    """Let every answer say which worker gave it, an unhandled error's too."""

    async def signing(scope: Any, receive: Any, send: Any) -> None:
        async def send_signed(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-worker", str(index).encode())]
            await send(message)

        await app(scope, receive, send_signed)

    return signing


def _resident() -> int:
    """Return the resident memory of this process in KiB; 0 where the system does not say."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    line = next(line for line in status.read_text("ascii").splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1])


def end_with_parent() -> None:
    """End when standard input closes: no worker outlives its test."""
    sys.stdin.buffer.read()
    os._exit(1)


def run(settings: dict[str, Any], listening: list[socket.socket]) -> None:
    """Serve the app on these sockets until SIGTERM, or until standard input closes."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    index = settings["index"]
    app = build_app(make_logto(settings), index)
    # Longer than clients keep connections, or one could be closed while its next request is on the way.
    patience = {"timeout_keep_alive": 900, "timeout_graceful_shutdown": 5}
    config = uvicorn.Config(signed_by(app, index), log_level="info", access_log=False, **patience)
    uvicorn.Server(config).run(sockets=listening)

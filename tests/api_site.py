"""An API in one process: the development provider, an app full of guards, and callers with tokens."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

import httpx
from fastapi import Depends, FastAPI, Security, WebSocket
from httpx import ASGITransport, AsyncClient
from starlette.websockets import WebSocketDisconnect

from logto_asgi import AccessTokenClaims, Logto, LogtoMiddleware, LogtoUser, PublicUser, any_of
from logto_asgi.fastapi import auth_router, bearer_token, require_auth
from logto_asgi.testing import Client, Clock, DevelopmentProvider, development_config, issuer_client

API = "https://shopping.example.com/api"
OTHER_API = "https://store.example.com/api"
BOTH = ("session", "bearer")

Claims = Annotated[AccessTokenClaims, Depends(bearer_token)]


@dataclass
class Api:
    """What a test needs to call the app."""

    clock: Clock
    provider: DevelopmentProvider
    logto: Logto
    app: FastAPI
    client: AsyncClient

    def token(self, sub: str = "alice", **options: Any) -> str:
        """Return an access token; for the app's own API unless the test says otherwise."""
        if not options.keys() & {"resource", "organization_id", "aud"}:
            options["resource"] = API
        options.setdefault("client_id", "spa")
        return self.provider.mint_access_token(sub, **options)

    async def get(self, path: str, token: str | None = None, **options: Any) -> httpx.Response:
        """Call the app, with a token in the header if there is one."""
        headers = options.pop("headers", {})
        if token is not None:
            headers = {"Authorization": f"Bearer {token}", **headers}
        return await self.client.request(options.pop("method", "GET"), path, headers=headers, **options)


def api_app(logto: Logto) -> FastAPI:
    """Return an app that has one endpoint for each thing that a guard can ask of a token."""
    app = FastAPI()
    app.add_middleware(LogtoMiddleware, logto=logto)
    if logto.config.signs_in:
        app.include_router(auth_router(logto.config))

    @app.get("/me")
    async def me(claims: Claims) -> dict[str, Any]:
        return claims.raw()

    for path, guard in guards().items():

        @app.api_route(path, methods=["GET", "POST"])
        async def endpoint(user: LogtoUser = Depends(guard)) -> PublicUser:
            return user.public()

    @app.get("/security")
    async def security(user: Annotated[LogtoUser, Security(require_auth(accept=BOTH), scopes=["read:items"])]) -> str:
        return user.identity

    @app.get("/security-and-own")
    async def security_and_own(
        claims: Annotated[AccessTokenClaims, Security(bearer_token(scopes=any_of("a", "b")), scopes=["c"])],
    ) -> str:
        return claims.sub

    @app.get("/who")
    async def who(user: Annotated[LogtoUser, Depends(require_auth(accept=BOTH, machines=True))]) -> dict[str, Any]:
        return {
            "sub": user.claims.sub,
            "identity": user.identity,
            "display_name": user.display_name,
            "client": user.client_id,
            "machine": user.is_machine,
            "actor": user.actor,
            "scopes": user.scopes,
            "organizations": user.organizations,
            "bearer": user.bearer is not None,
        }

    @app.get("/org/{org_id}")
    async def org(
        user: Annotated[LogtoUser, Depends(require_auth(accept=BOTH, organization="{org_id}"))],
    ) -> dict[str, Any]:
        return {"organization": user.organization_id, "of_token": user.organizations}

    @app.get("/org/{org_id}/items")
    async def org_items(
        user: Annotated[
            LogtoUser, Depends(require_auth(accept=BOTH, organization="{org_id}", resource=API, scopes=["read:items"]))
        ],
    ) -> dict[str, Any]:
        return {"organization": user.organization_id}

    @app.get("/org/{org_id}/members")
    async def org_members(
        user: Annotated[
            LogtoUser, Depends(require_auth(accept=BOTH, organization="{org_id}", scopes=["manage:members"]))
        ],
    ) -> str:
        return user.identity

    @app.get("/org/{org_id}/admin")
    async def org_admin(
        user: Annotated[
            LogtoUser, Depends(require_auth(accept=BOTH, organization="{org_id}", organization_roles=["admin"]))
        ],
    ) -> str:
        return user.identity

    @app.get("/any-org")
    async def any_org(claims: Annotated[AccessTokenClaims, Depends(bearer_token(organization="*"))]) -> str | None:
        return claims.organization

    @app.websocket("/ws")
    async def ws(websocket: WebSocket, user: Annotated[LogtoUser, Depends(require_auth(accept=BOTH))]) -> None:
        await websocket.accept()
        await websocket.send_json({"sub": user.identity})
        with suppress(WebSocketDisconnect):
            try:
                await asyncio.wait_for(websocket.receive_text(), 10)
            except TimeoutError:  # so that a test whose WebSocket should have ended does not wait for ever
                await websocket.close()

    return app


def guards() -> dict[str, Any]:
    """Return the guards of endpoints that answer with the user, by path."""
    return {
        "/either": require_auth(accept=BOTH),
        "/session": require_auth,
        "/read": require_auth(accept=BOTH, scopes=["read:items"]),
        "/both-scopes": require_auth(accept=BOTH, scopes=["read:items", "write:items"]),
        "/one-scope": require_auth(accept=BOTH, scopes=any_of("read:items", "write:items")),
        "/other-api": require_auth(accept="bearer", resource=OTHER_API),
        "/role": require_auth(accept=BOTH, roles=["admin"]),
        "/one-role": require_auth(accept=BOTH, roles=any_of("admin", "owner")),
        "/recent": require_auth(accept=BOTH, max_age=300),
        "/machines": require_auth(accept="bearer", machines=True),
        "/only-machines": require_auth(accept="bearer", machines="only"),
        "/clients": require_auth(accept="bearer", clients=["spa", "phone"]),
        "/opaque": require_auth(accept="bearer", opaque=True),
        "/opaque-clients": require_auth(accept="bearer", opaque=True, clients=["spa"]),
        "/opaque-org": require_auth(accept="bearer", opaque=True, organization="harbour"),
        "/header-org": require_auth(accept=BOTH, organization=lambda connection: connection.headers.get("x-org")),
        "/no-such-parameter": require_auth(accept=BOTH, organization="{org_id}"),
    }


def make_api(app: Any = api_app, provider: dict[str, Any] | None = None, **settings: Any) -> Api:
    """Return an API. `provider` holds options of the provider, the rest is configuration."""
    clock = Clock(1_800_000_000.0)
    resources = {API: ["read:items", "write:items"], OTHER_API: ["read:stock"]}
    development = DevelopmentProvider(
        clock=clock, **{"resources": resources, "clients": [Client("spa"), Client("phone")], **(provider or {})}
    )
    config = development_config(development, **{"api_resource": API, **settings})
    logto = Logto(config, http_client=issuer_client(development), clock=clock)
    built = app(logto)
    client = AsyncClient(transport=ASGITransport(built), base_url=config.base_url)
    return Api(clock, development, logto, built, client)

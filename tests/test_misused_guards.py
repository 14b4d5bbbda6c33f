"""A guard that is written down wrongly says so; it never lets somebody in without a word."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI

from logto_asgi import Logto, LogtoMiddleware, SetupError
from logto_asgi.fastapi import access_token, organization_token, require_auth
from tests.conftest import API, MakeSite, Site


@pytest.mark.parametrize("maker", [access_token, organization_token])
def test_dependency_that_was_not_made_is_refused_at_start(maker: Any) -> None:
    """`Depends(access_token)` would take its arguments from the query, return a guard, and ask nobody."""
    with pytest.raises(SetupError, match=rf"Write Depends\({maker.__name__}\("):
        FastAPI().get("/", dependencies=[Depends(maker)])(lambda: "in")


@pytest.mark.parametrize("guard", [require_auth, access_token(resource=API)])
def test_guard_as_a_bare_annotation_is_refused_at_start(guard: Any) -> None:
    """`Annotated[…, require_auth]` without `Depends` is a query parameter to FastAPI."""

    async def endpoint(user: Any = None) -> str:
        return "in"

    endpoint.__annotations__["user"] = Annotated[Any, guard]
    with pytest.raises(SetupError, match="without Depends"):
        FastAPI().get("/")(endpoint)


async def test_guard_as_a_default_value_lets_nobody_in(make_site: MakeSite) -> None:
    """`user=require_auth` without `Depends` is a query parameter with a default."""

    def build(logto: Logto) -> FastAPI:
        app = FastAPI()
        app.add_middleware(LogtoMiddleware, logto=logto)

        @app.get("/")
        async def endpoint(user: Any = require_auth) -> str:
            return "in"

        return app

    response = await (await make_site(app=build).visitor()).get("/")
    assert response.status_code == 500
    assert "require_auth stands here without Depends" in response.json()["detail"]


def test_guard_called_by_hand_is_refused(site: Site) -> None:
    """`require_auth(request)` in an endpoint would return a guard and ask nobody."""
    with pytest.raises(TypeError, match=r"Depends\(require_auth\)"):
        require_auth({"type": "http"})  # type: ignore[call-overload]

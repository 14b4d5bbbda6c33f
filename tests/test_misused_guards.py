"""A guard that is written down wrongly says so; it never lets somebody in without a word."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI

from logto_asgi import AccessTokenClaims, IdTokenClaims, Logto, LogtoMiddleware, SetupError, UserInfo
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


def test_guard_among_dependencies_without_depends_is_refused() -> None:
    """`dependencies=[require_auth]` would be an AttributeError of FastAPI's."""
    with pytest.raises(SetupError, match="without Depends"):
        FastAPI().get("/", dependencies=[require_auth])(lambda: "in")  # type: ignore[list-item]


@pytest.mark.filterwarnings("ignore:The 'alias' attribute")  # of pydantic, at FastAPI's parameter of a model
@pytest.mark.parametrize("claims", [AccessTokenClaims, IdTokenClaims, UserInfo])
async def test_claims_without_a_guard_believe_nobody(make_site: MakeSite, claims: Any) -> None:
    """As a bare type FastAPI takes them from the body, as `Depends()` from the query: both would be anybody's word."""

    def build(logto: Logto) -> FastAPI:
        app = FastAPI()
        app.add_middleware(LogtoMiddleware, logto=logto)

        async def from_body(caller: Any) -> str:
            return "in"

        async def from_query(caller: Any) -> str:
            return "in"

        from_body.__annotations__["caller"] = claims
        from_query.__annotations__["caller"] = Annotated[claims, Depends()]
        app.post("/body")(from_body)
        app.post("/query")(from_query)
        return app

    visitor = await (make_site(app=build)).visitor()
    sent = {"sub": "admin", "iss": "x", "aud": "x", "exp": 1, "iat": 1, "client_id": "x"}
    for path, options in (("/body", {"json": sent}), ("/query?extra_data=a", {"params": sent, "json": {"aud": "x"}})):
        response = await visitor.post(path, **options)
        assert response.status_code in (422, 500), response.text
        assert response.text != '"in"'
    assert "stands here without a guard" in (await visitor.post("/body", json=sent)).json()["detail"]

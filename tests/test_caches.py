"""What a shared cache is told: nothing of ours is stored, whichever header it listens to."""

from __future__ import annotations

import httpx
from fastapi import FastAPI, Request
from starlette.responses import PlainTextResponse, Response

from logto_asgi import Logto
from logto_asgi.testing.visitor import NAVIGATION
from tests.conftest import MakeSite, Site, build_app

FOR_CACHES = {
    "Expires": "Fri, 01 Jan 2100 00:00:00 GMT",
    "CDN-Cache-Control": "max-age=60",
    "Cloudflare-CDN-Cache-Control": "max-age=60",
    "Surrogate-Control": "max-age=60",
    "Edge-Control": "max-age=60",
    "X-Accel-Expires": "60",
}


def with_a_cached_page(logto: Logto) -> FastAPI:
    app = build_app(logto)

    @app.get("/cached")
    async def cached(request: Request) -> Response:
        text = request.state.user.identity
        return PlainTextResponse(text, headers={**FOR_CACHES, "X-Session-Expires": "soon"})

    return app


async def test_no_header_lets_a_cache_store_a_cookie(make_site: MakeSite) -> None:
    """The vendors' own headers go before `Cache-Control` (RFC 9213 §2.2), so they leave with the cookie's response."""
    site = make_site(app=with_a_cached_page)
    visitor = await site.visitor()
    await visitor.sign_in()
    site.clock.move(700)
    response = await visitor.get("/cached")
    assert "set-cookie" in response.headers
    assert response.headers["cache-control"] == "private, no-store"
    assert not {name.lower() for name in FOR_CACHES} & set(response.headers)
    assert response.headers["x-session-expires"] == "soon"


async def test_every_response_with_a_cookie_of_ours_is_private(site: Site) -> None:
    """Sign-in, call-back and sign-out too: not stored, and different for each cookie."""
    seen: list[httpx.Response] = []

    async def note(response: httpx.Response) -> None:
        if response.url.port == 8000 and "set-cookie" in response.headers:
            seen.append(response)

    visitor = await site.visitor(event_hooks={"response": [note]})
    await visitor.sign_in()
    await visitor.get("/logto/sign-out", headers={**NAVIGATION, "Sec-Fetch-Site": "same-origin"})
    assert [response.url.path for response in seen] == ["/logto/sign-in", "/logto/sign-in-callback", "/logto/sign-out"]
    for response in seen:
        assert "no-store" in response.headers["cache-control"]
        assert response.headers["vary"] == "Cookie"

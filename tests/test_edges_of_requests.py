"""Userinfo, forms, pages and WebSockets at an awkward moment, as a visitor sees them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, WebSocket
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from logto_asgi import Logto, LogtoMiddleware, RequireAuthMiddleware
from logto_asgi.fastapi import CurrentUser
from logto_asgi.testing.visitor import NAVIGATION
from logto_asgi.visit import Visit
from tests.conftest import MakeSite, Site, build_app
from tests.test_routes import asked, start
from tests.test_tokens import signed_in


class TestUserInfo:
    """What the userinfo endpoint may answer besides the user."""

    async def test_that_refuses_a_fresh_token_needs_a_sign_in(self, site: Site) -> None:
        """401 to the kept token and to the one of a refresh: 401 for the visitor, who stays signed in here."""
        visitor, _ = await signed_in(site)
        for _ in range(2):
            site.provider.fail_next("userinfo", status=401)
        response = await visitor.get("/info")
        assert (response.status_code, response.json()["code"]) == (401, "sign_in_required")
        assert site.refreshes() == 1
        assert (await visitor.get("/info")).json()["sub"] == "alice"

    @pytest.mark.parametrize("statuses", [[403], [401, 403]])
    async def test_that_refuses_otherwise_is_502(self, site: Site, statuses: list[int]) -> None:
        """Another refusal is the issuer's, not the visitor's; only a 401 leads to a refresh."""
        visitor, _ = await signed_in(site)
        for status in statuses:
            site.provider.fail_next("userinfo", status=status)
        response = await visitor.get("/info")
        assert (response.status_code, response.json()["code"]) == (502, "issuer_refused")
        assert site.refreshes() == len(statuses) - 1

    @pytest.mark.parametrize(
        ("answer", "words"),
        [({"sub": "mallory", "name": "Mallory"}, "of another user"), ({"name": "Mallory"}, "no `sub`")],
        ids=["another user", "no user"],
    )
    async def test_that_does_not_fit_is_502(self, site: Site, answer: dict[str, object], words: str) -> None:
        """Claims about somebody else (Core §5.3.2) or about nobody are the issuer's fault, and reach nobody."""
        visitor, _ = await signed_in(site)
        site.provider.fail_next("userinfo", status=200, body=answer)
        response = await visitor.get("/info")
        assert (response.status_code, response.json()["code"]) == (502, "issuer_response_invalid")
        assert words in response.json()["detail"]
        assert "mallory" not in response.text.lower()
        assert (await visitor.get("/info")).json()["sub"] == "alice"


@pytest.mark.parametrize(("padding", "hint"), [(0, ["alice@example.com"]), (8192, None)])
async def test_form_over_8_kilobytes_is_not_read(site: Site, padding: int, hint: list[str] | None) -> None:
    """The sign-in starts as without a form."""
    visitor = await site.visitor()
    form = {"login_hint": "alice@example.com", "padding": "x" * padding}
    response = await visitor.post("/logto/sign-in", data=form, headers=NAVIGATION)
    assert response.status_code == 303
    assert asked(response).get("login_hint") == hint


async def test_magic_link_asks_while_the_issuer_is_down(make_site: MakeSite) -> None:
    """The page that asks needs nothing of the issuer; only the addresses that its form may lead to are fewer."""
    site = make_site(one_time_token="confirm")
    for _ in range(3):
        site.provider.fail_next("discovery", status=503)
    page = await start(await site.visitor(), "?one_time_token=abc&login_hint=alice@example.com")
    assert page.status_code == 200
    assert "Continue as alice@example.com" in page.text


async def test_mistake_in_the_set_up_is_a_page_for_a_browser(site: Site) -> None:
    """An issuer that refuses the app is told to a browser in words, to a program in JSON."""
    visitor, _ = await signed_in(site)
    site.provider.fail_next("token", status=401, body={"error": "invalid_client"})
    page = await visitor.navigate("/token")
    assert page.status_code == 502
    assert "Something is not set up right" in page.text
    assert page.headers["content-type"].startswith("text/html")


class TestWebSocket:
    """A WebSocket has a timer for the end of its session, and may fail when it is long open."""

    async def test_that_its_app_closes_leaves_no_timer(self, site: Site) -> None:
        """The timer goes with the conversation: nothing is sent later, and no task stays for thirty days."""
        messages = [{"type": "websocket.accept"}, {"type": "websocket.close", "code": 1000, "reason": ""}]
        assert await self.conversation(site, messages) == messages
        assert [task.get_name() for task in asyncio.all_tasks()].count("logto_asgi websocket end") == 0

    async def test_that_breaks_leaves_no_timer(self, site: Site) -> None:
        """Nor does it stay after an error of the app."""
        with pytest.raises(ZeroDivisionError):
            await self.conversation(site, [{"type": "websocket.accept"}], fail=ZeroDivisionError())
        assert [task.get_name() for task in asyncio.all_tasks()].count("logto_asgi websocket end") == 0

    async def test_that_the_browser_left_ends_without_an_error(self, site: Site) -> None:
        """At the end of the session a server may refuse to close what is closed: that is nobody's error."""
        closing = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert scope["logto_asgi"].is_authenticated
            await send({"type": "websocket.accept"})
            async with asyncio.timeout(10):
                await closing.wait()
            await asyncio.sleep(0)

        async def send(message: Any) -> None:
            if message["type"] == "websocket.close":
                closing.set()
                raise RuntimeError("Unexpected ASGI message 'websocket.close', after sending 'websocket.close'.")

        scope = await self.scope(site)
        site.logto.clock = lambda: 1_800_000_000 + site.config.absolute_lifetime - 0.01
        await LogtoMiddleware(app, logto=site.logto)(scope, None, send)  # type: ignore[arg-type]
        assert closing.is_set()

    async def test_whose_session_ends_is_closed_with_its_code(self, make_site: MakeSite) -> None:
        """An error of ours after the handshake closes with 1008 and the code as reason, not with a traceback."""
        site = make_site(app=_with_late_token)
        visitor, _ = await signed_in(site)
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in visitor.cookies.jar)
        client = TestClient(site.app, base_url="http://localhost:8000", headers={"Cookie": cookies})
        with client.websocket_connect("/late-token") as socket:
            site.provider.revoke("alice")
            socket.send_text("now")
            with pytest.raises(WebSocketDisconnect) as closed:
                socket.receive_text()
        assert (closed.value.code, closed.value.reason) == (1008, "session_ended")

    async def test_denied_by_a_guard_outside_of_the_app_is_closed(self, site: Site) -> None:
        """`RequireAuthMiddleware` around a whole app answers a handshake itself, here for a server without denials."""
        sent: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            raise AssertionError("nobody is signed in")

        async def receive() -> dict[str, str]:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        guarded = LogtoMiddleware(RequireAuthMiddleware(app), logto=site.logto)
        await guarded({"type": "websocket", "path": "/", "headers": [], "query_string": b""}, receive, send)
        assert sent == [{"type": "websocket.close", "code": 1008, "reason": ""}]

    async def conversation(self, site: Site, messages: list[Any], fail: Exception | None = None) -> list[Any]:
        """Let an app send these messages, and return what went out."""
        sent: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert scope["logto_asgi"].is_authenticated
            for message in messages:
                await send({**message})
            if fail is not None:
                raise fail

        async def send(message: Any) -> None:
            sent.append({name: value for name, value in message.items() if name != "headers"})

        await LogtoMiddleware(app, logto=site.logto)(await self.scope(site), None, send)  # type: ignore[arg-type]
        return sent

    @staticmethod
    async def scope(site: Site) -> dict[str, Any]:
        visitor, _ = await signed_in(site)
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in visitor.cookies.jar).encode()
        return {"type": "websocket", "path": "/", "headers": [(b"cookie", cookies)], "query_string": b""}


def _with_late_token(logto: Logto) -> FastAPI:
    app = build_app(logto)

    @app.websocket("/late-token")
    async def late_token(websocket: WebSocket, user: CurrentUser) -> None:
        await websocket.accept()
        await websocket.receive_text()
        await websocket.send_text(await user.get_access_token(force_refresh=True))

    return app


async def test_other_kinds_of_connection_pass(site: Site) -> None:
    """Middleware and guard leave alone what is neither HTTP nor a WebSocket: a server's own extension, a lifespan."""
    passed: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        passed.append(scope["type"])

    guarded = LogtoMiddleware(RequireAuthMiddleware(app), logto=site.logto)
    for kind in ("lifespan", "something-new"):
        await guarded({"type": kind}, None, None)  # type: ignore[arg-type]
    assert passed == ["lifespan", "something-new"]


async def test_unread_user_says_so(site: Site) -> None:
    """The repr of a user reads no cookie, and names a user by `sub` only."""
    visitor, _ = await signed_in(site)
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        user = scope["state"]["user"]
        seen.extend([repr(user), user.is_authenticated, repr(user)])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    transport = httpx.ASGITransport(LogtoMiddleware(app, logto=site.logto))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000", cookies=visitor.cookies) as it:
        await it.get("/")
    assert seen == ["<LogtoUser, not read yet>", True, "<LogtoUser 'alice'>"]


async def test_page_of_an_outage_says_who_is_still_signed_in(site: Site) -> None:
    """A refresh that the issuer cannot answer: the visitor did not lose anything."""
    visitor = await site.visitor()
    await visitor.sign_in()
    for _ in range(2):
        site.provider.fail_next("token", status=503)
    page = await visitor.navigate("/token")
    assert page.status_code == 503
    assert "You are still signed in." in page.text
    assert "We can&#x27;t reach the sign-in service" in page.text


async def test_late_refresh_changes_nobody(site: Site) -> None:
    """A refresh that ends after its user signed out, or somebody else signed in, leaves the request as it is."""
    visitor = await site.visitor()
    await visitor.sign_in()
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in visitor.cookies.jar).encode()
    visit = Visit(site.logto, {"type": "http", "method": "GET", "headers": [(b"cookie", cookies)]})
    session = visit.ask()
    assert session is not None
    other, later = replace(session, id="other"), replace(session, version=session.version + 1)
    for now in (None, other, replace(later, version=later.version + 1)):
        visit.session = now
        visit.advance(later)
        assert visit.session is now
    visit.session = session
    visit.advance(later)
    assert visit.session is later

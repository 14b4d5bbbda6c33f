"""A page of the shop in a real browser: it fetches by session and by token, and steps up to a newer sign-in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from e2e_provider import STOCK, Provider
from e2e_services import Opener, Services

FETCH = """async ([url, options]) => { const answer = await fetch(url, options);
    return [answer.status, await answer.json()]; }"""
LISTEN = """([url, token]) => new Promise((done) => {
    const socket = new WebSocket(url, ["logto.bearer", token]);
    socket.onmessage = (message) => done([message.data, socket.protocol]);
    socket.onclose = (event) => done([null, event.code]); })"""


@pytest.fixture
def services(reserve: Any, oidc_provider: Callable[..., Provider], serve: Callable[..., str]) -> Services:
    """A shop and a stock."""
    return Opener(reserve, oidc_provider, serve).open()


def sign_in(page: Any, services: Services, path: str = "/logto/sign-in") -> None:
    """Go where a sign-in begins, and click on Alice."""
    page.goto(services.shop + path)
    page.get_by_role("button", name="Alice Example").click()
    page.wait_for_url(services.shop + "/**")


def fetch(page: Any, url: str, **options: Any) -> Any:
    """Let the page's own script fetch an address. Return status and body."""
    return page.evaluate(FETCH, [url, options])


def test_a_page_fetches_by_session_and_by_token(services, page):
    """Its session opens its own server, and gets it a token for the other one, over HTTP and by WebSocket."""
    page.goto(services.shop)
    assert fetch(page, "/api/me")[0] == 401
    sign_in(page, services)

    assert fetch(page, "/api/me", method="POST") == [200, ["alice", "session"]]
    form = {"method": "POST", "body": f"resource={STOCK}"}
    form["headers"] = {"Content-Type": "application/x-www-form-urlencoded"}
    status, answer = fetch(page, "/logto/token", **form)
    assert (status, answer["token_type"], answer["scope"]) == (200, "Bearer", "read:stock")

    bearing = {"headers": {"Authorization": f"Bearer {answer['access_token']}"}}
    assert fetch(page, services.stock + "/items", **bearing) == [200, ["alice", "the-app"]]
    assert fetch(page, "/api/me", **bearing)[0] == 401
    live = services.stock.replace("http", "ws") + "/live"
    assert page.evaluate(LISTEN, [live, answer["access_token"]]) == ["alice", "logto.bearer"]
    assert page.evaluate(LISTEN, [live, "nonsense"]) == [None, 1006]


def test_step_up(services, page):
    """A page that wants a recent sign-in has the user sign in again when the provider's is old, and comes back."""
    sign_in(page, services)
    services.provider.age_sessions(seconds=301)
    services.provider.reset()

    page.goto(services.shop + "/payout")
    page.get_by_role("button", name="Alice Example").wait_for()
    (request,) = services.provider.authorizations()
    assert dict(request)["max_age"] == "300"
    page.get_by_role("button", name="Alice Example").click()

    page.get_by_role("heading", name="Payout of alice").wait_for()
    assert page.url == services.shop + "/payout"
    assert len(services.provider.authorizations()) == 1
    page.reload()
    page.get_by_role("heading", name="Payout of alice").wait_for()
    assert len(services.provider.authorizations()) == 1


def test_a_recent_sign_in_is_not_asked_again(services, page):
    """The session does not say when it began; the provider does, without a page, and not a second time."""
    sign_in(page, services)

    page.goto(services.shop + "/payout")
    page.get_by_role("heading", name="Payout of alice").wait_for()

    requests = [dict(each) for each in services.provider.authorizations()]
    assert [request.get("max_age") for request in requests] == [None, "300"]


def test_a_script_is_told_to_step_up(services, page):
    """It gets 401 with the age and an address to go to, and no redirect that it could not follow."""
    sign_in(page, services)

    status, body = fetch(page, "/payout")

    assert (status, body["code"]) == (401, "step_up_required")
    target = urlsplit(body["sign_in_url"])
    assert target.path == "/logto/sign-in"
    assert dict(parse_qsl(target.query))["max_age"] == "300"

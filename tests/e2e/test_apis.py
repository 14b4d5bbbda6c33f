"""Two services on real sockets, and a real provider: who may call the stock, through outages and new keys."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from e2e_provider import APP_SECRET, SHOP, STOCK, Provider
from e2e_services import ANYBODY, LIVES, ROBOT, Opener, Services
from e2e_visitor import Visitor
from websockets.asyncio.client import connect

from logto_asgi import Logto, LogtoConfig
from logto_asgi.httpx import ClientCredentialsAuth

HOUR = 3600
NAVIGATION = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.fixture
def services(reserve: Any, oidc_provider: Callable[..., Provider], serve: Callable[..., str]) -> Services:
    """A shop and a stock."""
    return Opener(reserve, oidc_provider, serve).open()


@pytest.fixture
def holder(services: Services) -> Iterator[Visitor]:
    """An app whose tokens a test can hold in its hand."""
    visitor = Visitor(services.provider, app_id=ANYBODY)
    yield visitor
    visitor.close()


@pytest.fixture
async def http(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the stock."""
    async with httpx.AsyncClient(base_url=services.stock, trust_env=False, timeout=30) as client:
        yield client


def tokens_for(holder: Visitor, resource: str | None = STOCK, scope: str = "read:stock", **more: Any) -> dict[str, Any]:
    """Sign in as Alice and return the tokens of the code exchange, the access token for a resource."""
    target = {"resource": resource} if resource else {}
    code = holder.sign_in(scope=f"openid offline_access {scope}", **target, **more)["code"]
    return holder.exchange(code, **target)


def bearing(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def sign_in(http: httpx.AsyncClient, url: str) -> None:
    """Sign in to the shop at the provider's page."""
    page = await http.get(url + "/logto/sign-in", headers=NAVIGATION, follow_redirects=True)
    action = re.search(r'action="([^"]+)"', page.text)
    assert action, page.text
    await http.post(page.url.join(action[1]), data={"sub": "alice"}, headers=NAVIGATION, follow_redirects=True)


# Who is let in


async def test_a_user_of_the_shop_reaches_the_stock(services):
    """The stock sees the user, and the shop as the client that asks in the user's name."""
    async with httpx.AsyncClient(trust_env=False, timeout=30) as browser:
        await sign_in(browser, services.shop)
        answer = await browser.get(services.shop + "/items")
    assert answer.json() == ["alice", "the-app"]


async def test_the_stock_asks_on_in_the_users_name(services, holder, http):
    """It exchanges the caller's token for one of another API, and does not pass it on."""
    token = tokens_for(holder)["access_token"]
    assert (await http.get("/with-parts", headers=bearing(token))).json() == ["alice", "the-stock"]
    assert (await http.get("/parts", headers=bearing(token))).status_code == 401


async def test_a_machine_asks_by_its_own_name(services, http):
    """One token serves many requests; what is for users does not let it in."""
    config = LogtoConfig.without_sign_in(endpoint=services.provider.endpoint, app_id=ROBOT, app_secret=APP_SECRET)
    async with Logto(config) as logto:
        auth = ClientCredentialsAuth(logto, STOCK, scopes=["read:stock"], origins=[services.stock])
        answers = await asyncio.gather(*(http.get("/count", auth=auth) for _ in range(10)))
        refused = await http.get("/items", auth=auth)

    assert {answer.text for answer in answers} == {f'"{ROBOT}"'}
    assert refused.status_code == 403
    assert services.provider.counts()["token:client_credentials"] == 1


async def test_opaque_tokens_are_asked_about(services, holder, http):
    """An endpoint that takes them asks the provider once; others, refresh tokens and revoked ones are refused."""
    tokens = tokens_for(holder, resource=None)
    opaque = bearing(tokens["access_token"])

    assert [(await http.get("/told", headers=opaque)).json() for _ in range(3)] == ["alice"] * 3
    assert services.provider.counts()["token/introspection"] == 1
    assert (await http.get("/items", headers=opaque)).status_code == 401
    assert (await http.get("/told", headers=bearing(tokens["refresh_token"]))).status_code == 401
    holder.app.post("token/revocation", data={"token": tokens["access_token"]})
    services.stock_clock.ahead = 60
    assert (await http.get("/told", headers=opaque)).status_code == 401


# Who is not


async def test_what_the_stock_refuses(services, holder, http):
    """Each has its answer by RFC 6750: nothing, another kind of token, another API's, too little, too late."""
    mine, other = tokens_for(holder), tokens_for(holder, SHOP, "read:items")
    scopeless = tokens_for(holder, scope="profile")["access_token"]

    async def ask(token: str | None, path: str = "/items") -> tuple[int, str]:
        answer = await http.get(path, headers=bearing(token) if token is not None else {})
        error = re.search(r'error="(\w+)"', answer.headers.get("www-authenticate", ""))
        return answer.status_code, error[1] if error else ""

    assert await ask(mine["access_token"]) == (200, "")
    assert await ask(None) == (401, "")
    assert await ask(mine["id_token"]) == (401, "invalid_token")
    assert await ask(mine["refresh_token"]) == (401, "invalid_token")
    assert await ask(other["access_token"]) == (401, "invalid_token")
    assert await ask(mine["access_token"][:-8] + "AAAAAAAA") == (401, "invalid_token")
    assert await ask(scopeless) == (403, "insufficient_scope")
    assert await ask(mine["access_token"], "/count") == (403, "")
    in_query = await http.get("/items", params={"access_token": mine["access_token"]})
    assert in_query.status_code == 400
    services.stock_clock.ahead = LIVES + 120
    assert await ask(mine["access_token"]) == (401, "invalid_token")


# Keys and outages


async def test_new_keys_under_load(services, holder, http):
    """Tokens of the key before and of the new one both pass; those of a key that is gone are refused in time."""
    old = tokens_for(holder)["access_token"]
    tokens, statuses, done = [old], set[int](), asyncio.Event()

    async def load() -> None:
        while not done.is_set():
            for token in tuple(tokens):
                statuses.add((await http.get("/items", headers=bearing(token))).status_code)

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(load())
        await asyncio.to_thread(services.provider.rotate_keys)
        tokens.append((await asyncio.to_thread(tokens_for, holder))["access_token"])
        new = tokens[1]
        assert (await http.get("/items", headers=bearing(new))).status_code == 200
        assert (await http.get("/items", headers=bearing(old))).status_code == 200
        done.set()
    assert statuses == {200}

    services.provider.rotate_keys()
    services.stock_clock.ahead = HOUR + 1  # after which keys are fetched again
    assert (await http.get("/items", headers=bearing(old))).status_code == 401
    assert (await http.get("/items", headers=bearing(new))).status_code == 200


async def test_the_issuer_is_down(services, holder, http):
    """Known keys go on, for tokens that are seen for the first time as well; of another key nobody can say."""
    seen, unseen = (tokens_for(holder)["access_token"] for _ in range(2))
    assert (await http.get("/items", headers=bearing(seen))).status_code == 200
    services.provider.rotate_keys()
    of_a_new_key = tokens_for(holder)["access_token"]
    services.provider.down()

    for ahead in (0, HOUR + 1):
        services.stock_clock.ahead = ahead
        assert (await http.get("/items", headers=bearing(seen))).status_code == 200
        assert (await http.get("/items", headers=bearing(unseen))).status_code == 200
        assert (await http.get("/items", headers=bearing(of_a_new_key))).status_code == 503
    services.provider.up()
    services.stock_clock.ahead += 60
    assert (await http.get("/items", headers=bearing(of_a_new_key))).status_code == 200


# WebSockets


@pytest.mark.parametrize("way", ["header", "subprotocol"])
async def test_a_websocket(services, holder, way):
    """The token comes in the header, or from a browser as a subprotocol, which the server then answers."""
    token = tokens_for(holder)["access_token"]
    options: dict[str, Any] = {"subprotocols": ["logto.bearer", token]}
    if way == "header":
        options = {"additional_headers": bearing(token)}

    async with connect(services.stock.replace("http", "ws") + "/live", proxy=None, **options) as socket:
        assert await socket.recv() == "alice"
        assert socket.subprotocol == (None if way == "header" else "logto.bearer")

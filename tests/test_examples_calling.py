"""The examples that call other services: in the name of a user, and in a machine's own name."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from test_examples import EXAMPLES, reach_in_process

from logto_asgi import Logto, LogtoConfig
from logto_asgi.testing import Client, DemoUser, DevelopmentProvider, Visitor, issuer_client

STOCK = "https://stock.example.com/api"
BASE = "http://localhost:8000"
SECRET = secrets.token_urlsafe(24)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> DevelopmentProvider:
    """Set the variables of an app, in a folder without a `.env`; the provider knows it and a machine."""
    values = {
        "LOGTO_ENDPOINT": "http://localhost:3001",
        "LOGTO_APP_ID": "example",
        "LOGTO_APP_SECRET": SECRET,
        "LOGTO_BASE_URL": BASE,
        "LOGTO_COOKIE_SECRET": secrets.token_urlsafe(32),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    scopes = ["read:stock", "write:stock"]
    clients = [
        Client("example", SECRET, [f"{BASE}/logto/sign-in-callback"], [f"{BASE}/"]),
        Client("robot", SECRET, machine=True, permissions={STOCK: scopes}),
        Client("watcher", SECRET, machine=True, permissions={STOCK: ["read:stock"]}),
    ]
    return DevelopmentProvider(clients=clients, resources={STOCK: scopes})


def load(name: str) -> ModuleType:
    """Load an example as a module of its own."""
    module = ModuleType(f"example_{name}")
    exec(compile((EXAMPLES / f"{name}.py").read_text("utf-8"), f"{name}.py", "exec", dont_inherit=True), vars(module))
    return module


# -- calls_an_api.py ---------------------------------------------------------------------------------------------------


class Shop:
    """Both services of the example in one process; what goes between them is kept."""

    def __init__(self, provider: DevelopmentProvider) -> None:
        self.module = load("calls_an_api")
        self.requests: list[httpx.Request] = []
        reach_in_process(self.module.stock, provider)
        config = reach_in_process(self.module.app, provider)
        self.visitor = Visitor(self.module.app, provider, config=config)
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.module.stock),
            base_url=self.module.ADDRESS,
            event_hooks={"request": [self.note]},
        )
        self.module.app.state.stock = self.client

    async def note(self, request: httpx.Request) -> None:
        self.requests.append(request)


@pytest.fixture
async def shop(provider: DevelopmentProvider) -> AsyncIterator[Shop]:
    """Return the example with a browser that has not signed in."""
    shop = Shop(provider)
    async with shop.visitor, shop.client:
        yield shop


async def test_the_stock_knows_the_user(shop: Shop, provider: DevelopmentProvider) -> None:
    """The user signs in at the shop only; the stock is asked with a token for it, and sees the same user."""
    assert (await shop.visitor.get("/items")).status_code == 401
    page = await shop.visitor.sign_in("alice", path="/items")
    assert page.json() == {"asked by": "alice", "items": {"lamp": 3, "chair": 12}}
    assert (await shop.visitor.post("/items/lamp/buy")).json() == {"taken by": "alice", "left": 2}
    assert (await shop.visitor.post("/items/sofa/buy")).json() == {"detail": "There is none left."}
    assert len({request.headers["authorization"] for request in shop.requests}) == 1
    assert provider.requests.count("token", "refresh_token") == 1
    await shop.visitor.sign_out()
    assert (await shop.visitor.post("/items/lamp/buy")).status_code == 401
    assert len(shop.requests) == 3


async def test_the_stock_takes_nobody_without_a_token(shop: Shop) -> None:
    """Neither a stranger nor the browser of somebody who is signed in at the shop."""
    await shop.visitor.sign_in("alice")
    cookies = {"cookie": "; ".join(f"{name}={value}" for name, value in shop.visitor.cookies.items())}
    answers = [await shop.client.get("/items"), await shop.client.get("/items", headers=cookies)]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(401, "token_required")] * 2


async def test_a_user_who_may_only_look(monkeypatch: pytest.MonkeyPatch, provider: DevelopmentProvider) -> None:
    """The stock's 403 is the shop's: what a user may do is decided where it is done."""
    reader = DemoUser("rosa", name="Rosa", permissions={STOCK: ["read:stock"]})
    known = Client("example", SECRET, [f"{BASE}/logto/sign-in-callback"], [f"{BASE}/"])
    shop = Shop(DevelopmentProvider(clients=[known], users=[reader], resources={STOCK: ["read:stock", "write:stock"]}))
    async with shop.visitor, shop.client:
        page = await shop.visitor.sign_in("rosa", path="/items")
        refused = await shop.visitor.post("/items/lamp/buy")
    assert (page.json()["asked by"], refused.status_code) == ("rosa", 403)
    assert "write:stock" in refused.json()["detail"]


async def test_a_stock_that_is_away(shop: Shop) -> None:
    """The shop says so, and goes on."""

    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no route", request=request)

    await shop.visitor.sign_in("alice")
    async with httpx.AsyncClient(transport=httpx.MockTransport(away), base_url=shop.module.ADDRESS) as client:
        shop.module.app.state.stock = client
        answer = await shop.visitor.get("/items")
    assert (answer.status_code, answer.json()["detail"][:9]) == (503, "The stock")
    assert (await shop.visitor.get("/")).status_code == 200


# -- machine_to_machine.py ---------------------------------------------------------------------------------------------


@pytest.fixture
def service(provider: DevelopmentProvider) -> ModuleType:
    """Return the example, whose service has the provider for an issuer."""
    module = load("machine_to_machine")
    reach_in_process(module.app, provider)
    return module


def at(service: ModuleType, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url=service.ADDRESS, **options)


def machine(provider: DevelopmentProvider, app_id: str) -> Logto:
    config = LogtoConfig.without_sign_in(app_id=app_id, app_secret=SECRET)
    return Logto(config, http_client=issuer_client(provider))


async def test_the_job_delivers(service: ModuleType, provider: DevelopmentProvider) -> None:
    """Two requests with one token of the machine."""
    async with machine(provider, "robot") as logto, at(service) as client:
        assert await service.delivery(logto, client, "lamp", 5) == "8 lamp, 12 chair"
    assert provider.requests.count("token", "client_credentials") == 1


async def test_machines_and_users_are_told_apart(service: ModuleType, provider: DevelopmentProvider) -> None:
    """A machine without the permission delivers nothing, none has favourites, and no user delivers."""
    token = provider.mint_access_token("alice", resource=STOCK, scopes=["read:stock", "write:stock"])
    async with machine(provider, "watcher") as logto, at(service) as client:
        client.auth = service.authentication(logto)
        assert (await client.get("/items")).status_code == 200
        refused = await client.post("/deliveries", params={"item": "lamp", "count": 1})
        assert (refused.status_code, refused.json()["missing"]) == (403, ["write:stock"])
        assert (await client.get("/favourites")).status_code == 403
    async with at(service, headers={"Authorization": f"Bearer {token}"}) as client:
        assert (await client.get("/favourites")).json() == {"of": "alice"}
        assert (await client.post("/deliveries", params={"item": "lamp", "count": 1})).status_code == 403
    assert service.shelves == {"lamp": 3, "chair": 12}


def test_the_job_says_what_is_missing(tmp_path: Path) -> None:
    """As a command without an id and a secret it ends with one sentence and no traceback."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOGTO_")}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "machine_to_machine.py"), "lamp", "5"],
        env={**environment, "LOGTO_ENDPOINT": "http://localhost:3001"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, "Traceback" in done.stderr) == (1, "", False)
    assert "Set LOGTO_APP_ID and LOGTO_APP_SECRET" in done.stderr

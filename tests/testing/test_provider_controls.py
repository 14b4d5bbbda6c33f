"""Facts about the levers that the development provider gives to tests, and about who may reach it."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from typing import Any

import httpx
import pytest
import uvicorn
from provider_visitor import CLIENTS, Visitor, decode
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from logto_asgi.testing import Client, DevelopmentProvider
from logto_asgi.testing.loopback import is_loopback

DOCUMENT = "/oidc/.well-known/openid-configuration"


def test_access_tokens_can_be_expired(visit):
    """Userinfo refuses those of before and takes a new one."""
    visitor = visit()
    tokens = visitor.tokens()
    visitor.provider.expire_access_tokens()
    assert visitor.userinfo(tokens["access_token"]).status_code == 401
    fresh = visitor.refresh(tokens["refresh_token"]).json()["access_token"]
    assert visitor.userinfo(fresh).status_code == 200


def test_a_user_can_be_revoked(visit):
    """Grants and session of that user end, the others' go on."""
    visitor, other = visit(), None
    alice = visitor.tokens("alice")["refresh_token"]
    other = visit(provider=visitor.provider)
    bob = other.tokens("bob")["refresh_token"]
    visitor.provider.revoke("alice")
    assert visitor.refresh(alice).json()["error"] == "invalid_grant"
    assert visitor.authorize().status_code == 200
    assert other.refresh(bob).status_code == 200
    assert other.authorize().status_code == 303


def test_keys_can_be_rotated(visit):
    """The new key signs at once, the previous one stays published, the one before goes."""
    visitor = visit()

    def kids() -> list[str]:
        return [key["kid"] for key in visitor.http.get("/oidc/jwks").json()["keys"]]

    (first,) = kids()
    visitor.provider.rotate_keys()
    second = kids()[0]
    assert kids() == [second, first]
    assert decode(visitor.tokens()["id_token"], 0)["kid"] == second
    visitor.provider.rotate_keys()
    assert kids()[1:] == [second]


def test_an_endpoint_can_fail(visit):
    """The next calls fail as ordered, one by one, and nothing is spent by them."""
    visitor = visit("spa")
    token = visitor.tokens()["refresh_token"]
    visitor.provider.fail_next("token", 429, {"Retry-After": "7"}, "Too many requests")
    visitor.provider.fail_next("token")
    first, second, third = (visitor.refresh(token) for _ in range(3))
    assert (first.status_code, first.headers["retry-after"], first.text) == (429, "7", "Too many requests")
    assert (second.status_code, second.json()["code"]) == (503, "development.fail_next")
    assert third.status_code == 200


def test_an_endpoint_can_fail_with_a_body(visit):
    """The body may be any JSON object."""
    visitor = visit()
    visitor.provider.fail_next("jwks", 500, body={"code": "x"})
    assert visitor.http.get("/oidc/jwks").json() == {"code": "x"}


@pytest.mark.parametrize("after", [False, True])
async def test_an_endpoint_can_be_slow(visit, after):
    """A caller that hangs up first finds the refresh token unspent, or spent when the delay is after the work."""
    visitor = visit("spa")
    token = visitor.tokens()["refresh_token"]
    visitor.provider.delay("token", 60, after=after)
    http = httpx.AsyncClient(transport=httpx.ASGITransport(visitor.provider), base_url=visitor.provider.endpoint)
    form = {"grant_type": "refresh_token", "client_id": "spa", "refresh_token": token}

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await http.post("/oidc/token", data=form)
    spent = visitor.provider._core.storage.refresh_tokens[token].consumed_at is not None
    assert spent == after
    visitor.provider.delay("token", 0)
    assert (await http.post("/oidc/token", data=form)).status_code == 200
    await http.aclose()


@pytest.mark.parametrize("call", ["fail_next", "delay", "count"])
def test_a_typo_in_an_endpoint_is_an_error(visit, call):
    """An unknown name is a ValueError that lists the names."""
    provider = visit().provider
    calls: dict[str, Any] = {
        "fail_next": lambda: provider.fail_next("tokens"),
        "delay": lambda: provider.delay("tokens", 1),
        "count": lambda: provider.requests.count("tokens"),
    }
    with pytest.raises(ValueError, match=r"'tokens'.*userinfo"):
        calls[call]()


def test_requests_are_counted_without_secrets(visit):
    """The log has endpoints and kinds of grant, and no value of a request."""
    visitor = visit()
    token = visitor.tokens()["refresh_token"]
    visitor.refresh(token)
    visitor.token(grant_type="s3cret-in-a-wrong-place")
    log = visitor.provider.requests
    assert log.count("token") == 3
    assert log.count("token", "refresh_token") == 1
    assert log.counts()["authorization"] == 1
    shown = repr(list(log.entries)) + repr(log)
    assert token not in shown
    assert "s3cret" not in shown
    log.clear()
    assert log.count("token") == 0


def test_claims_can_be_changed(visit):
    """A known claim needs its scope, an unknown one is there always, and others are untouched."""
    visitor = visit()
    visitor.provider.set_claims("alice", email="new@example.com", plan="gold", roles=["reader"])
    claims = decode(visitor.tokens(scope="openid email")["id_token"])
    assert (claims["email"], claims["plan"], "roles" in claims) == ("new@example.com", "gold", False)
    assert "plan" not in decode(visitor.tokens("bob", prompt="login")["id_token"])


@pytest.mark.parametrize("change", [lambda p: p.suspend("nobody"), lambda p: p.set_claims("nobody", x=1)])
def test_an_unknown_user_is_an_error(visit, change):
    """A typo in a test does not pass silently."""
    with pytest.raises(KeyError):
        change(visit().provider)


def test_id_tokens_can_be_minted(visit):
    """Claims are replaced or taken away, and the header as well."""
    provider = visit().provider
    token = provider.mint_id_token("bob", header={"typ": "JWT"}, aud="other", nonce="n", name=None, exp=None)
    claims = decode(token)
    assert decode(token, 0)["typ"] == "JWT"
    assert (claims["sub"], claims["aud"], claims["nonce"], claims["iss"]) == ("bob", "other", "n", provider.issuer)
    assert not {"name", "exp"} & claims.keys()
    assert claims["picture"] is None


def test_a_client_can_be_added():
    """An app whose address is known only later can still sign in."""
    provider = DevelopmentProvider()
    provider.add_client(CLIENTS[0])
    assert Visitor(provider).tokens()["access_token"]


def test_no_repr_shows_a_secret(visit):
    """Neither the provider, nor a client, nor anything that is stored."""
    visitor = visit()
    tokens = visitor.tokens()
    storage = visitor.provider._core.storage
    stored = [*storage.refresh_tokens.values(), *storage.access_tokens.values(), *storage.codes.values()]
    shown = repr([visitor.provider, CLIENTS[0], visitor.provider._core, stored, list(storage.sessions.values())])
    for secret in ("s&cret", tokens["refresh_token"], tokens["access_token"], "the-nonce", *storage.sessions):
        assert secret not in shown


# Who may reach it


def open_document(provider: DevelopmentProvider, host: str, client: tuple[str, int]) -> Any:
    return TestClient(provider, base_url="http://localhost:3001", client=client).get(DOCUMENT, headers={"Host": host})


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:3001", "127.0.0.1", "127.9.9.9:80", "[::1]", "[::1]:3001"])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_served(host, address):
    """Loopback in every spelling, as address and as Host."""
    assert open_document(DevelopmentProvider(), host, (address, 5000)).status_code == 200


@pytest.mark.parametrize(
    ("host", "address", "text"),
    [
        ("localhost", "192.168.1.5", "address is not loopback"),
        ("localhost", "testclient", "address is not loopback"),
        ("localhost", "::ffff:10.0.0.1", "address is not loopback"),
        ("localhost", "", "address is not loopback"),
        ("evil.example", "127.0.0.1", "names another host"),
        ("localhost.evil.example", "127.0.0.1", "names another host"),
        ("127.0.0.1.evil.example", "127.0.0.1", "names another host"),
        ("evil.example:3001@localhost", "127.0.0.1", "names another host"),
        ("0.0.0.0:3001", "127.0.0.1", "names another host"),
        ("[::2]", "127.0.0.1", "names another host"),
        ("", "127.0.0.1", "names another host"),
    ],
)
def test_nobody_else_is_served(host, address, text):
    """Another address or Host is 403 with a sentence that says why and what to do."""
    answer = open_document(DevelopmentProvider(), host, (address, 5000))
    assert answer.status_code == 403
    assert text in answer.text
    assert "client=('127.0.0.1', 50000)" in answer.text


@pytest.mark.parametrize(
    "scope",
    [
        {"client": None, "headers": [(b"host", b"localhost")]},
        {"client": ("127.0.0.1", 1), "headers": []},
        {"client": ("127.0.0.1", 1), "headers": [(b"host", b"localhost"), (b"host", b"evil.example")]},
    ],
)
async def test_an_unknown_address_or_host_is_refused(scope):
    """No client, no Host and two Hosts count as foreign."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    full = {"type": "http", "method": "GET", "path": DOCUMENT, "query_string": b"", "root_path": "", **scope}
    await DevelopmentProvider()(full, receive, send)
    assert sent[0]["status"] == 403


@pytest.mark.parametrize("denial", [False, True])
async def test_a_websocket_from_elsewhere_is_refused(denial):
    """It is denied with 403, or closed with 1008 where the server knows no denial."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    extensions = {"websocket.http.response": {}} if denial else {}
    scope = {
        "type": "websocket",
        "path": "/oidc/auth",
        "query_string": b"",
        "root_path": "",
        "client": ("10.0.0.1", 1),
        "headers": [(b"host", b"localhost")],
        "extensions": extensions,
    }
    await DevelopmentProvider()(scope, receive, send)
    first = sent[0]
    assert (
        (first["type"], first.get("status")) == ("websocket.http.response.start", 403)
        if denial
        else first["code"] == 1008
    )


def test_there_is_no_websocket():
    """One of this machine is closed, because nothing listens."""
    client = TestClient(DevelopmentProvider(), base_url="http://localhost:3001", client=("127.0.0.1", 1))
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/oidc/auth", headers={"Host": "localhost"}):
        pass


@pytest.mark.parametrize("name", ["localhost.example", "128.0.0.1", "0.0.0.0", "127.1", "2130706433", "", "[]"])
def test_what_is_not_loopback(name):
    """Look-alikes and other spellings are not this machine."""
    assert not is_loopback(name)


@pytest.mark.parametrize(
    "issuer",
    [
        "https://tenant.logto.app/oidc",
        "http://10.0.0.1:3001/oidc",
        "ftp://localhost/oidc",
        "localhost:3001/oidc",
        "http://localhost:3001/oidc/",
        "http://localhost:3001/oidc?a=1",
    ],
)
def test_the_issuer_is_on_this_machine(issuer):
    """Another issuer is a ValueError when the provider is made."""
    with pytest.raises(ValueError, match="issuer"):
        DevelopmentProvider(issuer=issuer)


def test_the_warning_comes_once(caplog):
    """At start-up, or with the first request where there is no lifespan."""
    provider = DevelopmentProvider(clients=[Client("web", "s3cret")])
    with caplog.at_level(logging.WARNING, "logto_asgi.testing"):
        with TestClient(provider, base_url=provider.endpoint, client=("127.0.0.1", 1)) as client:
            assert len(caplog.messages) == 1
            client.get(DOCUMENT)
        open_document(provider, "localhost:3001", ("127.0.0.1", 1))
    assert len(caplog.messages) == 1
    assert re.search("not for production", caplog.text)
    assert "s3cret" not in caplog.text


def test_who_is_asked_at_another_address_says_so_once(caplog):
    """An app that finds the provider at another port refuses it; the remedy is in the provider's log."""
    provider = DevelopmentProvider(issuer="http://localhost:3001/oidc")
    client = TestClient(provider, base_url="http://LOCALHOST:3001", client=("127.0.0.1", 1))
    with caplog.at_level(logging.WARNING, "logto_asgi.testing"):
        client.get(DOCUMENT)
        told = len(caplog.messages)
        for host in ("localhost:3101", "127.0.0.1:3001"):
            client.get(DOCUMENT, headers={"Host": host})
    assert [told, len(caplog.messages)] == [1, 2]  # the first is that it is not for production
    assert 'DevelopmentProvider(issuer="http://localhost:3101/oidc", …)' in caplog.messages[1]


async def test_it_runs_under_a_server():
    """Over uvicorn on a free port: a sign-in by plain HTTP, and a quiet end."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        issuer = f"http://localhost:{listener.getsockname()[1]}/oidc"
        provider = DevelopmentProvider(issuer=issuer, clients=CLIENTS)
        server = uvicorn.Server(uvicorn.Config(provider, log_level="error"))
        running = asyncio.create_task(server.serve(sockets=[listener]))
        query = dict(Visitor(provider).query(login_hint="alice"))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", trust_env=False) as http:
            answer = await http.get("/oidc/auth", params=query)
        server.should_exit = True
        await running
    assert answer.headers["location"].startswith(query["redirect_uri"] + "?code=")


def test_client_behind_a_tunnel_is_refused():
    """A tunnel connects from this machine, and names the stranger behind it."""
    provider = DevelopmentProvider()
    client = TestClient(provider, base_url=provider.endpoint, client=("127.0.0.1", 5000))
    for name, value in (("X-Forwarded-For", "127.0.0.1, 203.0.113.9"), ("Forwarded", "for=203.0.113.9")):
        assert client.get(DOCUMENT, headers={name: value}).status_code == 403
    assert client.get(DOCUMENT, headers={"X-Forwarded-For": "127.0.0.1, ::1"}).status_code == 200

"""Each file of examples/ is an app that works: sign in, use what it shows, sign out, with the provider in process."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis_server import need_redis
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient, WebSocketDenialResponse

from logto_asgi import Logto, LogtoConfig, LogtoMiddleware
from logto_asgi.testing import Client, DevelopmentProvider
from logto_asgi.testing.visitor import Visitor, issuer_client

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
API = "https://shopping.example.com/api"
SECRET = secrets.token_urlsafe(24)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> DevelopmentProvider:
    """Set the variables of an app, in a folder without a `.env`, and let the provider know that app."""
    values = {
        "LOGTO_ENDPOINT": "http://localhost:3001",
        "LOGTO_APP_ID": "example",
        "LOGTO_APP_SECRET": SECRET,
        "LOGTO_BASE_URL": "http://localhost:8000",
        "LOGTO_COOKIE_SECRET": secrets.token_urlsafe(32),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    base = values["LOGTO_BASE_URL"]
    return DevelopmentProvider(
        clients=[Client("example", SECRET, [f"{base}/logto/sign-in-callback"], [f"{base}/"])], access_token_ttl=60
    )


@pytest.fixture
def load(provider: DevelopmentProvider) -> Iterator[Callable[[str], tuple[Any, Visitor]]]:
    """Load an example as uvicorn does, with the provider in this process for an issuer."""

    def load(name: str) -> tuple[Any, Visitor]:
        spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        config = reach_in_process(module.app, provider)
        return module, Visitor(module.app, provider, config=config)

    return load


def reach_in_process(app: Starlette, provider: DevelopmentProvider) -> LogtoConfig:
    """Give the app's middleware a runtime with an HTTP client that reaches the provider without a network."""
    (place,) = (index for index, each in enumerate(app.user_middleware) if each.cls is LogtoMiddleware)
    given: dict[str, Any] = dict(app.user_middleware[place].kwargs)
    config: LogtoConfig = given["config"] if "config" in given else given["logto"].config
    logto = Logto(config, http_client=issuer_client(provider))
    app.user_middleware[place] = Middleware(LogtoMiddleware, logto=logto)
    return config


def test_every_example_has_a_test() -> None:
    """A new file in examples/ needs a test that uses it, here or in a file beside this one."""
    tested = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_examples*.py"))
    ways = 'load("{0}"', 'started("{0}.py")'
    names = [path.stem for path in EXAMPLES.glob("*.py")]
    assert [name for name in names if not any(way.format(name) in tested for way in ways)] == []


async def test_quickstart(load: Any) -> None:
    """The smallest app greets a visitor, signs in through its guarded page, and signs out."""
    _, visitor = load("quickstart")
    assert (await visitor.get("/")).json() == {"sign_in": "/logto/sign-in"}
    assert (await visitor.get("/profile")).status_code == 401
    page = await visitor.sign_in("alice", path="/profile")
    assert (page.url.path, page.json()["claims"]["name"]) == ("/profile", "Alice Martin")
    assert (await visitor.get("/")).json() == {"hello": "Alice Martin"}
    await visitor.sign_out()
    assert (await visitor.get("/profile")).status_code == 401


def test_quickstart_is_what_the_readme_prints() -> None:
    """A reader of README.md and of examples/ sees one app, of at most twenty lines."""
    code = (EXAMPLES / "quickstart.py").read_text("utf-8")
    assert f"```python\n{code}```" in (EXAMPLES.parent / "README.md").read_text("utf-8")
    assert len(code.splitlines()) <= 20


async def test_starlette_app(load: Any) -> None:
    """`RequireAuthMiddleware` on a route and Starlette's `@requires` both lead to sign-in and back."""
    for path, shown in (("/profile", "claims"), ("/orders", "of")):
        _, visitor = load("starlette_app")
        assert (await visitor.get("/")).json() == {"hello": "visitor"}
        page = await visitor.sign_in("bob", path=path)
        assert page.url.path == path
        assert shown in page.json()
        await visitor.sign_out()
        assert (await visitor.get("/")).json() == {"hello": "visitor"}


async def test_guarded_site_refuses_visitors_everywhere(load: Any) -> None:
    """Nothing but the home page answers a visitor: not an endpoint, a router, a file or a WebSocket."""
    module, visitor = load("guarded_site")
    paths = ["/profile", "/admin/users", "/files/guarded_site.py", "/api/me"]
    assert [(await visitor.get(path)).status_code for path in paths] == [401, 401, 401, 401]
    assert (await visitor.navigate("/api/me")).status_code == 401
    with pytest.raises(WebSocketDenialResponse), TestClient(module.app).websocket_connect("/updates"):
        pass


async def test_guarded_site_lets_users_in(load: Any) -> None:
    """A user sees the profile, the files and the WebSocket; the admin's pages need the role."""
    module, visitor = load("guarded_site")
    page = await visitor.sign_in("bob", path="/profile")
    assert page.json() == {"name": "Bob Okafor", "email": "bob@example.com"}
    assert (await visitor.get("/files/guarded_site.py")).status_code == 200
    assert (await visitor.get("/admin/users")).status_code == 403
    cookies = "; ".join(f"{name}={value}" for name, value in visitor.cookies.items())
    with TestClient(module.app).websocket_connect("/updates", headers={"Cookie": cookies}) as socket:
        assert socket.receive_json() == {"hello": "Bob Okafor"}
    await visitor.sign_out()
    assert (await visitor.get("/profile")).status_code == 401


async def test_guarded_site_knows_its_admin(load: Any) -> None:
    """The admin may remove a user, but not from the page of another site."""
    _, visitor = load("guarded_site")
    await visitor.sign_in("alice")
    assert (await visitor.get("/admin/users")).json() == ["alice", "bob", "zoe"]
    assert (await visitor.delete("/admin/users/bob")).json() == {"removed": "bob"}
    foreign = await visitor.delete("/admin/users/bob", headers={"Origin": "https://evil.example"})
    assert (foreign.status_code, foreign.json()["code"]) == (403, "cross_site_request")
    await visitor.sign_out()


async def test_access_tokens(load: Any, provider: DevelopmentProvider) -> None:
    """The API is called with a token for it; when it refuses one, a new token is fetched once."""
    module, visitor = load("access_tokens")
    tokens: list[str] = []

    def shop(request: httpx.Request) -> httpx.Response:
        tokens.append(request.headers["authorization"])
        refused = request.method == "POST" and len(tokens) == 2
        return httpx.Response(401 if refused else 200, json=["book"])

    module.app.state.shop = httpx.AsyncClient(transport=httpx.MockTransport(shop))
    await visitor.sign_in("alice")
    assert (await visitor.get("/items")).json() == ["book"]
    assert (await visitor.post("/basket/book")).json() == {"status": 200}
    assert (len(tokens), tokens[0] == tokens[1], tokens[1] == tokens[2]) == (3, True, False)
    assert provider.requests.count("token", "refresh_token") == 2
    await visitor.sign_out()
    assert (await visitor.get("/items")).status_code == 401


async def test_demo(load: Any, provider: DevelopmentProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo shows claims and what a token allows, refreshes it on demand, and never shows the token."""
    monkeypatch.setenv("LOGTO_RESOURCES", API)
    monkeypatch.setenv("LOGTO_SCOPES", "email read:items")
    _, visitor = load("demo")
    assert "Hello, visitor" in (await visitor.get("/")).text
    page = await visitor.sign_in("zoe", path="/profile")
    assert "zoe@example.com" in page.text
    page = await visitor.get("/token")
    assert "read:items" in page.text
    assert "eyJ" not in page.text
    page = await visitor.post("/token/refresh", follow_redirects=True)
    assert "Refreshed: the token from before was" in page.text
    page = await visitor.get(str(page.url).replace("before=", "before=x"))
    assert "Refreshed" in page.text
    await visitor.sign_out()
    assert "Hello, visitor" in (await visitor.get("/")).text


async def test_the_demo_escapes_what_a_user_or_an_address_says(load: Any, provider: DevelopmentProvider) -> None:
    """A name, a claim of the tenant and a query are text on the demo's pages."""
    provider.set_claims("alice", name="<b>Alice</b>", colour="<i>red</i>", **{"<u>odd</u>": ["<s>x</s>"]})
    _, visitor = load("demo")
    page = await visitor.sign_in("alice", path="/profile")
    pages = [page, await visitor.get("/"), await visitor.get("/token?before=<em>y</em>")]
    assert not [tag for tag in ("<b>", "<i>r", "<u>", "<s>", "<em>") for page in pages if tag in page.text]
    assert "&lt;b&gt;Alice&lt;/b&gt;" in pages[1].text
    assert "default-src 'none'" in page.headers["content-security-policy"]


async def test_the_demo_works_without_an_api(load: Any) -> None:
    """Without `resources` the token page shows the opaque token's fingerprint and no times."""
    _, visitor = load("demo")
    page = await visitor.sign_in("alice", path="/token")
    assert "the issuer&#x27;s userinfo" in page.text or "the issuer's userinfo" in page.text
    assert "Expires" not in page.text


@contextlib.contextmanager
def started(name: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start an example that is a command, on free ports, and return the process and the address that it prints."""
    command = [sys.executable, str(EXAMPLES / name), "--port", "0", "--provider-port", "0"]
    environment = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        printed = ""
        while "Ctrl-C" not in printed:
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            printed += line
        found = re.search(r"Open +(http://localhost:\d+)", printed)
        assert found
        yield process, found[1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


async def ask_twenty_times(address: str, cookies: httpx.Cookies) -> list[dict[str, Any]]:
    """Let the token be forgotten, then ask for it at once by connections of their own, as a page would."""
    async with httpx.AsyncClient(trust_env=False, timeout=60, cookies=cookies) as browser:
        assert (await browser.post(f"{address}/forget")).status_code == 200
        answers = await asyncio.gather(*(browser.get(f"{address}/token") for _ in range(20)))
        assert [answer.text for answer in answers if answer.status_code != 200] == []
        return [answer.json() for answer in answers]


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent by a signal")
async def test_redis_workers() -> None:
    """Four workers share a session in Redis: twenty requests without a token cause one refresh. Ctrl-C ends it all."""
    need_redis()
    with started("redis_workers.py") as (process, address):
        async with httpx.AsyncClient(trust_env=False, timeout=60, follow_redirects=True) as browser:
            page = await browser.get(f"{address}/logto/sign-in", headers={"Accept": "text/html"})
            action = re.search(r'<form method="post" action="([^"]+)"', page.text)
            assert action
            page = await browser.post(page.url.join(unescape(action[1])), data={"sub": "alice"})
            assert (str(page.url), "One refresh for four workers" in page.text) == (f"{address}/", True)
            seen = {(await browser.get(f"{address}/token")).json()["token"]}
        workers: set[int] = set()
        for _ in range(50):  # one round is enough where its connections reach two workers, which the system decides
            answers = await ask_twenty_times(address, browser.cookies)
            (token,) = {answer["token"] for answer in answers}
            assert token not in seen
            seen.add(token)
            workers |= {answer["worker"] for answer in answers}
            if len(workers) > 1:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
        assert (process.returncode, out.strip(), "Traceback" in err) == (0, "Stopped.", False)
    assert len(workers) > 1


def test_redis_workers_says_how_to_get_redis() -> None:
    """Without Redis on this machine there is one sentence with the ways to get it."""
    command = [sys.executable, str(EXAMPLES / "redis_workers.py"), "--port", "0", "--provider-port", "0"]
    environment = {name: value for name, value in os.environ.items() if name != "REDIS_URL"} | {"PATH": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"This needs Redis 7 or Valkey: install it \(.+\), or start one with docker .+\n", done.stderr)

"""The rest of the kit for an app's own tests: a clock, fixtures, and a sign-in with Starlette's TestClient."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from logto_asgi import Logto, LogtoConfig, LogtoMiddleware, auth_routes
from logto_asgi.testing import Clock, DevelopmentProvider, Visitor, development_config, issuer_client, sign_in


def home(request: Request) -> Response:
    return PlainTextResponse(request.state.user.identity)


def build(logto: Logto) -> Starlette:
    return Starlette(
        routes=[Route("/", home), Route("/shelf", home), *auth_routes(logto.config)],
        middleware=[Middleware(LogtoMiddleware, logto=logto)],
    )


def a_site(**settings: Any) -> tuple[DevelopmentProvider, LogtoConfig, Starlette]:
    provider = DevelopmentProvider()
    config = development_config(provider, **settings)
    return provider, config, build(Logto(config, http_client=issuer_client(provider)))


def test_a_clock_stands_still_until_it_is_moved() -> None:
    """Time is what the test says, and begins where the test wants it, or now."""
    clock = Clock(100)
    clock.move(0.5)
    assert (clock(), clock.now, repr(clock)) == (100.5, 100.5, "Clock(100.5)")
    now = Clock()
    assert now() == now() > 1_700_000_000


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("base_url", ["http://localhost:8000", "https://shop.example.com"])
def test_a_test_client_signs_in(base_url: str, started: bool) -> None:
    """Starlette's TestClient goes through the provider and ends where it wanted to; also with __Host- cookies."""
    provider, config, app = a_site(base_url=base_url)
    client = TestClient(app, base_url=config.base_url)
    with client if started else nullcontext():
        page = sign_in(client, provider, config=config, sub="bob", return_to="/shelf")
        assert (str(page.url), page.text) == (f"{base_url}/shelf", "bob")
        assert client.get("/").text == "bob"
    assert TestClient(app, base_url=config.base_url).get("/").text == ""


def test_a_test_client_signs_in_as_somebody_else() -> None:
    """Every sign-in is a new visit to the provider: nobody there remembers the one before."""
    provider, config, app = a_site()
    client = TestClient(app, base_url=config.base_url)
    assert [sign_in(client, provider, config=config, sub=sub).text for sub in ("alice", "bob")] == ["alice", "bob"]


def test_a_sign_in_that_fails_returns_its_page() -> None:
    """The response says what went wrong, as a visitor would see it."""
    provider, config, app = a_site()
    provider.fail_next("token")
    page = sign_in(TestClient(app, base_url=config.base_url), provider, config=config)
    assert (page.url.path, page.status_code) == ("/logto/sign-in-callback", 503)


def test_a_test_client_of_another_address_is_told_so() -> None:
    """The default address of TestClient would lose every cookie, silently."""
    provider, config, app = a_site()
    with pytest.raises(ValueError, match=r"Write TestClient\(app, base_url=config.base_url\)"):
        sign_in(TestClient(app), provider, config=config)


def test_importing_the_kit_needs_no_framework_and_no_pytest() -> None:
    """FastAPI and pytest may be absent; neither is imported by the way."""
    program = (
        "import sys; sys.modules.update(fastapi=None, pytest=None)\n"
        "import logto_asgi.testing, logto_asgi.testing.visitor; sys.exit('starlette.testclient' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


SUITE = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from logto_asgi import LogtoMiddleware, auth_routes
from logto_asgi.testing import Visitor

async def test_the_fixtures_fit(development_logto, development_provider, development_clock):
    config = development_logto.config
    routes = [Route("/", lambda request: PlainTextResponse(request.user.identity)), *auth_routes(config)]
    app = LogtoMiddleware(Starlette(routes=routes), logto=development_logto)
    async with Visitor(app, development_provider, config=config) as visitor:
        assert (await visitor.sign_in("bob")).text == "bob"
        development_clock.move(config.idle_lifetime)
        assert (await visitor.get("/")).text == ""
    assert development_logto.clock is development_clock
"""


SETTINGS = "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n"


@pytest.mark.parametrize(
    "conftest",
    ['pytest_plugins = ["logto_asgi.testing.fixtures"]\n', "from logto_asgi.testing.fixtures import *\n"],
    ids=["plugin", "import"],
)
def test_an_app_s_tests_have_the_fixtures(tmp_path: Path, conftest: str) -> None:
    """Both ways to take the fixtures give a provider, a clock and a `Logto` that belong together."""
    (tmp_path / "conftest.py").write_text(conftest, "utf-8")
    (tmp_path / "test_suite.py").write_text(SUITE, "utf-8")
    (tmp_path / "pytest.ini").write_text(SETTINGS, "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


async def test_user_that_does_not_exist_is_named() -> None:
    """Signing in as nobody is an error that names the users there are, not a page that the next line trips over."""
    provider = DevelopmentProvider()
    config = development_config(provider)
    app = LogtoMiddleware(
        Starlette(routes=[*auth_routes(config)]), logto=Logto(config, http_client=issuer_client(provider))
    )
    async with Visitor(app, provider, config=config) as visitor:
        with pytest.raises(ValueError, match="alice, bob"):
            await visitor.sign_in("nobody")
    with pytest.raises(ValueError, match="alice, bob"):
        sign_in(TestClient(app, base_url=config.base_url), provider, config=config, sub="nobody")

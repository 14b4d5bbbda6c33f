"""examples/README.md: its table has every example, and each runs with provider.py and the settings that it prints."""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from types import ModuleType

import pytest
from starlette.testclient import TestClient
from test_examples import EXAMPLES, reach_in_process

from logto_asgi import Logto, LogtoConfig
from logto_asgi.testing import DevelopmentProvider, Visitor, issuer_client

README = (EXAMPLES / "README.md").read_text("utf-8")
WITH_SIGN_IN = [
    "access_tokens",
    "calls_an_api",
    "demo",
    "guarded_site",
    "htmx",
    "organizations",
    "quickstart",
    "spa_and_api",
    "starlette_app",
    "step_up",
]


def load(name: str) -> ModuleType:
    """Load an example as a module of its own."""
    module, path = ModuleType(f"example_{name}"), EXAMPLES / f"{name}.py"
    module.__file__ = str(path)
    exec(compile(path.read_text("utf-8"), path.name, "exec", dont_inherit=True), vars(module))
    return module


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """Set what the page writes into `.env`, with a secret in place of the placeholder."""
    found = dict(re.findall(r"^(LOGTO_\w+)=(.*)$", README, re.MULTILINE))
    found["LOGTO_COOKIE_SECRET"] = secrets.token_urlsafe(32)
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return found


@pytest.fixture
def provider() -> DevelopmentProvider:
    """Return the app that `uvicorn provider:app` serves."""
    provider: DevelopmentProvider = load("provider").app
    return provider


def test_the_table_has_every_example() -> None:
    """Who adds a file adds its row, with the command that starts it."""
    rows = dict(re.findall(r"^\| \[(\w+)\.py\]\(\1\.py\) \| [^|]+ \| ([^|]+) \|$", README, re.MULTILINE))
    assert sorted(rows) == sorted(path.stem for path in EXAMPLES.glob("*.py"))
    assert [name for name, command in rows.items() if name not in command] == []


@pytest.mark.parametrize("name", WITH_SIGN_IN)
async def test_signing_in_with_the_settings_of_the_page(
    name: str, settings: dict[str, str], provider: DevelopmentProvider
) -> None:
    """Each app with sign-in brings Alice back signed in: the provider knows its address, and its APIs."""
    app = load(name).app
    visitor = Visitor(app, provider, config=reach_in_process(app, provider))
    page = await visitor.sign_in("alice", return_to="/")
    assert (page.status_code, str(page.url)) == (200, f"{settings['LOGTO_BASE_URL']}/")
    assert (await visitor.sign_out()).status_code == 200
    assert provider.requests.count("end_session") == 1


def test_the_printed_token_opens_the_api(settings: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """What the provider prints is a token for `api.py`, which may read and may not write."""
    provider, api = load("provider").app, load("api").app
    token = capsys.readouterr().out.split()[-1]
    reach_in_process(api, provider)
    client = TestClient(api, headers={"Authorization": f"Bearer {token}"})
    assert client.get("/items").status_code == 200
    assert client.put("/items/lamp?count=4").json()["missing"] == ["write:items"]


async def test_the_machine_gets_a_token(
    settings: dict[str, str], provider: DevelopmentProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the id that the table says, the job's token allows what the job does."""
    monkeypatch.setenv("LOGTO_APP_ID", "my-machine")
    stock, scopes = load("machine_to_machine").STOCK, ["read:stock", "write:stock"]
    async with Logto(LogtoConfig.without_sign_in(), http_client=issuer_client(provider)) as logto:
        token = await logto.get_client_credentials_token(stock, scopes=scopes)
        claims = await logto.bearer.verify(token)
    assert (sorted(claims.scopes), claims.audiences) == (scopes, {stock})

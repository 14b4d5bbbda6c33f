"""Run every Python block of README.md and docs/, each on its own, and hold the pages together.

How a block is run (the convention for authors, also in CONTRIBUTING.md):

- ```` ```python ```` blocks run, always. The `LOGTO_*` variables of an app are set; top-level `await` is allowed.
- A block that leaves an ASGI `app` behind is started and asked for `GET /`: any answer below 500 will do.
- A block with `def test_…` or `class Test…` is run by pytest.
- A block whose first line is `# name.py` is also saved under that name, and later blocks of the page can import it.
- `<!-- test: with app -->` on the line above gives the block `config` and a FastAPI `app` with middleware and routes;
  `<!-- test: with user -->` a signed-in `user` besides; `<!-- test: raises SomeError -->` expects that error.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest
from httpx import ASGITransport, AsyncClient
from starlette.requests import Request
from starlette.testclient import TestClient

from logto_asgi.events import EVENTS
from logto_asgi.testing import signed_in

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w+-]*)[^\n]*\n(?P<code>.*?)^(?P=indent)```\s*$", re.MULTILINE | re.DOTALL
)
MARK = re.compile(r"<!-- test: (with app|with user|raises \w+) -->\s*\Z")
ENVIRONMENT = {
    "LOGTO_ENDPOINT": "https://tenant.logto.example",
    "LOGTO_APP_ID": "docs-app",
    "LOGTO_APP_SECRET": "docs-app-secret",
    "LOGTO_BASE_URL": "http://localhost:8000",
    "LOGTO_COOKIE_SECRET": "kT3-vQ8zYw1LpRb6NfXe0SgHu5JmDc7aOi2BqEx9tZs",
}
WITH_APP = """
from fastapi import Depends, FastAPI, HTTPException, Request, WebSocket
from logto_asgi import *
from logto_asgi.fastapi import *
config = LogtoConfig()
app = FastAPI()
app.add_middleware(LogtoMiddleware, config=config)
app.include_router(auth_router(config))
"""


@dataclass(frozen=True)
class Block:
    """One fenced block: where it is, what it holds and what is asked of it."""

    page: Path
    line: int
    language: str
    code: str
    before: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"

    @property
    def mark(self) -> str:
        found = MARK.search(self.before)
        return found[1] if found else ""

    @property
    def file_name(self) -> str | None:
        found = re.match(r"# (\w+\.py)\n", self.code)
        return found[1] if found else None


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text("utf-8")
    for found in FENCE.finditer(text):
        lines = [line.removeprefix(found["indent"]) for line in found["code"].splitlines()]
        line = text.count("\n", 0, found.start()) + 1
        yield Block(page, line, found["language"], "\n".join(lines) + "\n", text[: found.start()].rstrip())


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
PYTHON = [block for block in BLOCKS if block.language == "python"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a block its own working folder, importable, with the variables of an app."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.place)
def test_the_python_block_runs(block: Block, folder: Path) -> None:
    """What a reader copies from the page works as printed."""
    for other in PYTHON:
        if other.page == block.page and other.line < block.line and other.file_name:
            (folder / other.file_name).write_text(other.code, "utf-8")
    if re.search(r"^((async )?def test_|class Test)", block.code, re.MULTILINE):
        run_as_tests(block, folder)
    elif block.mark.startswith("raises "):
        expect_error(block, block.mark.removeprefix("raises "))
    else:
        names = run(block)
        if callable(names.get("app")):
            answer_once(names["app"])


def run_as_tests(block: Block, folder: Path) -> None:
    (folder / "test_block.py").write_text(block.code, "utf-8")
    settings = "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    (folder / "pytest.ini").write_text(settings, "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "test_block.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def expect_error(block: Block, name: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 -- the page names the class, and it is compared below
        run(block)
    assert name in [error.__name__ for error in type(caught.value).__mro__]


def run(block: Block) -> dict[str, Any]:
    """Execute the block as a module of its own; tracebacks show the page and its line."""
    module = ModuleType("docs_block")
    if block.mark.startswith("with "):
        exec(WITH_APP, module.__dict__)
    code = compiled(block)
    if block.mark == "with user":
        asyncio.run(run_signed_in(code, module.__dict__))
    elif inspect.CO_COROUTINE & code.co_flags:
        asyncio.run(eval(code, module.__dict__))
    else:
        exec(code, module.__dict__)
    return module.__dict__


def compiled(block: Block) -> CodeType:
    source = "\n" * block.line + block.code
    code: CodeType = compile(source, block.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    return code


async def run_signed_in(code: CodeType, names: dict[str, Any]) -> None:
    """Run the block inside a request of a signed-in user, as an endpoint would."""

    async def endpoint(request: Request) -> dict[str, str]:
        names.update(request=request, user=request.state.user)
        result = eval(code, names)
        if inspect.isawaitable(result):
            await result
        return {}

    app = names["app"]
    app.add_api_route("/docs-block", endpoint)
    with signed_in(app, sub="docs-user"):
        async with AsyncClient(transport=ASGITransport(app=app), base_url=ENVIRONMENT["LOGTO_BASE_URL"]) as client:
            assert (await client.get("/docs-block")).status_code == 200


def answer_once(app: Any) -> None:
    with TestClient(app, base_url=ENVIRONMENT["LOGTO_BASE_URL"], follow_redirects=False) as client:
        assert client.get("/").status_code < 500


def test_the_apps_of_the_readme_are_short() -> None:
    """An app that a newcomer copies has at most 20 lines of code."""
    apps = [block for block in PYTHON if block.page.name == "README.md" and "app = " in block.code]
    lines = {block.place: [line for line in block.code.splitlines() if line.strip()] for block in apps}
    assert {place: len(code) for place, code in lines.items() if len(code) > 20} == {}


def test_no_python_hides_from_the_tests() -> None:
    """Python is fenced as `python`, so that it is run, and no comment says otherwise."""
    other_names = [block.place for block in BLOCKS if block.language in ("py", "python3", "pycon", "")]
    excused = [block.place for block in PYTHON if re.search(r"<!--(?! test: )[^>]*-->\s*\Z", block.before)]
    unknown = [block.place for block in PYTHON if "<!-- test:" in block.before[-60:] and not block.mark]
    assert (other_names, excused, unknown) == ([], [], [])


def test_every_page_is_in_the_navigation() -> None:
    """A reader can reach each page; mkdocs.yml names it once."""
    listed = re.findall(r"([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))


def test_every_picture_of_a_page_exists() -> None:
    """No page shows a broken image, and each says in words what it shows."""
    for page in PAGES:
        for words, target in re.findall(r"!\[(.*?)\]\((?!https?:)([^)\s]+)\)", page.read_text("utf-8")):
            assert words, f"{page.name} shows {target} without a text for those who do not see it"
            assert (page.parent / target).is_file(), f"{page.name} shows {target}, which does not exist"


def test_every_link_of_the_readme_leads_somewhere() -> None:
    """The files that README.md, CONTRIBUTING.md and SECURITY.md link to are in the checkout."""
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"):
        targets = re.findall(r"(?<!!)\[[^\]]+\]\((?!https?:|mailto:|#)([^)#\s]+)", page.read_text("utf-8"))
        assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_sessions_page_lists_the_events() -> None:
    """The table of docs/sessions.md is `logto_asgi.events.EVENTS`."""
    page = (ROOT / "docs" / "sessions.md").read_text("utf-8")
    listed = dict(re.findall(r"^\| `(\w+\.\w+)` \| (.+) \|$", page, re.MULTILINE))
    assert listed == dict(EVENTS)


def test_the_configuration_page_says_what_the_code_says() -> None:
    """docs/configuration.md is up to date with `LogtoConfig`; `python3 noxfile.py docs` writes it."""
    script: dict[str, Any] = {
        "__name__": "configuration_page",
        "__file__": str(ROOT / "scripts" / "configuration_page.py"),
    }
    exec((ROOT / "scripts" / "configuration_page.py").read_text("utf-8"), script)
    assert script["PAGE"].read_text("utf-8") == script["current_page"]()

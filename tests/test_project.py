"""Facts about the checkout itself: what it must not contain, and what must agree."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
SKIPPED = {"node_modules", "__pycache__", "site", "dist", "build", "test-results", "htmlcov", "venv"}
KEPT = {".ci", ".github"}
# Home folders and checkouts of whoever wrote a line; assembled from parts, so that this file does not match itself.
MACHINE_PATH = re.compile(
    r"(?<![\w.:/<>-])/(?:ho" + r"me/\w+|Us" + r"ers/\w+|ro" + r"ot/\w|wo" + r"rk/\w)|[A-Z]:\\Us" + r"ers\\"
)


def text_files(folder: Path = ROOT) -> Iterator[Path]:
    """Walk the checkout, without what tools make and git ignores."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and (path.name in KEPT or not (path.name in SKIPPED or path.name.startswith("."))):
            yield from text_files(path)
        elif path.is_file() and path.suffix not in (".png", ".ico", ".pyc") and path.name != ".env":
            yield path


def test_no_path_of_a_machine_is_in_the_tree() -> None:
    """Nothing depends on, or tells of, the machine that a file was written on."""
    hits = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in text_files()
        for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert hits == []


@pytest.mark.parametrize(
    "line", ["/ho" + "me/ada/x", "see '/Us" + "ers/ada'", "C:\\Us" + "ers\\ada", "cd /ro" + "ot/x"]
)
def test_the_search_for_paths_finds_them(line: str) -> None:
    """The pattern above matches what it is meant to match."""
    assert MACHINE_PATH.search(line)


def test_the_version_is_the_installed_one() -> None:
    """pyproject.toml and the installed package name one version."""
    assert importlib.metadata.version("logto-asgi") == PROJECT["version"]


def test_the_changelog_names_the_version() -> None:
    """A release has its section in the changelog, below the unreleased changes."""
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert headings[:2] == ["Unreleased", PROJECT["version"]]


def test_every_dependency_has_a_lower_bound_and_no_upper_one() -> None:
    """`nox -s lowest` can pin each of them, and no app is held back by ours."""
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    assert [entry for entries in lists for entry in entries if not re.fullmatch(r"[a-z-]+>=[\d.]+", entry)] == []


def imported_packages() -> set[str]:
    """Return what the package imports from others, at the top of a module or inside a function."""
    nodes = [
        node for path in (ROOT / "logto_asgi").rglob("*.py") for node in ast.walk(ast.parse(path.read_text("utf-8")))
    ]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"logto_asgi"}


def test_every_import_is_a_declared_dependency() -> None:
    """Nothing works only because another package happens to bring it along."""
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    declared = {entry.partition(">=")[0].replace("-", "_") for entries in lists for entry in entries}
    module_names = {"dotenv": "python_dotenv", "pydantic_core": "pydantic"}
    # httpx2 is taken where the app has it, and pytest where the app's tests use our fixtures.
    assert {module_names.get(name, name) for name in imported_packages()} - declared <= {"httpx2", "pytest"}


def nox_sessions() -> set[str]:
    tree = ast.parse((ROOT / "noxfile.py").read_text("utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {node.name for node in functions if any("session" in ast.unparse(mark) for mark in node.decorator_list)}


def test_every_nox_session_that_is_named_exists() -> None:
    """No page, workflow or script tells a reader to run a session that is not there."""
    command = re.compile(r"(?:noxfile\.py|nox -s) ([a-z][a-z0-9]*)(?![\w./])")
    files = [path for path in text_files() if path.suffix in (".md", ".yml") or path.parent.name == ".ci"]
    named = {name for path in files for name in command.findall(path.read_text("utf-8"))}
    assert named
    assert named <= nox_sessions()


def test_every_nox_session_is_explained_to_newcomers() -> None:
    """CONTRIBUTING.md says what each session is for."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert [name for name in sorted(nox_sessions()) if f"`{name}`" not in text] == []


def test_the_provider_for_end_to_end_tests_is_pinned() -> None:
    """Every npm package has an exact version, a hash, and no address but the public registry's."""
    lock = json.loads((ROOT / "tests" / "e2e" / "provider" / "package-lock.json").read_text("utf-8"))
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    addresses = [entry.get("resolved", "https://registry.npmjs.org/") for entry in packages.values()]
    assert all(entry["integrity"] for entry in packages.values())
    assert [address for address in addresses if not address.startswith("https://registry.npmjs.org/")] == []

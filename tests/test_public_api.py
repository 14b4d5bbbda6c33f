"""The public names are a list under test."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from types import ModuleType

import pytest

import logto_asgi

MODULES = ["logto_asgi", "logto_asgi.errors", "logto_asgi.fastapi", "logto_asgi.httpx", "logto_asgi.testing"]


@pytest.mark.parametrize("name", MODULES)
def test_the_list_of_public_names_is_sorted(name: str) -> None:
    """`__all__` reads like an index and names nothing twice."""
    names = list(importlib.import_module(name).__all__)
    assert names == sorted(set(names))


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_can_be_imported(name: str) -> None:
    """`from … import *` works: each listed name exists."""
    module = importlib.import_module(name)
    assert [entry for entry in module.__all__ if not hasattr(module, entry)] == []


def test_the_list_of_public_names_is_complete() -> None:
    """A name without a leading underscore is either listed or a module."""
    visible = {
        name
        for name, value in vars(logto_asgi).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and name not in ("annotations", "TYPE_CHECKING")
    }
    assert visible <= set(logto_asgi.__all__)


def test_every_error_is_public() -> None:
    """An app can catch every exception by importing it from `logto_asgi`."""
    errors = importlib.import_module("logto_asgi.errors")
    assert [name for name in errors.__all__ if name not in logto_asgi.__all__] == []


@pytest.mark.parametrize("name", MODULES)
def test_every_public_class_and_function_has_a_docstring(name: str) -> None:
    """The API reference has no empty entry."""
    module = importlib.import_module(name)
    public = [(entry, getattr(module, entry)) for entry in module.__all__]
    described = [(entry, value) for entry, value in public if inspect.isclass(value) or inspect.isroutine(value)]
    assert [entry for entry, value in described if not inspect.getdoc(value)] == []


@pytest.mark.parametrize("absent", ["fastapi", "httpx", "httpx2", "joserfc", "redis", "uvicorn"])
def test_importing_the_package_leaves_this_for_later(absent: str) -> None:
    """What costs time or belongs to an extra is imported when it is first needed."""
    program = f"import logto_asgi, sys; sys.exit({absent!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

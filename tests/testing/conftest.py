"""The development provider of these tests, and somebody who visits it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from provider_visitor import CLIENTS, OTHER, SHOP, Clock, Visitor

from logto_asgi.testing import DevelopmentProvider


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def visit(clock: Clock) -> Callable[..., Visitor]:
    """Return a maker of visitors, each with a provider of its own unless one is given."""

    def make(app_id: str = "web", provider: DevelopmentProvider | None = None, **settings: Any) -> Visitor:
        resources = {SHOP: ["read:items", "write:items"], OTHER: ["read:items"]}
        settings = {"clients": CLIENTS, "resources": resources, "clock": clock, **settings}
        return Visitor(provider or DevelopmentProvider(**settings), app_id)

    return make

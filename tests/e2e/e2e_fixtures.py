"""Fixtures of the tests with several workers: `fleet`, `crowd`, `redis`, `proof`. The conftest takes them from here."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e_load import Crowd
from e2e_provider import Provider, client, step_aside
from e2e_report import Proof
from e2e_workers import DAY, Settings, Workers
from redis_server import RedisServer

__all__ = ["crowd", "fleet", "proof", "redis"]

DURABLE = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory_policy": "noeviction"}
"""What the documentation asks of a Redis that holds sessions."""

HARSH = {"ROTATE": "always", "REUSE_GRACE": 0, "ID_TOKEN_TTL": 400 * DAY, "REFRESH_TOKEN_TTL": 400 * DAY}
"""Every refresh spends its token, and one that comes back revokes the whole grant, at once."""


@pytest.fixture
def fleet(tmp_path: Path, oidc_provider: Callable[..., Provider]) -> Iterator[Callable[..., tuple[Provider, Workers]]]:
    """Start workers and a harsh provider: `provider, workers = fleet(Settings(store=url), count=4)`."""
    if os.name != "posix":
        step_aside("workers inherit their sockets: only where the system is a Unix")
    with contextlib.ExitStack() as stack:

        def start(settings: Settings, *, count: int = 4, **options: Any) -> tuple[Provider, Workers]:
            workers = stack.enter_context(Workers(tmp_path, count=count))
            provider = oidc_provider(clients=[client(workers.url)], **{**HARSH, **options})
            return provider, workers.start(provider, settings)

        yield start


@pytest.fixture
async def crowd() -> AsyncIterator[Crowd]:
    """Visitors without browsers."""
    async with Crowd() as visitors:
        yield visitors


@pytest.fixture
def proof(request: pytest.FixtureRequest) -> Proof:
    """Where a test puts the rows that it counted."""
    return Proof(request)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Start a Redis with the settings that the documentation asks for, or others: `redis(appendonly="no")`."""
    with contextlib.ExitStack() as stack:
        numbers = itertools.count()

        def start(**settings: Any) -> RedisServer:
            defaults = {} if settings.get("sentinel") else DURABLE
            server = RedisServer(tmp_path / f"redis-{next(numbers)}", **(defaults | settings))
            return stack.enter_context(server)

        yield start

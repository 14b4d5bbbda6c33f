"""pytest fixtures for an app's tests: `pytest_plugins = ["logto_asgi.testing.fixtures"]` in the top conftest.py.

In another conftest.py: `from logto_asgi.testing.fixtures import *`. The only module that imports pytest.
"""

from __future__ import annotations

import pytest

from logto_asgi.runtime import Logto
from logto_asgi.testing.clock import Clock
from logto_asgi.testing.provider import DevelopmentProvider
from logto_asgi.testing.visitor import development_config, issuer_client

__all__ = ["development_clock", "development_logto", "development_provider"]


@pytest.fixture
def development_clock() -> Clock:
    """Return the time of the provider and of `development_logto`: move it with `.move(seconds)`."""
    return Clock()


@pytest.fixture
def development_provider(development_clock: Clock) -> DevelopmentProvider:
    """Return a provider of this test's own, with the demo users."""
    return DevelopmentProvider(clock=development_clock)


@pytest.fixture
def development_logto(development_provider: DevelopmentProvider, development_clock: Clock) -> Logto:
    """Return a `Logto` that signs in at the provider without a network: `LogtoMiddleware(app, logto=…)`."""
    config = development_config(development_provider)
    return Logto(config, http_client=issuer_client(development_provider), clock=development_clock)

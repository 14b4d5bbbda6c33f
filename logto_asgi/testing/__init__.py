"""For demos and tests: a Logto on this machine. Not for production."""

import sys

if sys.modules.get("pytest"):  # So that a failing test of a store shows values. Nothing here needs pytest.
    _TESTS = ("store_contract", "store_values", "store_kit")
    sys.modules["pytest"].register_assert_rewrite(*(f"logto_asgi.testing.{name}" for name in _TESTS))

from logto_asgi.testing.blocking import sign_in
from logto_asgi.testing.clients import Client
from logto_asgi.testing.clock import Clock
from logto_asgi.testing.provider import DevelopmentProvider
from logto_asgi.testing.store_contract import SessionStoreContract
from logto_asgi.testing.switch import called_by, signed_in, signed_out
from logto_asgi.testing.users import DemoUser, Organization
from logto_asgi.testing.visitor import Visitor, development_config, issuer_client

__all__ = [
    "Client",
    "Clock",
    "DemoUser",
    "DevelopmentProvider",
    "Organization",
    "SessionStoreContract",
    "Visitor",
    "called_by",
    "development_config",
    "issuer_client",
    "sign_in",
    "signed_in",
    "signed_out",
]

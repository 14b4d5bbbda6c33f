"""For demos and tests: a Logto on this machine. Not for production."""

from logto_asgi.testing.clients import Client
from logto_asgi.testing.provider import DevelopmentProvider
from logto_asgi.testing.users import DemoUser, Organization

__all__ = ["Client", "DemoUser", "DevelopmentProvider", "Organization"]

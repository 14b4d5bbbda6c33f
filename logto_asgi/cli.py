"""The commands: `demo` shows a running sign-in without an account anywhere, `secret` prints a cookie secret."""

from __future__ import annotations

import argparse
import errno
import os
import secrets
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress

from starlette.types import ASGIApp, Receive, Scope, Send

from logto_asgi.models import UserScope
from logto_asgi.runtime import Logto
from logto_asgi.testing.demo import demo_site
from logto_asgi.testing.provider import DevelopmentProvider
from logto_asgi.testing.users import DEMO_RESOURCES
from logto_asgi.testing.visitor import development_config, issuer_client

__all__ = ["main"]

_TOKEN_LIFETIME = 60
"""Seconds that an access token of the demo lives, so that its refresh can be watched."""

_WELCOME = """
  Open   http://localhost:{site}
  Click  "Sign in", choose Alice, then look at the profile and the access token, and sign out.

  The sign-in page is that of a development provider at http://localhost:{provider}, which is not for production.
  Ctrl-C stops both.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, or 1 after one sentence on what is wrong."""
    chosen = _parser().parse_args(arguments)
    if chosen.command == "secret":
        print(secrets.token_urlsafe(32))
        return 0
    fault = None
    # uvicorn stops serving first and raises the interrupt afterwards; before it serves, Python raises it.
    with suppress(KeyboardInterrupt):
        fault = _demo(chosen.port, chosen.provider_port)
    print(fault or "Stopped.", file=sys.stderr if fault else sys.stdout, flush=True)
    return 1 if fault else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m logto_asgi", description="Sign-in with Logto for ASGI apps.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    demo = commands.add_parser("demo", help="serve a small site and a development provider to sign in with")
    demo.add_argument("--port", type=_port, default=3000, help="of the site; 0 takes a free one (default: 3000)")
    demo.add_argument("--provider-port", type=_port, default=3001, help="of the provider (default: 3001)")
    commands.add_parser("secret", help="print a new value for LOGTO_COOKIE_SECRET")
    return parser


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: 0 to 65535")
    return int(text)


def _demo(port: int, provider_port: int) -> str | None:
    """Serve the demo until Ctrl-C. Return a sentence where it cannot be served."""
    try:
        import uvicorn
    except ImportError:
        return "The demo needs uvicorn: pip install 'logto-asgi[cli]'"
    with ExitStack() as closing:
        ports: list[int] = []
        listening: list[socket.socket] = []
        for option, wanted in (("--port", port), ("--provider-port", provider_port)):
            try:
                sockets = [closing.enter_context(each) for each in _listen(wanted)]
            except OSError as error:
                return _unusable(option, wanted, error)
            ports.append(sockets[0].getsockname()[1])
            listening += sockets

        class Server(uvicorn.Server):
            async def main_loop(self) -> None:
                # Not earlier: a Ctrl-C, which the welcome names, would meet a server that is still starting.
                print(_WELCOME.format(site=ports[0], provider=ports[1]), end="", flush=True)
                await super().main_loop()

        app = _demo_app(*ports)
        settings = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
        Server(settings).run(sockets=listening)
    return None


def _unusable(option: str, port: int, error: OSError) -> str:
    other = port + 5000 if port < 60_000 else port - 5000
    return f"Port {port} can't be used ({os.strerror(error.errno or 0)}). Choose another, such as {option} {other}"


def _listen(port: int) -> list[socket.socket]:
    """Listen on both addresses of localhost: browsers try either first, and somebody else could have the other."""
    sockets = [socket.create_server(("127.0.0.1", port))]
    try:
        sockets.append(socket.create_server(("::1", sockets[0].getsockname()[1]), family=socket.AF_INET6))
    except OSError as error:
        # A machine may have no IPv6; the other faults leave the address to somebody else.
        if error.errno == errno.EADDRINUSE:
            sockets[0].close()
            raise
    return sockets


def _demo_app(port: int, provider_port: int) -> ASGIApp:
    """Return one app for both ports: so one server serves them, and one Ctrl-C stops it."""
    provider = DevelopmentProvider(
        issuer=f"http://localhost:{provider_port}/oidc", access_token_ttl=_TOKEN_LIFETIME, login_hint_signs_in=False
    )
    config = development_config(
        provider,
        app_id="demo",
        base_url=f"http://localhost:{port}",
        scopes=[
            UserScope.EMAIL,
            UserScope.ROLES,
            *sorted({scope for each in DEMO_RESOURCES.values() for scope in each}),
        ],
        resources=list(DEMO_RESOURCES),
    )
    # In process: a proxy in the environment would otherwise be asked for localhost.
    site = demo_site(Logto(config, http_client=issuer_client(provider)))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        called = scope.get("server")
        chosen = provider if called is not None and called[1] == provider_port else site
        await chosen(scope, receive, send)

    return app


if __name__ == "__main__":
    sys.exit(main())

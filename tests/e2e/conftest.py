"""Fixtures of the end-to-end tests: the provider, real sockets, a real browser, and the app that it visits."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import e2e_report
import pytest
from e2e_fixtures import crowd, fleet, proof, redis  # noqa: F401 - fixtures, for every test here
from e2e_provider import Provider, need, step_aside
from e2e_site import Site, Tls

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here, so that `-m "not e2e"` leaves it out."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.e2e)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what the tests with several workers counted."""
    e2e_report.write(terminalreporter)


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """A certificate for localhost and 127.0.0.1."""
    trustme = pytest.importorskip("trustme")
    home = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    files = Tls(cert=home / "cert.pem", key=home / "key.pem", ca=home / "ca.pem")
    authority.cert_pem.write_to_path(str(files.ca))
    issued.private_key_pem.write_to_path(str(files.key))
    files.cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    return files


@pytest.fixture
def oidc_provider(tmp_path: Path) -> Iterator[Callable[..., Provider]]:
    """Start a provider: `oidc_provider(clients=[client(site.url)], ACCESS_TOKEN_TTL=2)`; `tls=` makes it https."""
    with contextlib.ExitStack() as stack:

        def start(*, clients: list[dict[str, Any]], tls: Tls | None = None, **settings: Any) -> Provider:
            if tls:
                settings |= {"TLS_CERT": tls.cert, "TLS_KEY": tls.key}
            return stack.enter_context(
                Provider(tmp_path / "provider.log", clients=clients, ca=tls and tls.ca, **settings)
            )

        yield start


@pytest.fixture
def reserve() -> Iterator[Callable[..., Site]]:
    """Reserve an address before its app exists: `site = reserve()`, later `with site.serve(app):`."""
    with contextlib.ExitStack() as stack:

        def take(**options: Any) -> Site:
            site = Site(**options)
            stack.callback(site.close)
            return site

        yield take


@pytest.fixture
def serve(reserve: Callable[..., Site]) -> Iterator[Callable[..., str]]:
    """Serve an app until the test ends: `url = serve(app)`, or `serve(app, site=site)` at a reserved address."""
    with contextlib.ExitStack() as stack:

        def start(app: Any, *, site: Site | None = None, **options: Any) -> str:
            return stack.enter_context((site or reserve()).serve(app, **options))

        yield start


@pytest.fixture
def world(reserve: Callable[..., Site], oidc_provider: Callable[..., Provider]) -> Iterator[Callable[..., Any]]:
    """Serve the app with a provider that knows it: `world(ACCESS_TOKEN_TTL=2)`; see `Builder.build` for the rest."""
    from e2e_app import Builder  # the provider's own tests run without the library

    with contextlib.ExitStack() as stack:
        yield Builder(reserve, oidc_provider, stack.callback).build


# One browser for each module, not for the session: Playwright's synchronous API keeps an event loop running in this
# thread, and asynchronous tests of other modules need it back.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium of this machine, with a fresh profile."""
    chromium = need("chromium", "chromium-browser", "google-chrome", remedy="install Chromium or Google Chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        step_aside("playwright is not installed: pip install playwright")
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as playwright:
        # Chromium refuses its sandbox to root, and containers are root.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"] if as_root else [])
        yield browser
        browser.close()


@pytest.fixture
def new_context(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a browser context, which shares no cookie with another: `new_context(java_script_enabled=False)`."""
    contexts: list[Any] = []

    def open_context(**options: Any) -> Any:
        contexts.append(browser.new_context(ignore_https_errors=True, **options))
        contexts[-1].set_default_timeout(20_000)
        return contexts[-1]

    yield open_context
    for context in contexts:
        context.close()


@pytest.fixture
def page(new_context: Callable[..., Any]) -> Any:
    """A page in a context of its own."""
    return new_context().new_page()

"""The network between an app and its issuer, where a test steps in at an exact moment. It knows paths, no protocol."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from urllib.parse import parse_qsl

import httpx

from logto_asgi import Logto
from logto_asgi.testing import DevelopmentProvider
from tests.conftest import Site, build_app

Forward = Callable[[httpx.Request], Awaitable[httpx.Response]]
Step = Callable[[httpx.Request, Forward], Awaitable[httpx.Response]]


class Network(httpx.AsyncBaseTransport):
    """Carries every request to the provider, except those that a test has a step of its own for."""

    def __init__(self, provider: DevelopmentProvider) -> None:
        self._forward = httpx.ASGITransport(provider).handle_async_request
        self._steps: defaultdict[str, deque[Step]] = defaultdict(deque)
        self.forms: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
        """What was posted, by the path below the issuer."""

    def step_in(self, path: str, step: Step) -> None:
        """Let `step` answer the next request for a path below the issuer; it may forward the request or not."""
        self._steps[path].append(step)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/oidc")
        self.forms[path].append(dict(parse_qsl((await request.aread()).decode())))
        steps = self._steps[path]
        return await (steps.popleft()(request, self._forward) if steps else self._forward(request))


def behind(site: Site) -> tuple[Site, Network]:
    """Return the same site with a runtime of its own, which reaches the provider through a `Network`."""
    network = Network(site.provider)
    client = httpx.AsyncClient(transport=network)
    logto = Logto(site.config, store=site.store, http_client=client, clock=site.clock)
    return replace(site, logto=logto, app=build_app(logto)), network


def without(*names: str) -> Step:
    """Return a step that takes members out of the issuer's JSON answer."""

    async def step(request: httpx.Request, forward: Forward) -> httpx.Response:
        response = await forward(request)
        await response.aread()
        return httpx.Response(200, json={name: each for name, each in response.json().items() if name not in names})

    return step

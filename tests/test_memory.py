"""What a request leaves behind."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
from starlette.types import Message, Receive, Scope, Send

from logto_asgi import LogtoConfig, LogtoMiddleware, SignInOptions
from logto_asgi.errors import IssuerUnavailable, SignInRefused
from logto_asgi.oidc.single_flight import SingleFlight
from tests.conftest import Site

CONFIG = LogtoConfig(
    endpoint="https://tenant.logto.app",
    app_id="app",
    base_url="https://shop.example.com",
    cookie_secret="tW3nbU6sPq0xYv9LrK2mGd7HcJ5aZe8Fo1iN4RkTg",
)


class WatchedScope(dict):
    """A dict takes no weak reference; this one does."""


class WatchedQuery(list):
    """A list takes no weak reference either."""


async def read_the_user(scope: Scope, receive: Receive, send: Send) -> None:
    assert not scope["user"].is_authenticated
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def receive() -> Message:
    return {"type": "http.request"}


async def send(message: Message) -> None:
    pass


def a_scope(kind: str) -> WatchedScope:
    return WatchedScope(type=kind, method="GET", path="/", headers=[(b"host", b"shop.example.com")])


@pytest.fixture
def no_collection():
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_request_is_freed_without_the_garbage_collector(kind, no_collection):
    """The user refers to the scope and the scope to the user, but only while the request lasts."""
    scope = a_scope(kind)
    watch = weakref.ref(scope)
    await LogtoMiddleware(read_the_user, config=CONFIG)(scope, receive, send)
    del scope
    assert watch() is None


async def test_user_can_be_read_after_its_request():
    """A task or an outer middleware that outlives the request still finds who it was."""
    scope = a_scope("http")

    async def leave_the_user_alone(scope: Scope, receive: Receive, send: Send) -> None: ...

    await LogtoMiddleware(leave_the_user_alone, config=CONFIG)(scope, receive, send)
    assert not scope["user"].is_authenticated
    assert scope["auth"].scopes == []


async def test_failed_call_back_leaves_nothing_of_its_requests(site: Site):
    """Its outcome is kept for whoever comes again with the same state; a traceback would keep every query with it."""
    _, pending = await site.logto.flows.start_sign_in(SignInOptions(), "/")
    watches = []
    for _ in range(3):
        query = WatchedQuery([("state", pending.state), ("iss", site.config.issuer), ("error", "server_error")])
        watches.append(weakref.ref(query))
        with pytest.raises(SignInRefused, match="server_error") as caught:
            await site.logto.flows.finish_sign_in(query, pending)
        assert caught.value.error == "server_error"
        del query, caught
    gc.collect()
    assert [watch() for watch in watches] == [None, None, None]


async def test_failed_flight_leaves_nothing_of_those_who_waited():
    """The traceback of what they all got names each of them."""
    flight: SingleFlight[None] = SingleFlight()

    async def fail() -> None:
        raise IssuerUnavailable("The issuer is down.")

    async def wait(request: WatchedQuery) -> None:
        await flight.run(fail)

    request = WatchedQuery()
    watch = weakref.ref(request)
    with pytest.raises(IssuerUnavailable):
        await wait(request)
    del request
    await asyncio.sleep(0)  # The event loop holds what woke this test until it sleeps again.
    gc.collect()
    assert watch() is None

"""Refreshes where no header can carry them any more, in streams, WebSockets and tasks: the next request has them."""

from __future__ import annotations

import asyncio
import json

import pytest
from e2e_workers import DAY, Settings
from websockets.asyncio.client import connect

HOUR = 3600


async def from_a_stream(crowd, guest, workers):
    """Server-sent events that ask for a token after their headers have left."""
    answer = await crowd.ask(guest, "/stream/shop")
    assert "set-cookie" not in answer.headers, "the headers left before the refresh"
    return json.loads(answer.text.split("event: token\ndata: ")[1].splitlines()[0])


async def from_a_web_socket(crowd, guest, workers):
    """A WebSocket that was opened long before."""
    address = workers.url.replace("http://", "ws://") + "/ws"
    cookies = {"cookie": guest.headers["cookie"]}
    async with connect(address, additional_headers=cookies, origin=workers.url, proxy=None) as socket:
        await socket.send("shop")
        before = json.loads(await socket.recv())
        workers.turn_clock(HOUR)
        await socket.send("shop")
        after = json.loads(await socket.recv())
    assert before["fingerprint"] != after["fingerprint"]
    return after


async def from_a_background_task(crowd, guest, workers):
    """A task that runs after the answer."""
    answer = await crowd.ask(guest, "/later/a-task/shop", at=workers[0].url, method="POST")
    assert answer.status_code == 200, answer.text
    async with asyncio.timeout(60):
        while True:
            done = (await crowd.ask(guest, "/later/a-task", at=workers[0].url)).json()["done"]
            if done is not None:
                return done
            await asyncio.sleep(0.02)


async def from_a_task_group(crowd, guest, workers):
    """An endpoint that hands its user to several tasks."""
    return (await crowd.ask(guest, "/together")).json()["shop"]


WAYS = [from_a_stream, from_a_web_socket, from_a_background_task, from_a_task_group]


@pytest.mark.parametrize(("where", "count"), [("cookies", 1), ("Redis", 2)])
async def test_a_refresh_after_the_headers_is_kept(fleet, redis, crowd, proof, where, count):
    """Whoever refreshes, the next request has the token that it got, and nothing is refreshed a second time.

    With a store that is so at another worker as well.
    """
    store = redis().url if where == "Redis" else ""
    provider, workers = fleet(Settings(store=store, config={"roll_interval": 90 * DAY}), count=count)
    guest = await crowd.sign_in(workers.url)
    await crowd.ask(guest, "/token/shop")
    requests = refreshes = 0
    for way in WAYS:
        provider.reset()
        workers.turn_clock(HOUR)
        token = await way(crowd, guest, workers)
        refreshed = provider.outcomes()
        following = [(await crowd.ask(guest, "/token/shop", at=url)).json() for url in workers.urls]
        assert following == [token] * count, way.__name__
        assert provider.outcomes() == refreshed, way.__name__
        assert refreshed.errors == {}
        requests, refreshes = requests + 1 + count, refreshes + refreshed.refreshed

    assert workers.tracebacks() == 0
    proof.row(
        "Refresh in a stream, a WebSocket, a background task, a task group; then the next request",
        f"{count} worker{'s' * (count > 1)}, {where}",
        requests=requests,
        refreshes=refreshes,
        needed=refreshes,
    )

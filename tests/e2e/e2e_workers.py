"""Serves `e2e_worker_app` from several processes that share one listening socket, and does to them what happens to
processes: killed, stopped for a while, replaced by a new deploy.

Each worker listens on a socket of its own as well, so that a test can choose which one answers. It knows no Redis.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from e2e_nursery import Child, nursery
from e2e_provider import Provider
from e2e_worker_app import CLOCK

SECRET = "b7Jx0mQ2sV9wLr4TzK8yPn5cHd1fGu6aEi3oXqRtMvA"
DAY = 86_400
LONG_LIVED = {"idle_lifetime": 200 * DAY, "absolute_lifetime": 400 * DAY, "claims_max_age": 300 * DAY}
"""Where a test turns the clock by hours, only access tokens shall expire."""


@dataclass(frozen=True)
class Settings:
    """What the workers are told. A new deploy is a copy of it with other values."""

    cookie_secrets: tuple[str, ...] = (SECRET,)
    store: str = ""
    """URL of a Redis, or "sentinel"; empty: sessions in cookies."""
    sentinel: tuple[str, int, str] | None = None
    """Host, port and the primary's name."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """More arguments of `LogtoConfig`."""


class Worker:
    """One process."""

    def __init__(self, index: int, shared: socket.socket, log: Path) -> None:
        self.index = index
        self._shared = shared
        self._own = _listen()
        self._log = log
        self.url = _address(self._own)
        self.process: Child | None = None
        self.is_serving = False

    def start(self, settings: Mapping[str, Any]) -> None:
        """Start the process; `wait` tells when it serves."""
        listening = (self._shared, self._own)
        self.process = nursery().fork({**settings, "index": self.index}, log=self._log, listening=listening)

    def wait(self, timeout: float = 90) -> None:
        """Wait until the process serves. Its socket takes the question before it can answer."""
        assert self.process is not None
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self.process.is_alive():
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/pid", timeout=2, trust_env=False).json()["pid"] == self.process.pid:
                    self.is_serving = True
                    return
        pytest.fail(f"worker {self.index} does not serve:\n{self.log()[-3000:]}", pytrace=False)

    def log(self) -> str:
        """Return what the process and those before it wrote."""
        return self._log.read_text("utf-8", "replace")

    def kill(self) -> None:
        """Kill the process (SIGKILL)."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask the process to finish (SIGTERM), and kill it when it takes long."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Stop the process for a while (SIGSTOP)."""
        assert self.process is not None
        self.process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on (SIGCONT), if it is there."""
        if self.process is not None:
            self.process.signal(signal.SIGCONT)

    def _end(self, number: int) -> None:
        process, self.process = self.process, None
        self.is_serving = False
        if process is None:
            return
        process.signal(number)
        process.signal(signal.SIGCONT)
        if not process.wait(timeout=20):
            process.signal(signal.SIGKILL)
            process.wait(timeout=20)

    def close(self) -> None:
        """Give the sockets up."""
        self._own.close()


class Workers:
    """Several workers behind one address, `url`, and the clock that they share."""

    def __init__(self, home: Path, *, count: int) -> None:
        self._home = home
        self._shared = _listen()
        self.url = _address(self._shared)
        self._clock = home / "clock"
        self.ahead = 0.0
        self._write_clock()
        self.all = [Worker(index, self._shared, home / f"worker-{index}.log") for index in range(count)]
        self._settings: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.all:
            worker.kill()
            worker.close()
        self._shared.close()

    def __getitem__(self, index: int) -> Worker:
        return self.all[index]

    def start(self, provider: Provider, settings: Settings) -> Self:
        """Start all of them at once and wait until they serve."""
        self._endpoint = provider.endpoint
        self.deploy(settings)
        return self

    def deploy(self, settings: Settings, *, only: Iterable[Worker] | None = None) -> None:
        """Replace the processes of `only` these workers, or all at once, by new ones with other settings."""
        workers = self.all if only is None else list(only)
        for worker in workers:
            worker.is_serving = False
        with ThreadPoolExecutor() as pool:
            list(pool.map(Worker.stop, workers))
        for worker in workers:
            worker.start(self._told(settings))
        for worker in workers:
            worker.wait()

    def roll(self, settings: Settings) -> None:
        """Replace one half of the processes and then the other, as a rolling deploy does."""
        half = len(self.all) // 2
        for batch in filter(None, (self.all[:half], self.all[half:])):
            self.deploy(settings, only=batch)

    def _told(self, settings: Settings) -> dict[str, Any]:
        return {
            "endpoint": self._endpoint,
            "base_url": self.url,
            "clock": str(self._clock),
            "cookie_secrets": list(settings.cookie_secrets),
            "store": settings.store,
            "sentinel": settings.sentinel,
            "config": LONG_LIVED | dict(settings.config),
        }

    def turn_clock(self, seconds: float) -> None:
        """Turn the clock of all workers on. The provider and Redis keep the real one."""
        self.ahead += seconds
        self._write_clock()

    def _write_clock(self) -> None:
        data = CLOCK.pack(self.ahead)
        if not self._clock.exists():
            self._clock.write_bytes(data)
        with self._clock.open("r+b") as file:
            file.write(data)

    @property
    def urls(self) -> list[str]:
        """The addresses of the workers that serve, as a load balancer knows them."""
        return [worker.url for worker in self.all if worker.is_serving]

    def debug(self) -> list[dict[str, Any]]:
        """Return what each running worker says of itself: events, tasks, memory in KiB."""
        return [httpx.get(f"{url}/debug", timeout=30, trust_env=False).json() for url in self.urls]

    def events(self, name: str) -> int:
        """Return how often an event happened in the running processes."""
        return sum(each["events"].get(name, 0) for each in self.debug())

    def wait_for_hung_up(self, callers: int, timeout: float = 60) -> None:
        """Wait until the requests of so many callers in all were cancelled because they hung up."""
        deadline = time.monotonic() + timeout
        while sum(each["hung_up"] for each in self.debug()) < callers:
            assert time.monotonic() < deadline, f"fewer than {callers} requests were cancelled"
            time.sleep(0.02)

    def tracebacks(self) -> int:
        """Return how many tracebacks the workers have logged."""
        return sum(worker.log().count("Traceback (most recent call last)") for worker in self.all)


def _listen() -> socket.socket:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(2048)
    return listening


def _address(listening: socket.socket) -> str:
    return f"http://127.0.0.1:{listening.getsockname()[1]}"

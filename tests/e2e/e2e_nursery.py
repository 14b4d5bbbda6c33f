"""Forks worker processes from one that has imported everything: a start then costs milliseconds instead of a second.

`python e2e_nursery.py <socket fd>` serves requests to fork; `Nursery` is the other end of that socket. What is forked
has no thread and no event loop yet. It knows no provider.
"""

from __future__ import annotations

import array
import contextlib
import functools
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PRELOADED = ("e2e_worker_app", "logto_asgi.testing", "httpx", "joserfc.jwe", "joserfc.jwt", "uvicorn.loops.auto")
LARGEST = 65_536


class Child:
    """A process that the nursery has forked."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def is_alive(self) -> bool:
        """Tell whether it runs: the nursery leaves no zombies."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def signal(self, number: int) -> None:
        """Send a signal, to nobody if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, timeout: float) -> bool:
        """Wait until it has ended. Return False after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while self.is_alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True


class Nursery:
    """Forks workers. One serves all tests of a run; it and its children end with the run."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "e2e_nursery.py"), str(theirs.fileno())],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()

    def fork(self, settings: dict[str, Any], *, log: Path, listening: Sequence[socket.socket]) -> Child:
        """Fork a worker that serves on these sockets and writes to this log."""
        told = json.dumps({"settings": settings, "log": str(log)}).encode()
        assert len(told) < LARGEST
        numbers = array.array("i", [each.fileno() for each in listening])
        self._socket.sendmsg([told], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])
        return Child(int(self._socket.recv(32)))


@functools.cache
def nursery() -> Nursery:
    """Return the one of this run."""
    return Nursery()


def serve(requests: socket.socket) -> None:
    """Fork for every request, until the other end is closed."""
    for name in PRELOADED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        told, numbers, _, _ = socket.recv_fds(requests, LARGEST, 16)
        if not told:
            return
        pid = os.fork()
        if pid == 0:
            requests.close()
            work(json.loads(told), [socket.socket(fileno=number) for number in numbers])
        for number in numbers:
            os.close(number)
        requests.send(str(pid).encode())


def work(told: dict[str, Any], listening: list[socket.socket]) -> None:
    """Be a worker, and never return."""
    from e2e_worker_app import run

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(told["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        run(told["settings"], listening)
    finally:
        os._exit(0)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))

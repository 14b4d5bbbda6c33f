"""A real redis-server for tests, on a socket file or a free port: it can be stopped, killed and paused."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import pytest

PATIENCE = 60
"""Seconds within which a server that works has started or stopped on any machine."""


def need_redis() -> str:
    """Return the path of redis-server. Without it: fail where CI=true, skip elsewhere."""
    return shutil.which("redis-server") or _step_aside("redis-server is not installed: install Redis 7, or Valkey.")


def _step_aside(reason: str) -> NoReturn:
    if os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@dataclass(frozen=True)
class Tls:
    """Files of a certificate for localhost and 127.0.0.1."""

    cert: Path
    key: Path
    ca: Path


class RedisServer:
    """A redis-server: `with RedisServer(tmp_path, maxmemory="2mb") as redis:`, then `redis.url`.

    Options are Redis's own settings, with `_` for `-`. `tcp=True` or `tls=` listen on a free port of 127.0.0.1,
    otherwise there is only a socket file. What is under `home` survives `stop` and `kill`: `start` goes on from there.
    `sentinel=True` makes it a Sentinel, whose settings are the `lines` that follow the word sentinel.
    """

    def __init__(
        self,
        home: Path,
        *,
        tcp: bool = False,
        tls: Tls | None = None,
        password: str = "",
        sentinel: bool = False,
        **settings: Any,
    ) -> None:
        self._program = need_redis()
        self.home = home
        self.tls = tls
        self.password = password
        self.sentinel = sentinel
        self.port = free_port() if tcp or tls or sentinel else 0
        self.settings: dict[str, Any] = {"save": '""', "appendonly": "no", **settings}
        self.process: subprocess.Popen[bytes] | None = None
        # Paths of sockets must be short, which those of a test's directory are not.
        self._short = Path(tempfile.mkdtemp(prefix="redis-"))
        self.socket = self._short / "redis.sock"

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where it listens, with its password."""
        login = f":{self.password}@" if self.password else ""
        if self.port:
            return f"{'rediss' if self.tls else 'redis'}://{login}127.0.0.1:{self.port}/0"
        return f"unix://{login}{self.socket}"

    @property
    def log(self) -> str:
        """What the server has written to its log."""
        return (self.home / "redis.log").read_text("utf-8", "replace")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.socket.unlink(missing_ok=True)
        configuration = self.home / "redis.conf"
        if not (self.sentinel and configuration.exists()):  # A sentinel keeps what it knows in there.
            configuration.write_text(self._configuration(), "utf-8")
        command = [self._program, str(configuration), *(["--sentinel"] if self.sentinel else [])]
        with (self.home / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.home)
        self.wait_for("PONG", "PING")

    def stop(self) -> None:
        """Stop it in order, as at a shutdown: what is in its memory is saved where its settings say so."""
        if self.process is not None:
            self.resume()
            self.process.terminate()
            self._wait()

    def kill(self) -> None:
        """End it at once (SIGKILL): what is not on the disk is lost."""
        if self.process is not None:
            self.process.kill()
            self._wait()

    def pause(self) -> None:
        """Stop it from answering (SIGSTOP): connections stay open, new ones are taken and not served."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Stop and start it."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Kill it, and remove its socket file."""
        self.kill()
        shutil.rmtree(self._short, ignore_errors=True)

    def cli(self, *words: str | int | float) -> str:
        """Run a command and return what redis-cli prints, an error too."""
        command = [shutil.which("redis-cli") or "redis-cli", "--no-auth-warning"]
        command += ["-h", "127.0.0.1", "-p", str(self.port)] if self.port else ["-s", str(self.socket)]
        if self.tls:
            command += ["--tls", "--cacert", str(self.tls.ca)]
        environ = {**os.environ, **({"REDISCLI_AUTH": self.password} if self.password else {})}
        done = subprocess.run(
            [*command, *map(str, words)], env=environ, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        return (done.stdout + done.stderr).strip()

    def info(self, name: str) -> str:
        """Return a fact of INFO, such as `connected_clients` or `total_commands_processed`."""
        facts = dict(line.partition(":")[::2] for line in self.cli("INFO", "everything").splitlines())
        return facts[name].strip()

    def wait_for(self, wanted: str, *words: str | int | float) -> str:
        """Repeat a command until its answer contains what is wanted."""
        until = time.monotonic() + PATIENCE
        answer = ""
        while time.monotonic() < until:
            if self.process is not None and self.process.poll() is not None:
                raise RuntimeError(f"redis-server ended with {self.process.returncode}:\n{self.log[-2_000:]}")
            answer = self.cli(*words)
            if wanted in answer:
                return answer
            time.sleep(0.02)
        raise RuntimeError(f"{words} did not answer {wanted!r} but {answer!r}:\n{self.log[-2_000:]}")

    def _configuration(self) -> str:
        settings = {"dir": self.home, "daemonize": "no", "enable-debug-command": "yes"}
        if self.sentinel:
            settings = {"dir": self.home, "daemonize": "no", "port": self.port, "bind": "127.0.0.1"}
        else:
            settings |= {"bind": "127.0.0.1", "unixsocket": self.socket, "port": 0 if self.tls else self.port}
            settings |= {name.replace("_", "-"): value for name, value in self.settings.items()}
        if self.tls:
            settings |= {"tls-port": self.port, "tls-cert-file": self.tls.cert, "tls-key-file": self.tls.key}
            settings |= {"tls-ca-cert-file": self.tls.ca, "tls-auth-clients": "no"}
        if self.password:
            settings["requirepass"] = self.password
        lines = [f"{name} {value}" for name, value in settings.items()]
        if self.sentinel:
            lines += [f"sentinel {value}" for value in self.settings.get("lines", ())]
        return "\n".join([*lines, ""])

    def _wait(self) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.wait(timeout=PATIENCE)
        self.process = None


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

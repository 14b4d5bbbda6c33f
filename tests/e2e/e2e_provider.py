"""Starts the provider of `provider/server.mjs` and controls it from a test. It knows no browser and no app."""

from __future__ import annotations

import functools
import json
import os
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, Self

import httpx
import pytest

HOME = Path(__file__).parent / "provider"
APP_ID = "the-app"
APP_SECRET = "a-secret-that-only-the-app-and-the-provider-know"
SHOP = "https://shop.example.com/api"
STOCK = "https://stock.example.com/api"
PARTS = "https://parts.example.com/api"
RESOURCES = {
    SHOP: "read:items write:items",
    STOCK: "read:stock",
    PARTS: "read:parts",
    "urn:logto:resource:organizations": "",
}

TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"

_STARTS = 3
_PATIENCE = 45
"""Seconds in which Node has started on any machine."""

Phase = Literal["before", "after"]
"""Of processing a request."""


@dataclass(frozen=True)
class Outcomes:
    """What the token endpoint decided."""

    refreshes: dict[str, int]
    """Successful ones, by `resource|organization`, each empty where it was not asked for."""
    errors: dict[str, int]
    reused: int
    """Refreshes with a token that was spent before."""
    revoked: int
    """Grants."""

    @property
    def refreshed(self) -> int:
        """Successful refreshes in all."""
        return sum(self.refreshes.values())


def need(*programs: str, remedy: str) -> str:
    """Return the path of the first program that exists. Without any: fail where CI=true, skip elsewhere."""
    found = next(filter(None, map(shutil.which, programs)), None)
    return found or step_aside(f"{programs[0]} is not installed: {remedy}")


def step_aside(reason: str) -> NoReturn:
    """Skip this test, or fail it where CI=true: there a missing program is a fault."""
    if os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@functools.cache
def _install() -> str:
    """Install the pinned packages where one is missing. Return a sentence where that fails."""
    wanted = json.loads((HOME / "package.json").read_text("utf-8"))["dependencies"]
    if all(_installed(name) == version for name, version in wanted.items()):
        return ""
    npm = need("npm", remedy="install Node.js 20 or newer with npm, see https://nodejs.org")
    command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"npm ci failed in {HOME.name}: {done.stderr.strip()[-500:]}"


def _installed(package: str) -> str | None:
    manifest = HOME / "node_modules" / package / "package.json"
    return str(json.loads(manifest.read_text("utf-8"))["version"]) if manifest.exists() else None


class Provider:
    """One running provider. `settings` are the variables that the head of `server.mjs` explains."""

    def __init__(self, log: Path, *, clients: Iterable[Mapping[str, Any]], ca: Path | None = None, **settings: Any):
        node = need("node", remedy="install Node.js 20 or newer, see https://nodejs.org")
        if fault := _install():
            step_aside(fault)
        settings = {"CLIENTS": json.dumps(list(clients)), "RESOURCES": json.dumps(RESOURCES)} | settings
        self._log = log
        self._environ = {**os.environ, **{name: str(value) for name, value in settings.items()}}
        self._node = node
        self.issuer: str = self._start()["issuer"]
        self.endpoint = self.issuer.removesuffix("/oidc")
        verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=ca) if ca else False
        self._http = httpx.Client(base_url=self.endpoint, verify=verify, trust_env=False)

    def _start(self) -> dict[str, Any]:
        """Start the process and return what it says of itself. Node itself may hang at its start on a busy machine."""
        for _ in range(_STARTS):
            with self._log.open("ab") as errors:
                self._process = subprocess.Popen(
                    [self._node, "server.mjs"],
                    cwd=HOME,
                    env=self._environ,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                )
            hung = threading.Timer(_PATIENCE, self._process.kill)
            hung.start()
            assert self._process.stdout is not None
            line = self._process.stdout.readline()
            hung.cancel()
            if line:
                return json.loads(line)
            self.stop()
        pytest.fail(f"the provider did not start:\n{self._log.read_text('utf-8', 'replace')}", pytrace=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()
        self.stop()

    def stop(self) -> None:
        """Stop the process as a closed terminal would: its standard input ends."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _control(self, name: str, **query: Any) -> Any:
        return self._http.get(f"/__test__/{name}", params=query).raise_for_status().json()

    def counts(self) -> dict[str, int]:
        """Return how often each endpoint was called: `discovery`, `jwks`, `token`, `token:refresh_token`, …"""
        return self._control("counts")

    def authorizations(self) -> list[list[tuple[str, str]]]:
        """Return the parameters of each authorization request, in order, repeated ones included."""
        return [[(name, value) for name, value in request] for request in self._control("authorizations")]

    def reset(self) -> None:
        """Forget counts, requests and planned failures."""
        self._control("reset")

    def outcomes(self) -> Outcomes:
        """Return what the token endpoint decided since the last `reset`."""
        return Outcomes(**self._control("outcomes"))

    def fail(self, endpoint: str, *, status: int, times: int = 1, retry_after: int | None = None) -> None:
        """Let the next calls of an endpoint fail with a status, unprocessed."""
        extra = {} if retry_after is None else {"retry_after": retry_after}
        self._control("fail", endpoint=endpoint, status=status, times=times, **extra)

    def delay(self, endpoint: str, *, milliseconds: int, times: int = 1, phase: Phase = "before") -> None:
        """Let the next calls of an endpoint wait before they are processed, or before they are answered."""
        self._control("fail", endpoint=endpoint, delay=milliseconds, times=times, phase=phase)

    def cut(self, endpoint: str, *, times: int = 1, phase: Phase = "before") -> None:
        """End the connection of the next calls without an answer; `after`: processed, and the answer is lost."""
        self._control("fail", endpoint=endpoint, cut=1, times=times, phase=phase)

    def hold(self, endpoint: str, *, times: int = 1, phase: Phase = "before") -> None:
        """Hold the next calls of an endpoint until `release`."""
        self._control("fail", endpoint=endpoint, hold=1, times=times, phase=phase)

    def wait_for_held(self, endpoint: str, *, calls: int = 1, phase: Phase = "before", timeout: float = 60) -> None:
        """Wait until so many calls are held."""
        deadline = time.monotonic() + timeout
        while self._control("held").get(f"{endpoint}:{phase}", 0) < calls:
            assert time.monotonic() < deadline, f"{endpoint} was not called {calls} times"
            time.sleep(0.02)

    def release(self, endpoint: str, *, phase: Phase = "before", cut: bool = False) -> int:
        """Let the held calls go on, or `cut` them, and hold no further ones. Return how many were held."""
        return self._control("release", endpoint=endpoint, phase=phase, cut=int(cut))["released"]

    def down(self) -> None:
        """Cut every connection without an answer until `up`."""
        self._control("down")

    def up(self) -> None:
        """Answer again."""
        self._control("up")

    def suspend(self, sub: str) -> None:
        """Suspend a user: the next refresh is refused with `invalid_grant`."""
        self._control("suspend", sub=sub)

    def age_sessions(self, *, seconds: int) -> None:
        """Let every sign-in at the provider have happened so many seconds earlier."""
        self._control("age-sessions", seconds=seconds)

    def rotate_keys(self) -> None:
        """Sign with a new key at once; the previous one stays published."""
        self._control("rotate-keys")


def client(base_url: str, *, callback: str = "/logto/sign-in-callback", **metadata: Any) -> dict[str, Any]:
    """Describe the confidential app at `base_url` to the provider. More metadata goes in as it is; None takes out."""
    described = {
        "client_id": APP_ID,
        "client_secret": APP_SECRET,
        "redirect_uris": [base_url + callback],
        "post_logout_redirect_uris": [base_url + "/", base_url],
    } | metadata
    return {name: value for name, value in described.items() if value is not None}


def machine(client_id: str, permissions: Mapping[str, str], **metadata: Any) -> dict[str, Any]:
    """Describe a machine-to-machine app, whose secret is `APP_SECRET`: scopes by resource, space-separated."""
    return {
        "client_id": client_id,
        "client_secret": APP_SECRET,
        "grant_types": ["client_credentials"],
        "redirect_uris": [],
        "response_types": [],
        "permissions": permissions,
    } | metadata


def single_page_app(base_url: str, client_id: str = "the-page", **metadata: Any) -> dict[str, Any]:
    """Describe a public app at `base_url`, whose pages call the provider themselves."""
    return {
        "client_id": client_id,
        "token_endpoint_auth_method": "none",
        "redirect_uris": [base_url + "/callback"],
    } | metadata

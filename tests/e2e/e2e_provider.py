"""Starts the provider of `provider/server.mjs` and controls it from a test. It knows no browser and no app."""

from __future__ import annotations

import functools
import json
import os
import shutil
import ssl
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn, Self

import httpx
import pytest

HOME = Path(__file__).parent / "provider"
APP_ID = "the-app"
APP_SECRET = "a-secret-that-only-the-app-and-the-provider-know"
SHOP = "https://shop.example.com/api"
STOCK = "https://stock.example.com/api"
RESOURCES = {
    SHOP: "read:items write:items",
    STOCK: "read:stock",
    "urn:logto:resource:organizations": "",
}


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
    """Install the pinned provider where it is missing. Return a sentence where that fails."""
    wanted = json.loads((HOME / "package.json").read_text("utf-8"))["dependencies"]["oidc-provider"]
    manifest = HOME / "node_modules" / "oidc-provider" / "package.json"
    if manifest.exists() and json.loads(manifest.read_text("utf-8"))["version"] == wanted:
        return ""
    npm = need("npm", remedy="install Node.js 20 or newer with npm, see https://nodejs.org")
    command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"npm ci failed in {HOME.name}: {done.stderr.strip()[-500:]}"


class Provider:
    """One running provider. `settings` are the variables that the head of `server.mjs` explains."""

    def __init__(self, log: Path, *, clients: Iterable[Mapping[str, Any]], ca: Path | None = None, **settings: Any):
        node = need("node", remedy="install Node.js 20 or newer, see https://nodejs.org")
        if fault := _install():
            step_aside(fault)
        settings = {"CLIENTS": json.dumps(list(clients)), "RESOURCES": json.dumps(RESOURCES)} | settings
        self._log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [node, "server.mjs"],
                cwd=HOME,
                env={**os.environ, **{name: str(value) for name, value in settings.items()}},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self.issuer: str = self._ready()["issuer"]
        self.endpoint = self.issuer.removesuffix("/oidc")
        verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=ca) if ca else False
        self._http = httpx.Client(base_url=self.endpoint, verify=verify, trust_env=False)

    def _ready(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.stop()
            pytest.fail(f"the provider did not start:\n{self._log.read_text('utf-8', 'replace')}", pytrace=False)
        return json.loads(line)

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

    def fail(self, endpoint: str, *, status: int, times: int = 1, retry_after: int | None = None) -> None:
        """Let the next calls of an endpoint fail with a status."""
        extra = {} if retry_after is None else {"retry_after": retry_after}
        self._control("fail", endpoint=endpoint, status=status, times=times, **extra)

    def delay(self, endpoint: str, *, milliseconds: int, times: int = 1) -> None:
        """Let the next calls of an endpoint wait before they are answered."""
        self._control("fail", endpoint=endpoint, delay=milliseconds, times=times)

    def down(self) -> None:
        """Cut every connection without an answer until `up`."""
        self._control("down")

    def up(self) -> None:
        """Answer again."""
        self._control("up")

    def suspend(self, sub: str) -> None:
        """Suspend a user: the next refresh is refused with `invalid_grant`."""
        self._control("suspend", sub=sub)

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

"""Sessions in Redis, shared by four workers: `python examples/redis_workers.py`, then open the address that it prints.

First comes the app, as any server runs it (`uvicorn --factory redis_workers:create_app --workers 4`); below it is what
this one command starts on your machine. `REDIS_URL` names a Redis to use; without it one is started, and gone with it.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from logto_asgi import LogtoConfig, LogtoMiddleware, RedisStore
from logto_asgi.fastapi import CurrentUser, SignedIn, auth_router
from logto_asgi.testing import Client, DevelopmentProvider

# -- The app -----------------------------------------------------------------------------------------------------------


def create_app() -> FastAPI:
    config = LogtoConfig()
    app = FastAPI()
    app.add_middleware(LogtoMiddleware, config=config, store=RedisStore.from_url(os.environ["REDIS_URL"]))
    app.include_router(auth_router(config))
    app.add_api_route("/", home, response_class=HTMLResponse)
    app.add_api_route("/token", token)
    app.add_api_route("/forget", forget, methods=["POST"])
    return app


async def home(user: CurrentUser) -> str:
    return PAGE if user.is_authenticated else '<p><a href="/logto/sign-in">Sign in</a></p>'


async def token(user: SignedIn) -> dict[str, str | int]:
    """Say who answered, and which access token the session has: a fingerprint, never the token."""
    value = await user.get_access_token()
    return {"worker": os.getpid(), "token": hashlib.sha256(value.encode()).hexdigest()[:8]}


async def forget(user: SignedIn) -> dict[str, int]:
    """Forget the access token, as if it had expired: whoever asks next needs a refresh."""
    await user.clear_access_tokens()
    return {"worker": os.getpid()}


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>One refresh for four workers</title>
<style>
body { font: 1rem/1.5 system-ui; margin: 2rem; color-scheme: light dark }
td, th { padding: 0 1rem 0 0; text-align: left }
</style>
<h1>One refresh for four workers</h1>
<p><button id="ask">Let the token expire, then ask twenty times at once</button></p>
<p><a href="/logto/sign-out">Sign out</a></p>
<p id="said" aria-live="polite"></p>
<table id="answers"></table>
<script>
document.getElementById("ask").onclick = async () => {
  await fetch("/forget", { method: "POST" });
  const ask = () => fetch("/token", { cache: "no-store" }).then((answer) => answer.json());
  const answers = await Promise.all(Array.from({ length: 20 }, ask));
  const workers = new Set(answers.map((each) => each.worker));
  const tokens = new Set(answers.map((each) => each.token));
  const said = `20 answers by ${workers.size} workers: ${tokens.size} new token, so ${tokens.size} refresh.`;
  document.getElementById("said").textContent = said;
  const rows = answers.map((each) => `<tr><td>${each.worker}<td>${each.token}`);
  document.getElementById("answers").innerHTML = "<tr><th>Worker<th>Token" + rows.join("");
};
</script>
"""


# -- What it needs, for development ------------------------------------------------------------------------------------


Running = contextlib.AbstractContextManager[subprocess.Popen[bytes]]


def create_provider() -> DevelopmentProvider:
    """Sign people in, as strictly as an issuer can be: a refresh token works once, a second use ends the session."""
    base = os.environ["LOGTO_BASE_URL"]
    client = Client(
        app_id=os.environ["LOGTO_APP_ID"],
        app_secret=os.environ["LOGTO_APP_SECRET"],
        redirect_uris=[f"{base}/logto/sign-in-callback"],
        post_logout_redirect_uris=[f"{base}/"],
    )
    return DevelopmentProvider(
        clients=[client], issuer=f"{os.environ['LOGTO_ENDPOINT']}/oidc", rotate="always", grace=0
    )


def main() -> str | None:
    """Start everything and wait for Ctrl-C. Return a sentence where something cannot be started."""
    chosen = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what stops services has to stop everything too
    try:
        with contextlib.ExitStack() as stack:
            port, provider_port = chosen.port or free_port(), chosen.provider_port or free_port()
            environment = os.environ | settings(port, provider_port)
            environment["REDIS_URL"] = os.environ.get("REDIS_URL") or stack.enter_context(redis())
            stack.enter_context(uvicorn("create_provider", provider_port, environment))
            app = stack.enter_context(uvicorn("create_app", port, environment, "--workers", str(chosen.workers)))
            print(WELCOME.format(port=port, workers=chosen.workers), flush=True)
            app.wait()
    except RuntimeError as error:
        return str(error)
    except KeyboardInterrupt:
        print("Stopped.", flush=True)
    return None


WELCOME = """
  Open   http://localhost:{port}
  Click  "Sign in", choose Alice, then the button.

  {workers} workers keep their sessions in Redis. Ctrl-C stops everything."""


def settings(port: int, provider_port: int) -> dict[str, str]:
    """What `.env` would say."""
    return {
        "LOGTO_ENDPOINT": f"http://localhost:{provider_port}",
        "LOGTO_APP_ID": "redis-workers",
        "LOGTO_APP_SECRET": secrets.token_urlsafe(24),
        "LOGTO_BASE_URL": f"http://localhost:{port}",
        "LOGTO_COOKIE_SECRET": secrets.token_urlsafe(32),
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="of the app; 0 takes a free one (default: 8000)")
    parser.add_argument("--provider-port", type=int, default=3001, help="of the provider (default: 3001)")
    parser.add_argument("--workers", type=int, default=4, help="of the app (default: 4)")
    return parser.parse_args()


@contextlib.contextmanager
def redis() -> Generator[str, None, None]:
    """Start a Redis that this machine only can reach, set as production would be, and return its URL."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        raise RuntimeError(
            "This needs Redis 7 or Valkey: install it (apt install redis-server, brew install redis), or start one with"
            " docker compose -f examples/compose.yaml up redis and set REDIS_URL=redis://localhost:6379/0."
        )
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        settings = f"--port {port} --bind 127.0.0.1 --dir {folder} --appendonly yes --maxmemory-policy noeviction"
        with running([program, *settings.split()], port):
            yield f"redis://127.0.0.1:{port}/0"


def uvicorn(factory: str, port: int, environment: dict[str, str], *more: str) -> Running:
    """Serve what a function of this file makes."""
    command = [sys.executable, "-m", "uvicorn", "--factory", f"redis_workers:{factory}", "--port", str(port)]
    command += ["--app-dir", str(Path(__file__).parent), "--log-level", "warning", "--timeout-graceful-shutdown", "5"]
    return running([*command, *more], port, environment)


@contextlib.contextmanager
def running(
    command: list[str], port: int, environment: dict[str, str] | None = None
) -> Generator[subprocess.Popen[bytes], None, None]:
    """Start a program, wait until it answers, and stop it at the end: not before, so Ctrl-C reaches this file only."""
    if answers(port):
        raise RuntimeError(f"Port {port} is in use. Choose others: --port 0 --provider-port 0")
    process = subprocess.Popen(  # noqa: S603 - the commands are those of this file
        command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        for _ in range(300):
            if answers(port):
                break
            if process.poll() is not None:
                raise RuntimeError(f"It stopped at once: {' '.join(command)}")
            time.sleep(0.1)
        else:
            raise RuntimeError(f"It does not answer: {' '.join(command)}")
        yield process
    finally:
        process.terminate()
        process.wait()


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())

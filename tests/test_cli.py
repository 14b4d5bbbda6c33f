"""The commands as a newcomer types them: a demo that opens, stops and complains in sentences, and a secret."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from html import unescape

import httpx
import pytest

from logto_asgi import LogtoConfig
from logto_asgi.cli import main

START = 30
"""Seconds that a slow machine may take to start or stop the demo; passing this fails the test."""
WINDOWS = pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent by a signal")


@contextlib.contextmanager
def demo(*, module: str = "logto_asgi") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start the demo on free ports and return the process and the address that it prints."""
    command = [sys.executable, "-m", module, "demo", "--port", "0", "--provider-port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        printed = ""
        while "Ctrl-C" not in printed:
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            printed += line
        found = re.search(r"Open +(http://localhost:\d+)", printed)
        assert found
        yield process, found[1]
    finally:
        process.kill()
        process.communicate()


def stopped(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=START)
    return process.returncode, out, err


@WINDOWS
def test_the_demo_signs_in_and_stops_at_ctrl_c() -> None:
    """What the demo prints is an address where one can sign in; Ctrl-C ends it with 0 and no traceback."""
    with demo() as (process, address):
        with httpx.Client(follow_redirects=True, trust_env=False, timeout=START, headers={"Accept": "text/html"}) as me:
            page = me.get(f"{address}/profile")
            assert "Alice Martin" in page.text
            action = re.search(r'<form method="post" action="([^"]+)"', page.text)
            assert action
            page = me.post(page.url.join(unescape(action[1])), data={"sub": "alice"})
            assert str(page.url) == f"{address}/profile"
            assert "alice@example.com" in page.text
        code, out, err = stopped(process)
    assert (code, out.strip()) == (0, "Stopped.")
    assert "Traceback" not in err


@WINDOWS
def test_the_demo_stops_at_once_without_a_visitor() -> None:
    """Ctrl-C right after the start is as good; `-m logto_asgi.cli` is the same command."""
    with demo(module="logto_asgi.cli") as (process, _):
        assert stopped(process) == (0, "Stopped.\n", "")


@pytest.mark.parametrize("option", ["--port", "--provider-port"])
def test_a_port_in_use_is_one_sentence(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The sentence names the port and the option that chooses another."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        free = "--provider-port" if option == "--port" else "--port"
        assert main(["demo", option, str(port), free, "0"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(rf"Port {port} can't be used \(.+\)\. Choose another, such as {option} \d+\n", printed.err)


def test_a_port_in_use_on_the_other_address_of_localhost_counts(capsys: pytest.CaptureFixture[str]) -> None:
    """Browsers may try ::1 first, where somebody else's server would answer."""
    try:
        other = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with other:
        assert main(["demo", "--port", str(other.getsockname()[1]), "--provider-port", "0"]) == 1
    assert "can't be used" in capsys.readouterr().err


def test_the_demo_says_that_it_needs_uvicorn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the extra `cli` there is a sentence with the line to type."""
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["demo", "--port", "0", "--provider-port", "0"]) == 1
    assert capsys.readouterr().err == "The demo needs uvicorn: pip install 'logto-asgi[cli]'\n"


def test_the_secret_is_one_that_the_configuration_takes(capsys: pytest.CaptureFixture[str]) -> None:
    """`secret` prints one line, another one each time."""
    secrets = set()
    for _ in range(3):
        assert main(["secret"]) == 0
        secrets.add(capsys.readouterr().out.strip())
    assert len(secrets) == 3
    for secret in secrets:
        LogtoConfig(
            endpoint="https://tenant.logto.example", app_id="a", base_url="http://localhost", cookie_secret=secret
        )


@pytest.mark.parametrize("port", ["-1", "65536", "http", "١"])
def test_a_port_is_a_number(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A port that is none is refused by name, before anything starts."""
    with pytest.raises(SystemExit, match="2"):
        main(["demo", f"--port={port}"])
    assert "is not a port" in capsys.readouterr().err

"""Facts about pending sign-ins in cookies."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from logto_asgi.config import LogtoConfig
from logto_asgi.models import PendingSignIn
from logto_asgi.session.attempts import AttemptCookies
from logto_asgi.session.sealing import Sealer

OTHER_SECRET = "Zk5rQe8wNi2xVo7cBm4jDy9pSh3fLt6u"
Make = Callable[..., PendingSignIn]


@pytest.fixture
def attempts(config: LogtoConfig, clock: Any) -> AttemptCookies:
    return AttemptCookies(config, clock=clock)


def name_of(line: str) -> str:
    return line.partition("=")[0]


def test_two_tabs(attempts: AttemptCookies, browser: Any, make_pending: Make) -> None:
    """Two attempts live side by side, and each is found by its own state."""
    for state in ("one", "two"):
        browser.receive(attempts.start(browser.headers, make_pending(state, nonce=state)))
    assert [attempts.find(browser.headers, state) for state in ("one", "two")] == [
        make_pending(state, nonce=state) for state in ("one", "two")
    ]


def test_line(attempts: AttemptCookies, make_pending: Make) -> None:
    """The cookie lives as long as an attempt, is named by a digest of the state, and shows nothing of it."""
    (line,) = attempts.start([], make_pending("crafted; Domain=evil"))
    assert re.fullmatch(
        r"__Host-logto_[0-9a-f]{12}_[0-9a-f]{32}=[\w.-]+; Max-Age=3600; Path=/; HttpOnly; SameSite=Lax; Secure", line
    )


def test_plain_http(make_config: Callable[..., LogtoConfig], make_pending: Make) -> None:
    """On http the name has no prefix and the line no Secure."""
    (line,) = AttemptCookies(make_config(base_url="http://localhost:8000")).start([], make_pending())
    assert line.startswith("logto_")
    assert "Secure" not in line


@pytest.mark.parametrize("state", ["", "\n", "é\ud800", "a=b; c", "x" * 100_000])
def test_crafted_state(attempts: AttemptCookies, browser: Any, make_pending: Make, state: str) -> None:
    """Whatever a state holds, looking for it finds nothing and deletes nothing."""
    browser.receive(attempts.start(browser.headers, make_pending()))
    assert attempts.find(browser.headers, state) is None
    assert attempts.clear(browser.headers, state) == []


def test_expiry_is_ours(attempts: AttemptCookies, browser: Any, make_pending: Make, clock: Any) -> None:
    """A browser that keeps the cookie for longer gains nothing."""
    browser.receive(attempts.start(browser.headers, make_pending()))
    clock.now += 3_599
    assert attempts.find(browser.headers, "state")
    clock.now += 1
    assert attempts.find(browser.headers, "state") is None


def test_at_most_four(attempts: AttemptCookies, browser: Any, make_pending: Make, clock: Any) -> None:
    """The oldest go when a fifth comes, whatever order the browser sends them in."""
    for number in range(7):
        clock.now += 1
        browser.receive(attempts.start(browser.headers, make_pending(f"{number}", created_at=int(clock.now))))
        browser.cookies = dict(reversed(browser.cookies.items()))
    assert len(browser.cookies) == 4
    assert [n for n in range(7) if attempts.find(browser.headers, str(n))] == [3, 4, 5, 6]


def test_dead_ones_go_with_a_new_one(
    attempts: AttemptCookies, browser: Any, make_pending: Make, clock: Any, config: LogtoConfig
) -> None:
    """Expired and tampered ones are deleted when a new one comes, and only if the request carried them."""
    browser.receive(attempts.start(browser.headers, make_pending("old")))
    clock.now += 3_600
    browser.receive(attempts.start(browser.headers, make_pending("new", created_at=int(clock.now))))
    assert len(browser.cookies) == 1
    name, value = browser.cookies.popitem()
    browser.cookies[name] = value[:-1]
    lines = attempts.start(browser.headers, make_pending("newer", created_at=int(clock.now)))
    assert [name_of(line) for line in lines[1:]] == [name]


def test_unknown_key_is_left_alone(
    attempts: AttemptCookies, browser: Any, make_pending: Make, make_config: Callable[..., LogtoConfig]
) -> None:
    """An attempt that a newer worker sealed is not found here and not deleted."""
    newer = AttemptCookies(make_config(cookie_secret=OTHER_SECRET))
    browser.receive(newer.start(browser.headers, make_pending("theirs")))
    assert attempts.find(browser.headers, "theirs") is None
    assert len(attempts.start(browser.headers, make_pending("ours"))) == 1


def test_hundreds_are_not_all_opened(attempts: AttemptCookies, browser: Any, make_pending: Make) -> None:
    """Of very many only some are looked at; the others are deleted."""
    for number in range(40):
        browser.receive(attempts.start([], make_pending(f"{number}")))
    browser.receive(attempts.start(browser.headers, make_pending("new")))
    assert len(browser.cookies) == 4
    assert attempts.find(browser.headers, "new")


def test_same_state_again_is_not_deleted(
    attempts: AttemptCookies, browser: Any, make_pending: Make, clock: Any
) -> None:
    """Starting the same attempt again writes it and does not delete what it writes."""
    browser.receive(attempts.start(browser.headers, make_pending(created_at=0)))
    assert len(attempts.start(browser.headers, make_pending())) == 1


def test_clear(attempts: AttemptCookies, browser: Any, make_pending: Make) -> None:
    """One attempt is deleted, the other stays; a request without it deletes nothing."""
    for state in ("one", "two"):
        browser.receive(attempts.start(browser.headers, make_pending(state)))
    browser.receive(attempts.clear(browser.headers, "one"))
    assert attempts.find(browser.headers, "one") is None
    assert attempts.find(browser.headers, "two")
    assert attempts.clear(browser.headers, "one") == []
    assert attempts.clear([], "two") == []


def test_state_is_repeated_inside(attempts: AttemptCookies, browser: Any, make_pending: Make) -> None:
    """An attempt under the name of another state is not found: the state inside decides."""
    browser.receive(attempts.start(browser.headers, make_pending("mine")))
    (value,) = browser.cookies.values()
    moved = attempts._named("yours")
    assert attempts.find([(b"cookie", f"{moved}={value}".encode())], "yours") is None


def test_redirect_uri_is_compared(attempts: AttemptCookies, browser: Any, make_pending: Make) -> None:
    """An attempt that was made for another address of the app is not found."""
    browser.receive(attempts.start([], make_pending(redirect_uri="https://other.example.com/cb")))
    assert attempts.find(browser.headers, "state") is None


def test_session_is_no_attempt(attempts: AttemptCookies, config: LogtoConfig, make_pending: Make) -> None:
    """A value sealed for another purpose does not open as an attempt, and the reverse holds by the same key."""
    sealer = Sealer(
        [config.cookie_secrets[0].get_secret_value()], purpose="session", issuer=config.issuer, client_id="app_1"
    )
    cookie = f"{attempts._named('state')}={sealer.seal({'s': 'state'})}"
    assert attempts.find([(b"cookie", cookie.encode())], "state") is None


def test_payload_of_another_shape(attempts: AttemptCookies) -> None:
    """One of our own key that is no attempt is nothing."""
    cookie = f"{attempts._named('state')}={attempts._sealer.seal({'s': 'state'})}"
    assert attempts.find([(b"cookie", cookie.encode())], "state") is None


@pytest.mark.parametrize(
    ("return_to", "kept"), [("/" + "a" * 1_023, True), ("/" + "a" * 1_024, False), ("/" + "ä" * 512, False)]
)
def test_long_return_to(attempts: AttemptCookies, browser: Any, make_pending: Make, return_to: str, kept: bool) -> None:
    """A return_to of 1,024 bytes is kept; one byte more leads home, counted in bytes."""
    browser.receive(attempts.start([], make_pending(return_to=return_to)))
    assert attempts.find(browser.headers, "state") == replace(make_pending(), return_to=return_to if kept else "/")


@pytest.mark.parametrize("value", [b"", b"\xff" * 50, b"a.b.c.d.e", b"x" * 65_536])
def test_garbage(attempts: AttemptCookies, make_pending: Make, value: bytes) -> None:
    """Whatever a cookie of that name holds, nothing is found and nothing crashes."""
    headers = [(b"cookie", attempts._named("state").encode() + b"=" + value)]
    assert attempts.find(headers, "state") is None
    assert attempts.start(headers, make_pending("other"))


def test_repr_shows_no_secret(attempts: AttemptCookies, config: LogtoConfig) -> None:
    """The repr is a name."""
    assert config.cookie_secrets[0].get_secret_value() not in repr(attempts)

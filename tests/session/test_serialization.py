"""Facts about sessions and attempts as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from logto_asgi.models import PendingSignIn, Session
from logto_asgi.session.serialization import (
    dump_access_token,
    dump_pending,
    dump_session,
    parse_pending,
    parse_session,
)


def dumped(session: Session) -> dict[str, Any]:
    tokens = [dump_access_token(token) for token in session.access_tokens.values()]
    payload: dict[str, Any] = json.loads(json.dumps(dump_session(session, tokens)))
    return payload


def test_session_round_trip(make_session: Callable[..., Session]) -> None:
    """A session with tokens, scopes and unknown claims comes back equal."""
    session = make_session(padding=20, tokens=3, id_token="raw")
    assert parse_session(dumped(session)) == session


def test_absent_stays_absent(make_session: Callable[..., Session]) -> None:
    """A session without refresh token, scopes and access tokens comes back without them."""
    session = make_session(refresh_token=None, scopes=())
    assert parse_session(dumped(session)) == session


def test_pending_round_trip(make_pending: Callable[..., PendingSignIn]) -> None:
    """An attempt comes back equal, with and without max_age."""
    for pending in (make_pending(), make_pending(max_age=0)):
        assert parse_pending(json.loads(json.dumps(dump_pending(pending)))) == pending


@pytest.mark.parametrize("key", ["s", "n", "t", "r", "c", "o", "a"])
@pytest.mark.parametrize("value", [None, 1.5, True, {}, [1], [[1, 2]], {"iss": 1}])
def test_session_of_another_shape(make_session: Callable[..., Session], key: str, value: Any) -> None:
    """A field that is missing or of another type is a ValueError, never another exception."""
    with pytest.raises(ValueError, match="."):
        parse_session(dumped(make_session()) | {key: value})


@pytest.mark.parametrize("index", range(5))
def test_access_token_of_another_shape(make_session: Callable[..., Session], index: int) -> None:
    """So is one inside an access token."""
    payload = dumped(make_session(tokens=1))
    payload["a"][0][index] = None
    with pytest.raises(ValueError, match="not an? "):
        parse_session(payload)


@pytest.mark.parametrize("key", ["s", "n", "v", "u", "b", "t"])
def test_pending_of_another_shape(make_pending: Callable[..., PendingSignIn], key: str) -> None:
    """And one of an attempt."""
    with pytest.raises(ValueError, match="not an? "):
        parse_pending(dump_pending(make_pending()) | {key: None})

"""Facts about what lies in a store, sealed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from logto_asgi.claims import IdTokenClaims
from logto_asgi.config import LogtoConfig
from logto_asgi.models import Session
from logto_asgi.session.in_store.index_names import IndexNames
from logto_asgi.session.in_store.records import Live, Mark, Records, Tombstone, Unreadable, key_of, key_of_state

SECRET = "qPz2mW7tKx9dLr4vHs8bYn3cJf6gTu1a"
OTHER_SECRET = "Zk5rQe8wNi2xVo7cBm4jDy9pSh3fLt6u"
KEY = "a" * 64


@pytest.fixture
def records(config: LogtoConfig) -> Records:
    return Records(config)


@pytest.mark.parametrize("mark", [None, Mark(5, "me"), Mark(5, "me", over=True)])
def test_sessions(records: Records, make_session: Callable[..., Session], mark: Mark | None) -> None:
    """A session comes back as it was, with the mark of a refresh."""
    session = make_session(tokens=2)
    value = records.seal_session(KEY, session, saved_at=7, mark=mark)
    assert records.open(KEY, value) == Live(session, 7, mark)


def test_tombstones(records: Records) -> None:
    """A tombstone says how its session ended."""
    for word in ("ended", "replaced"):
        assert records.open(KEY, records.seal_tombstone(KEY, word)) == Tombstone(word)


def test_a_record_belongs_to_its_key(records: Records, make_session: Callable[..., Session]) -> None:
    """No record opens under another key than its own."""
    other = "b" * 64
    with pytest.raises(Unreadable, match="copied"):
        records.open(other, records.seal_session(KEY, make_session(), saved_at=1))
    with pytest.raises(Unreadable, match="copied"):
        records.open(other, records.seal_tombstone(KEY, "ended"))


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"x": "other"},
        {"d": [], "w": 1},
        {"d": {}, "w": 1},
    ],
)
def test_malformed(records: Records, record: dict[str, Any]) -> None:
    """A record of ours that holds something else is unreadable, and nobody else's."""
    value = records._sealer.seal({"k": KEY, **record})
    with pytest.raises(Unreadable, match="malformed") as caught:
        records.open(KEY, value)
    assert not caught.value.may_be_newer


@pytest.mark.parametrize("fields", [{"w": None}, {"w": "1"}, {"m": [1]}, {"m": "x"}, {"m": [1, 2, True]}])
def test_malformed_fields(records: Records, make_session: Callable[..., Session], fields: dict[str, Any]) -> None:
    """A session's record with a field of another kind is unreadable."""
    value = records.seal_session(KEY, make_session(), saved_at=1)
    record = records._sealer.open(value)
    with pytest.raises(Unreadable, match="malformed"):
        records.open(KEY, records._sealer.seal({**record, **fields}))


def test_unknown_secrets(
    records: Records, make_config: Callable[..., LogtoConfig], make_session: Callable[..., Session]
) -> None:
    """What an unknown secret has sealed may be a newer worker's; of another app nothing opens."""
    value = Records(make_config(cookie_secret=OTHER_SECRET)).seal_session(KEY, make_session(), saved_at=1)
    with pytest.raises(Unreadable) as caught:
        records.open(KEY, value)
    assert caught.value.may_be_newer
    foreign = Records(make_config(app_id="other")).seal_session(KEY, make_session(), saved_at=1)
    with pytest.raises(Unreadable):
        records.open(KEY, foreign)


def test_outdated(make_config: Callable[..., LogtoConfig], make_session: Callable[..., Session]) -> None:
    """A record says whether an older secret than the first has sealed it."""
    old = Records(make_config(cookie_secret=SECRET))
    both = Records(make_config(cookie_secret=[OTHER_SECRET, SECRET]))
    session = make_session()
    assert both.open(KEY, old.seal_session(KEY, session, saved_at=1)) == Live(session, 1, is_outdated=True)
    assert both.open(KEY, both.seal_session(KEY, session, saved_at=1)) == Live(session, 1)


def test_keys() -> None:
    """Keys are hashes; a state's is never a session's."""
    assert len(key_of("x")) == 64
    assert key_of("x") != key_of_state("x") != key_of_state("y")
    assert key_of("\ud800")


def test_the_largest_session_is_opened_again(records: Records, make_session: Callable[..., Session]) -> None:
    """What is kept of a session with any number of tokens can be opened, with a mark."""
    for size in (1, 100, 3_000):
        session = make_session(tokens=70, token_size=size)
        value = records.seal_session(KEY, session, saved_at=1, mark=Mark(2**40, "f" * 32, over=True))
        assert isinstance(records.open(KEY, value), Live)


# -- Index names -------------------------------------------------------------------------------------------------------


def claims(**fields: Any) -> IdTokenClaims:
    return IdTokenClaims.parse({"iss": "i", "aud": "a", "sub": "ada", "exp": 2, "iat": 1, **fields})


def test_index_names() -> None:
    """A session is noted under its user, and under its session at the issuer where it has one."""
    names = IndexNames(["one", "two"], issuer="i", client_id="c")
    assert names.of(claims()) == names.subs("ada")[:1]
    assert names.of(claims(sid="s")) == [names.subs("ada")[0], names.sids("s")[0]]
    assert len(names.subs("ada")) == 2
    assert names.subs("ada")[1:] == IndexNames(["two"], issuer="i", client_id="c").subs("ada")
    assert "somebody@example" not in repr(names.subs("somebody@example"))


def test_index_names_are_apart() -> None:
    """Another user, kind, secret, issuer or client has other names."""
    names = IndexNames(["one"], issuer="i", client_id="c")
    others = [
        names.subs("eve"),
        names.sids("ada"),
        IndexNames(["two"], issuer="i", client_id="c").subs("ada"),
        IndexNames(["one"], issuer="j", client_id="c").subs("ada"),
        IndexNames(["one"], issuer="i", client_id="d").subs("ada"),
    ]
    digests = {each[0].partition(":")[2] for each in [names.subs("ada"), *others]}
    assert len(digests) == 6

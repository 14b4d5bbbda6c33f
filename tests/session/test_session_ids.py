"""Facts about signed session ids."""

from __future__ import annotations

import hashlib

import pytest
from itsdangerous import Signer

from logto_asgi.session.in_store.session_ids import SessionIds, is_sealed_session

OLD = "qPz2mW7tKx9dLr4vHs8bYn3cJf6gTu1a"
NEW = "Zk5rQe8wNi2xVo7cBm4jDy9pSh3fLt6u"
ID = "i" * 43


def ids(*secrets: str, issuer: str = "https://issuer", client_id: str = "app") -> SessionIds:
    return SessionIds(secrets, issuer=issuer, client_id=client_id)


def test_round_trip() -> None:
    """What was signed is read back, and the id shows in no repr."""
    signed = ids(OLD).read(ids(OLD).sign(ID).encode())
    assert signed is not None
    assert (signed.id, signed.is_outdated) == (ID, False)
    assert ID not in repr(signed)


def test_the_first_secret_signs() -> None:
    """Of several secrets the first signs, so that a process which knows only that one reads it."""
    value = ids(NEW, OLD).sign(ID).encode()
    assert ids(NEW).read(value) is not None
    assert ids(OLD).read(value) is None


def test_every_secret_verifies() -> None:
    """A value of an older secret is read, and said to be outdated."""
    signed = ids(NEW, OLD).read(ids(OLD).sign(ID).encode())
    assert signed is not None
    assert signed.is_outdated


@pytest.mark.parametrize(
    "other",
    [ids(NEW), ids(OLD, issuer="https://other"), ids(OLD, client_id="other"), ids(OLD, issuer="https://issuera")],
)
def test_belongs_to_its_app(other: SessionIds) -> None:
    """A value of another secret, issuer or client is not read."""
    assert other.read(ids(OLD).sign(ID).encode()) is None


def test_no_sha1() -> None:
    """The signature is not what itsdangerous makes by default."""
    salt_free = Signer(OLD).sign(ID)
    assert ids(OLD).read(salt_free) is None
    assert len(ids(OLD).sign(ID)) == 87
    assert hashlib.sha256 is ids(OLD)._first.digest_method
    assert ids(OLD)._first.key_derivation == "hmac"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b".",
        b"i" * 43,
        b"i" * 44 + b"." + b"s" * 43,
        b"i" * 43 + b"." + b"s" * 44,
        b"i" * 43 + b".." + b"s" * 43,
        b"i" * 43 + b"." + b"s" * 43 + b"\n",
        b"\xff" * 43 + b"." + b"s" * 43,
        b"i" * 100_000,
    ],
)
def test_malformed(value: bytes) -> None:
    """Whatever else a browser sends is no id, and is not taken for one of a newer worker's."""
    assert ids(OLD).read(value) is None
    assert not ids(OLD).has_shape(value)


def test_changed() -> None:
    """Another id under the same signature is not read, and neither is a shortened signature."""
    value = ids(OLD).sign(ID).encode()
    assert ids(OLD).read(b"j" + value[1:]) is None
    assert ids(OLD).read(value[:-1]) is None


def test_unknown_key_has_the_shape() -> None:
    """A value signed by a secret that is not ours still looks like one: it may be a newer worker's."""
    value = ids(NEW).sign(ID).encode()
    assert ids(OLD).read(value) is None
    assert ids(OLD).has_shape(value)


@pytest.mark.parametrize(("value", "expected"), [(b"c1.abcdefgh.ey", True), (b"c2.abcdefgh.ey", True), (b"c1", False)])
def test_sealed_sessions_are_recognised(value: bytes, expected: bool) -> None:
    """A session that lies whole in its cookie is told from a signed id."""
    assert is_sealed_session(value) is expected
    assert not is_sealed_session(ids(OLD).sign(ID).encode())

"""Facts about what lies in a store under a state."""

from __future__ import annotations

import hashlib

import pytest

from logto_asgi.session.in_store.claims import Claim, Claims
from logto_asgi.session.in_store.records import Unreadable

SECRET = "qPz2mW7tKx9dLr4vHs8bYn3cJf6gTu1a"
OTHER_SECRET = "Zk5rQe8wNi2xVo7cBm4jDy9pSh3fLt6u"
KEY = "a" * 64
CODE = hashlib.sha256(b"code").hexdigest()
EVERY = [Claim(1_800_000_000), Claim(1_800_000_001, True), Claim(1_800_000_002, True, "b" * 64)]


def claims(*secrets: str, issuer: str = "https://issuer.example", client_id: str = "app_1") -> Claims:
    return Claims(secrets or [SECRET], issuer=issuer, client_id=client_id)


def text_of(claim: Claim = EVERY[2]) -> str:
    return claims().sign(claim, key=KEY, code_digest=CODE)


@pytest.mark.parametrize("claim", EVERY)
def test_comes_back(claim: Claim) -> None:
    """A claim comes back as it was, also under an older secret."""
    for reader in (claims(), claims(OTHER_SECRET, SECRET)):
        assert reader.read(text_of(claim), key=KEY, code_digest=CODE) == claim


@pytest.mark.parametrize("claim", EVERY[:2])
def test_short(claim: Claim) -> None:
    """What a stranger can have made is no longer than the 64 characters that Redis packs."""
    assert len(text_of(claim)) <= 64


def test_no_two_are_alike() -> None:
    """Two who claim at the same time write different texts, of which a store takes one."""
    assert text_of(EVERY[0]) != text_of(EVERY[0])


def test_belongs_to_its_code() -> None:
    """It opens for nobody who brings another code, also one whose digest begins alike."""
    with pytest.raises(Unreadable, match="other_code"):
        claims().read(text_of(), key=KEY, code_digest=hashlib.sha256(b"").hexdigest())
    with pytest.raises(Unreadable, match="unknown_key"):
        claims().read(text_of(), key=KEY, code_digest=CODE[:8] + "0" * 56)


def test_belongs_to_its_key() -> None:
    """A copy under another state does not open."""
    with pytest.raises(Unreadable, match="unknown_key"):
        claims().read(text_of(), key="c" * 64, code_digest=CODE)


@pytest.mark.parametrize(
    "other",
    [claims(OTHER_SECRET), claims(issuer="https://other.example"), claims(client_id="app_2")],
    ids=["secret", "issuer", "app"],
)
def test_belongs_to_its_app(other: Claims) -> None:
    """One of another secret, which may be a newer worker's, or of another issuer or app does not open."""
    with pytest.raises(Unreadable) as refused:
        other.read(text_of(), key=KEY, code_digest=CODE)
    assert refused.value.may_be_newer


@pytest.mark.parametrize(
    ("old", "new"),
    [("s18", "c18"), ("1800000002", "1800000003"), ("b" * 64, "d" * 64), (f"-{'b' * 64}", "")],
    ids=["settled", "time", "session", "no session"],
)
def test_cannot_be_changed(old: str, new: str) -> None:
    """Whoever writes to the store cannot lead a state to another session, or keep it alive."""
    text = text_of()
    changed = text.replace(old, new)
    assert changed != text
    with pytest.raises(Unreadable):
        claims().read(changed, key=KEY, code_digest=CODE)


@pytest.mark.parametrize("value", ["", "?", text_of()[1:], text_of() + "\n", f" {text_of()}", "٣".join(text_of())])
def test_garbage(value: str) -> None:
    """What has another shape is malformed, and no newer worker's."""
    with pytest.raises(Unreadable, match="malformed") as refused:
        claims().read(value, key=KEY, code_digest=CODE)
    assert not refused.value.may_be_newer


def test_no_secret_is_an_attribute() -> None:
    """Whoever serialises it finds nothing."""
    assert not hasattr(claims(), "__dict__")

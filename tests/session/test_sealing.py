"""Facts about sealed text."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwe
from joserfc.jwk import OctKey

from logto_asgi.session.sealing import Sealer, Unsealable, _derive

ONE = "qPz2mW7tKx9dLr4vHs8bYn3cJf6gTu1a"
TWO = "Zk5rQe8wNi2xVo7cBm4jDy9pSh3fLt6u"
BELONGS = {"purpose": "session", "issuer": "https://tenant.logto.app/oidc", "client_id": "app_1"}
SEALER = Sealer([ONE], **BELONGS)
VALUE = SEALER.seal({"s": "secret words"})


def reason(sealer: Sealer, value: str) -> tuple[str, bool]:
    with pytest.raises(Unsealable) as caught:
        sealer.open(value)
    return caught.value.reason, caught.value.known_key


def header_of(value: str) -> dict[str, Any]:
    part = value.partition(".")[0]
    header: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return header


def crafted(header: dict[str, Any], plaintext: str, algorithms: list[str]) -> str:
    """A value under our own key that our own code would never write."""
    key = OctKey.import_key(_derive(ONE.encode(), tuple(BELONGS.values())))
    return jwe.encrypt_compact(header, plaintext, key, algorithms=algorithms)


def envelope(**changes: Any) -> str:
    return json.dumps({"p": "session", "i": BELONGS["issuer"], "c": "app_1", "d": {"s": 1}} | changes)


def test_round_trip() -> None:
    """What was sealed opens to the same JSON, lone surrogates and foreign scripts included."""
    payload = {"a": [1, None, "ü 名前 \ud800"], "b": {"c": True}}
    assert SEALER.open(SEALER.seal(payload)) == payload


def test_every_value_has_a_key_of_its_own() -> None:
    """Two seals of the same payload share nothing but the header."""
    first, second = (SEALER.seal({"a": 1}).split(".") for _ in range(2))
    assert first[0] == second[0]
    assert all(one != two for one, two in zip(first[1:], second[1:], strict=True))


def test_header_names_the_algorithms_and_nothing_else() -> None:
    """The header is A256KW with A256GCM and a kid, never zip."""
    header = header_of(VALUE)
    assert header.pop("kid")
    assert header == {"alg": "A256KW", "enc": "A256GCM"}


def test_rotation() -> None:
    """The first secret seals, all of them open, in whatever order."""
    old, new = Sealer([ONE], **BELONGS), Sealer([TWO, ONE], **BELONGS)
    assert new.open(old.seal({"a": 1})) == {"a": 1}
    assert Sealer([ONE, TWO], **BELONGS).open(new.seal({"a": 2})) == {"a": 2}
    assert reason(old, new.seal({"a": 3})) == ("unknown_key", False)


@pytest.mark.parametrize(
    "changed", [{"purpose": "attempt"}, {"issuer": "https://other.example/oidc"}, {"client_id": "app_2"}]
)
def test_keys_differ_by_what_they_are_for(changed: dict[str, str]) -> None:
    """Another purpose, issuer or client has another key, which does not even know the value."""
    assert reason(Sealer([ONE], **(BELONGS | changed)), VALUE) == ("unknown_key", False)


def test_parts_of_the_key_cannot_shift() -> None:
    """Lengths separate issuer and client, so that moving a character between them makes another key."""
    assert _derive(b"x", ("session", "ab", "c")) != _derive(b"x", ("session", "a", "bc"))


@pytest.mark.parametrize("change", [{"p": "attempt"}, {"i": "https://other.example"}, {"c": "app_2"}, {"i": None}])
def test_foreign_payload(change: dict[str, Any]) -> None:
    """A payload that says it belongs elsewhere is refused even under our own key."""
    assert reason(SEALER, crafted(header_of(VALUE), envelope(**change), ["A256KW", "A256GCM"])) == ("foreign", True)


@pytest.mark.parametrize("text", ["null", "[]", "{}", '{"d": []}', "no json", '{"d":' + "[" * 20_000])
def test_malformed_payload(text: str) -> None:
    """Under our own key, what is no JSON object of ours is malformed, however deep."""
    assert reason(SEALER, crafted(header_of(VALUE), text, ["A256KW", "A256GCM"])) == ("malformed", True)


@pytest.mark.parametrize(
    "extra", [{"zip": "DEF"}, {"typ": "JWT"}, {"crit": ["kid"]}, {"jwk": {"kty": "oct"}}, {"alg": "dir"}]
)
def test_only_our_own_header_is_opened(extra: dict[str, Any]) -> None:
    """A header that is not ours byte for byte is unknown, though key and content are right."""
    value = crafted(header_of(VALUE) | extra, envelope(), ["A256KW", "A256GCM", "DEF", "dir"])
    assert reason(SEALER, value) == ("unknown_key", False)


def test_same_header_in_another_order_is_unknown() -> None:
    """The comparison is of bytes, not of JSON."""
    header = dict(reversed(header_of(VALUE).items()))
    assert reason(SEALER, crafted(header, envelope(), ["A256KW", "A256GCM"])) == ("unknown_key", False)


@pytest.mark.parametrize("part", range(1, 5))
def test_a_flipped_bit_is_tampering(part: int) -> None:
    """A change in wrapped key, initialization vector, ciphertext or tag does not open."""
    parts = VALUE.split(".")
    first = parts[part][0]
    parts[part] = ("B" if first == "A" else "A") + parts[part][1:]
    assert reason(SEALER, ".".join(parts)) == ("tampered", True)


@pytest.mark.parametrize("part", range(1, 5))
def test_parts_of_another_value_are_tampering(part: int) -> None:
    """Parts of two values of the same key do not mix."""
    parts, other = VALUE.split("."), SEALER.seal({"s": "secret wordz"}).split(".")
    parts[part] = other[part]
    assert reason(SEALER, ".".join(parts)) == ("tampered", True)


@pytest.mark.parametrize("cut", [1, 20, 60, len(VALUE) // 2])
def test_truncated(cut: int) -> None:
    """A value that lost its end is tampered with."""
    assert reason(SEALER, VALUE[:-cut]) == ("tampered", True)


@pytest.mark.parametrize("length", [16, 21])
def test_short_tag(length: int) -> None:
    """A shortened authentication tag does not open."""
    head, _, tag = VALUE.rpartition(".")
    assert reason(SEALER, f"{head}.{tag[:length]}") == ("tampered", True)


@pytest.mark.parametrize("part", [1, 2, 3, 4], ids=["wrapped key", "initialization vector", "ciphertext", "tag"])
@pytest.mark.parametrize("size", [-1, 1, 4])
def test_part_of_another_size(part: int, size: int) -> None:
    """A part that is shorter or longer than its bytes is refused."""
    parts = VALUE.split(".")
    parts[part] = parts[part][:size] if size < 0 else parts[part] + "A" * size
    assert reason(SEALER, ".".join(parts)) == ("tampered", True)


def test_one_spelling_only() -> None:
    """The spare bits of the last character are zero: no second text opens to the same session."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for text in {VALUE[:-1] + character for character in alphabet} - {VALUE}:
        assert reason(SEALER, text) == ("tampered", True)


def test_joserfc_opens_what_we_open() -> None:
    """The format is RFC 7516's: an independent reader with the key finds the same text."""
    key = OctKey.import_key(_derive(ONE.encode(), tuple(BELONGS.values())))
    opened = jwe.decrypt_compact(VALUE, key, algorithms=["A256KW", "A256GCM"]).plaintext
    assert json.loads(opened or b"")["d"] == SEALER.open(VALUE)


@pytest.mark.parametrize(
    "value",
    ["", ".", "....", "a.b.c.d", "ä" * 50, "\x00", "e30" * 20, f"{VALUE}\n", "e30.é.c.d.e", "{}.a.b.c.d", "=" * 10],
)
def test_garbage(value: str) -> None:
    """What is no JWE at all is refused, whatever its characters."""
    assert reason(SEALER, value)[0] in {"malformed", "tampered"}


def test_too_large_to_open() -> None:
    """64 KB and more are refused before anything looks at them."""
    assert reason(SEALER, VALUE + "A" * 70_000) == ("too_large", False)


def test_too_large_to_seal() -> None:
    """What could not be opened again is not sealed; one byte less is, and opens."""
    room = SEALER.room({"a": ""}, 10**9) - SEALER.room({"a": "x" * 100}, 10**9)
    assert room == 100
    largest = 65_536 * 3 // 4 - len(envelope(d={"a": ""}).replace(" ", ""))
    assert SEALER.open(SEALER.seal({"a": "x" * largest}))
    with pytest.raises(Unsealable, match="too_large"):
        SEALER.seal({"a": "x" * (largest + 1)})


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(400, 2_000))
def test_room_is_exact(size: int, limit: int) -> None:
    """Filled up to its room a value has at most the limit, and one more byte is over it."""
    room = SEALER.room({"a": "x" * size}, limit)
    if room > 0:
        assert len(SEALER.seal({"a": "x" * (size + room)})) <= limit
        assert len(SEALER.seal({"a": "x" * (size + room + 1)})) > limit


def test_nothing_of_the_content_in_the_error() -> None:
    """The exception carries a word, and no other exception whose text or document could tell more."""
    value = crafted(header_of(VALUE), '{"token": "hush"', ["A256KW", "A256GCM"])
    for broken in (value, VALUE[:-22] + "A" * 22):
        with pytest.raises(Unsealable) as caught:
            SEALER.open(broken)
        assert caught.value.__context__ is None
        assert caught.value.__cause__ is None
        assert str(caught.value) in {"malformed", "tampered"}


def test_repr_shows_no_secret() -> None:
    """Neither repr nor attributes of a sealer print a secret."""
    assert ONE not in repr(SEALER)
    assert not hasattr(SEALER, "__dict__")


def test_no_secret_is_a_mistake() -> None:
    """A sealer without secrets cannot be made."""
    with pytest.raises(ValueError, match="needs a secret"):
        Sealer([], **BELONGS)


def test_joserfc_is_imported_at_first_use() -> None:
    """Making a backend imports neither joserfc nor cryptography's key derivation."""
    code = (
        "import sys, logto_asgi.session.in_cookie.backend as b, logto_asgi.session.attempts\n"
        "from logto_asgi.session.sealing import Sealer\n"
        "Sealer(['x'], purpose='p', issuer='i', client_id='c')\n"
        "print([m for m in sys.modules if m.startswith(('joserfc', 'cryptography'))])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(VALUE) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_mutations_never_open(mutations: list[tuple[int, int]]) -> None:
    """Whatever bytes change, the value is refused with a reason and nothing else is raised."""
    mutated = bytearray(VALUE.encode())
    for position, byte in mutations:
        mutated[position] = byte
    if mutated.decode("latin-1") != VALUE:
        reason(SEALER, mutated.decode("latin-1"))


@settings(deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_refused(text: str) -> None:
    """No text crashes the sealer, with our header in front or without."""
    reason(SEALER, text)
    reason(SEALER, f"{VALUE.partition('.')[0]}.{text}")

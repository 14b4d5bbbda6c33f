"""The options of a guard are checked when the guard is made, not when the first caller comes."""

from __future__ import annotations

from typing import Any

import pytest

from logto_asgi import RequireAuthMiddleware, SetupError, any_of
from logto_asgi.fastapi import access_token, bearer_token, require_auth, user_info
from logto_asgi.requirements import lacking, requirement_of

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "option-that-is-none": ({"scope": ["a"]}, "no option 'scope'"),
    "way-that-is-none": ({"accept": "cookie"}, "accept is"),
    "no-way-at-all": ({"accept": ()}, "accept is"),
    "scopes-as-one-string": ({"scopes": "read:items"}, r"scopes=\['read:items'\]"),
    "two-scopes-in-one": ({"scopes": ["a b"]}, "cannot be one scope"),
    "scope-with-a-quote": ({"scopes": ['a"']}, "cannot be one scope"),
    "scope-that-is-no-string": ({"scopes": [1]}, "no name"),
    "empty-role": ({"roles": [""]}, "no name"),
    "roles-as-one-string": ({"roles": "admin"}, r"roles=\['admin'\]"),
    "claims-max-age-of-zero": ({"claims_max_age": 0}, "claims_max_age is a number of seconds, at least 1"),
    "max-age-below-30": ({"max_age": 29}, "max_age is a number of seconds, at least 30"),
    "max-age-of-another-type": ({"max_age": True}, "max_age is a number"),
    "organization-template-of-two": ({"organization": "{a}-{b}"}, "organization is"),
    "organization-empty": ({"organization": ""}, "organization is"),
    "organization-class": ({"organization": dict}, "organization is"),
    "any-organization-by-session": ({"organization": "*"}, "a session belongs to none"),
    "organization-roles-without-one": ({"organization_roles": ["admin"]}, "needs organization="),
    "machines-by-session": ({"machines": True}, "about bearer tokens"),
    "clients-by-session": ({"clients": ["spa"]}, "about bearer tokens"),
    "opaque-by-session": ({"opaque": True}, "about bearer tokens"),
    "machines-only-with-sessions": ({"machines": "only", "accept": ("session", "bearer")}, "leaves nobody"),
    "machines-of-another-kind": ({"machines": "yes", "accept": "bearer"}, "machines is"),
    "resource-that-is-empty": ({"resource": ""}, "resource is the indicator"),
    "resource-that-is-no-text": ({"resource": 5}, "resource is the indicator"),
    "opaque-that-is-a-text": ({"opaque": "no", "accept": "bearer"}, "opaque is True or False"),
    "redirect-that-is-a-text": ({"redirect": "no"}, "redirect is None or True or False"),
    "machines-that-is-a-number": ({"machines": 1, "accept": "bearer"}, "machines is True or False or 'only'"),
    "predicate-that-is-no-function": ({"predicate": "is_admin"}, "predicate is a function"),
}


@pytest.mark.parametrize(("options", "words"), WRONG.values(), ids=WRONG)
def test_wrong_option_is_refused_when_the_guard_is_made(options: dict[str, Any], words: str) -> None:
    """Each says what would be right."""
    with pytest.raises(SetupError, match=words):
        require_auth(**options)
    with pytest.raises(SetupError, match=words):
        RequireAuthMiddleware(None, **options)  # type: ignore[arg-type]


def test_any_of_nothing_is_refused() -> None:
    """A guard that asks for one of no scopes would let everybody or nobody in."""
    with pytest.raises(SetupError, match="any_of takes names"):
        any_of()
    with pytest.raises(SetupError, match="any_of takes names"):
        any_of("a", "")


def test_same_options_are_the_same_object() -> None:
    """`dependency_overrides` finds a guard by identity."""
    assert require_auth(scopes=["a", "b"]) is require_auth(scopes=("a", "b"))
    assert require_auth() is require_auth
    assert require_auth(accept="session") is require_auth
    assert bearer_token(resource="https://a.example") is bearer_token(resource="https://a.example")
    assert bearer_token() is bearer_token
    assert access_token("https://a.example") is access_token(resource="https://a.example")


def test_one_of_and_all_of_the_same_names_are_two_guards() -> None:
    """They compare unequal, or one of them would be taken for the other."""
    assert require_auth(scopes=any_of("a", "b")) is not require_auth(scopes=["a", "b"])
    assert require_auth(scopes=any_of("a", "b")) is require_auth(scopes=any_of("a", "b"))
    assert hash(any_of("a", "b")) != hash(("a", "b"))
    assert repr(any_of("a", "b")) == "any_of('a', 'b')"


@pytest.mark.parametrize(
    ("guard", "options"),
    [
        (bearer_token, {"accept": "session"}),
        (bearer_token, {"redirect": True}),
        (bearer_token, {"claims_max_age": 60}),
        (user_info, {"accept": "bearer"}),
    ],
)
def test_option_that_would_say_nothing_is_refused(guard: Any, options: dict[str, Any]) -> None:
    """`bearer_token` and `user_info` have one way in, and nothing is accepted only to be ignored."""
    with pytest.raises(SetupError, match=f"takes no {next(iter(options))}="):
        guard(**options)


def test_scopes_of_security_as_one_text_are_refused() -> None:
    """FastAPI makes a list of its letters, and nobody would ever have those."""
    with pytest.raises(SetupError, match=r'scopes=\["read:items"\]'):
        requirement_of().with_scopes([*"read:items"])


@pytest.mark.parametrize(
    ("needed", "held", "missing"),
    [
        ((), None, ()),
        (("a", "b"), ["a", "b", "c"], ()),
        (("a", "b"), frozenset({"b"}), ("a",)),
        (("a",), None, ("a",)),
        (any_of("a", "b"), ["b"], ()),
        (any_of("a", "b"), [], ("a", "b")),
    ],
)
def test_what_is_lacking(needed: tuple[str, ...], held: Any, missing: tuple[str, ...]) -> None:
    """A list needs all names, `any_of` one."""
    assert lacking(needed, held) == missing


def test_scopes_of_security_add_to_the_guards_own() -> None:
    """They are needed besides `any_of`, not instead."""
    need = requirement_of(scopes=any_of("a", "b"), accept="bearer").with_scopes(["c", "a"])
    assert need.scopes == any_of("a", "b")
    assert need.and_scopes == ("c", "a")
    assert need.all_scopes == ("a", "b", "c")

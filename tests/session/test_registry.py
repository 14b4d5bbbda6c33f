"""Facts about what a process knows of sessions beyond their cookies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from logto_asgi.models import Session
from logto_asgi.session.in_cookie.registry import SessionRegistry

START = 1_700_000_000
WEEK = 604_800


@pytest.fixture
def registry() -> SessionRegistry:
    return SessionRegistry(idle_lifetime=WEEK, absolute_lifetime=4 * WEEK)


@pytest.fixture
def first(make_session: Callable[..., Session]) -> Session:
    return make_session()


def after(session: Session, *, rotated: bool = True, **fields: object) -> Session:
    version = session.version + 1
    token = f"refresh_{version}" if rotated else session.refresh_token
    return replace(session, **({"version": version, "refresh_token": token} | fields))  # type: ignore[arg-type]


def save(registry: SessionRegistry, old: Session, new: Session, now: float = START) -> bool:
    return registry.save(new, spent=old.refresh_token if old.refresh_token != new.refresh_token else None, now=now)


def test_unknown_session_is_taken_as_presented(registry: SessionRegistry, first: Session) -> None:
    """A session that this process never changed is what the cookie says."""
    assert registry.resolve(first, START) is first
    assert registry.newest(first.id) is None


@pytest.mark.parametrize("rotated", [True, False])
def test_ancestor_goes_on_from_the_newest(registry: SessionRegistry, first: Session, rotated: bool) -> None:
    """A cookie from before a refresh gets the state after it, rotated or not."""
    second = after(first, rotated=rotated)
    assert save(registry, first, second)
    assert registry.resolve(first, START) is second
    assert registry.resolve(second, START) is second


def test_chain_of_three_rotations(registry: SessionRegistry, first: Session) -> None:
    """Every cookie of a chain leads to its end, undelivered ones in between included."""
    states = [first]
    for _ in range(3):
        states.append(after(states[-1]))
        save(registry, states[-2], states[-1])
    assert all(registry.resolve(state, START) is states[-1] for state in states)


def test_version_that_jumps(registry: SessionRegistry, first: Session) -> None:
    """A successor two versions on, without a rotation, still has the cookie's state as its ancestor."""
    third = replace(first, version=3)
    save(registry, first, third)
    assert registry.resolve(first, START) is third


def test_spent_token_at_a_version_of_another_process(registry: SessionRegistry, first: Session) -> None:
    """Whatever its version, a cookie with a refresh token that was spent here goes on from the newest."""
    second = after(first)
    save(registry, first, second)
    assert registry.resolve(replace(first, version=5), START) is second


def test_ancestor_is_forgotten_a_minute_after_the_newer_was_seen(registry: SessionRegistry, first: Session) -> None:
    """For 59 seconds more an older cookie leads on; at 60 it is taken as it is."""
    second = after(first)
    save(registry, first, second)
    registry.resolve(second, START + 100)
    registry.resolve(second, START + 150)
    assert registry.resolve(first, START + 159) is second
    assert registry.resolve(first, START + 160) is first


def test_forgotten_ancestor_leaves_when_the_newest_comes(registry: SessionRegistry, first: Session) -> None:
    """Nothing of a forgotten ancestor is kept."""
    second = after(first)
    save(registry, first, second)
    registry.resolve(second, START)
    registry.resolve(second, START + 60)
    record = registry._records.get(first.id)
    assert record is not None
    assert record.ancestors == []


def test_seen_in_the_middle_of_a_chain(registry: SessionRegistry, first: Session) -> None:
    """Seeing the second of three lets go of the first, and never of the second."""
    second = after(first)
    third = after(second)
    save(registry, first, second)
    save(registry, second, third)
    registry.resolve(second, START)
    assert registry.resolve(first, START + 60) is first
    assert registry.resolve(second, START + WEEK - 1) is third


def test_undelivered_state_is_kept_until_the_idle_end(registry: SessionRegistry, first: Session) -> None:
    """A rotation whose response was lost is there for as long as a cookie that leads to it lives."""
    second = after(first)
    save(registry, first, second, START)
    for number in range(20):
        other = replace(first, id=f"other {number}")
        save(registry, other, after(other), START + WEEK - 1)
    assert registry.resolve(first, START + WEEK - 1) is second


def test_expired_state_is_forgotten(registry: SessionRegistry, first: Session) -> None:
    """After the idle end it makes room when another session is saved."""
    second = after(first)
    save(registry, first, second, START)
    other = replace(first, id="other", created_at=START + WEEK, sealed_at=START + WEEK)
    save(registry, other, after(other), START + WEEK)
    assert registry.newest(first.id) is None


def test_older_state_is_not_kept(registry: SessionRegistry, first: Session) -> None:
    """A refresh that comes in late never replaces a newer state, nor does one of the same version."""
    second = after(first)
    third = after(second)
    save(registry, first, second)
    save(registry, second, third)
    assert registry.save(replace(second, refresh_token="late"), spent=None, now=START)
    assert registry.save(replace(third, refresh_token="late"), spent=None, now=START)
    assert registry.newest(first.id) is third


def test_older_than_what_was_presented_is_not_kept(registry: SessionRegistry, first: Session) -> None:
    """The same holds for a newer state that only a browser showed."""
    registry.note(replace(first, version=5))
    registry.note(first)
    assert save(registry, first, after(first))
    assert registry.newest(first.id) is None


def test_state_of_another_process_is_taken_as_presented(registry: SessionRegistry, first: Session) -> None:
    """A branch that this process does not know is neither replaced by its own state nor replaces it."""
    second = after(first)
    save(registry, first, second)
    branch = replace(second, refresh_token="made elsewhere")
    assert registry.resolve(branch, START) is branch
    assert registry.newest(first.id) is second


def test_later_state_of_another_process_becomes_the_newest(registry: SessionRegistry, first: Session) -> None:
    """A later version that a browser shows is what this process goes on from, for its own older state too."""
    second = after(first)
    save(registry, first, second)
    later = replace(first, version=3, refresh_token="made elsewhere")
    assert registry.resolve(later, START) is later
    assert registry.resolve(second, START) is later
    assert registry.is_newest(later)
    assert not registry.is_newest(second)


def test_end(registry: SessionRegistry, first: Session) -> None:
    """After the end every state of the session is refused, and no successor is kept."""
    second = after(first)
    save(registry, first, second)
    registry.end(second, START)
    assert registry.is_ended(first.id)
    assert registry.resolve(first, START) is None
    assert registry.resolve(second, START) is None
    assert not save(registry, second, after(second))
    assert registry.newest(first.id) is None


def test_end_is_remembered_until_no_cookie_can_live(registry: SessionRegistry, first: Session) -> None:
    """Other sessions' ends do not push one out before its absolute end; after it they do."""
    registry.end(first, START)
    registry.end(replace(first, id="b"), START + 4 * WEEK - 1)
    assert registry.is_ended(first.id)
    registry.end(replace(first, id="c"), START + 4 * WEEK)
    assert not registry.is_ended(first.id)


def test_long_ended(registry: SessionRegistry, first: Session) -> None:
    """An end is recent for 59 seconds; a second end does not make it recent again."""
    registry.end(first, START)
    registry.end(first, START + 50)
    assert not registry.is_long_ended(first.id, START + 59)
    assert registry.is_long_ended(first.id, START + 60)
    assert not registry.is_long_ended("unknown", START)


def test_replaced(registry: SessionRegistry, first: Session) -> None:
    """That a sign-in replaced a session is remembered with its end, whichever of two ends said so."""
    registry.end(first, START)
    assert not registry.was_replaced(first.id)
    registry.end(first, START + 50, replaced=True)
    registry.end(first, START + 51)
    assert registry.was_replaced(first.id)
    assert registry.is_long_ended(first.id, START + 60)
    assert not registry.was_replaced("unknown")


def test_who_got_a_refresh_token(registry: SessionRegistry, first: Session) -> None:
    """A state is ours by its refresh token: from a sign-in or rotation here, the last one, until the session ends."""
    registry.note(first)
    assert not registry.is_made_here(first)
    registry.note_made(first)
    assert registry.is_made_here(replace(first, version=9))
    second = after(first)
    assert not registry.is_made_here(second)
    save(registry, first, second)
    assert registry.is_made_here(second)
    assert not registry.is_made_here(first)
    registry.end(second, START)
    assert not registry.is_made_here(second)


def test_another_access_token_makes_no_refresh_token_ours(registry: SessionRegistry, first: Session) -> None:
    """A refresh that did not rotate leaves the refresh token that another process has got as well."""
    assert registry.save(replace(first, version=first.version + 1), spent=None, now=START)
    assert not registry.is_made_here(first)


def test_delivery(registry: SessionRegistry, first: Session) -> None:
    """A state counts as delivered since a browser first showed it, and its successor does not."""
    second = after(first)
    save(registry, first, second)
    assert not registry.was_delivered(second, since=START)
    registry.resolve(second, START + 5)
    registry.resolve(second, START + 9)
    assert registry.was_delivered(second, since=START + 5)
    assert not registry.was_delivered(second, since=START + 6)
    save(registry, second, after(second))
    assert not registry.was_delivered(after(second), since=START)


def test_bounded(registry: SessionRegistry, first: Session) -> None:
    """States, ancestors, ends, versions and tokens of ours are bounded in number."""
    for number in range(5_000):
        session = replace(first, id=str(number))
        save(registry, session, after(session))
    assert len(registry._records) == 4_096
    last = first
    for _ in range(100):
        save(registry, last, after(last))
        last = after(last)
    record = registry._records.get(first.id)
    assert record is not None
    assert len(record.ancestors) <= 17
    for number in range(50_010):
        registry.end(replace(first, id=f"e{number}"), START)
        registry.note(replace(first, id=f"n{number}"))
        registry.note_made(replace(first, id=f"n{number}"))
    assert len(registry._ended) == len(registry._versions) == len(registry._made) == 50_000


def test_state_in_use_outlives_others(registry: SessionRegistry, first: Session) -> None:
    """The newest state of a browser that still comes is not the first to go."""
    second = after(first)
    save(registry, first, second)
    for number in range(4_096):
        session = replace(first, id=str(number))
        save(registry, session, after(session))
        registry.resolve(first, START)
    assert registry.resolve(first, START) is second


def test_repr_shows_no_session(registry: SessionRegistry, first: Session) -> None:
    """The repr counts, and shows no id."""
    registry.end(first, START)
    assert first.id not in repr(registry)

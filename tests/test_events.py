"""What happens to sessions is counted, logged and told, and a fault of the app's callback stays there."""

from __future__ import annotations

import dataclasses
import logging
import threading

import pytest

from logto_asgi.events import EVENT_NAMES, EVENTS, Event, Events


def test_an_event_is_counted_logged_and_told(caplog: pytest.LogCaptureFixture) -> None:
    """One note counts its name, logs its message at its level and calls the app with its facts."""
    told: list[Event] = []
    events = Events(told.append)
    with caplog.at_level(logging.INFO, logger="logto_asgi"):
        events.note("store.down", "the store is away", level=logging.WARNING, seconds=1.5, tries=2, host="a", tls=True)
    assert events.counts == {"store.down": 1}
    assert caplog.record_tuples == [("logto_asgi", logging.WARNING, "the store is away")]
    facts = {"seconds": 1.5, "tries": 2, "host": "a", "tls": True}
    assert told == [Event("store.down", "the store is away", facts)]


def test_an_event_without_a_message_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A note without words is counted and told, and the log stays empty."""
    told: list[Event] = []
    with caplog.at_level(logging.DEBUG, logger="logto_asgi"):
        Events(told.append).note("refresh.done")
    assert caplog.records == []
    assert told == [Event("refresh.done")]


def test_a_message_is_not_taken_for_a_format(caplog: pytest.LogCaptureFixture) -> None:
    """A percent sign in a message is logged as it is."""
    with caplog.at_level(logging.INFO, logger="logto_asgi"):
        Events().note("refresh.done", "100% of %s")
    assert caplog.messages == ["100% of %s"]


def test_a_fault_of_the_callback_stays_there(caplog: pytest.LogCaptureFixture) -> None:
    """An exception of the app's callback is logged by its type alone; the event is counted."""

    def broken(event: Event) -> None:
        raise RuntimeError("secret-of-the-app")

    events = Events(broken)
    events.note("session.started")
    assert events.counts == {"session.started": 1}
    assert caplog.messages == ["on_event raised RuntimeError at session.started"]
    assert "secret-of-the-app" not in caplog.text


def test_a_callback_may_note_events_itself() -> None:
    """A callback that notes another event does not wait for itself."""
    events = Events(lambda event: events.note("store.back") if event.name == "store.down" else None)
    events.note("store.down")
    assert events.counts == {"store.down": 1, "store.back": 1}


def test_a_coroutine_as_callback_is_refused() -> None:
    """A callback that nobody would await is refused where it is handed in."""

    async def later(event: Event) -> None: ...

    with pytest.raises(TypeError, match="plain function"):
        Events(later)  # type: ignore[arg-type]


def test_an_unknown_name_is_refused() -> None:
    """A name that is not documented is an error, and nothing is counted."""
    events = Events()
    with pytest.raises(ValueError, match=r"'session\.start'"):
        events.note("session.start")
    assert events.counts == {}


@pytest.mark.parametrize("value", [None, b"token", object(), ["a"], {"a": 1}])
def test_a_fact_that_is_no_plain_value_is_refused(value: object) -> None:
    """An object as a fact is an error that does not show it, and nothing is counted or told."""
    told: list[Event] = []
    events = Events(told.append)
    with pytest.raises(TypeError) as caught:
        events.note("refresh.done", fact=value)  # type: ignore[arg-type]
    assert str(caught.value) == f"The fact 'fact' of refresh.done is a {type(value).__name__}, not a plain value."
    assert (events.counts, told) == ({}, [])


def test_counts_are_a_copy_that_nobody_can_change() -> None:
    """What was read of the counts neither changes later nor can be written to."""
    events = Events()
    events.note("refresh.done")
    before = events.counts
    events.note("refresh.done")
    assert (before, events.counts) == ({"refresh.done": 1}, {"refresh.done": 2})
    with pytest.raises(TypeError):
        before["refresh.done"] = 0  # type: ignore[index]


def test_an_event_cannot_be_changed() -> None:
    """Neither an event nor its facts can be written to by the callback."""
    told: list[Event] = []
    Events(told.append).note("refresh.done", tries=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        told[0].name = "x"  # type: ignore[misc]
    with pytest.raises(TypeError):
        told[0].facts["tries"] = 2  # type: ignore[index]


def test_threads_lose_no_count() -> None:
    """Eight threads that note at once are all counted."""
    events = Events()
    threads = [threading.Thread(target=lambda: [events.note("refresh.done") for _ in range(500)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert events.counts == {"refresh.done": 4000}


def test_every_event_has_its_meaning() -> None:
    """The names are those of the table, and each has one sentence or two."""
    assert tuple(EVENTS) == EVENT_NAMES
    assert all(meaning.endswith(".") and "\n" not in meaning for meaning in EVENTS.values())

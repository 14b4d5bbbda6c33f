"""A change to a stored session, and when it may go over what lies there by now. Knows no store and no key."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from logto_asgi.session.known import Held
from logto_asgi.session.records import Live

__all__ = ["Change"]

_REMEMBERED = 8
"""Earlier tries that a change knows of."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is to lie under a key instead of `base`.

    The revision of `base` is the fence: a holder that was paused for too long finds another, and something newer.
    """

    key: str
    live: Live
    value: str = field(repr=False)
    """`live`, sealed. Sealed once: a store knows by it that the same change is asked for again."""
    base: Held
    over_marks: bool = True
    """Whether the mark of somebody else's refresh may go: it may where this brings a new refresh token.

    Otherwise the other one may be spending the token that this state still has.
    """
    tried: tuple[str, ...] = field(default=(), repr=False)
    """Values that were sent before and may have arrived, though no answer did."""
    index: bool = False
    """Whether the index may not name the session as it is now: an earlier change was to note it, and still waits."""
    led_here: tuple[tuple[int, int], ...] = ()
    """Version and time of earlier states, whose successors are not in the store yet."""

    def must_note(self, found: Live) -> bool:
        """Tell whether a write over this must note the session in the index again.

        Its names differ under a new secret, and where it learned its `sid` only now.
        """
        before, after = found.session.claims, self.live.session.claims
        return self.index or found.is_outdated or (before.sub, before.sid) != (after.sub, after.sid)

    def may_replace(self, found: Held) -> bool:
        """Tell whether nobody has saved a state since `base`.

        1. What lies there is an earlier try of ours, whose answer was lost.
        2. It is the state that we began with: sealed anew for a new secret, or marked by whoever took us for dead.
        3. The store was set back to an earlier time, and this is older than what we began with.
        """
        base, there = self.base.live, found.live
        if found.value in self.tried:
            return True
        if _state(there) == _state(base) or _state(there) in self.led_here:
            return self.over_marks or there.mark is None or there.mark == base.mark
        return (
            found.revision <= self.base.revision
            and there.session.version < base.session.version
            and there.saved_at <= base.saved_at
        )

    def is_newer_than(self, found: Held) -> bool:
        """Tell whether this is to be believed rather than what lies in the store."""
        return self.live.session.version >= found.live.session.version and self.may_replace(found)

    def after(self, earlier: Change | None) -> Change:
        """Return this change as the successor of one that still waits to be saved."""
        if earlier is None:
            return self
        tried = (*earlier.tried, earlier.value)[-_REMEMBERED:]
        led_here = (*earlier.led_here, _state(earlier.base.live))[-_REMEMBERED:]
        over_marks = self.over_marks or earlier.over_marks
        index = self.index or earlier.must_note(earlier.base.live)
        return replace(self, tried=tried, led_here=led_here, over_marks=over_marks, index=index)


def _state(live: Live) -> tuple[int, int]:
    return live.session.version, live.saved_at

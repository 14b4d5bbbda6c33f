"""A change to a stored session, and when it may go over what lies there by now. Knows no store and no key."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

from logto_asgi.session.in_store.known import Held
from logto_asgi.session.in_store.records import Live, Mark

__all__ = ["Change"]

_REMEMBERED = 8
"""Earlier tries that a change knows of."""


_State = tuple[int, int, str]
"""Version, time and refresh token (a digest): by these a state of a session is known, however it is sealed."""


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
    tried: tuple[str, ...] = field(default=(), repr=False)
    """Values that were sent before and may have arrived, though no answer did."""
    index: bool = False
    """Whether the index may not name the session as it is now: an earlier change was to note it, and still waits."""
    led_here: tuple[tuple[_State, Mark | None], ...] = ()
    """Earlier states and their marks, whose successors are not in the store yet."""

    def must_note(self, found: Live) -> bool:
        """Tell whether a write over this must note the session in the index again.

        Its names differ under a new secret, and where it learned its `sid` only now.
        """
        before, after = found.session.claims, self.live.session.claims
        return self.index or found.is_outdated or (before.sub, before.sid) != (after.sub, after.sid)

    def may_replace(self, found: Held) -> bool:
        """Tell whether this may go over what lies in the store.

        | What lies there                                | Its mark     | May go                                |
        |------------------------------------------------|--------------|---------------------------------------|
        | an earlier try of this, whose answer was lost  | any          | yes                                   |
        | a state that led here, maybe sealed anew       | none or ours | yes                                   |
        | a state that led here, maybe sealed anew       | another's    | where this has another refresh token  |
        | an older one, because the store was set back   | none or ours | yes                                   |
        | an older one, because the store was set back   | another's    | where this has another refresh token  |
        | anything else: somebody saved a state since    | any          | no                                    |

        Whoever marked a state may be spending its refresh token just now, and saves the next one over that mark alone.
        Where this has a later refresh token, that one was spent already.
        """
        if found.value in self.tried:
            return True
        there = found.live
        if _state(there) not in self._origins() and not self._was_set_back(found):
            return False
        is_ours = there.mark is None or there.mark in self._marks()
        return is_ours or there.session.refresh_token != self.live.session.refresh_token

    def _origins(self) -> list[_State]:
        return [_state(self.base.live), *(state for state, _ in self.led_here)]

    def _marks(self) -> list[Mark | None]:
        return [self.base.live.mark, *(mark for _, mark in self.led_here)]

    def _was_set_back(self, found: Held) -> bool:
        """Tell whether the store has lost writes, so that what lies there is older than what this began with."""
        base, there = self.base.live, found.live
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
        base = earlier.base.live
        tried = (*earlier.tried, earlier.value)[-_REMEMBERED:]
        led_here = (*earlier.led_here, (_state(base), base.mark))[-_REMEMBERED:]
        return replace(self, tried=tried, led_here=led_here, index=self.index or earlier.must_note(base))


def _state(live: Live) -> _State:
    token = live.session.refresh_token or ""
    return live.session.version, live.saved_at, hashlib.sha256(token.encode()).hexdigest()

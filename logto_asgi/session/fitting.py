"""Make a session fit its cookies: access tokens are a cache, so they are left out first. Knows no names and no keys."""

from __future__ import annotations

from typing import Any

from logto_asgi.errors import SessionTooLarge
from logto_asgi.models import Session
from logto_asgi.session.sealing import Sealer, encode_json
from logto_asgi.session.serialization import dump_access_token, dump_session

__all__ = ["fit"]


def fit(session: Session, sealer: Sealer, *, capacity: int) -> dict[str, Any]:
    """Return the payload whose sealed text has at most `capacity` characters.

    The least recently used access tokens are left out. Raise `SessionTooLarge` when the rest alone is too long.
    """
    room = sealer.room(dump_session(session), capacity)
    if room < 0:
        raise SessionTooLarge(
            f"The claims of this user are too large for a cookie: sealed they have {capacity - room * 4 // 3:,} "
            f"characters, and {capacity:,} fit. "
            "Keep sessions on the server (store=RedisStore.from_url(…)), or ask for fewer scopes."
        )
    kept: list[list[Any]] = []
    for token in sorted(session.access_tokens.values(), key=lambda token: token.used_at, reverse=True):
        dumped = dump_access_token(token)
        room -= len(encode_json(dumped)) + 1
        if room < 0:
            break
        kept.append(dumped)
    return dump_session(session, kept)

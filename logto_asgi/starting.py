"""Whether an app can start: the check before its own start-up, and one sentence where it fails. Knows no request."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING

from starlette.types import Receive, Scope, Send

from logto_asgi.errors import IssuerError, LogtoError

if TYPE_CHECKING:
    from logto_asgi.runtime import Logto

__all__ = ["starts"]

_held_back: ContextVar[list[str] | None] = ContextVar("logto_asgi_held_back", default=None)


async def starts(logto: Logto, scope: Scope, receive: Receive, send: Send) -> bool:
    """Look whether everything is there. What is not ends the start only if the configuration wants that.

    Returns False where the start has failed and the server knows. Raises what is wrong to a test client instead.
    """
    held = _held_back.set([])
    try:
        await logto.check()
    except LogtoError as error:
        message = _sentence(logto, error)
        error.add_note(message)
        await receive()
        await logto.aclose()
        await send({"type": "lifespan.startup.failed", "message": message})
        # A server has heard now, and may print an error besides with its traceback. A test client, which as a rule
        # names no version of ASGI, waits for the error, as Starlette raises it: without one for ever.
        if "asgi" not in scope:
            raise
        return False
    finally:
        _held_back.reset(held)
    return True


def _sentence(logto: Logto, error: LogtoError) -> str:
    if not isinstance(error, IssuerError):
        return f"logto-asgi could not start with {logto.config.issuer}: {error.message}"
    reasons = _held_back.get() or [error.message]
    return f"logto-asgi could not verify {logto.config.issuer}: {reasons[-1]}"


def _hold_back(record: logging.LogRecord) -> bool:
    """Let through what the transport logs, except while an app starts: one sentence tells then why it does not."""
    held = _held_back.get()
    if held is None or record.levelno < logging.WARNING:
        return True
    held.append(record.getMessage())
    return False


logging.getLogger("logto_asgi.oidc.transport").addFilter(_hold_back)

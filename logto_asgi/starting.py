"""Whether an app can start: the check before its own start-up, and one sentence where it fails. Knows no request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.types import Receive, Scope, Send

from logto_asgi.errors import IssuerError, LogtoError

if TYPE_CHECKING:
    from logto_asgi.runtime import Logto

__all__ = ["starts"]


async def starts(logto: Logto, scope: Scope, receive: Receive, send: Send) -> bool:
    """Look whether everything is there. What is not ends the start only if the configuration wants that.

    Returns False where the start has failed and the server knows. Raises what is wrong to a test client instead.
    """
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
    return True


def _sentence(logto: Logto, error: LogtoError) -> str:
    what = "verify" if isinstance(error, IssuerError) else "start with"
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    return f"logto-asgi could not {what} {logto.config.issuer}: {error.message}{notes}"

"""Parameters of a request, from the query or a form: read by hand, so that no form parser has to be installed.

It knows what a parameter is, and no protocol: which ones there are, and which may repeat, is said by the caller.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from urllib.parse import parse_qsl

from starlette.requests import Request

from logto_asgi.testing.refusals import Refusal

__all__ = ["Parameters", "read_parameters"]

_MAX_BODY = 64 * 1024
_FORM = "application/x-www-form-urlencoded"


class Parameters:
    """Names and values in the order of the request. An empty value counts as not sent (RFC 6749 §3.1)."""

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            if value:
                self._values.setdefault(name, []).append(value)

    def get(self, name: str) -> str | None:
        """Return the value of a parameter that was sent exactly once, else None."""
        values = self._values.get(name, ())
        return values[0] if len(values) == 1 else None

    def require(self, name: str) -> str:
        """Return the value of a parameter. Raise `invalid_request` when it was not sent."""
        value = self.get(name)
        if value is None:
            raise Refusal("invalid_request", f"missing required parameter '{name}'")
        return value

    def all(self, name: str) -> tuple[str, ...]:
        """Return every value of a parameter."""
        return tuple(self._values.get(name, ()))

    def words(self, name: str) -> tuple[str, ...]:
        """Return the words of a space-separated parameter, each once, in their order."""
        return tuple(dict.fromkeys((self.get(name) or "").split()))

    def refuse_repeated(self, known: Collection[str]) -> None:
        """Raise `invalid_request` when one of these was sent more than once (RFC 6749 §3.1)."""
        repeated = sorted(name for name in known if len(self._values.get(name, ())) > 1)
        if repeated:
            raise Refusal("invalid_request", f"{', '.join(repeated)} must not be provided twice")


async def read_parameters(request: Request) -> Parameters:
    """Read the query of a GET, the form of a POST. Raise `invalid_request` for another kind of body or a huge one."""
    if request.method != "POST":
        return Parameters(request.query_params.multi_items())
    if request.headers.get("content-type", _FORM).partition(";")[0].strip().lower() != _FORM:
        raise Refusal("invalid_request", f"only {_FORM} content-type bodies are supported")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY:
            raise Refusal("invalid_request", "request entity too large", status=413)
    return Parameters(_pairs(body.decode("utf-8", "replace")))


def _pairs(text: str) -> list[tuple[str, str]]:
    return parse_qsl(text, keep_blank_values=True)

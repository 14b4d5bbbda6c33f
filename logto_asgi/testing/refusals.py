"""How the development provider says no: OAuth's error codes in the form that Logto gives them.

It knows no endpoint. A refusal is raised where a rule is broken and becomes a response at one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from starlette.responses import JSONResponse

__all__ = ["Refusal"]

_STATUS: Mapping[str, int] = MappingProxyType({"invalid_token": 401, "insufficient_scope": 403, "access_denied": 403})
_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}


class Refusal(Exception):
    """A request broke a rule. `error` is the code of RFC 6749 §4.1.2.1 or §5.2, or of an extension.

    The status is 400 unless the code has another one or `status` is given. `challenge` names the scheme of the
    `WWW-Authenticate` header (RFC 9110 §11.6.1).
    """

    def __init__(
        self, error: str, description: str, *, status: int | None = None, challenge: str | None = None
    ) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = description
        self.status = status or _STATUS.get(error, 400)
        self.challenge = challenge

    def body(self) -> dict[str, str]:
        """Return Logto's body: its own `code` and `message`, and the two names of RFC 6749 §5.2."""
        return {
            "code": f"oidc.{self.error}",
            "message": self.description,
            "error": self.error,
            "error_description": self.description,
        }

    def response(self) -> JSONResponse:
        """Return the answer for a program."""
        headers = dict(_NO_STORE)
        if self.challenge:
            headers["WWW-Authenticate"] = f'{self.challenge} realm="oidc", error="{self.error}"'
        return JSONResponse(self.body(), status_code=self.status, headers=headers)

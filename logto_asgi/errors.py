"""Every exception of the library, in one tree. It knows no framework beyond Starlette's `HTTPException`.

```text
LogtoError                              code, a message that is safe to show
├── ConfigurationError                  the settings are wrong: every fault with its remedy
├── VerificationError                   a token or an answer failed a check: which one
├── SignInError                         a call-back cannot become a session
│   ├── AttemptNotFound                 no pending sign-in of this browser fits
│   ├── SignInCancelled                 the visitor turned back at the issuer
│   └── SignInRefused                   the issuer answered with an error
└── HTTPError (+ HTTPException)         may reach an endpoint; the framework answers it
    ├── SetupError                 500  a line is missing in the app
    ├── SessionTooLarge            500  the session does not fit its cookies
    ├── StoreUnavailable           503  the session store is away; nobody is signed out
    │   └── StoreFull              503  … it answers, and takes nothing in
    ├── IssuerError
    │   ├── IssuerUnavailable      503  down, slow or busy; nobody is to blame
    │   ├── IssuerRefused          502  the issuer said no
    │   │   └── InvalidGrant       502  … to this refresh token or code
    │   └── IssuerResponseInvalid  502  the answer breaks the specification
    ├── AccessTokenRefused         403  no token for this resource or organization
    ├── AccessTokenMismatch        502  the token is not for what was asked
    ├── SignInRequired             401  nobody is signed in
    │   ├── SessionEnded           401  the issuer ended this session
    │   ├── RefreshTokenMissing    401  expired, and nothing to refresh with
    │   └── StepUpRequired         401  signed in, but too long ago for this
    ├── TokenRequired              401  no bearer token came, and this needs one
    ├── InvalidToken               401  a bearer token came and is of no use here
    ├── InvalidRequest             400  two tokens came, or one in the wrong place
    ├── PermissionDenied           403  known, and not allowed to do this
    │   └── InsufficientScope      403  … for lack of a scope
    └── CrossSiteRequest           403  a cookie was sent from another site
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from starlette.exceptions import HTTPException

__all__ = [
    "AccessTokenMismatch",
    "AccessTokenRefused",
    "AttemptNotFound",
    "ConfigurationError",
    "ConfigurationProblem",
    "CrossSiteRequest",
    "HTTPError",
    "InsufficientScope",
    "InvalidGrant",
    "InvalidRequest",
    "InvalidToken",
    "IssuerError",
    "IssuerRefused",
    "IssuerResponseInvalid",
    "IssuerUnavailable",
    "LogtoError",
    "PermissionDenied",
    "RefreshTokenMissing",
    "SessionEnded",
    "SessionTooLarge",
    "SetupError",
    "SignInCancelled",
    "SignInError",
    "SignInRefused",
    "SignInRequired",
    "StepUpRequired",
    "StoreFull",
    "StoreUnavailable",
    "TokenRequired",
    "VerificationError",
]


class LogtoError(Exception):
    """The base of everything that this library raises.

    `code` is stable: compare it, log it, look it up in the documentation's troubleshooting page.
    The message holds no secret and may be shown to a visitor.
    """

    code: ClassVar[str] = "logto_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r})"


@dataclass(frozen=True, slots=True)
class ConfigurationProblem:
    """One fault of a configuration: which field, what is wrong with it, what to do."""

    field: str
    fault: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.field}: {self.fault} {self.remedy}"


class ConfigurationError(LogtoError, ValueError):
    """The settings are wrong. `problems` lists all of them; none shows a secret."""

    code = "configuration_invalid"

    def __init__(self, problems: Sequence[ConfigurationProblem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        head = (
            "The Logto configuration has a mistake:" if count == 1 else f"The Logto configuration has {count} mistakes:"
        )
        super().__init__("\n".join([head, *(f"  - {problem}" for problem in self.problems)]))


class VerificationError(LogtoError):
    """A token or an answer failed a check of the specification.

    `check` names it in a word that tests and logs can rely on: `iss`, `aud`, `nonce`, `signature`, …
    """

    code = "verification_failed"

    def __init__(self, check: str, message: str) -> None:
        super().__init__(message)
        self.check = check


class SignInError(LogtoError):
    """A call-back that cannot become a session. The visitor sees a page with our own words."""

    code = "sign_in_failed"


class AttemptNotFound(SignInError):
    """No pending sign-in of this browser fits the call-back: stale, blocked cookies, or another host."""

    code = "attempt_not_found"


class SignInCancelled(SignInError):
    """The visitor turned back at the issuer, which sent the browser home with no parameters or `access_denied`."""

    code = "sign_in_cancelled"


class SignInRefused(SignInError):
    """The issuer answered the authorization request with an error. `error` is its code (RFC 6749 §4.1.2.1)."""

    code = "sign_in_refused"

    def __init__(self, error: str, message: str) -> None:
        super().__init__(message)
        self.error = error


class HTTPError(LogtoError, HTTPException):
    """An error that may reach an endpoint. The framework answers it where it was raised, as an `HTTPException`."""

    code = "http_error"
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, headers: dict[str, str] | None = None) -> None:
        HTTPException.__init__(self, status_code=self.status, detail=message, headers=headers)
        self.message = message
        self.args = (message,)


class SetupError(HTTPError):
    """A line is missing in the app, or two do not fit. The message names the line."""

    code = "setup_incomplete"
    status = 500


class SessionTooLarge(HTTPError):
    """The claims of the user do not fit the cookies of one host."""

    code = "session_too_large"
    status = 500


class StoreUnavailable(HTTPError):
    """The session store cannot be reached or does not answer in time. Sessions stay as they are.

    `retry_after` is in seconds.
    """

    code = "store_unavailable"
    status = 503

    def __init__(self, message: str, *, retry_after: int = 2) -> None:
        super().__init__(message, headers={"Retry-After": str(retry_after)})
        self.retry_after = retry_after


class StoreFull(StoreUnavailable):
    """The session store answers and takes nothing in: its memory is full."""

    code = "store_full"


class IssuerError(HTTPError):
    """A call to the issuer did not bring what was asked for."""

    code = "issuer_error"
    status = 502


class IssuerUnavailable(IssuerError):
    """The issuer is down, slow or busy (5xx, 429, connection, time-out). Sessions stay as they are.

    `retry_after` is in seconds, as the issuer said or a guess. `processed` is False where the issuer surely did not
    process the request, and None where nobody can know: an answer may have been lost. `unreachable` means that no
    connection came about or none held, for whichever user.
    """

    code = "issuer_unavailable"
    status = 503

    def __init__(
        self, message: str, *, retry_after: int = 5, processed: bool | None = None, unreachable: bool = False
    ) -> None:
        super().__init__(message, headers={"Retry-After": str(retry_after)})
        self.retry_after = retry_after
        self.processed = processed
        self.unreachable = unreachable


class IssuerRefused(IssuerError):
    """The issuer refused the app: its secret, its rights, what it asks for. No visitor can help it.

    `error` is the issuer's code (RFC 6749 §5.2), `issuer_status` its HTTP status.
    """

    code = "issuer_refused"

    def __init__(self, message: str, *, error: str, issuer_status: int) -> None:
        super().__init__(message)
        self.error = error
        self.issuer_status = issuer_status


class InvalidGrant(IssuerRefused):
    """The code or refresh token is spent, expired or revoked (`invalid_grant`)."""

    code = "invalid_grant"


class IssuerResponseInvalid(IssuerError):
    """The issuer's answer breaks the specification: not JSON, a field missing, too large, another issuer's."""

    code = "issuer_response_invalid"


class AccessTokenRefused(HTTPError):
    """Who asks, or whom the app asks for, may not have this token. A session goes on.

    `error` is the issuer's code, such as `access_denied` for an organization, `invalid_grant` for an exchange.
    """

    code = "access_token_refused"
    status = 403

    def __init__(self, message: str, *, error: str) -> None:
        super().__init__(message)
        self.error = error


class AccessTokenMismatch(HTTPError):
    """The issuer answered with a token for something else than what was asked."""

    code = "access_token_mismatch"
    status = 502


class SignInRequired(HTTPError):
    """Nobody is signed in, and this needs somebody.

    `redirect`: True sends every GET to sign-in, False none, None those of a browser's address bar or link. `max_age`,
    in seconds, is how long ago the sign-in at the issuer may be, if that matters.
    """

    code = "sign_in_required"
    status = 401

    def __init__(
        self,
        message: str,
        *,
        redirect: bool | None = None,
        max_age: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message, headers=headers)
        self.redirect = redirect
        self.max_age = max_age


class SessionEnded(SignInRequired):
    """The issuer ended this session: the refresh token is spent, expired or revoked. Sign in again."""

    code = "session_ended"


class RefreshTokenMissing(SignInRequired):
    """The access token has expired, and the session has no refresh token to get another with."""

    code = "refresh_token_missing"


class StepUpRequired(SignInRequired):
    """Somebody is signed in, but the sign-in is older than `max_age` allows, or of unknown age (RFC 9470 §3)."""

    code = "step_up_required"


class TokenRequired(HTTPError):
    """No bearer token came, and this takes nothing else. The challenge names no error (RFC 6750 §3.1)."""

    code = "token_required"
    status = 401


class InvalidToken(HTTPError):
    """A bearer token came and is of no use here: expired, for something else, not the issuer's (RFC 6750 §3.1).

    `check` names the check that failed, as in `VerificationError`.
    """

    code = "invalid_token"
    status = 401

    def __init__(self, message: str, *, check: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message, headers=headers)
        self.check = check


class InvalidRequest(HTTPError):
    """Two tokens came, or one where none belongs, such as the query string (RFC 6750 §3.1)."""

    code = "invalid_request"
    status = 400


class PermissionDenied(HTTPError):
    """It is known who asks, and that is not enough. `missing` names what lacks, such as roles."""

    code = "permission_denied"
    status = 403

    def __init__(self, message: str, *, missing: Sequence[str] = (), headers: dict[str, str] | None = None) -> None:
        super().__init__(message, headers=headers)
        self.missing = tuple(missing)


class InsufficientScope(PermissionDenied):
    """The token lacks a scope (RFC 6750 §3.1). `missing` names those that lack, `scope` all that are needed."""

    code = "insufficient_scope"

    def __init__(
        self, message: str, *, scope: str, missing: Sequence[str] = (), headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message, missing=missing, headers=headers)
        self.scope = scope


class CrossSiteRequest(HTTPError):
    """A request that changes something arrived by cookie from another site."""

    code = "cross_site_request"
    status = 403

"""The pages of the auth routes, in our own words: cancelled, failed, confirm, signed out. They know no session.

Nothing of the issuer's text or the query's is shown (RFC 6749 §4.1.2.1 leaves `error_description` to anybody).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from starlette.responses import Response

from logto_asgi.errors import (
    AttemptNotFound,
    InvalidGrant,
    IssuerRefused,
    IssuerUnavailable,
    LogtoError,
    SessionTooLarge,
    SignInCancelled,
    SignInRefused,
)
from logto_asgi.origins import header, origin_of_url
from logto_asgi.pages import Action
from logto_asgi.responses import page

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig
    from logto_asgi.oidc.metadata import ProviderMetadata

__all__ = [
    "callback_failed",
    "cancelled",
    "confirm_one_time_token",
    "confirm_sign_out",
    "keeps_coming_back",
    "lacks_permission",
    "needs_its_own_window",
    "signed_out_here",
]

_ISSUER_SAYS = {
    "login_required": "You are not signed in there any more.",
    "consent_required": "Your consent is needed first.",
    "interaction_required": "The sign-in service needs something from you first.",
    "server_error": "The sign-in service has a problem of its own.",
    "temporarily_unavailable": "The sign-in service is busy.",
    "invalid_scope": "The app asked for a scope that the sign-in service does not know. Its makers can mend this.",
    "invalid_target": "The app asked for an API that the sign-in service does not know. Its makers can mend this.",
    "unauthorized_client": "The sign-in service does not accept this app. Its makers can mend this.",
    "invalid_request": "The sign-in service did not understand the app. Its makers can mend this.",
}
"""Our words for the codes of RFC 6749 §4.1.2.1 and OpenID Connect Core §3.1.2.6."""


def cancelled(config: LogtoConfig) -> Response:
    """Say that the visitor turned back at the issuer: no error."""
    return page(
        heading="Sign-in was cancelled",
        paragraphs=("You are not signed in, and nothing was changed.",),
        actions=(_again(config, "Sign in"), _home(config)),
        detail=SignInCancelled.code,
    )


def callback_failed(
    config: LogtoConfig, error: LogtoError, scope: Mapping[str, Any], *, signed_in: bool = False
) -> Response:
    """Explain a call-back that did not become a session, and offer to try again."""
    if isinstance(error, SignInCancelled) and not signed_in:
        return cancelled(config)
    heading, text = _explained(config, error, scope)
    if signed_in:
        text = (*text, "You are still signed in as before.")
    status = getattr(error, "status", 400)
    return page(
        heading=heading,
        paragraphs=text,
        actions=(_again(config, "Try again"), _home(config)),
        status=status,
        tone="error",
        detail=error.code,
        headers={"Retry-After": str(error.retry_after)} if isinstance(error, IssuerUnavailable) else None,
    )


def _explained(config: LogtoConfig, error: LogtoError, scope: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    if isinstance(error, AttemptNotFound):
        return "This sign-in can't be finished", _reasons_of_a_lost_attempt(config, scope)
    if isinstance(error, SignInCancelled):
        return "Sign-in was cancelled", ("Nothing was changed.",)
    if isinstance(error, SignInRefused):
        says = _ISSUER_SAYS.get(error.error, "The sign-in service refused, and gave a reason that we do not know.")
        return "You could not be signed in", (says,)
    if isinstance(error, IssuerUnavailable):
        return "We can't reach the sign-in service", ("Please try again in a moment.",)
    if isinstance(error, IssuerRefused) and not isinstance(error, InvalidGrant):
        return "You could not be signed in", (_ISSUER_SAYS["unauthorized_client"],)
    if isinstance(error, SessionTooLarge):
        return "Your account holds more than fits here", (error.message,)
    return "You could not be signed in", ("A check of the sign-in service's answer failed, so it was not used.",)


def _reasons_of_a_lost_attempt(config: LogtoConfig, scope: Mapping[str, Any]) -> tuple[str, ...]:
    host, own = (header(scope["headers"], b"host") or "").lower(), urlsplit(config.origin).netloc
    reasons = ["It was finished before, it is older than an hour, or it began in another browser."]
    if header(scope["headers"], b"cookie") is None:
        reasons.append(
            "Your browser sent no cookies. If this page comes back, allow them for this site: sign-in needs them."
        )
    if host != own:
        reasons.append(f"This page was opened under another address than {own}, where sign-in begins.")
    return tuple(reasons)


def keeps_coming_back(config: LogtoConfig, name: str, query: Mapping[str, str]) -> Response:
    """Stop a loop: the browser was signed in several times in a row, and each time came back without its session."""
    return page(
        heading="Your browser does not keep the session",
        paragraphs=(
            "Sign-in worked several times in a row, but the cookie that remembers it did not come back.",
            "Please allow cookies for this site. If they are allowed, a proxy in between may drop large headers.",
        ),
        actions=(Action("Try again", f"{config.auth_url(name)}?{urlencode(query)}", primary=True), _home(config)),
        status=400,
        tone="error",
        detail="session_not_kept",
    )


def lacks_permission(config: LogtoConfig, back: str) -> Response:
    """Stop a loop: `@requires` sent somebody here who is signed in, and would again after another sign-in."""
    again = f"{config.auth_url('sign-in')}?{urlencode({'return_to': back})}"
    return page(
        heading="Your account may not open this page",
        paragraphs=(
            "You are signed in, but the page asks for a permission that your session does not have.",
            "If you were given it just now, sign in again.",
        ),
        actions=(Action("Sign in again", again, primary=True), _home(config)),
        status=403,
        tone="error",
        detail="permission_missing",
    )


def needs_its_own_window(config: LogtoConfig, name: str) -> Response:
    """Refuse to begin a sign-in inside a frame, an image or a script's request."""
    return page(
        heading="Sign-in needs a window of its own",
        paragraphs=("It can't begin inside another page. Open it in a tab of its own.",),
        actions=(Action("Sign in", config.auth_url(name), primary=True),),
        status=403,
        detail="sign_in_not_navigated",
    )


def confirm_sign_out(config: LogtoConfig, metadata: ProviderMetadata | None, method: str) -> Response:
    """Ask before signing out: the request did not surely come from this site."""
    endpoint = metadata.end_session_endpoint if metadata is not None else None
    next_stops = [origin_of_url(url) for url in (config.issuer, endpoint) if url]
    return page(
        heading="Sign out?",
        paragraphs=("You are about to sign out of this site.",),
        actions=(
            Action("Sign out", config.auth_url("sign-out"), method="POST", primary=True),
            _home(config, "Stay signed in"),
        ),
        status=200 if method == "GET" else 403,
        form_action=("'self'", config.origin, *next_stops),
    )


def confirm_one_time_token(
    config: LogtoConfig, name: str, query: Mapping[str, str], issuer_origins: tuple[str, ...]
) -> Response:
    """Ask who a magic link is for before it is used: a link from somebody else would sign in as them (login CSRF)."""
    who = query.get("login_hint", "")
    return page(
        heading="Sign in with this link?",
        paragraphs=(
            f"Continue as {who}." if who else "This link signs you in.",
            "If you did not ask for it, close this page.",
        ),
        actions=(
            Action(f"Continue as {who}" if who else "Continue", config.auth_url(name), "POST", query, primary=True),
            _home(config, "Cancel"),
        ),
        form_action=("'self'", config.origin, origin_of_url(config.issuer), *issuer_origins),
    )


def signed_out_here(config: LogtoConfig) -> Response:
    """Say plainly that the issuer could not be told."""
    return page(
        heading="You are signed out here",
        paragraphs=(
            "The sign-in service could not be reached, so you are still signed in there.",
            "On a shared computer, sign out there too when it is back.",
        ),
        actions=(_home(config),),
        tone="success",
    )


def _again(config: LogtoConfig, label: str) -> Action:
    return Action(label, config.auth_url("sign-in"), primary=True)


def _home(config: LogtoConfig, label: str = "Home") -> Action:
    return Action(label, config.url("/"))

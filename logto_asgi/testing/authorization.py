"""The authorization endpoint: it sends the browser back with a code, or shows it a page first.

It decides (OpenID Connect Core §3.1.2) and answers; the pages and what is clicked on them are in `interaction`.
"""

from __future__ import annotations

from urllib.parse import urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from logto_asgi.testing import screens
from logto_asgi.testing.core import Core
from logto_asgi.testing.parameters import Parameters
from logto_asgi.testing.refusals import Refusal
from logto_asgi.testing.storage import (
    AuthorizationCode,
    AuthorizationRequest,
    Grant,
    Interaction,
    SignOnSession,
    new_value,
)
from logto_asgi.testing.users import OPENID_SCOPES
from logto_asgi.testing.validation import ORGANIZATION_RESOURCE, identify_client, parse_authorization_request

__all__ = ["AuthorizationEndpoint", "answer", "redirect"]


def redirect(url: str) -> RedirectResponse:
    """Return a 303 that nobody stores."""
    return RedirectResponse(url, status_code=303, headers={"Cache-Control": "no-store"})


def answer(core: Core, request: AuthorizationRequest, values: dict[str, str]) -> Response:
    """Send the browser back to the app, always with `state` and `iss` (RFC 9207 §2)."""
    return _answer(core, request.redirect_uri, request.response_mode, request.state, values)


def _answer(core: Core, redirect_uri: str, mode: str, state: str | None, values: dict[str, str]) -> Response:
    full = {**values, **({"state": state} if state is not None else {}), "iss": core.issuer}
    if mode == "form_post":
        return screens.form_post(redirect_uri, full)
    separator = "#" if mode == "fragment" else "&" if urlsplit(redirect_uri).query else "?"
    return redirect(f"{redirect_uri}{separator}{urlencode(full)}")


class AuthorizationEndpoint:
    """`/auth`."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def __call__(self, request: Request, params: Parameters) -> Response:
        """Answer an authorization request: a page at the provider, or back to the app."""
        try:
            client, redirect_uri = identify_client(params, self._core.clients)
        except Refusal as refusal:
            return screens.refused(refusal)
        try:
            wanted = parse_authorization_request(params, client, redirect_uri, self._core.resources)
        except Refusal as refusal:
            error = {"error": refusal.error, "error_description": refusal.description}
            mode = params.get("response_mode") or "query"
            return _answer(self._core, redirect_uri, mode, params.get("state"), error)
        return self._decide(wanted, self._core.session(request.cookies.get(self._core.cookie_name)))

    def _decide(self, wanted: AuthorizationRequest, session: SignOnSession | None) -> Response:
        # 1. A known person needs no page: a magic link, or a login_hint that fits.
        if self._must_sign_in(wanted, session) and "none" not in wanted.prompts:
            sub = self._spend_one_time_token(wanted) or self._hinted(wanted)
            if sub is None:
                return self._open(Interaction(wanted, self._expiry()))
            return self.proceed(wanted, self._core.sign_on(sub, session), signed_in_now=True)
        # 2. prompt=none shows no page at all.
        if session is None or self._must_sign_in(wanted, session):
            return self._refuse(wanted, "login_required", "End-User authentication is required")
        return self.proceed(wanted, session)

    def proceed(self, wanted: AuthorizationRequest, session: SignOnSession, signed_in_now: bool = False) -> Response:
        """Go on with a signed-in browser: ask a third-party app's user for consent, or finish."""
        if not self._needs_consent(wanted, session):
            response = self.finish(wanted, session)
        elif "none" in wanted.prompts:
            return self._refuse(wanted, "consent_required", "End-User consent is required")
        else:
            response = self._open(Interaction(wanted, self._expiry(), session))
        if signed_in_now:
            self._remember(response, session)
        return response

    def finish(self, wanted: AuthorizationRequest, session: SignOnSession) -> Response:
        """Issue a code and send the browser back to the app (RFC 6749 §4.1.2)."""
        core, code = self._core, new_value()
        core.storage.codes[code] = AuthorizationCode(
            self._grant(wanted, session),
            wanted.redirect_uri,
            wanted.code_challenge,
            core.clock() + core.lifetimes.code,
        )
        return answer(core, wanted, {"code": code})

    def _grant(self, wanted: AuthorizationRequest, session: SignOnSession) -> Grant:
        core, user = self._core, self._core.directory.get(session.sub)
        given = {
            resource: frozenset(s for s in wanted.scopes & core.resources[resource] if user and user.may(resource, s))
            for resource in wanted.resources
            if resource != ORGANIZATION_RESOURCE
        }
        with_organizations = ORGANIZATION_RESOURCE in wanted.resources
        timed = wanted.max_age is not None or "login" in wanted.prompts
        return Grant(
            client_id=wanted.client.app_id,
            sub=session.sub,
            session_id=session.id,
            scopes=wanted.scopes & OPENID_SCOPES,
            resources=given,
            organization_scopes=wanted.scopes - OPENID_SCOPES if with_organizations else frozenset(),
            requested=wanted.scopes,
            nonce=wanted.nonce,
            sid=core.sid(session, wanted.client),
            auth_time=session.auth_time if timed else None,
        )

    def _must_sign_in(self, wanted: AuthorizationRequest, session: SignOnSession | None) -> bool:
        if session is None or "login" in wanted.prompts or wanted.one_time_token:
            return True
        if wanted.max_age is not None and self._core.clock() - session.auth_time > wanted.max_age:
            return True
        hint = self._core.keys.read(wanted.id_token_hint) if wanted.id_token_hint else None
        return hint is not None and hint.get("sub") != session.sub

    def _needs_consent(self, wanted: AuthorizationRequest, session: SignOnSession) -> bool:
        client = wanted.client
        return client.third_party and ("consent" in wanted.prompts or client.app_id not in session.consented)

    def _hinted(self, wanted: AuthorizationRequest) -> str | None:
        user = self._core.directory.find(wanted.login_hint) if self._core.login_hint_signs_in else None
        return user.sub if user else None

    def _spend_one_time_token(self, wanted: AuthorizationRequest) -> str | None:
        sub = self._core.storage.one_time_tokens.pop(wanted.one_time_token or "", None)
        user = self._core.directory.active(sub)
        return user.sub if user and user.email == wanted.login_hint else None

    def _refuse(self, wanted: AuthorizationRequest, error: str, description: str) -> Response:
        return answer(self._core, wanted, {"error": error, "error_description": description})

    def _open(self, interaction: Interaction) -> Response:
        self._core.storage.open_interaction(interaction, self._core.clock())
        return redirect(f"{self._core.issuer}/interaction/{interaction.id}")

    def _expiry(self) -> float:
        return self._core.clock() + self._core.lifetimes.interaction

    def _remember(self, response: Response, session: SignOnSession) -> None:
        response.set_cookie(
            self._core.cookie_name,
            session.id,
            max_age=self._core.lifetimes.session,
            path="/",
            httponly=True,
            samesite="lax",
            secure=self._core.issuer.startswith("https:"),
        )

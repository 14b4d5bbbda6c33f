"""The pages of a sign-in, and what the visitor clicks on them: a demo user, a new account, consent, cancel.

It knows which step comes next; whether a page is needed at all is decided by `authorization`.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from logto_asgi.testing import screens
from logto_asgi.testing.authorization import AuthorizationEndpoint, answer, redirect
from logto_asgi.testing.core import Core
from logto_asgi.testing.parameters import Parameters
from logto_asgi.testing.storage import Interaction

__all__ = ["InteractionEndpoint"]

_REGISTER_FIRST = frozenset({"register", "identifier:register"})


class InteractionEndpoint:
    """`/interaction/{id}`: GET shows a page, POST takes a step."""

    def __init__(self, core: Core, authorization: AuthorizationEndpoint) -> None:
        self._core = core
        self._authorization = authorization

    def __call__(self, request: Request, params: Parameters) -> Response:
        """Show the page of an open sign-in, or take the step that was clicked on it."""
        interaction = self._core.storage.interactions.get(request.path_params["id"])
        if interaction is None or interaction.expires_at <= self._core.clock():
            return screens.interaction_over()
        if request.method != "POST":
            return self._page(interaction, params.get("screen"))
        if params.get("action") == "cancel":
            return self._cancel(interaction)
        if interaction.session is not None:
            return self._consent(interaction, params)
        if params.get("action") == "register":
            return self._register(request, interaction, params)
        return self._sign_in(request, interaction, params.get("sub"))

    def _page(self, interaction: Interaction, screen: str | None) -> Response:
        wanted = interaction.request
        if interaction.session is not None:
            user = self._core.directory.get(interaction.session.sub)
            return screens.consent(self._url(interaction), wanted, user.name if user else interaction.session.sub)
        if (screen or wanted.first_screen) in _REGISTER_FIRST:
            hint = wanted.login_hint or ""
            return screens.register(self._url(interaction), wanted, email=hint if "@" in hint else "")
        return screens.sign_in(self._url(interaction), wanted, self._core.directory.users)

    def _sign_in(self, request: Request, interaction: Interaction, sub: str | None) -> Response:
        user = self._core.directory.active(sub)
        if user is None:
            problem = "This user is suspended or does not exist. Choose another one."
            return screens.sign_in(self._url(interaction), interaction.request, self._core.directory.users, problem)
        return self._signed_in(request, interaction, user.sub)

    def _register(self, request: Request, interaction: Interaction, params: Parameters) -> Response:
        name, email = (params.get("name") or "").strip(), (params.get("email") or "").strip()
        problems = {
            **({} if name else {"name": "Enter a name."}),
            **({} if _looks_like_email(email) else {"email": "Enter an e-mail address, such as dana@example.com."}),
        }
        if not problems and any(user.email == email for user in self._core.directory.users):
            problems["email"] = "There is an account with this address already."
        if problems:
            return screens.register(self._url(interaction), interaction.request, name, email, problems)
        return self._signed_in(request, interaction, self._core.directory.register(name, email).sub)

    def _signed_in(self, request: Request, interaction: Interaction, sub: str) -> Response:
        previous = self._core.session(request.cookies.get(self._core.cookie_name))
        self._close(interaction)
        session = self._core.sign_on(sub, previous)
        return self._authorization.proceed(interaction.request, session, signed_in_now=True)

    def _consent(self, interaction: Interaction, params: Parameters) -> Response:
        if params.get("action") != "allow" or interaction.session is None:
            return redirect(self._url(interaction))
        self._close(interaction)
        interaction.session.consented.add(interaction.request.client.app_id)
        return self._authorization.finish(interaction.request, interaction.session)

    def _cancel(self, interaction: Interaction) -> Response:
        """Go back as Logto does: a third-party app gets its bare redirect URI, without any parameter."""
        self._close(interaction)
        if interaction.request.client.third_party:
            return redirect(interaction.request.redirect_uri)
        error = {"error": "access_denied", "error_description": "End-User aborted interaction"}
        return answer(self._core, interaction.request, error)

    def _close(self, interaction: Interaction) -> None:
        self._core.storage.interactions.pop(interaction.id, None)

    def _url(self, interaction: Interaction) -> str:
        return f"{self._core.issuer}/interaction/{interaction.id}"


def _looks_like_email(text: str) -> bool:
    before, at, after = text.rpartition("@")
    return bool(before and at and after) and not any(letter.isspace() for letter in text)

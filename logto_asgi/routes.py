"""The auth routes `/logto/*`: parse the request, call a flow, respond. They know no OpenID Connect message."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, cast
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from logto_asgi.auth_requests import (
    HOST_MARKER,
    is_on_another_host,
    may_sign_out,
    page_of_requires,
    read_form,
    return_to,
    starts_nothing,
)
from logto_asgi.browser_token import hand_out
from logto_asgi.errors import (
    AttemptNotFound,
    ConfigurationError,
    ConfigurationProblem,
    CrossSiteRequest,
    HTTPError,
    LogtoError,
    SetupError,
    SignInCancelled,
    StoreUnavailable,
)
from logto_asgi.guards import misplaced_routes, same_app, visitor
from logto_asgi.models import Session
from logto_asgi.notices import (
    callback_failed,
    cancelled,
    confirm_one_time_token,
    confirm_sign_out,
    keeps_coming_back,
    lacks_permission,
    needs_its_own_window,
    signed_out_here,
)
from logto_asgi.origins import header, is_same_origin_request, origin_of_url
from logto_asgi.responses import answer, install, redirect
from logto_asgi.return_to import served_path
from logto_asgi.sign_in_options import ONE_TIME_TOKEN, asked_max_age, options_of_request
from logto_asgi.visit import Visit

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig

__all__ = ["auth_routes"]

logger = logging.getLogger("logto_asgi")

_RETRY_MARKER = "logto_retry"
"""Query parameter that says: the visitor asked to try again, so the count of automatic tries starts anew."""

_MOST_TRIES = 3

Endpoint = Callable[[Request], Awaitable[Response]]


_WITHOUT_SIGN_IN = ConfigurationProblem(
    "config",
    "is one without sign-in (LogtoConfig.without_sign_in), and these routes sign people in.",
    "Leave them out of an API, or make the configuration with LogtoConfig(…).",
)


def auth_routes(config: LogtoConfig) -> list[Route]:
    """Return the routes to serve: sign-in, sign-up, sign-in-callback and sign-out under `config.auth_path`.

    With `browser_token_resources` also the route `token`, which hands the app's own pages their access tokens. They are
    named `logto:sign-in` and so on, for `url_for` and `@requires(…, redirect="logto:sign-in")`.
    """
    if not config.signs_in:
        raise ConfigurationError([_WITHOUT_SIGN_IN])
    endpoints = _Endpoints(config)
    table: list[tuple[str, Endpoint, list[str]]] = [
        ("sign-in", endpoints.sign_in, ["GET", "POST"]),
        ("sign-up", endpoints.sign_up, ["GET", "POST"]),
        ("sign-in-callback", endpoints.sign_in_callback, ["GET"]),
        ("sign-out", endpoints.sign_out, ["GET", "POST"]),
    ]
    if config.browser_token_resources:
        table.append(("token", endpoints.token, ["POST"]))
    return [
        Route(f"{config.auth_path}/{name}", endpoint, methods=methods, name=f"logto:{name}", include_in_schema=False)
        for name, endpoint, methods in table
    ]


class _Endpoints:
    def __init__(self, config: LogtoConfig) -> None:
        self._config = config
        self._warned_of_host = False

    async def sign_in(self, request: Request) -> Response:
        """Send the browser to the issuer."""
        return await self._start(request, "sign-in")

    async def sign_up(self, request: Request) -> Response:
        """Send the browser to the issuer's page for new users."""
        return await self._start(request, "sign-up")

    async def sign_in_callback(self, request: Request) -> Response:
        """Take the browser back from the issuer."""
        if starts_nothing(request):
            return _nothing()
        visit = self._visit(request, "sign-in-callback")
        query, headers = request.query_params.multi_items(), request.scope["headers"]
        old = visit.ask()
        if not query:
            return self._home() if old else cancelled(self._config)
        states = [value for name, value in query if name == "state"]
        pending = visit.runtime.attempts.find(headers, states[0]) if len(states) == 1 else None
        if pending is None:
            if old:
                return self._home()
            return callback_failed(self._config, AttemptNotFound("No pending sign-in fits."), request.scope)
        try:
            session = await visit.runtime.flows.finish_sign_in(query, pending)
        except StoreUnavailable:
            raise  # Nothing was spent: the same call-back works once the store is back.
        except LogtoError as error:
            _log_failure(error)
            response = callback_failed(self._config, error, request.scope, signed_in=old is not None)
        else:
            await self._signed_in(visit, old, session)
            response = redirect(self._config.origin + pending.return_to, 303)
            tries = visit.runtime.tries
            _add_cookies(response, tries.clear(headers) if old is not None else [tries.add(headers)])
        _add_cookies(response, visit.runtime.attempts.clear(headers, pending.state))
        return response

    async def sign_out(self, request: Request) -> Response:
        """End the session here, then at the issuer. Another site's request gets a page that asks first."""
        if starts_nothing(request):
            return _nothing()
        visit = self._visit(request, "sign-out")
        if not may_sign_out(request, self._config):
            return confirm_sign_out(self._config, visit.runtime.client().cached_metadata(), request.method)
        outcome = await visit.runtime.flows.sign_out(visit.ask())
        visit.forget()
        if outcome.issuer_known:
            response = redirect(outcome.end_session_url or self._landing(), 303)
        else:
            response = signed_out_here(self._config)
        _add_cookies(response, visit.runtime.tries.clear(request.scope["headers"]))
        return response

    async def token(self, request: Request) -> Response:
        """Hand a page of this app an access token."""
        if starts_nothing(request):
            return _nothing()
        return await hand_out(request, self._visit(request, "token"))

    async def _start(self, request: Request, name: str) -> Response:
        if starts_nothing(request):
            return _nothing()
        visit = self._visit(request, name)
        if is_on_another_host(request, self._config):
            return self._to_own_host(request, name)
        refusal = await self._refusal_to_start(request, visit, name)
        if refusal is not None:
            return refusal
        try:
            form = await read_form(request)
            options = options_of_request(request, self._config, sign_up=name == "sign-up", form=form)
            url, pending = await visit.runtime.flows.start_sign_in(options, return_to(request, form, self._config))
        except ConfigurationError as error:
            raise SetupError(f"sign_in_options: {error.message}") from error
        except HTTPError as error:
            return await _answered(request, error)
        response = redirect(url, 302 if request.method == "GET" else 303)
        _add_cookies(response, visit.runtime.attempts.start(request.scope["headers"], pending))
        return response

    async def _refusal_to_start(self, request: Request, visit: Visit, name: str) -> Response | None:
        """Number the cases in which a sign-in does not start.

        1. In a frame, an image or a script's request: the issuer's page could not be shown, and nobody asked for it.
        2. A form that was posted from another site (login CSRF).
        3. A magic link, until the visitor has confirmed it.
        4. A browser that has come back three times in a row without its session.
        5. Somebody who is signed in and was sent here by `@requires`, for a scope that the session lacks; not for a
           newer sign-in, which another round does bring.
        """
        headers = request.scope["headers"]
        if header(headers, b"sec-fetch-dest") not in (None, "document"):
            return needs_its_own_window(self._config, name)
        if request.method == "POST" and not is_same_origin_request(headers, self._config):
            return await _answered(request, CrossSiteRequest("A sign-in form was posted from another site."))
        if (
            request.method == "GET"
            and self._config.one_time_token == "confirm"
            and ONE_TIME_TOKEN in request.query_params
        ):
            return confirm_one_time_token(self._config, name, dict(request.query_params), await _issuer_origins(visit))
        tries = visit.runtime.tries.count(headers)
        if tries >= _MOST_TRIES and visit.ask() is None and _RETRY_MARKER not in request.query_params:
            return keeps_coming_back(self._config, name, {**dict(request.query_params), _RETRY_MARKER: "1"})
        if visit.ask() is None or asked_max_age(request.query_params) is not None:
            return None
        sent_from = page_of_requires(request, self._config)
        return lacks_permission(self._config, sent_from) if sent_from else None

    async def _signed_in(self, visit: Visit, old: Session | None, new: Session) -> None:
        visit.become(new)
        if old is not None:
            await visit.runtime.flows.replace(old, new)

    def _visit(self, request: Request, name: str) -> Visit:
        """Return the visit of this request. Raise `SetupError` where middleware and routes do not fit together."""
        _, visit = visitor(request.scope)
        install(request.scope)
        if not same_app(visit.config, self._config):
            raise SetupError(
                "LogtoMiddleware and the auth routes were given different configurations. Make one LogtoConfig and "
                "pass it to both: app.add_middleware(LogtoMiddleware, config=config), auth_router(config)."
            )
        expected, served = (
            f"{self._config.base_path}{self._config.auth_path}/{name}",
            served_path(request.scope, self._config),
        )
        if served != expected:
            raise misplaced_routes(served, self._config)
        return visit

    def _home(self) -> Response:
        return redirect(self._config.url(self._config.post_sign_in_path), 303)

    def _landing(self) -> str:
        return self._config.url(self._config.post_sign_out_path)

    def _to_own_host(self, request: Request, name: str) -> Response:
        if not self._warned_of_host:
            self._warned_of_host = True
            logger.warning(
                "sign-in was opened under another host than base_url's, %s, and goes on there; said once",
                self._config.origin,
            )
        query = [*request.query_params.multi_items(), (HOST_MARKER, "1")]
        return redirect(f"{self._config.auth_url(name)}?{urlencode(query)}", 302)


def _log_failure(error: LogtoError) -> None:
    level = logging.INFO if isinstance(error, SignInCancelled | AttemptNotFound) else logging.WARNING
    why = getattr(error, "check", None) or getattr(error, "error", None)
    logger.log(level, "sign-in not finished: %s%s", error.code, f" ({why})" if why else "")


def _nothing() -> Response:
    return Response(status_code=204, headers={"Cache-Control": "no-store"})


def _add_cookies(response: Response, cookies: Sequence[str]) -> None:
    for cookie in cookies:
        response.raw_headers.append((b"set-cookie", cookie.encode("latin-1")))


async def _issuer_origins(visit: Visit) -> tuple[str, ...]:
    """Return where a form may lead: Chrome holds redirects after a form against the page's `form-action`."""
    try:
        metadata = await visit.runtime.client().metadata()
    except HTTPError:
        return ()
    return (origin_of_url(metadata.authorization_endpoint),)


async def _answered(request: Request, error: HTTPError) -> Response:
    return cast("Response", await answer(request, error))

"""What one request may ask of a sign-in: an allow-list of the query over the configuration's options. No response."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.requests import HTTPConnection

from logto_asgi.models import FirstScreen, Identifier, SignInOptions

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig

__all__ = ["ONE_TIME_TOKEN", "asked_max_age", "options_of_request"]

ONE_TIME_TOKEN = "one_time_token"

_SHAPES = {
    "first_screen": re.compile("|".join(re.escape(screen) for screen in FirstScreen)),
    "direct_sign_in": re.compile(r"(social|sso):[A-Za-z0-9._-]{1,128}"),
    "login_hint": re.compile(r"[^\x00-\x1f\x7f-\x9f]{1,256}"),
    "ui_locales": re.compile(r"[A-Za-z0-9-]{1,35}( [A-Za-z0-9-]{1,35}){0,9}"),
    ONE_TIME_TOKEN: re.compile(r"[A-Za-z0-9._~-]{1,512}"),
}
"""What the query may say, and in which shape. Everything else of it is ignored and never reaches the issuer."""

_MAX_AGE = re.compile(r"[0-9]{1,5}")
_OLDEST = 86_400
"""Seconds; a wish for a sign-in of at most this age is heard, a larger number is no wish for a new one."""


def asked_max_age(source: Mapping[str, str]) -> int | None:
    """Return the `max_age` of a query or form: whole seconds, 0 to 86,400; None for anything else."""
    text = source.get("max_age", "")
    return int(text) if _MAX_AGE.fullmatch(text) and int(text) <= _OLDEST else None


def options_of_request(
    request: HTTPConnection, config: LogtoConfig, *, sign_up: bool, form: Mapping[str, str]
) -> SignInOptions:
    """Return the options of one sign-in: the configuration's, then sign-up's first screen, then the request's.

    A value of another shape is ignored: a stale link should still lead to sign-in. A `max_age` can only be stricter
    than the configured one. A one-time token counts only where the configuration allows it: from a confirmed form, or
    from the link itself under the unsafe setting.
    """
    configured = config.sign_in_options
    options = configured(request) if callable(configured) else configured or SignInOptions()
    if sign_up:
        options = replace(options, first_screen=FirstScreen.REGISTER)
    ages = (options.max_age, asked_max_age(request.query_params), asked_max_age(form))
    max_age = min((age for age in ages if age is not None), default=None)
    return replace(options, max_age=max_age, **_asked(request.query_params, form, config))


def _asked(query: Mapping[str, str], form: Mapping[str, str], config: LogtoConfig) -> dict[str, Any]:
    source = {**query, **form} if form else dict(query)
    asked: dict[str, Any] = {
        name: source[name] for name, shape in _SHAPES.items() if name in source and shape.fullmatch(source[name])
    }
    allowed = {"off": False, "confirm": bool(form), "dangerously_start_at_once": True}[config.one_time_token]
    if not allowed or "login_hint" not in asked:
        asked.pop(ONE_TIME_TOKEN, None)
    words = dict.fromkeys(re.split(r"[ ,]+", source.get("identifiers", "")))
    identifiers = tuple(word for word in words if word in tuple(Identifier))
    return {**asked, "identifiers": identifiers} if identifiers else asked

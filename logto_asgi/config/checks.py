"""Check a whole configuration: names, values, and whether the valid ones fit together. It reads nothing itself."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from logto_asgi.config.environment import Environment
from logto_asgi.config.faults import Faults, closest, shown
from logto_asgi.config.fields import REQUIRED, settings, variable
from logto_asgi.config.urls import origin_of
from logto_asgi.config.values import parse_value
from logto_asgi.errors import ConfigurationError
from logto_asgi.models import ReservedScope, UserScope

__all__ = ["check"]

Values = Mapping[str, Any]

_OTHER_NAMES = {
    "app_base_url": "base_url",
    "auth_routes_prefix": "auth_path",
    "client_id": "app_id",
    "client_secret": "app_secret",
    "organization": "organization_id",
    "scope": "scopes",
    "secret": "cookie_secret",
    "secret_key": "cookie_secret",
    "session_secret": "cookie_secret",
}
"""What the same thing is called elsewhere, so that the suggestion is right where the spelling is far off."""

_STANDARD_SCOPES = {"openid", "offline_access", "profile", "email", "phone", "address"}
_LOGTO_SCOPES = {str(scope) for scope in (*ReservedScope, *UserScope)}
_SHORT_NAMES = {scope.rpartition(":")[2]: scope for scope in _LOGTO_SCOPES}
_LOGTO_PROMPTS = {"none", "login", "consent"}
_PROMPTS = {*_LOGTO_PROMPTS, "select_account", "create"}


def check(arguments: Mapping[str, object], environment: Environment | None, *, signs_in: bool = True) -> dict[str, Any]:
    """Return every setting's value, defaults included. Raise `ConfigurationError` with all that is wrong.

    Arguments win over the environment; an endpoint or issuer in code replaces both of the environment's. Without
    `signs_in`, what only sign-in needs may be absent.
    """
    read = environment or Environment()
    dropped = {"endpoint", "issuer"} if arguments.keys() & {"endpoint", "issuer"} else set()
    texts = {name: text for name, text in read.values.items() if name not in arguments and name not in dropped}
    faults = Faults({name: read.origins[name] for name in texts})
    faults.problems.extend(read.problems)
    _check_names(arguments, faults)
    values = _parse(arguments, texts, faults)
    given = {**arguments, **texts}
    if not signs_in:
        given = {**_SIGN_IN_ONLY, **given}
        values = {**_stand_ins(values), **values}
    _check_presence(given, values, environment, faults)
    _fit_defaults({*arguments, *texts}, values)
    for needs, rule in _RULES:
        if all(name in values for name in needs):
            rule(values, faults)
    if faults.problems:
        raise ConfigurationError(faults.problems)
    return values


def _check_names(arguments: Mapping[str, object], faults: Faults) -> None:
    for name in arguments:
        if name in settings():
            continue
        snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
        guess = _OTHER_NAMES.get(snake) or closest(snake, settings())
        remedy = f"Did you mean {guess}?" if guess else "Remove it; the configuration reference lists those there are."
        faults.add(name, "there is no such argument.", remedy)


def _parse(arguments: Mapping[str, object], texts: Mapping[str, str], faults: Faults) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, setting in settings().items():
        if name in texts:
            faults.attempt(name, partial(parse_value, setting, texts[name], is_text=True), values)
        elif name in arguments:
            faults.attempt(name, partial(parse_value, setting, arguments[name], is_text=False), values)
        elif setting.default is not REQUIRED:
            values[name] = setting.default
    return values


def _check_presence(
    given: Mapping[str, object], values: Values, environment: Environment | None, faults: Faults
) -> None:
    """Name what is missing by its argument and its variable; the latter helps only where the environment is read."""
    if environment is None:
        why = " Variables are not read here, because endpoint or issuer is passed in code."
    else:
        why = " There is no file .env in the directory where the program was started." if environment.lacks_file else ""

    def missing(name: str, also: str = "") -> None:
        faults.add(name, "is missing.", f"Pass {name}=… or set {variable(name)}{also}.{why}")

    if values.get("endpoint", "") is None and values.get("issuer", "") is None:
        missing("endpoint", "; for a provider other than Logto, issuer=… or LOGTO_ISSUER")
    for name, setting in settings().items():
        if setting.default is REQUIRED and name not in given:
            missing(name)


_SIGN_IN_ONLY = dict.fromkeys(("app_id", "base_url", "cookie_secret"))


def _stand_ins(values: Values) -> dict[str, Any]:
    """Return what an API or a job has in place of a browser's address and the secret of its cookies."""
    parts = urlsplit(values.get("api_resource") or "")
    of_a_site = parts.scheme in ("http", "https") and parts.hostname
    return {
        "app_id": "",
        "base_url": origin_of(parts) if of_a_site else "http://localhost",
        "cookie_secret": (SecretStr(secrets.token_urlsafe(32)),),
    }


def _fit_defaults(given: set[str], values: dict[str, Any]) -> None:
    """Shorten lifetimes that nobody chose to fit one that somebody did."""
    if "idle_lifetime" not in given and "absolute_lifetime" in values:
        values["idle_lifetime"] = min(values["idle_lifetime"], values["absolute_lifetime"])
    if "roll_interval" not in given and "idle_lifetime" in values:
        values["roll_interval"] = min(values["roll_interval"], values["idle_lifetime"] // 2)


def _is_logto(values: Values) -> bool:
    """An endpoint that is wrong in itself still says whose scopes and prompts to expect."""
    return values.get("endpoint", "") is not None


def _check_scopes(values: Values, faults: Faults) -> None:
    for scope in values["scopes"]:
        guess = _meant_scope(scope, is_logto=_is_logto(values))
        if guess is not None:
            faults.add("scopes", f"{shown(scope)} is not a scope.", f"Did you mean {guess!r}?")
    if not values.get("include_reserved_scopes", True) and "openid" not in values["scopes"]:
        faults.add("scopes", "lacks 'openid', without which nobody can sign in.", "Add it, or include_reserved_scopes.")


def _meant_scope(scope: str, *, is_logto: bool) -> str | None:
    """Return the known scope that this one is a slip of. Permissions of an API, such as `read:items`, are none."""
    known = _LOGTO_SCOPES if is_logto else _STANDARD_SCOPES
    if scope in known:
        return None
    if is_logto and scope.startswith("urn:logto:"):
        return closest(scope, (name for name in known if name.startswith("urn:")), cutoff=0)
    if re.search(r"[:/.]", scope):
        return None
    names = {short: full for short, full in _SHORT_NAMES.items() if full in known}
    plain = scope.lower().replace("-", "_")
    swapped = [name for name in names if sorted(name) == sorted(plain)]
    guess = swapped[0] if swapped else closest(plain, names, cutoff=0.85)
    return None if guess is None else names[guess]


def _check_prompt(values: Values, faults: Faults) -> None:
    words = (values["prompt"] or "").split()
    known = _LOGTO_PROMPTS if _is_logto(values) else _PROMPTS
    for word in words:
        if word not in known:
            faults.add("prompt", f"{shown(word)} is not one of its values.", f"Choose from {', '.join(sorted(known))}.")
    if "none" in words and len(words) > 1:
        faults.add("prompt", "has 'none' with others.", "'none' stands alone (OpenID Connect Core §3.1.2.1).")


def _check_secrets(values: Values, faults: Faults) -> None:
    if values["app_secret"] in values["cookie_secret"]:
        faults.add("cookie_secret", "is the app_secret.", "Give it a value of its own: the issuer knows the other one.")


def _check_authentication(values: Values, faults: Faults) -> None:
    method, secret = values["token_endpoint_auth_method"], values["app_secret"]
    if secret is not None and not values["app_id"]:
        faults.add("app_id", "is missing, but there is an app_secret.", "Pass app_id=… too, or leave both out.")
    if method == "none" and secret is not None:
        faults.add("token_endpoint_auth_method", "is 'none', but there is an app_secret.", "Leave one of them out.")
    if method not in (None, "none") and secret is None:
        faults.add("token_endpoint_auth_method", f"is {method!r}, but app_secret is missing.", "Pass app_secret=… too.")


def _check_lifetimes(values: Values, faults: Faults) -> None:
    idle, absolute = values["idle_lifetime"], values["absolute_lifetime"]
    if idle > absolute:
        remedy = f"Choose one of at most {absolute} seconds, or a longer absolute_lifetime."
        faults.add("idle_lifetime", "is longer than absolute_lifetime.", remedy)


def _check_rolling(values: Values, faults: Faults) -> None:
    if values["roll_interval"] >= values["idle_lifetime"]:
        remedy = f"Choose one below {values['idle_lifetime']} seconds, such as a tenth."
        faults.add("roll_interval", "is not shorter than idle_lifetime, so sessions in use would end.", remedy)


def _check_resource(values: Values, faults: Faults) -> None:
    if values["resource"] is not None and values["resource"] not in values["resources"]:
        faults.add("resource", f"{shown(values['resource'])} is not in resources.", "Add it there: sign-in asks those.")


def _check_base_url(values: Values, faults: Faults) -> None:
    path = "/" + values["base_url"].partition("://")[2].partition("/")[2]
    last = path.rpartition("/")[2]
    if path.endswith(values["auth_path"]) or last in ("callback", "sign-in", "sign-up", "sign-in-callback", "sign-out"):
        faults.add(
            "base_url",
            f"{shown(values['base_url'])} goes too far: the routes below {values['auth_path']} are added to it.",
            "Keep the address of the app's home page.",
        )


def _check_landing(name: str, values: Values, faults: Faults) -> None:
    if f"{values[name]}/".startswith(values["auth_path"] + "/"):
        faults.add(name, f"{shown(values[name])} is a sign-in or sign-out route itself.", "Name a page of the app.")


def _check_organizations(values: Values, faults: Faults) -> None:
    for name in ("organization_id", "get_organization_token"):
        if values[name] and not _is_logto(values) and values.get("issuer", "") is not None:
            faults.add(name, "is for Logto only.", "Pass endpoint=… instead of issuer=…, or leave this out.")


_RULES: tuple[tuple[tuple[str, ...], Callable[[Values, Faults], None]], ...] = (
    (("scopes",), _check_scopes),
    (("prompt",), _check_prompt),
    (("app_secret", "cookie_secret"), _check_secrets),
    (("token_endpoint_auth_method", "app_id", "app_secret"), _check_authentication),
    (("idle_lifetime", "absolute_lifetime"), _check_lifetimes),
    (("roll_interval", "idle_lifetime"), _check_rolling),
    (("resource", "resources"), _check_resource),
    (("base_url", "auth_path"), _check_base_url),
    (("post_sign_in_path", "auth_path"), partial(_check_landing, "post_sign_in_path")),
    (("post_sign_out_path", "auth_path"), partial(_check_landing, "post_sign_out_path")),
    (("organization_id", "get_organization_token"), _check_organizations),
)
"""Each with the settings that it compares; it is left out where one of them is wrong already."""

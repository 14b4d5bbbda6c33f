"""The front channel, as pure functions: what the browser carries to the issuer and what it brings back.

One function builds and one parses for each step. It knows no network, no clock and no cookie.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from logto_asgi.errors import (
    ConfigurationError,
    ConfigurationProblem,
    SignInCancelled,
    SignInRefused,
    VerificationError,
)
from logto_asgi.models import FirstScreen, Identifier, PendingSignIn, Prompt, ReservedScope, SignInOptions
from logto_asgi.oidc.metadata import ProviderMetadata
from logto_asgi.oidc.verification import same_text

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig

__all__ = [
    "build_authorization_url",
    "build_end_session_url",
    "code_challenge",
    "create_code_verifier",
    "option_problems",
    "parse_callback",
    "random_token",
]

_CODE = re.compile(r"[ -~]{1,2048}", re.ASCII)
_ERROR = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_DIRECT_SIGN_IN = re.compile(r"(social|sso):[!-~]{1,128}", re.ASCII)

PROTOCOL_PARAMETERS = frozenset(
    {
        "client_id",
        "client_secret",
        "code_challenge",
        "code_challenge_method",
        "nonce",
        "redirect_uri",
        "registration",
        "request",
        "request_uri",
        "resource",
        "response_mode",
        "response_type",
        "scope",
        "state",
    }
)
"""Parameters that are decided here or in the configuration, never by `extra_params`."""
_OPTION_PARAMETERS = {
    "prompt": "prompt",
    "max_age": "max_age",
    "login_hint": "login_hint",
    "ui_locales": "ui_locales",
    "first_screen": "first_screen",
    "identifier": "identifiers",
    "direct_sign_in": "direct_sign_in",
    "one_time_token": "one_time_token",
}
"""Parameters that have a field of their own in `SignInOptions`."""


def random_token() -> str:
    """Return 256 random bits, safe in a URL: a state, a nonce, an id."""
    return secrets.token_urlsafe(32)


def create_code_verifier() -> str:
    """Return a new code verifier (RFC 7636 §4.1)."""
    return random_token()


def code_challenge(verifier: str) -> str:
    """Return the S256 challenge of a code verifier (RFC 7636 §4.2)."""
    digest = hashlib.sha256(verifier.encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def build_authorization_url(
    metadata: ProviderMetadata, config: LogtoConfig, *, pending: PendingSignIn, options: SignInOptions
) -> str:
    """Return where the browser goes to sign in (Core §3.1.2.1, RFC 7636 §4.3, RFC 8707 §2).

    Parameters that only Logto knows are left out for other issuers. Raise `ConfigurationError` for options that would
    void the request, and `ValueError` when `options.max_age` is not the one of `pending`, which will be verified.
    """
    problems = option_problems(options, is_logto=config.is_logto)
    if problems:
        raise ConfigurationError(problems)
    if options.max_age is not None and options.max_age != pending.max_age:
        raise ValueError("pending.max_age must be options.max_age, or the age of the sign-in would not be verified")
    parameters = [
        ("client_id", config.app_id),
        ("redirect_uri", pending.redirect_uri),
        ("response_type", "code"),
        ("scope", " ".join(config.scopes)),
        ("state", pending.state),
        ("nonce", pending.nonce),
        ("code_challenge", code_challenge(pending.code_verifier)),
        ("code_challenge_method", "S256"),
        *(("resource", resource) for resource in config.resources),
        *_optional_parameters(config, pending, options),
        *options.extra_params.items(),
    ]
    return _with_query(metadata.authorization_endpoint, parameters)


def option_problems(options: SignInOptions, *, is_logto: bool) -> list[ConfigurationProblem]:
    """List what is wrong with the options of one sign-in; empty when they may be sent.

    Logto ignores all of its own parameters when one of them is invalid, and says nothing: so they are checked here.
    """
    problems = [
        ConfigurationProblem(f"sign_in_options.extra_params[{name!r}]", "belongs to the protocol.", _remedy(name))
        for name in sorted(options.extra_params)
        if name in PROTOCOL_PARAMETERS or name in _OPTION_PARAMETERS
    ]
    if is_logto:
        problems += [
            ConfigurationProblem(f"sign_in_options.{field}", "is nothing that Logto knows.", f"Use {choices}.")
            for field, is_right, choices in _logto_options(options)
            if not is_right
        ]
    return problems


def _remedy(name: str) -> str:
    field = _OPTION_PARAMETERS.get(name)
    return f"Use the field {field} of SignInOptions." if field else "Leave it out: the library sets it."


def _logto_options(options: SignInOptions) -> list[tuple[str, bool, str]]:
    direct = options.direct_sign_in
    return [
        ("first_screen", options.first_screen in (None, *FirstScreen), "one of FirstScreen"),
        ("identifiers", all(item in tuple(Identifier) for item in options.identifiers), "members of Identifier"),
        ("direct_sign_in", direct is None or bool(_DIRECT_SIGN_IN.fullmatch(direct)), "social:<target> or sso:<id>"),
        ("prompt", options.prompt is None or _is_logto_prompt(options.prompt), "login, consent or both, or none alone"),
    ]


def _is_logto_prompt(prompt: str) -> bool:
    words = prompt.split()
    return words == ["none"] or (bool(words) and all(word in ("login", "consent") for word in words))


def _optional_parameters(config: LogtoConfig, pending: PendingSignIn, options: SignInOptions) -> list[tuple[str, str]]:
    candidates: list[tuple[str, object]] = [
        ("prompt", _prompt(config, options)),
        ("max_age", pending.max_age),
        ("login_hint", options.login_hint),
        ("ui_locales", options.ui_locales),
    ]
    if config.is_logto:
        candidates += [
            ("first_screen", options.first_screen),
            ("identifier", " ".join(options.identifiers) or None),
            ("direct_sign_in", options.direct_sign_in),
            ("one_time_token", options.one_time_token),
        ]
    return [(name, str(value)) for name, value in candidates if value is not None]


def _prompt(config: LogtoConfig, options: SignInOptions) -> str | None:
    """Return the prompt to send. Logto drops `offline_access`, and says nothing, unless the prompt has `consent`."""
    words = (options.prompt if options.prompt is not None else config.prompt or "").split()
    needs_consent = config.is_logto and ReservedScope.OFFLINE_ACCESS in config.scopes
    if needs_consent and not {Prompt.NONE, Prompt.CONSENT} & set(words):
        words.append(Prompt.CONSENT)
    return " ".join(words) or None


def parse_callback(
    query: Sequence[tuple[str, str]],
    *,
    config: LogtoConfig,
    metadata: ProviderMetadata | None,
    pending: PendingSignIn,
) -> str:
    """Return the authorization code of a call-back that answers `pending` (RFC 6749 §4.1.2, RFC 9207 §2.4).

    Raise `SignInCancelled` for a bare call-back (Logto's, when consent is declined) and for `access_denied`,
    `SignInRefused` for another error of the issuer, `VerificationError` for everything that does not fit. What the
    issuer says counts only after `state` and `iss` do.
    """
    values = dict(query)
    # 1. Nothing of the protocol in it: the visitor turned back.
    if not values.keys() & {"code", "error", "state", "iss"}:
        raise SignInCancelled("The sign-in was cancelled.")
    # 2. Is it an answer, from this issuer, to this attempt?
    _check_unrepeated(query)
    _check_state(values, pending)
    _check_issuer(values, config, metadata)
    # 3. A code or an error, not both.
    if "code" in values and "error" in values:
        raise VerificationError("response", "The issuer answered with a code and an error at once.")
    if "error" in values:
        raise _refusal(values["error"])
    if not _CODE.fullmatch(values.get("code", "")):
        raise VerificationError("code", "The issuer's answer has no acceptable code.")
    return values["code"]


def _check_unrepeated(query: Sequence[tuple[str, str]]) -> None:
    if any(count > 1 for count in Counter(name for name, _ in query).values()):
        raise VerificationError("repeated", "The issuer's answer has a parameter twice.")


def _check_state(values: Mapping[str, str], pending: PendingSignIn) -> None:
    state = values.get("state", "")
    if not state.isascii() or not same_text(state, pending.state):
        raise VerificationError("state", "The answer does not belong to this sign-in.")


def _check_issuer(values: Mapping[str, str], config: LogtoConfig, metadata: ProviderMetadata | None) -> None:
    if "iss" in values:
        if values["iss"] != config.issuer:
            raise VerificationError("iss", "The answer comes from another issuer.")
    elif metadata is not None and metadata.authorization_response_iss_parameter_supported:
        raise VerificationError("iss", "The answer does not say which issuer it comes from; this one always does.")


def _refusal(error: str) -> SignInCancelled | SignInRefused:
    if error == "access_denied":
        return SignInCancelled("The sign-in was cancelled, or the issuer does not let this account use the app.")
    shown = error if _ERROR.fullmatch(error) else "unreadable_error"
    return SignInRefused(shown, f"The issuer refused the sign-in ({shown}).")


def build_end_session_url(
    metadata: ProviderMetadata,
    config: LogtoConfig,
    *,
    post_logout_redirect_uri: str,
    id_token_hint: str | None = None,
    state: str | None = None,
) -> str | None:
    """Return where the browser signs out at the issuer, or None where it offers no such place (RP-Initiated Logout §2).

    Logto gets the app's id only: a hint would put the user's claims into a URL.
    """
    if metadata.end_session_endpoint is None:
        return None
    parameters = [("client_id", config.app_id), ("post_logout_redirect_uri", post_logout_redirect_uri)]
    if id_token_hint is not None and not config.is_logto:
        parameters.append(("id_token_hint", id_token_hint))
    if state is not None:
        parameters.append(("state", state))
    return _with_query(metadata.end_session_endpoint, parameters)


def _with_query(endpoint: str, parameters: Sequence[tuple[str, str]]) -> str:
    separator = "&" if "?" in endpoint else "?"
    return endpoint + separator + urlencode(parameters, quote_via=quote, safe="")

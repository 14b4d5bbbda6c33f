"""The rules for the parameters of an authorization request, in Logto's dialect.

Pure: parameters in, a checked request or a refusal out. It knows no session and no page.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from logto_asgi.testing.clients import Client
from logto_asgi.testing.parameters import Parameters
from logto_asgi.testing.refusals import Refusal
from logto_asgi.testing.storage import AuthorizationRequest

__all__ = ["ORGANIZATION_RESOURCE", "identify_client", "parse_authorization_request"]

ORGANIZATION_RESOURCE = "urn:logto:resource:organizations"

_LOGTO_PARAMETERS = (
    "first_screen",
    "identifier",
    "direct_sign_in",
    "interaction_mode",
    "organization_id",
    "one_time_token",
)
_KNOWN = frozenset(
    {
        *("client_id", "redirect_uri", "response_type", "response_mode", "scope", "state", "nonce", "prompt"),
        *("code_challenge", "code_challenge_method", "max_age", "login_hint", "ui_locales", "id_token_hint"),
        *("display", "acr_values", "google_one_tap_credential", *_LOGTO_PARAMETERS),
    }
)
_PROMPTS = frozenset({"none", "login", "consent"})
_RESPONSE_MODES = frozenset({"query", "fragment", "form_post"})
_FIRST_SCREENS = frozenset(
    {"sign_in", "register", "reset_password", "identifier:sign_in", "identifier:register", "single_sign_on"}
)
_CHALLENGE = re.compile(r"[A-Za-z0-9._~-]{43,128}")


def identify_client(params: Parameters, clients: Mapping[str, Client]) -> tuple[Client, str]:
    """Return the app and its redirect URI, compared as a whole string (RFC 9700 §4.1.3).

    A refusal here must not be sent to the redirect URI, because nobody vouches for it.
    """
    params.refuse_repeated(("client_id", "redirect_uri"))
    client = clients.get(params.get("client_id") or "")
    if client is None:
        raise Refusal("invalid_client", "client is invalid")
    redirect_uri = params.get("redirect_uri")
    if redirect_uri is None:
        raise Refusal("invalid_request", "missing required parameter 'redirect_uri'")
    if redirect_uri not in client.redirect_uris:
        raise Refusal("invalid_redirect_uri", "redirect_uri did not match any of the client's registered redirect_uris")
    return client, redirect_uri


def parse_authorization_request(
    params: Parameters, client: Client, redirect_uri: str, resources: Collection[str]
) -> AuthorizationRequest:
    """Check every other parameter. A refusal goes to the redirect URI (RFC 6749 §4.1.2.1)."""
    params.refuse_repeated(_KNOWN)
    _check_response(params)
    prompts = _prompts(params)
    scopes = set(params.words("scope"))
    if "consent" not in prompts:
        scopes.discard("offline_access")
    # One invalid first_screen voids all of Logto's own parameters.
    screen = params.get("first_screen")
    own = params if screen is None or screen in _FIRST_SCREENS else Parameters()
    return AuthorizationRequest(
        client=client,
        redirect_uri=redirect_uri,
        response_mode=params.get("response_mode") or "query",
        state=params.get("state"),
        nonce=params.get("nonce"),
        scopes=frozenset(scopes),
        resources=_resources(params, resources),
        code_challenge=_code_challenge(params, client),
        prompts=prompts,
        max_age=_max_age(params),
        login_hint=params.get("login_hint"),
        id_token_hint=params.get("id_token_hint"),
        first_screen=own.get("first_screen"),
        one_time_token=own.get("one_time_token"),
    )


def _check_response(params: Parameters) -> None:
    kind = params.get("response_type")
    if kind is None:
        raise Refusal("invalid_request", "missing required parameter 'response_type'")
    if kind != "code":
        raise Refusal("unsupported_response_type", "response_type not allowed for this client")
    if (params.get("response_mode") or "query") not in _RESPONSE_MODES:
        raise Refusal("invalid_request", "unsupported response_mode requested")


def _prompts(params: Parameters) -> frozenset[str]:
    """Return the members of `prompt`; `none` stands alone (OpenID Connect Core §3.1.2.1)."""
    prompts = frozenset(params.words("prompt"))
    if prompts - _PROMPTS:
        raise Refusal("invalid_request", "unsupported prompt value requested")
    if "none" in prompts and len(prompts) > 1:
        raise Refusal("invalid_request", "prompt none must only be used alone")
    return prompts


def _code_challenge(params: Parameters, client: Client) -> str | None:
    """Return the challenge of PKCE: S256 only, and not optional for public apps (RFC 7636 §4.3)."""
    challenge, method = params.get("code_challenge"), params.get("code_challenge_method")
    if challenge is None:
        if method is not None:
            raise Refusal("invalid_request", "code_challenge must be provided with code_challenge_method")
        if client.is_public:
            raise Refusal("invalid_request", "Authorization Server policy requires PKCE to be used for this request")
        return None
    if method != "S256":
        raise Refusal("invalid_request", "not supported value of code_challenge_method")
    if not _CHALLENGE.fullmatch(challenge):
        raise Refusal("invalid_request", "code_challenge must be 43 to 128 unreserved characters")
    return challenge


def _max_age(params: Parameters) -> int | None:
    value = params.get("max_age")
    if value is None:
        return None
    if not value.isascii() or not value.isdigit() or len(value) > 10:
        raise Refusal("invalid_request", "invalid max_age parameter value")
    return int(value)


def _resources(params: Parameters, known: Collection[str]) -> tuple[str, ...]:
    """Return the resource indicators; each must be registered, letter by letter (RFC 8707 §2)."""
    wanted = tuple(dict.fromkeys(params.all("resource")))
    for resource in wanted:
        if resource != ORGANIZATION_RESOURCE and resource not in known:
            raise Refusal("invalid_target", "resource indicator is missing, or unknown")
    return wanted

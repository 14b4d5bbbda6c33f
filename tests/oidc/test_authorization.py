"""What the browser carries to the issuer: to sign in, and to sign out."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from oidc_signing import APP_ID, ISSUER

from logto_asgi.config import LogtoConfig
from logto_asgi.errors import ConfigurationError
from logto_asgi.models import FirstScreen, Identifier, PendingSignIn, SignInOptions
from logto_asgi.oidc.metadata import ProviderMetadata
from logto_asgi.oidc.protocol import (
    build_authorization_url,
    build_end_session_url,
    code_challenge,
    create_code_verifier,
    random_token,
)


def query_of(url: str | None) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(url or "").query, keep_blank_values=True)


def test_code_challenge_is_the_specifications_example() -> None:
    """RFC 7636 Appendix B."""
    assert (
        code_challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk") == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    )


def test_verifiers_and_tokens_are_fresh_and_long() -> None:
    """Each has 256 bits (RFC 7636 §7.1) and the length that RFC 7636 §4.1 asks for."""
    made = {create_code_verifier(), create_code_verifier(), random_token(), random_token()}
    assert len(made) == 4
    assert {len(item) for item in made} == {43}


def test_logto_gets_all_that_was_asked(metadata: ProviderMetadata, config: LogtoConfig, pending: PendingSignIn) -> None:
    """State, nonce, PKCE and our redirect URI are always there, with the configured scopes and a consent prompt."""
    url = build_authorization_url(metadata, config, pending=pending, options=SignInOptions())
    challenge = base64.urlsafe_b64encode(hashlib.sha256(b"v" * 43).digest()).rstrip(b"=").decode()
    assert url.startswith(f"{ISSUER}/auth?")
    assert query_of(url) == [
        ("client_id", APP_ID),
        ("redirect_uri", pending.redirect_uri),
        ("response_type", "code"),
        ("scope", " ".join(config.scopes)),
        ("state", pending.state),
        ("nonce", pending.nonce),
        ("code_challenge", challenge),
        ("code_challenge_method", "S256"),
        ("prompt", "consent"),
    ]
    assert pending.code_verifier not in url


OPTIONS = SignInOptions(
    first_screen=FirstScreen.IDENTIFIER_SIGN_IN,
    identifiers=(Identifier.EMAIL, "phone"),
    direct_sign_in="social:github",
    login_hint="ada+1@example.com",
    prompt="login consent",
    ui_locales="de",
    max_age=300,
    one_time_token="magic & link",
    extra_params={"organization_id": "org 1"},
)


def test_options_reach_logto(metadata: ProviderMetadata, config: LogtoConfig, pending: PendingSignIn) -> None:
    """Every option has its parameter, and `max_age` is the one that will be verified."""
    url = build_authorization_url(metadata, config, pending=replace(pending, max_age=300), options=OPTIONS)
    assert query_of(url)[8:] == [
        ("prompt", "login consent"),
        ("max_age", "300"),
        ("login_hint", "ada+1@example.com"),
        ("ui_locales", "de"),
        ("first_screen", "identifier:sign_in"),
        ("identifier", "email phone"),
        ("direct_sign_in", "social:github"),
        ("one_time_token", "magic & link"),
        ("organization_id", "org 1"),
    ]


def test_other_issuers_get_no_parameter_of_logtos(
    metadata: ProviderMetadata, other_config: LogtoConfig, pending: PendingSignIn
) -> None:
    """Elsewhere Logto's own parameters are left out, and no consent page is asked for."""
    options = replace(OPTIONS, prompt=None)
    url = build_authorization_url(metadata, other_config, pending=replace(pending, max_age=300), options=options)
    names = [name for name, _ in query_of(url)]
    assert names[8:] == ["max_age", "login_hint", "ui_locales", "organization_id"]


def test_each_resource_is_a_parameter_of_its_own(metadata: ProviderMetadata, pending: PendingSignIn) -> None:
    """RFC 8707 §2."""
    config = LogtoConfig(
        endpoint="https://tenant.logto.app",
        app_id=APP_ID,
        base_url="https://shop.example.com",
        cookie_secret="Zk3vQ8yT1mB6xR0sN5wJ9dG2hL7cF4pK-aUeVoXi",
        resources=["https://a.example.com/api", "https://b.example.com/api?x=1"],
    )
    url = build_authorization_url(metadata, config, pending=pending, options=SignInOptions())
    assert [value for name, value in query_of(url) if name == "resource"] == list(config.resources)


def test_a_query_of_the_endpoint_is_kept(
    metadata: ProviderMetadata, config: LogtoConfig, pending: PendingSignIn
) -> None:
    """RFC 6749 §3.1."""
    metadata = replace(metadata, authorization_endpoint=f"{ISSUER}/auth?tenant=eu")
    url = build_authorization_url(metadata, config, pending=pending, options=SignInOptions())
    assert query_of(url)[:2] == [("tenant", "eu"), ("client_id", APP_ID)]


PROTOCOL = [
    "response_type",
    "response_mode",
    "client_id",
    "client_secret",
    "redirect_uri",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
    "request",
    "request_uri",
    "registration",
    "resource",
    "prompt",
    "max_age",
    "login_hint",
    "ui_locales",
    "first_screen",
    "identifier",
    "direct_sign_in",
    "one_time_token",
]


@pytest.mark.parametrize("name", PROTOCOL)
@pytest.mark.parametrize("which", ["config", "other_config"])
def test_extra_parameters_cannot_override(
    name: str, which: str, metadata: ProviderMetadata, pending: PendingSignIn, request: pytest.FixtureRequest
) -> None:
    """A parameter of the protocol, or one that has an option of its own, is no extra parameter."""
    options = SignInOptions(extra_params={name: "x"})
    with pytest.raises(ConfigurationError, match=name):
        build_authorization_url(metadata, request.getfixturevalue(which), pending=pending, options=options)


BAD_OPTIONS: dict[str, dict[str, Any]] = {
    "first_screen": {"first_screen": "signIn"},
    "first_screen-empty": {"first_screen": ""},
    "identifiers": {"identifiers": ("email", "passkey")},
    "direct_sign_in": {"direct_sign_in": "github"},
    "direct_sign_in-empty-target": {"direct_sign_in": "social:"},
    "prompt": {"prompt": "select_account"},
    "prompt-none-with-another": {"prompt": "none consent"},
    "prompt-empty": {"prompt": " "},
}


@pytest.mark.parametrize("options", BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_options_that_logto_would_drop_are_refused(
    options: dict[str, Any], metadata: ProviderMetadata, config: LogtoConfig, pending: PendingSignIn
) -> None:
    """One bad value makes Logto ignore all of its own parameters without a word, so it never leaves."""
    with pytest.raises(ConfigurationError):
        build_authorization_url(metadata, config, pending=pending, options=SignInOptions(**options))


def test_an_age_that_would_not_be_verified_is_refused(
    metadata: ProviderMetadata, config: LogtoConfig, pending: PendingSignIn
) -> None:
    """`max_age` is of use only if the attempt remembers it."""
    with pytest.raises(ValueError, match=r"pending\.max_age"):
        build_authorization_url(metadata, config, pending=pending, options=SignInOptions(max_age=60))


def test_logto_signs_out_by_client_id(metadata: ProviderMetadata, config: LogtoConfig) -> None:
    """An ID token in a URL would show the user's claims to every log on the way."""
    url = build_end_session_url(
        metadata, config, post_logout_redirect_uri="https://shop.example.com/", id_token_hint="raw.id.token", state="s"
    )
    assert query_of(url) == [
        ("client_id", APP_ID),
        ("post_logout_redirect_uri", "https://shop.example.com/"),
        ("state", "s"),
    ]


def test_other_issuers_sign_out_with_the_hint(metadata: ProviderMetadata, other_config: LogtoConfig) -> None:
    """Okta needs it (RP-Initiated Logout §2)."""
    url = build_end_session_url(
        metadata, other_config, post_logout_redirect_uri="https://shop.example.com/", id_token_hint="raw.id.token"
    )
    assert ("id_token_hint", "raw.id.token") in query_of(url)


def test_no_end_session_endpoint(metadata: ProviderMetadata, config: LogtoConfig) -> None:
    """Where the issuer has no such place there is no URL."""
    metadata = replace(metadata, end_session_endpoint=None)
    assert build_end_session_url(metadata, config, post_logout_redirect_uri="https://shop.example.com/") is None

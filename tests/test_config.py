"""The settings: what is accepted and filled in, what is refused and how it is said, and that no secret shows."""

from __future__ import annotations

import copy
import io
import logging
import pickle
import secrets
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from logto_asgi.config import LogtoConfig, configuration_reference, is_loopback
from logto_asgi.config.entropy import is_guessable
from logto_asgi.config.fields import settings
from logto_asgi.errors import ConfigurationError, ConfigurationProblem
from logto_asgi.models import Prompt, SignInOptions, UserScope

SECRET = "Jx0kq9mZr4TnB7vLw2Yc8HsD5fGpXa1eU6iO3tKz"
OTHER_SECRET = "pW3nVd8QyR1uFh6Tz0LkXs9Bm4CgJe7Ai2Oq5MtN"
APP_SECRET = "a7WqL0pZ"
CODE: dict[str, Any] = {
    "endpoint": "https://tenant.logto.app",
    "app_id": "app1",
    "app_secret": APP_SECRET,
    "base_url": "https://app.example.com",
    "cookie_secret": SECRET,
}
ENVIRONMENT = {f"LOGTO_{name.upper()}": value for name, value in CODE.items()}
OTHER_ISSUER = {"endpoint": None, "issuer": "https://id.example.com/oauth2/default"}


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run in a directory without a `.env`, and without variables of ours."""
    for name in settings():
        monkeypatch.delenv(f"LOGTO_{name.upper()}", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def config(**changes: Any) -> LogtoConfig:
    return LogtoConfig(**{**CODE, **changes})


def problems_of(make: Any, *args: Any, **kwargs: Any) -> tuple[ConfigurationProblem, ...]:
    with pytest.raises(ConfigurationError) as caught:
        make(*args, **kwargs)
    return caught.value.problems


def problems(**changes: Any) -> tuple[ConfigurationProblem, ...]:
    return problems_of(config, **changes)


# What is accepted


def test_defaults_are_filled_in() -> None:
    """The attributes hold what is in force, defaults that depend on other settings included."""
    made = config()
    assert made.issuer == "https://tenant.logto.app/oidc"
    assert made.is_logto
    assert made.scopes == ("openid", "offline_access", "profile")
    assert made.resources == ()
    assert made.prompt == "consent"
    assert made.token_endpoint_auth_method == "client_secret_basic"
    assert (made.idle_lifetime, made.absolute_lifetime, made.roll_interval) == (604_800, 2_592_000, 600)
    assert (made.attempt_lifetime, made.refresh_margin, made.clock_leeway, made.http_timeout) == (3600, 60, 60, 10.0)
    assert (made.claims_max_age, made.revalidate_every) == (3600, None)
    assert (made.auth_path, made.post_sign_in_path, made.post_sign_out_path) == ("/logto", "/", "/")
    assert (made.trusted_origins, made.one_time_token, made.verify_on_startup) == ((), "off", False)
    assert [secret.get_secret_value() for secret in made.cookie_secrets] == [SECRET]


def test_another_issuer_gets_nothing_of_logtos() -> None:
    """With an issuer in place of an endpoint no consent prompt is sent, and no organization is asked for."""
    made = config(**OTHER_ISSUER)
    assert (made.endpoint, made.issuer, made.is_logto) == (None, "https://id.example.com/oauth2/default", False)
    assert made.prompt is None


def test_an_issuer_is_kept_to_the_letter() -> None:
    """A slash at the end of an issuer stays, because discovery has to repeat it exactly."""
    assert config(endpoint=None, issuer="https://id.example.com/").issuer == "https://id.example.com/"


def test_an_endpoint_may_end_with_a_slash() -> None:
    """Logto's console shows the endpoint with a slash at its end."""
    assert config(endpoint="https://tenant.logto.app/").issuer == "https://tenant.logto.app/oidc"


def test_a_custom_domain_may_have_an_issuer_of_its_own() -> None:
    """Endpoint and issuer together are Logto under another issuer."""
    made = config(issuer="https://id.example.com/oidc")
    assert (made.is_logto, made.issuer) == (True, "https://id.example.com/oidc")


@pytest.mark.parametrize(
    ("base_url", "origin", "base_path", "secure"),
    [
        ("https://app.example.com", "https://app.example.com", "", True),
        ("https://app.example.com/", "https://app.example.com", "", True),
        ("HTTPS://App.Example.com:443/shop/", "https://app.example.com", "/shop", True),
        ("https://app.example.com:8443/a/b", "https://app.example.com:8443", "/a/b", True),
        ("http://localhost:8000", "http://localhost:8000", "", False),
        ("http://127.8.8.8:80/shop", "http://127.8.8.8", "/shop", False),
        ("http://[::1]:8000", "http://[::1]:8000", "", False),
        ("http://app.localhost", "http://app.localhost", "", False),
    ],
)
def test_a_base_url_is_brought_to_its_plain_form(base_url: str, origin: str, base_path: str, secure: bool) -> None:
    """Origin and base path are as browsers send them."""
    made = config(base_url=base_url)
    assert (made.origin, made.base_path, made.secure) == (origin, base_path, secure)
    assert made.base_url == origin + base_path
    assert made.redirect_uri == f"{origin}{base_path}/logto/sign-in-callback"
    assert made.url("/x?y=1") == f"{origin}{base_path}/x?y=1"
    assert made.auth_url("sign-out") == f"{origin}{base_path}/logto/sign-out"


def test_reserved_scopes_come_first_and_once() -> None:
    """Scopes that are asked for twice are sent once."""
    made = config(scopes=["email", "openid", UserScope.ROLES, "read:items", "email"])
    assert made.scopes == ("openid", "offline_access", "profile", "email", "roles", "read:items")
    assert all(type(scope) is str for scope in made.scopes)


def test_reserved_scopes_can_be_switched_off() -> None:
    """Without offline_access there is no refresh token to ask consent for."""
    made = config(scopes=["openid"], include_reserved_scopes=False)
    assert (made.scopes, made.prompt) == (("openid",), None)


@pytest.mark.parametrize(
    "changes", [{"scopes": [UserScope.ORGANIZATIONS]}, {"get_organization_token": True}, {"organization_id": "org1"}]
)
def test_organization_tokens_bring_scope_and_resource(changes: dict[str, Any]) -> None:
    """Logto answers with an empty organization token when the scope or the resource was not asked for."""
    made = config(resources=["https://api.example.com"], **changes)
    assert "urn:logto:scope:organizations" in made.scopes
    assert made.resources == ("https://api.example.com", "urn:logto:resource:organizations")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (Prompt.LOGIN, "login"),
        ("login consent", "login consent"),
        ([Prompt.LOGIN, "consent"], "login consent"),
        ("none", "none"),
        (None, "consent"),
    ],
)
def test_a_prompt_may_be_one_word_or_several(given: Any, kept: str) -> None:
    """The attribute is what is sent."""
    assert config(prompt=given).prompt == kept


def test_other_issuers_know_other_prompts() -> None:
    """`select_account` is an error at Logto only."""
    assert config(**OTHER_ISSUER, prompt="select_account").prompt == "select_account"


def test_a_public_client_has_no_secret() -> None:
    """Without a secret the client does not authenticate."""
    made = config(app_secret=None)
    assert (made.app_secret, made.token_endpoint_auth_method) == (None, "none")


def test_cookie_secrets_may_be_several() -> None:
    """The first seals, all open; text and SecretStr mix."""
    made = config(cookie_secret=[SECRET, SecretStr(OTHER_SECRET)])
    assert [secret.get_secret_value() for secret in made.cookie_secrets] == [SECRET, OTHER_SECRET]


@pytest.mark.parametrize(
    ("changes", "idle", "roll"),
    [
        ({"idle_lifetime": 100}, 100, 50),
        ({"absolute_lifetime": 1000}, 1000, 500),
        ({"absolute_lifetime": 1000, "idle_lifetime": 1000, "roll_interval": 999}, 1000, 999),
    ],
)
def test_lifetimes_nobody_chose_fit_the_chosen(changes: dict[str, Any], idle: int, roll: int) -> None:
    """Choosing one short lifetime does not force the others to be written out."""
    made = config(**changes)
    assert (made.idle_lifetime, made.roll_interval) == (idle, roll)


@pytest.mark.parametrize("resource", ["https://api.example.com/v1?x=1", "urn:example:api", "api://default"])
def test_resources_are_any_absolute_uri(resource: str) -> None:
    """Resource indicators are kept to the letter, whatever their scheme."""
    assert config(resources=[resource], resource=resource).resources == (resource,)


@pytest.mark.parametrize(
    "scope", ["read:items", "items.read", "profile.x", "https://api.example.com/read", "items", "user", "offline"]
)
def test_permissions_of_an_api_are_no_typos(scope: str) -> None:
    """A scope that resembles none that is known is the app's own."""
    assert scope in config(scopes=[scope]).scopes


@pytest.mark.parametrize("scope", ["roles", "organization", "groups"])
def test_other_issuers_have_scopes_of_their_own(scope: str) -> None:
    """Only the standard scopes are known of an issuer that is no Logto."""
    assert scope in config(**OTHER_ISSUER, scopes=[scope]).scopes


def test_trusted_origins_are_kept_as_browsers_send_them() -> None:
    """Lower case and without a default port, so that they can be compared with `Origin`."""
    made = config(trusted_origins=["https://Admin.Example.com:443/", "http://localhost:3000"])
    assert made.trusted_origins == ("https://admin.example.com", "http://localhost:3000")


def test_sign_in_options_are_a_value_or_a_callable() -> None:
    """A callable is kept as it is, not bound to the configuration."""

    def choose(connection: object) -> SignInOptions:
        return SignInOptions()

    assert config(sign_in_options=choose).sign_in_options is choose
    assert config(sign_in_options=SignInOptions()).sign_in_options == SignInOptions()


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("APP.localhost", True),
        ("127.0.0.1", True),
        ("127.255.0.3", True),
        ("::1", True),
        ("localhost.example.com", False),
        ("notlocalhost", False),
        ("0.0.0.0", False),
        ("192.168.0.1", False),
        ("::2", False),
        ("", False),
        (None, False),
    ],
)
def test_loopback_is_this_computer_only(host: str | None, loopback: bool) -> None:
    """RFC 6761 §6.3 and RFC 1122 §3.2.1.3."""
    assert is_loopback(host) is loopback


# What is refused: setting → value → the words that say why or what to do

REFUSED: list[tuple[str, Any, str]] = [
    ("endpoint", "https://tenant.logto.app/oidc", "before /oidc"),
    ("endpoint", "https://tenant.logto.app/oidc/", "before /oidc"),
    ("endpoint", "https://tenant.logto.app/oidc/auth", "before /oidc"),
    ("endpoint", "https://tenant.logto.app/oidc/.well-known/openid-configuration", "before /oidc"),
    ("endpoint", "tenant.logto.app", "has no scheme"),
    ("endpoint", "ftp://tenant.logto.app", "has no scheme"),
    ("endpoint", "https://", "no valid host"),
    ("endpoint", "https://tenant.logto.app:99999", "no valid host"),
    ("endpoint", "https://tenant.logto.app:0", "no valid host"),
    ("endpoint", "https://[::1", "no valid host"),
    ("endpoint", "https://*.logto.app", "no valid host"),
    ("endpoint", "https://tenänt.logto.app", "outside ASCII"),
    ("endpoint", "https://tenant.logto.app /", "a space"),
    ("endpoint", "https://tenant.logto.app\\x", "a backslash"),
    ("endpoint", "https://user:pass@tenant.logto.app", "user name"),
    ("endpoint", "https://tenant.logto.app?x=1", "query"),
    ("endpoint", "https://tenant.logto.app#x", "fragment"),
    ("endpoint", "http://tenant.logto.app", "not encrypted"),
    ("endpoint", "https://<your-tenant>.logto.app", "placeholder"),
    ("endpoint", "https://{tenant}.logto.app", "placeholder"),
    ("endpoint", "${LOGTO_ENDPOINT}", "placeholder"),
    ("endpoint", 5, "an int, not a string"),
    ("endpoint", " ", "is empty"),
    ("issuer", "https://tenant.logto.app/oidc/.well-known/openid-configuration", "before /.well-known/"),
    ("issuer", "http://id.example.com", "not encrypted"),
    ("issuer", "id.example.com", "has no scheme"),
    ("issuer", "https://{yourOktaDomain}/oauth2/default", "placeholder"),
    ("app_id", "<your-app-id>", "placeholder"),
    ("app_id", "{clientId}", "placeholder"),
    ("app_id", "{{ app_id }}", "placeholder"),
    ("app_id", "${APP_ID}", "placeholder"),
    ("app_id", "$APP_ID", "placeholder"),
    ("app_id", "your-app-id", "placeholder"),
    ("app_id", "[app id]", "placeholder"),
    ("app_id", "xxx", "placeholder"),
    ("app_id", "", "is empty"),
    ("app_id", "two words", "a space"),
    ("app_id", None, "None, not a string"),
    ("app_secret", "<your-app-secret>", "placeholder"),
    ("app_secret", "${APP_SECRET}", "placeholder"),
    ("app_secret", "your-app-secret", "placeholder"),
    ("app_secret", "", "is empty"),
    ("app_secret", SecretStr(""), "is empty"),
    ("app_secret", "abc\n", "control character"),
    ("app_secret", "abc\x00def", "control character"),
    ("app_secret", "abc\udcff", "control character"),
    ("app_secret", b"abc", "not a string"),
    ("base_url", "app.example.com", "has no scheme"),
    ("base_url", "http://app.example.com", "not encrypted"),
    ("base_url", "http://0.0.0.0:8000", "not encrypted"),
    ("base_url", "https://app.example.com?x", "query"),
    ("base_url", "https://app.example.com/#", "fragment"),
    ("base_url", "https://me:pw@app.example.com", "user name"),
    ("base_url", "https://app.example.com/a//b", "path that a proxy"),
    ("base_url", "https://app.example.com/a/../b", "path that a proxy"),
    ("base_url", "https://app.example.com/a%2Fb", "path that a proxy"),
    ("base_url", "https://app.example.com/logto", "goes too far"),
    ("base_url", "https://app.example.com/shop/logto/", "goes too far"),
    ("base_url", "https://app.example.com/logto/sign-in-callback", "goes too far"),
    ("base_url", "https://app.example.com/callback", "goes too far"),
    ("cookie_secret", "short", "secrets.token_urlsafe(32)"),
    ("cookie_secret", "x" * 40, "secrets.token_urlsafe(32)"),
    ("cookie_secret", "changeme" * 5, "secrets.token_urlsafe(32)"),
    ("cookie_secret", [SECRET, "short"], "shorter than 32"),
    ("cookie_secret", [SECRET, SECRET], "the same secret twice"),
    ("cookie_secret", [], "is empty"),
    ("cookie_secret", "", "is empty"),
    ("cookie_secret", None, "not a string"),
    ("cookie_secret", "<a long random text of 32 characters>", "secrets.token_urlsafe(32)"),
    ("cookie_secret", f" {SECRET}", "a space"),
    ("scopes", "openid profile", "is one string"),
    ("scopes", ["openid profile"], "several scopes in one"),
    ("scopes", ['"email"'], "cannot be a scope"),
    ("scopes", [5], "not a string"),
    ("scopes", 5, "not a list of strings"),
    ("scopes", ["offline-access"], "'offline_access'"),
    ("scopes", ["offlineaccess"], "'offline_access'"),
    ("scopes", ["open_id"], "'openid'"),
    ("scopes", ["OpenID"], "'openid'"),
    ("scopes", ["emial"], "'email'"),
    ("scopes", ["profil"], "'profile'"),
    ("scopes", ["organisations"], "'urn:logto:scope:organizations'"),
    ("scopes", ["organizations"], "'urn:logto:scope:organizations'"),
    ("scopes", ["custom-data"], "'custom_data'"),
    ("scopes", ["urn:logto:scope:organisations"], "'urn:logto:scope:organizations'"),
    ("resources", "https://api.example.com", "is one string"),
    ("resources", ["api.example.com"], "not an absolute URI"),
    ("resources", ["/api"], "not an absolute URI"),
    ("resources", ["localhost:3000"], "not an absolute URI"),
    ("resources", ["api.example.com:8080/x"], "not an absolute URI"),
    ("resources", ["myhost:8080"], "not an absolute URI"),
    ("resources", ["https://"], "has no host"),
    ("resources", ["https:/api"], "has no host"),
    ("resources", ["https://api.example.com#x"], "has a fragment"),
    ("resources", ["https://api example.com"], "not an absolute URI"),
    ("resources", ["<your-api>"], "placeholder"),
    ("prompt", "always", "not one of its values"),
    ("prompt", "select_account", "not one of its values"),
    ("prompt", "none consent", "stands alone"),
    ("prompt", [], "is empty"),
    ("prompt", 5, "not a list of strings"),
    ("include_reserved_scopes", "false", "Pass True or False"),
    ("auth_path", "logto", "start of a route"),
    ("auth_path", "/logto/", "start of a route"),
    ("auth_path", "/", "start of a route"),
    ("auth_path", "//logto", "start of a route"),
    ("auth_path", "/lo gto", "start of a route"),
    ("auth_path", "/{tenant}", "start of a route"),
    ("auth_path", "/a/../b", "start of a route"),
    ("auth_path", "/logto?x", "start of a route"),
    ("auth_path", "", "is empty"),
    ("sign_in_options", "login", "neither SignInOptions nor a callable"),
    ("sign_in_options", SignInOptions, "neither SignInOptions nor a callable"),
    ("post_sign_in_path", "home", "not a path of your app"),
    ("post_sign_in_path", "//evil.example", "not a path of your app"),
    ("post_sign_in_path", "/\\evil.example", "not a path of your app"),
    ("post_sign_in_path", "https://evil.example", "not a path of your app"),
    ("post_sign_in_path", "/a\nb", "not a path of your app"),
    ("post_sign_in_path", "/logto/sign-in", "sign-in or sign-out route"),
    ("post_sign_out_path", "bye", "not a path of your app"),
    ("post_sign_out_path", "/logto", "sign-in or sign-out route"),
    ("token_endpoint_auth_method", "private_key_jwt", "not one of its values"),
    ("token_endpoint_auth_method", "none", "there is an app_secret"),
    ("resource", "https://api.example.com", "not in resources"),
    ("resource", 5, "not a string"),
    ("organization_id", "<org id>", "placeholder"),
    ("fetch_user_info", 1, "Pass True or False"),
    ("idle_lifetime", 0, "Choose from 1"),
    ("idle_lifetime", -5, "Choose from 1"),
    ("idle_lifetime", "600", "not a whole number"),
    ("idle_lifetime", 1.5, "not a whole number"),
    ("idle_lifetime", True, "not a whole number"),
    ("idle_lifetime", 3_000_000, "longer than absolute_lifetime"),
    ("absolute_lifetime", 500 * 86_400, "Choose from 1"),
    ("roll_interval", -1, "Choose from 0"),
    ("roll_interval", 604_800, "not shorter than idle_lifetime"),
    ("attempt_lifetime", 0, "Choose from 1"),
    ("attempt_lifetime", 100_000, "Choose from 1"),
    ("refresh_margin", 3600, "Choose from 0"),
    ("claims_max_age", 0, "Choose from 1 to"),
    ("claims_max_age", 401 * 86_400, "Choose from 1 to"),
    ("claims_max_age", 1.5, "not a whole number"),
    ("claims_max_age", None, "not a whole number"),
    ("revalidate_every", 9, "Choose from 10 to"),
    ("revalidate_every", 401 * 86_400, "Choose from 10 to"),
    ("revalidate_every", True, "not a whole number"),
    ("clock_leeway", 601, "Choose from 0"),
    ("http_timeout", 0, "Choose from 0.001"),
    ("http_timeout", float("nan"), "Choose from"),
    ("http_timeout", float("inf"), "Choose from"),
    ("http_timeout", 10**400, "too large"),
    ("http_timeout", None, "not a number"),
    ("trusted_origins", "https://admin.example.com", "is one string"),
    ("trusted_origins", ["*"], "has no scheme"),
    ("trusted_origins", ["null"], "has no scheme"),
    ("trusted_origins", ["http://admin.example.com"], "not encrypted"),
    ("trusted_origins", ["https://admin.example.com/x"], "has a path"),
    ("one_time_token", "on", "dangerously_start_at_once"),
    ("verify_on_startup", "yes", "Pass True or False"),
]


@pytest.mark.parametrize(("field", "value", "words"), REFUSED, ids=lambda value: ascii(value)[:50])
def test_a_mistake_is_named_with_its_remedy(field: str, value: Any, words: str) -> None:
    """One wrong setting is one problem, under the setting's name."""
    found = problems(**{field: value})
    assert [problem.field for problem in found] == [field]
    assert words in str(found[0])
    assert found[0].fault.endswith(".")
    assert found[0].remedy.endswith((".", "?", ")", '"'))


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"app_secret": SECRET}, "cookie_secret", "is the app_secret"),
        (
            {"app_secret": None, "token_endpoint_auth_method": "client_secret_post"},
            "token_endpoint_auth_method",
            "missing",
        ),
        ({"include_reserved_scopes": False}, "scopes", "lacks 'openid'"),
        ({"base_url": "https://app.example.com/a/auth", "auth_path": "/auth"}, "base_url", "goes too far"),
        ({"auth_path": "/auth", "post_sign_out_path": "/auth/sign-in"}, "post_sign_out_path", "route itself"),
        ({"absolute_lifetime": 100, "idle_lifetime": 101}, "idle_lifetime", "longer than absolute_lifetime"),
        ({"idle_lifetime": 60, "roll_interval": 60}, "roll_interval", "not shorter"),
        ({**OTHER_ISSUER, "organization_id": "org1"}, "organization_id", "for Logto only"),
        ({**OTHER_ISSUER, "get_organization_token": True}, "get_organization_token", "for Logto only"),
        ({**OTHER_ISSUER, "prompt": "always"}, "prompt", "select_account"),
        ({**OTHER_ISSUER, "scopes": ["offline-access"]}, "scopes", "'offline_access'"),
        ({"endpoint": None}, "endpoint", "LOGTO_ISSUER"),
    ],
)
def test_settings_that_do_not_fit_are_named(changes: dict[str, Any], field: str, words: str) -> None:
    """Each setting is valid alone, and the two are not together."""
    found = problems(**changes)
    assert [problem.field for problem in found] == [field]
    assert words in str(found[0])


def test_all_mistakes_are_said_at_once() -> None:
    """Single values, lists, names, missing ones and pairs are in one error; pairs only where both are valid."""
    found = problems(
        endpoint="tenant.logto.app",
        base_url="http://app.example.com/logto",
        cookie_secret="short",
        app_secret="short",
        scopes=["offline-access", "emial"],
        idle_lifetime=10,
        absolute_lifetime=5,
        appSecret="x",
    )
    assert sorted(problem.field for problem in found) == [
        "appSecret", "base_url", "cookie_secret", "endpoint", "idle_lifetime", "scopes", "scopes",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("appId", "app_id"),
        ("appid", "app_id"),
        ("endpont", "endpoint"),
        ("baseUrl", "base_url"),
        ("authRoutesPrefix", "auth_path"),
        ("client_secret", "app_secret"),
        ("cookie_secrets", "cookie_secret"),
        ("fetchUserInfo", "fetch_user_info"),
    ],
)
def test_an_unknown_argument_gets_a_suggestion(name: str, suggestion: str) -> None:
    """Names of Logto's other SDKs and misspelt ones lead to ours."""
    (found,) = problems(**{name: "x"})
    assert (found.field, found.remedy) == (name, f"Did you mean {suggestion}?")


def test_an_argument_like_none_gets_no_suggestion() -> None:
    """A guess that is far off would only confuse."""
    assert "Did you mean" not in problems(zzz=1)[0].remedy


def test_what_is_missing_is_said_with_argument_and_variable() -> None:
    """Everything that is required is named at once, as the two ways to give it."""
    found = problems_of(LogtoConfig)
    assert [problem.field for problem in found] == ["endpoint", "app_id", "base_url", "cookie_secret"]
    for problem in found:
        assert f"{problem.field}=…" in problem.remedy
        assert f"LOGTO_{problem.field.upper()}" in problem.remedy
        assert "not read" not in problem.remedy


def test_with_an_endpoint_in_code_the_variables_are_said_not_to_be_read() -> None:
    """Somebody who has set LOGTO_APP_ID learns why it is missing all the same."""
    found = problems_of(LogtoConfig, endpoint="https://tenant.logto.app")
    assert [problem.field for problem in found] == ["app_id", "base_url", "cookie_secret"]
    assert all("Variables are not read here" in problem.remedy for problem in found)


# The environment


def test_the_environment_is_read_without_arguments(environment: pytest.MonkeyPatch) -> None:
    """`LogtoConfig()` is the whole set-up of an app that has its variables."""
    made = LogtoConfig()
    assert (made.issuer, made.app_id, made.base_url) == (
        "https://tenant.logto.app/oidc",
        "app1",
        "https://app.example.com",
    )
    assert made.app_secret == SecretStr(APP_SECRET)


def test_arguments_win_over_the_environment(environment: pytest.MonkeyPatch) -> None:
    """What code says counts, also where it is the default, or `None`."""
    environment.setenv("LOGTO_FETCH_USER_INFO", "true")
    made = LogtoConfig(app_id="app2", app_secret=None, fetch_user_info=False)
    assert (made.app_id, made.app_secret, made.fetch_user_info) == ("app2", None, False)


@pytest.mark.parametrize("name", ["endpoint", "issuer"])
def test_a_config_in_code_reads_nothing(environment: pytest.MonkeyPatch, name: str) -> None:
    """A second issuer must not be sent the first one's secret."""
    made = LogtoConfig(**{name: "https://other.example"}, app_id="b", base_url="http://localhost", cookie_secret=SECRET)
    assert made.app_secret is None


def test_an_endpoint_of_none_does_not_open_the_environment(environment: pytest.MonkeyPatch) -> None:
    """A setting that happens to be unset is no wish for the environment's issuer and secret."""
    found = problems_of(LogtoConfig, endpoint=None, app_id="b", base_url="http://localhost", cookie_secret=SECRET)
    assert [problem.field for problem in found] == ["endpoint"]


def test_from_env_reads_in_any_case(environment: pytest.MonkeyPatch) -> None:
    """An issuer in code replaces the environment's endpoint too, because one of the two must say who it is."""
    made = LogtoConfig.from_env(issuer="https://id.example.com")
    assert (made.issuer, made.is_logto, made.app_secret) == ("https://id.example.com", False, SecretStr(APP_SECRET))


def test_lists_booleans_and_numbers_are_parsed(environment: pytest.MonkeyPatch) -> None:
    """Lists part at commas or spaces."""
    environment.setenv("LOGTO_SCOPES", "email,phone  read:items, ")
    environment.setenv("LOGTO_RESOURCES", "https://a.example, https://b.example")
    environment.setenv("LOGTO_COOKIE_SECRET", f"{SECRET}, {OTHER_SECRET}")
    environment.setenv("LOGTO_PROMPT", "login consent")
    environment.setenv("LOGTO_INCLUDE_RESERVED_SCOPES", "True")
    environment.setenv("LOGTO_FETCH_USER_INFO", "1")
    environment.setenv("LOGTO_GET_ACCESS_TOKEN", "off")
    environment.setenv("LOGTO_IDLE_LIFETIME", "3600")
    environment.setenv("LOGTO_HTTP_TIMEOUT", "2.5")
    made = LogtoConfig()
    assert made.scopes == ("openid", "offline_access", "profile", "email", "phone", "read:items")
    assert made.resources == ("https://a.example", "https://b.example")
    assert [secret.get_secret_value() for secret in made.cookie_secrets] == [SECRET, OTHER_SECRET]
    assert (made.prompt, made.fetch_user_info, made.get_access_token) == ("login consent", True, False)
    assert (made.idle_lifetime, made.http_timeout) == (3600, 2.5)


@pytest.mark.parametrize(("text", "value"), [("10", 10), ("900", 900), ("", None), (" ", None)])
def test_a_setting_that_may_be_absent_is_a_number_or_nothing(
    environment: pytest.MonkeyPatch, text: str, value: int | None
) -> None:
    """`LOGTO_REVALIDATE_EVERY=` leaves sessions unchecked, as its absence and None in code do."""
    assert (LogtoConfig().revalidate_every, config(revalidate_every=None).revalidate_every) == (None, None)
    environment.setenv("LOGTO_REVALIDATE_EVERY", text)
    environment.setenv("LOGTO_CLAIMS_MAX_AGE", "1")
    made = LogtoConfig()
    assert (made.revalidate_every, made.claims_max_age) == (value, 1)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("LOGTO_REVALIDATE_EVERY", "5", "Choose from 10 to"),
        ("LOGTO_REVALIDATE_EVERY", "none", "not a whole number"),
        ("LOGTO_FETCH_USER_INFO", "maybe", "true or false"),
        ("LOGTO_IDLE_LIFETIME", "7d", "not a whole number"),
        ("LOGTO_IDLE_LIFETIME", "1.5", "not a whole number"),
        ("LOGTO_HTTP_TIMEOUT", "nan", "Choose from"),
        ("LOGTO_APP_ID", '"app1"', "in quotes"),
        ("LOGTO_SCOPES", "openid,emial", "'email'"),
        ("LOGTO_COOKIE_SECRET", f"{SECRET} {SECRET}", "the same secret twice"),
        ("LOGTO_APPID", "app1", "Did you mean LOGTO_APP_ID?"),
        ("LOGTO_SIGN_IN_OPTIONS", "login", "in code only"),
    ],
)
def test_a_wrong_variable_is_named(environment: pytest.MonkeyPatch, name: str, text: str, words: str) -> None:
    """The message says which variable the value came from."""
    environment.setenv(name, text)
    (found,) = problems_of(LogtoConfig)
    assert name in str(found)
    assert words in str(found)


def test_an_empty_variable_is_not_set(environment: pytest.MonkeyPatch) -> None:
    """`LOGTO_APP_SECRET=` is how a shell or a compose file leaves something out."""
    environment.setenv("LOGTO_APP_SECRET", "")
    environment.setenv("LOGTO_APP_ID", " ")
    assert [problem.field for problem in problems_of(LogtoConfig)] == ["app_id"]
    assert LogtoConfig(app_id="app1").app_secret is None


def write_env_file(path: Path, **changes: str) -> None:
    lines = {**ENVIRONMENT, **changes}
    path.write_text("".join(f"{name}={value}\n" for name, value in lines.items()), encoding="utf-8")


def test_a_env_file_of_the_whole_app_is_read(tmp_path: Path) -> None:
    """Names that are not ours are somebody else's."""
    write_env_file(tmp_path / ".env", DATABASE_URL="postgres://u:p@h/db", DEBUG="1", APP_ID="x")
    assert LogtoConfig().app_id == "app1"


def test_variables_win_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deployment overrides what a file says."""
    write_env_file(tmp_path / ".env")
    monkeypatch.setenv("LOGTO_APP_ID", "app2")
    assert LogtoConfig().app_id == "app2"


def test_the_file_is_parsed_as_dotenv_files_are(tmp_path: Path) -> None:
    """Quotes, `export`, comments, a byte order mark and lower case are all usual."""
    write_env_file(tmp_path / ".env")
    text = (tmp_path / ".env").read_text().replace("LOGTO_APP_ID=app1", "export logto_app_id='app3'  # mine")
    (tmp_path / ".env").write_text("\ufeff" + text, encoding="utf-8")
    assert LogtoConfig().app_id == "app3"


def test_unknown_names_of_ours_in_the_file_are_named(tmp_path: Path) -> None:
    """A misspelt name says which file it is in."""
    write_env_file(tmp_path / ".env", LOGTO_BASEURL="https://x.example")
    (found,) = problems_of(LogtoConfig)
    assert found.field == "LOGTO_BASEURL"
    assert ".env" in found.fault
    assert "LOGTO_BASE_URL" in found.remedy


def test_the_variable_and_the_file_of_a_wrong_value_are_named(tmp_path: Path) -> None:
    """There may be a dozen places that set a variable."""
    write_env_file(tmp_path / ".env", LOGTO_ENDPOINT="tenant.logto.app")
    (found,) = problems_of(LogtoConfig)
    assert "(LOGTO_ENDPOINT in .env)" in found.fault


def test_from_env_takes_another_file_or_none(tmp_path: Path) -> None:
    """`None` leaves the process's own environment."""
    write_env_file(tmp_path / ".env")
    write_env_file(tmp_path / "prod.env", LOGTO_APP_ID="prod")
    assert LogtoConfig.from_env(tmp_path / "prod.env").app_id == "prod"
    assert "app_id" in [problem.field for problem in problems_of(LogtoConfig.from_env, None)]


def test_a_named_file_has_to_exist(environment: pytest.MonkeyPatch) -> None:
    """Only the usual `.env` may be absent."""
    assert LogtoConfig.from_env().app_id == "app1"
    (found,) = problems_of(LogtoConfig.from_env, "prod.env")
    assert (found.field, "prod.env does not exist" in found.fault) == ("env_file", True)


def test_a_file_in_another_encoding_is_named(tmp_path: Path, environment: pytest.MonkeyPatch) -> None:
    """The decoding error, which would carry the whole file, stays inside."""
    (tmp_path / ".env").write_bytes(f"LOGTO_APP_SECRET={OTHER_SECRET}\xff".encode("latin-1"))
    with pytest.raises(ConfigurationError, match="not UTF-8") as caught:
        LogtoConfig()
    assert OTHER_SECRET not in everything_of(caught.value)


# Secrets


def everything_of(error: BaseException) -> str:
    """Return all text that an exception, those chained to it and their attributes hold."""
    seen: list[str] = []
    link: BaseException | None = error
    while link is not None:
        seen += [str(link), repr(link), repr(link.args), repr(vars(link)), "".join(traceback.format_exception(link))]
        link = link.__cause__ or link.__context__
    return "\n".join(seen)


@pytest.mark.parametrize(
    "changes",
    [
        {"app_secret": "{" + OTHER_SECRET + "}"},
        {"app_secret": OTHER_SECRET + "\n"},
        {"app_secret": (OTHER_SECRET,)},
        {"app_secret": OTHER_SECRET, "cookie_secret": OTHER_SECRET},
        {"cookie_secret": [OTHER_SECRET, OTHER_SECRET]},
        {"cookie_secret": OTHER_SECRET[:31]},
        {"cookie_secret": OTHER_SECRET.encode()},
        {"cookie_secret": {"a": OTHER_SECRET}},
        {"app_secret": SecretStr(OTHER_SECRET), "endpoint": "x"},
        {"app_secrets": OTHER_SECRET},
        {"endpoint": f"https://user:{OTHER_SECRET}@tenant.logto.app"},
        {"endpoint": f"user:{OTHER_SECRET}@tenant.logto.app"},
        {"base_url": f"https://user:a/{OTHER_SECRET}@app.example.com"},
        {"base_url": f"https://app.example.com?key={OTHER_SECRET}"},
        {"resources": [f"https://api.example.com#{OTHER_SECRET}"]},
        {"idle_lifetime": OTHER_SECRET},
        {"app_id": f"{OTHER_SECRET} "},
    ],
)
def test_no_error_shows_a_secret(changes: dict[str, Any]) -> None:
    """Neither the message nor an attribute nor a chained exception holds what was passed."""
    with pytest.raises(ConfigurationError) as caught:
        config(**changes)
    assert OTHER_SECRET[:31] not in everything_of(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_broken_line_of_the_file_shows_no_secret(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A colon for the equals sign makes the value a part of the name."""
    write_env_file(tmp_path / ".env")
    with (tmp_path / ".env").open("a") as file:
        file.write(f"LOGTO_APP_SECRET:{OTHER_SECRET}=\nLOGTO_APP_SECRET: {OTHER_SECRET}\n")
    with caplog.at_level(logging.DEBUG), pytest.raises(ConfigurationError) as caught:
        LogtoConfig()
    assert OTHER_SECRET.upper() not in (everything_of(caught.value) + caplog.text).upper()
    assert "LOGTO_APP_SECRET" in str(caught.value)


def test_no_repr_shows_a_secret() -> None:
    """repr, str, format and the attributes are free of the secrets, which only SecretStr gives out."""
    made = config(cookie_secret=[SECRET, OTHER_SECRET])
    shown = "".join([repr(made), str(made), f"{made}", *(repr(getattr(made, name)) for name in type(made).__slots__)])
    for secret in (APP_SECRET, SECRET, OTHER_SECRET):
        assert secret not in shown
    assert "app1" in repr(made)
    with pytest.raises(TypeError):
        vars(made)


def test_a_config_is_not_pickled() -> None:
    """A pickle would write the secrets down in the clear."""
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dump(config(), io.BytesIO())


def test_a_copy_is_the_same_object() -> None:
    """It is frozen, so there is nothing that a copy would protect."""
    made = config()
    assert copy.copy(made) is made
    assert copy.deepcopy(made) is made


def test_a_config_is_frozen() -> None:
    """Neither assignment nor deletion gets past the check at construction."""
    made = config()
    with pytest.raises(AttributeError, match=r"frozen: pass app_id=… when it is made"):
        made.app_id = "other"
    with pytest.raises(AttributeError, match="frozen"):
        made.something = 1  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="frozen"):
        del made.app_id
    assert made.app_id == "app1"


@pytest.mark.parametrize("make", [secrets.token_urlsafe, secrets.token_hex, lambda size: secrets.token_hex(size // 2)])
def test_random_secrets_are_good_enough(make: Any) -> None:
    """What the usual generators give is never taken for guessable."""
    assert not any(is_guessable(make(32)) for _ in range(200))


@pytest.mark.parametrize(
    "secret",
    [
        "a" * 40,
        "aaaaaaaabbbbbbbbccccccccdddddddd",
        "x7GhQ2mZ" * 5,
        "gyygmysyayasmyggsyyssgggysaagyam",
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        "ZYXWVUTSRQPONMLKJIHGFEDCBA543210",
        "01234567890123456789012345678901",
        "My-Super-SECRET-key-for-the-shop-1",
    ],
)
def test_what_people_make_up_is_guessable(secret: str) -> None:
    """Repetitions, rows and common words have no more entropy for being long."""
    assert is_guessable(secret)


# The reference


def test_the_reference_describes_every_setting() -> None:
    """Name, variable, type, default and a sentence, for the documentation."""
    rows = {row.name: row for row in configuration_reference()}
    assert list(rows) == list(settings())
    assert all(row.type and row.default and row.description.endswith(".") for row in rows.values())
    assert rows["cookie_secret"].variable == "LOGTO_COOKIE_SECRET"
    assert rows["cookie_secret"].default == "required"
    assert rows["sign_in_options"].variable is None
    assert rows["http_timeout"].type == "float (seconds)"
    assert rows["one_time_token"].type == "one of off, confirm, dangerously_start_at_once"


def test_every_setting_is_an_attribute() -> None:
    """`cookie_secret` becomes `cookie_secrets`; the others keep their names, and each is annotated."""
    made = config()
    names = {name for name in settings() if name != "cookie_secret"} | {"cookie_secrets"}
    assert names <= set(LogtoConfig.__annotations__) == set(LogtoConfig.__slots__)
    assert all(hasattr(made, name) for name in LogtoConfig.__slots__)


def test_nothing_that_reads_files_is_imported_for_a_config_in_code() -> None:
    """python-dotenv is imported when there is a file to read, and pydantic-settings, which is slow, never."""
    code = "import sys, logto_asgi.config; print({'dotenv', 'pydantic_settings'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    assert done.stdout.strip() == "set()"


def test_a_missing_file_is_said_where_it_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started from another directory, an app learns that its .env was not there."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="There is no file .env in the directory"):
        LogtoConfig()
    (tmp_path / ".env").write_text("OTHER=1\n")
    with pytest.raises(ConfigurationError) as caught:
        LogtoConfig()
    assert "no file" not in str(caught.value)

"""Requests to the back channel and what each answer means (RFC 6749 §2.3, §5, §6; RFC 7009; Core §5.3)."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import parse_qsl

import pytest
from oidc_signing import APP_ID, SECRET

from logto_asgi.config import LogtoConfig
from logto_asgi.errors import InvalidGrant, IssuerRefused, IssuerResponseInvalid, LogtoError, VerificationError
from logto_asgi.models import PendingSignIn
from logto_asgi.oidc.token_endpoint import (
    build_client_request,
    build_code_request,
    build_refresh_request,
    build_revocation_request,
    build_userinfo_request,
    parse_document,
    parse_revocation_response,
    parse_token_response,
    parse_userinfo_response,
)
from logto_asgi.oidc.transport import Answer

GOOD = {"access_token": "at", "token_type": "Bearer", "expires_in": 3600, "scope": "openid", "refresh_token": "rt"}
TEMPLATE = "{{error_description}} of somebody"


def answer(body: Any, status: int = 200, **headers: str) -> Answer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, data)


def good(**changes: Any) -> Answer:
    return answer({name: value for name, value in (GOOD | changes).items() if value is not ...})


BAD: dict[str, tuple[Answer, str]] = {
    # id: (answer, what the error names)
    "empty": (answer(b""), "token endpoint"),
    "html": (answer(b"<html>"), "token endpoint"),
    "list": (answer([]), "not a JSON object"),
    "a-member-twice": (answer(b'{"access_token":"a","access_token":"b","token_type":"Bearer"}'), "twice"),
    "access_token-absent": (good(access_token=...), "`access_token`"),
    "access_token-null": (good(access_token=None), "`access_token`"),
    "access_token-empty": (good(access_token=""), "`access_token`"),
    "access_token-with-a-line-break": (good(access_token="a\r\nX: y"), "`access_token`"),
    "access_token-non-ascii": (good(access_token="é"), "`access_token`"),
    "access_token-over-16-kib": (good(access_token="x" * 16_385), "`access_token`"),
    "token_type-absent": (good(token_type=...), "`token_type`"),
    "token_type-mac": (good(token_type="mac"), "`token_type`"),
    "token_type-dpop": (good(token_type="DPoP"), "`token_type`"),
    "token_type-a-number": (good(token_type=1), "`token_type`"),
    "expires_in-a-boolean": (good(expires_in=True), "`expires_in`"),
    "expires_in-negative": (good(expires_in=-1), "`expires_in`"),
    "expires_in-negative-string": (good(expires_in="-1"), "`expires_in`"),
    "expires_in-words": (good(expires_in="an hour"), "`expires_in`"),
    "expires_in-endless": (answer(b'{"access_token":"a","token_type":"Bearer","expires_in":1e999}'), "without end"),
    "expires_in-nan": (answer(b'{"access_token":"a","token_type":"Bearer","expires_in":NaN}'), "NaN"),
    "expires_in-a-list": (good(expires_in=[3600]), "`expires_in`"),
    "refresh_token-empty": (good(refresh_token=""), "`refresh_token`"),
    "refresh_token-an-object": (good(refresh_token={}), "`refresh_token`"),
    "id_token-a-number": (good(id_token=7), "`id_token`"),
    "scope-a-list": (good(scope=["openid"]), "`scope`"),
    "scope-with-a-line-break": (good(scope="a\nb"), "`scope`"),
}


@pytest.mark.parametrize(("given", "named"), BAD.values(), ids=BAD)
def test_an_answer_out_of_order_is_refused(given: Answer, named: str) -> None:
    """The error names the field; neither it nor its context holds what the issuer wrote."""
    with pytest.raises(IssuerResponseInvalid) as caught:
        parse_token_response(given)
    assert named in str(caught.value)
    assert caught.value.__context__ is None


FINE: dict[str, tuple[Answer, dict[str, Any]]] = {
    # id: (answer, what comes of it)
    "logto": (good(), {"expires_in": 3600, "scope": "openid", "refresh_token": "rt", "id_token": None}),
    "token_type-in-lower-case": (good(token_type="bearer"), {"access_token": "at"}),
    "expires_in-a-string": (good(expires_in="3600"), {"expires_in": 3600}),
    "expires_in-with-a-fraction": (good(expires_in=3599.5), {"expires_in": 3599}),
    "expires_in-zero": (good(expires_in=0), {"expires_in": 0}),
    "expires_in-absent": (good(expires_in=...), {"expires_in": None}),
    "expires_in-beyond-ten-years": (good(expires_in=10**30), {"expires_in": 315_360_000}),
    "nulls": (good(expires_in=None, scope=None, refresh_token=None, id_token=None), {"refresh_token": None}),
    "scope-empty": (good(scope=""), {"scope": ""}),
    "unknown-members": (good(not_before=0), {"access_token": "at"}),
}


@pytest.mark.parametrize(("given", "expected"), FINE.values(), ids=FINE)
def test_an_answer_in_order_is_read(given: Answer, expected: dict[str, Any]) -> None:
    """What the issuer left out stays out; a life beyond ten years is cut."""
    tokens = parse_token_response(given)
    assert {name: getattr(tokens, name) for name in expected} == expected


def logto_error(error: str) -> dict[str, str]:
    return {
        "code": f"oidc.{error}",
        "message": TEMPLATE,
        "error": error,
        "error_description": TEMPLATE,
        "error_uri": "https://evil.example",
    }


ERRORS: dict[str, tuple[Answer, type[IssuerRefused], str, str]] = {
    # id: (answer, kind, error, what the message says to do)
    "invalid_grant": (answer(logto_error("invalid_grant"), 400), InvalidGrant, "invalid_grant", "Sign in again"),
    "wrong-secret": (answer(logto_error("invalid_client"), 401), IssuerRefused, "invalid_client", "LOGTO_APP_SECRET"),
    "unknown-client": (answer(logto_error("invalid_client"), 400), IssuerRefused, "invalid_client", "LOGTO_APP_ID"),
    "expired-secret": (
        answer(logto_error("invalid_request"), 400),
        IssuerRefused,
        "invalid_request",
        "LOGTO_APP_SECRET",
    ),
    "invalid_target": (answer(logto_error("invalid_target"), 400), IssuerRefused, "invalid_target", "`resources`"),
    "insufficient_scope": (
        answer(logto_error("insufficient_scope"), 403),
        IssuerRefused,
        "insufficient_scope",
        "scope",
    ),
    "access_denied": (answer(logto_error("access_denied"), 403), IssuerRefused, "access_denied", ""),
    "logto's-code-alone": (
        answer({"code": "auth.forbidden", "message": TEMPLATE}, 403),
        IssuerRefused,
        "auth.forbidden",
        "",
    ),
    "error-that-is-no-code": (answer({"error": TEMPLATE}, 400), IssuerRefused, "http_400", ""),
    "error-too-long": (answer({"error": "x" * 65}, 400), IssuerRefused, "http_400", ""),
    "error-a-number": (answer({"error": 7}, 400), IssuerRefused, "http_400", ""),
    "html": (answer(b"<html>" + TEMPLATE.encode(), 404), IssuerRefused, "http_404", ""),
    "challenge": (
        answer(b"", 401, www_authenticate='Bearer realm="x", error="invalid_token"'),
        IssuerRefused,
        "invalid_token",
        "",
    ),
    "created": (answer(GOOD, 201), IssuerRefused, "http_201", ""),
}


@pytest.mark.parametrize(("given", "kind", "error", "remedy"), ERRORS.values(), ids=ERRORS)
def test_an_error_keeps_its_code_and_status_only(
    given: Answer, kind: type[IssuerRefused], error: str, remedy: str
) -> None:
    """What the issuer wrote for people, templates included, is in neither the message nor the context."""
    with pytest.raises(IssuerRefused) as caught:
        parse_token_response(given)
    refused = caught.value
    assert type(refused) is kind
    assert (refused.error, refused.issuer_status) == (error, given.status)
    assert remedy in str(refused)
    assert "of somebody" not in f"{refused} {refused!r} {vars(refused)}"
    assert refused.__context__ is None


USERINFO: dict[str, tuple[Answer, type[LogtoError]]] = {
    # id: (answer, the error)
    "another-sub": (answer({"sub": "user-2"}), VerificationError),
    "sub-absent": (answer({"name": "Ada"}), IssuerResponseInvalid),
    "sub-a-number": (answer({"sub": 1}), IssuerResponseInvalid),
    "sub-null": (answer({"sub": None}), IssuerResponseInvalid),
    "list": (answer([{"sub": "user-1"}]), IssuerResponseInvalid),
    "signed": (answer(b"a.b.c", content_type="application/jwt"), IssuerResponseInvalid),
    "html": (answer(b"<html>"), IssuerResponseInvalid),
    "refused": (answer({"error": "invalid_token"}, 401), IssuerRefused),
    "forbidden": (answer({"error": "insufficient_scope"}, 403), IssuerRefused),
}


@pytest.mark.parametrize(("given", "kind"), USERINFO.values(), ids=USERINFO)
def test_userinfo_is_refused(given: Answer, kind: type[LogtoError]) -> None:
    """Claims about anybody but the user of the ID token are never taken (Core §5.3.2)."""
    with pytest.raises(kind) as caught:
        parse_userinfo_response(given, sub="user-1")
    assert type(caught.value) is kind


def test_userinfo_is_read() -> None:
    """Known claims are typed, unknown ones kept, those of the wrong type dropped."""
    body = {"sub": "user-1", "custom_data": {"plan": "gold"}, "email_verified": "true", "tenant": 7, "name": None}
    info = parse_userinfo_response(answer(body, content_type="application/json; charset=utf-8"), sub="user-1")
    assert (info.custom_data, info.email_verified, info.raw()["tenant"]) == ({"plan": "gold"}, None, 7)


def test_revocation_has_no_body() -> None:
    """RFC 7009 §2.2: 200 means done, for an unknown token too."""
    assert parse_revocation_response(answer(b"")) is None  # type: ignore[func-returns-value]


def test_revocation_is_refused() -> None:
    """Logto does not revoke JWTs."""
    with pytest.raises(IssuerRefused, match="unsupported_token_type"):
        parse_revocation_response(answer(logto_error("unsupported_token_type"), 400))


def test_document_that_is_not_there_names_the_setting() -> None:
    """A wrong endpoint usually answers 404."""
    with pytest.raises(IssuerRefused, match="LOGTO_ENDPOINT"):
        parse_document(answer(b"", 404), "discovery document")


def test_basic_authentication_encodes_first(config: LogtoConfig) -> None:
    """RFC 6749 §2.3.1: id and secret are form-urlencoded, then joined; nothing of them is in the form."""
    request = build_client_request("https://x/token", {"grant_type": "x"}, config)
    scheme, _, encoded = request.headers["Authorization"].partition(" ")
    assert scheme == "Basic"
    assert base64.b64decode(encoded).decode() == f"{APP_ID}:s3cret%3Awith%2Fodd%2Bcharacters%26more-of-them"
    assert request.content == b"grant_type=x"


def test_public_apps_present_no_secret(public_config: LogtoConfig) -> None:
    """The id goes into the form, and no header authenticates."""
    request = build_client_request("https://x/token", {"grant_type": "x"}, public_config)
    assert "Authorization" not in request.headers
    assert parse_qsl((request.content or b"").decode()) == [("grant_type", "x"), ("client_id", APP_ID)]


def test_secret_in_the_form() -> None:
    """`client_secret_post` presents the secret in the form only (RFC 6749 §2.3)."""
    config = LogtoConfig(
        endpoint="https://tenant.logto.app",
        app_id=APP_ID,
        app_secret=SECRET,
        base_url="https://shop.example.com",
        cookie_secret="Zk3vQ8yT1mB6xR0sN5wJ9dG2hL7cF4pK-aUeVoXi",
        token_endpoint_auth_method="client_secret_post",
    )
    request = build_client_request("https://x/token", {}, config)
    assert "Authorization" not in request.headers
    assert parse_qsl((request.content or b"").decode()) == [("client_id", APP_ID), ("client_secret", SECRET)]


def test_forms(pending: PendingSignIn) -> None:
    """Each step has exactly the fields of its specification."""
    assert build_code_request(pending, "c0de") == {
        "grant_type": "authorization_code",
        "code": "c0de",
        "redirect_uri": pending.redirect_uri,
        "code_verifier": pending.code_verifier,
    }
    assert build_refresh_request("rt") == {"grant_type": "refresh_token", "refresh_token": "rt"}
    assert build_refresh_request("rt", resource="r", organization_id="o", scope="s") == {
        "grant_type": "refresh_token",
        "refresh_token": "rt",
        "resource": "r",
        "organization_id": "o",
        "scope": "s",
    }
    assert build_revocation_request("rt") == {"token": "rt"}


@pytest.mark.parametrize("token", ["a\r\nX: y", "é", "a\x00b"])
def test_a_token_that_no_header_can_hold(token: str) -> None:
    """Nothing can smuggle a header into the request, and the error does not repeat the token."""
    with pytest.raises(ValueError, match="printable ASCII") as caught:
        build_userinfo_request("https://x/me", token)
    assert token not in str(caught.value)


def test_nothing_secret_in_a_repr(config: LogtoConfig, pending: PendingSignIn) -> None:
    """Requests, answers and tokens can be logged by accident."""
    request = build_client_request("https://x/token", build_refresh_request("rt-secret"), config)
    given = good(access_token="at-secret", refresh_token="rt-secret", id_token="id-secret")
    shown = (
        f"{request!r} {given!r} {parse_token_response(given)!r} {build_userinfo_request('https://x', 'at-secret')!r}"
    )
    assert not [secret for secret in ("secret", "Basic", "Bearer", SECRET) if secret in shown.replace("SecretStr", "")]

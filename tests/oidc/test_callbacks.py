"""What a call-back may say, one line each (RFC 6749 §4.1.2, RFC 9207 §2.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from oidc_signing import ISSUER

from logto_asgi.config import LogtoConfig
from logto_asgi.errors import LogtoError, SignInCancelled, SignInRefused, VerificationError
from logto_asgi.models import PendingSignIn
from logto_asgi.oidc.metadata import ProviderMetadata
from logto_asgi.oidc.protocol import parse_callback

STATE, ISS, CODE = ("state", "state-of-this-browser"), ("iss", ISSUER), ("code", "c0de")
SCRIPT = "<script>alert(1)</script>"

# id: (query, the error, its check or its error code)
REFUSED: dict[str, tuple[Sequence[tuple[str, str]], type[LogtoError], str | None]] = {
    "bare": ([], SignInCancelled, None),
    "bare-but-for-a-stranger's-parameter": ([("utm_source", "mail")], SignInCancelled, None),
    "access-denied": ([("error", "access_denied"), STATE, ISS], SignInCancelled, None),
    "state-absent": ([CODE, ISS], VerificationError, "state"),
    "state-empty": ([CODE, ("state", ""), ISS], VerificationError, "state"),
    "state-another": ([CODE, ("state", "of-another-browser"), ISS], VerificationError, "state"),
    "state-non-ascii": ([CODE, ("state", "é"), ISS], VerificationError, "state"),
    "state-half-a-surrogate": ([CODE, ("state", "\ud800"), ISS], VerificationError, "state"),
    "state-another-with-an-error": ([("error", "server_error"), ("state", "x"), ISS], VerificationError, "state"),
    "iss-another": ([CODE, STATE, ("iss", "https://evil.example")], VerificationError, "iss"),
    "iss-empty": ([CODE, STATE, ("iss", "")], VerificationError, "iss"),
    "iss-another-with-an-error": ([("error", "server_error"), STATE, ("iss", "x")], VerificationError, "iss"),
    "iss-absent-though-promised": ([CODE, STATE], VerificationError, "iss"),
    "iss-absent-with-an-error": ([("error", "server_error"), STATE], VerificationError, "iss"),
    "code-twice": ([CODE, CODE, STATE, ISS], VerificationError, "repeated"),
    "state-twice": ([CODE, STATE, STATE, ISS], VerificationError, "repeated"),
    "iss-twice": ([CODE, STATE, ISS, ISS], VerificationError, "repeated"),
    "anything-twice": ([CODE, STATE, ISS, ("x", "1"), ("x", "2")], VerificationError, "repeated"),
    "code-and-error": ([CODE, ("error", "server_error"), STATE, ISS], VerificationError, "response"),
    "neither-code-nor-error": ([STATE, ISS], VerificationError, "code"),
    "code-empty": ([("code", ""), STATE, ISS], VerificationError, "code"),
    "code-with-a-line-break": ([("code", "a\r\nb"), STATE, ISS], VerificationError, "code"),
    "code-over-2-kib": ([("code", "x" * 2049), STATE, ISS], VerificationError, "code"),
    "error-of-the-issuer": ([("error", "login_required"), STATE, ISS], SignInRefused, "login_required"),
    "error-with-a-description": (
        [("error", "server_error"), ("error_description", SCRIPT), STATE, ISS],
        SignInRefused,
        "server_error",
    ),
    "error-that-is-no-code": ([("error", SCRIPT), STATE, ISS], SignInRefused, "unreadable_error"),
    "error-empty": ([("error", ""), STATE, ISS], SignInRefused, "unreadable_error"),
}


@pytest.mark.parametrize(("query", "kind", "detail"), REFUSED.values(), ids=REFUSED)
def test_refused(
    query: Sequence[tuple[str, str]],
    kind: type[LogtoError],
    detail: str | None,
    config: LogtoConfig,
    metadata: ProviderMetadata,
    pending: PendingSignIn,
) -> None:
    """A call-back like this one brings no code, and its error repeats nothing that the query said at length."""
    with pytest.raises(kind) as caught:
        parse_callback(query, config=config, metadata=metadata, pending=pending)
    assert type(caught.value) is kind
    assert getattr(caught.value, "check", getattr(caught.value, "error", None)) == detail
    assert SCRIPT not in str(caught.value)


ACCEPTED: dict[str, tuple[Sequence[tuple[str, str]], bool]] = {
    # id: (query, does the issuer promise `iss`)
    "logto": ([CODE, STATE, ISS], True),
    "unknown-parameter": ([CODE, STATE, ISS, ("session_state", "x")], True),
    "iss-though-not-promised": ([CODE, STATE, ISS], False),
    "iss-absent-and-not-promised": ([CODE, STATE], False),
}


@pytest.mark.parametrize(("query", "promised"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(
    query: Sequence[tuple[str, str]],
    promised: bool,
    config: LogtoConfig,
    metadata: ProviderMetadata,
    pending: PendingSignIn,
) -> None:
    """A call-back like this one brings its code."""
    metadata = replace(metadata, authorization_response_iss_parameter_supported=promised)
    assert parse_callback(query, config=config, metadata=metadata, pending=pending) == "c0de"


def test_without_metadata_a_wrong_iss_is_still_refused(config: LogtoConfig, pending: PendingSignIn) -> None:
    """What is present is compared, whatever is known of the issuer."""
    wrong: Any = [CODE, STATE, ("iss", "https://evil.example")]
    with pytest.raises(VerificationError):
        parse_callback(wrong, config=config, metadata=None, pending=pending)
    assert parse_callback([CODE, STATE], config=config, metadata=None, pending=pending) == "c0de"

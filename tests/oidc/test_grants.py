"""Client credentials and token exchange on the wire: what is sent, what is accepted, what is sent again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest
from oidc_signing import NOW, discovery_document

from logto_asgi.config import LogtoConfig
from logto_asgi.errors import InvalidGrant, IssuerRefused, IssuerResponseInvalid, IssuerUnavailable
from logto_asgi.models import SubjectTokenType
from logto_asgi.oidc.client import OidcClient
from logto_asgi.oidc.client_grants import (
    build_client_credentials_request,
    build_exchange_request,
    parse_exchange_response,
)
from logto_asgi.oidc.transport import Answer

TARGET = {"resource": "https://api.example.com", "organization_id": "harbour", "scope": "read write"}
ACCESS_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"


class TokenEndpoint:
    """The issuer at the network's edge: keeps the forms, and answers what a test has queued."""

    def __init__(self) -> None:
        self.forms: list[dict[str, str]] = []
        self.answers: list[httpx.Response] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("openid-configuration"):
            return httpx.Response(200, json=discovery_document())
        self.forms.append(dict(parse_qsl(request.content.decode())))
        return self.answers.pop(0)


@pytest.fixture
def endpoint() -> TokenEndpoint:
    """Return an issuer with nothing to answer yet."""
    return TokenEndpoint()


@pytest.fixture
async def client(endpoint: TokenEndpoint, config: LogtoConfig) -> AsyncIterator[OidcClient]:
    """Return the library's client of that issuer, which does not sleep before a second try."""

    async def no_time(_: float) -> None:
        pass

    async with httpx.AsyncClient(transport=httpx.MockTransport(endpoint)) as http_client:
        yield OidcClient(config, http_client=http_client, clock=lambda: NOW, sleep=no_time)


def tokens(**changes: Any) -> httpx.Response:
    return httpx.Response(200, json={"access_token": "at", "token_type": "Bearer", "expires_in": 3600, **changes})


def refused(error: str, status: int = 400) -> httpx.Response:
    return httpx.Response(status, json={"error": error, "error_description": "of the issuer"})


def test_client_credentials_form() -> None:
    """The grant and what is asked for, nothing else (RFC 6749 §4.4.2, RFC 8707 §2.2)."""
    assert build_client_credentials_request() == {"grant_type": "client_credentials"}
    assert build_client_credentials_request(**TARGET) == {"grant_type": "client_credentials", **TARGET}


def test_exchange_form() -> None:
    """The subject's token with its type, and the actor's only with a type of its own (RFC 8693 §2.1)."""
    plain = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": "pat",
        "subject_token_type": "urn:logto:token-type:personal_access_token",
    }
    assert build_exchange_request("pat", SubjectTokenType.PERSONAL_ACCESS_TOKEN) == plain
    full = build_exchange_request("pat", SubjectTokenType.PERSONAL_ACCESS_TOKEN, actor_token="of-bob", **TARGET)
    assert full == {**plain, **TARGET, "actor_token": "of-bob", "actor_token_type": ACCESS_TOKEN_TYPE}


@pytest.mark.parametrize("issued", [None, ACCESS_TOKEN_TYPE, "urn:ietf:params:oauth:token-type:jwt"])
def test_an_exchange_brings_an_access_token_only(issued: str | None) -> None:
    """What else came is dropped: a refresh token of an exchange would be renewed by nobody (RFC 8693 §2.2.1)."""
    body = {"access_token": "at", "token_type": "Bearer", "refresh_token": "rt", "id_token": "it"}
    body |= {"issued_token_type": issued} if issued else {}
    given = parse_exchange_response(Answer(200, {}, json.dumps(body).encode()))
    assert (given.access_token, given.refresh_token, given.id_token) == ("at", None, None)


@pytest.mark.parametrize("issued", ["urn:ietf:params:oauth:token-type:refresh_token", "", 7, []])
def test_an_exchange_for_something_else_is_refused(issued: Any) -> None:
    """A refresh or ID token is not sent to an API, however the issuer came to issue it (RFC 8693 §2.2.1)."""
    body = {"access_token": "rt-secret", "token_type": "Bearer", "issued_token_type": issued}
    with pytest.raises(IssuerResponseInvalid, match="no access token") as caught:
        parse_exchange_response(Answer(200, {}, json.dumps(body).encode()))
    assert "rt-secret" not in f"{caught.value!r} {caught.value.__context__!r}"


def test_an_exchanged_token_that_is_not_a_bearer_token_is_refused() -> None:
    """`N_A` means that the token is no access token (RFC 8693 §2.2.1)."""
    with pytest.raises(IssuerResponseInvalid, match="token_type"):
        parse_exchange_response(Answer(200, {}, b'{"access_token":"x","token_type":"N_A"}'))


async def test_the_client_authenticates(client: OidcClient, endpoint: TokenEndpoint) -> None:
    """Both grants go to the token endpoint with the app's authentication, and the answer is read."""
    endpoint.answers = [tokens(scope="read"), tokens(issued_token_type=ACCESS_TOKEN_TYPE)]
    own = await client.client_credentials(resource="https://api.example.com", scope="read")
    other = await client.exchange_token("st", SubjectTokenType.ACCESS_TOKEN, organization_id="harbour")
    assert ((own.access_token, own.scope, own.expires_in), other.access_token) == (("at", "read", 3600), "at")
    assert [form["grant_type"] for form in endpoint.forms] == [
        "client_credentials",
        "urn:ietf:params:oauth:grant-type:token-exchange",
    ]


async def test_sent_again_where_it_was_surely_not_processed(client: OidcClient, endpoint: TokenEndpoint) -> None:
    """A 503 with a number of seconds turned the request away; an impersonation token is still good."""
    endpoint.answers = [httpx.Response(503, headers={"Retry-After": "1"}), tokens()]
    await client.exchange_token("st", SubjectTokenType.IMPERSONATION_TOKEN)
    endpoint.answers = [httpx.Response(503, headers={"Retry-After": "1"}), tokens()]
    await client.client_credentials(resource="https://api.example.com")
    assert len(endpoint.forms) == 4


async def test_not_sent_again_where_it_may_have_been_processed(client: OidcClient, endpoint: TokenEndpoint) -> None:
    """An answer may have been lost, and with it the only use of an impersonation token."""
    endpoint.answers = [httpx.Response(502), tokens()]
    with pytest.raises(IssuerUnavailable):
        await client.exchange_token("st", SubjectTokenType.IMPERSONATION_TOKEN)
    assert len(endpoint.forms) == 1


async def test_refusals_keep_their_code(client: OidcClient, endpoint: TokenEndpoint) -> None:
    """The issuer's code is told, its text is not."""
    endpoint.answers = [refused("invalid_grant"), refused("invalid_client", 401)]
    with pytest.raises(InvalidGrant):
        await client.exchange_token("spent", SubjectTokenType.IMPERSONATION_TOKEN)
    with pytest.raises(IssuerRefused) as caught:
        await client.client_credentials(resource="https://api.example.com")
    assert (caught.value.error, "of the issuer" in str(caught.value)) == ("invalid_client", False)

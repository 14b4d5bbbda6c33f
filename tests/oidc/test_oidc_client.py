"""The client against an issuer that is a function: how often it fetches, what outlives an outage, what is checked."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from oidc_signing import ABSENT, ACCESS_TOKEN, ENDPOINT, ISSUER, NOW, claims, discovery_document, sign

from logto_asgi.claims import IdTokenClaims
from logto_asgi.config import LogtoConfig
from logto_asgi.errors import (
    InvalidGrant,
    IssuerRefused,
    IssuerResponseInvalid,
    IssuerUnavailable,
    VerificationError,
)
from logto_asgi.models import PendingSignIn, TokenSet
from logto_asgi.oidc.client import OidcClient
from logto_asgi.oidc.discovery import DiscoveryCache
from logto_asgi.oidc.keys import KeyNotFound

DISCOVERY, JWKS, TOKEN, ME, REVOKE = (
    "/oidc/.well-known/openid-configuration",
    "/oidc/jwks",
    "/oidc/token",
    "/oidc/me",
    "/oidc/token/revocation",
)


class Issuer:
    """An issuer at the network's edge: counts the calls, and answers what a test sets."""

    def __init__(self, private_keys: dict[str, Any], jwks: dict[str, Any]) -> None:
        self.now = float(NOW)
        self.calls: Counter[str] = Counter()
        self.requests: list[httpx.Request] = []
        self.gate: asyncio.Event | None = None
        self.private_keys = private_keys
        self.answers: dict[str, tuple[int, Any]] = {
            DISCOVERY: (200, discovery_document()),
            JWKS: (200, jwks),
            TOKEN: (200, self.tokens()),
            ME: (200, {"sub": "user-1", "name": "Ada"}),
            REVOKE: (200, b""),
        }

    def tokens(self, *, key: str = "es384", **changes: Any) -> dict[str, Any]:
        id_token = sign(self.private_keys[key], claims(**changes))
        return {"access_token": ACCESS_TOKEN, "token_type": "Bearer", "expires_in": 3600, "id_token": id_token}

    def clock(self) -> float:
        return self.now

    async def answer(self, request: httpx.Request) -> httpx.Response:
        self.calls[request.url.path] += 1
        self.requests.append(request)
        if self.gate is not None:
            await self.gate.wait()
        status, body = self.answers[request.url.path]
        return httpx.Response(status, content=body if isinstance(body, bytes) else json.dumps(body).encode())

    def go_down(self, *paths: str) -> None:
        for path in paths or (DISCOVERY, JWKS, TOKEN, ME, REVOKE):
            self.answers[path] = (503, b"")


@pytest.fixture
def issuer(private_keys: dict[str, Any], jwks: dict[str, Any]) -> Issuer:
    return Issuer(private_keys, jwks)


@pytest.fixture
def cache() -> DiscoveryCache:
    return DiscoveryCache()


@pytest.fixture
async def client(issuer: Issuer, config: LogtoConfig, cache: DiscoveryCache) -> AsyncIterator[OidcClient]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(issuer.answer)) as http_client:
        yield OidcClient(config, http_client=http_client, cache=cache, clock=issuer.clock)


async def start_all(tasks: list[asyncio.Task[Any]]) -> None:
    for _ in range(10):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


async def test_sign_in(client: OidcClient, issuer: Issuer, pending: PendingSignIn) -> None:
    """A code becomes tokens and verified claims; the code, its verifier and redirect URI go to the token endpoint."""
    tokens, found = await client.exchange_code(pending, "c0de")
    form = parse_qs(issuer.requests[-1].content.decode())
    assert (tokens.access_token, found.sub) == (ACCESS_TOKEN, "user-1")
    assert form["code"] == ["c0de"]
    assert form["code_verifier"] == [pending.code_verifier]
    assert form["redirect_uri"] == [pending.redirect_uri]
    assert issuer.calls == {DISCOVERY: 1, JWKS: 1, TOKEN: 1}


BAD_SIGN_INS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    # id: (claims, attempt, the check that refuses)
    "nonce-of-another-attempt": ({"nonce": "another"}, {}, "nonce"),
    "nonce-absent": ({"nonce": ABSENT}, {}, "nonce"),
    "auth_time-absent-though-asked": ({}, {"max_age": 300}, "auth_time"),
    "at_hash-of-another-token": ({"at_hash": "AAAA"}, {}, "at_hash"),
    "c_hash-of-another-code": ({"c_hash": "AAAA"}, {}, "c_hash"),
    "expired-by-our-clock": ({"exp": NOW - 61}, {}, "exp"),
}


@pytest.mark.parametrize(("changes", "attempt", "check"), BAD_SIGN_INS.values(), ids=BAD_SIGN_INS)
async def test_sign_in_verifies_against_its_attempt(
    changes: dict[str, Any],
    attempt: dict[str, Any],
    check: str,
    client: OidcClient,
    issuer: Issuer,
    pending: PendingSignIn,
) -> None:
    """What the attempt remembers is what the ID token is compared with."""
    issuer.answers[TOKEN] = (200, issuer.tokens(**changes))
    with pytest.raises(VerificationError) as caught:
        await client.exchange_code(replace(pending, **attempt), "c0de")
    assert caught.value.check == check


async def test_sign_in_without_an_id_token(client: OidcClient, issuer: Issuer, pending: PendingSignIn) -> None:
    """No ID token, no sign-in."""
    issuer.answers[TOKEN] = (200, {"access_token": "at", "token_type": "Bearer"})
    with pytest.raises(IssuerResponseInvalid, match="openid"):
        await client.exchange_code(pending, "c0de")


async def test_a_code_is_never_sent_twice(client: OidcClient, issuer: Issuer, pending: PendingSignIn) -> None:
    """A replayed code makes Logto revoke the tokens, so an outage is reported and not retried."""
    issuer.go_down(TOKEN)
    with pytest.raises(IssuerUnavailable):
        await client.exchange_code(pending, "c0de")
    assert issuer.calls[TOKEN] == 1


async def test_a_code_is_not_spent_without_keys(client: OidcClient, issuer: Issuer, pending: PendingSignIn) -> None:
    """When the answer could not be verified, the code is not sent; a lack of keys is nobody's fault."""
    issuer.go_down(JWKS)
    with pytest.raises(IssuerUnavailable):
        await client.exchange_code(pending, "c0de")
    assert issuer.calls[TOKEN] == 0


async def test_one_fetch_for_all_who_wait(client: OidcClient, issuer: Issuer, pending: PendingSignIn) -> None:
    """Many sign-ins at once fetch each document once (single flight), and later ones not at all."""
    issuer.gate = asyncio.Event()
    tasks = [asyncio.create_task(client.exchange_code(pending, f"c{number}")) for number in range(20)]
    await start_all(tasks)
    issuer.gate.set()
    await asyncio.gather(*tasks)
    await client.exchange_code(pending, "later")
    assert issuer.calls == {DISCOVERY: 1, JWKS: 1, TOKEN: 21}


async def test_a_failed_fetch_is_reported_to_all_who_wait(client: OidcClient, issuer: Issuer) -> None:
    """One failure answers everybody; the next caller tries again at once, because there is nothing older to use."""
    issuer.gate = asyncio.Event()
    issuer.go_down()
    tasks = [asyncio.create_task(client.metadata()) for _ in range(5)]
    await start_all(tasks)
    issuer.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [IssuerUnavailable] * 5
    assert issuer.calls == {DISCOVERY: 1}
    issuer.answers[DISCOVERY] = (200, discovery_document())
    assert (await client.metadata()).issuer == ISSUER


async def test_a_waiter_that_leaves_does_not_stop_the_fetch(client: OidcClient, issuer: Issuer) -> None:
    """The visitor who started it may hang up; those who joined get their answer."""
    issuer.gate = asyncio.Event()
    first = asyncio.create_task(client.metadata())
    second = asyncio.create_task(client.metadata())
    await start_all([first, second])
    first.cancel()
    await asyncio.sleep(0)
    issuer.gate.set()
    assert (await second).issuer == ISSUER
    assert first.cancelled()
    assert issuer.calls == {DISCOVERY: 1}


async def test_closing_ends_the_wait(client: OidcClient, issuer: Issuer) -> None:
    """Whoever waits when the app shuts down gets an error of ours, not a cancellation that nobody asked for."""
    issuer.gate = asyncio.Event()
    task = asyncio.create_task(client.metadata())
    await start_all([task])
    await client.aclose()
    with pytest.raises(IssuerUnavailable):
        await task


@pytest.mark.parametrize(("age", "fetches"), [(3599, 1), (3600, 2), (-1, 2)])
async def test_the_age_of_metadata(age: float, fetches: int, client: OidcClient, issuer: Issuer) -> None:
    """Metadata is fetched again after an hour, and when the clock was set back."""
    await client.metadata()
    issuer.now += age
    await client.metadata()
    assert issuer.calls[DISCOVERY] == fetches


@pytest.mark.parametrize(("age", "fetches"), [(3599, 1), (3600, 2)])
async def test_the_age_of_keys(
    age: float, fetches: int, client: OidcClient, issuer: Issuer, pending: PendingSignIn
) -> None:
    """Keys are fetched again after an hour, so that one that was withdrawn stops working."""
    await client.exchange_code(pending, "c0de")
    issuer.now += age
    issuer.answers[TOKEN] = (200, issuer.tokens(exp=NOW + 10**6))
    await client.exchange_code(pending, "c0de")
    assert issuer.calls[JWKS] == fetches


FAILURES: dict[str, tuple[int, Any]] = {
    "503": (503, b""),
    "404": (404, b""),
    "redirect": (302, b""),
    "html": (200, b"<html>"),
    "too-large": (200, json.dumps(discovery_document()).encode() + b" " * (1024 * 1024)),
    "another-issuer": (200, discovery_document(issuer="https://other.example/oidc")),
    "plain-http": (200, discovery_document(token_endpoint="http://tenant.logto.app/token")),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
async def test_old_metadata_outlives_any_failure(
    failure: tuple[int, Any], client: OidcClient, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    """However old, it is used and the failure logged; the next try waits ten seconds."""
    await client.metadata()
    issuer.answers[DISCOVERY] = failure
    issuer.now += 10**7
    with caplog.at_level(logging.WARNING, logger="logto_asgi"):
        assert (await client.metadata()).issuer == ISSUER
    issuer.now += 9
    await client.metadata()
    assert issuer.calls[DISCOVERY] == 2
    issuer.now += 1
    await client.metadata()
    assert issuer.calls[DISCOVERY] == 3
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
async def test_no_metadata_without_a_good_document(
    failure: tuple[int, Any], client: OidcClient, issuer: Issuer
) -> None:
    """Where there is none from before, the failure is raised, and nothing is kept of it."""
    issuer.answers[DISCOVERY] = failure
    with pytest.raises((IssuerUnavailable, IssuerRefused, IssuerResponseInvalid)):
        await client.metadata()
    assert client.cached_metadata() is None


@pytest.mark.parametrize(("age", "works"), [(24 * 3600 - 1, True), (24 * 3600, False)])
async def test_keys_outlive_an_outage_for_a_day(
    age: int, works: bool, client: OidcClient, issuer: Issuer, pending: PendingSignIn
) -> None:
    """After that a withdrawn key could still be in use, so sign-in stops with a 503."""
    issuer.answers[TOKEN] = (200, issuer.tokens(exp=NOW + 10**6))
    await client.exchange_code(pending, "c0de")
    issuer.go_down(DISCOVERY, JWKS)
    issuer.now += age
    if works:
        await client.exchange_code(pending, "c0de")
    else:
        with pytest.raises(IssuerUnavailable):
            await client.exchange_code(pending, "c0de")


async def test_an_unknown_key_is_looked_for_once(
    client: OidcClient, issuer: Issuer, pending: PendingSignIn, jwks: dict[str, Any]
) -> None:
    """A token signed with a key that was rotated in a moment ago is good after one refetch."""
    await client.exchange_code(pending, "c0de")
    new = issuer.private_keys["unpublished"].as_dict(private=False)
    issuer.answers[JWKS] = (200, {"keys": [new, *jwks["keys"]]})
    issuer.answers[TOKEN] = (200, issuer.tokens(key="unpublished"))
    _, found = await client.exchange_code(pending, "c0de")
    assert found.sub == "user-1"
    assert issuer.calls[JWKS] == 2


@pytest.mark.parametrize(("pause", "fetches"), [(0.9, 2), (1.0, 3)])
async def test_unknown_keys_have_a_cooldown(
    pause: float, fetches: int, client: OidcClient, issuer: Issuer, pending: PendingSignIn
) -> None:
    """A key that nobody publishes is refused, and asked for again after a second, not before."""
    issuer.answers[TOKEN] = (200, issuer.tokens(key="unpublished"))
    for _ in range(2):
        with pytest.raises(KeyNotFound) as caught:
            await client.exchange_code(pending, "c0de")
        assert caught.value.__context__ is None
        issuer.now += pause
    assert issuer.calls[JWKS] == fetches


@pytest.mark.parametrize("pause", [0.0, 0.9, 1.0])
async def test_a_lack_of_keys_is_no_refusal(
    pause: float, client: OidcClient, issuer: Issuer, pending: PendingSignIn
) -> None:
    """While the key set cannot be fetched, an unknown key is a 503: the token may be good."""
    await client.exchange_code(pending, "c0de")
    issuer.go_down(JWKS)
    issuer.answers[TOKEN] = (200, issuer.tokens(key="unpublished"))
    for _ in range(2):
        with pytest.raises(IssuerUnavailable):
            await client.exchange_code(pending, "c0de")
        issuer.now += pause


async def test_waiters_for_an_unknown_key_share_a_refetch(
    client: OidcClient, issuer: Issuer, pending: PendingSignIn, jwks: dict[str, Any]
) -> None:
    """Many first sign-ins after a rotation cost one fetch, and all succeed."""
    await client.exchange_code(pending, "c0de")
    new = issuer.private_keys["unpublished"].as_dict(private=False)
    issuer.answers[JWKS] = (200, {"keys": [new, *jwks["keys"]]})
    issuer.answers[TOKEN] = (200, issuer.tokens(key="unpublished"))
    await asyncio.gather(*(client.exchange_code(pending, f"c{number}") for number in range(8)))
    assert issuer.calls[JWKS] == 2


def test_several_loops_share_what_is_known(issuer: Issuer, config: LogtoConfig, cache: DiscoveryCache) -> None:
    """The cache is data without a loop: the second loop's client fetches nothing."""

    async def ask() -> str:
        async with httpx.AsyncClient(transport=httpx.MockTransport(issuer.answer)) as http_client:
            client = OidcClient(config, http_client=http_client, cache=cache, clock=issuer.clock)
            return (await client.metadata()).issuer

    assert [asyncio.run(ask()), asyncio.run(ask())] == [ISSUER, ISSUER]
    assert issuer.calls == {DISCOVERY: 1}


async def test_refresh_verifies_nothing_yet(client: OidcClient, issuer: Issuer) -> None:
    """The rotated refresh token must reach the session before its ID token can fail; so it fails in its own step."""
    issuer.answers[TOKEN] = (200, issuer.tokens(sub="user-2") | {"refresh_token": "rotated"})
    tokens = await client.refresh("rt", resource="https://api.example.com", organization_id="org", scope="read")
    assert tokens.refresh_token == "rotated"
    assert parse_qs(issuer.requests[-1].content.decode()) == {
        "grant_type": ["refresh_token"],
        "refresh_token": ["rt"],
        "resource": ["https://api.example.com"],
        "organization_id": ["org"],
        "scope": ["read"],
    }
    with pytest.raises(VerificationError) as caught:
        await client.verify_refreshed(tokens, IdTokenClaims.parse(claims()))
    assert caught.value.check == "sub"


async def test_refreshed_id_tokens(client: OidcClient, issuer: Issuer) -> None:
    """The same user's is verified, at_hash included; none is none."""
    previous = IdTokenClaims.parse(claims())
    tokens = await client.refresh("rt")
    assert (await client.verify_refreshed(tokens, previous) or previous) is not previous
    assert await client.verify_refreshed(replace(tokens, id_token=None), previous) is None
    hashed = sign(issuer.private_keys["es384"], claims(at_hash="AAAA"))
    with pytest.raises(VerificationError, match="access token"):
        await client.verify_refreshed(TokenSet("other", id_token=hashed), previous)


async def test_a_spent_refresh_token(client: OidcClient, issuer: Issuer) -> None:
    """Only this ends a session."""
    issuer.answers[TOKEN] = (400, {"error": "invalid_grant", "error_description": "secret template"})
    with pytest.raises(InvalidGrant) as caught:
        await client.refresh("rt")
    assert "template" not in str(caught.value)


async def test_userinfo(client: OidcClient, issuer: Issuer) -> None:
    """The access token goes into the header; another user's claims are refused."""
    assert (await client.userinfo("at", sub="user-1")).name == "Ada"
    assert issuer.requests[-1].headers["Authorization"] == "Bearer at"
    with pytest.raises(VerificationError) as caught:
        await client.userinfo("at", sub="user-2")
    assert caught.value.check == "sub"


async def test_userinfo_that_is_not_offered(client: OidcClient, issuer: Issuer) -> None:
    """The error names what discovery lacks."""
    issuer.answers[DISCOVERY] = (200, discovery_document(userinfo_endpoint=ABSENT))
    with pytest.raises(IssuerResponseInvalid, match="userinfo_endpoint"):
        await client.userinfo("at", sub="user-1")


async def test_revocation(client: OidcClient, issuer: Issuer) -> None:
    """The token and the client's authentication go to the revocation endpoint."""
    await client.revoke("rt")
    assert issuer.requests[-1].content == b"token=rt"
    assert issuer.requests[-1].headers["Authorization"].startswith("Basic ")


async def test_revocation_that_is_not_offered(client: OidcClient, issuer: Issuer) -> None:
    """Without an endpoint there is nothing to do."""
    issuer.answers[DISCOVERY] = (200, discovery_document(revocation_endpoint=ABSENT))
    await client.revoke("rt")
    assert issuer.calls == {DISCOVERY: 1}


async def test_revocation_may_be_given_less_time(client: OidcClient, issuer: Issuer) -> None:
    """Signing out does not wait for a slow issuer."""
    issuer.gate = asyncio.Event()
    with pytest.raises(IssuerUnavailable, match="in time"):
        await client.revoke("rt", timeout=0.01)
    with pytest.raises(IssuerUnavailable, match="in time"):
        await client.end_session_url(timeout=0.01)
    await client.aclose()


async def test_end_session_url(client: OidcClient, issuer: Issuer) -> None:
    """The browser comes back to where the configuration says."""
    url = await client.end_session_url(id_token_hint="raw")
    assert url == (
        f"{ISSUER}/session/end?client_id=shop-app&post_logout_redirect_uri=https%3A%2F%2Fshop.example.com%2F"
    )
    issuer.go_down()
    assert await client.end_session_url() == url


async def test_a_whole_call_has_one_deadline(issuer: Issuer, cache: DiscoveryCache) -> None:
    """Discovery, keys and the request share `http_timeout`."""
    config = LogtoConfig(
        endpoint=ENDPOINT,
        app_id="shop-app",
        base_url="https://shop.example.com",
        cookie_secret="Zk3vQ8yT1mB6xR0sN5wJ9dG2hL7cF4pK-aUeVoXi",
        http_timeout=0.05,
    )
    issuer.gate = asyncio.Event()
    async with httpx.AsyncClient(transport=httpx.MockTransport(issuer.answer)) as http_client:
        client = OidcClient(config, http_client=http_client, cache=cache)
        for call in (client.metadata(), client.refresh("rt"), client.userinfo("at", sub="x"), client.revoke("rt")):
            with pytest.raises(IssuerUnavailable, match="in time"):
                await call
        await client.aclose()


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    """joserfc and httpx take 33 and 22 ms; an app that starts does not pay for them."""
    code = "import sys, logto_asgi.oidc.client as c; print(sorted({'httpx', 'httpx2', 'joserfc'} & sys.modules.keys()))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"

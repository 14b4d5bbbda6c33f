"""Access tokens: the right one, kept, refreshed once for all who wait; only `invalid_grant` ends a session."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import Request

from logto_asgi import (
    AccessTokenMismatch,
    IssuerUnavailable,
    Logto,
    LogtoUser,
    SessionEnded,
    SetupError,
    SignInRequired,
)
from logto_asgi.claims import IdTokenClaims
from logto_asgi.models import Session, TokenSet
from logto_asgi.oidc.peek import read_unverified_claims
from logto_asgi.session.loaded import Loaded
from logto_asgi.testing import DemoUser
from logto_asgi.testing.visitor import issuer_client
from logto_asgi.token_rules import access_token_of
from logto_asgi.visit import Visit
from tests.conftest import API, OTHER_API, MakeSite, Site, build_app
from tests.test_middleware import session_cookies

LIFETIME = 3600
MARGIN = 60


async def signed_in(site: Site) -> tuple[Any, Session]:
    """Return a visitor and the session that its sign-in made."""
    visitor = await site.visitor()
    await visitor.sign_in()
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in visitor.cookies.jar).encode()
    session = site.logto.sessions.load([(b"cookie", cookies)]).session
    assert session is not None
    return visitor, session


async def test_token_is_for_the_resource_that_was_asked(site: Site) -> None:
    """Each resource has a token of its own; without one it is the opaque token of the sign-in."""
    visitor, _ = await signed_in(site)
    claims = read_unverified_claims((await visitor.get("/token")).json())
    assert claims is not None
    assert claims["aud"] == API
    assert read_unverified_claims((await visitor.get("/opaque-token")).json()) is None
    assert site.refreshes() == 1


@pytest.mark.parametrize(("seconds", "refreshes"), [(LIFETIME - MARGIN - 1, 1), (LIFETIME - MARGIN, 2)])
async def test_token_is_kept_until_the_margin(site: Site, seconds: int, refreshes: int) -> None:
    """One second before the margin it is the kept one, at the margin it is refreshed."""
    visitor, _ = await signed_in(site)
    await visitor.get("/token")
    site.clock.move(seconds)
    await visitor.get("/token")
    assert site.refreshes() == refreshes


async def test_token_shorter_than_the_margin_is_used_for_half_its_life(make_site: MakeSite) -> None:
    """A token of 40 seconds is not refreshed at every request."""
    site = make_site({"access_token_ttl": 40})
    visitor, _ = await signed_in(site)
    for _ in range(3):
        await visitor.get("/token")
    assert site.refreshes() == 1
    site.clock.move(20)
    await visitor.get("/token")
    assert site.refreshes() == 2


@pytest.mark.parametrize("rotate", ["always", "logto", "never"])
async def test_fifty_requests_make_one_refresh(make_site: MakeSite, rotate: str) -> None:
    """However many ask for the same expired token, the issuer is asked once and the session lives."""
    site = make_site({"rotate": rotate, "grace": 0})
    visitor, _ = await signed_in(site)
    await visitor.get("/token")
    site.clock.move(LIFETIME)
    responses = await asyncio.gather(*(visitor.get("/token") for _ in range(50)))
    assert {response.status_code for response in responses} == {200}
    assert len({response.text for response in responses}) == 1
    assert site.refreshes() == 2
    site.clock.move(LIFETIME)
    assert (await visitor.get("/token")).status_code == 200


@pytest.mark.parametrize("rotate", ["always", "never"])
async def test_refreshes_for_two_resources_queue_up(make_site: MakeSite, rotate: str) -> None:
    """The refresh token is one: a second resource waits for the first, then refreshes with the new one."""
    site = make_site({"rotate": rotate, "grace": 0})
    visitor, _ = await signed_in(site)
    paths = ["/token", "/other-token", "/opaque-token", "/info"] * 5
    site.clock.move(LIFETIME)
    responses = await asyncio.gather(*(visitor.get(path) for path in paths))
    assert {response.status_code for response in responses} == {200}
    assert site.refreshes() == 3
    audiences = {
        (read_unverified_claims(response.json()) or {}).get("aud")
        for response, path in zip(responses, paths, strict=True)
        if path == "/other-token"
    }
    assert audiences == {OTHER_API}


async def test_successor_serves_requests_with_the_cookie_from_before(make_site: MakeSite) -> None:
    """A browser that sends the old cookie again, several rotations later, goes on from the newest state."""
    site = make_site({"rotate": "always", "grace": 0})
    visitor, _ = await signed_in(site)
    old = visitor.cookies
    for _ in range(3):
        site.clock.move(LIFETIME)
        late = await site.visitor(cookies=old)
        assert (await late.get("/token")).status_code == 200
    assert site.refreshes() == 3


async def test_ancestor_is_forgotten_a_minute_after_the_newer_cookie_was_seen(make_site: MakeSite) -> None:
    """A copy of an old cookie is no way into the newest state for ever (security line 21)."""
    site = make_site({"rotate": "always", "grace": 0})
    visitor, _ = await signed_in(site)
    old = httpx.Cookies(visitor.cookies)
    site.clock.move(LIFETIME)
    await visitor.get("/token")
    await visitor.get("/")
    site.clock.move(59)
    early = await site.visitor(cookies=old)
    assert (await early.get("/token")).status_code == 200
    site.clock.move(1)
    late = await site.visitor(cookies=old)
    response = await late.get("/token")
    assert response.status_code == 401
    assert session_cookies(response) == []
    assert site.refreshes() == 1
    site.clock.move(LIFETIME)
    assert (await visitor.get("/token")).status_code == 200


async def test_connection_that_outlives_its_cookies_goes_on(make_site: MakeSite) -> None:
    """A stream or WebSocket that began hours and rotations ago, with a cookie that was right then, gets tokens."""
    site = make_site({"rotate": "always", "grace": 0})
    visitor, _ = await signed_in(site)
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in visitor.cookies.jar).encode()
    user = LogtoUser(Visit(site.logto, {"type": "http", "method": "GET", "headers": [(b"cookie", cookies)]}))
    assert user.is_authenticated
    for _ in range(3):
        site.clock.move(LIFETIME)
        await visitor.get("/token")
        await visitor.get("/")
        site.clock.move(61)
        await visitor.get("/")
    assert await user.get_access_token(API)
    assert site.refreshes() == 3


async def test_outage_is_503_and_nobody_is_signed_out(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """The caller that needs a token gets 503 with Retry-After, the log gets a line; session and public pages go on."""
    visitor, _ = await signed_in(site)
    for _ in range(2):
        site.provider.fail_next("token", status=503)
    response = await visitor.get("/token")
    assert response.status_code == 503
    assert response.json()["code"] == "issuer_unavailable"
    assert int(response.headers["retry-after"]) >= 1
    assert "issuer_unavailable: The issuer is busy or down (HTTP 503)." in caplog.text
    assert (await visitor.get("/")).json() == {"sub": "alice"}
    assert (await visitor.get("/token")).status_code in (200, 503)
    assert (await visitor.get("/token")).status_code == 200


async def test_outage_is_shared_by_all_who_wait(site: Site) -> None:
    """A hundred waiters do not ask a hundred times."""
    _, session = await signed_in(site)
    for _ in range(3):
        site.provider.fail_next("token", status=503)
    results = await asyncio.gather(
        *(site.logto.tokens.get(session, resource=API) for _ in range(30)), return_exceptions=True
    )
    assert {type(result) for result in results} == {IssuerUnavailable}
    assert site.refreshes() <= 2


async def test_only_invalid_grant_ends_the_session(site: Site) -> None:
    """A revoked grant: 401 for the one who needed a token, and the cookie is deleted."""
    visitor, _ = await signed_in(site)
    site.provider.revoke("alice")
    response = await visitor.get("/token")
    assert response.status_code == 401
    assert response.json()["code"] == "session_ended"
    assert (await visitor.get("/")).json() == {"sub": None}


async def test_browser_whose_session_ended_goes_to_sign_in(site: Site) -> None:
    """For a navigation the end of a session is a redirect."""
    visitor, _ = await signed_in(site)
    site.provider.revoke("alice")
    response = await visitor.navigate("/token", follow_redirects=False)
    assert response.status_code == 303
    assert "/logto/sign-in" in response.headers["location"]


async def test_caller_that_hangs_up_does_not_stop_the_refresh(make_site: MakeSite) -> None:
    """A cancelled request leaves the refresh running, and its result is kept."""
    site = make_site({"rotate": "always", "grace": 0})
    _, session = await signed_in(site)
    site.provider.delay("token", 0.05)
    caller = asyncio.create_task(site.logto.tokens.get(session, resource=API))
    await asyncio.sleep(0.01)
    caller.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await caller
    await site.logto.tokens.drain(5)
    _, token = await site.logto.tokens.get(session, resource=API)
    assert token.resource == API
    assert site.refreshes() == 1


async def test_sign_out_during_a_refresh_stays_signed_out(make_site: MakeSite) -> None:
    """The answer of a refresh that comes after the sign-out is thrown away."""
    site = make_site({"rotate": "always"})
    visitor, session = await signed_in(site)
    site.provider.delay("token", 0.05)
    caller = asyncio.create_task(site.logto.tokens.get(session, resource=API))
    await asyncio.sleep(0.01)
    await visitor.post("/logto/sign-out")
    with pytest.raises(SessionEnded):
        await caller
    assert (await visitor.get("/")).json() == {"sub": None}


async def test_rotated_token_is_saved_before_its_id_token_is_verified(make_site: MakeSite) -> None:
    """When the keys are out of reach the refresh token is not lost (security line 22)."""
    site = make_site({"rotate": "always", "grace": 0})
    _, session = await signed_in(site)
    site.provider.rotate_keys()
    site.clock.move(10)
    for _ in range(3):
        site.provider.fail_next("jwks", status=503)
    with pytest.raises(IssuerUnavailable):
        await site.logto.tokens.get(session, resource=API)
    site.clock.move(30)
    assert site.provider.requests.count("jwks") >= 2
    for _ in range(3):
        with contextlib.suppress(IssuerUnavailable):
            await site.logto.tokens.get(session, resource=API)
            break
        site.clock.move(30)
    else:
        pytest.fail("the session did not survive an outage of the keys")


async def test_refresh_for_another_user_ends_the_session(site: Site) -> None:
    """An ID token of another `sub` is discarded, its refresh token revoked (Core §12.2)."""
    visitor, session = await signed_in(site)
    changed = session.claims.raw() | {"sub": "mallory"}
    stranger = replace(session, claims=IdTokenClaims.parse(changed))
    with pytest.raises(SessionEnded, match="another user"):
        await site.logto.tokens.get(stranger, resource=API)
    assert site.provider.requests.count("revocation") == 1
    assert (await visitor.get("/")).json() == {"sub": None}


async def test_resource_that_was_not_configured_names_the_line(site: Site) -> None:
    """The remedy is a setting, and the issuer is not asked."""
    _, session = await signed_in(site)
    with pytest.raises(SetupError, match="LogtoConfig\\(resources="):
        await site.logto.tokens.get(session, resource="https://elsewhere.example/api")
    with pytest.raises(SetupError, match=r"UserScope\.ORGANIZATIONS"):
        await site.logto.tokens.get(session, organization_id="org")
    assert site.refreshes() == 0


async def test_refused_resource_is_an_error_of_that_call(make_site: MakeSite) -> None:
    """`invalid_target` is 403 with its remedy, and the session goes on."""
    site = make_site(app_id="one")
    visitor, _ = await signed_in(site)
    site.provider.fail_next("token", status=400, body={"error": "invalid_target"})
    response = await visitor.get("/token")
    assert response.status_code == 403
    assert response.json()["code"] == "access_token_refused"
    assert (await visitor.get("/other-token")).status_code == 200
    site.clock.move(10)
    assert (await visitor.get("/token")).status_code == 200


async def test_refused_resource_that_spent_the_refresh_token_ends_no_session(make_site: MakeSite) -> None:
    """The engine rotates before it refuses a resource: a plain refresh within the grace saves the session."""
    site = make_site({"rotate": "always", "grace": 3}, resources=[API, OTHER_API])
    visitor, _ = await signed_in(site)
    for grant in site.provider._core.storage._grants():
        grant.resources.pop(API, None)
    assert (await visitor.get("/token")).json()["code"] == "access_token_refused"
    site.clock.move(LIFETIME)
    assert (await visitor.get("/other-token")).status_code == 200


async def test_token_for_something_else_is_refused(site: Site) -> None:
    """Logto answers some mistakes with 200 and an opaque token: that is not handed on."""
    for answer in ("opaque", "eyJhbGciOiJub25lIn0.eyJhdWQiOiJodHRwczovL290aGVyLmV4YW1wbGUifQ.x"):
        with pytest.raises(AccessTokenMismatch, match="Logto's console"):
            access_token_of(TokenSet(access_token=answer), (API, None), now=0, strict=True)


async def test_organization_token(make_site: MakeSite) -> None:
    """With the organizations scope, a token for an organization itself, and for a resource inside of it."""
    site = make_site(scopes=["urn:logto:scope:organizations"])
    users = {user.sub: user for user in site.provider.users}
    assert isinstance(users["alice"], DemoUser)
    _, session = await signed_in(site)
    assert session.claims.organizations
    organization = session.claims.organizations[0]
    session, token = await site.logto.tokens.get(session, organization_id=organization)
    claims = read_unverified_claims(token.value)
    assert claims is not None
    assert claims["aud"] == f"urn:logto:organization:{organization}"
    session, token = await site.logto.tokens.get(session, resource=API, organization_id=organization)
    claims = read_unverified_claims(token.value)
    assert claims is not None
    assert (claims["aud"], claims["organization_id"]) == (API, organization)


async def test_forced_refresh_asks_the_issuer(site: Site) -> None:
    """`force_refresh` gets a new token though the kept one is good."""
    _, session = await signed_in(site)
    session, first = await site.logto.tokens.get(session, resource=API)
    site.clock.move(1)
    session, second = await site.logto.tokens.get(session, resource=API, force_refresh=True)
    assert first.value != second.value
    assert site.refreshes() == 2


async def test_without_a_refresh_token_an_expired_one_needs_a_sign_in(make_site: MakeSite) -> None:
    """Without offline_access the token lasts its hour, then 401 names the remedy."""
    site = make_site(include_reserved_scopes=False, scopes=["openid"], prompt=None)
    visitor, _ = await signed_in(site)
    assert (await visitor.get("/opaque-token")).status_code == 200
    response = await visitor.get("/token")
    assert response.status_code == 401
    assert response.json()["code"] == "refresh_token_missing"
    assert "offline_access" in response.json()["detail"]


async def test_anonymous_has_no_token(site: Site) -> None:
    """Without a session there is nothing to refresh."""
    visitor = await site.visitor()
    for path in ("/token", "/info", "/opaque-token"):
        assert (await visitor.get(path)).json()["code"] == "sign_in_required"


async def test_revoked_opaque_token_is_refreshed_for_userinfo(site: Site) -> None:
    """Userinfo answers 401 to a token that was revoked early: one refresh, one more try."""
    visitor, _ = await signed_in(site)
    site.provider.expire_access_tokens()
    assert (await visitor.get("/info")).json()["sub"] == "alice"
    assert site.refreshes() == 1


class TestFetchedForEveryRequest:
    """What the configuration asks to have on every request, as Logto's Express SDK does."""

    async def test_all_of_it_is_there(self, make_site: MakeSite) -> None:
        """user_info, access_token and organization_tokens are plain attributes."""
        site = make_site(
            app=_eager, fetch_user_info=True, get_access_token=True, resource=API, get_organization_token=True
        )
        visitor = await site.visitor()
        assert (await visitor.get("/eager")).json() == {"info": None, "aud": None, "organizations": None}
        await visitor.sign_in()
        body = (await visitor.get("/eager")).json()
        assert body["info"] == "alice"
        assert body["aud"] == API
        assert body["organizations"]

    async def test_failure_waits_for_whoever_reads_the_value(self, make_site: MakeSite) -> None:
        """The middleware never fails; reading the value that could not be fetched is 503."""
        site = make_site(app=_eager, fetch_user_info=True)
        visitor = await site.visitor()
        await visitor.sign_in()
        for _ in range(2):
            site.provider.fail_next("userinfo", status=503)
        assert (await visitor.get("/untouched")).status_code == 200
        assert (await visitor.get("/eager")).status_code == 503


def _eager(logto: Any) -> Any:
    app = build_app(logto)

    @app.get("/eager")
    async def eager(request: Request) -> dict[str, Any]:
        user = request.state.user
        info, token, tokens = user.user_info, user.access_token, user.organization_tokens
        claims = read_unverified_claims(token) if token else None
        return {"info": info and info.sub, "aud": claims and claims["aud"], "organizations": tokens and list(tokens)}

    return app


async def test_refreshed_claims_are_the_users(site: Site) -> None:
    """A refresh brings new claims, and the cookie carries them."""
    visitor, _ = await signed_in(site)
    site.provider.set_claims("alice", name="Alice Anew")
    response = await visitor.get("/token")
    assert len(session_cookies(response)) == 1
    assert (await visitor.get("/me")).json()["claims"]["name"] == "Alice Anew"


async def test_refusal_of_an_old_copy_ends_no_newer_session(make_site: MakeSite) -> None:
    """Where another process rotated and a browser has shown that, an `invalid_grant` is the old copy's alone."""
    secret = "Zr0vVdT1xq9k3m8Yw5bJc7nL2pQ4sFhG"
    here = make_site({"rotate": "always", "grace": 3600}, cookie_secret=secret)
    there = Logto(here.config, http_client=issuer_client(here.provider), clock=here.clock)
    visitor, old = await signed_in(here)
    successor, _ = await there.tokens.get(old, resource=API)
    lines = there.sessions.headers_to_send(Loaded(session=successor, presented=old), may_roll=True)
    newer = [(b"cookie", "; ".join(line.partition(";")[0] for line in lines).encode())]
    assert here.logto.sessions.load(newer).session is not None
    here.provider.fail_next("token", status=400, body={"error": "invalid_grant"})
    assert (await visitor.get("/token")).json()["code"] == "session_ended"
    assert here.logto.sessions.load(newer).session is not None


def test_sign_in_required_is_the_base_of_what_a_new_sign_in_mends() -> None:
    """One `except SignInRequired` catches all three."""
    assert issubclass(SessionEnded, SignInRequired)

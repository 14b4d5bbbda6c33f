"""Refreshes at an awkward moment: overtaken, ended half-way, answered with too little or for somebody else."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import httpx
import pytest

from logto_asgi import AccessTokenMismatch, AccessTokenRefused, IssuerResponseInvalid, SessionEnded
from logto_asgi.models import AccessToken
from logto_asgi.testing.users import Organization
from tests.conftest import API, OTHER_API, MakeSite, Site
from tests.network import Forward, behind, without
from tests.test_tokens import LIFETIME, MARGIN, signed_in

ORGANIZATIONS = "urn:logto:scope:organizations"


async def test_refresh_that_another_thread_overtook_goes_on_from_there(make_site: MakeSite) -> None:
    """`invalid_grant` for a refresh token that another event loop has just spent ends nothing: its successor works."""
    site, network = behind(make_site({"rotate": "always"}))
    visitor, session = await signed_in(site)
    issued = site.provider._core.storage.refresh_tokens

    async def overtaken(request: httpx.Request, forward: Forward) -> httpx.Response:
        await asyncio.to_thread(asyncio.run, site.logto.tokens.get(session, force_refresh=True))
        assert issued.pop(session.refresh_token or "")  # This issuer forgets what was spent.
        return await forward(request)

    network.step_in("/token", overtaken)
    newest, token = await site.logto.tokens.get(session, resource=API)
    assert token.resource == API
    assert site.refreshes() == 3
    assert newest.refresh_token == list(issued)[-1]
    assert (await visitor.get("/token")).json() == token.value


async def test_successor_that_is_refused_too_ends_the_session(make_site: MakeSite) -> None:
    """The look for a successor ends: when its refresh token is refused as well, the session is over."""
    site, network = behind(make_site({"rotate": "always"}))
    visitor, session = await signed_in(site)

    async def overtaken(request: httpx.Request, forward: Forward) -> httpx.Response:
        await asyncio.to_thread(asyncio.run, site.logto.tokens.get(session, force_refresh=True))
        site.provider.revoke("alice")
        return await forward(request)

    network.step_in("/token", overtaken)
    with pytest.raises(SessionEnded, match="issuer has ended"):
        await site.logto.tokens.get(session, resource=API)
    assert site.refreshes() == 3
    assert (await visitor.get("/")).json() == {"sub": None}


async def test_successor_is_looked_for_once(make_site: MakeSite) -> None:
    """A refresh that is overtaken twice gives up, and ends no session that somebody else keeps alive."""
    site, network = behind(make_site({"rotate": "always"}))
    visitor, session = await signed_in(site)
    issued = site.provider._core.storage.refresh_tokens

    async def overtaken(request: httpx.Request, forward: Forward) -> httpx.Response:
        spent = list(issued)[-1]
        await asyncio.to_thread(asyncio.run, site.logto.tokens.get(session, force_refresh=True))
        assert issued.pop(spent)
        return await forward(request)

    network.step_in("/token", overtaken)
    network.step_in("/token", lambda request, forward: forward(request))
    network.step_in("/token", overtaken)
    with pytest.raises(SessionEnded):
        await site.logto.tokens.get(session, resource=API)
    assert site.refreshes() == 4
    assert (await visitor.get("/token")).status_code == 200


@pytest.mark.parametrize("revocation", [200, 503])
async def test_token_that_came_for_an_ended_session_is_revoked(make_site: MakeSite, revocation: int) -> None:
    """A sign-out during a refresh: the new refresh token, which nobody will keep, is revoked as far as that works."""
    site, network = behind(make_site({"rotate": "always"}))
    visitor, session = await signed_in(site)

    async def signed_out_meanwhile(request: httpx.Request, forward: Forward) -> httpx.Response:
        response = await forward(request)
        await visitor.post("/logto/sign-out")
        if revocation != 200:
            site.provider.fail_next("revocation", status=revocation)
        return response

    network.step_in("/token", signed_out_meanwhile)
    with pytest.raises(SessionEnded, match="while its token was being refreshed"):
        await site.logto.tokens.get(session, resource=API)
    assert site.logto.counts["refresh.discarded"] == 1
    newest = list(site.provider._core.storage.refresh_tokens)[-1]
    assert [form["token"] for form in network.forms["/token/revocation"]] == [session.refresh_token, newest]
    assert (await visitor.get("/")).json() == {"sub": None}


async def test_access_token_that_came_for_an_ended_session_is_not_handed_out(make_site: MakeSite) -> None:
    """A sign-out during a refresh that rotates nothing: there is nothing to revoke, and nothing to give."""
    site, network = behind(make_site({"rotate": "never"}))
    visitor, session = await signed_in(site)

    async def signed_out_meanwhile(request: httpx.Request, forward: Forward) -> httpx.Response:
        response = await forward(request)
        await visitor.post("/logto/sign-out")
        return response

    network.step_in("/token", signed_out_meanwhile)
    with pytest.raises(SessionEnded, match="while its token was being refreshed"):
        await site.logto.tokens.get(session, resource=API)
    assert site.provider.requests.count("revocation") == 1
    assert (await visitor.get("/")).json() == {"sub": None}


@pytest.mark.parametrize(("asked", "answered"), [("forest", None), (None, "forest"), ("forest", "meadow")])
async def test_token_of_another_organization_is_refused(
    make_site: MakeSite, asked: str | None, answered: str | None
) -> None:
    """The right resource is not enough: a token of another organization, or of none, is not handed on."""
    organizations = [Organization(name, name, members={"alice": ()}) for name in ("forest", "meadow")]
    site, network = behind(make_site({"organizations": organizations}, scopes=[ORGANIZATIONS]))
    _, session = await signed_in(site)

    async def mistaken(request: httpx.Request, forward: Forward) -> httpx.Response:
        form = {name: value for name, value in network.forms["/token"][-1].items() if name != "organization_id"}
        headers = {"Authorization": request.headers["authorization"]}
        given = form if answered is None else {**form, "organization_id": answered}
        return await forward(httpx.Request("POST", request.url, headers=headers, data=given))

    network.step_in("/token", mistaken)
    with pytest.raises(AccessTokenMismatch, match="another organization"):
        await site.logto.tokens.get(session, resource=API, organization_id=asked)
    _, token = await site.logto.tokens.get(session, resource=API, organization_id=asked)
    assert token.key == (API, asked)


async def test_refusal_of_one_resource_is_not_the_others_refusal(site: Site) -> None:
    """Who waits for a refresh of another resource asks for its own when that one is refused."""
    _, session = await signed_in(site)
    site.provider.fail_next("token", status=400, body={"error": "invalid_target"})
    refused, token = await asyncio.gather(
        site.logto.tokens.get(session, resource=API),
        site.logto.tokens.get(session, resource=OTHER_API),
        return_exceptions=True,
    )
    assert isinstance(refused, AccessTokenRefused)
    assert isinstance(token, tuple)
    assert token[1].resource == OTHER_API


async def test_refusal_is_told_although_saving_the_session_fails(site: Site) -> None:
    """The plain refresh after `invalid_target` may fail as well: the caller learns of the refused resource."""
    _, session = await signed_in(site)
    site.provider.fail_next("token", status=400, body={"error": "invalid_target"})
    site.provider.fail_next("token", status=500)
    with pytest.raises(AccessTokenRefused):
        await site.logto.tokens.get(session, resource=API)
    assert site.refreshes() == 2


async def test_refused_plain_refresh_is_not_repeated(site: Site) -> None:
    """It asked for no resource, so leaving that out changes nothing."""
    _, session = await signed_in(site)
    site.provider.fail_next("token", status=400, body={"error": "invalid_target"})
    with pytest.raises(AccessTokenRefused):
        await site.logto.tokens.get(session, force_refresh=True)
    assert site.refreshes() == 1


@pytest.mark.parametrize("how", ["get", "renew"])
async def test_forced_refresh_begins_after_it_was_asked_for(make_site: MakeSite, how: str) -> None:
    """One whose request has left may bring what was true before: who asks meanwhile gets the next."""
    site, network = behind(make_site({"rotate": "always"}))
    _, session = await signed_in(site)
    late: list[asyncio.Task[object]] = []

    async def ask() -> None:
        tokens = site.logto.tokens
        await (tokens.renew(session) if how == "renew" else tokens.get(session, force_refresh=True))

    async def ask_again(request: httpx.Request, forward: Forward) -> httpx.Response:
        late.append(asyncio.create_task(ask()))
        await asyncio.sleep(0)
        return await forward(request)

    network.step_in("/token", ask_again)
    await ask()
    await late[0]
    assert site.refreshes() == 2


async def test_claims_come_with_the_token_that_was_used_last(make_site: MakeSite) -> None:
    """Of the tokens that have expired; where none has, no resource is asked for."""
    site, network = behind(make_site(claims_max_age=100))
    visitor, _ = await signed_in(site)
    await visitor.get("/other-token")
    site.clock.move(1)
    await visitor.get("/token")
    site.clock.move(100)
    await visitor.get("/me")
    assert "resource" not in network.forms["/token"][-1]
    site.clock.move(LIFETIME)
    await visitor.get("/me")
    assert network.forms["/token"][-1]["resource"] == API
    assert site.refreshes() == 4


@pytest.mark.parametrize("answer", [{"error": "access_denied"}, {"access_token": "opaque"}])
async def test_claims_are_renewed_without_a_token_that_cannot_be_had(
    make_site: MakeSite, answer: dict[str, str]
) -> None:
    """A resource that is refused, or answered with another token, keeps no claims old."""
    site, network = behind(make_site())
    visitor, _ = await signed_in(site)
    await visitor.get("/token")
    site.clock.move(LIFETIME)
    site.provider.set_claims("alice", name="Alice Renamed")

    async def something_else(request: httpx.Request, forward: Forward) -> httpx.Response:
        if "error" in answer:
            return httpx.Response(403, json=answer)
        response = await forward(request)
        await response.aread()
        return httpx.Response(200, json={**response.json(), **answer})

    network.step_in("/token", something_else)
    assert (await visitor.get("/me")).json()["claims"]["name"] == "Alice Renamed"
    assert [form.get("resource") for form in network.forms["/token"][-2:]] == [API, None]


async def test_session_of_an_earlier_release_counts_from_its_sign_in(site: Site) -> None:
    """It does not say when its claims were last renewed, and is not taken for a very old one."""
    _, session = await signed_in(site)
    old = replace(session, checked_at=0)
    site.clock.move(LIFETIME - 1)
    assert not site.logto.tokens.is_stale(old, LIFETIME)
    site.clock.move(1)
    assert site.logto.tokens.is_stale(old, LIFETIME)


async def test_id_token_is_kept_only_where_a_sign_out_needs_it(site: Site) -> None:
    """A session that holds one as a hint holds the newest; one that holds none gets none."""
    _, session = await signed_in(site)
    newest, _ = await site.logto.tokens.get(replace(session, id_token="old"), resource=API)
    assert newest.id_token not in (None, "old")
    _, session = await signed_in(site)
    newest, _ = await site.logto.tokens.get(session, resource=API)
    assert newest.id_token is None


async def test_refresh_without_a_refresh_token_keeps_the_one_there_is(make_site: MakeSite) -> None:
    """An issuer that does not rotate need not repeat it (RFC 6749 §6)."""
    site, network = behind(make_site({"rotate": "never"}))
    _, session = await signed_in(site)
    network.step_in("/token", without("refresh_token"))
    newest, _ = await site.logto.tokens.get(session, resource=API)
    assert newest.refresh_token == session.refresh_token
    assert newest.refresh_token is not None


async def test_app_that_the_issuer_refuses_signs_nobody_out(site: Site) -> None:
    """A secret that was changed at the issuer is nothing about the user: 502, and the session goes on."""
    visitor, _ = await signed_in(site)
    site.provider.fail_next("token", status=401, body={"error": "invalid_client"})
    response = await visitor.get("/token")
    assert (response.status_code, response.json()["code"]) == (502, "issuer_refused")
    assert (await visitor.get("/token")).status_code == 200


async def test_refreshed_id_token_of_another_shape_is_refused(site: Site) -> None:
    """Claims that are not what the specification says are not taken over; the session keeps its own."""
    visitor, session = await signed_in(site)
    site.provider.set_claims("alice", nbf=["not", "a time"])
    with pytest.raises(IssuerResponseInvalid, match="check of nbf"):
        await site.logto.tokens.get(session, resource=API)
    site.provider.set_claims("alice", nbf=0)
    assert (await visitor.get("/token")).status_code == 200
    assert (await visitor.get("/me")).json()["claims"]["sub"] == "alice"


async def test_refresh_without_an_id_token_keeps_the_claims(make_site: MakeSite) -> None:
    """An issuer need not send one with a refresh (Core §12.2)."""
    site, network = behind(make_site())
    _, session = await signed_in(site)
    network.step_in("/token", without("id_token"))
    newest, token = await site.logto.tokens.get(session, resource=API)
    assert newest.claims == session.claims
    assert token.resource == API


class TestAnswerWithoutExpiresIn:
    """`expires_in` is only recommended (RFC 6749 §5.1)."""

    async def test_lifetime_is_the_tokens_own(self, make_site: MakeSite) -> None:
        """A JWT says itself when it ends."""
        token = await self.token_of(make_site, API)
        assert token.expires_at - token.issued_at == LIFETIME

    async def test_lifetime_of_an_opaque_one_is_five_minutes(self, make_site: MakeSite) -> None:
        """One that says nothing is taken to live for 300 seconds."""
        token = await self.token_of(make_site, None)
        assert token.expires_at - token.issued_at == 300 > MARGIN

    @staticmethod
    async def token_of(make_site: MakeSite, resource: str | None) -> AccessToken:
        site, network = behind(make_site())
        _, session = await signed_in(site)
        network.step_in("/token", without("expires_in"))
        _, token = await site.logto.tokens.get(session, resource=resource, force_refresh=True)
        return token

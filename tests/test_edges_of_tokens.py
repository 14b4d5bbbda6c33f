"""Refreshes at an awkward moment: overtaken, ended half-way, answered with too little or for somebody else."""

from __future__ import annotations

import asyncio

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

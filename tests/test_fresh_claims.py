"""What an app can ask for anew, and how old the claims are that a guard goes by (security line 20); in both modes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Request

from logto_asgi import (
    AccessTokenRefused,
    IssuerUnavailable,
    Logto,
    LogtoUser,
    MemoryStore,
    RequireAuthMiddleware,
    UserInfo,
)
from logto_asgi.fastapi import SignedIn, require_auth, user_info
from logto_asgi.models import Session
from tests.conftest import API, MakeSite, Site, build_app
from tests.network import behind
from tests.test_middleware import session_cookies

HOUR = 3600


def with_more(logto: Logto) -> FastAPI:
    """Return the app with endpoints for everything that a user can ask for anew."""
    app = build_app(logto)

    @app.get("/lasting/{seconds}")
    async def lasting(user: SignedIn, seconds: int) -> str:
        return await user.get_access_token(API, min_ttl=seconds)

    @app.get("/forced")
    async def forced(user: SignedIn) -> str:
        return await user.get_access_token(API, force_refresh=True)

    @app.get("/claims-of-token")
    async def claims_of_token(user: SignedIn, resource: str | None = None) -> dict[str, Any]:
        return dict(await user.get_access_token_claims(resource))

    @app.post("/clear")
    async def clear(user: SignedIn) -> None:
        await user.clear_access_tokens()

    @app.post("/refresh")
    async def refresh(user: SignedIn) -> str | None:
        return (await user.refresh()).name

    @app.get("/name")
    async def name(request: Request) -> str | None:
        user: LogtoUser = request.state.user
        return user.claims.name if user.is_authenticated else None

    @app.get("/guarded-name")
    async def guarded_name(user: SignedIn) -> str | None:
        return user.claims.name

    @app.get("/strict-name")
    async def strict_name(user: Annotated[LogtoUser, Depends(require_auth(claims_max_age=60))]) -> str | None:
        return user.claims.name

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["state"]["user"].claims.name.encode()})

    @app.get("/strict-info")
    async def strict_info(info: Annotated[UserInfo, Depends(user_info(claims_max_age=60))], request: Request) -> str:
        name: str = request.state.user.claims.name
        return name

    app.mount("/mounted", RequireAuthMiddleware(plain, claims_max_age=60))
    return app


Build = Callable[..., Site]


@pytest.fixture(params=["cookie", "store"])
def build(request: pytest.FixtureRequest, make_site: MakeSite) -> Build:
    """Build the site with sessions in the cookie, and again with sessions in a store."""

    def build(provider: dict[str, Any] | None = None, **settings: Any) -> Site:
        store = MemoryStore() if request.param == "store" else None
        return make_site(provider, app=with_more, store=store, **settings)

    return build


async def visit(site: Site) -> Any:
    visitor = await site.visitor()
    await visitor.sign_in()
    return visitor


async def signed_in(site: Site) -> tuple[Any, Session]:
    """Return a visitor and its session, whichever way it is kept."""
    visitor = await visit(site)
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in visitor.cookies.jar).encode()
    loaded = site.logto.sessions.load([(b"cookie", cookies)])
    await site.logto.sessions.read(loaded)
    assert loaded.session is not None
    return visitor, loaded.session


async def test_min_ttl_asks_for_a_token_that_lives_long_enough(build: Build) -> None:
    """A token with 2,600 of its 3,600 seconds left serves who wants 2,500 and not who wants 2,600."""
    site = build()
    visitor = await visit(site)
    first = (await visitor.get("/token")).json()
    site.clock.move(1000)
    assert (await visitor.get("/lasting/2500")).json() == first
    assert (await visitor.get("/lasting/2600")).json() != first
    assert site.refreshes() == 2


async def test_min_ttl_beyond_every_life_does_not_refresh_each_time(build: Build) -> None:
    """Where no token lives so long, one is used for a tenth of its life."""
    site = build()
    visitor = await visit(site)
    tokens = {(await visitor.get("/lasting/86400")).json() for _ in range(5)}
    assert (len(tokens), site.refreshes()) == (1, 1)
    site.clock.move(HOUR // 10)
    assert (await visitor.get("/lasting/86400")).json() not in tokens


async def test_min_ttl_below_the_margin_changes_nothing(build: Build) -> None:
    """A token within the refresh margin is refreshed, however little life is asked for."""
    site = build()
    visitor = await visit(site)
    first = (await visitor.get("/token")).json()
    site.clock.move(HOUR - 60)
    assert (await visitor.get("/lasting/1")).json() != first


async def test_claims_of_an_access_token(build: Build) -> None:
    """What the token for a resource says; an opaque one says nothing, in a sentence."""
    visitor = await visit(build())
    claims = (await visitor.get("/claims-of-token", params={"resource": API})).json()
    assert (claims["aud"], claims["sub"]) == (API, "alice")
    opaque = await visitor.get("/claims-of-token")
    assert (opaque.status_code, opaque.json()["code"]) == (502, "access_token_mismatch")
    assert "resource=" in opaque.json()["detail"]


async def test_cleared_access_tokens_are_asked_for_anew(build: Build) -> None:
    """Also by the next request, and the session lives."""
    site = build()
    visitor = await visit(site)
    first = [(await visitor.get(path)).json() for path in ("/token", "/other-token", "/token")]
    assert first[0] == first[2]
    assert (await visitor.post("/clear")).status_code == 200
    assert (await visitor.get("/token")).json() != first[0]
    assert (await visitor.get("/other-token")).json() != first[1]
    assert site.refreshes() == 4


async def test_refresh_brings_new_claims_at_once(build: Build) -> None:
    """A changed name is there in the same request and in the next; access tokens stay."""
    site = build()
    visitor = await visit(site)
    token = (await visitor.get("/token")).json()
    site.provider.set_claims("alice", name="Alice Renamed")
    assert (await visitor.get("/name")).json() != "Alice Renamed"
    assert (await visitor.post("/refresh")).json() == "Alice Renamed"
    assert (await visitor.get("/name")).json() == "Alice Renamed"
    assert (await visitor.get("/token")).json() == token


async def test_twenty_forced_refreshes_at_once_are_two(build: Build) -> None:
    """Who asks while one is under way wants one that begins later, and all of these share it."""
    site = build({"rotate": "always", "grace": 0})
    visitor = await visit(site)
    site.provider.delay("token", 0.05)
    answers = await asyncio.gather(*(visitor.get("/forced") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert site.refreshes() <= 2


async def test_refusal_is_remembered_for_ten_seconds(build: Build) -> None:
    """A refused resource is not asked for at every request; another session asks for itself, and force asks."""
    site = build()
    visitor, other = await visit(site), await visit(site)
    site.provider.fail_next("token", status=403, body={"error": "insufficient_scope"})
    refused = await visitor.get("/token")
    assert (refused.status_code, refused.json()["code"]) == (403, "access_token_refused")
    asked = site.refreshes()
    assert asked == 1
    again = await visitor.get("/token")
    assert (again.status_code, again.json()) == (403, refused.json())
    site.clock.move(9)
    assert (await visitor.get("/token")).status_code == 403
    assert site.refreshes() == asked
    assert (await other.get("/token")).status_code == 200
    assert (await visitor.get("/other-token")).status_code == 200
    site.clock.move(1)
    assert (await visitor.get("/token")).status_code == 200


async def test_force_refresh_asks_in_spite_of_a_refusal(build: Build) -> None:
    """After the mistake was mended nobody has to wait."""
    site = build()
    visitor = await visit(site)
    site.provider.fail_next("token", status=403, body={"error": "access_denied"})
    assert (await visitor.get("/token")).status_code == 403
    assert (await visitor.get("/forced")).status_code == 200
    assert (await visitor.get("/token")).status_code == 200


async def test_cleared_access_tokens_forget_refusals_of_their_session(build: Build) -> None:
    """Who clears asks again at once, and another session's refusal stays."""
    site = build()
    visitor, other = await visit(site), await visit(site)
    for each in (visitor, other):
        site.provider.fail_next("token", status=403, body={"error": "access_denied"})
        assert (await each.get("/token")).status_code == 403
    assert (await visitor.post("/clear")).status_code == 200
    assert (await visitor.get("/token")).status_code == 200
    assert (await other.get("/token")).status_code == 403


async def test_refusals_are_bounded_and_the_oldest_goes(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for one, the refusal before it is forgotten and the last one holds."""
    monkeypatch.setattr("logto_asgi.tokens._NOTES_KEPT", 1)
    site = build()
    visitor = await visit(site)
    for path in ("/token", "/other-token"):
        site.provider.fail_next("token", status=403, body={"error": "access_denied"})
        assert (await visitor.get(path)).status_code == 403
    assert (await visitor.get("/other-token")).status_code == 403
    assert (await visitor.get("/token")).status_code == 200


@pytest.mark.parametrize(("seconds", "refreshes"), [(HOUR - 1, 0), (HOUR, 1)])
async def test_guard_refreshes_claims_of_an_hour(build: Build, seconds: int, refreshes: int) -> None:
    """One second before it they are good; a page without a guard asks nobody."""
    site = build()
    visitor = await visit(site)
    site.provider.set_claims("alice", name="Alice Renamed")
    site.clock.move(seconds)
    await visitor.get("/name")
    assert site.refreshes() == 0
    name = (await visitor.get("/guarded-name")).json()
    assert (name == "Alice Renamed", site.refreshes()) == (refreshes == 1, refreshes)


async def test_claims_max_age_of_the_configuration(build: Build) -> None:
    """`claims_max_age` sets it for every guard, and any refresh counts."""
    site = build(claims_max_age=100)
    visitor = await visit(site)
    site.clock.move(60)
    await visitor.get("/token")
    site.clock.move(99)
    await visitor.get("/me")
    assert site.refreshes() == 1
    site.clock.move(1)
    await visitor.get("/me")
    assert site.refreshes() == 2


@pytest.mark.parametrize("path", ["/strict-name", "/strict-info", "/mounted/"])
async def test_guard_may_insist_on_younger_claims(build: Build, path: str) -> None:
    """`claims_max_age=60` on a guard: at 59 seconds nothing, at 60 a refresh first."""
    site = build()
    visitor = await visit(site)
    site.provider.set_claims("alice", name="Alice Renamed")
    site.clock.move(59)
    assert "Renamed" not in (await visitor.get(path)).text
    site.clock.move(1)
    assert "Renamed" in (await visitor.get(path)).text
    assert site.refreshes() == 1


async def test_hundred_guarded_requests_refresh_claims_once(build: Build) -> None:
    """However many find the claims old."""
    site = build({"rotate": "always", "grace": 0})
    visitor = await visit(site)
    site.clock.move(HOUR)
    answers = await asyncio.gather(*(visitor.get("/me") for _ in range(100)))
    assert {answer.status_code for answer in answers} == {200}
    assert site.refreshes() == 1


async def test_outage_lets_older_claims_pass_but_not_where_a_guard_insists(build: Build) -> None:
    """Pages go on with what is known, the issuer is left in peace for a while; a guard's own limit is 503."""
    site = build()
    visitor = await visit(site)
    site.clock.move(HOUR)
    for _ in range(9):
        site.provider.fail_next("token", status=500)
    assert (await visitor.get("/guarded-name")).status_code == 200
    asked = site.refreshes()
    assert (await visitor.get("/guarded-name")).status_code == 200
    assert site.refreshes() == asked
    strict = await visitor.get("/strict-name")
    assert (strict.status_code, strict.json()["code"]) == (503, "issuer_unavailable")
    assert site.logto.counts["refresh.failed"] == 2
    assert site.logto.counts["claims.stale"] == 1


async def test_failure_of_one_user_is_not_everybodys(build: Build) -> None:
    """Only an issuer that nobody can reach is left in peace by all; a suspended user is found out in any case."""
    site = build()
    bob, alice = await site.visitor(), await visit(site)
    await bob.sign_in("bob")
    site.provider.suspend("alice")
    site.clock.move(HOUR)
    site.provider.fail_next("token", status=500)
    assert (await bob.get("/guarded-name")).status_code == 200
    assert site.logto.counts["claims.stale"] == 1
    assert (await alice.get("/guarded-name")).status_code == 401


async def test_issuer_that_nobody_can_reach_is_asked_once_in_a_while(build: Build) -> None:
    """With ten sessions whose claims are old, one finds out and the others go on at once."""
    site, network = behind(build())
    visitors = [await visit(site) for _ in range(10)]
    site.clock.move(HOUR)

    async def cut(request: httpx.Request, forward: Any) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    for _ in range(40):
        network.step_in("/token", cut)
    assert {(await visitor.get("/me")).status_code for visitor in visitors} == {200}
    assert site.logto.counts["claims.stale"] == 1


async def test_slow_issuer_keeps_a_page_waiting_for_a_moment_only(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older claims are used when new ones take too long, and these are there for the next page."""
    monkeypatch.setattr("logto_asgi.tokens._PATIENCE", 0.01)
    site = build()
    visitor = await visit(site)
    site.provider.set_claims("alice", name="Alice Renamed")
    site.clock.move(HOUR)
    site.provider.delay("token", 0.2)
    assert (await visitor.get("/guarded-name")).json() != "Alice Renamed"
    await site.logto.tokens.drain(5)
    assert (await visitor.get("/guarded-name")).json() == "Alice Renamed"


async def test_user_whom_the_issuer_denies_the_app_is_refused(build: Build) -> None:
    """Logto's access control answers `access_denied` to a plain refresh: 403 in a guard, asked once in ten seconds."""
    site = build()
    visitor = await visit(site)
    site.clock.move(HOUR)
    site.provider.fail_next("token", status=400, body={"error": "access_denied"})
    for _ in range(3):
        refused = await visitor.get("/guarded-name")
        assert (refused.status_code, refused.json()["code"]) == (403, "access_token_refused")
    assert site.refreshes() == 1
    site.clock.move(10)
    assert (await visitor.get("/guarded-name")).status_code == 200


async def test_revalidation_ends_the_session_of_a_user_who_is_denied_the_app(build: Build) -> None:
    """On every page, and for good."""
    site = build(revalidate_every=300)
    visitor = await visit(site)
    site.clock.move(300)
    site.provider.fail_next("token", status=400, body={"error": "access_denied"})
    assert (await visitor.get("/")).json() == {"sub": None}
    site.clock.move(60)
    assert (await visitor.get("/")).json() == {"sub": None}
    assert site.logto.counts["session.ended"] == 1


@pytest.mark.parametrize("organization", ["", " ", "\ud800", "a" * 257, "ä"])
async def test_organization_id_that_cannot_be_one_is_refused(build: Build, organization: str) -> None:
    """Ids often come from a path: an empty one is no token for the user, a strange one no traceback."""
    site = build(scopes=["urn:logto:scope:organizations"])
    _, session = await signed_in(site)
    with pytest.raises(AccessTokenRefused):
        await site.logto.tokens.get(session, organization_id=organization)
    assert site.refreshes() == 0


async def test_session_does_not_collect_work_without_end(build: Build) -> None:
    """Callers who ask for ever new tokens and hang up get 503, and the session's other requests go on."""
    site = build(scopes=["urn:logto:scope:organizations"])
    _, session = await signed_in(site)
    site.provider.delay("token", 0.05)
    asked = [asyncio.create_task(site.logto.tokens.get(session, organization_id=f"org-{n}")) for n in range(200)]
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(result, IssuerUnavailable) for result in results) == 200 - 64


async def test_without_a_refresh_token_only_a_guard_that_insists_refuses(build: Build) -> None:
    """An issuer that gives none: sign-in is all there is, and a strict guard sends the visitor there."""
    site = build(include_reserved_scopes=False, scopes=["openid", "profile"])
    visitor = await visit(site)
    site.clock.move(HOUR)
    assert (await visitor.get("/guarded-name")).status_code == 200
    strict = await visitor.get("/strict-name")
    assert (strict.status_code, strict.json()["code"]) == (401, "refresh_token_missing")
    assert "claims.stale" not in site.logto.counts


async def test_guard_learns_that_the_account_is_gone(build: Build) -> None:
    """After an hour a suspended user is sent to sign-in, and the session is over."""
    site = build()
    visitor = await visit(site)
    site.provider.suspend("alice")
    assert (await visitor.get("/me")).status_code == 200
    site.clock.move(HOUR)
    gone = await visitor.get("/me")
    assert (gone.status_code, gone.json()["code"]) == (401, "session_ended")
    assert (site.refreshes(), site.logto.counts["refresh.refused"]) == (1, 1)
    assert (await visitor.get("/name")).json() is None


async def test_revalidated_sessions_end_for_every_page(build: Build) -> None:
    """With `revalidate_every` a suspended user is nobody on open pages too, at that age and not before."""
    site = build(revalidate_every=300)
    visitor = await visit(site)
    site.provider.suspend("alice")
    site.clock.move(299)
    assert (await visitor.get("/")).json() == {"sub": "alice"}
    site.clock.move(1)
    over = await visitor.get("/")
    assert over.json() == {"sub": None}
    assert "Max-Age=0" in session_cookies(over)[0]
    assert (await visitor.get("/")).json() == {"sub": None}


async def test_revalidation_brings_new_claims_to_open_pages(build: Build) -> None:
    """The page that finds the session due shows them already."""
    site = build(revalidate_every=300)
    visitor = await visit(site)
    site.provider.set_claims("alice", name="Alice Renamed")
    site.clock.move(300)
    assert (await visitor.get("/name")).json() == "Alice Renamed"


async def test_revalidation_waits_for_the_issuer_to_come_back(build: Build) -> None:
    """An outage signs nobody out, and costs one try every half minute."""
    site = build(revalidate_every=300)
    visitor = await visit(site)
    site.clock.move(300)
    for _ in range(2):
        site.provider.fail_next("token", status=500)
    for _ in range(5):
        assert (await visitor.get("/")).json() == {"sub": "alice"}
    site.clock.move(29)
    await visitor.get("/")
    assert site.refreshes() == 1
    site.clock.move(1)
    await visitor.get("/")
    site.clock.move(30)
    await visitor.get("/")
    assert site.refreshes() == 3


async def test_refused_claims_let_older_ones_pass(build: Build) -> None:
    """A refusal that is not of the user is an outage like any other, and is asked for once."""
    site = build()
    visitor = await visit(site)
    site.clock.move(HOUR)
    site.provider.fail_next("token", status=403, body={"error": "insufficient_scope"})
    assert (await visitor.get("/guarded-name")).status_code == 200
    assert (site.refreshes(), site.logto.counts["claims.stale"]) == (1, 1)


@pytest.mark.parametrize("age", [0, -1])
async def test_max_age_that_is_no_time_is_refused(age: int) -> None:
    """It would refresh at every request."""
    from logto_asgi import SetupError

    with pytest.raises(SetupError, match=r"user\.refresh\(\)"):
        require_auth(claims_max_age=age)


async def test_max_age_makes_guards_that_overrides_find() -> None:
    """The same arguments give the same object."""
    assert require_auth(claims_max_age=60) is require_auth(claims_max_age=60)
    assert require_auth(claims_max_age=60) is not require_auth

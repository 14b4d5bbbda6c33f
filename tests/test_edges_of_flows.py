"""Call-backs and sign-outs at an awkward moment: twice at once, broken off, too late, at an issuer without a page."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from logto_asgi import AttemptNotFound, IssuerUnavailable, Logto, LogtoError, SignInOptions
from logto_asgi.models import PendingSignIn
from logto_asgi.testing import issuer_client
from logto_asgi.testing.visitor import NAVIGATION
from tests.conftest import MakeSite, Site
from tests.network import Forward, behind, without
from tests.session.faulty_store import FaultyStore
from tests.test_routes import come_back, start
from tests.test_tokens import signed_in

Query = list[tuple[str, str]]


async def call_back(site: Site) -> tuple[Query, PendingSignIn]:
    """Return what a call-back brings, of an attempt that no cookie holds."""
    url, pending = await site.logto.flows.start_sign_in(SignInOptions(), "/")
    visitor = await site.visitor()
    address = await come_back(visitor, httpx.Response(302, headers={"location": url}))
    return httpx.URL(address).params.multi_items(), pending


class TestBug:
    """An exchange that ends in an error which nobody foresaw."""

    async def test_does_not_hang_whoever_waits(self, make_site: MakeSite) -> None:
        """The first call-back shows the bug; the second, which waits for its outcome, may try again."""
        site, network = behind(make_site())
        query, pending = await call_back(site)
        waiting: list[asyncio.Task[object]] = []

        async def broken(request: httpx.Request, forward: Forward) -> httpx.Response:
            waiting.append(asyncio.create_task(site.logto.flows.finish_sign_in(query, pending)))
            await asyncio.sleep(0)
            raise ZeroDivisionError("a bug")

        network.step_in("/token", broken)
        with pytest.raises(ZeroDivisionError):
            await site.logto.flows.finish_sign_in(query, pending)
        async with asyncio.timeout(5):
            with pytest.raises(IssuerUnavailable, match="interrupted"):
                await waiting[0]
        assert site.provider.requests.count("token") == 0

    async def test_does_not_hang_a_later_one(self, make_site: MakeSite) -> None:
        """A reload after the bug is answered at once: 503, and nobody is signed in."""
        site, network = behind(make_site())
        visitor = await site.visitor()
        address = await come_back(visitor, await start(visitor))
        copy = await site.visitor(cookies=visitor.cookies)

        async def broken(request: httpx.Request, forward: Forward) -> httpx.Response:
            raise ZeroDivisionError("a bug")

        network.step_in("/token", broken)
        with pytest.raises(ZeroDivisionError):
            await visitor.navigate(address)
        async with asyncio.timeout(5):
            assert (await copy.navigate(address)).status_code == 503
        assert (await copy.get("/")).json() == {"sub": None}


async def test_wait_for_another_call_back_ends(make_site: MakeSite) -> None:
    """Where the first one's event loop stands still, the second gives up after four times `http_timeout`."""
    site, network = behind(make_site(http_timeout=0.25))
    query, pending = await call_back(site)
    stopped = asyncio.new_event_loop()

    async def begin() -> None:
        reached = asyncio.Event()

        async def for_ever(request: httpx.Request, forward: Forward) -> httpx.Response:
            reached.set()
            await asyncio.Event().wait()
            raise AssertionError

        network.step_in("/token", for_ever)
        first.append(asyncio.create_task(site.logto.flows.finish_sign_in(query, pending)))
        await reached.wait()

    async def end() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    first: list[asyncio.Task[object]] = []
    await asyncio.to_thread(stopped.run_until_complete, begin())
    try:
        async with asyncio.timeout(5):
            with pytest.raises(IssuerUnavailable, match="too long"):
                await site.logto.flows.finish_sign_in(query, pending)
    finally:
        await asyncio.to_thread(stopped.run_until_complete, end())
        stopped.close()
    # The loop was closed in the middle of the exchange: that is an outcome too.
    with pytest.raises(IssuerUnavailable, match="interrupted"):
        await site.logto.flows.finish_sign_in(query, pending)
    assert first[0].done()


async def test_state_of_a_failed_exchange_is_spent(make_site: MakeSite) -> None:
    """Its code went to the issuer: whoever comes again gets the same answer, and no second exchange."""
    site = make_site()
    query, pending = await call_back(site)
    site.provider.fail_next("token", status=400, body={"error": "invalid_grant"})
    for _ in range(2):
        site.clock.move(40)
        with pytest.raises(LogtoError):
            await site.logto.flows.finish_sign_in(query, pending)
    assert site.provider.requests.count("token") == 1


async def test_sign_out_with_an_old_state_revokes_the_newest_token(make_site: MakeSite) -> None:
    """A refresh may have rotated it since that cookie was written."""
    site, network = behind(make_site({"rotate": "always"}))
    _, session = await signed_in(site)
    newest, _ = await site.logto.tokens.get(session, force_refresh=True)
    await site.logto.flows.sign_out(session)
    assert [form["token"] for form in network.forms["/token/revocation"]] == [newest.refresh_token]
    assert newest.refresh_token != session.refresh_token


async def test_sign_out_elsewhere_before_a_refresh_is_saved_revokes_its_token(make_site: MakeSite) -> None:
    """The store was away when a token was refreshed; before it is saved, the visitor signs out in another process."""
    store = FaultyStore()
    site, network = behind(make_site({"rotate": "always"}, store=store))
    elsewhere = Logto(site.config, store=store, http_client=issuer_client(site.provider), clock=site.clock)
    session = await site.logto.flows.finish_sign_in(*await call_back(site))

    async def away_after_the_mark(name: str) -> None:
        if name == "set" and store.count("set") == marked + 1:
            store.go_down()

    marked = store.count("set") + 1
    store.before = away_after_the_mark
    newest, _ = await site.logto.tokens.get(session, force_refresh=True)
    assert newest.refresh_token != session.refresh_token
    store.come_back()
    await elsewhere.flows.sign_out(session)
    async with asyncio.timeout(10):
        while not network.forms.get("/token/revocation"):
            await asyncio.sleep(0.01)
    assert [form["token"] for form in network.forms["/token/revocation"]] == [newest.refresh_token]
    assert site.logto.counts["refresh.discarded"] == 1


async def test_beginnings_and_ends_of_sessions_are_told(make_site: MakeSite) -> None:
    """Each once, with its reason."""
    events: list[tuple[str, object]] = []
    site = make_site(
        prompt="login consent", on_event=lambda event: events.append((event.name, event.facts.get("reason")))
    )
    visitor = await site.visitor()
    await visitor.sign_in()
    await visitor.sign_in("bob")
    await visitor.sign_out()
    assert events == [
        ("session.started", None),
        ("session.started", None),
        ("session.ended", "replaced"),
        ("session.ended", "sign_out"),
    ]


async def test_outcome_whose_session_has_ended_is_not_shared(site: Site) -> None:
    """Signed out within the minute: a second call-back of the same state does not sign in again."""
    query, pending = await call_back(site)
    session = await site.logto.flows.finish_sign_in(query, pending)
    assert await site.logto.flows.finish_sign_in(query, pending) == session
    await site.logto.flows.sign_out(session)
    with pytest.raises(AttemptNotFound, match="has ended"):
        await site.logto.flows.finish_sign_in(query, pending)


@pytest.mark.parametrize("brings", ["another", "none"])
async def test_outcome_is_shared_with_the_same_code_only(site: Site, brings: str) -> None:
    """Whoever knows the state and the attempt's cookie, but not the code, is not signed in as somebody else."""
    query, pending = await call_back(site)
    other = [(name, value) for name, value in query if name != "code"]
    if brings == "another":
        other.append(("code", "another"))
    first = asyncio.create_task(site.logto.flows.finish_sign_in(query, pending))
    await asyncio.sleep(0)
    with pytest.raises(AttemptNotFound):
        await site.logto.flows.finish_sign_in(other, pending)
    session = await first
    with pytest.raises(AttemptNotFound):
        await site.logto.flows.finish_sign_in(other, pending)
    assert await site.logto.flows.finish_sign_in(query, pending) == session


async def test_back_button_after_a_sign_out_does_not_sign_in(site: Site) -> None:
    """The same for a browser that kept the attempt's cookie: a page, and nobody is signed in."""
    visitor = await site.visitor()
    address = await come_back(visitor, await start(visitor))
    copy = await site.visitor(cookies=visitor.cookies)
    await visitor.navigate(address)
    await visitor.post("/logto/sign-out")
    page = await copy.navigate(address)
    assert (page.status_code, "attempt_not_found" in page.text) == (400, True)
    assert (await copy.get("/")).json() == {"sub": None}


async def test_second_call_back_of_a_signed_in_browser_keeps_its_session(site: Site) -> None:
    """A reload that already carries the session which the first call-back made does not replace it by itself."""
    visitor = await site.visitor()
    address = await come_back(visitor, await start(visitor))
    before = httpx.Cookies(visitor.cookies)
    await visitor.navigate(address)
    for cookie in before.jar:
        visitor.cookies.jar.set_cookie(cookie)
    assert (await visitor.navigate(address, follow_redirects=False)).status_code == 303
    assert (await visitor.get("/")).json() == {"sub": "alice"}
    assert site.provider.requests.count("revocation") == 0


async def test_call_back_that_carries_a_bearer_token_signs_in(site: Site) -> None:
    """A proxy may add an Authorization header of its own; the sign-in begins a session all the same."""
    visitor = await site.visitor()
    address = await come_back(visitor, await start(visitor))
    proxied = {**NAVIGATION, "Authorization": "Bearer of-the-proxy"}
    assert (await visitor.get(address, headers=proxied)).status_code == 303
    assert (await visitor.get("/")).json() == {"sub": "alice"}


async def test_sign_out_at_a_silent_issuer_goes_on_to_its_page(
    make_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the revocation does not come back in time, the browser is sent to the end-session endpoint all the same."""
    monkeypatch.setattr("logto_asgi.flows._SIGN_OUT_BUDGET", 0.01)
    site, network = behind(make_site())
    visitor, session = await signed_in(site)

    async def for_ever(request: httpx.Request, forward: Forward) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    network.step_in("/token/revocation", for_ever)
    outcome = await site.logto.flows.sign_out(session)
    assert outcome.issuer_known
    assert (outcome.end_session_url or "").startswith(f"{site.provider.issuer}/session/end?")
    assert (await visitor.get("/")).json() == {"sub": None}


async def test_sign_out_without_an_end_session_page_leads_home(make_site: MakeSite) -> None:
    """An issuer need not have one: the visitor lands on `post_sign_out_path` at once."""
    site, network = behind(make_site(post_sign_out_path="/untouched"))
    network.step_in("/.well-known/openid-configuration", without("end_session_endpoint"))
    visitor, _ = await signed_in(site)
    response = await visitor.post("/logto/sign-out")
    assert (response.status_code, response.headers["location"]) == (303, "http://localhost:8000/untouched")
    assert (await visitor.get("/")).json() == {"sub": None}

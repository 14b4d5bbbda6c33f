"""The way in and out: sign-in, call-back, sign-out, as a browser, a program and a stranger see them."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from logto_asgi import Logto, LogtoConfig, SignInOptions
from logto_asgi.testing import DevelopmentProvider
from logto_asgi.testing.visitor import NAVIGATION, Visitor, development_config, issuer_client
from tests.conftest import MakeSite, Site, build_app


def asked(response: httpx.Response) -> dict[str, list[str]]:
    """Return the parameters of an authorization request that a redirect carries."""
    return parse_qs(urlsplit(response.headers["location"]).query)


async def start(visitor: Visitor, query: str = "", **headers: str) -> httpx.Response:
    """Open the sign-in route as a browser, and stay on its answer."""
    return await visitor.navigate(f"/logto/sign-in{query}", headers=headers, follow_redirects=False)


async def come_back(visitor: Visitor, first: httpx.Response, sub: str = "alice") -> str:
    """Sign in at the provider from a started attempt and return the call-back's address."""
    answer = await visitor.navigate(first.headers["location"], follow_redirects=False)
    while not answer.headers.get("location", "").startswith("http://localhost:8000/"):
        if answer.is_redirect:
            answer = await visitor.navigate(answer.headers["location"], follow_redirects=False)
        else:
            answer = await visitor.post(answer.url, data={"sub": sub}, headers=NAVIGATION)
    return str(answer.headers["location"])


async def test_sign_in_ends_where_it_began(site: Site) -> None:
    """A visitor who signs in from a page comes back to it, as the user."""
    visitor = await site.visitor()
    page = await visitor.sign_in("alice", path="/me")
    assert page.status_code == 200
    assert str(page.url) == "http://localhost:8000/me"
    assert page.json()["claims"]["sub"] == "alice"


async def test_authorization_request_has_every_protection(site: Site) -> None:
    """PKCE S256, state, nonce and Logto's consent prompt are in every request; sign-in answers 302."""
    response = await start(await site.visitor())
    query = asked(response)
    assert response.status_code == 302
    assert query["code_challenge_method"] == ["S256"]
    assert query["prompt"] == ["consent"]
    assert query["scope"] == ["openid offline_access profile"]
    assert all(len(query[name][0]) >= 43 for name in ("state", "nonce", "code_challenge"))


async def test_sign_up_opens_the_register_page(site: Site) -> None:
    """`sign-up` asks Logto for its register screen first."""
    visitor = await site.visitor()
    response = await visitor.navigate("/logto/sign-up", follow_redirects=False)
    assert asked(response)["first_screen"] == ["register"]


async def test_nothing_else_of_the_query_reaches_the_issuer(site: Site) -> None:
    """Only the allow-listed options travel; a redirect_uri, a scope or an unknown name does not."""
    response = await start(
        await site.visitor(),
        "?redirect_uri=https://evil.example&scope=all&claims=x&max_age=-1&prompt=none&login_hint=a@b.example"
        "&ui_locales=fr&first_screen=register&direct_sign_in=social:google&identifiers=email,phone,nonsense",
    )
    query = asked(response)
    assert query["redirect_uri"] == [site.config.redirect_uri]
    assert query["scope"] == ["openid offline_access profile"]
    assert query["prompt"] == ["consent"]
    assert "claims" not in query
    assert "max_age" not in query
    assert query["login_hint"] == ["a@b.example"]
    assert query["ui_locales"] == ["fr"]
    assert query["first_screen"] == ["register"]
    assert query["direct_sign_in"] == ["social:google"]
    assert query["identifier"] == ["email phone"]


@pytest.mark.parametrize(
    "query", ["?first_screen=consent", "?direct_sign_in=javascript:x", "?ui_locales=%0D%0A", "?login_hint=a%0Ab"]
)
async def test_option_of_another_shape_is_ignored(site: Site, query: str) -> None:
    """One invalid first_screen would void all of Logto's parameters, so it never leaves."""
    name = query[1:].partition("=")[0]
    assert name not in asked(await start(await site.visitor(), query))


async def test_sign_in_options_may_be_a_callable_of_the_request(make_site: MakeSite) -> None:
    """The app decides per request, and the request's own options go on top."""

    def options(request: Any) -> SignInOptions:
        return SignInOptions(ui_locales=request.headers["accept-language"], login_hint="nobody", max_age=300)

    site = make_site(sign_in_options=options)
    query = asked(await start(await site.visitor(), "?login_hint=me", **{"Accept-Language": "de"}))
    assert (query["ui_locales"], query["login_hint"], query["max_age"]) == (["de"], ["me"], ["300"])


async def test_sign_in_options_may_be_a_value(make_site: MakeSite) -> None:
    """Extra parameters are sent too."""
    site = make_site(sign_in_options=SignInOptions(extra_params={"theme": "dark"}))
    assert asked(await start(await site.visitor()))["theme"] == ["dark"]


@pytest.mark.parametrize(
    ("prompt", "sent"),
    [(None, "consent"), ("login", "login consent"), ("none", "none"), ("login consent", "login consent")],
)
async def test_prompt_keeps_the_refresh_token(make_site: MakeSite, prompt: str | None, sent: str) -> None:
    """Logto gives no refresh token without `consent`, so it is added to a prompt that lacks it."""
    site = make_site(sign_in_options=SignInOptions(prompt=prompt))
    assert asked(await start(await site.visitor()))["prompt"] == [sent]


async def test_sign_in_options_that_break_the_protocol_are_explained(make_site: MakeSite) -> None:
    """A developer's mistake is an error that names the setting, not a traceback."""
    site = make_site(sign_in_options=lambda request: SignInOptions(extra_params={"state": "x"}))
    response = await (await site.visitor()).get("/logto/sign-in")
    assert response.status_code == 500
    assert response.json()["code"] == "setup_incomplete"
    assert "sign_in_options" in response.json()["detail"]


@pytest.mark.parametrize(
    ("query", "target"),
    [
        ("", "/"),
        ("?return_to=/me?tab=2", "/me?tab=2"),
        ("?return_to=https://evil.example/", "/"),
        ("?return_to=//evil.example/", "/"),
        ("?return_to=/%09/evil.example", "/"),
        ("?return_to=/logto/sign-out", "/"),
        ("?return_to=/" + "a" * 1100, "/"),
        ("?next=/me", "/me"),
        ("?next=http://localhost:8000/me", "/me"),
        ("?next=http://evil.example/me", "/"),
    ],
)
async def test_visitor_comes_back_to_this_site_only(site: Site, query: str, target: str) -> None:
    """`return_to` and `next` lead to a path on base_url; anything else leads home."""
    visitor = await site.visitor()
    address = await come_back(visitor, await start(visitor, query))
    response = await visitor.navigate(address, follow_redirects=False)
    assert response.status_code == 303
    assert response.headers["location"] == "http://localhost:8000" + target


@pytest.mark.parametrize("headers", [{"Sec-Purpose": "prefetch"}, {"Purpose": "prefetch"}, {"X-Moz": "prefetch"}])
@pytest.mark.parametrize("name", ["sign-in", "sign-up", "sign-in-callback", "sign-out"])
async def test_prefetch_starts_nothing(site: Site, name: str, headers: dict[str, str]) -> None:
    """A browser that asks ahead gets 204: no attempt, no sign-out."""
    visitor = await site.visitor()
    await visitor.sign_in()
    response = await visitor.navigate(f"/logto/{name}", headers=headers, follow_redirects=False)
    assert response.status_code == 204
    assert "set-cookie" not in response.headers
    assert (await visitor.get("/")).json() == {"sub": "alice"}


@pytest.mark.parametrize("name", ["sign-in", "sign-up", "sign-in-callback", "sign-out"])
async def test_head_starts_nothing(site: Site, name: str) -> None:
    """HEAD answers 204 and changes nothing."""
    visitor = await site.visitor()
    await visitor.sign_in()
    assert (await visitor.head(f"/logto/{name}")).status_code == 204
    assert (await visitor.get("/")).json() == {"sub": "alice"}


@pytest.mark.parametrize(
    ("name", "method", "allowed"),
    [
        ("sign-in", "PUT", {"GET", "HEAD", "POST"}),
        ("sign-in-callback", "POST", {"GET", "HEAD"}),
        ("sign-out", "DELETE", {"GET", "HEAD", "POST"}),
    ],
)
async def test_other_methods_are_405_with_allow(site: Site, name: str, method: str, allowed: set[str]) -> None:
    """A method that a route does not have is 405, and `Allow` names those it has (RFC 9110 §15.5.6)."""
    response = await (await site.visitor()).request(method, f"/logto/{name}")
    assert response.status_code == 405
    assert {each.strip() for each in response.headers["allow"].split(",")} == allowed


@pytest.mark.parametrize("destination", ["iframe", "image", "empty", "embed"])
async def test_sign_in_is_a_top_level_navigation(site: Site, destination: str) -> None:
    """Inside a frame, an image or a script's request no attempt starts."""
    response = await start(await site.visitor(), **{"Sec-Fetch-Dest": destination})
    assert response.status_code == 403
    assert "set-cookie" not in response.headers


async def test_posted_sign_in_of_another_site_is_refused(site: Site) -> None:
    """A form on another site cannot start a sign-in (login CSRF)."""
    visitor = await site.visitor()
    response = await visitor.post("/logto/sign-in", headers={**NAVIGATION, "Sec-Fetch-Site": "cross-site"})
    assert response.status_code == 403
    assert "set-cookie" not in response.headers


async def test_another_host_goes_to_base_url_first(site: Site) -> None:
    """127.0.0.1 is not localhost: the attempt's cookie would not be there at the call-back."""
    visitor = await site.visitor()
    response = await start(visitor, "?return_to=/me", Host="127.0.0.1:8000")
    assert response.status_code == 302
    assert response.headers["location"] == "http://localhost:8000/logto/sign-in?return_to=%2Fme&logto_host=1"
    assert "set-cookie" not in response.headers


async def test_another_host_is_warned_of_once(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """The browser goes to base_url, which may be a typing mistake: the log names it, once."""
    visitor = await site.visitor()
    for _ in range(2):
        await start(visitor, Host="127.0.0.1:8000")
    assert caplog.text.count("another host than base_url's, http://localhost:8000") == 1


async def test_proxy_that_changes_host_does_not_loop(site: Site) -> None:
    """A browser that was sent to base_url once is believed, whatever the proxy makes of Host."""
    response = await start(await site.visitor(), "?logto_host=1", Host="internal:9000")
    assert asked(response)["redirect_uri"] == [site.config.redirect_uri]


async def test_redirect_uri_never_comes_from_a_header(site: Site) -> None:
    """Host and X-Forwarded-Host decide nothing about where the code goes."""
    headers = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "Forwarded": "host=evil.example"}
    assert asked(await start(await site.visitor(), **headers))["redirect_uri"] == [site.config.redirect_uri]


async def test_two_tabs_both_succeed(site: Site) -> None:
    """Each attempt has a state of its own, so the second tab does not break the first."""
    visitor = await site.visitor()
    first, second = await start(visitor, "?return_to=/me"), await start(visitor, "?return_to=/sync")
    for attempt, target in ((second, "/sync"), (first, "/me")):
        response = await visitor.navigate(await come_back(visitor, attempt), follow_redirects=False)
        assert response.headers["location"] == "http://localhost:8000" + target
        assert (await visitor.get("/")).json() == {"sub": "alice"}
    assert (await visitor.get("/token")).status_code == 200


async def test_four_attempts_are_kept(site: Site) -> None:
    """The fifth attempt deletes the oldest."""
    visitor = await site.visitor()
    first = await start(visitor)
    for _ in range(4):
        site.clock.move(1)
        last = await start(visitor)
    assert len(visitor.cookies.jar) == 4
    stale = await visitor.navigate(await come_back(visitor, first), follow_redirects=False)
    assert "attempt_not_found" in stale.text
    fresh = await visitor.navigate(await come_back(visitor, last), follow_redirects=False)
    assert fresh.status_code == 303


async def test_attempt_ends_after_an_hour(site: Site) -> None:
    """An attempt lives as long as Logto's interaction: at 3,600 seconds it has gone, one second earlier not."""
    visitor = await site.visitor()
    early, late = await start(visitor), await start(visitor)
    address = await come_back(visitor, late)
    site.clock.move(3599)
    assert (await visitor.navigate(await come_back(visitor, early), follow_redirects=False)).status_code == 303
    stranger = await site.visitor(cookies=visitor.cookies)
    await stranger.post("/logto/sign-out")
    site.clock.move(1)
    assert "attempt_not_found" in (await stranger.navigate(address)).text


async def test_reload_of_the_call_back_leads_home_when_signed_in(site: Site) -> None:
    """The back button and a reload do no harm: the session stays, the code is not sent again."""
    visitor = await site.visitor()
    address = await come_back(visitor, await start(visitor, "?return_to=/me"))
    await visitor.navigate(address)
    again = await visitor.navigate(address, follow_redirects=False)
    assert (again.status_code, again.headers["location"]) == (303, "http://localhost:8000/")
    assert site.provider.requests.count("token", "authorization_code") == 1
    assert (await visitor.get("/")).json() == {"sub": "alice"}


async def test_reload_of_the_call_back_offers_another_try_when_not_signed_in(site: Site) -> None:
    """Without session and attempt a call-back is a friendly page, and nothing reaches the issuer."""
    visitor = await site.visitor()
    address = await come_back(visitor, await start(visitor))
    stranger = await site.visitor()
    page = await stranger.navigate(address)
    assert page.status_code == 400
    assert "Try again" in page.text
    assert "allow them for this site" in page.text
    assert site.provider.requests.count("token") == 0


async def test_stolen_state_is_of_no_use_in_another_browser(site: Site) -> None:
    """The state is bound to the browser that began: an attacker's code does not sign a victim in."""
    attacker, victim = await site.visitor(), await site.visitor()
    await start(victim)
    address = await come_back(attacker, await start(attacker), "bob")
    await victim.navigate(address)
    assert (await victim.get("/")).json() == {"sub": None}


async def test_second_call_back_of_a_state_gets_the_first_ones_outcome(site: Site) -> None:
    """A browser that reloads before the first answer arrived is signed in, and the code is exchanged once."""
    visitor = await site.visitor()
    address = await come_back(visitor, await start(visitor, "?return_to=/me"))
    copy = await site.visitor(cookies=visitor.cookies)
    for each in (visitor, copy):
        response = await each.navigate(address, follow_redirects=False)
        assert response.headers["location"] == "http://localhost:8000/me"
        assert (await each.get("/")).json() == {"sub": "alice"}
    assert site.provider.requests.count("token", "authorization_code") == 1


async def test_outcome_is_shared_for_a_minute_only(site: Site) -> None:
    """After 60 seconds a second call-back is a stale one."""
    visitor = await site.visitor()
    address = await come_back(visitor, await start(visitor))
    copy = await site.visitor(cookies=visitor.cookies)
    await visitor.navigate(address)
    site.clock.move(61)
    assert "attempt_not_found" in (await copy.navigate(address)).text


async def test_bare_call_back_is_cancelled(site: Site) -> None:
    """Logto sends a visitor who refuses consent home without parameters: that is no error."""
    page = await (await site.visitor()).navigate("/logto/sign-in-callback")
    assert page.status_code == 200
    assert "cancelled" in page.text


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        ("access_denied", 200, "cancelled"),
        ("login_required", 400, "not signed in there"),
        ("temporarily_unavailable", 400, "busy"),
        ("something_new", 400, "a reason that we do not know"),
    ],
)
async def test_errors_of_the_issuer_are_explained_in_our_words(site: Site, error: str, status: int, words: str) -> None:
    """The page depends on the error code; the issuer's description is never shown."""
    visitor = await site.visitor()
    state = asked(await start(visitor))["state"][0]
    query = {"error": error, "error_description": "<b>call 555</b>", "state": state, "iss": site.config.issuer}
    page = await visitor.navigate(f"/logto/sign-in-callback?{httpx.QueryParams(query)}")
    assert page.status_code == status
    assert words in page.text
    assert "555" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


CALL_BACK_REFUSALS: list[tuple[str, dict[str, Any]]] = [
    ("wrong issuer", {"iss": "https://evil.example/oidc"}),
    ("issuer missing", {"iss": None}),
    ("code and error", {"error": "access_denied"}),
    ("neither code nor error", {"code": None}),
    ("repeated code", {"code": ["a", "b"]}),
    ("repeated issuer", {"iss": ["http://localhost:3001/oidc", "http://localhost:3001/oidc"]}),
    ("repeated state", {"state": 2}),
    ("another state", {"state": "x" * 43}),
    ("state missing", {"state": None}),
]


@pytest.mark.parametrize("change", [change for _, change in CALL_BACK_REFUSALS], ids=[n for n, _ in CALL_BACK_REFUSALS])
async def test_call_back_is_refused(site: Site, change: dict[str, Any]) -> None:
    """A call-back that breaks a rule signs nobody in, and its code reaches nobody."""
    visitor = await site.visitor()
    address = httpx.URL(await come_back(visitor, await start(visitor)))
    query = {**dict(address.params), **change}
    if query.get("state") == 2:
        query["state"] = [address.params["state"]] * 2
    kept = {name: value for name, value in query.items() if value is not None}
    page = await visitor.navigate(str(address.copy_with(params=kept)))
    assert page.status_code == 400
    assert (await visitor.get("/")).json() == {"sub": None}
    assert site.provider.requests.count("token") == 0


async def test_failed_call_back_leaves_the_session_alone(site: Site) -> None:
    """A sign-in that fails while somebody is signed in changes nothing."""
    visitor = await site.visitor()
    await visitor.sign_in()
    state = asked(await start(visitor))["state"][0]
    page = await visitor.navigate(f"/logto/sign-in-callback?error=server_error&state={state}&iss={site.config.issuer}")
    assert "still signed in" in page.text
    assert (await visitor.get("/")).json() == {"sub": "alice"}


async def test_attempt_is_consumed_whatever_the_outcome(site: Site) -> None:
    """After a failure the same state is unknown."""
    visitor = await site.visitor()
    state = asked(await start(visitor))["state"][0]
    address = f"/logto/sign-in-callback?error=server_error&state={state}&iss={site.config.issuer}"
    await visitor.navigate(address)
    assert not [cookie for cookie in visitor.cookies.jar if "tries" not in cookie.name]
    assert "attempt_not_found" in (await visitor.navigate(address)).text


async def test_wrong_secret_is_not_called_a_failed_check(site: Site) -> None:
    """Where the issuer refuses the app itself, the page says so, and says who can mend it."""
    visitor = await site.visitor()
    address = await come_back(visitor, await start(visitor))
    site.provider.fail_next("token", status=401, body={"error": "invalid_client"})
    page = await visitor.navigate(address)
    assert page.status_code == 502
    assert "does not accept this app" in page.text
    assert "issuer_refused" in page.text


async def test_issuer_that_is_down_at_the_call_back_is_a_page_with_retry_after(site: Site) -> None:
    """An outage is nobody's fault: 503, and the visitor may try again."""
    visitor = await site.visitor()
    address = await come_back(visitor, await start(visitor))
    site.provider.fail_next("token", status=503)
    page = await visitor.navigate(address)
    assert page.status_code == 503
    assert "retry-after" in page.headers
    assert "Try again" in page.text


async def test_issuer_that_is_down_at_sign_in_is_a_page(site: Site) -> None:
    """Without discovery there is nowhere to go: a page says so."""
    site.provider.fail_next("discovery", status=500)
    page = await start(await site.visitor(), "?return_to=/me")
    assert page.status_code == 503
    assert "can&#x27;t reach the sign-in service" in page.text
    assert "still signed in" not in page.text
    assert 'href="http://localhost:8000/logto/sign-in?return_to=/me"' in page.text


async def test_browser_that_loses_its_session_is_stopped_after_three_rounds(site: Site) -> None:
    """A session cookie that never comes back would loop for ever, because the issuer asks nothing any more."""
    visitor = await site.visitor()
    for _ in range(3):
        await visitor.navigate(await come_back(visitor, await start(visitor)), follow_redirects=False)
        for cookie in list(visitor.cookies.jar):
            if cookie.domain.startswith("localhost") and cookie.name.count("_") == 1 and "logto" in cookie.name:
                visitor.cookies.jar.clear(cookie.domain, cookie.path, cookie.name)
    page = await start(visitor, "?return_to=/me")
    assert page.status_code == 400
    assert "does not keep the session" in page.text
    assert "logto_retry=1" in page.text
    assert (await start(visitor, "?return_to=/me&logto_retry=1")).status_code == 302


async def test_person_who_signs_in_and_out_quickly_is_no_loop(site: Site) -> None:
    """A sign-out shows that the session came back, so the count starts anew."""
    visitor = await site.visitor()
    for _ in range(5):
        assert (await visitor.sign_in()).json() == {"sub": "alice"}
        await visitor.sign_out()


async def test_person_who_signs_in_again_and_again_is_no_loop(site: Site) -> None:
    """Nor is a new sign-in of somebody who is signed in."""
    visitor = await site.visitor()
    for _ in range(5):
        assert (await visitor.sign_in()).json() == {"sub": "alice"}


async def test_sign_in_makes_a_new_session_and_ends_the_old(make_site: MakeSite) -> None:
    """A cookie from before a sign-in as somebody else opens nothing any more, and its refresh token is revoked."""
    site = make_site(sign_in_options=SignInOptions(prompt="login consent"))
    visitor = await site.visitor()
    await visitor.sign_in("alice")
    before = await site.visitor(cookies=visitor.cookies)
    assert (await before.get("/")).json() == {"sub": "alice"}
    await visitor.sign_in("bob")
    assert (await visitor.get("/")).json() == {"sub": "bob"}
    assert (await before.get("/")).json() == {"sub": None}
    assert site.provider.requests.count("revocation") == 1
    assert (await visitor.get("/token")).status_code == 200


async def test_replaced_session_is_revoked_by_its_newest_token(make_site: MakeSite) -> None:
    """Another tab may have refreshed the old session while its browser signed in as somebody else."""
    site = make_site({"rotate": "always"})
    sessions = {}
    for sub in ("alice", "bob"):
        visitor = await site.visitor()
        await visitor.sign_in(sub)
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in visitor.cookies.jar)
        sessions[sub] = site.logto.sessions.load([(b"cookie", cookies.encode())]).session
    newest, _ = await site.logto.tokens.get(sessions["alice"], force_refresh=True)
    issued = site.provider._core.storage.refresh_tokens
    assert issued.pop(sessions["alice"].refresh_token)  # This issuer forgets what was spent.
    await site.logto.flows.replace(sessions["alice"], sessions["bob"])
    assert issued[newest.refresh_token].grant.revoked
    assert not issued[sessions["bob"].refresh_token].grant.revoked


async def test_signing_in_again_as_the_same_user_keeps_the_grant(site: Site) -> None:
    """At Logto the sessions of one user share a grant; revoking the old token would end the new session too."""
    visitor = await site.visitor()
    await visitor.sign_in("alice")
    await visitor.sign_in("alice")
    assert site.provider.requests.count("revocation") == 0
    assert (await visitor.get("/token")).status_code == 200


async def test_sign_out_ends_everything(site: Site) -> None:
    """The session here, the refresh token, and the browser goes to the issuer's end-session endpoint and back."""
    visitor = await site.visitor()
    await visitor.sign_in()
    copy = await site.visitor(cookies=visitor.cookies)
    page = await visitor.sign_out()
    assert str(page.url).startswith(("http://localhost:8000/", site.provider.issuer))
    assert (await visitor.get("/")).json() == {"sub": None}
    assert (await copy.get("/")).json() == {"sub": None}
    assert site.provider.requests.counts()["revocation"] == 1
    assert site.provider.requests.counts()["end_session"] == 1


async def test_sign_out_sends_client_id_and_no_claims(site: Site) -> None:
    """Logto takes client_id, so no ID token travels in an address."""
    visitor = await site.visitor()
    await visitor.sign_in()
    response = await visitor.post("/logto/sign-out", headers={"Sec-Fetch-Site": "same-origin"})
    query = parse_qs(urlsplit(response.headers["location"]).query)
    assert response.status_code == 303
    assert query == {"client_id": ["app"], "post_logout_redirect_uri": ["http://localhost:8000/"]}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("site_header", ["cross-site", "same-site"])
async def test_another_site_signs_nobody_out(site: Site, method: str, site_header: str) -> None:
    """A link, an image or a form elsewhere gets a page that asks, and the session stays."""
    visitor = await site.visitor()
    await visitor.sign_in()
    headers = {**NAVIGATION, "Sec-Fetch-Site": site_header, "Origin": "https://evil.example"}
    page = await visitor.request(method, "/logto/sign-out", headers=headers)
    assert page.status_code == (200 if method == "GET" else 403)
    assert "Sign out?" in page.text
    assert (await visitor.get("/")).json() == {"sub": "alice"}


async def test_image_on_a_page_of_this_site_signs_nobody_out(site: Site) -> None:
    """Same-origin is not enough: `<img src="/logto/sign-out">` in a comment is no navigation."""
    visitor = await site.visitor()
    await visitor.sign_in()
    headers = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    assert "Sign out?" in (await visitor.get("/logto/sign-out", headers=headers)).text
    assert (await visitor.get("/")).json() == {"sub": "alice"}


async def test_sign_out_works_with_the_issuer_down(site: Site) -> None:
    """Local first: the revocation fails, the session is gone all the same."""
    visitor = await site.visitor()
    await visitor.sign_in()
    site.provider.fail_next("revocation", status=503)
    response = await visitor.post("/logto/sign-out")
    assert response.status_code == 303
    assert (await visitor.get("/")).json() == {"sub": None}


async def test_sign_out_without_discovery_says_what_is_left(make_site: MakeSite) -> None:
    """Signed out here, still signed in at the issuer: the page says so."""
    site = make_site()
    visitor = await site.visitor()
    await visitor.sign_in()
    fresh = make_site(cookie_secret=[secret.get_secret_value() for secret in site.config.cookie_secrets])
    for _ in range(3):
        fresh.provider.fail_next("discovery", status=503)
    other = await fresh.visitor(cookies=visitor.cookies)
    page = await other.post("/logto/sign-out")
    assert page.status_code == 200
    assert "still signed in there" in page.text
    assert (await other.get("/")).json() == {"sub": None}


async def test_pages_and_redirects_are_never_stored(site: Site) -> None:
    """Every answer of the auth routes says no-store."""
    visitor = await site.visitor()
    for path in ("/logto/sign-in", "/logto/sign-in-callback", "/logto/sign-in-callback?state=x", "/logto/sign-out"):
        response = await visitor.navigate(path, follow_redirects=False)
        assert "no-store" in response.headers["cache-control"], path


class TestOneTimeToken:
    """A magic link could be somebody else's: it waits for the visitor's word, and is off by default."""

    LINK = "?one_time_token=abc123&login_hint=alice@example.com"

    async def test_off_by_default(self, site: Site) -> None:
        """The token is ignored."""
        assert "one_time_token" not in asked(await start(await site.visitor(), self.LINK))

    async def test_confirm_asks_first(self, make_site: MakeSite) -> None:
        """GET shows who the link is for; the form's POST starts."""
        site = make_site(one_time_token="confirm")
        visitor = await site.visitor()
        page = await start(visitor, self.LINK)
        assert page.status_code == 200
        assert "Continue as alice@example.com" in page.text
        assert "http://localhost:3001" in page.headers["content-security-policy"]
        form = {"one_time_token": "abc123", "login_hint": "alice@example.com"}
        headers = {**NAVIGATION, "Sec-Fetch-Site": "same-origin"}
        response = await visitor.post("/logto/sign-in", data=form, headers=headers)
        assert response.status_code == 303
        assert asked(response)["one_time_token"] == ["abc123"]

    async def test_form_returns_to_the_page_of_the_link(self, make_site: MakeSite) -> None:
        """The page's form repeats the link's `return_to`, which is checked as in a link."""
        site = make_site(one_time_token="confirm")
        for path, page in (("/me", "/me"), ("https://evil.example/", "/")):
            visitor = await site.visitor()
            token = site.provider.one_time_token("alice")
            form = {"one_time_token": token, "login_hint": "alice@example.com", "return_to": path}
            response = await visitor.post("/logto/sign-in", data=form, headers=NAVIGATION, follow_redirects=True)
            assert str(response.url) == f"http://localhost:8000{page}"

    async def test_posted_from_another_site_is_refused(self, make_site: MakeSite) -> None:
        """Another site's form cannot press the button."""
        site = make_site(one_time_token="confirm")
        headers = {**NAVIGATION, "Sec-Fetch-Site": "cross-site"}
        response = await (await site.visitor()).post("/logto/sign-in", data={"one_time_token": "a"}, headers=headers)
        assert response.status_code == 403

    async def test_explicit_setting_starts_at_once(self, make_site: MakeSite) -> None:
        """The unsafe choice has an unsafe name."""
        site = make_site(one_time_token="dangerously_start_at_once")
        assert asked(await start(await site.visitor(), self.LINK))["one_time_token"] == ["abc123"]


class TestOtherApps:
    """What is not the default: an app without a secret, and an issuer that is no Logto."""

    async def test_public_app(self, make_site: MakeSite) -> None:
        """Without a secret an app signs in, refreshes and signs out; PKCE alone protects it."""
        site = make_site(app_secret=None)
        visitor = await site.visitor()
        assert (await visitor.sign_in(path="/me")).status_code == 200
        site.clock.move(3700)
        assert (await visitor.get("/token")).status_code == 200
        assert site.refreshes() == 1
        await visitor.sign_out()
        assert (await visitor.get("/")).json() == {"sub": None}

    async def test_other_issuer(self) -> None:
        """It is asked nothing that only Logto knows, and is told by a hint who signs out."""
        provider = DevelopmentProvider(issuer="http://localhost:3001/op")
        registered = development_config(provider, endpoint="http://localhost:3001")
        config = LogtoConfig(
            issuer=provider.issuer,
            app_id=registered.app_id,
            app_secret=registered.app_secret,
            base_url=registered.base_url,
            cookie_secret=registered.cookie_secrets,
        )
        app = build_app(Logto(config, http_client=issuer_client(provider)))
        async with Visitor(app, provider, config=config) as visitor:
            first = await start(visitor, "?first_screen=register&direct_sign_in=social:google&login_hint=bob")
            assert asked(first).keys() & {"prompt", "resource", "first_screen", "direct_sign_in"} == set()
            assert asked(first)["login_hint"] == ["bob"]
            page = await visitor.sign_in(path="/me")
            assert page.json()["claims"]["iss"] == "http://localhost:3001/op"
            headers = {"Sec-Fetch-Site": "same-origin"}
            leaving = await visitor.navigate("/logto/sign-out", headers=headers, follow_redirects=False)
            assert leaving.headers["location"].startswith("http://localhost:3001/op/session/end?")
            assert asked(leaving)["id_token_hint"][0].count(".") == 2

"""A real browser signs in to a real app through a real OpenID provider.

App and provider are on different sites (127.0.0.1 and localhost), as in production: cookies do not mix, and SameSite
and Sec-Fetch-Site mean something.

A click may return while the browser is still on its way: what is read next is waited for, by its heading or address.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from e2e_app import World


def sign_in(page: Any, world: World, name: str = "Alice Example", path: str = "/logto/sign-in") -> None:
    """Go to a path that leads to the provider, sign in there, and wait until the app has the visitor back."""
    page.goto(world.url + path)
    page.get_by_role("button", name=name).click()
    page.wait_for_url(f"{world.config.base_url}/**")


def sign_out(page: Any, world: World) -> None:
    """Sign out through the provider, whose page sends itself on, and wait for the app's home page."""
    page.goto(world.url + "/logto/sign-out")
    page.wait_for_url(world.url + "/")
    shows(page, "Hello, stranger")


def shows(page: Any, heading: str) -> None:
    """Wait for the page with this heading."""
    from playwright.sync_api import expect  # not above: these tests step aside where it is missing

    expect(page.locator("h1")).to_have_text(heading, timeout=20_000)


def at_provider(page: Any, world: World) -> None:
    """Wait for the provider's sign-in page."""
    page.wait_for_url(world.provider.endpoint + "/**")
    page.get_by_role("button", name="Alice Example").wait_for()


def session_cookies(page: Any, world: World) -> list[dict[str, Any]]:
    """Return the app's session cookies: one, or one for each chunk."""
    names = {world.cookie_name, *(f"{world.cookie_name}.{number}" for number in range(1, 9))}
    return [cookie for cookie in page.context.cookies(world.url) if cookie["name"] in names]


def fetch_json(page: Any, path: str, times: int = 1) -> list[Any]:
    """Let the page's own script fetch a path so often at once. Return status and body of each.

    Past the cache, or Chrome would send requests for one address one after the other.
    """
    script = """([path, times]) => Promise.all(Array.from({length: times}, async () => {
        const answer = await fetch(path, {cache: 'no-store'}); return [answer.status, await answer.json()]; }))"""
    return page.evaluate(script, [path, times])


def test_sign_in(world, page):
    """A visitor signs in at the provider and is greeted by name; the session cookie is HttpOnly and Lax."""
    here = world()
    page.goto(here.url)
    shows(page, "Hello, stranger")

    page.get_by_role("link", name="Sign in").click()
    at_provider(page, here)
    page.get_by_role("button", name="Alice Example").click()

    shows(page, "Hello, Alice Example")
    (cookie,) = session_cookies(page, here)
    assert page.url == here.url + "/"
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Lax", "/")
    assert page.evaluate("document.cookie") == ""


def test_what_the_provider_was_asked(world, page):
    """The authorization request holds PKCE, state and nonce, Logto's consent prompt, nothing of the query."""
    here = world()

    page.goto(here.url + "/logto/sign-in?redirect_uri=https://evil.example&scope=all&login_hint=a@example.com")

    (request,) = here.provider.authorizations()
    asked = dict(request)
    assert len(asked) == len(request)
    assert asked["redirect_uri"] == here.config.redirect_uri
    assert asked["scope"].split() == ["openid", "offline_access", "profile", "email", "read:items"]
    assert (asked["prompt"], asked["code_challenge_method"], asked["login_hint"]) == (
        "consent",
        "S256",
        "a@example.com",
    )
    assert min(len(asked[name]) for name in ("state", "nonce", "code_challenge")) >= 43


def test_sign_up(world, page):
    """Sign-up opens the provider's page for new users, and the new user is signed in."""
    here = world()
    page.goto(here.url)

    page.get_by_role("link", name="Sign up").click()
    page.get_by_label("Name").fill("Nina <i>New</i>")
    page.get_by_role("button", name="Create account").click()

    shows(page, "Hello, Nina <i>New</i>")


def test_a_guarded_page_and_back(world, page):
    """Who opens a guarded page signs in and lands on that page, its query included."""
    here = world()

    sign_in(page, here, path="/profile?tab=2&q=a%20b")

    shows(page, "Profile of Alice Example")
    assert page.url == here.url + "/profile?tab=2&q=a%20b"


def test_two_tabs(world, new_context):
    """Two tabs that both went to the provider both get where they wanted."""
    here, context = world(), new_context()
    first, second = context.new_page(), context.new_page()
    first.goto(here.url + "/profile?tab=first")
    second.goto(here.url + "/profile?tab=second")

    for tab in (second, first):
        tab.get_by_role("button", name="Alice Example").click()
        shows(tab, "Profile of Alice Example")

    assert (first.url, second.url) == (here.url + "/profile?tab=first", here.url + "/profile?tab=second")
    first.goto(here.url)
    shows(first, "Hello, Alice Example")


def test_the_back_button(world, page):
    """Back to the provider's page and forward again: still signed in, and no error of ours on the way."""
    here = world()
    page.goto(here.url)
    page.get_by_role("link", name="Sign in").click()
    page.get_by_role("button", name="Alice Example").click()
    page.wait_for_url(here.url + "/")
    shows(page, "Hello, Alice Example")

    page.evaluate("() => { setTimeout(() => history.back()) }")
    page.wait_for_url(here.provider.endpoint + "/**")
    shows(page, "This sign-in has expired")  # the provider's word, not ours
    page.evaluate("() => { setTimeout(() => history.forward()) }")
    page.wait_for_url(here.url + "/")

    shows(page, "Hello, Alice Example")
    page.reload()
    shows(page, "Hello, Alice Example")


def test_a_reload_of_the_callback_leads_home(world, page):
    """The call-back's address opened once more: home, still signed in, and the token endpoint is not asked again."""
    here = world()
    callback = sign_in_and_note_the_callback(page, here)

    page.goto(callback)

    shows(page, "Hello, Alice Example")
    assert page.url == here.url + "/"
    assert here.provider.counts()["token"] == 1


def test_a_stolen_callback_signs_nobody_in(world, page, new_context):
    """Another browser that opens the call-back's address sees a friendly page, and can sign in from there."""
    here, other = world(), new_context().new_page()
    callback = sign_in_and_note_the_callback(page, here)

    other.goto(callback)
    shows(other, "This sign-in can't be finished")
    assert session_cookies(other, here) == []
    other.get_by_role("link", name="Try again").click()
    other.get_by_role("button", name="Bob").click()

    shows(other, "Hello, Bob <b>Example</b>")


def sign_in_and_note_the_callback(page: Any, here: World) -> str:
    seen: list[str] = []
    page.on("request", lambda request: seen.append(request.url) if "/sign-in-callback" in request.url else None)
    sign_in(page, here)
    shows(page, "Hello, Alice Example")
    (callback,) = seen
    return callback


def test_an_access_token_is_refreshed_once_for_all(world, page):
    """Six requests with an expired access token cause one refresh; the rotated session lives on and refreshes again."""
    here = world(ROTATE="always", REUSE_GRACE=0, ACCESS_TOKEN_TTL=300)
    sign_in(page, here)
    (_, before), *_ = fetch_json(page, "/token")
    (_, same), *_ = fetch_json(page, "/token")
    here.provider.reset()

    here.provider.delay("token", milliseconds=500, times=6)  # so that all six are there before the first is answered
    here.clock.ahead += 290
    answers = fetch_json(page, "/token", times=6)
    refreshes = here.provider.counts()["token:refresh_token"]
    here.clock.ahead += 290
    (last,) = fetch_json(page, "/token")

    fingerprints = {body["fingerprint"] for _, body in answers}
    assert same == before
    assert [status for status, _ in answers] == [200] * 6
    assert len(fingerprints) == 1
    assert before["fingerprint"] not in fingerprints
    assert refreshes == 1
    assert last[0] == 200
    assert last[1]["fingerprint"] not in fingerprints
    page.reload()
    shows(page, "Hello, Alice Example")


def test_a_restarted_app_goes_on_with_rotated_tokens(world, page):
    """What a refresh changed has reached the browser: a new process, which remembers nothing, refreshes from there."""
    here = world(ROTATE="always", REUSE_GRACE=0, ACCESS_TOKEN_TTL=300)
    sign_in(page, here)
    fetch_json(page, "/token")
    here.clock.ahead += 290
    fetch_json(page, "/token")
    here.clock.ahead += 290

    here.restart()

    assert fetch_json(page, "/token")[0][0] == 200
    page.reload()
    shows(page, "Hello, Alice Example")


def test_userinfo(world, page):
    """The userinfo endpoint is asked with the opaque token, and its answer reaches the page."""
    here = world(options={"scopes": ("email", "custom_data")})
    sign_in(page, here)

    ((status, info),) = fetch_json(page, "/info")

    assert (status, info["sub"], info["custom_data"]) == (200, "alice", {"theme": "dark"})


def test_a_suspended_user_must_sign_in_again(world, page):
    """When the issuer refuses the refresh, the session is over: 401 for the script, the provider for a navigation."""
    here = world(ACCESS_TOKEN_TTL=300)
    sign_in(page, here)
    fetch_json(page, "/token")
    here.provider.suspend("alice")
    here.clock.ahead += 290

    ((status, body),) = fetch_json(page, "/token")
    page.goto(here.url)

    assert (status, body["code"]) == (401, "session_ended")
    shows(page, "Hello, stranger")
    here.clock.ahead += 300  # a dead cookie is deleted a while later, when no response of before is under way any more
    page.goto(here.url)
    assert session_cookies(page, here) == []


def test_large_claims_are_spread_over_cookies(world, page):
    """Claims beyond one cookie come back whole from several, and sign-out removes all of them."""
    here = world(BIG_CLAIMS_BYTES=4000)

    sign_in(page, here, "Bea With-Many-Claims", path="/profile")

    shows(page, "Profile of Bea With-Many-Claims")
    chunks = session_cookies(page, here)
    assert len(chunks) == 2
    assert all(len(chunk["name"] + chunk["value"]) < 4096 for chunk in chunks)
    sign_out(page, here)
    assert session_cookies(page, here) == []


def test_a_smaller_session_leaves_no_chunk_behind(world, page):
    """Signing in as somebody with few claims after somebody with many leaves one cookie."""
    here = world(BIG_CLAIMS_BYTES=4000, options={"prompt": "login consent"})
    sign_in(page, here, "Bea With-Many-Claims")

    sign_in(page, here, "Alice Example")

    shows(page, "Hello, Alice Example")
    assert len(session_cookies(page, here)) == 1


def test_claims_that_fit_no_cookie_are_explained(world, page):
    """Claims larger than all cookies of a host give a page that says so, not a loop and not a blank error."""
    here = world()

    sign_in(page, here, "Max Too-Large")

    shows(page, "Your account holds more than fits here")
    assert session_cookies(page, here) == []


def test_https(world, page, tls):
    """Over https the session's cookie is `__Host-`, Secure, and all of the way works."""
    here = world(tls=tls)

    sign_in(page, here, path="/profile")

    shows(page, "Profile of Alice Example")
    (cookie,) = session_cookies(page, here)
    assert cookie["name"].startswith("__Host-")
    assert (cookie["secure"], cookie["httpOnly"], cookie["path"]) == (True, True, "/")
    sign_out(page, here)
    assert session_cookies(page, here) == []


def test_an_rsa_tenant(world, page):
    """A provider that signs with RS256, and whose key has no `alg`, signs in as well."""
    here = world(SIGNING_KEY="RSA")

    sign_in(page, here)

    shows(page, "Hello, Alice Example")


def test_keys_that_rotate_between_two_sign_ins(world, page, new_context):
    """A key that the app has not seen yet is fetched once, and the sign-in goes through."""
    here, other = world(), new_context().new_page()
    sign_in(page, here)
    here.provider.rotate_keys()
    here.clock.ahead += 5  # keys are not fetched again within a second

    sign_in(other, here, "Bob")

    shows(other, "Hello, Bob <b>Example</b>")
    assert here.provider.counts()["jwks"] == 2


def test_sign_out(world, page):
    """Sign-out ends the session here and at the provider, revokes the refresh token, and comes back."""
    here = world()
    sign_in(page, here)
    old = session_cookies(page, here)

    page.get_by_role("link", name="Sign out").click()

    shows(page, "Hello, stranger")
    assert page.url == here.url + "/"
    assert session_cookies(page, here) == []
    assert here.provider.counts()["token/revocation"] == 1
    page.context.add_cookies(old)
    page.reload()
    shows(page, "Hello, stranger")  # a cookie from before does not bring the session back
    page.goto(here.url + "/profile")
    at_provider(page, here)  # which asks again


@pytest.mark.parametrize("third_party", [False, True])
def test_cancelled(world, page, third_party):
    """Who turns back at the provider reads that nothing happened, and can try again from there."""
    here = world(metadata={"third_party": third_party})
    page.goto(here.url + "/logto/sign-in")
    if third_party:  # cancels the consent, and comes back to the bare call-back
        page.get_by_role("button", name="Alice Example").click()
        shows(page, "Allow the-app?")

    page.get_by_role("button", name="Cancel").click()

    shows(page, "Sign-in was cancelled")
    assert session_cookies(page, here) == []
    page.get_by_role("link", name="Sign in").click()
    page.wait_for_url(here.provider.endpoint + "/**")
    shows(page, "Allow the-app?" if third_party else "Sign in")  # whoever saw the consent is signed in there


def test_the_issuer_is_down_before_sign_in(world, page):
    """With the issuer away sign-in shows a page of ours with 503, and works as soon as it is back."""
    here = world()
    here.provider.down()

    answer = page.goto(here.url + "/logto/sign-in")

    assert answer.status == 503
    shows(page, "We can't reach the sign-in service")
    here.provider.up()
    sign_in(page, here)
    shows(page, "Hello, Alice Example")


def test_try_again_after_an_outage(world, page):
    """That page claims nothing about who is signed in, and its "Try again" starts the sign-in that was wanted."""
    here = world()
    here.provider.down()
    page.goto(here.url + "/logto/sign-in?return_to=/profile")
    text = page.locator("main").inner_text()

    here.provider.up()
    page.get_by_role("link", name="Try again").click()

    assert "still signed in" not in text
    at_provider(page, here)
    page.get_by_role("button", name="Alice Example").click()
    shows(page, "Profile of Alice Example")


def test_the_issuer_is_down_while_signed_in(world, page):
    """An outage signs nobody out: pages go on, a token that needs a refresh is 503 until the issuer is back."""
    here = world(ACCESS_TOKEN_TTL=300)
    sign_in(page, here)
    fetch_json(page, "/token")
    here.clock.ahead += 290
    here.provider.down()

    ((status, body),) = fetch_json(page, "/token")
    page.goto(here.url + "/profile")

    assert (status, body["code"]) == (503, "issuer_unavailable")
    shows(page, "Profile of Alice Example")
    here.provider.up()
    assert fetch_json(page, "/token")[0][0] == 200


def test_sign_out_with_the_issuer_down(world, page):
    """Sign-out works without the issuer, and says that the session there goes on."""
    here = world()
    sign_in(page, here)
    here.restart()  # so that discovery is not known either
    here.provider.down()

    page.goto(here.url + "/logto/sign-out")

    shows(page, "You are signed out here")
    assert session_cookies(page, here) == []


def test_another_site_signs_nobody_out(world, page, serve):
    """A form, a link and an image on another site do nothing; the link's page asks, and its button then signs out."""
    here = world()
    evil = serve(
        static(f"""<img src="{here.url}/logto/sign-out">
        <form method="post" action="{here.url}/logto/sign-out"><button>Win</button></form>
        <form method="post" action="{here.url}/save"><button>Save</button></form>
        <a href="{here.url}/logto/sign-out">Look</a>""")
    ).replace("127.0.0.1", "localhost")
    sign_in(page, here)

    page.goto(evil)
    page.get_by_role("button", name="Win").click()
    shows(page, "Sign out?")
    page.goto(evil)
    with page.expect_navigation() as saving:
        page.get_by_role("button", name="Save").click()
    assert saving.value.status == 401
    assert here.saved == []
    page.goto(here.url)
    shows(page, "Hello, Alice Example")

    page.goto(evil)
    page.get_by_role("link", name="Look").click()
    shows(page, "Sign out?")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(here.url + "/")
    shows(page, "Hello, stranger")


def test_another_origin_of_the_same_site_changes_nothing(world, page, serve):
    """From another port of the host the browser sends the cookie along: the guard refuses, and sign-out asks."""
    here = world()
    sibling = serve(
        static(f"""<form method="post" action="{here.url}/logto/sign-out"><button>Win</button></form>
        <form method="post" action="{here.url}/save"><button>Save</button></form>""")
    )
    sign_in(page, here)

    page.goto(sibling)
    with page.expect_navigation() as saving:
        page.get_by_role("button", name="Save").click()
    page.goto(sibling)
    page.get_by_role("button", name="Win").click()

    assert saving.value.status == 403
    assert here.saved == []
    shows(page, "Sign out?")
    page.goto(here.url)
    shows(page, "Hello, Alice Example")
    assert page.evaluate("fetch('/save', {method: 'POST'}).then(answer => answer.status)") == 200
    assert here.saved == ["alice"]


def test_websocket(world, page, new_context, serve):
    """The page's own WebSocket knows the user; one that another site opens is nobody."""
    here = world()
    sign_in(page, here)
    evil = serve(static("<h1>Evil</h1>"))
    script = """url => new Promise((done, fail) => { const socket = new WebSocket(url);
        socket.onmessage = event => done(event.data); socket.onerror = fail; })"""
    address = here.url.replace("http", "ws", 1) + "/socket"

    own = page.evaluate(script, address)
    page.goto(evil)  # another port, same site: the browser sends the cookie along
    foreign = page.evaluate(script, address)

    assert (own, foreign) == ("alice", "nobody")


def test_without_javascript(world, new_context):
    """The whole way, sign-in to sign-out, works in a browser without scripts."""
    here, page = world(), new_context(java_script_enabled=False).new_page()

    sign_in(page, here, path="/profile")
    shows(page, "Profile of Alice Example")
    page.goto(here.url + "/logto/sign-out")
    page.get_by_role("button", name="Sign out").click()

    shows(page, "Hello, stranger")


def test_keyboard_only(world, page):
    """Our own pages can be used with Tab and Enter alone, and show where the focus is."""
    here = world()
    page.goto(here.url + "/logto/sign-in")
    page.get_by_role("button", name="Cancel").press("Enter")
    shows(page, "Sign-in was cancelled")

    page.keyboard.press("Tab")
    focused = page.locator(":focus-visible")
    outline = focused.evaluate("element => getComputedStyle(element).outlineStyle")
    label = focused.inner_text()
    page.keyboard.press("Enter")
    at_provider(page, here)

    assert (label, outline) == ("Sign in", "solid")
    page.get_by_role("button", name="Alice Example").press("Enter")
    shows(page, "Hello, Alice Example")
    assert page.url == here.url + "/"


@pytest.mark.parametrize(("proxy", "root_path"), [("strip", ""), ("strip", "/shop"), ("keep", "")])
def test_behind_a_proxy_with_a_base_path(world, page, proxy, root_path):
    """At /shop behind a proxy, which strips that or not, guarded page, sign-in, way back and sign-out stay there."""
    here = world(base_path="/shop", proxy=proxy, root_path=root_path)

    sign_in(page, here, path="/profile?tab=2")

    shows(page, "Profile of Alice Example")
    assert page.url == here.url + "/profile?tab=2"
    sign_out(page, here)


def test_signing_in_and_out_again_and_again(world, page):
    """Four quick rounds of sign-in and sign-out work: what stops a redirect loop does not stop a person."""
    here = world()

    for _ in range(4):
        sign_in(page, here)
        shows(page, "Hello, Alice Example")
        sign_out(page, here)


def test_the_wrong_name_of_the_host_is_put_right(world, page):
    """Who opens the app as localhost although base_url says 127.0.0.1 is signed in at base_url, without a loop."""
    here = world()

    sign_in(page, replace(here, url=here.url.replace("127.0.0.1", "localhost")))

    shows(page, "Hello, Alice Example")
    assert page.url == here.url + "/"


def test_no_secret_reaches_the_address_bar_or_the_page(world, page):
    """After the call-back neither code nor state is in the address, the history's entry or the page."""
    here = world()
    callback = sign_in_and_note_the_callback(page, here)
    secrets = [value for name, value in parse_qsl(urlsplit(callback).query) if name in ("code", "state")]

    assert len(secrets) == 2
    assert not any(secret in page.content() + page.url for secret in secrets)
    assert page.evaluate("document.referrer").find("code=") < 0


def static(body: str) -> Any:
    """Return an app that answers every request with one page."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        headers = [(b"content-type", b"text/html; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": f"<!DOCTYPE html><body>{body}".encode()})

    return app

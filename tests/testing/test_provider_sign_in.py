"""Facts about the authorization endpoint of the development provider, and about its pages."""

from __future__ import annotations

import re

import pytest
from provider_visitor import CALLBACK, EVERYTHING, SHOP, Visitor, back, decode

from logto_asgi.testing import Client, DemoUser, DevelopmentProvider

ISSUER = "http://localhost:3001/oidc"


def test_a_click_on_a_demo_user_signs_in(visit):
    """The page lists the users, names the app and the warning; a click leads back with code, state and iss."""
    visitor = visit()
    page = visitor.authorize()
    assert page.status_code == 200
    for text in ("Alice Martin", "bob@example.com", "Shop", "http://localhost:8000", "not for production"):
        assert text in page.text

    answer = back(visitor.click(page, sub="alice"))

    assert (answer["state"], answer["iss"]) == ("the-state", ISSUER)
    assert decode(visitor.exchange(answer["code"]).json()["id_token"])["sub"] == "alice"


def test_a_second_app_signs_in_without_a_page(visit):
    """The provider's own session spares the second app, and the second attempt, the page."""
    first = visit()
    first.click(first.authorize(), sub="bob")
    second = visit("spa", first.provider)
    second.http.cookies = first.http.cookies

    assert decode(second.exchange(back(second.authorize())["code"]).json()["id_token"])["sub"] == "bob"


def test_the_session_cookie_is_for_the_provider_alone(visit):
    """It is HttpOnly and Lax, and its name has the port, because cookies of localhost know none."""
    visitor = visit()
    page = visitor.authorize()
    target = re.search(r'action="([^"]+)"', page.text)
    cookie = visitor.http.post(target[1], data={"sub": "alice"}).headers["set-cookie"]

    assert cookie.startswith("logto_development_3001=")
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie


def test_a_session_ends_by_age(visit, clock):
    """After its two weeks the browser is asked again."""
    visitor = visit()
    visitor.code()
    clock.now += 14 * 86400 - 1
    assert visitor.authorize().status_code == 303
    clock.now += 1
    assert visitor.authorize().status_code == 200


def test_register_makes_a_user(visit):
    """first_screen=register shows the form; name and e-mail make a user with claims of its own."""
    visitor = visit()
    page = visitor.authorize(first_screen="register")
    assert "Create an account" in page.text

    answer = back(visitor.click(page, action="register", name="Dana Öz", email="dana@example.com"))

    claims = decode(visitor.exchange(answer["code"]).json()["id_token"])
    assert (claims["name"], claims["email"]) == ("Dana Öz", "dana@example.com")
    assert re.fullmatch("[a-z0-9]{12}", claims["sub"])
    assert visitor.provider.users[-1].sub == claims["sub"]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"name": " ", "email": "d@example.com"}, "Enter a name."),
        ({"name": "Dana", "email": "dana"}, "Enter an e-mail address"),
        ({"name": "Dana", "email": "d ana@x"}, "Enter an e-mail address"),
        ({"name": "Dana", "email": "alice@example.com"}, "an account with this address"),
    ],
)
def test_register_says_what_is_wrong(visit, fields, problem):
    """A faulty form comes back with its values, and the field is marked for screen readers."""
    visitor = visit()
    page = visitor.click(visitor.authorize(first_screen="register"), action="register", **fields)
    assert problem in page.text
    assert 'aria-invalid="true"' in page.text
    assert f'value="{fields["email"]}"' in page.text
    assert len(visitor.provider.users) == 3


@pytest.mark.parametrize("hint", ["alice", "ALICE@example.com"])
def test_a_login_hint_signs_in(visit, hint):
    """A hint that is somebody's sub, user name or e-mail needs no page."""
    assert "code" in back(visit().authorize(login_hint=hint))


def test_a_login_hint_can_be_only_a_hint(visit):
    """With login_hint_signs_in off the page is shown, as Logto would; an unknown hint shows it anyway."""
    assert visit(login_hint_signs_in=False).authorize(login_hint="alice").status_code == 200
    assert visit().authorize(login_hint="nobody").status_code == 200


def test_cancel_in_a_first_party_app(visit):
    """The app gets access_denied with state and iss."""
    visitor = visit()
    answer = back(visitor.click(visitor.authorize(), action="cancel"))
    assert (answer["error"], answer["state"], answer["iss"]) == ("access_denied", "the-state", ISSUER)


def test_cancel_in_a_third_party_app(visit):
    """The app gets its bare redirect URI, from the sign-in page and from the consent page."""
    visitor = visit("guest")
    assert visitor.click(visitor.authorize(), action="cancel").headers["location"] == CALLBACK
    consent = visitor.authorize(login_hint="alice")
    assert visitor.click(consent, action="cancel").headers["location"] == CALLBACK


def test_consent_is_asked_for_third_party_apps_only(visit):
    """It names the app and the scopes, is asked once, and again when prompt says consent."""
    visitor = visit("guest")
    page = visitor.click(visitor.authorize(prompt=None), sub="alice")
    assert "Allow access?" in page.text
    assert "read:items" in page.text
    assert "code" in back(visitor.click(page, action="allow"))
    assert "code" in back(visitor.authorize(prompt=None))
    assert "Allow access?" in visitor.authorize(prompt="consent").text


def test_consent_needs_its_button(visit):
    """A form without the button's value shows the page again."""
    visitor = visit("guest")
    page = visitor.authorize(login_hint="alice")
    assert "Allow access?" in visitor.click(page, sub="bob").text


def test_a_page_works_once(visit):
    """After the sign-in its page is over; so is one that was left open for an hour."""
    visitor = visit()
    page = visitor.authorize()
    visitor.click(page, sub="alice")
    again = visitor.click(page, sub="alice")
    assert again.status_code == 400
    assert "interaction_not_found" in again.text


def test_a_page_is_over_after_an_hour(visit, clock):
    """The interaction lives 3600 seconds."""
    visitor = visit()
    page = visitor.authorize()
    clock.now += 3600
    assert visitor.click(page, sub="alice").status_code == 400


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"client_id": "nobody"}, "invalid_client"),
        ({"client_id": None}, "invalid_client"),
        ({"client_id": ["web", "web"]}, "invalid_request"),
        ({"redirect_uri": None}, "invalid_request"),
        ({"redirect_uri": [CALLBACK, CALLBACK]}, "invalid_request"),
        ({"redirect_uri": CALLBACK + "/"}, "invalid_redirect_uri"),
        ({"redirect_uri": CALLBACK.replace("localhost", "127.0.0.1")}, "invalid_redirect_uri"),
        ({"redirect_uri": CALLBACK.replace("8000", "8001")}, "invalid_redirect_uri"),
        ({"redirect_uri": CALLBACK + "?a=1"}, "invalid_redirect_uri"),
        ({"redirect_uri": CALLBACK.upper()}, "invalid_redirect_uri"),
    ],
)
def test_without_a_known_app_and_address_there_is_no_redirect(visit, changes, text):
    """An unknown app or address gets an error page of the provider."""
    page = visit().authorize(**changes)
    assert page.status_code == 400
    assert f'<p class="detail">{text}</p>' in page.text


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": None}, "invalid_request"),
        ({"response_type": "id_token"}, "unsupported_response_type"),
        ({"response_type": "code id_token"}, "unsupported_response_type"),
        ({"response_mode": "jwt"}, "invalid_request"),
        ({"nonce": ["a", "b"]}, "invalid_request"),
        ({"scope": ["openid", "profile"]}, "invalid_request"),
        ({"first_screen": ["register", "sign_in"]}, "invalid_request"),
        ({"prompt": "select_account"}, "invalid_request"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"max_age": "-1"}, "invalid_request"),
        ({"max_age": "soon"}, "invalid_request"),
        ({"max_age": "٣"}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge": "x" * 129}, "invalid_request"),
        ({"code_challenge": "ü" * 43}, "invalid_request"),
        ({"resource": "no-uri"}, "invalid_target"),
        ({"resource": SHOP + "#part"}, "invalid_target"),
        ({"resource": "https://unknown.example.com"}, "invalid_target"),
        ({"resource": [SHOP, "https://unknown.example.com"]}, "invalid_target"),
        ({"prompt": "none"}, "login_required"),
    ],
)
def test_a_refused_request_goes_back_with_an_error(visit, changes, error):
    """The error carries state and iss (RFC 6749 §4.1.2.1, RFC 9207 §2)."""
    answer = back(visit().authorize(**changes))
    assert (answer["error"], answer["state"], answer["iss"]) == (error, "the-state", ISSUER)
    assert answer["error_description"]


def test_a_public_app_needs_pkce(visit):
    """Without a challenge it is refused; a confidential app may go without."""
    without = {"code_challenge": None, "code_challenge_method": None, "login_hint": "alice"}
    assert back(visit("spa").authorize(**without))["error"] == "invalid_request"
    assert "code" in back(visit("web").authorize(**without))


def test_prompt_none_with_a_session(visit):
    """It succeeds silently for a first-party app and says consent_required for a third-party one."""
    visitor = visit()
    visitor.code()
    assert "code" in back(visitor.authorize(prompt="none"))
    visitor.app_id = "guest"
    assert back(visitor.authorize(prompt="none"))["error"] == "consent_required"


@pytest.mark.parametrize("changes", [{"prompt": "login"}, {"prompt": "login consent"}, {"max_age": "59"}])
def test_a_fresh_sign_in_can_be_asked(visit, clock, changes):
    """prompt=login and an age above max_age ask again in spite of the session, and auth_time says when."""
    visitor = visit()
    visitor.code()
    clock.now += 60
    page = visitor.authorize(**changes)
    assert page.status_code == 200
    code = back(visitor.click(page, sub="alice"))["code"]
    assert decode(visitor.exchange(code).json()["id_token"])["auth_time"] == clock.now


@pytest.mark.parametrize("changes", [{"max_age": "600"}, {"prompt": "login consent"}])
def test_a_refresh_keeps_auth_time(visit, clock, changes):
    """A refreshed ID token says when the user signed in, never when it was refreshed, and says so every time."""
    visitor = visit()
    code = back(visitor.click(visitor.authorize(**changes), sub="alice"))["code"]
    token, signed_in_at = visitor.exchange(code).json()["refresh_token"], clock.now
    for _ in range(2):
        clock.now += 1000
        assert decode(visitor.refresh(token).json()["id_token"])["auth_time"] == signed_in_at
    plain = visitor.tokens()["refresh_token"]
    assert "auth_time" not in decode(visitor.refresh(plain).json()["id_token"])


def test_max_age_passes_a_young_session(visit, clock):
    """A session of 60 seconds passes max_age=60, and the ID token tells its age; without max_age it does not."""
    visitor = visit()
    visitor.code()
    clock.now += 60
    claims = decode(visitor.tokens(max_age="60")["id_token"])
    assert claims["auth_time"] == clock.now - 60
    assert "auth_time" not in decode(visitor.tokens()["id_token"])


def test_another_persons_hint_asks_again(visit):
    """An id_token_hint for somebody else than the session's user is login_required with prompt=none."""
    visitor = visit()
    visitor.code("alice")
    theirs = visitor.provider.mint_id_token("bob")
    assert back(visitor.authorize(prompt="none", id_token_hint=theirs))["error"] == "login_required"
    ours = visitor.provider.mint_id_token("alice")
    assert "code" in back(visitor.authorize(prompt="none", id_token_hint=ours))


@pytest.mark.parametrize(
    ("screen", "shown"),
    [
        ("register", "Create account"),
        ("identifier:register", "Create account"),
        ("sign_in", "Alice Martin"),
        ("single_sign_on", "Alice Martin"),
        ("sign_up", "Alice Martin"),
        ("Register", "Alice Martin"),
    ],
)
def test_first_screen(visit, screen, shown):
    """A valid screen is shown first; an invalid one is ignored."""
    assert shown in visit().authorize(first_screen=screen).text


def test_an_invalid_first_screen_voids_the_other_parameters_of_logto(visit):
    """A magic link works, and the same link with a wrong first_screen shows the sign-in page."""
    visitor = visit(login_hint_signs_in=False)
    link = {"login_hint": "zoe@example.com", "one_time_token": visitor.provider.one_time_token("zoe")}
    assert visitor.authorize(first_screen="sign_up", **link).status_code == 200
    assert "code" in back(visitor.authorize(**link))


@pytest.mark.parametrize("hint", ["alice@example.com", None])
def test_a_one_time_token_is_for_one_address_and_one_use(visit, hint):
    """It needs the e-mail that it was made for, and is spent by the first try."""
    visitor = visit(login_hint_signs_in=False)
    token = visitor.provider.one_time_token("zoe")
    assert visitor.authorize(login_hint=hint, one_time_token=token).status_code == 200
    assert visitor.authorize(login_hint="zoe@example.com", one_time_token=token).status_code == 200


@pytest.mark.parametrize("prompt", [None, "login"])
def test_offline_access_is_dropped_without_prompt_consent(visit, prompt):
    """There is no error, and no refresh token."""
    tokens = visit().tokens(prompt=prompt)
    assert "refresh_token" not in tokens
    assert "offline_access" not in tokens["scope"].split()


@pytest.mark.parametrize("prompt", ["consent", "login consent"])
def test_offline_access_with_prompt_consent(visit, prompt):
    """Then there is a refresh token, and no page for a first-party app."""
    assert "refresh_token" in visit().tokens(prompt=prompt)


def test_response_modes(visit):
    """The answer comes in the fragment, or in a form that works without scripts."""
    visitor = visit()
    visitor.code()
    location = visitor.authorize(response_mode="fragment").headers["location"]
    assert location.startswith(CALLBACK + "#code=")
    page = visitor.authorize(response_mode="form_post")
    assert f'<form method="post" action="{CALLBACK}">' in page.text
    assert 'name="code"' in page.text
    assert "form-action http://localhost:8000" in page.headers["content-security-policy"]


def test_a_redirect_uri_with_a_query_keeps_it(visit):
    """The answer is added to it."""
    visitor = visit("guest")
    page = visitor.authorize(redirect_uri=CALLBACK + "?x=1", login_hint="alice")
    assert visitor.click(page, action="allow").headers["location"].startswith(CALLBACK + "?x=1&code=")


def test_the_request_may_be_posted(visit):
    """The authorization endpoint takes a form as well (OpenID Connect Core §3.1.2.1)."""
    visitor = visit()
    response = visitor.http.post("/oidc/auth", data=dict(visitor.query(login_hint="alice")))
    assert "code" in back(response)


def test_a_suspended_user_cannot_sign_in(visit):
    """The click says so, the hint shows the page, and the session is gone; let in again, it works."""
    visitor = visit()
    visitor.code("alice")
    visitor.provider.suspend("alice")
    page = visitor.authorize(login_hint="alice")
    assert 'role="alert"' in visitor.click(page, sub="alice").text
    assert 'role="alert"' in visitor.click(page, sub="nobody").text
    visitor.provider.suspend("alice", False)
    assert "code" in back(visitor.authorize(login_hint="alice"))


def test_pages_run_no_script_and_escape_names():
    """A hostile name of a user or an app stays text, and the policy allows the app's address for forms."""
    evil = "<script>alert(1)</script>"
    provider = DevelopmentProvider(
        clients=[Client("web", "x", [CALLBACK], name=evil)], users=[DemoUser('"><i>', evil, evil)]
    )
    for page in (
        Visitor(provider).authorize(),
        Visitor(provider).authorize(first_screen="register", login_hint=evil + "@"),
    ):
        assert "<script" not in page.text
        assert "<i>" not in page.text
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "form-action 'self' http://localhost:8000" in policy
        assert page.headers["cache-control"] == "no-store"


def test_an_unknown_scope_is_dropped_silently(visit):
    """Neither an error nor a grant."""
    tokens = visit().tokens(scope=EVERYTHING + " fly")
    assert "fly" not in tokens["scope"].split()

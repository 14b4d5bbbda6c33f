"""The route `token`: what a script of the app's own page gets, and everybody whom it refuses (security line 32)."""

from __future__ import annotations

import json
import logging
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from logto_asgi import Logto, LogtoConfig, MemoryStore, UserScope
from logto_asgi.oidc.peek import read_unverified_claims
from logto_asgi.routes import auth_routes
from logto_asgi.testing.visitor import Visitor, issuer_client
from tests.conftest import API, OTHER_API, MakeSite, Site, build_app
from tests.session.faulty_store import FaultyStore

OWN = "http://localhost:8000"
FETCH = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Origin": OWN}
"""What Chrome, Firefox and Safari send with a `fetch` by POST to the page's own origin."""


@pytest.fixture
def site(make_site: MakeSite) -> Site:
    """Return a site whose pages may have tokens for one of its two APIs."""
    return make_site(browser_token_resources=[API], scopes=["read:items"])


@pytest.fixture
async def visitor(site: Site) -> Visitor:
    """Return a browser that is signed in."""
    visitor = await site.visitor()
    await visitor.sign_in()
    return visitor


async def fetch(
    visitor: Visitor, data: dict[str, str] | None = None, headers: dict[str, str] | None = None, **options: Any
) -> httpx.Response:
    """Ask for a token as a script of an own page does; a header that is set to nothing is not sent."""
    sent = {name: value for name, value in {**FETCH, **(headers or {})}.items() if value}
    form = {"resource": API} if data is None and not options else data
    return await visitor.post("/logto/token", data=form, headers=sent, **options)


# -- What it gives -----------------------------------------------------------------------------------------------------


async def test_page_gets_a_token_for_its_api(site: Site, visitor: Visitor) -> None:
    """The answer has the form of RFC 6749 §5.1, and holds the access token and nothing else of the session."""
    response = await fetch(visitor)
    answer = response.json()
    assert response.status_code == 200
    assert set(answer) == {"access_token", "token_type", "expires_in", "scope"}
    assert (answer["token_type"], answer["expires_in"], answer["scope"]) == ("Bearer", 3600, "read:items")
    claims = read_unverified_claims(answer["access_token"])
    assert claims is not None
    assert (claims["aud"], claims["sub"]) == (API, "alice")


async def test_answer_is_never_stored(visitor: Visitor) -> None:
    """No cache keeps it, no other page may embed it, and no browser guesses what it is."""
    headers = (await fetch(visitor)).headers
    assert "no-store" in headers["cache-control"]
    assert headers["pragma"] == "no-cache"
    assert headers["content-type"] == "application/json"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    again = (await fetch(visitor)).headers  # without a cookie of its own this time
    assert (again["cache-control"], "set-cookie" in again) == ("no-store", False)


async def test_json_is_taken_as_well(visitor: Visitor) -> None:
    """A page may send what `JSON.stringify` gives; an organization that is null is none."""
    response = await fetch(visitor, json={"resource": API, "organization_id": None, "other": [1]})
    assert response.status_code == 200


async def test_kept_token_is_given_again(site: Site, visitor: Visitor) -> None:
    """The issuer is asked once while the token lives; `expires_in` is what is left of it."""
    first = (await fetch(visitor)).json()
    site.clock.move(100)
    second = (await fetch(visitor)).json()
    assert first["access_token"] == second["access_token"]
    assert (second["expires_in"], site.refreshes()) == (3500, 1)


async def test_expired_token_is_replaced(site: Site, visitor: Visitor) -> None:
    """Within the refresh margin the page gets a new one, with the life that the issuer gave it."""
    first = (await fetch(visitor)).json()
    site.clock.move(3541)
    second = (await fetch(visitor)).json()
    assert first["access_token"] != second["access_token"]
    assert (second["expires_in"], site.refreshes()) == (3600, 2)


async def test_session_goes_on_from_the_refresh(make_site: MakeSite) -> None:
    """The cookie that comes with the answer holds what the refresh led to: its token is given again by any process."""
    site = make_site({"rotate": "always", "grace": 0}, browser_token_resources=[API])
    visitor = await site.visitor()
    await visitor.sign_in()
    given = (await fetch(visitor)).json()["access_token"]
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in visitor.cookies.jar)
    elsewhere = Logto(site.config, http_client=issuer_client(site.provider), clock=site.clock)
    session = elsewhere.sessions.load([(b"cookie", cookies.encode())]).session
    assert session is not None
    assert session.access_tokens[API, None].value == given


async def test_sessions_in_a_store(make_site: MakeSite) -> None:
    """It works the same with sessions on the server."""
    site = make_site(browser_token_resources=[API], store=MemoryStore())
    visitor = await site.visitor()
    await visitor.sign_in()
    assert (await fetch(visitor)).status_code == 200


async def test_token_within_an_organization(make_site: MakeSite) -> None:
    """A member gets a token for the API within the organization; for another one the issuer's no is passed on."""
    site = make_site(browser_token_resources=[API], scopes=[UserScope.ORGANIZATIONS])
    visitor = await site.visitor()
    await visitor.sign_in()
    (mine, *_) = (await visitor.get("/me")).json()["organizations"]
    answer = (await fetch(visitor, {"resource": API, "organization_id": mine})).json()
    claims = read_unverified_claims(answer["access_token"])
    assert claims is not None
    assert (claims["aud"], claims["organization_id"]) == (API, mine)
    refused = await fetch(visitor, {"resource": API, "organization_id": "not-mine"})
    assert (refused.status_code, refused.json()["code"]) == (403, "access_token_refused")


# -- Where it is -------------------------------------------------------------------------------------------------------


async def test_off_by_default(make_site: MakeSite) -> None:
    """Without `browser_token_resources` there is no such route."""
    site = make_site()
    visitor = await site.visitor()
    await visitor.sign_in()
    assert (await fetch(visitor)).status_code == 404
    assert "logto:token" not in [route.name for route in auth_routes(site.config)]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "OPTIONS"])
async def test_only_post_is_answered(visitor: Visitor, method: str) -> None:
    """An address that can be linked to hands out nothing (RFC 9110 §15.5.6)."""
    response = await visitor.request(method, f"/logto/token?resource={API}", headers=FETCH)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


async def test_prefetch_gets_nothing(site: Site, visitor: Visitor) -> None:
    """What a browser asks ahead of its visitor is answered with nothing."""
    response = await fetch(visitor, headers={"Sec-Purpose": "prefetch"})
    assert (response.status_code, response.content, site.refreshes()) == (204, b"", 0)


async def test_route_under_another_prefix_is_explained(site: Site, visitor: Visitor) -> None:
    """Routes that stand elsewhere than the configuration says are the developer's mistake, as for the others."""
    site.app.mount("/api", FastAPI(routes=list(auth_routes(site.config))))
    response = await visitor.post("/api/logto/token", data={"resource": API}, headers=FETCH)
    assert response.json()["code"] == "setup_incomplete"


# -- Whom it refuses: who is not a script of this origin ---------------------------------------------------------------

FOREIGN = "https://evil.example"

NOT_OWN = {
    "cross-site": {"Sec-Fetch-Site": "cross-site", "Origin": FOREIGN},
    "same-site": {"Sec-Fetch-Site": "same-site", "Origin": "http://admin.localhost:8000"},
    "typed-address": {"Sec-Fetch-Site": "none"},
    "two-words": {"Sec-Fetch-Site": "same-origin, cross-site"},
    "other-case": {"Sec-Fetch-Site": "Same-Origin"},
    "own-origin-but-cross-site": {"Sec-Fetch-Site": "cross-site"},
    "another-origin-of-an-alias": {"Origin": "http://127.0.0.1:8000"},
    "old-browser-elsewhere": {"Sec-Fetch-Site": "", "Origin": FOREIGN},
    "old-browser-other-port": {"Sec-Fetch-Site": "", "Origin": "http://localhost:8001"},
    "old-browser-other-scheme": {"Sec-Fetch-Site": "", "Origin": "https://localhost:8000"},
    "old-browser-sandbox": {"Sec-Fetch-Site": "", "Origin": "null"},
    "old-browser-prefix": {"Sec-Fetch-Site": "", "Origin": "http://localhost:80000"},
    "trusted-origin": {"Sec-Fetch-Site": "same-site", "Origin": "https://admin.example.com"},
    "old-browser-trusted-origin": {"Sec-Fetch-Site": "", "Origin": "https://admin.example.com"},
    "no-browser": {"Sec-Fetch-Site": "", "Origin": "", "Sec-Fetch-Mode": "", "Sec-Fetch-Dest": ""},
    "referer-is-no-proof": {"Sec-Fetch-Site": "", "Origin": "", "Referer": f"{OWN}/page"},
    "form-that-was-sent": {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    "form-into-a-frame": {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
}


@pytest.fixture
def open_site(make_site: MakeSite) -> Site:
    """Return a site that allows by CORS whatever can be allowed, and trusts another origin of its own."""

    def build(logto: Logto) -> FastAPI:
        app = build_app(logto)
        app.add_middleware(
            CORSMiddleware, allow_origins=["*"], allow_credentials=True, allow_methods=["*"], allow_headers=["*"]
        )
        return app

    return make_site(browser_token_resources=[API], app=build, trusted_origins=["https://admin.example.com"])


@pytest.mark.parametrize("headers", NOT_OWN.values(), ids=NOT_OWN)
async def test_only_scripts_of_this_origin_get_a_token(open_site: Site, headers: dict[str, str]) -> None:
    """Whatever CORS allows and whomever the app trusts, nothing is fetched for anybody else."""
    visitor = await open_site.visitor()
    await visitor.sign_in()
    response = await fetch(visitor, headers=headers)
    assert (response.status_code, response.json()["code"]) == (403, "cross_site_request")
    assert "access_token" not in response.text
    assert open_site.refreshes() == 0


@pytest.mark.parametrize("headers", NOT_OWN.values(), ids=NOT_OWN)
async def test_a_token_that_is_kept_is_refused_too(open_site: Site, headers: dict[str, str]) -> None:
    """The answer does not depend on whether the session has the token already."""
    visitor = await open_site.visitor()
    await visitor.sign_in()
    kept = (await fetch(visitor)).json()["access_token"]
    assert kept not in (await fetch(visitor, headers=headers)).text


OWN_PAGE = {
    "as-browsers-send": {},
    "old-browser": {"Sec-Fetch-Site": "", "Sec-Fetch-Mode": "", "Sec-Fetch-Dest": ""},
    "without-origin": {"Origin": ""},
    "no-referrer-policy": {"Origin": "null"},
}


@pytest.mark.parametrize("headers", OWN_PAGE.values(), ids=OWN_PAGE)
async def test_own_page_gets_its_token(open_site: Site, headers: dict[str, str]) -> None:
    """Browsers without `Sec-Fetch-Site`, and pages with `Referrer-Policy: no-referrer`, are served."""
    visitor = await open_site.visitor()
    await visitor.sign_in()
    assert (await fetch(visitor, headers=headers)).status_code == 200


# -- Whom it refuses: who has no session -------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, {"Accept": "text/html"}, {"HX-Request": "true"}])
async def test_visitor_is_told_so_and_never_redirected(site: Site, headers: dict[str, str]) -> None:
    """401 in JSON with the way to sign in and back to the page, whatever the script says that it accepts."""
    visitor = await site.visitor()
    response = await fetch(visitor, headers={"Referer": f"{OWN}/me?tab=2", **headers})
    assert response.status_code == 401
    assert response.json()["code"] == "sign_in_required"
    assert response.json()["sign_in_url"] == f"{OWN}/logto/sign-in?return_to=/me%3Ftab%3D2"
    assert response.headers["www-authenticate"].startswith("Cookie ")
    assert "no-store" in response.headers["cache-control"]
    assert "hx-redirect" not in response.headers


async def test_foreign_referer_is_no_way_back(site: Site) -> None:
    """`return_to` is a page of this site or absent."""
    response = await fetch(await site.visitor(), headers={"Referer": f"{FOREIGN}/"})
    assert response.json()["sign_in_url"] == f"{OWN}/logto/sign-in"


@pytest.mark.parametrize("token", ["Bearer eyJ", "bearer", "Bearer  "])
async def test_bearer_token_is_no_session(site: Site, visitor: Visitor, token: str) -> None:
    """A bearer token decides alone, here for a no: tokens are not handed out for tokens."""
    response = await fetch(visitor, headers={"Authorization": token})
    assert (response.status_code, site.refreshes()) == (401, 0)
    own = (await fetch(visitor)).json()["access_token"]
    assert (await fetch(visitor, headers={"Authorization": f"Bearer {own}"})).status_code == 401


async def test_session_that_the_issuer_ended(site: Site, visitor: Visitor) -> None:
    """The page learns that the visitor has to sign in again."""
    site.provider.revoke("alice")
    response = await fetch(visitor)
    assert (response.status_code, response.json()["code"]) == (401, "session_ended")
    assert "sign_in_url" in response.json()


async def test_store_that_is_away_signs_nobody_out(make_site: MakeSite) -> None:
    """503 with `Retry-After`, in JSON."""
    store = FaultyStore()
    site = make_site(browser_token_resources=[API], store=store)
    visitor = await site.visitor()
    await visitor.sign_in()
    store.go_down()
    response = await fetch(visitor)
    assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
    assert response.headers["retry-after"]


async def test_issuer_that_is_down(site: Site, visitor: Visitor, caplog: pytest.LogCaptureFixture) -> None:
    """503 with `Retry-After` and a line in the log; the session goes on."""
    site.provider.fail_next("token")
    with caplog.at_level(logging.WARNING):
        response = await fetch(visitor, headers={"Accept": "text/html"})
    assert (response.status_code, response.json()["code"]) == (503, "issuer_unavailable")
    assert response.headers["retry-after"]
    assert "issuer_unavailable" in caplog.text
    assert (await fetch(visitor)).status_code == 200


# -- Whom it refuses: who asks for something else ----------------------------------------------------------------------

ASKED = {
    "nothing": ({}, "invalid_request"),
    "empty": ({"resource": ""}, "invalid_request"),
    "another-resource-of-the-app": ({"resource": OTHER_API}, "invalid_target"),
    "longer": ({"resource": API + "/"}, "invalid_target"),
    "other-case": ({"resource": API.upper()}, "invalid_target"),
    "the-organizations": ({"resource": "urn:logto:resource:organizations"}, "invalid_target"),
    "too-long": ({"resource": "https://a.example/" + "a" * 2048}, "invalid_request"),
    "organization-of-no-scope": ({"resource": API, "organization_id": "harbour"}, "invalid_request"),
    "organization-alone": ({"organization_id": "harbour"}, "invalid_request"),
}


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(("fields", "code"), ASKED.values(), ids=ASKED)
async def test_only_listed_resources(
    site: Site, visitor: Visitor, fields: dict[str, str], code: str, as_json: bool
) -> None:
    """A resource that is missing or not on the list is 400 in our words, and nothing is asked of the issuer."""
    if as_json:
        response = await fetch(visitor, json=fields)
    else:
        content = httpx.Request("POST", OWN, data=fields).content
        response = await fetch(visitor, content=content, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert (response.status_code, response.json()["code"]) == (400, code)
    assert fields.get("resource", "") in ("", API) or fields["resource"] not in response.text
    assert site.refreshes() == 0


@pytest.mark.parametrize("organization", ["a b", "ä", "a" * 257, "a\nb", "\x00"])
async def test_organization_id_that_cannot_be_one(make_site: MakeSite, organization: str) -> None:
    """It does not reach the issuer."""
    site = make_site(browser_token_resources=[API], scopes=[UserScope.ORGANIZATIONS])
    visitor = await site.visitor()
    await visitor.sign_in()
    response = await fetch(visitor, {"resource": API, "organization_id": organization})
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert site.refreshes() == 0


BODIES = {
    "twice": (f"resource={API}&resource={OTHER_API}", "application/x-www-form-urlencoded"),
    "blank-organization": (f"resource={API}&organization_id=", "application/x-www-form-urlencoded"),
    "blank-organization-in-json": (json.dumps({"resource": API, "organization_id": ""}), "application/json"),
    "blank-and-not": (f"resource={API}&resource=", "application/x-www-form-urlencoded"),
    "no-json": ("resource", "application/json"),
    "no-object": (json.dumps([API]), "application/json"),
    "twice-in-json": (f'{{"resource": "{API}", "resource": "{API}"}}', "application/json"),
    "several": (json.dumps({"resource": [API, OTHER_API]}), "application/json"),
    "number": (json.dumps({"resource": 1}), "application/json"),
    "deep": ("[" * 4000, "application/json"),
    "surrogate": ('{"resource": "\\ud800"}', "application/json"),
    "not-utf-8": (b"\xff\xfe", "application/json"),
}


@pytest.mark.parametrize(("body", "kind"), BODIES.values(), ids=BODIES)
async def test_body_that_says_nothing_clear(site: Site, visitor: Visitor, body: str | bytes, kind: str) -> None:
    """What two readers could read differently is 400."""
    response = await fetch(visitor, content=body, headers={"Content-Type": kind})
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert site.refreshes() == 0


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "text/plain; application/json", "multipart/form-data; boundary=x", "application/xml"]
)
async def test_other_kinds_of_body(site: Site, visitor: Visitor, kind: str) -> None:
    """A form or JSON, nothing that a foreign page's form could send under another name."""
    response = await fetch(visitor, content=f"resource={API}", headers={"Content-Type": kind})
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")
    assert site.refreshes() == 0


@pytest.mark.parametrize(("size", "status"), [(8192, 200), (8193, 413)])
async def test_body_of_8_kilobytes(site: Site, visitor: Visitor, size: int, status: int) -> None:
    """More is not read."""
    body = f"resource={API}&padding="
    kind = {"Content-Type": "application/x-www-form-urlencoded;charset=UTF-8"}
    response = await fetch(visitor, content=body + "a" * (size - len(body)), headers=kind)
    assert response.status_code == status


# -- Secrets -----------------------------------------------------------------------------------------------------------


async def test_no_other_token_leaves(make_site: MakeSite, caplog: pytest.LogCaptureFixture) -> None:
    """Neither refresh token nor ID token is in an answer, and no token is in a log."""
    caplog.set_level(logging.DEBUG, "logto_asgi")
    site = make_site({"rotate": "always"}, browser_token_resources=[API])
    visitor = await site.visitor()
    await visitor.sign_in()
    answer = (await fetch(visitor)).json()
    cookies = [(b"cookie", "; ".join(f"{c.name}={c.value}" for c in visitor.cookies.jar).encode())]
    session = site.logto.sessions.load(cookies).session
    assert session is not None
    assert session.refresh_token
    text = json.dumps(answer)
    assert session.refresh_token not in text
    assert "id_token" not in text
    assert answer["access_token"] not in caplog.text


def test_resources_for_the_browser_are_asked_for_at_sign_in(site: Site) -> None:
    """What the pages may have need not be named twice."""
    config = LogtoConfig(
        endpoint="https://tenant.logto.example", app_id="a", app_secret="b" * 20, base_url=OWN,
        cookie_secret="kT3-vQ8zYw1LpRb6NfXe0SgHu5JmDc7aOi2BqEx9tZs", browser_token_resources=[API],
    )  # fmt: skip
    assert config.resources == (API,)

"""A sign-in that must be young: what `max_age` in the query does, and that a refresh makes no sign-in younger."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.authentication import requires

from logto_asgi import Logto, MemoryStore, SignInOptions
from logto_asgi.testing.visitor import NAVIGATION
from tests.conftest import MakeSite, Site, build_app
from tests.network import Forward, behind

START = 1_800_000_000


async def asked(site: Site, query: str, *, form: dict[str, str] | None = None) -> list[str] | None:
    """Return the `max_age` that reaches the issuer."""
    visitor = await site.visitor()
    if form is None:
        response = await visitor.navigate(f"/logto/sign-in{query}", follow_redirects=False)
    else:
        headers = {**NAVIGATION, "Sec-Fetch-Site": "same-origin"}
        response = await visitor.post(f"/logto/sign-in{query}", data=form, headers=headers)
    assert response.headers["location"].startswith(f"{site.provider.issuer}/auth?")
    return parse_qs(urlsplit(response.headers["location"]).query).get("max_age")


async def auth_time(visitor: httpx.AsyncClient) -> int | None:
    """Return the `auth_time` that the app sees."""
    value: int | None = (await visitor.get("/me")).json()["claims"].get("auth_time")
    return value


@pytest.mark.parametrize("age", ["0", "1", "300", "86400"])
async def test_max_age_of_the_query_reaches_the_issuer(site: Site, age: str) -> None:
    """Whole seconds up to a day are handed on (OpenID Connect Core §3.1.2.1)."""
    assert await asked(site, f"?max_age={age}") == [age]


@pytest.mark.parametrize(
    "value",
    ["", "-1", "+300", "300.0", "3e2", "86401", "999999999999", "soon", "%20300", "300%20", "%D9%A3%D9%A0", "0x1"],
)
async def test_anything_else_is_ignored(site: Site, value: str) -> None:
    """A stale or foolish link still leads to sign-in, without an age."""
    assert await asked(site, f"?max_age={value}") is None


@pytest.mark.parametrize(("query", "sent"), [("", "120"), ("?max_age=300", "120"), ("?max_age=60", "60")])
@pytest.mark.parametrize("as_callable", [False, True])
async def test_max_age_can_only_be_stricter(make_site: MakeSite, query: str, sent: str, as_callable: bool) -> None:
    """A link cannot loosen what the app asks of each sign-in."""
    options = SignInOptions(max_age=120)
    site = make_site(sign_in_options=(lambda request: options) if as_callable else options)
    assert await asked(site, query) == [sent]


@pytest.mark.parametrize(("query", "form", "sent"), [("", "60", "60"), ("?max_age=60", "300", "60"), ("", "x", None)])
async def test_max_age_may_be_posted(site: Site, query: str, form: str, sent: str | None) -> None:
    """The form that confirms a magic link repeats the link's query; the stricter of two counts."""
    assert await asked(site, query, form={"max_age": form}) == (sent and [sent])


async def test_magic_link_keeps_max_age(make_site: MakeSite) -> None:
    """The page that asks before a magic link is used hands the age on."""
    visitor = await make_site(one_time_token="confirm").visitor()
    page = await visitor.navigate("/logto/sign-in?one_time_token=a&login_hint=alice@example.com&max_age=60")
    assert '<input type="hidden" name="max_age" value="60">' in page.text


async def test_another_host_keeps_max_age(site: Site) -> None:
    """The detour over base_url loses nothing."""
    visitor = await site.visitor()
    headers = {"Host": "127.0.0.1:8000"}
    response = await visitor.navigate("/logto/sign-in?max_age=60", headers=headers, follow_redirects=False)
    assert "max_age=60" in response.headers["location"]


async def test_signed_in_visitor_signs_in_anew(site: Site) -> None:
    """Who is signed in for longer meets the issuer's page, and comes back with a session of the new sign-in."""
    visitor = await site.visitor()
    await visitor.sign_in()
    assert await auth_time(visitor) is None
    site.clock.move(600)
    page = await visitor.navigate("/logto/sign-in?max_age=300&return_to=/me")
    assert str(page.url).startswith(f"{site.provider.issuer}/interaction/")
    page = await visitor.choose(page)
    assert (page.url.path, page.json()["claims"]["auth_time"]) == ("/me", START + 600)


async def test_sign_in_that_is_young_enough_needs_no_page(site: Site) -> None:
    """The issuer answers at once, and says when the visitor really signed in."""
    visitor = await site.visitor()
    await visitor.sign_in()
    site.clock.move(200)
    page = await visitor.navigate("/logto/sign-in?max_age=300&return_to=/me")
    assert (page.url.path, page.json()["claims"]["auth_time"]) == ("/me", START)


async def test_issuer_that_ignores_max_age_does_not_pass(site: Site) -> None:
    """Without an `auth_time` that is young enough the call-back is refused, and the session stays as it was."""
    visitor = await site.visitor()
    await visitor.sign_in()
    site.clock.move(600)
    response = await visitor.navigate("/logto/sign-in?max_age=300&return_to=/me", follow_redirects=False)
    page = await visitor.navigate(response.headers["location"].replace("max_age=300", "max_age=9999"))
    assert (page.status_code, "You are still signed in as before." in page.text) == (400, True)
    assert await auth_time(visitor) is None


def with_requires(logto: Logto) -> FastAPI:
    """Return the app with a page that `@requires` a scope which nobody has."""
    app = build_app(logto)

    @app.get("/secrets")
    @requires("read:secrets", redirect="logto:sign-in")
    async def secrets(request: Request) -> str:
        return "seen"

    return app


@pytest.mark.parametrize(
    ("query", "status"), [("", 403), ("&max_age=soon", 403), ("&max_age=300", 302), ("&max_age=0", 302)]
)
async def test_max_age_is_no_loop_of_requires(make_site: MakeSite, query: str, status: int) -> None:
    """`@requires` would send a visitor around in circles; another sign-in for its age does change something."""
    site = make_site(app=with_requires)
    visitor = await site.visitor()
    await visitor.sign_in()
    address = f"/logto/sign-in?next=http://localhost:8000/secrets{query}"
    assert (await visitor.navigate(address, follow_redirects=False)).status_code == status


# -- A refresh is no sign-in -------------------------------------------------------------------------------------------


def answer_with(site: Site, auth_time: int | None) -> Any:
    """Return a step after which a refresh's ID token has this `auth_time`, or none."""

    async def step(request: httpx.Request, forward: Forward) -> httpx.Response:
        response = await forward(request)
        await response.aread()
        token = site.provider.mint_id_token("alice", auth_time=auth_time, name="Alice the Renamed")
        return httpx.Response(200, json={**response.json(), "id_token": token})

    return step


@pytest.fixture(params=["cookie", "store"])
def reached(request: pytest.FixtureRequest, make_site: MakeSite) -> Any:
    """Return a site and the network between it and its issuer, with sessions in the cookie and in a store."""
    return behind(make_site(store=MemoryStore() if request.param == "store" else None))


@pytest.mark.parametrize("given", [None, START + 601, START + 1], ids=["dropped", "time-of-the-refresh", "other"])
@pytest.mark.parametrize(("query", "kept"), [("max_age=300", START), ("", None)], ids=["known", "unknown"])
async def test_refresh_keeps_the_time_of_the_sign_in(
    reached: Any, given: int | None, query: str, kept: int | None
) -> None:
    """`auth_time` stays that of the original authentication, and unknown where it was (Core §12.2)."""
    site, network = reached
    visitor = await site.visitor()
    await visitor.sign_in(path=f"/logto/sign-in?{query}")
    assert await auth_time(visitor) == kept
    site.clock.move(601)
    network.step_in("/token", answer_with(site, given))
    assert (await visitor.get("/token")).status_code == 200
    assert site.refreshes() == 1
    claims = (await visitor.get("/me")).json()["claims"]
    assert claims["name"] == "Alice the Renamed"
    assert claims.get("auth_time") == kept
    assert ("auth_time" in claims) is (kept is not None)

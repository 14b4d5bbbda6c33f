"""Authentication of outgoing requests: to declared origins only, once more after a 401, with httpx and httpx2."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import httpx2
import pytest
from fastapi import Depends, FastAPI

from logto_asgi import (
    ConfigurationError,
    IssuerUnavailable,
    Logto,
    LogtoConfig,
    LogtoMiddleware,
    LogtoUser,
    SessionEnded,
    SetupError,
)
from logto_asgi.fastapi import require_auth
from logto_asgi.httpx import ClientCredentialsAuth, LogtoUserAuth
from logto_asgi.oidc.peek import read_unverified_claims
from logto_asgi.testing import Client, Clock, DevelopmentProvider, issuer_client
from logto_asgi.visit import Visit
from tests.conftest import API, OTHER_API, MakeSite, Site
from tests.network import Network, behind

SECRET = "of-the-robot-4b1f0c9e7d"
ORIGIN = "https://shopping.example.com"
LIBRARIES = pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])


@dataclass
class Api:
    """The other side: keeps what came, answers what a test says, 200 unless told."""

    answers: list[Any] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)
    always: int = 200

    def client(self, library: Any, **options: Any) -> Any:
        """Return an asynchronous client of one of the libraries, whose network ends here."""

        def answer(request: Any) -> Any:
            self.requests.append(library.Request(request.method, request.url, headers=request.headers))
            status, headers = self.answers.pop(0) if self.answers else (self.always, {})
            return library.Response(status, headers=headers)

        return library.AsyncClient(transport=library.MockTransport(answer), **options)

    @property
    def tokens(self) -> list[str | None]:
        """Return what each request brought."""
        return [request.headers.get("authorization") for request in self.requests]


@pytest.fixture
def api() -> Api:
    """Return an API that takes everybody."""
    return Api()


@dataclass
class Robot:
    """A machine and its issuer."""

    clock: Clock
    provider: DevelopmentProvider
    logto: Logto

    def asked(self) -> int:
        return self.provider.requests.count("token", "client_credentials")


@pytest.fixture
async def robot() -> AsyncIterator[Robot]:
    """Return a machine that may read items of the API."""
    clock = Clock(1_800_000_000.0)
    client = Client(
        "robot", SECRET, machine=True, permissions={API: ["read:items"]}, organizations={"harbour": ["read:items"]}
    )
    provider = DevelopmentProvider(clock=clock, clients=[client], resources={API: ["read:items"]})
    config = LogtoConfig.without_sign_in(endpoint=provider.endpoint, app_id="robot", app_secret=SECRET)
    async with issuer_client(provider) as http_client, Logto(config, http_client=http_client, clock=clock) as logto:
        yield Robot(clock, provider, logto)


async def user_of(site: Site) -> LogtoUser:
    """Sign in and return the user as an endpoint sees it."""
    visitor = await site.visitor()
    await visitor.sign_in()
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in visitor.cookies.jar).encode()
    return LogtoUser(
        Visit(site.logto, {"type": "http", "method": "GET", "path": "/", "headers": [(b"cookie", cookies)]})
    )


def bearer(value: str) -> str:
    return f"Bearer {value}"


# -- What is attached --------------------------------------------------------------------------------------------------


@LIBRARIES
async def test_user_s_token_is_attached(site: Site, api: Api, library: Any) -> None:
    """Each request brings the token for its resource, refreshed when it is due."""
    user = await user_of(site)
    async with api.client(library) as client:
        for _ in range(2):
            await client.get(f"{API}/items", auth=LogtoUserAuth(user, API))
        await client.get(f"{OTHER_API}/items", auth=LogtoUserAuth(user, OTHER_API))
        site.clock.move(3600)
        await client.get(f"{API}/items", auth=LogtoUserAuth(user, API))
    assert api.tokens[0] == api.tokens[1]
    assert api.tokens[3] == bearer(await user.get_access_token(API)) != api.tokens[0]
    assert (read_unverified_claims(str(api.tokens[2])) or {})["aud"] == OTHER_API
    assert site.refreshes() == 3


@LIBRARIES
async def test_machine_s_token_is_attached(robot: Robot, api: Api, library: Any) -> None:
    """The auth object may belong to the client: one token for all its requests, with the scopes that were named."""
    auth = ClientCredentialsAuth(robot.logto, API, scopes=["read:items"])
    async with api.client(library, auth=auth, base_url=API) as client:
        await asyncio.gather(*(client.get("/items") for _ in range(20)))
    claims = read_unverified_claims(str(api.tokens[0]).removeprefix("Bearer ")) or {}
    assert (len(set(api.tokens)), robot.asked(), claims["sub"], claims["scope"]) == (1, 1, "robot", "read:items")


async def test_organization_s_token_is_attached(make_site: MakeSite, api: Api) -> None:
    """With `organization_id` it is the token for the resource within that organization."""
    site = make_site(scopes=["urn:logto:scope:organizations"])
    user = await user_of(site)
    organization = user.organizations[0]
    async with api.client(httpx) as client:
        await client.get(f"{API}/items", auth=LogtoUserAuth(user, API, organization))
        await client.get(f"{ORIGIN}/", auth=LogtoUserAuth(user, organization_id=organization, origins=[ORIGIN]))
    first, second = (read_unverified_claims(str(each).removeprefix("Bearer ")) or {} for each in api.tokens)
    assert (first["aud"], first["organization_id"]) == (API, organization)
    assert second["aud"] == f"urn:logto:organization:{organization}"


@LIBRARIES
async def test_organization_s_token_of_a_machine_is_attached(robot: Robot, api: Api, library: Any) -> None:
    """With `organization_id` it is the token for the resource within that organization, for a machine too."""
    async with api.client(library) as client:
        await client.get(f"{API}/items", auth=ClientCredentialsAuth(robot.logto, API, "harbour"))
    claims = says(api.tokens[0])
    assert (claims["aud"], claims["organization_id"], claims["sub"]) == (API, "harbour", "robot")


def says(header: object) -> dict[str, Any]:
    """Return what the token in a header says."""
    return read_unverified_claims(str(header).removeprefix("Bearer ")) or {}


class Shop:
    """An API that calls another one in its callers' names, and what went to the issuer."""

    def __init__(self, api: Api, library: Any) -> None:
        resources = {API: ["read:items"], OTHER_API: ["read:stock", "write:stock"]}
        client = Client("shop", SECRET, token_exchange=True)
        self.clock = Clock(1_800_000_000.0)
        self.provider = DevelopmentProvider(clock=self.clock, clients=[client], resources=resources)
        self.network = Network(self.provider)
        config = LogtoConfig.without_sign_in(
            endpoint=self.provider.endpoint,
            app_id="shop",
            app_secret=SECRET,
            api_resource=API,
            scopes=["read:stock", "write:stock"],
        )
        self.logto = Logto(config, http_client=httpx.AsyncClient(transport=self.network), clock=self.clock)
        self.app = FastAPI()
        self.app.add_middleware(LogtoMiddleware, logto=self.logto)
        self.options: dict[str, Any] = {}
        anybody = require_auth(accept="bearer", machines=True)
        self.app.get("/stock")(self._stock(api, library, anybody))
        self.app.get("/any-organization")(self._stock(api, library, require_auth(accept="bearer", organization="*")))

    def _stock(self, api: Api, library: Any, guard: Any) -> Any:
        async def stock(user: LogtoUser = Depends(guard)) -> int:
            async with api.client(library) as client:
                answer = await client.get(f"{OTHER_API}/items", auth=LogtoUserAuth(user, OTHER_API, **self.options))
            return int(answer.status_code)

        return stock

    def token(self, sub: str = "alice", **options: Any) -> str:
        return self.provider.mint_access_token(sub, **{"resource": API, "client_id": "phone", **options})

    async def get(self, token: str, path: str = "/stock") -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://localhost") as phone:
            return await phone.get(path, headers={"Authorization": bearer(token)})

    def forms(self) -> list[dict[str, str]]:
        return self.network.forms["/token"]


@LIBRARIES
async def test_caller_s_token_is_exchanged_and_never_passed_on(api: Api, library: Any) -> None:
    """A caller with a bearer token is acted for: the next API gets a token for it, of the same user (RFC 8693)."""
    shop = Shop(api, library)
    caller = shop.token()
    answers = [await shop.get(caller) for _ in range(3)]
    claims = says(api.tokens[0])
    assert ([answer.json() for answer in answers], len(set(api.tokens))) == ([200] * 3, 1)
    assert bearer(caller) not in api.tokens
    assert [claims[name] for name in ("sub", "aud", "client_id")] == ["alice", OTHER_API, "shop"]
    assert claims["scope"].split() == ["read:stock", "write:stock"]
    assert len(shop.forms()) == 1


@LIBRARIES
async def test_exchange_may_ask_for_less(api: Api, library: Any) -> None:
    """`scopes` limits what the other API lets the app do in the caller's name; none at all is possible too."""
    shop = Shop(api, library)
    for scopes in (["read:stock"], []):
        shop.options = {"scopes": scopes}
        await shop.get(shop.token())
    assert [form.get("scope") for form in shop.forms()] == ["read:stock", None]
    assert says(api.tokens[0])["scope"] == "read:stock"


async def test_session_has_no_choice_of_scopes(site: Site, api: Api) -> None:
    """A limit that would not hold is refused; anybody who is signed in has what sign-in asked for."""
    user = await user_of(site)
    async with api.client(httpx) as client:
        with pytest.raises(SetupError, match="scopes="):
            await client.get(f"{API}/items", auth=LogtoUserAuth(user, API, scopes=["read:items"]))
    assert api.requests == []


async def test_exchange_names_the_organization(api: Api) -> None:
    """With `organization_id` the caller is acted for in that organization."""
    shop = Shop(api, httpx)
    shop.options = {"organization_id": "harbour"}
    assert (await shop.get(shop.token())).json() == 200
    assert [form["organization_id"] for form in shop.forms()] == ["harbour"]
    assert says(api.tokens[0])["organization_id"] == "harbour"


@pytest.mark.parametrize("of_resource", [True, False], ids=["api-in-it", "itself"])
@pytest.mark.parametrize("asked", [None, "harbour"])
async def test_exchange_stays_in_the_caller_s_organization(api: Api, asked: str | None, of_resource: bool) -> None:
    """A token for one organization opens nothing else on the way out either, whether the app names it or not."""
    shop = Shop(api, httpx)
    shop.options = {"organization_id": asked}
    if of_resource:
        shop.app.get("/in-it")(shop._stock(api, httpx, require_auth(accept="bearer", organization="*", resource=API)))
    token = shop.token(resource=API if of_resource else None, organization_id="harbour")
    answer = await shop.get(token, "/in-it" if of_resource else "/any-organization")
    assert (answer.status_code, says(api.tokens[0]).get("organization_id")) == (200, "harbour")


async def test_exchange_for_another_organization_is_refused(api: Api) -> None:
    """The user may be a member there; this token is not for it. The issuer is not asked."""
    shop = Shop(api, httpx)
    shop.options = {"organization_id": "lighthouse"}
    answer = await shop.get(shop.token(resource=None, organization_id="harbour"), "/any-organization")
    assert (answer.status_code, answer.json()["code"], shop.forms()) == (403, "access_token_refused", [])
    assert "another organization" in answer.json()["detail"]


async def test_machine_s_token_is_not_exchanged(api: Api) -> None:
    """It stands for no user: said before Logto is asked."""
    shop = Shop(api, httpx)
    answer = await shop.get(shop.token("robot", client_id="robot"))
    assert (answer.status_code, shop.forms(), "stands for no user" in answer.json()["detail"]) == (403, [], True)


@LIBRARIES
async def test_refused_token_of_a_caller_is_exchanged_anew(api: Api, library: Any) -> None:
    """After a 401 there is a second exchange, and the other API sees another token."""
    shop = Shop(api, library)
    caller = shop.token()
    await shop.get(caller)
    shop.clock.move(10)
    api.answers = [(401, {})]
    assert (await shop.get(caller)).json() == 200
    assert (len(shop.forms()), api.tokens[0] == api.tokens[1], len(set(api.tokens))) == (2, True, 2)


@pytest.mark.parametrize(("seconds", "asked"), [(299, 1), (300, 2)])
async def test_exchanged_token_is_kept_no_longer_than_the_caller_s(api: Api, seconds: int, asked: int) -> None:
    """Its end is the one that was verified or, for an opaque token, told by introspection."""
    shop = Shop(api, httpx)
    opaque = require_auth(accept="bearer", opaque=True, clients=["phone"])
    shop.app.get("/opaque")(shop._stock(api, httpx, opaque))
    told = {"active": True, "token_type": "Bearer", "sub": "alice", "client_id": "phone"}

    async def introspection(request: httpx.Request, forward: Any) -> httpx.Response:
        return httpx.Response(200, json={**told, "iat": 1_800_000_000, "exp": 1_800_000_300})

    async def exchanged(request: httpx.Request, forward: Any) -> httpx.Response:
        token = shop.provider.mint_access_token("alice", resource=OTHER_API)
        return httpx.Response(200, json={"access_token": token, "token_type": "Bearer", "expires_in": 3600})

    for _ in range(2):
        shop.network.step_in("/token/introspection", introspection)
        shop.network.step_in("/token", exchanged)
    assert (await shop.get("opaque-token", "/opaque")).json() == 200
    shop.clock.move(seconds)
    assert (await shop.get("opaque-token", "/opaque")).status_code in (200, 401)
    assert len(shop.forms()) == asked


async def test_errors_of_an_exchange_are_answered_in_our_way(api: Api) -> None:
    """Without a guard of ours in between too: the form of the answer is the library's."""
    shop = Shop(api, httpx)
    shop.provider.add_client(Client("shop", SECRET))
    answer = await shop.get(shop.token())
    assert (answer.status_code, answer.json()["code"]) == (502, "issuer_refused")
    assert OTHER_API not in answer.text


async def test_nobody_s_request_is_not_sent(site: Site, api: Api) -> None:
    """What getting the token raises reaches the caller: here the visitor's session has ended."""
    user = await user_of(site)
    site.provider.revoke("alice")
    async with api.client(httpx) as client:
        with pytest.raises(SessionEnded):
            await client.get(f"{API}/items", auth=LogtoUserAuth(user, API))
    assert api.requests == []


# -- Where it may go ---------------------------------------------------------------------------------------------------

SAME = [
    "https://shopping.example.com",
    "https://shopping.example.com:443/x",
    "https://SHOPPING.Example.com/api?a=b",
    "HTTPS://shopping.example.com/",
    "https://name:password@shopping.example.com/",
]
ELSEWHERE = [
    "http://shopping.example.com/api",
    "https://shopping.example.com:8443/api",
    "https://shopping.example.com./api",
    "https://shopping.example.com.evil.example/api",
    "https://api.shopping.example.com/",
    "https://example.com/",
    "https://shopping.example.com@evil.example/api",
    "https://shopping.example.com\\@evil.example/",
    "https://shopping.example.com%2eevil.example/",
    "https://shopping.example.com%00.evil.example/",
    "https://ѕhopping.example.com/api",  # the first letter is Cyrillic
    "ftp://shopping.example.com/api",
    "http://localhost/api",
]


@LIBRARIES
@pytest.mark.parametrize("url", SAME)
async def test_the_same_origin_in_other_words(robot: Robot, api: Api, library: Any, url: str) -> None:
    """Case, the default port and a user name make no other origin (RFC 6454 §4)."""
    async with api.client(library) as client:
        await client.get(url, auth=ClientCredentialsAuth(robot.logto, API))
    assert str(api.tokens[0]).startswith("Bearer ey")


@LIBRARIES
@pytest.mark.parametrize("url", ELSEWHERE)
async def test_another_origin_gets_nothing(robot: Robot, api: Api, library: Any, url: str) -> None:
    """No token and no request; the error names the origin and the remedy, and no password."""
    async with api.client(library) as client:
        with pytest.raises((SetupError, library.InvalidURL)) as caught:
            await client.get(url, auth=ClientCredentialsAuth(robot.logto, API))
    assert (api.requests, robot.asked()) == ([], 0)
    if isinstance(caught.value, SetupError):
        assert f"{ORIGIN} only" in str(caught.value)
        assert "origins=[" in str(caught.value)


@LIBRARIES
async def test_international_name(robot: Robot, api: Api, library: Any) -> None:
    """A name is the same in letters and in its encoding (RFC 5891), also a name that is declared."""
    auth = ClientCredentialsAuth(robot.logto, API, origins=["https://bücher.example", "https://xn--mnchen-3ya.example"])
    async with api.client(library, auth=auth) as client:
        await client.get("https://xn--bcher-kva.example/")
        await client.get("https://BÜCHER.example/")
        await client.get("https://münchen.example/")
    assert None not in api.tokens


@LIBRARIES
async def test_declared_origins_replace_the_resource_s(robot: Robot, api: Api, library: Any) -> None:
    """The identifier of an API is often not its address; then only the addresses count. One may be plain text."""
    auth = ClientCredentialsAuth(robot.logto, API, origins=["http://stock.internal:8000/", "https://[2001:db8::1]"])
    async with api.client(library, auth=auth) as client:
        await client.get("http://stock.internal:8000/items")
        await client.get("https://[2001:db8::1]/items")
        for url in (f"{API}/items", "https://stock.internal:8000/", "http://stock.internal/"):
            with pytest.raises(SetupError, match=r"http://stock\.internal:8000, https://\[2001:db8::1\] only"):
                await client.get(url)
        await client.get(f"{API}/items", auth=ClientCredentialsAuth(robot.logto, API, origins=ORIGIN))
    assert len(api.requests) == 3


@pytest.mark.parametrize(
    "resource", ["http://localhost:8001/api", "http://127.0.0.1:8001", "http://[::1]:8001/", "http://api.localhost"]
)
def test_plain_http_to_this_computer(robot: Robot, resource: str) -> None:
    """A resource on this computer tells its origin too."""
    assert resource.removesuffix("/").removesuffix("/api") in repr(ClientCredentialsAuth(robot.logto, resource))


@pytest.mark.parametrize(
    "resource", [None, "urn:shop:stock", "http://stock.internal/api", "api://stock", "https://", "https://[::g]", "ä"]
)
def test_resource_that_tells_no_safe_address(robot: Robot, resource: str | None) -> None:
    """Then the app has to say where the API is; it hears so where the object is made."""
    with pytest.raises(ConfigurationError, match="origins=") as caught:
        ClientCredentialsAuth(robot.logto, resource)
    assert [problem.field for problem in caught.value.problems] == ["origins"]


BAD_ORIGINS = {
    "none": [],
    "a-name": ["shopping.example.com"],
    "a-path": ["https://shopping.example.com/api"],
    "a-query": ["https://shopping.example.com?"],
    "a-fragment": ["https://shopping.example.com#x"],
    "a-user": ["https://me:secret@shopping.example.com"],
    "any": ["*"],
    "any-of-a-domain": ["https://*.example.com"],
    "another-scheme": ["ftp://shopping.example.com"],
    "no-host": ["https://"],
    "a-space": ["https://shopping example.com"],
    "no-address": ["https://[::g]"],
    "one-of-two": [ORIGIN, "shopping.example.com"],
}


@pytest.mark.parametrize("origins", BAD_ORIGINS.values(), ids=BAD_ORIGINS)
def test_text_that_is_no_origin(robot: Robot, origins: list[str]) -> None:
    """A path would promise more than can be held, a star would let the token go anywhere."""
    with pytest.raises(ConfigurationError, match="origins: ") as caught:
        ClientCredentialsAuth(robot.logto, API, origins=origins)
    assert "secret" not in str(caught.value)


@LIBRARIES
@pytest.mark.parametrize("status", [302, 307, 308])
async def test_redirect_to_another_origin_goes_without_the_token(
    robot: Robot, api: Api, library: Any, status: int
) -> None:
    """Also to one with another port, or without encryption; and its 401 renews nothing."""
    await robot.logto.get_client_credentials_token(API)
    robot.clock.move(10)
    for place in ("https://evil.example/", f"{ORIGIN}:8443/", "http://shopping.example.com/"):
        api.answers = [(status, {"Location": place}), (401, {})]
        api.requests.clear()
        async with api.client(library, follow_redirects=True) as client:
            answer = await client.get(f"{API}/items", auth=ClientCredentialsAuth(robot.logto, API))
        assert (answer.status_code, [token is None for token in api.tokens]) == (401, [False, True])
    assert robot.asked() == 1


@LIBRARIES
@pytest.mark.parametrize(
    ("place", "goes_along"),
    [
        ("https://stock.internal/items", True),
        ("https://stock.internal:8443/items", False),
        ("https://stock.example/items", False),
    ],
)
async def test_redirect_to_encryption_keeps_the_token(
    robot: Robot, api: Api, library: Any, place: str, goes_along: bool
) -> None:
    """The libraries' one exception, as documented: from http to https of the same host, on their usual ports."""
    api.answers = [(307, {"Location": place})]
    auth = ClientCredentialsAuth(robot.logto, API, origins=["http://stock.internal"])
    async with api.client(library, follow_redirects=True, auth=auth) as client:
        await client.get("http://stock.internal/items")
    assert [token is not None for token in api.tokens] == [True, goes_along]


@LIBRARIES
async def test_redirect_within_the_origin_keeps_the_token(robot: Robot, api: Api, library: Any) -> None:
    """As for a slash at the end of a path; a 401 after it is answered with a new token."""
    await robot.logto.get_client_credentials_token(API)
    robot.clock.move(10)
    api.answers = [(307, {"Location": "/api/items/"}), (401, {}), (307, {"Location": "/api/items/"})]
    async with api.client(library, follow_redirects=True) as client:
        answer = await client.post(f"{API}/items", json={}, auth=ClientCredentialsAuth(robot.logto, API))
    assert (answer.status_code, len(api.tokens), len(set(api.tokens)), None in api.tokens) == (200, 4, 2, False)


@LIBRARIES
async def test_request_that_a_redirect_made_another_one_is_not_repeated(robot: Robot, api: Api, library: Any) -> None:
    """The POST was done, and answered with a page to look at: its 401 must not do the POST a second time."""
    await robot.logto.get_client_credentials_token(API)
    robot.clock.move(10)
    api.answers = [(303, {"Location": "/api/items/1"}), (401, {})]
    async with api.client(library, follow_redirects=True) as client:
        answer = await client.post(f"{API}/items", json={}, auth=ClientCredentialsAuth(robot.logto, API))
    assert (answer.status_code, [request.method for request in api.requests]) == (401, ["POST", "GET"])


# -- After a 401 -------------------------------------------------------------------------------------------------------

BODIES: dict[str, Callable[[], dict[str, Any]]] = {
    "none": dict,
    "json": lambda: {"json": {"item": "book"}},
    "bytes": lambda: {"content": b"book"},
    "form": lambda: {"data": {"item": "book"}},
}


@LIBRARIES
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_refused_token_is_renewed_once(robot: Robot, api: Api, library: Any, body: Any) -> None:
    """The same request goes out again, with a new token; the caller sees the second answer."""
    await robot.logto.get_client_credentials_token(API)
    robot.clock.move(10)
    api.answers = [(401, {})]
    async with api.client(library, auth=ClientCredentialsAuth(robot.logto, API)) as client:
        answer = await client.post(f"{API}/items", **body())
    assert (answer.status_code, len(set(api.tokens)), robot.asked()) == (200, 2, 2)
    assert [each.status_code for each in answer.history] == [401]


@LIBRARIES
async def test_refused_token_of_a_user_is_renewed_once(site: Site, api: Api, library: Any) -> None:
    """The session has the new token afterwards; a second 401 is the caller's."""
    user = await user_of(site)
    await user.get_access_token(API)
    site.clock.move(10)
    api.always = 401
    async with api.client(library) as client:
        answer = await client.get(f"{API}/items", auth=LogtoUserAuth(user, API))
    assert (answer.status_code, len(api.tokens), site.refreshes()) == (401, 2, 2)
    assert api.tokens[1] == bearer(await user.get_access_token(API))


async def generator() -> AsyncIterator[bytes]:
    yield b"book"


STREAMS: dict[str, Callable[[], dict[str, Any]]] = {
    "generator": lambda: {"content": generator()},
    "file": lambda: {"files": {"item": b"book"}},
}


@LIBRARIES
@pytest.mark.parametrize("body", STREAMS.values(), ids=STREAMS)
async def test_body_that_is_used_up_is_not_sent_again(robot: Robot, api: Api, library: Any, body: Any) -> None:
    """A second try would send half of it, or nothing: the 401 is the caller's (security line 33)."""
    await robot.logto.get_client_credentials_token(API)
    robot.clock.move(10)
    api.answers = [(401, {})]
    async with api.client(library, auth=ClientCredentialsAuth(robot.logto, API)) as client:
        answer = await client.post(f"{API}/items", **body())
    assert (answer.status_code, len(api.requests), robot.asked()) == (401, 1, 1)


@LIBRARIES
@pytest.mark.parametrize("status", [400, 403, 404, 429, 500, 503])
async def test_other_answers_are_the_caller_s(robot: Robot, api: Api, library: Any, status: int) -> None:
    """403 says that the token is fine: another one changes nothing."""
    await robot.logto.get_client_credentials_token(API)
    robot.clock.move(10)
    api.always = status
    async with api.client(library, auth=ClientCredentialsAuth(robot.logto, API)) as client:
        assert (await client.get(f"{API}/items")).status_code == status
    assert (len(api.requests), robot.asked()) == (1, 1)


@pytest.mark.parametrize(("seconds", "asked"), [(0, 1), (9, 1), (10, 2)])
async def test_token_that_is_new_is_not_renewed(robot: Robot, api: Api, seconds: int, asked: int) -> None:
    """A token of nine seconds is as good as a newer one."""
    await robot.logto.get_client_credentials_token(API)
    robot.clock.move(seconds)
    api.always = 401
    async with api.client(httpx, auth=ClientCredentialsAuth(robot.logto, API)) as client:
        await client.get(f"{API}/items")
    assert robot.asked() == asked


async def test_api_that_always_refuses_costs_no_token_per_call(robot: Robot, api: Api) -> None:
    """Twenty refused calls, one of them renewed; ten seconds later another one is."""
    await robot.logto.get_client_credentials_token(API)
    robot.clock.move(10)
    api.always = 401
    async with api.client(httpx, auth=ClientCredentialsAuth(robot.logto, API)) as client:
        for _ in range(20):
            await client.get(f"{API}/items")
        assert (len(api.requests), robot.asked()) == (21, 2)
        robot.clock.move(10)
        await client.get(f"{API}/items")
        assert robot.asked() == 3


async def test_opaque_token_is_not_renewed_per_call_either(robot: Robot, api: Api) -> None:
    """It does not say when it was issued, so what replaced a refused one is remembered for ten seconds."""
    issued: list[str] = []

    def issuer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            issuer = "https://issuer.example"
            endpoints = {f"{name}_endpoint": f"{issuer}/{name}" for name in ("authorization", "token")}
            rest = {"jwks_uri": f"{issuer}/jwks", "id_token_signing_alg_values_supported": ["ES256"]}
            return httpx.Response(200, json={"issuer": issuer, **endpoints, **rest})
        issued.append(f"opaque-{len(issued)}")
        return httpx.Response(200, json={"access_token": issued[-1], "token_type": "Bearer", "expires_in": 3600})

    config = LogtoConfig.without_sign_in(issuer="https://issuer.example", app_id="robot", app_secret=SECRET)
    api.always = 401
    async with httpx.AsyncClient(transport=httpx.MockTransport(issuer)) as http_client:
        logto = Logto(config, http_client=http_client, clock=robot.clock)
        async with api.client(httpx, auth=ClientCredentialsAuth(logto, API)) as client:
            for _ in range(5):
                await client.get(f"{API}/items")
    assert issued == ["opaque-0", "opaque-1"]
    assert api.tokens[:3] == [bearer("opaque-0"), bearer("opaque-1"), bearer("opaque-1")]


@LIBRARIES
async def test_many_refusals_of_one_token_need_one_new_token(robot: Robot, api: Api, library: Any) -> None:
    """Before the issuer is asked, while it is, and afterwards: ten refusals, one new token."""
    network, gate, arrived = Network(robot.provider), asyncio.Event(), 0
    logto = Logto(robot.logto.config, http_client=httpx.AsyncClient(transport=network), clock=robot.clock)
    old = bearer(await logto.get_client_credentials_token(API))
    robot.clock.move(10)

    async def held(request: httpx.Request, forward: Any) -> httpx.Response:
        await gate.wait()
        answer: httpx.Response = await forward(request)
        return answer

    async def answer(request: Any) -> Any:
        nonlocal arrived
        if request.headers["authorization"] != old:
            return library.Response(200)
        arrived += 1
        number = arrived
        await until(lambda: number <= 4 or len(network.forms["/token"]) == 2)
        await until(lambda: number <= 8 or gate.is_set())
        return library.Response(401)

    network.step_in("/token", held)
    async with library.AsyncClient(transport=library.MockTransport(answer)) as client:
        auth = ClientCredentialsAuth(logto, API)
        calls = [asyncio.create_task(client.get(f"{API}/items", auth=auth)) for _ in range(10)]
        await until(lambda: len(network.forms["/token"]) == 2)
        for _ in range(50):
            await asyncio.sleep(0)
        gate.set()
        answers = await asyncio.gather(*calls)
    assert ({answer.status_code for answer in answers}, len(network.forms["/token"])) == ({200}, 2)


async def until(happened: Callable[[], object]) -> None:
    """Let others run until something has happened; where nothing does, fail."""
    async with asyncio.timeout(10):
        while not happened():
            await asyncio.sleep(0)


async def test_many_refusals_of_a_user_s_token_need_one_refresh(site: Site, api: Api) -> None:
    """A page that asks ten APIs at once refreshes once when all of them refuse."""
    user = await user_of(site)
    await user.get_access_token(API)
    site.clock.move(10)
    api.answers = [(401, {})] * 10
    async with api.client(httpx) as client:
        auth = LogtoUserAuth(user, API)
        answers = await asyncio.gather(*(client.get(f"{API}/items", auth=auth) for _ in range(10)))
    assert ({answer.status_code for answer in answers}, site.refreshes()) == ({200}, 2)


async def test_token_that_somebody_else_renewed_is_used(robot: Robot, api: Api) -> None:
    """A request that went out with an old token, and comes back late, takes the new one that is kept."""
    await robot.logto.get_client_credentials_token(API)
    robot.clock.move(10)
    renewed: list[str] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        if not renewed:
            renewed.append(await robot.logto.get_client_credentials_token(API, force_refresh=True))
            return httpx.Response(401)
        return httpx.Response(200 if request.headers["authorization"] == bearer(renewed[0]) else 401)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        reply = await client.get(f"{API}/items", auth=ClientCredentialsAuth(robot.logto, API))
    assert (reply.status_code, robot.asked()) == (200, 2)


async def test_refused_token_is_not_sent_a_second_time(robot: Robot, api: Api) -> None:
    """An issuer that repeats its token, as some do while it is valid, has no better one: the 401 is the caller's."""
    token = await robot.logto.get_client_credentials_token(API)
    robot.clock.move(10)

    def issuer(request: httpx.Request) -> httpx.Response:
        issuer = robot.provider.issuer
        if request.method == "GET":
            endpoints = {f"{name}_endpoint": f"{issuer}/{name}" for name in ("authorization", "token")}
            rest = {"jwks_uri": f"{issuer}/jwks", "id_token_signing_alg_values_supported": ["ES384"]}
            return httpx.Response(200, json={"issuer": issuer, **endpoints, **rest})
        return httpx.Response(200, json={"access_token": token, "token_type": "Bearer", "expires_in": 3600})

    api.always = 401
    async with httpx.AsyncClient(transport=httpx.MockTransport(issuer)) as http_client:
        logto = Logto(robot.logto.config, http_client=http_client, clock=robot.clock)
        async with api.client(httpx, auth=ClientCredentialsAuth(logto, API)) as client:
            assert (await client.get(f"{API}/items")).status_code == 401
    assert len(api.requests) == 1


@pytest.mark.parametrize(("ahead", "asked"), [(9, 1), (10, 2)])
async def test_issuer_whose_clock_is_ahead(robot: Robot, api: Api, ahead: int, asked: int) -> None:
    """A token of the next few seconds is new; one of the far future says nothing, and is renewed."""
    await robot.logto.get_client_credentials_token(API)
    robot.clock.move(-ahead)
    api.always = 401
    async with api.client(httpx, auth=ClientCredentialsAuth(robot.logto, API)) as client:
        await client.get(f"{API}/items")
    assert robot.asked() == asked


async def test_outage_of_the_issuer_is_told(site: Site, api: Api) -> None:
    """A new token was needed and there is none: that is no answer of the API."""
    away, network = behind(site)
    user = await user_of(away)
    await user.get_access_token(API)
    site.clock.move(10)

    async def down(request: httpx.Request, forward: Any) -> httpx.Response:
        return httpx.Response(502)

    network.step_in("/token", down)
    api.always = 401
    async with api.client(httpx) as client:
        with pytest.raises(IssuerUnavailable):
            await client.get(f"{API}/items", auth=LogtoUserAuth(user, API))
    assert len(api.requests) == 1


# -- What it is --------------------------------------------------------------------------------------------------------


@LIBRARIES
async def test_synchronous_client_is_refused(site: Site, api: Api, library: Any) -> None:
    """It would block the event loop: the error says what to use, and nothing is sent."""
    auth = LogtoUserAuth(await user_of(site), API)
    client = library.Client(auth=auth, transport=library.MockTransport(lambda _: pytest.fail("sent")))
    with client, pytest.raises(SetupError, match="LogtoUserAuth works with httpx.AsyncClient"):
        client.get(f"{API}/items")


async def test_no_token_shows(site: Site, robot: Robot, api: Api) -> None:
    """Neither in the repr nor among the attributes, before and after a request."""
    user_auth, own_auth = LogtoUserAuth(await user_of(site), API), ClientCredentialsAuth(robot.logto, API)
    async with api.client(httpx) as client:
        await client.get(f"{API}/items", auth=user_auth)
        await client.get(f"{API}/items", auth=own_auth)
    shown = f"{user_auth!r} {own_auth!r} {vars(user_auth)!r} {vars(own_auth)!r} {client!r}"
    assert [str(token)[7:] in shown for token in api.tokens] == [False, False]
    assert repr(user_auth) == "<LogtoUserAuth for https://shopping.example.com>"


def test_httpx2_is_not_needed() -> None:
    """Where it is not installed, the classes are httpx's."""
    program = (
        "import sys; sys.modules['httpx2'] = None\n"
        "import httpx; from logto_asgi.httpx import ClientCredentialsAuth, LogtoUserAuth\n"
        "assert issubclass(LogtoUserAuth, httpx.Auth) and issubclass(ClientCredentialsAuth, httpx.Auth)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

"""Tokens of the app itself and tokens in exchange: the right one, kept, asked for once, used to its end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import pprint
import threading
import traceback
import tracemalloc
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import TypeAdapter

from logto_asgi import (
    AccessToken,
    AccessTokenMismatch,
    AccessTokenRefused,
    HTTPError,
    InvalidToken,
    IssuerRefused,
    IssuerResponseInvalid,
    IssuerUnavailable,
    Logto,
    LogtoConfig,
    SetupError,
    SubjectTokenType,
)
from logto_asgi.flights import Flights, Gate
from logto_asgi.kept_tokens import KeptTokens, Wish
from logto_asgi.oidc.peek import read_unverified_claims
from logto_asgi.targets import target_of
from logto_asgi.testing import Client, Clock, DevelopmentProvider
from tests.conftest import API, OTHER_API
from tests.network import Forward, Network, Step

LIFETIME, MARGIN = 3600, 60
SECRET = "of-the-robot-4b1f0c9e7d"
ORGANIZATION = "harbour"
LATER = 1_900_000_000.0


@dataclass
class Robot:
    """A machine with its issuer, and the network between."""

    clock: Clock
    provider: DevelopmentProvider
    network: Network
    logto: Logto

    def asked(self) -> int:
        return len(self.network.forms["/token"])

    async def token(self, **options: Any) -> str:
        return await self.logto.get_client_credentials_token(API, scopes=["read:items"], **options)

    def answer_next(self, *answers: httpx.Response) -> None:
        for answer in answers:
            self.network.step_in("/token", always(answer))


MakeRobot = Callable[..., Robot]


def always(answer: httpx.Response) -> Step:
    async def step(request: httpx.Request, forward: Forward) -> httpx.Response:
        return answer

    return step


def held(gate: asyncio.Event) -> Step:
    async def step(request: httpx.Request, forward: Forward) -> httpx.Response:
        await gate.wait()
        return await forward(request)

    return step


async def until(happened: Callable[[], object]) -> None:
    """Let others run until something has happened; where nothing does, fail."""
    async with asyncio.timeout(10):
        while not happened():
            await asyncio.sleep(0)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the library warned of."""
    return [each.getMessage() for each in caplog.records if (each.name, each.levelname) == ("logto_asgi", "WARNING")]


def says(token: str) -> dict[str, Any]:
    return read_unverified_claims(token) or {}


@pytest.fixture
async def make_robot() -> AsyncIterator[MakeRobot]:
    """Return a function that builds a machine; `provider` holds options of the provider, the rest is settings."""
    async with contextlib.AsyncExitStack() as opened:

        def make(provider: dict[str, Any] | None = None, **settings: Any) -> Robot:
            clock = Clock(1_800_000_000.0)
            client = Client(
                "robot",
                SECRET,
                machine=True,
                token_exchange=True,
                permissions={API: ["read:items", "write:items"]},
                organizations={ORGANIZATION: ["read:items"]},
            )
            resources = {API: ["read:items", "write:items"], OTHER_API: ["read:stock"]}
            development = DevelopmentProvider(
                clock=clock, clients=[client], **{"resources": resources, **(provider or {})}
            )
            network = Network(development)
            chosen = {"endpoint": development.endpoint, "app_id": "robot", "app_secret": SECRET, **settings}
            config = LogtoConfig.without_sign_in(**{name: value for name, value in chosen.items() if value is not None})
            http_client = httpx.AsyncClient(transport=network)
            opened.push_async_callback(http_client.aclose)
            return Robot(clock, development, network, Logto(config, http_client=http_client, clock=clock))

        yield make


@pytest.fixture
def robot(make_robot: MakeRobot) -> Robot:
    """Return a machine with the default settings."""
    return make_robot()


# -- Client credentials ------------------------------------------------------------------------------------------------


async def test_token_is_for_what_was_asked(robot: Robot) -> None:
    """A resource, an organization, or the resource within it; with the scopes that were named, and no others."""
    token = says(await robot.token())
    assert (token["sub"], token["aud"], token["scope"]) == ("robot", API, "read:items")
    assert not says(await robot.logto.get_client_credentials_token(API)).get("scope")
    token = says(await robot.logto.get_client_credentials_token(None, ORGANIZATION, scopes=["read:items"]))
    assert token["aud"] == "urn:logto:organization:harbour"
    token = says(await robot.logto.get_client_credentials_token(API, ORGANIZATION, scopes=["read:items"]))
    assert (token["aud"], token["organization_id"]) == (API, ORGANIZATION)
    assert robot.asked() == 4


async def test_token_is_kept_by_its_scopes(robot: Robot) -> None:
    """The order of scopes makes no difference, nor whether they are a list or a string; other scopes do."""
    ways: list[Any] = [["read:items", "write:items"], ("write:items", "read:items"), "write:items  read:items"]
    tokens = {await robot.logto.get_client_credentials_token(API, scopes=scopes) for scopes in ways}
    assert (len(tokens), robot.asked()) == (1, 1)
    assert await robot.token() not in tokens


@pytest.mark.parametrize(("seconds", "asked"), [(LIFETIME - MARGIN - 1, 1), (LIFETIME - MARGIN, 2)])
async def test_token_is_kept_until_the_margin(robot: Robot, seconds: int, asked: int) -> None:
    """One second before the margin it is the kept one, at the margin it is a new one."""
    await robot.token()
    robot.clock.move(seconds)
    await robot.token()
    assert robot.asked() == asked


async def test_token_shorter_than_the_margin_is_used_for_half_its_life(make_robot: MakeRobot) -> None:
    """A token of 40 seconds is not asked for at every call."""
    robot = make_robot({"access_token_ttl": 40})
    for seconds, asked in ((0, 1), (19, 1), (1, 2)):
        robot.clock.move(seconds)
        await robot.token()
        assert robot.asked() == asked


async def test_min_ttl_asks_for_a_longer_life(robot: Robot) -> None:
    """A token that lives long enough is the kept one; more than nine tenths of its life is asked of none."""
    await robot.token()
    robot.clock.move(LIFETIME - 600)
    await robot.token(min_ttl=599)
    assert robot.asked() == 1
    await robot.token(min_ttl=600)
    assert robot.asked() == 2
    await robot.token(min_ttl=10 * LIFETIME)
    assert robot.asked() == 2


async def test_fifty_callers_make_one_request(robot: Robot) -> None:
    """However many wait for the same token, the issuer is asked once; for another one, once more."""
    calls = [robot.token() for _ in range(50)]
    others = [robot.logto.get_client_credentials_token(None, ORGANIZATION) for _ in range(50)]
    tokens = await asyncio.gather(*calls, *others)
    assert (len(set(tokens)), robot.asked()) == (2, 2)


async def test_new_token_is_not_one_that_was_asked_for_before(robot: Robot) -> None:
    """`force_refresh` waits for a request that is under way, then asks anew; others who ask so join that one."""
    gate = asyncio.Event()
    robot.network.step_in("/token", held(gate))
    early = asyncio.create_task(robot.token())
    await until(robot.asked)
    late = [asyncio.create_task(robot.token(force_refresh=True)) for _ in range(5)]
    await asyncio.sleep(0)
    gate.set()
    forced = {await task for task in late}
    assert (len(forced), await early in forced, robot.asked()) == (1, False, 2)
    assert await robot.token() in forced


async def test_caller_that_hangs_up_does_not_stop_the_others(robot: Robot) -> None:
    """A cancelled caller leaves the request running; who waits with it gets the token, and it is kept."""
    gate = asyncio.Event()
    robot.network.step_in("/token", held(gate))
    first, second = asyncio.create_task(robot.token()), asyncio.create_task(robot.token())
    await until(robot.asked)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.set()
    assert await second == await robot.token()
    assert robot.asked() == 1


async def test_failure_that_nobody_waits_for_is_no_noise(robot: Robot, caplog: pytest.LogCaptureFixture) -> None:
    """Everybody hung up, then the issuer failed: asyncio has nothing to complain about."""
    gate = asyncio.Event()

    async def fails(request: httpx.Request, forward: Forward) -> httpx.Response:
        await gate.wait()
        return httpx.Response(502)

    robot.network.step_in("/token", fails)
    caller = asyncio.create_task(robot.token())
    await until(robot.asked)
    caller.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await caller
    gate.set()
    await robot.logto.client_tokens.drain(5)
    del caller
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_kept_token_is_used_to_its_end_in_an_outage(robot: Robot, caplog: pytest.LogCaptureFixture) -> None:
    """Within the margin an issuer that is away is no reason to fail; it is asked every five seconds, not each time."""
    token = await robot.token()
    caplog.set_level("INFO", logger="logto_asgi")
    robot.clock.move(LIFETIME - MARGIN)
    robot.answer_next(*[httpx.Response(502)] * 3)
    assert [await robot.token() for _ in range(3)] == [token] * 3
    assert (robot.asked(), "is used to its end" in caplog.text) == (2, True)
    robot.clock.move(5)
    assert (await robot.token(), robot.asked()) == (token, 3)
    robot.clock.move(MARGIN - 5)
    with pytest.raises(IssuerUnavailable):
        await robot.token()
    assert robot.asked() == 4
    assert await robot.token() != token


AILMENTS = {
    "away": (httpx.Response(502), "issuer_unavailable"),
    "maintenance": (httpx.Response(200, text="<html>back soon"), "issuer_response_invalid"),
    "redirect": (httpx.Response(302, headers={"Location": "/soon"}), "issuer_response_invalid"),
    "not-found": (httpx.Response(404), "issuer_refused"),
    "wrong-secret": (httpx.Response(401, json={"error": "invalid_client"}), "issuer_refused"),
    "its-own-error": (httpx.Response(400, json={"error": "server_error"}), "issuer_refused"),
}


@pytest.mark.parametrize(("answer", "code"), AILMENTS.values(), ids=AILMENTS)
async def test_valid_token_is_used_whatever_ails_the_issuer(robot: Robot, answer: httpx.Response, code: str) -> None:
    """The issuer is asked once in a while, not at each call; who wants a new token, or has none, hears what it is."""
    token = await robot.token()
    robot.clock.move(LIFETIME - MARGIN)
    robot.answer_next(answer)
    assert [await robot.token() for _ in range(3)] == [token] * 3
    robot.clock.move(4)
    assert (await robot.token(), robot.asked()) == (token, 2)
    robot.answer_next(answer)
    with pytest.raises(HTTPError) as caught:
        await robot.token(force_refresh=True)
    assert (caught.value.code, robot.asked()) == (code, 3)
    robot.clock.move(MARGIN)
    robot.answer_next(answer)
    with pytest.raises(HTTPError) as caught:
        await robot.token()
    assert caught.value.code == code


async def test_refusal_that_is_remembered_hides_no_valid_token(robot: Robot) -> None:
    """For ten seconds the issuer is not asked again, and the kept token is used; then it is asked."""
    token = await robot.token()
    robot.clock.move(LIFETIME - MARGIN)
    robot.answer_next(refused("invalid_client", 401))
    for seconds in (0, 7):
        robot.clock.move(seconds)
        assert (await robot.token(), robot.asked()) == (token, 2)
    robot.clock.move(3)
    assert (await robot.token() == token, robot.asked()) == (False, 3)


async def test_answer_out_of_order_is_remembered(robot: Robot) -> None:
    """Also where there is no token yet: a loop without a pause asks once in ten seconds."""
    robot.answer_next(httpx.Response(200, text="<html>back soon"))
    for _ in range(3):
        with pytest.raises(IssuerResponseInvalid):
            await robot.token()
    assert robot.asked() == 1
    robot.clock.move(10)
    assert await robot.token()


async def test_nobody_waits_long_who_has_a_valid_token(robot: Robot) -> None:
    """The issuer hangs: after a moment the kept token is used, and the request goes on for the next one who asks."""
    kept = KeptTokens(robot.logto.config, robot.clock, patience=0.01)
    fetched = [AccessToken("first", 1_800_003_600, issued_at=1_800_000_000), AccessToken("second", 1_800_007_200)]
    gate = asyncio.Event()
    gate.set()

    async def fetch() -> AccessToken:
        await gate.wait()
        return fetched.pop(0)

    wish = Wish(target_of(API, None, ()), fetch, False, None)
    assert (await kept.get(wish)).value == "first"
    robot.clock.move(LIFETIME - MARGIN)
    gate.clear()
    async with asyncio.timeout(10):
        assert [(await kept.get(wish)).value for _ in range(3)] == ["first"] * 3
    assert kept.waiting() == 1
    gate.set()
    await kept.drain(5)
    assert (await kept.get(wish)).value == "second"


async def test_nobody_is_given_a_token_that_expired_while_waiting(robot: Robot) -> None:
    """Patience ends after the token did: the issuer is away."""
    kept = KeptTokens(robot.logto.config, robot.clock, patience=0.01)
    gate = asyncio.Event()
    gate.set()

    async def fetch() -> AccessToken:
        if not gate.is_set():
            robot.clock.move(MARGIN)
        await gate.wait()
        return AccessToken("first", 1_800_003_600, issued_at=1_800_000_000)

    wish = Wish(target_of(API, None, ()), fetch, False, None)
    await kept.get(wish)
    robot.clock.move(LIFETIME - MARGIN)
    gate.clear()
    async with asyncio.timeout(10):
        with pytest.raises(IssuerUnavailable):
            await kept.get(wish)
    await kept.drain(0)


async def test_life_that_no_token_has_is_no_reason_to_fail(robot: Robot) -> None:
    """`min_ttl` beyond what tokens live asks for as much as there is: in an outage that is a valid token."""
    token = await robot.token()
    robot.clock.move(1_000)
    robot.answer_next(httpx.Response(502))
    assert await robot.token(min_ttl=10 * LIFETIME) == token


async def test_refusal_of_a_person_is_no_ailment(robot: Robot) -> None:
    """A membership that has ended is told at once, although a kept token would live some seconds more."""
    await robot.logto.get_client_credentials_token(API, ORGANIZATION)
    robot.clock.move(LIFETIME - MARGIN)
    robot.answer_next(refused("access_denied", 403))
    for _ in range(2):
        with pytest.raises(AccessTokenRefused):
            await robot.logto.get_client_credentials_token(API, ORGANIZATION)
    assert robot.asked() == 2


@pytest.mark.parametrize("error", ["invalid_target", "server_is_down"])
async def test_each_caller_has_an_error_of_its_own(robot: Robot, error: str) -> None:
    """Its traceback is of one request, and its headers may be changed for one answer."""
    robot.answer_next(refused(error) if error == "invalid_target" else httpx.Response(502))
    failures = await asyncio.gather(*(robot.token() for _ in range(20)), return_exceptions=True)
    assert (robot.asked(), len({id(each) for each in failures})) == (1, 20)
    told = {(type(each), str(each), getattr(each, "error", None)) for each in failures}
    assert len(told) == 1
    headers = [each.headers for each in failures if isinstance(each, HTTPError) and each.headers is not None]
    assert len({id(each) for each in headers}) == len(headers) == (0 if error == "invalid_target" else 20)
    assert all(each.__context__ is None and each.__cause__ is None for each in map(checked, failures))


def checked(failure: object) -> BaseException:
    assert isinstance(failure, BaseException)
    return failure


@pytest.mark.parametrize("way", ["own", "exchange", "on-behalf"])
async def test_calls_stand_in_line(robot: Robot, way: str) -> None:
    """Strangers may decide how many tokens are wanted: sixteen calls of a kind are under way, the others wait."""
    gate = asyncio.Event()
    under_way = most = 0

    async def counted(request: httpx.Request, forward: Forward) -> httpx.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await gate.wait()
        under_way -= 1
        return refused("invalid_grant")

    for _ in range(40):
        robot.network.step_in("/token", counted)
    ways: dict[str, Callable[[int], Any]] = {
        "own": lambda number: robot.logto.get_client_credentials_token(API, f"org-{number}"),
        "exchange": lambda number: robot.logto.exchange_token(f"t{number}", SubjectTokenType.ACCESS_TOKEN),
        "on-behalf": lambda number: on_behalf(robot, "caller", organization_id=f"org-{number}"),
    }
    calls = [asyncio.create_task(ways[way](number)) for number in range(40)]
    await until(lambda: under_way >= 16)
    for _ in range(200):
        await asyncio.sleep(0)
    assert most == 16
    gate.set()
    await asyncio.gather(*calls, return_exceptions=True)
    assert (most, robot.asked()) == (16, 40)


async def test_line_and_call_have_one_deadline() -> None:
    """Who waits in line behind calls that hang hears of it in time, and nothing is sent for them."""
    gate, line, begun = asyncio.Event(), Gate(2), []

    async def call() -> bool:
        begun.append(1)
        return await gate.wait()

    first = [asyncio.create_task(line.through(call, seconds=60)) for _ in range(2)]
    await until(lambda: len(begun) == 2)
    async with asyncio.timeout(10):
        with pytest.raises(IssuerUnavailable):
            await line.through(call, seconds=0.01)
    gate.set()
    assert (await asyncio.gather(*first), len(begun)) == ([True, True], 2)


@pytest.mark.parametrize("options", [{"force_refresh": True}, {"min_ttl": MARGIN}])
async def test_outage_is_told_to_who_wants_more_than_a_valid_token(robot: Robot, options: dict[str, Any]) -> None:
    """A kept token that does not live as long as was asked, or is not new, is not what was asked for."""
    await robot.token()
    robot.clock.move(LIFETIME - MARGIN)
    robot.answer_next(httpx.Response(502), httpx.Response(502))
    await robot.token()
    with pytest.raises(IssuerUnavailable):
        await robot.token(**options)


def refused(error: str, status: int = 400) -> httpx.Response:
    return httpx.Response(status, json={"error": error, "error_description": "text of the issuer"})


OF_A_MACHINE = {
    # error: what the log says to do
    "invalid_target": "Register it",
    "access_denied": "The issuer refused",
    "invalid_scope": "the roles of the application",
    "insufficient_scope": "role with these permissions",
    "unauthorized_client": "machine-to-machine",
    "invalid_request": "secret expired",
    "invalid_client": "LOGTO_APP_SECRET",
    "invalid_grant": "The issuer refused",
}


@pytest.mark.parametrize(("error", "remedy"), OF_A_MACHINE.items(), ids=OF_A_MACHINE)
async def test_the_app_s_own_fault_is_told_to_its_log(
    robot: Robot, caplog: pytest.LogCaptureFixture, error: str, remedy: str
) -> None:
    """One warning names resource and remedy. A visitor hears of a fault of the site, 502, and no name of a resource."""
    robot.answer_next(refused(error), refused(error))
    for _ in range(3):
        with pytest.raises(IssuerRefused) as caught:
            await robot.token()
        assert (caught.value.error, caught.value.status, caught.value.issuer_status) == (error, 502, 400)
        assert str(caught.value) == f"The issuer gives this app no token ({error}). The app's log says what to do."
        assert caught.value.__context__ is None
    with pytest.raises(IssuerRefused):
        await robot.token(force_refresh=True)
    (warning,) = warnings_of(caplog)
    assert (remedy in warning, error in warning, "text of the issuer" in warning) == (True, True, False)
    assert robot.logto.counts["token.refused"] == 2


async def test_the_log_names_the_resource(robot: Robot, caplog: pytest.LogCaptureFixture) -> None:
    """Ten seconds later it is told again, if nobody has mended it."""
    robot.answer_next(refused("invalid_target"), refused("invalid_target"))
    for _ in range(2):
        with pytest.raises(IssuerRefused):
            await robot.token()
        robot.clock.move(10)
    assert caplog.text.count(f"for resource {API!r} (invalid_target)") == 2


async def test_machine_that_is_no_member(robot: Robot, caplog: pytest.LogCaptureFixture) -> None:
    """The id of an organization often comes from a path: 403, and nothing in the log that a visitor could fill."""
    with pytest.raises(AccessTokenRefused, match="no member of this organization") as caught:
        await robot.logto.get_client_credentials_token(API, "of-somebody-else")
    assert (caught.value.error, caught.value.status, API in str(caught.value)) == ("access_denied", 403, False)
    assert warnings_of(caplog) == []


@pytest.mark.parametrize("error", ["invalid_target", "invalid_client"])
async def test_refusal_is_remembered_for_ten_seconds(robot: Robot, error: str) -> None:
    """A loop without a pause does not hammer the issuer; `force_refresh` asks all the same."""
    robot.answer_next(refused(error), refused(error))
    seen: list[HTTPError] = []
    for _ in range(3):
        with pytest.raises((AccessTokenRefused, IssuerRefused)) as caught:
            await robot.token()
        seen.append(caught.value)
    assert (robot.asked(), {str(each) for each in seen}) == (1, {str(seen[0])})
    assert (seen[1] is seen[2], {type(each) for each in seen}) == (False, {type(seen[0])})
    with pytest.raises((AccessTokenRefused, IssuerRefused)):
        await robot.token(force_refresh=True)
    robot.clock.move(9)
    with pytest.raises((AccessTokenRefused, IssuerRefused)):
        await robot.token()
    assert robot.asked() == 2
    robot.clock.move(1)
    assert await robot.token()


def tokens(value: str, **members: Any) -> httpx.Response:
    return httpx.Response(200, json={"access_token": value, "token_type": "Bearer", "expires_in": LIFETIME, **members})


async def test_token_for_something_else_is_refused(robot: Robot) -> None:
    """An opaque token, another audience, another organization: none is handed out or kept, all are remembered."""
    wrong = [
        "opaque",
        robot.provider.mint_access_token("alice", resource=OTHER_API),
        robot.provider.mint_access_token("alice", resource=API, organization_id=ORGANIZATION),
    ]
    for value in wrong:
        robot.answer_next(tokens(value))
        for _ in range(2):
            with pytest.raises(AccessTokenMismatch) as caught:
                await robot.token()
            assert value not in str(caught.value)
        robot.clock.move(10)
    assert robot.asked() == len(wrong)
    assert says(await robot.token())["aud"] == API


@pytest.mark.parametrize("left_out", [["app_secret"], ["app_id", "app_secret"]])
async def test_without_id_or_secret_nothing_is_asked(make_robot: MakeRobot, left_out: list[str]) -> None:
    """The error names the settings, for each way to ask."""
    robot = make_robot(**dict.fromkeys(left_out))
    ways = [
        robot.token(),
        robot.logto.exchange_token("token", SubjectTokenType.ACCESS_TOKEN, resource=API),
        robot.logto.client_tokens.on_behalf_of("token", until=LATER, resource=API),
    ]
    for way in ways:
        with pytest.raises(SetupError, match="LOGTO_APP_ID and LOGTO_APP_SECRET"):
            await way
    assert dict(robot.network.forms) == {}


async def test_logto_needs_to_know_for_what(robot: Robot, make_robot: MakeRobot) -> None:
    """Neither a resource nor an organization: said before a call; other issuers have tokens for nothing special."""
    with pytest.raises(SetupError, match="resource="):
        await robot.logto.get_client_credentials_token()
    assert robot.asked() == 0
    other = make_robot(endpoint=None, issuer=robot.provider.issuer)
    other.answer_next(tokens("opaque"))
    assert await other.logto.get_client_credentials_token() == "opaque"


BAD: dict[str, tuple[dict[str, Any], type[HTTPError]]] = {
    # id: (what an app passes on, the error)
    "resource-line-break": ({"resource": "https://a.example\r\nx"}, SetupError),
    "resource-beyond-ascii": ({"resource": "https://ä.example"}, SetupError),
    "resource-empty": ({"resource": ""}, SetupError),
    "resource-endless": ({"resource": "https://" + "a" * 2048}, SetupError),
    "organization-line-break": ({"resource": API, "organization_id": "a\nb"}, AccessTokenRefused),
    "organization-space": ({"resource": API, "organization_id": "a b"}, AccessTokenRefused),
    "organization-beyond-ascii": ({"resource": API, "organization_id": "häfen"}, AccessTokenRefused),
    "organization-empty": ({"resource": API, "organization_id": ""}, AccessTokenRefused),
    "organization-endless": ({"resource": API, "organization_id": "a" * 257}, AccessTokenRefused),
    "scope-line-break": ({"resource": API, "scopes": ["read\r\n"]}, SetupError),
    "scope-space": ({"resource": API, "scopes": ["read write"]}, SetupError),
    "scope-quote": ({"resource": API, "scopes": ['read"']}, SetupError),
    "scope-beyond-ascii": ({"resource": API, "scopes": "read größe"}, SetupError),
}


@pytest.mark.parametrize(("asked", "kind"), BAD.values(), ids=BAD)
async def test_text_that_is_no_name_is_refused(robot: Robot, asked: dict[str, Any], kind: type[HTTPError]) -> None:
    """What may come from a path or a form is looked at before it goes to the issuer, in each way to ask."""
    ways = [
        robot.logto.client_tokens.client_credentials(**asked),
        robot.logto.exchange_token("token", SubjectTokenType.ACCESS_TOKEN, **asked),
        robot.logto.client_tokens.on_behalf_of("token", until=LATER, **asked),
    ]
    for way in ways:
        with pytest.raises(kind):
            await way
    assert dict(robot.network.forms) == {}


@pytest.mark.parametrize("length", [43, 16_000])
async def test_what_is_kept_is_bounded(length: int) -> None:
    """Four MiB of memory, whether tokens are long or short; a short one takes far more than its text."""
    many = 6_000 if length == 43 else 300
    kept = KeptTokens(LogtoConfig.without_sign_in(issuer="https://issuer.example"), lambda: 0.0)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(many):
            await kept.get(wish_for(number, length))
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert (len(kept) < many, taken < 4.5 * 1024 * 1024) == (True, True)


def wish_for(number: int, length: int) -> Wish:
    """Return a wish for a token of so many characters, for one caller among many."""
    caller = hashlib.sha256(str(number).encode()).digest()

    async def fetch() -> AccessToken:
        return AccessToken(f"{number:0{length}d}", 3600, ("read:items",), str(API), None, 0, 0)

    return Wish(target_of(str(API), None, ["read:items"], caller), fetch, False, None)


async def test_what_nobody_used_goes_first(robot: Robot) -> None:
    """A token that is used stays, however many come after it; one that is not makes room."""
    for number in range(700):
        robot.answer_next(tokens(robot.provider.mint_access_token("robot", resource=API, padding="x" * 9_000)))
        await robot.logto.get_client_credentials_token(API, scopes=[f"scope-{number}"])
        await robot.logto.get_client_credentials_token(API, scopes=["scope-0"])
    assert robot.asked() == 700
    await robot.logto.get_client_credentials_token(API, scopes=["scope-1"])
    assert robot.asked() == 701


# -- Exchange ----------------------------------------------------------------------------------------------------------


async def test_impersonation_token_works_once_and_nothing_is_kept(robot: Robot) -> None:
    """The second exchange asks the issuer again, and is refused by it."""
    subject = robot.provider.impersonation_token("alice")
    options: Any = {"resource": API, "scopes": ["read:items"]}
    token = await robot.logto.exchange_token(subject, SubjectTokenType.IMPERSONATION_TOKEN, **options)
    claims = says(token.value)
    assert (claims["sub"], claims["client_id"], claims["aud"]) == ("alice", "robot", API)
    assert (token.resource, token.scopes, token.expires_at) == (API, ("read:items",), 1_800_000_000 + LIFETIME)
    with pytest.raises(AccessTokenRefused, match="get another one") as caught:
        await robot.logto.exchange_token(subject, SubjectTokenType.IMPERSONATION_TOKEN, **options)
    assert (caught.value.error, subject in str(caught.value), robot.asked()) == ("invalid_grant", False, 2)


async def test_personal_access_token_with_an_actor(robot: Robot) -> None:
    """The token is the user's; who acts is in `act`."""
    actor = robot.provider.opaque_access_token("bob", client_id="robot", scopes=["openid"])
    token = await robot.logto.exchange_token(
        robot.provider.personal_access_token("alice"),
        SubjectTokenType.PERSONAL_ACCESS_TOKEN,
        resource=API,
        actor_token=actor,
    )
    claims = says(token.value)
    assert (claims["sub"], claims["act"]) == ("alice", {"sub": "bob"})


OF_AN_EXCHANGE = {
    # error: what the log says to do
    "invalid_target": "Register it",
    "invalid_scope": "Check the scopes",
    "insufficient_scope": "allows less",
    "unauthorized_client": "Allow token exchange",
    "invalid_request": "secret expired",
    "invalid_client": "LOGTO_APP_SECRET",
}


@pytest.mark.parametrize(("error", "remedy"), OF_AN_EXCHANGE.items(), ids=OF_AN_EXCHANGE)
async def test_the_app_s_own_fault_in_an_exchange_is_told_to_its_log(
    robot: Robot, caplog: pytest.LogCaptureFixture, error: str, remedy: str
) -> None:
    """As for the app's own tokens; whoever sends many tokens to exchange does not fill the log."""
    robot.answer_next(*[refused(error)] * 3)
    for number in range(3):
        with pytest.raises(IssuerRefused, match="The app's log says") as caught:
            await robot.logto.exchange_token(f"pat-{number}", SubjectTokenType.PERSONAL_ACCESS_TOKEN, resource=API)
    assert (caught.value.error, caught.value.status, API in str(caught.value)) == (error, 502, False)
    (warning,) = warnings_of(caplog)
    assert (remedy in warning, "pat-" in warning) == (True, False)


@pytest.mark.parametrize(
    ("error", "organization_id", "words"),
    [
        ("invalid_grant", None, "get another one"),
        ("access_denied", None, "does not let this user"),
        ("access_denied", ORGANIZATION, "no member of this organization"),
    ],
)
async def test_refusal_of_an_exchange_says_what_to_do(
    robot: Robot, caplog: pytest.LogCaptureFixture, error: str, organization_id: str | None, words: str
) -> None:
    """A token that is spent, a user who is no member: 403, our words, the issuer's code, no token and no resource."""
    robot.answer_next(refused(error))
    with pytest.raises(AccessTokenRefused, match=words) as caught:
        await robot.logto.exchange_token(
            "the-pat", SubjectTokenType.PERSONAL_ACCESS_TOKEN, resource=API, organization_id=organization_id
        )
    assert (caught.value.error, caught.value.status, caught.value.__context__) == (error, 403, None)
    assert [text in str(caught.value) for text in ("the-pat", API, "text of the issuer")] == [False] * 3
    assert warnings_of(caplog) == []


@pytest.mark.parametrize("token", ["", "a b", "a\r\nb", "ä", "x" * 16_385])
async def test_text_that_is_no_token_is_refused(robot: Robot, token: str) -> None:
    """It comes from a header or form of somebody: 403, without a call, and without the text."""
    ways = [
        robot.logto.exchange_token(token, SubjectTokenType.PERSONAL_ACCESS_TOKEN, resource=API),
        robot.logto.exchange_token("t", SubjectTokenType.PERSONAL_ACCESS_TOKEN, resource=API, actor_token=token),
        robot.logto.client_tokens.on_behalf_of(token, until=LATER, resource=API),
    ]
    for way in ways:
        with pytest.raises(AccessTokenRefused) as caught:
            await way
        assert str(caught.value) == "This is no token that could be exchanged."
    assert dict(robot.network.forms) == {}


@pytest.mark.parametrize("kind", ["", "access_token", "urn:a b", "urn:\n"])
async def test_type_of_a_token_is_a_uri(robot: Robot, kind: str) -> None:
    """A name of its own is a mistake in the app (RFC 8693 §3)."""
    with pytest.raises(SetupError, match="SubjectTokenType"):
        await robot.logto.exchange_token("token", kind, resource=API)


async def test_exchange_for_something_else_is_refused(robot: Robot) -> None:
    """An opaque token in the place of one for the API is not handed out."""
    robot.answer_next(tokens("opaque"))
    with pytest.raises(AccessTokenMismatch):
        await robot.logto.exchange_token("pat", SubjectTokenType.PERSONAL_ACCESS_TOKEN, resource=API)


# -- On behalf of a caller ---------------------------------------------------------------------------------------------


async def on_behalf(robot: Robot, caller: str, **options: Any) -> str:
    return (await robot.logto.client_tokens.on_behalf_of(caller, **{"resource": API, "until": LATER, **options})).value


async def test_caller_s_token_is_exchanged_once(make_robot: MakeRobot) -> None:
    """Fifty calls with one token are one exchange; another caller, another target and a new token are their own."""
    robot = make_robot(scopes=["read:items"])
    alice, bob = (robot.provider.mint_access_token(sub, resource=OTHER_API) for sub in ("alice", "bob"))
    first = set(await asyncio.gather(*(on_behalf(robot, alice) for _ in range(50))))
    assert (len(first), robot.asked()) == (1, 1)
    assert says(first.pop())["sub"] == "alice"
    assert says(await on_behalf(robot, bob))["sub"] == "bob"
    assert says(await on_behalf(robot, alice, resource=OTHER_API))["aud"] == OTHER_API
    await on_behalf(robot, alice, force_refresh=True)
    assert robot.asked() == 4
    await on_behalf(robot, alice)
    assert robot.asked() == 4


async def test_exchange_asks_for_the_scopes_of_the_configuration(make_robot: MakeRobot) -> None:
    """Those of an API; what is about the user's claims says nothing there."""
    robot = make_robot(scopes=["read:items", "email", "urn:logto:scope:organizations"])
    caller = robot.provider.mint_access_token("alice", resource=OTHER_API)
    await on_behalf(robot, caller)
    await on_behalf(robot, caller, scopes=["write:items"])
    assert [form["scope"] for form in robot.network.forms["/token"]] == ["read:items", "write:items"]


@pytest.mark.parametrize(("seconds", "asked"), [(299, 1), (300, 2)])
async def test_exchanged_token_ends_with_the_caller_s(robot: Robot, seconds: int, asked: int) -> None:
    """Whoever was let in for five minutes is not acted for an hour later."""
    caller = robot.provider.mint_access_token("alice", resource=OTHER_API, exp=1_800_000_300)
    await on_behalf(robot, caller, until=1_800_000_300)
    robot.clock.move(seconds)
    robot.answer_next(refused("invalid_grant"))
    with contextlib.suppress(AccessTokenRefused):
        await on_behalf(robot, caller, until=1_800_000_300)
    assert robot.asked() == asked


async def test_no_secret_shows(robot: Robot) -> None:
    """Neither the tokens nor the secret are in a repr of what keeps them, and the caller's is not kept at all."""
    caller = robot.provider.mint_access_token("alice", resource=OTHER_API)
    values = [await robot.token(), await on_behalf(robot, caller), caller, SECRET]
    keeper = robot.logto.client_tokens
    shown = pprint.pformat([vars(keeper), vars(robot.logto), repr(keeper)]) + "".join(
        f"{vars(shelf)!r}{shelf._kept._entries!r}" for shelf in (keeper._own, keeper._of_callers)
    )
    assert not [value for value in values if value in shown]


async def test_token_does_not_leave_by_mistake() -> None:
    """An endpoint that returns the object answers with what may be seen of it, however it is annotated."""
    token, app = AccessToken("the-value", 1_800_000_000, ("read:items",), API), FastAPI()

    @app.get("/bare")
    async def bare():  # type: ignore[no-untyped-def]
        return token

    @app.get("/declared")
    async def declared() -> AccessToken:
        return token

    @app.get("/any")
    async def anything() -> Any:
        return token

    @app.get("/nested")
    async def nested():  # type: ignore[no-untyped-def]
        return {"tokens": [token]}

    seen = {"expires_at": 1_800_000_000, "scopes": ["read:items"], "resource": API, "organization_id": None}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        answers = [(await client.get(path)).json() for path in ("/bare", "/declared", "/any", "/nested")]
        assert (await client.get("/openapi.json")).status_code == 200
    assert answers == [seen, seen, seen, {"tokens": [seen]}]
    assert "the-value" not in f"{token!r} {dict(token)} {TypeAdapter(AccessToken).dump_json(token)!r}"
    with pytest.raises(KeyError):
        token["value"]


FAILURES = {
    "refused": refused("invalid_grant"),
    "of-the-app": refused("invalid_client", 401),
    "away": httpx.Response(502),
    "no-json": httpx.Response(200, text="<html>"),
    "no-bearer": httpx.Response(200, json={"access_token": "at-of-the-answer", "token_type": "x"}),
    "something-else": httpx.Response(200, json={"access_token": "at-of-the-answer", "token_type": "Bearer"}),
}


@pytest.mark.parametrize("answer", FAILURES.values(), ids=FAILURES)
async def test_frames_of_an_error_show_no_token(robot: Robot, answer: httpx.Response) -> None:
    """Error trackers print the locals of frames: none of ours holds a caller's token, an actor's or the secret."""
    caller = robot.provider.mint_access_token("alice", resource=OTHER_API)
    actor = robot.provider.opaque_access_token("bob", client_id="robot")
    ways: list[Callable[[], Any]] = [
        lambda: on_behalf(robot, caller),
        lambda: robot.logto.exchange_token(caller, SubjectTokenType.ACCESS_TOKEN, resource=API, actor_token=actor),
        robot.token,
    ]
    for way in ways:
        robot.answer_next(answer)
        with pytest.raises(HTTPError) as caught:
            await way()
        seen = frames_of(caught.value)
        assert "kept_tokens.py" in seen or "client_tokens.py" in seen
        assert [text for text in (caller, actor, SECRET, "at-of-the-answer") if text in seen] == []


async def test_form_with_tokens_does_not_show(robot: Robot) -> None:
    """Where an error comes out of the client itself, its frames hold the form."""
    robot.answer_next(refused("invalid_grant"))
    with pytest.raises(IssuerRefused) as caught:
        await robot.logto.client().exchange_token("the-caller-s", SubjectTokenType.ACCESS_TOKEN)
    shown = [line for line in frames_of(caught.value).splitlines() if "the-caller-s" in line]
    assert [line.partition("=")[0].strip() for line in shown] == ["subject_token"]


def frames_of(error: BaseException) -> str:
    """Return the frames of the library in a traceback, with their locals, as an error tracker has them."""
    trace = traceback.TracebackException.from_exception(error, capture_locals=True)
    trace.stack[:] = [frame for frame in trace.stack if "logto_asgi" in frame.filename]
    return "".join(trace.format())


# -- Loops, threads and the end ----------------------------------------------------------------------------------------


async def test_event_loops_share_what_is_kept(robot: Robot) -> None:
    """One Logto serves several threads with a loop each; what one has got, the others use."""
    results: list[str] = []

    def in_a_thread() -> None:
        async def ask() -> None:
            results.extend(await asyncio.gather(*(robot.token() for _ in range(5))))
            await robot.logto.client_tokens.drain(1)

        asyncio.run(ask())

    token = await robot.token()
    threads = [threading.Thread(target=in_a_thread) for _ in range(4)]
    for thread in threads:
        thread.start()
    await asyncio.to_thread(lambda: [thread.join() for thread in threads])
    assert (set(results), len(results), robot.asked()) == ({token}, 20, 1)


def test_each_event_loop_asks_for_itself(robot: Robot) -> None:
    """A request belongs to its loop: nobody in another one waits for it, and all get a token."""
    everybody_asks = threading.Barrier(3)
    results: list[str] = []

    async def together(request: httpx.Request, forward: Forward) -> httpx.Response:
        await asyncio.to_thread(everybody_asks.wait, 30)
        return await forward(request)

    for _ in range(3):
        robot.network.step_in("/token", together)
    threads = [threading.Thread(target=lambda: results.append(asyncio.run(robot.token()))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(results), robot.asked()) == (3, 3)


async def test_closing_waits_for_what_is_under_way(robot: Robot) -> None:
    """A request that is answered in time brings its token; nothing is left behind."""
    gate = asyncio.Event()
    robot.network.step_in("/token", held(gate))
    caller = asyncio.create_task(robot.token())
    await until(robot.asked)
    closing = asyncio.create_task(robot.logto.aclose())
    assert await asyncio.wait([closing], timeout=0.05) == (set(), {closing})
    gate.set()
    async with asyncio.timeout(10):
        await closing
    assert (bool(await caller), robot.logto.client_tokens._own.waiting()) == (True, 0)


async def test_closing_waits_for_what_is_begun_meanwhile(robot: Robot) -> None:
    """A job that asks for its next token as soon as it has one leaves nothing behind, and opens no second client."""
    gates = [asyncio.Event(), asyncio.Event()]
    for gate in gates:
        robot.network.step_in("/token", held(gate))

    async def job() -> None:
        await robot.token()
        await robot.logto.get_client_credentials_token(API, ORGANIZATION)

    caller = asyncio.create_task(job())
    await until(robot.asked)
    closing = asyncio.create_task(robot.logto.aclose())
    await asyncio.sleep(0)
    gates[0].set()
    await until(lambda: robot.asked() == 2)
    assert await asyncio.wait([closing], timeout=0.05) == (set(), {closing})
    gates[1].set()
    async with asyncio.timeout(10):
        await asyncio.gather(closing, caller)
    assert (robot.logto.client_tokens._own.waiting(), len(robot.logto._clients)) == (0, 0)


async def test_closing_waits_for_introspection(robot: Robot) -> None:
    """A caller's token that is being asked about is answered before the client closes."""
    gate = asyncio.Event()
    path = "/token/introspection"
    robot.network.step_in(path, held(gate))
    caller = asyncio.create_task(robot.logto.bearer.verify("opaque-token", opaque=True))
    await until(lambda: robot.network.forms[path])
    closing = asyncio.create_task(robot.logto.aclose())
    assert await asyncio.wait([closing], timeout=0.05) == (set(), {closing})
    gate.set()
    async with asyncio.timeout(10):
        await closing
    with pytest.raises(InvalidToken):
        await caller
    assert len(robot.logto._clients) == 0


async def test_caller_of_a_stopped_request_hears_of_its_own_end() -> None:
    """A caller that is cancelled in the moment in which its request is stopped is cancelled, and hears no error."""
    flights: Flights[bool] = Flights()
    caller = asyncio.create_task(flights.join("key", asyncio.Event().wait))
    await until(flights.waiting)
    (work,) = flights._of_this_loop().values()
    work.cancel()
    await until(work.done)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_what_does_not_end_is_stopped(robot: Robot) -> None:
    """Beyond the patience of a shutdown the work ends, and who waits for it hears that the issuer is away."""
    robot.network.step_in("/token", held(asyncio.Event()))
    caller = asyncio.create_task(robot.token())
    await until(robot.asked)
    await robot.logto.client_tokens.drain(0)
    assert robot.logto.client_tokens._own.waiting() == 0
    with pytest.raises(IssuerUnavailable, match="shutting down"):
        await caller


async def test_work_that_is_done_is_not_joined_again() -> None:
    """A caller that asks again in the same turn of the loop begins new work, and cannot wait for ever."""
    flights: Flights[int] = Flights()
    done = 0

    async def work() -> int:
        nonlocal done
        done += 1
        return done

    assert [await flights.join("key", work), await flights.join("key", work)] == [1, 2]
    assert flights.waiting() <= 1


async def test_work_that_is_done_takes_nobody_s_place() -> None:
    """What was begun between the end of some work and its callback is still found by whoever asks next."""
    flights: Flights[object] = Flights()

    async def at_once() -> None:
        pass

    first = asyncio.create_task(flights.join("key", at_once))
    await until(flights.waiting)
    (work,) = flights._of_this_loop().values()
    await until(work.done)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await flights.join("key", asyncio.Event().wait)
    await first
    assert flights.waiting() == 1
    await flights.drain(0)


# -- Jobs --------------------------------------------------------------------------------------------------------------


async def test_job_without_sign_in(robot: Robot) -> None:
    """`async with Logto(config)` closes what it opened, and needs no cookie secret and no base URL."""
    async with robot.logto as logto:
        assert await logto.get_client_credentials_token(API)
        assert len(logto._clients) == 1
    assert len(robot.logto._clients) == 0


async def test_job_that_cannot_begin_leaves_nothing_open(make_robot: MakeRobot) -> None:
    """`verify_on_startup` holds for a job too; the block is not entered, and nothing stays open."""
    robot = make_robot(verify_on_startup=True)
    robot.network.step_in("/.well-known/openid-configuration", always(httpx.Response(502)))
    with pytest.raises(IssuerUnavailable):
        async with robot.logto:
            pytest.fail("the job began")
    assert len(robot.logto._clients) == 0

"""Opaque tokens: what the issuer is asked, what is remembered of its word, and how many calls strangers can cause."""

from __future__ import annotations

import asyncio
import logging
from base64 import b64decode
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, unquote_plus

import httpx
import pytest

from logto_asgi.errors import InvalidToken, IssuerRefused, IssuerResponseInvalid, IssuerUnavailable, SetupError
from tests.callers_issuer import APP_ID, DISCOVERY, INTROSPECTION, JWKS, SECRET, CallersIssuer
from tests.oidc.oidc_signing import ABSENT, ISSUER, discovery_document

TOKEN = "opaque-token"


@pytest.fixture
def issuer() -> CallersIssuer:
    return CallersIssuer()


async def ask(issuer: CallersIssuer, token: str = TOKEN) -> Any:
    """Return the claims of an opaque token, from memory or from the issuer, as a guard asks for them."""
    return issuer.bearer.known(token, opaque=True) or await issuer.bearer.verify(token, opaque=True)


async def refused(issuer: CallersIssuer, token: str = TOKEN) -> str:
    """Return the check that refuses a token."""
    with pytest.raises(InvalidToken) as caught:
        await ask(issuer, token)
    assert token not in repr(caught.value)
    assert caught.value.__context__ is None
    return caught.value.check


async def test_the_issuer_is_asked(issuer: CallersIssuer) -> None:
    """The token goes into the form, with a hint; the app authenticates as at the token endpoint (RFC 7662 §2.1)."""
    claims = await ask(issuer, issuer.opaque())
    request = issuer.asked[-1]
    assert (claims.sub, claims.scopes, claims.aud) == ("user-1", {"openid", "profile"}, ())
    assert parse_qs(request.content.decode()) == {"token": [TOKEN], "token_type_hint": ["access_token"]}
    pair = b64decode(request.headers["authorization"].removeprefix("Basic ")).decode()
    assert [unquote_plus(part) for part in pair.split(":")] == [APP_ID, SECRET]
    assert (request.method, request.url.query) == ("POST", b"")
    assert issuer.calls == {DISCOVERY: 1, INTROSPECTION: 1}


async def test_the_app_authenticates_as_it_was_told_to() -> None:
    """`client_secret_post` puts id and secret into the form, and nowhere else."""
    issuer = CallersIssuer(token_endpoint_auth_method="client_secret_post")
    await ask(issuer, issuer.opaque())
    form = parse_qs(issuer.asked[-1].content.decode())
    assert (form["client_id"], form["client_secret"]) == ([APP_ID], [SECRET])
    assert "authorization" not in issuer.asked[-1].headers


async def test_a_guard_without_opaque_knows_no_opaque_token(issuer: CallersIssuer) -> None:
    """What one guard let the issuer be asked about is unknown to another that takes JWTs only."""
    await ask(issuer, issuer.opaque())
    assert issuer.bearer.known(TOKEN, opaque=True) is not None
    assert issuer.bearer.known(TOKEN) is None
    with pytest.raises(InvalidToken):
        await issuer.bearer.verify(TOKEN)


async def test_a_jwt_is_never_sent_to_the_issuer(issuer: CallersIssuer) -> None:
    """What has two dots is a JWT, good or bad, and judged here."""
    assert await refused(issuer, "a.b.c") == "format"
    assert await refused(issuer, issuer.token(exp=1)) == "exp"
    assert (await ask(issuer, issuer.token())).sub == "user-1"
    assert issuer.calls[INTROSPECTION] == 0


REMEMBERED = {  # id: (setting, claims, seconds later, calls)
    "at-once": (30, {}, 0, 1),
    "just-within": (30, {}, 29, 1),
    "just-beyond": (30, {}, 30, 2),
    "never": (0, {}, 0, 2),
    "longer": (3600, {}, 3500, 1),
    "not-beyond-its-end": (3600, {"exp": 100}, 160, 2),
    "just-before-its-end": (3600, {"exp": 100}, 159, 1),
    "without-an-end": (30, {"exp": ABSENT}, 29, 1),
}


@pytest.mark.parametrize(("setting", "changes", "later", "calls"), REMEMBERED.values(), ids=REMEMBERED)
async def test_the_issuers_word_is_remembered(setting: int, changes: dict[str, Any], later: int, calls: int) -> None:
    """For `introspection_cache` seconds and never beyond the token's end (with the leeway); 0 asks each time."""
    issuer = CallersIssuer(introspection_cache=setting)
    if "exp" in changes and changes["exp"] is not ABSENT:
        changes = {"exp": int(issuer.now) + changes["exp"]}
    await ask(issuer, issuer.opaque(**changes))
    issuer.now += later
    with suppress(InvalidToken):  # Asked again after its end, the issuer's word is that it has expired.
        await ask(issuer)
    assert issuer.calls[INTROSPECTION] == calls


REFUSED_FOR = {  # id: (setting, seconds later, calls)
    "at-once": (30, 0, 1),
    "just-within-ten": (30, 9, 1),
    "ten": (30, 10, 2),
    "a-shorter-cache": (5, 5, 2),
    "no-cache": (0, 0, 2),
}


@pytest.mark.parametrize(("setting", "later", "calls"), REFUSED_FOR.values(), ids=REFUSED_FOR)
async def test_a_refusal_is_remembered_for_a_moment(setting: int, later: int, calls: int) -> None:
    """A token that is not active is asked about again after ten seconds, or sooner where less is remembered."""
    issuer = CallersIssuer(introspection_cache=setting)
    assert await refused(issuer) == "active"
    issuer.now += later
    assert await refused(issuer) == "active"
    assert issuer.calls[INTROSPECTION] == calls
    assert issuer.refused() == ["active", "active"]


async def test_refusals_are_remembered_in_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of bad tokens takes the room of so many; the oldest are asked about again."""
    monkeypatch.setattr("logto_asgi.introspection.MOST_REFUSED", 10)
    issuer = CallersIssuer()
    for number in [*range(11), 10, 0]:
        await refused(issuer, f"bad-{number}")
    assert issuer.calls[INTROSPECTION] == 12


UNCLEAR = {"absent": ABSENT, "a-string": "true", "one": 1, "null": None, "a-list": [True]}


@pytest.mark.parametrize("active", UNCLEAR.values(), ids=UNCLEAR)
async def test_active_must_be_true_or_false(active: Any, issuer: CallersIssuer) -> None:
    """An answer that leaves open whether a token is active lets nobody in."""
    issuer.opaque(active=active)
    with pytest.raises(IssuerResponseInvalid):
        await ask(issuer)
    assert issuer.bearer.known(TOKEN, opaque=True) is None


BAD = {
    "another-issuer": ({"iss": "https://evil.example/oidc"}, "iss"),
    "expired": ({"exp": 1}, "exp"),
    "not-yet": ({"nbf": 4_000_000_000}, "nbf"),
    "a-refresh-token": ({"token_type": ABSENT}, "token_type"),
    "no-client": ({"client_id": ABSENT}, "client_id"),
}


@pytest.mark.parametrize(("changes", "check"), BAD.values(), ids=BAD)
async def test_an_active_token_is_judged_all_the_same(
    changes: dict[str, Any], check: str, issuer: CallersIssuer
) -> None:
    """Active is not enough: whose token it is, when and what for is compared as far as the issuer says it."""
    issuer.opaque(**changes)
    assert await refused(issuer) == check
    assert await refused(issuer) == check
    assert issuer.calls[INTROSPECTION] == 1


async def test_a_machine_has_no_user(issuer: CallersIssuer) -> None:
    """A token without `sub` is its client's own, which guards refuse unless they let machines in."""
    assert (await ask(issuer, issuer.opaque(sub=ABSENT))).is_machine


async def landed(issuer: CallersIssuer, count: int) -> None:
    """Wait until so many calls have reached the issuer."""
    while issuer.waiting[INTROSPECTION] < count:
        await asyncio.sleep(0)


async def test_a_hundred_requests_ask_once(issuer: CallersIssuer) -> None:
    """However many bring the same token, the issuer is asked once; each refusal is counted."""
    issuer.opaque()
    assert len(set(map(id, await asyncio.gather(*(ask(issuer) for _ in range(100)))))) == 1
    errors = await asyncio.gather(*(ask(issuer, "bad") for _ in range(100)), return_exceptions=True)
    assert len(set(map(id, errors))) == 100
    assert issuer.calls[INTROSPECTION] == 2
    assert issuer.refused() == ["active"] * 100


async def test_those_who_wait_for_one_call_share_no_list(issuer: CallersIssuer) -> None:
    """One answer is for all who waited; what one of them does to its claims is for none of the others."""
    issuer.opaque(rights=["read"])
    for _ in range(2):
        for claims in await asyncio.gather(*(ask(issuer) for _ in range(3))):
            assert claims.raw()["rights"] == ["read"]
            claims.model_extra["rights"].append("admin")
    assert issuer.calls[INTROSPECTION] == 1


async def test_sixteen_calls_are_under_way_at_most(issuer: CallersIssuer) -> None:
    """Strangers' tokens stand in line; nobody can make the app open a hundred connections to its issuer."""
    gate = issuer.hang(INTROSPECTION)
    tasks = [asyncio.create_task(ask(issuer, issuer.opaque(f"token-{number}"))) for number in range(100)]
    await landed(issuer, 16)
    for _ in range(50):
        await asyncio.sleep(0)
    assert issuer.calls[INTROSPECTION] == 16
    gate.set()
    assert len(await asyncio.gather(*tasks)) == 100
    assert issuer.calls[INTROSPECTION] == 100


async def test_the_line_has_an_end() -> None:
    """Whoever waits longer than a call may take hears that the issuer is away, and leaves nothing in the line."""
    issuer = CallersIssuer(http_timeout=0.5)
    issuer.hang(INTROSPECTION)
    issuer.opaque()
    tokens = [f"token-{number}" for number in range(40)]
    errors = await asyncio.gather(*(ask(issuer, token) for token in tokens), return_exceptions=True)
    assert {type(error) for error in errors} == {IssuerUnavailable}
    await issuer.bearer.drain(5)
    assert issuer.calls[INTROSPECTION] < 40
    assert issuer.refused() == []
    issuer.gates.clear()
    assert (await ask(issuer)).sub == "user-1"


async def test_a_request_that_hangs_up_takes_nobody_along(issuer: CallersIssuer) -> None:
    """Two wait for one call; the first one's end is not the second one's."""
    issuer.opaque()
    gate = issuer.hang(INTROSPECTION)
    first, second = (asyncio.create_task(ask(issuer)) for _ in range(2))
    await landed(issuer, 1)
    first.cancel()
    await asyncio.wait([first])
    gate.set()
    assert (await second).sub == "user-1"
    assert issuer.calls[INTROSPECTION] == 1


UNFIT: dict[str, dict[str, Any]] = {
    "no-secret": {"app_secret": ABSENT},
    "no-id-and-no-secret": {"app_id": ABSENT, "app_secret": ABSENT},
}


@pytest.mark.parametrize("settings", UNFIT.values(), ids=UNFIT)
async def test_who_cannot_ask_is_told_why(settings: dict[str, Any]) -> None:
    """Without credentials there is nothing to ask with; the message names the settings."""
    issuer = CallersIssuer(**settings)
    with pytest.raises(SetupError, match="LOGTO_APP_ID and LOGTO_APP_SECRET"):
        await ask(issuer, issuer.opaque())
    assert issuer.calls == {}


async def test_an_issuer_without_introspection(issuer: CallersIssuer) -> None:
    """Where discovery names no endpoint the option cannot work, and the message says so."""
    issuer.answers[DISCOVERY] = (200, discovery_document())
    with pytest.raises(SetupError, match="opaque=True"):
        await ask(issuer, issuer.opaque())


async def test_the_endpoint_must_be_safe(issuer: CallersIssuer) -> None:
    """A token and a secret never travel over plain http to another machine."""
    issuer.answers[DISCOVERY] = (200, discovery_document(introspection_endpoint="http://tenant.logto.app/introspect"))
    with pytest.raises(IssuerResponseInvalid, match="introspection_endpoint"):
        await ask(issuer, issuer.opaque())


@pytest.mark.parametrize(("status", "error"), [(401, IssuerRefused), (400, IssuerRefused), (503, IssuerUnavailable)])
async def test_what_the_issuer_does_not_answer_is_no_refusal_of_the_token(
    status: int, error: type[Exception], issuer: CallersIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong secret or an outage says nothing of a token: it is asked about again, and shows up nowhere."""
    caplog.set_level(logging.DEBUG)
    issuer.go_down(INTROSPECTION, status=status, body={"error": "invalid_client", "error_description": TOKEN})
    with pytest.raises(error) as caught:
        await ask(issuer)
    assert TOKEN not in repr(caught.value) + caplog.text
    assert SECRET not in repr(caught.value) + caplog.text
    del issuer.answers[INTROSPECTION]
    assert (await ask(issuer, issuer.opaque())).sub == "user-1"


class Unplugged(CallersIssuer):
    """An issuer that no connection reaches once it is unplugged."""

    unplugged = False

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        answer = await super()._answer(request)
        if self.unplugged:
            raise httpx.ConnectError("no route", request=request)
        return answer


async def test_an_issuer_out_of_reach_is_left_alone_for_two_seconds(caplog: pytest.LogCaptureFixture) -> None:
    """Strangers' tokens do not each make a connection and a line in the log; what was true stays known."""
    issuer = Unplugged()
    known = issuer.opaque("known")
    await ask(issuer, known)
    issuer.unplugged = True
    for number in range(5):
        with pytest.raises(IssuerUnavailable) as caught:
            await ask(issuer, f"token-{number}")
        assert (caught.value.unreachable, caught.value.__context__) == (True, None)
        assert (await ask(issuer, known)).sub == "user-1"
        issuer.now += 1
    assert issuer.calls[INTROSPECTION] == 1 + 3
    assert len(caplog.records) == 3
    issuer.now += 2
    issuer.unplugged = False
    assert (await ask(issuer, issuer.opaque("token-1"))).sub == "user-1"


async def test_opaque_tokens_need_no_keys(issuer: CallersIssuer) -> None:
    """The issuer's word is not signed; an outage of the key set does not matter."""
    issuer.go_down(JWKS)
    assert (await ask(issuer, issuer.opaque())).iss == ISSUER


async def test_calls_are_counted(issuer: CallersIssuer) -> None:
    """Introspections cost the issuer and the request: an event counts them."""
    await ask(issuer, issuer.opaque())
    await ask(issuer)
    assert issuer.logto.counts == {"bearer.introspected": 1}

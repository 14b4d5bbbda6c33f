"""What is remembered of callers' tokens, and how the issuer's keys come and go."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from logto_asgi.bearer import BearerTokens
from logto_asgi.claims import ODD, AccessTokenClaims, IdTokenClaims, UserInfo
from logto_asgi.errors import InvalidToken, IssuerUnavailable, VerificationError
from logto_asgi.events import Events
from logto_asgi.models import TokenSet
from logto_asgi.oidc.discovery import DiscoveryCache
from tests.callers_issuer import API, APP_ID, DISCOVERY, JWKS, CallersIssuer, private_key
from tests.conftest import MakeSite
from tests.oidc.oidc_signing import ISSUER, NOW, discovery_document, sign

HOUR = 3600
LEEWAY = 60


@pytest.fixture
def issuer() -> CallersIssuer:
    return CallersIssuer()


@pytest.fixture
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logto_asgi.oidc.client._PATIENCE", 0.02)


async def check_of(bearer: BearerTokens, token: str, *, opaque: bool = False) -> str:
    """Return the check that refuses a token."""
    with pytest.raises(InvalidToken) as caught:
        await bearer.verify(token, opaque=opaque)
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    assert not token or token not in repr(caught.value)
    return caught.value.check


async def test_a_verified_token_is_known(issuer: CallersIssuer) -> None:
    """Verified once, a token's claims come back without anything being fetched or verified."""
    token = issuer.token()
    assert issuer.bearer.known(token) is None
    claims = await issuer.bearer.verify(token)
    assert (claims.sub, claims.aud) == ("user-1", API)
    assert issuer.bearer.known(token) is claims
    assert issuer.calls == {DISCOVERY: 1, JWKS: 1}


async def test_a_refused_token_is_not_known(issuer: CallersIssuer) -> None:
    """Only what is true is remembered."""
    token = issuer.token(iss="https://evil.example/oidc")
    assert await check_of(issuer.bearer, token) == "iss"
    assert issuer.bearer.known(token) is None


HOSTILE: dict[str, tuple[str, str]] = {
    "empty": ("", "format"),
    "of-100-kb": ("a.b." + "c" * 100_000, "size"),
    "opaque-of-100-kb": ("x" * 100_000, "size"),
    "nul": ("a.b.c\0", "format"),
    "non-ascii": ("a.b.é", "format"),
    "half-a-surrogate": ("a.b.\ud800", "format"),
    "line-break": ("a.b.c\r\nX-Admin: 1", "format"),
    "opaque": ("opaque-token", "format"),
    "two-tokens": ("a.b.c,a.b.c", "format"),
}


@pytest.mark.parametrize("opaque", [False, True])
@pytest.mark.parametrize(("token", "check"), HOSTILE.values(), ids=HOSTILE)
async def test_hostile_text_is_refused_without_a_call(
    token: str, check: str, opaque: bool, issuer: CallersIssuer
) -> None:
    """What cannot be a token of this API is refused at once, and looking it up raises nothing."""
    assert issuer.bearer.known(token, opaque=opaque) is None
    if token != "opaque-token":
        assert await check_of(issuer.bearer, token, opaque=opaque) == check
    assert await check_of(issuer.bearer, token) == check
    assert issuer.calls == {}


async def test_an_opaque_token_is_told_how_to_ask(issuer: CallersIssuer) -> None:
    """Whoever forgot `resource` gets an opaque token from Logto, and a message that says so."""
    with pytest.raises(InvalidToken, match="with `resource`"):
        await issuer.bearer.verify(issuer.opaque())
    assert issuer.calls == {}


async def test_nothing_behind_bearer_says_so(issuer: CallersIssuer) -> None:
    """An empty variable is the most frequent slip of a first call, and gets a sentence of its own."""
    with pytest.raises(InvalidToken, match=r"^Nothing stands behind Bearer\. Is the variable empty\?$"):
        await issuer.bearer.verify("")


EDGES = {  # id: (claims, seconds later, is it still good)
    "before-the-end": ({}, HOUR + LEEWAY - 1, True),
    "at-the-end": ({}, HOUR + LEEWAY, False),
    "clock-set-back-a-little": ({}, -LEEWAY, True),
    "clock-set-back-before-it-was-issued": ({}, -LEEWAY - 1, False),
    "clock-set-back-before-it-began": ({"nbf": NOW + 30}, -31, False),
}


@pytest.mark.parametrize(("changes", "later", "is_good"), EDGES.values(), ids=EDGES)
async def test_the_clock_decides_at_each_use(
    changes: dict[str, Any], later: float, is_good: bool, issuer: CallersIssuer
) -> None:
    """A remembered token is good for as long as its own times say, with the leeway of the configuration."""
    token = issuer.token(**changes)
    await issuer.bearer.verify(token)
    issuer.now += later
    # A clock that was set back makes the keys look as if they came from the future; they are fetched anew.
    await issuer.logto.client().keys()
    assert (issuer.bearer.known(token) is not None) is is_good


async def test_an_expired_token_says_so(issuer: CallersIssuer) -> None:
    """The message that most callers will ever see: it has expired."""
    token = issuer.token()
    await issuer.bearer.verify(token)
    issuer.now += HOUR + LEEWAY
    with pytest.raises(InvalidToken, match=r"^The access token has expired\.$") as caught:
        await issuer.bearer.verify(token)
    assert caught.value.check == "exp"


async def test_a_new_key_is_fetched_when_a_token_names_it(issuer: CallersIssuer) -> None:
    """The issuer signs with a new key at once; the one before stays published, and its tokens stay known."""
    old = issuer.token()
    claims = await issuer.bearer.verify(old)
    issuer.publish("first", "second")
    assert (await issuer.bearer.verify(issuer.token("second"))).sub == "user-1"
    assert issuer.calls[JWKS] == 2
    assert issuer.bearer.known(old) is claims


async def test_a_token_dies_with_its_key(issuer: CallersIssuer) -> None:
    """When a key has left the key set, what it signed is good no more, remembered or not."""
    token = issuer.token()
    await issuer.bearer.verify(token)
    issuer.publish("second")
    await issuer.bearer.verify(issuer.token("second"))
    assert issuer.bearer.known(token) is None
    assert await check_of(issuer.bearer, token) == "kid"


async def test_a_token_dies_when_its_key_id_is_used_for_another_key(issuer: CallersIssuer) -> None:
    """The id of a key says nothing about the key."""
    token = issuer.token()
    await issuer.bearer.verify(token)
    issuer.publish("first:again")
    issuer.now += HOUR
    await issuer.bearer.verify(issuer.token("first:again"))
    assert issuer.bearer.known(token) is None
    assert await check_of(issuer.bearer, token) == "signature"


async def test_keys_are_renewed_after_an_hour(issuer: CallersIssuer) -> None:
    """A known token asks for newer keys once they are an hour old, and is not verified anew for that."""
    token = issuer.token()
    claims = await issuer.bearer.verify(token)
    issuer.now += HOUR - 1
    assert issuer.bearer.known(token) is claims
    issuer.now += 1
    assert issuer.bearer.known(token) is None
    assert await issuer.bearer.verify(token) is claims
    assert issuer.calls[JWKS] == 2
    assert issuer.bearer.known(token) is claims


DAY = 24 * HOUR


async def test_an_outage_does_not_stop_tokens_whose_keys_are_known(issuer: CallersIssuer) -> None:
    """Keys serve for a day while they cannot be fetched, for known tokens and for new ones, and no longer."""
    token = issuer.token(exp=NOW + 2 * DAY)
    claims = await issuer.bearer.verify(token)
    issuer.go_down()
    issuer.now += DAY - 1
    assert await issuer.bearer.verify(token) is claims
    assert (await issuer.bearer.verify(issuer.token(sub="user-2"))).sub == "user-2"
    issuer.now += 1
    with pytest.raises(IssuerUnavailable):
        await issuer.bearer.verify(token)
    assert issuer.refused() == []


async def test_a_silent_issuer_does_not_stop_tokens_whose_keys_are_known(
    issuer: CallersIssuer, little_patience: None
) -> None:
    """While the key set hangs, older keys serve; the call goes on by itself, and its answer is used."""
    token = issuer.token(exp=NOW + DAY)
    claims = await issuer.bearer.verify(token)
    gate = issuer.hang(JWKS)
    for later in (HOUR, 1, 11, 11):
        issuer.now += later
        assert await issuer.bearer.verify(token) is claims
        assert (await issuer.bearer.verify(issuer.token())).sub == "user-1"
    gate.set()
    issuer.now += 11
    while issuer.bearer.known(token) is None:
        await issuer.bearer.verify(token)
        await asyncio.sleep(0.01)
    await issuer.logto.aclose()


@pytest.mark.parametrize("path", [JWKS, DISCOVERY], ids=["keys", "discovery"])
async def test_a_silent_issuer_does_not_stop_new_tokens_either(
    path: str, issuer: CallersIssuer, little_patience: None
) -> None:
    """A token that nobody has seen is verified with older keys and metadata while newer ones do not come."""
    await issuer.bearer.verify(issuer.token())
    gate = issuer.hang(path)
    issuer.now += HOUR
    assert (await issuer.bearer.verify(issuer.token(sub="user-2"))).sub == "user-2"
    gate.set()
    await issuer.logto.aclose()


async def test_a_slow_answer_is_waited_for_after_the_outage(issuer: CallersIssuer) -> None:
    """An issuer that failed once long ago is waited for again: a key that is gone must not serve longer than needed."""
    token = issuer.token(exp=NOW + DAY)
    await issuer.bearer.verify(token)
    issuer.go_down(JWKS)
    issuer.now += HOUR
    await issuer.bearer.verify(token)
    issuer.publish("second")
    issuer.now += 61
    assert await check_of(issuer.bearer, token) == "kid"


LACKS = {
    "discovery-is-down": ((DISCOVERY,), 503, b""),
    "keys-are-down": ((JWKS,), 503, b""),
    "discovery-is-not-there": ((DISCOVERY,), 404, b""),
    "keys-are-not-json": ((JWKS,), 200, b"<html>"),
    "no-key-is-usable": ((JWKS,), 200, {"keys": []}),
    "discovery-of-another-issuer": ((DISCOVERY,), 200, {"issuer": "https://other.example"}),
}


@pytest.mark.parametrize(("paths", "status", "body"), LACKS.values(), ids=LACKS)
async def test_a_lack_of_keys_is_not_the_tokens_fault(
    paths: tuple[str, ...], status: int, body: Any, issuer: CallersIssuer
) -> None:
    """Without keys nobody is refused and nobody let in: 503."""
    issuer.go_down(*paths, status=status, body=body)
    with pytest.raises(IssuerUnavailable) as caught:
        await issuer.bearer.verify(issuer.token())
    assert caught.value.status_code == 503
    assert issuer.refused() == []


async def test_an_unknown_key_in_an_outage_is_not_the_tokens_fault(issuer: CallersIssuer) -> None:
    """A token of a key that cannot be looked up may be a good one; so may the next, which is not looked up at all."""
    await issuer.bearer.verify(issuer.token())
    issuer.go_down(JWKS)
    for _ in range(2):
        with pytest.raises(IssuerUnavailable):
            await issuer.bearer.verify(issuer.token("second"))
    assert issuer.calls[JWKS] == 2


async def test_strangers_make_the_app_fetch_keys_seldom(issuer: CallersIssuer) -> None:
    """Tokens of unknown keys fetch the key set at most every five seconds; in between they are refused."""
    await issuer.bearer.verify(issuer.token())
    fetched = []
    for _ in range(6):
        assert await check_of(issuer.bearer, issuer.token("second")) == "kid"
        fetched.append(issuer.calls[JWKS])
        issuer.now += 1
    assert fetched == [2, 2, 2, 2, 2, 3]
    assert issuer.refused() == ["kid"] * 6


def id_token(issuer: CallersIssuer, key: str) -> tuple[TokenSet, IdTokenClaims]:
    """Return the answer to a refresh, and the claims from sign-in that it continues."""
    claims = {"iss": ISSUER, "sub": "user-1", "aud": APP_ID, "exp": int(issuer.now) + HOUR, "iat": int(issuer.now)}
    return TokenSet("at", id_token=sign(private_key(key), claims, alg="ES256")), IdTokenClaims.parse(claims)


async def test_strangers_do_not_use_up_the_cooldown_of_sign_in(issuer: CallersIssuer) -> None:
    """Right after a stranger's token made the app look, a sign-in with a new key still makes it look."""
    await issuer.bearer.verify(issuer.token())
    assert await check_of(issuer.bearer, issuer.token("second")) == "kid"
    issuer.publish("first", "second")
    claims = await issuer.logto.client().verify_refreshed(*id_token(issuer, "second"))
    assert claims is not None
    assert issuer.calls == {DISCOVERY: 1, JWKS: 3}


async def test_sign_in_does_not_use_up_the_cooldown_of_callers(issuer: CallersIssuer) -> None:
    """Right after a sign-in failed to fetch keys, a caller's token with a new key makes the app look, and is good."""
    await issuer.bearer.verify(issuer.token())
    issuer.go_down(JWKS)
    with pytest.raises(IssuerUnavailable):
        await issuer.logto.client().verify_refreshed(*id_token(issuer, "second"))
    issuer.publish("first", "second")
    assert (await issuer.bearer.verify(issuer.token("second"))).sub == "user-1"
    assert issuer.calls == {DISCOVERY: 1, JWKS: 3}


async def test_keys_of_sign_in_serve_callers(issuer: CallersIssuer) -> None:
    """What sign-in has fetched is not fetched again for a caller's token: there is one cache of keys."""
    await issuer.logto.client().verify_refreshed(*id_token(issuer, "first"))
    assert issuer.calls == {DISCOVERY: 1, JWKS: 1}
    assert (await issuer.bearer.verify(issuer.token())).sub == "user-1"
    assert issuer.calls == {DISCOVERY: 1, JWKS: 1}


@pytest.mark.parametrize(("paths", "status", "body"), LACKS.values(), ids=LACKS)
async def test_strangers_without_any_keys_call_the_issuer_seldom(
    paths: tuple[str, ...], status: int, body: Any, issuer: CallersIssuer
) -> None:
    """Without any keys a failed call is not repeated for two seconds, and everybody hears why it failed."""
    issuer.go_down(*paths, status=status, body=body)
    calls, said = [], set()
    for number in range(5):
        with pytest.raises(IssuerUnavailable) as caught:
            await issuer.bearer.verify(issuer.token(sub=f"user-{number}"))
        assert caught.value.__context__ is None
        said.add(caught.value.message)
        calls.append(issuer.calls[paths[0]])
        issuer.now += 1
    assert calls == [1, 1, 2, 2, 3]
    assert len(said) == 1


async def test_strangers_do_not_keep_sign_in_from_trying(issuer: CallersIssuer) -> None:
    """Right after a stranger's token failed for lack of keys, a sign-in asks the issuer, and callers profit by it."""
    issuer.go_down()
    with pytest.raises(IssuerUnavailable):
        await issuer.bearer.verify(issuer.token())
    with pytest.raises(IssuerUnavailable):
        await issuer.logto.client().verify_refreshed(*id_token(issuer, "first"))
    assert issuer.calls[DISCOVERY] == 2
    issuer.answers[DISCOVERY] = (200, discovery_document())
    issuer.publish("first")
    assert await issuer.logto.client().verify_refreshed(*id_token(issuer, "first")) is not None
    assert (await issuer.bearer.verify(issuer.token())).sub == "user-1"


async def test_a_clock_that_was_set_back_does_not_prolong_the_pause(issuer: CallersIssuer) -> None:
    """A failure that seems to be in the future counts as long ago."""
    issuer.go_down(JWKS)
    with pytest.raises(IssuerUnavailable):
        await issuer.bearer.verify(issuer.token())
    issuer.now -= HOUR
    issuer.publish("first")
    assert (await issuer.bearer.verify(issuer.token())).sub == "user-1"


@pytest.mark.parametrize("path", [JWKS, DISCOVERY], ids=["keys", "discovery"])
async def test_that_older_documents_serve_is_logged_once(
    path: str, issuer: CallersIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    """A hundred requests that meet the outage at once are one line."""
    await issuer.bearer.verify(issuer.token())
    issuer.go_down(path)
    issuer.now += HOUR
    tokens = [issuer.token(sub=f"user-{number}") for number in range(100)]
    await asyncio.gather(*map(issuer.bearer.verify, tokens), *(issuer.logto.client().metadata() for _ in range(9)))
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_a_hundred_requests_fetch_keys_once(issuer: CallersIssuer) -> None:
    """However many requests bring tokens nobody has seen, discovery and keys are fetched once."""
    tokens = [issuer.token(), issuer.token(sub="user-2")] * 50
    found = await asyncio.gather(*map(issuer.bearer.verify, tokens))
    assert {claims.sub for claims in found} == {"user-1", "user-2"}
    assert issuer.calls == {DISCOVERY: 1, JWKS: 1}


async def test_a_hundred_unknown_keys_fetch_keys_once(issuer: CallersIssuer) -> None:
    """A storm of tokens with a new key waits for one call."""
    await issuer.bearer.verify(issuer.token())
    issuer.publish("first", "second")
    tokens = [issuer.token("second", sub=f"user-{number}") for number in range(100)]
    assert len(await asyncio.gather(*map(issuer.bearer.verify, tokens))) == 100
    assert issuer.calls[JWKS] == 2


async def how_many_are_known(issuer: CallersIssuer, **changes: Any) -> int:
    """Return how many of a hundred tokens find room in 100,000 bytes."""
    cache = DiscoveryCache()
    bearer = BearerTokens(issuer.config, issuer.logto.client, cache, lambda: issuer.now, Events(), limit=100_000)
    tokens = [issuer.token(sub=f"user-{number}", **changes) for number in range(100)]
    for token in tokens:
        await bearer.verify(token)
    cache.keys.store(await issuer.logto.client().keys(), issuer.now)
    return sum(bearer.known(token) is not None for token in tokens)


async def test_the_memory_is_bounded_in_bytes(issuer: CallersIssuer) -> None:
    """Beyond its bytes the memory forgets; long tokens and long lists take more room than short ones."""
    short = await how_many_are_known(issuer)
    long = await how_many_are_known(issuer, custom="x" * 5_000)
    nested = await how_many_are_known(issuer, custom=[[]] * 1_000)
    assert 20 <= short <= 28
    assert 8 <= long < short
    assert 1 <= nested < long


async def test_no_token_is_kept(issuer: CallersIssuer) -> None:
    """Nothing that is reachable from the memory holds a token, or a part of one that could be used."""
    token = issuer.token()
    await issuer.bearer.verify(token)
    seen: set[int] = set()
    front: list[Any] = [issuer.bearer._memory]
    texts: list[str] = []
    while front:
        held = front.pop()
        if id(held) in seen or isinstance(held, type | type(logging)) or callable(held):
            continue
        seen.add(id(held))
        if isinstance(held, str | bytes):
            texts.append(held if isinstance(held, str) else held.decode("latin-1"))
        front += gc.get_referents(held)
    assert "user-1" in texts
    signature = token.rpartition(".")[2]
    assert [text for text in texts if signature in text] == []


async def test_refusals_are_counted_and_not_logged(issuer: CallersIssuer, caplog: pytest.LogCaptureFixture) -> None:
    """Strangers could fill the log: a refusal is an event with its reason, and not a line."""
    caplog.set_level(logging.INFO, "logto_asgi")
    for token in ("garbage", issuer.token(exp=NOW - HOUR), issuer.token(nonce="n")):
        await check_of(issuer.bearer, token)
    assert issuer.refused() == ["format", "exp", "nonce"]
    assert issuer.logto.counts["bearer.refused"] == 3
    assert caplog.records == []


async def test_a_refusal_leaves_nothing_behind(issuer: CallersIssuer) -> None:
    """What a stranger sent is freed at once, and does not wait for the garbage collector."""
    await issuer.bearer.verify(issuer.token())
    gc.collect()
    gc.disable()
    try:
        for token in (issuer.token(iss="https://evil.example"), issuer.token("second"), "a-token"):
            with suppress(InvalidToken):
                await issuer.bearer.verify(token)
        left = [each for each in gc.get_objects() if isinstance(each, InvalidToken | VerificationError)]
    finally:
        gc.enable()
    assert left == []


async def test_a_key_set_that_comes_back_the_same_forgets_nothing(issuer: CallersIssuer) -> None:
    """Fetched anew every hour, the same keys are the same keys."""
    token = issuer.token(exp=NOW + DAY)
    claims = await issuer.bearer.verify(token)
    for _ in range(3):
        issuer.now += HOUR
        await issuer.logto.client().keys()
        assert issuer.bearer.known(token) is claims
    assert issuer.calls[JWKS] == 4


async def test_claims_cannot_be_changed_for_the_next_request(issuer: CallersIssuer) -> None:
    """What requests share is frozen."""
    claims: AccessTokenClaims = await issuer.bearer.verify(issuer.token())
    with pytest.raises(ValueError, match="frozen"):
        claims.sub = "admin"  # type: ignore[misc]


CHANGEABLE: dict[str, tuple[dict[str, Any], Any]] = {
    # id: (claims of the token, what a request does to the claims)
    "a-list": ({"rights": ["read"]}, lambda claims: claims.rights.append("admin")),
    "a-list-in-an-object": ({"o": {"rights": ["read"]}}, lambda claims: claims.o["rights"].append("admin")),
    "an-empty-object": ({"o": {}}, lambda claims: claims.o.update(admin=True)),
    "the-actor": ({"act": {"sub": "bob"}}, lambda claims: claims.act.update(sub="admin")),
    "a-claim-of-another-type": ({"amr": {"x": ["pwd"]}}, lambda claims: vars(claims)[ODD]["amr"]["x"].append("mfa")),
    "in-the-address": ({"address": {"x": ["a"]}}, lambda claims: claims.address.x.append("b")),
    "raw": ({"rights": ["read"]}, lambda claims: claims.raw()["rights"].append("admin")),
    "raw-of-another-type": ({"amr": {"x": ["pwd"]}}, lambda claims: claims.raw()["amr"]["x"].append("mfa")),
}


@pytest.mark.parametrize(("changes", "change"), CHANGEABLE.values(), ids=CHANGEABLE)
async def test_lists_and_objects_are_each_requests_own(
    changes: dict[str, Any], change: Callable[[AccessTokenClaims], Any], issuer: CallersIssuer
) -> None:
    """What one request does to lists and objects among the claims, no later request with the same token sees."""
    token = issuer.token(**changes)
    sent = issuer.claims(**changes)
    change(await issuer.bearer.verify(token))
    for _ in range(2):
        claims = issuer.bearer.known(token)
        assert claims is not None
        assert claims.raw() == sent
        change(claims)
    issuer.now += HOUR - 1
    claims = await issuer.bearer.verify(token)  # It is remembered here too.
    assert claims.raw() == sent
    change(claims)
    known = issuer.bearer.known(token)
    assert known is not None
    assert known.raw() == sent


async def test_what_raw_returns_is_a_copy(issuer: CallersIssuer) -> None:
    """Also within one request: who changes `raw()` changes nothing of the claims."""
    claims = await issuer.bearer.verify(issuer.token(o={"rights": ["read"]}, act={"sub": "bob"}, amr={"x": []}))
    raw = claims.raw()
    raw["o"]["rights"].append("admin")
    raw["act"]["sub"] = "admin"
    raw["amr"]["x"].append("mfa")
    assert (claims.raw()["o"], claims.actor, claims.raw()["amr"]) == ({"rights": ["read"]}, "bob", {"x": []})


@pytest.mark.parametrize("updated_at", [1_700_000_000, 1_700_000_000_123], ids=["seconds", "milliseconds"])
async def test_times_of_other_issuers_stay_as_they_came(updated_at: int, issuer: CallersIssuer) -> None:
    """Logto says milliseconds and OpenID Connect seconds (§5.1): nobody guesses, and nothing is converted."""
    claims = await issuer.bearer.verify(issuer.token(updated_at=updated_at))
    assert (claims.updated_at, claims.raw()["updated_at"]) == (updated_at, updated_at)
    info = UserInfo.parse({"sub": "user-1", "updated_at": updated_at})
    assert (info.updated_at, info.model_dump()) == (updated_at, {"sub": "user-1", "updated_at": updated_at})


async def test_tokens_of_the_development_provider(make_site: MakeSite) -> None:
    """Whole ways: what the provider signs is verified, and its ID tokens are not taken for it."""
    site = make_site()
    bearer, sub = site.logto.bearer, "alice"
    token = site.provider.mint_access_token(sub, resource=API, scopes=["read:items"])
    claims = await bearer.verify(token)
    assert (claims.sub, claims.aud, claims.scopes) == (sub, API, {"read:items"})
    assert bearer.known(token) is claims
    assert await check_of(bearer, site.provider.mint_id_token(sub)) == "typ"
    assert await check_of(bearer, site.provider.mint_id_token(sub, header={"typ": "at+jwt"})) == "client_id"
    machine = await bearer.verify(site.provider.mint_access_token(site.config.app_id, organization_id="org-1"))
    assert (machine.is_machine, machine.organization) == (True, "org-1")


async def test_opaque_tokens_of_the_development_provider(make_site: MakeSite) -> None:
    """Whole ways: the provider's word on an opaque token counts, until it is asked again."""
    site = make_site(introspection_cache=30)
    bearer = site.logto.bearer
    token = site.provider.opaque_access_token("alice", scopes=["openid"])
    claims = await bearer.verify(token, opaque=True)
    assert (claims.sub, claims.client_id, claims.audiences) == ("alice", site.config.app_id, frozenset())
    assert bearer.known(token, opaque=True) is claims
    assert await check_of(bearer, "made-up", opaque=True) == "active"

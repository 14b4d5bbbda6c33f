"""What each request may see: a model of who is signed in where, much smaller than what it judges."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from interleavings_visits import Response, Visit
from interleavings_world import ABSOLUTE, API, IDLE, OTHER_API, ROLL, SECRETS, START, Process, World, read_token

from logto_asgi.models import Session
from logto_asgi.session.cookies import cookie_name, cut
from logto_asgi.session.in_cookie.backend import CookieBackend
from logto_asgi.session.in_store.records import Records, Tombstone, Unreadable, key_of
from logto_asgi.session.in_store.session_ids import SessionIds

__all__ = ["Begun", "Login", "Model", "Shown"]

_AFTERMATH = 5.0
"""Seconds after a failure within which 503 is still an answer: a breaker is open, a probe under way."""


@dataclass(eq=False)
class Login:
    """One sign-in, and what has become of it."""

    id: str
    sub: str
    grant: Any
    created: float
    touched_from: float
    touched_to: float
    """The store was last touched between these."""
    may_be_over: str = ""
    """Why it may be over: from the moment on at which that begins."""
    over: str = ""
    """Why it must be over."""
    lost: bool = False
    """An answer to its refresh got lost, so that a spent refresh token may come back."""
    seen: int = 0
    written: int = 0
    """The latest version that this process was shown, and that it wrote. Cookies only."""
    stored: int = 0
    """The latest version that was in the store."""


@dataclass(frozen=True)
class Shown:
    """What a `Cookie` header says about a session, as somebody sees it who has every secret."""

    id: str
    state: Session | None
    """The state in it; None where it only names the session."""


@dataclass
class Begun:
    """What the model knew when a request began."""

    at: float
    loop_at: float
    shown: Shown | None
    login: Login | None
    over: str
    readable: bool
    stale: bool
    due: bool
    """Whether the store must be touched now, and seal the session under the first secret."""
    troubled: bool


@dataclass(eq=False)
class Model:
    """Judges requests. Raises `AssertionError`, or collects `faults` where nobody would see an exception."""

    world: World
    logins: dict[str, Login] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        configs = [self.world.config([secret]) for secret in dict.fromkeys(s for stage in SECRETS for s in stage)]
        self.world.config(SECRETS[0])
        self._prefix = (cookie_name("app", secure=False) + "=").encode()
        # Their clocks stand still, so that they read what has expired too.
        self._backends = [CookieBackend(config, clock=lambda: START) for config in configs]
        self._ids = [SessionIds(_secrets(config), issuer=config.issuer, client_id="app") for config in configs]
        self._records = [Records(config) for config in configs]
        self._order = [_secrets(config)[0] for config in configs]

    # -- What there is -------------------------------------------------------------------------------------------------

    def shown(self, cookie: str, secrets: list[str] | None = None) -> Shown | None:
        """Return what a `Cookie` header holds for whoever has these secrets, or all."""
        for secret, backend, ids in zip(self._order, self._backends, self._ids, strict=True):
            if secrets is not None and secret not in secrets:
                continue
            if self.world.stored:
                value = cut(cookie.encode(), self._prefix)
                signed = None if value is None else ids.read(value)
                if signed is not None:
                    return Shown(signed.id, None)
            else:
                state = backend.load([(b"cookie", cookie.encode())]).presented
                if state is not None:
                    return Shown(state.id, state)
        return None

    async def record(self, login: Login, secrets: list[str] | None = None) -> Session | None:
        """Return what the store holds of a session for whoever has these secrets, or all."""
        key = key_of(login.id)
        found = await self.world.store.get(key, now=int(self.world.now()))
        for secret, records in zip(self._order, self._records, strict=True):
            if found is not None and (secrets is None or secret in secrets):
                try:
                    opened = records.open(key, found.value)
                except Unreadable:
                    continue
                return None if isinstance(opened, Tombstone) else opened.session
        return None

    async def look_at_store(self) -> None:
        """Find states that went over newer ones, and sessions that came back."""
        for login in self.logins.values() if self.world.stored else ():
            state = await self.record(login)
            if state is not None:
                if login.over:
                    self.faults.append(f"the store has a session that is over ({login.over})")
                if state.version < login.stored:
                    self.faults.append(f"the store has version {state.version} after {login.stored}")
                login.stored = max(login.stored, state.version)

    def login_of_grant(self, grant: Any) -> Login | None:
        """Return the sign-in that an issuer's grant belongs to."""
        return next((login for login in self.logins.values() if login.grant is grant), None)

    # -- What happens to refresh tokens --------------------------------------------------------------------------------

    def hear_of_refresh(self, token: Any, _: Any) -> None:
        """Take note of a refresh request: nobody may send a token that is spent, but where an answer was lost."""
        login = self.login_of_grant(token.grant)
        if login is None:
            return
        login.touched_to = max(login.touched_to, self.world.now() + 1)
        if token.consumed_at is not None and not login.lost and not login.over:
            self.faults.append(f"a spent refresh token of {login.sub} was sent again")

    def hear_of_loss(self, token: Any) -> None:
        """Take note of an answer that got lost though the issuer had replaced the refresh token."""
        login = self.login_of_grant(token.grant)
        if login is not None:
            self.lose(login, "an answer was lost")

    def lose(self, login: Login, why: str) -> None:
        """Excuse whatever comes of a refresh token that nobody knows the successor of."""
        login.lost = True
        login.may_be_over = login.may_be_over or why

    def excuse_users(self, sub: str, why: str) -> None:
        """Take note that the issuer has turned against a user."""
        for login in self.logins.values():
            if login.sub == sub:
                login.may_be_over = login.may_be_over or why

    async def bury(self, process: Process) -> None:
        """Take note that a process is gone: what it knew and had not given away is lost."""
        for token in process.wire.under_way:
            self.hear_of_loss(token)
        for login in self.logins.values():
            if not self.world.stored:
                login.seen = login.written = 0
                login.over = ""  # Only that process knew, and the issuer.
            else:
                state = await self.record(login)
                if state is not None and self.world.is_spent(state.refresh_token):
                    self.lose(login, "a process died before it saved")

    def look_at_jar(self, cookie: str) -> None:
        """Excuse a browser that is left with a spent refresh token, where no process knows its successor any more."""
        shown = self.shown(cookie)
        login = self.logins.get(shown.id) if shown else None
        if shown and shown.state and login and self.world.is_spent(shown.state.refresh_token):
            self.lose(login, "the browser never got the newest cookie")

    # -- Requests ------------------------------------------------------------------------------------------------------

    async def begin(self, visit: Visit) -> Begun:
        """Note what is known when a request begins."""
        world = self.world
        secrets = SECRETS[visit.process.stage]
        shown = self.shown(visit.cookie)
        login = self.logins.get(shown.id) if shown else None
        stale = bool(shown and login and shown.state and shown.state.version < login.seen)
        readable = self.shown(visit.cookie, secrets) is not None
        if login is not None:
            if world.stored:
                readable = readable and (await self.record(login, secrets)) is not None
            elif readable and shown is not None and shown.state is not None:
                login.seen = max(login.seen, shown.state.version)
        return Begun(
            world.now(), world.loop.time(), shown, login, login.over if login else "", readable, stale,
            login is not None and world.now() - login.touched_to >= ROLL, self.is_troubled(visit.process),
        )  # fmt: skip

    def is_troubled(self, process: Process) -> bool:
        """Tell whether something is away, or was when this process last asked: its next call to the store probes."""
        return self.world.in_trouble or (self.world.stored and process.logto.sessions._store.was_away(within=0))  # type: ignore[attr-defined]

    def must_know(self, begun: Begun) -> bool:
        """Tell whether a request that ends now must be answered as the user's."""
        login, now = begun.login, self.world.now()
        if login is None or login.may_be_over or login.over or not begun.readable:
            return False
        return now < login.created + ABSOLUTE - 1 and now < self._idle_end(begun, login.touched_from)

    def is_live(self, begun: Begun) -> bool:
        """Tell whether a request that began then showed a session that had not expired, over or not."""
        login = begun.login
        if login is None or not begun.readable:
            return False
        return begun.at < min(login.created + ABSOLUTE, self._idle_end(begun, login.touched_from)) - 1

    def must_not_know(self, begun: Begun) -> bool:
        """Tell whether a request that began then must be answered as nobody's."""
        login = begun.login
        if login is None or begun.over:
            return True
        return begun.at >= min(login.created + ABSOLUTE + 1, self._idle_end(begun, login.touched_to) + 1)

    def _idle_end(self, begun: Begun, touched: float) -> float:
        state = begun.shown.state if begun.shown else None
        return (state.sealed_at if state else int(touched)) + IDLE

    def judge(self, visit: Visit, begun: Begun) -> None:
        """Compare a finished request with what it may say."""
        response = visit.response
        if response is None:
            self._may_have_touched(begun)
            return
        text = f"{visit.path} as {begun.login and begun.login.sub}: {response.status} {response.body[:90]!r}"
        if visit.path == "/public":
            assert response.status == 200, text
            return
        assert response.status in (200, 401, 503), text
        if response.status == 503:
            assert self.is_excused(begun), f"nothing is away, but {text}"
            self._may_have_touched(begun)
            return
        sub = response.json()["sub"] if response.status == 200 else None
        if sub is not None:
            assert begun.login is not None, f"nobody signed in, but {text}"
            assert sub == begun.login.sub, f"somebody else: {text}"
            assert not self.must_not_know(begun), f"the session is over ({begun.over or 'expired'}), but {text}"
            self._judge_token(visit, begun, response)
            self._touch(begun)
        elif visit.path == "/" or not begun.stale:
            assert not self.must_know(begun), f"the session lives, but {text}"

    def is_excused(self, begun: Begun) -> bool:
        return begun.troubled or self.world.in_trouble or self.world.troubled_at >= begun.loop_at - _AFTERMATH

    def _judge_token(self, visit: Visit, begun: Begun, response: Response) -> None:
        what, value = visit.path.partition("what=")[2], response.json().get("token")
        if value is None or begun.login is None:
            return
        token = read_token(self.world.provider, value)
        assert token["sub"] == begun.login.sub, "a token of somebody else"
        assert token["aud"] == {"opaque": None, "other": OTHER_API}.get(what, API), f"{what}: for {token['aud']}"
        assert self.world.now() < token["exp"], f"{what}: an expired token"
        if what == "forced":
            assert self.world.issued[value] >= begun.loop_at, "a token from before it was asked for"

    def _may_have_touched(self, begun: Begun) -> None:
        """Take note that the store may have heard of a request that brought no good answer."""
        if begun.login is not None and not self.must_not_know(begun):
            begun.login.touched_to = max(begun.login.touched_to, begun.at)

    def _touch(self, begun: Begun) -> None:
        login = begun.login
        assert login is not None
        if begun.at - login.touched_to >= ROLL:
            login.touched_from = begun.at
        login.touched_to = max(login.touched_to, begun.at)

    # -- Cookies -------------------------------------------------------------------------------------------------------

    def judge_headers(self, visit: Visit, begun: Begun, response: Response) -> None:
        """Compare what a response writes, at the moment its headers leave, with what it may write."""
        lines = [line for line in response.lines if line.encode().startswith(self._prefix)]
        if not lines:
            return
        if "Max-Age=0" in lines[0]:
            if self.must_know(begun) and not begun.stale:
                self.faults.append(f"{visit.path} deletes the cookie of {begun.login and begun.login.sub}, who lives")
            return
        written = self.shown("; ".join(line.partition(";")[0] for line in response.lines))
        if written is None or begun.shown is None or written.id != begun.shown.id:
            self.faults.append(f"{visit.path} writes another session than it was shown")
        elif begun.over or (begun.login and begun.login.over and not self.world.stored):
            self.faults.append(f"{visit.path} writes a session that is over")
        elif written.state is not None and begun.login is not None:
            if written.state.version < begun.login.written:
                self.faults.append(f"{visit.path} writes an older state than was written before")
            begun.login.written = max(begun.login.written, written.state.version)

    async def judge_rolled(self, visit: Visit, begun: Begun) -> None:
        """Hold a prompt answer to renewing what the browser has: its idle lifetime, and the secret."""
        response, login = visit.response, begun.login
        if response is None or response.status != 200 or visit.path == "/public" or login is None:
            return
        if not self.must_know(begun) or begun.stale or self.is_excused(begun):
            return
        now, first = self.shown(visit.browser.header), SECRETS[visit.process.stage][:1]
        assert now is not None, "the browser lost its session to a good answer"
        if now.id != login.id:
            return
        if now.state is not None:
            assert begun.at - now.state.sealed_at < ROLL, "a session in use was not renewed"
            return
        assert self.shown(visit.browser.header, first), "an id that an older secret signed was not signed anew"
        if begun.due:
            assert await self.record(login, first), "what an older secret sealed was not sealed anew"


def _secrets(config: Any) -> list[str]:
    return [secret.get_secret_value() for secret in config.cookie_secrets]

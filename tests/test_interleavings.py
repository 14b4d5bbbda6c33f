"""Random interleavings of requests, refreshes, sign-ins and failures, against a model of what each request may see.

A few examples run with the suite. `INTERLEAVINGS=2000 pytest tests/test_interleavings.py` runs as many.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from interleavings_actions import Actions
from interleavings_loop import JumpingLoop
from interleavings_model import Model
from interleavings_visits import Browser
from interleavings_world import ABSOLUTE, IDLE, ROLL, SECRETS, TTL, World

EXAMPLES = int(os.environ.get("INTERLEAVINGS", "60"))
SETTINGS = settings(
    max_examples=EXAMPLES,
    stateful_step_count=30,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
USERS = st.sampled_from(["alice", "bob"])
PATHS = st.sampled_from(
    ["/", "/guarded/", "/?what=api", "/?what=other", "/?what=opaque", "/?what=forced", "/?what=refresh", "/public"]
)
NUMBERS = st.integers(0, 3)
SEEDS = st.integers(0, 1_000)
DELIVERY = st.sampled_from(["now", "now", "now", "late", "never"])
VISITS = st.tuples(NUMBERS, NUMBERS, PATHS, DELIVERY, st.sampled_from([None, None, None, 0.0, 0.02]))
EVENTS = st.sampled_from(["", "", "", "sign-out", "sign-in", "sign-in twice", "kill", "store goes", "answer lost"])
STEPS = st.sampled_from([0, 60, ROLL, TTL - 60, TTL, 3600, IDLE, ABSOLUTE])
"""What times are counted from when the clock moves: a grace, a margin, an end."""


class Interleavings(Actions, RuleBasedStateMachine):
    """Two browsers, and the processes that they visit."""

    count: int
    """How many processes there are."""

    def __init__(self) -> None:
        super().__init__()
        logging.getLogger("logto_asgi").setLevel(logging.CRITICAL)
        self.loop = JumpingLoop()
        self.late: list[tuple[Browser, list[str], int]] = []
        self.slow: list[tuple[str, asyncio.Task[None]]] = []
        self.old: list[tuple[str, int]] = []

    # -- Beginning and end ---------------------------------------------------------------------------------------------

    @initialize(rotate=st.sampled_from(["always", "logto", "never"]))
    def build(self, rotate: str) -> None:
        async def start() -> None:
            self.world = World(self.loop, rotate, self.stored, lambda *_: None, lambda *_: None)
            self.model = Model(self.world)
            self.world.on_refresh, self.world.on_lost = self.model.hear_of_refresh, self.model.hear_of_loss
            for number in range(self.count):
                self.world.start_process(number, 0)
            self.browsers = [Browser("one"), Browser("two")]
            for browser, sub in zip(self.browsers, ("alice", "bob"), strict=True):
                await self.sign_in_as(browser, self.world.processes[0], sub, "now")

        self.run(start())

    def teardown(self) -> None:
        if not hasattr(self, "browsers"):
            self.loop.close()
            return
        try:
            self.run(self.find_peace())
        finally:
            self.run(self.close())
            self.loop.close()
            logging.getLogger("logto_asgi").setLevel(logging.NOTSET)

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "browsers"):
            self.run(self.model.look_at_store())
            assert not self.model.faults, self.model.faults

    # -- Requests ------------------------------------------------------------------------------------------------------

    @rule(visits=st.lists(VISITS, min_size=1, max_size=5), event=EVENTS, number=NUMBERS, user=USERS, seed=SEEDS)
    def visit_at_once(self, visits: list[Any], event: str, number: int, user: str, seed: int) -> None:
        """Several requests at the same time, and perhaps something else in the middle of them."""

        async def work() -> None:
            jobs = [
                self.visit(self.browser(one), self.process(other), path, delivery, patience, together=len(visits) > 1)
                for one, other, path, delivery, patience in visits
            ]
            await asyncio.gather(*jobs, self.happen(event, number, user, seed))

        with self.world.slow_network(seed):
            self.run(work())

    @rule(visit=VISITS, gate=st.booleans())
    def begin_slow_visit(self, visit: Any, gate: bool) -> None:
        """A request that has read the user and goes on later, while other things happen."""
        one, other, path, delivery, _ = visit
        if path in ("/public", "/guarded/") or len(self.slow) > 3:
            return
        name = f"g{len(self.world.gates)}"
        self.world.gates[name] = asyncio.Event()
        browser, process = self.browser(one), self.process(other)
        work = self.visit(browser, process, path, delivery, together=True, gate=name)
        self.slow.append((name, self.loop.create_task(work)))
        self.run(asyncio.sleep(0.01))

    @precondition(lambda self: self.slow)
    @rule(number=NUMBERS)
    def end_slow_visit(self, number: int) -> None:
        """Its headers leave now."""
        name, task = self.slow.pop(number % len(self.slow))
        self.world.gates[name].set()
        self.run(self.wait_for([task]))

    @precondition(lambda self: self.late)
    @rule(number=NUMBERS)
    def deliver(self, number: int) -> None:
        """A response arrives that was under way for long."""
        browser, lines, generation = self.late.pop(number % len(self.late))
        browser.receive(lines)
        if not self.stored and generation != self.world.generation:
            self.model.look_at_jar(browser.header)

    @precondition(lambda self: self.old)
    @rule(number=NUMBERS, other=NUMBERS)
    def replay(self, number: int, other: int) -> None:
        """Somebody sends cookies that a browser had earlier."""
        cookie, generation = self.old[number % len(self.old)]
        known = self.stored or generation == self.world.generation
        somebody = Browser("somebody")
        self.run(self.visit(somebody, self.process(other), "/?what=api" if known else "/", "never", cookie=cookie))

    # -- In and out ----------------------------------------------------------------------------------------------------

    @rule(number=NUMBERS, other=NUMBERS, user=USERS, delivery=DELIVERY)
    def sign_in(self, number: int, other: int, user: str, delivery: str) -> None:
        """A browser signs in, as the same user or another."""
        self.run(self.sign_in_as(self.browser(number), self.process(other), user, delivery))

    @rule(number=NUMBERS, other=NUMBERS, delivery=DELIVERY)
    def sign_out(self, number: int, other: int, delivery: str) -> None:
        """A browser signs out."""
        self.run(self.sign_out_of(self.browser(number), self.process(other), delivery))

    # -- Time, processes, failures -------------------------------------------------------------------------------------

    @rule(number=NUMBERS, step=STEPS, past=st.sampled_from([-1, 0, 1, 7]), of=st.sampled_from(["made", "used", "now"]))
    def move_clock(self, number: int, step: int, past: int, of: str) -> None:
        """To just before, at or just after an edge. What is on its way arrives first: the jump is no lost answer."""
        self.run(asyncio.sleep(4))
        now = self.world.now()
        logins = list(self.model.logins.values())
        login = logins[-1 - number % len(logins)]
        base = {"made": login.created, "used": login.touched_to, "now": now}[of]
        target = base + step + past
        if target > now:
            self.loop.skip(target - now)
            self.run(asyncio.sleep(0))

    @rule(number=NUMBERS)
    def kill(self, number: int) -> None:
        """A process dies, with all that it was doing."""
        self.run(self.kill_process(self.process(number)))

    @rule(number=NUMBERS, further=st.booleans())
    def restart(self, number: int, further: bool) -> None:
        """A process ends in order, and starts again; perhaps with the next step of a new secret."""
        process = self.process(number)
        stages = [each.stage for each in self.world.processes]
        stage = process.stage
        if further and stage == min(stages) and stage + 1 < len(SECRETS):
            stage += 1

        async def work() -> None:
            mine = [(name, task) for name, task in self.slow]
            for name, _ in mine:
                self.world.gates[name].set()
            await self.wait_for([task for _, task in mine])
            self.slow = []
            await process.logto.aclose()
            process.died.set_result(None)
            await self.follow(process, stage)

        self.run(work())

    @rule(how=st.sampled_from(["suspend", "let in", "revoke"]))
    def turn_against(self, how: str) -> None:
        """The issuer suspends a user or ends its grants. Always the same one: the other one must notice nothing."""
        user = "bob"
        if how == "let in":
            self.world.provider.suspend(user, False)
            return
        self.model.excuse_users(user, how)
        if how == "revoke":
            self.world.provider.revoke(user)
        else:
            self.world.provider.suspend(user)

    @rule(what=st.sampled_from(["issuer", "store", "answer", "store's answer", "busy", "brief"]))
    def break_something(self, what: str) -> None:
        """The issuer or the store goes away; where something is away already, all comes back."""
        world = self.world
        if world.in_trouble:
            self.run(self.settle())
            self.slow = []
        elif what == "issuer":
            world.issuer_down = True
        elif what == "store":
            world.store_down = self.stored
        elif what == "answer":
            world.lose_answers = 1
        elif what == "store's answer":
            world.lose_store_answers = 1 if self.stored else 0
        else:
            world.provider.fail_next("token", 503, {"Retry-After": "1"} if what == "brief" else None)

    @rule(
        what=st.sampled_from(["cut off", "store goes", "sign-out", "sign-in", "kill"]),
        number=NUMBERS,
        other=NUMBERS,
        seed=SEEDS,
    )
    def interrupt(self, what: str, number: int, other: int, seed: int) -> None:
        """Something happens in the middle of one refresh. Then the cookie from before is shown to every process."""
        browser, process = self.browser(number), self.process(other)
        cookie = browser.header

        async def work() -> None:
            first = self.loop.create_task(self.visit(browser, process, "/?what=forced", "now", together=True))
            await asyncio.sleep((seed % 29) / 100)
            if what == "cut off":
                await self.cut_off(browser, process, self.process(other + 1))
            elif what == "sign-in":
                await self.sign_in_as(browser, self.process(other + 1), "alice", "now")
            elif what == "sign-out":
                await self.sign_out_of(browser, self.process(other + 1), "now")
            else:
                await self.happen(what, other, "alice", 0)
            await self.wait_for([first])
            await asyncio.sleep(3)

        with self.world.slow_network(seed + 1):
            self.run(work())
        for each in self.world.processes:
            self.run(self.visit(Browser("somebody"), each, "/", "never", cookie=cookie))


class InCookies(Interleavings):
    """Sessions in cookies, one process."""

    stored = False
    count = 1


class InAStore(Interleavings):
    """Sessions in a store that two processes share."""

    stored = True
    count = 2


class TestCookies(InCookies.TestCase):  # type: ignore[name-defined,misc]
    """Whoever must be signed in is, and nobody else, with sessions in cookies."""

    settings = SETTINGS


class TestStore(InAStore.TestCase):  # type: ignore[name-defined,misc]
    """Whoever must be signed in is, and nobody else, with sessions in a store and two processes."""

    settings = SETTINGS

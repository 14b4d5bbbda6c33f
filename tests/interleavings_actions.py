"""What happens in interleavings: requests, sign-ins, deaths, each judged by the model. Chooses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from interleavings_loop import JumpingLoop
from interleavings_model import Login, Model
from interleavings_visits import Browser, Visit, call, sign_in_page
from interleavings_world import Process, World

from logto_asgi.testing.visitor import NAVIGATION

__all__ = ["Actions"]


class Actions:
    """Acts in a world, and tells its model."""

    loop: JumpingLoop
    world: World
    model: Model
    browsers: list[Browser]
    stored: bool
    """Whether sessions lie in a store."""
    late: list[tuple[Browser, list[str], int]]
    """Responses that are under way for long: to whom, their cookies, and from which generation of processes."""
    slow: list[tuple[str, asyncio.Task[None]]]
    """Requests that wait at a gate."""
    old: list[tuple[str, int]]
    """Cookies that browsers have had, with their generation."""
    last_refusal: Any = None
    """What a call-back that did not sign in was answered with."""

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def browser(self, number: int) -> Browser:
        return self.browsers[number % len(self.browsers)]

    def process(self, number: int) -> Process:
        return self.world.processes[number % len(self.world.processes)]

    async def visit(
        self,
        browser: Browser,
        process: Process,
        path: str,
        delivery: str,
        patience: float | None = None,
        *,
        together: bool = False,
        cookie: str | None = None,
        gate: str | None = None,
    ) -> None:
        """Make a request, judge the answer, and deliver it."""
        visit = Visit(browser, process, path, browser.header if cookie is None else cookie, patience)
        begun = await self.model.begin(visit)
        if cookie is None:  # one that is shown again is as old as it was
            self.old = [*self.old[-5:], (visit.cookie, self.world.generation)]
        visit.on_headers = lambda response: self.model.judge_headers(visit, begun, response)
        shown_path = visit.path
        if gate is not None:
            visit.path += f"{'&' if '?' in path else '?'}gate={gate}"
        await visit.go()
        visit.path = shown_path
        if cookie is not None:
            begun.stale = True
        self.model.judge(visit, begun)
        if visit.response is not None:
            self.hand_over(browser, visit.response.lines, delivery)
            if delivery == "now" and not together:
                await self.model.judge_rolled(visit, begun)

    def hand_over(self, browser: Browser, lines: list[str], delivery: str) -> None:
        if delivery == "now":
            browser.receive(lines)
        elif delivery == "late" and lines:
            self.late = [*self.late[-3:], (browser, lines, self.world.generation)]

    async def sign_in_as(
        self, browser: Browser, process: Process, sub: str, delivery: str, *, twice: bool = False
    ) -> None:
        world, model = self.world, self.model
        troubled = model.is_troubled(process)
        began = self.loop.time()
        path = await sign_in_page(world, process, browser, sub)
        if path is None:
            away = troubled or world.in_trouble or process.dead or world.troubled_at >= began - 5
            assert away or world.provider._core.directory.active(sub) is None, "no sign-in page"
            return
        code = path.partition("code=")[2].partition("&")[0]
        grant = world.provider._core.storage.codes[code].grant
        visit = Visit(browser, process, path, browser.header)
        begun = await model.begin(visit)
        if begun.login is not None:
            begun.login.may_be_over = begun.login.may_be_over or "replaced"
        processes = [process, world.processes[-1]] if twice else [process]
        answers = await asyncio.gather(*(self.call_back(each, path, visit.cookie) for each in processes))
        good = [each for each in answers if each is not None]
        for response in good:
            shown = model.shown(_pairs(response.lines))
            if shown is not None and shown.id not in model.logins:
                now = world.now()
                model.logins[shown.id] = Login(shown.id, sub, grant, begun.at, begun.at, now)
        excused = begun.troubled or world.in_trouble or world.troubled_at >= begun.loop_at - 5 or process.dead
        if not excused:
            assert len(good) == len(processes), f"signing in as {sub} failed: {self.last_refusal}"
            if begun.login is not None and model.is_live(begun):
                begun.login.over = "replaced"
        for response in good:
            self.hand_over(browser, response.lines, delivery)

    async def call_back(self, process: Process, path: str, cookie: str) -> Any:
        """Return the response if it signs in."""
        visit = call(process, path, cookie, headers=NAVIGATION)
        task = self.loop.create_task(visit)
        await asyncio.wait({task, process.died}, return_when=asyncio.FIRST_COMPLETED)
        if process.dead:
            return None
        response = await task
        assert response.status not in (500, 599), response.body
        if response.status == 303 and self.model.shown(_pairs(response.lines)):
            return response
        self.last_refusal = (response.status, response.location, response.body[:3000])
        return None

    async def sign_out_of(self, browser: Browser, process: Process, delivery: str) -> None:
        visit = Visit(browser, process, "/logto/sign-out", browser.header)
        begun = await self.model.begin(visit)
        login = begun.login
        if login is not None:
            login.may_be_over = login.may_be_over or "signed out"
        task = self.loop.create_task(
            call(process, visit.path, visit.cookie, headers={**NAVIGATION, "Sec-Fetch-Site": "same-origin"})
        )
        await asyncio.wait({task, process.died}, return_when=asyncio.FIRST_COMPLETED)
        if process.dead:
            return
        response = await task
        assert response.status in (200, 302, 303, 503), (response.status, response.body)
        if response.status == 503:
            assert self.model.is_excused(begun), "nothing is away, but nobody could sign out"
            return
        if login is not None and self.model.is_live(begun):
            login.over = "signed out"
        self.hand_over(browser, response.lines, delivery)

    async def happen(self, event: str, number: int, user: str, seed: int) -> None:
        """Let something happen in the middle of requests."""
        await asyncio.sleep((seed % 7) / 50)
        if event == "sign-out":
            await self.sign_out_of(self.browser(number), self.process(number // 2), "now")
        elif event.startswith("sign-in"):
            browser, process = self.browser(number), self.process(number // 2)
            await self.sign_in_as(browser, process, user, "now", twice=event.endswith("twice"))
        elif event == "kill":
            await self.kill_process(self.process(number))
        elif event == "store goes":
            self.world.store_down = self.stored
            await asyncio.sleep(0.7)
            self.world.store_down = False
        elif event == "answer lost":
            self.world.lose_answers = 1

    async def cut_off(self, browser: Browser, process: Process, another: Process) -> None:
        """Keep a process from the store for longer than its lock lives, while another one wants to refresh."""
        if process.link is None:
            return
        shown = self.model.shown(browser.header)
        login = self.model.logins.get(shown.id) if shown else None
        if login is not None:
            self.model.lose(login, "its refresh was not saved for long")
        process.link.is_down = True
        await asyncio.sleep(9)
        await self.visit(browser, another, "/?what=forced", "now", together=True)
        process.link.is_down = False

    async def kill_process(self, process: Process) -> None:
        if process.dead:
            return
        process.died.set_result(None)
        await self.follow(process, process.stage)

    async def follow(self, process: Process, stage: int) -> None:
        self.world.start_process(process.number, stage)
        await self.model.bury(process)
        if not self.stored:
            for browser in self.browsers:
                self.model.look_at_jar(browser.header)

    async def settle(self) -> None:
        world = self.world
        world.issuer_down = world.store_down = False
        world.lose_answers = world.lose_store_answers = 0
        world.provider._faults._failures.clear()
        for gate, _ in self.slow:
            world.gates[gate].set()
        await self.wait_for([task for _, task in self.slow])
        await asyncio.sleep(30)
        world.troubled_at = float("-inf")

    async def find_peace(self) -> None:
        """When all is well again, whoever must be signed in gets a token, from every process."""
        await self.settle()
        for browser in self.browsers:
            for process in self.world.processes:
                await self.visit(browser, process, "/?what=api", "now")

    async def wait_for(self, tasks: list[asyncio.Task[None]]) -> None:
        if tasks:
            await asyncio.wait(tasks)
            for task in tasks:
                task.result()

    async def close(self) -> None:
        for process in self.world.processes:
            await process.logto.aclose()
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def _pairs(lines: list[str]) -> str:
    return "; ".join(line.partition(";")[0] for line in lines)

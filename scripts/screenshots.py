"""Take the pictures in docs/images of the running demo. Needs Playwright and Chromium."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

IMAGES = Path(__file__).parent.parent / "docs" / "images"
WIDE, NARROW = ViewportSize(width=960, height=540), ViewportSize(width=375, height=667)
FLAGS = ["--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update"]


def main() -> None:
    """Start the demo, take the pictures, stop it."""
    command = [sys.executable, "-m", "logto_asgi", "demo"]
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - a command of our own
    try:
        site = address_of(demo)
        with sync_playwright() as playwright:
            root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=[*FLAGS, *root])
            take_all(browser, site)
            browser.close()
    finally:
        demo.terminate()
        demo.wait()


def address_of(demo: subprocess.Popen[str]) -> str:
    """Return the address that the demo prints."""
    for line in demo.stdout or ():
        found = re.search(r"Open +(\S+)", line)
        if found:
            return found[1]
    raise SystemExit("the demo did not start")


def take_all(browser: Browser, site: str) -> None:
    """Take each picture, in a window of its own."""
    for scheme, size, suffix in (("light", WIDE, ""), ("dark", NARROW, "-narrow-dark")):
        options: dict[str, Any] = {"color_scheme": scheme, "viewport": size, "device_scale_factor": 1}
        page = browser.new_context(**options).new_page()
        walk(page, site, suffix)
    look_around(browser.new_context(color_scheme="light", viewport=WIDE).new_page(), site)


def walk(page: Page, site: str, suffix: str) -> None:
    """See the library's own pages."""
    page.goto(f"{site}/logto/sign-in?return_to=/profile")
    save(page, f"demo-sign-in{suffix}")
    page.get_by_role("button", name="Cancel").click()
    save(page, f"page-cancelled{suffix}")
    page.goto(f"{site}/logto/sign-in-callback?state=stale&code=x")
    save(page, f"page-not-finished{suffix}")
    page.goto("about:blank")
    page.set_content(f'<a href="{site}/logto/sign-out">elsewhere</a>')
    page.get_by_role("link").click()
    page.get_by_role("heading", name="Sign out?").wait_for()
    save(page, f"page-sign-out{suffix}")


def look_around(page: Page, site: str) -> None:
    """Take the pictures of somebody who is signed in."""
    page.goto(f"{site}/logto/sign-in?return_to=/profile")
    page.get_by_role("button", name="Alice").click()
    save(page, "demo-profile")
    page.goto(f"{site}/token")
    save(page, "demo-token")
    page.goto(site)
    save(page, "demo-home")


def save(page: Page, name: str) -> None:
    """Save what the window shows."""
    page.wait_for_load_state()
    page.screenshot(path=IMAGES / f"{name}.png", full_page="narrow" in name or "token" in name)


if __name__ == "__main__":
    main()

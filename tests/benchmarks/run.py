"""Measure what the middleware, guards, bearer tokens, a sign-in, a store and the import cost, as ratios in one run.

`python tests/benchmarks/run.py`, or `nox -s bench`. It asserts nothing about time: a busy machine is no mistake.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench_apps import sizes, variants
from bench_bearer import CALLER, bearer_rounds, bytes_per_token, unseen_tokens
from bench_imports import import_milliseconds
from bench_rounds import Rounds, measure, requests_of
from bench_sign_in import sign_in_milliseconds
from bench_stores import store_figures

YARDSTICK = "SessionMiddleware"
NEW = ", new browser"

TARGETS = {
    "anonymous": ("bare", 6.0),
    "signed in": ("bare", 15.0),
    "require_auth": ("no-op Depends", 13.0),
    "access_token": ("bare", 35.0),
    "bearer_token": (CALLER, 12.0),
}
"""Microseconds that a variant may take over its baseline."""
NEW_BROWSER = 2.0
"""How many times the overhead of SessionMiddleware a new browser may cost."""
UNSEEN = (1.15, 20.0)
"""How many times joserfc's bare verification, and how many microseconds, a token may take that nobody has seen."""
SIGN_IN = 6.0
IMPORT = 60.0
"""Milliseconds."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    time: float
    unit: str = "µs"
    baseline: str | None = None
    over: float | None = None
    ratio: float | None = None
    """Of the overhead over the bare app to that of SessionMiddleware."""
    target: str | None = None
    met: bool | None = None


def rows(rounds: Rounds) -> Iterator[Row]:
    """Return a row for every variant, with its target where it has one."""
    for name in rounds.taken:
        baseline, limit = TARGETS.get(name, ("bare", None))
        over = rounds.over(name, baseline)
        yardstick = YARDSTICK + NEW if name.endswith(NEW) else YARDSTICK
        ratio = rounds.over(name, "bare") / rounds.over(yardstick, "bare")
        target, met = (f"≤ {limit:g} µs", over <= limit) if limit is not None else (None, None)
        if name == "signed in" + NEW:
            target, met = f"≤ {NEW_BROWSER:g} ×", ratio <= NEW_BROWSER
        bare = name == "bare"
        yield Row(
            name,
            rounds.time(name),
            baseline=None if bare else baseline,
            over=None if bare else over,
            ratio=None if bare else ratio,
            target=target,
            met=met,
        )


def bearer_rows(rounds: int, requests: int) -> Iterator[Row]:
    """Return the rows of callers' tokens: seen before, never seen, and in memory."""
    measured = asyncio.run(bearer_rounds(rounds=rounds, requests=requests))
    for name in measured.taken:
        over, limit = measured.over(name, CALLER), TARGETS.get(name, (CALLER, None))[1]
        target, met = (f"≤ {limit:g} µs", over <= limit) if limit is not None else (None, None)
        baseline, over_or_none = (None, None) if name == CALLER else (CALLER, over)
        yield Row(name, measured.time(name), baseline=baseline, over=over_or_none, target=target, met=met)
    for each in asyncio.run(unseen_tokens(rounds=rounds, tokens=requests // 2 + 1)):
        limit = (UNSEEN[0] - 1) * each.bare + UNSEEN[1]
        met = each.over <= limit
        name, baseline = f"unseen token, {each.alg}", f"joserfc {each.bare:.0f} µs"
        yield Row(name, each.ours, baseline=baseline, over=each.over, target=f"≤ {limit:.0f} µs", met=met)
    taken, counted = asyncio.run(bytes_per_token())
    yield Row("memory of a remembered token", taken, "B", baseline=f"counts {counted:,.0f} B")


def run(rounds: int, requests: int, sign_ins: int, imports: int, sessions: int) -> dict[str, Any]:
    """Measure everything once."""
    browsers = variants(requests_of(rounds, requests))
    measured = asyncio.run(measure(browsers, rounds=rounds, requests=requests))
    sign_in = asyncio.run(sign_in_milliseconds(sign_ins))
    figures, missing = asyncio.run(store_figures(rounds=rounds // 3 + 1, requests=requests, sessions=sessions))
    imported = import_milliseconds(imports)
    table = [
        *rows(measured),
        *bearer_rows(rounds // 2 + 1, requests),
        Row("sign-in: app and client", sign_in, "ms", target=f"≤ {SIGN_IN:g} ms", met=sign_in <= SIGN_IN),
        Row("import, over FastAPI's", imported, "ms", target=f"≤ {IMPORT:g} ms", met=imported <= IMPORT),
    ]
    stores = {"figures": [asdict(figure) for figure in figures], "missing": missing}
    return {"machine": machine(), "cookie": sizes(), "rows": [asdict(row) for row in table], "stores": stores}


def machine() -> dict[str, str]:
    """Describe what the figures belong to."""
    packages = {name: version(name) for name in ("fastapi", "starlette", "joserfc", "httpx")}
    return {"processor": _processor(), "python": platform.python_version(), **packages}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} × {names[0]}" if names else platform.processor() or platform.machine()


def show(result: dict[str, Any]) -> None:
    """Print the table for people."""
    print(", ".join(f"{name} {value}" for name, value in result["machine"].items()))
    print(", ".join(f"cookie of {name}: {size:,} characters" for name, size in result["cookie"].items()))
    print(f"\n{'':32}{'CPU':>10}{'over':>11}  {'baseline':22}{'× Sess.Mw.':>10}  {'target':9}")
    for row in result["rows"]:
        over = "" if row["over"] is None else f"{row['over']:+.1f} {row['unit']}"
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        verdict = {None: "", True: "ok", False: "missed"}[row["met"]]
        time = f"{row['time']:.1f} {row['unit']}"
        line = f"{row['name']:32}{time:>10}{over:>11}  {row['baseline'] or '':22}{ratio:>10}"
        print(f"{line}  {row['target'] or '':9}{verdict}".rstrip())
    print("\nSessions in a store, the issuer answers at once")
    for figure in result["stores"]["figures"]:
        value = f"{figure['value']:,.1f} {figure['unit']}" if figure["unit"] else f"{figure['value']:g}"
        print(f"{figure['name']:32}{value:>14}  {figure['note']}".rstrip())
    if result["stores"]["missing"]:
        print(result["stores"]["missing"])


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--requests", type=int, default=40, help="requests of each variant in a round")
    parser.add_argument("--sign-ins", type=int, default=30)
    parser.add_argument("--imports", type=int, default=7)
    parser.add_argument("--sessions", type=int, default=1_000, help="sessions that refresh at once")
    given = parser.parse_args()
    result = run(given.rounds, given.requests, given.sign_ins, given.imports, given.sessions)
    if given.json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        show(result)


if __name__ == "__main__":
    main()

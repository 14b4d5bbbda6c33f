"""Put the table of a proof run into docs/deployment.md: `PROOF_FILE=proof.md python3 noxfile.py e2e`, then this.

The end-to-end tests write one line for each thing that they did to sessions, with its counts; `python
scripts/proof_table.py proof.md` turns these into the page's table, one block for each test file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "deployment.md"
BEGIN, END = "<!-- proof: begin -->", "<!-- proof: end -->"
ORDER = [
    "refresh_storm",
    "worker_crashes",
    "redis_outages",
    "soak",
    "secret_rotation",
    "long_answers",
    "cookie_workers",
]
COLUMNS = ["What happens, to what, and its test in `tests/e2e`", "Requests", "Refreshes", "503", "Lost", "Recovered"]


def rows_of(text: str) -> list[dict[str, str]]:
    """Return the lines of a run's Markdown table as mappings by heading."""
    lines = [[cell.strip() for cell in line.strip("|\n ").split(" | ")] for line in _cells(text)]
    heading, *rest = lines
    return [dict(zip(heading, cells, strict=True)) for cells in rest]


def _cells(text: str) -> Iterator[str]:
    return (line for line in text.splitlines() if line.startswith("|") and not line.startswith("|---"))


def line_of(row: dict[str, str]) -> str:
    """Return one line of the page."""
    test = row["Command"].strip("`").partition("tests/e2e/")[2]
    what = row["What happens"].replace(", 1 times", "")
    note = f"; {row['Note']}" if row["Note"] else ""
    refreshes = row["Refreshes"] + (f", {row['Needed']} needed" if row["Needed"] else "")
    counts = (row["Requests"], refreshes, row["503"], row["Sessions lost"], row["Recovery"])
    return "| " + " | ".join([f"**{what}**<br>{row['Topology']}{note}<br>`{test}`", *counts]) + " |"


def table(rows: list[dict[str, str]]) -> str:
    """Return the page's table, in the order of ORDER."""

    def place(row: dict[str, str]) -> tuple[int, str]:
        file = next((index for index, name in enumerate(ORDER) if f"test_{name}.py" in row["Command"]), len(ORDER))
        return file, row["Command"] + row["Topology"]

    head = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    return "\n".join([*head, *(line_of(row) for row in sorted(rows, key=place))])


def main() -> None:
    """Rewrite the page."""
    rows = rows_of(Path(sys.argv[1]).read_text("utf-8"))
    page = PAGE.read_text("utf-8")
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(rows)}\n\n{END}{after}", "utf-8")
    print(f"{len(rows)} lines written to docs/{PAGE.name}")


if __name__ == "__main__":
    main()

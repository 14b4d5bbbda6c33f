"""Keeps the rows of the proof: a table at the end of the run, and in the file that PROOF_FILE names.

A row is what one test counted. It knows no provider, store or worker.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pytest

PROPERTY = "proof"


@dataclass(frozen=True)
class Row:
    """One line of the proof."""

    what: str
    topology: str
    """Workers, store and its persistence."""
    requests: int = 0
    refreshes: int = 0
    needed: int | str = ""
    """Tokens that had expired."""
    unavailable: int = 0
    """Answers of 503."""
    failed: int = 0
    """Other answers than 200 and 503, and none."""
    lost: int = 0
    """Sessions."""
    recovery: str = ""
    """How long until it worked again, where it did not."""
    note: str = ""


HEADINGS = {
    "what": "What happens",
    "topology": "Topology",
    "requests": "Requests",
    "refreshes": "Refreshes",
    "needed": "Needed",
    "unavailable": "503",
    "failed": "Failed",
    "lost": "Sessions lost",
    "recovery": "Recovery",
    "note": "Note",
    "command": "Command",
}


class Proof:
    """Takes the rows of one test."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request

    def row(self, what: str, topology: str, **counts: Any) -> Row:
        """Take a row, print it, and return it."""
        row = Row(what, topology, **counts)
        print(f"\nproof: {row}")
        node = self._request.node
        command = f"pytest {node.nodeid}"
        node.user_properties.append((PROPERTY, {**asdict(row), "command": command}))
        return row


def table(reports: Iterable[Any]) -> list[str]:
    """Return the rows of finished tests as a Markdown table, in a stable order; empty without rows."""
    rows = [value for report in reports for name, value in report.user_properties if name == PROPERTY]
    if not rows:
        return []
    names = [each.name for each in fields(Row)] + ["command"]
    rows.sort(key=lambda row: row["command"].partition("::")[0])
    lines = ["| " + " | ".join(HEADINGS[name] for name in names) + " |", "|" + "---|" * len(names)]
    for row in rows:
        cells = {**row, "command": f"`{row['command']}`"}
        lines.append("| " + " | ".join(str(cells[name]).replace("|", "\\|") for name in names) + " |")
    return lines


def write(terminal: Any) -> None:
    """Print the table, and write it to the file that PROOF_FILE names."""
    reports = [report for kind in ("passed", "failed") for report in terminal.stats.get(kind, [])]
    lines = table(report for report in reports if getattr(report, "when", "") == "call")
    if not lines:
        return
    terminal.section("proof")
    terminal.write_line("\n".join(lines))
    if path := os.environ.get("PROOF_FILE"):
        Path(path).write_text("\n".join(lines) + "\n", "utf-8")

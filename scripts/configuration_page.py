"""Write the settings of `LogtoConfig` into docs/configuration.md. The texts are those of the code; it invents none."""

from __future__ import annotations

import re
from pathlib import Path

from logto_asgi.config import Row, configuration_reference

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
PART = re.compile(r"(<!-- configuration: begin .*?-->\n).*?(<!-- configuration: end -->)", re.DOTALL)
HEAD = "| Argument, variable | Type | Default | Meaning |\n|---|---|---|---|"


def current_page() -> str:
    """Return the page as it should be, with the table between its two markers."""
    table = "\n".join([HEAD, *map(line, configuration_reference())])
    return PART.sub(lambda found: f"{found[1]}\n{table}\n\n{found[2]}", PAGE.read_text("utf-8"), count=1)


def line(row: Row) -> str:
    """Return a setting as one line of the table."""
    names = f"`{row.name}`" + (f"<br>`{row.variable}`" if row.variable else "")
    default = row.default if row.default in ("none", "required") or " " in row.default else f"`{row.default}`"
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in (names, row.type, default, row.description)) + " |"


if __name__ == "__main__":
    PAGE.write_text(current_page(), "utf-8")

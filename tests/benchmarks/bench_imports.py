"""What importing the library costs on top of FastAPI, in fresh interpreters."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["import_milliseconds"]

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import fastapi, time
start = time.process_time()
import logto_asgi, logto_asgi.fastapi
print(time.process_time() - start)
"""


def import_milliseconds(count: int) -> float:
    """Return the least CPU time of `count` interpreters: noise only adds. The first one writes the bytecode."""
    with tempfile.TemporaryDirectory() as bytecode:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = bytecode
        seconds = [_seconds(environment) for _ in range(count + 1)]
    return min(seconds[1:]) * 1e3


def _seconds(environment: dict[str, str]) -> float:
    command = [sys.executable, "-c", PROGRAM]
    run = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    return float(run.stdout)

"""Read `LOGTO_*` from the process's environment and a `.env` file. It knows the names, not what the values mean."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from logto_asgi.config.faults import closest
from logto_asgi.config.fields import settings, variable
from logto_asgi.errors import ConfigurationProblem

__all__ = ["DEFAULT_ENV_FILE", "Environment", "read_environment"]

DEFAULT_ENV_FILE = ".env"
_PREFIX = "LOGTO_"


@dataclass(frozen=True, slots=True, repr=False)
class Environment:
    """The settings that the environment holds, still text."""

    values: Mapping[str, str] = field(default_factory=dict)
    """By the name of the argument."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """For messages: the variable, and the file that it is from."""
    problems: tuple[ConfigurationProblem, ...] = ()
    lacks_file: bool = False
    """Whether a file was looked for and is not there."""


def read_environment(env_file: str | os.PathLike[str] | None) -> Environment:
    """Read the file, then the process's environment, which wins. An empty variable counts as not set.

    A missing file is a problem only under another name than `.env`. Names that do not start with `LOGTO_` are left
    alone: the file belongs to the whole app. `None` reads no file.
    """
    values: dict[str, str] = {}
    origins: dict[str, str] = {}
    problems: list[ConfigurationProblem] = []
    names = {variable(name): name for name in settings()}
    from_file = {} if env_file is None else _read_file(Path(env_file), problems)
    for place, found in ((f" in {env_file}", from_file), ("", os.environ)):
        for key, text in _ours(found).items():
            if key not in names:
                problems.append(_unknown(key, place))
            elif text.strip():
                values[names[key]] = text.strip()
                origins[names[key]] = key + place
    lacks_file = env_file is not None and not Path(env_file).exists()
    return Environment(values, origins, tuple(problems), lacks_file)


def _ours(found: Mapping[str, str | None]) -> dict[str, str]:
    """Keep what has our prefix, in capitals; where two names differ in case only, the one in capitals counts."""
    named = [(key, text) for key, text in found.items() if key.upper().startswith(_PREFIX)]
    return {key.upper(): text or "" for key, text in sorted(named, key=lambda item: item[0].isupper())}


def _read_file(path: Path, problems: list[ConfigurationProblem]) -> Mapping[str, str | None]:
    """Parse the file by python-dotenv, which is imported here because most programs start without a file to read."""
    if not path.exists():
        if str(path) != DEFAULT_ENV_FILE:
            problems.append(ConfigurationProblem("env_file", f"{path} does not exist.", "Check the path."))
        return {}
    from dotenv import dotenv_values

    try:
        # "-sig": editors on Windows put a byte order mark first, which python-dotenv drops only since 1.2.
        return dotenv_values(path, encoding="utf-8-sig")
    except OSError:
        problems.append(ConfigurationProblem("env_file", f"{path} cannot be read.", "Check its permissions."))
    except UnicodeDecodeError:
        problems.append(ConfigurationProblem("env_file", f"{path} is not UTF-8.", "Save it as UTF-8."))
    return {}


def _unknown(key: str, place: str) -> ConfigurationProblem:
    # A broken line of the file can end up as a name, value and all: only what a name may hold is shown.
    match = re.match(r"[A-Z0-9_]+", key)
    name = match.group() if match else _PREFIX
    candidates = [known for known in map(variable, settings()) if known is not None]
    guess = closest(name, candidates)
    if name.removeprefix(_PREFIX).lower() in settings():
        remedy = "It can be set in code only." if name not in candidates else "Write NAME=value."
    else:
        remedy = f"Did you mean {guess}?" if guess else "Remove it; the configuration reference lists those there are."
    return ConfigurationProblem(name, f"there is no such setting{place or ' (set in the environment)'}.", remedy)

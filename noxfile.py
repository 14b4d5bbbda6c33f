"""One session per habit. This file runs itself: `python3 noxfile.py demo` (`py noxfile.py demo` on Windows).

Its first half needs nothing but Python: it makes an environment under `.nox/`, installs nox there and calls it.
Keep that half, and the syntax of the whole file, readable for Python 3.6: it must be able to say that it is too old.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


def run_myself(arguments):
    """Call nox with the arguments, in an environment made once for each Python. Return a sentence where that fails."""
    if sys.version_info < (3, 11):
        newer = [name for name in ("python3.14", "python3.13", "python3.12", "python3.11") if shutil.which(name)]
        remedy = f"try: {newer[0]} noxfile.py" if newer else "see https://www.python.org/downloads/"
        return f"logto-asgi needs Python 3.11 or newer, and this is {PYTHON}; {remedy}"
    home = ROOT / ".nox" / f"self-{PYTHON}"
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    fault = None if (home / "ready").exists() and python.exists() else make_environment(home, python)
    if fault:
        return fault
    command = [str(python), "-m", "nox", "-f", str(ROOT / "noxfile.py"), *for_nox(arguments)]
    if os.name == "nt":  # where exec returns to the shell at once
        return subprocess.call(command)
    os.execv(str(python), command)


def for_nox(arguments):
    """Turn `demo --port 8000` into nox's `-s demo -- --port 8000`; leave what starts with a dash to nox itself."""
    if not arguments:
        return ["--list"]
    if arguments[0].startswith("-"):
        return arguments
    rest = arguments[2:] if arguments[1:2] == ["--"] else arguments[1:]
    return ["-s", arguments[0], "--", *rest]


def make_environment(home, python):
    """Install nox into `home`, with uv where there is one, else with pip. Return a sentence where neither works."""
    uv = ["uv", "venv", "-q", "--clear", "-p", sys.executable], ["uv", "pip", "install", "-q", "-p", str(python)]
    pip = [sys.executable, "-m", "venv", "--clear"], [str(python), "-m", "pip", "install", "-q", "--retries", "2"]
    recipes = [uv] if shutil.which("uv") else []
    recipes += [pip] if importlib.util.find_spec("ensurepip") else []
    if not recipes:
        return f"This Python comes without its venv module. On Debian or Ubuntu: apt install python{PYTHON}-venv"
    print(f"Preparing .nox/{home.name} (once) ...", flush=True)
    for make, install in recipes:
        fault = complaint_of([*make, str(home)]) or complaint_of([*install, "nox>=2025.5.1"])
        if not fault:
            (home / "ready").touch()
            return None
    return f"nox could not be installed; is there a network, or a proxy to set? The installer says: {fault}"


def complaint_of(command):
    """Run a command and return the last line that it prints, or None when it succeeds."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    return (done.stdout.strip() or "nothing").splitlines()[-1] if done.returncode else None


if __name__ == "__main__":
    try:
        sys.exit(run_myself(sys.argv[1:]))
    except KeyboardInterrupt:
        print("Stopped.")
        sys.exit(130)

import hashlib

import nox

nox.options.default_venv_backend = "uv" if shutil.which("uv") else "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "types", "tests"]

PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
EXTRAS = sorted(PROJECT["project"]["optional-dependencies"])
PROVIDER = ROOT / "tests" / "e2e" / "provider"


def install(session, *groups, extras="", constraints=None):
    """Install the package as it lies here, with extras and dependency groups; nothing when nothing has changed.

    So the second start of a session takes no time and needs no network.
    """
    wanted = ["-e", f".[{extras}]" if extras else ".", *nox.project.dependency_groups(PROJECT, *groups)]
    if constraints:
        wanted += ["-c", str(constraints)]
    install_once(session, *wanted)


def install_once(session, *wanted):
    """Install what pip is told, unless this environment has had exactly that from this checkout and pyproject.toml."""
    facts = [str(ROOT), (ROOT / "pyproject.toml").read_text("utf-8"), *wanted]
    digest = hashlib.sha256("\0".join(facts).encode()).hexdigest()
    stamp = Path(session.virtualenv.location) / "installed"
    if stamp.exists() and stamp.read_text("ascii") == digest:
        return
    stamp.unlink(missing_ok=True)
    try:
        session.install(*wanted)
    except nox.command.CommandFailed:
        session.error(
            "The installation failed; the installer's reason is above. Is there a network, or a proxy to set?"
        )
    stamp.write_text(digest, "ascii")


def fetch_provider(session):
    """Install the real OpenID provider of the end-to-end tests, where npm is at hand; without it they step aside."""
    complete = PROVIDER / "node_modules" / ".package-lock.json"  # the last file that npm writes
    if not shutil.which("npm") or complete.exists() or not (PROVIDER / "package.json").exists():
        return
    try:
        session.run("npm", "ci", "--no-audit", "--no-fund", "--prefix", str(PROVIDER), external=True, silent=True)
    except nox.command.CommandFailed:
        session.warn("npm's reason is above. The tests that sign in through the real provider step aside.")


def run_pytest(session, *arguments):
    session.run("python", "-m", "pytest", *arguments, *session.posargs)


@nox.session
def demo(session):
    """Start the development provider and the example app; the terminal says which address to open."""
    install(session, extras="cli,fastapi")
    session.run("python", "-m", "logto_asgi.cli", "demo", *session.posargs, interrupt_timeout=10, terminate_timeout=5)


@nox.session
def tests(session):
    """Run all tests; those that need Node, Chromium or Redis say so and step aside where these are missing."""
    install(session, "test", "e2e", extras=",".join(EXTRAS))
    fetch_provider(session)
    if session.posargs:
        run_pytest(session)
        return
    run_pytest(session, "-m", "not e2e", "-n", "auto")
    run_pytest(session, "-m", "e2e")  # one after the other: each of them keeps several processes busy


@nox.session
def e2e(session):
    """Sign in with a real browser through a real OpenID provider."""
    install(session, "test", "e2e", extras=",".join(EXTRAS))
    fetch_provider(session)
    run_pytest(session, "-m", "e2e", "tests/e2e")


@nox.session
def coverage(session):
    """Run the tests without a browser, and show the lines that none of them reaches."""
    install(session, "test", "coverage", extras=",".join(EXTRAS))
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", "-q", "-m", "not e2e", *session.posargs)
    session.run("coverage", "combine", "-q")
    session.run("coverage", "report")


@nox.session
def lint(session):
    """Check the code's form, and that every module imports only from the layers below it."""
    install(session, "lint", extras=",".join(EXTRAS))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", "--no-logo")


@nox.session
def types(session):
    """Check the package with mypy's strict mode, and the examples as an app's author sees them (mypy and pyright)."""
    install(session, "test", "types", extras=",".join(EXTRAS))
    session.run("mypy")
    session.run("mypy", "examples")
    session.run("pyright", "--pythonpath", session.virtualenv.bin + "/python")


@nox.session
def docs(session):
    """Build the documentation; a broken link or an unknown name is an error. `docs serve` shows it while you write."""
    install(session, "docs", extras=",".join(EXTRAS))
    session.run("python", "scripts/configuration_page.py")
    session.run("zensical", *(session.posargs or ["build", "--strict", "--clean"]))


@nox.session
def bench(session):
    """Measure what the middleware, the guards and a session store cost over a bare app, as ratios in one run."""
    install(session, "test", extras=",".join(EXTRAS))
    session.run("python", "tests/benchmarks/run.py", *session.posargs)


@nox.session
def lowest(session):
    """Run the tests without a browser on the lowest versions that pyproject.toml allows."""
    constraints = Path(session.create_tmp()) / "lowest.txt"
    constraints.write_text("\n".join(lowest_versions()) + "\n", "utf-8")
    install(session, "test", extras=",".join(EXTRAS), constraints=constraints)
    # What old versions warn of is theirs; what the current ones warn of is an error in `tests`.
    run_pytest(session, "-m", "not e2e", "-n", "auto", "-W", "ignore::DeprecationWarning")


def lowest_versions():
    """Turn every lower bound of the package into a pin."""
    project = PROJECT["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    return sorted({requirement.replace(">=", "==") for requirements in lists for requirement in requirements})


@nox.session
def package(session):
    """Build wheel and sdist, then import every public name from the wheel alone, without and with each extra."""
    install_once(session, *nox.project.dependency_groups(PROJECT, "package"))
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    session.run("python", "-m", "build", silent=True)
    (wheel,) = (ROOT / "dist").glob("*.whl")
    for extra in ["", *EXTRAS]:
        import_from_wheel(session, wheel, extra)


def import_from_wheel(session, wheel, extra):
    home = Path(session.create_tmp()) / (extra or "plain")
    session.run("python", "-m", "virtualenv", "-q", "--clear", str(home))
    python = str(home / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    target = f"{wheel}[{extra}]" if extra else str(wheel)
    session.run(python, "-m", "pip", "install", "-q", target, external=True)
    session.run(python, "-I", str(ROOT / "tests" / "installed.py"), extra, external=True)

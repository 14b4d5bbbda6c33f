"""Import every module and every public name of the installed package; `nox -s package` runs this without a checkout.

The argument names the extra that is installed. Only a module that serves a missing extra may fail, and it must name it.
"""

import importlib
import pkgutil
import sys

import logto_asgi

NEEDS_PYTEST = "logto_asgi.testing.fixtures"
NEEDS = {"logto_asgi.fastapi": "fastapi"}


def import_modules(extra: str) -> None:
    for module in pkgutil.walk_packages(logto_asgi.__path__, "logto_asgi."):
        if module.name == NEEDS_PYTEST:
            continue
        needed = NEEDS.get(module.name, "")
        if needed in ("", extra):
            importlib.import_module(module.name)
        else:
            check_refusal(module.name, needed)


def check_refusal(module: str, needed: str) -> None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        if f"logto-asgi[{needed}]" not in str(error):
            sys.exit(f"{module} must say that it needs logto-asgi[{needed}], and says: {error}")
    else:
        sys.exit(f"{module} was imported without the extra {needed}: is its dependency installed by something else?")


def check_redis_store(extra: str) -> None:
    """RedisStore can always be imported; only making one needs redis-py."""
    from logto_asgi.session.redis import RedisStore

    try:
        RedisStore.from_url("redis://localhost")
    except ImportError as error:
        if extra == "redis" or "logto-asgi[redis]" not in str(error):
            sys.exit(f"RedisStore must be usable with the extra redis, and name it otherwise; it says: {error}")
    else:
        if extra != "redis":
            sys.exit("RedisStore was made without the extra redis: is redis-py installed by something else?")


if __name__ == "__main__":
    import_modules(sys.argv[1])
    check_redis_store(sys.argv[1])
    missing = [name for name in logto_asgi.__all__ if not hasattr(logto_asgi, name)]
    if missing or not logto_asgi.__all__:
        sys.exit(f"not importable from logto_asgi: {missing or 'anything'}")
    print(f"{len(logto_asgi.__all__)} names from {logto_asgi.__file__}, extra: {sys.argv[1] or 'none'}")

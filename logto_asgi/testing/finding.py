"""Finds the `Logto` of each LogtoMiddleware in an app. Knows how apps lie in each other, and nothing of sessions."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from starlette.applications import Starlette

from logto_asgi.errors import SetupError
from logto_asgi.middleware import LogtoMiddleware
from logto_asgi.runtime import Logto

__all__ = ["runtimes_of"]


def runtimes_of(app: Any) -> list[Logto]:
    """Return every `Logto` in the app, its middleware, mounts and hosts, each once. A `Logto` stands for itself.

    The middleware of an app that had no request yet is built, as its first request would. Raises `SetupError` when
    there is no LogtoMiddleware.
    """
    if isinstance(app, Logto):
        return [app]
    found: dict[Logto, None] = {}
    seen: dict[int, Any] = {}  # The values keep what is made on the fly, so that no id is given out twice.
    waiting = [app]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen[id(each)] = each
        if isinstance(each, LogtoMiddleware):
            found[each.logto] = None
        waiting.extend(_inside(each))
    if not found:
        raise SetupError(
            f"No LogtoMiddleware was found in {type(app).__name__}. Pass the app that your server runs, the outermost "
            "one; or the Logto itself, if the middleware is hidden in a function."
        )
    return list(found)


def _inside(app: Any) -> Iterator[Any]:
    """Yield what an app hands its requests on to: routes, and apps by whatever name middleware keeps them."""
    if isinstance(app, Starlette) and app.middleware_stack is None:
        app.middleware_stack = app.build_middleware_stack()
    for name, value in getattr(app, "__dict__", {}).items():
        kind: Any = type(value)
        if name == "app" or _is_async_callable(kind):
            yield value
    routes = getattr(app, "routes", None)
    if isinstance(routes, list):
        yield from routes


@lru_cache(maxsize=1024)
def _is_async_callable(kind: type) -> bool:
    """Tell whether the objects of a class look like ASGI apps. A plain function, such as an endpoint, does not."""
    return inspect.iscoroutinefunction(kind.__call__)

"""FastAPI: the auth router and the dependencies that guard endpoints. Only this package imports FastAPI.

Annotations are real objects here: FastAPI reads the signatures of the guards.
"""

try:
    import fastapi
except ImportError as error:
    raise ImportError("logto_asgi.fastapi needs FastAPI: pip install 'logto-asgi[fastapi]'") from error

_OLDEST = (0, 123, 10)

if tuple(int(part) for part in fastapi.__version__.split(".")[:3] if part.isdigit()) < _OLDEST:
    # 0.122 never awaits a wrapped callable: the guard would let everyone in.
    raise ImportError(f"logto_asgi.fastapi needs FastAPI 0.123.10 or newer, and this is {fastapi.__version__}")

from logto_asgi.fastapi.dependencies import (  # noqa: E402 - an older FastAPI is refused before it is used
    CurrentUser,
    SignedIn,
    access_token,
    bearer_token,
    current_user,
    organization_token,
    require_auth,
    user_info,
)
from logto_asgi.fastapi.routers import AUTH_RESPONSES, auth_router, protected_resource_router  # noqa: E402
from logto_asgi.fastapi.schemes import describe_guards  # noqa: E402

__all__ = [
    "AUTH_RESPONSES",
    "CurrentUser",
    "SignedIn",
    "access_token",
    "auth_router",
    "bearer_token",
    "current_user",
    "describe_guards",
    "organization_token",
    "protected_resource_router",
    "require_auth",
    "user_info",
]

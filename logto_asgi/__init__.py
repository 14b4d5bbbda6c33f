"""Sign-in with Logto, or any other OpenID Connect issuer, for Starlette and FastAPI.

The public names of the library; FastAPI's dependencies are in `logto_asgi.fastapi`.
"""

from logto_asgi.config import LogtoConfig
from logto_asgi.errors import (
    AccessTokenMismatch,
    AccessTokenRefused,
    AttemptNotFound,
    ConfigurationError,
    ConfigurationProblem,
    CrossSiteRequest,
    HTTPError,
    InvalidGrant,
    IssuerError,
    IssuerRefused,
    IssuerResponseInvalid,
    IssuerUnavailable,
    LogtoError,
    RefreshTokenMissing,
    SessionEnded,
    SessionTooLarge,
    SetupError,
    SignInCancelled,
    SignInError,
    SignInRefused,
    SignInRequired,
    StoreFull,
    StoreUnavailable,
    VerificationError,
)
from logto_asgi.events import Event
from logto_asgi.middleware import LogtoMiddleware, RequireAuthMiddleware
from logto_asgi.models import (
    FirstScreen,
    Identifier,
    IdTokenClaims,
    Prompt,
    ReservedResource,
    ReservedScope,
    SignInOptions,
    UserInfo,
    UserScope,
    organization_id_from_urn,
    organization_urn,
)
from logto_asgi.routes import auth_routes
from logto_asgi.runtime import Logto
from logto_asgi.session.redis import RedisStore
from logto_asgi.session.stores import MemoryStore, SessionStore, StoredSession, Touch
from logto_asgi.user import LogtoUser, PublicUser

__all__ = [
    "AccessTokenMismatch",
    "AccessTokenRefused",
    "AttemptNotFound",
    "ConfigurationError",
    "ConfigurationProblem",
    "CrossSiteRequest",
    "Event",
    "FirstScreen",
    "HTTPError",
    "IdTokenClaims",
    "Identifier",
    "InvalidGrant",
    "IssuerError",
    "IssuerRefused",
    "IssuerResponseInvalid",
    "IssuerUnavailable",
    "Logto",
    "LogtoConfig",
    "LogtoError",
    "LogtoMiddleware",
    "LogtoUser",
    "MemoryStore",
    "Prompt",
    "PublicUser",
    "RedisStore",
    "RefreshTokenMissing",
    "RequireAuthMiddleware",
    "ReservedResource",
    "ReservedScope",
    "SessionEnded",
    "SessionStore",
    "SessionTooLarge",
    "SetupError",
    "SignInCancelled",
    "SignInError",
    "SignInOptions",
    "SignInRefused",
    "SignInRequired",
    "StoreFull",
    "StoreUnavailable",
    "StoredSession",
    "Touch",
    "UserInfo",
    "UserScope",
    "VerificationError",
    "auth_routes",
    "organization_id_from_urn",
    "organization_urn",
]

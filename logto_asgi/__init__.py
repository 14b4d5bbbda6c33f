"""Sign-in with Logto, or any other OpenID Connect issuer, for Starlette and FastAPI.

The public names of the library; FastAPI's dependencies are in `logto_asgi.fastapi`.
"""

from logto_asgi.claims import (
    AccessTokenClaims,
    IdTokenClaims,
    OrganizationData,
    TokenClaims,
    UserInfo,
    organization_id_from_urn,
    organization_urn,
)
from logto_asgi.config import LogtoConfig
from logto_asgi.errors import (
    AccessTokenMismatch,
    AccessTokenRefused,
    AttemptNotFound,
    ConfigurationError,
    ConfigurationProblem,
    CrossSiteRequest,
    HTTPError,
    InsufficientScope,
    InvalidGrant,
    InvalidRequest,
    InvalidToken,
    IssuerError,
    IssuerRefused,
    IssuerResponseInvalid,
    IssuerUnavailable,
    LogtoError,
    PermissionDenied,
    RefreshTokenMissing,
    SessionEnded,
    SessionTooLarge,
    SetupError,
    SignInCancelled,
    SignInError,
    SignInRefused,
    SignInRequired,
    StepUpRequired,
    StoreFull,
    StoreUnavailable,
    TokenRequired,
    VerificationError,
)
from logto_asgi.events import Event
from logto_asgi.middleware import LogtoMiddleware
from logto_asgi.models import (
    AccessToken,
    FirstScreen,
    Identifier,
    Prompt,
    ReservedResource,
    ReservedScope,
    SignInOptions,
    SubjectTokenType,
    UserScope,
)
from logto_asgi.public_user import PublicUser
from logto_asgi.require_auth import RequireAuthMiddleware
from logto_asgi.requirements import any_of
from logto_asgi.resource_metadata import protected_resource_routes
from logto_asgi.routes import auth_routes
from logto_asgi.runtime import Logto
from logto_asgi.session.redis import RedisStore
from logto_asgi.session.stores import MemoryStore, SessionStore, StoredSession, Touch
from logto_asgi.user import LogtoUser

__all__ = [
    "AccessToken",
    "AccessTokenClaims",
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
    "InsufficientScope",
    "InvalidGrant",
    "InvalidRequest",
    "InvalidToken",
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
    "OrganizationData",
    "PermissionDenied",
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
    "StepUpRequired",
    "StoreFull",
    "StoreUnavailable",
    "StoredSession",
    "SubjectTokenType",
    "TokenClaims",
    "TokenRequired",
    "Touch",
    "UserInfo",
    "UserScope",
    "VerificationError",
    "any_of",
    "auth_routes",
    "organization_id_from_urn",
    "organization_urn",
    "protected_resource_routes",
]

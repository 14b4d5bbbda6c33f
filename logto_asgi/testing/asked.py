"""What a test says a visitor has, held against what sign-in asks for: a visitor has no more. It knows configurations.

A test that passes with what no visitor can have would be worse than none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from logto_asgi.config import LogtoConfig
from logto_asgi.errors import SetupError
from logto_asgi.models import UserScope

__all__ = ["check_claims", "check_granted", "may_have"]

_SCOPES = {
    "roles": UserScope.ROLES,
    "organizations": UserScope.ORGANIZATIONS,
    "organization_roles": UserScope.ORGANIZATION_ROLES,
}
"""Claims that guards go by, and the scope that makes Logto send each."""


def may_have(scope: str, config: LogtoConfig) -> bool:
    """Tell whether a visitor of this app may have a scope: Logto grants what sign-in asks for, and no more."""
    return scope in config.scopes or not config.is_logto


def check_granted(granted: Iterable[str], configs: Sequence[LogtoConfig]) -> None:
    """Raise `SetupError` for a scope of access tokens that Logto would not grant: sign-in does not ask for it.

    Another issuer grants what it likes (RFC 6749 §3.3).
    """
    missing = sorted(scope for scope in set(granted) if not any(may_have(scope, config) for config in configs))
    if missing:
        raise SetupError(
            f"The test grants {', '.join(map(repr, missing))}, and sign-in does not ask for it: no visitor would have "
            f"it. Add it: LogtoConfig(scopes={missing}) or LOGTO_SCOPES."
        )


def check_claims(claims: Mapping[str, Any], configs: Sequence[LogtoConfig]) -> None:
    """Raise `SetupError` for roles and organizations that Logto would not send: sign-in does not ask for them.

    Another issuer sends what it likes.
    """
    for name, scope in _SCOPES.items():
        if claims.get(name) and not any(may_have(scope, config) for config in configs):
            raise SetupError(
                f"The test says {name}=…, and sign-in does not ask for it: no visitor would have the claim. "
                f"Add the scope: LogtoConfig(scopes=[UserScope.{scope.name}]) or LOGTO_SCOPES."
            )

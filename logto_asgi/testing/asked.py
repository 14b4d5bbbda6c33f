"""What a test says a visitor has, held against what sign-in asks for: a visitor has no more. It knows configurations.

A test that passes with what no visitor can have would be worse than none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from logto_asgi.config import LogtoConfig
from logto_asgi.errors import SetupError
from logto_asgi.models import UserScope

__all__ = ["check_claims", "check_granted"]

_SCOPES = {
    "roles": UserScope.ROLES,
    "organizations": UserScope.ORGANIZATIONS,
    "organization_roles": UserScope.ORGANIZATION_ROLES,
}
"""Claims that guards go by, and the scope that makes Logto send each."""


def check_granted(granted: Iterable[str], configs: Iterable[LogtoConfig]) -> None:
    """Raise `SetupError` for a scope of access tokens that no configuration asks for at sign-in."""
    asked = {scope for config in configs for scope in config.scopes}
    missing = sorted(set(granted) - asked)
    if missing:
        raise SetupError(
            f"The test grants {', '.join(map(repr, missing))}, and sign-in does not ask for it: no visitor would have "
            f"it. Add it: LogtoConfig(scopes={missing}) or LOGTO_SCOPES."
        )


def check_claims(claims: Mapping[str, Any], configs: Iterable[LogtoConfig]) -> None:
    """Raise `SetupError` for roles and organizations that Logto would not send: sign-in does not ask for them.

    Another issuer sends what it likes.
    """
    known = list(configs)
    for name, scope in _SCOPES.items():
        if claims.get(name) and all(config.is_logto and scope not in config.scopes for config in known):
            raise SetupError(
                f"The test says {name}=…, and sign-in does not ask for it: no visitor would have the claim. "
                f"Add the scope: LogtoConfig(scopes=[UserScope.{scope.name}]) or LOGTO_SCOPES."
            )

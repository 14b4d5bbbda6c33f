"""Client credentials: an access token for a machine by its own name, as Logto gives it (RFC 6749 §4.4).

It knows no user. The endpoint has authenticated the app and looked whether it may.
"""

from __future__ import annotations

from typing import Any

from logto_asgi.testing.clients import Client
from logto_asgi.testing.core import Core
from logto_asgi.testing.parameters import Parameters
from logto_asgi.testing.refusals import Refusal

__all__ = ["ClientCredentials", "one_resource"]


class ClientCredentials:
    """Answers the grant type `client_credentials`."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def __call__(self, client: Client, params: Parameters) -> dict[str, Any]:
        """Return a token for a resource, an organization or both; its scopes are what was asked and is allowed."""
        organization_id = params.get("organization_id")
        if organization_id is not None and organization_id not in client.organizations:
            raise Refusal("access_denied", "app has not associated with the organization")
        resource = one_resource(self._core, params)
        if resource is None and organization_id is None:
            raise Refusal("invalid_target", "both `resource` and `organization_id` are not provided")
        scopes = frozenset(params.words("scope")) & self._allowed(client, resource, organization_id)
        token = self._core.access_token(
            client.app_id, client.app_id, resource=resource, organization_id=organization_id, scopes=scopes
        )
        answer = {
            "access_token": token,
            "expires_in": self._core.lifetimes.access_token,
            "scope": " ".join(sorted(scopes)),
            "token_type": "Bearer",
        }
        return {name: value for name, value in answer.items() if value != ""}

    def _allowed(self, client: Client, resource: str | None, organization_id: str | None) -> frozenset[str]:
        """Return what the app's roles give: its own for a resource, those in the organization wherever one is named."""
        if organization_id is None:
            given = client.permissions.get(resource or "", ())
        else:
            given = client.organizations[organization_id]
        return frozenset(given) & self._core.resources[resource] if resource else frozenset(given)


def one_resource(core: Core, params: Parameters) -> str | None:
    """Return the resource that a request names, if any. Raise `invalid_target` for two, or an unknown one."""
    resources = params.all("resource")
    if len(resources) > 1:
        raise Refusal("invalid_target", "only a single resource indicator value is supported for this grant type")
    if resources and resources[0] not in core.resources:
        raise Refusal("invalid_target", "resource indicator is missing, or unknown")
    return resources[0] if resources else None

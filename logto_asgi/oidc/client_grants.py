"""The grants of a client that acts by its own name: client credentials and token exchange, as pure functions.

It knows no network. The answers are read as those of other grants, in `token_endpoint`.
"""

from __future__ import annotations

from logto_asgi.errors import IssuerResponseInvalid
from logto_asgi.models import SubjectTokenType, TokenSet
from logto_asgi.oidc.strict_json import parse_object
from logto_asgi.oidc.token_endpoint import parse_token_response
from logto_asgi.oidc.transport import Answer

__all__ = ["build_client_credentials_request", "build_exchange_request", "parse_exchange_response"]

_ACCESS_TOKEN: str = SubjectTokenType.ACCESS_TOKEN.value
_ISSUED = (None, _ACCESS_TOKEN, "urn:ietf:params:oauth:token-type:jwt")
"""What may come of an exchange; an issuer that leaves it out has issued an access token."""


class _Form(dict[str, str]):
    """A form that may hold tokens, and does not show: error trackers print what the frames of an error hold."""

    def __repr__(self) -> str:
        return "<form for the token endpoint>"


def build_client_credentials_request(
    *, resource: str | None = None, organization_id: str | None = None, scope: str | None = None
) -> dict[str, str]:
    """Return the form for a token of the client itself (RFC 6749 §4.4.2), with a resource (RFC 8707 §2.2)."""
    return _Form(grant_type="client_credentials", **_target(resource, organization_id, scope))


def build_exchange_request(
    subject_token: str,
    subject_token_type: str,
    *,
    resource: str | None = None,
    organization_id: str | None = None,
    scope: str | None = None,
    actor_token: str | None = None,
) -> dict[str, str]:
    """Return the form that exchanges a token (RFC 8693 §2.1). `actor_token` is an access token of who acts."""
    form = _Form(
        grant_type="urn:ietf:params:oauth:grant-type:token-exchange",
        subject_token=subject_token,
        subject_token_type=str(subject_token_type),
        **_target(resource, organization_id, scope),
    )
    if actor_token is not None:
        form.update(actor_token=actor_token, actor_token_type=_ACCESS_TOKEN)
    return form


def parse_exchange_response(answer: Answer) -> TokenSet:
    """Return the access token of an exchange (RFC 8693 §2.2). Raises as `parse_token_response`.

    A refresh or ID token beside it is dropped: nobody would renew or verify it.
    """
    tokens = parse_token_response(answer)
    if parse_object(answer.body).get("issued_token_type") not in _ISSUED:
        raise IssuerResponseInvalid("The issuer's token endpoint exchanged a token for one that is no access token.")
    return TokenSet(access_token=tokens.access_token, expires_in=tokens.expires_in, scope=tokens.scope)


def _target(resource: str | None, organization_id: str | None, scope: str | None) -> dict[str, str]:
    wanted = {"resource": resource, "organization_id": organization_id, "scope": scope}
    return {name: value for name, value in wanted.items() if value is not None}

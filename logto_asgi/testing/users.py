"""The people and organizations of the development provider, and which claims a scope brings.

It knows no token and no client; it holds what an administrator of Logto would see in the console.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "DEMO_ORGANIZATIONS",
    "DEMO_RESOURCES",
    "DEMO_USERS",
    "OPENID_SCOPES",
    "DemoUser",
    "Directory",
    "Organization",
]

ORGANIZATIONS_SCOPE = "urn:logto:scope:organizations"
ORGANIZATION_ROLES_SCOPE = "urn:logto:scope:organization_roles"

# Logto sends these even when it knows nothing, as null.
_PROFILE_ALWAYS = ("name", "picture", "username", "created_at", "updated_at")
_CLAIMS: Mapping[str, tuple[str, ...]] = {
    "profile": (
        *_PROFILE_ALWAYS,
        *("family_name", "given_name", "middle_name", "nickname", "preferred_username", "profile", "website"),
        *("gender", "birthdate", "zoneinfo", "locale"),
    ),
    "email": ("email", "email_verified"),
    "phone": ("phone_number", "phone_number_verified"),
    "address": ("address",),
    "roles": ("roles",),
    ORGANIZATIONS_SCOPE: ("organizations",),
    ORGANIZATION_ROLES_SCOPE: ("organization_roles",),
}
_USERINFO_CLAIMS: Mapping[str, tuple[str, ...]] = {
    "custom_data": ("custom_data",),
    "identities": ("identities", "sso_identities"),
    ORGANIZATIONS_SCOPE: ("organization_data",),
}
_OWNED = frozenset(name for table in (_CLAIMS, _USERINFO_CLAIMS) for names in table.values() for name in names)
OPENID_SCOPES = frozenset({"openid", "offline_access", *_CLAIMS, *_USERINFO_CLAIMS})


@dataclass(frozen=True, slots=True)
class DemoUser:
    """Somebody who can sign in with one click."""

    sub: str
    name: str
    email: str | None = None
    username: str | None = None
    roles: Sequence[str] = ()
    permissions: Mapping[str, Collection[str]] | None = None
    """Scopes by resource; None means every scope of every resource."""
    claims: Mapping[str, Any] = field(default_factory=dict)
    """Any other claim, such as `picture`, `custom_data` or `locale`; wins over the fields above."""

    def may(self, resource: str, scope: str) -> bool:
        """Say whether the user's roles give this scope of this resource."""
        return self.permissions is None or scope in self.permissions.get(resource, ())


@dataclass(frozen=True, slots=True)
class Organization:
    """An organization: its members with their roles, and what each role may do."""

    id: str
    name: str
    description: str | None = None
    members: Mapping[str, Collection[str]] = field(default_factory=dict)
    """Names of roles by `sub`."""
    roles: Mapping[str, Collection[str]] = field(default_factory=dict)
    """Scopes by name of the role: permissions of the organization and of resources alike."""

    def scopes(self, sub: str) -> frozenset[str]:
        """Return what the roles of a member allow."""
        return frozenset(scope for role in self.members.get(sub, ()) for scope in self.roles.get(role, ()))


DEMO_USERS = (
    DemoUser("alice", "Alice Martin", "alice@example.com", "alice", roles=("admin",)),
    DemoUser("bob", "Bob Okafor", "bob@example.com", "bob"),
    DemoUser("zoe", "Zoë Lindström", "zoe@example.com", "zoe"),
)
DEMO_ORGANIZATIONS = (
    Organization(
        "harbour",
        "Harbour Books",
        "A bookshop by the sea",
        members={"alice": ("admin",), "bob": ("member",)},
        roles={"admin": ("read:items", "write:items", "manage:members"), "member": ("read:items",)},
    ),
)
DEMO_RESOURCES: Mapping[str, Collection[str]] = {"https://shopping.example.com/api": ("read:items", "write:items")}


class Directory:
    """Who there is right now. Users can be added, changed and suspended while the provider runs."""

    def __init__(self, users: Iterable[DemoUser], organizations: Iterable[Organization], created_at: float) -> None:
        self._users = {user.sub: user for user in users}
        self._organizations = {organization.id: organization for organization in organizations}
        self._changes: dict[str, dict[str, Any]] = {}
        self._suspended: set[str] = set()
        self._created_at = int(created_at * 1000)

    @property
    def users(self) -> tuple[DemoUser, ...]:
        """Return everybody, in the order they came."""
        return tuple(self._users.values())

    def get(self, sub: str | None) -> DemoUser | None:
        """Return the user of that `sub`, suspended or not."""
        return self._users.get(sub or "")

    def active(self, sub: str | None) -> DemoUser | None:
        """Return the user of that `sub` unless there is none or it is suspended."""
        return None if sub in self._suspended else self.get(sub)

    def find(self, hint: str | None) -> DemoUser | None:
        """Return the active user whose e-mail, user name or `sub` is the hint."""
        wanted = (hint or "").casefold()
        for user in self.users:
            names = {name.casefold() for name in (user.email, user.username, user.sub) if name}
            if wanted in names and user.sub not in self._suspended:
                return user
        return None

    def organization(self, organization_id: str) -> Organization | None:
        """Return the organization of that id."""
        return self._organizations.get(organization_id)

    def membership(self, sub: str, organization_id: str) -> frozenset[str] | None:
        """Return what a member's roles allow in an organization; None for one who is no member."""
        organization = self.organization(organization_id)
        return organization.scopes(sub) if organization and sub in organization.members else None

    def register(self, name: str, email: str) -> DemoUser:
        """Add a user with an id such as Logto's: twelve small letters and digits."""
        sub = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(12))
        self._users[sub] = user = DemoUser(sub, name, email)
        return user

    def suspend(self, sub: str, suspended: bool) -> None:
        """Suspend a user, or let it in again. Raise `KeyError` for an unknown one."""
        self._users[sub]
        (self._suspended.add if suspended else self._suspended.discard)(sub)

    def set_claims(self, sub: str, changes: Mapping[str, Any]) -> None:
        """Change claims of a user from now on. Raise `KeyError` for an unknown one."""
        self._users[sub]
        self._changes.setdefault(sub, {}).update(changes)

    def claims(self, sub: str, scopes: Collection[str], *, userinfo: bool = False) -> dict[str, Any]:
        """Return the claims that these scopes bring: those of the ID token, or of userinfo, which has more."""
        tables = (_CLAIMS, _USERINFO_CLAIMS) if userinfo else (_CLAIMS,)
        names = [name for table in tables for scope in scopes for name in table.get(scope, ())]
        known = self._known(self._users[sub])
        # A claim that `set_claims` brought and no scope owns is a custom claim of the tenant: always there.
        own = self._changes.get(sub, {}).keys() - _OWNED
        return {"sub": sub, **{name: known[name] for name in [*names, *sorted(own)] if name in known}}

    def _known(self, user: DemoUser) -> dict[str, Any]:
        theirs = [organization for organization in self._organizations.values() if user.sub in organization.members]
        return {
            "name": user.name,
            "picture": None,
            "username": user.username,
            "created_at": self._created_at,
            "updated_at": self._created_at,
            "email": user.email,
            "email_verified": user.email is not None,
            "phone_number": None,
            "phone_number_verified": False,
            "roles": list(user.roles),
            "organizations": [organization.id for organization in theirs],
            "organization_roles": [f"{each.id}:{role}" for each in theirs for role in each.members[user.sub]],
            "organization_data": [
                {"id": each.id, "name": each.name, "description": each.description} for each in theirs
            ],
            "custom_data": {},
            "identities": {},
            "sso_identities": [],
            **user.claims,
            **self._changes.get(user.sub, {}),
        }

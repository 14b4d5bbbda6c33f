"""What a guard asks of a caller, as data that is checked once, when the guard is made. Knows no request."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from starlette.requests import HTTPConnection

from logto_asgi.errors import SetupError

if TYPE_CHECKING:
    from logto_asgi.user import LogtoUser

__all__ = ["AnyOf", "BearerOptions", "GuardOptions", "Requirement", "Way", "any_of", "lacking", "requirement_of"]

Way = Literal["session", "bearer"]

ANY_ORGANIZATION = "*"
"""Whichever organization a bearer token is for."""
LEAST_MAX_AGE = 30
"""Seconds; a shorter time would send a visitor around in circles."""

_WORD = re.compile(r"[!#-\[\]-~]+", re.ASCII)
"""A scope (RFC 6749 §3.3); roles have spaces too."""
_TEMPLATE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


class AnyOf(tuple[str, ...]):
    """Names of which one is enough; made by `any_of`."""

    __slots__ = ()

    # A list of the same names means another thing, and guards are kept by what they ask.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, AnyOf) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash((AnyOf, *self))

    def __repr__(self) -> str:
        return f"any_of({', '.join(map(repr, self))})"


Names = Sequence[str] | AnyOf
Predicate = Callable[["LogtoUser", HTTPConnection], "bool | Awaitable[bool]"]
Organization = str | Callable[[HTTPConnection], "str | None"]


class BearerOptions(TypedDict, total=False):
    """What a guard may ask of a bearer token."""

    resource: str | None
    """The API whose scopes are meant, and the audience of bearer tokens; the configuration's `api_resource` if None."""
    scopes: Names
    """A list needs all of them, `any_of(…)` one. They come from an access token for `resource`."""
    roles: Names
    """Of the user; a list needs all, `any_of(…)` one."""
    organization: Organization | None
    """A path parameter `"{org_id}"`, an id, a function of the connection, or `"*"` for any (by bearer token only)."""
    organization_roles: Names
    """Of the user in that organization; a list needs all, `any_of(…)` one."""
    max_age: int | None
    """Seconds since the user last proved who it is, at least 30."""
    machines: bool | Literal["only"]
    """Whether a token may be a machine's own (its `sub` is its `client_id`); `"only"` refuses users."""
    clients: Sequence[str]
    """Client ids that a token may have been issued to; any, if empty."""
    opaque: bool
    """Whether opaque tokens are taken too, at the cost of a call to the issuer (RFC 7662)."""
    predicate: Predicate | None
    """A function of user and connection, synchronous or not; the caller is refused where it returns False."""


class GuardOptions(BearerOptions, total=False):
    """What a guard may ask of a caller."""

    accept: Way | Sequence[Way]
    """How a caller may come: `"session"` (default), `"bearer"`, or both."""
    redirect: bool | None
    """True sends every GET without a session to sign-in, False none, None those of a browser's address bar or link."""
    claims_max_age: int | None
    """Seconds; insists on claims of the session no older. Without it the configuration's is tried for."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """The options of one guard, checked. Equal options make equal requirements."""

    session: bool = True
    bearer: bool = False
    redirect: bool | None = None
    claims_max_age: int | None = None
    resource: str | None = None
    scopes: tuple[str, ...] = ()
    and_scopes: tuple[str, ...] = ()
    """Needed besides: those of FastAPI's `Security(…, scopes=[…])`."""
    roles: tuple[str, ...] = ()
    organization: Organization | None = None
    organization_roles: tuple[str, ...] = ()
    max_age: int | None = None
    machines: bool | Literal["only"] = False
    clients: tuple[str, ...] = ()
    opaque: bool = False
    predicate: Predicate | None = None
    asks_more: bool = False
    """Whether anything is asked of a session beyond that there is one."""

    def with_scopes(self, scopes: Sequence[str]) -> Requirement:
        """Return the requirement with these scopes needed too. Raise `SetupError` for one that was taken apart."""
        if len(scopes) > 3 and all(len(scope) == 1 for scope in scopes):
            raise SetupError(f'The scopes of Security are a list: Security(…, scopes=["{"".join(scopes)}"]).')
        return replace(self, and_scopes=tuple(dict.fromkeys([*self.and_scopes, *scopes])), asks_more=True)

    @property
    def all_scopes(self) -> tuple[str, ...]:
        """Every scope that is named, for a challenge and for documentation."""
        return tuple(dict.fromkeys([*self.scopes, *self.and_scopes]))


def any_of(*names: str) -> AnyOf:
    """Say that one of these scopes or roles is enough: `scopes=any_of("read:items", "write:items")`."""
    if not names or "" in names:
        raise SetupError('any_of takes names: any_of("read:items", "write:items").')
    return AnyOf(names)


def lacking(needed: tuple[str, ...], held: object) -> tuple[str, ...]:
    """Return which of the needed names are not held: none, if one of `any_of` is."""
    have = held if type(held) is frozenset else frozenset(held or ())  # type: ignore[call-overload]
    missing = tuple([name for name in needed if name not in have])
    return () if missing and isinstance(needed, AnyOf) and len(missing) < len(needed) else missing


def requirement_of(**options: Unpack[GuardOptions]) -> Requirement:
    """Return the requirement that these options make. Raise `SetupError` for what cannot be meant."""
    unknown = options.keys() - GuardOptions.__optional_keys__
    if unknown:
        known = ", ".join(sorted(GuardOptions.__optional_keys__))
        raise SetupError(f"A guard has no option {min(unknown)!r}. There are: {known}.")
    ways = _ways(options.get("accept", "session"))
    need = Requirement(
        session="session" in ways,
        bearer="bearer" in ways,
        redirect=_one_of(options.get("redirect"), (None, True, False), "redirect"),
        claims_max_age=_at_least(options.get("claims_max_age"), 1, "claims_max_age"),
        resource=_resource(options.get("resource")),
        scopes=_names(options.get("scopes", ()), "scopes", are_scopes=True),
        roles=_names(options.get("roles", ()), "roles"),
        organization=_organization(options.get("organization"), ways),
        organization_roles=_names(options.get("organization_roles", ()), "organization_roles"),
        max_age=_at_least(options.get("max_age"), LEAST_MAX_AGE, "max_age"),
        machines=_one_of(options.get("machines", False), (True, False, "only"), "machines"),
        clients=_names(options.get("clients", ()), "clients"),
        opaque=_one_of(options.get("opaque", False), (True, False), "opaque"),
        predicate=options.get("predicate"),
    )
    _check_together(need)
    asked = (need.scopes, need.roles, need.organization, need.organization_roles, need.max_age, need.predicate)
    return replace(need, asks_more=any(each not in (None, ()) for each in asked))


def organization_parameter(organization: str) -> str | None:
    """Return the path parameter that a template such as `"{org_id}"` names; None for a plain id."""
    match = _TEMPLATE.fullmatch(organization)
    return match[1] if match else None


def _ways(accept: Any) -> tuple[str, ...]:
    ways = (accept,) if isinstance(accept, str) else tuple(accept)
    if not ways or not set(ways) <= {"session", "bearer"}:
        raise SetupError('accept is "session", "bearer", or both: accept=("session", "bearer").')
    return ways


def _names(given: Any, option: str, *, are_scopes: bool = False) -> tuple[str, ...]:
    if isinstance(given, str):
        raise SetupError(f"{option} is a list: {option}=[{given!r}].")
    names: tuple[Any, ...] = given if isinstance(given, AnyOf) else tuple(given)
    for name in names:
        if not isinstance(name, str) or not name:
            raise SetupError(f"{option} holds something that is no name.")
        if are_scopes and not _WORD.fullmatch(name):
            raise SetupError(f'{option} holds {name!r}, which cannot be one scope. Write them apart: ["a", "b"].')
    return names if isinstance(names, AnyOf) else tuple(dict.fromkeys(names))


def _one_of(given: Any, values: tuple[Any, ...], option: str) -> Any:
    """Return one of the values itself: a text such as "no" would count as yes."""
    if not any(given is value or (given == value and isinstance(value, str)) for value in values):
        raise SetupError(f"{option} is {' or '.join(map(repr, values))}.")
    return given


def _resource(given: Any) -> str | None:
    if given is not None and (not isinstance(given, str) or not given.strip()):
        raise SetupError("resource is the indicator of an API, such as https://api.example.com; leave it out for none.")
    return given


def _at_least(seconds: Any, least: int, option: str) -> int | None:
    if seconds is None:
        return None
    if not isinstance(seconds, int) or isinstance(seconds, bool) or seconds < least:
        why = "; user.refresh() asks the issuer now" if option == "claims_max_age" else ""
        raise SetupError(f"{option} is a number of seconds, at least {least}{why}.")
    return seconds


def _organization(given: Any, ways: tuple[str, ...]) -> Organization | None:
    if given is None or (callable(given) and not isinstance(given, type)):
        return given
    if not isinstance(given, str) or not given or ("{" in given and not _TEMPLATE.fullmatch(given)):
        raise SetupError(
            'organization is a path parameter such as "{org_id}", the id of an organization, "*", or a function of the '
            "connection that returns an id."
        )
    if given == ANY_ORGANIZATION and "session" in ways:
        raise SetupError(
            'organization="*" is for bearer tokens, which name one: a session belongs to none. Use a path parameter '
            'such as "{org_id}", or accept="bearer".'
        )
    return given


def _check_together(need: Requirement) -> None:
    if need.organization_roles and need.organization is None:
        raise SetupError('organization_roles needs organization=…, such as organization="{org_id}".')
    for_bearer = {"machines": need.machines, "clients": need.clients, "opaque": need.opaque}
    named = [name for name, value in for_bearer.items() if value]
    if named and not need.bearer:
        raise SetupError(f'{named[0]} is about bearer tokens: add accept="bearer" or accept=("session", "bearer").')
    if need.machines == "only" and need.session:
        raise SetupError('machines="only" leaves nobody with a session: write accept="bearer".')
    if need.predicate is not None and not callable(need.predicate):
        raise SetupError("predicate is a function of user and connection.")

"""What a guard is in an OpenAPI document: its security schemes, and the scopes that an operation needs.

FastAPI reads one scheme, and the scopes of `Security(…)`, from each dependency that is a `SecurityBase`;
`describe_guards` adds what it cannot read there. Knows no request and no issuer.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from itertools import product
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from fastapi.encoders import jsonable_encoder
from fastapi.openapi.models import APIKey, APIKeyIn, HTTPBearer
from fastapi.openapi.models import SecurityBase as Scheme
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from logto_asgi.requirements import AnyOf, Requirement

__all__ = ["BEARER", "SESSION", "Document", "GuardScheme", "Needs", "describe_guards", "operations"]

SESSION, BEARER = "LogtoSession", "LogtoBearer"
"""The names of the schemes in a document."""


@cache
def _scheme(name: str) -> Scheme:
    """Return a scheme as documents show it. Made when one is wanted: FastAPI builds these models at first use."""
    if name == SESSION:
        about = "The session cookie that signing in sets."
        return APIKey.model_validate({"in": APIKeyIn.cookie, "name": "logto session", "description": about})
    about = (
        "An access token for this API: `Authorization: Bearer …`. Where one comes, the session cookie is not looked at."
    )
    return HTTPBearer(bearerFormat="JWT", description=about)


Document = dict[str, Any]
Needs = dict[str, list[str]]
"""One entry of an operation's `security`: the name of a scheme, and scopes. The entries are alternatives."""

_met: ContextVar[dict[str, "GuardScheme"] | None] = ContextVar("logto_asgi_guards", default=None)
"""While `describe_guards` has a document made: the guards met so far, by the name that stands for each."""


class GuardScheme(SecurityBase):
    """What FastAPI's OpenAPI sees of a guard; the base of guards, which take a `SecurityScopes`.

    A guard for sessions and bearer tokens gets that from a second scheme, because FastAPI takes one scheme from each
    dependency. The others are one flat dependency, which is faster by 5 to 10 µs a request.
    """

    def __init__(self, need: Requirement) -> None:
        self.need = need
        if need.session and need.bearer:
            self.__signature__ = _with_alternative(inspect.signature(self), _Alternative(self))

    async def __call__(self, connection: HTTPConnection, security_scopes: SecurityScopes) -> Any:
        """Guard: what a subclass does."""
        raise NotImplementedError

    @property
    def model(self) -> Scheme:  # type: ignore[override]
        """The scheme as documents show it."""
        return _scheme(self._first)

    @property
    def scheme_name(self) -> str:  # type: ignore[override]
        """The name of the scheme; one that stands for this guard while `describe_guards` has a document made."""
        return self.placeholder() or self._first

    @property
    def _first(self) -> str:
        return SESSION if self.need.session else BEARER

    def placeholder(self) -> str | None:
        """Return a name for this guard alone, and note that it was asked for; None where nobody wants that."""
        met = _met.get()
        if met is None:
            return None
        name = f"logto-guard-{id(self)}"
        met[name] = self
        return name


class _Alternative(SecurityBase):
    """The bearer scheme beside the session's. Guards nothing: it hands on the scopes of `Security(…, scopes=[…])`."""

    def __init__(self, guard: GuardScheme) -> None:
        self._guard = guard

    @property
    def model(self) -> Scheme:  # type: ignore[override]
        return _scheme(BEARER)

    @property
    def scheme_name(self) -> str:  # type: ignore[override]
        return self._guard.placeholder() or BEARER

    async def __call__(self, security_scopes: SecurityScopes) -> SecurityScopes:
        return security_scopes


def _with_alternative(signature: inspect.Signature, alternative: _Alternative) -> inspect.Signature:
    """Let what takes the `SecurityScopes` depend on the second scheme for them."""
    annotation = Annotated[Any, Depends(alternative)]  # FastAPI 0.123 refuses it for SecurityScopes itself
    return signature.replace(
        parameters=[
            parameter.replace(annotation=annotation) if parameter.annotation is SecurityScopes else parameter
            for parameter in signature.parameters.values()
        ]
    )


def describe_guards(app: FastAPI, finish: Callable[[Document], None] | None = None) -> None:
    """Let `app.openapi()` say exactly what each guard asks for: the ways in, their scopes, `any_of` as alternatives.

    Without it a document lacks the scopes that a guard itself names, as in `Depends(require_auth(scopes=[…]))`; those
    of `Security(…, scopes=[…])` are there. It wraps the `app.openapi` that it finds, so call it after you have put one
    of your own there. `finish` may change each document, once.
    """
    make, known = app.openapi, list[Document]()

    def openapi() -> Document:
        with _meeting() as met:
            document = make()
        if not known or known[0] is not document:
            _write_needs(document, met)
            if finish is not None:
                finish(document)
            known[:] = [document]
        return document

    app.openapi_schema = None  # a document made before knows no guard
    app.openapi = openapi  # type: ignore[method-assign]


@contextmanager
def _meeting() -> Iterator[dict[str, GuardScheme]]:
    met: dict[str, GuardScheme] = {}
    token = _met.set(met)
    try:
        yield met
    finally:
        _met.reset(token)


def operations(document: Document) -> Iterator[dict[str, Any]]:
    """Walk through the operations that have security, those of webhooks and callbacks too."""
    items = [*document.get("paths", {}).values(), *document.get("webhooks", {}).values()]
    while items:
        for operation in items.pop(0).values():
            if isinstance(operation, dict) and "security" in operation:
                yield operation
            if isinstance(operation, dict):
                items.extend(item for callback in operation.get("callbacks", {}).values() for item in callback.values())


def _write_needs(document: Document, met: Mapping[str, GuardScheme]) -> None:
    """Put what the guards need in the place of the names that stand for them."""
    used = set[str]()
    for operation in operations(document):
        entries: list[Needs] = operation["security"]
        guards = [(met[name].need, scopes) for entry in entries for name, scopes in entry.items() if name in met]
        ours = _together([_ways(need, scopes) for need, scopes in guards])
        operation["security"] = ours + [entry for entry in entries if not entry.keys() & met.keys()]
        used.update(name for entry in ours for name in entry)
    schemes = document.get("components", {}).get("securitySchemes", {})
    for name in met:
        schemes.pop(name, None)
    schemes.update({name: jsonable_encoder(_scheme(name), by_alias=True, exclude_none=True) for name in sorted(used)})


def _ways(need: Requirement, named: Sequence[str]) -> list[Needs]:
    """Return the alternatives of one guard; `named` are the scopes of `Security(…)`."""
    names = [name for name, taken in ((SESSION, need.session), (BEARER, need.bearer)) if taken]
    enough = [(scope,) for scope in need.scopes] if isinstance(need.scopes, AnyOf) else [need.scopes]
    return [{name: [*dict.fromkeys([*scopes, *named])]} for name in names for scopes in enough]


def _together(guards: list[list[Needs]]) -> list[Needs]:
    """Return the alternatives that satisfy all guards of an operation: by one way, with the scopes of all."""
    found: list[Needs] = []
    for ways in product(*guards):
        names = {name for way in ways for name in way}
        scopes = [*dict.fromkeys(scope for way in ways for named in way.values() for scope in named)]
        if len(names) == 1 and (entry := {names.pop(): scopes}) not in found:
            found.append(entry)
    # Guards that nobody can satisfy together; an empty list would say that nothing is needed (OpenAPI 3.1 §4.8.10).
    return found or [way for ways in guards for way in ways]

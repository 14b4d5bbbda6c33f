"""`LogtoConfig`, the settings of one application at one issuer. It knows no network, no request and no session."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Self, Unpack
from urllib.parse import urlsplit

from pydantic import SecretStr
from starlette.requests import HTTPConnection

from logto_asgi.config.checks import check
from logto_asgi.config.environment import DEFAULT_ENV_FILE, read_environment
from logto_asgi.config.fields import ConfigArguments, settings
from logto_asgi.config.urls import origin_of
from logto_asgi.models import ReservedResource, ReservedScope, SignInOptions, UserScope

__all__ = ["LogtoConfig"]

_DERIVED = ("is_logto", "cookie_secrets", "origin", "base_path", "secure", "redirect_uri", "signs_in")


class LogtoConfig:
    """The settings of one application: checked once, then frozen.

    `LogtoConfig()` reads `LOGTO_ENDPOINT`, `LOGTO_APP_ID` and so on from the environment and from a `.env` file in the
    working directory. With `endpoint` or `issuer` among the arguments nothing is read: a second configuration in
    code must not pick up the first one's secret. `from_env` reads the environment in any case.

    The attributes hold what is in force, so defaults that depend on other settings are filled in.
    Raise `ConfigurationError`, which lists all mistakes, and never shows a secret.
    """

    __slots__ = (*(name for name in settings() if name != "cookie_secret"), *_DERIVED)

    endpoint: str | None
    """Without a slash at its end; `None` where the issuer is no Logto."""
    issuer: str
    is_logto: bool
    """Whether `endpoint` was given, so that Logto's own parameters may be sent."""
    app_id: str
    app_secret: SecretStr | None
    base_url: str
    """Origin and base path in their plain form, without a slash at the end."""
    cookie_secrets: tuple[SecretStr, ...]
    """The first seals, all open."""
    scopes: tuple[str, ...]
    """Reserved ones first; with Logto's organizations scope where an organization token is to be fetched."""
    resources: tuple[str, ...]
    """With the API's own and those for the browser, and Logto's organizations where the scope for it is asked."""
    prompt: str | None
    """Words parted by spaces."""
    include_reserved_scopes: bool
    auth_path: str
    sign_in_options: SignInOptions | Callable[[HTTPConnection], SignInOptions] | None
    post_sign_in_path: str
    post_sign_out_path: str
    token_endpoint_auth_method: str
    fetch_user_info: bool
    get_access_token: bool
    resource: str | None
    organization_id: str | None
    get_organization_token: bool
    api_resource: str | None
    """`None` where the app has no API of its own, or its guards name theirs."""
    introspection_cache: int
    browser_token_resources: tuple[str, ...]
    idle_lifetime: int
    absolute_lifetime: int
    roll_interval: int
    attempt_lifetime: int
    refresh_margin: int
    claims_max_age: int
    revalidate_every: int | None
    """`None` where no session is checked with the issuer."""
    clock_leeway: int
    http_timeout: float
    trusted_origins: tuple[str, ...]
    one_time_token: str
    verify_on_startup: bool
    origin: str
    """Scheme, host and port as browsers send them in `Origin`."""
    base_path: str
    """The path of `base_url`: empty, or like `/shop`."""
    secure: bool
    """Whether `base_url` is https."""
    redirect_uri: str
    """Where the issuer sends a visitor back to. It has to be registered there, character for character."""

    signs_in: bool
    """False where `without_sign_in` made it: no session is ever read."""

    def __init__(self, **arguments: Unpack[ConfigArguments]) -> None:
        """Check the arguments, which `ConfigArguments` and the configuration reference describe."""
        in_code = "endpoint" in arguments or "issuer" in arguments
        self._settle(check(arguments, None if in_code else read_environment(DEFAULT_ENV_FILE)))

    @classmethod
    def from_env(
        cls, env_file: str | os.PathLike[str] | None = DEFAULT_ENV_FILE, **overrides: Unpack[ConfigArguments]
    ) -> Self:
        """Read `LOGTO_*` variables and the file, which `None` turns off; arguments and then variables win over it."""
        config = cls.__new__(cls)
        config._settle(check(overrides, read_environment(env_file)))
        return config

    @classmethod
    def without_sign_in(
        cls, env_file: str | os.PathLike[str] | None = DEFAULT_ENV_FILE, **arguments: Unpack[ConfigArguments]
    ) -> Self:
        """Return settings for what has no browser: an API that is called with bearer tokens, a job, a service.

        `endpoint` or `issuer` is enough. An API passes its `api_resource`; who asks for tokens of its own, or for the
        issuer's word on opaque ones, `app_id` and `app_secret`; an API whose address differs from its resource's
        origin, `base_url`. Reads the environment as `LogtoConfig()` does.
        """
        in_code = "endpoint" in arguments or "issuer" in arguments
        config = cls.__new__(cls)
        config._settle(
            check(arguments, None if in_code else read_environment(env_file), signs_in=False), signs_in=False
        )
        return config

    def url(self, path: str) -> str:
        """Return the absolute URL of a path that starts with a slash and is meant below the base path."""
        return self.base_url + path

    def auth_url(self, name: str) -> str:
        """Return the absolute URL of a route of ours, such as `sign-out`."""
        return f"{self.base_url}{self.auth_path}/{name}"

    def same_settings(self, other: LogtoConfig) -> bool:
        """Tell whether two configurations say the same: reading the environment twice is no mistake."""
        return self is other or all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def _settle(self, values: Mapping[str, Any], *, signs_in: bool = True) -> None:
        """Keep the values, with what follows from them."""
        values = {**_resolve(values), "signs_in": signs_in}
        for name in (*settings(), *_DERIVED):
            if name != "cookie_secret":
                object.__setattr__(self, name, values[name])

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"LogtoConfig is frozen: pass {name}=… when it is made")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"LogtoConfig is frozen: {name} stays")

    def __repr__(self) -> str:
        return f"LogtoConfig(issuer={self.issuer!r}, app_id={self.app_id!r}, base_url={self.base_url!r})"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("LogtoConfig is not pickled, because it holds secrets: make it anew in the other process")


def _resolve(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the defaults that depend on other settings, and what is derived from them."""
    is_logto = values["endpoint"] is not None
    scopes = _effective_scopes(values, is_logto)
    parts = urlsplit(values["base_url"])
    return {
        **values,
        "is_logto": is_logto,
        "issuer": values["issuer"] or f"{values['endpoint']}/oidc",
        "cookie_secrets": values["cookie_secret"],
        "scopes": scopes,
        "resources": _effective_resources(values, scopes, is_logto),
        "prompt": values["prompt"] or ("consent" if is_logto and ReservedScope.OFFLINE_ACCESS in scopes else None),
        "token_endpoint_auth_method": values["token_endpoint_auth_method"]
        or ("none" if values["app_secret"] is None else "client_secret_basic"),
        "origin": origin_of(parts),
        "base_path": parts.path,
        "secure": parts.scheme == "https",
        "redirect_uri": f"{values['base_url']}{values['auth_path']}/sign-in-callback",
    }


def _effective_scopes(values: Mapping[str, Any], is_logto: bool) -> tuple[str, ...]:
    reserved = [str(scope) for scope in ReservedScope] if values["include_reserved_scopes"] else []
    needs_organizations = is_logto and (values["get_organization_token"] or values["organization_id"] is not None)
    needed = [str(UserScope.ORGANIZATIONS)] if needs_organizations else []
    return tuple(dict.fromkeys([*reserved, *values["scopes"], *needed]))


def _effective_resources(values: Mapping[str, Any], scopes: tuple[str, ...], is_logto: bool) -> tuple[str, ...]:
    needed = [str(ReservedResource.ORGANIZATION)] if is_logto and UserScope.ORGANIZATIONS in scopes else []
    own = [values["api_resource"]] if values["api_resource"] is not None else []
    return tuple(dict.fromkeys([*values["resources"], *own, *values["browser_token_resources"], *needed]))

"""The settings of `LogtoConfig`, one line each: type, default, description. It knows no value and checks nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Final, Literal, TypedDict, get_type_hints

from pydantic import SecretStr
from starlette.requests import HTTPConnection

from logto_asgi.models import Prompt, SignInOptions

__all__ = ["REQUIRED", "ConfigArguments", "Row", "Setting", "configuration_reference", "settings", "variable"]

REQUIRED: Final = object()
"""The default of a setting that has none."""

DAY: Final = 86_400

Kind = Literal[
    "endpoint", "issuer", "base_url", "text", "secret", "secrets", "scopes", "prompt", "uri", "uris", "origins",
    "path", "prefix", "choice", "flag", "seconds", "options",
]  # fmt: skip

_TYPE_NAMES: Mapping[Kind, str] = {
    "endpoint": "str",
    "issuer": "str",
    "base_url": "str",
    "text": "str",
    "secret": "str or SecretStr",
    "secrets": "str or SecretStr, or a sequence of them",
    "scopes": "sequence of str",
    "prompt": "str, or a sequence of them",
    "uri": "str",
    "uris": "sequence of str",
    "origins": "sequence of str",
    "path": "str",
    "prefix": "str",
    "choice": "str",
    "flag": "bool",
    "seconds": "int (seconds)",
    "options": "SignInOptions, or a callable of the request that returns them",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """What there is to know about one setting. `low` and `high` bound a number of seconds, both included."""

    kind: Kind
    default: Any
    description: str
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = 400 * DAY
    shown_default: str = ""
    """What the reference says instead of the bare default."""
    whole: bool = True
    """Whether a number of seconds must be an integer."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the configuration reference."""

    name: str
    variable: str | None
    """The environment variable, or `None` where only code can set it."""
    type: str
    default: str
    description: str


class ConfigArguments(TypedDict, total=False):
    """The keyword arguments of `LogtoConfig`."""

    endpoint: Annotated[
        str | None,
        Setting("endpoint", None, "Address of your Logto, such as https://tenant.logto.app; this or `issuer`."),
    ]
    issuer: Annotated[
        str | None,
        Setting(
            "issuer",
            None,
            "Issuer identifier exactly as in its discovery document. Alone, it names an OpenID Connect provider other "
            "than Logto.",
            shown_default="{endpoint}/oidc",
        ),
    ]
    app_id: Annotated[str, Setting("text", REQUIRED, "Client id of the application.")]
    app_secret: Annotated[
        str | SecretStr | None,
        Setting("secret", None, "Client secret of the application. Public clients have none."),
    ]
    base_url: Annotated[
        str,
        Setting(
            "base_url",
            REQUIRED,
            "Where browsers find your app, such as https://app.example.com; behind a proxy with the path it is served "
            "under, such as https://example.com/shop.",
        ),
    ]
    cookie_secret: Annotated[
        str | SecretStr | Sequence[str | SecretStr],
        Setting(
            "secrets",
            REQUIRED,
            "Random text of at least 32 characters that cookies are sealed with. Of several the first seals and all "
            "open, which lets you change it without signing anybody out.",
        ),
    ]
    scopes: Annotated[
        Sequence[str],
        Setting("scopes", (), "Scopes to ask for besides the reserved ones (openid, offline_access, profile)."),
    ]
    resources: Annotated[
        Sequence[str],
        Setting("uris", (), "Indicators of the API resources that access tokens will be wanted for (RFC 8707 §2)."),
    ]
    prompt: Annotated[
        Prompt | str | Sequence[Prompt | str] | None,
        Setting(
            "prompt",
            None,
            "What the issuer asks of a visitor at each sign-in: none, login, consent, or several words.",
            shown_default="consent with Logto and the scope offline_access, otherwise not sent",
        ),
    ]
    include_reserved_scopes: Annotated[
        bool, Setting("flag", True, "Whether openid, offline_access and profile are added to the scopes.")
    ]
    auth_path: Annotated[
        str, Setting("prefix", "/logto", "Path, below that of `base_url`, that the sign-in and sign-out routes share.")
    ]
    sign_in_options: Annotated[
        SignInOptions | Callable[[HTTPConnection], SignInOptions] | None,
        Setting("options", None, "What each sign-in asks of the issuer. Can be set in code only."),
    ]
    post_sign_in_path: Annotated[
        str, Setting("path", "/", "Where a visitor goes after a sign-in that was not started by a page of the app.")
    ]
    post_sign_out_path: Annotated[
        str,
        Setting("path", "/", "Where a visitor goes after signing out. Register its URL with the issuer."),
    ]
    token_endpoint_auth_method: Annotated[
        str | None,
        Setting(
            "choice",
            None,
            "How the app authenticates at the token endpoint (OpenID Connect Core §9).",
            choices=("client_secret_basic", "client_secret_post", "none"),
            shown_default="client_secret_basic with an `app_secret`, none without",
        ),
    ]
    fetch_user_info: Annotated[
        bool, Setting("flag", False, "Whether the middleware fetches userinfo for every signed-in request.")
    ]
    get_access_token: Annotated[
        bool, Setting("flag", False, "Whether the middleware gets an access token for every signed-in request.")
    ]
    resource: Annotated[
        str | None, Setting("text", None, "The one of `resources` that `get_access_token` gets its token for.")
    ]
    organization_id: Annotated[
        str | None, Setting("text", None, "The Logto organization that `get_access_token` gets its token for.")
    ]
    get_organization_token: Annotated[
        bool,
        Setting("flag", False, "Whether the middleware gets a token for each Logto organization of the user."),
    ]
    api_resource: Annotated[
        str | None,
        Setting(
            "uri",
            None,
            "Indicator of this app's own API: the audience of the bearer tokens that its guards accept, and the "
            "resource whose scopes they ask for. Sign-in asks for it too.",
        ),
    ]
    introspection_cache: Annotated[
        int,
        Setting(
            "seconds",
            30,
            "How long the issuer's word on an opaque bearer token is remembered, where a guard takes such tokens "
            "(`opaque=True`). A revoked one passes for so long; 0 asks the issuer at every request.",
            high=3600,
        ),
    ]
    browser_token_resources: Annotated[
        Sequence[str],
        Setting(
            "uris",
            (),
            "Indicators of the API resources whose access tokens the app's own pages may fetch from the route `token`. "
            "Without any there is no such route. Sign-in asks for them too.",
        ),
    ]
    idle_lifetime: Annotated[
        int,
        Setting(
            "seconds",
            7 * DAY,
            "A session ends after this long without a request.",
            low=1,
            shown_default="604800 (7 days), or `absolute_lifetime` where that is shorter",
        ),
    ]
    absolute_lifetime: Annotated[
        int,
        Setting(
            "seconds",
            30 * DAY,
            "A session ends this long after its sign-in, used or not.",
            low=1,
            shown_default="2592000 (30 days)",
        ),
    ]
    roll_interval: Annotated[
        int,
        Setting(
            "seconds",
            600,
            "The cookie of a session in use is renewed no more often than this.",
            shown_default="600, or half of `idle_lifetime` where that is shorter",
        ),
    ]
    attempt_lifetime: Annotated[
        int, Setting("seconds", 3600, "How long a visitor may take to sign in.", low=1, high=DAY)
    ]
    refresh_margin: Annotated[
        int, Setting("seconds", 60, "Access tokens are refreshed this long before they expire.", high=3599)
    ]
    claims_max_age: Annotated[
        int,
        Setting(
            "seconds",
            3600,
            "Guards use claims of the user no older than this; older ones are refreshed first.",
            low=1,
        ),
    ]
    revalidate_every: Annotated[
        int | None,
        Setting(
            "seconds",
            None,
            "When set, a session is checked with the issuer at the first request after this long: one that has ended "
            "there, or whose user was suspended, is over here.",
            low=10,
        ),
    ]
    clock_leeway: Annotated[int, Setting("seconds", 60, "How far the clocks of issuer and app may differ.", high=600)]
    http_timeout: Annotated[
        float,
        Setting(
            "seconds", 10.0, "Deadline of one call to the issuer, connection and answer included.",
            low=0.001, high=300, whole=False,
        ),
    ]  # fmt: skip
    trusted_origins: Annotated[
        Sequence[str],
        Setting("origins", (), "Other origins whose pages may send requests that carry the session cookie."),
    ]
    one_time_token: Annotated[
        str,
        Setting(
            "choice",
            "off",
            "What a sign-in link with Logto's `one_time_token` does: nothing, ask the visitor first, or start at once. "
            "The last lets a stranger's link sign a visitor in as somebody else.",
            choices=("off", "confirm", "dangerously_start_at_once"),
        ),
    ]
    verify_on_startup: Annotated[
        bool, Setting("flag", False, "Whether the app refuses to start when the issuer's documents cannot be read.")
    ]


@cache
def settings() -> Mapping[str, Setting]:
    """Return every setting by the name of its argument."""
    hints = get_type_hints(ConfigArguments, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items()}


def variable(name: str) -> str | None:
    """Return the environment variable of a setting, or `None` where only code can set it."""
    return None if settings()[name].kind == "options" else f"LOGTO_{name.upper()}"


def configuration_reference() -> list[Row]:
    """Return what there is to configure, in the order of `ConfigArguments`, for documentation."""
    return [
        Row(
            name=name,
            variable=variable(name),
            type=_type_name(setting),
            default=setting.shown_default or _shown(setting.default),
            description=setting.description,
        )
        for name, setting in settings().items()
    ]


def _type_name(setting: Setting) -> str:
    if setting.choices:
        return "one of " + ", ".join(setting.choices)
    return _TYPE_NAMES[setting.kind] if setting.whole else "float (seconds)"


def _shown(default: object) -> str:
    if default is REQUIRED:
        return "required"
    if isinstance(default, bool):
        return str(default)
    return "none" if default is None or default == () else str(default)

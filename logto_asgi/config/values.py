"""Parse one setting at a time, from code or from text. It knows no other setting, so not whether two fit."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import SecretStr

from logto_asgi.config.entropy import MIN_LENGTH, is_guessable
from logto_asgi.config.faults import Wrong, each, shown
from logto_asgi.config.fields import Kind, Setting
from logto_asgi.config.urls import is_loopback, parse_base_url, parse_endpoint, parse_issuer, parse_origin, parse_uri
from logto_asgi.models import SignInOptions

__all__ = ["is_loopback", "parse_value"]

_MAKE_ONE = 'Make one: python -c "import secrets; print(secrets.token_urlsafe(32))"'

_PLACEHOLDER = re.compile(r"<[^<>]*>|\{[^{}]*\}|^\[.*\]$|^\$\w+$|^your[-_ ]|^(x{3,}|todo|changeme)$", re.IGNORECASE)
_WHOLE_PLACEHOLDER = re.compile(r"<.*>|\$?\{.*\}|\[.*\]|your[-_ ].*|x{3,}|todo|changeme", re.IGNORECASE)
"""For secrets, where brackets may well be part of the value."""
_PATH = re.compile(r"/(?![/\\])[!-\[\]-~]*")
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_SCOPE = re.compile(r"[!#-\[\]-~]+")
"""RFC 6749 §3.3."""
_FLAGS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def parse_value(setting: Setting, value: object, *, is_text: bool) -> Any:
    """Return the setting's value, or raise `Wrong`. `is_text` says that it is from the environment."""
    if value is None and setting.default is None:
        return None
    if is_text and isinstance(value, str) and re.fullmatch(r"(['\"]).*\1", value):
        raise Wrong(("is in quotes, which are taken as part of it.", "Remove them; docker's --env-file keeps quotes."))
    return _PARSERS[setting.kind](setting, value, is_text)


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise Wrong((f"is {_article(value)}, not a string.", "Pass a string."))
    if not value.strip():
        raise Wrong(("is empty.", "Give it a value, or leave it out where it may be absent."))
    return str.__str__(value)  # the plain text of an enum's member


def _article(value: object) -> str:
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _no_placeholder(text: str) -> str:
    if _PLACEHOLDER.search(text):
        raise Wrong(("is still the placeholder of an example.", "Put your own value there."))
    return text


def _text(setting: Setting, value: object, is_text: bool) -> str:
    text = _no_placeholder(_string(value))
    if not re.fullmatch(r"[!-~]+", text):
        raise Wrong(("holds a space or a character outside ASCII.", "Copy it again, without what surrounds it."))
    return text


def _url(parse: Callable[[str], str]) -> Callable[[Setting, object, bool], str]:
    return lambda setting, value, is_text: parse(_no_placeholder(_string(value)))


def _plain(value: object, source: str) -> str:
    """Return the text of a secret; `source` says where another comes from."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else _string(value)
    if not text.strip():
        raise Wrong(("is empty.", "Give it a value, or leave it out where it may be absent."))
    if not text.isprintable() or text != text.strip():
        raise Wrong(("begins or ends with a space, or holds a control character.", "Copy it again, without these."))
    if _WHOLE_PLACEHOLDER.fullmatch(text):
        raise Wrong(("is still the placeholder of an example.", source))
    return text


def _secret(setting: Setting, value: object, is_text: bool) -> SecretStr:
    return SecretStr(_plain(value, "Copy it from the application's page at the issuer."))


def _secrets(setting: Setting, value: object, is_text: bool) -> tuple[SecretStr, ...]:
    """Parse `cookie_secret`: one, or several of which no two are equal."""
    if is_text and isinstance(value, str):
        given: Sequence[object] = _split(value)
    else:
        given = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
    if not given:
        raise Wrong(("is empty.", _MAKE_ONE))
    plain = [_strong(_plain(item, _MAKE_ONE)) for item in given]
    if len(set(plain)) < len(plain):
        raise Wrong(("names the same secret twice.", "To change it, append the new one, deploy, then put it first."))
    return tuple(SecretStr(item) for item in plain)


def _strong(secret: str) -> str:
    if len(secret) < MIN_LENGTH:
        raise Wrong((f"is shorter than {MIN_LENGTH} characters.", _MAKE_ONE))
    if is_guessable(secret):
        raise Wrong(("is not random enough: it could be guessed.", _MAKE_ONE))
    return secret


def _split(text: str) -> list[str]:
    return re.split(r"[,\s]+", text.strip(", \t\r\n"))


def _words(value: object, is_text: bool) -> list[str]:
    """Return a list of strings; one string in code is refused, because Python would take its letters."""
    if isinstance(value, str):
        if is_text:
            return _split(value)
        raise Wrong(("is one string.", f"Write a list: {_listed(value)}."))
    if not isinstance(value, Sequence | set | frozenset) or isinstance(value, bytes):
        raise Wrong((f"is {_article(value)}, not a list of strings.", "Write a list of strings."))
    if not all(isinstance(item, str) for item in value):
        raise Wrong(("holds something that is not a string.", "Write a list of strings."))
    return [str.__str__(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]


def _listed(text: str) -> str:
    return f"[{', '.join(shown(word) for word in _split(text) if word)}]"


def _scopes(setting: Setting, value: object, is_text: bool) -> tuple[str, ...]:
    return each(_words(value, is_text), _scope)


def _scope(scope: str) -> str:
    if _SCOPE.fullmatch(scope):
        return scope
    if len(scope.split()) > 1:
        raise Wrong((f"{shown(scope)} is several scopes in one.", f"Write them apart: {_listed(scope)}."))
    raise Wrong((f"{shown(scope)} cannot be a scope.", "Use ASCII without spaces, quotes and backslashes."))


def _prompt(setting: Setting, value: object, is_text: bool) -> str:
    words = " ".join(_words(value, is_text=True)).split()
    if not words:
        raise Wrong(("is empty.", "Leave it out for the default."))
    return " ".join(dict.fromkeys(words))


def _uri(setting: Setting, value: object, is_text: bool) -> str:
    return parse_uri(_no_placeholder(_string(value)))


def _uris(setting: Setting, value: object, is_text: bool) -> tuple[str, ...]:
    return each(_words(value, is_text), lambda uri: parse_uri(_no_placeholder(uri)))


def _origins(setting: Setting, value: object, is_text: bool) -> tuple[str, ...]:
    return each(_words(value, is_text), parse_origin)


def _path(setting: Setting, value: object, is_text: bool) -> str:
    text = _string(value)
    if not _PATH.fullmatch(text):
        raise Wrong((f"{shown(text)} is not a path of your app.", "Write a slash and what follows, like /welcome."))
    return text


def _prefix(setting: Setting, value: object, is_text: bool) -> str:
    text = _string(value)
    if not _PREFIX.fullmatch(text) or {".", ".."} & set(text.split("/")):
        raise Wrong(
            (
                f"{shown(text)} cannot be the start of a route.",
                "Write a slash, then letters, digits or -._~, and no slash at the end, such as /logto.",
            )
        )
    return text


def _choice(setting: Setting, value: object, is_text: bool) -> str:
    text = _string(value)
    if text not in setting.choices:
        raise Wrong((f"{shown(text)} is not one of its values.", f"Choose from {', '.join(setting.choices)}."))
    return text


def _flag(setting: Setting, value: object, is_text: bool) -> bool:
    flag = _FLAGS.get(value.lower()) if is_text and isinstance(value, str) else value
    if not isinstance(flag, bool):
        raise Wrong(("is neither true nor false.", "Write true or false." if is_text else "Pass True or False."))
    return flag


def _seconds(setting: Setting, value: object, is_text: bool) -> float:
    number = _number(setting, value, is_text)
    if not math.isfinite(number) or not setting.low <= number <= setting.high:
        bounds = f"{setting.low:g} to {setting.high:.10g}"
        raise Wrong((f"is {number:g} seconds.", f"Choose from {bounds} seconds."))
    return number


def _number(setting: Setting, value: object, is_text: bool) -> float:
    kind = int if setting.whole else float
    if is_text and isinstance(value, str):
        try:
            return kind(value)
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, (int, kind)):
        raise Wrong((f"is not a {'whole ' if setting.whole else ''}number.", "Write a number of seconds, digits only."))
    try:
        return kind(value)
    except OverflowError:
        raise Wrong(("is too large.", "Write a number of seconds.")) from None


def _options(setting: Setting, value: object, is_text: bool) -> object:
    if isinstance(value, SignInOptions) or (callable(value) and not isinstance(value, type)):
        return value
    raise Wrong(("is neither SignInOptions nor a callable.", "Pass SignInOptions(…), or a function of the request."))


_PARSERS: Mapping[Kind, Callable[[Setting, object, bool], object]] = {
    "endpoint": _url(parse_endpoint),
    "issuer": _url(parse_issuer),
    "base_url": _url(parse_base_url),
    "text": _text,
    "secret": _secret,
    "secrets": _secrets,
    "scopes": _scopes,
    "prompt": _prompt,
    "uri": _uri,
    "uris": _uris,
    "origins": _origins,
    "path": _path,
    "prefix": _prefix,
    "choice": _choice,
    "flag": _flag,
    "seconds": _seconds,
    "options": _options,
}

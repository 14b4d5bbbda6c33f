"""Decode JSON that a stranger sent, refusing whatever two parsers could read differently. It knows no protocol.

Python's decoder takes `NaN`, lets the last of two equal keys win and recurses as deep as the text says; RFC 8259 §4
leaves duplicate names undefined, and RFC 7515 §4 and RFC 7519 §4 ask receivers to refuse them.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

__all__ = ["MAX_DEPTH", "MalformedJSON", "parse_object"]

MAX_DEPTH = 32
"""Levels of objects and arrays; an ID token needs three, `custom_data` of a user may need more."""


class MalformedJSON(ValueError):
    """The text is no JSON object of ours. The message names the fault and repeats nothing of the text."""


def parse_object(data: bytes) -> dict[str, Any]:
    """Decode one JSON object. Raise `MalformedJSON` for anything else.

    The error is raised outside of the handler: a chained `JSONDecodeError` would carry the whole text, tokens included.
    """
    value: Any = None
    fault: str | None = None
    try:
        value = _decoder.decode(data.decode("utf-8"))
    except MalformedJSON as error:
        fault = str(error)
    except RecursionError:
        fault = "it is nested too deeply"
    except ValueError:
        fault = "it is not JSON in UTF-8"
    if fault is None and not _is_flat_object(value, data):
        fault = _fault_of(value)
    if fault is not None:
        raise MalformedJSON(fault)
    result: dict[str, Any] = value
    return result


def _is_flat_object(value: Any, data: bytes) -> bool:
    """Tell by a glance at the text that there is nothing to walk through: few brackets, and no escapes."""
    return isinstance(value, dict) and b"\\u" not in data and data.count(b"{") + data.count(b"[") <= MAX_DEPTH


def _fault_of(value: Any) -> str | None:
    if not isinstance(value, dict):
        return "it is not a JSON object"
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        if any(isinstance(item, str) and not _is_text(item) for item in level):
            return "it has half a surrogate pair in a string"
        level = [child for item in level for child in _children(item)]
        if not level:
            return None
    return "it is nested too deeply"


def _children(item: Any) -> list[Any]:
    if isinstance(item, dict):
        return [*item.keys(), *item.values()]
    return item if isinstance(item, list) else []


def _is_text(value: str) -> bool:
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise MalformedJSON("it names a member twice")
    return result


def _no_constant(_: str) -> NoReturn:
    raise MalformedJSON("it has NaN or Infinity for a number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise MalformedJSON("it has a number without end")
    return number


_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)

"""Values that JSON, stored as jsonb, would change; and parts of keys that text of any spelling becomes."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

_PLAIN = {byte for byte in range(0x20, 0x7F)} - {0x22, 0x5C}
# Each letter's low byte is the byte that it stands for.
_TABLE = "".join(chr(byte) if byte in _PLAIN else chr(0x100 + byte) for byte in range(256))

SEPARATOR = "\x1f"
"""Between the parts of a key."""
KEY_BYTES = 255
"""Longest key; what is longer is named by a hash."""
_ESCAPED = re.compile("[%\x00-\x1f\ud800-\udfff]")
_UNFIT = re.compile("[\x00\ud800-\udfff]")


def text_of(data: bytes) -> str:
    """Bytes as text, one character each."""
    return codecs.charmap_decode(data, "strict", _TABLE)[0]


def bytes_of(text: str) -> bytes:
    """The bytes that `text_of` made a text of."""
    return text.encode("utf-16-le")[::2]


def is_exact(value: Any) -> bool:
    """Whether JSON, stored as jsonb, gives back exactly this value: its type, and the order in dictionaries."""
    kind = type(value)
    if value is None or kind is bool or kind is int:
        return kind is not int or -(2**63) <= value < 2**63
    if kind is str:
        return _UNFIT.search(value) is None
    if kind is float:
        # jsonb stores a decimal number: no NaN, no sign of zero, and 1e22 comes back as an integer.
        spelled = repr(value)
        return "." in spelled and "e" not in spelled and spelled != "-0.0"
    if kind is list:
        return all(is_exact(element) for element in value)
    # jsonb sorts the keys of an object.
    return kind is dict and len(value) < 2 and all(
        type(key) is str and is_exact(key) and is_exact(element) for key, element in value.items())


def is_jsonb(value: Any) -> bool:
    """The same where the order in dictionaries means nothing."""
    if type(value) is dict:
        return all(type(key) is str and is_exact(key) and is_jsonb(element) for key, element in value.items())
    if type(value) is list:
        return all(is_jsonb(element) for element in value)
    return is_exact(value)


def fitting(value: Any) -> Any:
    """What of a value jsonb can hold, for filters; the exact value is stored beside it."""
    if isinstance(value, str):
        return _UNFIT.sub(lambda found: "" if found[0] == "\x00" else "\ufffd", value)
    if isinstance(value, Mapping):
        return {fitting(str(key)): fitting(element) for key, element in value.items()}
    if isinstance(value, (list, tuple)):
        return [fitting(element) for element in value]
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)
    return fitting(str(value))


def dumps(document: Any) -> str:
    """JSON text."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def part(name: str, at_most: int) -> str:
    """A part of a key: the name with escapes, or a hash where that is too long."""
    spelled = _ESCAPED.sub(
        lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogatepass")), name)
    if len(spelled.encode()) <= at_most:
        return spelled
    # No escape begins with %h.
    return "%h" + blake2b(name.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()


def wrap(value: Any) -> list[Any] | str:
    """A value of JSON as jsonb keeps it exactly: [value], or its text, with NaN and half surrogate pairs."""
    return [value] if is_exact(value) else json.dumps(value, separators=(",", ":"))


def unwrap(wrapped: Any) -> Any:
    """The value again."""
    return wrapped[0] if isinstance(wrapped, list) else json.loads(wrapped)


def pairs(values: Mapping[str, Any]) -> list[list[Any]]:
    """A dictionary as a list, which keeps its order; its values wrapped each, to be stored as differences."""
    return [[wrap(name), wrap(value)] for name, value in values.items()]


def from_pairs(stored: Any) -> dict[str, Any]:
    """The dictionary again."""
    return {unwrap(name): unwrap(value) for name, value in stored}

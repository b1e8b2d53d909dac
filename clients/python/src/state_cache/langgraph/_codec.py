"""How a checkpoint becomes a document, and a document a checkpoint.

Document of a checkpoint:

    {"v": 1,                      version of this format
     "parent": "1ef...",          id of the checkpoint before; absent for the first
     "checkpoint": {...},         all of the checkpoint but its id and the values of its channels
     "values": {"n": 3},          values that JSON holds exactly, for SQL to read
     "bytes": {"messages": ["msgpack", "..."]},   all other values: what the serializer gave, as text
     "metadata": {...},           the metadata, where JSON holds it exactly
    "meta": [...],               the metadata, where JSON does not
     "name": [thread, namespace]} where the key is not their spelling

Beside the document is its context: the checkpoint's id, and what finds it without its document. Of the metadata that
is `run_id`; or all of it, as far as JSON holds it, where "metadata" is missing, as it was in 0.1.0. In the document
the metadata costs what differs from the checkpoint before.

Bytes are text by a table: a printable character stands for itself, each other byte for one letter beyond ASCII. So
text inside msgpack stays text: two checkpoints that share the beginning of a list of messages share the beginning of
this string, and the server stores the difference only. Values that JSON would change go through the serializer, and
under any serializer but LangGraph's own all values do, so that an encrypting one misses nothing.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from hashlib import blake2b, sha256
from typing import Any

from langgraph.checkpoint.base import Checkpoint
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from .._json import KEY_BYTES, SEPARATOR, bytes_of, dumps, fitting, is_exact, is_jsonb, part, text_of

Encoded = list[Any]
"""[value] for what JSON holds exactly, else [type, text]."""

_THREAD_BYTES = 160


def thread_part(thread: str) -> str:
    """The part of keys that belong to a thread."""
    return part(thread, _THREAD_BYTES)


def thread_range(thread: str) -> tuple[str, str]:
    """All keys of a thread are at or above the first and below the second."""
    start = thread_part(thread)
    return start + SEPARATOR, start + chr(ord(SEPARATOR) + 1)


def key_of(thread: str, namespace: str) -> str:
    """The key of the state whose versions are the checkpoints of a thread in a namespace."""
    start = thread_part(thread) + SEPARATOR
    return start + part(namespace, KEY_BYTES - len(start.encode()))


def entry_id(task_id: str, place: int) -> str:
    """The name of a log entry: a task, and a place. Short, since it stands in an index; 72 bits tell tasks apart."""
    digest = blake2b(task_id.encode("utf-8", "surrogatepass"), digest_size=9).digest()
    return f"{base64.b64encode(digest).decode()}/{place}"


def ref_of(checkpoint_id: str) -> str:
    """The name of what was written since a checkpoint. Short, as `entry_id`; SQL makes the same of the id."""
    digest = sha256(checkpoint_id.encode("utf-8", "surrogatepass")).digest()
    return base64.b64encode(digest[:9]).decode()


def key_range(key: str) -> tuple[str, str]:
    """The key alone, as `thread_range`: no spelled name holds U+0001."""
    return key, key + "\x01"


def _unescaped(spelled: str) -> str:
    return re.sub(
        "(?:%[0-9A-F]{2})+", lambda found: bytes.fromhex(found[0].replace("%", "")).decode("utf-8", "surrogatepass"),
        spelled)


def names_of(key: str, document: Mapping[str, Any]) -> tuple[str, str]:
    """Thread and namespace of a checkpoint."""
    if "name" in document:
        thread, namespace = (bytes_of(name).decode("utf-8", "surrogatepass") for name in document["name"])
        return thread, namespace
    thread, namespace = key.split(SEPARATOR, 1)
    return _unescaped(thread), _unescaped(namespace)


WINDOW = 32 * 1024
"""How much of a dictionary zlib can use."""


Known = Mapping[str, "bytes | str"]
"""What the channels of a checkpoint hold: bytes, or `text_of` them."""


# What entries of the log are made of, for zlib to refer to. It is part of the format: it must never change.
_WORDS = (
    b'additional_kwargs response_metadata usage_metadata input_tokens output_tokens total_tokens finish_reason stop'
    b'invalid_tool_calls tool_call_id artifact success name args type tool_call langgraph.types Interrupt Send value'
    b'langchain_core.messages.system SystemMessage langchain_core.messages.human HumanMessage human '
    b'langchain_core.messages.tool ToolMessage tool langchain_core.messages.ai AIMessage ai content id '
    b'model_validate_json tool_calls '
    b'"~__pregel_push, "~__pregel_pull, agent",[0,"messages","msgpack",1],[1,"branch:to:tools","null",0],[2,"'
    b'__pregel_tasks","msgpack",__start__"__error__"__interrupt__",[-3,"__resume__",[-4,"'
)


_UUID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _short(task: str) -> str:
    """The name of a task in an entry: for a UUID `=` and its bytes."""
    if _UUID.fullmatch(task):
        return "=" + base64.b64encode(bytes.fromhex(task.replace("-", ""))).decode()[:22]
    return "=" + task if task.startswith("=") else task


def _long(short: str) -> str:
    """The name of a task again."""
    if not short.startswith("="):
        return short
    if short.startswith("==") or len(short) != 23:
        return short[1:]
    digits = base64.b64decode(short[1:] + "==").hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def dictionary(known: Known, channels: Sequence[str]) -> bytes:
    """What the values of channels may have in common with those in their checkpoint."""
    found = (known[channel] for channel in channels)
    values = b"".join(bytes_of(value) if isinstance(value, str) else value for value in found)
    return values[-(WINDOW - len(_WORDS)) :] + _WORDS


def pack(told: Any, data: bytes, known: Known, channels: Sequence[str]) -> bytes:
    """An entry of the log: 0 and the plain entry; or 1, places of channels, a CRC, and the entry packed.

    It is packed with the values that the same channels have in the entry's checkpoint, which whoever reads the entry
    has read. A place is that of a channel in the order of their names.
    """
    plain = json.dumps([_short(told[0]), *told[1:]], separators=(",", ":")).encode() + b"\n" + data
    wanted = set(channels)
    chosen = [(place, channel) for place, channel in enumerate(sorted(known)) if channel in wanted and place < 256]
    words = dictionary(known, [channel for _, channel in chosen[:255]])
    places = bytes([len(chosen[:255]), *(place for place, _ in chosen[:255])])
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, words)
    packed = b"\1" + places + zlib.crc32(words).to_bytes(4, "big") + squeezer.compress(plain) + squeezer.flush()
    return packed if len(packed) < len(plain) else b"\0" + plain


class OtherDictionary(Exception):
    """An entry was packed with another content of its checkpoint: somebody has stored that again since."""


def unpack(packed: bytes, known: Known) -> tuple[Any, bytes]:
    """What `pack` was given."""
    if packed[:1] == b"\0":
        plain = packed[1:]
    else:
        start = 2 + packed[1]
        names = sorted(known)
        if any(place >= len(names) for place in packed[2:start]):
            raise OtherDictionary
        words = dictionary(known, [names[place] for place in packed[2:start]])
        if zlib.crc32(words) != int.from_bytes(packed[start : start + 4], "big"):
            raise OtherDictionary
        plain = zlib.decompressobj(-15, words).decompress(packed[start + 4 :])
    first, _, data = plain.partition(b"\n")
    told = json.loads(first)
    return [_long(told[0]), *told[1:]], data


def values_of(document: Mapping[str, Any]) -> dict[str, str]:
    """The bytes in a document as text, by channel."""
    return {channel: encoded[1] for channel, encoded in document["bytes"].items()}


class Codec:
    """Documents under one serializer."""

    def __init__(self, serde: Any) -> None:
        self.serde = serde
        self.readable = type(serde) is JsonPlusSerializer

    def encode(self, value: Any) -> Encoded:
        """A value as JSON."""
        if self.readable and is_exact(value):
            return [value]
        kind, data = self.serde.dumps_typed(value)
        return [kind, text_of(data)]

    def decode(self, encoded: Sequence[Any]) -> Any:
        """The value again."""
        if len(encoded) == 1:
            return encoded[0]
        return self.serde.loads_typed((encoded[0], bytes_of(encoded[1])))

    def document(
        self, key: str, thread: str, namespace: str, checkpoint: Checkpoint, parent: str | None, metadata: Any
    ) -> tuple[str, str, dict[str, bytes]]:
        """Document of a checkpoint, context of its version (what lists are filtered by), and the bytes in it."""
        rest = {name: value for name, value in checkpoint.items() if name not in ("id", "channel_values")}
        if rest.get("updated_channels", 0) is None:
            del rest["updated_channels"]
        if rest.get("pending_sends", 0) == []:
            del rest["pending_sends"]
        values: dict[str, Any] = {}
        packed: dict[str, Any] = {}
        known: dict[str, bytes] = {}
        for channel, value in checkpoint["channel_values"].items():
            if self.readable and is_exact(value):
                values[channel] = value
            else:
                kind, data = self.serde.dumps_typed(value)
                packed[channel] = [kind, text_of(data)]
                known[channel] = data
        document: dict[str, Any] = {"v": 1, "values": values, "bytes": packed}
        if is_jsonb(rest):
            document["checkpoint"] = rest
        else:
            document["rest"] = self.encode(rest)
        if parent is not None:
            document["parent"] = parent
        context = dict(metadata)
        if is_jsonb(context):
            document["metadata"] = context
            context = {name: context[name] for name in ("run_id",) if name in context}
        else:
            document["meta"] = self.encode(context)
            context = fitting(context)
        if names_of(key, {}) != (thread, namespace):
            document["name"] = [text_of(name.encode("utf-8", "surrogatepass")) for name in (thread, namespace)]
        # No metadata has this name: LangGraph leaves it out.
        context["checkpoint_id"] = checkpoint["id"]
        return dumps(document), dumps(context), known

    def checkpoint(self, document: Mapping[str, Any], checkpoint_id: str) -> Checkpoint:
        """The checkpoint of a document."""
        rest = document["checkpoint"] if "checkpoint" in document else self.decode(document["rest"])
        values = dict(document["values"])
        for channel, encoded in document["bytes"].items():
            values[channel] = self.decode(encoded)
        made: Any = {"updated_channels": None, **rest, "id": checkpoint_id, "channel_values": values}
        return made  # type: ignore[no-any-return]

    def metadata(self, document: Mapping[str, Any], context: Mapping[str, Any]) -> Any:
        """The metadata of a checkpoint."""
        if "meta" in document:
            return self.decode(document["meta"])
        if "metadata" in document:
            return document["metadata"]
        return {name: value for name, value in context.items() if name != "checkpoint_id"}

"""The calls of state_cache as statements that any driver can run.

A `Statement` is text with `$1`, `$2`, ..., its arguments, and a function that reads the rows. The clients of this
package run them through psycopg; `run_asyncpg` and `run_sqlalchemy` run the same ones elsewhere:

    calls = Calls(schema="agents")
    await run_asyncpg(connection, calls.set("run-42", {"step": 1}))
    state = run_sqlalchemy(session, calls.get("run-42"))
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, NamedTuple, TypeVar

T = TypeVar("T")
Row = Sequence[Any]
Json = Any
"""What `json.dumps` takes: dict, list, str, int, float, bool, None."""


class Saved(NamedTuple):
    """What `save` did."""

    action: Literal["saved", "unchanged", "deferred"]
    version: int


class Current(NamedTuple):
    """A state as it is now."""

    key: str
    version: int
    state: Json


class Version(NamedTuple):
    """A kept version, as `history` lists it."""

    version: int
    parent_version: int | None
    checkpoint_type: str
    agent_phase: str | None
    recovery_point: bool
    execution_context: Json
    encoding: str
    bytes_stored: int
    bytes: int
    created_at: datetime


class Listed(NamedTuple):
    """A kept version with what belongs to it, as `list_versions` gives it."""

    key: str
    version: int
    parent_version: int | None
    label: str | None
    execution_context: Json
    state: Json
    payload: bytes | None
    created_at: datetime


class Key(NamedTuple):
    """A state that is there, as `keys` gives it."""

    key: str
    version: int
    updated_at: datetime


class Change(NamedTuple):
    """A change that a listener hears of.

    `op` is `set`, `delete`, or `invalidate`: drop every copy whose key matches the pattern in `key` (`class_` None:
    of all classes). `reset`: what was missed is not known; drop everything.
    """

    class_: str | None
    key: str
    version: int | None
    op: str


@dataclass(frozen=True)
class Statement(Generic[T]):
    """A call: its text, its arguments, and what its rows mean."""

    text: str
    arguments: tuple[Any, ...]
    read: Callable[[Sequence[Row]], T]
    binary: bool = False
    """Whether psycopg asks for the rows in binary form: for those with `bytea`."""


def dump(value: Json) -> str:
    """JSON text of a value; `ValueError` for NaN and the infinities, which JSON does not have."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def load(text: str | None) -> Json:
    """The value of JSON text; None for NULL."""
    return None if text is None else json.loads(text)


def quoted(name: str) -> str:
    """An identifier in double quotes."""
    return '"' + name.replace('"', '""') + '"'


def _nothing(rows: Sequence[Row]) -> None:
    return None


def _first(rows: Sequence[Row]) -> Any:
    return rows[0][0]


def _document(rows: Sequence[Row]) -> Json:
    return load(rows[0][0])


def _saved(rows: Sequence[Row]) -> Saved:
    return Saved(rows[0][0], rows[0][1])


class Calls:
    """The calls of one schema and class.

    `schema` is the extension's; None leaves the names to `search_path`. `on_invalid="replace"` keeps what jsonb
    refuses (NUL, half a surrogate pair) as U+FFFD, where documents are set or saved whole.
    """

    def __init__(
        self, schema: str | None = None, class_: str = "run", on_invalid: Literal["error", "replace"] = "error"
    ) -> None:
        self.schema = schema
        self.class_ = class_
        self.on_invalid = on_invalid
        self._prefix = "" if schema is None else quoted(schema) + "."

    def of_class(self, class_: str) -> Calls:
        """The same calls for another class."""
        return Calls(self.schema, class_, self.on_invalid)

    def _call(self, name: str, arguments: str, columns: str = "") -> str:
        source = f"{self._prefix}{name}({arguments})"
        return f"SELECT {columns} FROM {source}" if columns else f"SELECT {source}"

    def get(self, key: str, min_version: int | None = None) -> Statement[Json]:
        """The document; None if the state is absent."""
        text = self._call("state_get_text", "$1::text, class => $2::text, min_version => $3::bigint")
        return Statement(text, (key, self.class_, min_version), _document)

    def get_path(self, key: str, path: Sequence[str], min_version: int | None = None) -> Statement[Json]:
        """What the document holds at a path."""
        text = self._call(
            "state_get_path", "$1::text, $2::text[], class => $3::text, min_version => $4::bigint") + "::text"
        return Statement(text, (key, list(path), self.class_, min_version), _document)

    def get_many(self, keys: Iterable[str]) -> Statement[list[Current]]:
        """The states of these keys that are there, in the order asked for."""
        text = self._call("state_get_many", "$1::text[], class => $2::text", "key, version, state::text")
        return Statement(
            text, (list(keys), self.class_), lambda rows: [Current(row[0], row[1], load(row[2])) for row in rows])

    def get_with_version(self, key: str) -> Statement[Current | None]:
        """Document and version from one snapshot; None if the state is absent."""
        many = self.get_many([key])
        return Statement(many.text, many.arguments, lambda rows: next(iter(many.read(rows)), None))

    def version(self, key: str) -> Statement[int | None]:
        """The version; None if the state is absent."""
        return Statement(self._call("state_version", "$1::text, class => $2::text"), (key, self.class_), _first)

    def exists(self, key: str) -> Statement[bool]:
        """Whether there is such a state."""
        return Statement(self._call("state_exists", "$1::text, class => $2::text"), (key, self.class_), _first)

    def set(
        self, key: str, state: Json, expected_version: int | None = None, ttl: timedelta | None = None
    ) -> Statement[None]:
        """Replaces the whole document. `expected_version`: the version it must be in, 0 for absent."""
        text = self._call(
            "state_set_text",
            "$1::text, $2::text, $3::bigint, $4::interval, on_invalid => $5::text, class => $6::text") + "::text"
        return Statement(text, (key, dump(state), expected_version, ttl, self.on_invalid, self.class_), _nothing)

    def update(self, key: str, updates: Mapping[str, Json]) -> Statement[None]:
        """Merges an object into the top level of the document."""
        return self._change("state_update", key, dict(updates))

    def merge(self, key: str, patch: Json) -> Statement[None]:
        """Applies a JSON merge patch (RFC 7396)."""
        return self._change("state_merge", key, patch)

    def _change(self, name: str, key: str, value: Json) -> Statement[None]:
        text = self._call(name, "$1::text, $2::text::jsonb, class => $3::text") + "::text"
        return Statement(text, (key, dump(value), self.class_), _nothing)

    def append(self, key: str, path: Sequence[str], value: Json) -> Statement[None]:
        """Appends an element to the array at a path; `[]` is the document itself."""
        text = self._call("state_append", "$1::text, $2::text[], $3::text::jsonb, class => $4::text") + "::text"
        return Statement(text, (key, list(path), dump(value), self.class_), _nothing)

    def delete(self, key: str, expected_version: int | None = None) -> Statement[bool]:
        """Deletes; whether there was a state. Its kept versions stay for a while."""
        text = self._call("state_delete", "$1::text, $2::bigint, class => $3::text")
        return Statement(text, (key, expected_version, self.class_), _first)

    def touch(self, key: str, ttl: timedelta | None) -> Statement[bool]:
        """Sets the time to live from now on, None for no end; whether there was a state."""
        text = self._call("state_touch", "$1::text, $2::interval, class => $3::text")
        return Statement(text, (key, ttl, self.class_), _first)

    def save(
        self,
        key: str,
        state: Json,
        checkpoint_type: str = "auto",
        agent_phase: str | None = None,
        recovery_point: bool = False,
        execution_context: Json = None,
        expected_version: int | None = None,
        ttl: timedelta | None = None,
        label: str | None = None,
        parent_version: int | None = None,
        payload: bytes | None = None,
    ) -> Statement[Saved]:
        """Replaces the whole document now and keeps it as a checkpoint."""
        text = self._call(
            "state_save_text",
            "$1::text, $2::text, $3::text, $4::text, $5::boolean, $6::text::jsonb, $7::bigint, $8::interval,"
            " on_invalid => $9::text, label => $10::text, parent_version => $11::bigint, payload => $12::bytea,"
            " class => $13::text",
            "action, version")
        context = None if execution_context is None else dump(execution_context)
        return Statement(
            text,
            (key, dump(state), checkpoint_type, agent_phase, recovery_point, context, expected_version, ttl,
             self.on_invalid, label, parent_version, payload, self.class_),
            _saved)

    def list_versions(
        self,
        key: str | None = None,
        *,
        prefix: str | None = None,
        before: int | None = None,
        before_label: str | None = None,
        label: str | None = None,
        filter: Json = None,
        limit: int = 100,
        states: bool = True,
    ) -> Statement[list[Listed]]:
        """Kept versions of a state, or of those with a prefix, newest first."""
        text = self._call(
            "state_list",
            "$1::text, $2::text, $3::bigint, $4::text, $5::text, $6::text::jsonb, $7::integer, $8::boolean,"
            " class => $9::text",
            "key, version, parent_version, label, execution_context::text, state::text, payload, created_at")
        context = None if filter is None else dump(filter)
        return Statement(
            text, (key, prefix, before, before_label, label, context, limit, states, self.class_), lambda rows: [
                Listed(row[0], row[1], row[2], row[3], load(row[4]), load(row[5]), row[6], row[7]) for row in rows
            ], binary=True)

    def keys(self, prefix: str = "", *, after: str | None = None, limit: int = 10_000) -> Statement[list[Key]]:
        """The states that are there whose keys begin so, in the order of their keys."""
        text = self._call(
            "state_keys", "$1::text, $2::text, $3::integer, class => $4::text", "key, version, updated_at")
        return Statement(
            text, (prefix, after, limit, self.class_), lambda rows: [Key(row[0], row[1], row[2]) for row in rows])

    def purge(
        self,
        keys: Iterable[str] | None = None,
        *,
        prefix: str | None = None,
        versions: Iterable[int] | None = None,
        keep: int | None = None,
    ) -> Statement[int]:
        """Erases states for good, or versions of states; of how many states something was erased."""
        text = self._call(
            "state_purge", "$1::text[], $2::text, $3::bigint[], $4::integer, class => $5::text")
        named = None if keys is None else [*keys]
        numbers = None if versions is None else [*versions]
        return Statement(text, (named, prefix, numbers, keep, self.class_), _first)

    def copy(self, from_prefix: str, to_prefix: str) -> Statement[int]:
        """Copies the states whose keys begin with a prefix, with history and logs, under another one; how many."""
        text = self._call("state_copy", "$1::text, $2::text, class => $3::text")
        return Statement(text, (from_prefix, to_prefix, self.class_), _first)

    def history(self, key: str) -> Statement[list[Version]]:
        """The kept versions, newest first."""
        text = self._call(
            "state_history", "$1::text, class => $2::text",
            "version, parent_version, checkpoint_type, agent_phase, recovery_point, execution_context::text,"
            " encoding, bytes_stored, bytes, created_at")
        return Statement(
            text, (key, self.class_), lambda rows: [
                Version(row[0], row[1], row[2], row[3], row[4], load(row[5]), row[6], row[7], row[8], row[9])
                for row in rows])

    def at(self, key: str, version: int) -> Statement[Json]:
        """The document as a kept version holds it; None if that version is not kept."""
        text = self._call("state_at", "$1::text, $2::bigint, class => $3::text") + "::text"
        return Statement(text, (key, version, self.class_), _document)

    def diff(self, key: str, from_version: int, to_version: int) -> Statement[list[Json]]:
        """A JSON Patch (RFC 6902) that makes the second version from the first."""
        text = self._call("state_diff", "$1::text, $2::bigint, $3::bigint, class => $4::text") + "::text"
        return Statement(text, (key, from_version, to_version, self.class_), _document)

    def restore(self, key: str, version: int, expected_version: int | None = None) -> Statement[int]:
        """Makes a new version with the content of a kept one; the new version."""
        text = self._call("state_restore", "$1::text, $2::bigint, $3::bigint, class => $4::text")
        return Statement(text, (key, version, expected_version, self.class_), _first)

    def changes(self, since: str | None) -> Statement[tuple[list[Change], str]]:
        """What changed since a cursor, and the next cursor."""

        def read(rows: Sequence[Row]) -> tuple[list[Change], str]:
            return [Change(*row[:4]) for row in rows if row[3] != "end"], rows[-1][4]

        return Statement(
            self._call("state_changes", "$1::text", "class, key, version, op, cursor"), (since,), read)

    def cursor(self) -> Statement[tuple[str | None, int | None, str]]:
        """Epoch and number of the last message, and a cursor that covers it."""
        return Statement(
            self._call("state_cursor", "", "epoch, seq, cursor"), (),
            lambda rows: (rows[0][0], rows[0][1], rows[0][2]))

    def channels(self) -> Statement[list[str]]:
        """All channels that tell of changes."""
        text = (
            f"SELECT DISTINCT channel FROM {self._prefix}state_class"
            " UNION SELECT 'cache_invalidate' UNION SELECT 'state_updated'")
        return Statement(text, (), lambda rows: sorted(row[0] for row in rows if row[0]))


async def run_asyncpg(connection: Any, statement: Statement[T]) -> T:
    """Runs a statement on a connection or pool of asyncpg."""
    return statement.read(await connection.fetch(statement.text, *statement.arguments))


def for_sqlalchemy(statement: Statement[Any]) -> tuple[str, dict[str, Any]]:
    """Text and parameters for `sqlalchemy.text`."""
    # A `::` of a cast must not begin a parameter: SQLAlchemy itself leaves those alone.
    text = re.sub(r"\$(\d+)::(\w+(?:\[\])?)", r"CAST(:p\1 AS \2)", statement.text)
    return text, {f"p{place}": value for place, value in enumerate(statement.arguments, 1)}


def run_sqlalchemy(connection: Any, statement: Statement[T]) -> T:
    """Runs a statement on a connection or session of SQLAlchemy."""
    from sqlalchemy import text

    words, parameters = for_sqlalchemy(statement)
    return statement.read(connection.execute(text(words), parameters).fetchall())


async def run_sqlalchemy_async(connection: Any, statement: Statement[T]) -> T:
    """Runs a statement on an asynchronous connection or session of SQLAlchemy."""
    from sqlalchemy import text

    words, parameters = for_sqlalchemy(statement)
    return statement.read((await connection.execute(text(words), parameters)).fetchall())

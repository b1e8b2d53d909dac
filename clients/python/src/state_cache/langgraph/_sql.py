"""All SQL of the saver. Nothing else in this package knows which functions and tables there are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..sql import Row, Statement, quoted
from ._codec import KEY_BYTES, SEPARATOR, part

CHECKPOINTS = "langgraph"
WRITES = "langgraph_writes"


@dataclass(frozen=True)
class Stored:
    """A checkpoint as the server gives it."""

    key: str
    version: int
    context: str
    document: str
    writes: str | None


def _stored(rows: Sequence[Row]) -> list[Stored]:
    return [Stored(*row) for row in rows]


def _nothing(rows: Sequence[Row]) -> None:
    return None


def writes_key(key: str, checkpoint_id: str) -> str:
    """The key of the writes that belong to a checkpoint. It begins as the checkpoint's own key does."""
    thread, namespace = key.split(SEPARATOR, 1)
    start = thread + SEPARATOR
    return start + part(namespace + SEPARATOR + checkpoint_id, KEY_BYTES - len(start.encode()))


class SaverCalls:
    """The statements of one schema."""

    def __init__(self, schema: str | None = None) -> None:
        self.schema = schema
        self.p = "" if schema is None else quoted(schema) + "."

    def setup(self, keep_for: str | None) -> list[Statement[None]]:
        """Defines the classes, where they are not what they should be already."""
        wanted = [
            (CHECKPOINTS, f"keep => 0, keep_for => '{keep_for or '0'}'::interval, dedup => false"),
            (WRITES, "keep => 1, dedup => false, notify => 'off'"),
        ]
        return [
            Statement(
                f"SELECT {self.p}state_class_define('{name}', {how})::text WHERE NOT EXISTS"
                f" (SELECT FROM {self.p}state_class WHERE class = '{name}')",
                (), _nothing)
            for name, how in wanted
        ]

    def put(self, key: str, checkpoint_id: str, document: str, context: str) -> Statement[None]:
        """Stores a checkpoint."""
        return Statement(
            f"SELECT version FROM {self.p}state_save_text($1::text, $2::text,"
            f" execution_context => $3::text::jsonb, class => '{CHECKPOINTS}')",
            (key, document, context), _nothing)

    def put_writes(self, key: str, checkpoint_id: str, writes: str, replace: bool) -> Statement[None]:
        """Stores writes of a task, an object of them by task and place. Those there stay, unless replaced."""
        target = writes_key(key, checkpoint_id)
        new = "$2::text::jsonb"
        if not replace:
            new = (
                f"coalesce((SELECT jsonb_object_agg(n.key, n.value) FROM jsonb_each({new}) n"
                f" WHERE NOT coalesce({self.p}state_get($1::text, class => '{WRITES}') ? n.key, false)), '{{}}')")
        return Statement(
            f"SELECT {self.p}state_update($1::text, {new}, class => '{WRITES}')::text", (target, writes),
            _nothing)

    def latest(self, key: str) -> Statement[list[tuple[int, str, str]]]:
        """Version, context and document of the newest checkpoint of a key."""
        return Statement(
            "SELECT g.version, s.execution_context::text, g.state::text"
            f" FROM {self.p}state_get_many(ARRAY[$1::text], class => '{CHECKPOINTS}') g"
            f" JOIN {self.p}state_snapshot s ON s.class = '{CHECKPOINTS}' AND s.key = g.key"
            " AND s.version = g.version",
            (key,), lambda rows: [(row[0], row[1], row[2]) for row in rows])

    def one(self, key: str, checkpoint_id: str) -> Statement[list[tuple[int, str, str]]]:
        """The same of a checkpoint by its id."""
        return Statement(
            f"SELECT k.version, k.execution_context::text, {self.p}state_at(k.key, k.version, '{CHECKPOINTS}')::text"
            f" FROM {self.p}state_snapshot k WHERE k.class = '{CHECKPOINTS}' AND k.key = $1::text"
            " AND k.execution_context->>'checkpoint_id' = $2::text ORDER BY k.version DESC LIMIT 1",
            (key, checkpoint_id), lambda rows: [(row[0], row[1], row[2]) for row in rows])

    def writes(self, keys: Iterable[tuple[str, str]]) -> Statement[dict[str, str]]:
        """Writes of checkpoints, by `writes_key`."""
        return Statement(
            f"SELECT key, state::text FROM {self.p}state_get_many($1::text[], class => '{WRITES}')",
            ([writes_key(key, checkpoint_id) for key, checkpoint_id in keys],),
            lambda rows: {row[0]: row[1] for row in rows})

    def listed(
        self, start: str, end: str, filter: str | None, before: str | None, checkpoint_id: str | None,
        limit: int | None,
    ) -> Statement[list[tuple[str, int, str, str]]]:
        """Checkpoints of the keys from `start` on and below `end`, newest first: key, version, context, document."""
        return Statement(
            "SELECT k.key, k.version, k.execution_context::text,"
            f" {self.p}state_at(k.key, k.version, '{CHECKPOINTS}')::text FROM"
            " (SELECT DISTINCT ON (execution_context->>'checkpoint_id', key) key, version, execution_context"
            f" FROM {self.p}state_snapshot"
            f" WHERE class = '{CHECKPOINTS}' AND key >= $1::text AND ($2::text = '' OR key < $2::text)"
            " AND ($3::text IS NULL OR execution_context @> $3::text::jsonb)"
            " AND ($4::text IS NULL OR execution_context->>'checkpoint_id' < $4::text COLLATE \"C\")"
            " AND ($5::text IS NULL OR execution_context->>'checkpoint_id' = $5::text)"
            " ORDER BY execution_context->>'checkpoint_id' DESC, key, version DESC LIMIT $6::bigint) k"
            " ORDER BY k.execution_context->>'checkpoint_id' COLLATE \"C\" DESC, k.key",
            (start, end, filter, before, checkpoint_id, limit),
            lambda rows: [(row[0], row[1], row[2], row[3]) for row in rows])

    def delete(self, start: str, end: str) -> list[Statement[None]]:
        """Erases the states of the keys from `start` on and below `end`, with their writes; in one transaction."""
        made: list[Statement[None]] = [
            Statement(
                f"SELECT {self.p}state_delete(key, class => class) FROM {self.p}state_head"
                f" WHERE class IN ('{CHECKPOINTS}', '{WRITES}') AND NOT deleted"
                " AND key >= $1::text AND key < $2::text",
                (start, end), _nothing),
            Statement(f"SELECT action FROM {self.p}state_batch_commit()", (), _nothing),
            Statement(
                f"WITH gone AS (DELETE FROM {self.p}state_snapshot WHERE class IN ('{CHECKPOINTS}', '{WRITES}')"
                " AND key >= $1::text AND key < $2::text RETURNING 1) SELECT count(*) FROM gone",
                (start, end), _nothing),
        ]
        return made

    def copy(self, start: str, end: str, target: str) -> list[Statement[None]]:
        """Copies the states of the keys from `start` on and below `end` under another start."""
        made: list[Statement[None]] = [
            Statement(
                f"SELECT (SELECT version FROM {self.p}state_save($3::text || substr(k.key, length($1::text) + 1),"
                f" {self.p}state_at(k.key, k.version, '{CHECKPOINTS}'), execution_context => k.execution_context,"
                f" class => '{CHECKPOINTS}')) FROM (SELECT * FROM {self.p}state_snapshot"
                f" WHERE class = '{CHECKPOINTS}' AND key >= $1::text AND key < $2::text ORDER BY key, version) k",
                (start, end, target), _nothing),
            Statement(
                f"SELECT {self.p}state_set($3::text || substr(k.key, length($1::text) + 1), k.state,"
                f" class => '{WRITES}')::text FROM {self.p}state_head k WHERE k.class = '{WRITES}' AND NOT k.deleted"
                " AND k.key >= $1::text AND k.key < $2::text",
                (start, end, target), _nothing),
        ]
        return made


Rows = Any

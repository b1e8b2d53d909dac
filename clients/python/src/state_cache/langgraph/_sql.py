"""All SQL of the saver. Nothing else in this package knows which functions and tables there are.

A thread in a namespace is a state; a checkpoint a version of it. What tasks have written since a checkpoint is in
the log beside the state, under a name made of the checkpoint's id: an entry per call of `put_writes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..sql import Row, Statement, quoted

CHECKPOINTS = "langgraph"

_REF = "encode(substring(sha256(convert_to(l.label, 'UTF8')) FROM 1 FOR 9), 'base64')"
"""`ref_of` the id of a checkpoint. 0.1.0 took the id itself."""


@dataclass(frozen=True)
class Stored:
    """A checkpoint as the server gives it, with the log entries that belong to it in their order."""

    key: str
    version: int
    checkpoint_id: str
    context: str
    document: str
    entries: list[bytes]


def _stored(rows: Sequence[Row]) -> list[Stored]:
    return [
        Stored(row[0], row[1], row[2], row[3], row[4], list(row[5] or ())) for row in rows
    ]


def _nothing(rows: Sequence[Row]) -> None:
    return None


class SaverCalls:
    """The statements of one schema."""

    def __init__(self, schema: str | None = None) -> None:
        self.schema = schema
        self.p = "" if schema is None else quoted(schema) + "."

    def setup(self, keep_for: str | None) -> Statement[None]:
        """Defines the class, where it is not there already."""
        return Statement(
            f"SELECT {self.p}state_class_define('{CHECKPOINTS}', keep => 0, keep_for => $1::text::interval,"
            f" dedup => false, notify => 'off')::text WHERE NOT EXISTS"
            f" (SELECT FROM {self.p}state_class WHERE class = '{CHECKPOINTS}')",
            (keep_for or "0",), _nothing)

    def put(self, key: str, checkpoint_id: str, document: str, context: str) -> Statement[None]:
        """Stores a checkpoint."""
        return Statement(
            f"SELECT version FROM {self.p}state_save_text($1::text, $2::text,"
            f" execution_context => $3::text::jsonb, class => '{CHECKPOINTS}')",
            (key, document, context), _nothing)

    def put_writes(
        self, key: str, ref: str, ids: list[str], payloads: list[bytes], replace: bool
    ) -> Statement[None]:
        """Appends entries to the log. Those that are there stay, unless replaced."""
        return Statement(
            f"SELECT {self.p}state_log_append($1::text, NULL, $2::text, $3::text[],"
            f" replace => $4::boolean, payloads => $5::bytea[], class => '{CHECKPOINTS}')",
            (key, ref, ids, replace, payloads), _nothing)

    def _with_writes(self, source: str, order: str) -> str:
        def entries(ref: str) -> str:
            return (
                f"SELECT g.number, g.payload FROM {self.p}state_log_entry g"
                f" WHERE g.class = '{CHECKPOINTS}' AND g.key = l.key AND g.ref = {ref}")

        # By one name after the other: each is looked up in the index.
        return (
            "SELECT l.key, l.version, l.label, l.context, l.state, w.payloads"
            f" FROM ({source}) l LEFT JOIN LATERAL (SELECT array_agg(e.payload ORDER BY e.number) AS payloads"
            f" FROM ({entries(_REF)} UNION ALL {entries('l.label')}) e) w ON true {order}")

    _COLUMNS = (
        "k.key, k.version, k.execution_context->>'checkpoint_id' AS label, k.execution_context::text AS context")

    def latest(self, key: str) -> Statement[list[Stored]]:
        """The newest checkpoint of a key."""
        # Both functions read under the snapshot of the statement. The version decides which row is read: a join
        # would read all versions.
        source = (
            "SELECT h.key, h.version, h.context->>'checkpoint_id' AS label, h.context::text AS context, h.state"
            f" FROM (SELECT g.key, g.version, {self.p}state_get_text(g.key, '{CHECKPOINTS}') AS state, (SELECT"
            f" k.execution_context FROM {self.p}state_snapshot k WHERE k.class = '{CHECKPOINTS}' AND k.key = g.key"
            " AND k.version = g.version) AS context"
            f" FROM (SELECT $1::text AS key, {self.p}state_version($1::text, '{CHECKPOINTS}') AS version OFFSET 0) g"
            " WHERE g.version IS NOT NULL OFFSET 0) h WHERE h.state IS NOT NULL")
        return Statement(self._with_writes(source, ""), (key,), _stored, binary=True)

    def one(self, key: str, checkpoint_id: str) -> Statement[list[Stored]]:
        """A checkpoint by its id."""
        source = (
            f"SELECT {self._COLUMNS}, {self.p}state_at(k.key, k.version, '{CHECKPOINTS}')::text AS state"
            f" FROM {self.p}state_snapshot k WHERE k.class = '{CHECKPOINTS}' AND k.key = $1::text"
            " AND k.execution_context->>'checkpoint_id' = $2::text ORDER BY k.version DESC LIMIT 1")
        return Statement(self._with_writes(source, ""), (key, checkpoint_id), _stored, binary=True)

    def listed(
        self, start: str, end: str, filter: str | None, before: str | None, checkpoint_id: str | None,
        limit: int | None, at_most: str | None = None,
    ) -> Statement[list[Stored]]:
        """Checkpoints of the keys from `start` on and below `end`, newest first."""
        label = "execution_context->>'checkpoint_id' COLLATE \"C\""
        chosen = (
            f"SELECT DISTINCT ON ({label}, key) key, version, {label} AS label, execution_context AS context"
            f" FROM {self.p}state_snapshot"
            f" WHERE class = '{CHECKPOINTS}' AND key >= $1::text AND ($2::text = '' OR key < $2::text)"
            f" AND ($4::text IS NULL OR {label} < $4::text)"
            " AND ($5::text IS NULL OR execution_context->>'checkpoint_id' = $5::text)"
            f" AND ($7::text IS NULL OR {label} <= $7::text) ORDER BY {label} DESC, key, version DESC")
        # In their order, so that no document is read behind the last one that is wanted.
        read = (
            f"SELECT k.*, {self.p}state_at(k.key, k.version, '{CHECKPOINTS}') AS state FROM ({chosen}) k"
            " ORDER BY k.label DESC, k.key OFFSET 0")
        source = (
            f"SELECT d.key, d.version, d.label, d.context::text AS context, d.state::text AS state FROM ({read}) d"
            " WHERE ($3::text IS NULL OR d.context @> $3::text::jsonb OR d.state->'metadata' @> $3::text::jsonb)"
            " ORDER BY d.label DESC, d.key LIMIT $6::bigint")
        return Statement(
            self._with_writes(source, "ORDER BY l.label COLLATE \"C\" DESC, l.key"),
            (start, end, filter, before, checkpoint_id, limit, at_most), _stored, binary=True)

    def versions(self, start: str, end: str) -> Statement[list[Stored]]:
        """All that is kept of the keys from `start` on and below `end`, oldest first, also what was stored again."""
        return Statement(
            f"SELECT {self._COLUMNS}, {self.p}state_at(k.key, k.version, '{CHECKPOINTS}')::text AS state, NULL"
            f" FROM {self.p}state_snapshot k WHERE k.class = '{CHECKPOINTS}' AND k.key >= $1::text"
            " AND k.key < $2::text ORDER BY k.key, k.version", (start, end), _stored)

    def keys(self, start: str) -> Statement[list[str]]:
        """The keys that begin so and have checkpoints."""
        return Statement(
            f"SELECT key FROM {self.p}state_keys($1::text, class => '{CHECKPOINTS}')",
            (start,), lambda rows: [r[0] for r in rows])

    def keys_of_runs(self, runs: list[str]) -> Statement[list[str]]:
        """The keys with checkpoints that these runs have made."""
        return Statement(
            f"SELECT DISTINCT key FROM {self.p}state_snapshot WHERE class = '{CHECKPOINTS}'"
            " AND execution_context->>'run_id' = ANY ($1::text[])", (runs,), lambda rows: [r[0] for r in rows])

    def erase(self, start: str) -> Statement[None]:
        """Erases the states whose keys begin so, with all versions and what tasks have written."""
        return Statement(
            f"SELECT {self.p}state_purge(prefix => $1::text, class => '{CHECKPOINTS}')", (start,), _nothing)

    def erase_versions(self, key: str, versions: list[int]) -> Statement[None]:
        """Erases versions of a state. What is stored as the difference from them is stored anew."""
        return Statement(
            f"SELECT {self.p}state_purge(ARRAY[$1::text], versions => $2::bigint[], class => '{CHECKPOINTS}')",
            (key, versions), _nothing)

    def erase_writes(self, key: str, refs: list[str]) -> Statement[None]:
        """Erases what tasks have written since checkpoints of a state."""
        return Statement(
            f"SELECT {self.p}state_log_erase($1::text, $2::text[], '{CHECKPOINTS}')", (key, refs), _nothing)

    def copy(self, start: str, target: str) -> Statement[None]:
        """Copies the states whose keys begin with `start` under another start, with all that belongs to them."""
        return Statement(
            f"SELECT {self.p}state_copy($1::text, $2::text, '{CHECKPOINTS}')", (start, target), _nothing)

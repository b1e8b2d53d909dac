"""Checkpoints of Microsoft's Agent Framework on state_cache.

    from state_cache import AsyncStateCache
    from state_cache.agent_framework import StateCacheCheckpointStorage

    async with AsyncStateCache("dbname=app") as client:
        storage = StateCacheCheckpointStorage(client)
        await storage.setup()    # once, as the owner of the extension
        workflow = WorkflowBuilder(start_executor=first, checkpoint_storage=storage).build()

The checkpoints of a run of a workflow are the versions of one state, each stored as the difference to the one before.
The log under the empty key says which version a checkpoint's id names: what is not there is no checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from agent_framework import WorkflowCheckpoint
from agent_framework._workflows._checkpoint_encoding import decode_checkpoint_value, encode_checkpoint_value
from agent_framework.exceptions import WorkflowCheckpointException

from ._async import AsyncStateCache
from ._json import KEY_BYTES, SEPARATOR, dumps, from_pairs, pairs, part
from .sql import Row, Statement

CLASS = "agent_framework"
_IDS = "ids"
"""Key of the log that names versions. Keys of runs hold a separator."""


def _document(checkpoint: WorkflowCheckpoint, allowed: frozenset[str]) -> str:
    encoded = encode_checkpoint_value(checkpoint.to_dict())
    # What could not be read again is refused now, as FileCheckpointStorage does.
    decode_checkpoint_value(encoded, allowed_types=allowed)
    state = encoded.pop("state")
    # The framework says nothing of dictionaries' order, but messages are delivered in it: it is kept.
    return dumps({"v": 1, "checkpoint": pairs(encoded), "state": pairs(state)})


class StateCacheCheckpointStorage:
    """A `CheckpointStorage` in PostgreSQL with state_cache.

    `allowed_checkpoint_types`: as for the framework's `FileCheckpointStorage`, which types may be read beside plain
    ones and the framework's own: `"module:qualname"`.
    """

    def __init__(self, client: AsyncStateCache, *, allowed_checkpoint_types: Iterable[str] = ()) -> None:
        self._client = client
        self._prefix = client.calls._prefix
        self._allowed = frozenset(allowed_checkpoint_types)

    async def setup(self, *, keep_for: str | None = None) -> None:
        """Defines the class of checkpoints, once; for a role that may define classes.

        `keep_for`: how long a checkpoint is kept that is not the newest of its run, '30 days' say; all are otherwise.
        """
        await self._client.run(Statement(
            f"SELECT {self._prefix}state_class_define('{CLASS}', keep => 0, keep_for => $1::text::interval,"
            f" dedup => false)::text WHERE NOT EXISTS"
            f" (SELECT FROM {self._prefix}state_class WHERE class = '{CLASS}')",
            (keep_for or "0",), lambda rows: None))

    async def save(self, checkpoint: WorkflowCheckpoint) -> str:
        """Stores a checkpoint behind the one before of its run; the checkpoint's id."""
        start = part(checkpoint.workflow_name, 160) + SEPARATOR
        context = dumps({
            "checkpoint_id": part(checkpoint.checkpoint_id, KEY_BYTES), "timestamp": checkpoint.timestamp,
            "iteration_count": checkpoint.iteration_count})
        previous = checkpoint.previous_checkpoint_id
        # The run's state is the one of the checkpoint before; the first of a run begins one.
        await self._client.run(Statement(
            f"SELECT {self._prefix}state_log_append('{_IDS}',"
            " jsonb_build_array(jsonb_build_object('key', k.key, 'version', s.version)), $5::text, ARRAY['at'],"
            f" replace => true, class => '{CLASS}') FROM (SELECT coalesce((SELECT e.entry->>'key'"
            f" FROM {self._prefix}state_log_entry e WHERE e.class = '{CLASS}' AND e.key = '{_IDS}'"
            " AND e.ref = $1::text AND starts_with(e.entry->>'key', $6::text)), $2::text) AS key OFFSET 0) k,"
            f" LATERAL {self._prefix}state_save_text(k.key, $3::text, execution_context => $4::text::jsonb,"
            f" class => '{CLASS}') s",
            (None if previous is None else part(previous, KEY_BYTES),
             start + part(checkpoint.checkpoint_id, KEY_BYTES - len(start.encode())),
             _document(checkpoint, self._allowed), context, part(checkpoint.checkpoint_id, KEY_BYTES), start),
            lambda rows: None))
        stored: str = checkpoint.checkpoint_id
        return stored

    def _checkpoint(self, text: str) -> WorkflowCheckpoint:
        read = json.loads(text)
        encoded = {**from_pairs(read["checkpoint"]), "state": from_pairs(read["state"])}
        return WorkflowCheckpoint.from_dict(decode_checkpoint_value(encoded, allowed_types=self._allowed))

    async def load(self, checkpoint_id: str) -> WorkflowCheckpoint:
        """The checkpoint of this id; `WorkflowCheckpointException` if there is none."""
        found = await self._client.run(Statement(
            f"SELECT {self._prefix}state_at(entry->>'key', (entry->>'version')::bigint, '{CLASS}')::text"
            f" FROM {self._prefix}state_log_entry WHERE class = '{CLASS}' AND key = '{_IDS}' AND ref = $1::text",
            (part(checkpoint_id, KEY_BYTES),), lambda rows: rows[0][0] if rows else None))
        if found is None:
            raise WorkflowCheckpointException(f"No checkpoint found with ID {checkpoint_id}")
        return self._checkpoint(found)

    async def _of_workflow(self, workflow_name: str, columns: str, order: str) -> list[Any]:
        start = part(workflow_name, 160) + SEPARATOR

        def read(rows: Sequence[Row]) -> list[Any]:
            return [row[0] for row in rows]

        return await self._client.run(Statement(
            f"SELECT {columns} FROM {self._prefix}state_snapshot k JOIN {self._prefix}state_log_entry e"
            f" ON e.class = '{CLASS}' AND e.key = '{_IDS}' AND e.ref = k.execution_context->>'checkpoint_id'"
            " AND e.entry->>'key' = k.key AND (e.entry->>'version')::bigint = k.version"
            f" WHERE k.class = '{CLASS}' AND k.key >= $1::text AND k.key < $2::text ORDER BY {order}",
            (start, start[:-1] + chr(ord(SEPARATOR) + 1)), read))

    async def list_checkpoints(self, *, workflow_name: str) -> list[WorkflowCheckpoint]:
        """The checkpoints of a workflow, in the order in which they were stored."""
        found = await self._of_workflow(
            workflow_name, f"{self._prefix}state_at(k.key, k.version, '{CLASS}')::text", "e.number")
        return [self._checkpoint(text) for text in found]

    async def list_checkpoint_ids(self, *, workflow_name: str) -> list[str]:
        """Their ids."""
        return [checkpoint.checkpoint_id for checkpoint in await self.list_checkpoints(workflow_name=workflow_name)]

    async def get_latest(self, *, workflow_name: str) -> WorkflowCheckpoint | None:
        """The checkpoint of a workflow with the latest timestamp; None if there is none."""
        found = await self._of_workflow(
            workflow_name, f"{self._prefix}state_at(k.key, k.version, '{CLASS}')::text",
            "(k.execution_context->>'timestamp')::timestamptz DESC, e.number LIMIT 1")
        return self._checkpoint(found[0]) if found else None

    async def delete(self, checkpoint_id: str) -> bool:
        """Deletes a checkpoint; whether there was one. With the last one of a run its state is erased."""
        name = part(checkpoint_id, KEY_BYTES)

        async def work(transaction: Any) -> bool:
            key = await transaction.run(Statement(
                f"DELETE FROM {self._prefix}state_log_entry WHERE class = '{CLASS}' AND key = '{_IDS}'"
                " AND ref = $1::text RETURNING entry->>'key'", (name,), lambda rows: rows[0][0] if rows else None))
            if key is None:
                return False
            # Versions are differences to those before: they go when no checkpoint of the run is left.
            await transaction.run(Statement(
                f"SELECT {self._prefix}state_delete($1::text, class => '{CLASS}') WHERE NOT EXISTS"
                f" (SELECT FROM {self._prefix}state_snapshot k JOIN {self._prefix}state_log_entry e"
                f" ON e.class = '{CLASS}' AND e.key = '{_IDS}' AND e.ref = k.execution_context->>'checkpoint_id'"
                f" WHERE k.class = '{CLASS}' AND k.key = $1::text)", (key,), lambda rows: None))
            return True

        return await self._client.transaction(work)

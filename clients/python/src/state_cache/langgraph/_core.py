"""What the savers do, as generators that yield statements and are sent their results.

A saver for threads and one for asyncio run the same generators. Each statement is one round trip, complete in itself,
so as many calls run beside one another as the pool has connections, and nothing is locked in the process.

Order of a checkpoint and its writes: readers find writes only through their checkpoint. Whoever stores writes of a
checkpoint before the checkpoint itself is stored, as LangGraph does in the background, shows them to nobody until
the checkpoint is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    PendingWrite,
    get_checkpoint_id,
    get_serializable_checkpoint_metadata,
)

from ._codec import Codec, dumps, fitting, key_of, names_of, thread_range
from ._drive import Steps
from ._sql import SaverCalls, writes_key


def _names(config: RunnableConfig) -> tuple[str, str]:
    configurable = config["configurable"]
    return str(configurable["thread_id"]), configurable.get("checkpoint_ns") or ""


def _config(thread: str, namespace: str, checkpoint_id: str) -> RunnableConfig:
    return {
        "configurable": {"thread_id": thread, "checkpoint_ns": namespace, "checkpoint_id": checkpoint_id}
    }


class Core(BaseCheckpointSaver[Any]):
    """What both savers share."""

    def __init__(self, *, serde: Any = None, schema: str | None = None) -> None:
        super().__init__(serde=serde)
        self.calls = SaverCalls(schema)

    @property
    def codec(self) -> Codec:
        """Documents under the serializer; LangGraph may exchange that in a copy of the saver."""
        return Codec(self.serde)

    def get_next_version(self, current: Any, channel: Any = None) -> Any:
        """Numbers; in a thread that another saver began, versions in the way of that one."""
        if isinstance(current, str):
            # As langgraph-checkpoint-postgres spells them.
            return f"{int(current.split('.')[0]) + 1:032}.{0:016}"
        return 1 if current is None else int(current) + 1

    # The steps of each operation.

    def _put_steps(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata, versions: ChannelVersions
    ) -> Steps[RunnableConfig]:
        thread, namespace = _names(config)
        key = key_of(thread, namespace)
        document, context = self.codec.document(
            key, thread, namespace, checkpoint, config["configurable"].get("checkpoint_id") or None,
            get_serializable_checkpoint_metadata(config, metadata))
        yield self.calls.put(key, checkpoint["id"], document, context)
        return _config(thread, namespace, checkpoint["id"])

    def _put_writes_steps(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> Steps[None]:
        if not writes:
            return
        codec = self.codec
        key = key_of(*_names(config))
        stored = {}
        for place, (channel, value) in enumerate(writes):
            index = WRITES_IDX_MAP.get(channel, place)
            stored[dumps([task_id, index])] = [fitting(task_path), fitting(channel), *codec.encode(value)]
        replace = all(channel in WRITES_IDX_MAP for channel, _ in writes)
        yield self.calls.put_writes(key, config["configurable"]["checkpoint_id"], dumps(stored), replace)

    def _pending(self, stored: str | None) -> list[PendingWrite]:
        if stored is None:
            return []
        codec = self.codec
        found = [(entry[0], *json.loads(place), entry[1], entry[2:]) for place, entry in json.loads(stored).items()]
        found.sort(key=lambda write: write[:3])
        return [(task, channel, codec.decode(encoded)) for _, task, _, channel, encoded in found]

    def _tuple(self, key: str, context: str, document: str, writes: str | None) -> CheckpointTuple:
        codec = self.codec
        read, its_context = json.loads(document), json.loads(context)
        thread, namespace = names_of(key, read)
        checkpoint_id = its_context["checkpoint_id"]
        parent = read.get("parent")
        return CheckpointTuple(
            _config(thread, namespace, checkpoint_id),
            codec.checkpoint(read, checkpoint_id),
            codec.metadata(read, its_context),
            _config(thread, namespace, parent) if parent else None,
            self._pending(writes),
        )

    def _get_steps(self, config: RunnableConfig) -> Steps[CheckpointTuple | None]:
        key = key_of(*_names(config))
        checkpoint_id = get_checkpoint_id(config)
        rows = yield (self.calls.one(key, checkpoint_id) if checkpoint_id else self.calls.latest(key))
        if not rows:
            return None
        _, context, document = rows[0]
        checkpoint_id = json.loads(context)["checkpoint_id"]
        writes = yield self.calls.writes([(key, checkpoint_id)])
        return self._tuple(key, context, document, writes.get(writes_key(key, checkpoint_id)))

    def _list_steps(
        self, config: RunnableConfig | None, filter: Mapping[str, Any] | None, before: RunnableConfig | None,
        limit: int | None,
    ) -> Steps[list[CheckpointTuple]]:
        start = end = ""
        checkpoint_id = None
        if config is not None:
            thread = str(config["configurable"]["thread_id"])
            namespace = config["configurable"].get("checkpoint_ns")
            checkpoint_id = get_checkpoint_id(config)
            start, end = thread_range(thread)
            if namespace is not None:
                start = key_of(thread, namespace)
                end = start + "\x01"
        rows = yield self.calls.listed(
            start, end, dumps(fitting(filter)) if filter else None, get_checkpoint_id(before) if before else None,
            checkpoint_id, limit)
        if not rows:
            return []
        ids = [json.loads(context)["checkpoint_id"] for _, _, context, _ in rows]
        keys = [(row[0], checkpoint_id) for row, checkpoint_id in zip(rows, ids)]
        writes = yield self.calls.writes(keys)
        return [
            self._tuple(key, context, document, writes.get(writes_key(*place)))
            for (key, _, context, document), place in zip(rows, keys)
        ]

    def _delete_thread_steps(self, thread: str) -> Steps[None]:
        for statement in self.calls.delete(*thread_range(str(thread))):
            yield statement

    def _copy_thread_steps(self, source: str, target: str) -> Steps[None]:
        for statement in self.calls.copy(*thread_range(str(source)), thread_range(str(target))[0]):
            yield statement

    def _history_steps(
        self, config: RunnableConfig, channels: Sequence[str]
    ) -> Steps[Mapping[str, DeltaChannelHistory]]:
        writes: dict[str, list[PendingWrite]] = {channel: [] for channel in channels}
        seeds: dict[str, Any] = {}
        target = yield from self._get_steps(config)
        cursor = target.parent_config if target else None
        remaining = set(channels)
        while cursor is not None and remaining:
            found = yield from self._get_steps(cursor)
            if found is None:
                break
            for write in reversed(found.pending_writes or []):
                if write[1] in remaining:
                    writes[write[1]].append(write)
            for channel in list(remaining):
                if channel in found.checkpoint["channel_values"]:
                    seeds[channel] = found.checkpoint["channel_values"][channel]
                    remaining.discard(channel)
            cursor = found.parent_config
        made: dict[str, DeltaChannelHistory] = {}
        for channel in channels:
            made[channel] = {"writes": writes[channel][::-1]}
            if channel in seeds:
                made[channel]["seed"] = seeds[channel]
        return made

"""What the savers do, as generators that yield statements and are sent their results.

A saver for threads and one for asyncio run the same generators. Each statement is one round trip, complete in itself,
so as many calls run beside one another as the pool has connections, and nothing is locked in the process.

Order of a checkpoint and its writes: readers find writes only through their checkpoint. Whoever stores writes of a
checkpoint before the checkpoint itself is stored, as LangGraph does in the background, shows them to nobody until
the checkpoint is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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
    writes_sort_key,
)

from .._json import dumps, fitting
from ._codec import (
    Codec,
    Known,
    OtherDictionary,
    entry_id,
    key_of,
    key_range,
    names_of,
    pack,
    ref_of,
    thread_range,
    unpack,
    values_of,
)
from ._drive import Steps
from ._sql import SaverCalls, Stored

STRATEGIES = ("keep_latest", "delete")
REMEMBERED = 256
"""Checkpoints whose values a saver remembers, to pack the writes that follow."""


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
        # Of checkpoints last stored or read: what their channels hold, for the writes that follow.
        self.known: dict[tuple[str, str], Known] = {}

    def _remember(self, key: str, checkpoint_id: str, values: Known) -> None:
        known = self.known
        known.pop((key, checkpoint_id), None)
        known[key, checkpoint_id] = values
        while len(known) > REMEMBERED:
            # Another thread may be doing the same.
            known.pop(next(iter(list(known)), ("", "")), None)

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
        document, context, packed = self.codec.document(
            key, thread, namespace, checkpoint, config["configurable"].get("checkpoint_id") or None,
            get_serializable_checkpoint_metadata(config, metadata))
        yield self.calls.put(key, checkpoint["id"], document, context)
        self._remember(key, checkpoint["id"], packed)
        return _config(thread, namespace, checkpoint["id"])

    def _put_writes_steps(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> Steps[None]:
        if not writes:
            return
        key = key_of(*_names(config))
        again = all(channel in WRITES_IDX_MAP for channel, _ in writes)
        # Errors, interrupts and the like have a place each and take the place of the one before. Other writes are
        # an entry for the whole call: its id says how many they are, so that a longer call is another entry.
        calls = [[write] for write in writes] if again else [list(writes)]
        known = self.known.get((key, config["configurable"]["checkpoint_id"]), {})
        ids, payloads = [], []
        for call in calls:
            places = [WRITES_IDX_MAP.get(channel, place) for place, (channel, _) in enumerate(call)]
            ids.append(entry_id(task_id, places[0] if again else len(call)))
            told: list[Any] = [task_id, task_path]
            values = []
            for place, (channel, value) in zip(places, call):
                kind, data = self.serde.dumps_typed(value)
                told.append([place, channel, kind, len(data)])
                values.append(data)
            payloads.append(pack(told, b"".join(values), known, [channel for channel, _ in call]))
        ref = ref_of(config["configurable"]["checkpoint_id"])
        yield self.calls.put_writes(key, ref, ids, payloads, again)

    def _pending(self, stored: Stored, known: Known) -> list[PendingWrite]:
        found: dict[tuple[str, int], tuple[str, str, tuple[str, bytes]]] = {}
        for payload in stored.entries:
            (task, path, *told), data = unpack(payload, known)
            start = 0
            for place, channel, kind, size in told:
                # Of writes at the same place the first counts, as if each were a row of its own. Those that take the
                # place of others are there once; or twice, where 0.1.0 named the entry otherwise.
                if place < 0 or (task, place) not in found:
                    found[task, place] = (path, channel, (kind, data[start : start + size]))
                start += size
        serde = self.serde
        order = sorted(found, key=lambda it: writes_sort_key(found[it][0], *it))
        return [(it[0], found[it][1], serde.loads_typed(found[it][2])) for it in order]

    def _tuple_steps(self, stored: Stored) -> Steps[CheckpointTuple]:
        read = json.loads(stored.document)
        known = values_of(read)
        try:
            writes = self._pending(stored, known)
        except OtherDictionary:
            # The checkpoint was stored again since: what it was is kept as an older version.
            before = {}
            for row in (yield self.calls.versions(*key_range(stored.key))):
                if row.checkpoint_id == stored.checkpoint_id:
                    before[row.version] = values_of(json.loads(row.document))
            writes = self._pending_of_several(stored, list(before.values()))
        self._remember(stored.key, stored.checkpoint_id, known)
        return self._tuple(stored, read, writes)

    def _pending_of_several(self, stored: Stored, contents: Sequence[Known]) -> list[PendingWrite]:
        plain = []
        for payload in stored.entries:
            for known in contents:
                try:
                    told, data = unpack(payload, known)
                    plain.append(pack(told, data, {}, []))
                    break
                except OtherDictionary:
                    continue
            else:
                raise OtherDictionary(
                    f"a write since checkpoint {stored.checkpoint_id} cannot be read: the content of the checkpoint"
                    " at that time is gone")
        return self._pending(replace(stored, entries=plain), {})

    def _tuple(
        self, stored: Stored, read: Any, writes: list[PendingWrite]
    ) -> CheckpointTuple:
        codec = self.codec
        context = json.loads(stored.context)
        thread, namespace = names_of(stored.key, read)
        parent = read.get("parent")
        return CheckpointTuple(
            _config(thread, namespace, stored.checkpoint_id),
            codec.checkpoint(read, stored.checkpoint_id),
            codec.metadata(read, context),
            _config(thread, namespace, parent) if parent else None,
            writes,
        )

    def _get_steps(self, config: RunnableConfig) -> Steps[CheckpointTuple | None]:
        key = key_of(*_names(config))
        checkpoint_id = get_checkpoint_id(config)
        rows = yield (self.calls.one(key, checkpoint_id) if checkpoint_id else self.calls.latest(key))
        if not rows:
            return None
        return (yield from self._tuple_steps(rows[0]))

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
                start, end = key_range(key_of(thread, namespace))
        rows = yield self.calls.listed(
            start, end, dumps(fitting(filter)) if filter else None, get_checkpoint_id(before) if before else None,
            checkpoint_id, limit)
        found = []
        # The newest is remembered last.
        for row in rows[::-1]:
            found.append((yield from self._tuple_steps(row)))
        return found[::-1]

    def _delete_thread_steps(self, thread: str) -> Steps[None]:
        yield self.calls.erase(thread_range(str(thread))[0])

    def _copy_thread_steps(self, source: str, target: str) -> Steps[None]:
        yield self.calls.copy(thread_range(str(source))[0], thread_range(str(target))[0])

    def _keep_steps(self, key: str, kept: Callable[[list[Stored]], set[str]]) -> Steps[None]:
        """Erases the checkpoints of a key that are not to be kept, and what tasks have written since them.

        One that is stored meanwhile is not among those that are read here, and stays.
        """
        rows = yield self.calls.versions(*key_range(key))
        ids = kept(rows)
        gone = sorted({row.checkpoint_id for row in rows} - ids)
        if gone:
            yield self.calls.erase_versions(key, [row.version for row in rows if row.checkpoint_id not in ids])
            yield self.calls.erase_writes(key, [*gone, *map(ref_of, gone)])

    def _needed(self, rows: list[Stored]) -> set[str]:
        """The newest checkpoint, and those before from which its DeltaChannels are made."""
        by_id = {row.checkpoint_id: row for row in rows}
        newest: Stored | None = rows[-1] if rows else None
        kept: set[str] = set()
        if newest is None:
            return kept
        kept.add(newest.checkpoint_id)
        document = json.loads(newest.document)
        metadata = self.codec.metadata(document, json.loads(newest.context))
        left = {
            channel for channel in metadata.get("counters_since_delta_snapshot") or {}
            if channel not in document["values"] and channel not in document["bytes"]
        }
        while left:
            before = by_id.get(document.get("parent") or "")
            if before is None:
                break
            kept.add(before.checkpoint_id)
            document = json.loads(before.document)
            left -= {*document["values"], *document["bytes"]}
        return kept

    def _prune_steps(self, thread: str, strategy: str) -> Steps[None]:
        if strategy == "delete":
            yield from self._delete_thread_steps(thread)
            return
        keys = yield self.calls.keys(thread_range(str(thread))[0])
        for key in keys:
            yield from self._keep_steps(key, self._needed)

    def _delete_for_runs_steps(self, runs: list[str]) -> Steps[None]:
        def kept(rows: list[Stored]) -> set[str]:
            return {row.checkpoint_id for row in rows if json.loads(row.context).get("run_id") not in runs}

        keys = yield self.calls.keys_of_runs(runs)
        for key in sorted(keys):
            yield from self._keep_steps(key, kept)

    def _history_steps(
        self, config: RunnableConfig, channels: Sequence[str]
    ) -> Steps[Mapping[str, DeltaChannelHistory]]:
        writes: dict[str, list[PendingWrite]] = {channel: [] for channel in channels}
        seeds: dict[str, Any] = {}
        target = yield from self._get_steps(config)
        cursor = target.parent_config if target else None
        remaining = set(channels)
        read: dict[str, CheckpointTuple] = {}
        page = 16
        while target is not None and cursor is not None and remaining:
            wanted = cursor["configurable"]["checkpoint_id"]
            if wanted not in read:
                # Most parents are the checkpoint before: read a page of them at once, each time a longer one.
                start, end = key_range(key_of(*_names(cursor)))
                rows = yield self.calls.listed(start, end, None, None, None, page, at_most=wanted)
                page = min(page * 2, 256)
                read = {}
                for row in rows:
                    one = yield from self._tuple_steps(row)
                    read[row.checkpoint_id] = one
            found = read.get(wanted)
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

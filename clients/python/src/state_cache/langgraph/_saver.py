"""The saver for threads. `aio.py` is the one for asyncio."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from psycopg import Connection
from psycopg_pool import ConnectionPool

from ._core import STRATEGIES, Core
from ._drive import Steps, Threaded


class StateCacheSaver(Threaded, Core):
    """LangGraph checkpoints in PostgreSQL with state_cache, for `invoke` and `stream`.

    `conn`: a connection of psycopg with `autocommit=True`, or a pool of such. With a pool, as many calls run at once
    as it has connections. `schema`: the extension's, where that is not on `search_path`.
    """

    def __init__(
        self,
        conn: Connection[Any] | ConnectionPool[Any],
        pipe: Any = None,
        serde: SerializerProtocol | None = None,
        *,
        schema: str | None = None,
    ) -> None:
        if pipe is not None:
            raise ValueError("each call is one statement: there is nothing to send in a pipeline")
        Core.__init__(self, serde=serde, schema=schema)
        Threaded.__init__(self, conn)

    @classmethod
    @contextmanager
    def from_conn_string(
        cls,
        conn_string: str,
        *,
        pipeline: bool = False,
        serde: SerializerProtocol | None = None,
        schema: str | None = None,
        max_size: int = 10,
        **connection_options: Any,
    ) -> Iterator[StateCacheSaver]:
        """A saver with a pool of its own, which is closed at the end. `pipeline` is taken and means nothing."""
        options = {"autocommit": True, "prepare_threshold": 0, **connection_options}
        with ConnectionPool(conn_string, min_size=1, max_size=max_size, kwargs=options, open=True) as pool:
            yield cls(pool, serde=serde, schema=schema)

    def setup(self, *, keep_for: str | None = None) -> None:
        """Defines the class of checkpoints, once; for a role that may define classes.

        `keep_for`: how long a checkpoint is kept that is not the newest, '30 days' say; all are kept otherwise.
        """

        def steps() -> Steps[None]:
            yield self.calls.setup(keep_for)

        self._run(steps)

    def put(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Stores a checkpoint."""
        made: RunnableConfig = self._run(self._put_steps, config, checkpoint, metadata, new_versions)
        return made

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Stores what a task has written since a checkpoint."""
        self._run(self._put_writes_steps, config, writes, task_id, task_path)

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that the configuration names, or the newest of its thread."""
        made: CheckpointTuple | None = self._run(self._get_steps, config)
        return made

    def list(
        self, config: RunnableConfig | None, *, filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None, limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Checkpoints, newest first."""
        yield from self._run(self._list_steps, config, filter, before, limit)

    def delete_thread(self, thread_id: str) -> None:
        """Erases all checkpoints and writes of a thread, in all namespaces."""
        self._run(self._delete_thread_steps, thread_id, in_transaction=True)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copies all checkpoints and writes of a thread to another."""
        self._run(self._copy_thread_steps, source_thread_id, target_thread_id, in_transaction=True)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Erases all checkpoints of threads but the newest of each namespace, or with `delete` all of them.

        What DeltaChannels of the newest are made of is kept. One transaction for each thread.
        """
        if strategy not in STRATEGIES:
            raise ValueError(f"no such strategy: {strategy}; there are {STRATEGIES}")
        for thread in thread_ids:
            self._run(self._prune_steps, thread, strategy, in_transaction=True)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Erases the checkpoints that runs have made, in all threads."""
        if run_ids:
            self._run(self._delete_for_runs_steps, list(run_ids), in_transaction=True)

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """What channels that store only their changes are made of."""
        made: Mapping[str, DeltaChannelHistory] = self._run(self._history_steps, config, channels)
        return made

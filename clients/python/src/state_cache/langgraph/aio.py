"""The saver for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
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
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from ._core import STRATEGIES, Core
from ._drive import Steps, Tasked


class AsyncStateCacheSaver(Tasked, Core):
    """LangGraph checkpoints in PostgreSQL with state_cache, for `ainvoke` and `astream`.

    `conn`: a connection of psycopg with `autocommit=True`, or a pool of such. With a pool, as many calls run at once
    as it has connections; nothing in this process is locked. `schema`: the extension's, where that is not on
    `search_path`. Made where an event loop runs. The methods without `a` are for other threads than the loop's.
    """

    def __init__(
        self,
        conn: AsyncConnection[Any] | AsyncConnectionPool[Any],
        pipe: Any = None,
        serde: SerializerProtocol | None = None,
        *,
        schema: str | None = None,
    ) -> None:
        if pipe is not None:
            raise ValueError("each call is one statement: there is nothing to send in a pipeline")
        Core.__init__(self, serde=serde, schema=schema)
        Tasked.__init__(self, conn)

    @classmethod
    @asynccontextmanager
    async def from_conn_string(
        cls,
        conn_string: str,
        *,
        pipeline: bool = False,
        serde: SerializerProtocol | None = None,
        schema: str | None = None,
        max_size: int = 10,
        **connection_options: Any,
    ) -> AsyncIterator[AsyncStateCacheSaver]:
        """A saver with a pool of its own, which is closed at the end. `pipeline` is taken and means nothing."""
        options = {"autocommit": True, "prepare_threshold": 0, **connection_options}
        async with AsyncConnectionPool(
            conn_string, min_size=1, max_size=max_size, kwargs=options, open=False
        ) as pool:
            yield cls(pool, serde=serde, schema=schema)

    async def setup(self, *, keep_for: str | None = None) -> None:
        """Defines the class of checkpoints, once; for a role that may define classes.

        `keep_for`: how long a checkpoint is kept that is not the newest, '30 days' say; all are kept otherwise.
        """

        def steps() -> Steps[None]:
            yield self.calls.setup(keep_for)

        await self._run(steps)

    async def aput(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Stores a checkpoint."""
        made: RunnableConfig = await self._run(self._put_steps, config, checkpoint, metadata, new_versions)
        return made

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Stores what a task has written since a checkpoint."""
        await self._run(self._put_writes_steps, config, writes, task_id, task_path)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that the configuration names, or the newest of its thread."""
        made: CheckpointTuple | None = await self._run(self._get_steps, config)
        return made

    async def alist(
        self, config: RunnableConfig | None, *, filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None, limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Checkpoints, newest first."""
        for found in await self._run(self._list_steps, config, filter, before, limit):
            yield found

    async def adelete_thread(self, thread_id: str) -> None:
        """Erases all checkpoints and writes of a thread, in all namespaces."""
        await self._run(self._delete_thread_steps, thread_id, in_transaction=True)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copies all checkpoints and writes of a thread to another."""
        await self._run(self._copy_thread_steps, source_thread_id, target_thread_id, in_transaction=True)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Erases all checkpoints of threads but the newest of each namespace, or with `delete` all of them.

        What DeltaChannels of the newest are made of is kept. One transaction for each thread.
        """
        if strategy not in STRATEGIES:
            raise ValueError(f"no such strategy: {strategy}; there are {STRATEGIES}")
        for thread in thread_ids:
            await self._run(self._prune_steps, thread, strategy, in_transaction=True)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Erases the checkpoints that runs have made, in all threads."""
        if run_ids:
            await self._run(self._delete_for_runs_steps, list(run_ids), in_transaction=True)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """What channels that store only their changes are made of."""
        made: Mapping[str, DeltaChannelHistory] = await self._run(self._history_steps, config, channels)
        return made

    # For other threads than the loop's.

    def put(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """`aput` from another thread."""
        made: RunnableConfig = self._elsewhere(self.aput(config, checkpoint, metadata, new_versions))
        return made

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """`aput_writes` from another thread."""
        self._elsewhere(self.aput_writes(config, writes, task_id, task_path))

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """`aget_tuple` from another thread."""
        made: CheckpointTuple | None = self._elsewhere(self.aget_tuple(config))
        return made

    def list(
        self, config: RunnableConfig | None, *, filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None, limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """`alist` from another thread."""
        yield from self._elsewhere(self._run(self._list_steps, config, filter, before, limit))

    def delete_thread(self, thread_id: str) -> None:
        """`adelete_thread` from another thread."""
        self._elsewhere(self.adelete_thread(thread_id))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """`acopy_thread` from another thread."""
        self._elsewhere(self.acopy_thread(source_thread_id, target_thread_id))

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """`aget_delta_channel_history` from another thread."""
        made: Mapping[str, DeltaChannelHistory] = self._elsewhere(
            self.aget_delta_channel_history(config=config, channels=channels))
        return made

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """`aprune` from another thread."""
        self._elsewhere(self.aprune(thread_ids, strategy=strategy))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """`adelete_for_runs` from another thread."""
        self._elsewhere(self.adelete_for_runs(run_ids))

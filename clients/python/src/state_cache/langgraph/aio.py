"""The saver for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import psycopg
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

from .._async import run
from ._core import Core, Steps
from ._saver import ATTEMPTS

T = TypeVar("T")


class AsyncStateCacheSaver(Core):
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
        super().__init__(serde=serde, schema=schema)
        self.conn = conn
        self.loop = asyncio.get_running_loop()
        # Tasks share a single connection; a transaction on it is for one of them.
        self._alone = asyncio.Lock()

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

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection[Any]]:
        if isinstance(self.conn, AsyncConnectionPool):
            async with self.conn.connection() as connection:
                yield connection
        else:
            async with self._alone:
                yield self.conn

    async def _drive(self, steps: Steps[T], connection: AsyncConnection[Any]) -> T:
        try:
            statement = next(steps)
            while True:
                statement = steps.send(await run(connection, statement))
        except StopIteration as end:
            made: T = end.value
            return made

    async def _run(self, make: Any, *arguments: Any, in_transaction: bool = False) -> Any:
        for attempt in range(ATTEMPTS):
            try:
                async with self._connection() as connection:
                    if in_transaction:
                        async with connection.transaction():
                            return await self._drive(make(*arguments), connection)
                    return await self._drive(make(*arguments), connection)
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                # The server has gone and come back, and the pool still holds connections to the one before.
                lost = error.sqlstate is None or error.sqlstate.startswith(("08", "57P"))
                if not lost or not isinstance(self.conn, AsyncConnectionPool) or attempt + 1 == ATTEMPTS:
                    raise
                await self.conn.check()

    async def setup(self, *, keep_for: str | None = None) -> None:
        """Defines the classes of checkpoints and writes, once; for a role that may define classes.

        `keep_for`: how long a checkpoint is kept that is not the newest, '30 days' say; all are kept otherwise.
        """

        def steps() -> Steps[None]:
            for statement in self.calls.setup(keep_for):
                yield statement

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

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """What channels that store only their changes are made of."""
        made: Mapping[str, DeltaChannelHistory] = await self._run(self._history_steps, config, channels)
        return made

    # For other threads than the loop's.

    def _elsewhere(self, work: Any) -> Any:
        try:
            inside = asyncio.get_running_loop() is self.loop
        except RuntimeError:
            inside = False
        if inside:
            work.close()
            raise asyncio.InvalidStateError(
                "this would wait in the event loop for the event loop: await the method with the a before its name")
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

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

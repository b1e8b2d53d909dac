"""The client for asyncio. `_sync.py` is the same for threads: change both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, Literal, TypeVar

import psycopg
from psycopg import AsyncConnection, AsyncRawCursor
from psycopg_pool import AsyncConnectionPool

from ._listen import listen
from ._sync import pause
from .errors import Conflict, typed
from .sql import Calls, Change, Current, Json, Key, Listed, Saved, Statement, Version

T = TypeVar("T")


async def run(connection: AsyncConnection[Any], statement: Statement[T]) -> T:
    """Runs a statement on a connection of psycopg, whatever its row factory."""
    try:
        async with AsyncRawCursor(connection) as cursor:
            await cursor.execute(statement.text, statement.arguments, binary=statement.binary)
            return statement.read(await cursor.fetchall())
    except psycopg.Error as error:
        raise typed(error) from error.__cause__


class AsyncStates:
    """The states of one class, read and changed through one way to run statements."""

    def __init__(self, calls: Calls, runner: Callable[[Statement[Any]], Awaitable[Any]]) -> None:
        self.calls = calls
        self._runner = runner

    async def run(self, statement: Statement[T]) -> T:
        """Runs a statement of `state_cache.sql`."""
        result: T = await self._runner(statement)
        return result

    def of_class(self, class_: str) -> AsyncStates:
        """The states of another class, in the same transaction if this is one."""
        return AsyncStates(self.calls.of_class(class_), self._runner)

    async def get(self, key: str, *, min_version: int | None = None) -> Json:
        """The document; None if the state is absent."""
        return await self.run(self.calls.get(key, min_version))

    async def get_path(self, key: str, path: Sequence[str], *, min_version: int | None = None) -> Json:
        """What the document holds at a path; None if nothing is there."""
        return await self.run(self.calls.get_path(key, path, min_version))

    async def get_many(self, keys: Iterable[str]) -> list[Current]:
        """The states of these keys that are there, in the order asked for."""
        return await self.run(self.calls.get_many(keys))

    async def get_with_version(self, key: str) -> Current | None:
        """Document and version from one snapshot; None if the state is absent."""
        return await self.run(self.calls.get_with_version(key))

    async def version(self, key: str) -> int | None:
        """The version; None if the state is absent."""
        return await self.run(self.calls.version(key))

    async def exists(self, key: str) -> bool:
        """Whether there is such a state."""
        return await self.run(self.calls.exists(key))

    async def set(
        self, key: str, state: Json, *, expected_version: int | None = None, ttl: timedelta | None = None
    ) -> None:
        """Replaces the whole document. `expected_version`: the version it must be in, 0 for absent."""
        await self.run(self.calls.set(key, state, expected_version, ttl))

    async def update(self, key: str, updates: Mapping[str, Json]) -> None:
        """Merges an object into the top level of the document; an absent state counts as `{}`."""
        await self.run(self.calls.update(key, updates))

    async def merge(self, key: str, patch: Json) -> None:
        """Applies a JSON merge patch (RFC 7396): nested, a null removes a member."""
        await self.run(self.calls.merge(key, patch))

    async def append(self, key: str, path: Sequence[str], value: Json) -> None:
        """Appends an element to the array at a path; `[]` is the document itself."""
        await self.run(self.calls.append(key, path, value))

    async def delete(self, key: str, *, expected_version: int | None = None) -> bool:
        """Deletes; whether there was a state. Its kept versions stay for a while."""
        return await self.run(self.calls.delete(key, expected_version))

    async def touch(self, key: str, ttl: timedelta | None) -> bool:
        """Sets the time to live from now on, None for no end; whether there was a state."""
        return await self.run(self.calls.touch(key, ttl))

    async def save(
        self,
        key: str,
        state: Json,
        *,
        checkpoint_type: str = "auto",
        agent_phase: str | None = None,
        recovery_point: bool = False,
        execution_context: Json = None,
        expected_version: int | None = None,
        ttl: timedelta | None = None,
        label: str | None = None,
        parent_version: int | None = None,
        payload: bytes | None = None,
    ) -> Saved:
        """Replaces the whole document now and keeps it as a checkpoint.

        `label` names the version within the state, `parent_version` says what it goes on from where that is not the
        version before, `payload` is kept beside the document.
        """
        return await self.run(self.calls.save(
            key, state, checkpoint_type, agent_phase, recovery_point, execution_context, expected_version, ttl,
            label, parent_version, payload))

    async def list_versions(
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
    ) -> list[Listed]:
        """Kept versions of a state, or of those with a prefix, newest first.

        `before`, `before_label`: only those below. `filter`: only those whose execution context contains this.
        Without `states` neither documents nor payloads are read.
        """
        return await self.run(self.calls.list_versions(
            key, prefix=prefix, before=before, before_label=before_label, label=label, filter=filter, limit=limit,
            states=states))

    async def keys(self, prefix: str = "", *, after: str | None = None, limit: int = 10_000) -> list[Key]:
        """The states that are there whose keys begin so, in the order of their keys; `after`: the last one known."""
        return await self.run(self.calls.keys(prefix, after=after, limit=limit))

    async def purge(
        self,
        keys: Iterable[str] | None = None,
        *,
        prefix: str | None = None,
        versions: Iterable[int] | None = None,
        keep: int | None = None,
    ) -> int:
        """Erases states for good, with history and log; of how many states something was erased.

        With `versions` only these of one state, with `keep` all but so many of the newest versions.
        """
        return await self.run(self.calls.purge(keys, prefix=prefix, versions=versions, keep=keep))

    async def copy(self, from_prefix: str, to_prefix: str) -> int:
        """Copies the states whose keys begin with a prefix, with history and logs, under another one; how many."""
        return await self.run(self.calls.copy(from_prefix, to_prefix))

    async def history(self, key: str) -> list[Version]:
        """The kept versions, newest first."""
        return await self.run(self.calls.history(key))

    async def at(self, key: str, version: int) -> Json:
        """The document as a kept version holds it; None if that version is not kept."""
        return await self.run(self.calls.at(key, version))

    async def diff(self, key: str, from_version: int, to_version: int) -> list[Json]:
        """A JSON Patch (RFC 6902) that makes the second version from the first."""
        return await self.run(self.calls.diff(key, from_version, to_version))

    async def restore(self, key: str, version: int, *, expected_version: int | None = None) -> int:
        """Makes a new version with the content of a kept one; the new version."""
        return await self.run(self.calls.restore(key, version, expected_version))


class AsyncTransaction(AsyncStates):
    """The states of a class within one transaction. `connection` runs what else belongs to it."""

    def __init__(self, calls: Calls, connection: AsyncConnection[Any]) -> None:
        super().__init__(calls, lambda statement: run(connection, statement))
        self.connection = connection


class AsyncStateCache(AsyncStates):
    """A client of state_cache for asyncio. Any number of tasks of one event loop may share one.

    `source` is a connection string, or an `AsyncConnectionPool` of psycopg that the caller opens and closes. `schema`
    is the extension's; None leaves it to `search_path`. Works through proxies that pool transactions; where the proxy
    does not keep track of prepared statements pass `prepare_threshold=None`.

        async with AsyncStateCache("dbname=app", schema="agents") as states:
            await states.set("run-42", {"step": 1})
            limits = await states.of_class("config").get("limits")
    """

    def __init__(
        self,
        source: str | AsyncConnectionPool[Any] = "",
        *,
        schema: str | None = None,
        class_: str = "run",
        on_invalid: Literal["error", "replace"] = "error",
        min_size: int = 1,
        max_size: int = 10,
        **connection_options: Any,
    ) -> None:
        super().__init__(Calls(schema, class_, on_invalid), self._run_pooled)
        self._owns = isinstance(source, str)
        self.pool: AsyncConnectionPool[Any] = (
            AsyncConnectionPool(
                source, min_size=min_size, max_size=max_size, open=False,
                kwargs={"autocommit": True, **connection_options})
            if isinstance(source, str)
            else source
        )

    async def open(self) -> None:
        """Opens the pool, unless it is the caller's."""
        if self._owns:
            await self.pool.open()

    async def close(self) -> None:
        """Closes the pool, unless it is the caller's."""
        if self._owns:
            await self.pool.close()

    async def __aenter__(self) -> AsyncStateCache:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run_pooled(self, statement: Statement[T]) -> T:
        async with self.pool.connection() as connection:
            return await run(connection, statement)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncTransaction]:
        """One transaction, as a context manager. A conflict is raised: `transaction` repeats instead."""
        async with self.pool.connection() as connection:
            try:
                async with connection.transaction():
                    yield AsyncTransaction(self.calls, connection)
            except psycopg.Error as error:
                raise typed(error) from error.__cause__

    async def transaction(self, work: Callable[[AsyncTransaction], Awaitable[T]], *, attempts: int = 20) -> T:
        """Runs `work` in a transaction, and again as long as that ends in a conflict, be it only at COMMIT.

        `work` gets the transaction and may read, decide and change; it must have no effects elsewhere. After
        `attempts` the last `Conflict` is raised.
        """
        for attempt in range(attempts):
            try:
                async with self.begin() as transaction:
                    result = await work(transaction)
                return result
            except Conflict:
                if attempt + 1 >= attempts:
                    raise
            await asyncio.sleep(pause(attempt))
        raise ValueError("attempts must be at least 1")

    async def listen(
        self,
        since: str | None = None,
        *,
        classes: Iterable[str] | None = None,
        conninfo: str | None = None,
        through_proxy: bool = False,
        poll: float = 5.0,
    ) -> AsyncIterator[Change]:
        """Every committed change of states, as long as the loop goes on: see `state_cache.listen`."""
        if conninfo is None:
            if not isinstance(self.pool.conninfo, str):
                raise ValueError("the pool makes up its connection strings: pass conninfo to listen()")
            conninfo = self.pool.conninfo
        async for change in listen(
            conninfo, self.calls, since, classes=classes, through_proxy=through_proxy, poll=poll
        ):
            yield change

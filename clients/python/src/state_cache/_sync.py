"""The client for threads. `_async.py` is the same for asyncio: change both."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, Literal, TypeVar

import psycopg
from psycopg import Connection, RawCursor
from psycopg_pool import ConnectionPool

from .errors import Conflict, typed
from .sql import Calls, Current, Json, Key, Listed, Saved, Statement, Version

T = TypeVar("T")


def run(connection: Connection[Any], statement: Statement[T]) -> T:
    """Runs a statement on a connection of psycopg, whatever its row factory."""
    try:
        with RawCursor(connection) as cursor:
            cursor.execute(statement.text, statement.arguments, binary=statement.binary)
            return statement.read(cursor.fetchall())
    except psycopg.Error as error:
        raise typed(error) from error.__cause__


class States:
    """The states of one class, read and changed through one way to run statements."""

    def __init__(self, calls: Calls, runner: Callable[[Statement[Any]], Any]) -> None:
        self.calls = calls
        self._runner = runner

    def run(self, statement: Statement[T]) -> T:
        """Runs a statement of `state_cache.sql`."""
        result: T = self._runner(statement)
        return result

    def of_class(self, class_: str) -> States:
        """The states of another class, in the same transaction if this is one."""
        return States(self.calls.of_class(class_), self._runner)

    def get(self, key: str, *, min_version: int | None = None) -> Json:
        """The document; None if the state is absent."""
        return self.run(self.calls.get(key, min_version))

    def get_path(self, key: str, path: Sequence[str], *, min_version: int | None = None) -> Json:
        """What the document holds at a path; None if nothing is there."""
        return self.run(self.calls.get_path(key, path, min_version))

    def get_many(self, keys: Iterable[str]) -> list[Current]:
        """The states of these keys that are there, in the order asked for."""
        return self.run(self.calls.get_many(keys))

    def get_with_version(self, key: str) -> Current | None:
        """Document and version from one snapshot; None if the state is absent."""
        return self.run(self.calls.get_with_version(key))

    def version(self, key: str) -> int | None:
        """The version; None if the state is absent."""
        return self.run(self.calls.version(key))

    def exists(self, key: str) -> bool:
        """Whether there is such a state."""
        return self.run(self.calls.exists(key))

    def set(
        self, key: str, state: Json, *, expected_version: int | None = None, ttl: timedelta | None = None
    ) -> None:
        """Replaces the whole document. `expected_version`: the version it must be in, 0 for absent."""
        self.run(self.calls.set(key, state, expected_version, ttl))

    def update(self, key: str, updates: Mapping[str, Json]) -> None:
        """Merges an object into the top level of the document; an absent state counts as `{}`."""
        self.run(self.calls.update(key, updates))

    def merge(self, key: str, patch: Json) -> None:
        """Applies a JSON merge patch (RFC 7396): nested, a null removes a member."""
        self.run(self.calls.merge(key, patch))

    def append(self, key: str, path: Sequence[str], value: Json) -> None:
        """Appends an element to the array at a path; `[]` is the document itself."""
        self.run(self.calls.append(key, path, value))

    def delete(self, key: str, *, expected_version: int | None = None) -> bool:
        """Deletes; whether there was a state. Its kept versions stay for a while."""
        return self.run(self.calls.delete(key, expected_version))

    def touch(self, key: str, ttl: timedelta | None) -> bool:
        """Sets the time to live from now on, None for no end; whether there was a state."""
        return self.run(self.calls.touch(key, ttl))

    def save(
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
        return self.run(self.calls.save(
            key, state, checkpoint_type, agent_phase, recovery_point, execution_context, expected_version, ttl,
            label, parent_version, payload))

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
    ) -> list[Listed]:
        """Kept versions of a state, or of those with a prefix, newest first.

        `before`, `before_label`: only those below. `filter`: only those whose execution context contains this.
        Without `states` neither documents nor payloads are read.
        """
        return self.run(self.calls.list_versions(
            key, prefix=prefix, before=before, before_label=before_label, label=label, filter=filter, limit=limit,
            states=states))

    def keys(self, prefix: str = "", *, after: str | None = None, limit: int = 10_000) -> list[Key]:
        """The states that are there whose keys begin so, in the order of their keys; `after`: the last one known."""
        return self.run(self.calls.keys(prefix, after=after, limit=limit))

    def purge(
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
        return self.run(self.calls.purge(keys, prefix=prefix, versions=versions, keep=keep))

    def copy(self, from_prefix: str, to_prefix: str) -> int:
        """Copies the states whose keys begin with a prefix, with history and logs, under another one; how many."""
        return self.run(self.calls.copy(from_prefix, to_prefix))

    def history(self, key: str) -> list[Version]:
        """The kept versions, newest first."""
        return self.run(self.calls.history(key))

    def at(self, key: str, version: int) -> Json:
        """The document as a kept version holds it; None if that version is not kept."""
        return self.run(self.calls.at(key, version))

    def diff(self, key: str, from_version: int, to_version: int) -> list[Json]:
        """A JSON Patch (RFC 6902) that makes the second version from the first."""
        return self.run(self.calls.diff(key, from_version, to_version))

    def restore(self, key: str, version: int, *, expected_version: int | None = None) -> int:
        """Makes a new version with the content of a kept one; the new version."""
        return self.run(self.calls.restore(key, version, expected_version))


class Transaction(States):
    """The states of a class within one transaction. `connection` runs what else belongs to it."""

    def __init__(self, calls: Calls, connection: Connection[Any]) -> None:
        super().__init__(calls, lambda statement: run(connection, statement))
        self.connection = connection


def pause(attempt: int) -> float:
    """Seconds before an attempt is repeated: 1 to 2 ms at first, half a second to one in the end."""
    return float(min(0.001 * 2**attempt, 0.5) * (1 + random.random()))


class StateCache(States):
    """A client of state_cache for threads. Any number of threads may share one.

    `source` is a connection string, or a `ConnectionPool` of psycopg that the caller opens and closes. `schema` is
    the extension's; None leaves it to `search_path`. Works through proxies that pool transactions; where the proxy
    does not keep track of prepared statements pass `prepare_threshold=None`.

        with StateCache("dbname=app", schema="agents") as states:
            states.set("run-42", {"step": 1})
            limits = states.of_class("config").get("limits")
    """

    def __init__(
        self,
        source: str | ConnectionPool[Any] = "",
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
        self.pool: ConnectionPool[Any] = (
            ConnectionPool(
                source, min_size=min_size, max_size=max_size, open=False,
                kwargs={"autocommit": True, **connection_options})
            if isinstance(source, str)
            else source
        )

    def open(self) -> None:
        """Opens the pool, unless it is the caller's."""
        if self._owns:
            self.pool.open()

    def close(self) -> None:
        """Closes the pool, unless it is the caller's."""
        if self._owns:
            self.pool.close()

    def __enter__(self) -> StateCache:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run_pooled(self, statement: Statement[T]) -> T:
        with self.pool.connection() as connection:
            return run(connection, statement)

    @contextmanager
    def begin(self) -> Iterator[Transaction]:
        """One transaction, as a context manager. A conflict is raised: `transaction` repeats instead."""
        with self.pool.connection() as connection:
            try:
                with connection.transaction():
                    yield Transaction(self.calls, connection)
            except psycopg.Error as error:
                raise typed(error) from error.__cause__

    def transaction(self, work: Callable[[Transaction], T], *, attempts: int = 20) -> T:
        """Runs `work` in a transaction, and again as long as that ends in a conflict, be it only at COMMIT.

        `work` gets the transaction and may read, decide and change; it must have no effects elsewhere. After
        `attempts` the last `Conflict` is raised.
        """
        for attempt in range(attempts):
            try:
                with self.begin() as transaction:
                    result = work(transaction)
                return result
            except Conflict:
                if attempt + 1 >= attempts:
                    raise
            time.sleep(pause(attempt))
        raise ValueError("attempts must be at least 1")

"""Connections: how the steps of an operation are run, under threads and under asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from .._async import run as run_async
from .._sync import run
from ..sql import Statement

T = TypeVar("T")
Steps = Generator[Statement[Any], Any, T]
"""An operation: yields statements, is sent their results."""

ATTEMPTS = 3
"""How often a call is made that meets a lost connection. Every call may be made twice: it names what it stores. A
copy that was made is in the way of the second one, which says so."""


def is_lost(error: psycopg.Error) -> bool:
    """Whether the server has gone: connections to the one before are of no use."""
    return error.sqlstate is None or error.sqlstate.startswith(("08", "57P"))


class Threaded:
    """A connection, or a pool, for threads."""

    def __init__(self, conn: Connection[Any] | ConnectionPool[Any]) -> None:
        self.conn = conn
        # Threads share a single connection; a transaction on it is for one of them.
        self._alone = threading.RLock()

    @contextmanager
    def _connection(self) -> Iterator[Connection[Any]]:
        if isinstance(self.conn, ConnectionPool):
            with self.conn.connection() as connection:
                yield connection
        else:
            with self._alone:
                yield self.conn

    def _drive(self, steps: Steps[T], connection: Connection[Any]) -> T:
        try:
            statement = next(steps)
            while True:
                statement = steps.send(run(connection, statement))
        except StopIteration as end:
            made: T = end.value
            return made

    def _run(self, make: Any, *arguments: Any, in_transaction: bool = False) -> Any:
        for attempt in range(ATTEMPTS):
            try:
                with self._connection() as connection:
                    if in_transaction:
                        with connection.transaction():
                            return self._drive(make(*arguments), connection)
                    return self._drive(make(*arguments), connection)
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                # The pool still holds connections to the server before.
                if not is_lost(error) or not isinstance(self.conn, ConnectionPool) or attempt + 1 == ATTEMPTS:
                    raise
                self.conn.check()


class Tasked:
    """A connection, or a pool, for the tasks of one event loop."""

    def __init__(self, conn: AsyncConnection[Any] | AsyncConnectionPool[Any]) -> None:
        self.conn = conn
        self.loop = asyncio.get_running_loop()
        # Tasks share a single connection; a transaction on it is for one of them.
        self._alone = asyncio.Lock()

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
                statement = steps.send(await run_async(connection, statement))
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
                # The pool still holds connections to the server before.
                if not is_lost(error) or not isinstance(self.conn, AsyncConnectionPool) or attempt + 1 == ATTEMPTS:
                    raise
                await self.conn.check()

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

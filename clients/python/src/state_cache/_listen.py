"""The listener: messages while they come without a gap, `state_changes` for what was missed.

How it stays complete. The listener LISTENs first and takes a cursor then, so that whatever the cursor does not cover
comes as a message. Messages of one epoch are numbered without gaps over all channels of the database. A message that
is not the next one, a new epoch, a lost connection: `state_changes` with the last cursor tells what changed since. In
doubt a change is told twice, never left out; versions tell.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

import psycopg
from psycopg import AsyncConnection, AsyncRawCursor

from .errors import WrongState, typed
from .sql import Calls, Change, Statement, quoted


class BehindProxy(Exception):
    """LISTEN would be lost in silence: the connection leads through a proxy that may pool transactions."""


RENEW_AFTER = 500
"""Messages after which the cursor is taken anew, so that catching up tells little twice."""


async def _run(connection: AsyncConnection[Any], statement: Statement[Any]) -> Any:
    try:
        async with AsyncRawCursor(connection) as cursor:
            await cursor.execute(statement.text, statement.arguments)
            return statement.read(await cursor.fetchall())
    except psycopg.Error as error:
        raise typed(error) from error.__cause__


async def _connect(conninfo: str, calls: Calls, through_proxy: bool) -> AsyncConnection[Any]:
    connection = await AsyncConnection.connect(conninfo, autocommit=True)
    try:
        row = await (await connection.execute("SELECT pg_catalog.pg_backend_pid()")).fetchone()
        # The protocol names the process that answers; a proxy makes up a name of its own.
        if not through_proxy and row is not None and row[0] != connection.info.backend_pid:
            raise BehindProxy(
                "this connection leads through a proxy, and one that pools transactions loses LISTEN in silence:"
                " give listen() a direct one (conninfo=...), or say through_proxy=True where it pools sessions")
        for channel in await _run(connection, calls.channels()):
            await connection.execute("LISTEN " + quoted(channel))
    except BaseException:
        await connection.close()
        raise
    return connection


def _told(payload: str) -> tuple[list[Change], str | None, int | None] | None:
    """The changes of a message, its epoch and number; None if somebody else sent it."""
    try:
        message = json.loads(payload)
        op, class_ = message["op"], message["class"]
        if op == "invalidate":
            changes = [Change(class_, message["pattern"], None, op)]
        else:
            kind = "delete" if op == "delete" else "set"
            changes = [Change(class_, change["key"], change["version"], kind) for change in message["changes"]]
        return changes, message["epoch"], message["seq"]
    except (ValueError, KeyError, TypeError):
        return None


async def listen(
    conninfo: str,
    calls: Calls | None = None,
    since: str | None = None,
    *,
    classes: Iterable[str] | None = None,
    through_proxy: bool = False,
    poll: float = 5.0,
) -> AsyncIterator[Change]:
    """Every committed change of states from now on, or since a cursor, on a connection of its own.

    Coalesced: of several changes of a state the last one may be all that is told, and in doubt one is told again.
    `reset` says that what was missed is not known: drop every copy. A lost connection is made again. `poll`: seconds
    of silence after which the connection is tried.
    """
    calls = calls or Calls()
    wanted = None if classes is None else frozenset(classes)

    def is_wanted(change: Change) -> bool:
        return wanted is None or change.class_ is None or change.class_ in wanted

    cursor = since
    wait = 0.05
    first = True
    while True:
        try:
            connection = await _connect(conninfo, calls, through_proxy)
        except psycopg.OperationalError:
            if first:
                raise
            await asyncio.sleep(wait)
            wait = min(wait * 2, 5.0)
            continue
        first, wait = False, 0.05
        try:
            async with connection:
                behind = cursor is not None
                epoch, seq, newest = await _run(connection, calls.cursor())
                if not behind:
                    cursor = newest
                messages = 0
                while True:
                    if behind:
                        # Taken before the rows are read: what the messages up to this number tell is among them.
                        epoch, seq, newest = await _run(connection, calls.cursor())
                        try:
                            changes, cursor = await _run(connection, calls.changes(cursor))
                        except WrongState:
                            cursor = newest
                            changes = [Change(None, "*", None, "reset")]
                        for change in changes:
                            if is_wanted(change):
                                yield change
                        behind = False
                    heard = False
                    async for notify in connection.notifies(timeout=poll, stop_after=1):
                        heard = True
                        told = _told(notify.payload)
                        if told is None:
                            continue
                        changes, its_epoch, its_seq = told
                        if its_seq is not None and its_epoch == epoch and seq is not None:
                            if its_seq <= seq:
                                continue
                            if its_seq != seq + 1:
                                behind = True
                                continue
                            seq = its_seq
                        elif its_seq is not None or seq is not None:
                            behind = True
                            continue
                        for change in changes:
                            if is_wanted(change):
                                yield change
                        messages += 1
                    if not heard:
                        await connection.execute("SELECT 1")
                    if messages >= RENEW_AFTER and not behind:
                        messages = 0
                        its_epoch, its_seq, newest = await _run(connection, calls.cursor())
                        # Only if nothing is on its way that the new cursor covers and this loop has not told.
                        if (its_epoch, its_seq) == (epoch, seq):
                            cursor = newest
        except psycopg.OperationalError:
            continue

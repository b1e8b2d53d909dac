"""Errors of state_cache by SQLSTATE.

Each is also the psycopg error of its SQLSTATE, so that code which catches psycopg's errors goes on working.
`diag` has the server's message, detail and hint.
"""

from __future__ import annotations

import psycopg
from psycopg import errors as pg


class StateCacheError(psycopg.DatabaseError):
    """An error that the server answered to a call of state_cache."""

    @property
    def hint(self) -> str | None:
        """What the server proposes to do."""
        return self.diag.message_hint

    @property
    def detail(self) -> str | None:
        """What the server says beside the message: the value at fault."""
        return self.diag.message_detail


class Conflict(StateCacheError, pg.SerializationFailure):
    """40001: the state has moved, or its owner has changed. Run the transaction again."""


class Deadlock(Conflict, pg.DeadlockDetected):
    """40P01: two transactions waited for each other. Run the transaction again."""

    sqlstate = "40P01"


class NotFound(StateCacheError, pg.UndefinedObject):
    """42704: an unknown class, run, version, hold, ..."""


class AlreadyThere(StateCacheError, pg.DuplicateObject):
    """42710: it is there already, with other contents."""


class InvalidArgument(StateCacheError, pg.InvalidParameterValue):
    """22023: an argument that is refused."""


class InvalidJson(StateCacheError, pg.InvalidTextRepresentation):
    """22P02: text that is no JSON, or half a surrogate pair."""


class InvalidCharacter(InvalidJson, pg.UntranslatableCharacter):
    """22P05: a NUL character, which jsonb cannot hold."""

    sqlstate = "22P05"


class SectionMissing(StateCacheError, pg.SqlJsonMemberNotFound):
    """2203A: the document has no such section."""


class SectionNotObject(StateCacheError, pg.SqlJsonObjectNotFound):
    """2203C: the section, or the document, is no object."""


class TooLarge(StateCacheError, pg.ProgramLimitExceeded):
    """54000: a document above `state_cache.max_state_size`, or another limit of the server."""


class NotAllowed(StateCacheError, pg.InsufficientPrivilege):
    """42501: the role lacks a privilege on the tables."""


class ReadOnly(StateCacheError, pg.ReadOnlySqlTransaction):
    """25006: a change on a standby, or in a read-only transaction."""


class WrongState(StateCacheError, pg.ObjectNotInPrerequisiteState):
    """55000: not as things are now; the message says why."""


class Held(StateCacheError, pg.LockNotAvailable):
    """55P03: another owner holds the claim."""


class InUse(StateCacheError, pg.ObjectInUse):
    """55006: children or money depend on it."""


class NoRoom(StateCacheError, pg.ConfigurationLimitExceeded):
    """53400: the budget has no room."""


class Late(StateCacheError, pg.QueryCanceled):
    """57014: a wait was over before the version was there."""


class Damaged(StateCacheError, pg.DataCorrupted):
    """XX001: a stored document does not pass its check."""


class NotInstalled(StateCacheError, pg.UndefinedFunction):
    """42883: the extension is not in this database, or its schema is not on `search_path`; or an older version."""


_BY_SQLSTATE: dict[str, type[StateCacheError]] = {
    kind.sqlstate: kind
    for kind in (
        Conflict, Deadlock, NotFound, AlreadyThere, InvalidArgument, InvalidJson, InvalidCharacter, SectionMissing,
        SectionNotObject, TooLarge, NotAllowed, ReadOnly, WrongState, Held, InUse, NoRoom, Late, Damaged,
        NotInstalled,
    )
    if kind.sqlstate is not None
}


def typed(error: psycopg.Error) -> psycopg.Error:
    """The error of this module for an error of psycopg; the error itself where there is none."""
    if isinstance(error, StateCacheError):
        return error
    kind = _BY_SQLSTATE.get(error.sqlstate or "")
    if kind is None:
        return error
    made = kind(*error.args, info=error._info, encoding=error._encoding)
    made.__cause__ = error
    return made

"""Client of the PostgreSQL extension state_cache."""

from . import errors, sql
from ._async import AsyncStateCache, AsyncStates, AsyncTransaction
from ._listen import BehindProxy, listen
from ._sync import StateCache, States, Transaction
from .errors import Conflict, StateCacheError
from .sql import Calls, Change, Current, Key, Listed, Saved, Version

__version__ = "0.2.0"

__all__ = [
    "AsyncStateCache", "AsyncStates", "AsyncTransaction", "BehindProxy", "Calls", "Change", "Conflict", "Current",
    "Key", "Listed", "Saved", "StateCache", "StateCacheError", "States", "Transaction", "Version", "errors", "listen",
    "sql",
]

"""LangGraph on state_cache: checkpoints and long-term memory."""

from ._saver import StateCacheSaver
from .aio import AsyncStateCacheSaver
from .store import AsyncStateCacheStore, StateCacheStore

__all__ = ["AsyncStateCacheSaver", "AsyncStateCacheStore", "StateCacheSaver", "StateCacheStore"]

"""LangGraph on state_cache: checkpoints and long-term memory."""

from ._saver import StateCacheSaver
from .aio import AsyncStateCacheSaver

__all__ = ["AsyncStateCacheSaver", "StateCacheSaver"]

"""Sessions of the OpenAI Agents SDK on state_cache.

    from state_cache import AsyncStateCache
    from state_cache.openai_agents import StateCacheSession

    async with AsyncStateCache("dbname=app") as client:
        await StateCacheSession.setup(client)    # once, as the owner of the extension
        await Runner.run(agent, "hello", session=StateCacheSession("user-17", client))

A session is a log: an item is a row that is appended, whatever the length of the session. It is kept as the JSON text
that it is, so what jsonb would refuse or reorder comes back as it was.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from ._async import AsyncStateCache
from .sql import Row, Statement

if TYPE_CHECKING:
    from agents import TResponseInputItem
    from agents.memory import SessionSettings

CLASS = "agent_session"


def _key(session_id: str) -> str:
    plain = session_id.encode("utf-8", "surrogatepass")
    if 0 < len(plain) <= 200 and "\x00" not in session_id and not session_id.startswith("%h") and plain.isascii():
        return session_id
    return "%h" + blake2b(plain, digest_size=24).hexdigest()


def _items(rows: Sequence[Row]) -> list[Any]:
    return [json.loads(bytes(row[0])) for row in rows]


class StateCacheSession:
    """The items of one conversation. Any number of sessions share a client."""

    def __init__(
        self, session_id: str, client: AsyncStateCache, *, session_settings: SessionSettings | None = None
    ) -> None:
        self.session_id = session_id
        self.session_settings = session_settings
        self._client = client
        self._key = _key(session_id)
        self._prefix = client.calls._prefix

    @staticmethod
    async def setup(client: AsyncStateCache) -> None:
        """Defines the class of sessions, once; for a role that may define classes."""
        prefix = client.calls._prefix
        await client.run(Statement(
            f"SELECT {prefix}state_class_define('{CLASS}', keep => 1)::text WHERE NOT EXISTS"
            f" (SELECT FROM {prefix}state_class WHERE class = '{CLASS}')", (), lambda rows: None))

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The items in their order, or the last ones of them."""
        if limit is None and self.session_settings is not None:
            limit = self.session_settings.limit
        if limit is not None and limit < 0:
            limit = None
        newest = await self._client.run(Statement(
            f"SELECT payload FROM {self._prefix}state_log_entry WHERE class = '{CLASS}' AND key = $1::text"
            " AND ref = '' ORDER BY number DESC LIMIT $2::bigint",
            (self._key, limit), _items, binary=True))
        return newest[::-1]

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Appends items: all of them, or none, and nobody else's between them."""
        if not items:
            return
        texts = [json.dumps(item, separators=(",", ":")).encode() for item in items]
        await self._client.run(Statement(
            f"SELECT {self._prefix}state_log_append($1::text, NULL, payloads => $2::bytea[], class => '{CLASS}')",
            (self._key, texts), lambda rows: None))

    async def pop_item(self) -> TResponseInputItem | None:
        """Takes the last item away. Of two calls at once each gets another item."""
        found: list[Any] = await self._client.run(Statement(
            f"DELETE FROM {self._prefix}state_log_entry WHERE class = '{CLASS}' AND key = $1::text AND ref = ''"
            f" AND number = (SELECT number FROM {self._prefix}state_log_entry WHERE class = '{CLASS}'"
            " AND key = $1::text AND ref = '' ORDER BY number DESC LIMIT 1 FOR UPDATE SKIP LOCKED)"
            " RETURNING payload", (self._key,), _items, binary=True))
        return found[0] if found else None

    async def clear_session(self) -> None:
        """Erases all items."""
        await self._client.run(Statement(
            f"SELECT {self._prefix}state_log_erase($1::text, class => '{CLASS}')", (self._key,), lambda rows: None))

"""LangGraph's long-term memory on state_cache.

An item is a state of class `langgraph_store`: its key is the labels of the namespace with dots between them, U+001F,
and the item's key. So what is below a namespace is a range of keys. A time to live is the state's own; the server
removes what has expired.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.store.base import (
    BaseStore,
    GetOp,
    IndexConfig,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
    ensure_embeddings,
    get_text_at_path,
    tokenize_path,
    validate_op_namespace,
)
from psycopg import AsyncConnection, Connection
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from .._json import KEY_BYTES, SEPARATOR, bytes_of, dumps, fitting, is_jsonb, part, text_of
from ..sql import Row, Statement, quoted
from ._codec import Codec
from ._drive import Steps, Tasked, Threaded

ITEMS = "langgraph_store"
_NAMESPACE_BYTES = KEY_BYTES - 44


def _namespace_part(namespace: tuple[str, ...]) -> str:
    if any(fitting(label) != label for label in namespace):
        raise InvalidNamespaceError(f"the namespace {namespace} is no text")
    spelled = ".".join(part(label, 10_000) for label in namespace)
    if len(spelled.encode()) > _NAMESPACE_BYTES:
        raise InvalidNamespaceError(f"the namespace {namespace} takes more than {_NAMESPACE_BYTES} bytes")
    return spelled


def item_key(namespace: tuple[str, ...], key: str) -> str:
    """The key of the state that holds an item."""
    start = _namespace_part(namespace) + SEPARATOR
    return start + part(key, KEY_BYTES - len(start.encode()))


def _compares(value: Any, wanted: Any) -> bool:
    """As InMemoryStore filters."""
    if isinstance(wanted, Mapping):
        if any(str(name).startswith("$") for name in wanted):
            return all(_operates(value, name, operand) for name, operand in wanted.items())
        return isinstance(value, Mapping) and all(_compares(value.get(name), it) for name, it in wanted.items())
    if isinstance(wanted, (list, tuple)):
        return (isinstance(value, (list, tuple)) and len(value) == len(wanted)
                and all(_compares(one, other) for one, other in zip(value, wanted)))
    return bool(value == wanted)


def _operates(value: Any, name: str, operand: Any) -> bool:
    if name == "$eq":
        return bool(value == operand)
    if name == "$ne":
        return bool(value != operand)
    if name not in ("$gt", "$gte", "$lt", "$lte"):
        raise ValueError(f"unknown operator {name}")
    if value is None:
        return False
    left, right = float(value), float(operand)
    return {"$gt": left > right, "$gte": left >= right, "$lt": left < right, "$lte": left <= right}[name]


def _matches(namespace: tuple[str, ...], condition: MatchCondition) -> bool:
    if len(namespace) < len(condition.path):
        return False
    if condition.match_type == "prefix":
        pairs = zip(namespace, condition.path)
    elif condition.match_type == "suffix":
        pairs = zip(reversed(namespace), reversed(condition.path))
    else:
        raise ValueError(f"unknown kind of match {condition.match_type}")
    return all(wanted == "*" or label == wanted for label, wanted in pairs)


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    size = math.sqrt(sum(x * x for x in one)) * math.sqrt(sum(y * y for y in other))
    return sum(x * y for x, y in zip(one, other)) / size if size else 0.0


class StoreCalls:
    """The statements of one schema."""

    def __init__(self, schema: str | None) -> None:
        self.p = "" if schema is None else quoted(schema) + "."

    def setup(self) -> Statement[None]:
        """Defines the class."""
        return Statement(
            f"SELECT {self.p}state_class_define('{ITEMS}', keep => 1)::text WHERE NOT EXISTS"
            f" (SELECT FROM {self.p}state_class WHERE class = '{ITEMS}')", (), lambda rows: None)

    def get(self, keys: list[str]) -> Statement[dict[str, str]]:
        """Documents by key."""
        return Statement(
            f"SELECT key, state::text FROM {self.p}state_get_many($1::text[], class => '{ITEMS}')", (keys,),
            lambda rows: {row[0]: row[1] for row in rows})

    def put(self, items: list[tuple[str, str, timedelta | None]]) -> Statement[None]:
        """Stores items in one transaction; one that is there keeps the time when it was made."""
        return Statement(
            f"SELECT {self.p}state_set(i.key, i.state || jsonb_build_object('created',"
            f" coalesce({self.p}state_get_path(i.key, ARRAY['created'], class => '{ITEMS}'), i.state->'updated')),"
            f" ttl => i.ttl, class => '{ITEMS}')::text"
            " FROM (SELECT k AS key, s::jsonb AS state, t AS ttl"
            " FROM unnest($1::text[], $2::text[], $3::interval[]) u (k, s, t)) i",
            ([item[0] for item in items], [item[1] for item in items], [item[2] for item in items]),
            lambda rows: None)

    def delete(self, keys: list[str]) -> Statement[None]:
        """Deletes items."""
        return Statement(
            f"SELECT {self.p}state_delete(k, class => '{ITEMS}') FROM unnest($1::text[]) k", (keys,),
            lambda rows: None)

    def touch(self, keys: list[str], ttls: list[timedelta]) -> Statement[None]:
        """Renews times to live."""
        return Statement(
            f"SELECT {self.p}state_touch(k, t, class => '{ITEMS}') FROM unnest($1::text[], $2::interval[]) u (k, t)",
            (keys, ttls), lambda rows: None)

    def _there(self) -> str:
        return (
            f"FROM {self.p}state_head WHERE class = '{ITEMS}' AND NOT deleted"
            " AND (expires_at IS NULL OR expires_at > now())")

    def search(
        self, ranges: list[tuple[str, str]], filter: str | None, limit: int | None, offset: int
    ) -> Statement[list[tuple[str, str]]]:
        """Keys and documents within ranges of keys, changed last first."""

        def read(rows: Sequence[Row]) -> list[tuple[str, str]]:
            return [(row[0], row[1]) for row in rows]

        return Statement(
            f"SELECT key, state::text {self._there()} AND EXISTS (SELECT FROM unnest($1::text[], $2::text[]) r (a, b)"
            " WHERE key COLLATE \"C\" >= a AND (b = '' OR key COLLATE \"C\" < b))"
            " AND ($3::text IS NULL OR state->'value' @> $3::text::jsonb)"
            " ORDER BY updated_at DESC, key LIMIT $4::bigint OFFSET $5::bigint",
            ([one for one, _ in ranges], [other for _, other in ranges], filter, limit, offset), read)

    def namespaces(self) -> Statement[list[list[str]]]:
        """All namespaces."""
        return Statement(
            f"SELECT DISTINCT state->>'namespace' {self._there()}", (),
            lambda rows: [json.loads(row[0]) for row in rows])


class StoreCore(BaseStore):
    """What both stores share."""

    supports_ttl = True

    def __init__(self, schema: str | None, index: IndexConfig | None, ttl: TTLConfig | None) -> None:
        self.calls = StoreCalls(schema)
        self.ttl_config = ttl
        self.index_config = index
        self.embeddings = ensure_embeddings(index.get("embed")) if index else None
        self.codec = Codec(JsonPlusSerializer())

    def _paths(self, index: Any) -> list[str]:
        if index is False or self.index_config is None:
            return []
        return list(index if index is not None else self.index_config.get("fields") or ["$"])

    def _texts(self, op: PutOp) -> list[str]:
        if op.value is None or self.embeddings is None:
            return []
        return [
            text for path in self._paths(op.index) for text in get_text_at_path(dict(op.value), tokenize_path(path))
        ]

    def _document(self, op: PutOp, vectors: list[list[float]]) -> str:
        assert op.value is not None
        value = dict(op.value)
        document: dict[str, Any] = {
            "namespace": list(op.namespace), "key": op.key, "updated": datetime.now(timezone.utc).isoformat(),
            "value": value,
        }
        if not is_jsonb(value):
            document |= {"value": fitting(value), "exact": self.codec.encode(value)}
        if fitting(op.key) != op.key:
            document["key"] = fitting(op.key)
            document["exact_key"] = text_of(op.key.encode("utf-8", "surrogatepass"))
        if op.ttl is not None:
            document["ttl"] = float(op.ttl)
        if vectors:
            document["vectors"] = vectors
        return dumps(document)

    def _item(self, text: str, score: float | None = None) -> SearchItem:
        read = json.loads(text)
        return SearchItem(
            namespace=tuple(read["namespace"]),
            key=(bytes_of(read["exact_key"]).decode("utf-8", "surrogatepass")
                 if "exact_key" in read else read["key"]),
            value=self.codec.decode(read["exact"]) if "exact" in read else read["value"],
            created_at=datetime.fromisoformat(read["created"]),
            updated_at=datetime.fromisoformat(read["updated"]),
            score=score,
        )

    def _refresh(self, found: Iterable[tuple[str, str]]) -> Steps[None]:
        ttls = {key: json.loads(text).get("ttl") for key, text in found}
        ttls = {key: timedelta(minutes=ttl) for key, ttl in ttls.items() if ttl is not None}
        if ttls:
            yield self.calls.touch(list(ttls), list(ttls.values()))

    def _search(self, op: SearchOp, vector: list[float] | None) -> Steps[list[SearchItem]]:
        ranges = [("", "")]
        if op.namespace_prefix:
            start = _namespace_part(op.namespace_prefix)
            ranges = [(start + end, start + chr(ord(end) + 1)) for end in (".", SEPARATOR)]
        plain = {
            name: value for name, value in (op.filter or {}).items()
            if isinstance(value, (str, int, float, bool)) and value == fitting(value)
        }
        in_sql = len(plain) == len(op.filter or {}) and vector is None
        rows = yield self.calls.search(
            ranges, dumps(plain) if plain else None, op.limit if in_sql else None, op.offset if in_sql else 0)
        items = [(key, text, self._item(text)) for key, text in rows]
        if not in_sql:
            items = [
                found for found in items
                if all(_compares(found[2].value.get(name), value) for name, value in (op.filter or {}).items())
            ]
            if vector is not None:
                scores = {
                    key: max((_cosine(vector, one) for one in json.loads(text).get("vectors", [])), default=None)
                    for key, text, _ in items
                }
                # What is not in the index comes last, without a score.
                items.sort(key=lambda found: -(-2.0 if (score := scores[found[0]]) is None else score))
                for key, _, item in items:
                    item.score = scores[key]
            items = items[op.offset : op.offset + op.limit]
        if op.refresh_ttl:
            yield from self._refresh((key, text) for key, text, _ in items)
        return [item for _, _, item in items]

    def _batch(
        self, ops: list[Op], texts: dict[int, list[list[float]]], queries: dict[int, list[float]]
    ) -> Steps[list[Result]]:
        """Reads first, of what was there before; then changes, the last one of each item."""
        results: list[Result] = [None] * len(ops)
        gets = [(place, op) for place, op in enumerate(ops) if isinstance(op, GetOp)]
        if gets:
            keys = {place: item_key(op.namespace, op.key) for place, op in gets}
            found = yield self.calls.get(list(keys.values()))
            refreshed = {}
            for place, op in gets:
                text = found.get(keys[place])
                if text is not None:
                    item = self._item(text)
                    results[place] = Item(
                        value=item.value, key=item.key, namespace=item.namespace, created_at=item.created_at,
                        updated_at=item.updated_at)
                    if op.refresh_ttl:
                        refreshed[keys[place]] = text
            yield from self._refresh(refreshed.items())
        puts: dict[str, tuple[PutOp, int]] = {}
        for place, asked in enumerate(ops):
            if isinstance(asked, SearchOp):
                results[place] = yield from self._search(asked, queries.get(place))
            elif isinstance(asked, ListNamespacesOp):
                results[place] = yield from self._namespaces(asked)
            elif isinstance(asked, PutOp):
                puts[item_key(asked.namespace, asked.key)] = asked, place
        gone = [key for key, (put, _) in puts.items() if put.value is None]
        if gone:
            yield self.calls.delete(gone)
        kept = [
            (key, self._document(put, texts.get(place, [])),
             None if put.ttl is None else timedelta(minutes=put.ttl))
            for key, (put, place) in puts.items() if put.value is not None
        ]
        if kept:
            yield self.calls.put(kept)
        return results

    def _namespaces(self, op: ListNamespacesOp) -> Steps[list[tuple[str, ...]]]:
        rows = yield self.calls.namespaces()
        found = [tuple(row) for row in rows]
        found = [
            namespace for namespace in found
            if all(_matches(namespace, condition) for condition in op.match_conditions or ())
        ]
        if op.max_depth is not None:
            found = list({namespace[: op.max_depth] for namespace in found})
        return sorted(found)[op.offset : op.offset + op.limit]

    def _asked(self, ops: Iterable[Op]) -> tuple[list[Op], list[tuple[int, str]], list[tuple[int, str]]]:
        """The operations, and what is to be embedded: texts of items, and queries."""
        listed = list(ops)
        for op in listed:
            validate_op_namespace(op)
        texts = [
            (place, text) for place, op in enumerate(listed) if isinstance(op, PutOp) for text in self._texts(op)
        ]
        queries = [
            (place, op.query) for place, op in enumerate(listed)
            if isinstance(op, SearchOp) and op.query and self.embeddings is not None
        ]
        return listed, texts, queries


def _grouped(texts: list[tuple[int, str]], vectors: list[list[float]]) -> dict[int, list[list[float]]]:
    made: dict[int, list[list[float]]] = {}
    for (place, _), vector in zip(texts, vectors):
        made.setdefault(place, []).append([float(number) for number in vector])
    return made


class StateCacheStore(Threaded, StoreCore):
    """LangGraph's long-term memory in PostgreSQL with state_cache, for `invoke` and `stream`.

    `conn`, `schema`: as for `StateCacheSaver`. `index`, `ttl`: as for LangGraph's own stores; vectors are compared
    exactly, among what namespace and filter leave.
    """

    def __init__(
        self, conn: Connection[Any] | ConnectionPool[Any], *, index: IndexConfig | None = None,
        ttl: TTLConfig | None = None, schema: str | None = None,
    ) -> None:
        StoreCore.__init__(self, schema, index, ttl)
        Threaded.__init__(self, conn)

    @classmethod
    @contextmanager
    def from_conn_string(
        cls, conn_string: str, *, index: IndexConfig | None = None, ttl: TTLConfig | None = None,
        schema: str | None = None, max_size: int = 10, **connection_options: Any,
    ) -> Iterator[StateCacheStore]:
        """A store with a pool of its own, which is closed at the end."""
        options = {"autocommit": True, "prepare_threshold": 0, **connection_options}
        with ConnectionPool(conn_string, min_size=1, max_size=max_size, kwargs=options, open=True) as pool:
            yield cls(pool, index=index, ttl=ttl, schema=schema)

    def setup(self) -> None:
        """Defines the class of items, once; for a role that may define classes."""

        def steps() -> Steps[None]:
            yield self.calls.setup()

        self._run(steps)

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Runs operations: reads of what was there before, then changes."""
        listed, texts, queries = self._asked(ops)
        vectors = self.embeddings.embed_documents([text for _, text in texts]) if self.embeddings and texts else []
        wanted = {place: self.embeddings.embed_query(query) for place, query in queries if self.embeddings}
        made: list[Result] = self._run(self._batch, listed, _grouped(texts, vectors), wanted)
        return made

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """The same in a thread."""
        import asyncio

        return await asyncio.to_thread(self.batch, list(ops))


class AsyncStateCacheStore(Tasked, StoreCore):
    """LangGraph's long-term memory in PostgreSQL with state_cache, for `ainvoke` and `astream`."""

    def __init__(
        self, conn: AsyncConnection[Any] | AsyncConnectionPool[Any], *, index: IndexConfig | None = None,
        ttl: TTLConfig | None = None, schema: str | None = None,
    ) -> None:
        StoreCore.__init__(self, schema, index, ttl)
        Tasked.__init__(self, conn)

    @classmethod
    @asynccontextmanager
    async def from_conn_string(
        cls, conn_string: str, *, index: IndexConfig | None = None, ttl: TTLConfig | None = None,
        schema: str | None = None, max_size: int = 10, **connection_options: Any,
    ) -> AsyncIterator[AsyncStateCacheStore]:
        """A store with a pool of its own, which is closed at the end."""
        options = {"autocommit": True, "prepare_threshold": 0, **connection_options}
        async with AsyncConnectionPool(
            conn_string, min_size=1, max_size=max_size, kwargs=options, open=False
        ) as pool:
            yield cls(pool, index=index, ttl=ttl, schema=schema)

    async def setup(self) -> None:
        """Defines the class of items, once; for a role that may define classes."""

        def steps() -> Steps[None]:
            yield self.calls.setup()

        await self._run(steps)

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Runs operations: reads of what was there before, then changes."""
        listed, texts, queries = self._asked(ops)
        vectors: list[list[float]] = []
        if self.embeddings and texts:
            vectors = await self.embeddings.aembed_documents([text for _, text in texts])
        wanted = {place: await self.embeddings.aembed_query(query) for place, query in queries if self.embeddings}
        made: list[Result] = await self._run(self._batch, listed, _grouped(texts, vectors), wanted)
        return made

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """`abatch` from another thread than the loop's."""
        made: list[Result] = self._elsewhere(self.abatch(ops))
        return made

"""The store gives what InMemoryStore gives; times to live; vectors."""

import asyncio
import time

import pytest
from langgraph.store.base import GetOp, InvalidNamespaceError, PutOp
from langgraph.store.memory import InMemoryStore

from state_cache.langgraph import AsyncStateCacheStore, StateCacheStore


@pytest.fixture(scope="module", autouse=True)
def defined(database, owner):
    StateCacheStore(owner).setup()


@pytest.fixture
def store(conninfo):
    with StateCacheStore.from_conn_string(conninfo, schema="states") as made:
        yield made


ITEMS = [
    (("users", "anna"), "prefs", {"color": "red", "n": 1, "tags": ["a", "b"], "deep": {"x": 1, "y": None}}),
    (("users", "anna"), "other", {"color": "blue", "n": 2}),
    (("users", "anna", "chat"), "1", {"text": "a\0b\ud83d", "b": 1, "a": 2.0, "big": 1e22}),
    (("users", "annabel"), "prefs", {"color": "red", "n": 10}),
    (("shop%", "\u00fc\x1f"), "k\0\ud83d" + "x" * 400, {"n": 3}),
]
FILTERS = [
    None, {"color": "red"}, {"n": 2}, {"tags": ["a", "b"]}, {"tags": ["a"]}, {"deep": {"x": 1}}, {"n": {"$gt": 1}},
    {"n": {"$gte": 1, "$lt": 10}}, {"color": {"$ne": "red"}}, {"color": None}, {"n": 2.0}, {"color": "red", "n": 10},
]


def seen(items):
    return sorted((item.namespace, item.key, repr(sorted(item.value.items()))) for item in items)


def test_as_in_memory(store):
    memory = InMemoryStore()
    for each in (store, memory):
        for namespace, key, value in ITEMS:
            each.put(namespace, key, {"before": True})
            each.put(namespace, key, value)
    for namespace, key, value in ITEMS:
        mine, theirs = store.get(namespace, key), memory.get(namespace, key)
        assert (mine.namespace, mine.key) == (theirs.namespace, theirs.key)
        # Half a surrogate pair is a question mark for LangGraph's serializer; types are what they were.
        expected = {name: it.replace("\ud83d", "?") if isinstance(it, str) else it for name, it in value.items()}
        assert mine.value == expected and all(type(mine.value[name]) is type(it) for name, it in expected.items())
        assert mine.created_at < mine.updated_at
    for prefix in [(), ("users",), ("users", "anna"), ("users", "ann"), ("nobody",), ("shop%",)]:
        for filter in FILTERS:
            if filter and prefix == ():
                continue    # InMemoryStore compares what is not there with a number, and fails
            try:
                expected = seen(memory.search(prefix, filter=filter))
            except TypeError:
                continue
            assert [it[:2] for it in seen(store.search(prefix, filter=filter))] == [
                it[:2] for it in expected], (prefix, filter)
    for arguments in [{}, {"max_depth": 1}, {"prefix": ("users",)}, {"suffix": ("chat",)}, {"limit": 2, "offset": 1},
                      {"prefix": ("*", "anna")}]:
        assert store.list_namespaces(**arguments) == memory.list_namespaces(**arguments)
    store.delete(*ITEMS[0][:2])
    assert store.get(*ITEMS[0][:2]) is None


def test_pages(store):
    for number in range(30):
        store.put(("pages",), f"k{number:02}", {"n": number, "even": number % 2 == 0})
    first = store.search(("pages",), limit=10)
    second = store.search(("pages",), limit=10, offset=10)
    assert [item.value["n"] for item in first + second] == list(range(29, 9, -1))
    even = store.search(("pages",), filter={"even": True}, limit=2, offset=1)
    assert [item.value["n"] for item in even] == [26, 24]


def test_a_batch_reads_what_was_there_before(store):
    store.put(("batch",), "k", {"n": 1})
    results = store.batch([
        PutOp(("batch",), "k", {"n": 2}), GetOp(("batch",), "k"), PutOp(("batch",), "k", {"n": 3}),
        PutOp(("batch",), "new", None),
    ])
    assert results[1].value == {"n": 1} and results[0] is None
    assert store.get(("batch",), "k").value == {"n": 3}


def test_time_to_live(conninfo, owner):
    """Reading an item moves its end, unless it is read without refreshing; behind its end it is absent."""
    def ends():
        rows = owner.execute(
            "SELECT state->>'key', expires_at FROM state_head WHERE class = 'langgraph_store' AND key LIKE 'ttl.%'")
        return dict(rows.fetchall())

    with StateCacheStore.from_conn_string(conninfo, schema="states", ttl={"refresh_on_read": True}) as store:
        for key in ("read", "searched", "left", "looked-at", "for-ever"):
            store.put(("ttl", key), key, {}, ttl=None if key == "for-ever" else 60)
        before = ends()
        store.get(("ttl", "read"), "read")
        store.search(("ttl", "searched"))
        store.get(("ttl", "looked-at"), "looked-at", refresh_ttl=False)
        after = ends()
        assert before["for-ever"] is None and len(before) == 5
        assert {key for key in before if after[key] != before[key]} == {"read", "searched"}
        assert all(after[key] > before[key] for key in ("read", "searched"))
        store.put(("ttl-over",), "short", {}, ttl=0.01 / 60)
        end = time.monotonic() + 60
        while store.get(("ttl-over",), "short", refresh_ttl=False) is not None:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert store.search(("ttl-over",)) == []


def test_vectors(conninfo):
    def embed(texts):
        return [[float(text.count(letter)) for letter in "abc"] for text in texts]

    index = {"dims": 3, "embed": embed, "fields": ["text"]}
    with StateCacheStore.from_conn_string(conninfo, schema="states", index=index) as store:
        memory = InMemoryStore(index=index)
        for each in (store, memory):
            for key, text in [("1", "aaab"), ("2", "bbb"), ("3", "abc"), ("4", "ccca")]:
                each.put(("vectors",), key, {"text": text})
            each.put(("vectors",), "not", {"text": "aaa"}, index=False)
        found = [
            [(item.key, round(item.score, 6)) for item in each.search(("vectors",), query="aa", limit=3)]
            for each in (memory, store)
        ]
        assert found[0] == found[1] and len(found[0]) == 3


def test_asyncio(conninfo):
    async def main():
        async with AsyncStateCacheStore.from_conn_string(conninfo, schema="states") as store:
            await asyncio.gather(*(store.aput(("async",), str(n), {"n": n}) for n in range(32)))
            found = await store.asearch(("async",), limit=100)
            assert sorted(item.value["n"] for item in found) == list(range(32))
            await store.adelete(("async",), "1")
            assert await store.aget(("async",), "1") is None
            assert (await asyncio.to_thread(store.get, ("async",), "2")).value == {"n": 2}

    asyncio.run(main())


def test_namespaces_that_are_none(store):
    with pytest.raises(InvalidNamespaceError):
        store.put(("a.b",), "k", {})
    with pytest.raises(InvalidNamespaceError):
        store.put(("x" * 3000,), "k", {})

"""Values come back as they were put: their types, their order, what jsonb refuses; and keys of any spelling."""

import asyncio
import datetime
import json
import math
import uuid
from collections import OrderedDict

import psycopg
import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from state_cache.langgraph import AsyncStateCacheSaver, StateCacheSaver
from state_cache.langgraph._codec import (
    KEY_BYTES, bytes_of, key_of, names_of, pack, ref_of, text_of, unpack, values_of
)

VALUES = [
    None, True, 0, -1, 2**63, 2**64 - 1, 1.0, 1.5, 1e22, 1e-300, -0.0, 0.1, float("inf"), "", "text", "a\0b",
    "\ud83d", "\u6f22\U0001f600\"\\\x7f", b"\x00\xff", [], [1, "a", None, [2.0]], {"b": 1, "a": 2, "cc": 3},
    {"one": {"x": 1.0}}, {1: "int key", "1": "text key"}, [{"b": 1, "a": 2}],
    datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc),
    uuid.UUID(int=7), {"set"}, HumanMessage("hi", id="1"), "x" * 300_000, ["word " * 60_000],
]


def put(saver, thread, values, namespace="", parent=None, **metadata):
    config = {"configurable": {"thread_id": thread, "checkpoint_ns": namespace}}
    if parent:
        config["configurable"]["checkpoint_id"] = parent["configurable"]["checkpoint_id"]
    checkpoint = empty_checkpoint()
    versions = {name: 1 for name in values}
    checkpoint["channel_values"], checkpoint["channel_versions"] = dict(values), versions
    return saver.put(config, checkpoint, {"source": "loop", "step": 1, "parents": {}, **metadata}, versions)


@pytest.fixture
def saver(conninfo):
    with StateCacheSaver.from_conn_string(conninfo, schema="states") as made:
        yield made


@pytest.mark.parametrize("kind", ["plain", "encrypted", "pickle"])
def test_values_come_back_as_from_memory(conninfo, kind):
    serde = {
        "plain": None,
        "encrypted": EncryptedSerializer.from_pycryptodome_aes(key=b"k" * 16),
        "pickle": JsonPlusSerializer(pickle_fallback=True),
    }[kind]
    values = {f"channel {place}": value for place, value in enumerate(VALUES)}
    memory = InMemorySaver(serde=serde)
    with StateCacheSaver.from_conn_string(conninfo, schema="states", serde=serde) as saver:
        for each in (memory, saver):
            config = put(each, kind, values)
            each.put_writes(config, list(values.items()), "task", "path")
        expected, found = memory.get_tuple(config | {}), saver.get_tuple(config)
        # The ids differ, since each has made its own checkpoint.
        expected = next(memory.list({"configurable": {"thread_id": kind}}))
        for name, value in expected.checkpoint["channel_values"].items():
            assert repr(found.checkpoint["channel_values"].pop(name)) == repr(value)
        assert found.checkpoint["channel_values"] == {}
        assert repr(found.pending_writes) == repr(expected.pending_writes)


def test_an_encrypting_serializer_misses_nothing(conninfo, owner):
    serde = EncryptedSerializer.from_pycryptodome_aes(key=b"k" * 16)
    with StateCacheSaver.from_conn_string(conninfo, schema="states", serde=serde) as saver:
        config = put(saver, "secret thread", {"short": "geheim-1", "number": 4711, "list": ["geheim-2"]})
        saver.put_writes(config, [("short", "geheim-3")], "task")
    ((document,),) = owner.execute(
        "SELECT state::text FROM state_current WHERE class = 'langgraph' AND key LIKE 'secret thread%'").fetchall()
    ((payload,),) = owner.execute(
        "SELECT payload FROM state_log_entry WHERE key LIKE 'secret thread%'").fetchall()
    entry = repr(unpack(payload, values_of(json.loads(document))))
    assert "short" in document and "short" in entry
    for text in (document, entry):
        assert "geheim" not in text and "4711" not in text


@pytest.mark.parametrize("metadata", [
    {"user": "a\0b"}, {"nested": {"deep": "\ud83d"}}, {"number": math.inf}, {"big": 1e22}, {"list": [1, {"b": 1}]},
])
def test_metadata(saver, metadata):
    thread = str(uuid.uuid4())
    config = put(saver, thread, {}, **metadata)
    found = saver.get_tuple(config).metadata
    for name, value in metadata.items():
        # LangGraph takes NUL out of what it copies to the top itself.
        expected = value.replace("\0", "") if isinstance(value, str) else value
        # Half a surrogate pair is a question mark for LangGraph's serializer.
        assert repr(found[name]) == repr(expected).replace("\\ud83d", "?")
    assert len(list(saver.list({"configurable": {"thread_id": thread}}, filter={"step": 1}))) == 1
    assert len(list(saver.list({"configurable": {"thread_id": thread}}, filter={"step": 2}))) == 0


THREADS = ["t", "", "%", "a\x1fb", "\0", "\ud83d", "\u6f22" * 300, "x" * 5000, "a%hb", "100%41"]
NAMESPACES = ["", "child:1", "|".join(f"node{n}:{uuid.UUID(int=n)}" for n in range(6)), "\x1f", "n" * 3000, "%h"]


@pytest.mark.parametrize("thread", THREADS, ids=range(len(THREADS)))
def test_names_of_any_spelling(saver, thread):
    """Six nested namespaces among them."""
    for number, namespace in enumerate(NAMESPACES):
        config = put(saver, thread, {"n": number}, namespace)
        saver.put_writes(config, [("n", number)], "task")
    for number, namespace in enumerate(NAMESPACES):
        found = saver.get_tuple({"configurable": {"thread_id": thread, "checkpoint_ns": namespace}})
        assert found.checkpoint["channel_values"] == {"n": number}
        assert found.pending_writes == [("task", "n", number)]
        assert found.config["configurable"]["thread_id"] == thread
        assert found.config["configurable"]["checkpoint_ns"] == namespace
    listed = list(saver.list({"configurable": {"thread_id": thread}}))
    assert sorted(found.config["configurable"]["checkpoint_ns"] for found in listed) == sorted(NAMESPACES)
    saver.delete_thread(thread)
    assert list(saver.list({"configurable": {"thread_id": thread}})) == []


def test_a_thread_is_not_another_one_that_begins_so(saver):
    for thread in ("same", "same2", "sam", "same\x1f", "same%1F"):
        put(saver, thread, {"thread": thread})
    saver.delete_thread("same")
    for thread in ("same2", "sam", "same\x1f", "same%1F"):
        assert saver.get_tuple({"configurable": {"thread_id": thread}}).checkpoint["channel_values"] == {
            "thread": thread}


def test_keys():
    seen = {}
    for thread in THREADS:
        for namespace in NAMESPACES:
            key = key_of(thread, namespace)
            assert len(key.encode()) <= KEY_BYTES and "\0" not in key
            assert seen.setdefault(key, (thread, namespace)) == (thread, namespace)
            spelled = names_of(key, {})
            assert spelled == (thread, namespace) or "%h" in key


def test_bytes_are_text_and_back():
    everything = bytes(range(256)) * 3
    assert bytes_of(text_of(everything)) == everything
    assert json.loads(json.dumps(text_of(everything))) == text_of(everything)


def test_64_tasks_share_one_saver(conninfo):
    async def main():
        async with AsyncStateCacheSaver.from_conn_string(conninfo, schema="states", max_size=16) as saver:
            async def run(number):
                thread, parent = f"many-{number}", None
                for step in range(10):
                    config = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
                    if parent:
                        config["configurable"]["checkpoint_id"] = parent["configurable"]["checkpoint_id"]
                    checkpoint = empty_checkpoint()
                    checkpoint["channel_values"] = {"n": [number, step]}
                    checkpoint["channel_versions"] = {"n": step + 1}
                    made = {"configurable": {**config["configurable"], "checkpoint_id": checkpoint["id"]}}
                    # Beside one another, as LangGraph does: the writes may be stored first.
                    parent, _ = await asyncio.gather(
                        saver.aput(config, checkpoint, {"step": step}, {"n": step + 1}),
                        saver.aput_writes(made, [("n", step)], f"task-{step}"))
                found = await saver.aget_tuple({"configurable": {"thread_id": thread}})
                assert found.checkpoint["channel_values"] == {"n": [number, 9]}
                assert found.pending_writes == [("task-9", "n", 9)]
                listed = [each async for each in saver.alist({"configurable": {"thread_id": thread}})]
                assert [each.metadata["step"] for each in listed] == list(range(9, -1, -1))
                assert all(each.pending_writes for each in listed)

            await asyncio.gather(*(run(number) for number in range(64)))

    asyncio.run(main())


def test_writes_are_not_there_before_their_checkpoint(saver):
    config = {"configurable": {"thread_id": "early", "checkpoint_ns": ""}}
    checkpoint = empty_checkpoint()
    early = {"configurable": {"thread_id": "early", "checkpoint_ns": "", "checkpoint_id": checkpoint["id"]}}
    saver.put_writes(early, [("ch", 1)], "task")
    assert saver.get_tuple(early) is None and saver.get_tuple(config) is None
    assert list(saver.list(config)) == []
    saver.put(config, checkpoint, {}, {})
    assert saver.get_tuple(config).pending_writes == [("task", "ch", 1)]


def test_setup_twice_and_in_a_transaction(database):
    with psycopg.connect(dbname=database) as connection:
        saver = StateCacheSaver(connection, schema="states")
        saver.setup()
        saver.setup()
        put(saver, "unsure", {"n": 1})
        connection.rollback()
        assert saver.get_tuple({"configurable": {"thread_id": "unsure"}}) is None


def test_the_loop_does_not_wait_for_itself(conninfo):
    async def main():
        async with AsyncStateCacheSaver.from_conn_string(conninfo, schema="states") as saver:
            with pytest.raises(asyncio.InvalidStateError):
                saver.get_tuple({"configurable": {"thread_id": "t"}})
            config = {"configurable": {"thread_id": "elsewhere"}}
            assert await asyncio.to_thread(saver.get_tuple, config) is None

    asyncio.run(main())


def test_writes_of_a_checkpoint_that_is_stored_again(conninfo):
    """Writes are packed with what their checkpoint held; they are read whatever it holds now."""
    with StateCacheSaver.from_conn_string(conninfo, schema="states") as saver:
        config = {"configurable": {"thread_id": "again", "checkpoint_ns": ""}}
        checkpoint = empty_checkpoint()
        texts = [["first " * 50, {"n": 1}], ["second " * 50, {"n": 2}], ["third " * 50, {"n": 3}]]
        for number, text in enumerate(texts):
            checkpoint["channel_values"] = {"ch": text, "other": {"a": number, "b": 1}}
            stored = saver.put(config, checkpoint, {}, {"ch": 1})
            saver.put_writes(stored, [("ch", [*text, "more"]), ("new", number)], f"task-{number}")
        expected = [
            it for number, text in enumerate(texts)
            for it in ((f"task-{number}", "ch", [*text, "more"]), (f"task-{number}", "new", number))
        ]
    with StateCacheSaver.from_conn_string(conninfo, schema="states") as saver:
        assert saver.get_tuple(stored).pending_writes == expected
        saver.copy_thread("again", "again-copied")
        saver.prune(["again"])
        for thread in ("again", "again-copied"):
            config = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
            assert saver.get_tuple(config).pending_writes == expected
            assert [found.pending_writes for found in saver.list(config)] == [expected]
        # A saver that has not seen the checkpoint packs what it writes otherwise.
        saver.known.clear()
        saver.put_writes(stored, [("ch", ["x" * 100])], "task-9")
        assert saver.get_tuple(stored).pending_writes[-1] == ("task-9", "ch", ["x" * 100])


def test_packing_is_exact():
    from state_cache.langgraph._codec import OtherDictionary, pack

    known = {f"channel {n}": bytes([n % 256]) * n * 100 for n in range(300)}
    told = ["task", "path", [0, "channel 1", "bytes", 3]]
    for channels in ([], ["channel 1"], list(known), ["unknown"]):
        for data in (b"", b"abc", bytes(range(256)) * 300, known["channel 299"]):
            packed = pack(told, data, known, channels)
            assert unpack(packed, known) == (told, data)
            if channels == ["channel 1"] and packed[0]:
                with pytest.raises(OtherDictionary):
                    unpack(packed, {**known, "channel 1": b"other"})


# As 0.1.0 stored them: a checkpoint, two writes of a task since it, and the second of these again.
OLD_ID, OLD_TASK = "1f1ed702-418a-67a6-bffe-d5d44c8b17a4", "1f1ed702-418a-6b23-bffe-ddcb047f428d"
OLD_DOCUMENT = (
    '{"v":1,"values":{"n":3},"bytes":{"messages":["msgpack","Ƃơaƥhelloơbƥthere"]},"checkpoint":{"v":4,'
    '"ts":"2026-11-30T10:00:00+00:00","channel_versions":{"n":1,"messages":2},"versions_seen":{}}}')
OLD_METADATA = '{"source":"loop","step":4,"run_id":"r-1","user_id":"u-17","parents":{}}'
OLD_WRITES = {
    "OomrkvQ6vHaw/1": "0101000074e5a88b56324c334c4d313730d23531b448d4354b3232d64d4a4b4bd54d49494e3230314f3331b2"
    "48015a555790589281c703e6b1b15c4d48093a311d18c000",
    "OomrkvQ6vHaw/-4": "0100719b81f18b56324c334c4d313730d23531b448d4354b3232d64d4a4b4bd54d49494e3230314f3331b2"
    "48015a555790589201d5846c0ac20de6b1b15c1397a6651615970000",
}


def test_what_an_earlier_release_has_stored(saver, owner):
    key = key_of("old", "")
    context = {**json.loads(OLD_METADATA), "checkpoint_id": OLD_ID}
    owner.execute(
        "SELECT state_save_text(%s, %s, execution_context => %s, class => 'langgraph')",
        (key, OLD_DOCUMENT, json.dumps(context)))
    owner.execute(
        "SELECT state_log_append(%s, NULL, %s, %s, payloads => %s, class => 'langgraph')",
        (key, OLD_ID, list(OLD_WRITES), [bytes.fromhex(payload) for payload in OLD_WRITES.values()]))
    thread = {"configurable": {"thread_id": "old", "checkpoint_ns": ""}}

    def seen():
        found = saver.get_tuple(thread)
        assert found.checkpoint["id"] == OLD_ID and found.metadata == json.loads(OLD_METADATA)
        assert found.checkpoint["channel_values"] == {"n": 3, "messages": {"a": "hello", "b": "there"}}
        return found.pending_writes

    messages = (OLD_TASK, "messages", {"a": "hello", "b": "again"})
    assert seen() == [(OLD_TASK, "__resume__", ["first"]), messages]
    # What takes the place of another does so under its new name too, and what is there already counts.
    config = {"configurable": {**thread["configurable"], "checkpoint_id": OLD_ID}}
    saver.put_writes(config, [("__resume__", ["first", "second"])], OLD_TASK, "~path")
    saver.put_writes(config, [("messages", "other")], OLD_TASK, "~path")
    assert seen() == [(OLD_TASK, "__resume__", ["first", "second"]), messages]
    # Lists find old and new checkpoints by the same metadata.
    put(saver, "old", {"n": 4}, parent=config, step=4, user_id="u-17")
    for filter, count in (
        ({"step": 4}, 2), ({"user_id": "u-17"}, 2), ({"run_id": "r-1"}, 1), ({"step": 3}, 0),
        ({"step": 4, "run_id": "r-1"}, 1),
    ):
        assert len(list(saver.list(thread, filter=filter))) == count, filter
    saver.delete_for_runs(["r-1"])
    assert [found.metadata["user_id"] for found in saver.list(thread)] == ["u-17"]
    left = owner.execute("SELECT count(*) FROM state_log_entry WHERE key = %s", (key,)).fetchone()
    assert left == (0,)


def test_metadata_lies_in_the_document(saver, owner):
    """Where it costs what differs from the checkpoint before."""
    config = put(saver, "beside", {"n": 1}, run_id="r-2")
    saver.put_writes(config, [("n", 2)], str(uuid.UUID(int=7)))
    ((context, document),) = owner.execute(
        "SELECT h.execution_context, c.state FROM state_history(%s, 'langgraph') h"
        " JOIN state_current c ON c.class = 'langgraph' AND c.key = %s", (key_of("beside", ""),) * 2).fetchall()
    checkpoint_id = config["configurable"]["checkpoint_id"]
    assert context == {"checkpoint_id": checkpoint_id, "run_id": "r-2"}
    assert document["metadata"] == {"source": "loop", "step": 1, "parents": {}, "run_id": "r-2"}
    ((ref,),) = owner.execute("SELECT ref FROM state_log_entry WHERE key = %s", (key_of("beside", ""),)).fetchall()
    assert ref == ref_of(checkpoint_id) and len(ref) == 12


@pytest.mark.parametrize("task", ["task", "", "=", "==", "=" + "A" * 22, "=" * 23, str(uuid.UUID(int=2**128 - 1)),
                                  str(uuid.UUID(int=2**127)).upper()])
def test_names_of_tasks_in_entries(task):
    told, data = unpack(pack([task, "path", [0, "n", "null", 0]], b"data", {}, []), {})
    assert (told, data) == ([task, "path", [0, "n", "null", 0]], b"data")

"""Compares AsyncStateCacheSaver with the official AsyncPostgresSaver on one server: size, WAL and speed.

    make savers

Prints a table. Each saver has a database of its own; both get the same checkpoints and writes of tasks, those of the
recorded sessions of bench/data, and both get as many connections.
"""

import asyncio
import gzip
import json
import operator
import os
import statistics
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, TypedDict

import psycopg
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import START, StateGraph
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from state_cache.langgraph import AsyncStateCacheSaver, StateCacheSaver

SESSIONS = Path(__file__).resolve().parents[1] / "data/sessions.jsonl.gz"
POOL = 16
TASKS = 32
QUICK = "--quick" in sys.argv


class Ours:
    name = "ours"

    @staticmethod
    @asynccontextmanager
    async def open():
        options = {"autocommit": True, "prepare_threshold": 0}
        async with AsyncConnectionPool(
            "dbname=ours", min_size=POOL, max_size=POOL, kwargs=options, open=False
        ) as pool:
            yield AsyncStateCacheSaver(pool)

    @staticmethod
    async def setup():
        with psycopg.connect(dbname="ours", autocommit=True) as owner:
            owner.execute("CREATE EXTENSION state_cache")
            StateCacheSaver(owner).setup()


class Official:
    name = "official"

    @staticmethod
    @asynccontextmanager
    async def open():
        options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
        async with AsyncConnectionPool(
            "dbname=official", min_size=POOL, max_size=POOL, kwargs=options, open=False
        ) as pool:
            yield AsyncPostgresSaver(pool)

    @staticmethod
    async def setup():
        async with Official.open() as saver:
            await saver.setup()


def size(database):
    """Position of the WAL, and bytes of the tables and indexes that a saver fills."""
    with psycopg.connect(dbname=database, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        position = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()[0]
        taken = connection.execute(
            "SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class WHERE relkind = 'r'"
            " AND relname = ANY (ARRAY['checkpoints', 'checkpoint_blobs', 'checkpoint_writes', 'state_head',"
            " 'state_snapshot', 'state_log_entry'])").fetchone()[0]
        return int(position), int(taken)


async def measured(kind, work):
    """Bytes of WAL and of tables that some work takes, and its seconds. The server does nothing else."""
    wal, tables = size(kind.name)
    start = time.perf_counter()
    await work()
    seconds = time.perf_counter() - start
    with psycopg.connect(dbname=kind.name, autocommit=True) as connection:
        after = int(connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()[0])
    return after - wal, size(kind.name)[1] - tables, seconds


def recorded():
    """The sessions: lists of documents."""
    sessions = {}
    with gzip.open(SESSIONS, "rt") as lines:
        for line in lines:
            row = json.loads(line)
            state = row["state"]
            sessions.setdefault(row["run"], []).append(
                {name: state[name] for name in ("variables", "intermediate", "messages", "exports")})
    return list(sessions.values())[: 4 if QUICK else None]


async def replay(saver, thread, states):
    """A session as LangGraph stores it: the writes of a step's task, then the checkpoint that they make."""
    before, parent, versions = {}, None, {}
    for step, state in enumerate(states):
        changed = [name for name in state if state[name] != before.get(name)]
        if parent is not None:
            writes = [
                (name, state[name][len(before[name]):] if name == "messages" else state[name]) for name in changed
            ] + [("branch:to:agent", None)]
            await saver.aput_writes(parent, writes, str(uuid6()), "~__pregel_pull, agent")
        version = saver.get_next_version(max(versions.values(), default=None), None)
        seen = dict(versions)
        new = {name: version for name in [*changed, "branch:to:agent"]}
        versions = {**versions, **new}
        checkpoint = empty_checkpoint() | {
            "v": 4, "channel_values": dict(state), "channel_versions": dict(versions),
            "versions_seen": {"__input__": {}, "__start__": dict(list(seen.items())[:1]), "agent": seen},
            "updated_channels": sorted(new),
        }
        config = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
        if parent is not None:
            config["configurable"]["checkpoint_id"] = parent["configurable"]["checkpoint_id"]
        metadata = {"source": "loop", "step": step, "parents": {}, "run_id": thread, "user_id": "u-17"}
        parent = await saver.aput(config, checkpoint, metadata, new)
        before = state


def append(old, new):
    return (old or []) + [item for items in new for item in items]


class Full(TypedDict):
    items: Annotated[list, operator.add]


class Delta(TypedDict):
    items: Annotated[list, DeltaChannel(append)]


async def append_graph(saver, state, thread, steps):
    """A graph that appends a short text in each of its steps."""
    graph = StateGraph(state)
    graph.add_node("work", lambda values: {"items": [f"did step {len(values['items'])} of this graph, with care"]})
    graph.add_edge(START, "work")
    graph.add_conditional_edges("work", lambda values: "work" if len(values["items"]) < steps else "__end__")
    app = graph.compile(checkpointer=saver)
    config = {"configurable": {"thread_id": thread}, "recursion_limit": steps + 10}
    await app.ainvoke({"items": []}, config, durability="async")


class Session(TypedDict):
    variables: dict
    intermediate: dict
    exports: list
    said: Annotated[list, DeltaChannel(append)]


async def play(saver, thread, states):
    """A session as a graph whose messages are a DeltaChannel: its one node does in each step what was recorded."""
    before, left = {}, states[::-1]

    def wrapped(messages):
        # Of what has a role LangGraph would make objects of its own.
        return [{"message": message} for message in messages]

    def work(_):
        state = left.pop()
        changes = {name: state[name] for name in state if name != "messages" and state[name] != before.get(name)}
        said = wrapped(state["messages"][len(before.get("messages", ())):])
        before.update(state)
        return changes | {"said": said} if said else changes

    graph = StateGraph(Session)
    graph.add_node("agent", work)
    graph.add_edge(START, "agent")
    graph.add_conditional_edges("agent", lambda _: "agent" if left else "__end__")
    app = graph.compile(checkpointer=saver)
    config = {"configurable": {"thread_id": thread}, "recursion_limit": len(states) + 10}
    await app.ainvoke({"said": []}, config, durability="async")
    assert (await app.aget_state(config)).values["said"] == wrapped(states[-1]["messages"])


async def timed(count, make):
    """Calls a second: the median of five rounds."""
    rounds = []
    for _ in range(2 if QUICK else 5):
        start = time.perf_counter()
        for _ in range(count):
            await make()
        rounds.append(count / (time.perf_counter() - start))
    return statistics.median(rounds)


async def main():
    results = {}
    sessions = recorded()
    with psycopg.connect(dbname="postgres", autocommit=True) as connection:
        for kind in (Ours, Official):
            connection.execute(f"CREATE DATABASE {kind.name}")
    for kind in (Official, Ours):
        await kind.setup()
        async with kind.open() as saver:
            row = results[kind.name] = {}
            await replay(saver, "warm", sessions[0][:3])

            async def all_sessions():
                for number, states in enumerate(sessions):
                    await replay(saver, f"session-{number}", states)

            wal, tables, seconds = await measured(kind, all_sessions)
            row["sessions: WAL, kB"], row["sessions: tables and indexes, kB"] = wal / 1024, tables / 1024
            row["sessions: one after the other, checkpoints/s"] = sum(map(len, sessions)) / seconds

            async def all_played():
                for number, states in enumerate(sessions):
                    await play(saver, f"played-{number}", states)

            wal, tables, _ = await measured(kind, all_played)
            name = "sessions, DeltaChannel"
            row[f"{name}: WAL, kB"], row[f"{name}: tables and indexes, kB"] = wal / 1024, tables / 1024

            steps = 50 if QUICK else 200
            for name, state in (("append graph", Full), ("append graph, DeltaChannel", Delta)):
                wal, tables, _ = await measured(kind, lambda: append_graph(saver, state, name, steps))
                row[f"{name}: WAL, kB"], row[f"{name}: tables and indexes, kB"] = wal / 1024, tables / 1024

            count = sum(len(states[:20]) for states in sessions)
            start = time.perf_counter()
            await asyncio.gather(*(
                replay(saver, f"beside-{number}", sessions[number % len(sessions)][:20]) for number in range(TASKS)))
            count = sum(len(sessions[number % len(sessions)][:20]) for number in range(TASKS))
            row[f"{TASKS} tasks, {POOL} connections: checkpoints/s"] = count / (time.perf_counter() - start)

            config = {"configurable": {"thread_id": "session-0"}}
            found = await saver.aget_tuple(config)
            assert found.checkpoint["channel_values"]["messages"] == sessions[0][-1]["messages"]
            row["aget_tuple of the newest, calls/s"] = await timed(200, lambda: saver.aget_tuple(config))

            async def listing():
                found = [it async for it in saver.alist(config, filter={"source": "loop"}, limit=100)]
                assert len(found) == min(len(sessions[0]), 100)

            row[f"alist of {min(len(sessions[0]), 100)} with a filter, calls/s"] = await timed(5, listing)
    print(f"{'':58} {'official':>10} {'ours':>10}")
    for name, official in results["official"].items():
        ours = results["ours"][name]
        ratio = official / ours if name.endswith("kB") else ours / official
        print(f"{name:58} {official:10,.0f} {ours:10,.0f} {ratio:6.1f} x")


if __name__ == "__main__":
    assert os.environ.get("PGHOST"), "run through make savers"
    asyncio.run(main())

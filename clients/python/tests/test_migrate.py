"""Checkpoints of the official saver move, are compared, and graphs go on with them."""

import subprocess
import sys

import psycopg
import pytest
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.types import Command
from test_graphs import GRAPHS, inputs, told

from state_cache.langgraph import StateCacheSaver


@pytest.fixture(scope="module")
def old(database):
    name = database + "_old"
    with psycopg.connect(dbname="postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name}")
    with PostgresSaver.from_conn_string(f"dbname={name}") as saver:
        saver.setup()
        for graph, make in GRAPHS.items():
            app = make().compile(checkpointer=saver)
            given = inputs(graph)
            # The graph that asks stays in the middle.
            for one in given[:2] if graph == "asking" else given:
                app.invoke(one, {"configurable": {"thread_id": graph}})
    return f"dbname={name}"


def test_all_threads(old, conninfo, environment):
    command = [sys.executable, "-m", "state_cache.langgraph.migrate", old, conninfo, "--schema", "states"]
    first = subprocess.run([*command, "--verify-only"], env=environment, capture_output=True, text=True)
    assert first.returncode == 1 and "not there" in first.stdout
    for expected in ("0 there already", "0 checkpoints"):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout == "", done.stdout + done.stderr
        assert expected in done.stderr and f"{len(GRAPHS)} of {len(GRAPHS)} threads" in done.stderr
    with PostgresSaver.from_conn_string(old) as official, \
            StateCacheSaver.from_conn_string(conninfo, schema="states") as saver:
        for graph, make in GRAPHS.items():
            config = {"configurable": {"thread_id": graph}}
            seen = [
                [told(state) for state in make().compile(checkpointer=each).get_state_history(config)]
                for each in (official, saver)
            ]
            assert seen[0] == seen[1] and seen[0]
        app = GRAPHS["asking"]().compile(checkpointer=saver)
        done = app.invoke(Command(resume="yes"), {"configurable": {"thread_id": "asking"}})
        assert done["answer"] == "anna-beside-in-yes"


def test_what_is_different_is_told(old, conninfo, environment):
    with psycopg.connect(old, autocommit=True) as connection:
        connection.execute("UPDATE checkpoints SET metadata = metadata || '{\"step\": 99}' WHERE thread_id = 'chat'")
    command = [
        sys.executable, "-m", "state_cache.langgraph.migrate", old, conninfo, "--schema", "states", "--verify-only",
        "--thread", "chat"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "chat" in done.stdout and "different" in done.stdout

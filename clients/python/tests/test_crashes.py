"""kill -9 of the process in mid-graph, and of the server: the run goes on, no step twice, no write lost."""

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from conftest import ROOT

GRAPH = textwrap.dedent("""
    import operator, os, sys, time
    from pathlib import Path
    from typing import Annotated, TypedDict
    from langgraph.graph import START, StateGraph
    from state_cache.langgraph import StateCacheSaver

    class State(TypedDict):
        items: Annotated[list, operator.add]

    ran = Path(sys.argv[1])

    def note(name):
        with ran.open("a") as file:
            file.write(name + "\\n")

    def step(number):
        def work(state):
            note(str(number))
            return {"items": [number]}
        return work

    def beside(state):
        # Waits until the writes of its neighbour are stored, then kills.
        note("beside")
        if ran.read_text().count("beside") == 1:
            end = time.monotonic() + 60
            while not any(value == [2] for _, _, value in saver.get_tuple(config).pending_writes):
                assert time.monotonic() < end
                time.sleep(0.01)
            kill()
        return {"items": ["beside"]}

    graph = StateGraph(State)
    for number in range(4):
        graph.add_node(f"s{number}", step(number))
    graph.add_node("beside", beside)
    graph.add_edge(START, "s0")
    graph.add_edge("s0", "s1")
    graph.add_edge("s1", "s2")
    graph.add_edge("s1", "beside")
    graph.add_edge(["s2", "beside"], "s3")
    config = {"configurable": {"thread_id": "killed"}}
""")

PROCESS = GRAPH + textwrap.dedent("""
    import signal
    def kill():
        os.kill(os.getpid(), signal.SIGKILL)
    with StateCacheSaver.from_conn_string(sys.argv[2], schema="states") as saver:
        app = graph.compile(checkpointer=saver)
        begun = saver.get_tuple(config) is not None
        print(sorted(map(str, app.invoke(None if begun else {"items": []}, config, durability="sync")["items"])))
""")

SERVER = GRAPH + textwrap.dedent("""
    import psycopg, signal
    def kill():
        # The server restarts when one of its processes dies so.
        with psycopg.connect("dbname=state_cache", autocommit=True) as victim:
            os.kill(victim.info.backend_pid, signal.SIGKILL)
        time.sleep(0.2)
    with psycopg.connect(autocommit=True) as owner:
        StateCacheSaver(owner).setup()
    with StateCacheSaver.from_conn_string("") as saver:
        app = graph.compile(checkpointer=saver)
        begun = False
        for attempt in range(50):
            try:
                begun = saver.get_tuple(config) is not None
                done = app.invoke(None if begun else {"items": []}, config, durability="sync")
                print(attempt, sorted(map(str, done["items"])))
                break
            except psycopg.Error as error:
                print(type(error).__name__, file=sys.stderr)
                time.sleep(0.2)
""")

MANY = textwrap.dedent("""
    import operator, sys
    from pathlib import Path
    from typing import Annotated, TypedDict
    from langgraph.graph import START, StateGraph
    from state_cache.langgraph import StateCacheSaver

    class State(TypedDict):
        items: Annotated[list, operator.add]

    def work(state):
        with Path(sys.argv[1]).open("a") as file:
            file.write(f"{len(state['items'])}\\n")
        return {"items": [len(state["items"])]}

    graph = StateGraph(State)
    graph.add_node("work", work)
    graph.add_edge(START, "work")
    graph.add_conditional_edges("work", lambda state: "work" if len(state["items"]) < 60 else "__end__")
    config = {"configurable": {"thread_id": "killed often"}, "recursion_limit": 100}
    with StateCacheSaver.from_conn_string(sys.argv[2], schema="states") as saver:
        begun = saver.get_tuple(config) is not None
        app = graph.compile(checkpointer=saver)
        app.invoke(None if begun else {"items": []}, config, durability="sync")
        assert [state.values["items"] for state in app.get_state_history(config)][:61] == [
            list(range(length)) for length in range(60, -1, -1)]
        print(app.get_state(config).values["items"])
""")

ALL = "['0', '1', '2', '3', 'beside']"


def runs(ran: Path):
    return sorted(ran.read_text().split())


def test_the_process(conninfo, tmp_path, environment):
    ran, script = tmp_path / "ran", tmp_path / "process.py"
    script.write_text(PROCESS)
    command = [sys.executable, script, ran, conninfo]
    first = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert first.returncode == -signal.SIGKILL, first.stderr
    second = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert second.stdout.strip() == ALL, second.stderr
    assert runs(ran) == ["0", "1", "2", "3", "beside", "beside"]


def test_the_process_again_and_again(conninfo, tmp_path, environment):
    """Whatever the moment: each step is in the state once, and only one that was under way ran again."""
    ran, script = tmp_path / "ran", tmp_path / "many.py"
    ran.touch()
    script.write_text(MANY)
    command = [sys.executable, script, ran, conninfo]
    kills = 0
    for already in (1, 20, 45):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        while process.poll() is None and len(runs(ran)) < already + kills:
            time.sleep(0.005)
        process.kill()
        kills += process.wait(timeout=60) == -signal.SIGKILL
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == str(list(range(60))), done.stderr
    steps = runs(ran)
    assert kills > 0 and set(steps) == set(map(str, range(60))) and len(steps) <= 60 + kills, (kills, steps)


def test_the_server(tmp_path, environment):
    ran, script = tmp_path / "ran", tmp_path / "server.py"
    script.write_text(SERVER)
    # Safe on disk, unlike the server of the other tests.
    done = subprocess.run(
        [ROOT / "scripts/with-server", "--conf", "restart_after_crash = on", "--", sys.executable, script, ran],
        env=environment, capture_output=True, text=True, timeout=300)
    assert ALL in done.stdout, done.stdout + done.stderr
    found = runs(ran)
    assert set(found) == {"0", "1", "2", "3", "beside"} and found.count("2") == 1, found

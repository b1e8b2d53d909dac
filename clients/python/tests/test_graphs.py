"""Real graphs give with this saver what they give with InMemorySaver."""

import asyncio
import operator
import re
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, Send, interrupt

from state_cache.langgraph import AsyncStateCacheSaver, StateCacheSaver


class State(TypedDict, total=False):
    items: Annotated[list, operator.add]
    messages: Annotated[list[AnyMessage], add_messages]
    table: dict
    answer: str


def fan_out():
    """Send to as many tasks as there are items."""
    graph = StateGraph(State)
    graph.add_node("plan", lambda state: {"items": ["planned"]})
    graph.add_node("work", lambda state: {"items": [f"did {state['n']}"]})
    graph.add_node("end", lambda state: {"answer": f"{len(state['items'])} done", "table": {"b": 1, "a": (1, 2)}})
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", lambda state: [Send("work", {"n": n}) for n in range(5)], ["work"])
    graph.add_edge("work", "end")
    graph.add_edge("end", END)
    return graph


def asking():
    """Two interrupts in one node, beside a node that goes through."""

    def ask(state):
        first = interrupt({"question": "who?"})
        second = interrupt({"question": "sure?", "of": first})
        return {"items": [first, second]}

    graph = StateGraph(State)
    graph.add_node("ask", ask)
    graph.add_node("beside", lambda state: {"items": ["beside"]})
    graph.add_node("end", lambda state: {"answer": "-".join(sorted(state["items"]))})
    graph.add_edge(START, "ask")
    graph.add_edge(START, "beside")
    graph.add_edge(["ask", "beside"], "end")
    graph.add_edge("end", END)
    return graph


def nested():
    """A subgraph within a subgraph, each with its own namespace, and an interrupt at the bottom."""

    def bottom(state):
        return {"items": ["bottom", interrupt("deep")]}

    inner = StateGraph(State)
    inner.add_node("bottom", bottom)
    inner.add_edge(START, "bottom")
    middle = StateGraph(State)
    middle.add_node("before", lambda state: {"items": ["middle"]})
    middle.add_node("inner", inner.compile())
    middle.add_edge(START, "before")
    middle.add_edge("before", "inner")
    outer = StateGraph(State)
    outer.add_node("middle", middle.compile())
    outer.add_edge(START, "middle")
    return outer


def deep():
    """Six namespaces, each in the one before, and an interrupt in the last."""

    def bottom(state):
        return {"items": [interrupt("how deep?")]}

    node = bottom
    for depth in range(6, -1, -1):
        graph = StateGraph(State)
        graph.add_node(f"at{depth}", node)
        graph.add_edge(START, f"at{depth}")
        node = graph.compile()
    return graph


def chat():
    graph = StateGraph(State)
    graph.add_node("answer", lambda state: {
        "messages": [AIMessage(f"{len(state['messages'])} \u00fc \U0001f600", id=f"a{len(state['messages'])}")]})
    graph.add_edge(START, "answer")
    return graph


def plain(value: Any) -> Any:
    """Without what differs from run to run."""
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{32}", "ID", repr(value))


def told(snapshot):
    return (
        plain(snapshot.values), snapshot.next,
        plain(sorted(
            (key, value) for key, value in (snapshot.metadata or {}).items() if key != "parents")),
        plain(sorted((task.name, task.interrupts, task.error, plain(task.result)) for task in snapshot.tasks)),
    )


def inputs(name):
    if name == "chat":
        return [{"messages": [HumanMessage("hi", id="h1")]}, {"messages": [HumanMessage("again", id="h2")]}]
    if name == "asking":
        return [{"items": ["in"]}, Command(resume="anna"), Command(resume="yes")]
    if name in ("nested", "deep"):
        return [{"items": ["in"]}, Command(resume="resumed")]
    return [{"items": ["in"]}]


GRAPHS = {"fan_out": fan_out, "asking": asking, "nested": nested, "deep": deep, "chat": chat}
MODES = ["sync", "async", "exit"]


def play(saver, name, durability):
    """Runs a graph, goes back in time, forks; all that can be seen of it."""
    graph = GRAPHS[name]().compile(checkpointer=saver)
    config = {"configurable": {"thread_id": f"{name}-{durability}", "user": "u\u00e9"}, "tags": ["t"]}
    seen = []
    for given in inputs(name):
        seen.append(plain(sorted(map(plain, graph.stream(given, config, durability=durability)))))
    history = list(graph.get_state_history(config))
    seen.append([told(snapshot) for snapshot in history])
    seen.append(told(graph.get_state(config, subgraphs=True)))
    middle = history[len(history) // 2]
    seen.append(told(graph.get_state(middle.config)))
    # A fork, and its future.
    forked = graph.update_state(middle.config, {"items": ["forked"]})
    seen.append(told(graph.get_state(forked)))
    if not any(task.interrupts for task in middle.tasks):
        seen.append(plain(sorted(map(plain, graph.stream(None, forked, durability=durability)))))
    seen.append([told(snapshot) for snapshot in graph.get_state_history(config)])
    seen.append([
        told(snapshot) for snapshot in graph.get_state_history(config, filter={"source": "loop"}, limit=2)])
    seen.append([told(snapshot) for snapshot in graph.get_state_history(config, before=middle.config)])
    return seen


@pytest.mark.parametrize("durability", MODES)
@pytest.mark.parametrize("name", GRAPHS)
def test_same_as_in_memory(conninfo, name, durability):
    expected = play(InMemorySaver(), name, durability)
    with StateCacheSaver.from_conn_string(conninfo, schema="states") as saver:
        found = play(saver, name, durability)
    assert found == expected


@pytest.mark.parametrize("durability", MODES)
@pytest.mark.parametrize("name", GRAPHS)
def test_same_under_asyncio(conninfo, name, durability):
    async def play(saver, thread):
        graph = GRAPHS[name]().compile(checkpointer=saver)
        config = {"configurable": {"thread_id": thread}}
        seen = []
        for given in inputs(name):
            seen.append(sorted([plain(event) async for event in graph.astream(given, config, durability=durability)]))
        history = [snapshot async for snapshot in graph.aget_state_history(config)]
        seen.append([told(snapshot) for snapshot in history])
        forked = await graph.aupdate_state(history[-1].config, {"items": ["forked"]})
        seen.append(told(await graph.aget_state(forked)))
        return seen

    async def main():
        expected = await play(InMemorySaver(), "thread")
        async with AsyncStateCacheSaver.from_conn_string(conninfo, schema="states") as saver:
            assert await play(saver, f"a-{name}-{durability}") == expected

    asyncio.run(main())


def test_six_namespaces(conninfo):
    with StateCacheSaver.from_conn_string(conninfo, schema="states") as saver:
        config = {"configurable": {"thread_id": "six"}}
        app = deep().compile(checkpointer=saver)
        app.invoke({"items": []}, config)
        namespaces = {found.config["configurable"]["checkpoint_ns"] for found in saver.list(config)}
        assert sorted(name.count("|") for name in namespaces if name) == [0, 1, 2, 3, 4, 5]
        app.invoke(Command(resume="six"), config)
        assert app.get_state(config).values["items"] == ["six"]


def test_tasks_that_ended_are_not_run_again(conninfo):
    """Of a step that failed, the tasks that went well keep what they wrote."""
    runs = []

    def good(state):
        runs.append("good")
        return {"items": ["good"]}

    def bad(state):
        runs.append("bad")
        if runs.count("bad") == 1:
            raise ValueError("the first time")
        return {"items": ["bad"]}

    graph = StateGraph(State)
    graph.add_node("good", good)
    graph.add_node("bad", bad)
    graph.add_edge(START, "good")
    graph.add_edge(START, "bad")
    config = {"configurable": {"thread_id": "failing"}}
    with StateCacheSaver.from_conn_string(conninfo, schema="states") as saver:
        app = graph.compile(checkpointer=saver)
        with pytest.raises(ValueError):
            app.invoke({"items": []}, config)
        assert sorted(app.invoke(None, config)["items"]) == ["bad", "good"]
    assert sorted(runs) == ["bad", "bad", "good"]

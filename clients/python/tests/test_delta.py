"""DeltaChannels: their histories, and that pruning keeps what they are made of."""

import asyncio
from typing import Annotated, TypedDict

import pytest
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

from state_cache.langgraph import AsyncStateCacheSaver, StateCacheSaver


def append(old, new):
    return (old or []) + [item for items in new for item in items]


def graph(frequency):
    class State(TypedDict):
        items: Annotated[list, DeltaChannel(append, snapshot_frequency=frequency)]

    made = StateGraph(State)
    made.add_node("work", lambda state: {"items": [len(state["items"])]})
    made.add_edge(START, "work")
    made.add_conditional_edges("work", lambda state: "work" if len(state["items"]) % 40 else "__end__")
    return made


def history(saver, config):
    found = saver.get_delta_channel_history(config=config, channels=["items", "none"])
    return {
        channel: ([write[1:] for write in each["writes"]], repr(each.get("seed"))) for channel, each in found.items()
    }


@pytest.mark.parametrize("frequency", [1, 7, 1000])
def test_histories(conninfo, frequency):
    config = {"configurable": {"thread_id": f"delta-{frequency}", "checkpoint_ns": ""}, "recursion_limit": 200}
    memory = InMemorySaver()
    with StateCacheSaver.from_conn_string(conninfo, schema="states") as saver:
        for each in (memory, saver):
            app = graph(frequency).compile(checkpointer=each)
            app.invoke({"items": ["in"]}, config, durability="sync")
            app.invoke({"items": ["again"]}, config, durability="sync")
        expected = [state.values for state in graph(frequency).compile(checkpointer=memory).get_state_history(config)]
        app = graph(frequency).compile(checkpointer=saver)
        assert [state.values for state in app.get_state_history(config)] == expected
        assert len(expected) > 80 and len(expected[0]["items"]) == 80
        assert history(saver, config) == history(memory, config)
        before = expected[0]
        saver.prune([f"delta-{frequency}"])
        assert app.get_state(config).values == before
        left = len(list(saver.list(config)))
        assert left <= {1: 2, 7: 10, 1000: 200}[frequency]
        assert app.invoke({"items": ["more"]}, config)["items"][:80] == before["items"]


def test_under_asyncio(conninfo):
    async def main():
        config = {"configurable": {"thread_id": "delta-async"}, "recursion_limit": 200}
        async with AsyncStateCacheSaver.from_conn_string(conninfo, schema="states") as saver:
            app = graph(1000).compile(checkpointer=saver)
            done = await app.ainvoke({"items": ["in"]}, config)
            assert (await app.aget_state(config)).values == done and len(done["items"]) == 40

    asyncio.run(main())

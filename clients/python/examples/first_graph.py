"""Five minutes with LangGraph: docs/clients/langgraph.md shows parts of this program.

Connects as libpq does (PGHOST, PGDATABASE, ...). Exits with 0 when everything came out as the page says.
"""

# docs: graph
from typing import Annotated, TypedDict

from langchain_core.messages import AIMessage, AnyMessage
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages

from state_cache.langgraph import StateCacheSaver


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def answer(state):
    return {"messages": [AIMessage(f"You have said {len(state['messages'])} things.")]}


builder = StateGraph(State)
builder.add_node("answer", answer)
builder.add_edge(START, "answer")

with StateCacheSaver.from_conn_string("") as saver:    # a connection string: "dbname=app"
    saver.setup()    # once, as the owner of the extension
    graph = builder.compile(checkpointer=saver)
    config = {"configurable": {"thread_id": "thread-1"}}
    graph.invoke({"messages": [("user", "hello")]}, config)
    graph.invoke({"messages": [("user", "hello again")]}, config)
    print(graph.get_state(config).values["messages"][-1].content)    # You have said 3 things.
# docs: end

    assert graph.get_state(config).values["messages"][-1].content.startswith("You have said")
    # docs: travel
    past = list(graph.get_state_history(config))
    print(len(past), "checkpoints")
    fork = graph.update_state(past[2].config, {"messages": [("user", "something else")]})
    graph.invoke(None, fork)
    # docs: end

    # docs: admin
    saver.copy_thread("thread-1", "thread-2")    # all checkpoints, all namespaces
    saver.delete_thread("thread-1")              # erased: no function can read it again
    # docs: end
    assert graph.get_state({"configurable": {"thread_id": "thread-2"}}).values["messages"]
    saver.delete_thread("thread-2")


async def under_asyncio():
    # docs: async
    from psycopg_pool import AsyncConnectionPool

    from state_cache.langgraph import AsyncStateCacheSaver

    options = {"autocommit": True}
    async with AsyncConnectionPool("", min_size=1, max_size=16, kwargs=options, open=False) as pool:
        saver = AsyncStateCacheSaver(pool)
        graph = builder.compile(checkpointer=saver)
        config = {"configurable": {"thread_id": "thread-3"}}
        await graph.ainvoke({"messages": [("user", "hello")]}, config)
    # docs: end
        await saver.adelete_thread("thread-3")


if __name__ == "__main__":
    import asyncio

    asyncio.run(under_asyncio())
    print("first_graph: ok")

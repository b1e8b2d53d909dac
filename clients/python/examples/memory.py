"""Memory and sessions: docs/clients/agent-frameworks.md shows parts of this program.

Connects as libpq does (PGHOST, PGDATABASE, ...). Exits with 0 when everything came out as the page says.
"""

import asyncio

from agents import Agent, Model, ModelResponse, Runner, Usage

# docs: store
from state_cache.langgraph import StateCacheStore

with StateCacheStore.from_conn_string("", ttl={"refresh_on_read": True}) as store:
    store.setup()    # once, as the owner of the extension
    store.put(("users", "anna"), "preferences", {"color": "red", "n": 3}, ttl=60 * 24)    # minutes
    print(store.get(("users", "anna"), "preferences").value)
    print(store.search(("users",), filter={"n": {"$gt": 2}}))
# docs: end
    assert len(store.search(("users",), filter={"n": {"$gt": 2}})) == 1


class Silent(Model):
    async def get_response(self, *arguments, **options):
        return ModelResponse(output=[], usage=Usage(), response_id=None)

    def stream_response(self, *arguments, **options):
        raise NotImplementedError


# docs: session
from state_cache import AsyncStateCache
from state_cache.openai_agents import StateCacheSession

async def converse(agent):
    async with AsyncStateCache("") as client:
        await StateCacheSession.setup(client)    # once, as the owner of the extension
        session = StateCacheSession("user-17", client)
        return await Runner.run(agent, "hello", session=session)
# docs: end


async def check():
    try:
        await asyncio.wait_for(converse(Agent(name="silent", model=Silent())), 20)
    except Exception as error:    # the model says nothing: turns run out
        assert "max turns" in str(error).lower(), error
    async with AsyncStateCache("") as client:
        assert (await StateCacheSession("user-17", client).get_items())[0]["content"] == "hello"


asyncio.run(check())
print("memory: ok")

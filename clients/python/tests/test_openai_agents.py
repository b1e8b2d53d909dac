"""Sessions of the OpenAI Agents SDK: as its own session on SQLite, and run by its Runner."""

import asyncio

import pytest
from agents import Agent, Runner, SQLiteSession, set_tracing_disabled
from agents.items import ModelResponse
from agents.memory import Session, SessionSettings
from agents.models.interface import Model
from agents.usage import Usage
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

from state_cache import AsyncStateCache
from state_cache.openai_agents import StateCacheSession

# Nothing is sent to anybody.
set_tracing_disabled(True)


@pytest.fixture(scope="module", autouse=True)
def defined(database):
    async def main():
        async with AsyncStateCache(f"dbname={database}", schema="states") as client:
            await StateCacheSession.setup(client)
            await StateCacheSession.setup(client)

    asyncio.run(main())


def with_client(work, conninfo):
    async def main():
        async with AsyncStateCache(conninfo, schema="states") as client:
            await work(client)

    asyncio.run(main())


@pytest.mark.parametrize("name", ["user-1", "", "\0", "\u00fc" * 300, "%habc", "x" * 1000])
def test_as_on_sqlite(conninfo, name):
    async def work(client):
        sqlite, ours = SQLiteSession("it"), StateCacheSession(name, client)
        assert isinstance(ours, Session)
        for session in (sqlite, ours):
            await session.add_items([])
            await session.add_items(
                [{"role": "user", "content": f"{n} a\0b \ud83d", "b": n, "a": 1.0} for n in range(3)])
            await session.add_items([{"role": "assistant", "content": "x" * 100_000}])
        for limit in (None, 0, 1, 2, 10, -1):
            assert repr(await ours.get_items(limit)) == repr(await sqlite.get_items(limit)), limit
        for _ in range(5):
            assert await ours.pop_item() == await sqlite.pop_item()
        await ours.add_items([{"role": "user", "content": "again"}])
        ours.session_settings = SessionSettings(limit=1)
        assert len(await ours.get_items()) == 1
        await ours.clear_session()
        assert await ours.get_items() == [] and await ours.pop_item() is None

    with_client(work, conninfo)


def test_at_once(conninfo):
    async def work(client):
        session = StateCacheSession("busy", client)
        await asyncio.gather(*(session.add_items([{"n": n}, {"n": n, "second": True}]) for n in range(40)))
        items = await session.get_items()
        assert len(items) == 80
        assert all(one["n"] == other["n"] and "second" in other for one, other in zip(items[::2], items[1::2]))
        popped = await asyncio.gather(*(session.pop_item() for _ in range(20)))
        assert len({repr(item) for item in popped}) == 20

    with_client(work, conninfo)


class Echo(Model):
    """Says how much it was sent."""

    async def get_response(self, system_instructions, input, *arguments, **options):
        text = ResponseOutputText(annotations=[], text=f"{len(input)} items", type="output_text")
        message = ResponseOutputMessage(
            id="m", content=[text], role="assistant", status="completed", type="message")
        return ModelResponse(output=[message], usage=Usage(), response_id=None)

    def stream_response(self, *arguments, **options):
        raise NotImplementedError


def test_the_runner(conninfo):
    async def work(client):
        agent = Agent(name="echo", model=Echo())
        for turn in range(3):
            # A process of its own each time.
            session = StateCacheSession("runner", client)
            done = await Runner.run(agent, f"turn {turn}", session=session)
            assert done.final_output == f"{2 * turn + 1} items"
        assert len(await session.get_items()) == 6

    with_client(work, conninfo)

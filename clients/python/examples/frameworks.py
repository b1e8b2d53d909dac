"""Google's ADK and Microsoft's Agent Framework: docs/clients/agent-frameworks.md shows parts of this program.

Connects as libpq does (PGHOST, PGDATABASE, ...). Exits with 0 when everything came out as the page says.
"""

import asyncio
import uuid

from agent_framework import WorkflowBuilder, WorkflowContext, executor
from google.adk.agents import BaseAgent
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.runners import Runner
from google.genai import types

from state_cache import AsyncStateCache


class Counting(BaseAgent):
    async def _run_async_impl(self, context):
        count = context.session.state.get("count", 0) + 1
        yield Event(
            author=self.name, invocation_id=context.invocation_id, actions=EventActions(state_delta={"count": count}))


# docs: adk
from state_cache.google_adk import StateCacheSessionService

async def talk(agent, session_id):
    async with AsyncStateCache("") as client:
        service = StateCacheSessionService(client)
        await service.setup()    # once, as the owner of the extension
        await service.create_session(app_name="app", user_id="anna", session_id=session_id)
        runner = Runner(app_name="app", agent=agent, session_service=service)
        message = types.Content(role="user", parts=[types.Part(text="hello")])
        async for event in runner.run_async(user_id="anna", session_id=session_id, new_message=message):
            print(event.actions.state_delta)
        return await service.get_session(app_name="app", user_id="anna", session_id=session_id)
# docs: end


@executor(id="adding")
async def adding(number: int, context: WorkflowContext[int, int]) -> None:
    await (context.yield_output(number) if number == 3 else context.send_message(number + 1))


# docs: workflow
from state_cache.agent_framework import StateCacheCheckpointStorage

async def count(first):
    async with AsyncStateCache("") as client:
        storage = StateCacheCheckpointStorage(client)
        await storage.setup()    # once, as the owner of the extension
        def build():
            builder = WorkflowBuilder(start_executor=first, checkpoint_storage=storage, name="counting")
            return builder.add_edge(first, first).build()

        print((await build().run(1)).get_outputs())
        # In another process, later:
        for checkpoint in await storage.list_checkpoints(workflow_name="counting"):
            print(checkpoint.iteration_count, checkpoint.messages)
        return (await build().run(checkpoint_id=checkpoint.previous_checkpoint_id)).get_outputs()
# docs: end


async def check():
    session = await talk(Counting(name="counting"), str(uuid.uuid4()))
    assert session.state["count"] == 1 and len(session.events) == 2
    assert await count(adding) == [3]


asyncio.run(check())
print("frameworks: ok")

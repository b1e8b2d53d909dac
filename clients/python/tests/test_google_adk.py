"""Sessions of Google's ADK: as its own services keep them, and run by its Runner."""

import asyncio
import copy
import math
from contextlib import asynccontextmanager

import pytest
from google.adk.agents import BaseAgent, LlmAgent
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.models import BaseLlm, LlmRequest, LlmResponse
from google.adk.runners import Runner
from google.adk.sessions import InMemorySessionService
from google.adk.sessions.base_session_service import GetSessionConfig
from google.genai import types

from state_cache import AsyncStateCache
from state_cache.google_adk import StaleSessionError, StateCacheSessionService


@pytest.fixture(scope="module", autouse=True)
def defined(database):
    async def main():
        async with AsyncStateCache(f"dbname={database}", schema="states") as client:
            await StateCacheSessionService(client).setup()
            await StateCacheSessionService(client).setup()

    asyncio.run(main())


@asynccontextmanager
async def service_of(conninfo):
    async with AsyncStateCache(conninfo, schema="states") as client:
        yield StateCacheSessionService(client)


def event(number=0, **delta):
    return Event(
        id=f"e{number}", invocation_id="i", author="agent", timestamp=1000.0 + number,
        content=types.Content(role="model", parts=[types.Part(text=f"text {number} \u00fc a\0b")]),
        actions=EventActions(state_delta=delta))


def seen(session):
    if session is None:
        return None
    return (
        session.app_name, session.user_id, session.id, repr(sorted(session.state.items())),
        [each.model_dump() for each in session.events])


async def play(service, app):
    """What a service says in the course of two sessions of two users."""
    said = []

    async def look(user, name, **config):
        found = await service.get_session(
            app_name=app, user_id=user, session_id=name, config=GetSessionConfig(**config) if config else None)
        said.append(seen(found))
        return found

    await look("anna", "one")
    one = await service.create_session(
        app_name=app, user_id="anna", session_id=" one ", state={
            "n": 1, "temp:gone": 1, "user:color": "red", "app:limit": [1, {"b": 1, "a": 2.0}], "odd\0": "a\0b",
            "huge": 2**70, "infinite": math.inf, "deep": {"z": {"y": None}}})
    said.append(seen(one))
    with pytest.raises(AlreadyExistsError):
        await service.create_session(app_name=app, user_id="anna", session_id="one")
    for number in range(6):
        added = event(number, **{"n": number, f"k{number}": [number], "user:seen": number, "temp:t": number})
        said.append((await service.append_event(one, added)).model_dump())
        said.append(repr(sorted(one.state.items())))
    said.append(one.last_update_time)
    partial = event(99)
    partial.partial = True
    await service.append_event(one, partial)
    for config in ({}, {"num_recent_events": 2}, {"num_recent_events": 0}, {"num_recent_events": 50},
                   {"after_timestamp": 1003.0}, {"after_timestamp": 5000.0},
                   {"num_recent_events": 4, "after_timestamp": 1004.0}):
        await look("anna", "one", **config)
    two = await service.create_session(app_name=app, user_id="\u00fc\x1f%" * 200, session_id="x" * 500)
    said.append(seen(two))
    await service.append_event(two, event(7, **{"app:limit": None, "user:seen": "other", "only": "here"}))
    await look("anna", "one")
    await look(two.user_id, two.id)
    await look("nobody", "one")
    for user in ("anna", None, "nobody"):
        found = await service.list_sessions(app_name=app, user_id=user)
        said.append([seen(each) for each in found.sessions])
    said.append(await service.get_user_state(app_name=app, user_id="anna"))
    said.append(await service.get_user_state(app_name=app, user_id="nobody"))
    await service.delete_session(app_name=app, user_id="anna", session_id="one")
    await service.delete_session(app_name=app, user_id="anna", session_id="one")
    await look("anna", "one")
    with pytest.raises(SessionNotFoundError):
        await service.append_event(one, event(8))
    # Made again it has nothing of before, but what its user and application share.
    again = await service.create_session(app_name=app, user_id="anna", session_id="one")
    said.append(seen(again))
    await look("anna", "one")
    return said


@pytest.mark.parametrize("app", ["app", "a\x1f\ud83d%" * 100])
def test_as_in_memory(conninfo, app):
    async def main():
        expected = await play(InMemorySessionService(), app)
        async with service_of(conninfo) as service:
            found = await play(service, app)
        for number, (one, other) in enumerate(zip(found, expected)):
            assert one == other, number
        assert len(found) == len(expected) > 30

    asyncio.run(main())


def test_a_stale_session_appends_nothing(conninfo):
    async def main():
        async with service_of(conninfo) as service, service_of(conninfo) as elsewhere:
            name = {"app_name": "stale", "user_id": "u", "session_id": "s"}
            mine = await service.create_session(**name)
            other = await elsewhere.get_session(**name)
            unmarked = copy.deepcopy(mine)
            unmarked._storage_update_marker = None
            # The same time and the same contents: the version alone tells.
            await service.append_event(mine, event(0))
            for stale in (other, unmarked):
                with pytest.raises(StaleSessionError):
                    await elsewhere.append_event(stale, event(0, **{"user:lost": 1, "lost": 1}))
            found = await elsewhere.get_session(**name)
            assert len(found.events) == 1 and found.state == {}
            assert await elsewhere.get_user_state(app_name="stale", user_id="u") == {}
            await elsewhere.append_event(found, event(1))
            with pytest.raises(StaleSessionError):
                await service.append_event(mine, event(2))

    asyncio.run(main())


def test_at_once(conninfo):
    """Of several processes one appends at a time, and what they share is all there."""

    async def main():
        async with service_of(conninfo) as one, service_of(conninfo) as two:
            name = {"app_name": "busy", "user_id": "u", "session_id": "s"}
            await one.create_session(**name)

            async def add(service, number):
                while True:
                    session = await service.get_session(**name)
                    try:
                        await service.append_event(session, event(number, **{f"user:k{number}": 1, f"n{number}": 1}))
                        return
                    except StaleSessionError:
                        continue

            await asyncio.gather(*(add((one, two)[number % 2], number) for number in range(20)))
            found = await one.get_session(**name)
            assert sorted(each.id for each in found.events) == sorted(f"e{number}" for number in range(20))
            for number in range(20):
                assert found.state[f"n{number}"] == 1 and found.state[f"user:k{number}"] == 1
            # One object, many tasks of one process, as parallel agents append.
            shared = await one.create_session(app_name="busy", user_id="u", session_id="shared")
            await asyncio.gather(*(one.append_event(shared, event(number)) for number in range(20)))
            found = await two.get_session(app_name="busy", user_id="u", session_id="shared")
            assert [each.id for each in found.events] == [each.id for each in shared.events]
            assert len(found.events) == 20
            # Many sessions of one application write what they share.
            sessions = [await one.create_session(app_name="busy", user_id=f"u{n}") for n in range(16)]
            await asyncio.gather(*(
                (one, two)[n % 2].append_event(session, event(0, **{f"app:a{n}": n}))
                for n, session in enumerate(sessions)))
            found = await one.get_session(app_name="busy", user_id="u0", session_id=sessions[0].id)
            assert {name: value for name, value in found.state.items() if name.startswith("app:a")} == {
                f"app:a{n}": n for n in range(16)}

    asyncio.run(main())


class Echo(BaseLlm):
    """Says how many contents it was sent."""

    async def generate_content_async(self, llm_request: LlmRequest, stream: bool = False):
        yield LlmResponse(content=types.Content(
            role="model", parts=[types.Part(text=f"{len(llm_request.contents)} contents")]))


class Counting(BaseAgent):
    """Changes the state by its events."""

    async def _run_async_impl(self, context):
        count = context.session.state.get("count", 0) + 1
        yield Event(
            author=self.name, invocation_id=context.invocation_id,
            actions=EventActions(state_delta={"count": count, "user:count": count}))


def test_the_runner(conninfo):
    async def main():
        for turn in range(3):
            # A process of its own each time.
            async with service_of(conninfo) as service:
                name = {"user_id": "u", "session_id": "s"}
                for app, agent in (
                    ("echo", LlmAgent(name="echo", model=Echo(model="echo"), output_key="said")),
                    ("counting", Counting(name="counting")),
                ):
                    if turn == 0:
                        await service.create_session(app_name=app, **name)
                    runner = Runner(app_name=app, agent=agent, session_service=service)
                    message = types.Content(role="user", parts=[types.Part(text="hello")])
                    async for _ in runner.run_async(**name, new_message=message):
                        pass
                echo = await service.get_session(app_name="echo", **name)
                assert echo.state["said"] == f"{2 * turn + 1} contents"
                assert len(echo.events) == 2 * (turn + 1)
                counting = await service.get_session(app_name="counting", **name)
                assert counting.state == {"count": turn + 1, "user:count": turn + 1}

    asyncio.run(main())

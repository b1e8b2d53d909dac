"""Checkpoints of Microsoft's Agent Framework: as its own storages keep them, and its workflows on them."""

import asyncio
import datetime
import math
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from agent_framework import (
    Executor,
    FileCheckpointStorage,
    InMemoryCheckpointStorage,
    Message,
    WorkflowBuilder,
    WorkflowCheckpoint,
    WorkflowContext,
    WorkflowEvent,
    handler,
    response_handler,
)
from agent_framework._workflows._runner_context import WorkflowMessage
from agent_framework.exceptions import WorkflowCheckpointException

from state_cache import AsyncStateCache
from state_cache.agent_framework import CLASS, StateCacheCheckpointStorage


@pytest.fixture(scope="module", autouse=True)
def defined(database):
    async def main():
        async with AsyncStateCache(f"dbname={database}", schema="states") as client:
            await StateCacheCheckpointStorage(client).setup()
            await StateCacheCheckpointStorage(client).setup()

    asyncio.run(main())


@asynccontextmanager
async def storage_of(conninfo, **options):
    async with AsyncStateCache(conninfo, schema="states") as client:
        yield StateCacheCheckpointStorage(client, **options)


STATE = {
    "z": 1, "a": {"y": 1, "b": [1.0, -0.0, 1e22, 2**70]}, "odd\0": "a\0b\ud83d", "infinite": math.inf,
    "set": {1}, "when": datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc), "id": uuid.UUID(int=7),
    "message": Message("user", ["hi"]), "long": "x" * 300_000, "_executor_state": {"one": {"n": 1}},
}


def checkpoint(name, number, previous=None, timestamp=None, **fields):
    return WorkflowCheckpoint(
        workflow_name=name, graph_signature_hash="hash", checkpoint_id=f"{name}-{number}",
        previous_checkpoint_id=previous, iteration_count=number,
        timestamp=timestamp or f"2026-01-02T03:04:{number:02}+00:00", **fields)


def seen(one):
    if one is None:
        return None
    told = one.to_dict()
    told["messages"] = {key: [repr(message.to_dict()) for message in each] for key, each in one.messages.items()}
    told["pending_request_info_events"] = {
        key: repr(event.to_dict()) for key, event in one.pending_request_info_events.items()}
    told["state"] = [(key, type(value), getattr(value, "text", repr(value))) for key, value in one.state.items()]
    return told


async def play(storage, name):
    said = [await storage.get_latest(workflow_name=name), await storage.list_checkpoints(workflow_name=name)]
    previous = None
    for number in range(6):
        state = {**STATE, "n": number, "list": list(range(number))}
        one = checkpoint(
            name, number, previous, state=state, metadata={"superstep": number},
            messages={"z": [WorkflowMessage(data=number, source_id="s")], "a": [WorkflowMessage("x", "z")]},
            pending_request_info_events={"r": WorkflowEvent.request_info("r", "source", {"q": 1}, dict)})
        said.append(await storage.save(one))
        previous = one.checkpoint_id
        # What is changed afterwards is not what was stored.
        one.state["n"] = "changed"
        one.state["a"]["y"] = 1
    # A branch, another run, and the same id again with other contents.
    await storage.save(checkpoint(name, 6, f"{name}-2", state={"branch": True}))
    await storage.save(checkpoint(name, 7, state={"other": "run"}, timestamp="2026-01-02T03:04:59+02:00"))
    await storage.save(checkpoint(name, 3, f"{name}-2", state={"again": True}))
    await storage.save(checkpoint(name + "2", 0, f"{name}-2", state={"elsewhere": True}))
    for number in range(8):
        said.append(seen(await storage.load(f"{name}-{number}")))
    said.append(seen(await storage.get_latest(workflow_name=name)))
    for each in (name, name + "2", "nobody"):
        ids = await storage.list_checkpoint_ids(workflow_name=each)
        said.append(sorted(ids))
        found = await storage.list_checkpoints(workflow_name=each)
        assert [one.checkpoint_id for one in found] == ids
        said.append(sorted(repr(seen(one)) for one in found))
    said += [await storage.delete(f"{name}-6"), await storage.delete(f"{name}-6"), await storage.delete("none")]
    for gone in (f"{name}-6", "none"):
        with pytest.raises(WorkflowCheckpointException):
            await storage.load(gone)
    said.append(seen(await storage.get_latest(workflow_name=name)))
    for number in (0, 1, 2, 3, 4, 5, 7):
        said.append(await storage.delete(f"{name}-{number}"))
    said.append(await storage.list_checkpoints(workflow_name=name))
    said.append(seen(await storage.load(f"{name}2-0")))
    return said


@pytest.mark.parametrize("name", ["workflow", "w\x1f\ud83d%" * 100])
def test_as_in_memory(conninfo, name):
    async def main():
        expected = await play(InMemoryCheckpointStorage(), name)
        async with storage_of(conninfo) as storage:
            found = await play(storage, name)
        for number, (one, other) in enumerate(zip(found, expected)):
            assert one == other, number
        assert len(found) == len(expected) > 30

    asyncio.run(main())


def test_a_run_costs_what_changes(conninfo, owner):
    """The checkpoints of a run are stored as differences, and a run that was deleted is gone."""
    async def main():
        async with storage_of(conninfo) as storage:
            previous = None
            for number in range(20):
                state = {"n": number, "text": "".join(str(uuid.UUID(int=n * 7919)) for n in range(1000))}
                previous = await storage.save(checkpoint("costs", number, previous, state=state))
            where = f"class = '{CLASS}' AND key LIKE 'costs%'"
            ((count, stored),) = owner.execute(
                f"SELECT count(*), sum(pg_column_size(k.*)) FROM state_snapshot k WHERE {where}").fetchall()
            assert count == 20 and stored < 3 * 36_000
            for number in range(20):
                assert await storage.delete(f"costs-{number}")
            assert owner.execute(f"SELECT count(*) FROM state_current WHERE {where}").fetchone() == (0,)

    asyncio.run(main())


@dataclass
class Mine:
    """A type of an application."""

    n: int


def test_types_that_are_not_allowed(conninfo, tmp_path):
    async def main():
        one = checkpoint("types", 1, state={"mine": Mine(3)})
        name = f"{Mine.__module__}:{Mine.__qualname__}"
        async with storage_of(conninfo) as wary, storage_of(conninfo, allowed_checkpoint_types=[name]) as free:
            for storage in (FileCheckpointStorage(tmp_path), wary):
                with pytest.raises(WorkflowCheckpointException, match="blocked"):
                    await storage.save(one)
            await free.save(one)
            with pytest.raises(WorkflowCheckpointException, match="blocked"):
                await wary.load(one.checkpoint_id)
            assert (await free.load(one.checkpoint_id)).state == {"mine": Mine(3)}

    asyncio.run(main())


class Adding(Executor):
    """Adds one, and asks at three."""

    def __init__(self, ran):
        super().__init__(id="adding")
        self.ran = ran

    @handler
    async def add(self, number: int, context: WorkflowContext[int, Any]) -> None:
        self.ran.append(number)
        if number == 3:
            await context.request_info(f"more than {number}?", str)
        else:
            await context.send_message(number + 1)

    @response_handler
    async def told(self, asked: str, answer: str, context: WorkflowContext[int, Any]) -> None:
        await context.yield_output(f"{asked} {answer}")


def workflow(storage, ran):
    one, other = Adding(ran), Adding(ran)
    other.id = "other"
    return WorkflowBuilder(
        start_executor=one, checkpoint_storage=storage, name="counting", output_from=[one, other],
    ).add_edge(one, other).add_edge(other, one).build()


def test_a_workflow_goes_on_in_another_process(conninfo):
    async def run(first, second, third):
        ran = []
        done = await workflow(first, ran).run(0)
        (asked,) = done.get_request_info_events()
        # Others go on from the newest checkpoint, and from one in the middle.
        newest = await second.get_latest(workflow_name="counting")
        done = await workflow(second, ran).run(
            checkpoint_id=newest.checkpoint_id, responses={asked.request_id: "yes"})
        outputs = done.get_outputs()
        ids = await third.list_checkpoint_ids(workflow_name="counting")
        found = await third.list_checkpoints(workflow_name="counting")
        middle = next(one for one in found if one.iteration_count == 1)
        done = await workflow(third, ran).run(checkpoint_id=middle.checkpoint_id)
        return ran, outputs, len(ids), len(done.get_request_info_events())

    async def main():
        memory = InMemoryCheckpointStorage()
        expected = await run(memory, memory, memory)
        async with storage_of(conninfo) as first, storage_of(conninfo) as second, storage_of(conninfo) as third:
            found = await run(first, second, third)
        assert found == expected and expected[1] == ["more than 3? yes"]

    asyncio.run(main())


def test_at_once(conninfo):
    async def main():
        async with storage_of(conninfo) as storage:
            async def run(number):
                previous = None
                for step in range(8):
                    one = checkpoint("busy", step, previous, state={"n": [number, step]})
                    one.checkpoint_id = f"busy-{number}-{step}"
                    previous = await storage.save(one)
                    assert (await storage.load(previous)).state == {"n": [number, step]}

            await asyncio.gather(*(run(number) for number in range(16)))
            assert len(await storage.list_checkpoint_ids(workflow_name="busy")) == 16 * 8

    asyncio.run(main())

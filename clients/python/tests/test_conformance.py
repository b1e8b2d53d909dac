"""LangGraph's own suite for savers, as the application."""

import asyncio

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import checkpointer_test, validate

from state_cache.langgraph import AsyncStateCacheSaver, StateCacheSaver

TESTS = 81


class Threaded(BaseCheckpointSaver):
    """The saver for threads behind the methods of asyncio, which the suite calls."""

    def __init__(self, saver):
        super().__init__(serde=saver.serde)
        self.saver = saver

    async def alist(self, config, **options):
        for found in await asyncio.to_thread(lambda: list(self.saver.list(config, **options))):
            yield found


def _through(name):
    async def method(self, *arguments, **options):
        return await asyncio.to_thread(getattr(self.saver, name), *arguments, **options)

    return method


for _name in ("get_tuple", "put", "put_writes", "delete_thread", "delete_for_runs", "copy_thread", "prune",
              "get_delta_channel_history"):
    if getattr(StateCacheSaver, _name) is not getattr(BaseCheckpointSaver, _name):
        setattr(Threaded, "a" + _name, _through(_name))


@pytest.mark.parametrize("kind", ["asyncio", "threads"])
def test_all_of_the_suite(conninfo, kind):
    @checkpointer_test(name=kind)
    async def registered():
        if kind == "asyncio":
            async with AsyncStateCacheSaver.from_conn_string(conninfo, schema="states") as saver:
                yield saver
        else:
            with StateCacheSaver.from_conn_string(conninfo, schema="states") as saver:
                yield Threaded(saver)

    report = asyncio.run(validate(registered))
    failures = [failure for result in report.results.values() for failure in result.failures or []]
    assert failures == []
    assert sum(result.tests_passed or 0 for result in report.results.values()) == TESTS

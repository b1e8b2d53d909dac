"""First steps with the Python client: docs/clients/python.md shows parts of this program.

Connects as libpq does (PGHOST, PGDATABASE, ...). Exits with 0 when everything came out as the page says.
"""

import asyncio
from datetime import timedelta

from state_cache import AsyncStateCache, Conflict, StateCache, StateCacheError


def first():
    # docs: first
    with StateCache("") as states:    # a connection string; "" is what PGHOST, PGDATABASE, ... say
        states.set("run-42", {"step": 1, "messages": []})
        states.append("run-42", ["messages"], {"role": "user", "content": "hello"})
        states.update("run-42", {"step": 2})
        print(states.get("run-42"))    # {'step': 2, 'messages': [{'role': 'user', 'content': 'hello'}]}

        limits = states.of_class("config")
        limits.set("limits", {"rows": 100}, ttl=timedelta(hours=1))
    # docs: end


def history(states):
    # docs: history
    saved = states.save("run-42", {"step": 3}, recovery_point=True, execution_context={"user": "u-3"})
    for version in states.history("run-42"):    # newest first
        print(version.version, version.created_at, states.at("run-42", version.version))
    states.restore("run-42", saved.version)
    # docs: end


def transactions(states):
    states.set("account", {"left": 10})

    # docs: transaction
    def spend(transaction):
        found = transaction.get_with_version("account")
        if found.state["left"] < 3:
            return False
        transaction.set("account", {"left": found.state["left"] - 3}, expected_version=found.version)
        transaction.of_class("config").set("last-spender", {"run": "run-42"})
        transaction.connection.execute("SELECT 1")    # what else belongs to the transaction
        return True

    states.transaction(spend)    # runs `spend` again after a conflict, be it only at COMMIT
    # docs: end
    assert states.get("account") == {"left": 7}


def mistakes(states):
    # docs: errors
    try:
        states.set("account", {"left": 0}, expected_version=1)
    except Conflict:
        pass    # somebody was faster: read again
    except StateCacheError as error:
        print(error.sqlstate, error.diag.message_primary, error.detail, error.hint)
    # docs: end


async def listening():
    # docs: listen
    async with AsyncStateCache("") as states:
        async def follow():
            async for change in states.listen(classes=["run"]):
                print(change.op, change.key, change.version)
                if change.key == "run-44":
                    return
        # docs: end
        follower = asyncio.create_task(follow())
        for _ in range(100):
            await asyncio.sleep(0.1)
            await states.set("run-44", {"step": _})
            if follower.done():
                break
        await asyncio.wait_for(follower, 10)


def other_drivers():
    # docs: asyncpg
    from state_cache.sql import Calls, run_asyncpg

    calls = Calls(schema="public")

    async def with_asyncpg(connection):
        await run_asyncpg(connection, calls.set("run-43", {"step": 1}))
        return await run_asyncpg(connection, calls.get("run-43"))
    # docs: end
    return with_asyncpg


first()
with StateCache("") as shared:
    history(shared)
    transactions(shared)
    mistakes(shared)
asyncio.run(listening())
other_drivers()
print("states: ok")

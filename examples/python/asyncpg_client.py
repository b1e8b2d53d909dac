"""First steps with asyncpg: docs/clients/asyncpg.md shows parts of this program.

Connects as libpq does (PGHOST, PGDATABASE, ...). Exits with 0 when everything came out as the page says.
"""

import uuid

# docs: connect
import asyncio
import json
from datetime import timedelta
from decimal import Decimal

import asyncpg


async def connect():
    connection = await asyncpg.connect()
    # A jsonb is a dict from here on, to and from the server; without this it is text. In binary form jsonb begins
    # with the number of its version; COPY takes the binary form only.
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", format="binary",
        encoder=lambda value: b"\x01" + json.dumps(value).encode(),
        decoder=lambda data: json.loads(data[1:]))
    return connection
# docs: end


async def text_without_codec():
    """What a jsonb is without the codec."""
    plain = await asyncpg.connect()
    await plain.execute("SELECT state_set($1, $2)", "asyncpg-text", json.dumps({"step": 1}))
    assert await plain.fetchval("SELECT state_get($1)", "asyncpg-text") == '{"step": 1}'
    try:
        await plain.execute("SELECT state_set($1, $2)", "asyncpg-text", {"step": 1})
        raise AssertionError("a dict was taken without a codec")
    except asyncpg.DataError as error:
        assert "expected str, got dict" in str(error)
    await plain.close()


async def documents(connection, other):
    # docs: documents
    await connection.execute("SELECT state_set($1, $2)", "asyncpg-run", {"step": 1, "messages": []})
    state = await connection.fetchval("SELECT state_get($1)", "asyncpg-run")
    assert state == {"step": 1, "messages": []}    # a dict; None if there is no such state
    # docs: end
    await text_without_codec()


async def paths(connection, other):
    # docs: paths
    await connection.execute("SELECT state_append($1, $2, $3)", "asyncpg-run", ["messages"], {"role": "user"})
    path = ["messages", "0", "role"]
    assert await connection.fetchval("SELECT state_get_path($1, $2)", "asyncpg-run", path) == "user"
    # docs: end


async def arguments_by_name(connection, other):
    # docs: names
    await connection.execute(
        "SELECT state_set($1, $2, ttl => $3, class => $4)",
        "asyncpg-limits", {"rows": 100}, timedelta(hours=1), "config")
    # docs: end
    assert await connection.fetchval("SELECT state_get_path('asyncpg-limits', '{rows}', class => 'config')") == 100


async def listening(connection, other):
    # docs: listen
    heard = asyncio.Queue()
    listener = await asyncpg.connect()    # a connection that does nothing else
    await listener.add_listener("state_updated", lambda *message: heard.put_nowait(message[3]))
    # docs: end
    await connection.execute("SELECT state_set('asyncpg-told', '1')")
    payload = await asyncio.wait_for(heard.get(), timeout=10)
    assert '"key":"asyncpg-told"' in payload, payload

    # In a transaction it listens when that is committed.
    waiting = await asyncpg.connect()
    later = asyncio.Queue()
    async with waiting.transaction():
        await waiting.add_listener("state_updated", lambda *message: later.put_nowait(message[3]))
        await connection.execute("SELECT state_set('asyncpg-told', '2')")
        await heard.get()
    await connection.execute("SELECT state_set('asyncpg-told', '3')")
    assert await asyncio.wait_for(later.get(), timeout=10) == await asyncio.wait_for(heard.get(), timeout=10)
    await waiting.close()
    await listener.close()


# docs: retry
async def in_transaction(connection, work):
    """Runs work in a transaction, and again as long as other transactions are faster."""
    while True:
        try:
            async with connection.transaction():
                result = await work()
            return result    # the transaction is committed
        except (asyncpg.SerializationError, asyncpg.DeadlockDetectedError):
            continue    # 40001 or 40P01, from a statement or from COMMIT: nothing is kept, read again
# docs: end


async def retrying(connection, other):
    await connection.execute("SELECT state_set('asyncpg-step', $1)", {"step": 1})
    attempts = 0

    async def work():
        nonlocal attempts
        attempts += 1
        version, state = await connection.fetchrow("SELECT state_version('asyncpg-step'), state_get('asyncpg-step')")
        await connection.execute(
            "SELECT state_set('asyncpg-step', $1, expected_version => $2)",
            state | {"step": state["step"] + 1}, version)
        if attempts == 1:
            # Somebody is faster. Only COMMIT can find out.
            await other.execute("SELECT state_update('asyncpg-step', $1)", {"note": "mine"})
        if attempts == 2:
            await connection.execute("DO $$ BEGIN RAISE deadlock_detected; END $$")

    await in_transaction(connection, work)
    state = await connection.fetchval("SELECT state_get('asyncpg-step')")
    assert (attempts, state) == (3, {"step": 2, "note": "mine"}), (attempts, state)


async def expected_version(connection, other):
    await connection.execute("SELECT state_delete('asyncpg-hot')")

    # docs: expected_version
    async def count_up():
        version, state = await connection.fetchrow(
            "SELECT coalesce(state_version($1), 0), state_get($1)", "asyncpg-hot")
        state = state or {"count": 0}
        state["count"] += 1
        await connection.execute("SELECT state_set($1, $2, expected_version => $3)", "asyncpg-hot", state, version)

    await in_transaction(connection, count_up)
    # docs: end
    await in_transaction(connection, count_up)
    assert await connection.fetchval("SELECT state_get('asyncpg-hot')") == {"count": 2}


async def operation(connection, other):
    # docs: operation
    await connection.execute("SELECT state_merge($1, $2)", "asyncpg-hot", {"seen": {"mail": True}})
    # docs: end
    async with connection.transaction():
        await connection.execute("SELECT state_merge('asyncpg-hot', $1)", {"seen": {"bank": True}})
        await other.execute("SELECT state_update('asyncpg-hot', $1)", {"count": 7})
    state = await connection.fetchval("SELECT state_get('asyncpg-hot')")
    assert state == {"count": 7, "seen": {"mail": True, "bank": True}}, state


async def batch(connection, other):
    for key, left in [("asyncpg-a", 5), ("asyncpg-b", 0)]:
        await connection.execute("SELECT state_set($1, $2)", key, {"left": left})

    # docs: batch
    async def move():
        await connection.execute("SELECT state_batch_begin()")    # what was read must still be so at COMMIT
        found = await connection.fetch("SELECT key, state FROM state_get_many($1)", ["asyncpg-a", "asyncpg-b"])
        left = {key: state["left"] for key, state in found}
        await connection.execute("SELECT state_update('asyncpg-a', $1)", {"left": left["asyncpg-a"] - 1})
        await connection.execute("SELECT state_update('asyncpg-b', $1)", {"left": left["asyncpg-b"] + 1})

    await in_transaction(connection, move)
    # docs: end
    found = await connection.fetch("SELECT state FROM state_get_many('{asyncpg-a,asyncpg-b}')")
    assert [row["state"] for row in found] == [{"left": 4}, {"left": 1}], found
    # A state that was only read counts too.
    try:
        async with connection.transaction():
            await connection.execute("SELECT state_batch_begin(), state_get('asyncpg-a')")
            await connection.execute("SELECT state_update('asyncpg-b', $1)", {"left": 9})
            await other.execute("SELECT state_update('asyncpg-a', $1)", {"left": 3})
        raise AssertionError("the batch was not checked")
    except asyncpg.SerializationError:
        pass


async def bulk_load(connection, other):
    documents = [(f"asyncpg-row-{n}", {"row": n}) for n in range(1000)]
    # docs: bulk
    async with connection.transaction():
        await connection.execute("CREATE TEMPORARY TABLE incoming (key text, state jsonb) ON COMMIT DROP")
        await connection.copy_records_to_table("incoming", columns=["key", "state"], records=documents)
        await connection.execute("SELECT state_set(key, state, class => 'config') FROM incoming")
    # docs: end
    rows = await connection.fetchval(
        "SELECT count(*) FROM state_current WHERE class = 'config' AND key ~ '^asyncpg-row-'")
    assert rows == 1000


async def first_errors(connection, other):
    """What beginners write, and what it is answered with."""
    await connection.execute("SELECT state_delete('asyncpg-once')")
    await connection.execute("SELECT state_context_create('asyncpg-once', resource_limits => $1)", {"maxCredits": 9})
    mistakes = [
        ("expected str, got int", "SELECT state_get($1)", [42]),
        ("expected str, got UUID", "SELECT state_get($1)", [uuid.uuid4()]),
        ("function state_set(unknown, json) does not exist", "SELECT state_set('x', $1::json)", ["{}"]),
        ("'int' object has no attribute 'days'", "SELECT state_set('x', '{}', ttl => $1)", [3600]),
        ("'str' object has no attribute 'days'", "SELECT state_set('x', '{}', ttl => $1)", ["1 hour"]),
        ("expected str, got int", "SELECT state_get_path('x', $1)", [["messages", 0]]),
        ("a sized iterable container expected", "SELECT state_get_path('x', $1)", ["{messages,0}"]),
    ]
    for expected, statement, values in mistakes:
        try:
            await connection.execute(statement, *values)
        except (asyncpg.DataError, asyncpg.UndefinedFunctionError) as error:
            assert expected in str(error), (statement, values, error)
        else:
            raise AssertionError(f"{statement} with {values} did not fail")
    # docs: runs
    left = await connection.fetchval("SELECT state_context_spend($1, 'credits', $2)", "asyncpg-once", Decimal("0.1"))
    await connection.execute("SELECT state_context_set($1, $2, $3)", "asyncpg-once", "step", 5)
    # docs: end
    assert left == Decimal("8.9")
    # A float is taken, and is not what it looks like.
    left = await connection.fetchval("SELECT state_context_spend($1, 'credits', $2)", "asyncpg-once", 0.1)
    assert left != Decimal("8.8") and round(left, 10) == Decimal("8.8")


async def main():
    connection, other = await connect(), await connect()
    steps = [documents, paths, arguments_by_name, listening, retrying, expected_version, operation, batch, bulk_load,
             first_errors]
    for step in steps:
        await step(connection, other)
        print(f"asyncpg_client: {step.__name__}: ok")
    await connection.close()
    await other.close()


asyncio.run(main())

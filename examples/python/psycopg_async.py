"""First steps with psycopg 3 under asyncio: docs/clients/psycopg.md shows parts of this program.

Connects as libpq does (PGHOST, PGDATABASE, ...). Exits with 0 when everything came out as the page says.
"""

import asyncio

# docs: connect
import psycopg
from psycopg.errors import DeadlockDetected, SerializationFailure
from psycopg.types.json import Jsonb


async def connect():
    return await psycopg.AsyncConnection.connect(autocommit=True)
# docs: end


async def one(connection, statement, *values):
    """The only value of the only row."""
    (value,) = await (await connection.execute(statement, values)).fetchone()
    return value


async def documents(connection, other):
    # docs: documents
    await connection.execute("SELECT state_set(%s, %s)", ("async-run", Jsonb({"step": 1, "messages": []})))
    cursor = await connection.execute("SELECT state_get(%s)", ("async-run",))
    (state,) = await cursor.fetchone()
    assert state == {"step": 1, "messages": []}
    # docs: end


async def paths(connection, other):
    await connection.execute("SELECT state_append(%s, %s, %s)", ("async-run", ["messages"], Jsonb({"role": "user"})))
    role = await one(connection, "SELECT state_get_path(%s, %s)", "async-run", ["messages", "0", "role"])
    assert role == "user"


async def arguments_by_name(connection, other):
    await connection.execute(
        "SELECT state_set(%(key)s, %(state)s, class => %(class)s)",
        {"key": "async-limits", "state": Jsonb({"rows": 100}), "class": "config"})
    assert await one(connection, "SELECT state_get_path('async-limits', '{rows}', class => 'config')") == 100


async def listening(connection, other):
    # docs: listen
    listener = await psycopg.AsyncConnection.connect(autocommit=True)    # a connection that does nothing else
    await listener.execute("LISTEN state_updated")
    # docs: end
    await connection.execute("SELECT state_set('async-told', '1')")
    heard = []
    # docs: notifies
    async for message in listener.notifies(timeout=10, stop_after=1):
        heard.append(message.payload)
    # docs: end
    await listener.close()
    assert len(heard) == 1 and '"key":"async-told"' in heard[0], heard


# docs: retry
async def in_transaction(connection, work):
    while True:
        try:
            async with connection.transaction():
                result = await work()
            return result    # the transaction is committed
        except (SerializationFailure, DeadlockDetected):
            continue    # from a statement or from COMMIT: nothing is kept, read again
# docs: end


async def expected_version(connection, other):
    await connection.execute("SELECT state_set('async-step', '{\"step\": 1}')")
    attempts = 0

    async def work():
        nonlocal attempts
        attempts += 1
        cursor = await connection.execute(
            "SELECT coalesce(state_version('async-step'), 0), state_get('async-step')")
        version, state = await cursor.fetchone()
        state["step"] += 1
        await connection.execute(
            "SELECT state_set('async-step', %s, expected_version => %s)", (Jsonb(state), version))
        if attempts == 1:
            # Somebody is faster. Only COMMIT can find out.
            await other.execute("SELECT state_update('async-step', '{\"note\": \"mine\"}')")
        if attempts == 2:
            await connection.execute("DO $$ BEGIN RAISE deadlock_detected; END $$")

    await in_transaction(connection, work)
    state = await one(connection, "SELECT state_get('async-step')")
    assert (attempts, state) == (3, {"step": 2, "note": "mine"}), (attempts, state)


async def operation(connection, other):
    async with connection.transaction():
        await connection.execute("SELECT state_update('async-step', %s)", (Jsonb({"done": True}),))
        await other.execute("SELECT state_update('async-step', '{\"note\": \"another\"}')")
    state = await one(connection, "SELECT state_get('async-step')")
    assert state == {"step": 2, "note": "another", "done": True}, state


async def batch(connection, other):
    attempts = 0

    async def work():
        nonlocal attempts
        attempts += 1
        await connection.execute("SELECT state_batch_begin()")
        step = await one(connection, "SELECT state_get_path('async-step', '{step}')")
        await connection.execute("SELECT state_update('async-run', %s)", (Jsonb({"seen": step}),))
        if attempts == 1:
            await other.execute("SELECT state_update('async-step', '{\"step\": 3}')")

    await in_transaction(connection, work)
    seen = await one(connection, "SELECT state_get_path('async-run', '{seen}')")
    assert (attempts, seen) == (2, 3), (attempts, seen)


async def bulk_load(connection, other):
    documents = [(f"async-row-{n}", {"row": n}) for n in range(1000)]
    # docs: bulk
    async with connection.transaction(), connection.cursor() as cursor:
        await cursor.execute("CREATE TEMPORARY TABLE incoming (key text, state jsonb) ON COMMIT DROP")
        async with cursor.copy("COPY incoming (key, state) FROM STDIN") as copy:
            for key, document in documents:
                await copy.write_row((key, Jsonb(document)))
        await cursor.execute("SELECT state_set(key, state, class => 'config') FROM incoming")
    # docs: end
    rows = await one(connection, "SELECT count(*) FROM state_current WHERE class = 'config' AND key ~ '^async-row-'")
    assert rows == 1000


async def first_errors(connection, other):
    try:
        await connection.execute("SELECT state_get(%s)", (42,))
        raise AssertionError("42 is no key")
    except psycopg.errors.UndefinedFunction as error:
        assert error.sqlstate == "42883"


async def main():
    connection, other = await connect(), await connect()
    await connection.execute("SELECT state_delete(key) FROM unnest('{async-run,async-step,async-told}'::text[]) key")
    steps = [documents, paths, arguments_by_name, listening, expected_version, operation, batch, bulk_load,
             first_errors]
    for step in steps:
        await step(connection, other)
        print(f"psycopg_async: {step.__name__}: ok")
    await connection.close()
    await other.close()


asyncio.run(main())

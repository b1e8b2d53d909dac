"""The client: documents, conflicts, errors, listening; under threads and under asyncio; other drivers."""

import asyncio
import datetime
import threading

import pytest

from state_cache import AsyncStateCache, Calls, Change, Conflict, StateCache, errors
from state_cache.sql import run_asyncpg, run_sqlalchemy


@pytest.fixture
def states(conninfo):
    with StateCache(conninfo, schema="states") as client:
        yield client


def test_documents(states):
    document = {"step": 1, "text": "\u00fc \"quoted\" \\", "list": [1.5, None, True]}
    states.set("doc", document)
    assert states.get("doc") == document
    states.update("doc", {"step": 2})
    states.merge("doc", {"text": None})
    states.append("doc", ["list"], {"last": 1})
    assert states.get("doc") == {"step": 2, "list": [1.5, None, True, {"last": 1}]}
    assert states.get_path("doc", ["list", "3", "last"]) == 1
    assert states.version("doc") == 4 and states.exists("doc") and not states.exists("none")
    assert states.get("none") is None and states.get_with_version("none") is None
    assert [found.key for found in states.get_many(["doc", "none", "doc"])] == ["doc", "doc"]
    assert states.touch("doc", datetime.timedelta(hours=1))
    assert states.delete("doc") and not states.delete("doc")


def test_versions(states):
    first = states.save("kept", {"n": 1}, recovery_point=True, execution_context={"user": "u-1"})
    second = states.save("kept", {"n": 2}, checkpoint_type="manual", expected_version=first.version)
    assert (first.action, second.version) == ("saved", first.version + 1)
    newest, oldest = states.history("kept")
    assert oldest.execution_context == {"user": "u-1"} and oldest.recovery_point and newest.parent_version == 1
    assert states.at("kept", 1) == {"n": 1} and states.at("kept", 9) is None
    assert states.diff("kept", 1, 2) == [{"op": "replace", "path": "/n", "value": 2}]
    assert states.restore("kept", 1) == 3 and states.get("kept") == {"n": 1}


def test_many_keys(states, conninfo):
    for n in (1, 2, 3):
        states.save(
            "many/a", {"n": n}, label=f"l{n}", payload=bytes([n, 0]), execution_context={"odd": n % 2 == 1},
            parent_version=1 if n == 3 else None)
    newest, *_, oldest = states.list_versions("many/a")
    assert (newest.version, newest.parent_version, newest.label, newest.state) == (3, 1, "l3", {"n": 3})
    assert (oldest.payload, oldest.execution_context, oldest.key) == (b"\1\0", {"odd": True}, "many/a")
    assert [it.version for it in states.list_versions("many/a", filter={"odd": True})] == [3, 1]
    assert [it.version for it in states.list_versions("many/a", before_label="l3", limit=1)] == [2]
    assert [it.state for it in states.list_versions(prefix="many/", label="l2", states=False)] == [None]
    assert states.copy("many/", "more/") == 1
    assert [(it.key, it.version) for it in states.keys("more/")] == [("more/a", 3)]
    assert states.keys("more/", after="more/a") == []
    assert states.purge(["many/a"], versions=[1]) == 1
    assert [it.version for it in states.list_versions("many/a")] == [3, 2]
    assert states.purge(prefix="m", keep=1) == 2
    assert [it.version for it in states.list_versions(prefix="m")] == [3, 3]
    assert states.purge(keys=["many/a", "more/a"]) == 2 and states.keys("m") == []

    async def beside() -> None:
        async with AsyncStateCache(conninfo, schema="states") as client:
            await client.save("async/a", {"n": 1}, label="only", payload=b"x")
            assert await client.copy("async/", "asynd/") == 1
            assert [it.payload for it in await client.list_versions("asynd/a", before=2)] == [b"x"]
            assert await client.purge(prefix="async/") == 1
            assert [it.key for it in await client.keys("asyn")] == ["asynd/a"]
            assert await client.purge(prefix="asyn") == 1

    asyncio.run(beside())


def test_a_conflict_at_commit_runs_the_work_again(states):
    states.set("counted", {"n": 0})
    attempts = []

    def work(transaction):
        attempts.append(1)
        found = transaction.get_with_version("counted")
        transaction.set("counted", {"n": found.state["n"] + 1}, expected_version=found.version)
        transaction.of_class("config").set("beside", {"attempt": len(attempts)})
        if len(attempts) == 1:
            # Staged above, so only COMMIT can find out.
            states.set("counted", {"n": 10})

    states.transaction(work)
    assert (len(attempts), states.get("counted")) == (2, {"n": 11})
    assert states.of_class("config").get("beside") == {"attempt": 2}
    with pytest.raises(Conflict):
        states.transaction(lambda transaction: transaction.set("counted", {}, expected_version=1), attempts=2)


def test_threads_lose_no_update(states):
    def work(transaction):
        found = transaction.get_with_version("shared")
        number = found.state["n"] if found else 0
        transaction.set("shared", {"n": number + 1}, expected_version=found.version if found else 0)

    def count():
        for _ in range(10):
            states.transaction(work, attempts=200)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states.get("shared") == {"n": 80}


@pytest.mark.parametrize("call, kind", [
    (lambda it: it.of_class("nope").set("k", {}), errors.NotFound),
    (lambda it: it.set("k", {}, expected_version=7), errors.Conflict),
    (lambda it: it.set("", {}), errors.InvalidArgument),
    (lambda it: it.set("k", {"text": "\ud83d"}), errors.InvalidJson),
    (lambda it: it.set("k", {"text": "\0"}), errors.InvalidCharacter),
    (lambda it: it.diff("kept", 1, 99), errors.NotFound),
    (lambda it: it.of_class("run").calls and it.run(Calls("nowhere").get("k")), None),
])
def test_errors_by_sqlstate(states, call, kind):
    if kind is None:
        with pytest.raises(Exception, match="nowhere"):
            call(states)
        return
    with pytest.raises(kind) as caught:
        call(states)
    assert caught.value.sqlstate in (kind.sqlstate, errors.InvalidCharacter.sqlstate)
    assert caught.value.diag.message_primary


def test_nan_is_refused_before_it_is_sent(states):
    with pytest.raises(ValueError):
        states.set("k", {"n": float("nan")})


def test_what_jsonb_refuses_can_be_replaced(conninfo):
    with StateCache(conninfo, schema="states", on_invalid="replace") as client:
        client.set("replaced", {"text": "a\0b\ud83d"})
        assert client.get("replaced") == {"text": "a\ufffdb\ufffd"}


def test_asyncio(conninfo):
    async def main():
        async with AsyncStateCache(conninfo, schema="states") as client:
            await client.set("async", {"n": 0})

            async def work(transaction):
                found = await transaction.get_with_version("async")
                await transaction.set("async", {"n": found.state["n"] + 1}, expected_version=found.version)

            await asyncio.gather(*(client.transaction(work, attempts=500) for _ in range(20)))
            assert await client.get("async") == {"n": 20}

    asyncio.run(main())


def test_listening_misses_nothing(conninfo, owner):
    """Changes made while nobody listened, while somebody does, and after the connection was lost."""

    async def main():
        async with AsyncStateCache(conninfo, schema="states") as client:
            _, _, cursor = await client.run(client.calls.cursor())
            await client.set("heard-before", {})
            heard = []

            async def hear():
                async for change in client.listen(cursor, classes=["run"], poll=0.2):
                    heard.append(change)

            task = asyncio.create_task(hear())

            async def until(key):
                for _ in range(1200):
                    if any(change.key == key for change in heard):
                        return
                    await asyncio.sleep(0.05)
                raise AssertionError((key, heard))

            await until("heard-before")
            await client.set("heard-now", {})
            await client.delete("heard-now")
            await client.of_class("config").set("heard-not", {})
            await until("heard-now")
            owner.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid() AND (query LIKE 'LISTEN%' OR query = 'SELECT 1')")
            await client.set("heard-after", {})
            await until("heard-after")
            assert all(change.class_ == "run" for change in heard)
            assert Change("run", "heard-now", 2, "delete") in heard
            task.cancel()

    asyncio.run(main())


def test_other_drivers(conninfo, database):
    import os

    import asyncpg
    import sqlalchemy

    calls = Calls("states")
    statements = [
        (calls.set("other", {"n": 1}), None), (calls.get("other"), {"n": 1}), (calls.update("other", {"m": 2}), None),
        (calls.get_path("other", ["m"]), 2), (calls.version("other"), 2), (calls.exists("other"), True),
        (calls.at("other", 1), {"n": 1}), (calls.touch("other", datetime.timedelta(days=1)), True),
        (calls.append("other", [], 1), errors), (calls.delete("other"), True), (calls.get("other"), None),
    ]

    async def with_asyncpg():
        connection = await asyncpg.connect(
            host=os.environ["PGHOST"], port=int(os.environ["PGPORT"]), user="application", database=database)
        for statement, expected in statements:
            if expected is errors:
                with pytest.raises(asyncpg.PostgresError):
                    await run_asyncpg(connection, statement)
            else:
                assert await run_asyncpg(connection, statement) == expected, statement.text
        saved = await run_asyncpg(connection, calls.save("other", {"n": 2}, execution_context={"a": 1}))
        assert saved.action == "saved" and (await run_asyncpg(connection, calls.history("other")))[0].version == 4
        await run_asyncpg(connection, calls.delete("other"))
        await connection.close()

    asyncio.run(with_asyncpg())
    engine = sqlalchemy.create_engine(
        f"postgresql+psycopg://application@/{database}?host={os.environ['PGHOST']}&port={os.environ['PGPORT']}",
        isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement, expected in statements:
            # Version numbers go on after the deletes above.
            if expected in (errors, 2) or "state_at" in statement.text:
                continue
            assert run_sqlalchemy(connection, statement) == expected, statement.text
    engine.dispose()

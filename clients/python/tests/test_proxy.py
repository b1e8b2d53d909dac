"""Behind pgbouncer that pools transactions: the saver passes its suite, the client works, `listen` says why not."""

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
import pytest
from langgraph.checkpoint.conformance import checkpointer_test, validate

from state_cache import AsyncStateCache, BehindProxy, Conflict, StateCache
from state_cache.langgraph import AsyncStateCacheSaver

PGBOUNCER = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")


@pytest.fixture(scope="module")
def proxy(database):
    """Connection string that leads to the database through two connections, whatever connects."""
    assert PGBOUNCER, "pgbouncer is not here: run scripts/setup test"
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        settings = Path(folder, "pgbouncer.ini")
        settings.write_text(
            f"[databases]\n{database} = host={os.environ['PGHOST']} port={os.environ['PGPORT']} user=application\n"
            f"[pgbouncer]\nlisten_addr =\nlisten_port = 6432\nunix_socket_dir = {folder}\nauth_type = any\n"
            f"pool_mode = transaction\ndefault_pool_size = 2\nlogfile = {folder}/log\n")
        command = [PGBOUNCER, settings]
        if os.geteuid() == 0:
            # It refuses to run as root.
            shutil.chown(folder, "postgres")
            command = [PGBOUNCER, "-u", "postgres", settings]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        conninfo = f"host={folder} port=6432 dbname={database} user=application"
        try:
            for _ in range(100):
                try:
                    psycopg.connect(conninfo).close()
                    break
                except psycopg.OperationalError:
                    time.sleep(0.1)
            yield conninfo
        finally:
            process.terminate()
            process.wait(30)


def test_the_suite_for_savers(proxy):
    @checkpointer_test(name="proxy")
    async def registered():
        async with AsyncStateCacheSaver.from_conn_string(proxy, schema="states", prepare_threshold=None) as saver:
            yield saver

    report = asyncio.run(validate(registered))
    assert [failure for result in report.results.values() for failure in result.failures or []] == []
    assert sum(result.tests_passed or 0 for result in report.results.values()) == 81


def test_the_client(proxy):
    with StateCache(proxy, schema="states", prepare_threshold=None) as states:
        states.set("proxied", {"n": 0})
        attempts = []

        def work(transaction):
            attempts.append(1)
            found = transaction.get_with_version("proxied")
            transaction.set("proxied", {"n": found.state["n"] + 1}, expected_version=found.version)
            if len(attempts) == 1:
                states.set("proxied", {"n": 10})

        states.transaction(work)
        assert (len(attempts), states.get("proxied")) == (2, {"n": 11})
        with pytest.raises(Conflict):
            states.set("proxied", {}, expected_version=1)


def test_listening_says_why_not(proxy, conninfo):
    async def main():
        async with AsyncStateCache(proxy, schema="states", prepare_threshold=None) as states:
            with pytest.raises(BehindProxy):
                await anext(states.listen())
            # Beside the proxy it works.
            _, _, cursor = await states.run(states.calls.cursor())
            await states.set("told", {})
            async for change in states.listen(cursor, conninfo=conninfo):
                assert change.key == "told"
                break

    asyncio.run(main())

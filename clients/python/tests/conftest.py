"""A database of each test file's own, and a role with what `state_grant` gives an application, and no more.

The server is the one that PGHOST, PGPORT and PGUSER lead to: `make clients` starts one.
"""

import os
from pathlib import Path

import psycopg
import pytest

ROOT = Path(__file__).resolve().parents[3]


def make_database(name):
    """Makes a database where the extension is in schema `states`, whoever had one of that name."""
    with psycopg.connect(dbname="postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name}")
        # Files of tests run beside one another.
        connection.execute(
            "DO $$ BEGIN CREATE ROLE application LOGIN;"
            " EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$")
    with psycopg.connect(dbname=name, autocommit=True) as owner:
        owner.execute("CREATE SCHEMA states; CREATE EXTENSION state_cache SCHEMA states")
        owner.execute("SELECT states.state_grant('application', 'application')")


@pytest.fixture(scope="module")
def database(request):
    """Name of such a database, where the class of LangGraph's checkpoints is defined."""
    from state_cache.langgraph import StateCacheSaver

    name = "py_" + request.module.__name__
    make_database(name)
    with psycopg.connect(dbname=name, autocommit=True) as owner:
        StateCacheSaver(owner, schema="states").setup()
    return name


@pytest.fixture(scope="module")
def conninfo(database):
    """Leads to the database, as the application."""
    return f"dbname={database} user=application"


@pytest.fixture(scope="module")
def owner(database):
    """A session of the owner."""
    with psycopg.connect(dbname=database, autocommit=True) as connection:
        connection.execute("SET search_path = states")
        yield connection


@pytest.fixture(scope="session")
def environment():
    """The environment of a process that uses this package."""
    return {
        **os.environ, "PYTHONPATH": str(ROOT / "clients/python/src"), "PYTHONDONTWRITEBYTECODE": "1",
        # Nothing is sent to anybody.
        "OPENAI_AGENTS_DISABLE_TRACING": "1", "LANGSMITH_TRACING": "false",
    }

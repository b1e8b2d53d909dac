"""The programs that the pages in docs/clients show come out as the pages say, twice."""

import subprocess
import sys

import psycopg
import pytest
from conftest import ROOT

EXAMPLES = sorted((ROOT / "clients/python/examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.stem for example in EXAMPLES])
def test_example(example, environment):
    name = "py_example_" + example.stem
    with psycopg.connect(dbname="postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name}")
    with psycopg.connect(dbname=name, autocommit=True) as owner:
        owner.execute("CREATE EXTENSION state_cache")
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, example], env={**environment, "PGDATABASE": name}, capture_output=True, text=True,
            timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.endswith(f"{example.stem}: ok\n")


def test_the_examples_are_there():
    assert {example.stem for example in EXAMPLES} >= {"states", "first_graph", "memory"}

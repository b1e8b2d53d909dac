"""Moves checkpoints from the tables of langgraph-checkpoint-postgres to state_cache.

    python -m state_cache.langgraph.migrate 'dbname=old' 'dbname=new' [--schema agents] [--thread ID] [--verify-only]

Thread by thread, oldest checkpoint first: each is read by the official saver, stored by this one, read again and
compared. A thread is stored in one transaction, so one that was interrupted is begun again, and one that is there
already is only compared. What was compared as different is listed, and the exit status is 1. The old tables are only
read; runs should be at rest meanwhile, or the migration be run once more after they have moved.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from psycopg import Connection
from psycopg.rows import dict_row

from ._drive import Steps
from ._saver import StateCacheSaver

__all__ = ["Report", "migrate"]


@dataclass
class Report:
    """What a migration has done so far."""

    threads: int = 0
    of: int = 0
    checkpoints: int = 0
    writes: int = 0
    there_already: int = 0
    different: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Write:
    task: str
    path: str
    index: int
    channel: str
    kind: str
    data: bytes


def _threads(old: Connection[Any]) -> list[str]:
    rows = old.execute("SELECT DISTINCT thread_id FROM checkpoints ORDER BY thread_id").fetchall()
    return [row["thread_id"] for row in rows]


def _writes(old: Connection[Any], found: CheckpointTuple) -> list[_Write]:
    """The writes since a checkpoint as they are stored: the official saver's answer has no paths."""
    names = found.config["configurable"]
    rows = old.execute(
        "SELECT task_id, task_path, idx, channel, type, blob FROM checkpoint_writes"
        " WHERE thread_id = %s AND checkpoint_ns = %s AND checkpoint_id = %s ORDER BY task_id, idx",
        (names["thread_id"], names["checkpoint_ns"], names["checkpoint_id"])).fetchall()
    return [
        _Write(row["task_id"], row["task_path"], row["idx"], row["channel"], row["type"], bytes(row["blob"]))
        for row in rows
    ]


def _calls(writes: list[_Write], saver: StateCacheSaver) -> Iterator[tuple[str, str, list[tuple[str, Any]]]]:
    """Writes as the calls that have made them: for each task its usual writes, and each special one."""
    usual: dict[tuple[str, str], list[_Write]] = {}
    for write in writes:
        if write.index >= 0:
            usual.setdefault((write.task, write.path), []).append(write)
        else:
            value = saver.serde.loads_typed((write.kind, write.data))
            yield write.task, write.path, [(write.channel, value)]
    for (task, path), found in usual.items():
        values = [(write.channel, saver.serde.loads_typed((write.kind, write.data))) for write in found]
        yield task, path, values


def _seen(found: CheckpointTuple) -> tuple[Any, ...]:
    """What must be the same."""
    checkpoint: dict[str, Any] = {**found.checkpoint}
    checkpoint.pop("pending_sends", None)
    values = checkpoint.pop("channel_values")
    checkpoint.setdefault("updated_channels", None)
    parent = (found.parent_config or {}).get("configurable", {}).get("checkpoint_id")
    return (
        sorted((name, repr(value)) for name, value in values.items()),
        sorted((name, repr(sorted(value.items()) if isinstance(value, dict) else value))
               for name, value in checkpoint.items()),
        sorted((name, repr(value)) for name, value in found.metadata.items()),
        parent,
        [(task, channel, repr(value)) for task, channel, value in found.pending_writes or []],
    )


def migrate(
    old: str,
    saver: StateCacheSaver,
    *,
    threads: list[str] | None = None,
    verify_only: bool = False,
    progress: Callable[[Report], None] | None = None,
) -> Report:
    """Copies the threads of the official saver's database `old` to a saver, and compares; see the module."""
    from langgraph.checkpoint.postgres import PostgresSaver

    report = Report()
    with psycopg.connect(old, autocommit=True, row_factory=dict_row) as connection:
        connection.execute("SET default_transaction_read_only = on")
        source = PostgresSaver(connection, serde=saver.serde)
        names = _threads(connection) if threads is None else threads
        report.of = len(names)
        for name in names:
            thread: RunnableConfig = {"configurable": {"thread_id": name}}
            before = sorted(source.list(thread), key=lambda found: found.config["configurable"]["checkpoint_id"])
            there = {
                (found.config["configurable"]["checkpoint_ns"], found.config["configurable"]["checkpoint_id"])
                for found in saver.list(thread)
            }
            missing = [
                found for found in before
                if (found.config["configurable"]["checkpoint_ns"], found.config["configurable"]["checkpoint_id"])
                not in there
            ]
            report.there_already += len(before) - len(missing)
            if missing and not verify_only:
                saver._run(_store, saver, connection, missing, report, in_transaction=True)
            _compare(before, saver, report)
            report.threads += 1
            if progress is not None:
                progress(report)
    return report


def _store(
    saver: StateCacheSaver, old: Connection[Any], found: list[CheckpointTuple], report: Report
) -> Steps[None]:
    for one in found:
        names = one.config["configurable"]
        parent = (one.parent_config or {}).get("configurable", {}).get("checkpoint_id")
        config: Any = {
            "configurable": {
                "thread_id": names["thread_id"], "checkpoint_ns": names["checkpoint_ns"],
                **({"checkpoint_id": parent} if parent else {}),
            }
        }
        stored = yield from saver._put_steps(
            config, one.checkpoint, one.metadata, one.checkpoint["channel_versions"])
        report.checkpoints += 1
        for task, path, values in _calls(_writes(old, one), saver):
            yield from saver._put_writes_steps(stored, values, task, path)
            report.writes += len(values)


def _compare(before: list[CheckpointTuple], saver: StateCacheSaver, report: Report) -> None:
    if not before:
        return
    thread = before[0].config["configurable"]["thread_id"]
    after = {
        (found.config["configurable"]["checkpoint_ns"], found.config["configurable"]["checkpoint_id"]): found
        for found in saver.list({"configurable": {"thread_id": thread}})
    }
    for one in before:
        names = one.config["configurable"]
        place = (names["checkpoint_ns"], names["checkpoint_id"])
        if place not in after:
            report.different.append(f"{thread} {place[0]!r} {place[1]}: not there")
        elif _seen(one) != _seen(after[place]):
            report.different.append(f"{thread} {place[0]!r} {place[1]}: different")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Moves checkpoints of langgraph-checkpoint-postgres to state_cache.")
    parser.add_argument("old", help="connection string of the database with the tables of the official saver")
    parser.add_argument("new", help="connection string of the database with state_cache")
    parser.add_argument("--schema", help="schema of the extension, where it is not on search_path")
    parser.add_argument("--thread", action="append", help="only this thread; may be given several times")
    parser.add_argument("--verify-only", action="store_true", help="copy nothing, only compare")
    chosen = parser.parse_args()
    start = time.monotonic()

    def progress(report: Report) -> None:
        seconds = time.monotonic() - start
        print(
            f"\r{report.threads} of {report.of} threads, {report.checkpoints} checkpoints, {report.writes} writes,"
            f" {report.there_already} there already, {len(report.different)} different, {seconds:.0f} s",
            end="", file=sys.stderr, flush=True)

    with StateCacheSaver.from_conn_string(chosen.new, schema=chosen.schema) as saver:
        report = migrate(
            chosen.old, saver, threads=chosen.thread, verify_only=chosen.verify_only, progress=progress)
    print(file=sys.stderr)
    for line in report.different:
        print(line)
    return 1 if report.different else 0


if __name__ == "__main__":
    sys.exit(main())

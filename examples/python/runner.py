"""A runner: claims a run, does its steps, and stops when it has lost the run. docs/clients/runner.md says why so.

    python runner.py RUN OWNER LEASE_SECONDS

The variable "steps" of the run says how many steps there are, and "seconds" how long one takes. Connects as libpq
does (PGHOST, PGDATABASE, ...). Exits with 0 when the run has ended, with 3 when another runner has it now.
"""

import contextlib
import sys
import threading
import time
from dataclasses import dataclass
from datetime import timedelta

import psycopg
from psycopg.errors import LockNotAvailable, ObjectNotInPrerequisiteState
from psycopg.types.json import Jsonb


# docs: claim
@dataclass
class Claim:
    run: str
    token: int
    lease: timedelta


def claim(connection, run, owner, lease):
    """Waits until nobody else has the run. 55000: it has ended; 42704: there is no such run."""
    while True:
        try:
            (token,) = connection.execute("SELECT state_context_claim(%s, %s, %s)", (run, owner, lease)).fetchone()
            return Claim(run, token, lease)
        except LockNotAvailable as held:    # 55P03
            print(f"waiting: {held.diag.message_detail}", flush=True)
            time.sleep(lease.total_seconds() / 3)
# docs: end


# docs: renew
class Lost(Exception):
    """Another runner has the run (40001), or had it and has completed (55000) or deleted it (42704)."""


def renew(connection, claim):
    try:
        connection.execute("SELECT state_context_renew(%s, %s, %s)", (claim.run, claim.token, claim.lease))
    except psycopg.Error as error:
        if error.sqlstate in ("40001", "55000", "42704"):
            raise Lost(error.diag.message_primary) from error
        raise


def keep(claim, done, lost):
    """Renews three times in a lease, on connections of its own, until done is set or the run is lost."""
    while not done.wait(claim.lease.total_seconds() / 3):
        try:
            with psycopg.connect(autocommit=True) as connection:
                renew(connection, claim)
        except Lost as reason:
            print(f"not renewed: {reason}", file=sys.stderr)
            lost.set()
            return
        except psycopg.OperationalError as error:
            print(f"not renewed: {error}", file=sys.stderr)    # the next attempt may still be in time
# docs: end


# docs: save
def under_claim(connection, claim, work):
    """Runs work on the run in a transaction that is committed only if the run is still ours."""
    while True:
        try:
            with connection.transaction():
                connection.execute("SELECT state_context_fence(%s, %s)", (claim.run, claim.token))
                result = work()
            return result
        except psycopg.Error as error:
            if error.sqlstate not in ("40001", "40P01", "55000", "42704"):
                raise
            renew(connection, claim)    # raises Lost if that is the reason
            if error.sqlstate in ("55000", "42704"):
                raise    # the run is ours: the work itself is wrong
            # 40001 or 40P01, and the run is ours: another change was faster, so once more
# docs: end


# docs: steps
def do_steps(connection, claim, lost):
    (run,) = under_claim(connection, claim, lambda: connection.execute(
        "SELECT state_context_get(%s)", (claim.run,)).fetchone())
    variables = {name: variable["value"] for name, variable in run["variables"].items()}
    for step in range(variables.get("done", 0) + 1, variables["steps"] + 1):
        print(f"step {step} begins", flush=True)
        result = do_step(step, variables, lost)    # outside a transaction: it may take long
        if lost.is_set():
            raise Lost("its lease could not be renewed")

        def save():    # one version: the result, and that the step is done
            connection.execute("SELECT state_context_append(%s, 'results', %s)", (claim.run, Jsonb(result)))
            connection.execute("SELECT state_context_set(%s, 'done', %s)", (claim.run, Jsonb(step)))

        under_claim(connection, claim, save)
        print(f"step {step} saved", flush=True)
# docs: end


def do_step(step, variables, lost):
    """What a step does. Here it takes its time, and ends early if the run is lost."""
    lost.wait(variables["seconds"])
    return {"step": step}


# docs: run
def run_it(connection, claim):
    done, lost = threading.Event(), threading.Event()
    keeper = threading.Thread(target=keep, args=(claim, done, lost))
    keeper.start()
    try:
        do_steps(connection, claim, lost)
        under_claim(connection, claim, lambda: connection.execute(
            "SELECT * FROM state_context_complete(%s)", (claim.run,)))
    except Lost:
        raise    # write nothing more
    except BaseException:
        with contextlib.suppress(psycopg.Error):    # another runner need not wait for the end of the lease
            connection.execute("SELECT state_context_release(%s, %s)", (claim.run, claim.token))
        raise
    finally:
        done.set()
        keeper.join()
# docs: end


def main():
    run, owner, seconds = sys.argv[1:]
    with psycopg.connect(autocommit=True) as connection:
        try:
            claimed = claim(connection, run, owner, timedelta(seconds=float(seconds)))
        except ObjectNotInPrerequisiteState as ended:    # 55000
            print(f"nothing to do: {ended.diag.message_primary}", flush=True)
            return 0
        print(f"claimed {claimed.token}", flush=True)
        try:
            run_it(connection, claimed)
        except Lost as reason:
            print(f"lost: {reason}", flush=True)
            return 3
        print("completed", flush=True)
        return 0


sys.exit(main())

"""A runner: takes runs, does their steps, and stops when it has lost one. docs/clients/runner.md says why so.

    python runner.py OWNER LEASE_SECONDS

The variable "steps" of a run says how many steps there are, and "seconds" how long one takes. Connects as libpq
does (PGHOST, PGDATABASE, ...). Exits with 0 when no run runs any more, with 3 when another runner has its run now.
"""

import contextlib
import sys
import threading
import time
from dataclasses import dataclass
from datetime import timedelta

import psycopg
from psycopg.errors import DeadlockDetected, SerializationFailure
from psycopg.types.json import Jsonb


# docs: claim
@dataclass
class Claim:
    run: str
    token: int
    lease: timedelta


def claim_next(connection, owner, lease):
    """Takes the run that waits longest; waits as long as others have all that run. None: no run runs any more."""
    while True:
        taken = connection.execute(
            "SELECT run_id, token FROM state_context_claim_next(%s, %s)", (owner, lease)).fetchone()
        if taken:
            return Claim(*taken, lease)
        running = connection.execute("""SELECT run_id, owner, lease_until
            FROM state_context_list(status => 'running', "limit" => 1)""").fetchone()
        if not running:
            return None
        print("waiting: {} is owned by {} until {}".format(*running), flush=True)
        time.sleep(lease.total_seconds() / 3)
# docs: end


# docs: renew
class Lost(Exception):
    """Another runner has the run, or had it and has completed or deleted it."""


def renew(connection, claim):
    try:
        connection.execute("SELECT state_context_renew(%s, %s, %s)", (claim.run, claim.token, claim.lease))
    except SerializationFailure as error:    # 40001
        raise Lost(error.diag.message_detail) from error


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
        except (SerializationFailure, DeadlockDetected):    # 40001, 40P01
            renew(connection, claim)    # raises Lost if that is the reason
            # The run is ours: another change was faster, so once more.
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

        def save():    # one version: the result, that the step is done, and which one is next
            connection.execute("SELECT state_context_append(%s, 'results', %s)", (claim.run, Jsonb(result)))
            connection.execute("SELECT state_context_set(%s, 'done', %s)", (claim.run, Jsonb(step)))
            connection.execute("SELECT state_context_step(%s, %s)", (claim.run, f"step {step + 1}"))

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
    owner, seconds = sys.argv[1:]
    with psycopg.connect(autocommit=True) as connection:
        while claimed := claim_next(connection, owner, timedelta(seconds=float(seconds))):
            print(f"claimed {claimed.run} {claimed.token}", flush=True)
            try:
                run_it(connection, claimed)
            except Lost as reason:
                print(f"lost: {reason}", flush=True)
                return 3
            print(f"completed {claimed.run}", flush=True)
    print("nothing to do", flush=True)
    return 0


sys.exit(main())

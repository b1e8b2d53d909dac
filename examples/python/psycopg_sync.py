"""First steps with psycopg 3: docs/clients/psycopg.md shows parts of this program.

Connects as libpq does (PGHOST, PGDATABASE, ...). Exits with 0 when everything came out as the page says.
"""

# docs: connect
from datetime import timedelta
from decimal import Decimal

import psycopg
from psycopg.errors import DeadlockDetected, SerializationFailure
from psycopg.types.json import Jsonb

connection = psycopg.connect(autocommit=True)    # a statement outside a transaction block commits by itself
# docs: end

other = psycopg.connect(autocommit=True)    # somebody else
KEYS = ["psycopg-run", "psycopg-step", "psycopg-once", "psycopg-hot", "psycopg-a", "psycopg-b", "psycopg-told"]


def documents():
    # docs: documents
    connection.execute("SELECT state_set(%s, %s)", ("psycopg-run", Jsonb({"step": 1, "messages": []})))
    (state,) = connection.execute("SELECT state_get(%s)", ("psycopg-run",)).fetchone()
    assert state == {"step": 1, "messages": []}    # a dict; None if there is no such state
    # docs: end


def paths():
    # docs: paths
    connection.execute("SELECT state_append(%s, %s, %s)", ("psycopg-run", ["messages"], Jsonb({"role": "user"})))
    path = ["messages", "0", "role"]
    (role,) = connection.execute("SELECT state_get_path(%s, %s)", ("psycopg-run", path)).fetchone()
    assert role == "user"
    # docs: end


def arguments_by_name():
    # docs: names
    connection.execute(
        "SELECT state_set(%(key)s, %(state)s, ttl => %(ttl)s, class => %(class)s)",
        {"key": "psycopg-limits", "state": Jsonb({"rows": 100}), "ttl": timedelta(hours=1), "class": "config"})
    # docs: end
    (rows,) = connection.execute("SELECT state_get_path('psycopg-limits', '{rows}', 'config')").fetchone()
    assert rows == 100


def listening():
    # docs: listen
    listener = psycopg.connect(autocommit=True)
    listener.execute("LISTEN state_updated")
    # docs: end
    connection.execute("SELECT state_set('psycopg-told', '1')")
    # docs: notifies
    heard = [message.payload for message in listener.notifies(timeout=10, stop_after=1)]
    # docs: end
    assert len(heard) == 1 and '"key":"psycopg-told"' in heard[0], heard

    # Without autocommit LISTEN begins a transaction, and listens when that is committed.
    waiting = psycopg.connect()
    waiting.execute("LISTEN state_updated")
    connection.execute("SELECT state_set('psycopg-told', '2')")
    assert list(waiting.notifies(timeout=0.3)) == []
    waiting.commit()
    connection.execute("SELECT state_set('psycopg-told', '3')")
    (version,) = connection.execute("SELECT state_version('psycopg-told')").fetchone()
    assert f'"version":{version}}}' in next(waiting.notifies(timeout=10)).payload


# docs: retry
def in_transaction(connection, work):
    """Runs work in a transaction, and again as long as other transactions are faster."""
    while True:
        try:
            with connection.transaction():
                result = work()
            return result    # the transaction is committed
        except (SerializationFailure, DeadlockDetected):
            continue    # 40001 or 40P01, from a statement or from COMMIT: nothing is kept, read again
# docs: end


def retrying():
    connection.execute("SELECT state_set('psycopg-step', '{\"step\": 1}')")
    attempts = 0

    def work():
        nonlocal attempts
        attempts += 1
        version, state = connection.execute(
            "SELECT state_version('psycopg-step'), state_get('psycopg-step')").fetchone()
        connection.execute(
            "SELECT state_set('psycopg-step', %s, expected_version => %s)",
            (Jsonb(state | {"step": state["step"] + 1}), version))
        if attempts == 1:
            # Somebody is faster. Only COMMIT can find out.
            other.execute("SELECT state_update('psycopg-step', '{\"note\": \"mine\"}')")
        if attempts == 2:
            connection.execute("DO $$ BEGIN RAISE deadlock_detected; END $$")

    in_transaction(connection, work)
    (state,) = connection.execute("SELECT state_get('psycopg-step')").fetchone()
    assert (attempts, state) == (3, {"step": 2, "note": "mine"}), (attempts, state)


# docs: step
def take_step(connection, key):
    while True:
        try:
            with connection.transaction():
                version, state = connection.execute(
                    "SELECT state_version(%s), state_get(%s)", (key, key)).fetchone()
                state["step"] += 1
                connection.execute(
                    "SELECT state_set(%s, %s, expected_version => %s)", (key, Jsonb(state), version))
            return state
        except (SerializationFailure, DeadlockDetected):
            continue    # nothing of the transaction is kept; read again
# docs: end


def expected_version():
    # docs: expected_version
    def count_up():
        version, state = connection.execute(
            "SELECT coalesce(state_version(%s), 0), state_get(%s)", ("psycopg-hot", "psycopg-hot")).fetchone()
        state = state or {"count": 0}
        state["count"] += 1
        connection.execute(
            "SELECT state_set(%s, %s, expected_version => %s)", ("psycopg-hot", Jsonb(state), version))

    in_transaction(connection, count_up)
    # docs: end
    in_transaction(connection, count_up)
    assert take_step(connection, "psycopg-step")["step"] == 3
    (count,) = connection.execute("SELECT state_get_path('psycopg-hot', '{count}')").fetchone()
    assert count == 2


def operation():
    # docs: operation
    connection.execute("SELECT state_merge(%s, %s)", ("psycopg-hot", Jsonb({"seen": {"mail": True}})))
    # docs: end
    # What somebody else changes between the call and COMMIT stays.
    with connection.transaction():
        connection.execute("SELECT state_merge('psycopg-hot', '{\"seen\": {\"bank\": true}}')")
        other.execute("SELECT state_update('psycopg-hot', '{\"count\": 7}')")
    (state,) = connection.execute("SELECT state_get('psycopg-hot')").fetchone()
    assert state == {"count": 7, "seen": {"mail": True, "bank": True}}, state


def batch():
    connection.execute("SELECT state_set('psycopg-a', '{\"left\": 5}'), state_set('psycopg-b', '{\"left\": 0}')")

    # docs: batch
    def move():
        connection.execute("SELECT state_batch_begin()")    # from here on: what was read must still be so at COMMIT
        found = connection.execute("SELECT key, state FROM state_get_many(%s)", (["psycopg-a", "psycopg-b"],))
        left = {key: state["left"] for key, state in found}
        connection.execute("SELECT state_update('psycopg-a', %s)", (Jsonb({"left": left["psycopg-a"] - 1}),))
        connection.execute("SELECT state_update('psycopg-b', %s)", (Jsonb({"left": left["psycopg-b"] + 1}),))

    in_transaction(connection, move)
    # docs: end
    in_transaction(connection, move)
    left = connection.execute("SELECT state -> 'left' FROM state_get_many('{psycopg-a,psycopg-b}')").fetchall()
    assert left == [(3,), (2,)], left
    # A state that was only read counts too.
    try:
        with connection.transaction():
            connection.execute("SELECT state_batch_begin(), state_get('psycopg-a')")
            connection.execute("SELECT state_update('psycopg-b', '{\"left\": 9}')")
            other.execute("SELECT state_update('psycopg-a', '{\"left\": 4}')")
        raise AssertionError("the batch was not checked")
    except SerializationFailure:
        pass


def bulk_load():
    documents = ((f"psycopg-row-{n}", {"row": n}) for n in range(1000))
    # docs: bulk
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE incoming (key text, state jsonb) ON COMMIT DROP")
        with cursor.copy("COPY incoming (key, state) FROM STDIN") as copy:
            for key, document in documents:
                copy.write_row((key, Jsonb(document)))
        cursor.execute("SELECT state_set(key, state, class => 'config') FROM incoming")
    # docs: end
    (rows,) = connection.execute(
        "SELECT count(*) FROM state_current WHERE class = 'config' AND key LIKE 'psycopg-row-%'").fetchone()
    assert rows == 1000


def first_errors():
    """What beginners write, and what it is answered with."""
    import uuid
    from psycopg.types.json import Json

    connection.execute("SELECT state_context_create('psycopg-once', resource_limits => '{\"maxCredits\": 9}')")
    mistakes = [
        ("42883", "SELECT state_get(%s)", (42,)),
        ("42883", "SELECT state_get(%s)", (uuid.uuid4(),)),
        ("42883", "SELECT state_set('x', %s)", (Json({}),)),
        (None, "SELECT state_set('x', %s)", ({},)),
        ("42883", "SELECT state_set('x', %s, ttl => %s)", (Jsonb({}), 3600)),
        ("22P02", "SELECT state_get_path('x', %s)", (("messages", "0"),)),
        (None, "SELECT state_get_path('x', %s)", (["messages", 0],)),
        ("42883", "SELECT state_context_spend('psycopg-once', 'credits', %s)", (1.5,)),
        ("42883", "SELECT state_context_set('psycopg-once', 'step', %s)", (5,)),
        ("22P02", "SELECT state_context_set('psycopg-once', 'step', %s)", ("five",)),
    ]
    for expected, statement, values in mistakes:
        try:
            connection.execute(statement, values)
        except psycopg.Error as error:
            assert error.sqlstate == expected, (statement, values, error)
        else:
            raise AssertionError(f"{statement} with {values} did not fail")
    # docs: runs
    (left,) = connection.execute(
        "SELECT state_context_spend(%s, 'credits', %s)", ("psycopg-once", Decimal("1.5"))).fetchone()
    connection.execute("SELECT state_context_set(%s, %s, %s)", ("psycopg-once", "step", Jsonb(5)))
    # docs: end
    assert left == Decimal("7.5")


def main():
    for key in KEYS:
        connection.execute("SELECT state_delete(%s)", (key,))
    connection.execute("SELECT state_delete('psycopg-limits', class => 'config')")
    steps = [documents, paths, arguments_by_name, listening, retrying, expected_version, operation, batch, bulk_load,
             first_errors]
    for step in steps:
        step()
        print(f"psycopg_sync: {step.__name__}: ok")


main()

"""First steps with SQLAlchemy: docs/clients/sqlalchemy.md shows parts of this program.

Connects as libpq does (PGHOST, PGDATABASE, ...). Exits with 0 when everything came out as the page says.
"""

import uuid

# docs: connect
from datetime import timedelta
from decimal import Decimal

import psycopg
from psycopg.types.json import Jsonb
from sqlalchemy import bindparam, create_engine, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError

engine = create_engine("postgresql+psycopg://")    # or postgresql+psycopg://user@host/database
# docs: end

# docs: statements
# What is a dict must be said to be JSONB: text() does not know the types of the functions.
SET = text("SELECT state_set(:key, :state)").bindparams(bindparam("state", type_=JSONB))
SET_AT = text("SELECT state_set(:key, :state, expected_version => :version)").bindparams(
    bindparam("state", type_=JSONB))
# docs: end

UPDATE = text("SELECT state_update(:key, :updates)").bindparams(bindparam("updates", type_=JSONB))
KEYS = ["alchemy-run", "alchemy-step", "alchemy-once", "alchemy-hot", "alchemy-a", "alchemy-b", "alchemy-told"]


def value(statement, **values):
    """The only value of the only row, in a transaction of its own."""
    with engine.begin() as connection:
        return connection.execute(text(statement), values).scalar_one()


def somebody_updates(key, updates):
    """A change in a transaction of another session."""
    with engine.begin() as other:
        other.execute(UPDATE, {"key": key, "updates": updates})


def documents():
    # docs: documents
    with engine.begin() as connection:    # commits at its end
        connection.execute(SET, {"key": "alchemy-run", "state": {"step": 1, "messages": []}})
        state = connection.execute(text("SELECT state_get(:key)"), {"key": "alchemy-run"}).scalar_one()
        assert state == {"step": 1, "messages": []}    # a dict; None if there is no such state
    # docs: end


def forgotten_commit():
    """Without a commit nothing stays of what was staged."""
    with engine.connect() as connection:
        connection.execute(SET, {"key": "alchemy-run", "state": {"step": 99}})
    assert value("SELECT state_get_path('alchemy-run', '{step}')") == 1


def paths():
    # docs: paths
    append = text("SELECT state_append(:key, :path, :value)").bindparams(bindparam("value", type_=JSONB))
    with engine.begin() as connection:
        connection.execute(append, {"key": "alchemy-run", "path": ["messages"], "value": {"role": "user"}})
        found = connection.execute(
            text("SELECT state_get_path(:key, :path)"), {"key": "alchemy-run", "path": ["messages", "0", "role"]})
        assert found.scalar_one() == "user"
    # docs: end


def arguments_by_name():
    # docs: names
    limits = text("SELECT state_set(:key, :state, ttl => :ttl, class => :class)").bindparams(
        bindparam("state", type_=JSONB))
    with engine.begin() as connection:
        connection.execute(limits, {
            "key": "alchemy-limits", "state": {"rows": 100}, "ttl": timedelta(hours=1), "class": "config"})
    # docs: end
    assert value("SELECT state_get_path('alchemy-limits', '{rows}', class => 'config')") == 100


def listening():
    # docs: listen
    # A connection of psycopg's own, outside the pool, that does nothing else.
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    listener = psycopg.connect(url, autocommit=True)
    listener.execute("LISTEN state_updated")
    # docs: end
    value("SELECT state_set('alchemy-told', '1')")
    # docs: notifies
    heard = [message.payload for message in listener.notifies(timeout=10, stop_after=1)]
    # docs: end
    assert len(heard) == 1 and '"key":"alchemy-told"' in heard[0], heard
    listener.close()


# docs: retry
def in_transaction(work):
    """Runs work in a transaction, and again as long as other transactions are faster."""
    while True:
        try:
            with engine.begin() as connection:
                result = work(connection)
            return result    # the transaction is committed
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in ("40001", "40P01"):
                raise
            # From a statement or from COMMIT: nothing is kept, read again.
# docs: end


def retrying():
    with engine.begin() as connection:
        connection.execute(SET, {"key": "alchemy-step", "state": {"step": 1}})
    attempts = 0

    def work(connection):
        nonlocal attempts
        attempts += 1
        version, state = connection.execute(
            text("SELECT state_version('alchemy-step'), state_get('alchemy-step')")).one()
        connection.execute(SET_AT, {
            "key": "alchemy-step", "state": state | {"step": state["step"] + 1}, "version": version})
        if attempts == 1:
            # Somebody is faster. Only COMMIT can find out.
            somebody_updates("alchemy-step", {"note": "mine"})
        if attempts == 2:
            connection.execute(text("DO $$ BEGIN RAISE deadlock_detected; END $$"))

    in_transaction(work)
    state = value("SELECT state_get('alchemy-step')")
    assert (attempts, state) == (3, {"step": 2, "note": "mine"}), (attempts, state)


def expected_version():
    # docs: expected_version
    def count_up(connection):
        version, state = connection.execute(
            text("SELECT coalesce(state_version(:key), 0), state_get(:key)"), {"key": "alchemy-hot"}).one()
        state = state or {"count": 0}
        state["count"] += 1
        connection.execute(SET_AT, {"key": "alchemy-hot", "state": state, "version": version})

    in_transaction(count_up)
    # docs: end
    in_transaction(count_up)
    assert value("SELECT state_get('alchemy-hot')") == {"count": 2}


def operation():
    # docs: operation
    merge = text("SELECT state_merge(:key, :patch)").bindparams(bindparam("patch", type_=JSONB))
    with engine.begin() as connection:
        connection.execute(merge, {"key": "alchemy-hot", "patch": {"seen": {"mail": True}}})
    # docs: end
    with engine.begin() as connection:
        connection.execute(merge, {"key": "alchemy-hot", "patch": {"seen": {"bank": True}}})
        somebody_updates("alchemy-hot", {"count": 7})
    state = value("SELECT state_get('alchemy-hot')")
    assert state == {"count": 7, "seen": {"mail": True, "bank": True}}, state


def batch():
    with engine.begin() as connection:
        connection.execute(SET, {"key": "alchemy-a", "state": {"left": 5}})
        connection.execute(SET, {"key": "alchemy-b", "state": {"left": 0}})

    # docs: batch
    def move(connection):
        connection.execute(text("SELECT state_batch_begin()"))    # what was read must still be so at COMMIT
        found = connection.execute(
            text("SELECT key, state FROM state_get_many(:keys)"), {"keys": ["alchemy-a", "alchemy-b"]})
        left = {key: state["left"] for key, state in found}
        connection.execute(UPDATE, {"key": "alchemy-a", "updates": {"left": left["alchemy-a"] - 1}})
        connection.execute(UPDATE, {"key": "alchemy-b", "updates": {"left": left["alchemy-b"] + 1}})

    in_transaction(move)
    # docs: end
    assert value("SELECT array(SELECT state ->> 'left' FROM state_get_many('{alchemy-a,alchemy-b}'))") == ["4", "1"]
    # A state that was only read counts too.
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT state_batch_begin(), state_get('alchemy-a')"))
            connection.execute(UPDATE, {"key": "alchemy-b", "updates": {"left": 9}})
            somebody_updates("alchemy-a", {"left": 3})
        raise AssertionError("the batch was not checked")
    except DBAPIError as error:
        assert error.orig.sqlstate == "40001", error


def bulk_load():
    documents = [(f"alchemy-row-{n}", {"row": n}) for n in range(1000)]
    # docs: bulk
    with engine.begin() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE incoming (key text, state jsonb) ON COMMIT DROP"))
        driver = connection.connection.driver_connection    # psycopg's own, in the same transaction
        with driver.cursor().copy("COPY incoming (key, state) FROM STDIN") as copy:
            for key, document in documents:
                copy.write_row((key, Jsonb(document)))
        connection.execute(text("SELECT state_set(key, state, class => 'config') FROM incoming"))
    # docs: end
    assert value("SELECT count(*) FROM state_current WHERE class = 'config' AND key ~ '^alchemy-row-'") == 1000


def first_errors():
    """What beginners write, and what it is answered with."""
    value("SELECT state_context_create('alchemy-once', resource_limits => '{\"maxCredits\": 9}')")
    mistakes = [
        ("42883", "SELECT state_get(:it)", 42),
        ("42883", "SELECT state_get(:it)", uuid.uuid4()),
        (None, "SELECT state_set('x', :it)", {}),
        ("42601", "SELECT state_set('x', :it::jsonb)", "{}"),
        ("42883", "SELECT state_set('x', '{}', ttl => :it)", 3600),
        ("22P02", "SELECT state_get_path('x', :it)", ("messages", "0")),
        ("42883", "SELECT state_context_spend('alchemy-once', 'credits', :it)", 1.5),
        ("42883", "SELECT state_context_set('alchemy-once', 'step', :it)", 5),
    ]
    for expected, statement, it in mistakes:
        try:
            value(statement, it=it)
        except DBAPIError as error:
            assert getattr(error.orig, "sqlstate", None) == expected, (statement, it, error)
        else:
            raise AssertionError(f"{statement} with {it} did not fail")
    # docs: runs
    variable = text("SELECT state_context_set(:run, :name, :value)").bindparams(bindparam("value", type_=JSONB))
    with engine.begin() as connection:
        connection.execute(variable, {"run": "alchemy-once", "name": "step", "value": 5})
        left = connection.execute(
            text("SELECT state_context_spend(:run, 'credits', :amount)"),
            {"run": "alchemy-once", "amount": Decimal("1.5")}).scalar_one()
    # docs: end
    assert left == Decimal("7.5")


def main():
    for key in KEYS:
        value("SELECT state_delete(:key)", key=key)
    value("SELECT state_delete('alchemy-limits', class => 'config')")
    steps = [documents, forgotten_commit, paths, arguments_by_name, listening, retrying, expected_version, operation,
             batch, bulk_load, first_errors]
    for step in steps:
        step()
        print(f"sqlalchemy_client: {step.__name__}: ok")


main()

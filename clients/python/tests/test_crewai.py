"""States of CrewAI's flows: as its own storage keeps them, and its flows on them.

CrewAI brings a gigabyte along, so `make adapters` runs this file, with an environment of its own.
"""

import datetime
import os
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import make_database

# Nothing is sent to anybody.
os.environ |= {"CREWAI_DISABLE_TELEMETRY": "true", "OTEL_SDK_DISABLED": "true", "CREWAI_TRACING_ENABLED": "false"}

from crewai.flow.async_feedback.types import HumanFeedbackPending, PendingFeedbackContext  # noqa: E402
from crewai.flow.flow import Flow, listen, start  # noqa: E402
from crewai.flow.human_feedback import human_feedback  # noqa: E402
from crewai.flow.persistence import SQLiteFlowPersistence, persist  # noqa: E402
from pydantic import BaseModel  # noqa: E402

from state_cache import StateCache  # noqa: E402
from state_cache.crewai import CLASS, StateCacheFlowPersistence  # noqa: E402


@pytest.fixture(scope="module")
def database():
    make_database("py_test_crewai")
    owner = StateCacheFlowPersistence("dbname=py_test_crewai", extension_schema="states")
    owner.setup()
    owner.setup()
    owner.close()
    return "py_test_crewai"


@pytest.fixture
def ours(conninfo):
    made = StateCacheFlowPersistence(conninfo, extension_schema="states")
    yield made
    made.close()


class Model(BaseModel):
    id: str = "model"
    n: int = 0
    when: datetime.datetime = datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc)
    tags: set[str] = {"one"}


STATES = [
    {"id": "a", "z": 1, "a": {"y": 1.0, "b": [1e22, -0.0, None]}},
    {"odd\0": "a\0b\ud83d", "infinite": float("inf"), "huge": 2**70, "long": "x" * 300_000, 7: "number"},
    {"tuple": (1, 2), "set": {3}, "when": datetime.date(2026, 1, 2), "model": Model(n=4), "id": uuid.UUID(int=7)},
    Model(n=5), {},
]


def context(flow_id, **fields):
    return PendingFeedbackContext(
        flow_id=flow_id, flow_class="tests.Flow", method_name="ask\0", method_output={"b": 1, "a": [1.5]},
        message="good?", emit=["yes", "no"], requested_at=datetime.datetime(2026, 1, 2), **fields)


def play(storage, flow):
    said = [storage.load_state(flow), storage.load_pending_feedback(flow)]
    storage.clear_pending_feedback(flow)
    for number, state in enumerate(STATES):
        storage.save_state(flow, f"method \u00fc {number}", state)
        said.append(repr(storage.load_state(flow)))
    for number, state in enumerate(STATES[:2]):
        storage.save_pending_feedback(flow, context(flow, metadata={"n": number}), state)
        said.append(repr(storage.load_pending_feedback(flow)))
        said.append(repr(storage.load_state(flow)))
    storage.save_state(flow, "later", {"later": True})
    said.append(repr(storage.load_pending_feedback(flow)))
    storage.clear_pending_feedback(flow)
    said += [storage.load_pending_feedback(flow), storage.load_state(flow), storage.load_state(flow + "2")]
    with pytest.raises(ValueError):
        storage.save_state(flow, "method", ["no", "state"])
    return said


@pytest.mark.parametrize("flow", ["flow-1", "f\x1f\ud83d%" * 100])
def test_as_on_sqlite(ours, flow, tmp_path):
    # SQLite refuses half a surrogate pair in a name.
    expected = play(SQLiteFlowPersistence(str(tmp_path / "flows.db")), flow.replace("\ud83d", "?"))
    found = play(ours, flow)
    for number, (one, other) in enumerate(zip(found, expected)):
        assert one == (other.replace(repr(flow.replace("\ud83d", "?")), repr(flow))
                       if isinstance(other, str) else other), number
    assert len(found) == len(expected) > 12


def test_what_methods_left_behind_is_kept(ours, conninfo):
    for number in range(3):
        ours.save_state("kept", f"method {number}", {"n": number})
    with StateCache(conninfo, schema="states", class_=CLASS) as states:
        history = states.history("kept")
        assert [version.execution_context for version in history] == [{"method": f"method {n}"} for n in (2, 1, 0)]
        assert [states.at("kept", version.version)["state"] for version in history] == [
            [[["n"], [n]]] for n in (2, 1, 0)]


def test_threads_share_one(ours):
    def work(flow):
        for number in range(10):
            ours.save_state(f"thread {flow}", "method", {"n": number})
            assert ours.load_state(f"thread {flow}") == {"n": number}

    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(work, range(32))) == [None] * 32


def test_it_becomes_json_and_back(ours):
    again = StateCacheFlowPersistence.model_validate(ours.model_dump(mode="json"))
    ours.save_state("json", "method", {"n": 1})
    assert again.load_state("json") == {"n": 1} and "dbname" not in repr(again)
    again.close()


def test_a_flow_goes_on_in_another_process(conninfo):
    def make(storage):
        class State(BaseModel):
            id: str = "counting"
            steps: list[str] = []

        @persist(storage)
        class Counting(Flow[State]):
            @start()
            def first(self):
                self.state.steps.append("first")

            @listen(first)
            def second(self):
                self.state.steps.append("second")

        return Counting(suppress_flow_events=True)

    for turn in range(3):
        storage = StateCacheFlowPersistence(conninfo, extension_schema="states")
        flow = make(storage)
        flow.kickoff(inputs={"id": "counting"})
        assert flow.state.steps == ["first", "second"] * (turn + 1)
        assert storage.load_state("counting")["steps"] == flow.state.steps
        storage.close()


def test_a_flow_that_waits_for_a_human(ours):
    class Asking:
        def request_feedback(self, context, flow):
            raise HumanFeedbackPending(context=context)

    class Review(Flow):
        @start()
        @human_feedback(message="good?", provider=Asking())
        def draft(self):
            self.state["draft"] = "text \u00fc"
            return "text"

        @listen(draft)
        def publish(self, feedback):
            self.state["published"] = feedback.feedback
            return feedback.feedback

    waiting = Review(persistence=ours, suppress_flow_events=True).kickoff()
    flow_id = waiting.context.flow_id
    assert ours.load_pending_feedback(flow_id)[0]["draft"] == "text \u00fc"
    flow = Review.from_pending(flow_id, ours)
    assert flow.resume("fine") == "fine"
    assert flow.state["published"] == "fine" and flow.state["draft"] == "text \u00fc"
    assert ours.load_pending_feedback(flow_id) is None

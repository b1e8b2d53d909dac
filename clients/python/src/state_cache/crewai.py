"""States of CrewAI's flows on state_cache.

    from state_cache.crewai import StateCacheFlowPersistence

    @persist(StateCacheFlowPersistence("dbname=app"))
    class MyFlow(Flow[MyState]):
        ...

A flow is a state, and what its methods leave behind are its versions, each stored as the difference to the one
before. What waits for feedback of a human stands beside it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from crewai.flow.persistence.base import FlowPersistence
from pydantic import BaseModel, Field, PrivateAttr

from ._json import KEY_BYTES, SEPARATOR, dumps, from_pairs, pairs, part, unwrap, wrap
from ._sync import StateCache, States
from .sql import Statement

if TYPE_CHECKING:
    from crewai.flow.async_feedback.types import PendingFeedbackContext

CLASS = "crewai_flow"


def _key(flow_uuid: str) -> str:
    return part(flow_uuid, KEY_BYTES - 10)


def _feedback_key(flow_uuid: str) -> str:
    return _key(flow_uuid) + SEPARATOR + "feedback"


def _plain(value: Any) -> Any:
    """What of a state JSON does not know, as the framework's own storage spells it."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, (set, tuple)):
        return list(value)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _dictionary(state: dict[str, Any] | BaseModel) -> dict[str, Any]:
    if isinstance(state, BaseModel):
        return state.model_dump(mode="json")
    if not isinstance(state, dict):
        raise ValueError(f"the state of a flow must be a dict or a model of pydantic, not {type(state)}")
    made: dict[str, Any] = json.loads(json.dumps(state, default=_plain))
    return made


class StateCacheFlowPersistence(FlowPersistence):
    """Flows in PostgreSQL with state_cache, for any number of threads.

    `conninfo`: a connection string. `extension_schema`: the extension's schema, where that is not on `search_path`.
    The connections are opened at the first use; `close()` closes them.
    """

    persistence_type: str = Field(default="StateCacheFlowPersistence")
    conninfo: str = Field(default="", repr=False)
    extension_schema: str | None = None
    max_size: int = 10
    _client: StateCache = PrivateAttr()

    def __init__(self, conninfo: str = "", /, **fields: Any) -> None:
        fields.setdefault("conninfo", conninfo)
        super().__init__(**fields)
        self.init_db()

    def init_db(self) -> None:
        """Makes the pool of connections, which is opened at the first use."""
        self._client = StateCache(
            self.conninfo, schema=self.extension_schema, class_=CLASS, min_size=0, max_size=self.max_size)

    def setup(self, *, keep_for: str | None = None) -> None:
        """Defines the class of flows, once; for a role that may define classes.

        `keep_for`: how long a state is kept that is not the newest of its flow, '30 days' say; all are otherwise.
        """
        prefix = self._client.calls._prefix
        self._opened().run(Statement(
            f"SELECT {prefix}state_class_define('{CLASS}', keep => 0, keep_for => $1::text::interval,"
            f" dedup => false)::text WHERE NOT EXISTS (SELECT FROM {prefix}state_class WHERE class = '{CLASS}')",
            (keep_for or "0",), lambda rows: None))

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def _opened(self) -> StateCache:
        self._client.open()
        return self._client

    @staticmethod
    def _save(states: States, flow_uuid: str, method_name: str, state: dict[str, Any]) -> None:
        context = {"method": json.dumps(method_name)[1:-1]}
        states.save(_key(flow_uuid), {"v": 1, "state": pairs(state)}, execution_context=context)

    def save_state(self, flow_uuid: str, method_name: str, state_data: dict[str, Any] | BaseModel) -> None:
        """Stores the state that a method of a flow leaves behind."""
        self._save(self._opened(), flow_uuid, method_name, _dictionary(state_data))

    def load_state(self, flow_uuid: str) -> dict[str, Any] | None:
        """The newest state of a flow; None if there is none."""
        found = self._opened().get(_key(flow_uuid))
        return None if found is None else from_pairs(found["state"])

    def save_pending_feedback(
        self, flow_uuid: str, context: PendingFeedbackContext, state_data: dict[str, Any] | BaseModel
    ) -> None:
        """Stores the state of a flow, and what it waits for: both or none."""
        state = _dictionary(state_data)
        waiting = wrap(json.loads(json.dumps(context.to_dict(), default=_plain)))
        with self._opened().begin() as transaction:
            self._save(transaction, flow_uuid, context.method_name, state)
            transaction.set(_feedback_key(flow_uuid), {"v": 1, "state": pairs(state), "context": waiting})

    def load_pending_feedback(self, flow_uuid: str) -> tuple[dict[str, Any], PendingFeedbackContext] | None:
        """The state of a flow that waits, and what it waits for; None if it does not wait."""
        from crewai.flow.async_feedback.types import PendingFeedbackContext

        found = self._opened().get(_feedback_key(flow_uuid))
        if found is None:
            return None
        return from_pairs(found["state"]), PendingFeedbackContext.from_dict(unwrap(found["context"]))

    def clear_pending_feedback(self, flow_uuid: str) -> None:
        """Forgets what a flow waited for."""
        self._opened().delete(_feedback_key(flow_uuid))

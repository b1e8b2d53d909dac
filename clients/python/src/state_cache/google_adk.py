"""Sessions of Google's Agent Development Kit on state_cache.

    from state_cache import AsyncStateCache
    from state_cache.google_adk import StateCacheSessionService

    async with AsyncStateCache("dbname=app") as client:
        service = StateCacheSessionService(client)
        await service.setup()    # once, as the owner of the extension
        runner = Runner(app_name="app", agent=agent, session_service=service)

A session is a state, and its events are the log beside it: an event costs a row, however long the session is. What
belongs to a user or to an application is a state each. An event is stored together with what it changes, or not at
all, and only by a session object that has seen all events before: the version of the session's state tells.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event
from google.adk.platform import time as platform_time
from google.adk.platform import uuid as platform_uuid
from google.adk.sessions import Session, State
from google.adk.sessions._session_util import extract_json_safe_state_delta
from google.adk.sessions.base_session_service import BaseSessionService, GetSessionConfig, ListSessionsResponse

from ._async import AsyncStateCache
from ._json import KEY_BYTES, SEPARATOR, dumps, from_pairs, pairs, part, unwrap, wrap
from .errors import Conflict
from .sql import Row, Statement

try:
    from google.adk.errors._stale_session_error import StaleSessionError
except ImportError:
    # As it was before it had a name.
    StaleSessionError = ValueError

CLASS = "adk_session"
_ATTEMPTS = 20


def _user_key(app_name: str, user_id: str) -> str:
    return f"{part(app_name, 60)}{SEPARATOR}{part(user_id, 90)}"


def _session_key(app_name: str, user_id: str, session_id: str) -> str:
    start = _user_key(app_name, user_id) + SEPARATOR
    return start + part(session_id, KEY_BYTES - len(start.encode()))


class _Stored:
    """A session as the server gives it, with what belongs to its user and application."""

    def __init__(self, version: int, document: Any, app: Any, user: Any, events: Sequence[bytes]) -> None:
        self.version = version
        self.document = document
        self.state = from_pairs(document["state"])
        self.app = app
        self.user = user
        self.events = events

    def session(self) -> Session:
        """The session of the framework."""
        app_name, user_id, session_id = map(unwrap, self.document["name"])
        made = Session(
            app_name=app_name, user_id=user_id, id=session_id, last_update_time=self.document["updated"],
            state=_merged(self.state, self.app, self.user),
            events=[Event.model_validate(json.loads(event)) for event in self.events])
        made._storage_update_marker = str(self.version)
        return made


def _merged(state: Mapping[str, Any], app: Any, user: Any) -> dict[str, Any]:
    made = dict(state)
    for start, document in ((State.APP_PREFIX, app), (State.USER_PREFIX, user)):
        for name, value in _shared(document).items():
            made[start + name] = value
    return made


def _shared(document: Any) -> dict[str, Any]:
    """What a user's or an application's document holds."""
    return from_pairs((document or {}).values())


def _to_shared(delta: Mapping[str, Any]) -> str:
    """The same as an object that the server merges: each pair under a name that jsonb can hold."""
    return dumps({json.dumps(name)[1:-1]: pair for name, pair in zip(delta, pairs(delta))})


class StateCacheSessionService(BaseSessionService):
    """Sessions in PostgreSQL with state_cache."""

    def __init__(self, client: AsyncStateCache) -> None:
        self._client = client
        self._prefix = client.calls._prefix
        # Tasks of this process that append to one session take turns, as the framework's own services have it.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def setup(self) -> None:
        """Defines the class of sessions, once; for a role that may define classes."""
        await self._client.run(Statement(
            f"SELECT {self._prefix}state_class_define('{CLASS}', keep => 1)::text WHERE NOT EXISTS"
            f" (SELECT FROM {self._prefix}state_class WHERE class = '{CLASS}')", (), lambda rows: None))

    async def _read(self, app_name: str, user_id: str, session_id: str, newest: int | None) -> _Stored | None:
        key, user, app = _session_key(app_name, user_id, session_id), _user_key(app_name, user_id), part(app_name, 60)

        def read(rows: Sequence[Row]) -> _Stored | None:
            found = {row[0]: row for row in rows}
            if key not in found:
                return None
            document, of_app, of_user = (
                json.loads(found[each][2]) if each in found else None for each in (key, app, user))
            return _Stored(found[key][1], document, of_app, of_user, list(found[key][3] or ()))

        return await self._client.run(Statement(
            "SELECT s.key, s.version, s.state::text, CASE WHEN s.key = $2::text THEN"
            " (SELECT array_agg(e.payload ORDER BY e.number) FROM (SELECT payload, number"
            f" FROM {self._prefix}state_log_entry WHERE class = '{CLASS}' AND key = $2::text AND ref = ''"
            " ORDER BY number DESC LIMIT $3::bigint) e) END"
            f" FROM {self._prefix}state_get_many($1::text[], class => '{CLASS}') s",
            ([key, user, app], key, newest), read, binary=True))

    async def _write(
        self, key: str, document: Any, expected: int, app: str, user: str, deltas: Mapping[str, Any],
        events: Sequence[bytes],
    ) -> int:
        """Stores all of it or nothing; the version of the session, `Conflict` if that was not the expected one."""
        text = (
            f"SELECT {self._prefix}state_put($1::text, $2::text::jsonb, $3::bigint, class => '{CLASS}'),"
            f" CASE WHEN $4::text IS NOT NULL THEN"
            f" {self._prefix}state_update($5::text, $4::text::jsonb, class => '{CLASS}')::text END,"
            f" CASE WHEN $6::text IS NOT NULL THEN"
            f" {self._prefix}state_update($7::text, $6::text::jsonb, class => '{CLASS}')::text END,"
            f" CASE WHEN $8::bytea[] <> '{{}}' THEN"
            f" {self._prefix}state_log_append($1::text, NULL, payloads => $8::bytea[], class => '{CLASS}') END")
        return await self._client.run(Statement(
            text,
            (key, dumps(document), expected, _to_shared(deltas["app"]) if deltas["app"] else None, app,
             _to_shared(deltas["user"]) if deltas["user"] else None, user, list(events)),
            lambda rows: int(rows[0][0])))

    async def create_session(
        self, *, app_name: str, user_id: str, state: dict[str, Any] | None = None, session_id: str | None = None
    ) -> Session:
        """Makes a session; `AlreadyExistsError` if there is one of this name."""
        session_id = (session_id or "").strip() or platform_uuid.new_uuid()
        deltas = extract_json_safe_state_delta(state or {})
        key = _session_key(app_name, user_id, session_id)
        document = {
            "name": [wrap(app_name), wrap(user_id), wrap(session_id)], "updated": platform_time.get_time(),
            "events": 0, "state": pairs(deltas["session"]),
        }
        for attempt in range(_ATTEMPTS):
            try:
                await self._write(key, document, 0, part(app_name, 60), _user_key(app_name, user_id), deltas, [])
                break
            except Conflict:
                # Of this session, or of what its user and application share.
                if await self._client.of_class(CLASS).exists(key):
                    raise AlreadyExistsError(f"Session with id {session_id} already exists.") from None
                if attempt + 1 == _ATTEMPTS:
                    raise
        stored = await self._read(app_name, user_id, session_id, 0)
        if stored is None:
            raise SessionNotFoundError(f"Session {session_id} not found.")
        return stored.session()

    async def get_session(
        self, *, app_name: str, user_id: str, session_id: str, config: GetSessionConfig | None = None
    ) -> Session | None:
        """The session with its events, as they are in one snapshot; None if there is none."""
        newest = config.num_recent_events if config else None
        stored = await self._read(app_name, user_id, session_id.strip(), newest)
        if stored is None:
            return None
        session = stored.session()
        if config and config.after_timestamp is not None:
            after = config.after_timestamp
            session.events = [event for event in session.events if event.timestamp >= after]
        return session

    async def list_sessions(self, *, app_name: str, user_id: str | None = None) -> ListSessionsResponse:
        """The sessions of a user, or of all users, without their events; the one changed last comes last."""
        app = part(app_name, 60)
        start = app if user_id is None else _user_key(app_name, user_id)

        def read(rows: Sequence[Row]) -> list[tuple[str, int, Any]]:
            return [(row[0], row[1], json.loads(row[2])) for row in rows]

        rows = await self._client.run(Statement(
            f"SELECT key, version, state::text FROM {self._prefix}state_current WHERE class = '{CLASS}'"
            " AND (key = $1::text OR key = $2::text OR key >= $3::text AND key < $4::text)",
            (app, start, start + SEPARATOR, start + chr(ord(SEPARATOR) + 1)), read))
        shared = {key: document for key, _, document in rows if "events" not in document}
        sessions = [
            _Stored(version, document, shared.get(app), shared.get(key.rsplit(SEPARATOR, 1)[0]), ()).session()
            for key, version, document in rows if "events" in document
        ]
        sessions.sort(key=lambda session: (session.last_update_time, session.user_id, session.id))
        return ListSessionsResponse(sessions=sessions)

    async def delete_session(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """Deletes a session and erases its events. What its user and application share stays."""
        key = _session_key(app_name, user_id, session_id.strip())
        await self._client.run(Statement(
            f"SELECT {self._prefix}state_delete($1::text, class => '{CLASS}'),"
            f" {self._prefix}state_log_erase($1::text, class => '{CLASS}')", (key,), lambda rows: None))

    async def get_user_state(self, *, app_name: str, user_id: str) -> dict[str, Any]:
        """What the sessions of a user share, without the `user:` before the names."""
        return _shared(await self._client.of_class(CLASS).get(_user_key(app_name, user_id)))

    async def append_event(self, session: Session, event: Event) -> Event:
        """Appends an event and applies what it changes, at once; `StaleSessionError` if others were there before."""
        if event.partial:
            return event
        key = _session_key(session.app_name, session.user_id, session.id)
        self._apply_temp_state(session, event)
        event = self._trim_temp_delta_state(event)
        deltas = extract_json_safe_state_delta(dict(event.actions.state_delta or {}) if event.actions else {})
        payload = json.dumps(event.model_dump(mode="json", exclude_none=True), separators=(",", ":")).encode()
        async with self._turns.setdefault(key, asyncio.Lock()):
            for attempt in range(_ATTEMPTS):
                stored = await self._read(session.app_name, session.user_id, session.id, 1)
                if stored is None:
                    raise SessionNotFoundError(f"Session {session.id} not found.")
                if not _is_current(session, stored):
                    raise StaleSessionError(
                        f"Session {session.id} has been changed since it was read, by another process perhaps: read"
                        " it again with get_session.")
                document = {
                    **stored.document, "updated": event.timestamp, "events": stored.document["events"] + 1,
                    "state": pairs({**stored.state, **deltas["session"]}),
                }
                try:
                    version = await self._write(
                        key, document, stored.version, part(session.app_name, 60),
                        _user_key(session.app_name, session.user_id), deltas, [payload])
                    break
                except Conflict:
                    # Of this session, which the next reading tells, or of what its user and application share.
                    if attempt + 1 == _ATTEMPTS:
                        raise
            session._storage_update_marker = str(version)
            session.last_update_time = event.timestamp
            return self._commit_event_to_session(session, event)


def _is_current(session: Session, stored: _Stored) -> bool:
    """Whether the object has seen all that is stored."""
    if session._storage_update_marker is not None:
        return bool(session._storage_update_marker == str(stored.version))
    # An object that no service has read: it must know the newest event.
    newest = json.loads(stored.events[-1])["id"] if stored.events else None
    return bool(newest == (session.events[-1].id if session.events else None))

//! Pieces of SQL that several statements have in common.

/// The rows of one state.
pub const OF_STATE: &str = "class OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.=) $2";

/// Snapshots that depend on no other row.
pub const IS_KEYFRAME: &str = "((k.state IS NOT NULL \
     OR pg_catalog.substring(k.delta, 1, 1) OPERATOR(pg_catalog.<>) pg_catalog.decode('52', 'hex')) \
     AND (k.payload IS NULL \
     OR pg_catalog.substring(k.payload, 1, 1) OPERATOR(pg_catalog.<>) pg_catalog.decode('52', 'hex')))";
const _: () = assert!(state_cache_delta::DELTA == 0x52);

/// The kept versions of one state, in snapshot rows and in the head row alike: the columns of `state_snapshot`, and
/// `in_head`. What a snapshot row must have and a head row that was changed by hand may lack is there. A head row
/// that was made a tombstone by hand, and still has its document, keeps nothing.
pub const KEPT: &str = "(SELECT class, key, version, parent_version, hash, checkpoint_type, recovery_point, \
     agent_phase, execution_context, created_at, writer, state, delta, false AS in_head, label, payload \
     FROM @extschema@.state_snapshot \
     WHERE class OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.=) $2 \
     UNION ALL SELECT class, key, version, parent_version, COALESCE(hash, ''), COALESCE(checkpoint_type, 'auto'), \
     false, agent_phase, execution_context, updated_at, COALESCE(writer, '0'), state, NULL, true, NULL, NULL \
     FROM @extschema@.state_head \
     WHERE class OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.=) $2 \
     AND state IS NOT NULL AND NOT deleted) AS kept";

/// What `state_head` says of the document that it holds, with the document: where it holds none, all are NULL.
pub const HELD: [&str; 6] = [
    "parent_version",
    "checkpoint_type",
    "agent_phase",
    "execution_context",
    "writer",
    "state",
];

/// Sets the columns [`HELD`] to NULL.
pub fn holds_nothing() -> String {
    HELD.map(|column| format!("{column} = NULL")).join(", ")
}

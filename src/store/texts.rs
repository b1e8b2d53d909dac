//! Pieces of SQL that several statements have in common.

/// The rows of one state.
pub const OF_STATE: &str = "class OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.=) $2";

/// Snapshots that depend on no other row.
pub const IS_KEYFRAME: &str = "(k.state IS NOT NULL \
     OR pg_catalog.substring(k.delta, 1, 1) OPERATOR(pg_catalog.<>) pg_catalog.decode('52', 'hex'))";
const _: () = assert!(state_cache_delta::DELTA == 0x52);

//! Where the columns are; `catalog::columns` says what they are.

use super::table::Shape;
use pgrx::pg_sys;

/// How many `state_head` has.
pub const HEAD: usize = 16;
/// How many `state_snapshot` has.
pub const SNAPSHOT: usize = 15;

/// How `state_head` is looked up and written: by class and key, which no update changes.
pub const HEADS: Shape = Shape {
    conditions: &NAMES,
    is_speculative: true,
    fixed: &[1, 2],
};
/// How `state_snapshot` is: by the same, and a range of versions.
pub const SNAPSHOTS: Shape = Shape {
    conditions: &[
        NAMES[0],
        NAMES[1],
        (3, pg_sys::BTGreaterEqualStrategyNumber, pg_sys::F_INT8GE),
        (3, pg_sys::BTLessEqualStrategyNumber, pg_sys::F_INT8LE),
    ],
    is_speculative: false,
    fixed: &[1, 2],
};
const NAMES: [(i16, u32, u32); 2] = [
    (1, pg_sys::BTEqualStrategyNumber, pg_sys::F_TEXTEQ),
    (2, pg_sys::BTEqualStrategyNumber, pg_sys::F_TEXTEQ),
];

/// Of `state_head`.
pub mod head {
    pub const CLASS: usize = 0;
    pub const KEY: usize = 1;
    pub const VERSION: usize = 2;
    pub const HASH: usize = 3;
    pub const DELETED: usize = 5;
    pub const EXPIRES_AT: usize = 6;
    pub const TTL: usize = 7;
    pub const CREATED_AT: usize = 8;
    pub const UPDATED_AT: usize = 9;
    pub const PARENT_VERSION: usize = 10;
    pub const CHECKPOINT_TYPE: usize = 11;
    pub const AGENT_PHASE: usize = 12;
    pub const EXECUTION_CONTEXT: usize = 13;
    pub const WRITER: usize = 14;
    pub const STATE: usize = 15;
}

/// Of `state_snapshot`.
pub mod snapshot {
    pub const VERSION: usize = 2;
    pub const HASH: usize = 4;
    pub const RECOVERY_POINT: usize = 6;
    pub const STATE: usize = 11;
    pub const DELTA: usize = 12;
    pub const PAYLOAD: usize = 14;
}

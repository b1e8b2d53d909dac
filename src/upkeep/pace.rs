//! How fast upkeep goes.

/// Between two steps of a task, in microseconds.
pub const PAUSE: i64 = 20_000;

/// Microseconds of a second.
pub const SECOND: i64 = 1_000_000;

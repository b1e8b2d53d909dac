//! What came of a merge.

use state_cache_context::Merged;

/// One variable of a merge, and the conflict that was opened for it.
pub struct Outcome<'a> {
    /// The variable.
    pub merged: Merged<'a>,
    /// The conflict, if there is one.
    pub conflict: Option<i64>,
}

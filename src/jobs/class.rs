//! The class of jobs.

use crate::cache::StateRef;

/// Its name.
pub const JOB: &[u8] = b"job";

/// Whether a state is of it.
pub fn is_job(state: &StateRef<'_>) -> bool {
    *state.class.name == *JOB
}

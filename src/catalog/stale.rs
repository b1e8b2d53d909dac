//! What has arrived and is not taken in yet.

use std::cell::Cell;

thread_local! {
    /// What is known of relations is out of date. Set by the invalidation callbacks; they run anywhere, so they only
    /// set this.
    pub static STALE: Cell<bool> = const { Cell::new(false) };
    /// The same for what roles may do.
    pub static ACCESS_STALE: Cell<bool> = const { Cell::new(false) };
}

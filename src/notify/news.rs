//! What subscribers are to hear.

use super::touched::Touched;
use state_cache_ring::Change;

/// Something that subscribers are to hear.
#[derive(Debug, Clone)]
pub struct News {
    /// The class's name; empty for all of the database.
    pub class: Box<[u8]>,
    /// The key, or a pattern.
    pub key: Box<[u8]>,
    /// What happened.
    pub change: Change,
    /// The change is left to the worker, so it tells of it too.
    pub behind: bool,
    /// What of the state has changed, where that is told.
    pub touched: Touched,
}

impl News {
    /// Everything may have changed.
    pub fn everything() -> Self {
        Self {
            class: Box::default(),
            key: Box::default(),
            change: Change::Everything,
            behind: false,
            touched: Touched::default(),
        }
    }
}

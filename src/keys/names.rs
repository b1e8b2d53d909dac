//! The keys that begin so.

use crate::catalog::{Catalog, Class};
use crate::error::Result;
use crate::{behind, store, transaction};
use state_cache_memory::{Grow, boxed};
use std::rc::Rc;

/// The keys with a prefix, those included of which only this transaction or L1 has anything; `with_logs`: and those
/// of which there is only a log. In no order, and some of them twice.
pub(super) fn with_prefix(
    (catalog, class): (&Rc<Catalog>, &Class),
    prefix: &[u8],
    with_logs: bool,
) -> Result<Vec<Box<[u8]>>> {
    transaction::write_all_deferred(catalog, Some(&class.name))?;
    let mut keys = store::keys_with_prefix(catalog, &class.name, prefix, with_logs)?;
    for key in transaction::staged_keys(&class.name)? {
        if key.starts_with(prefix) {
            keys.try_push(key)?;
        }
    }
    // What is in L1 alone is of writers whom no policy concerns.
    if !catalog.access().row_security {
        for ((_, key), _) in behind::dirty_states(catalog, Some(&class.name))? {
            if key.starts_with(prefix) {
                keys.try_push(boxed(&key)?)?;
            }
        }
    }
    Ok(keys)
}

//! What of an installation is dirty.

use crate::catalog::Catalog;
use crate::error::Result;
use crate::name::StateName;
use crate::{memory, shared};
use state_cache_l1::EntryInfo;
use state_cache_memory::Grow;

/// The dirty entries of an installation, in the order in which flushes lock states.
pub fn dirty_states(
    catalog: &Catalog,
    class: Option<&[u8]>,
) -> Result<Vec<(StateName, EntryInfo)>> {
    let (mut found, mut outcome) = (Vec::new(), Ok(()));
    if let Some(l1) = shared::l1() {
        l1.for_each_dirty(catalog.database, catalog.incarnation, |of, key, info| {
            if outcome.is_ok() && class.is_none_or(|class| of == class) {
                outcome = memory::check().and_then(|()| {
                    found.try_push(((of.into(), key.into()), *info))?;
                    Ok(())
                });
            }
        })?;
    }
    outcome?;
    found.sort_unstable_by(|a: &(StateName, _), b| a.0.cmp(&b.0));
    Ok(found)
}

//! Written at commit: traces of what was changed by hand in a way that no head row shows, and the versions of
//! head rows that are gone.

use crate::cache::visibility::is_own;
use crate::catalog::Catalog;
use crate::error::Result;
use crate::identity::Impersonation;
use crate::snapshot::PushedSnapshot;
use crate::store;
use crate::transaction::{Bucket, Capability, Untraced};

/// Writes the traces of a transaction before its marks are raised.
pub struct Traces;

impl Capability for Traces {
    fn before_marks(
        &self,
        catalog: &Catalog,
        untraced: &Untraced,
        floors: &[(Bucket, i64)],
    ) -> Result<()> {
        write(catalog, untraced, floors)
    }
}

/// Writes them as the owner of the tables: whoever may change the states need not be allowed to write there.
fn write(catalog: &Catalog, untraced: &Untraced, floors: &[(Bucket, i64)]) -> Result<()> {
    let names = match untraced {
        Untraced::Nothing => return Ok(()),
        Untraced::Everything => None,
        Untraced::Among(names) => Some(names),
    };
    let _snapshot = PushedSnapshot::transaction();
    {
        let _owner = Impersonation::owner_of(catalog.trace);
        match names {
            None => store::trace(catalog, None)?,
            Some(names) => {
                // A head row that this transaction wrote tells of itself.
                let shown = |class: &[u8], key: &[u8]| {
                    catalog
                        .head_row(class, key)
                        .is_some_and(|head| is_own(head.xid))
                };
                for (class, key) in names.iter().filter(|(class, key)| !shown(class, key)) {
                    store::trace(catalog, Some((class, key)))?;
                }
            }
        }
    }
    let _owner = Impersonation::owner_of(catalog.floor);
    for ((class, bucket), version) in floors {
        store::raise_floor(catalog, class, *bucket, *version)?;
    }
    Ok(())
}

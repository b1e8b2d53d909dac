//! Writing dirty versions of L1 back in this transaction: of an installation, of a class, or of one state.

use super::batch::note_written_back;
use super::overrule::{note_by_hand, subject};
use crate::behind::{self, Found, Wrote};
use crate::cache::own_full_xid;
use crate::cache::publish::{self, WrittenBack};
use crate::catalog::{Catalog, Class};
use crate::error::{Result, Shown, warn_lost};
use crate::sys;
use state_cache_l1::EntryInfo;
use std::rc::Rc;

/// Writes back what is dirty of a class, or of all; how many states.
pub fn write_all_back(catalog: &Rc<Catalog>, class: Option<&[u8]>) -> Result<u64> {
    let mut written = 0;
    for ((class, key), _) in behind::dirty_states(catalog, class)? {
        written += u64::from(write_back(catalog, &class, &key)?);
    }
    Ok(written)
}

/// Writes a state back if it is dirty; whether it was.
pub fn write_back(catalog: &Rc<Catalog>, class: &[u8], key: &[u8]) -> Result<bool> {
    // The row of its class may have been deleted in a way that no trigger saw.
    let class = catalog.class_or_default(class)?;
    let read_at = sys::now();
    let (info, dirty, version) = match behind::unwritten(catalog, &class, key)? {
        Found::Nothing => return Ok(false),
        Found::Version(info, dirty, version) => (info, dirty, version),
        Found::Damaged(info, dirty) => {
            write_above_lost(catalog, &class, key, &info, dirty.owner)?;
            return Ok(true);
        }
    };
    crate::fault::stop_at!(BeforeBehind);
    let wrote = {
        let _writer = behind::become_writer(catalog, dirty.owner);
        behind::write(subject(catalog, &class, key), &version)?
    };
    note(catalog, (&class, key), &info, read_at, wrote)?;
    Ok(true)
}

/// A dirty version that L1 cannot read any more: the newest version that remains gets a number above the lost one's,
/// which others have seen, or a state that is not in L3 a tombstone. For readers and subscribers that is a change by
/// hand.
pub fn write_above_lost(
    catalog: &Rc<Catalog>,
    class: &Class,
    key: &[u8],
    info: &EntryInfo,
    owner: u32,
) -> Result<()> {
    warn_lost(&Shown::new(&class.name, key), info.version);
    {
        let _writer = behind::become_writer(catalog, owner);
        behind::write_above(subject(catalog, class, key), info.version)?;
    }
    note_by_hand(catalog, class, key)?;
    note(catalog, (class, key), info, sys::now(), Wrote::Overruled)
}

/// Notes what becomes of a dirty entry if this transaction commits, which has written the version back that it read
/// at `read_at`, or found the version overruled.
pub fn note(
    catalog: &Catalog,
    (class, key): (&Class, &[u8]),
    info: &EntryInfo,
    read_at: i64,
    wrote: Wrote,
) -> Result<()> {
    note_written_back(WrittenBack {
        database: catalog.database,
        incarnation: catalog.incarnation,
        class: (*class.name).into(),
        key: key.into(),
        serial: info.serial,
        read_at,
        wrote: match (wrote, own_full_xid()) {
            // Others have written the version, and this transaction nothing: who sees it is not known here.
            (Wrote::Version(_), 0) | (Wrote::Overruled, _) => publish::Wrote::Nothing,
            (Wrote::Version(made), xid) => publish::Wrote::Version {
                version: made.version,
                xid,
            },
        },
    })
}

//! Writing a dirty version to L3, and what becomes of its entry then.

use super::caller::caller;
use crate::cache::damage::{self, DirtyValue};
use crate::cache::own_full_xid;
use crate::cache::publish::{Settlement, Wrote as Settled};
use crate::catalog::{self, Catalog, Class};
use crate::error::{Error, Result, Shown, warn_lost};
use crate::identity::{Identity, Impersonation};
use crate::shared;
use crate::snapshot::PushedSnapshot;
use crate::store::{
    self, Base, Content, Decided, Made, NewVersion, Replaced, Storage, Stored, StoredDocument,
    Target,
};
use crate::sys;
use pgrx::pg_sys;
use state_cache_l1::{Dirty, EntryInfo, FillToken};
use std::rc::Rc;

/// Attempts at one version before giving up; each lost one means that somebody else has written the state.
const MAX_ATTEMPTS: u32 = 100;

/// A version that L3 may not hold.
pub struct Unwritten {
    /// Its number.
    pub version: i64,
    /// Binary jsonb.
    pub document: Vec<u8>,
    /// Hash of the document.
    pub hash: u128,
    /// When it expires, `i64::MAX` for never.
    pub expires_at: i64,
    /// Version that L3 held when the state became dirty, 0 for none or a tombstone (which retention may drop):
    /// if L3 holds no row now, the row was deleted by hand.
    pub base: i64,
}

/// What became of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrote {
    /// L3 holds it, as this version.
    Version(Made),
    /// A change by hand has the last word.
    Superseded,
}

/// What L1 holds of a state and L3 does not.
pub enum Found {
    /// Nothing.
    Nothing,
    /// This entry.
    Version(EntryInfo, Dirty, Unwritten),
    /// This entry, which cannot be read any more.
    Damaged(EntryInfo, Dirty),
}

/// The dirty entry of a state, if there is one.
pub fn unwritten(catalog: &Catalog, class: &Class, key: &[u8]) -> Result<Found> {
    let Some(l1) = shared::l1() else {
        return Ok(Found::Nothing);
    };
    let (info, document) = match damage::read_dirty(l1, &catalog.l1_key(class, key))? {
        DirtyValue::None => return Ok(Found::Nothing),
        DirtyValue::Entry(info, document) => (info, Some(document)),
        DirtyValue::Damaged(info) => (info, None),
    };
    Ok(match (info.dirty, document) {
        (None, _) => Found::Nothing,
        (Some(dirty), None) => Found::Damaged(info, dirty),
        (Some(dirty), Some(document)) => {
            let unwritten = Unwritten {
                version: info.version,
                document,
                hash: info.hash,
                expires_at: info.expires_at,
                base: dirty.base,
            };
            Found::Version(info, dirty, unwritten)
        }
    })
}

/// A dirty version that L1 cannot read any more: the newest version that is left gets a number above the lost one's,
/// which others have seen, or a state that is not in L3 a tombstone. For readers and subscribers that is a change by
/// hand.
pub fn write_over_lost(
    catalog: &Rc<Catalog>,
    class: &Class,
    key: &[u8],
    info: &EntryInfo,
    owner: u32,
) -> Result<()> {
    warn_lost(&Shown::new(&class.name, key), info.version);
    {
        let _writer = become_writer(catalog, owner);
        bring_above(catalog, class, key, info.version)?;
    }
    caller()?.note_by_hand(catalog, class, key)?;
    settle(catalog, class, key, info, sys::now(), Wrote::Superseded)
}

/// Writes what L3 holds once more, as a version above `lost`.
fn bring_above(catalog: &Catalog, class: &Class, key: &[u8], lost: i64) -> Result<()> {
    let mut ground = Ground::first(catalog, class, key)?;
    for _ in 0..MAX_ATTEMPTS {
        let head = match &ground.head {
            Some(head) if head.version > lost => return Ok(()),
            Some(head) if !head.deleted => head,
            Some(_) | None => return delete(catalog, class, key, lost).map(drop),
        };
        let Some((_, document)) = stored(catalog, class, key)? else {
            // L3 holds no intact document either; `state_verify` finds that.
            return Ok(());
        };
        let again = Unwritten {
            version: lost + 1,
            hash: document.hash,
            document: document.bytes,
            expires_at: head.expires_at,
            base: head.version,
        };
        let number = lost.max(ground.highest) + 1;
        if write_over(catalog, class, key, &ground, &again, number)?.is_some() {
            return Ok(());
        }
        ground = ground.again(catalog, class, key, lost)?;
    }
    Err(lost_too_often(catalog, class, key))
}

/// Becomes who writes a version that `owner` has made: the owner of the change, as if it had been written at
/// once; where that role is gone, the owner of the tables. Never the worker itself: defaults, triggers and
/// index expressions that others have put on the tables would run as a superuser.
pub fn become_writer(catalog: &Catalog, owner: u32) -> Impersonation {
    let owner = pg_sys::Oid::from(owner);
    match sys::role_exists(owner) {
        true => Impersonation::begin(&Identity::of(owner), false),
        false => Impersonation::owner_of(catalog.head),
    }
}

/// Writes a version to L3, in this transaction.
pub fn write(catalog: &Catalog, class: &Class, key: &[u8], unwritten: &Unwritten) -> Result<Wrote> {
    let mut ground = Ground::first(catalog, class, key)?;
    for _ in 0..MAX_ATTEMPTS {
        let number = match &ground.head {
            None if unwritten.base > 0 => return Ok(Wrote::Superseded),
            None => unwritten.version,
            Some(head) if head.version > unwritten.version => return Ok(Wrote::Superseded),
            Some(head) if head.version == unwritten.version => {
                if head.hash == Some(unwritten.hash) && head.has_snapshot {
                    if head.expires_at == unwritten.expires_at
                        || touch(catalog, class, key, head, unwritten)?
                    {
                        return Ok(Wrote::Version(Made {
                            version: head.version,
                            storage: Storage::UNKNOWN,
                        }));
                    }
                    ground = ground.again(catalog, class, key, unwritten.version)?;
                    continue;
                }
                unwritten.version + 1
            }
            Some(_) => unwritten.version,
        };
        let number = number.max(ground.highest + 1);
        if let Some(made) = write_over(catalog, class, key, &ground, unwritten, number)? {
            return Ok(Wrote::Version(made));
        }
        ground = ground.again(catalog, class, key, unwritten.version)?;
    }
    Err(lost_too_often(catalog, class, key))
}

/// What a write builds upon.
struct Ground {
    head: Option<Target>,
    /// The highest version that the new one must be above: the floor where there is no head row, and what is kept, once
    /// a write has come to nothing.
    highest: i64,
    /// The class as it was then, once a write has come to nothing.
    class: Option<Rc<Class>>,
    /// Taken before that was read.
    quiet: Option<FillToken>,
}

impl Ground {
    /// As it is now.
    fn first(catalog: &Catalog, class: &Class, key: &[u8]) -> Result<Self> {
        let quiet = quiet(catalog, class, key);
        let _snapshot = PushedSnapshot::latest();
        let head = store::target(catalog, &class.name, key)?;
        let highest = match head {
            None => catalog
                .floor(&class.name, key)
                .max(caller()?.floor(&class.name, key)),
            Some(_) => 0,
        };
        Ok(Self {
            head,
            highest,
            class: None,
            quiet,
        })
    }

    /// The same with the head row locked, after a write that came to nothing.
    fn again(self, catalog: &Catalog, class: &Class, key: &[u8], version: i64) -> Result<Self> {
        check_may_retry(class, key, version, self.head.as_ref())?;
        store::lock(catalog, &class.name, key)?;
        let first = Self::first(catalog, class, key)?;
        let newest = {
            let _snapshot = PushedSnapshot::latest();
            store::newest_kept(catalog, &class.name, key)?
        };
        Ok(Self {
            highest: first.highest.max(newest),
            class: catalog::class_now(catalog, &class.name),
            ..first
        })
    }

    /// Puts right what has become wrong while a statement waited, as after any write.
    fn put_right(
        &self,
        catalog: &Catalog,
        class: &Class,
        key: &[u8],
        new: Option<&NewVersion<'_>>,
        made: Made,
        command: pg_sys::CommandId,
    ) -> Result<Made> {
        let decided = Decided {
            class,
            key,
            new,
            is_first: self.head.is_none(),
            is_quiet: self.quiet.is_some() && self.quiet == quiet(catalog, class, key),
            own_floor: caller()?.floor(&class.name, key),
            command,
        };
        store::put_right(catalog, &decided, made)
    }
}

/// Whether it changes says whether somebody has committed a change of the state; `None` while somebody does.
fn quiet(catalog: &Catalog, class: &Class, key: &[u8]) -> Option<FillToken> {
    shared::l1()?.fill_token(&catalog.l1_key(class, key))
}

/// The error after so many attempts: that of who has rewritten what was written, if that can be.
fn lost_too_often(catalog: &Catalog, class: &Class, key: &[u8]) -> Error {
    let state = Shown::new(&class.name, key);
    match catalog.rows_may_be_rewritten() {
        true => Error::Swallowed { state },
        false => Error::LostTooOften {
            state,
            attempts: MAX_ATTEMPTS,
        },
    }
}

fn touch(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
    head: &Target,
    unwritten: &Unwritten,
) -> Result<bool> {
    let touched = store::touch(catalog, class, key, replaced(head), unwritten.expires_at)?;
    Ok(touched.is_some())
}

fn replaced(head: &Target) -> Replaced {
    Replaced {
        version: head.version,
        hash: head.hash,
        expires_at: None,
        is_newest: false,
    }
}

/// The version written, `None` if the head row is not what it was.
fn write_over(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
    ground: &Ground,
    unwritten: &Unwritten,
    number: i64,
) -> Result<Option<Made>> {
    let class = ground.class.as_deref().unwrap_or(class);
    let head = ground.head.as_ref();
    let base = match head {
        Some(head) if class.packs() && head.has_snapshot => {
            stored(catalog, class, key)?.filter(|(version, _)| *version == head.version)
        }
        _ => None,
    };
    let new = NewVersion {
        number,
        document: &unwritten.document,
        hash: unwritten.hash,
        parent: head.filter(|head| !head.deleted).map(|head| head.version),
        expires_at: unwritten.expires_at,
        base: base.as_ref().map(|(version, document)| Base {
            version: *version,
            document: &document.bytes,
            storage: document.storage,
        }),
        checkpoint: None,
    };
    let command = sys::begin_command();
    let may_replace = |head: &Target| {
        class.keeps_one()
            && !head.deleted
            && head.has_snapshot
            && !head.is_recovery_point
            && catalog.may_replace_snapshots()
    };
    let made = match head {
        None => store::insert(catalog, class, key, &new)?,
        Some(head) if may_replace(head) => {
            store::replace(catalog, class, key, replaced(head), &new)?
        }
        Some(head) => store::update(catalog, class, key, replaced(head), &new)?,
    };
    let put_right = |made| ground.put_right(catalog, class, key, Some(&new), made, command);
    made.map(put_right).transpose()
}

/// The version that L3 holds, if it is intact.
fn stored(catalog: &Catalog, class: &Class, key: &[u8]) -> Result<Option<(i64, StoredDocument)>> {
    let _snapshot = PushedSnapshot::latest();
    Ok(match store::read(catalog, class, key)? {
        Some(Stored {
            version,
            content: Content::Intact(document),
            ..
        }) => Some((version, document)),
        _ => None,
    })
}

/// Deletes a state whose newest version is `version`, whether L3 holds that or an older one or none; the
/// version of the tombstone.
pub fn delete(catalog: &Catalog, class: &Class, key: &[u8], version: i64) -> Result<i64> {
    let mut ground = Ground::first(catalog, class, key)?;
    for _ in 0..MAX_ATTEMPTS {
        let now = ground.class.as_deref().unwrap_or(class);
        let last = ground.head.as_ref().map_or(0, |head| head.version);
        let number = version.max(last).max(ground.highest) + 1;
        let command = sys::begin_command();
        let deleted = match &ground.head {
            None => store::insert_tombstone(catalog, now, key, number)?,
            Some(head) => store::delete(catalog, now, key, replaced(head), number)?,
        };
        if let Some(number) = deleted {
            let made = Made::without_snapshot(number);
            ground.put_right(catalog, now, key, None, made, command)?;
            return Ok(number);
        }
        ground = ground.again(catalog, class, key, version)?;
    }
    Err(lost_too_often(catalog, class, key))
}

/// Says what becomes of a dirty entry if this transaction, which has written it, commits.
pub fn settle(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
    info: &EntryInfo,
    read_at: i64,
    wrote: Wrote,
) -> Result<()> {
    caller()?.note_written_back(Settlement {
        database: catalog.database,
        incarnation: catalog.incarnation,
        class: (*class.name).into(),
        key: key.into(),
        serial: info.serial,
        read_at,
        wrote: match (wrote, own_full_xid()) {
            // Others have written the version, and this transaction nothing: who sees it is not known here.
            (Wrote::Version(_), 0) | (Wrote::Superseded, _) => Settled::Nothing,
            (Wrote::Version(made), xid) => Settled::Version {
                version: made.version,
                xid,
            },
        },
    })
}

/// Drops a dirty entry at once: a committed change by hand has the last word.
pub fn forget(catalog: &Catalog, class: &Class, key: &[u8], info: &EntryInfo) {
    if let Some(l1) = shared::l1() {
        l1.drop_dirty_entry(&catalog.l1_key(class, key), info.serial);
    }
}

/// `40001` where looking again would not help: the transaction's snapshot does not see the row as it is now.
fn check_may_retry(class: &Class, key: &[u8], version: i64, head: Option<&Target>) -> Result<()> {
    if !sys::isolation_uses_transaction_snapshot() {
        return Ok(());
    }
    Err(Error::Conflict {
        state: Shown::new(&class.name, key),
        expected: version,
        found: head.map_or(0, |head| head.version),
    })
}

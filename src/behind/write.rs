//! Writing a dirty version to L3.

use crate::cache::damage::{self, DirtyValue};
use crate::catalog::{self, Catalog, Class};
use crate::error::{Error, Result, Shown};
use crate::identity::{Identity, Impersonation, SearchPath};
use crate::interval::Ttl;
use crate::shared;
use crate::snapshot::PushedSnapshot;
use crate::store::{
    self, Base, Content, Decided, Made, NewVersion, Replaced, Storage, Stored, StoredDocument,
    Target, Writer,
};
use crate::sys;
use pgrx::pg_sys;
use state_cache_l1::{Dirty, EntryInfo, FillToken};
use std::rc::Rc;

/// Attempts at one version before giving up; each lost one means that somebody else has written the state.
const MAX_ATTEMPTS: u32 = 100;

/// The highest version of the head rows that the running transaction has deleted by hand in the bucket of a state
/// (class, key), 0 for none.
pub type OwnFloor = fn(&[u8], &[u8]) -> i64;

/// A state that is written, in the transaction of whoever asks.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The installation.
    pub catalog: &'a Catalog,
    /// The class.
    pub class: &'a Class,
    /// The key.
    pub key: &'a [u8],
    /// What the transaction has deleted by hand.
    pub own_floor: OwnFloor,
}

impl Subject<'_> {
    fn shown(&self) -> Shown {
        Shown::new(&self.class.name, self.key)
    }

    fn own_floor(&self) -> i64 {
        (self.own_floor)(&self.class.name, self.key)
    }

    /// Whether the answer changes says whether somebody has committed a change of the state; `None` while somebody
    /// does.
    fn quiet(&self) -> Option<FillToken> {
        shared::l1()?.fill_token(&self.catalog.l1_key(self.class, self.key))
    }
}

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
    /// What becomes of the time to live that the state remembers.
    pub ttl: Ttl,
    /// Version that L3 held when the state became dirty, 0 for none or a tombstone (which retention may drop):
    /// if L3 holds no row now, the row was deleted by hand.
    pub base: i64,
}

/// What became of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrote {
    /// L3 holds it, as this version.
    Version(Made),
    /// A change by hand has overruled it.
    Overruled,
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
                ttl: Ttl::unpacked(dirty.beside),
                base: dirty.base,
            };
            Found::Version(info, dirty, unwritten)
        }
    })
}

/// Writes what L3 holds once more, as a version above `lost`, which others have seen and nobody can read any more:
/// the newest version that remains, or a tombstone for a state that is not in L3.
pub fn write_above(subject: Subject<'_>, lost: i64) -> Result<()> {
    let mut ground = Ground::first(subject)?;
    for _ in 0..MAX_ATTEMPTS {
        let head = match &ground.head {
            Some(head) if head.version > lost => return Ok(()),
            Some(head) if !head.deleted => head,
            Some(_) | None => return delete(subject, lost).map(drop),
        };
        let Some((_, document)) = stored(subject)? else {
            // L3 holds no intact document either; `state_verify` finds that.
            return Ok(());
        };
        let again = Unwritten {
            version: lost + 1,
            hash: document.hash,
            document: document.bytes,
            expires_at: head.expires_at,
            ttl: Ttl::Keep,
            base: head.version,
        };
        let number = lost.max(ground.highest) + 1;
        if write_over(subject, &ground, &again, number)?.is_some() {
            return Ok(());
        }
        ground = ground.again(subject, lost)?;
    }
    Err(lost_too_often(subject))
}

/// Becomes who writes a version that `owner` has made: the owner of the change, as if it had been written at
/// once; where that role is gone, the owner of the tables. Never the worker itself: defaults, triggers and
/// index expressions that others have put on the tables would run as a superuser.
pub fn become_writer(catalog: &Catalog, owner: u32) -> Impersonation {
    let owner = pg_sys::Oid::from(owner);
    match sys::role_exists(owner) {
        true => Impersonation::begin(&Identity::of(owner), SearchPath::Unchanged),
        false => Impersonation::owner_of(catalog.head),
    }
}

/// Writes a version to L3, in this transaction.
pub fn write(subject: Subject<'_>, unwritten: &Unwritten) -> Result<Wrote> {
    let mut ground = Ground::first(subject)?;
    for _ in 0..MAX_ATTEMPTS {
        let number = match &ground.head {
            None if unwritten.base > 0 => return Ok(Wrote::Overruled),
            None => unwritten.version,
            Some(head) if head.version > unwritten.version => return Ok(Wrote::Overruled),
            Some(head) if head.version == unwritten.version => {
                if head.hash == Some(unwritten.hash) && head.holder.is_some() {
                    if head.expires_at == unwritten.expires_at || touch(subject, head, unwritten)? {
                        return Ok(Wrote::Version(Made {
                            version: head.version,
                            storage: Storage::UNKNOWN,
                        }));
                    }
                    ground = ground.again(subject, unwritten.version)?;
                    continue;
                }
                unwritten.version + 1
            }
            Some(_) => unwritten.version,
        };
        let number = number.max(ground.highest + 1);
        if let Some(made) = write_over(subject, &ground, unwritten, number)? {
            return Ok(Wrote::Version(made));
        }
        ground = ground.again(subject, unwritten.version)?;
    }
    Err(lost_too_often(subject))
}

/// What a write builds upon.
struct Ground {
    head: Option<Target>,
    /// The highest version that the new one must be above: the floor where there is no head row, and what is kept,
    /// once a write has come to nothing.
    highest: i64,
    /// The class as it was then, once a write has come to nothing.
    class: Option<Rc<Class>>,
    /// Taken before that was read.
    quiet: Option<FillToken>,
}

impl Ground {
    /// As it is now.
    fn first(subject: Subject<'_>) -> Result<Self> {
        let Subject {
            catalog,
            class,
            key,
            ..
        } = subject;
        let quiet = subject.quiet();
        let _snapshot = PushedSnapshot::latest();
        let head = store::target(catalog, &class.name, key)?;
        let highest = match head {
            None => catalog.floor(&class.name, key).max(subject.own_floor()),
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
    fn again(self, subject: Subject<'_>, version: i64) -> Result<Self> {
        let Subject {
            catalog,
            class,
            key,
            ..
        } = subject;
        check_may_retry(subject, version, self.head.as_ref())?;
        store::lock(catalog, &class.name, key)?;
        let first = Self::first(subject)?;
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
        subject: Subject<'_>,
        new: Option<&NewVersion<'_>>,
        made: Made,
        command: pg_sys::CommandId,
    ) -> Result<Made> {
        let decided = Decided {
            class: subject.class,
            key: subject.key,
            new,
            is_first: self.head.is_none(),
            is_quiet: self.quiet.is_some() && self.quiet == subject.quiet(),
            own_floor: subject.own_floor(),
            command,
        };
        store::put_right(subject.catalog, &decided, made)
    }

    /// The state with its class as it was when the ground was found.
    fn subject<'a>(&'a self, subject: Subject<'a>) -> Subject<'a> {
        Subject {
            class: self.class.as_deref().unwrap_or(subject.class),
            ..subject
        }
    }
}

/// The error after so many attempts: that of who has rewritten what was written, if that can be.
fn lost_too_often(subject: Subject<'_>) -> Error {
    let state = subject.shown();
    match subject.catalog.rows_may_be_rewritten() {
        true => Error::Swallowed { state },
        false => Error::LostTooOften {
            state,
            attempts: MAX_ATTEMPTS,
        },
    }
}

fn touch(subject: Subject<'_>, head: &Target, unwritten: &Unwritten) -> Result<bool> {
    let Subject {
        catalog,
        class,
        key,
        ..
    } = subject;
    let touched = Writer::new(catalog).touch(
        class,
        key,
        replaced(head),
        (unwritten.expires_at, &unwritten.ttl),
    )?;
    Ok(touched.is_some())
}

fn replaced(head: &Target) -> Replaced {
    Replaced {
        version: head.version,
        hash: head.hash,
        expires_at: None,
        is_newest: false,
        holder: head.holder,
    }
}

/// The version written, `None` if the head row is not what it was.
fn write_over(
    subject: Subject<'_>,
    ground: &Ground,
    unwritten: &Unwritten,
    number: i64,
) -> Result<Option<Made>> {
    let subject = ground.subject(subject);
    let Subject {
        catalog,
        class,
        key,
        ..
    } = subject;
    let head = ground.head.as_ref();
    let base = match head {
        Some(head) if class.packs() && head.holder.is_some() => {
            stored(subject)?.filter(|(version, _)| *version == head.version)
        }
        _ => None,
    };
    let parent = head.filter(|head| !head.deleted).map(|head| head.version);
    let new = NewVersion {
        number,
        document: &unwritten.document,
        stored: None,
        hash: unwritten.hash,
        parent,
        expires_at: unwritten.expires_at,
        ttl: unwritten.ttl,
        is_first: parent.is_none(),
        base: base.as_ref().map(|(version, document)| Base {
            version: *version,
            document: &document.bytes,
            storage: document.storage,
        }),
        branch: None,
        checkpoint: None,
    };
    let command = sys::begin_command();
    let mut writer = Writer::new(catalog);
    let made = match head {
        None => writer.insert(class, key, &new)?,
        Some(head) => writer.update(class, key, replaced(head), &new)?,
    };
    let put_right = |made| ground.put_right(subject, Some(&new), made, command);
    made.map(put_right).transpose()
}

/// The version that L3 holds, if it is intact.
fn stored(subject: Subject<'_>) -> Result<Option<(i64, StoredDocument)>> {
    let _snapshot = PushedSnapshot::latest();
    Ok(
        match store::read(subject.catalog, subject.class, subject.key)? {
            Some(Stored {
                version,
                content: Content::Intact(document),
                ..
            }) => Some((version, document)),
            _ => None,
        },
    )
}

/// Deletes a state whose newest version is `version`, whether L3 holds that or an older one or none; the
/// version of the tombstone.
pub fn delete(subject: Subject<'_>, version: i64) -> Result<i64> {
    let mut ground = Ground::first(subject)?;
    for _ in 0..MAX_ATTEMPTS {
        let now = ground.subject(subject);
        let last = ground.head.as_ref().map_or(0, |head| head.version);
        let number = version.max(last).max(ground.highest) + 1;
        let command = sys::begin_command();
        let mut writer = Writer::new(now.catalog);
        let deleted = match &ground.head {
            None => writer.insert_tombstone(now.class, now.key, number)?,
            Some(head) => writer.delete(now.class, now.key, replaced(head), number)?,
        };
        if let Some(number) = deleted {
            let made = Made::without_document(number);
            ground.put_right(now, None, made, command)?;
            return Ok(number);
        }
        ground = ground.again(subject, version)?;
    }
    Err(lost_too_often(subject))
}

/// Drops a dirty entry at once: a committed change by hand has overruled its version.
pub fn overrule(catalog: &Catalog, class: &Class, key: &[u8], info: &EntryInfo) {
    if let Some(l1) = shared::l1() {
        l1.drop_dirty_entry(&catalog.l1_key(class, key), info.serial);
    }
}

/// `40001` where looking again would not help: the transaction's snapshot does not see the row as it is now.
fn check_may_retry(subject: Subject<'_>, version: i64, head: Option<&Target>) -> Result<()> {
    if !sys::isolation_uses_transaction_snapshot() {
        return Ok(());
    }
    Err(Error::Conflict {
        state: subject.shown(),
        expected: version,
        found: head.map_or(0, |head| head.version),
    })
}

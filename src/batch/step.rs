//! What a flush does to one state, once that is decided: the step, and what came of it.

use super::staged::Bytes;
use crate::cache::StateRef;
use crate::error::Result;
use crate::identity::Impersonation;
use crate::shared;
use crate::snapshot::PushedSnapshot;
use crate::store::{
    self, Base, Change, Checkpoint, Item, Kept, Made, NewVersion, Replaced, Storage,
};
use state_cache_l1::FillToken;
use state_cache_memory::copy;
use std::rc::Rc;

/// What was written.
pub enum Written {
    Document {
        made: Made,
        document: Bytes,
        hash: u128,
        expires_at: i64,
        /// Version that it was made from; none after the end of a state.
        parent: Option<i64>,
    },
    Deleted {
        version: i64,
    },
    Touched {
        version: i64,
        expires_at: i64,
    },
    /// Not written: left to the worker.
    Left {
        version: i64,
        document: Bytes,
        hash: u128,
        expires_at: i64,
        /// Version of the tables' row beneath it, 0 for none.
        base: i64,
        /// The version that there was before it, 0 for none.
        before: i64,
        /// Whether it is a new version, and not only a new expiry.
        is_new: bool,
    },
    Nothing {
        version: i64,
    },
}

impl Written {
    /// Whether there is a new version.
    pub fn is_new(&self) -> bool {
        match self {
            Self::Document { .. } | Self::Deleted { .. } => true,
            Self::Left { is_new, .. } => *is_new,
            Self::Touched { .. } | Self::Nothing { .. } => false,
        }
    }

    /// The version that there was before it, 0 for none.
    pub fn before(&self) -> i64 {
        match self {
            Self::Document { parent, .. } => parent.unwrap_or(0),
            Self::Deleted { version } => version - 1,
            Self::Touched { version, .. } | Self::Nothing { version } => *version,
            Self::Left { before, .. } => *before,
        }
    }

    /// Whether it is the first version of a state that had others before, and then was deleted or expired.
    pub fn starts_anew(&self) -> bool {
        matches!(self, Self::Document { made, parent: None, .. } if made.version > 1)
    }
}

/// What is to be done about a staged change.
pub enum Plan {
    /// Nothing any more.
    Done(Written),
    /// This is to be written to the tables.
    Write(Step),
}

impl Plan {
    /// Whether the statement that writes many states can do it.
    pub fn may_join(&self) -> bool {
        !matches!(self, Self::Write(Step::Expire(_)))
    }

    /// Bytes of the documents that it holds.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Write(Step::Insert(next) | Step::Update(_, next) | Step::Replace(_, next)) => {
                let base = next.base.as_ref().map_or(0, |(_, base, _)| base.len());
                next.document.len() + base
            }
            Self::Write(_) | Self::Done(_) => 0,
        }
    }
}

/// A change of the tables.
pub enum Step {
    /// A version of a state that has no head row.
    Insert(Next),
    /// A version after the one to be replaced.
    Update(Replaced, Next),
    /// The same, over the snapshot of that.
    Replace(Replaced, Next),
    /// A tombstone of this version.
    Delete(Replaced, i64),
    /// This expiry.
    Touch(Replaced, i64),
    /// A tombstone, if the state has expired by this time.
    Expire(i64),
}

/// A version to be written.
pub struct Next {
    /// Its number.
    pub number: i64,
    /// Binary jsonb.
    pub document: Bytes,
    /// Hash of the document.
    pub hash: u128,
    /// Version that it was made from.
    pub parent: Option<i64>,
    /// When it expires, `i64::MAX` for never.
    pub expires_at: i64,
    /// What it may be stored as the difference from: version, document and how that is stored.
    pub base: Option<(i64, Vec<u8>, Storage)>,
    /// What `state_save` says about it.
    pub checkpoint: Option<Rc<Checkpoint>>,
    /// Taken before that was read, if there is an L1 and nobody was committing a change of the state.
    pub quiet: Option<FillToken>,
}

/// Whether it changes says whether somebody has committed a change of the state.
pub fn quiet(state: &StateRef<'_>) -> Option<FillToken> {
    shared::l1()?.fill_token(&state.catalog.l1_key(&state.class, state.key))
}

impl Next {
    fn new_version(&self) -> NewVersion<'_> {
        NewVersion {
            number: self.number,
            document: &self.document,
            hash: self.hash,
            parent: self.parent,
            expires_at: self.expires_at,
            base: self.base.as_ref().map(|(version, document, storage)| Base {
                version: *version,
                document,
                storage: *storage,
            }),
            checkpoint: self.checkpoint.as_deref(),
        }
    }
}

impl Step {
    /// As the store takes it; not what it decides upon itself.
    pub fn change(&self) -> Option<Change<'_>> {
        Some(match self {
            Self::Insert(next) => Change::Insert(next.new_version()),
            Self::Update(replaced, next) => Change::Update(*replaced, next.new_version()),
            Self::Replace(replaced, next) => Change::Replace(*replaced, next.new_version()),
            Self::Delete(replaced, number) => Change::Delete(*replaced, *number),
            Self::Touch(replaced, expires_at) => Change::Touch(*replaced, *expires_at),
            Self::Expire(_) => return None,
        })
    }

    /// Writes it by a statement of its own; `None` if the state has moved since it was looked at.
    pub fn write(self, state: &StateRef<'_>) -> Result<Option<Written>> {
        let Some(change) = self.change() else {
            return match self {
                Self::Expire(now) => expire(state, now),
                _ => Ok(None),
            };
        };
        let item = Item {
            class: &state.class,
            key: state.key,
            change,
        };
        let Some(made) = store::write_one(&state.catalog, &item)? else {
            return Ok(None);
        };
        self.keep_readable(state, &made)?;
        Ok(Some(self.written(made)))
    }

    /// Sees to it that a version that was written can be read. What it is stored as the difference from may have been
    /// deleted by hand while the statement waited: the head row says nothing of that.
    pub fn keep_readable(&self, state: &StateRef<'_>, made: &Made) -> Result<()> {
        let Self::Update(_, next) = self else {
            return Ok(());
        };
        let (Some((base, ..)), true) = (&next.base, made.storage.depth() > 0) else {
            return Ok(());
        };
        if next.quiet.is_some() && next.quiet == quiet(state) {
            return Ok(());
        }
        let (catalog, class) = (&state.catalog, &state.class);
        let _owner = Impersonation::owner_of(catalog.snapshot);
        let is_there = {
            let _snapshot = PushedSnapshot::latest();
            store::label(catalog, &class.name, state.key, *base)?.is_some()
        };
        if is_there {
            return Ok(());
        }
        let kept = Kept {
            document: copy(&next.document)?,
            hash: next.hash,
            storage: made.storage,
        };
        store::rewrite_as_keyframe(catalog, class, state.key, made.version, &kept)
    }

    /// What it is once it is written.
    pub fn written(self, made: Made) -> Written {
        match self {
            Self::Insert(next) | Self::Update(_, next) | Self::Replace(_, next) => {
                Written::Document {
                    made,
                    document: next.document,
                    hash: next.hash,
                    expires_at: next.expires_at,
                    parent: next.parent,
                }
            }
            Self::Delete(..) | Self::Expire(_) => Written::Deleted {
                version: made.version,
            },
            Self::Touch(_, expires_at) => Written::Touched {
                version: made.version,
                expires_at,
            },
        }
    }
}

/// Deletes an expired state whose row is locked: if nothing is written, somebody has prolonged it or a trigger
/// keeps it, and looking again would not help.
fn expire(state: &StateRef<'_>, now: i64) -> Result<Option<Written>> {
    let version = store::expire(&state.catalog, &state.class, state.key, now)?;
    Ok(Some(match version {
        Some(version) => Written::Deleted { version },
        None => Written::Nothing { version: 0 },
    }))
}

//! The plan for one staged state: nothing, or a change of its rows.

use super::effect::Effect;
use super::known::Bytes;
use super::overrule::own_floor;
use crate::cache::StateRef;
use crate::error::Result;
use crate::store::{
    self, Base, Change, Checkpoint, Decided, Item, Made, NewVersion, Replaced, Storage,
};
use crate::{shared, sys};
use pgrx::pg_sys;
use state_cache_l1::FillToken;
use std::rc::Rc;

/// What is to be done about a staged change.
pub enum Plan {
    /// Nothing any more.
    Done(Effect),
    /// This is to be written to the tables.
    Write(RowChange),
}

impl Plan {
    /// Whether the statement that writes many states can do it: it makes the version after the one to be replaced.
    pub fn may_join(&self) -> bool {
        match self {
            Self::Write(RowChange::Expire(_)) => false,
            Self::Write(RowChange::Update(replaced, next)) => next.number == replaced.version + 1,
            Self::Write(RowChange::Delete(replaced, number, _)) => *number == replaced.version + 1,
            Self::Write(RowChange::Insert(_) | RowChange::Touch(..)) | Self::Done(_) => true,
        }
    }

    /// Bytes of the documents that it holds.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Write(RowChange::Insert(next) | RowChange::Update(_, next)) => {
                let base = next.base.as_ref().map_or(0, |(_, base, _)| base.len());
                next.document.len() + base
            }
            Self::Write(_) | Self::Done(_) => 0,
        }
    }
}

/// A change of the rows of one state.
pub enum RowChange {
    /// A version of a state that has no head row.
    Insert(NextRow),
    /// A version above the one to be replaced.
    Update(Replaced, NextRow),
    /// A tombstone of this version. The token was taken before the version was decided upon.
    Delete(Replaced, i64, Option<FillToken>),
    /// This expiry.
    Touch(Replaced, i64),
    /// A tombstone, if the state has expired by this time.
    Expire(i64),
}

/// A version to be written.
pub struct NextRow {
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
    /// The version that this one may be stored as the difference from: its number, document and storage.
    pub base: Option<(i64, Vec<u8>, Storage)>,
    /// What `state_save` says about it.
    pub checkpoint: Option<Rc<Checkpoint>>,
    /// Taken before the base was read, if there is an L1 and nobody was committing a change of the state.
    pub quiet: Option<FillToken>,
}

/// Whether it changes says whether somebody has committed a change of the state.
pub fn quiet(state: &StateRef<'_>) -> Option<FillToken> {
    shared::l1()?.fill_token(&state.l1_key())
}

impl NextRow {
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

impl RowChange {
    /// The change as the store takes it; none for an expiry, which the store decides upon itself.
    pub fn change(&self) -> Option<Change<'_>> {
        Some(match self {
            Self::Insert(next) => Change::Insert(next.new_version()),
            Self::Update(replaced, next) => Change::Update(*replaced, next.new_version()),
            Self::Delete(replaced, number, _) => Change::Delete(*replaced, *number),
            Self::Touch(replaced, expires_at) => Change::Touch(*replaced, *expires_at),
            Self::Expire(_) => return None,
        })
    }

    /// Writes it by a statement of its own; `None` if the state has moved since it was looked at, or if a version is
    /// kept that this one would not be above.
    pub fn write(self, state: &StateRef<'_>) -> Result<Option<Effect>> {
        let command = sys::begin_command();
        let (catalog, class, key) = (&state.catalog, &state.class, state.key);
        let Some(change) = self.change() else {
            return match self {
                Self::Expire(now) => {
                    let version = store::expire(catalog, class, key, now)?;
                    self.expired(state, version, command)
                }
                _ => Ok(None),
            };
        };
        let item = Item { class, key, change };
        let Some(made) = store::write_one(catalog, &item)? else {
            return Ok(None);
        };
        let made = self.put_right(state, made, command)?;
        Ok(Some(self.effect(made)))
    }

    /// Puts right what has become wrong while the statement of `command` waited that has written `made`; the version
    /// as it is then.
    pub fn put_right(
        &self,
        state: &StateRef<'_>,
        made: Made,
        command: pg_sys::CommandId,
    ) -> Result<Made> {
        let next = match self {
            Self::Insert(next) | Self::Update(_, next) => Some(next),
            Self::Delete(..) | Self::Expire(_) => None,
            Self::Touch(..) => return Ok(made),
        };
        let new = next.map(NextRow::new_version);
        let token = match self {
            Self::Delete(.., token) => *token,
            _ => next.and_then(|next| next.quiet),
        };
        // The row of an expired state was locked before.
        let is_quiet = token.is_some() && token == quiet(state) || matches!(self, Self::Expire(_));
        let decided = Decided {
            class: &state.class,
            key: state.key,
            new: new.as_ref(),
            is_first: matches!(self, Self::Insert(_)),
            is_quiet,
            own_floor: own_floor(&state.class.name, state.key),
            command,
        };
        store::put_right(&state.catalog, &decided, made)
    }

    /// What came of the end of an expired state whose row is locked: if nothing is written, somebody has prolonged it
    /// or a trigger keeps it, and looking again would not help.
    fn expired(
        &self,
        state: &StateRef<'_>,
        version: Option<i64>,
        command: pg_sys::CommandId,
    ) -> Result<Option<Effect>> {
        let Some(version) = version else {
            return Ok(Some(Effect::Nothing { version: 0 }));
        };
        self.put_right(state, Made::without_document(version), command)?;
        Ok(Some(Effect::Deleted { version }))
    }

    /// The effect of the change, once it is written.
    pub fn effect(self, made: Made) -> Effect {
        match self {
            Self::Insert(next) | Self::Update(_, next) => Effect::Document {
                made,
                document: next.document,
                hash: next.hash,
                expires_at: next.expires_at,
                parent: next.parent,
            },
            Self::Delete(..) | Self::Expire(_) => Effect::Deleted {
                version: made.version,
            },
            Self::Touch(_, expires_at) => Effect::Touched {
                version: made.version,
                expires_at,
            },
        }
    }
}

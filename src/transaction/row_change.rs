//! The plan for one staged state: nothing, or a change of its rows.

use super::effect::Effect;
use super::known::Bytes;
use super::overrule::own_floor;
use crate::cache::StateRef;
use crate::error::Result;
use crate::interval::Ttl;
use crate::store::{self, Base, Checkpoint, Decided, Made, NewVersion, Replaced, Storage, Writer};
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

/// A change of the rows of one state.
pub enum RowChange {
    /// A version of a state that has no head row.
    Insert(NextRow),
    /// A version above the one to be replaced.
    Update(Replaced, NextRow),
    /// A tombstone of this version. The token was taken before the version was decided upon.
    Delete(Replaced, i64, Option<FillToken>),
    /// This expiry, and what becomes of the time to live that the state remembers.
    Touch(Replaced, i64, Ttl),
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
    /// What becomes of the time to live that the state remembers.
    pub ttl: Ttl,
    /// The version that this one may be stored as the difference from: its number, document and storage.
    pub base: Option<(i64, Vec<u8>, Storage)>,
    /// The same of the version that it goes on from, where that is another one.
    pub branch: Option<(i64, Vec<u8>, Storage)>,
    /// What `state_save` says about it.
    pub checkpoint: Option<Rc<Checkpoint>>,
    /// Taken before the bases were read, if there is an L1 and nobody was committing a change of the state.
    pub quiet: Option<FillToken>,
}

/// Whether it changes says whether somebody has committed a change of the state.
pub fn quiet(state: &StateRef<'_>) -> Option<FillToken> {
    shared::l1()?.fill_token(&state.l1_key())
}

impl NextRow {
    fn new_version(&self) -> NewVersion<'_> {
        fn base((version, document, storage): &(i64, Vec<u8>, Storage)) -> Base<'_> {
            Base {
                version: *version,
                document,
                storage: *storage,
            }
        }
        NewVersion {
            number: self.number,
            document: &self.document,
            stored: self.document.stored(),
            hash: self.hash,
            parent: self.parent,
            expires_at: self.expires_at,
            ttl: self.ttl,
            is_first: self.parent.is_none(),
            base: self.base.as_ref().map(base),
            branch: self.branch.as_ref().map(base),
            checkpoint: self.checkpoint.as_deref(),
        }
    }
}

impl RowChange {
    /// Writes it; `None` if the state has moved since it was looked at, or if a version is kept that this one would
    /// not be above.
    pub fn write(self, state: &StateRef<'_>, writer: &mut Writer<'_>) -> Result<Option<Effect>> {
        let command = sys::begin_command();
        let (class, key) = (&state.class, state.key);
        let alone = |version: Option<i64>| version.map(Made::without_document);
        let made = match &self {
            Self::Insert(next) => writer.insert(class, key, &next.new_version())?,
            Self::Update(replaced, next) => {
                writer.update(class, key, *replaced, &next.new_version())?
            }
            Self::Delete(replaced, number, _) => {
                alone(writer.delete(class, key, *replaced, *number)?)
            }
            Self::Touch(replaced, expires_at, ttl) => {
                alone(writer.touch(class, key, *replaced, (*expires_at, ttl))?)
            }
            Self::Expire(now) => {
                let version = writer.expire(class, key, *now)?;
                return self.expired(state, version, command);
            }
        };
        let Some(made) = made else {
            return Ok(None);
        };
        let made = self.put_right(state, made, command)?;
        Ok(Some(self.effect(made)))
    }

    /// Puts right what has become wrong while the statement of `command` waited that has written `made`; the version
    /// as it is then.
    fn put_right(
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
    fn effect(self, made: Made) -> Effect {
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
            Self::Touch(_, expires_at, _) => Effect::Touched {
                version: made.version,
                expires_at,
            },
        }
    }
}

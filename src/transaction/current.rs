//! What is there before a state is written.

use super::batch::with;
use super::beneath::read_beneath;
use super::known::Expiry;
use super::overrule::own_floor;
use super::row_change::quiet;
use crate::cache::StateRef;
use crate::cache::forms::{Head, IfIntact, SameAs};
use crate::cache::found::{Form, Found, Ground};
use crate::cache::tables::from_table;
use crate::error::Result;
use crate::store::{self, Replaced, Storage};
use crate::{behind, shared};
use state_cache_l1::FillToken;

/// What L3 holds before the write.
pub struct Current {
    /// The version, 0 if absent.
    pub number: i64,
    /// The last version there was: `number`, or that of a deleted or expired state.
    pub last: i64,
    /// Whether there is a state, and not only a tombstone or nothing.
    pub is_there: bool,
    /// Whether there is a head row, of version `last`.
    pub has_row: bool,
    /// The highest version that the next one must be above, as far as it was looked for.
    pub highest: i64,
    /// Hash of the document, 0 where that is not known.
    pub hash: u128,
    /// When the state expires, `None` where there is none.
    pub expires_at: Option<i64>,
    /// Whether the document is the one that the change would make.
    pub same: bool,
    /// The document, where the next version may be stored as the difference from it.
    pub document: Option<Vec<u8>>,
    /// How the document is stored.
    pub storage: Storage,
    /// Taken before the version was read.
    pub quiet: Option<FillToken>,
    /// Whether L3 was found not to hold the version as it should.
    pub is_damaged: bool,
    /// A version that was acknowledged and is lost, above the last there is; 0 for none.
    pub lost: i64,
}

impl Current {
    pub fn read(state: &StateRef<'_>, wanted: Option<&SameAs<'_>>, look: Look) -> Result<Self> {
        let quiet = quiet(state);
        let found = match wanted {
            Some(&SameAs { document, hash }) => {
                let found = look.read(state, &mut SameAs { document, hash })?;
                match found {
                    // Another look, for what the next version may build upon; most changes change something.
                    Found::State(_, false) if state.class.packs() => look
                        .read(state, &mut IfIntact)?
                        .map(|before| (before.as_deref() == Some(document), before)),
                    found => found.map(|same| (same, None)),
                }
            }
            None => look.read(state, &mut Head)?.map(|()| (false, None)),
        };
        let Ground { number, hash } = found.ground();
        let mut current = match found {
            Found::Absent(last) => Self {
                number,
                last,
                is_there: false,
                has_row: last != 0,
                highest: last,
                hash,
                expires_at: None,
                same: false,
                document: None,
                storage: Storage::UNKNOWN,
                quiet,
                is_damaged: false,
                lost: 0,
            },
            Found::State(version, (same, document)) => Self {
                number,
                last: number,
                is_there: true,
                has_row: true,
                highest: number,
                hash,
                expires_at: Some(version.expires_at),
                same,
                document,
                storage: version.storage,
                quiet,
                is_damaged: false,
                lost: 0,
            },
        };
        if look == Look::Close {
            current.look_closer(state)?;
        }
        Ok(current)
    }

    /// The head row may be older than what is kept, or of a version that none can be: then somebody has changed it,
    /// or it is damaged.
    fn look_closer(&mut self, state: &StateRef<'_>) -> Result<()> {
        let (catalog, class) = (&state.catalog, &state.class.name);
        let newest = store::newest_kept(catalog, class, state.key)?;
        self.highest = self.highest.max(newest);
        if self.last < 1
            && let Some(head) = store::target(catalog, class, state.key)?
        {
            (self.last, self.has_row, self.hash) = (head.version, true, 0);
        }
        Ok(())
    }

    /// The number of the next version.
    pub fn next_number(&self, state: &StateRef<'_>) -> i64 {
        let floor = match self.last {
            // There is none, or none that tells what there was.
            ..1 => floor(state),
            _ => 0,
        };
        self.highest.max(floor).max(0) + 1
    }

    pub fn ground(&self) -> Ground {
        Ground {
            number: self.number,
            hash: self.hash,
        }
    }

    /// What a write replaces that gives it this expiry.
    pub fn replaced(&self, expiry: Expiry) -> Replaced {
        Replaced {
            version: self.last,
            hash: (self.hash != 0).then_some(self.hash),
            expires_at: match expiry {
                Expiry::At(_) => None,
                Expiry::Keep | Expiry::AtLeast(_) => self.expires_at,
            },
            is_newest: self.storage.is_newest(),
            holder: self.storage.holder(),
        }
    }
}

/// How a state is looked at before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// As a reader would, which is right unless somebody else has just changed it.
    Quick,
    /// With its row locked: in the tables, and all versions that are kept.
    Close,
}

impl Look {
    pub fn read<F: Form>(self, state: &StateRef<'_>, form: &mut F) -> Result<Found<F::Output>> {
        let only_in_l1 = state.class.behind && shared::l1().is_some();
        match self {
            Self::Close if !only_in_l1 => from_table(state, form),
            _ => read_beneath(state, form),
        }
    }
}

/// The highest version that a state of this one's bucket had whose head row is gone, 0 for none.
pub fn floor(state: &StateRef<'_>) -> i64 {
    let own = own_floor(&state.class.name, state.key);
    own.max(state.catalog.floor(&state.class.name, state.key))
}

/// The version of a dirty entry, and that of the tables' row beneath it. What is dirty goes with the rows that this
/// transaction has emptied the tables of.
pub fn dirty_entry(state: &StateRef<'_>) -> Option<(i64, i64)> {
    let entry = behind::version_and_base(state)?;
    (!with(|batch| batch.by_hand.truncated())).then_some(entry)
}

/// A version above the last that was found: L1 cannot read it any more, or this transaction has overruled it by hand.
pub fn lost(state: &StateRef<'_>, current: &Current) -> i64 {
    if !state.class.behind {
        return 0;
    }
    match dirty_entry(state) {
        Some((version, _)) if version > current.last => version,
        _ => 0,
    }
}

/// Version of the tables' row beneath a version that is only decided upon, 0 for none.
pub fn base(state: &StateRef<'_>, current: &Current) -> i64 {
    match dirty_entry(state) {
        Some((version, base)) if version == current.last => base,
        // It was found in the tables.
        _ => current.number,
    }
}

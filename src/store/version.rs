//! A version to be written, and what it replaces.

use super::parameters::{
    Parameter, bigint, boolean, bytea, expiry, hash, jsonb, optional_text, size, text,
};
use super::payload::pack_payload;
use super::storage::{Base, Holder, Packed, Storage, pack};
use crate::call::{bigint_datum, stored_datum};
use crate::catalog::{Catalog, Class};
use crate::error::Result;
use crate::interval::Ttl;
use pgrx::pg_sys;

/// What the caller says about a snapshot beside its document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Why it was taken.
    pub checkpoint_type: Box<[u8]>,
    /// Whether recovery may go back to it.
    pub recovery_point: bool,
    /// Phase of the agent.
    pub agent_phase: Option<Box<[u8]>>,
    /// Whatever else belongs to it, in binary jsonb.
    pub execution_context: Option<Vec<u8>>,
    /// The version whose content it has, where that is not the one before.
    pub parent: Option<i64>,
    /// Its name within the state.
    pub label: Option<Box<[u8]>>,
    /// The version that the caller says it was made from, where that is not the one before; 0 for none.
    pub made_from: Option<i64>,
    /// Bytes beside the document.
    pub payload: Option<Vec<u8>>,
}

impl Checkpoint {
    /// Whether it is skipped where nothing has changed: only the types that are taken as a matter of routine.
    pub fn is_skippable(&self) -> bool {
        !self.recovery_point
            && self.parent.is_none()
            && self.made_from.is_none()
            && matches!(
                &*self.checkpoint_type,
                AUTO | b"intermediate" | b"pipeline_complete"
            )
    }

    /// Whether only a snapshot row has room for it: a head row has no columns for a label and a payload.
    pub fn needs_snapshot(&self) -> bool {
        self.recovery_point || self.label.is_some() || self.payload.is_some()
    }
}

/// The type of a snapshot of which its writer says nothing.
pub const AUTO: &[u8] = b"auto";

/// A document to be written.
#[derive(Clone, Copy)]
pub struct NewVersion<'a> {
    /// Its version, above the one to be replaced; for a state without a head row the least it may have.
    pub number: i64,
    /// Binary jsonb.
    pub document: &'a [u8],
    /// The same as the server has compressed it, if it has: it is stored like that where the document is stored
    /// whole.
    pub stored: Option<&'a [u8]>,
    /// Hash of the document.
    pub hash: u128,
    /// Version that it was made from; `None` where there was no state.
    pub parent: Option<i64>,
    /// When it expires, `i64::MAX` for never.
    pub expires_at: i64,
    /// What becomes of the time to live that the state remembers.
    pub ttl: Ttl,
    /// Whether there was no state before.
    pub is_first: bool,
    /// The version before, if that is at hand.
    pub base: Option<Base<'a>>,
    /// The one that it goes on from instead, where it may be stored as the difference from that.
    pub branch: Option<Base<'a>>,
    /// What the caller says about it.
    pub checkpoint: Option<&'a Checkpoint>,
}

/// A version that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// Its number.
    pub version: i64,
    /// How it is stored.
    pub storage: Storage,
}

impl Made {
    /// One of a state that got no snapshot.
    pub fn without_document(version: i64) -> Self {
        Self {
            version,
            storage: Storage::UNKNOWN,
        }
    }
}

/// What a write replaces; if it is not there any more, nothing is written.
#[derive(Clone, Copy)]
pub struct Replaced {
    /// The current version.
    pub version: i64,
    /// Hash of its document, since a change by hand may leave the version as it was; `None` where that is
    /// not known.
    pub hash: Option<u128>,
    /// When it expires, `i64::MAX` for never, where the new expiry depends on that: a touch changes neither of the
    /// others. `None` where it does not matter.
    pub expires_at: Option<i64>,
    /// Whether it is known that no version is kept above it. Else the statement looks, and writes nothing if the new
    /// one would not be the highest.
    pub is_newest: bool,
    /// Which row holds its document, `None` where that is not known.
    pub holder: Option<Holder>,
}

impl Replaced {
    /// As parameters.
    pub(super) fn parameters(&self) -> [Parameter; 3] {
        // The highest timestamp is infinity.
        let expires_at = self.expires_at.map(bigint_datum);
        [
            bigint(Some(self.version)),
            hash(self.hash),
            (pg_sys::TIMESTAMPTZOID, expires_at),
        ]
    }
}

/// Decides how a new version is stored.
pub(super) fn pack_new(
    catalog: &Catalog,
    class: &Class,
    key: &[u8],
    new: &NewVersion<'_>,
) -> Result<Packed> {
    let is_recovery_point = new.checkpoint.is_some_and(|it| it.recovery_point);
    let packed = pack(
        catalog,
        class,
        new.number,
        new.document,
        [new.base, new.branch],
        is_recovery_point,
    );
    let Some(checkpoint) = new.checkpoint.filter(|it| it.needs_snapshot()) else {
        return Ok(packed);
    };
    let payload = match &checkpoint.payload {
        Some(payload) => {
            let base = packed.base;
            Some(pack_payload(
                catalog, class, key, new.number, payload, base,
            )?)
        }
        None => None,
    };
    Ok(Packed {
        storage: packed.storage.held_by_snapshot(),
        payload,
        ..packed
    })
}

impl Packed {
    /// The row that holds it.
    pub(super) fn holder(&self) -> Holder {
        self.storage.holder().unwrap_or(Holder::Snapshot)
    }

    /// The version that it was written as.
    pub(super) fn made(&self, version: Option<i64>) -> Option<Made> {
        let storage = self.storage.written_newest();
        version.map(|version| Made { version, storage })
    }
}

/// The parameters $1 to $15 of a statement that writes a version.
pub(super) fn new_version(
    class: &Class,
    key: &[u8],
    new: &NewVersion<'_>,
    packed: &Packed,
) -> [Parameter; 15] {
    let checkpoint = new.checkpoint;
    let context = checkpoint.and_then(|it| it.execution_context.as_deref());
    let checkpoint_type = checkpoint.map_or(AUTO, |it| &it.checkpoint_type);
    let said = checkpoint.and_then(|it| it.parent.or(it.made_from));
    let parent = said.or(new.parent);
    // A head row says nothing of what most versions are.
    let is_said = packed.holder() == Holder::Snapshot || checkpoint_type != AUTO;
    [
        text(&class.name),
        text(key),
        hash(Some(new.hash)),
        size(new.document),
        expiry(new.expires_at),
        bigint(Some(new.number)),
        match (&packed.delta, new.stored) {
            (None, Some(stored)) => (pg_sys::JSONBOID, Some(stored_datum(stored))),
            (delta, _) => jsonb(delta.is_none().then_some(new.document)),
        },
        bytea(packed.delta.as_deref()),
        optional_text(is_said.then_some(checkpoint_type)),
        boolean(checkpoint.is_some_and(|it| it.recovery_point)),
        optional_text(checkpoint.and_then(|it| it.agent_phase.as_deref())),
        jsonb(context),
        bigint(parent.filter(|parent| *parent > 0)),
        optional_text(checkpoint.and_then(|it| it.label.as_deref())),
        bytea(packed.payload.as_deref()),
    ]
}

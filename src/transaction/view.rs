//! Reading as this transaction sees it: its own changes first, then the cache.

use super::batch::{Batch, with};
use super::beneath::{committed_ground, read_beneath, read_committed};
use super::known::{Bytes, Flushed, Intent, OnConflict, Pending, View};
use super::meet::flush_others;
use super::operation::{Operation, apply_all, have_edits};
use super::overrule::overrule_deferred;
use super::recovery;
use crate::cache::StateRef;
use crate::cache::forms::{Document, Head, SameAs};
use crate::cache::found::{Form, Found, Ground, Reader, Version};
use crate::cache::{noting, read};
use crate::counters::Counter;
use crate::error::{Error, Result};
use crate::settings::{self, OnCorruption};
use crate::shared;
use crate::snapshot::PushedSnapshot;
use crate::store::Storage;
use crate::sys;
use pgrx::pg_sys;
use std::rc::Rc;

/// Staged operations, and what they were applied to.
type Seen = (Rc<Vec<Rc<Operation>>>, Ground);

/// What the transaction itself knows.
enum Own {
    /// Nothing: the committed state counts. The flag says that the transaction has rows of its own in
    /// the tables.
    Committed { own_rows: bool },
    /// The same with this expiry.
    Expiry { own_rows: bool, expires_at: i64 },
    /// What it has staged or flushed.
    View(View),
}

/// Reads a state under the active snapshot. In an explicit batch what was found is remembered.
pub fn read<F: Form>(state: &StateRef<'_>, form: &mut F) -> Result<Found<F::Output>> {
    if sys::is_parallel_worker() {
        return Err(Error::ParallelWorker);
    }
    noting::before_read(state)?;
    overrule_deferred(state)?;
    // The rows of a change that was flushed only now are too new for the active snapshot.
    let _snapshot = flush_others(state)?.then(PushedSnapshot::transaction);
    // SAFETY: the active snapshot is valid while the function runs.
    let command = unsafe { (*sys::active_snapshot()).curcid };
    let (found, own) = read_at(state, Reader::Caller, command, form)?;
    noting::after_read(state, &found);
    let is_read_behind = !own && is_noted(state);
    if is_read_behind || with(|batch| batch.scope.explicit.own_rule().is_some()) {
        let ground = if !own && settings::on_corruption() == OnCorruption::Recover {
            // What was answered may be an earlier version than what is there.
            Some(committed_ground(state)?)
        } else if own {
            with(|batch| batch.operations_base(state))?
        } else {
            Some(found.ground())
        };
        if let Some(ground) = ground {
            note(state, ground, is_read_behind)?;
        }
    }
    Ok(found)
}

/// Whether this transaction has staged, flushed or changed by hand any state, or notes what it reads in an explicit
/// batch.
pub fn has_changes() -> bool {
    with(|batch| {
        let notes = batch.scope.explicit.own_rule().is_some();
        notes || !batch.states.is_empty() || batch.by_hand.any()
    })
}

/// Reads a state as the next change finds it: the newest of this transaction's changes, whatever the
/// active snapshot sees of them.
pub fn read_newest<F: Form>(state: &StateRef<'_>, form: &mut F) -> Result<Found<F::Output>> {
    read_at(state, Reader::Change, pg_sys::CommandId::MAX, form).map(|(found, _)| found)
}

/// Reads a state as it is now, with the changes of this transaction, whatever the isolation level.
pub fn read_latest<F: Form>(state: &StateRef<'_>, form: &mut F) -> Result<Found<F::Output>> {
    let _snapshot = PushedSnapshot::latest();
    read_newest(state, form)
}

/// The flag says that the answer is a document of this transaction.
fn read_at<F: Form>(
    state: &StateRef<'_>,
    reader: Reader,
    command: pg_sys::CommandId,
    form: &mut F,
) -> Result<(Found<F::Output>, bool)> {
    rebase(state, command)?;
    match with(|batch| batch.own(state, command))? {
        Own::Committed { own_rows } => Ok((read_committed(state, reader, own_rows, form)?, false)),
        Own::Expiry {
            own_rows,
            expires_at,
        } => {
            let found = match recovery::read(state, reader, own_rows, form)? {
                Found::State(version, value) => Version {
                    expires_at,
                    ..version
                }
                .unless_expired(value),
                absent => absent,
            };
            Ok((found, false))
        }
        Own::View(view) => {
            if reader == Reader::Caller {
                state.class.counters.count(Counter::BypassOwn);
            }
            Ok((from_view(state, view, form)?, true))
        }
    }
}

impl Batch {
    /// What the operations staged on a state were applied to: who reads their result has read that.
    fn operations_base(&self, state: &StateRef<'_>) -> Result<Option<Ground>> {
        let known = self.known_of(state)?;
        Ok(
            known.and_then(|known| match known.pending.as_ref()?.intent {
                Intent::Apply { base, .. } => Some(base),
                _ => None,
            }),
        )
    }

    /// The operations staged on a state; `None` if there are none that a snapshot with this command id sees in
    /// full, or if the batch does not follow what others do.
    fn operations_seen(
        &self,
        state: &StateRef<'_>,
        command: pg_sys::CommandId,
    ) -> Result<Option<Seen>> {
        if self.states.is_empty() {
            return Ok(None);
        }
        let id = state.id();
        let Some(known) = self.known(id, &state.class.name, state.key)? else {
            return Ok(None);
        };
        let Some(Pending {
            intent: Intent::Apply {
                operations, base, ..
            },
            stager,
            ..
        }) = &known.pending
        else {
            return Ok(None);
        };
        let follows = match self.scope.explicit.rule_of(stager.user) {
            None | Some(OnConflict::Reapply) => true,
            // Until the batch first meets the state.
            Some(OnConflict::Error) => known.base_of(stager.user).is_none(),
            Some(OnConflict::Overwrite) => have_edits(operations),
        };
        // What this transaction has flushed nobody else can change.
        let may_have_moved = match &known.flushed {
            Some(flushed) => self.by_hand.any() && !flushed.is_deferred(),
            None => true,
        };
        if !follows || !may_have_moved || !known.sees_newest(command) {
            return Ok(None);
        }
        Ok(Some((Rc::clone(operations), *base)))
    }

    fn own(&self, state: &StateRef<'_>, command: pg_sys::CommandId) -> Result<Own> {
        let own_rows = self.by_hand.any();
        if self.states.is_empty() {
            return Ok(Own::Committed { own_rows });
        }
        let id = state.id();
        let Some(known) = self.known(id, &state.class.name, state.key)? else {
            return Ok(Own::Committed { own_rows });
        };
        let own_rows = own_rows || known.is_in_tables();
        let is_deferred = known.flushed.as_ref().is_some_and(Flushed::is_deferred);
        // A role that L1 may not answer gets only its own staged changes from here.
        let tables_answer = !known.is_staged()
            && !is_deferred
            && (self.by_hand.any() || !state.catalog.access().l1);
        match known.view_at(command) {
            // What was flushed and then changed by hand is in the tables only.
            Ok(Some(_)) if tables_answer => Ok(Own::Committed { own_rows: true }),
            Ok(Some(View::Table)) => Ok(Own::Committed { own_rows: true }),
            Ok(Some(View::Expiry(expires_at))) => Ok(Own::Expiry {
                own_rows,
                expires_at: *expires_at,
            }),
            Ok(Some(view)) => Ok(Own::View(view.clone())),
            // Before the changes, or after they were dropped: rows that were flushed are in the tables.
            Ok(None) => Ok(Own::Committed { own_rows }),
            Err(()) => Err(Error::SnapshotTooOld {
                state: state.shown(),
            }),
        }
    }
}

/// Staged operations are shown on top of the version that the snapshot sees: if somebody else has changed
/// the state since they were staged, they are applied anew, as the flush will do. A batch that treats
/// such a change as a conflict, or ignores it, keeps showing what it staged.
fn rebase(state: &StateRef<'_>, command: pg_sys::CommandId) -> Result<()> {
    let Some((operations, base)) = with(|batch| batch.operations_seen(state, command))? else {
        return Ok(());
    };
    let own_rows = with(|batch| batch.by_hand.any());
    if read::read(state, Reader::Change, own_rows, &mut Head)?.ground() == base {
        return Ok(());
    }
    let found = read::read(state, Reader::Change, own_rows, &mut Document)?;
    let ground = found.ground();
    let (last, before, document) = match found {
        Found::Absent(last) => (last, None, None),
        Found::State(version, document) => {
            (version.number, Some(version.expires_at), Some(document))
        }
    };
    let result: Option<Bytes> =
        apply_all(state, &operations, document)?.map(|result| Rc::new(result.into()));
    with(|batch| {
        let known = batch.changing(state)?;
        let Some(result) = result else {
            // Still built upon what is gone, so that the flush looks again.
            if let Some(view) = known.newest_mut() {
                *view = View::Absent;
            }
            return Ok(());
        };
        let Some(pending) = &mut known.pending else {
            return Ok(());
        };
        if let Intent::Apply {
            base,
            result: staged,
            ..
        } = &mut pending.intent
        {
            (*base, *staged) = (ground, Rc::clone(&result));
        }
        let expires_at = pending.expiry.after(before);
        if let Some(view) = known.newest_mut() {
            *view = View::Document {
                document: result,
                version: Some(last + 1),
                expires_at,
            };
        }
        Ok(())
    })
}

fn from_view<F: Form>(state: &StateRef<'_>, view: View, form: &mut F) -> Result<Found<F::Output>> {
    let View::Document {
        document,
        version,
        expires_at,
    } = view
    else {
        return Ok(Found::Absent(0));
    };
    let number = match version {
        Some(version) => version,
        None => provisional_version(state, &document)?,
    };
    let version = Version {
        number,
        expires_at,
        hash: 0,
        storage: Storage::UNKNOWN,
    };
    if version.is_expired() {
        return Ok(Found::Absent(number));
    }
    Ok(Found::State(version, form.make(&document)?))
}

/// The version that a staged document will have if nobody else changes the state: found out when first
/// asked for, since most transactions never ask.
fn provisional_version(state: &StateRef<'_>, document: &[u8]) -> Result<i64> {
    let dedup = with(|batch| -> Result<_> {
        let pending = batch.changing(state)?.pending.as_ref();
        Ok(pending.is_some_and(|pending| pending.dedup))
    })?;
    let mut same = SameAs {
        document,
        hash: state_cache_document::hash(document),
    };
    let found = read_beneath(state, &mut same)?;
    let beneath = found.ground().number;
    let version = match found {
        Found::Absent(last) => last + 1,
        Found::State(version, true) if dedup => version.number,
        Found::State(version, _) => version.number + 1,
    };
    with(|batch| {
        let known = batch.changing(state)?;
        known.beneath = known.beneath.or(Some(beneath));
        if let Some(View::Document {
            version: unknown, ..
        }) = known.newest_mut()
        {
            *unknown = unknown.or(Some(version));
        }
        Ok(version)
    })
}

/// Whether what is read of a state is remembered until the transaction ends: where all of it runs under one snapshot
/// nobody may change what it has read and is going to change, and of a `behind` class PostgreSQL sees no such change.
fn is_noted(state: &StateRef<'_>) -> bool {
    state.class.behind && sys::isolation_uses_transaction_snapshot() && shared::l1().is_some()
}

/// Remembers what the transaction, or an explicit batch, found when it first met a state.
fn note(state: &StateRef<'_>, ground: Ground, is_read_behind: bool) -> Result<()> {
    with(|batch| {
        if is_read_behind {
            batch.note_read_behind(state, ground)?;
        }
        if batch.scope.explicit.own_rule().is_some() {
            batch.changing(state)?.note_base(ground);
        }
        Ok(())
    })
}

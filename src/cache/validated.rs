//! Validated reads: where L1 may not answer by itself, the head row says whether its entry is the answer.
//!
//! # Contract
//!
//! **When.** The server is in recovery, the transaction is SERIALIZABLE, the stripe has writers, the entry's writers
//! are not visible to the snapshot S, row-level security applies to `state_head` alone, or the entry is unproven
//! (below).
//!
//! **How.** The entry is copied out of L1 under its partition's lock, so its version, hash and document belong
//! together. Then the head row is read under S, as a statement reads it: through the index, with the predicate locks
//! that SERIALIZABLE takes for it, or by a statement that applies the policies. If there is no such row, or its state
//! is deleted or has expired, the state is absent. If its version and hash are the entry's, the entry's document is
//! the answer, and the row says when the state expires. Else L3 is read under S.
//!
//! **Why this is exact.** A hash names a document, so the document of the entry is the one that the head row means,
//! whoever made the entry and when. Nothing depends on the order of the two steps: whatever others commit, publish,
//! evict or replay in between, S sees the same head row, and the copy stays what it is. A SERIALIZABLE transaction
//! conflicts with every writer of the state, because every change of a state writes its head row.
//!
//! A snapshot row that was changed by hand, beneath a head row that was not, is damage, which a reader of the tables
//! is told of. A validated read does not look there, and answers with the document that the head row means.
//!
//! **Recovery.** Replay publishes nothing, so entries grow old unnoticed there. Who reads a state that L1 does not
//! hold as the head row has it leaves what L3 holds under a snapshot taken now in L1, *unproven*: its writers are
//! [`super::visibility::UNPROVEN`], whom no snapshot sees. An unproven entry only ever answers validated reads,
//! whatever becomes of the server: promotion changes nothing about it, and need not be noticed.
//!
//! **After a promotion**, who comes upon an unproven entry proves it: the head row is read under a snapshot taken
//! now, between the stripe's generation and the look at it that every fill ends with. If version and hash are those
//! of the entry, a copy that names the row's writer takes its place, and the chain of deltas is not read again. A
//! proof that comes too late links nothing, as any fill.

use super::StateRef;
use super::damage;
use super::fill::{Origin, insert, offer};
use super::forms::Document;
use super::found::{Form, Found, Taken, Version};
use super::tables::{from_l3, from_table, newest};
use super::visibility::{is_own, same_visibility, widen};
use crate::counters::Counter;
use crate::error::Result;
use crate::settings;
use crate::shared::{self, SharedL1};
use crate::snapshot::PushedSnapshot;
use crate::store::{self, Storage, StoredHead};
use crate::sys;
use state_cache_l1::{EntryInfo, FillToken, NewEntry};

/// The counter of the read, that of its time, and the state.
type Answer<T> = Result<(Counter, Counter, Found<T>)>;

/// What the head row says of an entry.
enum Verdict<T> {
    /// It is the answer, or there is no state.
    Answer(Found<T>),
    /// The row has a later version.
    Behind,
    /// The row has an earlier version, or another document of this one.
    Other,
}

/// Reads a state where L1 may not answer by itself, and may not be filled; `otherwise` counts why, where L3 answers.
pub(super) fn read<F: Form>(
    state: &StateRef<'_>,
    l1: &SharedL1,
    otherwise: Counter,
    form: &mut F,
) -> Answer<F::Output> {
    match form.take(l1, &state.l1_key()) {
        Taken::Entry(info, value) => of_entry(state, &info, value, otherwise, form),
        Taken::Failed(error) => Err(error),
        Taken::Damaged if otherwise != Counter::BypassPrivileges => {
            damage::found(state, l1, &state.l1_key())?;
            by_table(state, otherwise, form)
        }
        Taken::Miss | Taken::Damaged => by_table(state, otherwise, form),
    }
}

/// Answers with an entry that has been taken, if the head row lets it.
pub(super) fn of_entry<F: Form>(
    state: &StateRef<'_>,
    info: &EntryInfo,
    value: Result<F::Output>,
    otherwise: Counter,
    form: &mut F,
) -> Answer<F::Output> {
    match validate(state, info, value)? {
        Verdict::Answer(found) => Ok((Counter::Validated, Counter::L1ReadTime, found)),
        Verdict::Behind | Verdict::Other => by_table(state, otherwise, form),
    }
}

/// Reads a state while the server is in recovery, and leaves it in L1 for other validated reads.
pub(super) fn in_recovery<F: Form>(
    state: &StateRef<'_>,
    l1: &SharedL1,
    form: &mut F,
) -> Answer<F::Output> {
    let key = state.l1_key();
    let token = l1.fill_token(&key);
    let verdict = match form.take(l1, &key) {
        Taken::Entry(info, value) => validate(state, &info, value)?,
        Taken::Failed(error) => return Err(error),
        Taken::Damaged => {
            damage::found(state, l1, &key)?;
            Verdict::Behind
        }
        Taken::Miss => Verdict::Behind,
    };
    let may_fill = match verdict {
        Verdict::Answer(found) => return Ok((Counter::Validated, Counter::L1ReadTime, found)),
        // A parallel query takes no snapshot.
        _ if sys::is_in_parallel_mode() => false,
        Verdict::Behind => true,
        // What is in L1 is newer than what an old snapshot sees, and stays for others.
        Verdict::Other => is_current(),
    };
    let (Some(token), true) = (token, may_fill) else {
        return by_table(state, Counter::Misses, form);
    };
    let newest = newest(state)?;
    crate::fault::stop_at!(BeforeFill);
    let stored = newest.stored.as_ref();
    if offer(state, l1, &key, token, stored, Origin::Recovery) {
        call_auditor();
    }
    match newest.is_what_the_caller_sees {
        true => {
            let found = from_l3(state, newest.stored, form)?;
            Ok((Counter::Misses, Counter::L3ReadTime, found))
        }
        false => by_table(state, Counter::Misses, form),
    }
}

/// L1 has an entry more. In recovery no change calls a worker, which may be to audit L1.
fn call_auditor() {
    if settings::audit_rate() > 0
        && let Some(database) = shared::database()
        && !database.has_worker()
        && database.due() == shared::NEVER
    {
        database.wake_worker();
    }
}

/// What a validated read would be answered by L1 with: nothing is filled, and nothing counted. `None` where L3 would
/// answer.
pub fn peek<F: Form>(
    state: &StateRef<'_>,
    l1: &SharedL1,
    form: &mut F,
) -> Result<Option<Found<F::Output>>> {
    let key = state.l1_key();
    let verdict = match form.take(l1, &key) {
        Taken::Entry(info, value) => validate(state, &info, value)?,
        Taken::Failed(error) => return Err(error),
        Taken::Damaged => {
            damage::found(state, l1, &key)?;
            return Ok(None);
        }
        Taken::Miss => return Ok(None),
    };
    Ok(match verdict {
        Verdict::Answer(found) => Some(found),
        Verdict::Behind | Verdict::Other => None,
    })
}

/// Answers with an unproven entry that has been taken, and proves it; `None` if it is not what the tables hold, and
/// they are to be read. The token was taken before the entry.
pub(super) fn prove<T>(
    state: &StateRef<'_>,
    l1: &SharedL1,
    token: FillToken,
    (info, value): (&EntryInfo, Result<T>),
) -> Result<Option<Found<T>>> {
    if !sys::is_in_parallel_mode() {
        let head = {
            let _fresh = PushedSnapshot::latest();
            head_of(state)?
        };
        let Some(head) = head.filter(|head| means(head, info) && !is_own(head.xid)) else {
            return Ok(None);
        };
        crate::fault::stop_at!(BeforeFill);
        let key = state.l1_key();
        if let Taken::Entry(again, document) = Document.take(l1, &key)
            && again.serial == info.serial
        {
            let writer = widen(head.xid);
            let entry = NewEntry {
                key,
                class: state.class.counters.class_id(),
                max_entries: state.class.max_entries,
                version: head.version,
                head_xid: writer,
                doc_xid: writer,
                hash: info.hash,
                expires_at: head.expires_at,
                loaded_at: sys::statement_timestamp(),
                dirty: None,
                stored: info.stored,
                value: &document?,
            };
            if entry.expires_at > entry.loaded_at {
                insert(state, l1, &entry, token);
            }
        }
    }
    match validate(state, info, value)? {
        Verdict::Answer(found) => Ok(Some(found)),
        Verdict::Behind | Verdict::Other => Ok(None),
    }
}

fn by_table<F: Form>(state: &StateRef<'_>, reason: Counter, form: &mut F) -> Answer<F::Output> {
    Ok((reason, Counter::L3ReadTime, from_table(state, form)?))
}

fn validate<T>(state: &StateRef<'_>, info: &EntryInfo, value: Result<T>) -> Result<Verdict<T>> {
    let Some(head) = head_of(state)? else {
        return Ok(Verdict::Answer(Found::Absent(0)));
    };
    let version = Version {
        number: head.version,
        expires_at: head.expires_at,
        hash: info.hash,
        storage: Storage::from_bits(info.stored),
    };
    if head.deleted || version.is_expired() {
        return Ok(Verdict::Answer(Found::Absent(head.version)));
    }
    Ok(match means(&head, info) {
        true => Verdict::Answer(Found::State(version, value?)),
        false if info.version < head.version => Verdict::Behind,
        false => Verdict::Other,
    })
}

/// The head row under the active snapshot.
fn head_of(state: &StateRef<'_>) -> Result<Option<StoredHead>> {
    let hash = state.id.0 as u64;
    store::read_head(&state.catalog, hash, &state.class.name, state.key)
}

/// Whether the document of the entry is the one that the head row names.
fn means(head: &StoredHead, info: &EntryInfo) -> bool {
    let is_same = head.version == info.version && info.hash != 0 && head.hash == Some(info.hash);
    !head.deleted && (is_same || crate::fault::leaves_out!(Validation))
}

/// Whether the active snapshot sees what one sees that is taken now.
fn is_current() -> bool {
    let active = sys::active_snapshot();
    let _fresh = PushedSnapshot::latest();
    // SAFETY: both are on the stack of active snapshots.
    unsafe { same_visibility(active, sys::active_snapshot()) }
}

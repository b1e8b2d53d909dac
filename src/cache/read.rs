//! Reading a state: the protocol, whatever form the answer takes.

use super::StateRef;
use super::behind;
use super::damage;
use super::visibility::{is_own, is_visible, same_visibility, widen};
use crate::counters::{Counter, Timer};
use crate::error::{Error, Result, warn_recovered};
use crate::settings::{self, OnCorruption};
use crate::shared::{self, Key, SharedL1};
use crate::snapshot::PushedSnapshot;
use crate::snapshots;
use crate::store::{self, Content, Storage, Stored};
use crate::sys;
use state_cache_l1::{EntryInfo, FillToken, NewEntry, Refused};

/// The version that a read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Its number.
    pub number: i64,
    /// When it expires, `i64::MAX` for never.
    pub expires_at: i64,
    /// Hash of its document, 0 where that is not known.
    pub hash: u128,
    /// How L3 stores it, as far as that is known.
    pub storage: Storage,
}

/// What a change builds upon. Two reads that found the same ground found the same document, also where
/// somebody has changed it by hand and left its version as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ground {
    /// The version, 0 if absent.
    pub number: i64,
    /// Hash of the document.
    pub hash: u128,
}

impl Ground {
    /// No state.
    pub const ABSENT: Self = Self { number: 0, hash: 0 };
}

impl Version {
    /// The state, or its absence once it has ended.
    pub fn unless_expired<T>(self, value: T) -> Found<T> {
        if self.is_expired() {
            Found::Absent(self.number)
        } else {
            Found::State(self, value)
        }
    }

    /// The ground that a change of this version builds upon.
    pub fn ground(&self) -> Ground {
        Ground {
            number: self.number,
            hash: self.hash,
        }
    }

    /// Whether the state has ended, by the clock of the running statement.
    pub fn is_expired(&self) -> bool {
        self.expires_at != i64::MAX && self.expires_at <= sys::statement_timestamp()
    }
}

/// The form in which a caller wants the document.
pub trait Form {
    /// What it gets.
    type Output;

    /// Takes it from an entry of L1, if there is one.
    fn take(&mut self, l1: &SharedL1, key: &Key<'_>) -> Taken<Result<Self::Output>>;

    /// Makes it from the whole document.
    fn make(&mut self, document: &[u8]) -> Result<Self::Output>;

    /// Makes it of a state whose document is damaged: for most forms, the error.
    fn make_of_damaged(&mut self, damage: Error) -> Result<Self::Output> {
        Err(damage)
    }
}

/// What L1 had.
pub enum Taken<T> {
    /// Nothing.
    Miss,
    /// An entry that failed its check.
    Damaged,
    /// An entry of which nothing can be made here, for want of memory.
    Failed(Error),
    /// An entry; its writers are not checked yet.
    Entry(EntryInfo, T),
}

/// What a read found.
#[derive(Debug)]
pub enum Found<T> {
    /// No state: never written, deleted, expired or hidden. The number is that of the last version
    /// there was, 0 if none.
    Absent(i64),
    /// The state.
    State(Version, T),
}

impl<T> Found<T> {
    /// The ground that a change of it builds upon.
    pub fn ground(&self) -> Ground {
        match self {
            Self::Absent(_) => Ground::ABSENT,
            Self::State(version, _) => version.ground(),
        }
    }

    /// The same with another form.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Found<U> {
        match self {
            Self::Absent(last) => Found::Absent(last),
            Self::State(version, value) => Found::State(version, f(value)),
        }
    }

    /// The state's version and form, if there is one.
    pub fn state(self) -> Option<(Version, T)> {
        match self {
            Self::Absent(_) => None,
            Self::State(version, value) => Some((version, value)),
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// A caller; hits and misses are counted.
    Caller,
    /// The extension itself, to find out what a change builds upon.
    Change,
}

/// Reads a state of which this transaction has changed nothing, exactly as L3 has it under the active
/// snapshot. `own_rows` says that the transaction has rows of its own in the tables (flushed, or made by
/// hand): then L3 is asked.
pub fn read<F: Form>(
    state: &StateRef<'_>,
    reader: Reader,
    own_rows: bool,
    form: &mut F,
) -> Result<Found<F::Output>> {
    match read_exactly(state, reader, own_rows, form) {
        Err(Error::Damaged { version, fault, .. })
            if reader == Reader::Caller && settings::on_corruption() == OnCorruption::Recover =>
        {
            recovered(state, version, fault, form)
        }
        answer => answer,
    }
}

/// The newest intact version in place of a damaged one, with a warning.
fn recovered<F: Form>(
    state: &StateRef<'_>,
    damaged: i64,
    fault: &'static str,
    form: &mut F,
) -> Result<Found<F::Output>> {
    let name = (&*state.class.name, state.key);
    let Some((number, kept)) = snapshots::newest_intact(&state.catalog, name, damaged)? else {
        return Err(Error::Damaged {
            state: state.shown(),
            version: damaged,
            fault,
        });
    };
    warn_recovered(&state.shown(), damaged, fault, number);
    let head = store::target(&state.catalog, &state.class.name, state.key)?;
    let version = Version {
        number,
        expires_at: head.map_or(i64::MAX, |head| head.expires_at),
        hash: kept.hash,
        storage: kept.storage,
    };
    Ok(Found::State(version, form.make(&kept.document)?))
}

fn read_exactly<F: Form>(
    state: &StateRef<'_>,
    reader: Reader,
    own_rows: bool,
    form: &mut F,
) -> Result<Found<F::Output>> {
    let counters = &state.class.counters;
    let timer = Timer::start();
    let (counter, time, found) = match route(state, own_rows) {
        _ if behind::reads_newest(state) => behind::read(state, reader, own_rows, form)?,
        Route::L3(reason) => (reason, Counter::L3ReadTime, from_table(state, form)?),
        Route::L1(l1) => {
            let key = state.catalog.l1_key(&state.class, state.key);
            match l1.fill_token(&key) {
                None => (
                    Counter::BypassWriters,
                    Counter::L3ReadTime,
                    from_table(state, form)?,
                ),
                Some(token) => match from_l1(l1, &key, state, form)? {
                    L1Answer::Found(version, value) => {
                        let found = if version.is_expired() {
                            counters.count(Counter::Expirations);
                            Found::Absent(version.number)
                        } else {
                            Found::State(version, value?)
                        };
                        (Counter::Hits, Counter::L1ReadTime, found)
                    }
                    L1Answer::Failed(error) => return Err(error),
                    L1Answer::Newer => (
                        Counter::BypassSnapshot,
                        Counter::L3ReadTime,
                        from_table(state, form)?,
                    ),
                    // Only a snapshot taken now may fill, and a parallel query takes none.
                    L1Answer::Miss if sys::is_in_parallel_mode() => (
                        Counter::Misses,
                        Counter::L3ReadTime,
                        from_table(state, form)?,
                    ),
                    L1Answer::Miss => (
                        Counter::Misses,
                        Counter::L3ReadTime,
                        fill(state, l1, &key, token, form)?,
                    ),
                },
            }
        }
    };
    if reader == Reader::Caller {
        counters.count(counter);
        timer.stop(counters, time);
    }
    Ok(found)
}

/// What L3 has under the active snapshot.
pub fn from_table<F: Form>(state: &StateRef<'_>, form: &mut F) -> Result<Found<F::Output>> {
    from_l3(
        state,
        store::read(&state.catalog, &state.class, state.key)?,
        form,
    )
}

pub(super) enum Route {
    L1(&'static SharedL1),
    L3(Counter),
}

/// Who may ask L1 at all.
pub(super) fn route(state: &StateRef<'_>, own_rows: bool) -> Route {
    if own_rows {
        return Route::L3(Counter::BypassOwn);
    }
    let Some(l1) = shared::l1() else {
        return Route::L3(Counter::BypassOff);
    };
    if !settings::enabled() || sys::recovery_in_progress() {
        return Route::L3(Counter::BypassOff);
    }
    if sys::isolation_is_serializable() {
        return Route::L3(Counter::BypassSerializable);
    }
    if !state.catalog.access().l1 {
        return Route::L3(Counter::BypassPrivileges);
    }
    Route::L1(l1)
}

enum L1Answer<T> {
    Found(Version, T),
    /// There is an entry that the snapshot does not see.
    Newer,
    /// There is one, of which nothing can be made.
    Failed(Error),
    Miss,
}

fn from_l1<F: Form>(
    l1: &SharedL1,
    key: &Key<'_>,
    state: &StateRef<'_>,
    form: &mut F,
) -> Result<L1Answer<Result<F::Output>>> {
    let class = &state.class;
    Ok(match form.take(l1, key) {
        Taken::Miss => L1Answer::Miss,
        Taken::Failed(error) => L1Answer::Failed(error),
        Taken::Damaged => {
            damage::found(state, l1, key)?;
            L1Answer::Miss
        }
        Taken::Entry(info, value) => {
            let snapshot = sys::active_snapshot();
            // SAFETY: the active snapshot is an MVCC snapshot.
            let visible = unsafe {
                is_visible(info.head_xid, snapshot)
                    && (info.doc_xid == info.head_xid || is_visible(info.doc_xid, snapshot))
            };
            if !visible {
                return Ok(L1Answer::Newer);
            }
            let too_old = class.cache_ttl.is_some_and(|ttl| {
                info.loaded_at.saturating_add(ttl) <= sys::statement_timestamp()
            });
            if too_old {
                class.counters.count(Counter::Expirations);
                return Ok(L1Answer::Miss);
            }
            L1Answer::Found(
                Version {
                    number: info.version,
                    expires_at: info.expires_at,
                    hash: info.hash,
                    storage: Storage::from_bits(info.stored),
                },
                value,
            )
        }
    })
}

/// Answers from L3 and leaves the newest version in L1.
fn fill<F: Form>(
    state: &StateRef<'_>,
    l1: &SharedL1,
    key: &Key<'_>,
    token: FillToken,
    form: &mut F,
) -> Result<Found<F::Output>> {
    let newest = newest(state)?;
    crate::fault::stop_at!(BeforeFill);
    offer(state, l1, key, token, newest.stored.as_ref());
    if newest.is_what_the_caller_sees {
        from_l3(state, newest.stored, form)
    } else {
        from_table(state, form)
    }
}

/// Leaves what L3 holds in L1, if it is there, intact and nobody's but a committed transaction's; whether
/// that came to pass.
pub(super) fn offer(
    state: &StateRef<'_>,
    l1: &SharedL1,
    key: &Key<'_>,
    token: FillToken,
    stored: Option<&Stored>,
) -> bool {
    if let Some(stored) = stored
        && let Content::Intact(document) = &stored.content
        && !is_own(stored.head_xid)
        && !is_own(document.xid)
    {
        let entry = NewEntry {
            key: *key,
            class: state.class.counters.class_id(),
            max_entries: state.class.max_entries,
            version: stored.version,
            head_xid: widen(stored.head_xid),
            doc_xid: widen(document.xid),
            hash: document.hash,
            expires_at: stored.expires_at,
            loaded_at: sys::statement_timestamp(),
            dirty: None,
            stored: document.storage.bits(),
            value: &document.bytes,
        };
        return stored.expires_at > entry.loaded_at && insert(state, l1, &entry, token);
    }
    false
}

/// What became of a state that was to be in L1 before anybody reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warmed {
    /// It was filled.
    Filled,
    /// It is there already, or not to be had.
    Passed,
    /// There is no room for it: others would have to go.
    Full,
    /// L1 is not for this caller, now.
    Off,
}

/// Fills a state of which this transaction has changed nothing, as a read that missed would, into free room
/// only. Counts no read.
pub fn warm(state: &StateRef<'_>) -> Result<Warmed> {
    let Route::L1(l1) = route(state, false) else {
        return Ok(Warmed::Off);
    };
    let key = state.catalog.l1_key(&state.class, state.key);
    let Some(token) = l1.fill_token(&key) else {
        return Ok(Warmed::Passed);
    };
    if matches!(super::forms::Head.take(l1, &key), Taken::Entry(..)) {
        return Ok(Warmed::Passed);
    }
    let newest = newest(state)?;
    if !has_room(state, l1, newest.stored.as_ref()) {
        return Ok(Warmed::Full);
    }
    Ok(
        match offer(state, l1, &key, token, newest.stored.as_ref()) {
            true => Warmed::Filled,
            false => Warmed::Passed,
        },
    )
}

/// Whether an entry fits without another one leaving.
fn has_room(state: &StateRef<'_>, l1: &SharedL1, stored: Option<&Stored>) -> bool {
    let document = match stored.map(|stored| &stored.content) {
        Some(Content::Intact(document)) => document.bytes.len() as u64,
        _ => 0,
    };
    // Chunks of names and header, and of the table that finds a chunk in a long chain: a 64th at most.
    let wanted = document + document / 32 + 4 * state_cache_l1::CHUNK as u64;
    let (entries, _) = l1.gauges(state.class.counters.class_id());
    let may = state.class.max_entries.map_or(u64::MAX, u64::from);
    l1.memory().free >= wanted && entries < may
}

/// What a filler reads: the newest committed version, whatever the caller's snapshot is.
pub(super) struct Newest {
    pub stored: Option<Stored>,
    is_what_the_caller_sees: bool,
}

pub(super) fn newest(state: &StateRef<'_>) -> Result<Newest> {
    let caller = sys::active_snapshot();
    let _fresh = (!crate::fault::leaves_out!(FreshSnapshot)).then(PushedSnapshot::latest);
    // SAFETY: both are on the stack of active snapshots.
    let is_what_the_caller_sees = unsafe { same_visibility(caller, sys::active_snapshot()) };
    let stored = store::read(&state.catalog, &state.class, state.key)?;
    Ok(Newest {
        stored,
        is_what_the_caller_sees,
    })
}

/// Whether the entry was linked.
fn insert(state: &StateRef<'_>, l1: &SharedL1, entry: &NewEntry<'_>, token: FillToken) -> bool {
    let counters = &state.class.counters;
    match l1.reserve(entry) {
        Ok(block) => {
            let linked = if crate::fault::leaves_out!(GenerationCheck) {
                l1.link(block, l1.note(&entry.key), false);
                true
            } else {
                l1.link_if_unchanged(block, token)
            };
            counters.count(if linked {
                Counter::Fills
            } else {
                Counter::FillsRefused
            });
            linked
        }
        Err(Refused::TooLarge) => {
            counters.count(Counter::TooLarge);
            false
        }
        Err(Refused::Full | Refused::Gone) => {
            counters.count(Counter::FillsRefused);
            false
        }
    }
}

pub(super) fn from_l3<F: Form>(
    state: &StateRef<'_>,
    stored: Option<Stored>,
    form: &mut F,
) -> Result<Found<F::Output>> {
    let Some(stored) = stored else {
        return Ok(Found::Absent(0));
    };
    let version = Version {
        number: stored.version,
        expires_at: stored.expires_at,
        hash: match &stored.content {
            Content::Intact(document) => document.hash,
            Content::Absent | Content::Damaged(_) => 0,
        },
        storage: match &stored.content {
            Content::Intact(document) => document.storage,
            Content::Absent | Content::Damaged(_) => Storage::UNKNOWN,
        },
    };
    if version.is_expired() {
        return Ok(Found::Absent(version.number));
    }
    let value = match stored.content {
        Content::Absent => return Ok(Found::Absent(version.number)),
        Content::Intact(document) => form.make(&document.bytes)?,
        Content::Damaged(fault) => form.make_of_damaged(Error::Damaged {
            state: state.shown(),
            version: version.number,
            fault,
        })?,
    };
    Ok(Found::State(version, value))
}

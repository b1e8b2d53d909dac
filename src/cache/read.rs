//! Reading a state: the protocol, whatever form the answer takes.

use super::StateRef;
use super::behind;
use super::damage;
use super::fill::{Origin, Route, offer, route};
use super::found::{Form, Found, Reader, Taken, Version};
use super::tables::{from_l3, from_table, newest};
use super::validated;
use super::visibility::{UNPROVEN, is_visible};
use crate::counters::{Counter, Timer};
use crate::error::{Error, Result};
use crate::shared::{Key, SharedL1};
use crate::store::Storage;
use crate::sys;
use state_cache_l1::{EntryInfo, FillToken};

/// Reads a state of which this transaction has changed nothing, exactly as L3 has it under the active
/// snapshot. `own_rows` says that the transaction has rows of its own in the tables (flushed, or made by
/// hand): then L3 is asked.
///
/// # Errors
/// `XX001` if the version is damaged, with its number and what is wrong with it.
pub fn read<F: Form>(
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
        Route::Validated(l1, reason) => validated::read(state, l1, reason, form)?,
        Route::Recovery(l1) => validated::in_recovery(state, l1, form)?,
        Route::L1(l1) => {
            let key = state.l1_key();
            match l1.fill_token(&key) {
                None => validated::read(state, l1, Counter::BypassWriters, form)?,
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
                    L1Answer::Newer(info, value) => {
                        let reason = Counter::BypassSnapshot;
                        validated::of_entry(state, &info, value, reason, form)?
                    }
                    L1Answer::Unproven(info, value) => {
                        match validated::prove(state, l1, token, (&info, value))? {
                            Some(found) => (Counter::Validated, Counter::L1ReadTime, found),
                            None => missed(state, l1, &key, token, form)?,
                        }
                    }
                    L1Answer::Miss => missed(state, l1, &key, token, form)?,
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

enum L1Answer<T> {
    Found(Version, T),
    /// There is an entry that the snapshot does not see.
    Newer(EntryInfo, T),
    /// There is one of which nobody knows whether it is the newest version.
    Unproven(EntryInfo, T),
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
            if info.head_xid == UNPROVEN {
                return Ok(L1Answer::Unproven(info, value));
            }
            let snapshot = sys::active_snapshot();
            // SAFETY: the active snapshot is an MVCC snapshot.
            let visible = unsafe {
                is_visible(info.head_xid, snapshot)
                    && (info.doc_xid == info.head_xid || is_visible(info.doc_xid, snapshot))
            };
            if !visible {
                return Ok(L1Answer::Newer(info, value));
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

/// Answers where L1 has no entry.
fn missed<F: Form>(
    state: &StateRef<'_>,
    l1: &SharedL1,
    key: &Key<'_>,
    token: FillToken,
    form: &mut F,
) -> Result<(Counter, Counter, Found<F::Output>)> {
    let found = match sys::is_in_parallel_mode() {
        // Only a snapshot taken now may fill, and a parallel query takes none.
        true => from_table(state, form)?,
        false => fill(state, l1, key, token, form)?,
    };
    Ok((Counter::Misses, Counter::L3ReadTime, found))
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
    offer(
        state,
        l1,
        key,
        token,
        newest.stored.as_ref(),
        Origin::Primary,
    );
    if newest.is_what_the_caller_sees {
        from_l3(state, newest.stored, form)
    } else {
        from_table(state, form)
    }
}

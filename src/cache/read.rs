//! Reading a state: the protocol, whatever form the answer takes.

use super::StateRef;
use super::behind;
use super::damage;
use super::fill::{Route, offer, route};
use super::found::{Form, Found, Reader, Taken, Version};
use super::tables::{from_l3, from_table, newest};
use super::visibility::is_visible;
use crate::counters::{Counter, Timer};
use crate::error::{Error, Result};
use crate::shared::{Key, SharedL1};
use crate::store::Storage;
use crate::sys;
use state_cache_l1::FillToken;

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
        Route::L1(l1) => {
            let key = state.l1_key();
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

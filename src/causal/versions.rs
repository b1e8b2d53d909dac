//! Waiting for the version of a state.

use super::Patience;
use super::error::CausalError;
use crate::cache::StateRef;
use crate::cache::forms::Nothing;
use crate::cache::found::{Found, Version};
use crate::call::{self, sql_functions};
use crate::catalog;
use crate::error::{Error, Result};
use crate::snapshot::PushedSnapshot;
use crate::{derived, settings, sys, transaction};

/// The least version of each of some states that an answer must show; none asks for nothing.
#[derive(Debug, Clone, Copy)]
pub struct Least(Option<i64>);

impl Least {
    /// Of an argument `min_version`; `22023` for a negative one.
    pub fn of(min_version: Option<i64>) -> Result<Self> {
        match min_version {
            Some(least) => Ok(Self(Some(check(least, "min_version")?))),
            None => Ok(Self(None)),
        }
    }

    /// Whether it asks for nothing, so that classes without versions may be read.
    pub fn is_none(self) -> bool {
        self.0.is_none()
    }

    /// Reads under the caller's snapshot if that shows the version of all these states, else under one that does.
    ///
    /// # Errors
    /// As in the header of the room; what `read` gives.
    pub fn reading<T>(
        self,
        states: &[StateRef<'_>],
        read: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let Some(least) = self.0 else {
            return read();
        };
        let mut patience = Patience::of(settings::wait_timeout());
        match missing(states, least)? {
            None => read(),
            Some(missing) => {
                let _shows_it = wait(states, least, missing, &mut patience)?;
                read()
            }
        }
    }
}

/// `22023` for a version that no state can have.
fn check(version: i64, name: &str) -> Result<i64> {
    match version {
        0.. => Ok(version),
        _ => Err(Error::argument(format!(
            "{name} must not be negative: {version}"
        ))),
    }
}

/// The version that the active snapshot shows of a state, that of a deletion included; 0 for none.
fn shown(state: &StateRef<'_>) -> Result<i64> {
    Ok(match transaction::read(state, &mut Nothing)? {
        Found::Absent(last) => last,
        Found::State(Version { number, .. }, ()) => number,
    })
}

/// A state of which the active snapshot does not show the version, and the one that it shows.
struct Missing<'a> {
    state: &'a StateRef<'a>,
    found: i64,
}

/// The first such state.
fn missing<'a>(states: &'a [StateRef<'a>], least: i64) -> Result<Option<Missing<'a>>> {
    for state in states {
        let found = shown(state)?;
        if found < least {
            return Ok(Some(Missing { state, found }));
        }
    }
    Ok(None)
}

/// Waits until a new snapshot shows the version of all the states; that snapshot is active as long as the result
/// lives.
fn wait<'a>(
    states: &'a [StateRef<'a>],
    wanted: i64,
    mut missing_now: Missing<'a>,
    patience: &mut Patience,
) -> Result<PushedSnapshot> {
    if sys::isolation_uses_transaction_snapshot() {
        let Missing { state, found } = missing_now;
        return Err(CausalError::OldSnapshot {
            state: state.shown(),
            wanted,
            found,
        }
        .into());
    }
    if sys::is_in_parallel_mode() {
        let state = missing_now.state.shown();
        return Err(CausalError::Parallel { state, wanted }.into());
    }
    loop {
        // Asked before the look: a version that a promotion brought is seen by the look that follows it.
        let in_recovery = sys::recovery_in_progress();
        let snapshot = PushedSnapshot::latest();
        match missing(states, wanted)? {
            None => return Ok(snapshot),
            Some(missing) => missing_now = missing,
        }
        drop(snapshot);
        let Missing { state, found } = missing_now;
        if !in_recovery {
            return Err(CausalError::NotHere {
                state: state.shown(),
                wanted,
                found,
            }
            .into());
        }
        if !patience.on() {
            return Err(CausalError::Late {
                state: state.shown(),
                wanted,
                found,
                time: patience.time,
            }
            .into());
        }
    }
}

sql_functions! {
    /// `state_wait(key, version, timeout, class)`
    fn state_wait(call) {
        let key = call.required_text(0, "key")?;
        let version = call.bigint(1).ok_or_else(|| Error::null_argument("version"))?;
        let timeout = call.interval(2).ok_or_else(|| Error::null_argument("timeout"))?;
        let class = call.required_text(3, "class")?;
        let states = [StateRef::new(&catalog::current(call.function())?, class, key)?];
        let version = check(version, "version")?;
        let mut patience = Patience::new(&timeout)?;
        let [state] = &states;
        derived::check_has_versions(state)?;
        let found = match missing(&states, version)? {
            None => shown(state)?,
            Some(missing) => {
                let _shows_it = wait(&states, version, missing, &mut patience)?;
                shown(state)?
            }
        };
        Ok(call::bigint_datum(found))
    }
}

//! Which history of the server a cursor belongs to: the starts that `state_start` tells of.
//!
//! A cursor names the start under which it was taken and a place in the WAL that covers what it has seen. It belongs
//! to the history that this server goes on with if that start is known here, and the next one began no earlier in the
//! WAL. Each start notes itself in the database, so that standbys know it too: by the worker, which looks into every
//! database after a start, and by whoever takes a cursor before that. Where the note of the next start is missing,
//! nothing is known, and the cursor is refused; but where the history has gone on to another timeline, the last start
//! of the cursor's timeline has no next one. (So a copy of the data directory that was put back, of which a standby
//! was promoted before the worker had looked into the database, is not told from the primary that was copied.)

use crate::catalog::{self, Catalog, KnownStart};
use crate::error::{Error, Result};
use crate::identity::Impersonation;
use crate::shared::start;
use crate::snapshot::PushedSnapshot;
use crate::store;
use crate::sys;
use crate::worker::task::{Next, Round, Task};
use crate::worker::transaction;
use pgrx::pg_sys;
use state_cache_formats::Cursor;

/// Starts that are remembered; a cursor from before is refused.
const REMEMBERED: u64 = 1000;

/// This start, if it can be told from the others.
fn this_start() -> Option<KnownStart> {
    start::start().map(|start| KnownStart {
        name: start.name,
        timeline: sys::timeline(),
        number: start.number,
        position: start.position,
    })
}

/// The name of the start under which cursors are taken here: on a standby the last one of its primary that it knows,
/// 0 if it knows none.
pub fn name(catalog: &Catalog) -> u64 {
    if !sys::recovery_in_progress() {
        return start::name();
    }
    let last = |start: &KnownStart| (start.timeline, start.position);
    catalog
        .starts()
        .into_iter()
        .max_by_key(last)
        .map_or(0, |start| start.name)
}

/// Why a cursor is of no history that this server goes on with; `None` if it is of this one. It names the timeline
/// that is current here, or one that the history left at or behind the cursor's place.
pub fn strangeness(catalog: &Catalog, cursor: &Cursor) -> Option<&'static str> {
    const SET_BACK: &str = "The server was set back to an earlier time since.";
    let in_recovery = sys::recovery_in_progress();
    if cursor.home.start == name(catalog) {
        // A standby may be behind the server where the cursor was taken, and tells again what it tells.
        let is_ahead = !in_recovery && cursor.position > sys::wal_position();
        return is_ahead.then_some(SET_BACK);
    }
    let this = match (in_recovery, this_start()) {
        (false, None) if cursor.home.timeline == sys::timeline() => {
            return Some(
                "The server was restarted since, and does not know what became of earlier starts.",
            );
        }
        (_, this) => this,
    };
    let known = catalog.starts();
    let Some(taken) = known.iter().find(|one| one.name == cursor.home.start) else {
        return Some(if in_recovery {
            "The server was set back to an earlier time since, or, being a standby, lags behind the cursor."
        } else {
            SET_BACK
        });
    };
    let follows = |one: &&KnownStart| {
        one.timeline == cursor.home.timeline && one.number == taken.number.wrapping_add(1)
    };
    let next = known.iter().chain(&this).filter(follows);
    match next.map(|one| one.position).min() {
        Some(position) if cursor.position <= position => None,
        Some(_) => Some(SET_BACK),
        // The timeline ended with the start under which the cursor was taken.
        None if cursor.home.timeline != sys::timeline() => None,
        None => {
            Some("The server was restarted since, and this database does not know of every start.")
        }
    }
}

/// Notes this start in the database unless it is noted; a transaction that must not write leaves that to others.
pub fn note(catalog: &Catalog) -> Result<()> {
    // SAFETY: a plain global of this process.
    if unsafe { pg_sys::XactReadOnly } {
        return Ok(());
    }
    let Some(this) = this_start() else {
        return Ok(());
    };
    if catalog.starts().iter().any(|one| one.name == this.name) {
        return Ok(());
    }
    {
        let _snapshot = PushedSnapshot::transaction();
        let _owner = Impersonation::owner_of(catalog.start);
        store::insert_start(catalog, &this)?;
    }
    // A crash must not take the note and leave the cursor.
    // SAFETY: sets a flag of this transaction.
    unsafe { pg_sys::ForceSyncCommit() };
    Ok(())
}

/// The task: notes the start, and forgets those of long ago.
#[derive(Default)]
pub struct Starts {
    noted: bool,
}

impl Task for Starts {
    fn name(&self) -> &'static str {
        "noting the start of the server"
    }

    fn run(&mut self, round: Round) -> Result<Next> {
        if self.noted && !round.recheck {
            return Ok(Next::Woken);
        }
        let catalog = transaction(catalog::installed)?.ok_or(Error::NotInstalled)?;
        transaction(|| {
            note(&catalog)?;
            if let Some(this) = this_start() {
                let _owner = Impersonation::owner_of(catalog.start);
                store::set_constraints_immediate();
                store::delete_starts(&catalog, this.number.saturating_sub(REMEMBERED))?;
            }
            Ok(())
        })?;
        self.noted = true;
        Ok(Next::Woken)
    }

    fn holds_work(&self) -> bool {
        false
    }
}

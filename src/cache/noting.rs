//! Noting which states are read: what a document of a derived class was computed from.
//!
//! A state is noted before it is read, with the generations that its stripe and its domain have then. As long as both
//! are the same and no commit is in progress, the newest version of the state is the same. That the read has found
//! that one, and not an older one that its snapshot sees, must be made sure of: the snapshot may be older than the
//! note. It has if L1 holds what was found while the generations still are those noted, or if no transaction has
//! ended since the snapshot was taken. Else nothing is noted.

use super::StateRef;
use super::found::{Found, Version};
use super::visibility::{Moment, UNPROVEN, is_of_recovery};
use crate::error::Result;
use crate::settings::{self, OnCorruption};
use crate::snapshot::PushedSnapshot;
use crate::{shared, sys};
use state_cache_l1::{Lookup, Want};
use state_cache_memory::Grow;
use std::cell::RefCell;

/// States that one document may be computed from and be kept.
const MOST: usize = 64;
/// Bytes of what is noted of one state: the number of its stripe, the generation of that, and of the domain.
const ONE: usize = 3 * size_of::<u64>();

/// What was read.
#[derive(Default)]
pub struct Reads {
    noted: Vec<u8>,
    /// When the first of the states expires.
    expires_at: Option<i64>,
    /// Something was read of which nothing can be noted.
    spoiled: bool,
}

thread_local! {
    /// Those of the computations that are running, outermost first.
    static RUNNING: RefCell<Vec<Reads>> = const { RefCell::new(Vec::new()) };
}

/// Notes what is read for as long as the value lives.
pub struct Noting(usize);

impl Noting {
    /// Begins.
    pub fn begin() -> Self {
        RUNNING.with_borrow_mut(|running| {
            running.push(Reads::default());
            Self(running.len() - 1)
        })
    }

    /// What was read.
    pub fn end(self) -> Reads {
        RUNNING.with_borrow_mut(|running| {
            running.truncate(self.0 + 1);
            running.pop().unwrap_or_default()
        })
    }
}

impl Drop for Noting {
    fn drop(&mut self) {
        // With those within, which an error may have left.
        RUNNING.with_borrow_mut(|running| running.truncate(self.0));
    }
}

/// A state is about to be read.
///
/// # Errors
/// `53200`.
pub fn before_read(state: &StateRef<'_>) -> Result<()> {
    RUNNING.with_borrow_mut(|running| match running.last_mut() {
        None => Ok(()),
        Some(reads) => reads.note(state),
    })
}

/// It was read under the active snapshot.
pub fn after_read<T>(state: &StateRef<'_>, found: &Found<T>) {
    if RUNNING.with_borrow(Vec::is_empty) {
        return;
    }
    let is_newest = is_in_l1(state, found) || is_active_snapshot_current();
    RUNNING.with_borrow_mut(|running| {
        let Some(reads) = running.last_mut() else {
            return;
        };
        reads.spoiled |= !is_newest;
        if let Found::State(Version { expires_at, .. }, _) = found {
            let first = reads
                .expires_at
                .map_or(*expires_at, |first| first.min(*expires_at));
            reads.expires_at = Some(first);
        }
    });
}

/// Whether L1 holds the version that was found, and nothing has been published since the state was noted.
fn is_in_l1<T>(state: &StateRef<'_>, found: &Found<T>) -> bool {
    let (Some(l1), Found::State(version, _)) = (shared::l1(), found) else {
        return false;
    };
    let key = state.l1_key();
    let Lookup::Hit(info) = l1.read(&key, Want::Info, &mut []) else {
        return false;
    };
    let is_same = info.version == version.number && info.hash == version.hash && info.hash != 0;
    is_same
        && info.head_xid != UNPROVEN
        && RUNNING.with_borrow(|running| {
            let last = running.last().map_or(&[][..], |reads| &reads.noted);
            are_unchanged(key.db, &last[last.len().saturating_sub(ONE)..])
        })
}

/// Whether no transaction has ended since the active snapshot was taken.
fn is_active_snapshot_current() -> bool {
    if sys::is_in_parallel_mode() || sys::recovery_in_progress() {
        return false;
    }
    let active = sys::active_snapshot();
    // SAFETY: it is active.
    if unsafe { is_of_recovery(active) } {
        return false;
    }
    let _fresh = PushedSnapshot::latest();
    // SAFETY: both are on the stack of active snapshots, and neither was taken in recovery.
    unsafe { Moment::of(active) == Moment::of(sys::active_snapshot()) }
}

/// Something is read that cannot be noted.
pub fn spoil() {
    RUNNING.with_borrow_mut(|running| {
        if let Some(reads) = running.last_mut() {
            reads.spoiled = true;
        }
    });
}

impl Reads {
    fn note(&mut self, state: &StateRef<'_>) -> Result<()> {
        let key = state.l1_key();
        let noted = shared::l1().and_then(|l1| {
            let token = l1.fill_token(&key)?;
            let stripe = l1.stripe_number(key.id) as u64;
            Some([stripe, token.stripe_generation, token.domain_generation])
        });
        let is_full = self.noted.len() >= MOST * ONE;
        // Of a damaged state such a session reads an earlier version.
        let recovers = settings::on_corruption() == OnCorruption::Recover;
        match noted {
            Some(parts) if !is_full && !recovers => {
                self.noted.try_room(ONE)?;
                self.noted
                    .extend(parts.map(u64::to_ne_bytes).as_flattened());
            }
            _ => self.spoiled = true,
        }
        Ok(())
    }

    /// What was noted, and until when it may serve; `None` if not everything was.
    pub fn noted(&self) -> Option<(&[u8], i64)> {
        (!self.spoiled).then(|| (&*self.noted, self.expires_at.unwrap_or(i64::MAX)))
    }
}

/// Whether everything that was noted is as it was, and nothing of it is about to change.
pub fn are_unchanged(database: u32, noted: &[u8]) -> bool {
    let Some(l1) = shared::l1() else {
        return false;
    };
    let domain = l1.domain(database).quiet_generation();
    noted.chunks(ONE).all(|one| {
        let number = |n: usize| {
            Some(u64::from_ne_bytes(
                one.get(8 * n..8 * n + 8)?.try_into().ok()?,
            ))
        };
        match (number(0), number(1), number(2)) {
            (Some(stripe), generation @ Some(_), of_domain @ Some(_)) => {
                l1.stripe_at(stripe as usize).quiet_generation() == generation
                    && domain == of_domain
            }
            _ => false,
        }
    })
}

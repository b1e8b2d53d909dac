//! Noting which states are read: what a document of a derived class was computed from.
//!
//! A state is noted before it is read, with the generations that its stripe and its domain have then. As long as both
//! are the same and no commit is in progress, the newest version of the state is the same. That the read has found
//! that one, and not an older one that its snapshot sees, must be made sure of: the snapshot may be older than the
//! note. It has if L1 holds what was found while the generations still are those noted, or if no transaction has
//! ended since the snapshot was taken. Else nothing is noted.
//!
//! A document of a derived class that is read within is begun ([`begin_document`]) and ended ([`end_document`]) by
//! who reads it: in between, and for good if it is not ended, nothing can be noted of the outer one. It ends with
//! what it depends on itself, which the outer one depends on then: its stripe, its class, and what was noted of it.
//! Why that is right says the header of `derived`.
//!
//! What was noted of a document is written as: how many states and documents; of each the number of its stripe and
//! the generations of that and of its domain; of each class of documents its generation, the length of its name, and
//! its name. Nothing at all where nothing was read.

use super::StateRef;
use super::found::{Found, Version};
use super::visibility::{Moment, UNPROVEN, is_of_recovery};
use crate::catalog::Catalog;
use crate::error::Result;
use crate::settings::{self, OnCorruption};
use crate::shared::{self, SharedL1};
use crate::snapshot::PushedSnapshot;
use crate::sys;
use state_cache_l1::{Lookup, Want};
use state_cache_memory::{Grow, boxed};
use std::cell::RefCell;

/// States and documents that one document may be computed from and be kept.
const MOST: usize = 64;
/// Bytes of what is noted of one state: the number of its stripe, the generation of that, and of the domain.
const ONE: usize = 3 * size_of::<u64>();

/// What was read.
#[derive(Default)]
pub struct Reads {
    noted: Vec<u8>,
    /// Classes of the documents among them, with the generations of the classes.
    classes: Vec<(Box<[u8]>, u64)>,
    /// Documents that were begun and have not ended.
    begun: u32,
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
            are_triples_unchanged(l1, key.db, &last[last.len().saturating_sub(ONE)..])
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

/// A document of a derived class is about to be read.
pub fn begin_document() {
    RUNNING.with_borrow_mut(|running| {
        if let Some(reads) = running.last_mut() {
            reads.begun += 1;
        }
    });
}

/// What a document of a derived class depends on, which was read within another one.
pub struct Within<'a> {
    /// Its class, and the generation of that.
    pub class: (&'a [u8], u64),
    /// Number and generation of its stripe.
    pub stripe: (u64, u64),
    /// Generation of its domain.
    pub domain: u64,
    /// What was noted of it.
    pub noted: &'a [u8],
    /// When the first of the states that it was computed from expires.
    pub expires_at: i64,
}

/// It was read, and is the newest one as of these generations.
///
/// # Errors
/// `53200`.
pub fn end_document(within: &Within<'_>) -> Result<()> {
    RUNNING.with_borrow_mut(|running| match running.last_mut() {
        None => Ok(()),
        Some(reads) => reads.take_in(within),
    })
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

    fn take_in(&mut self, within: &Within<'_>) -> Result<()> {
        self.begun = self.begun.saturating_sub(1);
        if crate::fault::leaves_out!(DerivedWithin) {
            return Ok(());
        }
        let Some(inner) = Noted::parse(within.noted) else {
            self.spoiled = true;
            return Ok(());
        };
        let more = inner.triples.len() + ONE;
        if self.noted.len() + more > MOST * ONE {
            self.spoiled = true;
            return Ok(());
        }
        self.noted.try_room(more)?;
        let (stripe, generation) = within.stripe;
        let own = [stripe, generation, within.domain].map(u64::to_ne_bytes);
        self.noted.extend(own.as_flattened());
        self.noted.extend(inner.triples);
        for (class, generation) in inner.classes().chain([within.class]) {
            let is_known = |known: &&(Box<[u8]>, u64)| *known.0 == *class;
            match self.classes.iter().find(is_known) {
                None => self.classes.try_push((boxed(class)?, generation))?,
                Some((_, known)) if *known == generation => {}
                // It has changed between two reads.
                Some(_) => self.spoiled = true,
            }
        }
        let first = self.expires_at.unwrap_or(i64::MAX).min(within.expires_at);
        self.expires_at = Some(first);
        Ok(())
    }

    /// What was noted, and until when it may serve; `None` if not everything was.
    ///
    /// # Errors
    /// `53200`.
    pub fn noted(&self) -> Result<Option<(Vec<u8>, i64)>> {
        if self.spoiled || self.begun > 0 {
            return Ok(None);
        }
        let expires_at = self.expires_at.unwrap_or(i64::MAX);
        let mut written = Vec::new();
        if self.noted.is_empty() {
            return Ok(Some((written, expires_at)));
        }
        let names = self
            .classes
            .iter()
            .map(|(class, _)| NUMBER + 1 + class.len());
        written.try_room(NUMBER + self.noted.len() + names.sum::<usize>())?;
        written.extend(((self.noted.len() / ONE) as u64).to_ne_bytes());
        written.extend(&self.noted);
        for (class, generation) in &self.classes {
            written.extend(generation.to_ne_bytes());
            written.push(class.len() as u8);
            written.extend(class);
        }
        Ok(Some((written, expires_at)))
    }
}

/// Bytes of a number.
const NUMBER: usize = size_of::<u64>();

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(
        bytes.get(at..at + NUMBER)?.try_into().ok()?,
    ))
}

/// What was noted of a document.
struct Noted<'a> {
    triples: &'a [u8],
    names: &'a [u8],
}

impl<'a> Noted<'a> {
    /// `None` for what was never noted.
    fn parse(noted: &'a [u8]) -> Option<Self> {
        if noted.is_empty() {
            let (triples, names) = (noted, noted);
            return Some(Self { triples, names });
        }
        let count = usize::try_from(number(noted, 0)?).ok()?;
        let (triples, names) = noted[NUMBER..].split_at_checked(count.checked_mul(ONE)?)?;
        Some(Self { triples, names })
    }

    fn classes(&self) -> impl Iterator<Item = (&'a [u8], u64)> + use<'a> {
        let mut rest = self.names;
        std::iter::from_fn(move || {
            let generation = number(rest, 0)?;
            let length = usize::from(*rest.get(NUMBER)?);
            let (name, others) = rest[NUMBER + 1..].split_at_checked(length)?;
            rest = others;
            Some((name, generation))
        })
    }
}

/// The classes of the documents that were noted.
pub fn classes(noted: &[u8]) -> impl Iterator<Item = &[u8]> {
    let known = Noted::parse(noted);
    known
        .into_iter()
        .flat_map(|known| known.classes())
        .map(|(class, _)| class)
}

/// Whether everything that was noted is as it was, and nothing of it is about to change.
pub fn are_unchanged(catalog: &Catalog, noted: &[u8]) -> bool {
    let Some(l1) = shared::l1() else {
        return false;
    };
    let Some(noted) = Noted::parse(noted) else {
        return false;
    };
    are_triples_unchanged(l1, catalog.database, noted.triples)
        && noted.classes().all(|(class, generation)| {
            let tag = shared::class_tag(catalog.database, catalog.incarnation, class);
            tag.and_then(|tag| tag.mark.quiet_generation()) == Some(generation)
        })
}

fn are_triples_unchanged(l1: &SharedL1, database: u32, triples: &[u8]) -> bool {
    let domain = l1.domain(database).quiet_generation();
    triples.chunks(ONE).all(|one| {
        match (number(one, 0), number(one, NUMBER), number(one, 2 * NUMBER)) {
            (Some(stripe), generation @ Some(_), of_domain @ Some(_)) => {
                l1.stripe_at(stripe as usize).quiet_generation() == generation
                    && domain == of_domain
            }
            _ => false,
        }
    })
}

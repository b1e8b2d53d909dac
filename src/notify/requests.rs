//! Invalidations asked for by `state_invalidate`: told at COMMIT, unless what asked for them is rolled back.

use super::{Change, News, Touched};
use crate::callback::Kept;
use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::sys;
use state_cache_memory::{OutOfMemory, boxed, collect, room_in_set, try_collect};
use state_cache_nested::{Layer, Nested};
use state_cache_ring::Name;
use std::collections::HashSet;
use std::rc::Rc;

/// More requests than this in one transaction, and everything is to be dropped.
const MAX_REQUESTS: usize = 1000;

/// Classes (empty for all) and patterns.
#[derive(Default)]
struct Patterns(HashSet<Name>);

impl Layer for Patterns {
    fn make_room_for(&mut self, child: &Self) -> std::result::Result<(), OutOfMemory> {
        room_in_set(&mut self.0, child.0.len())
    }

    fn take_in(&mut self, child: Self) {
        self.0.extend(child.0);
    }
}

/// What this transaction has asked for; what a subtransaction rolls back was not asked for.
#[derive(Default)]
struct Requests {
    catalog: Option<Rc<Catalog>>,
    patterns: Nested<Patterns>,
    /// More than [`MAX_REQUESTS`] were asked for, whatever is rolled back from then on.
    everything: bool,
}

impl Requests {
    fn all(&self) -> impl Iterator<Item = &Name> {
        self.patterns.layers().flat_map(|(_, patterns)| &patterns.0)
    }
}

thread_local! {
    static REQUESTS: Kept<Requests> = Kept::default();
}

/// The requests, for a moment.
fn with<T>(f: impl FnOnce(&mut Requests) -> T) -> T {
    REQUESTS.with(|kept| kept.with(f))
}

/// Asks for the message that entries matching a pattern are to be dropped; `None` means all classes. On a
/// standby nobody can listen.
pub fn request_invalidation(
    catalog: &Rc<Catalog>,
    class: Option<&[u8]>,
    pattern: &[u8],
) -> Result<()> {
    if sys::recovery_in_progress() {
        return Ok(());
    }
    with(|requests| {
        requests.catalog = Some(Rc::clone(catalog));
        let name = (class.unwrap_or_default().into(), boxed(pattern)?);
        let is_known = |(_, known): (_, &Patterns)| known.0.contains(&name);
        if requests.everything || requests.patterns.layers().any(is_known) {
            return Ok(());
        }
        let here = requests.patterns.at(sys::nest_level(), Patterns::default)?;
        room_in_set(&mut here.0, 1)?;
        here.0.insert(name);
        let asked = requests.patterns.layers().map(|(_, known)| known.0.len());
        if asked.sum::<usize>() > MAX_REQUESTS {
            requests.everything = true;
            requests.patterns.clear();
        }
        Ok(())
    })
}

/// Whether anything was asked for.
pub fn has_requests() -> bool {
    with(|requests| requests.everything || requests.all().next().is_some())
}

/// What was asked for, and of which installation.
pub fn requested() -> Result<Option<(Rc<Catalog>, Vec<News>)>> {
    with(|requests| {
        let Some(catalog) = requests.catalog.clone() else {
            return Ok(None);
        };
        if requests.everything {
            return Ok(Some((catalog, vec![News::everything()])));
        }
        let mut patterns = collect(requests.all())?;
        patterns.sort_unstable();
        let news = try_collect(patterns.into_iter().map(|(class, pattern)| {
            Ok::<_, Error>(News {
                class: class.clone(),
                key: boxed(pattern)?,
                change: Change::Matching,
                behind: false,
                touched: Touched::default(),
            })
        }))?;
        Ok(Some((catalog, news)))
    })
}

/// The running subtransaction is about to commit: makes room for what it hands to its parent.
pub fn subtransaction_commits() -> Result<()> {
    Ok(with(|requests| {
        requests.patterns.prepare_commit(sys::nest_level())
    })?)
}

/// The running subtransaction has committed: what it has asked for, its parent has. Allocates nothing.
pub fn subtransaction_committed() {
    REQUESTS.with(|kept| kept.reach(|requests| requests.patterns.commit(sys::nest_level())));
}

/// The running subtransaction has aborted: what it has asked for is forgotten. Allocates nothing.
pub fn subtransaction_aborted() {
    REQUESTS.with(|kept| kept.reach(|requests| requests.patterns.abort(sys::nest_level(), drop)));
}

/// Forgets everything. Frees memory and allocates none.
pub fn clear() {
    REQUESTS.with(|kept| {
        kept.reach(|requests| {
            if requests.catalog.is_some() {
                *requests = Requests::default();
            }
        })
    });
}

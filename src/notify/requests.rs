//! Invalidations asked for by `state_invalidate`: told at COMMIT, unless what asked for them is rolled back.

use super::{Change, News, Touched};
use crate::callback::Kept;
use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::sys;
use pgrx::pg_sys;
use state_cache_memory::{boxed, try_collect};
use state_cache_ring::Name;
use std::collections::BTreeMap;
use std::rc::Rc;

/// More requests than this in one transaction, and everything is to be dropped.
const MAX_REQUESTS: usize = 1000;

/// Nesting level of the top transaction.
const TOP: i32 = 1;

/// What this transaction has asked for. Each with the nesting level of the outermost subtransaction that did,
/// since what that rolls back was not asked for.
#[derive(Default)]
struct Requests {
    catalog: Option<Rc<Catalog>>,
    /// Class (empty for all) and pattern.
    patterns: BTreeMap<Name, i32>,
    /// More than [`MAX_REQUESTS`].
    everything: bool,
}

thread_local! {
    static REQUESTS: Kept<Requests> = Kept::default();
}

/// The requests, for a moment.
fn with<T>(f: impl FnOnce(&mut Requests) -> T) -> T {
    REQUESTS.with(|kept| kept.with(f))
}

fn nest_level() -> i32 {
    // SAFETY: reads this backend's transaction state.
    unsafe { pg_sys::GetCurrentTransactionNestLevel() }
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
        let level = nest_level();
        requests
            .patterns
            .entry(name)
            .and_modify(|known| *known = level.min(*known))
            .or_insert(level);
        if requests.patterns.len() > MAX_REQUESTS {
            // Whatever is rolled back from here on: the list is gone.
            requests.everything = true;
            requests.patterns.clear();
        }
        Ok(())
    })
}

/// Whether anything was asked for.
pub fn has_requests() -> bool {
    with(|requests| requests.everything || !requests.patterns.is_empty())
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
        let news = try_collect(requests.patterns.keys().map(|(class, pattern)| {
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

/// The running subtransaction commits: what it has asked for, its parent has.
pub fn subtransaction_committed() {
    let parent = nest_level().saturating_sub(1).max(TOP);
    REQUESTS.with(|kept| {
        kept.reach(|requests| {
            for known in requests.patterns.values_mut() {
                *known = parent.min(*known);
            }
        })
    });
}

/// The running subtransaction aborts: what it has asked for is forgotten.
pub fn subtransaction_aborted() {
    let level = nest_level();
    REQUESTS.with(|kept| {
        kept.reach(|requests| {
            requests.patterns.retain(|_, known| *known < level);
        })
    });
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

//! Summaries in L1. The header of the room says why what L1 answers is right.

use super::SUMMARIES;
use super::summary::{Computed, compute};
use crate::cache::computed::{is_seen_by_caller, under_fresh_snapshot};
use crate::cache::forms::Document;
use crate::cache::found::{Form, Taken};
use crate::cache::visibility::{Moment, has_moment, own_full_xid};
use crate::call::{self, sql_functions};
use crate::catalog::{self, Catalog};
use crate::error::Result;
use crate::shared::{self, Key, SharedL1};
use crate::{settings, sys, transaction};
use pgrx::pg_sys;
use state_cache_l1::{ClassId, FillToken, NewEntry};
use std::ffi::CStr;

/// What an entry says in the place of the version.
const PRESENT: i64 = 1;

/// The tables that a summary is computed from.
const TABLES: [&CStr; 7] = [
    c"state_budget",
    c"state_budget_agent",
    c"state_budget_price",
    c"state_budget_account",
    c"state_budget_hold",
    c"state_budget_cost",
    c"state_budget_reached",
];

/// Generations of quiet marks.
struct Quiet {
    token: FillToken,
    class: u64,
}

impl Quiet {
    /// Those of now; `None` while a mark is raised.
    fn now(catalog: &Catalog, l1: &SharedL1, key: &Key<'_>) -> Option<Self> {
        let class = shared::class_tag(catalog.database, catalog.incarnation, SUMMARIES)?;
        Some(Self {
            token: l1.fill_token(key)?,
            class: class.mark.quiet_generation()?,
        })
    }
}

/// Whether the current role may read all that a summary shows, and no row is hidden from it.
fn may_read(catalog: &Catalog) -> bool {
    let user = sys::current_user();
    TABLES.iter().all(|name| {
        // SAFETY: look-ups in the system caches; the name is NUL-terminated, and nothing is raised for a table that
        // is gone.
        unsafe {
            let table = pg_sys::get_relname_relid(name.as_ptr(), catalog.namespace());
            let mut missing = false;
            let wanted = pg_sys::AclMode::from(pg_sys::ACL_SELECT);
            let answer = pg_sys::pg_class_aclcheck_ext(table, user, wanted, &mut missing);
            !missing
                && answer == pg_sys::AclResult::ACLCHECK_OK
                && pg_sys::check_enable_rls(table, pg_sys::InvalidOid, true)
                    != pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32
        }
    })
}

/// Whether L1 is not asked: the tables answer then.
fn bypasses(catalog: &Catalog) -> bool {
    !settings::enabled()
        || sys::recovery_in_progress()
        || sys::isolation_is_serializable()
        || sys::is_in_parallel_mode()
        || !has_moment(sys::active_snapshot())
        || transaction::has_touched()
        || !may_read(catalog)
}

/// The summary of a budget under the active snapshot, by the clock.
///
/// # Errors
/// `42704` if there is no such budget, and those of the tables.
pub fn summary(catalog: &Catalog, name: &[u8]) -> Result<Vec<u8>> {
    let Some(l1) = shared::l1().filter(|_| !bypasses(catalog)) else {
        return compute(catalog, name, sys::now()).map(|it| it.document);
    };
    let key = shared::derived_key(catalog.database, catalog.incarnation, SUMMARIES, name);
    let Some(quiet) = Quiet::now(catalog, l1, &key) else {
        return compute(catalog, name, sys::now()).map(|it| it.document);
    };
    match look(l1, &key, &quiet)? {
        Some(document) => Ok(document),
        None => fill(catalog, l1, &key, &quiet, name),
    }
}

/// What L1 has, if it is what the tables would give.
fn look(l1: &SharedL1, key: &Key<'_>, quiet: &Quiet) -> Result<Option<Vec<u8>>> {
    let (info, document) = match Document.take(l1, key) {
        Taken::Entry(info, document) => (info, document?),
        Taken::Failed(error) => return Err(error),
        Taken::Damaged => {
            l1.remove_unsound(key);
            return Ok(None);
        }
        Taken::Miss => return Ok(None),
    };
    let now = sys::now();
    // A clock that was set back shows nothing that was computed after it.
    let is_now = info.loaded_at <= now && now < info.expires_at;
    // SAFETY: L1 is asked only where the active snapshot has a moment, and not in recovery (`bypasses`).
    let is_seen = unsafe { is_seen_by_caller(&info) };
    let is_right = info.stored == quiet.class && is_now && is_seen;
    Ok(is_right.then_some(document))
}

/// Computes the document under a snapshot taken now, leaves it in L1, and answers what the caller's own gives.
fn fill(
    catalog: &Catalog,
    l1: &SharedL1,
    key: &Key<'_>,
    quiet: &Quiet,
    name: &[u8],
) -> Result<Vec<u8>> {
    let compute_and_offer = |moment: Moment, is_callers: bool| {
        let loaded_at = sys::now();
        let computed = match compute(catalog, name, loaded_at) {
            // An old snapshot may see a budget that is gone, and the fresh one no budget that is there.
            Err(_) if !is_callers => return Ok(None),
            computed => computed?,
        };
        crate::fault::stop_at!(BeforeFill);
        if own_full_xid() == 0 {
            offer(l1, key, quiet, moment, loaded_at, &computed);
        }
        Ok(Some(computed))
    };
    // SAFETY: L1 is filled only where the active snapshot has a moment, and not in recovery (`bypasses`).
    let (computed, is_callers) = unsafe { under_fresh_snapshot(compute_and_offer)? };
    match computed.filter(|_| is_callers) {
        Some(computed) => Ok(computed.document),
        None => compute(catalog, name, sys::now()).map(|it| it.document),
    }
}

/// Leaves a document in L1 if no mark has moved since the generations were read.
fn offer(
    l1: &SharedL1,
    key: &Key<'_>,
    quiet: &Quiet,
    moment: Moment,
    loaded_at: i64,
    computed: &Computed,
) {
    let entry = NewEntry {
        key: *key,
        class: ClassId::OTHER,
        max_entries: None,
        version: PRESENT,
        head_xid: moment.ended,
        doc_xid: moment.running,
        hash: state_cache_document::hash(&computed.document),
        expires_at: computed.until,
        loaded_at,
        dirty: None,
        stored: quiet.class,
        value: &computed.document,
    };
    if let Ok(block) = l1.reserve(&entry) {
        l1.link_if_unchanged(block, quiet.token);
    }
}

sql_functions! {
    /// `state_budget_summary(budget)`
    fn state_budget_summary(call) {
        let name = call.required_text(0, "budget")?;
        let catalog = catalog::current(call.function())?;
        Ok(call::varlena_datum(&summary(&catalog, name)?))
    }
}

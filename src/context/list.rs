//! Which runs there are, and which of them waits longest for a runner.
//!
//! # Contract
//!
//! Both look for runs in an index of `state_claim` (`store::runs` says who keeps its rows right), as the owner of the
//! table, and show or hand out only what the caller sees: each run is looked up as the caller, in `state_head` for
//! the list, as any read of a state for the queue.
//!
//! **The list** is what the caller's snapshot sees, with all that the transaction has written. What the transaction
//! has staged and not written yet counts too: those runs are left out of what the index gives, and their documents
//! are read as `state_get` reads them and put in their place. A run that is staged and has no row yet comes first.
//! The order is that in which runs were first written, newest first, names deciding between equals; it never changes
//! for a run, so pages of it neither skip nor repeat one, whatever is written meanwhile.
//!
//! **The queue** orders the running runs by when anybody could claim them: since they were made, released, or since
//! their lease was over. Whoever claims goes through the runs that wait, without a lock; for each one that the caller
//! sees, the claim and the place are locked, if nobody holds them, in the order of all locks; then it is looked at
//! again whether the run still waits and runs. Nothing waits for anybody: a run whose claim or place is locked is
//! passed over, and so is one that cannot be claimed whatever the reason. Between the look and the lock others may
//! claim, end or delete the run; the locked row says so. Whoever ends or deletes a run by a function holds the claim
//! first, so a run that is taken is one that runs. The claim is in force for others at COMMIT; the crash of a claimer
//! before that leaves the run waiting at its old place, and one after it leaves a lease that ends by itself.

use super::claim::{lease, owner};
use super::error::ContextError;
use super::hierarchy::lock_place;
use super::run::RUN;
use super::variables::label;
use crate::cache::StateRef;
use crate::cache::forms::Document;
use crate::call::{self, Call, sql_functions};
use crate::catalog::{self, Catalog};
use crate::error::{Error, Result, text};
use crate::identity::Impersonation;
use crate::snapshot::PushedSnapshot;
use crate::store::{self, Filter, ListPlace, ListedRun, PlaceLock, Waiting};
use crate::sys;
use crate::transaction;
use pgrx::pg_sys;
use state_cache_context::{Label, Run, Status, listed};
use state_cache_memory::Grow;
use std::rc::Rc;

/// The most runs of a page.
const MOST: i32 = 10_000;

/// A run as a list shows it.
struct Shown {
    run: ListedRun,
    version: i64,
    /// When it was written; `None` for what is staged.
    updated_at: Option<i64>,
}

impl Shown {
    /// Whether the claim is in force.
    fn is_claimed(&self) -> bool {
        let is_owned = self.run.owner.is_some() && self.run.listed.status == Status::Running;
        is_owned && self.run.expires_at > sys::statement_timestamp()
    }

    /// Whether a list shows it. The index says so of what is written.
    fn fits(&self, filter: &Filter<'_>) -> bool {
        let same = |wanted: Option<&[u8]>, found: Option<&[u8]>| {
            wanted.is_none_or(|wanted| found == Some(wanted))
        };
        let listed = &self.run.listed;
        filter.status.is_none_or(|status| status == listed.status)
            && same(filter.swarm, listed.swarm.as_deref())
            && same(filter.parent, listed.parent.as_deref())
            && same(filter.owner, self.run.owner.as_deref())
            && filter
                .claimed
                .is_none_or(|claimed| claimed == self.is_claimed())
    }
}

/// A run that this transaction has staged, if the caller sees it.
fn staged(catalog: &Rc<Catalog>, key: &[u8]) -> Result<Option<Shown>> {
    let state = StateRef::new(catalog, RUN, key)?;
    let Some((version, document)) = transaction::read(&state, &mut Document)?.state() else {
        return Ok(None);
    };
    let Some(now) = listed(&document, key)? else {
        return Ok(None);
    };
    let row = store::listed_run(catalog, key)?;
    let run = match row {
        Some(row) => ListedRun { listed: now, ..row },
        None => ListedRun {
            place: ListPlace {
                created_at: i64::MAX,
                run: key.into(),
            },
            listed: now,
            owner: None,
            expires_at: 0,
        },
    };
    Ok(Some(Shown {
        run,
        version: version.number,
        updated_at: None,
    }))
}

/// Where a page begins: behind this run, or before all.
fn place_after(
    catalog: &Catalog,
    after: Option<&[u8]>,
    staged: &[Shown],
) -> Result<Option<ListPlace>> {
    let Some(after) = after else {
        return Ok(None);
    };
    if let Some(row) = store::listed_run(catalog, after)? {
        return Ok(Some(row.place));
    }
    let own = staged.iter().find(|shown| *shown.run.place.run == *after);
    match own {
        Some(shown) => Ok(Some(shown.run.place.clone())),
        None => Err(ContextError::NoPage { run: text(after) }.into()),
    }
}

/// A page of a list.
fn page(
    catalog: &Rc<Catalog>,
    filter: &Filter<'_>,
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<Shown>> {
    let keys = transaction::staged_keys(RUN)?;
    let mut own = Vec::new();
    for key in &keys {
        if let Some(shown) = staged(catalog, key)? {
            own.try_push(shown)?;
        }
    }
    let after = place_after(catalog, after, &own)?;
    // Later than any row; and a run is behind another of the same time if its name is lower.
    let mut next = after.clone().unwrap_or(ListPlace {
        created_at: i64::MAX,
        run: Box::default(),
    });
    own.retain(|shown| {
        let is_behind = after.as_ref().is_none_or(|after| shown.run.place < *after);
        is_behind && shown.fits(filter)
    });
    let mut page = own;
    let mut written = 0;
    loop {
        let (rows, has_more) = store::list_runs(catalog, filter, &next, limit - written)?;
        if let Some(last) = rows.last() {
            next = last.place.clone();
        }
        for run in rows {
            if keys.binary_search(&run.place.run).is_ok() {
                continue;
            }
            // As the caller: what a policy hides is passed over, what the caller may not read at all is an error.
            if let Some((version, updated_at)) = store::run_head(catalog, &run.place.run)? {
                written += 1;
                page.try_push(Shown {
                    run,
                    version,
                    updated_at: Some(updated_at),
                })?;
            }
        }
        if !has_more || written >= limit {
            break;
        }
    }
    page.sort_by(|a, b| b.run.place.cmp(&a.run.place));
    page.truncate(limit);
    Ok(page)
}

/// How many runs a page has at most.
fn limit(call: &Call<'_>, n: usize) -> Result<usize> {
    match call.integer(n) {
        Some(limit @ 1..=MOST) => Ok(limit as usize),
        Some(_) => Err(Error::argument(format!("limit must be from 1 to {MOST}"))),
        None => Err(Error::null_argument("limit")),
    }
}

/// Claims a run that waits, if it still does and the caller may; its token.
fn try_claim(
    catalog: &Rc<Catalog>,
    run: &[u8],
    owner: &[u8],
    lease: &pg_sys::Interval,
) -> Result<Option<i64>> {
    let state = StateRef::new(catalog, RUN, run)?;
    transaction::check_may_change(&state, c"state_context_claim_next()")?;
    if !runs(&state)? {
        return Ok(None);
    }
    transaction::note_claim();
    if !store::lock_waiting_run(catalog, run)? {
        return Ok(None);
    }
    let Some((_, document)) = transaction::read_latest(&state, &mut Document)?.state() else {
        return Ok(None);
    };
    let Ok(context) = Run::open(&document, run) else {
        return Ok(None);
    };
    if context.status() != Status::Running {
        return Ok(None);
    }
    match lock_place(&state, &context, PlaceLock::Stays) {
        // A document that does not fit its place: the others must not wait behind it.
        Err(Error::Capability(_)) => return Ok(None),
        other => other?,
    };
    let _owner = Impersonation::owner_of(catalog.context);
    let claim = store::take_claim(catalog, run, owner, lease)?;
    Ok(claim.map(|claim| claim.token))
}

/// Whether the caller sees a run that has not ended.
fn runs(state: &StateRef<'_>) -> Result<bool> {
    let found = transaction::read_latest(state, &mut Document)?.state();
    Ok(found.is_some_and(|(_, document)| {
        Run::open(&document, state.key).is_ok_and(|context| context.status() == Status::Running)
    }))
}

sql_functions! {
    /// `state_context_list(status, swarm_id, parent_run_id, owner, claimed, after, limit)`
    fn state_context_list(call) {
        let filter = Filter {
            status: label::<Status>(call, 0, "status")?,
            swarm: call.text(1),
            parent: call.text(2),
            owner: call.text(3),
            claimed: call.boolean(4),
        };
        let (after, limit) = (call.text(5), limit(call, 6)?);
        let catalog = catalog::current(call.function())?;
        // Who may not read states gets the server's error also where no run fits.
        store::run_head(&catalog, b"")?;
        let page = page(&catalog, &filter, after, limit)?;
        let mut rows = call.rows()?;
        let text = |bytes: &[u8]| call::varlena_datum(bytes);
        for Shown { run, version, updated_at } in page {
            let is_owned = run.owner.is_some();
            rows.push([
                Some(text(&run.place.run)),
                run.listed.parent.as_deref().map(text),
                Some(text(run.listed.status.name().as_bytes())),
                run.owner.as_deref().map(text),
                is_owned.then(|| call::bigint_datum(run.expires_at)),
                Some(call::bigint_datum(version)),
                updated_at.map(call::bigint_datum),
                run.listed.step.as_deref().map(text),
            ]);
        }
        Ok(call::void_datum())
    }

    /// `state_context_claim_next(owner, lease, swarm_id, routine_id)`
    fn state_context_claim_next(call) {
        let (owner, lease) = (owner(call, 0)?, lease(call, 1)?);
        let of = (call.text(2), call.text(3));
        let catalog = catalog::current(call.function())?;
        transaction::check_may_write(&catalog, c"state_context_claim_next()")?;
        let mut rows = call.rows()?;
        let now = sys::now();
        let mut after = Waiting { run: Box::default(), since: i64::MIN };
        loop {
            let waiting = {
                let _snapshot = PushedSnapshot::latest();
                store::waiting_runs(&catalog, of, now, &after)?
            };
            if waiting.is_empty() {
                return Ok(call::void_datum());
            }
            for next in waiting {
                if let Some(token) = try_claim(&catalog, &next.run, owner, &lease)? {
                    rows.push([Some(call::varlena_datum(&next.run)), Some(call::bigint_datum(token))]);
                    return Ok(call::void_datum());
                }
                after = next;
            }
        }
    }
}
